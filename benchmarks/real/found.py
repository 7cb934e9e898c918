"""What a plan left in benchmarks/results/real, and the arithmetic of its tables."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from benchmarks.real.plan import Plan
from clade.evaluation import Evaluation

SCORES = (
    ("miou", "mIoU (%) ↑", 2),
    ("accuracy", "accuracy (%) ↑", 2),
    ("fd", "FD, training photos ↓", 1),
    ("fd-val", "FD, these maps' photos ↓", 1),
    ("fid", "FID ↓", 1),
    ("l1", "L1 ↓", 3),
)
"""Key, title and digits of what is reported."""


@dataclass(frozen=True)
class Found:
    """The results of a plan, read from its folder alone."""

    plan: Plan
    folder: Path

    @property
    def split(self) -> str:
        """The one that rankings go by."""
        return next(iter(self.plan.splits))

    def title(self, system: str) -> str:
        return self.plan.systems[system].title

    def read(self, name: str) -> Any:
        """A JSON file of it, None where it is not there."""
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def evaluation(self, name: str, split: str | None = None, reference: str = "train") -> Evaluation | None:
        path = self.folder / name / f"{split or self.split}-{reference}.json"
        return Evaluation.load(path) if path.exists() else None

    def values(self, name: str, split: str | None = None) -> dict[str, float]:
        """Every score of one checkpoint; empty where it was not evaluated."""
        to_trained, to_own = (self.evaluation(name, split, reference) for reference in ("train", "val"))
        if to_trained is None:
            return {}
        return {**to_trained.scores, **({} if to_own is None else {"fd-val": to_own.scores["fd"]})}

    def names(self, system: str) -> list[str]:
        return [f"{system}-{seed}" for seed in self.plan.systems[system].seeds]

    def over_seeds(self, system: str, key: str, split: str | None = None) -> list[float]:
        found = (self.values(name, split) for name in self.names(system))
        return [values[key] for values in found if key in values]

    def pooled(self, key: str) -> tuple[float, int]:
        """Standard deviation over seeds, pooled over the systems that have several, and its degrees of freedom.

        (nan, 0) where none has.
        """
        groups = [g for system in self.plan.systems if len(g := self.over_seeds(system, key)) > 1]
        freedom = sum(len(group) - 1 for group in groups)
        if not freedom:
            return float("nan"), 0
        return (sum((len(g) - 1) * statistics.variance(g) for g in groups) / freedom) ** 0.5, freedom

    def comparisons(self) -> list[Comparison]:
        """The paper's pairs of systems, in every score that the paper and we have of both, on the first split."""
        paper, found = self.plan.paper, []
        for one, other in paper.get("pairs", ()):
            for key, scores in paper["scores"].items():
                ours = [self.over_seeds(name, key) for name in (one, other)]
                if all(ours) and {one, other} <= scores.keys():
                    gap = scores[one] - scores[other]
                    found.append(Comparison(one, other, key, gap, ours[0], ours[1], *self.pooled(key)))
        return found


@dataclass(frozen=True)
class Comparison:
    """Two systems in one score.

    A difference d of means over n and m seeds has the standard error e = s sqrt(1/n + 1/m), and the 95 % interval
    d +- t e with Student's t of the degrees of freedom of s. It is decided where 0 lies outside.

    Attributes:
        one, other, key: the systems' and the score's names.
        paper: the paper's difference.
        ones, others: the scores of each over its seeds, at least one.
        deviation: s, of a single seed.
        freedom: its degrees of freedom; 0 where no system has several seeds.
    """

    one: str
    other: str
    key: str
    paper: float
    ones: Sequence[float]
    others: Sequence[float]
    deviation: float
    freedom: int

    @property
    def difference(self) -> float:
        return statistics.mean(self.ones) - statistics.mean(self.others)

    @property
    def margin(self) -> float:
        """Half of the 95 % interval; infinite where nothing is known of the spread."""
        if not self.freedom:
            return float("inf")
        error = self.deviation * (1 / len(self.ones) + 1 / len(self.others)) ** 0.5
        return float(student.ppf(0.975, self.freedom)) * error

    @property
    def agrees(self) -> bool | None:
        """Whether the difference points as the paper's does; None where it is not decided."""
        if abs(self.difference) <= self.margin:
            return None
        return (self.difference > 0) == (self.paper > 0)

    @property
    def verdict(self) -> str:
        if self.agrees is not None:
            return "as the paper" if self.agrees else "**not** as the paper"
        if not self.freedom:
            return "not decided; no system has several seeds"
        # k seeds of each bring the standard error to |d| / 2, by when t is close to 2.
        seeds = 2 * (2 * self.deviation / self.difference) ** 2 if self.difference else float("inf")
        needed = (
            f"about {max(3, round(seeds))} seeds of each would" if seeds < 100 else "no sensible number of seeds would"
        )
        return f"not decided; {needed}"

    def shown(self, digits: int = 2) -> str:
        plain = f"{self.difference:+.{digits}f}"
        return plain if not self.freedom else f"{plain} ± {self.margin:.{digits}f}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; all columns but the first to the right."""
    rule = "|---|" + "--:|" * (len(columns) - 1)
    head, *lines = ("| " + " | ".join(row) + " |" for row in [columns, *rows])
    return "\n".join([head, rule, *lines])


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation (n - 1) over seeds; a lone value as it is."""
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"

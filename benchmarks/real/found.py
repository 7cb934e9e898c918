"""What a plan left in benchmarks/results/real, and the arithmetic of its tables."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    def pooled(self, key: str) -> float:
        """Standard deviation over seeds, pooled over the systems that have several; nan where none has."""
        groups = [g for system in self.plan.systems if len(g := self.over_seeds(system, key)) > 1]
        freedom = sum(len(group) - 1 for group in groups)
        if not freedom:
            return float("nan")
        return (sum((len(g) - 1) * statistics.variance(g) for g in groups) / freedom) ** 0.5


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


def compared(ours: Sequence[Sequence[float]], theirs: float, deviation: float) -> tuple[str, str]:
    """(difference with its standard error, verdict) of two systems' scores.

    A difference d of means over n and m seeds has the standard error s sqrt(1/n + 1/m), and k seeds of each bring it to
    |d| / 2 where k = 2 (2 s / d)^2.

    Args:
        ours: the scores of each over its seeds, at least one.
        theirs: the paper's difference.
        deviation: s, of a single seed.
    """
    difference = statistics.mean(ours[0]) - statistics.mean(ours[1])
    if deviation != deviation:
        return f"{difference:+.2f}", "not decided; no system has several seeds"
    error = deviation * sum(1 / len(values) for values in ours) ** 0.5
    shown = f"{difference:+.2f} ± {error:.2f}"
    if abs(difference) > 2 * error:
        return shown, "as the paper" if (difference > 0) == (theirs > 0) else "**not** as the paper"
    seeds = 2 * (2 * deviation / difference) ** 2 if difference else float("inf")
    needed = f"about {max(3, round(seeds))} seeds of each would" if seeds < 100 else "no sensible number of seeds would"
    return shown, f"not decided; {needed}"

"""What is trained, compared and reported: a YAML file beside this one, read into frozen dataclasses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from clade import CladeError, Recipe

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training of a plan: a system and a seed."""

    system: str
    seed: int
    recipe: str
    overrides: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.system}-{self.seed}"

    def arguments(self) -> list[str]:
        """What follows `clade train RECIPE`."""
        words = []
        for key, value in {**self.overrides, "training.seed": self.seed}.items():
            words += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
        return words

    def resolved(self, root: str) -> Recipe:
        return Recipe.from_yaml(self.recipe, [*self.arguments(), "--data.root", root])


@dataclass(frozen=True, kw_only=True)
class System:
    """A kind of network, or a way to train one: what its recipe differs in from the plan's, and its seeds."""

    title: str
    seeds: tuple[int, ...] = (0,)
    set: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A comparison.

    Attributes:
        title: heading of its report.
        recipe: what all trainings share; the name of one that comes with clade, or a file.
        judge: recipe of the segmenter that scores mIoU and accuracy, and whose features the Fréchet distance uses.
        systems: name -> what is trained, in the order of training.
        tables: heading of a table -> the systems in it.
        splits: part of the data whose label maps are drawn and scored -> what it is, in words.
        convert: the SPADE system that is converted to CLADE and fine-tuned for 5 % of its steps; None for none.
        fit: label maps that the converted tables are fitted to, in a second conversion; 0 for none.
        analyze: the SPADE system that section 3.1 is repeated on; None for none.
        sheet: systems on the sheet of pictures.
        maps: label maps on it, chosen by ``sheet_seed``.
        paper: the paper's scores of the same systems, for the ranking.
    """

    name: str
    title: str
    recipe: str
    judge: str
    systems: Mapping[str, System]
    tables: Mapping[str, tuple[str, ...]]
    splits: Mapping[str, str]
    convert: str | None = None
    fit: int = 64
    analyze: str | None = None
    sheet: tuple[str, ...] = ()
    maps: int = 8
    sheet_seed: int = 0
    paper: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trainings(self) -> list[Training]:
        """First every system's first seed, then the second ones."""
        found = [
            Training(system=name, seed=seed, recipe=self.recipe, overrides=system.set)
            for name, system in self.systems.items()
            for seed in system.seeds
        ]
        return sorted(found, key=lambda one: self.systems[one.system].seeds.index(one.seed))


def read_plan(name: str) -> Plan:
    """A plan by path, or by the name of one beside this file.

    Raises:
        CladeError: unreadable, unknown keys, or systems named that the plan does not have.
    """
    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.yaml")))
        raise CladeError(f"There is no plan '{name}'. Known: {known}, or a path ending in .yaml.")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        systems = {
            key: System(**{**value, "seeds": tuple(value.get("seeds", (0,)))})
            for key, value in content.pop("systems").items()
        }
        tables = {key: tuple(value) for key, value in content.pop("tables").items()}
        sheet = tuple(content.pop("sheet", ()))
        plan = Plan(name=path.stem, systems=systems, tables=tables, sheet=sheet, **content)
    except (TypeError, KeyError, AttributeError) as error:
        raise CladeError(f"{path}: not a plan ({error}); see {FOLDER.name}/camvid-128.yaml for one.") from error
    used = {*sheet, *(one for table in tables.values() for one in table), plan.convert, plan.analyze} - {None}
    if Recipe.from_yaml(plan.recipe).training.steps is None:
        raise CladeError(f"{path}: its recipe {plan.recipe} has no training.steps, by which one tells what is done.")
    if not used <= systems.keys():
        raise CladeError(f"{path}: names systems that it does not have: {', '.join(sorted(used - systems.keys()))}.")
    return plan

"""What the doctor found, for people and for programs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clade.data.doctor.advice import Advice
from clade.data.doctor.looking import FAILURES
from clade.data.doctor.notes import Duplicate
from clade.data.doctor.splits import SplitReport
from clade.errors import DataError
from clade.io.atomic import atomic_path
from clade.labels.labelspace import LabelSpace

_SHOWN = 20  # how many problems print() shows; to_dict() has all
_OF_A_KIND = 3  # how many files of one kind


@dataclass
class Report:
    """What :func:`check` found.

    Args:
        root: the folder of the dataset.
        splits: one report per split.
        layout: name of the dataset whose layout it has, None for a folder in no known layout.
        general: problems that concern the dataset as a whole.
        notes: what is suspicious but does not keep it from being trained on.
        duplicates: groups of equal pictures.
        advice: options that fix what can be fixed so.
        suggestion: a ``classes.json`` that does the same, None where nothing has to be fixed or can be.
    """

    root: Path
    splits: list[SplitReport]
    layout: str | None = None
    general: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    duplicates: list[Duplicate] = field(default_factory=list)
    advice: Advice = field(default_factory=Advice)
    suggestion: dict[str, Any] | None = None

    @property
    def problems(self) -> list[str]:
        """All that keeps the dataset from being trained on, as it is."""
        return [*self.general, *(problem for split in self.splits for problem in split.problems)]

    @property
    def grouped_problems(self) -> list[str]:
        """The same, with only the first files where many have the same fault."""
        found = list(self.general)
        for split in self.splits:
            found += split.unpaired
            kinds = Counter(kind for kind, _, _ in split.failures)
            for kind, count in kinds.items():
                messages = [message for this, _, message in split.failures if this == kind]
                found += messages[: _OF_A_KIND if count > _OF_A_KIND + 1 else None]
                if count > _OF_A_KIND + 1:
                    found.append(f"In all, {count} {FAILURES[kind]}; --json lists them.")
            found += split.findings
        return found

    @property
    def clean(self) -> bool:
        return not self.problems

    @property
    def space(self) -> LabelSpace | None:
        """The classes with which the dataset opens: its own, or as advised; None where they are not known."""
        own = next((split.space for split in self.splits if split.space is not None), None)
        return self.advice.space or own

    def fix_lines(self) -> list[str]:
        """Lines of a recipe that fix what can be fixed so; empty where nothing has to be."""
        return self.advice.lines()

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        options = dict(self.advice.options)
        if "remap" in options:
            options["remap"] = {str(source): target for source, target in options["remap"].items()}
        return {
            "root": str(self.root),
            "layout": self.layout,
            "clean": self.clean,
            "problems": self.problems,
            "notes": self.notes,
            "fix": options,
            "suggestion": self.suggestion,
            "duplicates": [duplicate.to_dict() for duplicate in self.duplicates],
            "splits": [split.to_dict() for split in self.splits],
        }

    def write_classes(self, path: str | Path) -> Path:
        """Write a complete ``classes.json`` with which the ids and colours of the dataset are classes.

        Raises:
            DataError: the file exists, or no classes fit.
        """
        path = Path(path)
        require_new(path)
        space = LabelSpace.from_dict(self.suggestion) if self.suggestion is not None else self.space
        if space is None:
            raise DataError(f"{self.root}: no classes that fit are known, so {path} was not written.")
        return _written(path, json.dumps(space.to_dict(), indent=1) + "\n")

    def html(self, path: str | Path, seed: int = 0) -> Path:
        """Write a page with the class shares and pictures, that needs no other file; an older one is replaced.

        Args:
            seed: which pictures are shown.
        """
        from clade.data.doctor.page import page

        return _written(Path(path), page(self, seed))

    def print(self, console: Console | None = None) -> None:
        """Tables of the files and of the ids in use, then problems, notes, and what fixes them."""
        console = console or Console()
        if self.splits:
            console.print(self._files_table())
        if any(split.pixels for split in self.splits):
            console.print(self._ids_table())
        problems = self.grouped_problems
        for problem in problems[:_SHOWN]:
            console.print(Text(f"- {problem}", style="red"), soft_wrap=True)
        if len(problems) > _SHOWN:
            console.print(f"... and {len(problems) - _SHOWN} more problems.")
        for note in self.notes:
            console.print(Text(f"- Note: {note}", style="yellow"), soft_wrap=True)
        lines = self.fix_lines()
        if lines:
            console.print("In the recipe, this makes every id and colour a class (or --write classes.json):")
            for line in lines:
                console.print(Text(line), soft_wrap=True)
            console.print(Text(f"On the command line: {self.advice.flags()}"), soft_wrap=True)
        elif self.suggestion is not None:
            console.print("--write FILE writes a classes.json that fits the ids in use.")
        if self.clean:
            console.print(Text("No problems found.", style="green"))

    def _files_table(self) -> Table:
        title = Text(f"{self.root} ({self.layout or 'no known layout'})")
        table = Table("split", "pairs", "maps", "photos", "instances", "sizes (height x width)", "errors", title=title)
        for split in self.splits:
            sizes = [f"{height} x {width}: {count}" for (height, width), count in split.sizes.most_common(4)]
            more = [f"{len(split.sizes) - 4} more sizes"] if len(split.sizes) > 4 else []
            counts = map(str, (split.pairs, split.maps, split.photos, split.objects))
            table.add_row(Text(split.name or "-"), *counts, "\n".join(sizes + more), str(len(split.errors)))
        return table

    def _ids_table(self) -> Table:
        table = Table("id", "class")
        for split in self.splits:
            table.add_column(Text(f"{split.name or ''} share".strip()), justify="right")
            table.add_column("maps", justify="right")
        for number in sorted(set().union(*(split.pixels for split in self.splits))):
            name = next((name for split in self.splits if (name := split.class_of(number))), "?")
            cells = [(f"{split.share(number):.3%}", str(split.used[number])) for split in self.splits]
            table.add_row(str(number), Text(name), *(text for pair in cells for text in pair))
        return table


def require_new(path: Path) -> None:
    """Raises DataError where a file would be overwritten."""
    if path.exists():
        raise DataError(f"{path}: exists and is not overwritten. Move it away, or name another file.")


def _written(path: Path, text: str) -> Path:
    try:
        # A name that is no UTF-8 is shown with its odd bytes as \udcXX.
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error}). Name a file elsewhere.") from error
    return path


def suggested(advice: Advice, splits: list[SplitReport], found: dict[str, Any] | None) -> dict[str, Any] | None:
    """The ``classes.json`` to suggest: that of the advice, or ``found`` where no classes are known."""
    if advice.options and advice.space is not None and all(split.space is not None for split in splits):
        return advice.space.to_dict()
    if any(split.space is None for split in splits):
        if advice.space is not None and "palette" in advice.options:
            return advice.space.to_dict()
        return found
    return None

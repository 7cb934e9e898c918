"""What a conversion made."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from clade.labels.labelspace import LabelSpace

_SHOWN = 20


@dataclass
class SplitSummary:
    """One split.

    Args:
        written: pictures that this run made.
        present: those that an earlier run of the same command had made.
        pixels: number in the label files -> pixels, over both.
        maps: number in the label files -> how many label maps have it.
    """

    written: int = 0
    present: int = 0
    pixels: Counter[int] = field(default_factory=Counter)
    maps: Counter[int] = field(default_factory=Counter)


@dataclass
class ConvertReport:
    """What :func:`clade.data.convert.convert` made.

    Args:
        out: the folder.
        space: the classes.
        splits: name (None for a dataset of one part) -> what it holds.
        photos, instances: whether there are any.
        merged: new class -> the old ones, where classes were merged.
        skipped: what was left out because it could not be used (``on_error="skip"``), in words.
        excluded: names that were left out on request.
        unused: photos without a label, left out.
        notes: what is to be known of the classes, in words.
    """

    out: Path
    space: LabelSpace
    splits: dict[str | None, SplitSummary] = field(default_factory=dict)
    photos: bool = False
    instances: bool = False
    merged: dict[str, list[str]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was skipped; the exit code of the command."""
        return not self.skipped

    def share(self, split: str | None, number: int) -> float:
        """Share of a split's pixels that have this number in the label files, 0 to 1."""
        pixels = self.splits[split].pixels
        return pixels[number] / max(pixels.total(), 1)

    def _classes(self) -> list[tuple[int, str]]:
        classes = list(enumerate(self.space.names))
        return classes if self.space.unknown is None else [*classes, (self.space.unknown, "unknown")]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the name of a dataset's only part is null."""
        return {
            "out": str(self.out),
            "splits": [
                {
                    "name": name,
                    "written": part.written,
                    "present": part.present,
                    "classes": [
                        {
                            "id": number,
                            "class": title,
                            "pixels": part.pixels[number],
                            "share": self.share(name, number),
                            "maps": part.maps[number],
                        }
                        for number, title in self._classes()
                    ],
                }
                for name, part in self.splits.items()
            ],
            "photos": self.photos,
            "instances": self.instances,
            "merged": self.merged,
            "skipped": self.skipped,
            "excluded": self.excluded,
            "unused": self.unused,
            "notes": self.notes,
            "clean": self.clean,
        }

    def print(self, console: Console) -> None:
        """For people: counts, a table of the classes, and what was left out."""
        for name, part in self.splits.items():
            there = f", {part.present} were there already" if part.present else ""
            console.print(Text(f"{name or 'pictures'}: {part.written} written{there}"))
        table = Table("id", "class", *(f"{name or 'pixels'}" for name in self.splits))
        for number, title in self._classes():
            shares = [
                f"{self.share(name, number):.3%} ({part.maps[number]})" if part.maps[number] else "-"
                for name, part in self.splits.items()
            ]
            table.add_row(str(number), Text(title), *shares)
        console.print(table)
        console.print(Text("share of the pixels (label maps that have the class)"))
        if not self.photos:
            console.print(Text("without photos: name their folder as images to have them too"))
        for note in self.notes:
            console.print(Text(f"Note: {note}"))
        self._list(console, "photos have no label and were left out", self.unused)
        self._list(console, "left out on request", self.excluded)
        self._list(console, "skipped, because they cannot be used", self.skipped)
        console.print(Text(str(self.out)))

    @staticmethod
    def _list(console: Console, what: str, lines: list[str]) -> None:
        if not lines:
            return
        console.print(Text(f"{len(lines)} {what}:"))
        for line in lines[:_SHOWN]:
            console.print(Text(f"  {line}"))
        if len(lines) > _SHOWN:
            console.print(Text(f"  and {len(lines) - _SHOWN} more"))

"""``clade data check DIR``: everything that is wrong with a dataset folder, at once and before training."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from clade.data.folder import (
    Listing,
    completed_space,
    find_splits,
    list_files,
    read_photo,
    require_same_size,
    split_folder,
    stored_space,
)
from clade.errors import CladeError, LabelError
from clade.labels.files import read_instances, read_label
from clade.labels.labelspace import LabelSpace

_SHOWN = 20  # how many lines of a kind print() shows; to_dict() has all
_AHEAD = 256  # files handed to the threads at a time, so that Ctrl-C is soon heard


@dataclass
class SplitReport:
    """What one split holds. Ids are the numbers as they stand in the label files.

    Args:
        name: of the split, None for a root without split folders.
        space: its classes, None where they are not known.
        maps: number of label maps that were read.
        pairs: names that have all their files.
        sizes: (height, width) of the label maps -> number of maps.
        pixels: id -> pixels over all maps.
        used: id -> number of maps that have it.
        outside: label file -> id that the space does not know -> pixels.
        unpaired, errors: what does not pair up, and what cannot be read or used, in words.
    """

    name: str | None
    space: LabelSpace | None
    maps: int = 0
    pairs: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    pixels: Counter[int] = field(default_factory=Counter)
    used: Counter[int] = field(default_factory=Counter)
    outside: dict[str, dict[int, int]] = field(default_factory=dict)
    unpaired: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        return [*self.unpaired, *self.errors, *self._outside_problems(), *self._mask_problem()]

    def share(self, number: int) -> float:
        """Share of all pixels that have this id, 0 to 1."""
        return self.pixels[number] / max(self.pixels.total(), 1)

    def class_of(self, number: int) -> str | None:
        """Name of the class as which a number is read; None where it is outside the space, or no space is known."""
        number_ = np.array([number])
        if self.space is None or self.space.unmapped(number_):
            return None
        return self.space.name(int(self.space.encode(number_)[0]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; sizes are written "height x width"."""
        ids = [
            {"id": n, "class": self.class_of(n), "pixels": self.pixels[n], "share": self.share(n), "maps": self.used[n]}
            for n in sorted(self.pixels)
        ]
        return {
            "name": self.name,
            "pairs": self.pairs,
            "maps": self.maps,
            "sizes": {f"{height} x {width}": count for (height, width), count in self.sizes.most_common()},
            "ids": ids,
            "outside": {path: {str(n): count for n, count in ids.items()} for path, ids in self.outside.items()},
            "unpaired": self.unpaired,
            "errors": self.errors,
        }

    def _outside_problems(self) -> list[str]:
        files: dict[int, dict[str, int]] = {}
        for path, counts in self.outside.items():
            for number, pixels in counts.items():
                files.setdefault(number, {})[path] = pixels
        return [self._outside_problem(number, files[number]) for number in sorted(files)]

    def _mask_problem(self) -> list[str]:
        space = self.space
        if space is None or set(self.pixels) != {0, 255} or space.unknown != 255 or 255 in space.remap:
            return []  # where 255 is no number of the space, that has been said
        return [
            f"all label maps hold only 0 and 255: a mask of one object, or only '{space.names[0]}' and unknown of "
            f"the {space.num_classes} classes. A mask is read as two classes by the remap {{255: 1}}."
        ]

    def _outside_problem(self, number: int, files: dict[str, int]) -> str:
        assert self.space is not None
        worst = Counter(files).most_common(3)
        listed = ", ".join(f"{path} ({pixels} pixels)" for path, pixels in worst)
        more = f" and {len(files) - len(worst)} more" if len(files) > len(worst) else ""
        mask = " The remap {255: 1} reads a mask of 0 and 255 as two classes." if set(self.pixels) <= {0, 255} else ""
        return (
            f"id {number} is outside the label space of {self.space.num_classes} classes "
            f"(0..{self.space.num_classes - 1}, unknown = {self.space.unknown}): {sum(files.values())} pixels in "
            f"{len(files)} label maps: {listed}{more}. "
            f"Set num_classes or unknown, or map {number} with remap, in classes.json or as data.* options.{mask}"
        )


@dataclass
class Report:
    """What :func:`check` found.

    Args:
        root: the folder of the dataset.
        splits: one report per split.
        general: problems that concern the dataset as a whole.
        suggestion: what to write in ``classes.json`` where the classes are not known.
    """

    root: Path
    splits: list[SplitReport]
    general: list[str] = field(default_factory=list)
    suggestion: dict[str, Any] | None = None

    @property
    def problems(self) -> list[str]:
        """All that keeps the dataset from being trained on, as it is."""
        return [*self.general, *(problem for split in self.splits for problem in split.problems)]

    @property
    def clean(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return {
            "root": str(self.root),
            "clean": self.clean,
            "problems": self.problems,
            "suggestion": self.suggestion,
            "splits": [split.to_dict() for split in self.splits],
        }

    def print(self, console: Console | None = None) -> None:
        """Tables of the files and of the ids in use, then the problems."""
        console = console or Console()
        console.print(self._files_table())
        if any(split.pixels for split in self.splits):
            console.print(self._ids_table())
        problems = self.problems
        for problem in problems[:_SHOWN]:
            console.print(Text(f"- {problem}", style="red"), soft_wrap=True)
        if len(problems) > _SHOWN:
            console.print(f"... and {len(problems) - _SHOWN} more problems.")
        if self.suggestion is not None:
            console.print(Text(f"Suggested classes.json:\n{json.dumps(self.suggestion)}"), soft_wrap=True)
        if self.clean:
            console.print(Text("No problems found.", style="green"))

    def _files_table(self) -> Table:
        table = Table("split", "pairs", "maps", "sizes (height x width)", "errors", title=Text(str(self.root)))
        for split in self.splits:
            sizes = [f"{height} x {width}: {count}" for (height, width), count in split.sizes.most_common(4)]
            more = [f"{len(split.sizes) - 4} more sizes"] if len(split.sizes) > 4 else []
            counts = (str(split.pairs), str(split.maps))
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


def check(
    root: str | Path,
    split: str | None = None,
    num_classes: int | None = None,
    unknown: int | None = None,
    remap: Mapping[int, int] | None = None,
    workers: int | None = None,
    labels_only: bool = False,
) -> Report:
    """Read every file of a dataset folder once and report all that is wrong, not only the first.

    Args:
        root: the folder, as :class:`clade.data.FolderDataset` reads it.
        split: only this one; else every split that is there.
        num_classes, unknown, remap: as in FolderDataset.
        workers: reading threads; one per core, at most 8, when left out.
        labels_only: do not look at photos.

    Raises:
        DataError: ``root`` is missing or holds no dataset. All else is in the report.
    """
    root = Path(root)
    report = Report(root, [])
    workers = workers or min(8, os.cpu_count() or 1)
    # The readers silence Pillow's warnings; done in several threads, that could outlive them.
    with warnings.catch_warnings():
        for name in [split] if split is not None else find_splits(root):
            folder = split_folder(root, name)
            space = _space(folder, root, num_classes, unknown, remap, report.general)
            report.splits.append(_check_split(name, list_files(folder, labels_only), space, workers))
    if any(part.space is None for part in report.splits):
        report.suggestion = _suggestion(set().union(*(part.pixels for part in report.splits)))
    return report


def _space(
    folder: Path,
    root: Path,
    num_classes: int | None,
    unknown: int | None,
    remap: Mapping[int, int] | None,
    problems: list[str],
) -> LabelSpace | None:
    """The label space of a split, or None and one more problem."""
    try:
        return completed_space(stored_space(folder, root), num_classes, unknown, remap, source=str(folder))
    except CladeError as error:
        if str(error) not in problems:
            problems.append(str(error))
        return None


def _check_split(name: str | None, files: Listing, space: LabelSpace | None, workers: int) -> SplitReport:
    report = SplitReport(name, space, pairs=len(files.names), unpaired=list(files.problems))
    if not files.labels:
        report.errors.append(f"{files.folder / 'labels'}: no label files. Put one per photo there, named as the photo.")
    found = _in_threads(partial(_look, files, space), list(files.labels), workers)
    bar = Console(stderr=True)
    for look in track(
        found, f"reading {name or 'files'}", len(files.labels), console=bar, disable=not sys.stderr.isatty()
    ):
        report.errors += look.errors
        if look.size is not None:
            report.maps += 1
            report.sizes[look.size] += 1
            report.pixels.update(look.pixels)
            report.used.update(look.pixels.keys())
        if look.outside:
            report.outside[str(look.label)] = look.outside
    return report


def _in_threads(look: Any, names: list[str], workers: int) -> Iterable[_Look]:
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(names), _AHEAD):
            yield from pool.map(look, names[start : start + _AHEAD])


@dataclass
class _Look:
    """What one name's files hold."""

    label: Path
    size: tuple[int, int] | None = None
    pixels: dict[int, int] = field(default_factory=dict)
    outside: dict[int, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


def _look(files: Listing, space: LabelSpace | None, name: str) -> _Look:
    look = _Look(files.labels[name])
    try:
        numbers = _read_numbers(look.label, space)
        look.size = (numbers.shape[0], numbers.shape[1])
        look.pixels = _count(numbers)
    except LabelError as error:
        look.errors.append(str(error))
    if space is not None and look.pixels:
        outside = space.unmapped(np.array(list(look.pixels)))
        look.outside = {number: look.pixels[number] for number in outside}
    for part, read in ((files.images, read_photo), (files.instances, read_instances)):
        if part is None or name not in part:
            continue
        try:
            shape = read(part[name]).shape
            if look.size is not None:
                require_same_size(part[name], shape, look.label, look.size)
        except CladeError as error:
            look.errors.append(str(error))
    return look


def _read_numbers(path: Path, space: LabelSpace | None) -> np.ndarray:
    """The numbers in a label file; those of the classes whose colours it shows, where it is a colour picture."""
    if space is None or not _is_colour(path):
        return read_label(path)
    rows = np.arange(space.num_rows)
    if space.unknown is not None:
        rows[-1] = space.unknown
    return rows[read_label(path, space)]


def _is_colour(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.mode in ("RGB", "RGBA")
    except Exception:  # read_label says what is wrong with it
        return False


def _count(numbers: np.ndarray) -> dict[int, int]:
    if numbers.dtype == np.uint8:  # several times faster than sorting
        counts = np.bincount(numbers.ravel(), minlength=256)
        return {int(number): int(counts[number]) for number in np.flatnonzero(counts)}
    values, counts = np.unique(numbers, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _suggestion(ids: set[int]) -> dict[str, Any] | None:
    """A ``classes.json`` that fits the ids in use."""
    unknown = 255 if 255 in ids and len(ids) > 2 and max(ids) == 255 else None
    classes = sorted(ids - {unknown})
    if not classes:
        return None
    sparse = classes[-1] >= 4 * len(classes) or classes[0] < 0
    count = len(classes) if sparse else classes[-1] + 1
    found: dict[str, Any] = {"names": [f"class {k}" for k in range(count)], "unknown": unknown}
    if sparse:
        found["remap"] = {str(number): k for k, number in enumerate(classes) if number != k}
    return found

"""``clade data check DIR``: everything that is wrong with a dataset, at once and before training."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clade.data.doctor.advice import advise, classes_for
from clade.data.doctor.foreign import find_foreign, known_nearby
from clade.data.doctor.looking import Reader, in_threads
from clade.data.doctor.notes import find_duplicates, find_notes
from clade.data.doctor.report import Report, suggested
from clade.data.doctor.splits import SplitReport
from clade.data.files import FileDataset, Listing, completed_space, find_layout, layouts, require_folder
from clade.data.prepared import require_raw
from clade.errors import CladeError, DataError
from clade.labels.labelspace import Color, LabelSpace
from clade.registry import near_match
from clade.system.progress import track


def check(
    root: str | Path,
    *,
    name: str | None = None,
    split: str | None = None,
    num_classes: int | None = None,
    unknown: int | None = None,
    remap: Mapping[int, int] | None = None,
    palette: Sequence[Color] | None = None,
    workers: int | None = None,
    labels_only: bool = False,
    progress: bool = True,
) -> Report:
    """Read every file of a dataset once and report all that is wrong, not only the first.

    Args:
        root: the folder of the dataset.
        name: of the dataset whose layout it has; found by itself when left out.
        split: only this one; else every split that is there.
        num_classes, unknown, remap, palette: as in :class:`clade.data.FileDataset`.
        workers: reading threads; one per core, at most 8, when left out.
        labels_only: do not look at photos.
        progress: tell how far it is (:class:`clade.system.progress.Progress`).

    Raises:
        CladeError: ``root`` is missing or holds no dataset, or there is no such layout or split. All else is in the
            report.
    """
    root = Path(root)
    require_folder(root)
    require_raw(root)
    if workers is not None and workers < 1:
        raise CladeError(f"workers is {workers}; needed is at least 1.")
    given = {"num_classes": num_classes, "unknown": unknown, "remap": remap, "palette": palette}
    workers = workers or min(8, os.cpu_count() or 1)
    layout = _layout(root, name)
    if layout is None:
        foreign = find_foreign(root)
        if foreign is None:
            raise _nothing(root)
        report = Report(root, [], general=[foreign.problem()])
        parts: list[tuple[str | None, Listing]] = [(None, foreign.files)]
    else:
        report = Report(root, [], layout)
        cls = layouts()[layout]
        parts = _parts(cls, root, split, labels_only, report.general)
    stored = [_stored(layout, root, part, report.general) for part, _ in parts]
    # The readers silence Pillow's warnings; done in several threads, that could outlive them.
    with warnings.catch_warnings():
        for (part, files), (space, known) in zip(parts, stored, strict=True):
            # A folder in no known layout has been told what to do already.
            problems = report.general if layout is not None else []
            space = _completed(space, given, files.folder, problems) if known else None
            report.splits.append(_read(part, files, space, workers, progress))
            if not files.labels and layout is not None:
                report.splits[-1].unpaired += _no_labels(layouts()[layout], files, root)
    _same_classes(report)
    broken = not all(known for _, known in stored)
    if not broken:
        report.advice = advise(report.splits, stored[0][0] if stored else None, given)
    ids = set().union(*(part.pixels for part in report.splits))
    report.suggestion = suggested(report.advice, report.splits, classes_for(ids))
    report.duplicates = find_duplicates(report.splits)
    report.notes = find_notes(report.splits, report.duplicates, complete=split is None and layout is not None)
    return report


def _layout(root: Path, name: str | None) -> str | None:
    """The layout's name, None for a folder in none."""
    if name is None:
        try:
            return find_layout(root)
        except DataError:
            return None
    if name not in layouts():
        known = ", ".join(layouts())
        raise CladeError(f"There is no layout '{name}'.{near_match(name, layouts())} Known: {known}.")
    return name


def _nothing(root: Path) -> DataError:
    try:
        find_layout(root)
    except DataError as error:
        return DataError(f"{error} {known_nearby(root)}".rstrip())
    raise AssertionError("called only where no layout is found")


def _parts(
    cls: type[FileDataset], root: Path, split: str | None, labels_only: bool, problems: list[str]
) -> list[tuple[str | None, Listing]]:
    """The files of each split; one that cannot be listed is a problem where there are others."""
    if split is not None:
        return [(split, cls.list_files(root, split, labels_only))]
    found, errors = [], []
    for name in cls.splits(root):
        try:
            found.append((name, cls.list_files(root, name, labels_only)))
        except CladeError as error:
            errors.append(error)
    if errors and not found:
        raise errors[0]
    problems += map(str, errors)
    return found


def _stored(layout: str | None, root: Path, split: str | None, problems: list[str]) -> tuple[LabelSpace | None, bool]:
    """(the classes that the dataset brings, whether they are readable, be it that there are none)"""
    if layout is None:
        return None, True
    try:
        return layouts()[layout].stored_space(root, split), True
    except CladeError as error:
        _once(problems, str(error))
        return None, False


def _completed(
    stored: LabelSpace | None, given: Mapping[str, Any], folder: Path, problems: list[str]
) -> LabelSpace | None:
    try:
        space = completed_space(stored, **given, source=str(folder))
    except CladeError as error:
        _once(problems, str(error))
        return None
    return space


def _once(problems: list[str], problem: str) -> None:
    if problem not in problems:
        problems.append(problem)


def _read(name: str | None, files: Listing, space: LabelSpace | None, workers: int, progress: bool) -> SplitReport:
    report = SplitReport(name, space, files, pairs=len(files.names), unpaired=list(files.problems))
    looks = in_threads(Reader(files, space), files.labels, workers)
    for look in track(looks, f"reading {name or 'files'}", len(files.labels), quiet=not progress):
        report.add(look)
    return report


def _no_labels(cls: type[FileDataset], files: Listing, root: Path) -> list[str]:
    foreign = find_foreign(files.folder) or find_foreign(root)
    if foreign is not None:
        return [f"{files.folder}: no label files. {foreign.problem()}"]
    return [] if files.problems else [f"{files.folder}: no label files. {cls.LAYOUT}"]


def _same_classes(report: Report) -> None:
    """Training refuses splits whose classes differ."""
    known = [(split.name, split.space) for split in report.splits if split.space is not None]
    for name, space in known[1:]:
        first, ours = known[0]
        if (space.names, space.unknown_class) != (ours.names, ours.unknown_class):
            both = zip(ours.names, space.names, strict=False)
            what = f"{first} has {_words(ours)}, {name} has {_words(space)}"
            differ = [f"{k}: '{a}' and '{b}'" for k, (a, b) in enumerate(both) if a != b]
            listed = f" ({', '.join(differ[:3])})" if differ else ""
            report.general.append(
                f"{report.root}: the classes of the splits differ: {what}{listed}. Both need the same classes.json; "
                f"one in {report.root} serves all splits that have none of their own."
            )


def _words(space: LabelSpace) -> str:
    return f"{space.num_classes} classes and {'an' if space.unknown_class else 'no'} unknown one"

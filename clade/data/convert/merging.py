"""Merging classes by a table: {classes: {sky: [sky, cloud], ...}, unknown: [void], rest: error}."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clade.data.convert.tables import read_table
from clade.errors import LabelError
from clade.labels.labelspace import LabelSpace, distinct_colors
from clade.registry import near_match

_FORM = "A merge table is {classes: {sky: [sky, cloud], ...}, unknown: [void, ...], rest: error}."


@dataclass(frozen=True)
class Merging:
    """New classes, and how the old ones lead there.

    Args:
        space: the classes that come out; label files hold their numbers, and ``space.unknown`` for unknown pixels.
        table: row of the source's space -> number in the new label files.
        merged: new class -> the old ones that it is made of.
    """

    space: LabelSpace
    table: np.ndarray
    merged: Mapping[str, list[str]]


def plan(source: LabelSpace, merge: Any = None) -> Merging:
    """What to write for each class of the source.

    Args:
        merge: None, a mapping, or a YAML or JSON file of one. ``classes``: new class -> names or numbers of the
            source's. ``unknown``: those that become unknown. ``rest``: where all others go: a class, "unknown", or
            "error" (the default), which raises an error that lists them. Unknown pixels of the source (called
            "unknown" in the table) stay unknown unless a class takes them.

    Raises:
        DataError, LabelError: unreadable, classes that are not in the source, named twice, or not at all.
    """
    if merge is None:
        rows = list(range(source.num_classes)) + ([None] if source.unknown_class else [])
        return _merging(source, list(source.names), list(source.colors), rows, {})
    where = "merge table"
    if isinstance(merge, (str, Path)):
        where, merge = str(merge), read_table(merge)
    classes, unknown, rest = _checked(merge, where)
    names = list(classes)
    targets: dict[int, int | None] = {}
    for new, wanted in [*classes.items(), (None, unknown)]:
        for entry in wanted:
            row = _row(source, entry, where)
            if row in targets:
                raise LabelError(f"{where}: the class '{source.name(row)}' is named twice. Leave it in one place.")
            targets[row] = None if new is None else names.index(new)
    left = [row for row in range(source.num_classes) if row not in targets]
    if left and rest == "error":
        listed = ", ".join(source.name(row) for row in left)
        raise LabelError(
            f"{where}: {len(left)} of the {source.num_classes} classes are not named: {listed}. "
            "Add them, or say where they go with rest: NAME (a class) or rest: unknown."
        )
    if left and rest not in ("unknown", *names):
        names.append(rest)
    for row in left:
        targets[row] = None if rest == "unknown" else names.index(rest)
    if source.unknown_class:
        targets.setdefault(source.num_classes, None)
    first: dict[int | None, int] = {}
    for row, target in targets.items():
        first.setdefault(target, row)  # whose colour the new class takes
    made_up = distinct_colors(len(names))
    palette = [*source.colors, source.unknown_color]
    colors = [palette[first[k]] if k in first else made_up[k] for k in range(len(names))]
    merged = {name: [source.name(row) for row, to in targets.items() if to == k] for k, name in enumerate(names)}
    rows = [targets[row] for row in range(source.num_rows)]
    return _merging(source, names, colors, rows, {name: old for name, old in merged.items() if old != [name]})


def _merging(
    source: LabelSpace, names: list[str], colors: list[Any], rows: list[int | None], merged: dict[str, list[str]]
) -> Merging:
    number = 255 if len(names) <= 255 else 65535
    unknown = number if None in rows else None
    space = LabelSpace(names=tuple(names), colors=tuple(colors), unknown=unknown, unknown_color=source.unknown_color)
    highest = len(names) - 1 if unknown is None else number
    table = np.array([number if row is None else row for row in rows], np.uint8 if highest <= 255 else np.uint16)
    return Merging(space, table, merged)


def _checked(merge: Any, where: str) -> tuple[dict[str, list[Any]], list[Any], str]:
    if not isinstance(merge, Mapping) or not isinstance(merge.get("classes"), Mapping) or not merge["classes"]:
        raise LabelError(f"{where}: has no mapping 'classes'. {_FORM}")
    other = [str(key) for key in merge if key not in ("classes", "unknown", "rest")]
    if other:
        hint = near_match(other[0], ("classes", "unknown", "rest"))
        raise LabelError(f"{where}: there is no key '{other[0]}' in a merge table.{hint} {_FORM}")
    classes = {str(new): _entries(old, f"{where}: '{new}'") for new, old in merge["classes"].items()}
    if "unknown" in classes:
        raise LabelError(f"{where}: 'unknown' is no class of its own; list what is unknown under the key 'unknown'.")
    rest = merge.get("rest", "error")
    if not isinstance(rest, str):
        raise LabelError(f"{where}: rest is {rest!r}; needed is the name of a class, 'unknown' or 'error'.")
    return classes, _entries(merge.get("unknown") or [], f"{where}: 'unknown'"), rest


def _entries(value: Any, where: str) -> list[Any]:
    entries = value if isinstance(value, (list, tuple)) else [value]
    for entry in entries:
        if isinstance(entry, bool) or not isinstance(entry, (str, int)):
            raise LabelError(
                f"{where} holds {entry!r}; needed are names or numbers. YAML wants quotes around 'no', 'on'."
            )
    return list(entries)


def _row(source: LabelSpace, entry: str | int, where: str) -> int:
    """Row of a class that is named by its name or number."""
    if isinstance(entry, int):
        if not 0 <= entry < source.num_classes:
            raise LabelError(
                f"{where}: class {entry}, but the source has {source.num_classes} (0..{source.num_classes - 1})."
            )
        return entry
    rows = [row for row, name in enumerate(source.names) if name == entry]
    if not rows and entry == "unknown" and source.unknown_class:
        return source.num_classes
    if len(rows) > 1:
        raise LabelError(f"{where}: {len(rows)} classes of the source are called '{entry}'; use their numbers {rows}.")
    if not rows:
        hint = near_match(entry, source.names)
        raise LabelError(f"{where}: the source has no class '{entry}'.{hint} It has {', '.join(source.names)}.")
    return rows[0]

"""Class lists and colour tables in the forms that people keep them -> LabelSpace."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from clade.errors import CladeError, DataError, LabelError
from clade.labels.labelspace import LabelSpace

UNKNOWN = "unknown"
"""In a table of colours, the name of that of unlabelled pixels."""


def read_table(path: str | Path) -> Any:
    """A JSON or YAML file, by its suffix; raises DataError."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())}).") from error


def read_lines(path: str | Path) -> list[str]:
    """Lines of a text file that hold something, stripped; raises DataError."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}).") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_classes(value: Any) -> tuple[LabelSpace, bool]:
    """Classes as names, or as a file: classes.json, YAML, or text with one name a line; and whether it has colours.

    Raises:
        DataError, LabelError: unreadable, or no class list.
    """
    source = "classes"
    if isinstance(value, (str, Path)):
        source = str(value)
        tabled = Path(value).suffix.lower() in (".json", ".yaml", ".yml")
        value = read_table(value) if tabled else read_lines(value)
    if isinstance(value, Mapping) and "names" in value:
        return LabelSpace.from_dict(value, source), bool(value.get("colors"))
    if isinstance(value, Sequence) and value and all(isinstance(name, str) for name in value):
        return LabelSpace(names=tuple(value)), False
    raise LabelError(f"{source}: is no list of classes. Give names, one a line, or classes.json with the key 'names'.")


def read_palette(value: Any) -> LabelSpace:
    """Colours of classes: a classes.json, {name: [r, g, b]} (JSON, YAML or a mapping), or a text table.

    A line of the table is ``r g b name``, as in CamVid's label_colors.txt, or ``name:r,g,b``, as in CVAT's
    labelmap.txt; lines that begin with # are left out. In a table, the name ``unknown`` is no class: pixels of its
    colour are unknown.

    Raises:
        DataError, LabelError: unreadable, no colours, or two classes of one colour.
    """
    source = "palette"
    if isinstance(value, (str, Path)):
        source = str(value)
        tabled = Path(value).suffix.lower() in (".json", ".yaml", ".yml")
        value = read_table(value) if tabled else _lines(source, read_lines(value))
    if not isinstance(value, Mapping) or not value:
        raise LabelError(f"{source}: is no table of colours. {_FORMS}")
    if "names" in value:
        space = LabelSpace.from_dict(value, source)
        if not value.get("colors"):
            raise LabelError(f"{source}: has names but no 'colors'. {_FORMS}")
    else:
        try:
            named = {name: color for name, color in value.items() if name != UNKNOWN}
            black = {"unknown_color": value[UNKNOWN]} if UNKNOWN in value else {}
            number = None if not black else 255 if len(named) <= 255 else 65535
            space = LabelSpace(names=tuple(named), colors=tuple(named.values()), unknown=number, **black)
        except LabelError as error:
            raise LabelError(f"{source}: {error} {_FORMS}") from error
    seen: dict[tuple[int, int, int], str] = {space.unknown_color: "unknown"} if space.unknown_class else {}
    for name, color in zip(space.names, space.colors, strict=True):
        if color in seen:
            raise LabelError(f"{source}: '{seen[color]}' and '{name}' share the colour {color}. Give each its own.")
        seen[color] = name
    return space


_FORMS = "Needed is a classes.json with colours, {sky: [0, 0, 255], ...}, lines of 'r g b name', or 'auto'."


def _lines(source: str, lines: list[str]) -> dict[str, tuple[int, int, int]]:
    colors: dict[str, tuple[int, int, int]] = {}
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            continue
        first = re.fullmatch(r"(\d+)[\s,]+(\d+)[\s,]+(\d+)[\s,]+(\S.*)", line)
        last = re.fullmatch(r"(.+?):(\d+),(\d+),(\d+)(?::.*)?", line)
        if first:
            *color, name = first.groups()
        elif last:
            name, *color = last.groups()
        else:
            raise LabelError(f"{source}: line {number} is '{line}'. {_FORMS}")
        if name in colors:
            raise LabelError(f"{source}: the class '{name}' comes twice. Give each line its own name.")
        r, g, b = map(int, color)
        colors[name] = (r, g, b)
    return colors


def split_list(value: str | Sequence[str] | None) -> list[str] | None:
    """Names from a list or from "a,b,c"; raises CladeError for doubles."""
    if value is None:
        return None
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else [str(part) for part in value]
    double = next((name for k, name in enumerate(names) if name in names[:k]), None)
    if double is not None or not all(names):
        raise CladeError(f"The list {', '.join(names)} names '{double or ''}' twice or holds an empty name.")
    return names

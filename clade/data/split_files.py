"""Split files: parts of a dataset, made of its splits by the names of pictures.

    train: {from: train, names: ["0016E5_*", "0001TP_*"]}
    val:   {from: train, names: ["0006R0_*"]}
    clip:  {from: val}
    rest:  {from: val, except: ["0868"]}

``data.split_file`` of a recipe names one; its ``train_split`` and ``val_split`` then name parts.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clade.data.base import Dataset
from clade.data.chosen import Chosen
from clade.data.files import some
from clade.errors import DataError
from clade.registry import near_match

_KEYS = ("from", "names", "except")
_FORM = 'A part is {from: train, names: ["0016E5_*", ...], except: [...]}; without names it is the whole split.'


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a split file says of one part.

    Args:
        where: the file and the part, for messages.
        split: the dataset's split that its pictures are from.
        names: patterns (fnmatch, case-sensitive) of the names of its pictures; None for all of the split.
        leave_out: patterns of those that are not in it all the same.
    """

    where: str
    split: str
    names: tuple[str, ...] | None = None
    leave_out: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What defines it, in plain values: equal for equal parts, whatever file they are in."""
        names = None if self.names is None else sorted(set(self.names))
        return {"from": self.split, "names": names, "except": sorted(set(self.leave_out))}

    def choose(self, dataset: Dataset) -> Dataset:
        """The pictures of the part, in the order of the split.

        Raises:
            DataError: a pattern that no picture has, or a part without pictures.
        """
        if self.names is None and not self.leave_out:
            return dataset
        names = [dataset.name(index) for index in range(len(dataset))]
        inside = set(names) if self.names is None else self._matching(self.names, names, "names")
        inside -= self._matching(self.leave_out, names, "except")
        if not inside:
            raise DataError(f"{self.where}: is empty; all that it names is also under 'except'.")
        return Chosen(dataset, [index for index, name in enumerate(names) if name in inside])

    def _matching(self, patterns: Sequence[str], names: Sequence[str], key: str) -> set[str]:
        known, found = set(names), set()
        for pattern in patterns:
            if pattern in known:  # also a name that holds what has a meaning in a pattern
                found.add(pattern)
                continue
            matches = re.compile(fnmatch.translate(pattern)).match
            more = [name for name in known if matches(name)] if re.search(r"[*?[]", pattern) else []
            if not more:
                raise DataError(
                    f"{self.where}: '{pattern}' under '{key}' matches none of the {len(names)} pictures of the split "
                    f"'{self.split}' ({some(list(names[:2]))}, ...). Needed are names without suffix, in which * "
                    "stands for anything; upper and lower case differ."
                )
            found.update(more)
        return found


def read_parts(path: str | Path) -> dict[str, Part]:
    """The parts of a split file, by name.

    Raises:
        DataError: unreadable, no parts, an unknown key or a value of the wrong kind; the message says where.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{path}: the split file cannot be read ({' '.join(str(error).split())}).") from error
    if not isinstance(content, Mapping) or not content:
        raise DataError(f"{path}: a split file maps the names of parts to what they hold. {_FORM}")
    return {str(name): _part(f"{path}: the part '{name}'", value) for name, value in content.items()}


def read_part(path: str | Path, name: str) -> Part:
    """One part of a split file; DataError where it is not there, and as :func:`read_parts`."""
    parts = read_parts(path)
    if name not in parts:
        raise DataError(
            f"{path}: there is no part '{name}' in the split file.{near_match(name, parts)} It has "
            f"{', '.join(parts)} (data.train_split and data.val_split choose)."
        )
    return parts[name]


def require_apart(one: Part, two: Part, first: Dataset, second: Dataset) -> None:
    """Raises DataError where two different parts share pictures. Reads names only."""
    if one.split != two.split:
        return
    taken = {first.name(index) for index in range(len(first))}
    shared = [name for index in range(len(second)) if (name := second.name(index)) in taken]
    if shared:
        raise DataError(
            f"{one.where}, which is trained on, and {two.where}, which it is validated on, share {len(shared)} "
            f"pictures: {some(shared)}. Leave them in one of the two."
        )


def _part(where: str, value: Any) -> Part:
    if not isinstance(value, Mapping) or not isinstance(value.get("from"), str):
        raise DataError(f"{where}: has no split of the dataset under 'from'. {_FORM}")
    other = [str(key) for key in value if key not in _KEYS]
    if other:
        raise DataError(f"{where}: there is no key '{other[0]}'.{near_match(other[0], _KEYS)} {_FORM}")
    names = _patterns(f"{where}: 'names'", value["names"]) if "names" in value else None
    if names == ():
        raise DataError(f"{where}: is empty, because 'names' is. Leave 'names' out for the whole split.")
    leave_out = _patterns(f"{where}: 'except'", value["except"]) if "except" in value else ()
    return Part(where=where, split=value["from"], names=names, leave_out=leave_out)


def _patterns(where: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise DataError(f"{where} is {value!r}; needed is a list of names or patterns.")
    for entry in value:
        if not isinstance(entry, str):
            raise DataError(f"{where} holds {entry!r}, which is no text. Put names of digits in quotes.")
    return tuple(value)

"""Judges of other classes than the dataset's: which of their classes stands for which of the dataset's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from clade.errors import LabelError
from clade.metrics.judges.base import Judge, Size
from clade.metrics.judges.pixels import Images
from clade.registry import near_match

ClassMap = Mapping[Any, Any] | str | Path
"""Class of the dataset -> class of the judge, a list of them, or None; names or numbers. Or a YAML file of that."""


@dataclass(frozen=True)
class Match:
    """Which classes of a judge stand for each class of a dataset.

    Args:
        names: of the dataset's classes.
        groups: for each of them the judge's classes; none where the judge knows no such class.
    """

    names: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]

    @property
    def unmatched(self) -> tuple[str, ...]:
        """The dataset's classes that the judge does not know: no score counts their pixels."""
        return tuple(name for name, group in zip(self.names, self.groups, strict=True) if not group)

    def unused(self, own: Sequence[str]) -> tuple[str, ...]:
        """The judge's classes that stand for none of the dataset's: it never answers with them."""
        taken = {k for group in self.groups for k in group}
        return tuple(name for k, name in enumerate(own) if k not in taken)


def match(own: Sequence[str], names: Sequence[str], mapping: ClassMap | None = None) -> Match:
    """Pair the judge's classes with a dataset's, by name where the mapping says nothing.

    Upper case, spaces, dashes and underscores make no difference; of synonyms ("person;individual") one is enough.

    Args:
        own: names of the judge's classes.
        names: of the dataset's.
        mapping: what goes before names. A class of the judge stands for one class of the dataset at most.

    Raises:
        LabelError: a class that is not there or is taken twice, or nothing that matches.
    """
    given = _read(mapping)
    where = f"{mapping}: " if isinstance(mapping, (str, Path)) else ""
    explicit = {
        _find(names, key, f"{where}the dataset"): tuple(
            _find(own, value, f"{where}the judge") for value in _listed(values)
        )
        for key, values in given.items()
    }
    taken: dict[int, int] = {}
    for k, group in explicit.items():
        for judged in group:
            if taken.setdefault(judged, k) != k:
                raise LabelError(
                    f"{where}the judge's class '{own[judged]}' stands for '{names[taken[judged]]}' and '{names[k]}'. "
                    "Give it to one of them."
                )
    by_word: dict[str, int] = {}
    for judged, name in enumerate(own):
        for word in _words(name):
            by_word.setdefault(word, judged)
    groups: list[tuple[int, ...]] = []
    for k, name in enumerate(names):
        if k in explicit:
            groups.append(explicit[k])
            continue
        found = next((by_word[word] for word in _words(name) if word in by_word), None)
        free = found is not None and found not in taken
        groups.append((found,) if found is not None and free else ())
        if found is not None and free:
            taken[found] = k
    if not any(groups):
        raise LabelError(
            f"None of the dataset's classes ({_few(names)}) is one of the judge's ({_few(own)}). Take a judge of the "
            "same classes, or a YAML file that says which are meant: `road: [street, crosswalk]`."
        )
    return Match(tuple(names), tuple(groups))


class NamedJudge(Judge):
    """A judge that can answer in a dataset's classes, see :func:`match`.

    It answers with the class whose score is largest among those that stand for a class of the dataset.

    Args:
        names: of the network's own classes.
        matched: the classes to answer in; None: its own.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], matched: Match | None = None) -> None:
        super().__init__(network, names if matched is None else matched.names)
        self.own_names = tuple(names)
        self.matched = matched

    @property
    def unmatched(self) -> tuple[str, ...]:
        """The dataset's classes that no class of the judge stands for."""
        return () if self.matched is None else self.matched.unmatched

    @property
    def unused(self) -> tuple[str, ...]:
        """The judge's own classes that it never answers with."""
        return () if self.matched is None else self.matched.unused(self.own_names)

    def scores(self, images: Images, size: Size | None = None) -> Tensor:
        own = super().scores(images, size)
        if self.matched is None:
            return own
        nothing = own.new_full(own[:, 0].shape, -torch.inf)
        groups = self.matched.groups
        return torch.stack([own[:, list(group)].amax(1) if group else nothing for group in groups], 1)

    @property
    def table(self) -> dict[int, int]:
        groups = [(k,) for k in range(self.num_classes)] if self.matched is None else self.matched.groups
        return {k: k if group else self.ignored for k, group in enumerate(groups)}

    def from_ids(self, ids: Any, num_classes: int | None = None) -> Tensor:
        # The base's rule for a dataset of the judge's own classes knows nothing of unmatched ones.
        mapped = super().from_ids(ids, num_classes)
        missing = [k for k, judged in self.table.items() if judged == self.ignored]
        if missing:
            mapped[torch.isin(mapped, torch.tensor(missing, device=mapped.device))] = self.ignored
        return mapped

    def options(self) -> dict[str, object]:
        return {} if self.matched is None else {"groups": self.matched.groups}

    @property
    def key(self) -> str:
        return re.sub(r"[^\w.-]+", "-", super().key)


def chosen(own: Sequence[str], names: Sequence[str] | None, mapping: ClassMap | None) -> Match | None:
    """:func:`match`, or None where a judge's classes are the dataset's as they are."""
    if names is None:
        if mapping is not None:
            raise LabelError("A mapping of classes came without the dataset's classes; say names=space.names, too.")
        return None
    same = len(own) == len(names) and all(_plain(a) == _plain(b) for a, b in zip(own, names, strict=True))
    return None if same and mapping is None else match(own, names, mapping)


def _read(mapping: ClassMap | None) -> Mapping[Any, Any]:
    if mapping is None or isinstance(mapping, Mapping):
        return mapping or {}
    try:
        content = yaml.safe_load(Path(mapping).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise LabelError(f"{mapping}: not readable as YAML ({error}).") from error
    if not isinstance(content, Mapping):
        raise LabelError(f"{mapping}: needed is a mapping, a line `class of the dataset: class of the judge` for each.")
    return content


def _listed(values: Any) -> list[Any]:
    if values is None:
        return []
    return list(values) if isinstance(values, (list, tuple)) else [values]


def _find(names: Sequence[str], wanted: Any, whose: str) -> int:
    """Number of a class given by name or number."""
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        if 0 <= wanted < len(names):
            return wanted
        raise LabelError(f"{whose} has no class {wanted}; its classes are 0..{len(names) - 1}.")
    plain = {_plain(name): k for k, name in reversed(list(enumerate(names)))}
    found = plain.get(_plain(str(wanted)))
    if found is None:
        by_word = {word: k for k, name in reversed(list(enumerate(names))) for word in _words(name)}
        found = by_word.get(_plain(str(wanted)))
    if found is None:
        raise LabelError(f"{whose} has no class '{wanted}'.{near_match(str(wanted), names)} It has {_few(names, 40)}.")
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def _words(name: str) -> list[str]:
    """A name and its synonyms, without what makes no difference."""
    return [word for word in dict.fromkeys(map(_plain, [name, *re.split(r"[;,/|]", name)])) if word]


def _few(names: Iterable[str], count: int = 5) -> str:
    listed = list(names)
    return ", ".join(listed[:count]) + (", ..." if len(listed) > count else "")

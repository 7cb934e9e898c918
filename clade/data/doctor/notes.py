"""What is suspicious about a dataset but does not keep it from being trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from clade.data.doctor.looking import MOSTLY_UNKNOWN, NEARLY
from clade.data.doctor.splits import SplitReport
from clade.data.files import some

_GROUPS = 3


@dataclass(frozen=True)
class Duplicate:
    """Pictures that are equal pixel for pixel.

    Args:
        what: "pictures" (photo and label map), "photos" (the label maps differ), "labels" (the photos differ).
        members: (split, name) of each.
    """

    what: str
    members: tuple[tuple[str | None, str], ...]

    @property
    def across(self) -> bool:
        """Whether they lie in several splits."""
        return len({split for split, _ in self.members}) > 1

    def words(self) -> str:
        return some([written(split, name) for split, name in self.members])

    def to_dict(self) -> dict[str, Any]:
        return {"what": self.what, "across": self.across, "files": [list(member) for member in self.members]}


def find_duplicates(splits: Iterable[SplitReport]) -> list[Duplicate]:
    """Groups of equal pictures, those across splits first. Equal label maps of one id each are left out."""
    photos: dict[bytes, list[tuple[str | None, str]]] = {}
    labels: dict[bytes, list[tuple[str | None, str]]] = {}
    hashes: dict[tuple[str | None, str], tuple[bytes | None, bytes | None]] = {}
    plain: set[tuple[str | None, str]] = set()
    for split in splits:
        for name, both in split.hashes.items():
            member = (split.name, name)
            hashes[member] = both
            for found, value in zip((labels, photos), both, strict=True):
                if value is not None:
                    found.setdefault(value, []).append(member)
        plain.update((split.name, name) for name in split.constant)
    duplicates = []
    for members in photos.values():
        if len(members) > 1:
            same = len({hashes[member][0] for member in members}) == 1
            duplicates.append(Duplicate("pictures" if same else "photos", tuple(members)))
    for members in labels.values():
        shown = {hashes[member][1] for member in members}
        if len(members) > 1 and not plain.issuperset(members) and (len(shown) > 1 or shown == {None}):
            duplicates.append(Duplicate("labels", tuple(members)))
    return sorted(duplicates, key=lambda duplicate: not duplicate.across)


def find_notes(splits: list[SplitReport], duplicates: list[Duplicate], complete: bool) -> list[str]:
    """All notes, in words.

    Args:
        complete: whether the splits are all that the dataset has.
    """
    return [*_empty(splits), *_duplicates(duplicates), *_classes(splits), *(_parts(splits) if complete else [])]


def written(split: str | None, name: str) -> str:
    return name if split is None else f"{split}/{name}"


def _empty(splits: list[SplitReport]) -> list[str]:
    notes = []
    constant = [
        f"{written(split.name, name)} ({number}{_called(split, number)})"
        for split in splits
        for name, number in split.constant.items()
    ]
    nearly = [
        f"{written(split.name, name)} ({share:.1%})" for split in splits for name, share in split.nearly_empty.items()
    ]
    if constant:
        notes.append(f"Label maps with one id in all pixels ({len(constant)}): {some(constant)}.")
    if nearly:
        notes.append(
            f"Nearly empty label maps, with one id in more than {NEARLY:.1%} of the pixels or more than "
            f"{MOSTLY_UNKNOWN:.0%} unknown ({len(nearly)}): {some(nearly)}."
        )
    return notes


def _called(split: SplitReport, number: int) -> str:
    name = split.class_of(number)
    return "" if name is None else f", '{name}'"


_KINDS = {
    "pictures": "Equal pictures",
    "photos": "Equal photos with different label maps",
    "labels": "Equal label maps of different photos",
}


def _duplicates(duplicates: list[Duplicate]) -> list[str]:
    notes = []
    for what, text in _KINDS.items():
        for across in (True, False):
            groups = [d for d in duplicates if d.what == what and d.across == across]
            if groups:
                more = f" and {len(groups) - _GROUPS} more" if len(groups) > _GROUPS else ""
                where = " in several splits, so that what is learned is also what is validated on" if across else ""
                listed = "; ".join(group.words() for group in groups[:_GROUPS])
                notes.append(f"{text}{where} ({len(groups)} groups): {listed}{more}.")
    return notes


def _classes(splits: list[SplitReport]) -> list[str]:
    known = [split for split in splits if split.space is not None and split.maps]
    if not known or len({split.space.names for split in known if split.space is not None}) > 1:
        return []
    space = known[0].space
    assert space is not None
    rows = [(split, split.rows()) for split in known]
    classes = range(space.num_classes)
    notes = []
    if never := [space.name(k) for k in classes if not any(found[k] for _, found in rows)]:
        notes.append(f"Classes that never occur ({len(never)} of {space.num_classes}): {some(never)}.")
    if len(rows) > 1:
        for split, found in rows:
            others = [other for part, other in rows if part is not split]
            if only := [space.name(k) for k in classes if found[k] and not any(other[k] for other in others)]:
                notes.append(f"Classes that occur in {split.name or 'the root'} only ({len(only)}): {some(only)}.")
    return notes


def _parts(splits: list[SplitReport]) -> list[str]:
    notes = []
    names = [split.name for split in splits]
    if names and "val" not in names:
        have = next((name for name in ("test", "train") if name in names), names[0]) or "train"
        aside = "`clade data convert --from folder --val-share 0.1` does" if names == [None] else "a folder val/"
        notes.append(
            f"There is no split 'val': train with --data.val_split {have}, or put some pictures aside as val ({aside})."
        )
    without = [split.name or "the root" for split in splits if split.maps and not split.objects]
    if without and len(without) < len([split for split in splits if split.maps]):
        notes.append(
            f"{', '.join(without)} has no instance maps, the others have: a generator that sees borders between "
            "objects (generator.instance_edges) needs them in all."
        )
    return notes

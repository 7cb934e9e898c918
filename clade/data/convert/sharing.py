"""A source that is not divided -> train and val, so that a picture's part never changes."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

from clade.data.convert.base import Item
from clade.errors import CladeError, DataError

TRAIN, VAL = "train", "val"


def shared(items: list[Item], share: float, split: str | None) -> list[Item]:
    """The same pictures, those of train first; about ``share`` of them are in val.

    The hash of its name alone decides for each picture, so that more pictures move none.

    Raises:
        CladeError: no share, or a split besides.
        DataError: the source has splits, or one of the two parts would be empty.
    """
    if not 0 < share < 1:
        raise CladeError(f"val_share is {share}; it lies between 0 and 1: 0.1 puts a tenth of the pictures into val.")
    if split is not None:
        raise CladeError(f"val_share makes train and val, and the split '{split}' came too. Leave one of them out.")
    parts = sorted({item.split for item in items if item.split is not None})
    if parts:
        raise DataError(f"The source is divided already ({', '.join(parts)}). Leave val_share out.")
    places = [place(item.name) for item in items]
    val = sum(where < share for where in places)
    if not 0 < val < len(items):
        least, most = sorted(places)[0], sorted(places)[-1]
        # Between the two, both parts have pictures.
        low, high = math.floor(least * 1000 + 1) / 1000, math.floor(most * 1000) / 1000
        cure = f"Give one of {low:.3f} to {high:.3f}." if low <= high else "Convert train and val apart, with split."
        raise DataError(f"val_share {share} puts {val} of the {len(items)} pictures into val. {cure}")
    divided = [replace(item, split=VAL if where < share else TRAIN) for item, where in zip(items, places, strict=True)]
    return sorted(divided, key=lambda item: item.split == VAL)


def place(name: str) -> float:
    """[0, 1), evenly over the names."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:6], "big") / (1 << 48)

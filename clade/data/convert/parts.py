"""One binary mask file per part of a picture, as CelebAMask-HQ has them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from clade.data.convert.base import (
    Item,
    Request,
    Source,
    converter,
    files_below,
    parts_of,
    pattern_matcher,
    photos_of,
    stem,
)
from clade.data.convert.masks import binary
from clade.data.files import LABEL_SUFFIXES, PHOTO_SUFFIXES, require_same_size, some
from clade.errors import CladeError, DataError
from clade.labels.labelspace import LabelSpace

PATTERN = "{name}_{part}.png"


@converter("parts", "images", "parts", "pattern", "tolerance")
def parts(request: Request) -> Source:
    """Binary masks -> one map: 0 is background, part k of the list is class k; later parts lie over earlier ones."""
    pattern = request.pattern or PATTERN
    if not request.parts:
        raise CladeError(
            f"Format 'parts' needs the parts in the order in which they are painted, parts='skin,hair,...' "
            f"for files named {pattern}."
        )
    if "background" in request.parts:
        raise CladeError("'background' is class 0 by itself: where no part lies. Leave it out of the parts.")
    match = pattern_matcher(pattern, request.parts)
    items: list[Item] = []
    unused: list[Path] = []
    for split, folder in parts_of(request.source, request.split).items():
        found = _found(folder, match, pattern, request)
        files = [path for own in found.values() for path in own.values()]
        photos, left = photos_of(request, split, list(found), files)
        unused += left
        for name, own in found.items():
            first = next(iter(own.values()))
            order = [(k, own[part]) for k, part in enumerate(request.parts, 1) if part in own]
            photo = None if photos is None else photos[name]
            items.append(Item(name, partial(paint, order, request.tolerance), first, photo, split))
    return Source(LabelSpace(names=("background", *request.parts)), items, unused)


def _found(folder: Path, match, pattern: str, request: Request) -> dict[str, dict[str, Path]]:
    """Name -> part -> file."""
    shared = request.images is not None and request.images.resolve() in (folder.resolve(), *folder.resolve().parents)
    suffixes = PHOTO_SUFFIXES if request.tolerance else LABEL_SUFFIXES
    found: dict[str, dict[str, Path]] = {}
    other: list[str] = []
    for inside, path in files_below(folder, suffixes).items():
        fields = match(stem(inside))
        if fields is None:
            if not shared:
                other.append(inside)
            continue
        own = found.setdefault(fields["name"], {})
        if fields["part"] in own:
            raise DataError(
                f"{own[fields['part']]} and {path} are both '{fields['part']}' of '{fields['name']}'. Remove one."
            )
        own[fields["part"]] = path
    if other:
        raise DataError(
            f"{folder}: {len(other)} files are no {pattern} of the parts {', '.join(request.parts or ())}: "
            f"{some(other)}. Add their parts to the list, or move them away."
        )
    if not found:
        raise DataError(f"{folder}: no files named {pattern} with the parts {', '.join(request.parts or ())}.")
    return found


def paint(order: list[tuple[int, Path]], tolerance: int = 0) -> tuple[np.ndarray, None]:
    """Masks in the order of painting -> ids (H, W)."""
    ids: np.ndarray | None = None
    for number, path in order:
        mask = binary(path, tolerance)
        if ids is None:
            ids = np.zeros(mask.shape, np.int32 if order[-1][0] > 255 else np.uint8)
        require_same_size(path, mask.shape, order[0][1], ids.shape)
        ids[mask] = number
    assert ids is not None
    return ids, None

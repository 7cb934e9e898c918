"""YOLO segmentation: a text file of normalised polygons per photo, and data.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clade.data.convert.base import Item, Request, Source, converter, files_below, stem
from clade.data.convert.raster import paint_largest_first, polygon
from clade.data.convert.tables import read_lines, read_table
from clade.data.datasets.folder import SPLITS
from clade.data.files import PHOTO_SUFFIXES, some
from clade.data.photos import read_photo
from clade.errors import DataError
from clade.labels.labelspace import LabelSpace
from clade.registry import near_match

_SLACK = 0.01  # tools round; what lies further out was not divided by the picture's size


@converter("yolo")
def yolo(request: Request) -> Source:
    """data.yaml, or its folder -> labels and instances; pixels of no polygon are unknown.

    A photo lies below a folder images/, its polygons below labels/ beside that one; a photo without a file has none.
    """
    path = _yaml(request.source)
    content = read_table(path)
    if not isinstance(content, Mapping):
        raise DataError(f"{path}: is no data.yaml of YOLO (names, train, val).")
    space = LabelSpace.from_dict({"names": content.get("names"), "unknown": 255}, str(path))
    if isinstance(content.get("nc"), int) and content["nc"] != space.num_classes:
        raise DataError(f"{path}: nc is {content['nc']}, but names has {space.num_classes}. Correct one of them.")
    splits = [name for name in SPLITS if content.get(name)]
    if request.split is not None:
        if request.split not in splits:
            hint = near_match(request.split, splits)
            raise DataError(f"{path}: there is no split '{request.split}'.{hint} It has {', '.join(splits)}.")
        splits = [request.split]
    items = [item for split in splits for item in _items(path, content, split, space)]
    if not items:
        raise DataError(f"{path}: no photos in {', '.join(splits) or 'it (train, val, test)'}.")
    return Source(space, items, decides=[path])


def _yaml(source: Path) -> Path:
    if not source.is_dir():
        return source
    found = sorted(path for suffix in ("*.yaml", "*.yml") for path in source.glob(suffix))
    if len(found) != 1:
        named = some([str(path) for path in found]) if found else "none"
        raise DataError(f"{source}: one data.yaml is needed in it, found {named}. Name the file itself.")
    return found[0]


def _items(path: Path, content: Mapping[str, Any], split: str, space: LabelSpace) -> list[Item]:
    root = path.parent / str(content.get("path") or "")
    places = content[split] if isinstance(content[split], list) else [content[split]]
    items, labelled = [], 0
    for place in places:
        folder = root / str(place)
        if not folder.exists() and str(place).startswith("../"):  # as exports of Roboflow write it; they mean ./
            folder = root / str(place)[3:]
        if not folder.exists():
            below = f", below its 'path: {content['path']}'" if content.get("path") else ", below its own folder"
            raise DataError(
                f"{folder}: no such folder. {path} says '{split}: {place}'{below}. Correct "
                f"{'path or ' if content.get('path') else ''}{split} there; a relative path counts from that file."
            )
        if folder.is_file():
            raise DataError(f"{path}: '{split}' is the list {folder}. Name a folder of photos there.")
        for inside, photo in files_below(folder, PHOTO_SUFFIXES).items():
            label = _label_of(photo)
            labelled += label.exists()
            name = stem(inside)
            items.append(Item(name, partial(read_polygons, label, photo, space), label, photo, split))
    if items and not labelled:
        raise DataError(f"{_label_of(items[0].photo)}: no such file, nor one for any other photo of '{split}'.")  # pyright: ignore[reportArgumentType]
    return items


def _label_of(photo: Path) -> Path:
    """.../images/... -> .../labels/..., by the last folder of that name."""
    parts = list(photo.parts)
    at = max((k for k, part in enumerate(parts[:-1]) if part == "images"), default=None)
    if at is None:
        raise DataError(f"{photo}: lies in no folder 'images', so where its polygons are ('labels') is not known.")
    parts[at] = "labels"
    return Path(*parts).with_name(photo.stem + ".txt")


def read_polygons(label: Path, photo: Path, space: LabelSpace) -> tuple[np.ndarray, np.ndarray]:
    """Lines of "class x1 y1 x2 y2 ..." -> ids and object numbers (H, W) in the size of the photo; raises DataError."""
    height, width = read_photo(photo).shape[:2]
    objects = []
    for k, line in enumerate(read_lines(label) if label.exists() else [], 1):
        source = f"{label}: line {k}"
        try:
            first, *rest = line.split()
            row, values = int(first), [float(value) for value in rest]
        except ValueError as error:
            raise DataError(f"{source} is '{line[:60]}'; needed is 'class x1 y1 x2 y2 ...' in numbers.") from error
        if not 0 <= row < space.num_classes:
            raise DataError(
                f"{source}: class {row}, but there are {space.num_classes} names (0..{space.num_classes - 1})."
            )
        if len(values) < 6 or len(values) % 2:
            kind = "a box, no polygon" if len(values) == 4 else f"{len(values)} numbers"
            raise DataError(f"{source}: {kind}. Needed are at least 3 points x y: a segmentation, not a detection.")
        if not all(-_SLACK <= value <= 1 + _SLACK for value in values):
            raise DataError(f"{source}: numbers outside of 0..1. Divide x by the width and y by the height.")
        points = [(x * width, y * height) for x, y in zip(values[::2], values[1::2], strict=True)]
        objects.append((row, k, polygon(points, width, height), 0))
    return paint_largest_first(objects, height, width, space.num_classes)

"""Pascal VOC segmentation: SegmentationClass, SegmentationObject, JPEGImages, ImageSets."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from clade.data.convert.base import Item, Request, Source, converter, files_below, stem
from clade.data.convert.tables import read_classes, read_lines, read_palette
from clade.data.datasets.folder import SPLITS
from clade.data.files import LABEL_SUFFIXES, PHOTO_SUFFIXES, require_same_size, some
from clade.errors import DataError
from clade.labels.files import read_instances, read_label
from clade.labels.labelspace import LabelSpace
from clade.registry import near_match

NAMES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
VOID = 255
VOID_COLOR = (224, 224, 192)


def voc_color(number: int) -> tuple[int, int, int]:
    """Colour of an index in VOC's palette: its bits in turn for red, green and blue (the devkit's VOClabelcolormap)."""
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= (number >> (3 * place + channel) & 1) << (7 - place)
    return channels[0], channels[1], channels[2]


@converter("voc", "images", "classes")
def voc(request: Request) -> Source:
    """VOC's folders, or CVAT's export of them (labelmap.txt, RGB masks) -> labels and instances; 255 is unknown."""
    root = request.source
    labels = _by_stem(root / "SegmentationClass", LABEL_SUFFIXES)
    objects = _by_stem(root / "SegmentationObject", LABEL_SUFFIXES) if (root / "SegmentationObject").is_dir() else None
    folder = request.images or root / "JPEGImages"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Name the folder of the photos as images.")
    photos = _by_stem(folder, PHOTO_SUFFIXES)
    items, wanted = [], set[str]()
    for split, names in _splits(request, labels).items():
        for where, have in (
            (root / "SegmentationClass", labels),
            (folder, photos),
            (root / "SegmentationObject", objects),
        ):
            missing = [name for name in names if have is not None and name not in have]
            if missing:
                raise DataError(f"{where}: {len(missing)} pictures of '{split}' are not there: {some(missing)}.")
        space = _space(request)
        for name in names:
            wanted.add(name)
            read = partial(_read, labels[name], None if objects is None else objects[name], space)
            items.append(Item(name, read, labels[name], photos[name], split))
    colored = root / "labelmap.txt"
    return Source(_space(request), items, decides=[colored] if colored.exists() else [])


def _by_stem(folder: Path, suffixes: frozenset[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for inside, path in files_below(folder, suffixes).items():
        if stem(inside) in found:
            raise DataError(f"{found[stem(inside)]} and {path} have the same name. Remove one.")
        found[stem(inside)] = path
    return found


def _splits(request: Request, labels: dict[str, Path]) -> dict[str | None, list[str]]:
    folder = request.source / "ImageSets" / "Segmentation"
    lists = {name: folder / f"{name}.txt" for name in SPLITS if (folder / f"{name}.txt").exists()}
    if not lists:
        return {request.split: list(labels)}
    if request.split is not None and request.split not in lists:
        hint = near_match(request.split, lists)
        raise DataError(f"{folder}: there is no {request.split}.txt.{hint} It has {', '.join(lists)}.")
    return {name: read_lines(path) for name, path in lists.items() if request.split in (None, name)}


def _space(request: Request) -> LabelSpace:
    """labelmap.txt of CVAT, ``classes``, or VOC's 21; 255 is unknown."""
    colored = request.source / "labelmap.txt"
    if request.classes is not None:
        space, own = read_classes(request.classes)
        colors = space.colors if own else tuple(voc_color(k) for k in range(space.num_classes))
        names = space.names
    elif colored.exists():
        space = read_palette(colored)
        names, colors = space.names, space.colors
    else:
        names, colors = NAMES, tuple(voc_color(k) for k in range(len(NAMES)))
    return LabelSpace(names=names, colors=colors, unknown=VOID, unknown_color=VOID_COLOR)


def _read(label: Path, objects: Path | None, space: LabelSpace) -> tuple[np.ndarray, np.ndarray | None]:
    ids = read_label(label, space)
    if objects is None:
        return ids, None
    numbers = read_instances(objects)
    require_same_size(objects, numbers.shape, label, ids.shape)
    r, g, b = VOID_COLOR
    void = (numbers == VOID) | (numbers == r + 256 * g + 65536 * b)
    return ids, np.where(void, 0, numbers)

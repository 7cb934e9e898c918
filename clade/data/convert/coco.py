"""COCO's instance annotations: one JSON file for all pictures."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clade.data.convert.base import Item, Request, Source, converter, files_below
from clade.data.convert.raster import coco_rle, paint_largest_first, pycocotools_mask
from clade.data.convert.tables import read_classes, read_table
from clade.data.files import LABEL_SUFFIXES, PHOTO_SUFFIXES, require_same_size, some
from clade.errors import CladeError, DataError
from clade.labels.files import read_label
from clade.labels.labelspace import LabelSpace

COCO_UNKNOWN = 255
COCO_STUFF = Path(__file__).parents[1] / "classes" / "coco_stuff.json"


@converter("coco", "images", "annotations", "classes")
def coco(request: Request) -> Source:
    """Instances JSON -> labels and instances.

    ``source`` is the JSON, and pixels of no object are unknown; or ``source`` is a folder of label maps (of COCO-Stuff,
    or with ``classes``), ``annotations`` is the JSON, and only the objects come from there.
    """
    pycocotools_mask()
    base: Path | None = None
    path = request.source
    if path.is_dir():
        if request.annotations is None:
            raise CladeError(
                f"{path}: is a folder. Format 'coco' needs the instances JSON as source, or as annotations "
                "where the source is the folder of label maps (stuffthingmaps)."
            )
        base, path = path, request.annotations
    elif request.annotations is not None:
        raise CladeError(f"{path}: is a file, and annotations came too. Give the JSON once, as source.")
    content = read_json(path)
    rows = categories(content["categories"], path)
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    if base is None:
        if request.classes is not None:
            raise CladeError("Format 'coco' takes its classes from the JSON; 'classes' is for a folder of label maps.")
        unknown = COCO_UNKNOWN if len(rows) <= COCO_UNKNOWN else 65535
        space = LabelSpace(names=tuple(names[key] for key in rows), unknown=unknown)
    else:
        space = _base_space(request)
    maps = {} if base is None else {Path(name).stem: file for name, file in files_below(base, LABEL_SUFFIXES).items()}
    items = _items(request, path, content, rows, space, maps, base)
    unused: list[Path] = []
    if request.images is not None:
        listed = {request.images / picture["file_name"] for picture in content["images"]}
        unused = [photo for photo in files_below(request.images, PHOTO_SUFFIXES).values() if photo not in listed]
    return Source(space, items, unused, decides=[path])


def _base_space(request: Request) -> LabelSpace:
    """The classes of a folder of label maps: ``classes``, or COCO-Stuff's 182."""
    if request.classes is None:
        return LabelSpace.from_json(COCO_STUFF)
    space, _ = read_classes(request.classes)
    return space


def _items(
    request: Request,
    path: Path,
    content: dict[str, Any],
    rows: dict[int, int],
    space: LabelSpace,
    maps: dict[str, Path],
    base: Path | None,
) -> list[Item]:
    objects: dict[Any, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        objects.setdefault(annotation["image_id"], []).append(annotation)
    known = {picture["id"] for picture in content["images"]}
    lost = [str(key) for key in objects if key not in known]
    if lost:
        raise DataError(f"{path}: annotations belong to pictures that are not listed: image_id {some(lost)}.")
    items, missing = [], []
    for picture in content["images"]:
        name, _ = os.path.splitext(picture["file_name"])
        photo = None if request.images is None else request.images / picture["file_name"]
        own = objects.get(picture["id"], [])
        if base is None:
            read = partial(read_objects, path, picture, own, rows, space.num_classes)
            label = path
        else:
            label = maps.get(Path(name).name)
            if label is None:
                missing.append(name)
                continue
            read = partial(_read_with_base, path, picture, own, label, space)
        items.append(Item(name, read, label, photo, request.split))
    if missing:
        raise DataError(f"{base}: {len(missing)} pictures of {path} have no label map there: {some(missing)}.")
    return items


_KEYS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "images": {"id": (int, str), "file_name": str, "width": int, "height": int},
    "annotations": {"image_id": (int, str)},
    "categories": {"id": int, "name": str},
}
"""What the entries of COCO's lists must have."""


def read_json(path: Path) -> dict[str, list[dict[str, Any]]]:
    """A COCO file with its lists of pictures, annotations and categories.

    Raises:
        DataError: another file, or entries without what is needed.
    """
    content = read_table(path) if path.suffix.lower() == ".json" else None
    for key, fields in _KEYS.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not (entries or key == "annotations"):
            raise DataError(f"{path}: is no COCO JSON with a list '{key}'. Needed are {', '.join(_KEYS)}.")
        for k, entry in enumerate(entries):
            for name, kind in fields.items():
                value = entry.get(name) if isinstance(entry, dict) else None
                if not isinstance(value, kind) or isinstance(value, bool):
                    raise DataError(f"{path}: entry {k} of '{key}' has the {name} {value!r:.60}. Is the file damaged?")
    assert isinstance(content, dict)
    for picture in content["images"]:
        if not all(0 < picture[side] < 1 << 16 for side in ("width", "height")):
            raise DataError(
                f"{path}: {picture['file_name']} is {picture['width']} x {picture['height']} pixels. Damaged?"
            )
    return content


def categories(entries: list[dict[str, Any]], path: Path) -> dict[int, int]:
    """Category id -> class: 0, 1, 2, ... in the order of the category ids; raises DataError."""
    keys = [entry["id"] for entry in entries]
    if len(set(keys)) < len(keys):
        raise DataError(f"{path}: two categories have the same id. Give each its own.")
    return {key: row for row, key in enumerate(sorted(keys))}


def read_objects(
    path: Path, picture: dict[str, Any], annotations: list[dict[str, Any]], rows: dict[int, int], background: int
) -> tuple[np.ndarray, np.ndarray]:
    """Objects of a picture -> ids and object numbers; crowds lie below all others and are no single object."""
    mask = pycocotools_mask()
    height, width = picture["height"], picture["width"]
    objects = []
    for number, annotation in enumerate(annotations, 1):
        source = f"{path}: picture {picture['id']} ({picture['file_name']}), annotation {annotation.get('id', number)}"
        category: Any = annotation.get("category_id")
        row = rows.get(category) if isinstance(category, int) else None
        if row is None:
            raise DataError(f"{source}: category {category!r:.60} is not listed in 'categories'.")
        pixels = mask.decode(coco_rle(annotation.get("segmentation"), width, height, source)).astype(bool)
        crowd = bool(annotation.get("iscrowd"))
        objects.append((row, 0 if crowd else number, pixels, 0 if crowd else 1))
    return paint_largest_first(objects, height, width, background)


def _read_with_base(
    path: Path, picture: dict[str, Any], annotations: list[dict[str, Any]], label: Path, space: LabelSpace
) -> tuple[np.ndarray, np.ndarray]:
    ids = read_label(label, space)
    any_class = {annotation.get("category_id"): 0 for annotation in annotations}
    _, instances = read_objects(path, picture, annotations, any_class, 0)  # pyright: ignore[reportArgumentType]
    require_same_size(path, instances.shape, label, ids.shape)
    return ids, instances

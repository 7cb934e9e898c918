"""COCO's panoptic format: a PNG of segment numbers per picture, and one JSON file."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clade.data.convert.base import Item, Request, Source, converter
from clade.data.convert.coco import COCO_UNKNOWN, categories, read_json
from clade.errors import DataError
from clade.labels.files import read_instances
from clade.labels.labelspace import LabelSpace


@converter("panoptic", "images", "annotations")
def panoptic(request: Request) -> Source:
    """Panoptic PNGs -> labels and instances; void becomes unknown, stuff and crowds are no objects.

    ``source`` is the folder of PNGs; ``annotations`` the JSON, by default ``source`` with .json after it.
    """
    folder = request.source
    path = request.annotations or folder.with_name(folder.name + ".json")
    if not folder.is_dir():
        raise DataError(f"{folder}: a folder of panoptic PNGs is needed, and its JSON as annotations.")
    content = read_json(path)
    rows = categories(content["categories"], path)
    entries = {entry["id"]: entry for entry in content["categories"]}
    colors: Any = tuple(entries[key].get("color") for key in rows)
    unknown = COCO_UNKNOWN if len(rows) <= COCO_UNKNOWN else 65535
    space = LabelSpace(
        names=tuple(str(entries[key]["name"]) for key in rows),
        colors=() if None in colors else colors,
        unknown=unknown,
    )
    things = {key for key, entry in entries.items() if entry.get("isthing", 1)}
    pictures = {picture["id"]: picture for picture in content["images"]}
    items = []
    for k, annotation in enumerate(content["annotations"]):
        picture = pictures.get(annotation["image_id"])
        if picture is None or not isinstance(annotation.get("file_name"), str):
            raise DataError(
                f"{path}: annotation {k} (image_id {annotation['image_id']}) has no picture or no file_name."
            )
        png = folder / annotation["file_name"]
        name, _ = os.path.splitext(picture["file_name"])
        photo = None if request.images is None else request.images / picture["file_name"]
        read = partial(read_segments, png, annotation.get("segments_info"), rows, things)
        items.append(Item(name, read, png, photo, request.split))
    return Source(space, items, decides=[path])


def read_segments(png: Path, segments: Any, rows: dict[int, int], things: set[int]) -> tuple[np.ndarray, np.ndarray]:
    """Segment numbers r + 256 g + 65536 b -> ids and object numbers.

    Raises:
        DataError, LabelError: unreadable, or numbers and categories that are not listed.
    """
    if not isinstance(segments, list) or not all(
        isinstance(segment, dict) and isinstance(segment.get("id"), int) for segment in segments
    ):
        raise DataError(f"{png}: its annotation has no list 'segments_info' of segments with ids. Is the JSON damaged?")
    drawn = read_instances(png)
    numbers, inverse = np.unique(drawn, return_inverse=True)
    ids, instances = np.full(len(numbers), -1, np.int32), np.zeros(len(numbers), np.int32)
    ids[numbers == 0] = len(rows)
    for count, segment in enumerate(segments, 1):
        category: Any = segment.get("category_id")
        row = rows.get(category) if isinstance(category, int) else None
        if row is None:
            raise DataError(f"{png}: segment {segment.get('id')} is of category {category!r:.60}, not listed.")
        at = numbers == segment.get("id")
        ids[at] = row
        if category in things and not segment.get("iscrowd"):
            instances[at] = count
    lost = numbers[ids < 0].tolist()
    if lost:
        raise DataError(
            f"{png}: segment {lost[0]} is in the picture but not in its segments_info. Is the JSON its own?"
        )
    return ids[inverse].reshape(drawn.shape), instances[inverse].reshape(drawn.shape)

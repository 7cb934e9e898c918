"""Labelme: a JSON file of shapes beside each photo."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from clade.data.convert import raster
from clade.data.convert.base import Item, Request, Source, converter, files_below, parts_of, photos_of, stem
from clade.data.convert.tables import read_classes
from clade.data.files import PHOTO_SUFFIXES, natural_key, some
from clade.errors import CladeError, DataError, LabelError
from clade.labels.labelspace import Color, LabelSpace

BACKGROUND, IGNORE = "_background_", "__ignore__"  # as Labelme calls them
_LINES = ("line", "linestrip", "point", "points")


@dataclass(frozen=True)
class _Facts:
    """What the search needs of a JSON file."""

    labels: frozenset[str]
    photo: Path | None
    error: CladeError | None = None


@converter("labelme", "images", "classes")
def labelme(request: Request) -> Source:
    """Labelme's shapes -> labels and instances.

    0 is ``_background_``, then come the labels, in natural order or as in ``classes``; ``__ignore__`` becomes unknown.
    Shapes are painted in their order, later ones over earlier ones. Shapes of one label and group_id are one object.
    """
    found: dict[str | None, dict[str, Path]] = {}
    for split, folder in parts_of(request.source, request.split).items():
        found[split] = {stem(inside): path for inside, path in files_below(folder, {".json"}).items()}
        if not found[split]:
            raise DataError(f"{folder}: no JSON files of Labelme.")
    facts: dict[Path, _Facts] = {}
    paths = [path for own in found.values() for path in own.values()]
    for path, result in request.each(_facts, paths, "finding labels"):
        facts[path] = _Facts(frozenset(), None, result) if isinstance(result, CladeError) else result
    labels = frozenset[str]().union(*(fact.labels for fact in facts.values()))
    space = _space(request, labels)
    rows = {name: row for row, name in enumerate(space.names)} | {IGNORE: space.num_classes}
    items: list[Item] = []
    unused: list[Path] = []
    for split, own in found.items():
        photos, left = photos_of(request, split, list(own), own.values())
        unused += left
        for name, path in own.items():
            photo = facts[path].photo if photos is None else photos[name]
            read = partial(read_shapes, path, rows) if (error := facts[path].error) is None else partial(_fail, error)
            items.append(Item(name, read, path, photo, split))
    return Source(space, items, unused)


def _fail(error: CladeError) -> NoReturn:
    raise error


def _space(request: Request, labels: frozenset[str]) -> LabelSpace:
    given = sorted(labels - {BACKGROUND, IGNORE}, key=natural_key)
    colors: dict[str, Color] = {}
    if request.classes is not None:
        space, colored = read_classes(request.classes)
        given = [name for name in space.names if name not in (BACKGROUND, IGNORE)]
        colors = dict(zip(space.names, space.colors, strict=True)) if colored else {}
    lost = sorted(labels - {*given, BACKGROUND, IGNORE}, key=natural_key)
    if lost:
        raise LabelError(f"{request.source}: shapes have labels that are not in the classes: {some(lost)}. Add them.")
    names = (BACKGROUND, *given)
    palette = tuple(colors.get(name, (0, 0, 0)) for name in names) if colors else ()
    return LabelSpace(names=names, colors=palette, unknown=255 if IGNORE in labels else None)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}).") from error
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise DataError(f"{path}: is no file of Labelme, which has a list 'shapes'. Move other JSON files away.")
    if not all(isinstance(shape, dict) and isinstance(shape.get("label"), str) for shape in content["shapes"]):
        raise DataError(f"{path}: a shape has no label. Open it in Labelme and give it one.")
    return content


def _facts(path: Path) -> _Facts:
    content = _read_json(path)
    inside = content.get("imagePath")
    if not isinstance(inside, str) or not inside.lower().endswith(tuple(PHOTO_SUFFIXES)):
        raise DataError(
            f"{path}: its imagePath is {inside!r}, which is no photo ({', '.join(sorted(PHOTO_SUFFIXES))})."
        )
    return _Facts(frozenset(shape["label"] for shape in content["shapes"]), path.parent / inside.replace("\\", "/"))


def _sides(content: dict[str, Any]) -> tuple[Any, Any]:
    return content.get("imageWidth"), content.get("imageHeight")


def read_shapes(path: Path, rows: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """A file of Labelme -> ids and object numbers (H, W); raises DataError."""
    content = _read_json(path)
    width, height = sides = _sides(content)
    if not all(isinstance(side, int) and not isinstance(side, bool) and 0 < side < 1 << 16 for side in sides):
        raise DataError(f"{path}: imageWidth and imageHeight are {width!r} and {height!r}. Save it again with Labelme.")
    ids, instances = np.zeros((height, width), np.int32), np.zeros((height, width), np.int32)
    objects: dict[Any, int] = {}
    for k, shape in enumerate(content["shapes"]):
        pixels = _pixels(shape, width, height, f"{path}: shape {k} ('{shape['label']}')")
        group = shape.get("group_id")
        key = k if group is None else (shape["label"], str(group))
        ids[pixels] = rows[shape["label"]]
        instances[pixels] = objects.setdefault(key, len(objects) + 1) if shape["label"] != BACKGROUND else 0
    return ids, instances


def _pixels(shape: dict[str, Any], width: int, height: int, source: str) -> np.ndarray:
    kind = str(shape.get("shape_type") or "polygon")
    points = raster.points_of(shape.get("points"), width, height, source)
    needed = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2}.get(kind)
    if needed is None:
        why = "has no area" if kind in _LINES else "is not known"
        raise DataError(f"{source}: a {kind} {why}. Draw polygons, rectangles, circles or masks, or delete the shape.")
    if len(points) != needed and not (kind == "polygon" and len(points) > 3):
        raise DataError(f"{source}: a {kind} of {len(points)} points; needed are {needed}. Delete the shape.")
    if kind == "mask":
        return _mask(shape, points, width, height, source)
    draw = {"polygon": raster.polygon, "rectangle": raster.rectangle, "circle": raster.circle}[kind]
    return draw(points, width, height)


def _mask(shape: dict[str, Any], points: list[raster.Point], width: int, height: int, source: str) -> np.ndarray:
    """A base64 PNG whose corners, both inside, are the two points."""
    (x0, y0), (x1, y1) = ((round(x), round(y)) for x, y in points)
    try:
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"])), formats=("PNG",)) as image:
            fits = image.size == (x1 - x0 + 1, y1 - y0 + 1)
            inside = np.asarray(image.convert("L")) > 0 if fits else np.zeros(0, bool)
    except Exception as error:  # a damaged PNG raises anything
        raise DataError(f"{source}: its mask cannot be read ({type(error).__name__}: {error}).") from error
    if not fits or not (0 <= x0 <= x1 < width and 0 <= y0 <= y1 < height):
        raise DataError(f"{source}: its mask does not lie between its points in the picture. Was the photo resized?")
    pixels = np.zeros((height, width), bool)
    pixels[y0 : y1 + 1, x0 : x1 + 1] = inside
    return pixels

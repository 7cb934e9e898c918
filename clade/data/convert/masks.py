"""One mask file per picture: by colours, by palette indices, or 0/255."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from clade.data.convert.base import Item, Request, Source, converter, masks_of, parts_of, photos_of
from clade.data.convert.tables import read_classes, read_palette
from clade.data.files import some
from clade.errors import CladeError, LabelError
from clade.labels.files import label_array, open_image
from clade.labels.labelspace import Color, LabelSpace

MAX_COLORS = 256


def _paired(request: Request, found: dict[str | None, dict[str, Path]], space: LabelSpace, read) -> Source:
    items: list[Item] = []
    unused: list[Path] = []
    for split, masks in found.items():
        photos, left = photos_of(request, split, list(masks), masks.values())
        unused += left
        items += [
            Item(name, partial(read, mask), mask, None if photos is None else photos[name], split)
            for name, mask in masks.items()
        ]
    return Source(space, items, unused)


def _found(request: Request) -> dict[str | None, dict[str, Path]]:
    return {split: masks_of(request, folder) for split, folder in parts_of(request.source, request.split).items()}


def _all(found: dict[str | None, dict[str, Path]]) -> list[Path]:
    return [path for masks in found.values() for path in masks.values()]


# --- Colours ----------------------------------------------------------------------------------------------------------


@converter("rgb", "images", "palette", "pattern", "tolerance")
def rgb(request: Request) -> Source:
    """RGB masks; ``palette`` says which colour means which class, "auto" takes the colours that are there."""
    if request.palette is None:
        raise CladeError(
            "Format 'rgb' needs a palette: a classes.json with colours, a table with lines 'r g b name', or 'auto'."
        )
    found = _found(request)
    space = _discovered(request, _all(found)) if request.palette == "auto" else read_palette(request.palette)
    source = _paired(request, found, space, partial(_read_rgb, space, request.tolerance))
    return replace(source, notes=_made_up(space)) if request.palette == "auto" else source


def _made_up(space: LabelSpace) -> list[str]:
    """What is to be told of classes that were found by their colours."""
    listed = some([f"{color} is class {k}" for k, color in enumerate(space.colors)])
    notes = [f"{listed}. The names are made up of the colours: rename the classes in classes.json."]
    if (0, 0, 0) in space.colors:
        notes.append(
            f"Black is class {space.colors.index((0, 0, 0))}, and often means unlabelled. If it does here, convert "
            "anew with a palette file: a line 'r g b name' for each class, and '0 0 0 unknown'."
        )
    return notes


def _read_rgb(space: LabelSpace, tolerance: int, path: Path) -> tuple[np.ndarray, None]:
    colors = _colors(path)
    if tolerance == 0:
        return space.decode_colors(colors, str(path)), None
    return nearest_color(colors, space, tolerance, str(path)), None


def _colors(path: Path) -> np.ndarray:
    """(H, W, 3) uint8; raises LabelError for what is not opaque colour."""
    image = open_image(path)
    opaque = image.mode == "P" and "transparency" not in image.info
    if image.mode == "RGBA":
        opaque = int(np.asarray(image)[..., 3].min()) == 255
    if opaque:
        image = image.convert("RGB")
    if image.mode != "RGB":
        cure = (
            "Lay it over the colour of a class, and save it as RGB."
            if image.mode in ("RGBA", "P")
            else "Where the values are class ids, use the format 'palette'; for 0/255, 'masks'."
        )
        raise LabelError(f"{path}: is of mode {image.mode}, not opaque RGB. {cure}")
    return np.asarray(image)


def nearest_color(rgb: np.ndarray, space: LabelSpace, tolerance: int, source: str) -> np.ndarray:
    """(H, W, 3) uint8 -> ids (H, W): the class of the nearest colour, the first of several as near.

    Raises:
        LabelError: pixels further than ``tolerance`` (Euclidean, in 0..255) from every colour.
    """
    palette = np.array([*space.colors, space.unknown_color][: space.num_rows], np.int32)
    wide = rgb.astype(np.int32)
    values, inverse = np.unique(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], return_inverse=True)
    colors = np.stack([values >> 16, values >> 8 & 255, values & 255], axis=-1)
    near, squared = np.zeros(len(values), np.int32), np.full(len(values), np.iinfo(np.int32).max, np.int32)
    for row, color in enumerate(palette):
        distance = ((colors - color) ** 2).sum(axis=-1, dtype=np.int32)
        closer = distance < squared
        near[closer], squared[closer] = row, distance[closer]
    far = squared > tolerance**2
    if far.any():
        counts = np.bincount(inverse.ravel(), minlength=len(values))
        worst = int(np.flatnonzero(far)[np.argmax(counts[far])])
        raise LabelError(
            f"{source}: {int(counts[far].sum())} pixels are further than {tolerance} from every colour of the palette, "
            f"{tuple(colors[worst].tolist())} most often ({counts[worst]} pixels, {squared[worst] ** 0.5:.0f} from "
            f"'{space.name(int(near[worst]))}'). Add the colour, or raise the tolerance."
        )
    return near[inverse].reshape(rgb.shape[:2])


def _discovered(request: Request, paths: list[Path]) -> LabelSpace:
    """All colours that occur, in ascending order, named #rrggbb."""
    if request.tolerance:
        raise CladeError("palette='auto' takes the colours as they are; with a tolerance, name the palette's colours.")
    pixels: Counter[int] = Counter()
    for path, counts in request.each(_count_colors, paths, "finding colours"):
        if isinstance(counts, CladeError):
            continue
        pixels.update(counts)
        if len(pixels) > MAX_COLORS:
            rare = sum(1 for count in pixels.values() if count < 10)
            raise LabelError(
                f"{path}: up to this file there are {len(pixels)} colours, {rare} of them in fewer than 10 pixels; "
                f"at most {MAX_COLORS} can be found automatically. The masks have been resized smoothly, drawn with "
                "soft edges or saved as JPEG, or are photos: use the originals, or name the palette and a tolerance."
            )
    if not pixels:
        raise LabelError(f"{request.source}: no mask could be read, so there are no colours.")
    colors = [(value >> 16, value >> 8 & 255, value & 255) for value in sorted(pixels)]
    return LabelSpace(names=tuple("#{:02x}{:02x}{:02x}".format(*color) for color in colors), colors=tuple(colors))


def _count_colors(path: Path) -> dict[int, int]:
    wide = _colors(path).astype(np.int32)
    values, counts = np.unique(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


# --- Indices ----------------------------------------------------------------------------------------------------------


@converter("palette", "images", "classes", "pattern")
def palette(request: Request) -> Source:
    """Palette or single-channel masks: the numbers are the ids, the palette's colours those of the classes.

    Without ``classes`` every file is read once for the numbers in use; 255 is unknown where 254 is not in use.
    """
    found = _found(request)
    paths = _all(found)
    named, colored = (None, False) if request.classes is None else read_classes(request.classes)
    if named is None:
        used: set[int] = set()
        for _, numbers in request.each(_numbers, paths, "finding ids"):
            if not isinstance(numbers, CladeError):
                used.update(np.unique(numbers).tolist())
        unknown = 255 if 255 in used and 254 not in used and len(used) > 1 else None
        classes = used - {unknown}
        if not classes:
            raise LabelError(f"{request.source}: no mask could be read, so there are no ids.")
        named = LabelSpace.numbered(max(classes) + 1, unknown)
    colors = None if colored else _stored_colors(request, paths)
    if colors is not None:
        free = named.colors[len(colors) :]
        extra = colors[named.unknown] if named.unknown is not None and named.unknown < len(colors) else (0, 0, 0)
        named = LabelSpace(
            names=named.names,
            colors=tuple(colors[: named.num_classes]) + free,
            unknown=named.unknown,
            unknown_color=extra,
            remap=named.remap,
        )
    return _paired(request, found, named, partial(_read_indices, named, colors))


def _numbers(path: Path) -> np.ndarray:
    return _indices(path)[0]


def _indices(path: Path) -> tuple[np.ndarray, Image.Image]:
    image = open_image(path)
    if image.mode in ("RGB", "RGBA"):
        raise LabelError(f"{path}: is a colour picture ({image.mode}) without indices. Use the format 'rgb'.")
    return label_array(image, source=str(path)), image


def _stored_colors(request: Request, paths: list[Path]) -> list[Color] | None:
    """Colours by index of the first file that can be read; None where that has no palette."""
    for path in paths:
        try:
            return _palette_of(open_image(path))
        except LabelError:
            if request.on_error != "skip":
                raise
    return None


def _palette_of(image: Image.Image) -> list[Color] | None:
    if image.mode != "P":
        return None
    flat = image.getpalette("RGB") or []
    return [(r, g, b) for r, g, b in zip(flat[0::3], flat[1::3], flat[2::3], strict=True)]


def _read_indices(space: LabelSpace, colors: list[Color] | None, path: Path) -> tuple[np.ndarray, None]:
    numbers, image = _indices(path)
    own = _palette_of(image)
    if colors is not None and own is not None:
        for number in np.unique(numbers).tolist():
            if number < min(len(own), len(colors)) and own[number] != colors[number]:
                raise LabelError(
                    f"{path}: index {number} has the colour {own[number]}, in the first file {colors[number]}: the "
                    "files number their classes differently. Use the format 'rgb', which goes by the colours."
                )
    return space.encode(numbers, str(path)), None


# --- One object -------------------------------------------------------------------------------------------------------


@converter("masks", "images", "classes", "pattern", "tolerance")
def masks(request: Request) -> Source:
    """Masks of one object: 0 -> 0, 255 (or 1) -> 1; ``classes`` names the two."""
    space = LabelSpace(names=("background", "object"), colors=((0, 0, 0), (255, 255, 255)))
    if request.classes is not None:
        space, _ = read_classes(request.classes)
        if space.num_classes != 2:
            raise LabelError(f"Format 'masks' makes 2 classes, but {space.num_classes} came. Name two.")
    return _paired(request, _found(request), space, partial(_read_mask, request.tolerance))


def _read_mask(tolerance: int, path: Path) -> tuple[np.ndarray, None]:
    return binary(path, tolerance).astype(np.uint8), None


def binary(path: Path, tolerance: int = 0) -> np.ndarray:
    """A mask file -> (H, W) bool: 0 and 255, 0 and 1, or colours of which one is black and the other white.

    Args:
        tolerance: values up to so far from 0 or 255 count as these, 127 at most.

    Raises:
        LabelError: unreadable, or other values.
    """
    if not 0 <= tolerance <= 127:
        raise CladeError(f"tolerance is {tolerance}; for masks of 0 and 255 it lies in 0..127.")
    image = open_image(path)
    lossy = image.format in ("JPEG", "MPO", "WEBP")
    if image.mode in ("RGB", "RGBA"):
        pixels = np.asarray(image)[..., :3]
        if image.mode == "RGBA":
            _colors(path)  # says that it is transparent
        grey = pixels[..., 0]
        spread = int((pixels.max(axis=-1) - pixels.min(axis=-1)).max())
        if spread > 2 * tolerance:
            raise LabelError(f"{path}: is coloured, a mask of black and white is needed. Use the format 'rgb'.")
    elif lossy:
        grey = np.asarray(image.convert("L"))
    else:
        grey = label_array(image, source=str(path))
    values = np.unique(grey).tolist()
    if values[-1] <= 1 and not lossy:
        return grey > 0
    other = [value for value in values if tolerance < value < 255 - tolerance or value > 255]
    if other:
        listed = ", ".join(map(str, other[:5])) + (f" and {len(other) - 5} more" if len(other) > 5 else "")
        raise LabelError(
            f"{path}: a mask holds 0 and 255 (or 0 and 1), this has also {listed}. Where these are ids, use the format "
            "'palette'; where edges are soft, tolerance=127 cuts at half."
        )
    return grey > 127

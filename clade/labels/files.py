"""Label and instance files -> arrays. The only place that knows image modes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clade.errors import LabelError
from clade.labels.labelspace import LabelSpace

MAX_PIXELS = 1 << 27
"""Largest picture that is opened, in pixels (16384 x 8192); a damaged header can claim far more."""

_LOSSY = {"JPEG", "MPO", "WEBP"}
# Never all that Pillow knows: an EPS file named .png would run Ghostscript.
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")


def open_image(path: str | Path, error: type[LabelError] | type[ValueError] = LabelError) -> Image.Image:
    """Open and decode an image file whole, so that damage shows here and not later.

    Raises:
        error: missing, not an image, truncated, too large.
    """
    path = Path(path)
    if not path.exists():
        raise error(f"{path}: no such file.")
    if path.is_dir():
        raise error(f"{path}: is a folder, an image file is needed.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(path, formats=_FORMATS)
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise error(f"{path}: {width} x {height} pixels; at most {MAX_PIXELS} pixels are read. Is it damaged?")
            tiles: list[tuple[Any, ...]] = [tuple(tile) for tile in image.tile]  # (codec, extents, offset, arguments)
            parts = [extents for _, extents, *_ in tiles if extents]
            stored = sum((right - left) * (bottom - top) for left, top, right, bottom in parts)
            if image.format == "TIFF" and stored < width * height:  # Pillow would fill the rest with 0, a class
                raise error(f"{path}: holds {stored} of its {width} x {height} pixels. Is it damaged?")
            image.load()
            image.info["clade_stored"] = _stored_as(tiles)
    except Image.DecompressionBombError as bomb:
        raise error(f"{path}: {bomb} At most {MAX_PIXELS} pixels are read. Is it damaged?") from bomb
    except error:
        raise
    except Exception as cause:  # Pillow's decoders raise anything from struct.error to SyntaxError on damaged files
        raise error(
            f"{path}: cannot be read as an image ({type(cause).__name__}: {cause}). Replace the file."
        ) from cause
    if width == 0 or height == 0:
        raise error(f"{path}: the picture is empty ({width} x {height} pixels).")
    return image


def read_label(path: str | Path, space: LabelSpace | None = None) -> np.ndarray:
    """A label file -> ids (H, W).

    8-bit and 16-bit single-channel files hold the numbers themselves, palette files their indices; an RGB file is
    decoded by the label space's colours. With a label space the result is encoded (``LabelSpace.encode``); without one
    it is the numbers as they stand in the file.

    Raises:
        LabelError: unreadable, lossy, of a mode that cannot hold ids, colours or numbers outside the space.
    """
    image = open_image(path)
    if image.format in _LOSSY:
        raise LabelError(f"{path}: {image.format} changes pixel values, so it cannot hold labels. Save labels as PNG.")
    return label_array(image, space, source=str(path))


def label_array(image: Image.Image, space: LabelSpace | None = None, source: str = "label map") -> np.ndarray:
    """Same as :func:`read_label`, for an opened picture."""
    raw = _numbers(image, source)
    if raw is not None:
        return raw if space is None else space.encode(raw, source)
    if space is None:
        raise LabelError(
            f"{source}: is a colour picture ({image.mode}); which colour means which class is not known. "
            "Give a label space with colours (classes.json), or single-channel ids."
        )
    return space.decode_colors(_rgb(image, source), source)


def read_instances(path: str | Path) -> np.ndarray:
    """An instance file -> object numbers (H, W) int32; RGB is read as r + 256 g + 65536 b, as COCO panoptic writes it.

    Raises:
        LabelError: unreadable or of a mode that cannot hold numbers.
    """
    image = open_image(path)
    if image.format in _LOSSY:
        raise LabelError(f"{path}: {image.format} changes pixel values, so it cannot hold instances. Save them as PNG.")
    raw = _numbers(image, str(path))
    if raw is not None:
        return raw.astype(np.int32)
    rgb = _rgb(image, str(path)).astype(np.int32)
    return rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]


def _stored_as(tiles: list[tuple[Any, ...]]) -> str:
    """How the file packs its pixels, in Pillow's words: L, L;4, L;2, ..."""
    arguments = tiles[0][3] if tiles else None
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw if isinstance(raw, str) else ""


# Pillow spreads the numbers of 2 and 4 bits over 0..255.
_SPREAD = {"L;2": 85, "L;4": 17}


def _numbers(image: Image.Image, source: str) -> np.ndarray | None:
    """The numbers of a single-channel picture, None for a colour picture."""
    stored = image.info.get("clade_stored") or _stored_as([tuple(tile) for tile in getattr(image, "tile", ())])
    if image.mode == "L" and (image.format == "PPM" or stored not in ("", "L", *_SPREAD)):
        raise LabelError(
            f"{source}: a grey {image.format} file stored as '{stored}' does not hold its numbers as they are "
            "(scaled or inverted). Save labels as PNG."
        )
    if image.mode == "L" and stored in _SPREAD:
        return np.asarray(image) // _SPREAD[stored]
    if image.mode in ("L", "P"):
        return np.asarray(image)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode.startswith("I"):  # I;16, I;16B and, for 16-bit PNG in older Pillow, I
        return np.asarray(image).astype(np.int32)
    if image.mode in ("RGB", "RGBA"):
        return None
    raise LabelError(
        f"{source}: pictures of mode {image.mode} cannot hold labels. "
        "Needed is one channel of 8 or 16 bits, a palette, or RGB by the label space's colours."
    )


def _rgb(image: Image.Image, source: str) -> np.ndarray:
    pixels = np.asarray(image)
    if image.mode == "RGBA" and int(pixels[..., 3].min()) < 255:
        raise LabelError(f"{source}: has transparent pixels, whose colour means no class. Save it as RGB.")
    return pixels[..., :3]

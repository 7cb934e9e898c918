"""Photo files -> arrays."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from clade.errors import DataError
from clade.labels.files import open_image


def read_photo(path: str | Path) -> np.ndarray:
    """A photo of any mode -> (H, W, 3) uint8, turned upright as its EXIF data say.

    16-bit grey is divided by 257; transparent pixels are laid over white.

    Raises:
        DataError: unreadable, or values of unknown range (floating point, 32 bits).
    """
    image = open_image(path, DataError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ImageOps.exif_transpose(image, in_place=True)
            return np.asarray(_to_rgb(image))
    except Exception as cause:  # damaged EXIF data and odd palettes raise anything, as damaged pixels do
        raise DataError(
            f"{path}: a picture of mode {image.mode} cannot be read as a photo ({type(cause).__name__}: {cause}). "
            "Save it as 8-bit RGB."
        ) from cause


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int32)
        if wide.min() < 0 or wide.max() > 65535:
            raise ValueError(f"its values go from {wide.min()} to {wide.max()}, needed is 8 or 16 bits")
        return Image.fromarray((wide // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("the range of floating-point values is not known")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")

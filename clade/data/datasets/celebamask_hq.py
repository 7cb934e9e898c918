"""CelebAMask-HQ: faces, whose parts lie in one mask file each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from clade.data.base import DATASETS
from clade.data.benchmark import BenchmarkDataset, Place, Places, keep
from clade.data.files import PHOTO_SUFFIXES, Listing, by_name, natural_key, paired, require_same_size, some, walk
from clade.data.photos import read_photo
from clade.errors import DataError, LabelError
from clade.labels.files import open_image
from clade.labels.labelspace import LabelSpace

PARTS = (
    *("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip", "l_lip"),
    *("hair", "hat", "ear_r", "neck_l", "neck", "cloth"),
)
"""Part k of the files is class k + 1, and is painted over those before it (the order of the dataset's g_mask.py)."""
FIRST_OF_VAL = 28_000
_FILE = re.compile(r"([0-9]+)_([a-z_]+)\.png")


@DATASETS.register("celebamask-hq")
class CelebAMaskHQDataset(BenchmarkDataset):
    """CelebAMask-HQ: 19 classes with the background. Photos have 1024 x 1024 pixels, masks 512 x 512.

    The parts of a picture are merged in the documented order; its ids are then doubled (each pixel becomes 2 x 2) to
    the photo's size. Pictures 0 to 27,999 are "train" and 28,000 to 29,999 are "val", which makes the 28,000 and 2,000
    of the paper and of SEAN. It goes by the number: where pictures are missing, the others stay in their part.

    Args:
        root, split, label_space, num_classes, unknown, remap, palette, labels_only, instances: as in
            :class:`clade.data.benchmark.BenchmarkDataset`; there are no instances.
        list_file: a list of names for each split (``{split}`` in its path), instead of that rule.

    Raises:
        DataError, LabelError: as in BenchmarkDataset; a photo that is neither as large as its masks nor twice that.
    """

    NAME = "celebamask-hq"
    CLASSES = "celebamask_hq"
    LAYOUT = (
        "CelebAMask-HQ's folder holds CelebA-HQ-img/N.jpg and CelebAMask-HQ-mask-anno/K/N_PART.png, N with five digits "
        "there and K = N // 2000."
    )
    ALTERNATIVES: ClassVar[Sequence[Places]] = (
        dict.fromkeys(("train", "val"), Place("CelebAMask-HQ-mask-anno", "CelebA-HQ-img")),
    )

    @classmethod
    def list_files(
        cls,
        root: Path,
        split: str | None,
        labels_only: bool = False,
        instances: bool = True,
        list_file: str | Path | None = None,
        **options: Any,
    ) -> Listing:
        if list_file is not None and "{split}" not in str(list_file):
            raise DataError(
                f"{list_file}: would be both the training and the validation pictures. Write one list for each, and "
                "{split} in data.options.list_file: lists/{split}.txt is lists/train.txt and lists/val.txt."
            )
        files = super().list_files(root, split, labels_only, instances, list_file)
        place = cls._split(root, split)[1]
        problems = list(files.problems)
        if not files.labels and not files.images:
            numbers = f"0 to {FIRST_OF_VAL - 1}" if split == "train" else f"{FIRST_OF_VAL} or more"
            problems.append(
                f"{root}: no pictures of the split {split!r}, which are those with the numbers {numbers}. For another "
                "split name lists of your own by data.options.list_file."
            )
        places = [root / place.labels, root / place.images]
        found = paired(files.folder, problems, files.labels, files.images, places=places)
        return replace(files, problems=found.problems)

    @classmethod
    def list_place(
        cls, root: Path, split: str, place: Place, labels_only: bool, instances: bool, **options: Any
    ) -> Listing:
        problems: list[str] = []
        parts = _find_parts(root / place.labels, problems)
        labels = {name: found[min(found)] for name, found in parts.items()}
        images = None if labels_only else by_name(root / place.images, PHOTO_SUFFIXES, problems, _number)
        return FaceListing(root / place.labels, labels, images, None, problems, parts)

    @classmethod
    def chosen(cls, files: Listing, root: Path, split: str) -> Listing:
        names = {*files.labels, *(files.images or {})}
        return keep(files, {name for name in names if (int(name) >= FIRST_OF_VAL) == (split == "val")})


@dataclass(frozen=True)
class FaceListing(Listing):
    """Pictures whose labels are parts in files of their own; ``labels`` names the first of them.

    Args:
        parts: name -> class -> file.
    """

    parts: dict[str, dict[int, Path]] = field(default_factory=dict)

    def ids(self, name: str, space: LabelSpace) -> np.ndarray:
        return space.encode(self.numbers(name), str(self.labels[name]))

    def numbers(self, name: str) -> np.ndarray:
        """The merged parts, as large as the photo where photos are read."""
        merged: np.ndarray | None = None
        first = self.labels[name]
        for number, path in sorted(self.parts[name].items()):
            inside = _inside(path)
            if merged is None:
                merged = np.zeros(inside.shape, np.uint8)
            require_same_size(path, inside.shape, first, merged.shape)
            merged[inside] = number
        assert merged is not None
        if self.images is None:
            return merged
        photo = self.images.get(name)
        return merged if photo is None else _enlarged(merged, first, photo)


def _find_parts(folder: Path, problems: list[str]) -> dict[str, dict[int, Path]]:
    """Name -> class -> file, in natural order of the names."""
    classes = {part: number for number, part in enumerate(PARTS, start=1)}
    parts: dict[str, dict[int, Path]] = {}
    strange = []
    for inside in walk(folder):
        found, path = _FILE.fullmatch(inside.rpartition("/")[2]), folder / inside
        if found is None or found[2] not in classes:
            strange += [str(path)] if inside.endswith(".png") else []
            continue
        of_picture = parts.setdefault(str(int(found[1])), {})
        if classes[found[2]] in of_picture:
            problems.append(f"{of_picture[classes[found[2]]]} and {path} are the same part. Remove one.")
        of_picture[classes[found[2]]] = path
    if strange:
        problems.append(
            f"{len(strange)} mask files are no part of a face: {some(sorted(strange))}. "
            f"Needed is N_PART.png; the parts are {', '.join(PARTS)}."
        )
    return {name: parts[name] for name in sorted(parts, key=natural_key)}


def _inside(path: Path) -> np.ndarray:
    """Where a part is: not black, (H, W) bool."""
    image = open_image(path)
    if image.format in ("JPEG", "WEBP", "MPO"):
        raise LabelError(f"{path}: {image.format} changes pixel values, so it cannot hold a mask. Save it as PNG.")
    pixels = np.asarray(image.convert("RGB") if image.mode in ("P", "RGBA", "LA") else image)
    if pixels.ndim == 3:  # four times as fast as any() over the channels
        pixels = pixels[..., 0] | pixels[..., 1] | pixels[..., 2]
    return np.not_equal(pixels, 0)


def _enlarged(ids: np.ndarray, label: Path, photo: Path) -> np.ndarray:
    """Ids as large as the photo, which has the same size or twice that."""
    width, height = _photo_size(photo)
    if (height, width) == ids.shape:
        return ids
    if (height, width) != (2 * ids.shape[0], 2 * ids.shape[1]):
        raise LabelError(
            f"{photo} is {width} x {height} pixels, but {label} is {ids.shape[1]} x {ids.shape[0]}. A photo is as "
            "large as its masks, or twice as large (1024 and 512). Use the original files; training resizes both."
        )
    return ids.repeat(2, axis=0).repeat(2, axis=1)


def _photo_size(path: Path) -> tuple[int, int]:
    """(width, height) from the file's header, without decoding it."""
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            return image.size
    except Exception:  # read_photo says what is wrong with it, or can read what this cannot
        height, width = read_photo(path).shape[:2]
        return width, height


def _number(name: str) -> str | None:
    """A photo's name without leading zeros; None for what is not a number."""
    return str(int(name)) if name.isdecimal() else None

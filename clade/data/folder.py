"""A dataset as folders of files: ``root/[split/]images``, ``labels`` and, where there are any, ``instances``."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image, ImageOps

from clade.data.base import DATASETS, Dataset, Sample
from clade.errors import DataError, LabelError
from clade.labels.files import open_image, read_instances, read_label
from clade.labels.labelspace import LabelSpace, distinct_colors
from clade.registry import near_match

SPLITS = ("train", "val", "test")
IMAGES, LABELS, INSTANCES = "images", "labels", "instances"
LAYOUT = (
    "A dataset folder holds images/NAME.jpg and labels/NAME.png (and instances/NAME.png, if any), "
    "either directly or in train/, val/ and test/, and a classes.json."
)

LABEL_SUFFIXES = frozenset({".png", ".bmp", ".tif", ".tiff", ".gif"})
PHOTO_SUFFIXES = LABEL_SUFFIXES | {".jpg", ".jpeg", ".webp"}
_NAMED = 5  # how many files a message names


@dataclass(frozen=True)
class Listing:
    """The files of one split, paired by their path below images/, labels/ and instances/, without suffix.

    Args:
        folder: the folder that holds labels/.
        labels, images, instances: name -> file, in natural order of the names; None for what is not there to be read.
        problems: what does not pair up, in words.
    """

    folder: Path
    labels: dict[str, Path]
    images: dict[str, Path] | None
    instances: dict[str, Path] | None
    problems: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Names that have all their files."""
        others = [part for part in (self.images, self.instances) if part is not None]
        return [name for name in self.labels if all(name in part for part in others)]


@DATASETS.register("folder")
class FolderDataset(Dataset):
    """Photos, labels and instances that share their file names.

    Args:
        root: the folder of the dataset.
        split: folder below ``root``; a root without split folders is read as "train", or with ``split=None``.
        label_space: the classes, instead of ``classes.json`` in the split's folder or in ``root``.
        num_classes, unknown, remap: override or complete the label space; ``num_classes`` alone is enough without one.
        labels_only: leave the photos unread, for generating; images/ need not be there.

    Raises:
        DataError: nothing there, files without their partners, or no label space.
        LabelError: a label space that contradicts itself.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | None = "train",
        label_space: LabelSpace | None = None,
        num_classes: int | None = None,
        unknown: int | None = None,
        remap: Mapping[int, int] | None = None,
        labels_only: bool = False,
    ) -> None:
        folder = split_folder(Path(root), split)
        space = label_space or stored_space(folder, Path(root))
        self.label_space = completed_space(space, num_classes, unknown, remap, source=str(folder))
        self.files = list_files(folder, labels_only)
        if self.files.problems:
            raise DataError("\n".join(self.files.problems))
        self._names = self.files.names
        if not self._names:
            raise DataError(f"{folder / LABELS}: no label files ({', '.join(sorted(LABEL_SUFFIXES))}). {LAYOUT}")

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def read(self, index: int) -> Sample:
        """Raises DataError or LabelError, with the path, for a file that cannot be used."""
        return read_sample(self.files, self._names[index], self.label_space)


def read_sample(files: Listing, name: str, space: LabelSpace) -> Sample:
    """The files of one name -> Sample; all of the same size."""
    ids = read_label(files.labels[name], space)
    image = None if files.images is None else read_photo(files.images[name])
    instances = None if files.instances is None else read_instances(files.instances[name])
    for part, where in ((image, files.images), (instances, files.instances)):
        if part is not None and where is not None:
            require_same_size(where[name], part.shape, files.labels[name], ids.shape)
    return Sample(name, image, ids, instances)


def require_same_size(path: Path, shape: tuple[int, ...], label: Path, label_shape: tuple[int, ...]) -> None:
    """Raises DataError unless a file has the size of its label map; both shapes are (H, W, ...)."""
    if shape[:2] == label_shape[:2]:
        return
    turned = shape[:2] == label_shape[1::-1]
    hint = " One lies on its side: is the label made of the photo without its EXIF rotation?" if turned else ""
    raise DataError(
        f"{path} is {shape[1]} x {shape[0]} pixels, but {label} is {label_shape[1]} x {label_shape[0]}. "
        f"Both must have the same size; resize labels with nearest neighbour.{hint}"
    )


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


def split_folder(root: Path, split: str | None) -> Path:
    """The folder that holds labels/ of a split.

    Raises:
        DataError: it is not there; the message says which splits are.
    """
    found = find_splits(root)
    if split is None:
        if None in found:
            return root
    elif split in found:
        return root / split
    elif found == [None] and split == SPLITS[0]:
        return root
    named = [name for name in found if name is not None]
    have = (
        f"It has {', '.join(named)} (data.train_split and data.val_split choose)."
        if named
        else f"{root / LABELS} is its only set, which is called 'train' (data.val_split=train)."
    )
    raise DataError(f"{root}: there is no split {split!r}.{near_match(str(split), named)} {have} {LAYOUT}")


def find_splits(root: Path) -> list[str | None]:
    """Folders in ``root`` that hold labels/ or images/, train, val and test first; None stands for ``root`` itself.

    Raises:
        DataError: ``root`` is missing, is a file, or holds neither.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such folder"
        raise DataError(f"{root}: {what}. Name the dataset's folder (data.root in a recipe). {LAYOUT}")
    try:
        names = sorted(path.name for path in root.iterdir() if path.is_dir())
        order = [name for name in SPLITS if name in names] + [name for name in names if name not in SPLITS]
        found: list[str | None] = [None] if _holds_data(root) else []
        found += [name for name in order if _holds_data(root / name)]
    except OSError as error:
        raise DataError(f"{root}: cannot be listed ({error}).") from error
    if not found:
        raise DataError(f"{root}: neither {LABELS}/ nor {IMAGES}/ is in it. {LAYOUT}")
    return found


def _holds_data(folder: Path) -> bool:
    return (folder / LABELS).is_dir() or (folder / IMAGES).is_dir()


def stored_space(folder: Path, root: Path) -> LabelSpace | None:
    """The ``classes.json`` of a split, else of the whole dataset, else None; LabelError for one that is broken."""
    for place in (folder, root):
        if (place / "classes.json").exists():
            return LabelSpace.from_json(place / "classes.json")
    return None


def completed_space(
    space: LabelSpace | None,
    num_classes: int | None = None,
    unknown: int | None = None,
    remap: Mapping[int, int] | None = None,
    source: str = "dataset",
) -> LabelSpace:
    """A label space with what the options say instead; fewer classes drop the last names, more are numbered.

    Raises:
        DataError: neither a space nor ``num_classes``.
        LabelError: they contradict each other.
    """
    if space is None:
        if num_classes is None:
            raise DataError(
                f"{source}: there is no classes.json, so the classes are not known. Set data.num_classes (and "
                'data.unknown), or write classes.json: {"names": ["sky", "tree", ...], "unknown": 255}, '
                "one name per id from 0 on."
            )
        space = LabelSpace.numbered(num_classes)
    count = space.num_classes if num_classes is None else num_classes
    numbered = LabelSpace.numbered(count).names
    try:
        return LabelSpace(
            names=space.names[:count] + numbered[space.num_classes :],
            colors=space.colors[:count] + distinct_colors(count)[space.num_classes :],
            unknown=space.unknown if unknown is None else unknown,
            unknown_color=space.unknown_color,
            remap={**space.remap, **(remap or {})},
        )
    except (LabelError, TypeError) as error:
        raise LabelError(f"{source}: {error}") from error


def list_files(folder: Path, labels_only: bool = False) -> Listing:
    """Pair the files of a split.

    Raises:
        DataError: a folder that cannot be listed. What does not pair up is in ``Listing.problems``.
    """
    problems: list[str] = []
    labels = _by_name(folder / LABELS, LABEL_SUFFIXES, problems)
    images = None if labels_only else _by_name(folder / IMAGES, PHOTO_SUFFIXES, problems)
    instances = _by_name(folder / INSTANCES, LABEL_SUFFIXES, problems) if (folder / INSTANCES).is_dir() else None
    if images is not None:
        _unpaired(images, labels, f"photos in {folder / IMAGES} have no label map in {folder / LABELS}", problems)
        _unpaired(labels, images, f"label maps in {folder / LABELS} have no photo in {folder / IMAGES}", problems)
    if instances is not None:
        _unpaired(
            labels, instances, f"label maps in {folder / LABELS} have no instances in {folder / INSTANCES}", problems
        )
    return Listing(folder, labels, images, instances, problems)


def _by_name(folder: Path, suffixes: frozenset[str], problems: list[str]) -> dict[str, Path]:
    """Name -> file of the picture files below a folder, in natural order."""
    files: dict[str, Path] = {}
    lossy: list[str] = []
    for inside in _walk(folder):
        name, suffix = os.path.splitext(inside)
        if suffix.lower() not in PHOTO_SUFFIXES:
            continue
        path = folder / inside
        if suffix.lower() not in suffixes:
            lossy.append(str(path))
        elif name in files:
            problems.append(f"{files[name]} and {path} have the same name; which one counts is not known. Remove one.")
        files.setdefault(name, path)
    if lossy:
        problems.append(
            f"{_some(lossy)}: JPEG and WebP change pixel values, so they cannot hold labels. Save labels as PNG."
        )
    return {name: files[name] for name in sorted(files, key=natural_key)}


def _walk(folder: Path) -> list[str]:
    """All files below a folder, as paths from there, through links too, each real folder once; nothing hidden."""

    def fail(error: OSError) -> NoReturn:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror}).") from error

    found, seen = [], set()
    for place, below, names in os.walk(folder, onerror=None if not folder.exists() else fail, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link that leads back up
            below.clear()
            continue
        seen.add(real)
        below[:] = [name for name in below if not name.startswith(".")]
        inside = "" if place == str(folder) else Path(place).relative_to(folder).as_posix() + "/"
        found += [inside + name for name in names if not name.startswith(".")]
    return sorted(found)


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key that puts frame2 before frame10."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if k % 2 else (0, part) for k, part in enumerate(parts)], name


def _unpaired(have: dict[str, Path], partners: dict[str, Path], what: str, problems: list[str]) -> None:
    missing = [name for name in have if name not in partners]
    if missing:
        problems.append(f"{len(missing)} {what}: {_some(missing)}. Add the missing files, or remove these.")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more

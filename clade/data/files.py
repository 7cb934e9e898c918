"""Datasets that lie in files: the files of a split, how they pair up, and what is common to all layouts."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from clade.data.base import DATASETS, Dataset, Sample
from clade.data.photos import read_photo
from clade.errors import DataError, LabelError
from clade.labels.files import read_instances, read_label
from clade.labels.labelspace import Color, LabelSpace, distinct_colors

LABEL_SUFFIXES = frozenset({".png", ".bmp", ".tif", ".tiff", ".gif"})
PHOTO_SUFFIXES = LABEL_SUFFIXES | {".jpg", ".jpeg", ".webp"}
_NAMED = 5  # how many files a message names


@dataclass(frozen=True)
class Listing:
    """The files of one split, by the name that they share. A layout with files of its own kind overrides the readers.

    Args:
        folder: the folder that the files lie in, for messages.
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

    def ids(self, name: str, space: LabelSpace) -> np.ndarray:
        """Class of each pixel (H, W), in ``[0, num_rows)`` of the space; raises LabelError."""
        return read_label(self.labels[name], space)

    def numbers(self, name: str) -> np.ndarray:
        """The numbers (H, W) as they stand in the label files; raises LabelError, for colours too."""
        return read_label(self.labels[name])

    def photo(self, name: str) -> np.ndarray | None:
        """(H, W, 3) uint8, None where photos are not read; raises DataError."""
        return None if self.images is None else read_photo(self.images[name])

    def objects(self, name: str) -> np.ndarray | None:
        """Object number of each pixel (H, W) int32, None where there are none; raises LabelError."""
        return None if self.instances is None else read_instances(self.instances[name])

    def sample(self, name: str, space: LabelSpace) -> Sample:
        """All of one name, of the same size.

        Raises:
            DataError, LabelError: a file that cannot be used; the message names it.
        """
        ids, image, instances = self.ids(name, space), self.photo(name), self.objects(name)
        for part, where in ((image, self.images), (instances, self.instances)):
            if part is not None and where is not None:
                require_same_size(where[name], part.shape, self.labels[name], ids.shape)
        return Sample(name, image, ids, instances)


class FileDataset(Dataset):
    """Photos, labels and perhaps instances in files, in one known layout; a subclass says where they lie.

    Args:
        root: the folder of the dataset.
        split: which part.
        label_space: the classes, instead of the layout's own.
        num_classes, unknown, remap, palette: override or complete the label space; ``num_classes`` alone is enough
            where the layout knows none.
        labels_only: leave the photos unread, for generating; they need not be there.

    Raises:
        DataError: nothing there, files without their partners, or no label space.
        LabelError: a label space that contradicts itself.
    """

    LAYOUT: ClassVar[str]
    """The files that are expected, in words or as a tree, for messages."""
    _options: Mapping[str, Any] = {}
    """Further keywords for ``list_files``; a layout that has some sets them before it calls this ``__init__``."""

    def __init__(
        self,
        root: str | Path,
        split: str | None = "train",
        label_space: LabelSpace | None = None,
        num_classes: int | None = None,
        unknown: int | None = None,
        remap: Mapping[int, int] | None = None,
        palette: Sequence[Color] | None = None,
        labels_only: bool = False,
    ) -> None:
        root = Path(root)
        self.files = self.list_files(root, split, labels_only, **self._options)
        space = label_space or self.stored_space(root, split)
        self.label_space = completed_space(space, num_classes, unknown, remap, palette, source=str(self.files.folder))
        if self.files.problems:
            raise DataError("\n".join(self.files.problems))
        self._names = self.files.names
        if not self._names:
            raise DataError(f"{self.files.folder}: no label files. {self.LAYOUT}")

    @classmethod
    @abstractmethod
    def recognizes(cls, root: Path) -> bool:
        """Whether a folder holds this layout; looks at few names, reads no picture, and never raises."""

    @classmethod
    @abstractmethod
    def splits(cls, root: Path) -> list[str | None]:
        """The parts that are there; None stands for a root that is the only part itself.

        Raises:
            DataError: ``root`` is missing or holds another layout.
        """

    @classmethod
    @abstractmethod
    def list_files(cls, root: Path, split: str | None, labels_only: bool = False) -> Listing:
        """Pair the files of a split.

        Raises:
            DataError: no such split, a folder that cannot be listed. What does not pair up is in ``Listing.problems``.
        """

    @classmethod
    @abstractmethod
    def stored_space(cls, root: Path, split: str | None) -> LabelSpace | None:
        """The classes that the layout defines or stores, None where it knows none; LabelError for broken ones."""

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def read(self, index: int) -> Sample:
        """Raises DataError or LabelError, with the path, for a file that cannot be used."""
        return self.files.sample(self._names[index], self.label_space)

    def classes(self, index: int) -> np.ndarray:
        """As for every dataset; reads the label file only."""
        return np.unique(self.files.ids(self._names[index], self.label_space))


def layouts() -> dict[str, type[FileDataset]]:
    """Name -> class of every registered dataset that lies in files; the general "folder" comes last."""
    found = {name: DATASETS[name] for name in DATASETS}
    files = {name: cls for name, cls in found.items() if isinstance(cls, type) and issubclass(cls, FileDataset)}
    return dict(sorted(files.items(), key=lambda item: item[0] == "folder"))


def find_layout(root: str | Path) -> str:
    """Name of the dataset whose layout a folder holds.

    Raises:
        DataError: ``root`` is missing, or holds no known layout; the message tells what is needed.
    """
    root = Path(root)
    require_folder(root)
    for name, cls in layouts().items():
        if cls.recognizes(root):
            return name
    raise DataError(
        f"{root}: holds none of the known layouts ({', '.join(layouts())}). {layouts()['folder'].LAYOUT} "
        "docs/datasets shows the others; `clade data convert` makes this layout of masks in other forms."
    )


def require_folder(root: Path, hint: str = "") -> None:
    """Raises DataError unless a dataset's root is a folder; ``hint`` ends the message."""
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such folder"
        raise DataError(f"{root}: {what}. Name the dataset's folder (data.root in a recipe). {hint}".rstrip())


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


def completed_space(
    space: LabelSpace | None,
    num_classes: int | None = None,
    unknown: int | None = None,
    remap: Mapping[int, int] | None = None,
    palette: Sequence[Color] | None = None,
    source: str = "dataset",
) -> LabelSpace:
    """A label space with what the options say instead; fewer classes drop the last names, more are numbered.

    Raises:
        DataError: neither a space nor ``num_classes``.
        LabelError: they contradict each other.
    """
    if space is None:
        if num_classes is None and palette is not None:
            num_classes = len(palette)
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
            colors=tuple(palette or space.colors[:count] + distinct_colors(count)[space.num_classes :]),
            unknown=space.unknown if unknown is None else unknown,
            unknown_color=space.unknown_color,
            remap={**space.remap, **(remap or {})},
        )
    except (LabelError, TypeError) as error:
        raise LabelError(f"{source}: {error}") from error


def paired(
    folder: Path,
    problems: list[str],
    labels: dict[str, Path],
    images: dict[str, Path] | None,
    instances: dict[str, Path] | None = None,
    *,
    places: Sequence[Path],
) -> Listing:
    """The files of a split, with what does not pair up among the problems.

    Args:
        places: where labels, images and instances lie, for the messages.
    """
    in_labels, in_images, *in_instances = places
    if images is not None:
        _unpaired(images, labels, f"photos in {in_images} have no label map in {in_labels}", problems)
        _unpaired(labels, images, f"label maps in {in_labels} have no photo in {in_images}", problems)
    if instances is not None:
        _unpaired(labels, instances, f"label maps in {in_labels} have no instances in {in_instances[0]}", problems)
    return Listing(folder, labels, images, instances, problems)


def by_name(
    folder: Path,
    suffixes: frozenset[str],
    problems: list[str],
    rename: Callable[[str], str | None] | None = None,
) -> dict[str, Path]:
    """Name -> file of the picture files below a folder, in natural order.

    Args:
        suffixes: those that count; a photo's suffix that is not among them is a problem.
        problems: gets what is wrong, in words.
        rename: path from ``folder`` without suffix -> the picture's name, None for a file that is none of these.
    """
    files: dict[str, Path] = {}
    lossy: list[str] = []
    for inside in walk(folder):
        name, suffix = os.path.splitext(inside)
        if rename is not None:
            name = rename(name)
        if name is None or suffix.lower() not in PHOTO_SUFFIXES:
            continue
        path = folder / inside
        if suffix.lower() not in suffixes:
            lossy.append(str(path))
        elif name in files:
            problems.append(f"{files[name]} and {path} have the same name; which one counts is not known. Remove one.")
        files.setdefault(name, path)
    if lossy:
        problems.append(
            f"{len(lossy)} files ({some(lossy)}): JPEG and WebP change pixel values, so they cannot hold labels. Save "
            "labels as PNG, from the originals; or `clade data convert` with --tolerance N reads values that are off "
            "by up to N as the nearest (--from rgb, masks or parts)."
        )
    return {name: files[name] for name in sorted(files, key=natural_key)}


def walk(folder: Path) -> list[str]:
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
        problems.append(f"{len(missing)} {what}: {some(missing)}. Add the missing files, or remove these.")


def some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more

"""Clothing Co-Parsing (CCP): street fashion with 59 labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from clade.data.base import DATASETS
from clade.data.benchmark import BenchmarkDataset, Place, Places, keep, pair_place
from clade.data.files import PHOTO_SUFFIXES, Listing, by_name, natural_key, paired
from clade.errors import LabelError, first_line
from clade.labels.labelspace import LabelSpace

_RANGES = {"train": range(1, 805), "val": range(805, 905), "test": range(905, 1005)}
_PIXEL_LEVEL = "annotations/pixel-level"


@DATASETS.register("ccp")
class CCPDataset(BenchmarkDataset):
    """CCP: the 1,004 photos with pixel labels; 59 classes, "null" (background) among them.

    It has no official split: here 1 to 804 are "train", 805 to 904 "val" and 905 to 1004 "test". Photos without pixel
    labels (1005 to 2098) are left alone. Arguments and errors as in :class:`clade.data.benchmark.BenchmarkDataset`;
    there are no instances.
    """

    NAME = "ccp"
    CLASSES = "ccp"
    LAYOUT = (
        "CCP's folder (clothing-co-parsing) holds photos/0001.jpg and annotations/pixel-level/0001.mat; or "
        "train/images, train/labels and so on."
    )
    ALTERNATIVES: ClassVar[Sequence[Places]] = (
        dict.fromkeys(_RANGES, Place(_PIXEL_LEVEL, "photos")),
        {split: Place(f"{split}/labels", f"{split}/images") for split in _RANGES},
    )

    @classmethod
    def recognizes(cls, root: Path) -> bool:
        """The folder layout is not told from any other dataset's."""
        return super().recognizes(root) and cls.places(root) is cls.ALTERNATIVES[0]

    @classmethod
    def list_place(
        cls, root: Path, split: str, place: Place, labels_only: bool, instances: bool, **options: Any
    ) -> Listing:
        if place.labels != _PIXEL_LEVEL:
            return pair_place(root, place, labels_only, instances)
        problems: list[str] = []
        found = {path.stem: path for path in (root / place.labels).glob("*.mat")}
        labels = {name: found[name] for name in sorted(found, key=natural_key)}
        images = None
        if not labels_only:
            photos = by_name(root / place.images, PHOTO_SUFFIXES, problems)
            images = {name: path for name, path in photos.items() if name in labels or _is_labelled(name)}
        files = paired(root / place.labels, problems, labels, images, places=[root / place.labels, root / place.images])
        return MatlabListing(files.folder, files.labels, files.images, None, files.problems)

    @classmethod
    def chosen(cls, files: Listing, root: Path, split: str) -> Listing:
        if not isinstance(files, MatlabListing):
            return files
        names = {*files.labels, *(files.images or {})}
        return keep(files, {name for name in names if name.isdecimal() and int(name) in _RANGES[split]})


def _is_labelled(name: str) -> bool:
    return name.isdecimal() and any(int(name) in numbers for numbers in _RANGES.values())


class MatlabListing(Listing):
    """Labels in MATLAB files, as the variable ``groundtruth``."""

    def ids(self, name: str, space: LabelSpace) -> np.ndarray:
        return space.encode(self.numbers(name), str(self.labels[name]))

    def numbers(self, name: str) -> np.ndarray:
        return read_matlab(self.labels[name])


def read_matlab(path: Path) -> np.ndarray:
    """The label map of a file of CCP, (H, W) integers.

    Raises:
        LabelError: unreadable, without that variable, no matrix of whole numbers; scipy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise LabelError(f"{path}: MATLAB files are read with scipy. Install it: pip install scipy.") from error
    try:
        content = loadmat(path, variable_names=["groundtruth"])
    except OSError as error:
        raise LabelError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # scipy's reader raises anything on damaged files
        raise LabelError(
            f"{path}: is no MATLAB file ({type(error).__name__}: {first_line(error)}). Replace it."
        ) from error
    ids = content.get("groundtruth")
    if not isinstance(ids, np.ndarray) or ids.ndim != 2 or ids.dtype.kind not in "iufb":
        what = "is not in it" if ids is None else f"has {ids.dtype} of shape {ids.shape}"
        raise LabelError(f"{path}: 'groundtruth' {what}; needed is the matrix (H, W) of labels.")
    whole = ids.astype(np.int64)
    if ids.dtype.kind == "f" and not np.array_equal(whole, ids):
        raise LabelError(f"{path}: 'groundtruth' has broken numbers; needed are whole ones.")
    return whole

"""ADE20K (MIT Scene Parsing, ADEChallengeData2016), and its outdoor pictures."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np

from clade.data.base import DATASETS
from clade.data.benchmark import BenchmarkDataset, Place, Places, keep
from clade.data.disk_cache import cached, files_key
from clade.data.files import Listing
from clade.errors import DataError
from clade.labels.labelspace import Color, LabelSpace
from clade.registry import near_match
from clade.system.progress import track


@DATASETS.register("ade20k")
class ADE20KDataset(BenchmarkDataset):
    """ADE20K: 150 classes and unknown. Label files hold 0 for unknown and 1..150 for the classes 0..149.

    Arguments and errors as in :class:`clade.data.benchmark.BenchmarkDataset`; there are no instances.
    """

    NAME = "ade20k"
    CLASSES = "ade20k"
    LAYOUT = (
        "ADE20K's folder is ADEChallengeData2016 with images/training/NAME.jpg, annotations/training/NAME.png, "
        "images/validation and annotations/validation; not the full ADE20K release, whose labels are another format."
    )
    ALTERNATIVES: ClassVar[Sequence[Places]] = (
        {
            "train": Place("annotations/training", "images/training"),
            "val": Place("annotations/validation", "images/validation"),
        },
    )


OUTDOOR_CLASSES = ("sky", "tree", "sea")
PAPER_COUNTS = {"train": 9649, "val": 943}


@DATASETS.register("ade20k-outdoor")
class ADE20KOutdoorDataset(ADE20KDataset):
    """The outdoor pictures of ADE20K: those in which a class that is found outdoors covers enough of the picture.

    The paper "directly select[s] the images containing categories such as sky, trees, and sea without manual
    inspection" (section 4.1) and has 9,649 of them in train and 943 in val; no list is published. All labels are read
    once to find them, and the counts are kept in the user's cache directory. How many were kept is said on stderr.

    Args:
        root, split, label_space, num_classes, unknown, remap, palette, labels_only, list_file: as in
            :class:`clade.data.benchmark.BenchmarkDataset`; a ``list_file`` replaces the rule.
        classes: names of the classes that make a picture an outdoor one.
        min_share: smallest part of the picture that they cover together, in [0, 1]; 0 means a single pixel.

    Raises:
        DataError, LabelError: as in BenchmarkDataset; no such class; no picture left.
    """

    NAME = "ade20k-outdoor"

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
        list_file: str | Path | None = None,
        classes: Sequence[str] = OUTDOOR_CLASSES,
        min_share: float = 0.0,
    ) -> None:
        self._options = {"classes": tuple(classes), "min_share": min_share}
        super().__init__(
            root, split, label_space, num_classes, unknown, remap, palette, labels_only, list_file=list_file
        )

    @classmethod
    def recognizes(cls, root: Path) -> bool:
        """Never: the folder is ADE20K's, and what is meant is a choice."""
        return False

    @classmethod
    def list_files(
        cls,
        root: Path,
        split: str | None,
        labels_only: bool = False,
        instances: bool = True,
        list_file: str | Path | None = None,
        classes: Sequence[str] = OUTDOOR_CLASSES,
        min_share: float = 0.0,
    ) -> Listing:
        files = super().list_files(root, split, labels_only, instances, list_file)
        if list_file is not None:
            return files
        kept = outdoor_names(files, classes, min_share)
        paper = PAPER_COUNTS.get(str(split))
        print(
            f"ade20k-outdoor: kept {len(kept)} of {len(files.labels)} pictures of {split}"
            + (f" (the paper has {paper})." if paper else "."),
            file=sys.stderr,
        )
        if files.labels and not kept:
            raise DataError(
                f"{files.folder}: none of {len(files.labels)} pictures has {', '.join(classes)} on {min_share:.0%} of "
                "it. Set data.options.classes or min_share otherwise."
            )
        return keep(files, kept)


def outdoor_names(files: Listing, classes: Sequence[str], min_share: float) -> set[str]:
    """Names of the pictures on which some classes cover ``min_share`` or more, and at least a pixel."""
    space = ADE20KDataset.stored_space(files.folder, None)
    assert space is not None
    unknown = [name for name in classes if name not in space.names]
    if unknown or not classes:
        hint = near_match(unknown[0], space.names) if unknown else ""
        raise DataError(f"data.options.classes names {', '.join(unknown) or 'nothing'}, no class of ADE20K.{hint}")
    if not 0 <= min_share <= 1:
        raise DataError(f"data.options.min_share is {min_share}; needed is a share of the picture, in [0, 1].")
    counts = class_counts(files)
    rows = [space.names.index(name) + 1 for name in classes]  # the numbers in the files
    pixels, total = counts[:, rows].sum(axis=1), counts.sum(axis=1)
    good = (pixels > 0) & (pixels >= min_share * total)
    return {name for name, is_good in zip(files.labels, good, strict=True) if is_good}


def class_counts(files: Listing) -> np.ndarray:
    """Pixels of each number in each label file, (N, 256) int64; other numbers count for none.

    Read from the cache where the files have not changed since.
    """

    def count(name: str) -> np.ndarray:
        return np.bincount(files.numbers(name).ravel(), minlength=256)[:256]

    def make() -> dict[str, np.ndarray]:
        # The readers silence Pillow's warnings; done in several threads, that could outlive them.
        with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            try:
                made = threads.map(count, files.labels)
                shown = track(made, "classes", len(files.labels))
                return {"counts": np.array(list(shown), np.int64).reshape(-1, 256)}
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    return cached("ade20k-classes", files_key(files.labels.values()), make)["counts"]

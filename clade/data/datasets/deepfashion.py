"""DeepFashion as prepared for SMIS and INADE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from clade.data.base import DATASETS
from clade.data.benchmark import BenchmarkDataset, Place, Places, pair_place
from clade.data.files import Listing


@DATASETS.register("deepfashion")
class DeepFashionDataset(BenchmarkDataset):
    """DeepFashion with 8 labels; "val" is its test part. A root with img/ and label/ is "train" alone.

    Instances are read where there is a folder of them; edges (edgeD) are not used. Arguments and errors as in
    :class:`clade.data.benchmark.BenchmarkDataset`.
    """

    NAME = "deepfashion"
    CLASSES = "deepfashion"
    LAYOUT = (
        "DeepFashion's folder holds train_img, train_label, test_img, test_label (and train_inst, train_edgeD, ...), "
        "or train/, test/ (photos), cihp_train_mask/, cihp_test_mask/, or img/, label/."
    )
    ALTERNATIVES: ClassVar[Sequence[Places]] = (
        {
            "train": Place("train_label", "train_img", "train_inst"),
            "val": Place("test_label", "test_img", "test_inst"),
        },
        {"train": Place("cihp_train_mask", "train"), "val": Place("cihp_test_mask", "test")},
        {"train": Place("label", "img", "inst")},
    )
    _SIGNS = ("train_edgeD", "test_edgeD", "test_label", "cihp_train_mask", "cihp_test_mask", "edgeD")

    @classmethod
    def recognizes(cls, root: Path) -> bool:
        """COCO-Stuff has folders of the same names, but no edges and no test part."""
        return super().recognizes(root) and any((root / name).is_dir() for name in cls._SIGNS)

    @classmethod
    def list_place(
        cls, root: Path, split: str, place: Place, labels_only: bool, instances: bool, **options: Any
    ) -> Listing:
        there = place.instances is not None and (root / place.instances).is_dir()
        return pair_place(root, place, labels_only, instances and there)

"""Cityscapes, gtFine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from clade.data.base import DATASETS
from clade.data.benchmark import BenchmarkDataset, Place, Places, pair_place
from clade.data.files import Listing


@DATASETS.register("cityscapes")
class CityscapesDataset(BenchmarkDataset):
    """Cityscapes: the 35 classes of labelIds, with the 16-bit instanceIds as instances. Pictures are named CITY/NAME.

    The test part is left out: its labels are published without content. Arguments and errors as in
    :class:`clade.data.benchmark.BenchmarkDataset`.
    """

    NAME = "cityscapes"
    CLASSES = "cityscapes"
    LAYOUT = (
        "Cityscapes' folder holds leftImg8bit/train/CITY/*_leftImg8bit.png, gtFine/train/CITY/*_gtFine_labelIds.png "
        "and *_gtFine_instanceIds.png, and the same in val/."
    )
    ALTERNATIVES: ClassVar[Sequence[Places]] = (
        {split: Place(f"gtFine/{split}", f"leftImg8bit/{split}", f"gtFine/{split}") for split in ("train", "val")},
    )

    @classmethod
    def list_place(
        cls, root: Path, split: str, place: Place, labels_only: bool, instances: bool, **options: Any
    ) -> Listing:
        files = pair_place(root, place, labels_only, instances, _ENDINGS)
        labels = root / place.labels
        if not files.labels and labels.is_dir():
            polygons = sum(1 for _ in labels.rglob("*_gtFine_polygons.json"))
            trained = sum(1 for _ in labels.rglob("*_gtFine_labelTrainIds.png"))
            files.problems.insert(
                0,
                f"{labels}: no *_gtFine_labelIds.png, but {polygons} *_gtFine_polygons.json and {trained} "
                "*_gtFine_labelTrainIds.png. labelIds and instanceIds are in gtFine_trainvaltest.zip; of the polygons, "
                "json2labelImg.py and json2instanceImg.py of cityscapesscripts/preparation make them.",
            )
        return files


def _without(ending: str, name: str) -> str | None:
    return name.removesuffix(ending) if name.endswith(ending) else None


_ENDINGS: dict[str, Callable[[str], str | None]] = {
    "labels": partial(_without, "_gtFine_labelIds"),
    "images": partial(_without, "_leftImg8bit"),
    "instances": partial(_without, "_gtFine_instanceIds"),
}

"""COCO-Stuff, in the folders of the SPADE code or as it is published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from clade.data.base import DATASETS, Sample
from clade.data.benchmark import BenchmarkDataset, Place, Places, joined, pair_place
from clade.data.datasets.coco_instances import InstanceIndex
from clade.data.files import Listing, require_same_size, some
from clade.labels.labelspace import Color, LabelSpace

_SPADE: Places = {split: Place(f"{split}_label", f"{split}_img", f"{split}_inst") for split in ("train", "val")}
_OFFICIAL: tuple[Places, ...] = tuple(
    {
        split: Place(f"{labels}/{split}2017", f"{images}{split}2017", f"annotations/instances_{split}2017.json")
        for split in ("train", "val")
    }
    for labels, images in product(("stuffthingmaps", "stuffthingmaps_trainval2017"), ("", "images/"))
)


@DATASETS.register("coco-stuff")
class COCOStuffDataset(BenchmarkDataset):
    """COCO-Stuff: 182 classes (91 things, 91 stuff) and unknown, with instances.

    In the published layout the instance maps are made from the annotations when a picture is read
    (:meth:`clade.data.datasets.coco_instances.InstanceIndex.paint`).

    Args:
        root, split, label_space, num_classes, unknown, remap, palette, labels_only, instances, list_file: as in
            :class:`clade.data.benchmark.BenchmarkDataset`. ``instances=False`` needs no annotations.
        portraits: in the SPADE code's layout, take ``train_img_portrait`` and so on into the training pictures where
            they are there, as that code does.

    Raises:
        DataError, LabelError: as in BenchmarkDataset.
    """

    NAME = "coco-stuff"
    CLASSES = "coco_stuff"
    LAYOUT = (
        "COCO-Stuff's folder holds train_img, train_label, train_inst, val_img, val_label, val_inst (the SPADE code), "
        "or train2017/, val2017/ (photos, perhaps in images/), stuffthingmaps/train2017, stuffthingmaps/val2017 and "
        "annotations/instances_train2017.json, annotations/instances_val2017.json."
    )
    ALTERNATIVES: ClassVar[Sequence[Places]] = (_SPADE, *_OFFICIAL)

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
        instances: bool = True,
        list_file: str | Path | None = None,
        portraits: bool = True,
    ) -> None:
        self._options = {"portraits": portraits}
        super().__init__(
            root, split, label_space, num_classes, unknown, remap, palette, labels_only, instances, list_file
        )

    @classmethod
    def recognizes(cls, root: Path) -> bool:
        """DeepFashion has folders of the same names, with edges or a test part beside them."""
        others = ("train_edgeD", "test_edgeD", "test_label", "test_img")
        return super().recognizes(root) and not any((root / name).is_dir() for name in others)

    @classmethod
    def places(cls, root: Path) -> Places | None:
        there = [places for places in cls.ALTERNATIVES if any((root / p.labels).is_dir() for p in places.values())]
        with_photos = [places for places in there if any((root / p.images).is_dir() for p in places.values())]
        return next(iter(with_photos or there), None)

    @classmethod
    def list_place(
        cls,
        root: Path,
        split: str,
        place: Place,
        labels_only: bool,
        instances: bool,
        portraits: bool = True,
        **options: Any,
    ) -> Listing:
        assert place.instances is not None
        if place.instances.endswith(".json"):
            return _with_annotations(pair_place(root, place, labels_only, False), root / place.instances, instances)
        files = pair_place(root, place, labels_only, instances)
        more = Place(*(f"{part}_portrait" for part in (place.labels, place.images, place.instances)))
        if portraits and split == "train" and (root / more.labels).is_dir():
            return joined(root, files, pair_place(root, more, labels_only, instances))
        return files


@dataclass(frozen=True)
class AnnotatedListing(Listing):
    """Files whose instances come from COCO's annotations; ``instances`` names that file for every picture."""

    index: InstanceIndex | None = None

    def objects(self, name: str) -> np.ndarray | None:
        return None if self.index is None else self._paint(name, self.numbers(name))

    def sample(self, name: str, space: LabelSpace) -> Sample:
        path, image = self.labels[name], self.photo(name)
        numbers = self.numbers(name)
        if image is not None and self.images is not None:
            require_same_size(self.images[name], image.shape, path, numbers.shape)
        instances = None if self.index is None else self._paint(name, numbers)
        return Sample(name, image, space.encode(numbers, str(path)), instances)

    def _paint(self, name: str, numbers: np.ndarray) -> np.ndarray:
        assert self.index is not None
        picture = int(name)
        require_same_size(self.index.source, self.index.size(picture), self.labels[name], numbers.shape)
        return self.index.paint(picture, numbers)


def _with_annotations(files: Listing, annotations: Path, instances: bool) -> Listing:
    plain = AnnotatedListing(files.folder, files.labels, files.images, None, files.problems)
    if not instances:
        return plain
    if not annotations.is_file():
        files.problems.append(
            f"{annotations}: no such file; the instance maps are made from it. Get annotations_trainval2017.zip "
            "from COCO's download page, or set data.options.instances to false: object borders are then those of the "
            "classes."
        )
        return plain
    index = InstanceIndex.read(annotations)
    foreign = [name for name in files.labels if not name.isdecimal() or int(name) not in index]
    if foreign:
        files.problems.append(
            f"{len(foreign)} label maps in {files.folder} belong to no picture of {annotations}: {some(foreign)}. "
            "Labels are named by COCO's number, as 000000000139.png, and the annotations are those of the same part."
        )
    known = {name: annotations for name in files.labels if name not in set(foreign)}
    return AnnotatedListing(files.folder, files.labels, files.images, known, files.problems, index)

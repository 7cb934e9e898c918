"""COCO's instance annotations (instances_*.json) as a compact index, and the instance maps made of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clade.data.disk_cache import cached, files_key
from clade.errors import DataError
from clade.system.progress import track

FIRST = 256
"""Number of the first object of a picture: above all labels, which are 0..181 and 255."""
_VERSION = 1  # of the index on disk


@dataclass(frozen=True)
class InstanceIndex:
    """The objects of all pictures of an annotation file, as arrays and one blob that loader processes share.

    Args:
        source: the annotation file, for messages.
        pictures: COCO's number of each picture, ascending, (P,) int64.
        sizes: their (height, width), (P, 2) int32.
        starts: objects of picture p are ``starts[p]`` to ``starts[p + 1]``, (P + 1,) int64.
        labels: label of each object in the maps of COCO-Stuff, its category minus 1, (K,) int16.
        offsets: the mask of object k is ``blob[offsets[k]:offsets[k + 1]]``, (K + 1,) int64.
        blob: COCO's compressed run lengths, uint8.
    """

    source: Path
    pictures: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray
    blob: np.ndarray

    @classmethod
    def read(cls, path: Path) -> InstanceIndex:
        """Of an annotation file; from the user's cache directory where it was read before.

        Raises:
            DataError: missing, not COCO's instances, or pycocotools is.
        """
        if not path.is_file():
            raise DataError(f"{path}: no such file.")
        # A folder name or an argument would not tell a changed file from the one that was read.
        return cls(source=path, **cached("coco-instances", files_key([path], _VERSION), lambda: _build(path)))

    def __contains__(self, picture: int) -> bool:
        at = np.searchsorted(self.pictures, picture)
        return bool(at < len(self.pictures) and self.pictures[at] == picture)

    def size(self, picture: int) -> tuple[int, int]:
        """(height, width) of a picture that is there."""
        height, width = self.sizes[np.searchsorted(self.pictures, picture)]
        return int(height), int(width)

    def paint(self, picture: int, labels: np.ndarray) -> np.ndarray:
        """The instance map of a picture.

        Stuff and crowds keep their label as number. The k-th object gets ``FIRST + k`` on those pixels of its mask that
        the label map gives to its class, so that where masks overlap the label map decides, and no object's border lies
        beside that of its class. (The SPADE code paints running numbers from 0 over the labels: two objects, or an
        object and stuff, can get the same number and lose the border between them.)

        Args:
            labels: the label map as it is stored, (H, W) integers.

        Returns:
            (H, W) int32.
        """
        from pycocotools import mask

        at = np.searchsorted(self.pictures, picture)
        first, last = int(self.starts[at]), int(self.starts[at + 1])
        numbers = labels.astype(np.int32)
        for k in range(first, last):
            counts = self.blob[self.offsets[k] : self.offsets[k + 1]].tobytes()
            runs: Any = {"size": [int(n) for n in self.sizes[at]], "counts": counts}
            left, top, width, height = (int(n) for n in mask.toBbox(runs))
            box = slice(top, top + height), slice(left, left + width)
            inside = mask.decode(runs)[box].astype(bool)
            numbers[box][inside & (labels[box] == self.labels[k])] = FIRST + k - first
        return numbers


def _build(path: Path) -> dict[str, np.ndarray]:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise DataError(f"{path}: is read with pycocotools. Install it: pip install pycocotools.") from error
    megabytes = path.stat().st_size >> 20
    print(
        f"{path}: reading {megabytes} MiB of annotations, once; an index of them is kept for the next time.",
        file=sys.stderr,
    )
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        pictures = sorted((int(p["id"]), int(p["height"]), int(p["width"])) for p in content["images"])
        objects: dict[int, list[tuple[int, Any]]] = {number: [] for number, _, _ in pictures}
        for one in content["annotations"]:
            if not one.get("iscrowd", 0):
                objects[int(one["image_id"])].append((int(one["category_id"]) - 1, one["segmentation"]))
        del content
        ids, sizes = np.array([p[0] for p in pictures], np.int64), np.array([p[1:] for p in pictures], np.int32)
        labels, masks, starts = [], [], [0]
        for number, height, width in _shown(pictures):
            for label, shape in objects.pop(number):
                labels.append(label)
                masks.append(_run_lengths(mask, shape, height, width))
            starts.append(len(labels))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{path}: is no file of COCO's instance annotations ({type(error).__name__}: {error}). "
            "Get instances_*.json from annotations_trainval2017.zip."
        ) from error
    offsets = np.cumsum([0, *map(len, masks)], dtype=np.int64)
    return {
        "pictures": ids,
        "sizes": sizes.reshape(-1, 2),
        "starts": np.array(starts, np.int64),
        "labels": np.array(labels, np.int16),
        "offsets": offsets,
        "blob": np.frombuffer(b"".join(masks), np.uint8),
    }


def _shown(pictures: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    yield from track(pictures, "annotations")


def _run_lengths(mask: Any, shape: Any, height: int, width: int) -> bytes:
    """A mask as polygons, or as run lengths, compressed or not -> compressed run lengths."""
    if isinstance(shape, list):
        return mask.merge(mask.frPyObjects(shape, height, width))["counts"] if shape else _empty(mask, height, width)
    if [int(n) for n in shape["size"]] != [height, width]:
        raise ValueError(f"a mask has the size {shape['size']}, its picture {[height, width]}")
    if isinstance(shape["counts"], list):
        return mask.frPyObjects(shape, height, width)["counts"]
    counts = shape["counts"]
    return counts.encode("ascii") if isinstance(counts, str) else counts


def _empty(mask: Any, height: int, width: int) -> bytes:
    return mask.encode(np.zeros((height, width), np.uint8, order="F"))["counts"]

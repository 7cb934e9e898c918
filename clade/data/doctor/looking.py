"""Read every file of a split once, several at a time, and keep the few numbers that the doctor needs of each."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from clade.data.files import LABEL_SUFFIXES, PHOTO_SUFFIXES, Listing, require_same_size
from clade.errors import CladeError, DataError, LabelError
from clade.labels.files import open_image
from clade.labels.labelspace import LabelSpace

NEARLY = 0.995
"""A map is nearly empty when one id has more of its pixels than this,"""
MOSTLY_UNKNOWN = 0.95
"""or when more than this are unknown."""
MANY_COLORS = 256
"""A label map of more colours than this was resized smoothly, was a JPEG, or is a photo."""

_AT_ONCE = 8  # files in one task; handing over single files would cost a tenth of the time
_AHEAD = 4  # tasks per thread that are under way, so that Ctrl-C is soon heard

T = TypeVar("T")


@dataclass
class Look:
    """What the files of one name hold. Numbers are those in the label file.

    Args:
        pixels: number -> pixels; of a colour picture, the numbers of the classes that its colours mean.
        outside: those of them that the space does not know.
        strange: colours, as r << 16 | g << 8 | b, that belong to no class -> pixels; the most frequent ones.
        colors: how many colours belong to no class.
        decoded: whether any colour belongs to one.
        unknown: share of unknown pixels.
        failures: (kind, message) of what cannot be used; kinds are the keys of ``FAILURES``.
        label_hash, photo_hash: of the decoded pixels; equal for equal pictures.
    """

    name: str
    label: Path
    size: tuple[int, int] | None = None
    pixels: dict[int, int] = field(default_factory=dict)
    outside: dict[int, int] = field(default_factory=dict)
    strange: dict[int, int] = field(default_factory=dict)
    colors: int = 0
    decoded: bool = False
    unknown: float = 0.0
    failures: list[tuple[str, str]] = field(default_factory=list)
    label_hash: bytes | None = None
    photo_hash: bytes | None = None
    objects: bool = False

    @property
    def constant(self) -> bool:
        return len(self.pixels) == 1 and not self.colors

    @property
    def nearly_empty(self) -> bool:
        if not self.pixels or self.colors or self.constant:
            return False
        return max(self.pixels.values()) > NEARLY * sum(self.pixels.values()) or self.unknown > MOSTLY_UNKNOWN


FAILURES = {
    "labels": "label maps cannot be used",
    "photos": "photos cannot be used",
    "instances": "instance maps cannot be used",
    "sizes": "files do not have the size of their label map",
    "pictures": "pictures cannot be used",
}


class Reader:
    """Look at one name after the other, from several threads.

    Args:
        files: of the split.
        space: its classes, None where they are not known.
    """

    def __init__(self, files: Listing, space: LabelSpace | None) -> None:
        self.files, self.space = files, space
        self.own_readers = type(files).sample is not Listing.sample or type(files).ids is not Listing.ids
        self.plain = type(files).numbers is Listing.numbers
        self.expects_color = False  # what came last; a wrong guess costs time and nothing else
        self.numbers_of = {} if space is None else _numbers_by_color(space)

    def __call__(self, name: str) -> Look:
        look = Look(name, self.files.labels[name])
        self._read_label(look)
        for kind, read in (("photos", self._photo_shape), ("instances", self._objects_shape)):
            try:
                shape = read(look)
            except CladeError as error:
                look.failures.append((kind, str(error)))
                continue
            if shape is not None and look.size is not None and shape[:2] != look.size:
                self._other_size(look, shape, self.files.images if kind == "photos" else self.files.instances)
        return look

    def _read_label(self, look: Look) -> None:
        if self.plain and look.label.suffix.lower() in PHOTO_SUFFIXES - LABEL_SUFFIXES:
            return  # JPEG: the listing has said so of all of them
        colors = self._colors(look) if self.expects_color else None
        try:
            pixels = self.files.numbers(look.name) if colors is None else colors
        except LabelError as error:
            pixels = colors = self._colors(look)
            self.expects_color = colors is not None
            if pixels is None:
                look.failures.append(("labels", str(error)))
                return
        look.size = (pixels.shape[0], pixels.shape[1])
        starts, values = runs(pixels)
        look.label_hash = _hash((pixels.shape, colors is None), starts, values.astype(np.int64))
        counts = tally(starts, values, pixels.size)
        if colors is not None:
            counts = self._split_colors(look, counts)
        look.pixels = counts
        if self.space is not None and counts:
            numbers = np.array(list(counts))
            look.outside = {number: counts[number] for number in self.space.unmapped(numbers)}
            unknown = sum(count for number, count in counts.items() if self._is_unknown(number))
            look.unknown = unknown / sum(counts.values())

    def _is_unknown(self, number: int) -> bool:
        assert self.space is not None
        return self.space.unknown is not None and self.space.remap.get(number, number) == self.space.unknown

    def _colors(self, look: Look) -> np.ndarray | None:
        """(H, W), r << 16 | g << 8 | b, of a label file that is an opaque colour picture; else None."""
        if not self.plain:
            return None
        try:
            with Image.open(look.label) as header:
                if header.mode not in ("RGB", "RGBA") or header.format in ("JPEG", "MPO", "WEBP"):
                    return None
            image = open_image(look.label)
        except Exception:  # what is wrong with it, the reader of labels says
            return None
        if image.mode == "RGBA" and int(np.asarray(image.getchannel("A")).min()) < 255:
            return None
        # Pillow keeps four bytes a pixel; to take them as they are is several times as fast as to pack three anew.
        bgr = np.frombuffer(image.convert("RGBA").tobytes("raw", "BGRA"), "<u4").reshape(image.height, image.width)
        return bgr & 0xFFFFFF

    def _split_colors(self, look: Look, counts: dict[int, int]) -> dict[int, int]:
        """Colours of classes -> their numbers; the others are noted."""
        strange = {color: count for color, count in counts.items() if color not in self.numbers_of}
        look.colors = len(strange)
        look.strange = dict(sorted(strange.items(), key=lambda item: -item[1])[: MANY_COLORS + 1])
        known = {self.numbers_of[color]: count for color, count in counts.items() if color in self.numbers_of}
        look.decoded = bool(known)
        return known

    def _photo_shape(self, look: Look) -> tuple[int, ...] | None:
        images = self.files.images
        photo = None if images is None or look.name not in images else self.files.photo(look.name)
        if photo is None:
            return None
        look.photo_hash = _hash(photo.shape, photo)
        return photo.shape

    def _objects_shape(self, look: Look) -> tuple[int, ...] | None:
        instances = self.files.instances
        if instances is not None and look.name not in instances:
            return None
        objects = self.files.objects(look.name)
        look.objects = objects is not None
        return None if objects is None else objects.shape

    def _other_size(self, look: Look, shape: tuple[int, ...], where: dict[str, Path] | None) -> None:
        """Layouts may bring a label map to the size of its photo themselves; then only the whole sample tells."""
        assert look.size is not None
        try:
            if not self.own_readers:
                require_same_size((where or {}).get(look.name, look.label), shape, look.label, look.size)
            elif self.space is not None and not look.outside:
                self.files.sample(look.name, self.space)
        except DataError as error:
            look.failures.append(("sizes", str(error)))
        except LabelError as error:
            look.failures.append(("pictures", str(error)))


def runs(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each run of equal numbers starts, rows one after the other, and its number; at least one pixel.

    Label maps have few runs, so that to count and to hash these takes a quarter of the time of doing it with pixels.
    """
    flat = pixels.ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    return starts, flat[starts]


def tally(starts: np.ndarray, values: np.ndarray, size: int) -> dict[int, int]:
    """Number -> pixels, of the runs of ``size`` pixels."""
    lengths = np.diff(starts, append=size)
    if values.dtype == np.uint8:
        counts = np.bincount(values, lengths, minlength=256)
        return {int(number): int(counts[number]) for number in np.flatnonzero(counts)}
    found, which = np.unique(values, return_inverse=True)
    return dict(zip(found.tolist(), np.bincount(which, lengths).astype(np.int64).tolist(), strict=True))


def in_threads(look: Callable[[str], T], names: Iterable[str], workers: int) -> Iterator[T]:
    """``look`` of every name, in their order; what has not begun is dropped when the caller stops."""
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[list[T]]] = deque()
    left = iter(names)
    try:
        while True:
            while len(waiting) < _AHEAD * workers and (some := list(islice(left, _AT_ONCE))):
                waiting.append(pool.submit(lambda some: [look(name) for name in some], some))
            if not waiting:
                return
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _numbers_by_color(space: LabelSpace) -> dict[int, int]:
    """Colour -> number in a file of the class that it means; empty where two classes share one."""
    pairs = [*zip(space.colors, range(space.num_classes), strict=True)]
    if space.unknown is not None:
        pairs.append((space.unknown_color, space.unknown))
    found = {r << 16 | g << 8 | b: number for (r, g, b), number in pairs}
    return found if len(found) == len(pairs) else {}


def _hash(facts: object, *arrays: np.ndarray) -> bytes:
    digest = hashlib.blake2b(str(facts).encode(), digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()

"""What a format is: a function that finds pictures and says how to read each of them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from clade.data.datasets.folder import SPLITS
from clade.data.files import LABEL_SUFFIXES, PHOTO_SUFFIXES, layouts, natural_key, some, walk
from clade.errors import CladeError, DataError
from clade.labels.labelspace import LabelSpace
from clade.registry import Registry, near_match
from clade.system.progress import track

T = TypeVar("T")
R = TypeVar("R")
_AHEAD = 64  # pictures handed to the threads at a time, so that an error or Ctrl-C soon stops the others

Read = Callable[[], tuple[np.ndarray, np.ndarray | None]]
"""-> ids (H, W) in ``[0, num_rows)`` of the source's space, and object numbers (H, W), 0 for no object, or None."""


@dataclass(frozen=True)
class Item:
    """One picture of a source.

    Args:
        name: its path below images/ and labels/, without suffix, with forward slashes.
        read: makes the maps.
        label: the file that says what is where, for messages.
        photo: its file, a function that makes its pixels (H, W, 3) uint8, or None.
        split: the part that it belongs to; None for a dataset of one part.
    """

    name: str
    read: Read
    label: Path
    photo: Path | Callable[[], np.ndarray] | None = None
    split: str | None = None


@dataclass(frozen=True)
class Source:
    """What a format found.

    Args:
        space: the classes of the ids that ``Item.read`` makes.
        items: the pictures.
        unused: photos that have no label and are left out.
        notes: what is to be told of the classes, in words.
        decides: files besides those of the items whose content decides what comes out.
    """

    space: LabelSpace
    items: list[Item]
    unused: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    decides: list[Path] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What :func:`clade.data.convert.convert` was asked for; each format takes the options that it declares."""

    source: Path
    split: str | None = None
    images: Path | None = None
    annotations: Path | None = None
    palette: Any = None
    parts: Sequence[str] | None = None
    pattern: str | None = None
    classes: Any = None
    tolerance: int = 0
    workers: int = 1
    on_error: str = "stop"
    progress: bool = True

    def each(self, function: Callable[[T], R], things: Sequence[T], text: str) -> Iterator[tuple[T, R | CladeError]]:
        """The results for all things, in order, made in threads behind a progress bar.

        A CladeError comes in place of a result with ``on_error="skip"``, and is raised otherwise.
        """

        def attempt(thing: T) -> tuple[T, R | CladeError]:
            try:
                return thing, function(thing)
            except CladeError as error:
                if self.on_error != "skip":
                    raise
                return thing, error

        found = _in_threads(attempt, things, self.workers)
        yield from track(found, text, len(things), quiet=not self.progress)


def _in_threads(function: Callable[[T], R], things: Sequence[T], workers: int) -> Iterator[R]:
    # The readers silence Pillow's warnings; done in several threads, that could outlive them.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(things), _AHEAD):
            yield from pool.map(function, things[start : start + _AHEAD])


@dataclass(frozen=True)
class Converter:
    """A format: the options that it takes, and the function that finds its pictures."""

    options: tuple[str, ...]
    find: Callable[[Request], Source]


CONVERTERS: Registry[Converter] = Registry("format")


def converter(name: str, *options: str) -> Callable[[Callable[[Request], Source]], Callable[[Request], Source]]:
    """Decorator: register a function as the format ``name`` that takes these options."""

    def add(find: Callable[[Request], Source]) -> Callable[[Request], Source]:
        CONVERTERS.register(name)(Converter(options, find))
        return find

    return add


def formats() -> list[str]:
    """Names of all formats: those of other tools, then the layouts of the registered datasets."""
    return [*CONVERTERS, *(name for name in layouts() if name not in CONVERTERS)]


def files_below(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Path from ``folder`` (forward slashes, with suffix) -> file, of those that end so, in natural order."""
    if not folder.is_dir():
        raise DataError(f"{folder}: {'is a file' if folder.exists() else 'no such folder'}, a folder is needed.")
    wanted = tuple(suffixes)
    inside = sorted((name for name in walk(folder) if name.lower().endswith(wanted)), key=natural_key)
    return {name: folder / name for name in inside}


def stem(name: str) -> str:
    """A path without the suffix of its last part."""
    return re.sub(r"\.[^./]*$", "", name)


def parts_of(source: Path, split: str | None) -> dict[str | None, Path]:
    """Split -> folder: train/, val/ and test/ below ``source`` where they are, else the whole as ``split``.

    Raises:
        DataError: no such folder or split, or pictures both in split folders and beside them.
    """
    loose = files_below(source, PHOTO_SUFFIXES)
    found: dict[str | None, Path] = {name: source / name for name in SPLITS if (source / name).is_dir()}
    if not found:
        return {split: source}
    beside = [name for name in loose if "/" not in name]
    if beside:
        raise DataError(
            f"{source}: holds {', '.join(map(str, found))} and, beside them, {some(beside)}. "
            "To which split these belong is not known: move them, or convert one folder at a time with a split."
        )
    if split is None:
        return found
    if split not in found:
        known = [str(name) for name in found]
        raise DataError(f"{source}: there is no split '{split}'.{near_match(split, known)} It has {', '.join(known)}.")
    return {split: found[split]}


def masks_of(request: Request, folder: Path) -> dict[str, Path]:
    """Name -> mask file below a folder; a pattern such as "{name}_L.png" says which files are masks.

    Raises:
        DataError: none, two of one name, or JPEG where no tolerance is given.
    """
    shared = request.images is not None and request.images.resolve() in (folder.resolve(), *folder.resolve().parents)
    match = None if request.pattern is None else pattern_matcher(request.pattern)
    masks: dict[str, Path] = {}
    lossy: list[str] = []
    for inside, path in files_below(folder, PHOTO_SUFFIXES).items():
        found = None if match is None else match(stem(inside))
        if match is not None and found is None:
            continue
        if path.suffix.lower() not in LABEL_SUFFIXES and request.tolerance == 0:
            if not shared or match is not None:
                lossy.append(str(path))
            continue
        name = stem(inside) if found is None else found["name"]
        if name in masks:
            raise DataError(f"{masks[name]} and {path} would both become '{name}'. Remove or rename one.")
        masks[name] = path
    if lossy:
        raise DataError(
            f"{some(lossy)}: JPEG and WebP change pixel values, so they cannot hold labels exactly. Use the originals, "
            "or read values that are off by up to N as the nearest with --tolerance N (--from rgb, masks or parts)."
        )
    if not masks:
        named = "" if request.pattern is None else f" named {request.pattern}"
        raise DataError(f"{folder}: no masks{named} ({', '.join(sorted(LABEL_SUFFIXES))}). Name their folder.")
    return masks


def photos_of(
    request: Request, split: str | None, names: Sequence[str], masks: Iterable[Path]
) -> tuple[dict[str, Path] | None, list[Path]]:
    """Photo of each name, and those of no name; (None, []) where no folder of photos is given.

    Raises:
        DataError: names without a photo, or with two.
    """
    folder = request.images
    if folder is None:
        return None, []
    if split is not None and (folder / split).is_dir():
        folder = folder / split
    taken = {path.resolve() for path in masks}
    photos: dict[str, Path] = {}
    for inside, path in files_below(folder, PHOTO_SUFFIXES).items():
        if path.resolve() in taken:
            continue
        name = stem(inside)
        if name in photos:
            raise DataError(f"{photos[name]} and {path} are both photos of '{name}'. Remove or rename one.")
        photos[name] = path
    missing = [name for name in names if name not in photos]
    if missing:
        example = next(iter(photos), None)
        there = "it holds no photos" if example is None else f"it holds {example}, say"
        raise DataError(
            f"{folder}: {len(missing)} of {len(names)} masks have no photo there: {some(missing)}; {there}. Photos are "
            "found by the path of the mask without suffix; pattern='{name}_mask.png', say, takes off what only masks "
            "have, and exclude leaves out names."
        )
    wanted = set(names)
    return photos, [path for name, path in photos.items() if name not in wanted]


def pattern_matcher(pattern: str, parts: Sequence[str] = ()) -> Callable[[str], Mapping[str, str] | None]:
    """A function: path without suffix -> {"name": ..., "part": ...}, None for a file that is not meant.

    A pattern without a slash is compared with the last part of the path, and the folders are dropped.

    Raises:
        CladeError: not one {name}, or {part} where there are no parts, or the other way round.
    """
    needed = ["name", "part"] if parts else ["name"]
    if sorted(re.findall(r"\{(.*?)\}", pattern)) != needed:
        wanted = " and ".join(f"{{{key}}}" for key in needed)
        raise CladeError(
            f"The pattern is '{pattern}'; needed is {wanted}, once, as in {'_'.join(wanted.split(' and '))}.png."
        )
    bare = stem(pattern) if pattern.lower().endswith(tuple(PHOTO_SUFFIXES)) else pattern
    expression = re.escape(bare).replace(r"\{name\}", "(?P<name>.+?)")
    longest = "|".join(re.escape(part) for part in sorted(parts, key=len, reverse=True))
    matcher = re.compile(expression.replace(r"\{part\}", f"(?P<part>{longest})"))

    def match(path: str) -> Mapping[str, str] | None:
        found = matcher.fullmatch(path if "/" in pattern else path.rpartition("/")[2])
        return None if found is None else found.groupdict()

    return match

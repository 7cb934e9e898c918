"""Folders in no known layout that nevertheless hold photos and masks: what they are, and how they become a dataset."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from clade.data.files import LABEL_SUFFIXES, PHOTO_SUFFIXES, Listing, by_name, layouts, paired
from clade.errors import DataError, LabelError
from clade.labels.files import open_image

_DEPTH = 2  # how many folders down photos and masks are looked for
_FOLDERS = 200  # at most so many of them
_MASKS = re.compile("mask|label|seg|annot|truth|^gt|parsing")
_PHOTOS = re.compile("image|img|photo|jpe?g|picture|rgb")
_LOOKED_AT = 3  # pictures of a folder that are opened


@dataclass(frozen=True)
class Foreign:
    """Photos and masks of the same names in two folders.

    Args:
        photos, masks: the folders.
        kind: how the masks are written: "rgb", "palette", "masks" (0 and 255) or "ids".
        files: what pairs up.
    """

    root: Path
    photos: Path
    masks: Path
    kind: str
    files: Listing

    def problem(self) -> str:
        """What was found and what to do."""
        found = (
            f"{self.root}: is in no known layout, but {self.photos.name}/ holds {len(self.files.images or {})} photos "
            f"and {self.masks.name}/ {len(self.files.labels)} masks, {len(self.files.names)} of them with equal names."
        )
        return f"{found} {self.cure()}"

    def cure(self) -> str:
        """Renaming where that is enough, else a command."""
        if self.kind == "ids":
            names = [(self.photos, "images"), (self.masks, "labels")]
            moves = [f"{path} to {path.with_name(name)}" for path, name in names if path.name != name]
            return f"Rename {' and '.join(moves)}."
        palette = " --palette auto" if self.kind == "rgb" else ""
        kinds = {"rgb": "RGB colours", "palette": "palette pictures", "masks": "masks of 0 and 255"}
        source, images, out = (shlex.quote(str(p)) for p in (self.masks, self.photos, f"{self.root}-converted"))
        return (
            f"The masks are {kinds[self.kind]}; this makes a dataset of them: "
            f"`clade data convert {source} {out} --from {self.kind} --images {images}{palette}`."
        )


def find_foreign(root: Path) -> Foreign | None:
    """Two sibling folders whose pictures have equal names; None where there are none. Never raises."""
    best: Foreign | None = None
    try:
        folders = [root, *_folders(root)]
        for parent in folders:
            below = [folder for folder in folders if folder.parent == parent and folder != root]
            for masks in below:
                for photos in below:
                    found = _pair(root, photos, masks) if photos != masks else None
                    if found is not None and (best is None or len(found.files.names) > len(best.files.names)):
                        best = found
    except (OSError, DataError):
        return None
    return best


def known_nearby(root: Path) -> str:
    """A sentence on a folder just below or above that holds a known layout; empty where there is none."""
    try:
        near = [path for path in sorted(root.iterdir()) if path.is_dir()][:_FOLDERS]
    except OSError:
        return ""
    found = [
        f"{path} ({name})"
        for path in [*near, root.resolve().parent]
        if (name := next((name for name, cls in layouts().items() if cls.recognizes(path)), None))
    ]
    return f"Known layouts are near: {', '.join(found[:3])}. Name that folder." if found else ""


def _folders(root: Path) -> list[Path]:
    found: list[Path] = []
    for place, below, _ in os.walk(root):
        depth = len(Path(place).relative_to(root).parts)
        below[:] = [] if depth >= _DEPTH else sorted(name for name in below if not name.startswith("."))
        found += [Path(place) / name for name in below]
        if len(found) > _FOLDERS:
            break
    return found[:_FOLDERS]


def _pair(root: Path, photos: Path, masks: Path) -> Foreign | None:
    problems: list[str] = []
    labels = by_name(masks, LABEL_SUFFIXES, problems)
    images = by_name(photos, PHOTO_SUFFIXES, [])
    common = labels.keys() & images.keys()
    if problems or not common or 2 * len(common) < min(len(labels), len(images)):
        return None
    some_masks = [labels[name] for name in list(labels)[:_LOOKED_AT]]
    some_photos = [images[name] for name in list(images)[:_LOOKED_AT]]
    kind = _kind(some_masks)
    if kind is None or not _told_apart(photos, masks, some_photos, some_masks):
        return None
    return Foreign(root, photos, masks, kind, paired(root, problems, labels, images, places=(masks, photos)))


def _told_apart(photos: Path, masks: Path, some_photos: list[Path], some_masks: list[Path]) -> bool:
    """Whether these are the photos and those the masks: by the folders' names, else by the colours."""
    looks = [
        "masks" if _MASKS.search(folder.name.lower()) else "photos" if _PHOTOS.search(folder.name.lower()) else ""
        for folder in (photos, masks)
    ]
    if looks[0] == "masks" or looks[1] == "photos":
        return False
    return looks == ["photos", "masks"] or _colors(some_photos) > _colors(some_masks)


def _kind(files: list[Path]) -> str | None:
    modes, values = set(), set()
    for path in files:
        try:
            image = open_image(path)
        except LabelError:  # reported where it is read
            continue
        modes.add(image.mode)
        if image.mode in ("L", "1"):
            values.update(np.unique(np.asarray(image).astype(np.uint8)).tolist())
    if not modes:
        return None
    if modes <= {"RGB", "RGBA"}:
        return "rgb"
    if modes == {"P"}:
        return "palette"
    return "masks" if 255 in values and values <= {0, 255} else "ids"


def _colors(files: list[Path]) -> int:
    """The most colours that one of the pictures has."""
    most = 0
    for path in files:
        try:
            image = open_image(path)
        except LabelError:
            continue
        image.thumbnail((256, 256), Image.Resampling.NEAREST)
        most = max(most, len(image.convert("RGB").getcolors(1 << 16) or ()))
    return most

"""Which label maps are to be drawn, under which names, and in which order."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from clade.data.datasets.folder import IMAGES, INSTANCES, LABELS
from clade.data.files import LABEL_SUFFIXES, PHOTO_SUFFIXES, natural_key
from clade.errors import DataError, LabelError
from clade.labels import LabelSpace

CLASSES = "classes.json"


@dataclass(frozen=True)
class LabelFile:
    """One label map to draw.

    Args:
        path: the label file.
        name: where its image goes below the output folder, without suffix.
        instances, photo: files of the same name in instances/ and images/ beside labels/, where they are.
    """

    path: Path
    name: str
    instances: Path | None = None
    photo: Path | None = None


def find_labels(inputs: Iterable[str | Path]) -> tuple[list[LabelFile], list[Path]]:
    """Files, folders and glob patterns -> label files, and the files in folders that are none.

    A folder is searched with its subfolders, except for images/ and instances/ beside a labels/. Names keep the path
    below the given folder, without "labels". A file in a labels/ has the files of the same name in images/ and
    instances/ beside it for partners, however it was given.

    Raises:
        DataError: nothing there, or two label files whose images would have one name.
    """
    found: list[LabelFile] = []
    left_out: list[Path] = []
    for given in inputs:
        path = Path(given)
        matches = [path] if path.exists() else [Path(match) for match in glob.glob(str(given), recursive=True)]
        if not matches:
            raise DataError(f"{given}: there is no such file or folder, and it matches nothing as a pattern.")
        for match in sorted(matches, key=lambda p: natural_key(str(p))):
            if match.is_dir():
                files, others = _in_folder(match)
                found += files
                left_out += others
            else:
                found.append(_with_partners(match, match.stem))
    if not found:
        suffixes = " ".join(sorted(LABEL_SUFFIXES))
        raise DataError(f"No label maps in {', '.join(map(str, inputs))}. Label maps are lossless images: {suffixes}.")
    names: dict[str, Path] = {}
    for file in found:
        other = names.setdefault(file.name, file.path)
        if other != file.path:
            raise DataError(
                f"{other} and {file.path} would both be written to {file.name}.png. Generate them one by one."
            )
    return list({file.path: file for file in found}.values()), left_out


def by_size(files: Sequence[LabelFile], *, read_sizes: bool, read_instances: bool) -> list[LabelFile]:
    """Files of one size together, so that a network changes size as seldom as possible; else in the order they had.

    The largest come first: what does not fit into the memory shows at once. Files whose header cannot be read come
    last, and fail when they are read.

    Args:
        read_sizes: look into the files' headers; otherwise all count as one size.
        read_instances: maps with instances cannot share a batch with maps without, so they come together, too.
    """
    sizes = {file: _stored_size(file.path) if read_sizes else (0, 0) for file in files}
    return sorted(
        files,
        key=lambda file: (
            -sizes[file][0] * sizes[file][1],
            sizes[file],
            read_instances and file.instances is None,
        ),
    )


def _stored_size(path: Path) -> tuple[int, int]:
    """(width, height) by the file's header; (0, 0) where that cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("PNG", "TIFF", "BMP", "GIF")) as image:
                return image.size
    except Exception:  # Pillow raises anything on damaged files, and the reader will say it better
        return 0, 0


def other_names(files: Iterable[LabelFile], space: LabelSpace) -> list[str]:
    """Where the ``classes.json`` of label maps names numbers otherwise than the classes that a network learned.

    Nothing is said of classes that only have numbers, nor of numbers that are read as others (``remap``).
    """
    stored: dict[Path, None] = {}
    for folder in dict.fromkeys(_dataset_folder(file.path) for file in files):
        path = next((p for p in (folder / CLASSES, folder.parent / CLASSES) if p.is_file()), None)
        if path is not None:
            stored[path] = None
    return [note for path in stored if (note := _otherwise(path, space)) is not None]


def _dataset_folder(path: Path) -> Path:
    labels = _labels_folder(path)
    return path.parent if labels is None else labels.parent


def _otherwise(path: Path, space: LabelSpace) -> str | None:
    try:
        other = LabelSpace.from_json(path)
    except LabelError as error:
        return f"{error} Its names were not compared with those of the network."
    remapped = {*space.remap, *other.remap}
    own = [space.remap.get(k) for k in range(len(other.names))]  # merging names every number (clade.data.merged)
    if other.names == space.names and None not in own and own != list(range(len(own))):
        return (
            f"{path} has the network's own classes, but the network reads label files by the numbers of the dataset "
            "that it was trained on (data.merge), so numbers are taken for others. Give it the dataset's files."
        )
    different = [
        (k, theirs, ours)
        for k, (theirs, ours) in enumerate(zip(other.names, space.names, strict=False))
        if k not in remapped and f"class {k}" not in (theirs, ours) and theirs.casefold() != ours.casefold()
    ]
    if not different:
        return None
    k, theirs, ours = different[0]
    more = f" ({len(different) - 1} more differ)" if len(different) > 1 else ""
    return (
        f"{path} calls class {k} '{theirs}', and the network learned it as '{ours}'{more}. If these are other classes, "
        "bring the labels into those of the network first (`clade info` lists them)."
    )


def _in_folder(folder: Path) -> tuple[list[LabelFile], list[Path]]:
    files, others = [], []
    for path in sorted(folder.rglob("*"), key=lambda p: natural_key(str(p))):
        below = path.relative_to(folder).parts
        if not path.is_file() or any(part.startswith(".") for part in below) or _is_partner(folder, below[:-1]):
            continue
        if path.suffix.lower() in LABEL_SUFFIXES:
            name = Path(*(part for part in below[:-1] if part != LABELS), path.stem).as_posix()
            files.append(_with_partners(path, name))
        elif path.name != CLASSES:
            others.append(path)
    return files, others


def _is_partner(folder: Path, parts: Sequence[str]) -> bool:
    """Whether a path lies in an images/ or instances/ beside a labels/."""
    return any(
        part in (IMAGES, INSTANCES) and folder.joinpath(*parts[:k], LABELS).is_dir() for k, part in enumerate(parts)
    )


def _with_partners(path: Path, name: str) -> LabelFile:
    labels = _labels_folder(path)
    if labels is None:
        return LabelFile(path, name)
    below = path.relative_to(labels).with_suffix("").as_posix()
    instances = _partner(labels.with_name(INSTANCES), below, LABEL_SUFFIXES)
    return LabelFile(path, name, instances, _partner(labels.with_name(IMAGES), below, PHOTO_SUFFIXES))


def _labels_folder(path: Path) -> Path | None:
    return next((parent for parent in path.parents if parent.name == LABELS), None)


def _partner(folder: Path, name: str, suffixes: Iterable[str]) -> Path | None:
    return next((path for suffix in sorted(suffixes) if (path := folder / f"{name}{suffix}").is_file()), None)

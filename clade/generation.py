"""Many label files -> image files, with names kept and nothing skipped silently."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from clade.data import Sample, plain_resize, read_photo
from clade.data.folder import (
    IMAGES,
    INSTANCES,
    LABEL_SUFFIXES,
    LABELS,
    PHOTO_SUFFIXES,
    natural_key,
    require_same_size,
)
from clade.data.transforms import Fit
from clade.errors import CladeError, DataError, LabelError
from clade.images import save_png, sheet, to_uint8
from clade.labels import LabelMap, LabelSpace, read_instances
from clade.synthesizer import Synthesizer


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


@dataclass
class Outcome:
    """What :func:`generate` came to.

    Args:
        written: image files, in the order of the label files.
        failed: label file -> what is wrong with it.
        left_out: files in given folders that are no label files.
        without_instances: maps for which a network that uses instances saw class borders instead.
        grid: the overview sheet, where asked for.
    """

    written: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    left_out: list[Path] = field(default_factory=list)
    without_instances: int = 0
    grid: Path | None = None


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


def generate(
    synthesizer: Synthesizer,
    inputs: Iterable[str | Path],
    out: str | Path,
    *,
    size: tuple[int, int] | None = None,
    fit: Fit = "stretch",
    style: Any = None,
    seed: int | None = None,
    grid: bool = False,
    progress: bool = False,
) -> Outcome:
    """Draw every label file and write ``out/NAME.png``; go on past files that cannot be used.

    Args:
        inputs: files, folders, glob patterns (:func:`find_labels`).
        size: (height, width) to bring label maps to first, for instance the size that was trained on; by default each
            image has its label map's own size.
        fit: how a map of another shape comes to ``size`` (:func:`clade.data.plain_resize`).
        style, seed: see :class:`Synthesizer`.
        grid: also write ``out/grid.png`` with label, generated image and, where there is one, photo.
        progress: show a bar.

    Raises:
        CladeError: nothing to draw, or an output folder that cannot be written.
    """
    files, left_out = find_labels(list(inputs))
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise CladeError(f"{out}: is a file; a folder is needed for the images.")
    _require_free(files, out, grid)
    if style is not None and synthesizer.generator.encoder is None:
        raise CladeError("A style was given, but this generator has no style encoder. Leave it out.")
    if isinstance(style, (str, Path)):
        style = read_photo(style)
    outcome = Outcome(left_out=left_out)
    rows: list[Sequence[np.ndarray]] = []
    with Progress(disable=not progress, transient=True) as bar:
        for file in bar.track(files, description="generate"):
            try:
                sample = _read(synthesizer, file, size, fit, with_photo=grid and len(rows) < GRID_ROWS)
                label_map = LabelMap(sample.ids.copy(), sample.instances)
                image = to_uint8(synthesizer(label_map, style=style, seed=seed))[0]
                path = out / f"{file.name}.png"
                _write(image, path)
                outcome.written.append(path)
                outcome.without_instances += synthesizer.generator.uses_instances and sample.instances is None
                if grid and len(rows) < GRID_ROWS:
                    rows.append(_row(synthesizer, sample, image))
            except (LabelError, DataError) as error:
                named = str(file.path) in str(error)
                outcome.failed[file.path] = str(error) if named else f"{file.path}: {error}"
    if grid and rows:
        outcome.grid = out / GRID
        _write(sheet(rows), outcome.grid)
    return outcome


GRID = "grid.png"
GRID_ROWS = 24
"""A grid shows the first so many."""


def _require_free(files: Sequence[LabelFile], out: Path, grid: bool) -> None:
    """Raises DataError where an image would be written over something that is needed."""
    inputs = {path.resolve() for file in files for path in (file.path, file.instances, file.photo) if path is not None}
    for file in files:
        path = out / f"{file.name}.png"
        if path.resolve() in inputs:
            raise DataError(f"{file.path}: its image would be written over {path}. Choose another output folder.")
        if grid and path == out / GRID:
            raise DataError(
                f"{file.path}: its image and the overview would both be written to {path}. Rename the file."
            )


def _write(image: np.ndarray, path: Path) -> None:
    try:
        save_png(image, path)
    except OSError as error:
        raise CladeError(f"{path}: cannot be written ({error}).") from error


def _read(
    synthesizer: Synthesizer, file: LabelFile, size: tuple[int, int] | None, fit: Fit, with_photo: bool
) -> Sample:
    """The label map as training would see it; with its photo where that is asked for and there is one."""
    ids = synthesizer.read(file.path).ids[0].numpy()
    instances = photo = None
    if file.instances is not None and synthesizer.generator.uses_instances:
        instances = read_instances(file.instances)
        require_same_size(file.instances, instances.shape, file.path, ids.shape)
    if file.photo is not None and with_photo:
        photo = read_photo(file.photo)
        require_same_size(file.photo, photo.shape, file.path, ids.shape)
    sample = Sample(file.name, photo, ids, instances)
    return sample if size is None or sample.size == size else plain_resize(sample, size, fit)


def _row(synthesizer: Synthesizer, sample: Sample, image: np.ndarray) -> list[np.ndarray]:
    space = synthesizer.label_space or LabelSpace.numbered(synthesizer.generator.num_rows)
    return [space.colorize(sample.ids), image, *([] if sample.image is None else [sample.image])]


def _in_folder(folder: Path) -> tuple[list[LabelFile], list[Path]]:
    files, others = [], []
    for path in sorted(folder.rglob("*"), key=lambda p: natural_key(str(p))):
        below = path.relative_to(folder).parts
        if not path.is_file() or any(part.startswith(".") for part in below) or _is_partner(folder, below[:-1]):
            continue
        if path.suffix.lower() in LABEL_SUFFIXES:
            name = Path(*(part for part in below[:-1] if part != LABELS), path.stem).as_posix()
            files.append(_with_partners(path, name))
        elif path.name != "classes.json":
            others.append(path)
    return files, others


def _is_partner(folder: Path, parts: Sequence[str]) -> bool:
    """Whether a path lies in an images/ or instances/ beside a labels/."""
    return any(
        part in (IMAGES, INSTANCES) and folder.joinpath(*parts[:k], LABELS).is_dir() for k, part in enumerate(parts)
    )


def _with_partners(path: Path, name: str) -> LabelFile:
    labels = next((parent for parent in path.parents if parent.name == LABELS), None)
    if labels is None:
        return LabelFile(path, name)
    below = path.relative_to(labels).with_suffix("").as_posix()
    instances = _partner(labels.with_name(INSTANCES), below, LABEL_SUFFIXES)
    return LabelFile(path, name, instances, _partner(labels.with_name(IMAGES), below, PHOTO_SUFFIXES))


def _partner(folder: Path, name: str, suffixes: Iterable[str]) -> Path | None:
    return next((path for suffix in sorted(suffixes) if (path := folder / f"{name}{suffix}").is_file()), None)

"""Many label files -> image files, with names kept and nothing skipped silently."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from clade.data import read_photo
from clade.data.folder import LABEL_SUFFIXES, PHOTO_SUFFIXES, natural_key
from clade.errors import CladeError, DataError
from clade.images import save_png, sheet, to_uint8
from clade.labels import LabelMap, nearest, read_instances, read_label
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
        grid: the overview sheet, where asked for.
    """

    written: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    left_out: list[Path] = field(default_factory=list)
    grid: Path | None = None


def find_labels(inputs: Iterable[str | Path]) -> tuple[list[LabelFile], list[Path]]:
    """Files, folders and glob patterns -> label files, and the files in folders that are none.

    A folder is searched with its subfolders; of a dataset folder (labels/, perhaps images/ and instances/) only labels/
    is. Names keep the path below the given folder.

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
                found.append(LabelFile(match, match.stem))
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
    style: Any = None,
    seed: int | None = None,
    grid: bool = False,
    progress: bool = False,
) -> Outcome:
    """Draw every label file and write ``out/NAME.png``; go on past files that cannot be used.

    Args:
        inputs: files, folders, glob patterns (:func:`find_labels`).
        size: (height, width) to bring label maps to first (nearest), for instance the size that was trained on; by
            default each image has its label map's own size.
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
    outcome = Outcome(left_out=left_out)
    rows: list[Sequence[np.ndarray]] = []
    with Progress(disable=not progress, transient=True) as bar:
        for file in bar.track(files, description="generate"):
            try:
                label_map = _read(synthesizer, file, size)
                image = to_uint8(synthesizer(label_map, style=style, seed=seed))[0]
            except CladeError as error:
                outcome.failed[file.path] = str(error)
                continue
            path = out / f"{file.name}.png"
            save_png(image, path)
            outcome.written.append(path)
            if grid and len(rows) < GRID_ROWS:
                rows.append(_row(synthesizer, label_map, image, file))
    if grid and rows:
        outcome.grid = out / "grid.png"
        save_png(sheet(rows), outcome.grid)
    return outcome


GRID_ROWS = 24
"""A grid shows the first so many."""


def _read(synthesizer: Synthesizer, file: LabelFile, size: tuple[int, int] | None) -> LabelMap:
    ids = torch.from_numpy(np.ascontiguousarray(read_label(file.path, synthesizer.label_space)))
    instances = None
    if file.instances is not None and synthesizer.generator.uses_instances:
        instances = torch.from_numpy(read_instances(file.instances))
    label_map = LabelMap(ids, instances).check(synthesizer.generator.num_rows, source=str(file.path))
    if size is None or label_map.size == size:
        return label_map
    return LabelMap(nearest(label_map.ids, size), None if instances is None else nearest(instances[None], size))


def _row(synthesizer: Synthesizer, label_map: LabelMap, image: np.ndarray, file: LabelFile) -> list[np.ndarray]:
    ids = label_map.ids[0].numpy()
    space = synthesizer.label_space
    row = [np.stack([ids.astype(np.uint8)] * 3, -1) if space is None else space.colorize(ids), image]
    if file.photo is not None:
        photo = torch.from_numpy(read_photo(file.photo).copy()).movedim(2, 0)[None].float()
        fitted = torch.nn.functional.interpolate(photo, size=image.shape[:2], mode="bilinear", antialias=True)
        row.append(fitted[0].movedim(0, 2).round().clamp(0, 255).to(torch.uint8).numpy())
    return row


def _in_folder(folder: Path) -> tuple[list[LabelFile], list[Path]]:
    labels = folder / "labels" if (folder / "labels").is_dir() else folder
    paths = sorted((p for p in labels.rglob("*") if p.is_file()), key=lambda p: natural_key(str(p)))
    files, others = [], []
    for path in paths:
        name = path.relative_to(labels).with_suffix("").as_posix()
        if path.suffix.lower() not in LABEL_SUFFIXES:
            others.append(path)
        elif labels == folder:
            files.append(LabelFile(path, name))
        else:
            instances = _partner(folder / "instances", name, LABEL_SUFFIXES)
            files.append(LabelFile(path, name, instances, _partner(folder / "images", name, PHOTO_SUFFIXES)))
    return files, others


def _partner(folder: Path, name: str, suffixes: Iterable[str]) -> Path | None:
    return next((path for suffix in suffixes if (path := folder / f"{name}{suffix}").is_file()), None)

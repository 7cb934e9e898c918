"""Many label files -> image files, with names kept and nothing skipped silently."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
from clade.styles import labels_beside
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
        written: image files, in the order of the label files; several samples of one follow each other.
        seeds: which sample of the prior each sample was, where that was drawn.
        failed: label file -> what is wrong with it.
        left_out: files in given folders that are no label files.
        without_instances: maps for which a network that uses instances saw class borders instead.
        grid: the overview sheet, where asked for.
    """

    written: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    left_out: list[Path] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
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
    samples: int = 1,
    to: Any = None,
    grid: bool = False,
    progress: bool = False,
) -> Outcome:
    """Draw every label file and write ``out/NAME.png``; go on past files that cannot be used.

    Several samples of each go to ``out/NAME-1.png``, ``out/NAME-2.png`` and so on.

    Args:
        inputs: files, folders, glob patterns (:func:`find_labels`).
        size: (height, width) to bring label maps to first, for instance the size that was trained on; by default each
            image has its label map's own size.
        fit: how a map of another shape comes to ``size`` (:func:`clade.data.plain_resize`).
        style, seed: see :class:`Synthesizer`.
        samples: pictures of each label map: samples of the prior by the seeds ``seed``, ``seed + 1``, ... (without
            ``seed``, from a seed drawn once), or variations of the style photo.
        to: a style photo or a seed; the samples then are steps from ``style`` or ``seed`` to it.
        grid: also write ``out/grid.png`` with label, generated images and, where there is one, photo.
        progress: show a bar.

    Raises:
        CladeError: nothing to draw, or an output folder that cannot be written.
    """
    files, left_out = find_labels(list(inputs))
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise CladeError(f"{out}: is a file; a folder is needed for the images.")
    _require_variety(synthesizer, style, samples, to)
    endings = [""] if samples == 1 else [f"-{k + 1}" for k in range(samples)]
    _require_free(files, out, endings, grid, [*_paths(style), *_paths(to)])
    style = synthesizer.photo(style)
    to = to if isinstance(to, int) else synthesizer.photo(to)
    outcome = Outcome(left_out=left_out)
    ends_known = style is not None and not isinstance(style, Mapping) and to is not None
    if samples > 1 and seed is None and (synthesizer.generator.stochastic or not ends_known):
        seed = torch.Generator().seed() % 2**31
    if samples > 1 and seed is not None:
        outcome.seeds = [seed + k for k in range(samples)] if to is None else [seed]
    rows: list[Sequence[np.ndarray]] = []
    with Progress(disable=not progress, transient=True) as bar:
        for file in bar.track(files, description="generate"):
            try:
                sample = _read(synthesizer, file, size, fit, with_photo=grid and len(rows) < GRID_ROWS)
                label_map = LabelMap(sample.ids.copy(), sample.instances)
                images = _draw(synthesizer, label_map, style, seed, samples, to)
                for image, ending in zip(images, endings, strict=True):
                    path = out / f"{file.name}{ending}.png"
                    _write(image, path)
                    outcome.written.append(path)
                outcome.without_instances += synthesizer.generator.uses_instances and sample.instances is None
                if grid and len(rows) < GRID_ROWS:
                    rows.append(_row(synthesizer, sample, images))
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


def _require_variety(synthesizer: Synthesizer, style: Any, samples: int, to: Any) -> None:
    """Raises CladeError where a style or several samples are asked of a network that has no such thing."""
    generator = synthesizer.generator
    if samples < 1:
        raise CladeError(f"samples is {samples}; needed is at least 1.")
    if style is not None and generator.encoder is None:
        raise CladeError("A style was given, but this generator has no style encoder. Leave it out.")
    varied = generator.latent_shape((generator.multiple, generator.multiple)) is not None
    if (samples > 1 or to is not None) and not varied:
        asked = "An interpolation was" if to is not None else f"{samples} samples were"
        raise CladeError(
            f"{asked} asked for, but this generator draws one image of each label map. "
            "Multi-modal ones are trained with generator.z_dim=256, or are groupdnet, sean and cc-fpse."
        )
    if to is not None and samples < 2:
        raise CladeError("An interpolation needs several samples, at least its two ends (--samples 5, say).")


def _draw(
    synthesizer: Synthesizer, label_map: LabelMap, style: Any, seed: int | None, samples: int, to: Any
) -> list[np.ndarray]:
    """The images of one label map, each (H, W, 3) uint8."""
    if samples == 1:
        return [to_uint8(synthesizer(label_map, style=style, seed=seed))[0]]
    if to is None:
        assert seed is not None
        latents = [synthesizer.latent(label_map, style, seed + k, vary=True) for k in range(samples)]
        return [to_uint8(synthesizer(label_map, z=z, seed=seed + k))[0] for k, z in enumerate(latents)]
    start = synthesizer.latent(label_map, style, seed)
    end = synthesizer.latent(label_map, seed=to) if isinstance(to, int) else synthesizer.latent(label_map, to, seed)
    assert start is not None
    assert end is not None
    # One seed for all: what a network draws beside its latents must not flicker.
    return [
        to_uint8(synthesizer(label_map, z=z, seed=seed or 0))[0] for z in synthesizer.interpolate(start, end, samples)
    ]


def _paths(style: Any) -> list[Path]:
    """The files that a style is read from."""
    if isinstance(style, (Mapping, tuple)):
        parts = style.values() if isinstance(style, Mapping) else style
        return [path for part in parts for path in _paths(part)]
    if not isinstance(style, (str, Path)):
        return []
    labels = labels_beside(Path(style))
    return [Path(style), *([] if labels is None else [labels])]


def _require_free(
    files: Sequence[LabelFile], out: Path, endings: Sequence[str], grid: bool, styles: Sequence[Path]
) -> None:
    """Raises DataError where an image would be written over something that is needed."""
    inputs = {path.resolve() for file in files for path in (file.path, file.instances, file.photo) if path is not None}
    inputs |= {path.resolve() for path in styles}
    for file, ending in ((file, ending) for file in files for ending in endings):
        path = out / f"{file.name}{ending}.png"
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


def _row(synthesizer: Synthesizer, sample: Sample, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    space = synthesizer.label_space or LabelSpace.numbered(synthesizer.generator.num_rows)
    return [space.colorize(sample.ids), *images, *([] if sample.image is None else [sample.image])]


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

"""Every label file of a folder drawn, with reading, positions, network and writing at the same time."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clade.data import Sample
from clade.data.transforms import Fit
from clade.errors import CladeError, DataError
from clade.io.images import sheet
from clade.labels import LabelSpace
from clade.synthesis.drawing import Drawer, Request, write
from clade.synthesis.inputs import LabelFile, by_size, find_labels, other_names
from clade.synthesis.pipeline import Pace, Pipeline
from clade.synthesis.styles import labels_beside
from clade.synthesis.synthesizer import Synthesizer
from clade.system.progress import Progress, runs_on

GRID = "grid.png"
GRID_ROWS = 24
"""A grid shows the first so many."""


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
        notes: classes.json files that name classes otherwise than the network's label space.
        pace: how fast it went, and how much of the time the network was at work.
    """

    written: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    left_out: list[Path] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    without_instances: int = 0
    grid: Path | None = None
    notes: list[str] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)


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
    batch: int = 1,
    workers: int = 2,
    progress: bool = False,
) -> Outcome:
    """Draw every label file and write ``out/NAME.png``; go on past files that cannot be used.

    Several samples of each go to ``out/NAME-1.png``, ``out/NAME-2.png`` and so on. While the network draws, helper
    threads read the next label maps, compute their positions and write the last pictures; maps of one size follow each
    other. None of this changes a picture.

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
        batch: maps of one size that the network draws at once, at most; networks with noise of their own (SEAN) draw
            one by one, so that a picture does not depend on its neighbours.
        workers: helper threads; with 0, everything happens in turn.
        progress: tell what begins, and how far it is (:class:`clade.system.progress.Progress`).

    Raises:
        CladeError: nothing to draw, or an output folder that cannot be written.
    """
    for name, value, least in (("batch", batch, 1), ("workers", workers, 0)):
        if value < least:
            raise CladeError(f"{name} is {value}; needed is at least {least}.")
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
    if synthesizer.label_space is not None:
        outcome.notes = other_names(files, synthesizer.label_space)
    ends_known = style is not None and not isinstance(style, Mapping) and to is not None
    if samples > 1 and seed is None and (synthesizer.generator.stochastic or not ends_known):
        seed = torch.Generator().seed() % 2**31
    if samples > 1 and seed is not None:
        outcome.seeds = [seed + k for k in range(samples)] if to is None else [seed]
    request = Request(synthesizer, size, fit, style, seed, samples, to)
    at_once = 1 if synthesizer.generator.stochastic else batch
    # Helpers that read use warnings.catch_warnings, which is not made for threads: one may put back another's filters.
    with (
        warnings.catch_warnings(),
        Progress("label map", len(files), unit="pictures", each=samples, quiet=not progress) as bar,
        Pipeline(workers, 2 * at_once + 2) as pipeline,
    ):
        many = f", {samples} pictures of each" if samples > 1 else ""
        maps = f"{len(files)} label map{'s' * (len(files) != 1)}"
        bar.say(f"Drawing {maps}{many}: {runs_on(synthesizer.device, synthesizer.precision)}.")
        drawer = Drawer(request, pipeline, out, endings, at_once, bar.advance)
        in_order = partial(by_size, read_sizes=size is None, read_instances=synthesizer.generator.uses_instances)
        rest = files
        while grid and rest and len(drawer.rows) < GRID_ROWS:  # the overview shows the first files that can be drawn
            count = GRID_ROWS - len(drawer.rows)
            drawer.draw(in_order(rest[:count]), for_overview=True)
            rest = rest[count:]
        drawer.draw(in_order(rest))
    for file in files:
        outcome.written += drawer.written.get(file, [])
        if file in drawer.failed:
            outcome.failed[file.path] = drawer.failed[file]
    outcome.without_instances = drawer.without_instances
    outcome.pace = pipeline.pace(len(outcome.written))
    if drawer.rows:
        outcome.grid = out / GRID
        write(sheet([_row(synthesizer, *drawer.rows[file]) for file in files if file in drawer.rows]), outcome.grid)
    return outcome


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


def _row(synthesizer: Synthesizer, sample: Sample, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    space = synthesizer.label_space or LabelSpace.numbered(synthesizer.generator.num_rows)
    return [space.colorize(sample.ids), *images, *([] if sample.image is None else [sample.image])]

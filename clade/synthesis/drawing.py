"""From label file to written pictures: what helper threads do, and what the network's own thread does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clade.data import Sample, plain_resize, read_photo
from clade.data.files import require_same_size
from clade.data.transforms import Fit
from clade.errors import CladeError, DataError, LabelError
from clade.io.images import save_png, to_uint8
from clade.labels import LabelMap, read_instances
from clade.synthesis.inputs import LabelFile
from clade.synthesis.pipeline import Pipeline
from clade.synthesis.synthesizer import Synthesizer


@dataclass(frozen=True)
class Ready:
    """A label file that the network can draw.

    Args:
        label_map: checked, with positions and instances where the network uses them.
        sample: the label map and its photo, for the overview; None where it is not in it.
    """

    file: LabelFile
    label_map: LabelMap
    sample: Sample | None


@dataclass(frozen=True)
class Request:
    """What is wanted of every label map; see :func:`clade.synthesis.generate`."""

    synthesizer: Synthesizer
    size: tuple[int, int] | None
    fit: Fit
    style: Any
    seed: int | None
    samples: int
    to: Any

    def read(self, file: LabelFile, *, for_overview: bool = False) -> Ready:
        """The label map as training would see it, and whatever else can be done ahead of the network.

        Raises:
            LabelError, DataError: a file that cannot be used.
        """
        synthesizer = self.synthesizer
        ids = synthesizer.read(file.path).ids[0].numpy()
        instances = photo = None
        if file.instances is not None and synthesizer.generator.uses_instances:
            instances = read_instances(file.instances)
            require_same_size(file.instances, instances.shape, file.path, ids.shape)
        if file.photo is not None and for_overview:
            photo = read_photo(file.photo)
            require_same_size(file.photo, photo.shape, file.path, ids.shape)
        sample = Sample(file.name, photo, ids, instances)
        if self.size is not None and sample.size != self.size:
            sample = plain_resize(sample, self.size, self.fit)
        label_map = synthesizer.generator.prepare(LabelMap(sample.ids.copy(), sample.instances))
        return Ready(file, label_map, sample if for_overview else None)

    def draw(self, maps: Sequence[LabelMap]) -> Iterator[Tensor]:
        """Label maps of one size -> for each of the samples, images (N, 3, H, W) in [-1, 1].

        Every map has latents of its own, so that its images are those that it has alone.
        """
        synthesizer, seed = self.synthesizer, self.seed
        together = maps[0] if len(maps) == 1 else LabelMap.stack(maps)

        def latents(style: Any, seed: int | None, *, vary: bool = False) -> Tensor | None:
            rows = [synthesizer.latent(one, style, seed, vary=vary) for one in maps]
            present = [row for row in rows if row is not None]
            return torch.cat(present) if present else None

        if self.samples == 1:
            yield synthesizer(together, z=latents(self.style, seed), seed=seed)
        elif self.to is None:
            assert seed is not None
            for k in range(self.samples):
                yield synthesizer(together, z=latents(self.style, seed + k, vary=True), seed=seed + k)
        else:
            start = latents(self.style, seed)
            end = latents(None, self.to) if isinstance(self.to, int) else latents(self.to, seed)
            assert start is not None
            assert end is not None
            # One seed for all: what a network draws beside its latents must not flicker.
            for z in synthesizer.interpolate(start, end, self.samples):
                yield synthesizer(together, z=z, seed=seed or 0)


@dataclass
class Drawer:
    """Draws label files, and keeps account of them.

    Args:
        out: folder for the pictures.
        endings: what the names of the samples end in.
        batch: maps to draw at once, at most.
        report: called when files are done, with their number.
    """

    request: Request
    pipeline: Pipeline
    out: Path
    endings: Sequence[str]
    batch: int
    report: Callable[[int], object]
    written: dict[LabelFile, list[Path]] = field(default_factory=dict)
    failed: dict[LabelFile, str] = field(default_factory=dict)
    rows: dict[LabelFile, tuple[Sample, list[np.ndarray]]] = field(default_factory=dict)
    """What the overview shows: the label map with its photo, and its pictures."""
    without_instances: int = 0

    def draw(self, files: Iterable[LabelFile], *, for_overview: bool = False) -> None:
        """Draw files in this order, past those that cannot be used."""
        read = partial(self.request.read, for_overview=for_overview)
        for together in _batches(self._usable(self.pipeline.ahead(read, files)), self.batch):
            self._draw(together)

    def path(self, file: LabelFile, ending: str) -> Path:
        return self.out / f"{file.name}{ending}.png"

    def _usable(self, coming: Iterable[tuple[LabelFile, Future[Ready]]]) -> Iterator[Ready]:
        for file, future in coming:
            try:
                ready = future.result()
            except (LabelError, DataError) as error:
                self._fail(file, error)
            else:
                yield ready

    def _draw(self, together: Sequence[Ready]) -> None:
        pictures: list[list[np.ndarray]] = [[] for _ in together]
        paths: list[list[Path]] = [[] for _ in together]
        images = self.pipeline.network(self.request.draw([ready.label_map for ready in together]))
        try:
            for ending, image in zip(self.endings, images, strict=True):
                for k, pixels in enumerate(to_uint8(image)):
                    paths[k].append(self.path(together[k].file, ending))
                    self.pipeline.behind(write, pixels, paths[k][-1])
                    if together[k].sample is not None:
                        pictures[k].append(pixels)
        except (LabelError, DataError) as error:
            if len(together) == 1:
                self._fail(together[0].file, error)
                return
            self.pipeline.flush()
            for ready in together:
                self._draw([ready])
            return
        for ready, drawn, where in zip(together, pictures, paths, strict=True):
            self.written[ready.file] = where
            if ready.sample is not None:
                self.rows[ready.file] = ready.sample, drawn
            uses_instances = self.request.synthesizer.generator.uses_instances
            self.without_instances += uses_instances and ready.label_map.instances is None
        self.report(len(together))

    def _fail(self, file: LabelFile, error: CladeError) -> None:
        self.failed[file] = str(error) if str(file.path) in str(error) else f"{file.path}: {error}"
        self.report(1)


def _batches(ready: Iterable[Ready], largest: int) -> Iterator[list[Ready]]:
    """Neighbours that the network can draw at once."""
    together: list[Ready] = []
    for one in ready:
        if together and _kind(one) != _kind(together[0]):
            yield together
            together = []
        together.append(one)
        if len(together) == largest:
            yield together
            together = []
    if together:
        yield together


def _kind(ready: Ready) -> tuple[tuple[int, int], bool]:
    return ready.label_map.size, ready.label_map.instances is None


def write(pixels: np.ndarray, path: Path) -> None:
    """Raises CladeError for a place that cannot be written to."""
    try:
        save_png(pixels, path)
    except OSError as error:
        raise CladeError(f"{path}: cannot be written ({error}).") from error

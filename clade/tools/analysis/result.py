"""What an analysis found, and its tables."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clade.io.atomic import atomic_path
from clade.labels import LabelSpace
from clade.tools.analysis.figures import draw_histograms, draw_maps
from clade.tools.analysis.words import summary

Size = tuple[int, int]
Cell = str | int | float | None
PARAMETERS = ("gamma", "beta")
PARTS = ("everything", "inside", "border")
SHOWN_CLASSES = 10
"""Histograms are written of so many classes, those with the most pixels."""
WRITTEN_AS_ONE = 4
"""Bins of a histogram that are one in the file."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """Variances of gamma or beta over some pixels, averaged over channels."""

    pixels: int
    within: float
    """E[Var(gamma | class)]"""
    total: float
    """Var(gamma)"""
    eta_channels: float
    """Mean over channels of each channel's own share; nan where none varies."""

    @property
    def eta(self) -> float:
        """within / total; nan where nothing varies, or there are no pixels."""
        return self.within / self.total if self.total else math.nan


@dataclass(frozen=True, kw_only=True)
class ClassSpread:
    """Var(gamma | class) of one class, averaged over channels; nan where there are no such pixels."""

    row: int
    pixels: int
    inside: float
    """Share of its pixels with nothing else in their 5x5."""
    variance: float
    variance_inside: float
    variance_border: float


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How gamma or beta of a layer varies over all pixels, those inside regions and all others, and by class."""

    everything: Share
    inside: Share
    border: Share
    classes: tuple[ClassSpread, ...]


@dataclass(frozen=True, kw_only=True)
class Factor:
    """What positions multiply gamma or beta by, 1 + C(d) of equation 15, over all pixels."""

    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Bins:
    """Counts (rows, bins) of values; bin b begins at ``(b - bins / 2) width``."""

    width: float
    counts: np.ndarray

    @property
    def centres(self) -> np.ndarray:
        """(bins,)"""
        bins = self.counts.shape[1]
        return (np.arange(bins) - bins // 2 + 0.5) * self.width

    def coarser(self, times: int) -> Bins:
        """The same with so many neighbouring bins, a power of two, as one."""
        return Bins(self.width * times, self.counts.reshape(len(self.counts), -1, times).sum(2))


@dataclass(frozen=True, kw_only=True)
class LayerResult:
    """One layer. ``bins`` are by (``gamma`` or ``beta``, ``value`` or ``deviation``).

    A deviation is the distance from what the layer gives in the middle of a large region of the class.
    """

    name: str
    kind: str
    size: Size
    channels: int
    gamma: Spread
    beta: Spread
    bins: dict[tuple[str, str], Bins] = field(repr=False)
    gamma_factor: Factor | None = None
    beta_factor: Factor | None = None

    def spread(self, parameter: str) -> Spread:
        return self.gamma if parameter == "gamma" else self.beta


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """All layers of a kind at one size together; variances are averaged over the channels of all of them."""

    size: Size
    kind: str
    layers: int
    gamma: dict[str, Share]
    beta: dict[str, Share]


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """gamma and beta of some channels of a layer on one label map: ids (h, w), the others (len(channels), h, w)."""

    layer: str
    channels: tuple[int, ...]
    ids: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What Figure 2 shows of the label map with this number."""

    index: int
    rows: tuple[PictureRow, ...]


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """See :func:`clade.tools.analysis.analyze`."""

    generator: str
    maps: int
    size: Size
    seed: int
    layers: tuple[LayerResult, ...]
    classes: tuple[str, ...]
    pictures: tuple[Picture, ...] = field(repr=False)
    label_space: LabelSpace | None = field(default=None, repr=False)

    @property
    def resolutions(self) -> tuple[Resolution, ...]:
        """From coarse to fine."""
        places = sorted({(layer.size, layer.kind) for layer in self.layers})
        found = []
        for size, kind in places:
            layers = [layer for layer in self.layers if (layer.size, layer.kind) == (size, kind)]
            pooled = {key: {part: _pooled(layers, key, part) for part in PARTS} for key in PARAMETERS}
            found.append(Resolution(size=size, kind=kind, layers=len(layers), **pooled))
        return tuple(found)

    @property
    def frequent(self) -> list[int]:
        """Classes by how many pixels they have at the finest layer, the most first."""
        finest = max(self.layers, key=lambda layer: layer.size)
        return [one.row for one in sorted(finest.gamma.classes, key=lambda one: (-one.pixels, one.row))]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; None where there is no number."""
        layers = [
            {
                "name": layer.name,
                "kind": layer.kind,
                "size": list(layer.size),
                "channels": layer.channels,
                **{key: {part: _plain(getattr(layer.spread(key), part)) for part in PARTS} for key in PARAMETERS},
                **{
                    f"{key}_factor": vars(factor).copy()
                    for key in PARAMETERS
                    if (factor := getattr(layer, f"{key}_factor")) is not None
                },
            }
            for layer in self.layers
        ]
        resolutions = [
            {
                "size": list(one.size),
                "kind": one.kind,
                "layers": one.layers,
                **{key: {part: _plain(share) for part, share in getattr(one, key).items()} for key in PARAMETERS},
            }
            for one in self.resolutions
        ]
        return {
            "generator": self.generator,
            "maps": self.maps,
            "size": list(self.size),
            "seed": self.seed,
            "summary": summary(self),
            "resolutions": resolutions,
            "layers": layers,
        }

    def write(self, folder: str | Path) -> list[Path]:
        """Tables (CSV, JSON) and pictures (PNG) into a folder; returns the files.

        ``analysis.json``, ``resolutions.csv``, ``layers.csv``, ``classes.csv``, ``histograms.csv``, ``histograms.png``,
        and ``maps-N.png`` for each label map that was kept.
        """
        folder = Path(folder)
        written = [folder / "analysis.json"]
        with atomic_path(written[0]) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        tables = {
            "resolutions": (_RESOLUTION, self._resolution_rows()),
            "layers": (_LAYER, self._layer_rows()),
            "classes": (_CLASS, self._class_rows()),
            "histograms": (_BIN, self._bin_rows()),
        }
        written += [write_csv(folder / f"{name}.csv", *table) for name, table in tables.items()]
        written.append(draw_histograms(self, folder / "histograms.png"))
        return written + [draw_maps(self, one, folder / f"maps-{one.index}.png") for one in self.pictures]

    def _resolution_rows(self) -> list[list[Cell]]:
        return [
            [*one.size, one.kind, one.layers, key, part, *_numbers(share)]
            for one in self.resolutions
            for key in PARAMETERS
            for part, share in getattr(one, key).items()
        ]

    def _layer_rows(self) -> list[list[Cell]]:
        rows = []
        for layer in self.layers:
            for key in PARAMETERS:
                factor = getattr(layer, f"{key}_factor")
                extra: list[Cell] = [None] * 4 if factor is None else [factor.mean, factor.std, factor.low, factor.high]
                for part in PARTS:
                    share = getattr(layer.spread(key), part)
                    start = [layer.name, layer.kind, *layer.size, layer.channels, key, part]
                    rows.append([*start, *_numbers(share), _number(share.eta_channels), *extra])
        return rows

    def _class_rows(self) -> list[list[Cell]]:
        rows: list[list[Cell]] = []
        for layer in self.layers:
            for key in PARAMETERS:
                spread = layer.spread(key)
                total = spread.everything.total
                rows += [
                    [
                        *(layer.name, *layer.size, key, one.row, self.classes[one.row], one.pixels, one.inside),
                        *map(_number, (one.variance, one.variance_inside, one.variance_border)),
                        _number(one.variance / total if total else math.nan),
                    ]
                    for one in spread.classes
                ]
        return rows

    def _bin_rows(self) -> list[list[Cell]]:
        rows: list[list[Cell]] = []
        for layer in self.layers:
            for (key, what), fine in layer.bins.items():
                bins = fine.coarser(WRITTEN_AS_ONE)
                for row in self.frequent[:SHOWN_CLASSES]:
                    start = [layer.name, *layer.size, key, what, row, self.classes[row]]
                    for place in np.flatnonzero(bins.counts[row]).tolist():
                        low = (place - bins.counts.shape[1] // 2) * bins.width
                        rows.append([*start, low, low + bins.width, int(bins.counts[row, place])])
        return rows


_SHARE = ("pixels", "within", "total", "eta")
_RESOLUTION = ("height", "width", "kind", "layers", "parameter", "pixels of", *_SHARE)
_LAYER = (
    *("layer", "kind", "height", "width", "channels", "parameter", "pixels of", *_SHARE, "eta by channel"),
    *("factor mean", "factor std", "factor min", "factor max"),
)
_CLASS = (
    *("layer", "height", "width", "parameter", "id", "class", "pixels", "inside"),
    *("variance", "variance inside", "variance border", "variance / total"),
)
_BIN = ("layer", "height", "width", "parameter", "of", "id", "class", "from", "to", "count")


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Path:
    """Headings and rows -> a CSV file, all or nothing."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
    return path


def _pooled(layers: Sequence[LayerResult], parameter: str, part: str) -> Share:
    """Layers of one size: they have the same pixels, but other channels."""
    shares = [getattr(layer.spread(parameter), part) for layer in layers]
    channels = [layer.channels for layer in layers]

    def mean(key: str) -> float:
        return sum(getattr(share, key) * n for share, n in zip(shares, channels, strict=True)) / sum(channels)

    return Share(
        pixels=sum(share.pixels for share in shares), **{k: mean(k) for k in ("within", "total", "eta_channels")}
    )


def _numbers(share: Share) -> list[Cell]:
    return [share.pixels, _number(share.within), _number(share.total), _number(share.eta)]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(share: Share) -> dict[str, Cell]:
    return dict(zip((*_SHARE, "eta_channels"), [*_numbers(share), _number(share.eta_channels)], strict=True))

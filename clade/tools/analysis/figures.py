"""Figures 2, 3 and 5 of the paper, drawn of one's own generator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clade.io.atomic import atomic_path
from clade.labels import LabelSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from clade.tools.analysis.result import Analysis, Picture

DPI = 100
CELL, TOP, BOTTOM, SIDE = 1.5, 0.5, 0.75, 0.9  # inches
HISTOGRAM_CLASSES = 5
"""As many as Figure 3 has."""
_TAIL = 0.002
_DEVIATIONS = (np.arange(82) - 40.5) * 6 / 81  # the middle bin is around 0


def draw_maps(analysis: Analysis, picture: Picture, path: str | Path) -> Path:
    """Figure 2: the label map, and gamma and beta of some channels, one layer per row, from coarse to fine.

    All gamma maps share one scale, and so do all beta maps; their bars are below. Size in pixels:
    :func:`maps_size`.
    """
    channels = max(len(row.channels) for row in picture.rows)
    width, height, cell = _layout(len(picture.rows), channels, analysis.size)
    figure = _figure(width, height)
    space = analysis.label_space or LabelSpace.numbered(len(analysis.classes))
    scales = {key: _limits([getattr(row, key) for row in picture.rows]) for key in ("gamma", "beta")}
    layers = {layer.name: layer for layer in analysis.layers}

    def axes(row: int, column: int) -> Axes:
        left, top = SIDE + column * CELL, TOP + row * cell
        made = figure.add_axes(
            (left / width, 1 - (top + cell - 0.28) / height, (CELL - 0.06) / width, (cell - 0.3) / height)
        )
        made.set_axis_off()
        return made

    shown: dict[str, Any] = {}
    for k, row in enumerate(picture.rows):
        layer = layers[row.layer]
        made = axes(k, 0)
        made.imshow(space.colorize(row.ids), interpolation="nearest", aspect="auto")
        made.set_title("labels", fontsize=7, pad=2)
        note = f"{row.layer}\n{layer.kind}\n{layer.size[0]}x{layer.size[1]}"
        made.text(-0.06, 0.5, note, transform=made.transAxes, ha="right", va="center", fontsize=7)
        for j, channel in enumerate(row.channels):
            for i, (key, sign) in enumerate((("gamma", "γ"), ("beta", "β"))):
                made = axes(k, 1 + i * channels + j)
                low, high = scales[key]
                values = getattr(row, key)[j]
                shown[key] = made.imshow(values, vmin=low, vmax=high, interpolation="nearest", aspect="auto")
                made.set_title(f"{sign}, channel {channel}", fontsize=7, pad=2)
    for i, (key, sign) in enumerate((("gamma", "γ"), ("beta", "β"))):
        left = SIDE + (1 + i * channels) * CELL + 0.1
        place = (left / width, 0.42 / height, (channels * CELL - 0.26) / width, 0.12 / height)
        bar = figure.colorbar(shown[key], cax=figure.add_axes(place), orientation="horizontal")
        bar.ax.tick_params(labelsize=7)
        bar.set_label(f"{sign}, all rows", fontsize=7, labelpad=1)
    figure.suptitle(f"{analysis.generator}: label map {picture.index}", fontsize=9, y=1 - 0.12 / height, va="top")
    return _save(figure, path)


def maps_size(rows: int, channels: int, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) in pixels of what :func:`draw_maps` draws."""
    width, height, _ = _layout(rows, channels, size)
    return round(width * DPI), round(height * DPI)


def _layout(rows: int, channels: int, size: tuple[int, int]) -> tuple[float, float, float]:
    """Width and height of the sheet, and height of a row, in inches."""
    cell = round(CELL * min(max(size[0] / size[1], 0.3), 3) + 0.3, 2)
    return SIDE + CELL * (1 + 2 * channels) + 0.1, TOP + cell * rows + BOTTOM, cell


def draw_histograms(analysis: Analysis, path: str | Path) -> Path:
    """Figure 3: how gamma and beta are distributed inside the most frequent classes, one line per resolution.

    Left: their values, all channels together. Right: how far each lies from what its channel has in the middle of a
    large region of the class, in standard deviations of its layer, on a logarithmic scale. The CSV has finer bins.
    """
    from matplotlib import colormaps

    rows = analysis.frequent[:HISTOGRAM_CLASSES]
    columns = [(key, what) for what in ("value", "deviation") for key in ("gamma", "beta")]
    figure = _figure(13, 1 + 1.9 * len(rows), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    places = analysis.resolutions
    colors = colormaps["viridis"](np.linspace(0, 0.92, len(places)))
    for column, (key, what) in enumerate(columns):
        lines: list[list[tuple[np.ndarray, np.ndarray]]] = []  # per resolution and layer: places and counts of bins
        for at in places:
            layers = [one for one in analysis.layers if (one.size, one.kind) == (at.size, at.kind)]
            units = [one.spread(key).everything.total ** 0.5 if what == "deviation" else 1.0 for one in layers]
            bins = [one.bins[key, what] for one in layers]
            lines.append([(one.centres / (unit or 1.0), one.counts) for one, unit in zip(bins, units, strict=True)])
        edges = (
            _edges([(at, counts[rows]) for line in lines for at, counts in line]) if what == "value" else _DEVIATIONS
        )
        for k, row in enumerate(rows):
            axes: Axes = grid[k, column]
            for at, line, color in zip(places, lines, colors, strict=True):
                total = sum(int(counts[row].sum()) for _, counts in line)
                if total:
                    found = sum(np.histogram(centres, edges, weights=counts[row])[0] for centres, counts in line)
                    label = f"{at.size[0]}x{at.size[1]} {at.kind}"
                    axes.stairs(100 * np.asarray(found) / total, edges, color=color, label=label, linewidth=1)
            axes.tick_params(labelsize=7)
            if what == "deviation":
                axes.set_yscale("symlog", linthresh=0.1)
            axes.set_ylim(bottom=0)
            if k == 0:
                sign = "γ" if key == "gamma" else "β"
                title = sign if what == "value" else f"({sign} - {sign} inside a large region) / std({sign})"
                axes.set_title(title, fontsize=9)
            if column == 0:
                axes.set_ylabel(f"{analysis.classes[row]}\n% of values per bin", fontsize=8)
    handles, labels = max((axes.get_legend_handles_labels() for axes in grid.flat), key=lambda one: len(one[1]))
    figure.legend(handles, labels, loc="outside lower center", ncols=min(8, len(labels)), fontsize=8, frameon=False)
    maps = f"{analysis.maps} label map{'s' * (analysis.maps > 1)}"
    figure.suptitle(f"{analysis.generator}: gamma and beta inside classes, {maps}", fontsize=10)
    return _save(figure, path)


def draw_ratios(rows: Sequence[tuple[str, str, float, float]], path: str | Path) -> Path:
    """Figure 5, left: (layer, kind, parameters, FLOPs) of layers, as shares of the convolution after each."""
    figure = _figure(max(6, 1.2 + 0.45 * len(rows)), 4.2, layout="constrained")
    axes = figure.subplots()
    for k, (label, color) in enumerate((("parameters", "#e8853a"), ("FLOPs", "#3a9e5c"))):
        heights = [100 * row[2 + k] for row in rows]
        axes.bar([i + 0.4 * k - 0.2 for i in range(len(rows))], heights, 0.4, label=label, color=color)
    axes.set_yscale("log")
    axes.set_xticks(range(len(rows)), [row[0] for row in rows], rotation=60, ha="right", fontsize=7)
    axes.set_ylabel("layer / convolution after it (%)", fontsize=8)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize=8, frameon=False)
    return _save(figure, path)


def _edges(bins: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Of bins over where all values but a thin tail to each side lie."""
    centres = np.concatenate([at for at, _ in bins])
    counts = np.concatenate([rows.sum(0) for _, rows in bins])
    order = np.argsort(centres)
    below = np.cumsum(counts[order]) / counts.sum()
    low, high = (centres[order][np.searchsorted(below, tail)] for tail in (_TAIL, 1 - _TAIL))
    middle, half = (low + high) / 2, max((high - low) / 2, 1e-6 * max(abs(low), abs(high), 1e-6))
    return np.linspace(middle - 1.05 * half, middle + 1.05 * half, 82)


def _limits(parts: Sequence[np.ndarray]) -> tuple[float, float]:
    low, high = min(float(part.min()) for part in parts), max(float(part.max()) for part in parts)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _figure(width: float, height: float, **options: Any) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, **options)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: str | Path) -> Path:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})  # the same bytes each time
    return Path(path)

"""Figure 5 of the paper: what SPADE and CLADE layers cost beside the convolutions after them, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clade.complexity.overhead import layer_pairs
from clade.complexity.settings import build, find_setting
from clade.errors import CladeError
from clade.io.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".pdf", ".svg")
_SPADE, _CLADE, _CLADE_FLOPS, _CONV = "#e8853a", "#e6b800", "#3a9e5c", "#5b7fa6"


def draw_figure_5(path: str | Path, dataset: str = "ade20k") -> Path:
    """Draw the figure to a file (.png, .pdf, .svg).

    Left: ratio of parameters and FLOPs of each normalization layer to the convolution after it. Middle and right: their
    absolute parameters and FLOPs. Shortcuts are counted as the 1x1 convolutions that they are.

    Raises:
        CladeError: an unknown dataset, or a file name of another kind.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix not in FORMATS:
        raise CladeError(f"{path}: a figure's name ends in one of {', '.join(FORMATS)}. Name it so.")
    setting = find_setting(dataset)
    spade, clade = (
        layer_pairs(build(name, setting.options(name), values=False), setting.size) for name in ("spade", "clade")
    )
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    layers = [f"{k + 1}" + ("s" if pair.name.endswith("shortcut") else "") for k, pair in enumerate(spade)]
    _bars(
        left,
        layers,
        {
            "SPADE, parameters and FLOPs": ([100 * pair.params_ratio for pair in spade], _SPADE),
            "CLADE, parameters": ([100 * pair.params_ratio for pair in clade], _CLADE),
            "CLADE, FLOPs": ([100 * pair.flops_ratio for pair in clade], _CLADE_FLOPS),
        },
        "Layer / convolution after it (%)",
    )
    _bars(
        middle,
        layers,
        {
            "convolution": ([pair.conv_params / 1e6 for pair in spade], _CONV),
            "SPADE": ([pair.norm_params / 1e6 for pair in spade], _SPADE),
            "CLADE": ([pair.norm_params / 1e6 for pair in clade], _CLADE),
        },
        "Parameters (M)",
    )
    _bars(
        right,
        layers,
        {
            "convolution": ([pair.conv_macs / 1e9 for pair in spade], _CONV),
            "SPADE": ([pair.norm_ops / 1e9 for pair in spade], _SPADE),
            "CLADE": ([pair.norm_ops / 2e9 for pair in clade], _CLADE_FLOPS),  # two operations are one multiply-add
        },
        "FLOPs (G multiply-adds)",
    )
    height, width = setting.size
    figure.suptitle(f"SPADE and CLADE layers beside their convolutions: {dataset}, {height}x{width}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:])
    return path


def _bars(axes: Axes, layers: list[str], series: dict[str, tuple[list[float], str]], title: str) -> None:
    """Bars side by side per layer, on a logarithmic axis: the values span several powers of ten."""
    width = 0.84 / len(series)
    for k, (label, (values, color)) in enumerate(series.items()):
        places = [i + (k - (len(series) - 1) / 2) * width for i in range(len(values))]
        axes.bar(places, values, width, label=label, color=color)
    axes.set_yscale("log")
    axes.set_xticks(range(len(layers)), layers, fontsize=8)
    axes.set_xlabel("layer, from coarse to fine (s: shortcut)")
    axes.set_title(title, fontsize=11)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.margins(x=0.01)
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=len(series))

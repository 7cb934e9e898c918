"""The layers of a generator whose gamma and beta come from the label map, and the pixels around which one class is."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from clade.errors import CladeError
from clade.labels import LabelMap, LabelPyramid
from clade.models import Generator
from clade.nn import ACE, CLADE, SPADE, NormLayer
from clade.nn.spade_like import evaluating, interior
from clade.registry import near_match

Size = tuple[int, int]
Layer = SPADE | CLADE
REACH = 2
"""SPADE's two 3x3 convolutions see so many pixels to each side."""
_CLASSES_AT_A_TIME = 32


def modulation_layers(generator: Generator, wanted: Sequence[str] = ()) -> dict[str, Layer]:
    """SPADE and CLADE layers by name, in the network's order; SEAN's label parts are among them.

    CC-FPSE's are not: they also read features, so that no class decides their gamma and beta.

    Args:
        wanted: only these: names, or patterns such as ``blocks.6.*``.

    Raises:
        CladeError: there is no such layer, or none at all.
    """
    found = {
        name: layer
        for name, layer in generator.named_modules()
        if isinstance(layer, CLADE) or (isinstance(layer, SPADE) and _rows(layer) == generator.num_rows)
    }
    if not found:
        kinds = dict.fromkeys(type(layer).__name__ for layer in generator.modules() if isinstance(layer, NormLayer))
        raise CladeError(
            f"The generator is '{generator.name or type(generator).__name__}', which has no CLADE and no plain SPADE "
            f"layers that read the labels alone (its layers: {', '.join(kinds) or 'none that read labels'}), so there "
            "is no gamma and beta of the label map to look at. Needed is a checkpoint of spade, clade, clade-icpe, a "
            "hybrid of them, dagan or sean."
        )
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in found):
            raise CladeError(
                f"No SPADE or CLADE layer is called '{pattern}'.{near_match(pattern, found)} Known: {', '.join(found)}."
            )
    return {
        name: layer
        for name, layer in found.items()
        if not wanted or any(fnmatchcase(name, pattern) for pattern in wanted)
    }


def feature_sizes(generator: Generator, label_map: LabelMap) -> dict[str, Size]:
    """(height, width) of the features that each layer gets for a map of this size; one forward of the network."""
    sizes: dict[str, Size] = {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, given: tuple[Any, ...]) -> None:
            sizes[name] = (given[0].shape[2], given[0].shape[3])

        return hook

    hooks = [
        layer.register_forward_pre_hook(note(f"{name}.label" if isinstance(layer, ACE) else name))
        for name, layer in generator.named_modules()
        if isinstance(layer, (SPADE, CLADE, ACE))
    ]
    try:
        with evaluating(generator), torch.random.fork_rng():
            generator(label_map)
    finally:
        for hook in hooks:
            hook.remove()
    return sizes


def inside(layer: Layer, labels: LabelPyramid, size: Size) -> Tensor:
    """Pixels (N, h, w) with nothing but one class, no edge that the layer reads, and no picture's end in their 5x5."""
    ids = labels.ids(size)
    if not (isinstance(layer, SPADE) and layer.instance_edges):
        return interior(ids, REACH)
    edges = labels.edges(size)[:, 0] > 0
    return interior(ids + labels.num_rows * edges, REACH) & ~edges


def inside_values(layer: Layer, num_rows: int) -> tuple[Tensor, Tensor]:
    """gamma and beta in the middle of a 5x5 patch of each class, (num_rows, C): what a table would hold."""
    side = 2 * REACH + 1
    device = next(layer.parameters()).device
    parts = []
    for rows in torch.arange(num_rows, device=device).split(_CLASSES_AT_A_TIME):
        pyramid = LabelPyramid(LabelMap(rows.view(-1, 1, 1).expand(-1, side, side).contiguous()), num_rows)
        gamma, beta = layer.modulation(pyramid, (side, side), torch.float32)
        parts.append((gamma[:, :, REACH, REACH], beta[:, :, REACH, REACH]))
    gamma, beta = (torch.cat(part) for part in zip(*parts, strict=True))
    return gamma, beta


def _rows(layer: SPADE) -> int:
    return layer.shared.in_channels - layer.instance_edges


def kind(layer: Layer) -> str:
    """What to call it: SPADE, CLADE, or CLADE-ICPE where positions are in gamma and beta."""
    if isinstance(layer, SPADE):
        return "SPADE"
    return "CLADE-ICPE" if layer.modulates_by_position else "CLADE"

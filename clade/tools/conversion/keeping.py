"""How much of what one generator draws another one keeps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from clade.errors import CladeError
from clade.labels import LabelMap, LabelPyramid
from clade.models import Generator
from clade.models.generators.spade_shaped import LAYOUTS, SpadeShapedGenerator
from clade.nn.spade_like import evaluating, interior
from clade.tools.conversion.converting import layers_now

Size = tuple[int, int]
REACH = 2
"""SPADE's modulation network looks so many pixels to each side: two 3x3 convolutions."""


@dataclass(frozen=True, kw_only=True)
class KeptBlock:
    """One residual block, before and after; shares as in :class:`Kept`."""

    layers: str
    """Its layers now: ``clade``, ``spade`` or ``none``."""
    size: Size
    """Of its features, (height, width), on the last map."""
    inside: float
    """Share of its pixels in whose 5x5 neighbourhood everything is of one class: there each of its layers is exact."""
    alone: float
    """Share of the feature energy that it keeps given the features that the original's block got."""
    together: float
    """The same after all converted blocks before it."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """How much of what a generator draws another one keeps.

    Energies are sums over all label maps, pixels and channels; a mean is that of one picture's channel:

        kept = 1 - |I' - I|^2 / |I - mean(I)|^2,   PSNR = 10 log10(4 / mean((I' - I)^2))

    with I the original's images (or features) and I' the other's. 1 is the same picture, 0 as far off as grey ones of
    the right mean.
    """

    maps: int
    energy: float
    psnr: float
    """Of images in [-1, 1], in dB; inf for equal ones."""
    inside: float
    """Share of the maps' pixels that lie deeper than 2 pixels inside a region, and inside the picture."""
    blocks: tuple[KeptBlock, ...]


@torch.no_grad()
def kept(original: Generator, other: Generator, maps: Iterable[LabelMap], seed: int = 0) -> Kept:
    """Compare two generators of the same blocks on label maps; see :class:`Kept`.

    Args:
        maps: label maps, of one picture or several of a size each.
        seed: latents of a multi-modal generator are drawn from the prior by seed, seed + 1, ..., one for each of
            ``maps``; both get the same.

    Raises:
        CladeError: no maps; LabelError: ids outside the classes.
    """
    layers = layers_now(other)
    image, inside, count = _Sum(), _Sum(), 0
    sums = [[_Sum(), _Sum(), _Sum()] for _ in layers]
    sizes: list[Size] = [(0, 0)] * len(layers)
    with evaluating(original), evaluating(other):
        for label_map in maps:
            label_map = original.prepare(label_map)
            if other.uses_positions:
                label_map = other.prepare(label_map)
            pyramid = LabelPyramid(label_map.padded(original.multiple), original.num_rows)
            z = latent(original, label_map, seed + count)
            before, inputs, features = _run(original, pyramid, z)
            after, _, changed = _run(other, pyramid, z)
            height, width = label_map.size
            image.add(*_energies(before[:, :, :height, :width], after[:, :, :height, :width]), height * width * 3)
            inside.add(*_share(interior(label_map.ids, REACH)))
            for k, (x, wanted, got) in enumerate(zip(inputs, features, changed, strict=True)):
                sizes[k] = (wanted.shape[2], wanted.shape[3])
                alone = cast(nn.ModuleList, other.blocks)[k](x, pyramid)
                sums[k][0].add(*_share(_exact(pyramid, sizes[k], getattr(original, "instance_edges", False))))
                sums[k][1].add(*_energies(wanted, alone))
                sums[k][2].add(*_energies(wanted, got))
            count += len(label_map)
    if not count:
        raise CladeError("There are no label maps to compare the two generators on; needed is at least one.")
    blocks = tuple(
        KeptBlock(
            layers=name, size=size, inside=1 - share.missing, alone=1 - alone.missing, together=1 - together.missing
        )
        for name, size, (share, alone, together) in zip(layers, sizes, sums, strict=True)
    )
    error = image.lost / image.values
    psnr = 10 * math.log10(4 / error) if error else math.inf
    return Kept(maps=count, energy=1 - image.missing, psnr=psnr, inside=1 - inside.missing, blocks=blocks)


def block_sizes(generator: Generator, size: Size) -> list[Size]:
    """(height, width) of each block's features for a picture of ``size``; only for SPADE-shaped generators."""
    assert isinstance(generator, SpadeShapedGenerator)
    doubled = LAYOUTS[generator.options.get("upsampling", "normal")][1]
    height, width = (math.ceil(n / generator.multiple) for n in size)
    sizes = []
    for k in range(len(generator.blocks)):
        height, width = (n * 2 if k in doubled else n for n in (height, width))
        sizes.append((height, width))
    return sizes


class _Sum:
    lost = total = values = 0.0

    def add(self, lost: float, total: float, values: float = 0) -> None:
        self.lost, self.total, self.values = self.lost + lost, self.total + total, self.values + values

    @property
    def missing(self) -> float:
        return self.lost / self.total if self.total else math.nan


def _energies(before: Tensor, after: Tensor) -> tuple[float, float]:
    """|after - before|^2 and |before - mean(before)|^2"""
    before, after = before.double(), after.double()
    lost = (after - before).square().sum()
    return float(lost), float((before - before.mean((2, 3), keepdim=True)).square().sum())


def _share(mask: Tensor) -> tuple[float, float]:
    """How many are not in the mask, and how many there are."""
    return float((~mask).sum()), float(mask.numel())


def _exact(labels: LabelPyramid, size: Size, instance_edges: bool) -> Tensor:
    """Pixels (N, h, w) around which nothing but one class reaches SPADE's modulation network."""
    ids = labels.ids(size)
    if not instance_edges:
        return interior(ids, REACH)
    edges = labels.edges(size)[:, 0] > 0
    return interior(ids + labels.num_rows * edges, REACH) & ~edges


def latent(generator: Generator, label_map: LabelMap, seed: int) -> Tensor | None:
    """Latents from the prior by a seed; None for a generator that starts from the labels."""
    shape = generator.latent_shape(label_map.size)
    if shape is None:
        return None
    noise = torch.randn(len(label_map), *shape, generator=torch.Generator().manual_seed(seed))
    return generator.prior(noise.to(next(generator.parameters())))


def _run(generator: Generator, labels: LabelPyramid, z: Tensor | None) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The image, and what each block got and gave."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def note(module: nn.Module, given: tuple[Any, ...], result: Tensor) -> None:
        inputs.append(given[0])
        outputs.append(result)

    hooks = [block.register_forward_hook(note) for block in cast(nn.ModuleList, generator.blocks)]
    try:
        return generator.synthesize(labels, z), inputs, outputs
    finally:
        for hook in hooks:
            hook.remove()

"""What another network's SPADE layer computes, and the tables of a CLADE layer that stands in for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.errors import CladeError
from clade.labels import nearest
from clade.nn.clade import CLADE
from clade.nn.segmap import SegmapCLADE, SegmapReader
from clade.nn.spade import SPADE

ATTRIBUTES = ("param_free_norm", "mlp_shared", "mlp_gamma", "mlp_beta")
_CLASSES_AT_A_TIME = 32
_EXAMPLE_PIXELS = 1 << 14  # larger examples are made smaller: most layers' features are, too


class SpadeLike:
    """A SPADE layer, ours or another's, and what its modulation network gives. Used in eval mode, without gradients.

    Args:
        layer: the layer.
        name: what errors call it.
        num_classes, unknown_class: see :func:`clade.nn.replace_spade`.

    Raises:
        CladeError: it reads fewer channels than num_classes.
    """

    def __init__(self, layer: nn.Module, name: str, num_classes: int | None, unknown_class: bool) -> None:
        self.layer, self.name = layer, name
        self.ours = isinstance(layer, SPADE)
        if self.ours and unknown_class:
            raise CladeError(
                f"{name} is a clade.nn.SPADE, whose ids include the unknown class. Leave unknown_class out."
            )
        keys = ("shared", "to_gamma", "to_beta") if self.ours else ATTRIBUTES[1:]
        self.mlps = [cast(nn.Module, getattr(layer, key)) for key in keys]
        first = next(convolutions(self.mlps[0]))
        self.dims = len(first.reach)
        self.read_channels = first.channels_in
        classes = first.channels_in - (isinstance(layer, SPADE) and layer.instance_edges)
        if num_classes is not None and (classes < num_classes or (self.ours and classes != num_classes)):
            raise CladeError(
                f"{name} reads {classes} classes{' (the unknown one included)' * self.ours}, but num_classes is "
                f"{num_classes}. Give the number of classes in the label maps, or leave it out."
            )
        self.num_classes = classes if num_classes is None else num_classes
        self.unknown_class = unknown_class
        weight = next(self.mlps[0].parameters())
        self.device, self.dtype = weight.device, weight.dtype
        shared, *heads = (
            torch.tensor([conv.reach for conv in convolutions(mlp)]).view(-1, self.dims).sum(0) for mlp in self.mlps
        )
        self.radius = int(torch.stack([shared + head for head in heads]).max())

    def modulation(self, segmap: Tensor) -> tuple[Tensor, Tensor]:
        """gamma(m) and beta(m)"""
        shared, to_gamma, to_beta = self.mlps
        hidden = F.relu(shared(segmap)) if self.ours else shared(segmap)
        return to_gamma(hidden), to_beta(hidden)

    def tables(self, example: Tensor | None) -> tuple[Tensor, Tensor, bool]:
        """1 + gamma and beta of each class, (rows, C), and whether the layer gives exactly these inside a region."""
        rows, side = self._rows(), self._side
        parts = [self._inside(part, side) for part in rows.split(_CLASSES_AT_A_TIME)]
        gamma, beta = (torch.cat(table) for table in zip(*parts, strict=True))
        self._check(rows, gamma.shape[1])
        exact = self._is_local(rows, gamma, beta)
        if not exact:
            gamma, beta = self._mosaic(rows)
            if example is not None:
                gamma, beta = self._from_example(example, gamma, beta)
        return 1 + gamma, beta.contiguous(), exact

    def fresh_tables(self) -> tuple[Tensor, Tensor, bool]:
        """Tables of the same shapes as CLADE starts with."""
        rows = self._rows()
        gamma, _ = self._inside(rows[:1], self._side)
        self._check(rows, gamma.shape[1])
        gamma = gamma.new_empty(len(rows), gamma.shape[1]).uniform_()
        return gamma, torch.zeros_like(gamma), True

    @property
    def _side(self) -> int:
        """Of a patch whose centre its padding does not reach."""
        return max(3, 2 * self.radius + 1)

    def _rows(self) -> Tensor:
        """One pixel of each class, one-hot."""
        rows = torch.eye(self.num_classes + self.unknown_class, self.read_channels, dtype=self.dtype)
        if self.unknown_class:
            rows[-1] = 0
        return rows.to(self.device)

    def _is_local(self, rows: Tensor, gamma: Tensor, beta: Tensor) -> bool:
        """Whether a class gets the same beside another one, out of reach: not so where the whole map is normalised."""
        if self.device.type == "meta":
            return True
        two = torch.stack([rows[0], rows[1] if len(rows) > 1 else torch.zeros_like(rows[0])])
        halves = two.repeat_interleave(self._side, 0).t()
        segmap = halves.view(1, *halves.shape, *[1] * (self.dims - 1))
        segmap = segmap.expand(*segmap.shape[:3], *[self._side] * (self.dims - 1)).contiguous()
        centre = (0, slice(None), *[self._side // 2] * self.dims)
        return all(
            torch.allclose(beside[centre], table[0], rtol=1e-2, atol=1e-3 * float(table[0].abs().max()))
            for beside, table in zip(self.modulation(segmap), (gamma, beta), strict=True)
        )

    def _inside(self, rows: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """gamma and beta at the centre of a patch of one class each."""
        patches = rows.view(*rows.shape, *[1] * self.dims).expand(*rows.shape, *[side] * self.dims)
        centre = (..., *[side // 2] * self.dims)
        gamma, beta = self.modulation(patches.contiguous())
        return gamma[centre], beta[centre]

    def _mosaic(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """gamma and beta at the centres of the tiles of one map in which all classes have about equal area."""
        tiles = 1
        while tiles**self.dims < len(rows):
            tiles += 1
        side = 4 * self.radius + 1
        order = torch.arange(tiles**self.dims, device=rows.device) % len(rows)
        ids = order.view([tiles] * self.dims)
        for dim in range(self.dims):
            ids = ids.repeat_interleave(side, dim)
        centres = (0, slice(None), *[slice(side // 2, None, side)] * self.dims)
        tables = (part[centres].flatten(1).t()[: len(rows)] for part in self.modulation(rows[ids].movedim(-1, 0)[None]))
        gamma, beta = tables
        return gamma, beta

    def _from_example(self, example: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        """Means inside the regions of each class; a class that has none keeps the row it comes with."""
        if example.ndim != self.dims + 2 or example.shape[1] != self.read_channels:
            raise CladeError(
                f"example has shape {tuple(example.shape)}, but {self.name} reads (N, {self.read_channels}, "
                f"{', '.join('DHW'[3 - self.dims :])}). Give one-hot label maps as the network gets them."
            )
        shrink = max(1.0, (example[0, 0].numel() / _EXAMPLE_PIXELS) ** (1 / self.dims))
        size = tuple(max(1, round(n / shrink)) for n in example.shape[2:])
        reader = SegmapReader(self.num_classes, self.unknown_class)
        sums = [torch.zeros_like(table, dtype=torch.float32) for table in (gamma, beta)]
        counts = torch.zeros(len(gamma), device=self.device)
        for one in example.split(1):
            segmap = nearest(one.to(self.device, self.dtype), size)
            ids = reader.read(segmap, 0).ids(size)
            inside = interior(ids, self.radius).flatten()
            of = ids.flatten()[inside]
            counts.index_add_(0, of, torch.ones_like(of, dtype=counts.dtype))
            for total, part in zip(sums, self.modulation(segmap), strict=True):
                total.index_add_(0, of, part[0].flatten(1).t()[inside].to(total.dtype))
        seen = (counts > 0)[:, None]
        means = [total / counts.clamp(min=1)[:, None] for total in sums]
        gamma, beta = (
            torch.where(seen, mean.to(table.dtype), table) for mean, table in zip(means, (gamma, beta), strict=True)
        )
        return gamma, beta

    def _check(self, rows: Tensor, channels: int) -> None:
        """That the layer computes x^ * (1 + gamma(m)) + beta(m), and so can be replaced by CLADE."""
        if self.ours or self.device.type == "meta":
            return
        noise = torch.Generator().manual_seed(0)
        shape = (2, *[self._side] * self.dims)
        ids = torch.randint(len(rows), shape, generator=noise).to(self.device)
        segmap = rows[ids].movedim(-1, 1).contiguous()
        x = torch.randn(2, channels, *shape[1:], generator=noise).to(self.device, self.dtype)
        gamma, beta = self.modulation(segmap)
        expected = cast(nn.Module, self.layer.param_free_norm)(x) * (1 + gamma) + beta
        try:
            actual = self.layer(x, segmap)
        except Exception as error:
            raise CladeError(
                f"{self.name} ({type(self.layer).__name__}) looks like SPADE, but cannot be called as "
                f"layer(x, segmap): {error} Call replace_spade on those parts of the network that can be replaced."
            ) from error
        if actual.shape != expected.shape or not torch.allclose(actual, expected, rtol=0.02, atol=0.02):
            raise CladeError(
                f"{self.name} ({type(self.layer).__name__}) looks like SPADE, but computes something else than "
                "param_free_norm(x) * (1 + mlp_gamma(...)) + mlp_beta(...), which CLADE would stand in for. "
                "Call replace_spade on the parts of the network whose layers can be replaced."
            )

    def replacement(
        self, gamma: Tensor, beta: Tensor, positions: bool, segmaps: SegmapReader, index: int
    ) -> SegmapCLADE | CLADE:
        if isinstance(self.layer, SPADE):
            new = CLADE(gamma.shape[1], num_rows=len(gamma), positions=positions).to(gamma)
            new.normalize = self.layer.normalize
            new.gamma, new.beta = nn.Parameter(gamma), nn.Parameter(beta)
        else:
            norm = cast(nn.Module, self.layer.param_free_norm)
            new = SegmapCLADE(norm, gamma, beta, segmaps, index, positions)
        learned = any(parameter.requires_grad for mlp in self.mlps for parameter in mlp.parameters())
        kept = set((new.normalize if isinstance(new, CLADE) else new.param_free_norm).parameters())
        for parameter in new.parameters():
            if parameter not in kept:
                parameter.requires_grad_(learned)
        present = set(self.layer.modules())
        for part in new.modules():
            if part not in present:  # the normalization keeps its own mode
                part.training = self.layer.training
        return new


def interior(ids: Tensor, radius: int) -> Tensor:
    """Pixels around which, ``radius`` far to each side, the map is of one class and goes on: (N, *size) -> bool."""
    reach, dims = 2 * radius + 1, ids.ndim - 1
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[dims - 1]
    same = torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
    if min(ids.shape[1:]) >= reach:
        values = ids[:, None].float()
        centre = (slice(None), *[slice(radius, n - radius) for n in ids.shape[1:]])
        same[centre] = (pool(values, reach, 1) == -pool(-values, reach, 1))[:, 0]
    return same


@dataclass(frozen=True)
class _Convolution:
    channels_in: int
    reach: tuple[int, ...]
    """How far it looks to each side, per dimension."""
    weights: int


def convolutions(module: nn.Module) -> Iterator[_Convolution]:
    for part in module.modules():
        weight = getattr(part, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim in (3, 4, 5):
            groups, dilation = getattr(part, "groups", 1), getattr(part, "dilation", 1)
            kernel = tuple(weight.shape[2:])
            dilation = dilation if isinstance(dilation, tuple) else (dilation,) * len(kernel)
            reach = tuple((step * (n - 1) + 1) // 2 for n, step in zip(kernel, dilation, strict=True))
            yield _Convolution(weight.shape[1] * groups, reach, weight.numel())


def is_spade(module: nn.Module) -> bool:
    if isinstance(module, SPADE):
        return True
    parts = [getattr(module, name, None) for name in ATTRIBUTES]
    if not all(isinstance(part, nn.Module) for part in parts):
        return False
    with evaluating(module):  # reading a spectrally normalised weight in training mode would move its vectors
        return next(convolutions(cast(nn.Module, parts[1])), None) is not None


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for a while: neither running statistics nor spectral norm's vectors move."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode

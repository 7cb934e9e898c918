"""SPADE exactly, as a table look-up: its scale and shift depend on the 5x5 labels around a pixel, and few differ."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.engine.kernels import Lookup
from clade.engine.tables import Size, TableNorm, statistics
from clade.labels import LabelPyramid
from clade.nn import SPADE

_SIDE = 16  # of the pictures as which rows are convolved: for others oneDNN chooses another order of the weights
_MOST = 1 << 26  # values of a table of products; more are multiplied out in parts
_ROWS = 4096
_COLUMNS = 128  # of gamma and beta at a time, so that the products of all places stay small


@dataclass(frozen=True)
class Patterns:
    """The distinct 3x3 neighbourhoods of a map of numbers.

    Args:
        index: which one each pixel has, (N, H, W) int32.
        members: their nine numbers, row by row, (patterns, 9) int32; -1 is outside the map.
    """

    index: Tensor
    members: Tensor


def patterns(numbers: Tensor) -> Patterns:
    """Number the distinct 3x3 neighbourhoods of (N, H, W) numbers from 0 on."""
    _, height, width = numbers.shape
    padded = F.pad(numbers + 1, [1, 1, 1, 1])  # 0 is outside
    taps = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    same = torch.ones_like(numbers, dtype=torch.bool)
    for tap in (*taps[:4], *taps[5:]):
        same &= tap == taps[4]
    # Inside a region the neighbourhood is known; only the others need sorting.
    present, constant = torch.unique(taps[4][same], return_inverse=True)
    columns = torch.stack([tap[~same] for tap in taps], dim=1)
    codes = columns[:, 0].long()
    base = int(padded.max()) + 1
    bound = base
    for k in range(1, 9):
        if bound > (2**63 - 1) // base:  # what no longer fits is numbered anew; a pixel has one number at most
            codes = torch.unique(codes, return_inverse=True)[1]
            bound = len(codes)
        codes = codes * base + columns[:, k]
        bound *= base
    mixed, which = torch.unique(codes, return_inverse=True)
    index = torch.empty(numbers.shape, dtype=torch.int32, device=numbers.device)
    index[same] = constant.to(torch.int32)
    index[~same] = (which + len(present)).to(torch.int32)
    first = torch.empty(len(mixed), dtype=torch.long, device=numbers.device)
    first[which] = torch.arange(len(which), device=numbers.device)  # any pixel of a pattern serves
    members = torch.cat([present[:, None].expand(-1, 9), columns[first]])
    return Patterns(index, (members - 1).to(torch.int32))


@dataclass(frozen=True)
class Neighbourhoods:
    """The distinct neighbourhoods of one map at one size: 3x3 ones of labels, and 5x5 ones as 3x3 ones of those.

    Args:
        labels: (small, 9), rows of a layer's first convolution: label, or label + num_rows where the edge is.
        parts: (large, 9), which 3x3 neighbourhood is centred at each of the nine places; ``small`` is outside.
        index: 5x5 neighbourhood of each pixel, (N, H, W) int32.
    """

    labels: Tensor
    parts: Tensor
    index: Tensor


def neighbourhoods(labels: LabelPyramid, size: Size, instance_edges: bool) -> Neighbourhoods:
    """Made once per map and size, for all layers."""

    def make() -> Neighbourhoods:
        numbers = labels.ids(size)
        if instance_edges:
            numbers = numbers + labels.num_rows * labels.edges(size, torch.int32)[:, 0]
        small = patterns(numbers)
        large = patterns(small.index)
        parts = torch.where(large.members < 0, len(small.members), large.members)
        return Neighbourhoods(small.members, parts, large.index)

    return labels.once(("neighbourhoods", size, instance_edges), make)


class SpadeTable(TableNorm):
    """A trained SPADE layer whose modulation is computed once per distinct 5x5 neighbourhood instead of per pixel.

    Its first convolution over one-hot labels is a sum of nine rows of a table,

        h(u) = relu(b + sum over t of T_t[label of u at t]),

    and the other two are sums over the nine 3x3 neighbourhoods u_t around a pixel (h is 0 outside the map),

        gamma, beta = c + sum over t of W_t h(u_t).

    Inside a region they are the constants of its class, and at its borders patterns repeat: a real map of 65,536 pixels
    has some thousand neighbourhoods. Same result as the convolutions, but for rounding.
    """

    mean: Tensor
    rstd: Tensor
    rows: Tensor
    shared_bias: Tensor
    bias: Tensor

    def __init__(self, layer: SPADE) -> None:
        super().__init__()
        self.out_channels = self.channels = layer.out_channels
        self.instance_edges = layer.instance_edges
        mean, rstd = statistics(layer.normalize)
        shared = layer.shared.weight.detach().float().permute(2, 3, 1, 0)  # (3, 3, rows, hidden)
        rows = shared.flatten(0, 1)
        if layer.instance_edges:
            rows = torch.cat([rows[:, :-1], rows[:, :-1] + rows[:, -1:]], dim=1)
        self.num_labels = rows.shape[1]
        rows = torch.cat([rows.flatten(0, 1), rows.new_zeros(1, rows.shape[2])])  # the last is outside
        both = torch.cat([layer.to_gamma.weight, layer.to_beta.weight]).detach().float()  # (2 C, hidden, 3, 3)
        # W_t h of all nine places at once, written as 1x1 convolutions, which are fast where matrix products are not.
        self.products = nn.ModuleList(_product(part) for part in both.split(_COLUMNS))
        for name, value in {
            "mean": mean,
            "rstd": rstd,
            "rows": rows,
            "shared_bias": _bias(layer.shared),
            "bias": torch.cat([_bias(layer.to_gamma), _bias(layer.to_beta)]),
        }.items():
            self.register_buffer(name, value.contiguous())

    def lookup(self, labels: LabelPyramid, size: Size) -> Lookup:
        found = neighbourhoods(labels, size, self.instance_edges)
        gamma, beta = self._modulation(found).chunk(2, dim=1)
        scale = (1 + gamma) * self.rstd
        return Lookup(found.index, scale, beta - scale * self.mean)

    def _modulation(self, found: Neighbourhoods) -> Tensor:
        """gamma and beta of every 5x5 neighbourhood, (large, 2 C)."""
        outside = found.labels < 0
        offsets = torch.arange(9, device=found.labels.device, dtype=torch.int32) * self.num_labels
        entries = torch.where(outside, len(self.rows) - 1, found.labels + offsets)
        hidden = F.relu(F.embedding_bag(entries, self.rows, mode="sum") + self.shared_bias)
        missing = -(len(hidden) + 1) % _SIDE**2 + 1  # at least one row more, of 0: outside
        hidden = F.pad(hidden, [0, 0, 0, missing])
        dtype = next(self.products.parameters()).dtype
        pictures = hidden.to(dtype).view(-1, _SIDE, _SIDE, hidden.shape[1]).permute(0, 3, 1, 2)
        parts = found.parts * 9 + torch.arange(9, device=found.parts.device, dtype=torch.int32)
        sums = []
        for product in self.products:
            if len(hidden) * 9 * _COLUMNS > _MOST:  # noise: nearly all neighbourhoods differ
                weight = _columns(product, hidden.shape[1])
                sums.append(torch.cat([hidden[rows].flatten(1) @ weight for rows in found.parts.split(_ROWS)]))
                continue
            table = product(pictures).permute(0, 2, 3, 1).reshape(9 * len(hidden), -1)
            sums.append(F.embedding_bag(parts, table.float(), mode="sum"))
        return torch.cat(sums, dim=1) + self.bias


def _columns(product: nn.Module, hidden: int) -> Tensor:
    """The weights of a product as a matrix, (9 hidden, columns)."""
    weight = next(product.parameters())
    weight = (weight.to_dense() if weight.is_mkldnn else weight).float()
    return weight.reshape(9, -1, hidden).transpose(1, 2).reshape(9 * hidden, -1)


def _product(weight: Tensor) -> nn.Conv2d:
    """Weights (columns, hidden, 3, 3) -> hidden channels to 9 columns, those of one place side by side."""
    columns, hidden = weight.shape[:2]
    product = nn.Conv2d(hidden, 9 * columns, 1, bias=False)
    vars(product)["packed_for"] = (1, _SIDE, _SIDE)
    rows = weight.permute(2, 3, 0, 1).reshape(9 * columns, hidden, 1, 1)
    product.weight = nn.Parameter(rows.contiguous(), requires_grad=False)
    return product


def _bias(conv: nn.Conv2d) -> Tensor:
    return torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().float()

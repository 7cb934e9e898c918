"""Convolutions of 3x3 and 2x2 in fewer multiplications, by the minimal filtering of Winograd."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from clade.engine.convolutions import convolve
from clade.system.processor import instruction_set

_POINTS = {3: (0.0, 1.0), 4: (0.0, 1.0, -1.0), 6: (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)}
"""Where the polynomials are evaluated, by their number and one at infinity. With those of six a 4x4 of outputs of 3x3
is off by 1.5 times the rounding of the plain sum; with the usual 0, 1, -1, 2, -2 by 3.3 times."""
_TILES = {3: (4, 2), 2: (3, 2)}
"""Sides of the outputs computed together, by the kernel's side."""
_MOST_WEIGHTS = 1 << 25  # numbers of a layer's transformed weights: 128 MiB
_MANY_WEIGHTS = 1 << 23  # more than these have to gain more
_PART = 1 << 16  # pairs of channels whose weights are transformed at a time
_STRIP = 512  # tiles transformed and multiplied at a time: enough for the products, few enough for the caches
# What memory costs, in multiply-adds of the same time: reading a weight, and a number in both transforms.
_COSTS = {"avx2": (15, 45), "avx512": (30, 90)}


@dataclass(frozen=True)
class Form:
    """F(m, r) for one dimension: m outputs of a kernel of r in n = m + r - 1 multiplications,

        y = A ((G w) * (B d)),   A (m, n), G (n, r), B (n, n),

    with d the n inputs (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016).
    """

    outputs: int
    points: int
    a: Tensor
    g: Tensor
    b: Tensor


@lru_cache
def form(outputs: int, kernel: int) -> Form:
    """F(outputs, kernel) by the points above (Toom and Cook), in float32."""
    n = outputs + kernel - 1
    points = torch.tensor(_POINTS[n], dtype=torch.float64, device="cpu")
    powers = points[:, None] ** torch.arange(n, dtype=torch.float64, device="cpu")
    differences = (points[:, None] - points).fill_diagonal_(1)
    infinity = points.new_zeros(n)
    infinity[-1] = 1
    a = torch.cat([powers[:, :outputs], infinity[None, -outputs:]]).T
    g = torch.cat([powers[:, :kernel] / differences.prod(1, keepdim=True), infinity[None, -kernel:]])
    rows = [_polynomial(torch.cat([points[:k], points[k + 1 :]]), n) for k in range(n - 1)]
    b = torch.stack([*rows, _polynomial(points, n)])
    return Form(outputs, n, *(part.float().contiguous() for part in (a, g, b)))


def _polynomial(roots: Tensor, length: int) -> Tensor:
    """Coefficients of the product of (x - root), from x^0 on."""
    coefficients = roots.new_zeros(length)
    coefficients[0] = 1
    for root in roots:
        coefficients = torch.cat([coefficients.new_zeros(1), coefficients[:-1]]) - root * coefficients
    return coefficients


class WinogradConv2d(nn.Module):
    """A convolution for inference on the CPU, of fewer multiplications where the features are large enough for it.

    For a pair of channels, a 4x4 of outputs of a 3x3 kernel takes 36 of them in place of 144, a 2x2 takes 16 of 36, and
    a 3x3 of outputs of a 2x2 kernel 16 of 36; :func:`choice` weighs them against the transforms before and after.
    Pictures are computed one by one, so that none depends on what it is batched with.

    Args:
        conv: a :func:`suitable` one.

    ``direct`` computes the other sizes; it may be replaced by something faster that is called in the same way.
    """

    adds = True

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        assert suitable(conv)
        self.direct: nn.Module = conv
        self.in_channels, self.out_channels, self.kernel = conv.in_channels, conv.out_channels, conv.weight.shape[2]
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach(), requires_grad=False)
        self._prepared: tuple[int, Tensor] | None = None

    @property
    def weight(self) -> Tensor:
        """That of the direct convolution."""
        weight = self.direct.weight
        assert isinstance(weight, Tensor)
        return weight

    @torch.no_grad()  # the memory that is kept must not become part of a graph
    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, h, w), channels last, plus ``add`` of that shape."""
        n, _, height, width = x.shape
        outputs = choice(self.in_channels, self.out_channels, self.kernel, (height, width))
        if outputs is None:
            return convolve(self.direct, x, add)
        f, weight = form(outputs, self.kernel), self._transformed_weight(outputs)
        size = height + 3 - self.kernel, width + 3 - self.kernel
        rows = f.outputs * -(-size[0] // f.outputs)
        y = x.new_empty(n, rows, size[1], self.out_channels)
        for picture, out in zip(x.permute(0, 2, 3, 1), y, strict=True):
            self._draw(f, weight, picture, out)
        y = y[:, : size[0]].permute(0, 3, 1, 2)
        if self.bias is not None:
            y += self.bias[:, None, None]
        return y if add is None else y.add_(add)

    def _draw(self, f: Form, weight: Tensor, x: Tensor, out: Tensor) -> None:
        """One picture (H, W, C_in) -> (h, w, C_out), where h is a multiple of the outputs; without bias."""
        m, n = f.outputs, f.points
        down, across = out.shape[0] // m, -(-out.shape[1] // m)
        strip = min(down, max(1, _STRIP // across))
        for begin in range(0, down, strip):
            k = min(strip, down - begin)
            v = self._transformed(f, self._lines(x, begin * m - 1, k * m + 2, across * m), k, across, x.shape[1])
            products = _memory("products", (n, n, k * across, self.out_channels))
            for part, kernel, product in zip(v, weight, products, strict=True):
                torch.bmm(part.transpose(0, 1), kernel, out=product)
            # (n, n, k, across * C): first the rows of every line of tiles, then the columns of every tile
            line = across * self.out_channels
            z = _memory("sums", (n * k, m, line))
            torch.bmm(f.a.expand(n * k, m, n), products.as_strided((n * k, n, line), (line, n * k * line, 1)), out=z)
            tiles = k * m * across
            columns = z.as_strided((tiles, n, self.out_channels), (self.out_channels, tiles * self.out_channels, 1))
            into = out[begin * m : (begin + k) * m]
            if out.shape[1] == across * m:
                torch.bmm(f.a.expand(tiles, m, n), columns, out=into.view(tiles, m, self.out_channels))
            else:
                o = torch.bmm(f.a.expand(tiles, m, n), columns)
                into.copy_(o.view(k * m, across * m, self.out_channels)[:, : out.shape[1]])

    def _lines(self, x: Tensor, top: int, rows: int, width: int) -> Tensor:
        """Rows of a picture from ``top`` on, (rows, width, C); nothing where it has none."""
        height = x.shape[0]
        lines = _memory("lines", (rows, width, x.shape[2]))
        above, below = max(0, -top), max(0, top + rows - height)
        lines[:above] = 0
        lines[rows - below :] = 0
        inside = lines[above : rows - below]
        inside[:, : x.shape[1]] = x[top + above : top + rows - below]
        inside[:, x.shape[1] :] = 0
        return lines

    def _transformed(self, f: Form, lines: Tensor, down: int, across: int, width: int) -> Tensor:
        """Lines (rows, across * m, C) -> B d B^T of every tile, (n, down * across, n, C)."""
        m, n, channels = f.outputs, f.points, self.in_channels
        row = across * m * channels
        y = _memory("rows", (n * down * row + 2 * channels,))  # with a pixel of nothing before and after
        y[:channels] = 0
        y[-channels:] = 0
        of_lines = y[channels:-channels].view(n, down, row)
        for i in range(down):
            torch.mm(f.b, lines.view(-1, row)[i * m : i * m + n], out=of_lines[:, i])
        tiles = y.as_strided((n * down * across, n, channels), (m * channels, channels, 1))
        v = _memory("tiles", (len(tiles), n, channels))
        torch.bmm(f.b.expand(len(tiles), n, n), tiles, out=v)
        if width == across * m and self.kernel == 3:  # what a row's ends see of other rows is no part of the picture
            ends = v.view(n, down, across, n, channels)
            beside = y.as_strided((2, n, down, channels), (row + channels, down * row, row, 1))
            ends[:, :, 0, 0].sub_(beside[0], alpha=float(f.b[0, 0]))
            ends[:, :, -1, -1].sub_(beside[1], alpha=float(f.b[-1, -1]))
        return v.view(n, down * across, n, channels)

    def _transformed_weight(self, outputs: int) -> Tensor:
        """G w G^T, (n, n, C_in, C_out)"""
        prepared = self._prepared  # another thread may put another one in its place
        if prepared is None or prepared[0] != outputs:
            f = form(outputs, self.kernel)
            weight = self.weight.to_dense() if self.weight.is_mkldnn else self.weight
            weight = weight.permute(2, 3, 1, 0)
            whole = weight.new_empty(f.points, f.points, self.in_channels, self.out_channels)
            step = max(1, _PART // self.out_channels)  # in parts, so that little memory is needed beside the result
            for part, out in zip(weight.split(step, 2), whole.split(step, 2), strict=True):
                half = torch.mm(f.g, part.reshape(self.kernel, -1)).view(f.points, self.kernel, -1)
                out.copy_(torch.bmm(f.g.expand(f.points, -1, -1), half).view(out.shape))
            self._prepared = prepared = outputs, whole
        return prepared[1]


_kept = threading.local()


def _memory(role: str, shape: tuple[int, ...]) -> Tensor:
    """Memory kept for the next strip and layer, which is then in the caches still; a role's last content is lost."""
    numbers = math.prod(shape)
    kept: Tensor | None = getattr(_kept, role, None)
    if kept is None or len(kept) < numbers:
        with torch.inference_mode(False):  # else nothing outside of inference mode could write to it
            kept = torch.empty(numbers, dtype=torch.float32, device="cpu")
        setattr(_kept, role, kept)
    return kept[:numbers].view(shape)


def suitable(module: nn.Module) -> bool:
    """Whether a layer is a 3x3 or 2x2 convolution in float32, of stride 1, zero-padded by 1, and worth it somewhere."""
    if type(module) is not nn.Conv2d or module.padding_mode != "zeros" or module.weight.dtype != torch.float32:
        return False
    plain = module.stride == (1, 1) and module.padding == (1, 1) and module.dilation == (1, 1) and module.groups == 1
    if not plain or module.kernel_size not in ((2, 2), (3, 3)):
        return False
    return choice(module.in_channels, module.out_channels, module.kernel_size[0], (1 << 10, 1 << 10)) is not None


def can_multiply() -> bool:
    """Whether this build of torch has the products of many small matrices that the transforms are."""
    return torch.backends.mkl.is_available() and instruction_set() != "other"


@lru_cache(maxsize=256)
def choice(in_channels: int, out_channels: int, kernel: int, size: tuple[int, int]) -> int | None:
    """The side m of outputs computed together, for features of a size; None where the plain sum is as fast."""
    read, moved = _COSTS.get(instruction_set(), _COSTS["avx512"])
    pairs, channels = in_channels * out_channels, in_channels + out_channels
    height, width = (side + 3 - kernel for side in size)
    plain = kernel**2 * pairs * (height * width + read)
    costs: dict[int | None, float] = {None: 0.8 * plain}
    for m in _TILES[kernel]:
        tiles, points = -(-height // m) * -(-width // m), (m + kernel - 1) ** 2
        cost = points * (pairs * (1.1 * tiles + read) + channels * tiles * moved)
        if points * pairs < _MOST_WEIGHTS and (points * pairs <= _MANY_WEIGHTS or cost < 0.65 * plain):
            costs[m] = cost
    return min(costs, key=costs.__getitem__)

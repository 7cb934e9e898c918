"""Variances and histograms of groups of pixels, map after map, in memory that does not grow with the maps."""

from __future__ import annotations

import torch
from torch import Tensor

VALUES_AT_A_TIME = 1 << 22
BINS = 1024
"""Of a histogram, half of them below 0."""


class Moments:
    """Count, mean and sum of squared differences from it, of every group and channel, in float64.

    Two parts are merged by Chan, Golub and LeVeque (1983):

        n = n_a + n_b,   d = mean_b - mean_a,   mean = mean_a + d n_b / n,   M = M_a + M_b + d^2 n_a n_b / n

    Equal values have M = 0 exactly: each part is summed around its group's first value.

    Args:
        groups: number of groups.
        channels: number of channels.

    ``count`` (groups,), ``mean`` and ``squares`` (groups, channels).
    """

    def __init__(self, groups: int, channels: int) -> None:
        self.count = torch.zeros(groups, dtype=torch.float64)
        self.mean = torch.zeros(groups, channels, dtype=torch.float64)
        self.squares = torch.zeros_like(self.mean)

    def add(self, values: Tensor, groups: Tensor) -> None:
        """Values (C, P) of P pixels in groups (P,)."""
        present, of = groups.unique(return_inverse=True)
        pixels = torch.arange(len(of))
        first = torch.full((len(present),), len(of)).scatter_reduce_(0, of, pixels, "amin")
        count = torch.bincount(of).double()
        means, squares = [], []
        for part in channel_parts(values):
            x = part.t().double()
            start = x[first]
            x -= start[of]
            mean = torch.zeros_like(start).index_add_(0, of, x) / count[:, None]
            x -= mean[of]
            squares.append(torch.zeros_like(start).index_add_(0, of, x.square_()))
            means.append(start + mean)
        self._merge(present, count, torch.cat(means, 1), torch.cat(squares, 1))

    def merge(self, other: Moments) -> None:
        """Take in what another one has seen of the same groups."""
        present = other.count.nonzero()[:, 0]
        self._merge(present, other.count[present], other.mean[present], other.squares[present])

    def joined(self, of: Tensor, groups: int) -> Moments:
        """Groups made of these: ``of`` (old groups,) says which new one each goes into, -1 for none."""
        joined = Moments(groups, self.mean.shape[1])
        for old in ((self.count > 0) & (of >= 0)).nonzero()[:, 0].tolist():
            row = slice(old, old + 1)
            joined._merge(of[row], self.count[row], self.mean[row], self.squares[row])
        return joined

    def _merge(self, groups: Tensor, count: Tensor, mean: Tensor, squares: Tensor) -> None:
        """Into ``groups``, no two the same, of which none is empty."""
        before = self.count[groups]
        total = before + count
        apart = mean - self.mean[groups]
        share = (count / total)[:, None]
        self.count[groups] = total
        self.mean[groups] = torch.where(before[:, None] > 0, self.mean[groups] + apart * share, mean)
        self.squares[groups] += squares + apart.square() * share * before[:, None]


class Histogram:
    """How many values of each class lie in each bin; the bins widen as values need it, and no count is ever wrong.

    Bin b holds values in ``[(b - BINS / 2) width, (b + 1 - BINS / 2) width)``. The width is a power of two, the
    smallest that holds all values so far: when it doubles, each two bins become one. So the order of the maps changes
    nothing.

    Args:
        classes: number of classes.

    ``counts`` (classes, BINS), int64; ``width`` of a bin.
    """

    def __init__(self, classes: int) -> None:
        self.counts = torch.zeros(classes, BINS, dtype=torch.int64)
        self.width = 2.0**-24

    def add(self, values: Tensor, classes: Tensor) -> None:
        """Finite values (C, P) of P pixels of classes (P,)."""
        low, high = torch.aminmax(values)
        self.widen(max(-float(low), float(high)))
        rows = classes * BINS + BINS // 2
        for part in channel_parts(values):
            bins = (part / self.width).floor_().long().add_(rows)
            self.counts += torch.bincount(bins.flatten(), minlength=self.counts.numel()).view_as(self.counts)

    def widen(self, largest: float = 0.0, width: float = 0.0) -> None:
        """Double the bins until they hold ``largest`` and are at least ``width`` wide."""
        while largest >= self.width * (BINS // 2) or self.width < width:
            pairs = self.counts.unflatten(1, (-1, 2)).sum(2)
            self.counts = torch.nn.functional.pad(pairs, (BINS // 4, BINS // 4))
            self.width *= 2

    def merge(self, other: Histogram) -> None:
        """Take in the counts of another one of the same classes, which may be widened for it."""
        self.widen(width=other.width)
        other.widen(width=self.width)
        self.counts += other.counts


def channel_parts(values: Tensor) -> tuple[Tensor, ...]:
    """(C, P) -> some channels at a time."""
    return values.split(max(1, VALUES_AT_A_TIME // values.shape[1]))

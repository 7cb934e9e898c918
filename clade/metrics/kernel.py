"""Kernel distance of two sets of pictures; with Inception features: KID."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from clade.metrics.gathered import GatheredFeatures
from clade.metrics.statistics import Statistics, require_pictures

_ROWS = 4096  # of a kernel matrix at a time


def kernel_distance(fake: Tensor, real: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy (Binkowski et al. 2018), over all pairs.

        mmd = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)
        k(x, y) = (x . y / D + 1)^3

    Args:
        fake, real: features, (N, D) and (M, D).

    Raises:
        DataError: fewer than two pictures on a side.
    """
    for side in (fake, real):
        require_pictures(len(side), 2, "the kernel distance")
    x, y = fake.double(), real.double()
    within = sum(_kernel_sum(s, s, skip_diagonal=True) / (len(s) * (len(s) - 1)) for s in (x, y))
    return float(within - 2 * _kernel_sum(x, y) / (len(x) * len(y)))


def _kernel_sum(x: Tensor, y: Tensor, skip_diagonal: bool = False) -> Tensor:
    total = x.new_zeros(())
    for rows in x.split(_ROWS):
        total += _kernel(rows @ y.T, x.shape[1]).sum()
    if skip_diagonal:
        total -= _kernel(x.square().sum(1), x.shape[1]).sum()
    return total


def _kernel(products: Tensor, dim: int) -> Tensor:
    return (products / dim + 1) ** 3


class KernelDistance(GatheredFeatures):
    """Streaming :func:`kernel_distance`, over all pairs and as mean and spread over random subsets.

    The subsets are those that torch-fidelity draws (``rng_seed``), where both sets are as large as ``subset_size``;
    smaller sets take subsets of the smaller one's size.

    Args:
        dim, real: see :class:`clade.metrics.gathered.GatheredFeatures`.
        subsets: how many; 0 for none.
        subset_size: pictures of each side in a subset.
        seed: of the subsets.
    """

    higher_is_better = False

    def __init__(
        self,
        dim: int,
        real: Statistics | None = None,
        subsets: int = 100,
        subset_size: int = 1000,
        seed: int = 2020,
        **kwargs: Any,
    ) -> None:
        super().__init__(dim, real, **kwargs)
        self.subsets, self.subset_size, self.seed = subsets, subset_size, seed

    def compute(self) -> dict[str, Tensor]:
        """``kernel`` (lower is better; near 0 it may be negative), ``kernel_mean`` and ``kernel_std`` of the subsets,
        ``subset_size`` as used, ``count`` and ``real_count``.

        Raises:
            DataError: fewer than two pictures on a side.
        """
        fake, real = self.both()
        values: dict[str, float] = {"kernel": kernel_distance(fake, real)}
        if self.subsets:
            size = min(self.subset_size, len(fake), len(real))
            require_pictures(size, 2, "a subset (subset_size)")
            rng = np.random.RandomState(self.seed)  # torch-fidelity draws from this one
            drawn = []
            for _ in range(self.subsets):
                one = torch.from_numpy(rng.choice(len(fake), size, replace=False)).to(fake.device)
                other = torch.from_numpy(rng.choice(len(real), size, replace=False)).to(real.device)
                drawn.append(kernel_distance(fake[one], real[other]))
            values |= {"kernel_mean": float(np.mean(drawn)), "kernel_std": float(np.std(drawn)), "subset_size": size}
        values |= {"count": len(fake), "real_count": len(real)}
        return {key: torch.tensor(value, dtype=torch.float64) for key, value in values.items()}

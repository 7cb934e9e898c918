"""Precision and recall, density and coverage: how real the pictures are, and how much of the real set they cover."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clade.errors import CladeError
from clade.metrics.gathered import GatheredFeatures
from clade.metrics.statistics import Statistics, require_pictures

_ROWS = 1024  # of a matrix of distances at a time
_ROUNDING = 1e-12
"""Squared distances that differ by less, relative to the squared lengths, are equal: a picture on the rim."""


def _squared(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (N, M), exact but for :data:`_ROUNDING`."""
    return x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T


def _radii(x: Tensor, neighbours: int) -> Tensor:
    """Squared distance of each picture to its k-th nearest other one in the same set, (N, D) -> (N,)."""
    # The nearest is the picture itself.
    return torch.cat([_squared(rows, x).kthvalue(neighbours + 1).values for rows in x.split(_ROWS)])


def _beyond(x: Tensor, y: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances less the squared radii around y, (N, M), and what of that may be rounding."""
    return _squared(x, y) - radius, _ROUNDING * (x.square().sum(1)[:, None] + y.square().sum(1))


def _centred(fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """float64, around the mean of the real side, so that rounding is small against distances."""
    middle = real.double().mean(0)
    return fake.double() - middle, real.double() - middle


def precision_recall(fake: Tensor, real: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Share of generated pictures inside the real set, and the other way round (Kynkäänniemi et al. 2019).

        precision = mean_i [some j: |fake_i - real_j| <= radius_k(real_j)],   recall: sides exchanged

    Args:
        fake, real: features, (N, D) and (M, D).
        neighbours: k.

    Raises:
        DataError: k pictures or fewer on a side.
    """
    _check(fake, real, neighbours)
    fake, real = _centred(fake, real)
    return _covered(fake, real, neighbours), _covered(real, fake, neighbours)


def _covered(x: Tensor, by: Tensor, neighbours: int) -> float:
    radius = _radii(by, neighbours)
    inside = []
    for rows in x.split(_ROWS):
        beyond, rounding = _beyond(rows, by, radius)
        inside.append((beyond <= rounding).any(1))
    return float(torch.cat(inside).double().mean())


def density_coverage(fake: Tensor, real: Tensor, neighbours: int = 5) -> tuple[float, float]:
    """How many real neighbourhoods a generated picture lies in, and how many of them have one (Naeem et al. 2020).

        density = 1/(k N) sum_ij [|fake_i - real_j| < radius_k(real_j)]
        coverage = mean_j [some i: |fake_i - real_j| < radius_k(real_j)]

    Args: as :func:`precision_recall`. A density may be above 1.

    Raises:
        DataError: k pictures or fewer on a side.
    """
    _check(fake, real, neighbours)
    fake, real = _centred(fake, real)
    radius = _radii(real, neighbours)
    inside, found = 0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for rows in fake.split(_ROWS):
        beyond, rounding = _beyond(rows, real, radius)
        near = beyond < -rounding
        inside += int(near.sum())
        found |= near.any(0)
    return inside / (neighbours * len(fake)), float(found.double().mean())


def _check(fake: Tensor, real: Tensor, neighbours: int) -> None:
    if neighbours < 1:
        raise CladeError(f"neighbours is {neighbours}; needed is at least 1.")
    for side in (fake, real):
        require_pictures(len(side), neighbours + 1, f"a neighbourhood of {neighbours}")


class Manifold(GatheredFeatures):
    """Streaming :func:`precision_recall` and :func:`density_coverage`.

    Args:
        dim, real: see :class:`clade.metrics.gathered.GatheredFeatures`.
        neighbours: k of precision and recall.
        density_neighbours: k of density and coverage.
    """

    higher_is_better = True

    def __init__(
        self, dim: int, real: Statistics | None = None, neighbours: int = 3, density_neighbours: int = 5, **kwargs: Any
    ) -> None:
        super().__init__(dim, real, **kwargs)
        self.neighbours, self.density_neighbours = neighbours, density_neighbours

    def compute(self) -> dict[str, Tensor]:
        """``precision``, ``recall``, ``density``, ``coverage`` (higher is better), ``count`` and ``real_count``.

        Raises:
            DataError: k pictures or fewer on a side.
        """
        fake, real = self.both()
        precision, recall = precision_recall(fake, real, self.neighbours)
        density, coverage = density_coverage(fake, real, self.density_neighbours)
        values = {"precision": precision, "recall": recall, "density": density, "coverage": coverage}
        values |= {"count": len(fake), "real_count": len(real)}
        return {key: torch.tensor(value, dtype=torch.float64) for key, value in values.items()}

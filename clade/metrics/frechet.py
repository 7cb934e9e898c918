"""Fréchet distance of two sets of pictures; with Inception features: FID."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from clade.errors import CladeError
from clade.metrics.statistics import (
    Statistics,
    add_to_moments,
    merged,
    no_moments,
    require_features,
    require_pictures,
)


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """Distance of two Gaussians (Dowson and Landau 1982; FID: Heusel et al. 2017).

        d = |mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))

    The trace of the root is the sum of the roots of the eigenvalues of R' C_a R, where C_b = R R' (Cholesky, or
    eigenvectors where C_b is singular). Of these as many count as the smaller set has ranks: the others are 0.

    Raises:
        DataError: fewer than two pictures on a side.
        CladeError: features of different lengths.
    """
    if a.dim != b.dim:
        raise CladeError(f"Features of length {a.dim} and {b.dim} cannot be compared. Take one extractor for both.")
    for side in (a, b):
        require_pictures(side.count, 2, "the Fréchet distance")
    fewer, more = sorted((a, b), key=lambda side: side.count)
    # Training may have filled the GPU, and MPS has no float64.
    mean_a, mean_b, cov_a, cov_b = (x.cpu() for x in (fewer.mean, more.mean, fewer.covariance, more.covariance))
    root, failed = torch.linalg.cholesky_ex(cov_b)
    if failed:
        values, vectors = torch.linalg.eigh(cov_b)
        root = vectors * values.clamp(min=0).sqrt()
    product = root.T @ cov_a @ root
    ranks = min(fewer.count - 1, fewer.dim)
    trace = torch.linalg.eigvalsh((product + product.T) / 2)[-ranks:].clamp(min=0).sqrt().sum()
    return float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * trace)


def small_sample_notes(a: Statistics, b: Statistics) -> tuple[str, ...]:
    """What must be said beside a Fréchet distance of few pictures."""
    return tuple(
        f"{side.count} {what} pictures for {side.dim} features: the covariance is singular and the Fréchet distance "
        f"biased upwards. Compare only scores of equally many pictures; {side.dim + 1} or more are better."
        for side, what in ((a, "generated"), (b, "real"))
        if side.count < side.dim + 1
    )


class FrechetDistance(Metric):
    """Streaming :func:`frechet_distance` of generated and real pictures' features.

    Moments are float64 and merged exactly, so batch size and number of processes change only rounding. MPS has no
    float64: leave the metric on the CPU there.

    Args:
        dim: length of a feature vector.
        real: the real side, as :func:`clade.metrics.real_statistics` gives it; None: it comes by ``update(real=True)``.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    fake_moments: Tensor
    real_moments: Tensor

    def __init__(self, dim: int, real: Statistics | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if real is not None and real.dim != dim:
            raise CladeError(f"The real features have length {real.dim}, the generated {dim}. Take one extractor.")
        self.dim = dim
        self.notes: tuple[str, ...] = ()
        self._given = real
        self.add_state("fake_moments", no_moments(dim), dist_reduce_fx=merged)
        if real is None:
            self.add_state("real_moments", no_moments(dim), dist_reduce_fx=merged)

    def update(self, features: Tensor, real: bool = False) -> None:
        """Add pictures by their features, (N, dim)."""
        require_features(features, self.dim)
        if real and self._given is not None:
            raise CladeError("The real side was given to the metric as a whole; further real pictures cannot be added.")
        name = "real_moments" if real else "fake_moments"
        moments = getattr(self, name)
        add_to_moments(moments, features.detach().to(moments.device))

    def compute(self) -> dict[str, Tensor]:
        """``frechet`` (lower is better), ``count`` and ``real_count``; ``self.notes`` says what makes it doubtful.

        Raises:
            DataError: fewer than two pictures on a side.
        """
        fake = self.statistics()
        real = self._given or self.statistics(real=True)
        distance = frechet_distance(fake, real)
        self.notes = small_sample_notes(fake, real)
        values = {"frechet": distance, "count": fake.count, "real_count": real.count}
        return {key: torch.tensor(value, dtype=torch.float64) for key, value in values.items()}

    def statistics(self, real: bool = False) -> Statistics:
        """What came so far, in this process; features are not kept."""
        return Statistics(self.real_moments if real else self.fake_moments, torch.empty(0, self.dim))

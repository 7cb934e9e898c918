"""Metrics that need every picture's features at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from clade.errors import CladeError
from clade.metrics.statistics import Statistics, require_features


class GatheredFeatures(Metric):
    """Keeps the features of generated (and real) pictures, ordered by the pictures' numbers.

    Args:
        dim: length of a feature vector.
        real: the real side, of which ``features`` are used; None: it comes by ``update(real=True)``.
    """

    is_differentiable = False
    full_state_update = False
    fake: list[Tensor]
    fake_numbers: list[Tensor]
    real: list[Tensor]
    real_numbers: list[Tensor]

    def __init__(self, dim: int, real: Statistics | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if real is not None and real.dim != dim:
            raise CladeError(f"The real features have length {real.dim}, the generated {dim}. Take one extractor.")
        self.dim = dim
        self.notes: tuple[str, ...] = ()
        self._given = real
        for name in ("fake",) if real is not None else ("fake", "real"):
            self.add_state(name, [], dist_reduce_fx="cat")
            self.add_state(f"{name}_numbers", [], dist_reduce_fx="cat")

    def update(self, features: Tensor, real: bool = False, numbers: Sequence[int] | Tensor | None = None) -> None:
        """Add pictures by their features, (N, dim).

        Args:
            numbers: each picture's place in its dataset, so that the order, which random subsets depend on, is the
                same for any number of processes. None: process r of w brings the pictures r, r + w, r + 2 w, ..., as
                ``clade.data.eval_loader`` deals them.
        """
        require_features(features, self.dim)
        if real and self._given is not None:
            raise CladeError("The real side was given to the metric as a whole; further real pictures cannot be added.")
        name = "real" if real else "fake"
        so_far = sum(len(part) for part in getattr(self, name))
        if numbers is None:
            rank, world = (distributed.get_rank(), distributed.get_world_size()) if _several() else (0, 1)
            numbers = torch.arange(so_far, so_far + len(features)) * world + rank
        numbers = torch.as_tensor(numbers, dtype=torch.int64)
        if numbers.shape != (len(features),):
            raise CladeError(f"{numbers.numel()} numbers came for {len(features)} pictures; needed is one for each.")
        getattr(self, name).append(features.detach().to(self.device).float())
        getattr(self, f"{name}_numbers").append(numbers.to(self.device))

    def both(self) -> tuple[Tensor, Tensor]:
        """Features of the generated and of the real pictures, (N, dim) and (M, dim), float64, in order."""
        return self._ordered("fake"), self._ordered("real") if self._given is None else self._real().double()

    def _real(self) -> Tensor:
        assert self._given is not None
        return self._given.features.to(self.device)

    def _ordered(self, name: str) -> Tensor:
        parts, numbers = getattr(self, name), getattr(self, f"{name}_numbers")
        if isinstance(parts, list) and not parts:
            return torch.empty(0, self.dim, dtype=torch.float64, device=self.device)
        order = dim_zero_cat(numbers).argsort(stable=True)
        return dim_zero_cat(parts)[order].double()

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        # A process without pictures takes part with none of the right shape; torchmetrics would send a flat nothing.
        for name in self._reductions:
            if not getattr(self, name):
                empty = torch.empty(0, dtype=torch.int64) if name.endswith("_numbers") else torch.empty(0, self.dim)
                setattr(self, name, [empty.to(self.device)])
        super()._sync_dist(*args, **kwargs)


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()

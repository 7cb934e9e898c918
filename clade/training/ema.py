"""The moving average of a generator's weights, which draws better pictures than the weights themselves."""

from __future__ import annotations

import copy

import torch
from torch import nn

from clade.models import Generator


class Ema:
    """w_ema <- d * w_ema + (1 - d) * w after every step, with d = min(decay, (1 + step) / (10 + step)).

    Running statistics are averaged like weights. Counters, and the vectors of spectral norm, whose length must stay 1,
    are copied.

    Args:
        generator: what to follow.
        decay: 0 makes the average the generator itself.
    """

    def __init__(self, generator: Generator, decay: float) -> None:
        self.decay = decay
        self.generator = copy.deepcopy(generator).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, generator: nn.Module, step: int) -> None:
        """Take in the generator's weights after step ``step`` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        source = generator.state_dict()
        averaged, current = [], []
        for key, value in self.generator.state_dict().items():
            if value.is_floating_point() and not key.endswith(("._u", "._v")):
                averaged.append(value)
                current.append(source[key])
            else:
                value.copy_(source[key])
        torch._foreach_lerp_(averaged, current, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

"""What a judge learns by: the network in training, the losses of a batch, the step size over the training."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.metrics.judges.trained import MEAN, STD, padded


class Learner(nn.Module):
    """Photos (N, 3, H, W) in [-1, 1] -> logits (N, K, H, W)."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        x = ((image + 1) / 2 - self.mean) / self.std
        return self.network(padded(x, self.network))[..., : x.shape[-2], : x.shape[-1]]


def freeze_unused(network: nn.Module, size: tuple[int, int]) -> None:
    """Take the weights that no output depends on out of the training, such as an encoder's stages below its depth.

    Several processes would wait for their gradients.
    """
    before = torch.get_rng_state()
    network.eval()
    x = torch.zeros(1, 3, *size, device=next(network.parameters()).device)
    network(padded(x, network)).sum().backward()
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    torch.set_rng_state(before)


def cross_entropy(logits: Tensor, truth: Tensor, ignored: int) -> Tensor:
    """Mean over the pixels that have a class; 0 where none has.

    Args:
        logits: (N, K, H, W).
        truth: class of each pixel, (N, H, W) int64, ``ignored`` where it does not count.
    """
    total = F.cross_entropy(logits.float(), truth, ignore_index=ignored, reduction="sum")
    return total / (truth != ignored).sum().clamp(min=1)


def dice(logits: Tensor, truth: Tensor, ignored: int) -> Tensor:
    """1 - 2 |P T| / (|P| + |T|), mean over the classes that occur in the batch (Milletari et al., 2016)."""
    from segmentation_models_pytorch.losses import DiceLoss

    return DiceLoss("multiclass", ignore_index=ignored)(logits, truth)


def step_size(schedule: str, step: int, steps: int) -> float:
    """Step size of step ``step`` (from 0) relative to the largest.

    "one-cycle" (Smith, 2018) rises linearly over the first tenth and then falls by half a cosine; "poly" is
    (1 - t)^0.9 (DeepLab).
    """
    if schedule == "poly":
        return (1 - step / steps) ** 0.9
    rise = max(1, round(0.1 * steps))
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))

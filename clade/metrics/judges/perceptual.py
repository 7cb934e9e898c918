"""A distance of images in the features of a segmenter that was trained here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clade.errors import CladeError
from clade.metrics.judges.trained import MEAN, STD, padded, read_judge


class EncoderPerceptual(nn.Module):
    """Distance of the features of a judge's encoder: a perceptual loss where no VGG weights are at hand.

        L = 1/K sum_k mean |phi_k(fake) - phi_k(real)| / mean |phi_k(real)|

    phi_k are the K stages of the encoder of a network that ``clade judge train`` made (resnet18: 1/2 to 1/32 of the
    size); each stage counts alike, whatever the size of its values. A judge that also scores the pictures would be
    gamed: score with another one.

    Args:
        path: the judge's file.

    Raises:
        CheckpointError: missing, damaged, or no judge's file.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.network = read_judge(path).network.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> EncoderPerceptual:
        """Stays in eval mode: its BatchNorm uses what it learned."""
        return super().train(False)

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """The loss, a float32 scalar. No gradient reaches ``real``.

        Args:
            fake, real: images (N, 3, H, W) in [-1, 1] of the same shape.

        Raises:
            CladeError: their shapes differ.
        """
        if fake.shape != real.shape:
            raise CladeError(f"The generated images are {tuple(fake.shape)} and the real ones {tuple(real.shape)}.")
        with torch.no_grad():
            wanted = self.features(real)
        terms = [
            (ours.float() - theirs.float()).abs().mean() / theirs.float().abs().mean().clamp_min(1e-6)
            for ours, theirs in zip(self.features(fake), wanted, strict=True)
        ]
        return torch.stack(terms).mean()

    def features(self, images: Tensor) -> list[Tensor]:
        """The encoder's stages, without the images themselves; of images in [-1, 1]."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        x = ((images.float() + 1) / 2 - mean) / std
        encoder: Any = self.network.encoder
        return list(encoder(padded(x, self.network))[1:])

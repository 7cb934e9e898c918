"""Pictures as they are scored: each fixed by a seed and its own name, whatever else is drawn with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from clade.data import Batch
from clade.labels import LabelMap
from clade.models import Generator

Network = Callable[[LabelMap, Tensor | None], Tensor]
"""Label maps and latents -> images."""


def picture_seed(seed: int, name: str, sample: int = 0) -> int:
    """A seed in [0, 2^63) for a sample of a picture, independent of its batch, its process and its neighbours."""
    return int.from_bytes(hashlib.sha256(f"{seed} {sample} {name}".encode()).digest()[:8], "big") >> 1


def draws_samples(generator: Generator) -> bool:
    """Whether one label map has many pictures: there is a prior to draw from (SEAN takes the photo's style)."""
    return generator.latent_shape((256, 256)) is not None and not generator.encoder_is_part


def latents(generator: Generator, batch: Batch, seed: int, sample: int = 0) -> Tensor | None:
    """What a batch is drawn with: a draw of the prior per picture; for SEAN, as published, the style of its photo."""
    shape = generator.latent_shape(batch.label_map.size)
    if shape is None:
        return None
    if generator.encoder_is_part:
        assert batch.image is not None
        return generator.validation_latent(batch.label_map, batch.image)
    noise = [
        torch.randn(shape, generator=torch.Generator().manual_seed(picture_seed(seed, name, sample)))
        for name in batch.names
    ]
    return generator.prior(torch.stack(noise).to(batch.label_map.device))


@torch.no_grad()
def draw(network: Network, generator: Generator, batch: Batch, seed: int, sample: int = 0) -> Tensor:
    """Images (N, 3, H, W) float32 in [-1, 1] of a batch, which lies on the generator's device.

    Args:
        network: draws; ``generator`` itself or what was made of it.
        seed, sample: see :func:`picture_seed`.
    """
    z = latents(generator, batch, seed, sample)
    if not generator.stochastic:
        return network(batch.label_map, z).float()
    device = batch.label_map.device
    images = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for k, name in enumerate(batch.names):
            torch.manual_seed(picture_seed(seed, name, sample))
            images.append(network(batch.label_map[k : k + 1], None if z is None else z[k : k + 1]))
    return torch.cat(images).float()

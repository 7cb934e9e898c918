"""What a training draws by chance: from its seed and the number of the micro-batch, so that it can go on exactly."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor

from clade.data import Batch
from clade.models import Generator
from clade.models.discriminators.diff_augment import DiffAugment, augmentation_numbers, parse_policy
from clade.training.step import latent_noise, look_numbers, noise_seed


class Chance:
    """What this process draws for a micro-batch.

    Args:
        seed: ``training.seed``.
        policy: ``discriminator.diff_augment``.
    """

    def __init__(self, seed: int, policy: str, fabric: Fabric) -> None:
        self.seed, self.policy, self.fabric = seed, parse_policy(policy), fabric

    def noise(self, generator: Generator, number: int, batch: Batch) -> Tensor | None:
        """Latent noise; also seeds what the generator draws by itself."""
        seed = noise_seed(self.seed, number)
        rank, world = self.fabric.global_rank, self.fabric.world_size
        if generator.stochastic:
            torch.manual_seed((seed * world + rank) % 2**63)
        shape = generator.latent_shape(batch.label_map.size)
        return None if shape is None else latent_noise(seed, len(batch), shape, rank, world).to(self.fabric.device)

    def augmentation(self, number: int, count: int) -> DiffAugment | None:
        """What a micro-batch's images go through before the discriminator sees them."""
        if not self.policy:
            return None
        rank, world = self.fabric.global_rank, self.fabric.world_size
        return DiffAugment(self.policy, augmentation_numbers(self.seed, number, count, rank, world))

    def looks(self, draws: int, number: int, count: int) -> Tensor | None:
        """What the discriminator draws, ``draws`` numbers for each picture."""
        if not draws:
            return None
        rank, world = self.fabric.global_rank, self.fabric.world_size
        return look_numbers(self.seed, number, count, draws, rank, world).to(self.fabric.device)

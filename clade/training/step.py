"""One generator step and one discriminator step: losses from a batch, no optimizer, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.data import Batch
from clade.labels import LabelMap, LabelPyramid
from clade.losses import AdversarialLoss, VGGPerceptual, feature_matching, kl_divergence
from clade.models import Generator, discriminate


@dataclass(frozen=True)
class Objective:
    """L = GAN + feature_matching * L_FM + perceptual * L_P + l1 * L_1 + kl * L_KL (equation 18).

    A term of weight 0 is not computed. ``vgg`` is needed where ``perceptual`` is not 0.
    """

    adversarial: AdversarialLoss
    feature_matching: float
    perceptual: float
    l1: float
    kl: float
    vgg: VGGPerceptual | None


class TrainableGenerator(nn.Module):
    """The generator as training calls it: with an encoder, z comes from the style of the real photo.

    Args:
        label_map: N maps.
        real: their photos (N, 3, H, W) in [-1, 1].
        noise: standard normal (N, *latent_shape), None for a generator without latent input.

    Returns:
        (fake, mu, logvar); the last two are None without an encoder.
    """

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self, label_map: LabelMap, real: Tensor, noise: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        z, mu, logvar = self.generator.training_latent(label_map, real, noise)
        return self.generator(label_map, z=z), mu, logvar


def generator_step(
    generator: nn.Module,
    discriminator: nn.Module,
    batch: Batch,
    labels: LabelPyramid,
    objective: Objective,
    *,
    instance_edges: bool,
    noise: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses of the generator.

    Args:
        generator: a TrainableGenerator, possibly wrapped for several devices.
        discriminator: not wrapped; it only passes gradients on.
        batch: photos and label maps.
        labels: the pyramid of the batch's label maps, for the discriminator.
        instance_edges: whether the discriminator sees the edge channel.
        noise: standard normal (N, *latent_shape) for a latent generator.

    Returns:
        (fake images (N, 3, H, W), weighted losses by name; their sum is what is minimised)
    """
    assert batch.image is not None
    fake, mu, logvar = generator(batch.label_map, batch.image, noise)
    fake_features, real_features = discriminate(discriminator, labels, fake, batch.image, instance_edges)
    losses = {"gan": objective.adversarial.generator([scale[-1] for scale in fake_features])}
    if objective.feature_matching:
        losses["feature_matching"] = objective.feature_matching * feature_matching(fake_features, real_features)
    if objective.perceptual:
        assert objective.vgg is not None
        losses["perceptual"] = objective.perceptual * objective.vgg(fake, batch.image)
    if objective.l1:
        losses["l1"] = objective.l1 * F.l1_loss(fake, batch.image)
    if mu is not None and logvar is not None and objective.kl:
        losses["kl"] = objective.kl * kl_divergence(mu, logvar)
    return fake, losses


def discriminator_step(
    discriminator: nn.Module,
    batch: Batch,
    labels: LabelPyramid,
    fake: Tensor,
    objective: Objective,
    *,
    instance_edges: bool,
) -> dict[str, Tensor]:
    """Losses of the discriminator on the fake images that the generator's own step made.

    Those images are reused, so that the generator's BatchNorm statistics move once per iteration.
    """
    assert batch.image is not None
    fake_features, real_features = discriminate(discriminator, labels, fake.detach(), batch.image, instance_edges)
    real, fake_loss = objective.adversarial.discriminator(
        [scale[-1] for scale in real_features], [scale[-1] for scale in fake_features]
    )
    return {"d_real": real, "d_fake": fake_loss}


def noise_seed(seed: int, batch_number: int) -> int:
    """Seed of everything that is random in one micro-batch, from the training's seed and the batch's number alone."""
    return (seed * 1_000_003 + batch_number) % 2**63


def latent_noise(seed: int, count: int, shape: tuple[int, ...], rank: int, world_size: int) -> Tensor:
    """Standard normal noise (count, *shape) of one micro-batch and rank.

    Drawn for all ranks together and cut, so that several processes draw what one would.
    """
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(count * world_size, *shape, generator=random)
    return noise[rank * count : (rank + 1) * count]

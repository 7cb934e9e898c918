"""Gradients of both networks and their losses from one batch: no optimizer, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.data import Batch
from clade.labels import LabelMap, LabelPyramid
from clade.losses import AdversarialLoss, feature_matching, kl_divergence
from clade.models import Generator
from clade.models.discriminators.diff_augment import DiffAugment
from clade.models.discriminators.multiscale import Discriminator, Features, Look, Losses


@dataclass(frozen=True)
class Objective:
    """L = GAN + feature_matching * L_FM + perceptual * L_P + l1 * L_1 + kl * L_KL (equation 18).

    A term of weight 0 is not computed. ``vgg`` is the network of the perceptual loss (VGGPerceptual or
    EncoderPerceptual), needed where ``perceptual`` is not 0.
    """

    adversarial: AdversarialLoss
    feature_matching: float
    perceptual: float
    l1: float
    kl: float
    vgg: nn.Module | None

    def of_features(self, of_fake: Features, of_real: Features) -> Losses:
        """GAN and L_FM, for a discriminator that scores: the last features of every scale are its scores."""
        on_fake, on_real = [scale[-1] for scale in of_fake], [scale[-1] for scale in of_real]
        generators = {"gan": self.adversarial.generator(on_fake)}
        if self.feature_matching:
            generators["feature_matching"] = self.feature_matching * feature_matching(of_fake, of_real)
        d_real, d_fake = self.adversarial.discriminator(on_real, on_fake)
        return generators, {"d_real": d_real, "d_fake": d_fake}


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


class TrainableDiscriminator(nn.Module):
    """The discriminator as training calls it: one look at fake and real images gives the losses of both sides.

    Args:
        labels: the pyramid of N label maps.
        fake: generated images (N, 3, H, W) in [-1, 1]; gradients reach them through the generator's losses.
        real: the maps' photos, of the same shape.
        augment: changes both alike before they are seen, as feature matching needs, and the labels with them.
        numbers: uniform random numbers (N, discriminator.draws), for a discriminator that draws any.

    Returns:
        (the generator's weighted losses by name, the discriminator's)
    """

    def __init__(self, discriminator: Discriminator, objective: Objective, instance_edges: bool) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.objective = objective
        self.instance_edges = instance_edges

    def forward(
        self,
        labels: LabelPyramid,
        fake: Tensor,
        real: Tensor,
        augment: DiffAugment | None = None,
        numbers: Tensor | None = None,
    ) -> Losses:
        visible = None
        if augment is not None:
            labels, fake, real = augment.labels(labels), augment.images(fake), augment.images(real)
            visible = augment.visible(labels) if self.discriminator.wants_visible else None
        look = Look(labels, fake, real, self.instance_edges, visible, numbers)
        return self.discriminator.losses(look, self.objective.of_features)


def training_step(
    generator: nn.Module,
    discriminator: nn.Module,
    batch: Batch,
    labels: LabelPyramid,
    objective: Objective,
    *,
    noise: Tensor | None = None,
    augment: DiffAugment | None = None,
    numbers: Tensor | None = None,
    parts: int = 1,
    backward: Callable[..., None] = Tensor.backward,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> dict[str, Tensor]:
    """Add the gradients of one batch to both networks' weights.

    The images x are made once and judged once. The generator's losses give dL/dx, the discriminator's losses give its
    own gradients from the same features, whose graph is then free, and dL/dx goes back through the generator: its graph
    and the discriminator's are never walked with each other in memory longer than needed.

    Args:
        generator, discriminator: a TrainableGenerator and a TrainableDiscriminator, possibly wrapped for several
            devices.
        batch: photos and label maps.
        labels: the pyramid of the batch's label maps, for the discriminator.
        objective: what the generator is trained on besides the discriminator's judgement.
        noise: standard normal (N, *latent_shape) for a latent generator.
        augment: changes what the discriminator sees; distances of the images themselves (L1, perceptual) are without.
        numbers: uniform random numbers (N, draws) for a discriminator that draws any.
        parts: gradients are divided by this, the number of batches whose gradients are added.
        backward: called like ``Tensor.backward``.
        autocast: context of everything but the backward passes.

    Returns:
        weighted losses by name
    """
    assert batch.image is not None
    with autocast():
        fake, mu, logvar = generator(batch.label_map, batch.image, noise)
        image = fake.detach().requires_grad_()
        generators, discriminators = discriminator(labels, image, batch.image, augment=augment, numbers=numbers)
    backward(_sum(generators) / parts, inputs=[image], retain_graph=True)
    backward(_sum(discriminators) / parts, inputs=[p for p in discriminator.parameters() if p.requires_grad])
    # What is left of the discriminator's graph goes, too.
    generators, discriminators = _detached(generators), _detached(discriminators)
    with autocast():
        direct = _direct_losses(image, batch.image, objective)
    if direct:
        backward(_sum(direct) / parts)
        direct = _detached(direct)
    assert image.grad is not None
    # A scalar with the gradient dL/dx, so that one backward pass serves all losses, as DDP needs.
    total = (fake * image.grad).sum()
    if mu is not None and logvar is not None and objective.kl:
        direct["kl"] = objective.kl * kl_divergence(mu, logvar)
        total = total + direct["kl"] / parts
    backward(total)
    return _detached({**generators, **direct, **discriminators})


def _direct_losses(fake: Tensor, real: Tensor, objective: Objective) -> dict[str, Tensor]:
    """Distances of images that no discriminator is needed for."""
    losses = {}
    if objective.perceptual:
        assert objective.vgg is not None
        losses["perceptual"] = objective.perceptual * objective.vgg(fake, real)
    if objective.l1:
        losses["l1"] = objective.l1 * F.l1_loss(fake, real)
    return losses


def _detached(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: loss.detach().float() for name, loss in losses.items()}


def _sum(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([loss.float() for loss in losses.values()]).sum()


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


def look_numbers(seed: int, batch_number: int, count: int, draws: int, rank: int, world_size: int) -> Tensor:
    """Uniform random numbers in [0, 1), (count, draws), that a discriminator draws for one micro-batch and rank.

    They follow from the training's seed and the batch's number alone, for all ranks together, as the noise does.
    """
    # The spawn key keeps this apart from the order of the pictures, (0,), and from DiffAugment, (1,).
    source = np.random.SeedSequence((seed, batch_number), spawn_key=(2,))
    numbers = np.random.default_rng(source).random((count * world_size, draws), dtype=np.float32)
    return torch.from_numpy(numbers[rank * count : (rank + 1) * count])

"""The published training step, without the perceptual loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.reference.discriminator import ReferenceDiscriminator
from benchmarks.reference.generator import ReferenceGenerator, one_hot


class ReferenceTraining:
    """A generator, its discriminator and their optimizers: hinge loss, 10 x feature matching, Adam with TTUR.

    As published: labels become one-hot in either half of the step; the discriminator computes gradients for itself in
    the generator's half, which nothing uses; the generator draws again for the discriminator's half, in training mode,
    so its BatchNorm statistics move twice; and a gradient flows back to those images, which nothing uses either.

    Args:
        kind, rows, width: see :class:`ReferenceGenerator`.
        discriminator_width: channels of the discriminator's first layer.
    """

    def __init__(self, kind: str, rows: int, width: int = 64, discriminator_width: int = 64) -> None:
        self.rows = rows
        self.generator = ReferenceGenerator(kind, rows, width).train()
        self.discriminator = ReferenceDiscriminator(rows + 3, discriminator_width).train()
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), lr=1e-4, betas=(0.0, 0.9))
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), lr=4e-4, betas=(0.0, 0.9))

    def step(self, ids: Tensor, real: Tensor, positions: Tensor | None = None) -> dict[str, Tensor]:
        """One update of either network.

        Args:
            ids: (N, H, W) integers.
            real: (N, 3, H, W) in [-1, 1].
            positions: (N, 2, H, W), for ``clade-icpe``.

        Returns:
            the losses by name, without their graphs
        """
        losses = {**self.generator_step(ids, real, positions), **self.discriminator_step(ids, real, positions)}
        return {name: loss.detach() for name, loss in losses.items()}

    def generator_step(self, ids: Tensor, real: Tensor, positions: Tensor | None = None) -> dict[str, Tensor]:
        self.optimizer_g.zero_grad()
        labels = one_hot(ids, self.rows)
        of_fake, of_real = self._discriminate(labels, self.generator(labels, positions), real)
        gan = sum(-scale[-1].mean() for scale in of_fake) / len(of_fake)
        matching = torch.zeros(1, device=real.device)
        for fakes, reals in zip(of_fake, of_real, strict=True):
            for fake_layer, real_layer in zip(fakes[:-1], reals[:-1], strict=True):
                matching = matching + 10 * F.l1_loss(fake_layer, real_layer.detach()) / len(of_fake)
        assert isinstance(gan, Tensor)
        (gan + matching).mean().backward()
        self.optimizer_g.step()
        return {"gan": gan, "feature_matching": matching.squeeze()}

    def discriminator_step(self, ids: Tensor, real: Tensor, positions: Tensor | None = None) -> dict[str, Tensor]:
        self.optimizer_d.zero_grad()
        labels = one_hot(ids, self.rows)
        with torch.no_grad():
            fake = self.generator(labels, positions)
        fake.requires_grad_()
        of_fake, of_real = self._discriminate(labels, fake, real)
        on_fake = sum(-torch.clamp(-scale[-1] - 1, max=0).mean() for scale in of_fake) / len(of_fake)
        on_real = sum(-torch.clamp(scale[-1] - 1, max=0).mean() for scale in of_real) / len(of_real)
        assert isinstance(on_fake, Tensor)
        assert isinstance(on_real, Tensor)
        (on_fake + on_real).backward()
        self.optimizer_d.step()
        return {"d_fake": on_fake, "d_real": on_real}

    def _discriminate(
        self, labels: Tensor, fake: Tensor, real: Tensor
    ) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """Features of fake and real images, which the discriminator sees in one batch."""
        both = torch.cat([torch.cat([labels, fake], dim=1), torch.cat([labels, real], dim=1)])
        features = self.discriminator(both)
        half = len(fake)
        return [[f[:half] for f in scale] for scale in features], [[f[half:] for f in scale] for scale in features]

"""Adversarial losses over the score maps of a multi-scale discriminator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clade.registry import Registry


@dataclass(frozen=True)
class AdversarialLoss:
    """Three functions of a score map, applied element by element and averaged.

        L(s_1 .. s_S) = 1/S sum_i mean(term(s_i))

    S is the number of discriminator scales. Each scale counts alike, whatever the size of its map. Computed in float32,
    whatever the type of the scores.
    """

    real: Callable[[Tensor], Tensor]
    """What the discriminator pays for its scores of real images."""
    fake: Callable[[Tensor], Tensor]
    """What the discriminator pays for its scores of generated images."""
    fool: Callable[[Tensor], Tensor]
    """What the generator pays for the scores of its images."""

    def generator(self, scores: Sequence[Tensor]) -> Tensor:
        """The generator's loss, a scalar.

        Args:
            scores: scores of generated images, one map per scale, any shape.
        """
        return _mean_over_scales(self.fool, scores)

    def discriminator(self, real_scores: Sequence[Tensor], fake_scores: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The discriminator's two terms, (real, fake), two scalars; its loss is their sum.

        Args:
            real_scores: scores of real images, one map per scale, any shape.
            fake_scores: scores of generated images, as above; detach the images before scoring them.
        """
        return _mean_over_scales(self.real, real_scores), _mean_over_scales(self.fake, fake_scores)


def _mean_over_scales(term: Callable[[Tensor], Tensor], scores: Sequence[Tensor]) -> Tensor:
    return torch.stack([term(score.float()).mean() for score in scores]).mean()


ADVERSARIAL: Registry[AdversarialLoss] = Registry("adversarial loss")

# Lim and Ye 2017; the loss of SPADE and CLADE. The generator's side has no margin.
ADVERSARIAL.register("hinge")(
    AdversarialLoss(
        real=lambda score: F.relu(1 - score),
        fake=lambda score: F.relu(1 + score),
        fool=lambda score: -score,
    )
)

# Mao et al. 2017, without the factor 1/2.
ADVERSARIAL.register("least-squares")(
    AdversarialLoss(
        real=lambda score: (score - 1).square(),
        fake=lambda score: score.square(),
        fool=lambda score: (score - 1).square(),
    )
)

# Goodfellow et al. 2014, section 3: cross-entropy, where softplus(-s) = -log sigmoid(s).
ADVERSARIAL.register("non-saturating")(
    AdversarialLoss(
        real=lambda score: F.softplus(-score),
        fake=F.softplus,
        fool=lambda score: F.softplus(-score),
    )
)

# Arjovsky et al. 2017. The discriminator's spectral norm bounds its slope: there is no clipping and no penalty here.
ADVERSARIAL.register("wasserstein")(
    AdversarialLoss(
        real=lambda score: -score,
        fake=lambda score: score,
        fool=lambda score: -score,
    )
)

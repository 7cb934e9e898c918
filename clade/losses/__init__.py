"""What the networks are trained on: adversarial losses and reconstruction losses."""

from clade.losses.adversarial import ADVERSARIAL, AdversarialLoss
from clade.losses.reconstruction import VGGPerceptual, feature_matching, kl_divergence

__all__ = ["ADVERSARIAL", "AdversarialLoss", "VGGPerceptual", "feature_matching", "kl_divergence"]

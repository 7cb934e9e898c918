"""Normalization layers that read the label map, and the blocks around them."""

from clade.nn.blocks import ResidualBlock, conv2d, linear, reparameterize, upsample2
from clade.nn.clade import CLADE
from clade.nn.norm import NORMS, BatchNorm, NormLayer, parameter_free
from clade.nn.spade import SPADE
from clade.nn.spectral import SpectralNorm, fold_spectral_norm, spectral_norm

__all__ = [
    "CLADE",
    "NORMS",
    "SPADE",
    "BatchNorm",
    "NormLayer",
    "ResidualBlock",
    "SpectralNorm",
    "conv2d",
    "fold_spectral_norm",
    "linear",
    "parameter_free",
    "reparameterize",
    "spectral_norm",
    "upsample2",
]

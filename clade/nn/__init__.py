"""Normalization layers that read the label map, and the blocks around them."""

from clade.nn.ace import ACE, ClassLinear
from clade.nn.blocks import ResidualBlock, conv2d, conv_transpose2d, linear, reparameterize, upsample2
from clade.nn.clade import CLADE, OneChannel, look_up
from clade.nn.conditional import ConditionalBlock, conditional_conv
from clade.nn.group_spade import GroupCLADE, GroupSPADE
from clade.nn.norm import NORMS, BatchNorm, InstanceNorm, NormLayer, Unnormalized, parameter_free
from clade.nn.replace import ReplacedLayer, Replacement, replace_spade
from clade.nn.segmap import SegmapCLADE
from clade.nn.spade import SPADE
from clade.nn.spectral import SpectralNorm, fold_spectral_norm, spectral_norm

__all__ = [
    "ACE",
    "CLADE",
    "NORMS",
    "SPADE",
    "BatchNorm",
    "ClassLinear",
    "ConditionalBlock",
    "GroupCLADE",
    "GroupSPADE",
    "InstanceNorm",
    "NormLayer",
    "OneChannel",
    "ReplacedLayer",
    "Replacement",
    "ResidualBlock",
    "SegmapCLADE",
    "SpectralNorm",
    "Unnormalized",
    "conditional_conv",
    "conv2d",
    "conv_transpose2d",
    "fold_spectral_norm",
    "linear",
    "look_up",
    "parameter_free",
    "reparameterize",
    "replace_spade",
    "spectral_norm",
    "upsample2",
]

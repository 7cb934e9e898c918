"""Section 3.3: what SPADE and CLADE layers cost in proportion to the convolutions after them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from clade.complexity.counting import count
from clade.complexity.settings import SETTINGS, build
from clade.errors import CladeError
from clade.models import Generator
from clade.nn import CLADE, SPADE, ResidualBlock


@dataclass(frozen=True)
class LayerPair:
    """A normalization layer of a residual block and the convolution after it, by the equations of section 3.3.

    Attributes:
        name: of the normalization layer in the generator.
        conv_params, conv_macs: P_conv and F_conv (equations 3 and 6), without bias.
        norm_params, norm_ops: of the layer: equations 4 and 7 (SPADE, multiply-adds), 8 and 9 (CLADE, operations), or
            those behind 16 and 17 (CLADE-ICPE).
    """

    name: str
    conv_params: int
    conv_macs: int
    norm_params: int
    norm_ops: int
    spade: bool

    @property
    def params_ratio(self) -> float:
        """P_norm / P_conv (equations 5, 10 and 16)."""
        return self.norm_params / self.conv_params

    @property
    def flops_ratio(self) -> float:
        """F_norm / F_conv, where a multiply-add is one of SPADE's and two of the others' operations."""
        return self.norm_ops / (self.conv_macs if self.spade else 2 * self.conv_macs)


def layer_pairs(generator: Generator, size: tuple[int, int], *, shortcut_kernel: int | None = None) -> list[LayerPair]:
    """Every normalization layer of the residual blocks with the convolution after it, from coarse to fine.

    Args:
        size: (height, width) of the picture.
        shortcut_kernel: take the shortcuts' 1x1 convolutions for ones of this size; the paper's averages take 3.
    """
    shapes = {layer.name: layer.shape for layer in count(generator, size).by_layer}
    pairs = []
    for name, block in generator.named_modules():
        if not isinstance(block, ResidualBlock):
            continue
        for norm, conv in (("norm1", "conv1"), ("norm2", "conv2"), ("norm_shortcut", "conv_shortcut")):
            layer, convolution = getattr(block, norm), getattr(block, conv, None)
            shape = shapes.get(f"{name}.{conv}")
            if layer is None or convolution is None or shape is None:
                continue
            kernel = shortcut_kernel if norm == "norm_shortcut" and shortcut_kernel else convolution.kernel_size[0]
            channels = layer.normalize.num_features
            pixels = shape[-2] * shape[-1]
            params, per_pixel = _norm_cost(layer, channels)
            conv_params = kernel**2 * (channels // convolution.groups) * convolution.out_channels
            pairs.append(
                LayerPair(
                    f"{name}.{norm}",
                    conv_params,
                    conv_params * pixels,
                    params,
                    per_pixel * pixels,
                    isinstance(layer, SPADE),
                )
            )
    return pairs


def _norm_cost(layer: nn.Module, channels: int) -> tuple[int, int]:
    """(parameters, operations per pixel) of a layer by section 3.3, without biases."""
    if isinstance(layer, SPADE):
        params = sum(conv.weight.numel() for conv in (layer.shared, layer.to_gamma, layer.to_beta))
        return params, params
    if isinstance(layer, CLADE):
        extra = 4 if layer.modulates_by_position else 0
        return layer.gamma.numel() + layer.beta.numel() + extra, (4 if extra else 2) * channels + extra
    raise CladeError(f"Section 3.3 speaks of SPADE and CLADE layers, not of {type(layer).__name__}.")


@dataclass(frozen=True)
class Overhead:
    """What the normalization layers of a generator cost in proportion to the convolutions after them; 1 is 100 %."""

    params: float
    flops: float


def section_3_3(*, shortcuts_as_3x3: bool = True) -> Mapping[str, Overhead]:
    """The averages of section 3.3, for the ADE20K setting: generator -> overhead of its normalization layers.

    Ratios of sums over the 18 convolutions of the residual blocks, without biases. The paper's 39.21 % and 234.73 %
    (SPADE), 4.57 % and 0.07 % (CLADE), 0.14 % (CLADE-ICPE's FLOPs) come out where

    - the 1x1 shortcuts are taken for 3x3 ones, and
    - a multiply-add of a convolution is two operations beside CLADE's (equation 9 counts value assignments; equation 11
      taken literally gives twice as much), but one beside SPADE's.

    Args:
        shortcuts_as_3x3: False takes the shortcuts as they are.
    """
    setting = SETTINGS["ade20k"]
    overheads = {}
    for name in ("spade", "clade", "clade-icpe"):
        generator = build(name, setting.options(name), values=False)
        pairs = layer_pairs(generator, setting.size, shortcut_kernel=3 if shortcuts_as_3x3 else None)
        macs = sum(pair.conv_macs for pair in pairs) * (1 if name == "spade" else 2)
        overheads[name] = Overhead(
            params=sum(pair.norm_params for pair in pairs) / sum(pair.conv_params for pair in pairs),
            flops=sum(pair.norm_ops for pair in pairs) / macs,
        )
    return overheads

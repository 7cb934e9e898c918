"""What one module, or one executed operation, counts as multiply-adds: the two conventions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from clade.nn.ace import ClassLinear
from clade.nn.clade import OneChannel

# Operation -> place of the left factor among its arguments; what comes before is added to the product.
_PRODUCTS = {"mm": 0, "bmm": 0, "mv": 0, "dot": 0, "addmm": 1, "baddbmm": 1, "addmv": 1}

_NORMALIZATIONS = {
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
    "native_group_norm",
    "native_layer_norm",
}

# Arithmetic that torch does not tag as pointwise. Each reads or writes every element of its larger side once.
_ARITHMETIC = {
    "leaky_relu",  # tagged by newer torch only
    "_adaptive_avg_pool2d",
    "_log_softmax",
    "_prelu_kernel",
    "_safe_softmax",
    "_softmax",
    "amax",
    "amin",
    "avg_pool2d",
    "cumsum",
    "grid_sampler_2d",
    "linalg_vector_norm",
    "max_pool2d_with_indices",
    "mean",
    "std",
    "sum",
    "upsample_bicubic2d",
    "upsample_bilinear2d",
    "var",
    "var_mean",
}

# Tagged as pointwise by torch, but they copy or choose values.
_CHOICES = {"clone", "copy", "fill", "masked_fill", "where"}


def paper_macs(module: nn.Module, inputs: tuple[Any, ...], output: Any, *, plain_batch_norm: bool) -> int:
    """Multiply-adds of one module by the rules that the paper's FLOPs were counted with (those of thop 0.0.31).

    Convolutions and linear layers: their multiply-adds, and one per output element of a convolution with bias, none for
    a linear layer's. A transposed convolution is counted on its output elements, which is four times the truth for a
    stride of 2. LeakyReLU modules: one per element, functional ones none. Adaptive average pooling: one per element of
    input and output. BatchNorm: two per element, but only where the published network has plain ``nn.BatchNorm2d``,
    since other classes of it (synchronised) were unknown to the counter. All else: none.
    """
    if isinstance(module, OneChannel):  # the 1x1 convolution with bias that it stands for
        return output.numel() * (module.weight[0].numel() + 1)
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        k = module.kernel_size
        return output.numel() * (module.in_channels // module.groups * k[0] * k[1] + (module.bias is not None))
    if isinstance(module, (nn.Linear, ClassLinear)):  # SEAN's linear layers, one per class, are such a stack
        return output.numel() * module.in_features
    if isinstance(module, nn.LeakyReLU):
        return output.numel()
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return inputs[0].numel() + output.numel()
    if isinstance(module, nn.BatchNorm2d) and plain_batch_norm:
        return 2 * output.numel()
    return 0


def executed_macs(func: Any, args: tuple[Any, ...], output: Any) -> tuple[int, bool]:
    """Multiply-adds of one executed operation, and whether it normalizes.

    Convolutions and matrix products: their multiply-adds, a transposed convolution's on its input elements, and one per
    output element for an added bias. Batch, instance, group and layer norm: two per element. Every other arithmetic
    operation on floating-point numbers counts one per element of its larger side: elementwise ones (sum, product,
    multiply-add, activation, power) per output element, reductions, softmax, pooling and smooth resizing per element
    that they read or write. Moving and choosing data counts nothing: gathering by class, one-hot, concatenation,
    slices, nearest resizing, padding, casts, copies, comparisons, integers.
    """
    name = func.overloadpacket.__name__.rstrip("_")
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(first, Tensor) or not first.is_floating_point():
        return 0, False
    if name == "convolution":
        x, weight, bias, transposed = *args[:3], args[6]
        return (x if transposed else first).numel() * weight[0].numel() + (bias is not None) * first.numel(), False
    if name in _PRODUCTS:
        left = args[_PRODUCTS[name]]
        return first.numel() * (left.shape[-1] + _PRODUCTS[name]), False
    if name in _NORMALIZATIONS:
        return 2 * first.numel(), True
    if name in _ARITHMETIC:
        return max(first.numel(), args[0].numel()), False
    if torch.Tag.pointwise in func.tags and name not in _CHOICES:
        return first.numel(), False
    return 0, False


def is_normalization(module: nn.Module) -> bool:
    """Whether a module is BatchNorm, InstanceNorm or one of their kin, with or without scale and shift."""
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    return isinstance(module, kinds)

"""Convolutions whose weights lie ready in the order that the processor's library computes with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from clade.system.processor import convolves_in_bf16

_OPERATORS = getattr(torch._C, "_nn", None)  # where torch.compile finds them, too


class PackedConv2d(nn.Module):
    """A convolution for inference on the CPU, by oneDNN's own operator, as torch.compile would call it.

    Its weight lies in the order that oneDNN computes with, which depends on the features' shape, too. It is reordered
    when that shape changes, instead of in every call, which at many channels and few pixels takes many times as long as
    the arithmetic; and another map can be added in the same pass. ``weight`` is the reordered one.

    Args:
        conv: a :func:`packable` one; its parameters are not shared.
        shape: (N, H, W) of features to stay with, for features whose N changes from call to call.
    """

    adds = True

    def __init__(self, conv: nn.Conv2d, shape: tuple[int, int, int] | None = None) -> None:
        super().__init__()
        assert packable(conv)
        assert isinstance(conv.padding, tuple)
        self.padding, self.stride, self.dilation = list(conv.padding), list(conv.stride), list(conv.dilation)
        self.groups = conv.groups
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.weight = nn.Parameter(conv.weight.detach().to_mkldnn(), requires_grad=False)
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone(), requires_grad=False)
        self._stays = shape is not None
        self._shape: tuple[int, int, int] | None = None
        if shape is not None:
            self._reorder(shape)

    def _reorder(self, shape: tuple[int, int, int]) -> None:
        """For features (N, C_in, H, W) of ``shape`` (N, H, W)."""
        assert _OPERATORS is not None
        count, *size = shape
        place = (self.padding, self.stride, self.dilation, self.groups)
        weight = _OPERATORS.mkldnn_reorder_conv2d_weight(self.weight, *place, [count, self.in_channels, *size])
        self.weight = nn.Parameter(weight, requires_grad=False)
        self._shape = shape

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, h, w), channels last, plus ``add`` of that shape."""
        x = x.to(self.weight.dtype).contiguous(memory_format=torch.channels_last)
        shape = (x.shape[0], x.shape[2], x.shape[3])
        if shape != self._shape and not self._stays:
            self._reorder(shape)
        place: tuple[Any, ...] = (self.padding, self.stride, self.dilation, self.groups)
        if add is not None and min(add.shape[1:]) == 1:  # older oneDNN finds no order for such a sum
            return self(x) + add
        if add is None:
            return torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *place, "none", [], "")
        add = add.to(x.dtype).contiguous(memory_format=torch.channels_last)
        operator = torch.ops.mkldnn._convolution_pointwise.binary
        return operator(x, add, self.weight, self.bias, *place, "add", 1.0, None, [], None)


def can_pack() -> bool:
    """Whether this build of torch has oneDNN and the operators."""
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(_OPERATORS, "mkldnn_reorder_conv2d_weight")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


def packable(module: nn.Module) -> bool:
    """Whether a layer is a convolution that :class:`PackedConv2d` can stand in for, on this processor."""
    if type(module) is not nn.Conv2d or module.padding_mode != "zeros" or not isinstance(module.padding, tuple):
        return False
    dtype = module.weight.dtype
    return dtype == torch.float32 or (dtype == torch.bfloat16 and convolves_in_bf16())


def convolve(conv: nn.Module, x: Tensor, add: Tensor | None) -> Tensor:
    """A convolution and another map of its outputs' shape, in one pass where the layer can."""
    if add is None:
        return conv(x)
    return conv(x, add) if getattr(conv, "adds", False) else conv(x) + add

"""Spectral normalization (Miyato et al. 2018), with what mixed precision and speed ask for."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.utils import parametrize


class SpectralNorm(nn.Module):
    """W / sigma(W), where sigma = u^T W v is the largest singular value by power iteration.

    One iteration per use in training mode, none in eval mode. Unlike torch's own, it computes in float32 under autocast
    (a sigma of 8 bits makes the weights jump), and its gradient

        dL/dW = (G - <G, W> / sigma u v^T) / sigma

    is one function instead of six. Under autocast the result has autocast's type: the convolution, which would cast it,
    gets it without a copy in float32.

    Args:
        weight: the convolution's weight; rows are its output channels.
        transposed: the weight is a transposed convolution's, whose output channels are the second dimension.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, transposed: bool = False) -> None:
        super().__init__()
        self.transposed = transposed
        rows = self._outputs_first(weight.detach()).flatten(1)
        self.register_buffer("_u", F.normalize(torch.randn(rows.shape[0]), dim=0))
        self.register_buffer("_v", F.normalize(torch.randn(rows.shape[1]), dim=0))
        for _ in range(0 if rows.is_meta else 15):
            self._iterate(rows)

    @torch.no_grad()
    def _iterate(self, rows: Tensor) -> Tensor:
        """One step of the power iteration; W v."""
        self._v.copy_(F.normalize(torch.mv(rows.t(), self._u), dim=0))
        along = torch.mv(rows, self._v)
        self._u.copy_(F.normalize(along, dim=0))
        return along

    def _outputs_first(self, weight: Tensor) -> Tensor:
        return weight.transpose(0, 1) if self.transposed else weight

    def forward(self, weight: Tensor) -> Tensor:
        return self._outputs_first(self._normalized(self._outputs_first(weight)))

    def _normalized(self, weight: Tensor) -> Tensor:
        # Autocast knows no meta device, on which full-size networks are built to be counted and compared.
        device = "cpu" if weight.is_meta else weight.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        if weight.dtype == torch.float64:  # autocast leaves it alone, too
            dtype = weight.dtype
        with torch.autocast(device, enabled=False):
            if self.training:
                along = self._iterate(weight.detach().flatten(1))
                # A later forward moves the vectors in place before this one's backward may have run.
                u, v = self._u.clone(), self._v.clone()
            else:
                along = torch.mv(weight.detach().flatten(1), self._v)
                u, v = self._u, self._v
            return _Divide.apply(weight, u, v, torch.dot(u, along), dtype)


class _Divide(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, u: Tensor, v: Tensor, sigma: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(weight, u, v, sigma)  # not the result, which would be one more copy of the weights
        return (weight / sigma).to(dtype)

    @staticmethod
    @once_differentiable  # its own derivative would leave out that sigma depends on the weight
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        weight, u, v, sigma = ctx.saved_tensors
        # A copy in every case: the gradient may be someone else's, and it is changed below.
        grad = torch.empty_like(weight, memory_format=torch.contiguous_format).copy_(grads[0])
        along = torch.dot(grad.flatten(), weight.flatten())
        grad.flatten(1).addr_(u, v * (along / sigma), alpha=-1).div_(sigma)
        return grad, None, None, None, None


Conv = TypeVar("Conv", nn.Conv2d, nn.ConvTranspose2d)


def spectral_norm(conv: Conv) -> Conv:
    """Normalize a convolution's weight; state keys are those of ``torch.nn.utils.parametrizations.spectral_norm``."""
    norm = SpectralNorm(conv.weight, transposed=isinstance(conv, nn.ConvTranspose2d))
    # Without values there is nothing that torch could check by a trial, which takes half the time of such a network.
    parametrize.register_parametrization(conv, "weight", norm, unsafe=conv.weight.is_meta)
    return conv


def fold_spectral_norm(module: nn.Module) -> nn.Module:
    """Replace spectrally normalised weights by their present values, for inference; changes and returns ``module``.

    The module says so from then on: ``module.folded`` is True. Its weights no longer fit the network that was built.
    """
    if any(parametrize.is_parametrized(layer, "weight") for layer in module.modules()):
        module.folded = True  # pyright: ignore[reportArgumentType]  # modules take any attribute
    for layer in module.modules():
        if parametrize.is_parametrized(layer, "weight"):
            assert isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))  # what spectral_norm takes
            weight = layer.weight.detach().clone()
            learned = all(parameter.requires_grad for parameter in layer.parameters())
            # remove_parametrizations would take `weight` off the class, which deep copies of the layer share.
            del layer.parametrizations
            layer.__class__ = type(layer).__bases__[0]
            layer.weight = nn.Parameter(weight, requires_grad=learned)
    return module

"""CLADE's step as one differentiable operation: normalize, scale and shift every pixel by its class, activate.

    x^ = (x - mean) * rstd,   y = act(gamma[k] * s_g * x^ + beta[k] * s_b),   k = ids[p]

Its backward needs x, the ids and what is small: no map of gamma and beta, and neither x^ nor y is kept. The primitives
``apply``, ``reduce`` and ``input`` work on pixels (P, C), which is how channels-last features lie in memory: in plain
torch (:mod:`clade.nn.modulation_plain`), and on CUDA, where the environment says ``CLADE_TRITON=1``, as Triton kernels
(``clade.nn.triton.modulation``), which have never run on a GPU: ``python -m benchmarks.gpu`` measures both.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from clade.errors import CladeError, first_line
from clade.nn.modulation_plain import apply_plain, input_plain, reduce_plain, widened
from clade.nn.norm import BatchNorm

_BLOCK = 1 << 14
"""Pixels whose statistics torch computes in one call on a CPU."""
_PIXEL = 8
"""Numbers of a table that take as long as finding out whether a pixel's class has occurred before."""


def modulate(
    x: Tensor,
    ids: Tensor,
    gamma: Tensor,
    beta: Tensor,
    norm: nn.BatchNorm2d,
    *,
    scales: Tensor | None = None,
    slope: float | None = None,
) -> Tensor:
    """Normalize by ``norm``'s statistics, scale and shift by class (CLADE, section 3.2), and activate.

    In training mode the statistics are the batch's and the running ones of ``norm`` move, as torch's BatchNorm has it;
    with :class:`clade.nn.BatchNorm` the batch spans all processes of a distributed training. It can be differentiated
    once.

    Args:
        x: features (N, C, H, W); not copied where they lie channels-last.
        ids: class of each pixel (N, H, W), int32 or int64.
        gamma, beta: the tables (K, C).
        norm: BatchNorm without scale and shift; see :func:`can_modulate`.
        scales: two factors per pixel (2, N H W), of the scale and of the shift (equation 15); None for 1.
        slope: of LeakyReLU; None for no activation.

    Returns:
        y (N, C, H, W) in the type of x, channels-last.

    Raises:
        CladeError: training with a single value per channel.
    """
    n, channels, height, width = x.shape
    pixels = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).reshape(-1, channels)
    y = _Modulate.apply(pixels, ids.reshape(-1), gamma, beta, scales, norm, slope)
    return y.view(n, height, width, channels).permute(0, 3, 1, 2)


def can_modulate(x: Tensor, norm: nn.Module) -> bool:
    """Whether :func:`modulate` does what ``norm(x)``, two look-ups and a multiply-add would do.

    Not where ``norm`` is no BatchNorm of its own running statistics; where hooks wait for it to run; nor under a
    compiler, which fuses the separate operations itself, or without values (the meta device).
    """
    return (
        type(norm) in (BatchNorm, nn.BatchNorm2d)  # another class may do something else
        and isinstance(norm, nn.BatchNorm2d)
        and not norm.affine
        and norm.running_mean is not None
        and norm.running_mean.dtype == widened(x.dtype)
        and x.device.type in ("cpu", "cuda")
        and type(x) in (Tensor, nn.Parameter)  # subclasses (fake or distributed tensors) are not what they seem
        and not (norm._forward_hooks or norm._forward_pre_hooks or norm._backward_hooks or norm._backward_pre_hooks)
        and not torch.nn.modules.module._has_any_global_hook()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    )


class _Modulate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        ids: Tensor,
        gamma: Tensor,
        beta: Tensor,
        scales: Tensor | None,
        norm: nn.BatchNorm2d,
        slope: float | None,
    ) -> Tensor:
        ctx.slope, ctx.count, ctx.rows = slope, None, len(gamma)
        present = None
        if x.device.type == "cpu" and _PIXEL * len(x) < gamma.numel():
            present, ids = torch.unique(ids, return_inverse=True)
            present = present.long()
            gamma, beta = gamma[present], beta[present]
        ctx.synchronised = type(norm) is BatchNorm and _processes() > 1
        if norm.training:
            mean, variance, ctx.count = _of_the_batch(x, norm, ctx.synchronised)
        else:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            mean, variance = norm.running_mean, norm.running_var
        rstd = torch.rsqrt(variance + norm.eps)
        if not norm.training:
            mean = mean.clone()  # the running statistics may move before the backward
        ctx.save_for_backward(x, ids, gamma, beta, mean, rstd, scales, present)
        return _primitives(x).apply(x, ids, gamma, beta, mean, rstd, scales, slope)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, ids, gamma, beta, mean, rstd, scales, present = ctx.saved_tensors
        rest = (x, ids, gamma, beta, mean, rstd, scales, ctx.slope)
        (grad,) = grads
        grad = grad if grad.stride(1) == 1 else grad.contiguous()
        primitives = _primitives(x)
        kept = {}
        if primitives is PLAIN and ctx.needs_input_grad[0]:
            kept = {"kept": torch.empty_like(x)}  # it becomes dx
        dgamma, dbeta, inner, dscales = primitives.reduce(grad, *rest, **kept)
        if ctx.count is None:  # running statistics, which x does not move
            inner = torch.zeros_like(inner)
        else:
            if ctx.synchronised:
                dist.all_reduce(inner)
            inner = inner / ctx.count
        dx = None
        if kept:
            dx = input_plain(kept["kept"], *rest[:-1], None, inner, out=kept["kept"])
        elif ctx.needs_input_grad[0]:
            dx = primitives.input(grad, *rest, inner)
        dgamma, dbeta = dgamma.to(gamma.dtype), dbeta.to(beta.dtype)
        if present is not None:
            shape = (ctx.rows, gamma.shape[1])
            dgamma, dbeta = (part.new_zeros(shape).index_copy_(0, present, part) for part in (dgamma, dbeta))
        if dscales is not None and scales is not None:
            dscales = dscales.to(scales.dtype)
        return dx, None, dgamma, dbeta, dscales, None, None


def _of_the_batch(x: Tensor, norm: nn.BatchNorm2d, synchronised: bool) -> tuple[Tensor, Tensor, Tensor | int]:
    """Mean, biased variance and number of pixels; moves the running statistics.

    Sums over processes are in float64, in which E[x^2] - E[x]^2 does not cancel as it does in float32.
    """
    pixels, channels = x.shape
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    if pixels <= 1 and not synchronised:
        raise CladeError(
            f"Features of shape {(pixels, channels)} came: a single pixel has no batch statistics. Training needs more "
            "than 1 value per channel: use larger pictures or a larger batch."
        )
    norm.num_batches_tracked.add_(1)
    momentum = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked)
    if x.device.type == "cpu" and pixels <= _BLOCK and not synchronised:
        mean, variance = torch.batch_norm_update_stats(_picture(x), norm.running_mean, norm.running_var, momentum)
        return mean, variance, pixels
    own_mean, own_variance = _own_statistics(x)
    total, square = own_mean * pixels, (own_variance + own_mean.square()) * pixels
    sums = torch.stack([total, square, torch.full_like(total, pixels)])
    if synchronised:
        dist.all_reduce(sums)
    count = sums[2, 0]
    mean = sums[0] / count
    variance = (sums[1] / count - mean.square()).clamp(min=0)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    unbiased = variance * (count / (count - 1).clamp(min=1))
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), momentum)
    dtype = norm.running_mean.dtype
    return mean.to(dtype), variance.to(dtype), count.to(dtype)


def _own_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of this process's pixels (P, C), in float64.

    On a CPU in blocks, since torch adds the rows of one call one after the other in float32; they are put together as
    Chan et al. (1979) do.
    """
    means, variances, counts = [], [], []
    for block in x.split(_BLOCK if x.device.type == "cpu" else max(1, len(x))):
        # Given buffers of that type, torch also returns it; else the statistics of bfloat16 would be rounded to it.
        unused = x.new_zeros((2, x.shape[1]), dtype=widened(x.dtype))
        mean, variance = torch.batch_norm_update_stats(_picture(block), unused[0], unused[1], 0.0)
        means.append(mean)
        variances.append(variance)
        counts.append(len(block))
    weights = torch.tensor(counts, dtype=torch.float64, device=x.device)[:, None] / max(1, len(x))
    each, within = torch.stack(means).double(), torch.stack(variances).double()
    mean = (weights * each).sum(0)
    return mean, (weights * (within + (each - mean).square())).sum(0)


def _picture(x: Tensor) -> Tensor:
    """(P, C) -> (1, C, P, 1), channels last"""
    return x.reshape(1, len(x), 1, -1).permute(0, 3, 1, 2)


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class Primitives(NamedTuple):
    """What a device computes the operation with; see :func:`apply_plain`, :func:`reduce_plain`, :func:`input_plain`."""

    apply: Callable[..., Tensor]
    reduce: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor | None]]
    input: Callable[..., Tensor]


PLAIN = Primitives(apply_plain, reduce_plain, input_plain)


def _primitives(x: Tensor) -> Primitives:
    wanted = x.is_cuda and x.dtype != torch.float64 and os.environ.get("CLADE_TRITON", "0") not in ("", "0")
    return (_triton() if wanted else None) or PLAIN


@lru_cache(maxsize=1)
def _triton() -> Primitives | None:
    try:
        kernels = importlib.import_module("clade.nn.triton.modulation")
        kernels.try_out()
    except ImportError:  # no triton on this system
        return None
    except Exception as error:
        warnings.warn(
            f"Triton is installed, but cannot make kernels here ({first_line(error)}). CLADE trains without them, more "
            "slowly. It needs a C compiler and Python's headers (gcc, python3-dev).",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return Primitives(kernels.apply, kernels.reduce, kernels.input_gradient)

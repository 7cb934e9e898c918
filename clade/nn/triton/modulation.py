"""Normalize, look up, activate: the CLADE layer's forward and backward as Triton kernels, for CUDA.

What :mod:`clade.nn.modulation` does in plain torch, the tested reference, in one pass over the features forward and two
backward. Features are pixels by channels, (P, C) with P = N * H * W, as channels-last memory holds them:

    x^ = (x - mean) * rstd,   y = act(gamma[k] * sg * x^ + beta[k] * sb),   k = ids[p]

All arithmetic is float32, whatever type x has. The gradients of the tables are sums over all pixels of a class. Atomic
sums into one table would differ from run to run, and queue up on the few classes that cover most of a picture, so the
order is fixed: each program (one warp, so that it never waits for another) walks its own stretch of pixels in small
tiles, of one or two classes mostly. It adds up the class it is in and puts the sum, when the class changes, into rows
of its own in a workspace; rows that it never meets are neither written nor read. Two small kernels add the programs'
rows. The same input on the same GPU gives the same bits.

Block sizes are fixed, by the number of channels alone: the kernels are bound by memory, there is little to tune, and a
search would cost seconds at the first training step. A kernel is compiled once per type and block, not per size.
Nothing here waits for the GPU or looks at values, so that CUDA graphs can record it.

Import it only where Triton is, which is not everywhere torch is. With TRITON_INTERPRET=1 in the environment before the
import it works on CPU tensors, slowly; the tests do so.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from clade.errors import CladeError
from clade.nn.triton.kernels import apply_kernel, combine_kernel, finish_kernel, input_kernel, reduce_kernel

_TILE = 2048
"""Numbers in a tile of the pixelwise kernels, which have four warps: 32 bytes of bfloat16 on their way per thread."""
_REDUCE_TILE = 1024
"""Numbers in a tile of the summing kernel, which has one warp."""
_PER_PROCESSOR = 16
"""Programs of the summing kernel for each of the GPU's multiprocessors."""
_WORKSPACE = 64 * 2**20
"""Bytes of class rows that are always fine; more only up to the size of x in float32."""
_TYPES = (torch.float32, torch.bfloat16, torch.float16)


def apply(
    x: Tensor,
    ids: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scales: Tensor | None,
    slope: float | None,
) -> Tensor:
    """y = act(gamma[k] * sg * (x - mean) * rstd + beta[k] * sb).

    Args:
        x: features (P, C), float32, bfloat16 or float16.
        ids: class of each pixel (P,), int32 or int64, in [0, K), which is not checked here.
        gamma, beta: tables (K, C).
        mean, rstd: of each channel (C,); rstd is 1 over the standard deviation.
        scales: factors (2, P) of gamma and of beta at each pixel, (sg, sb); None for 1.
        slope: LeakyReLU's, of negative values; None for no activation.

    Returns:
        y (P, C) in the type of x.

    Raises:
        CladeError: shapes that do not fit, or another type.
    """
    x, ids, gamma, beta, mean, rstd, scales = _checked(x, ids, gamma, beta, mean, rstd, scales)
    y = torch.empty_like(x)
    if x.numel():
        given = (x, ids, gamma, beta, mean, rstd, gamma if scales is None else scales)
        grid, options = _pixelwise(x, scales, slope)
        with _device_of(x):
            apply_kernel[grid](*given, y, float(slope or 0), x.shape[0], x.shape[1], **options)
    return y


def reduce(
    grad: Tensor,
    x: Tensor,
    ids: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scales: Tensor | None,
    slope: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The sums of the backward, from the gradient of y (P, C); the other arguments are those of :func:`apply`.

    With g = grad * act' and dx^ = g * gamma[k] * sg:

        dgamma[k] = sum_(p of class k) g * sg * x^,   dbeta[k] = sum_(p of class k) g * sb
        inner = (sum_p dx^, sum_p dx^ * x^),   dscales[p] = (sum_c g * gamma[k] * x^, sum_c g * beta[k])

    A gradient that is not a finite number spoils the sums of its neighbours' classes too.

    Returns:
        (dgamma (K, C), dbeta (K, C), inner (2, C), dscales (2, P) or None without scales), in float32.
    """
    x, ids, gamma, beta, mean, rstd, scales = _checked(x, ids, gamma, beta, mean, rstd, scales)
    grad = _gradient(grad, x)
    (pixels, channels), rows, scaled = x.shape, gamma.shape[0], scales is not None

    def new(*shape: int) -> Tensor:
        return torch.empty(shape, device=x.device, dtype=torch.float32)

    tables, inner = new(2, rows, channels), new(2, channels)
    if not x.numel():
        return tables[0].zero_(), tables[1].zero_(), inner.zero_(), new(2, pixels).zero_() if scaled else None

    block_c = _channels_per_block(channels)
    block_p = _REDUCE_TILE // block_c
    blocks_c = triton.cdiv(channels, block_c)
    span, programs = _spans(x, rows, block_p, blocks_c)
    sums, met = new(2, programs, rows, channels), torch.empty(rows, programs, device=x.device, dtype=torch.int8)
    parts_inner = new(programs, channels) if scaled else inner
    parts_scales = new(blocks_c, 2, pixels) if scaled else inner
    given = (grad, x, ids, gamma, beta, mean, rstd, scales if scaled else gamma)
    made = (sums, met, parts_inner, parts_scales)
    options: dict[str, Any] = {"SCALED": scaled, "LEAKY": slope is not None, **_launch(1)}
    options |= {"BLOCK_P": block_p, "BLOCK_C": block_c, "BLOCK_K": triton.next_power_of_2(rows)}
    sizes = (pixels, channels, rows, programs, span)
    with _device_of(x):
        reduce_kernel[(programs, blocks_c)](*given, *made, float(slope or 0), *sizes, **options)

    splits = min(16, triton.cdiv(programs, 64))
    chunk = triton.cdiv(programs, splits)
    parts = new(splits, 2, rows, channels)
    options = {"BLOCK_G": 32, "BLOCK_C": block_c, **_launch(4)}
    with _device_of(x):
        combine_kernel[(rows, blocks_c, splits)](sums, met, parts, channels, rows, programs, chunk, **options)
        options = {"BLOCK_K": 64, "BLOCK_C": 16, **_launch(4)}
        finish_kernel[(triton.cdiv(channels, 16),)](parts, gamma, tables, inner, channels, rows, splits, **options)
    if not scaled:
        return tables[0], tables[1], inner, None
    inner[0] = parts_inner.sum(0)
    return tables[0], tables[1], inner, parts_scales[0] if blocks_c == 1 else parts_scales.sum(0)


def input_gradient(
    grad: Tensor,
    x: Tensor,
    ids: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scales: Tensor | None,
    slope: float | None,
    inner_mean: Tensor,
) -> Tensor:
    """dx = rstd * (dx^ - inner_mean[0] - x^ * inner_mean[1]), with the dx^ of :func:`reduce`.

    Args:
        inner_mean: (2, C), reduce's ``inner`` over the number of pixels that mean and rstd were computed from; zeros
            where they are constants.

    Returns:
        dx (P, C) in the type of x.
    """
    x, ids, gamma, beta, mean, rstd, scales = _checked(x, ids, gamma, beta, mean, rstd, scales)
    grad, inner_mean = _gradient(grad, x), inner_mean.contiguous()
    dx = torch.empty_like(x)
    if x.numel():
        given = (grad, x, ids, gamma, beta, mean, rstd, gamma if scales is None else scales)
        grid, options = _pixelwise(x, scales, slope)
        with _device_of(x):
            input_kernel[grid](*given, inner_mean, dx, float(slope or 0), x.shape[0], x.shape[1], **options)
    return dx


def try_out() -> None:
    """One tiny launch, which raises whatever keeps Triton from making kernels on this machine."""
    x = torch.ones(1, 16, device="cuda")
    ids = torch.zeros(1, dtype=torch.int32, device="cuda")
    apply(x, ids, x, x, x[0], x[0], None, None)


def _device_of(x: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the present device, which need not be that of x."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _launch(warps: int) -> dict[str, Any]:
    # Triton's default for fused multiply-adds, which these kernels need for their speed, changes between versions.
    return {"num_warps": warps, "enable_fp_fusion": True}


def _channels_per_block(channels: int) -> int:
    return max(16, min(64, triton.next_power_of_2(channels)))


def _pixelwise(x: Tensor, scales: Tensor | None, slope: float | None) -> tuple[tuple[int], dict[str, Any]]:
    """Grid and options of a kernel whose programs share nothing; neighbours in the grid are so in memory."""
    pixels, channels = x.shape
    block_c = _channels_per_block(channels)
    block_p = _TILE // block_c
    options = {"SCALED": scales is not None, "LEAKY": slope is not None, "BLOCK_P": block_p, "BLOCK_C": block_c}
    return (triton.cdiv(pixels, block_p) * triton.cdiv(channels, block_c),), {**options, **_launch(4)}


def _spans(x: Tensor, rows: int, block_p: int, blocks_c: int) -> tuple[int, int]:
    """(pixels of each program of the summing kernel, number of such programs), for each block of channels."""
    pixels, channels = x.shape
    # Without a GPU it is the interpreter, where a few programs suffice.
    processors = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 1
    wanted = triton.cdiv(processors * _PER_PROCESSOR, blocks_c)
    allowed = max(_WORKSPACE, pixels * channels * 4) // (rows * channels * 8)
    programs = max(1, min(wanted, allowed))
    span = triton.cdiv(triton.cdiv(pixels, block_p), programs) * block_p
    return span, triton.cdiv(pixels, span)


def _gradient(grad: Tensor, x: Tensor) -> Tensor:
    if grad.shape != x.shape:
        raise CladeError(f"The gradient is {tuple(grad.shape)}, but the features are {tuple(x.shape)}; give one of y.")
    return grad.contiguous()


def _checked(
    x: Tensor, ids: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, rstd: Tensor, scales: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """The arguments, contiguous: the kernels know no strides."""
    if x.ndim != 2 or x.dtype not in _TYPES:
        raise CladeError(
            f"Features are {tuple(x.shape)} of {x.dtype}; needed is (P, C) of float32, bfloat16 or float16. "
            "clade.nn.modulation's plain version takes others."
        )
    (pixels, channels), rows = x.shape, gamma.shape[0]
    table, channel = (rows, channels), (channels,)
    given = {"ids": ids, "gamma": gamma, "beta": beta, "mean": mean, "rstd": rstd, "scales": scales}
    for (name, tensor), shape in zip(
        given.items(), ((pixels,), table, table, channel, channel, (2, pixels)), strict=True
    ):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise CladeError(f"{name} is {tuple(tensor.shape)}; with features {tuple(x.shape)} it has to be {shape}.")
    if ids.dtype not in (torch.int32, torch.int64):
        raise CladeError(f"ids are of {ids.dtype}; needed is int32 (LabelPyramid's) or int64.")
    return (
        x.contiguous(),
        ids.contiguous(),
        gamma.contiguous(),
        beta.contiguous(),
        mean.contiguous(),
        rstd.contiguous(),
        None if scales is None else scales.contiguous(),
    )

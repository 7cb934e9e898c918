"""The Triton kernels of :mod:`clade.nn.triton.modulation`, which says what they compute and why so.

Names are the equations': x^ is ``x_hat``, the gradient of y ``g``; p numbers pixels, c channels and k classes. All
tensors are contiguous; x, y and their gradients are (P, C), the tables (K, C), scales (2, P).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _modulated(x, k, p, c, some_p, some_c, gamma, beta, mean, rstd, scales, pixels, channels, SCALED: tl.constexpr):
    """A tile's x^, gamma[k], beta[k], sg, sb, and the value before the activation."""
    row = k[:, None] * channels + c[None, :]
    some = some_p[:, None] & some_c[None, :]
    gamma_k = tl.load(gamma + row, mask=some, other=0.0).to(tl.float32)
    beta_k = tl.load(beta + row, mask=some, other=0.0).to(tl.float32)
    centre = tl.load(mean + c, mask=some_c, other=0.0).to(tl.float32)
    factor = tl.load(rstd + c, mask=some_c, other=0.0).to(tl.float32)
    x_hat = (x.to(tl.float32) - centre[None, :]) * factor[None, :]
    if SCALED:
        sg = tl.load(scales + p, mask=some_p, other=0.0).to(tl.float32)[:, None]
        sb = tl.load(scales + pixels + p, mask=some_p, other=0.0).to(tl.float32)[:, None]
        pre = gamma_k * sg * x_hat + beta_k * sb
    else:
        sg = 1.0
        sb = 1.0
        pre = gamma_k * x_hat + beta_k
    return x_hat, gamma_k, beta_k, sg, sb, pre


@triton.jit(do_not_specialize=["pixels"])
def apply_kernel(
    x, ids, gamma, beta, mean, rstd, scales, y, slope, pixels, channels, SCALED: tl.constexpr, LEAKY: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    blocks_c = tl.cdiv(channels, BLOCK_C)
    first = tl.program_id(0) // blocks_c * BLOCK_P
    c = tl.program_id(0) % blocks_c * BLOCK_C + tl.arange(0, BLOCK_C)
    p = first + tl.arange(0, BLOCK_P)
    some_p, some_c = p < pixels, c < channels
    some = some_p[:, None] & some_c[None, :]
    # Only the tile's own offset needs 64 bits.
    start = first.to(tl.int64) * channels
    inside = tl.arange(0, BLOCK_P)[:, None] * channels + c[None, :]
    x_tile = tl.load(x + start + inside, mask=some, other=0.0)
    k = tl.load(ids + p, mask=some_p, other=0).to(tl.int32)
    _, _, _, _, _, pre = _modulated(
        x_tile, k, p, c, some_p, some_c, gamma, beta, mean, rstd, scales, pixels, channels, SCALED
    )
    if LEAKY:
        pre = tl.where(pre > 0, pre, pre * slope)
    tl.store(y + start + inside, pre.to(y.dtype.element_ty), mask=some)


@triton.jit(do_not_specialize=["pixels"])
def input_kernel(
    grad, x, ids, gamma, beta, mean, rstd, scales, inner_mean, dx, slope, pixels, channels, SCALED: tl.constexpr,
    LEAKY: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    blocks_c = tl.cdiv(channels, BLOCK_C)
    first = tl.program_id(0) // blocks_c * BLOCK_P
    c = tl.program_id(0) % blocks_c * BLOCK_C + tl.arange(0, BLOCK_C)
    p = first + tl.arange(0, BLOCK_P)
    some_p, some_c = p < pixels, c < channels
    some = some_p[:, None] & some_c[None, :]
    start = first.to(tl.int64) * channels
    inside = tl.arange(0, BLOCK_P)[:, None] * channels + c[None, :]
    x_tile = tl.load(x + start + inside, mask=some, other=0.0)
    g = tl.load(grad + start + inside, mask=some, other=0.0).to(tl.float32)
    k = tl.load(ids + p, mask=some_p, other=0).to(tl.int32)
    x_hat, gamma_k, _, sg, _, pre = _modulated(
        x_tile, k, p, c, some_p, some_c, gamma, beta, mean, rstd, scales, pixels, channels, SCALED
    )
    if LEAKY:
        g = tl.where(pre > 0, g, g * slope)
    mean_dx_hat = tl.load(inner_mean + c, mask=some_c, other=0.0).to(tl.float32)[None, :]
    mean_dx_hat_x = tl.load(inner_mean + channels + c, mask=some_c, other=0.0).to(tl.float32)[None, :]
    factor = tl.load(rstd + c, mask=some_c, other=0.0).to(tl.float32)[None, :]
    value = factor * (g * gamma_k * sg - mean_dx_hat - x_hat * mean_dx_hat_x)
    tl.store(dx + start + inside, value.to(dx.dtype.element_ty), mask=some)


@triton.jit(do_not_specialize=["pixels", "rows", "programs", "span"])
def reduce_kernel(
    grad, x, ids, gamma, beta, mean, rstd, scales, sums, met, inner, dscales, slope, pixels, channels, rows, programs,
    span, SCALED: tl.constexpr, LEAKY: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Sums of the pixels [program * span, (program + 1) * span), by class: sums (2, programs, K, C) where met."""
    program = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    some_c = c < channels
    every = tl.arange(0, BLOCK_K)
    seen = tl.zeros((BLOCK_K,), tl.int32)
    own = sums + program.to(tl.int64) * rows * channels + c  # this program's row 0 of dgamma, and of dbeta:
    other = own + programs.to(tl.int64) * rows * channels
    total = tl.zeros((BLOCK_C,), tl.float32)
    centre = tl.load(mean + c, mask=some_c, other=0.0).to(tl.float32)[None, :]
    factor = tl.load(rstd + c, mask=some_c, other=0.0).to(tl.float32)[None, :]
    begin = program * span
    carried = tl.load(ids + begin).to(tl.int32)  # the class whose sums are of_gamma and of_beta, not yet in memory
    of_gamma = tl.zeros((BLOCK_C,), tl.float32)
    of_beta = tl.zeros((BLOCK_C,), tl.float32)
    end = tl.minimum(begin + span, pixels)
    for offset in range(0, span, BLOCK_P):
        first = begin + offset
        p = first + tl.arange(0, BLOCK_P)
        some_p = p < end
        some = some_p[:, None] & some_c[None, :]
        start = first.to(tl.int64) * channels
        inside = tl.arange(0, BLOCK_P)[:, None] * channels + c[None, :]
        x_tile = tl.load(x + start + inside, mask=some, other=0.0)
        g = tl.load(grad + start + inside, mask=some, other=0.0).to(tl.float32)
        k = tl.load(ids + p, mask=some_p, other=0).to(tl.int32)
        x_hat = (x_tile.to(tl.float32) - centre) * factor
        g_x_hat = g * x_hat
        if SCALED:
            sg = tl.load(scales + p, mask=some_p, other=0.0).to(tl.float32)[:, None]
            sb = tl.load(scales + pixels + p, mask=some_p, other=0.0).to(tl.float32)[:, None]
        dsg = tl.zeros((BLOCK_P,), tl.float32)
        dsb = tl.zeros((BLOCK_P,), tl.float32)
        left = tl.where(some_p, k, rows)
        row = tl.min(left, axis=0)
        while row < rows:  # once for each class in the tile
            here = left == row
            at = row * channels
            # act' of the pixels of this class and 0 of all others.
            weight = tl.where(here, 1.0, 0.0)[:, None]
            if LEAKY or SCALED:
                gamma_row = tl.load(gamma + at + c, mask=some_c, other=0.0).to(tl.float32)[None, :]
                beta_row = tl.load(beta + at + c, mask=some_c, other=0.0).to(tl.float32)[None, :]
                if SCALED:
                    pre = gamma_row * sg * x_hat + beta_row * sb
                else:
                    pre = gamma_row * x_hat + beta_row
                if LEAKY:
                    weight = tl.where(pre > 0, weight, tl.where(here, slope, 0.0)[:, None])
            if SCALED:
                dsg += tl.sum(g_x_hat * weight * gamma_row, axis=1)
                dsb += tl.sum(g * weight * beta_row, axis=1)
                scaled = weight * sg
                total += tl.sum(g * scaled, axis=0) * tl.reshape(gamma_row, (BLOCK_C,))
                dgamma = tl.sum(g_x_hat * scaled, axis=0)
                dbeta = tl.sum(g * weight * sb, axis=0)
            else:
                dgamma = tl.sum(g_x_hat * weight, axis=0)
                dbeta = tl.sum(g * weight, axis=0)
            if row != carried:
                _add_row(own, other, carried * channels, of_gamma, of_beta, some_c, every == carried, seen)
                seen = tl.where(every == carried, 1, seen)
                carried = row
                of_gamma = tl.zeros((BLOCK_C,), tl.float32)
                of_beta = tl.zeros((BLOCK_C,), tl.float32)
            of_gamma += dgamma
            of_beta += dbeta
            left = tl.where(here, rows, left)
            row = tl.min(left, axis=0)
        if SCALED:
            to = dscales + tl.program_id(1).to(tl.int64) * 2 * pixels + p
            tl.store(to, dsg, mask=some_p)
            tl.store(to + pixels, dsb, mask=some_p)
    tl.debug_barrier()  # the loop's additions first: threads may have other channels here
    _add_row(own, other, carried * channels, of_gamma, of_beta, some_c, every == carried, seen)
    seen = tl.where(every == carried, 1, seen)
    if tl.program_id(1) == 0:
        tl.store(met + every * programs + program, seen.to(tl.int8), mask=every < rows)
    if SCALED:
        tl.store(inner + program.to(tl.int64) * channels + c, total, mask=some_c)


@triton.jit
def _add_row(own, other, at, of_gamma, of_beta, some_c, which, seen):
    """Adds to a row of the program's own, or begins it."""
    if tl.max(tl.where(which, seen, 0), axis=0) == 0:
        tl.store(own + at, of_gamma, mask=some_c)
        tl.store(other + at, of_beta, mask=some_c)
        tl.debug_barrier()  # a later addition may come from another thread
    else:
        # Nobody else adds to these rows: atomic only so that no thread waits for the old value.
        tl.atomic_add(own + at, of_gamma, mask=some_c, sem="relaxed")
        tl.atomic_add(other + at, of_beta, mask=some_c, sem="relaxed")


@triton.jit(do_not_specialize=["rows", "programs", "chunk"])
def combine_kernel(
    sums, met, parts, channels, rows, programs, chunk, BLOCK_G: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Adds the rows of ``chunk`` programs for one class: parts (splits, 2, K, C)."""
    k = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    split = tl.program_id(2)
    some_c = c < channels
    second = programs.to(tl.int64) * rows * channels
    gamma_row = tl.zeros((BLOCK_C,), tl.float32)
    beta_row = tl.zeros((BLOCK_C,), tl.float32)
    end = tl.minimum((split + 1) * chunk, programs)
    for first in range(split * chunk, end, BLOCK_G):
        g = first + tl.arange(0, BLOCK_G)
        has = tl.load(met + k * programs + g, mask=g < end, other=0) != 0
        some = has[:, None] & some_c[None, :]
        at = sums + (g.to(tl.int64) * rows + k)[:, None] * channels + c[None, :]
        gamma_row += tl.sum(tl.load(at, mask=some, other=0.0), axis=0)
        beta_row += tl.sum(tl.load(at + second, mask=some, other=0.0), axis=0)
    at = parts + (split * 2 * rows + k) * channels + c
    tl.store(at, gamma_row, mask=some_c)
    tl.store(at + rows * channels, beta_row, mask=some_c)


@triton.jit(do_not_specialize=["rows", "splits"])
def finish_kernel(parts, gamma, tables, inner, channels, rows, splits, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr):
    """Adds the splits, and the rows weighted by gamma: tables (2, K, C), inner (2, C) as without scales."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    some_c = c < channels
    first_inner = tl.zeros((BLOCK_C,), tl.float32)
    second_inner = tl.zeros((BLOCK_C,), tl.float32)
    for first in range(0, rows, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        some = (k < rows)[:, None] & some_c[None, :]
        at = k[:, None] * channels + c[None, :]
        dgamma = tl.zeros((BLOCK_K, BLOCK_C), tl.float32)
        dbeta = tl.zeros((BLOCK_K, BLOCK_C), tl.float32)
        for split in range(splits):
            dgamma += tl.load(parts + split * 2 * rows * channels + at, mask=some, other=0.0)
            dbeta += tl.load(parts + (split * 2 + 1) * rows * channels + at, mask=some, other=0.0)
        weight = tl.load(gamma + at, mask=some, other=0.0).to(tl.float32)
        first_inner += tl.sum(weight * dbeta, axis=0)
        second_inner += tl.sum(weight * dgamma, axis=0)
        tl.store(tables + at, dgamma, mask=some)
        tl.store(tables + rows * channels + at, dbeta, mask=some)
    tl.store(inner + c, first_inner, mask=some_c)
    tl.store(inner + channels + c, second_inner, mask=some_c)

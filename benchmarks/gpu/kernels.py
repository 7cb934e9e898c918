"""The fused kernel against memory bandwidth: what a copy of the same features moves in a second."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.session import Item, Session
from benchmarks.gpu.timing import interval, recorded_interval
from clade.data.scenes import draw_scene
from clade.nn.modulation import PLAIN, Primitives

CLASSES = 35
SLOPE = 0.2


def items(session: Session) -> Iterator[Item]:
    session.table(
        "kernel",
        (
            "features",
            "type",
            "labels",
            "kernel",
            "median (us)",
            "GB/s",
            "of copy bandwidth",
            "reference (us)",
            "error",
        ),
        [
            "Normalize, look up, LeakyReLU; features N x C x H x W, channels-last, 35 classes. `forward`, and the two "
            "passes backward: `sums` (gradients of the tables, sums for the input's gradient) and `input` (its "
            "gradient). Bytes are each tensor of the features' size once, and the ids. The kernels run from a CUDA "
            "graph; the reference, in plain torch, piece by piece, does not.",
            "Labels: drawn scenes; `random` has another class at nearly every pixel; `scaled` has factors per pixel "
            "(CLADE-ICPE). Error: the largest difference from the plain version in float32, over the largest number.",
        ],
    )
    full = [(16, 64, 256, 256), (16, 128, 128, 128), (1, 64, 256, 256), (16, 512, 32, 32), (16, 1024, 16, 16)]
    shapes = [(1, 16, 16, 16)] if session.quick else full
    for dtype in (torch.bfloat16, torch.float32):
        for shape in shapes[:2]:
            yield _name(shape, dtype, "scenes"), partial(_measure, session, shape, dtype, "scenes")
    for labels in ("scaled", "random"):
        yield (
            _name(shapes[0], torch.bfloat16, labels),
            partial(_measure, session, shapes[0], torch.bfloat16, labels),
        )
    for shape in shapes[2:]:
        yield _name(shape, torch.bfloat16, "scenes"), partial(_measure, session, shape, torch.bfloat16, "scenes")


def _measure(session: Session, shape: tuple[int, int, int, int], dtype: torch.dtype, labels: str) -> None:
    device, seconds = session.device, 0.01 if session.quick else 0.2
    count, channels, height, width = shape
    pixels = count * height * width
    torch.manual_seed(0)
    x, grad, copied = (torch.randn(pixels, channels, device=device).to(dtype) for _ in range(3))
    gamma, beta = (torch.randn(CLASSES, channels, device=device) for _ in range(2))
    mean, rstd = torch.randn(channels, device=device), torch.rand(channels, device=device) + 0.5
    scales = torch.rand(2, pixels, device=device) + 0.5 if labels == "scaled" else None
    given = (x, _ids(shape, labels).to(device), gamma, beta, mean, rstd, scales, SLOPE)
    # Rounding may put a value so close to 0 on the other side, where its gradient is another.
    grad *= PLAIN.apply(*given[:-1], None).abs() > 1e-2

    mine = _primitives(device)
    inner = PLAIN.reduce(grad, *given)[2] / pixels
    calls = {
        "forward": (2, lambda of: of.apply(*given)),
        "sums": (2, lambda of: of.reduce(grad, *given)),
        "input": (3, lambda of: of.input(grad, *given, inner)),
    }
    size = x.numel() * x.element_size()
    copy_speed = 2 * size / recorded_interval(lambda: copied.copy_(x), device, seconds)
    start = (" x ".join(map(str, shape)), _short(dtype), labels)
    session.add("kernel", (*start, "copy", 2 * size / copy_speed * 1e6, copy_speed / 1e9, 1.0, "", ""))
    for name, (tensors, call) in calls.items():
        error = _error(call(mine), call(PLAIN))
        taken = recorded_interval(partial(call, mine), device, seconds)
        speed = (tensors * size + 4 * pixels) / taken
        plain = interval(partial(call, PLAIN), device, seconds / 4)
        session.add("kernel", (*start, name, taken * 1e6, speed / 1e9, speed / copy_speed, plain * 1e6, f"{error:.1e}"))


def _primitives(device: torch.device) -> Primitives:
    if device.type != "cuda":
        return PLAIN
    from clade.nn.triton.modulation import apply, input_gradient, reduce  # needs Triton

    return Primitives(apply, reduce, input_gradient)


def _ids(shape: tuple[int, int, int, int], labels: str) -> Tensor:
    count, _, height, width = shape
    if labels == "random":
        return torch.randint(CLASSES, (count * height * width,), dtype=torch.int32)
    maps = [draw_scene(k, height=height, width=width).ids for k in range(count)]
    return torch.cat([torch.as_tensor(ids).reshape(-1) for ids in maps]).to(torch.int32).clamp(max=CLASSES - 1)


def _error(mine: object, reference: object) -> float:
    pairs = zip(_parts(mine), _parts(reference), strict=True)
    return max(
        float((a.float() - b.float()).abs().max() / b.float().abs().max().clamp(min=1e-30))
        for a, b in pairs
        if a is not None and b is not None
    )


def _parts(result: object) -> tuple[Tensor | None, ...]:
    return result if isinstance(result, tuple) else (result,)  # pyright: ignore[reportReturnType]


def _name(shape: tuple[int, ...], dtype: torch.dtype, labels: str) -> str:
    return f"{'x'.join(map(str, shape))} {_short(dtype)} {labels}"


def _short(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]

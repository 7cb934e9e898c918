"""What the processor that this runs on can do, and the precision that follows from it.

torch is loaded only where something is asked: recipes are checked by what is here, before it.
"""

from __future__ import annotations

import functools
import os
import platform
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from clade.errors import CladeError
from clade.registry import near_match

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "fp32", "bf16")
"""What can be asked for; ``auto`` is resolved by :func:`resolve_precision`."""
INSTRUCTION_SETS = ("other", "avx2", "avx512", "avx512-bf16", "amx")
"""From the least to the most; each has those before it."""
# What oneDNN's variable may say -> the most that it then uses. Not named: no limit.
_LIMITS = {
    "SSE41": "other",
    "AVX": "other",
    "AVX2": "avx2",
    "AVX2_VNNI": "avx2",
    "AVX2_VNNI_2": "avx2",
    "AVX512_CORE": "avx512",
    "AVX512_CORE_VNNI": "avx512",
    "AVX512_CORE_BF16": "avx512-bf16",
    "AVX512_CORE_FP16": "avx512-bf16",
    "AVX10_1_512": "avx512-bf16",
}


def instruction_set() -> str:
    """The most of :data:`INSTRUCTION_SETS` that oneDNN's convolutions and products use here.

    ``ONEDNN_MAX_CPU_ISA``, which limits them, is honoured: torch's own answers are of the bare processor.
    """
    return min(_of_the_processor(), _limit(), key=INSTRUCTION_SETS.index)


def limited() -> bool:
    """Whether ``ONEDNN_MAX_CPU_ISA`` takes something away that the processor has."""
    return instruction_set() != _of_the_processor()


def multiplies_in_bf16(device: torch.device | str = "cpu") -> bool:
    """Whether a device multiplies in bfloat16: AMX or AVX512-BF16, a CUDA device of capability 8.0 or more.

    Elsewhere bfloat16 is emulated, at a small part of float32's speed.
    """
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and instruction_set() in ("avx512-bf16", "amx")


def convolves_in_bf16() -> bool:
    """Whether oneDNN has convolutions of bfloat16 here, be they emulated: from AVX512 on.

    Elsewhere torch's own loops compute them, which know none of oneDNN's orders of weights.
    """
    return INSTRUCTION_SETS.index(instruction_set()) >= INSTRUCTION_SETS.index("avx512")


def resolve_precision(precision: str, device: torch.device | str = "cpu") -> str:
    """``auto`` -> ``bf16`` where the device multiplies in it, else ``fp32``; these two stay what they are.

    ``bf16`` asked for where it is emulated gives a RuntimeWarning, once per process, that says how much faster fp32 is.

    Raises:
        CladeError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise CladeError(
            f"There is no precision '{precision}'.{near_match(precision, PRECISIONS)} Known: {', '.join(PRECISIONS)}."
        )
    if precision == "auto":
        return "bf16" if multiplies_in_bf16(device) else "fp32"
    if precision == "bf16" and not multiplies_in_bf16(device):
        _warn_of_emulation(str(device).split(":")[0])
    return precision


def emulation_cost(device: torch.device | str = "cpu") -> float:
    """How many times as long a small convolution takes in bfloat16 as in float32, measured in some milliseconds."""
    import torch
    from torch.nn import functional as F

    from clade.system.measure import alternate, threads

    device = torch.device(device)

    def convolution(kind: torch.dtype) -> Callable[[], None]:
        x, weight = (torch.ones(shape, dtype=kind, device=device) for shape in ((1, 64, 16, 16), (64, 64, 3, 3)))
        x, weight = (tensor.to(memory_format=torch.channels_last) for tensor in (x, weight))

        def convolve() -> None:
            F.conv2d(x, weight, padding=1)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return convolve

    calls = {"fp32": convolution(torch.float32), "bf16": convolution(torch.bfloat16)}
    # A busy neighbour hardly disturbs one thread, and the shortest of several calls not at all.
    with threads(1), torch.inference_mode(), torch.autocast(device.type, enabled=False):
        seconds = alternate(calls, rounds=5)
    return min(seconds["bf16"]) / min(seconds["fp32"])


@functools.cache
def _warn_of_emulation(kind: str) -> None:
    """Once per process and kind of device."""
    cost = emulation_cost(kind) if kind in ("cpu", "cuda") else 1.0
    if cost < 1.1:  # such as an ARM processor's own bfloat16, which torch does not tell of
        return
    warnings.warn(
        f"bf16 is emulated by this {'processor' if kind == 'cpu' else 'device'}: a convolution in fp32 is about "
        f"{cost:.{0 if cost >= 10 else 1}f} times as fast. It works; precision auto (or fp32) is faster.",
        RuntimeWarning,
        stacklevel=3,
    )


def _limit() -> str:
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "")).upper()
    return _LIMITS.get(limit, INSTRUCTION_SETS[-1])


def _of_the_processor() -> str:
    import torch

    if platform.machine().lower() not in ("x86_64", "amd64"):
        return "other"
    for name, asked in (
        ("amx", "_is_amx_tile_supported"),
        ("avx512-bf16", "_is_avx512_bf16_supported"),
        ("avx512", "_is_avx512_supported"),
        ("avx2", "_is_avx2_supported"),
    ):
        supported = getattr(torch.cpu, asked, None)
        if supported is not None and supported():
            return name
    return "other"

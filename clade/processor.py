"""What the processor that this runs on can do, and the precision that follows from it."""

from __future__ import annotations

import os
import platform
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
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "")).upper()
    return min(_of_the_processor(), _LIMITS.get(limit, INSTRUCTION_SETS[-1]), key=INSTRUCTION_SETS.index)


def multiplies_in_bf16(device: torch.device | str = "cpu") -> bool:
    """Whether a device multiplies in bfloat16: AMX or AVX512-BF16, a CUDA device of capability 8.0 or more.

    Elsewhere bfloat16 is emulated, at a small part of float32's speed.
    """
    import torch  # not for a recipe, which only needs the names

    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and instruction_set() in ("avx512-bf16", "amx")


def resolve_precision(precision: str, device: torch.device | str = "cpu") -> str:
    """``auto`` -> ``bf16`` where the device multiplies in it, else ``fp32``; these two stay what they are.

    Raises:
        CladeError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise CladeError(
            f"There is no precision '{precision}'.{near_match(precision, PRECISIONS)} Known: {', '.join(PRECISIONS)}."
        )
    if precision != "auto":
        return precision
    return "bf16" if multiplies_in_bf16(device) else "fp32"


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

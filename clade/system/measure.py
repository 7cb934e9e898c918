"""Timing that noise cannot favour, and what a reader needs to know of the machine."""

from __future__ import annotations

import datetime
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from clade._version import __version__


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute on ``count`` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def use_cores(count: int) -> None:
    """Keep this process on ``count`` cores (where the system can) and torch on as many threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    torch.set_num_threads(count)


def alternate(callables: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of each call, ``rounds`` of them per callable, taken in turn so that all meet the same noise.

    A callable on an accelerator has to synchronise by itself.
    """
    seconds: dict[str, list[float]] = {name: [] for name in callables}
    for i in range(warmup + rounds):
        for name, call in callables.items():
            begin = time.perf_counter()
            call()
            end = time.perf_counter()
            if i >= warmup:
                seconds[name].append(end - begin)
    return seconds


def processor() -> str:
    """Name of the processor, as the system calls it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        if names:
            return names[0].strip()
    return platform.processor() or platform.machine() or "unknown processor"


def machine_slug(device: str = "cpu") -> str:
    """Short name of what is measured on, such as ``amd-epyc-2c`` or, for ``device="cuda"``, ``nvidia-h200``."""
    if torch.device(device).type == "cuda":
        return _slug(torch.cuda.get_device_name(device))
    return f"{_slug(processor())}-{os.cpu_count()}c"


def _slug(name: str) -> str:
    name = re.sub(r"\((R|TM|C)\)|@.*|\b(CPU|Processor|\d+-Core)\b", " ", name, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def machine_lines(seed: int | None = None, device: str = "cpu") -> list[str]:
    """What a reader needs to judge or repeat the numbers, one fact a line."""
    used = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [
        f"Processor: {processor()}, {os.cpu_count()} cores, {used} used, {torch.get_num_threads()} torch thread(s)",
        f"Python {platform.python_version()}, NumPy {np.__version__}, torch {torch.__version__}, clade {__version__}",
        f"Date: {datetime.datetime.now(datetime.timezone.utc).date().isoformat()}",
    ]
    if torch.device(device).type == "cuda":
        lines.insert(1, f"Accelerator: {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}")
    if seed is not None:
        lines.append(f"Seed: {seed}")
    return lines

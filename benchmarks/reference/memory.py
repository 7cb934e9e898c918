"""Peak memory of a process, as the system counts it (Linux)."""

from __future__ import annotations

import ctypes
import gc
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident() -> int:
    """Bytes of this process in memory, after what was freed is given back to the system."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim is not None:
        trim(0)
    return _status("VmRSS")


def reset_peak() -> None:
    """Let :func:`peak` count from now on."""
    _RESET.write_text("5", encoding="ascii")


def peak() -> int:
    """The most bytes that this process has had in memory since :func:`reset_peak`."""
    return _status("VmHWM")


def warm_libraries() -> None:
    """What torch and its libraries allocate once, at the first convolution and the first backward."""
    x = torch.randn(1, 16, 32, 32, requires_grad=True)
    y = torch.nn.functional.conv2d(x, torch.randn(16, 16, 3, 3))
    (y.flatten(1) @ y.flatten(1).t()).sum().backward()


def in_child(module: str, arguments: Sequence[str]) -> dict[str, Any] | None:
    """What ``python -m MODULE ARGUMENTS`` prints last, as JSON; None where the system has no such counters."""
    if not (_STATUS.exists() and _RESET.exists()):
        return None
    done = subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s*(\d+) kB$", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024

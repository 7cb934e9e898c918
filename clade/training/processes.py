"""What the processes of a training tell each other."""

from __future__ import annotations

import re

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor

_GONE = r"(closed by peer|reset by peer|broken pipe)"
_GLOO = re.compile(rf"gloo.*{_GONE}", re.IGNORECASE | re.DOTALL)  # it raises a plain RuntimeError
_OTHERS = re.compile(rf"{_GONE}|ncclRemoteError|remote process", re.IGNORECASE)


def total(fabric: Fabric, value: Tensor) -> Tensor:
    """The sum over all processes, on the CPU where there are several."""
    if fabric.world_size == 1:
        return value
    reduced = fabric.all_reduce(value.to(fabric.device), reduce_op="sum")
    assert isinstance(reduced, Tensor)
    return reduced.cpu()


def any_of(fabric: Fabric, flag: bool) -> bool:
    """Whether any process says so."""
    return flag if fabric.world_size == 1 else bool(total(fabric, torch.tensor([float(flag)]))[0] > 0)


def tells_of_a_lost_process(error: RuntimeError) -> bool:
    """Whether torch.distributed raised it because another process has gone."""
    if dist.is_available() and isinstance(error, (dist.DistBackendError, dist.DistNetworkError)):
        return _OTHERS.search(str(error)) is not None
    return _GLOO.search(str(error)) is not None

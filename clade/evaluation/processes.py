"""One process, or those of torchrun, which share the pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Processes:
    """This process among ``world``; it takes every ``world``-th picture from ``rank`` on."""

    rank: int = 0
    world: int = 1

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in the order of their ranks."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def in_turn(self) -> Iterator[None]:
        """``for _ in processes.in_turn(): ...`` runs once here; in the first process before all others.

        What the first one leaves on disk is there for them.
        """
        if self.rank > 0:
            dist.barrier()
        yield
        if self.world > 1 and self.rank == 0:
            dist.barrier()


@contextmanager
def processes(device: torch.device) -> Iterator[tuple[Processes, torch.device]]:
    """The processes that torchrun started, or this one alone, and the device of this one."""
    if dist.is_available() and dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size()), device
        return
    if is_alone():
        yield Processes(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()


def is_first() -> bool:
    """Whether this is the process that tells and writes: the only one, or torchrun's first."""
    return is_alone() or os.environ["RANK"] == "0"


def is_alone() -> bool:
    """Whether torchrun has started no other process."""
    return not (dist.is_available() and dist.is_torchelastic_launched()) or os.environ["WORLD_SIZE"] == "1"

"""A recipe's devices -> Lightning Fabric."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from clade.errors import CladeError, RecipeError
from clade.recipes import Recipe
from clade.system.measure import threads
from clade.system.processor import resolve_precision
from clade.system.threads import choose_threads
from clade.training.folder import STATE
from clade.training.processes import tells_of_a_lost_process
from clade.training.state import read_facts


def make_fabric(recipe: Recipe) -> Fabric:
    """Fabric for the recipe's devices, or for those of torchrun where it started this process.

    Raises:
        RecipeError: more CUDA devices than there are.
    """
    config = recipe.training
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces the precision on every start
    devices, nodes = _processes(recipe)
    # Not Lightning's "auto", which would also choose accelerators that this code has never run on.
    accelerator = config.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and torch.cuda.device_count() < devices:
        raise RecipeError(
            f"training.devices is {devices}, but torch finds {torch.cuda.device_count()} CUDA devices. "
            "Use fewer, or training.accelerator=cpu."
        )
    return Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        precision="bf16-mixed" if resolve_precision(config.precision, accelerator) == "bf16" else "32-true",
    )


def _processes(recipe: Recipe) -> tuple[int, int]:
    """(processes on this machine, machines)"""
    if dist.is_available() and dist.is_torchelastic_launched():
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        return here, int(os.environ["WORLD_SIZE"]) // here
    return recipe.training.devices, 1


@contextmanager
def launched(recipe: Recipe, folder: Path, *, fresh: bool, quiet: bool) -> Iterator[Fabric]:
    """The processes of a training, each with torch on its number of threads as long as the block lasts.

    The number is that of ``training.threads``; else the one that the state in ``folder`` was trained with, because sums
    over other numbers of threads are rounded otherwise; else what is free now (:mod:`clade.system.threads`).

    Raises:
        CheckpointError: a state that cannot be read.
        CladeError: another process has stopped.
    """
    if folder.exists() and not folder.is_dir():
        raise CladeError(f"{folder}: is a file; a folder is needed for the training.")
    asked, state = recipe.training.threads, folder / STATE
    before = None if fresh or not state.exists() else read_facts(state).get("threads")
    fabric = make_fabric(recipe)
    # Before the other processes start, which would count as load; the first one's number then holds for all.
    processes, _ = _processes(recipe)
    count = choose_threads(asked, before, processes)
    free = choose_threads(processes=processes) if asked is None and before is not None else count
    fabric.launch()
    if fabric.is_global_zero and not quiet:
        if before is not None and count != before:
            print(
                f"Note: this training ran with {before} CPU threads, now {count}. Results stay valid, but are not "
                "bit-identical; leave out training.threads for that.",
                file=sys.stderr,
            )
        elif count > free:
            print(
                f"Note: goes on with {count} CPU threads as before, for the same bits, though {free} would find a free "
                f"core now; training.threads={free} may be faster.",
                file=sys.stderr,
            )
    with threads(fabric.broadcast(count)):
        try:
            yield fabric
        except RuntimeError as error:
            if fabric.world_size > 1 and tells_of_a_lost_process(error):
                raise CladeError("Another process of this training has stopped; its own message says why.") from error
            raise

"""A recipe's devices -> Lightning Fabric."""

from __future__ import annotations

import logging
import os

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from clade.config import Recipe
from clade.errors import RecipeError
from clade.processor import resolve_precision


def make_fabric(recipe: Recipe) -> Fabric:
    """Fabric for the recipe's devices, or for those of torchrun where it started this process.

    Raises:
        RecipeError: more CUDA devices than there are.
    """
    config = recipe.training
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces the precision on every start
    devices, nodes = config.devices, 1
    if dist.is_available() and dist.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
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

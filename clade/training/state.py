"""The training state: everything that makes a resumed run equal an uninterrupted one, in one safetensors file.

Shuffling, augmentation and latent noise follow from (seed, position) and hence have no state of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from clade.errors import CheckpointError
from clade.models.checkpoints import FORMAT, read_header, write_tensors


def save_state(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    facts: Mapping[str, Any],
) -> None:
    """Write modules, optimizers and plain facts (step, best score, recipe, ...), all or nothing."""
    tensors: dict[str, Tensor] = {f"{name}/{k}": v for name, m in modules.items() for k, v in m.state_dict().items()}
    for name, optimizer in optimizers.items():
        for index, moments in optimizer.state_dict()["state"].items():
            for moment, value in moments.items():
                tensors[f"{name}/{index}/{moment}"] = torch.as_tensor(value)
    tensors["rng/cpu"] = torch.get_rng_state()
    write_tensors(path, tensors, {"format": FORMAT, "training": dict(facts)})


def read_facts(path: Path) -> dict[str, Any]:
    """The plain facts of a training state.

    Raises:
        CheckpointError: not a training state, or damaged.
    """
    header = read_header(path)
    if "training" not in header:
        raise CheckpointError(f"{path}: is not a training state. It is the file state.safetensors of a run's folder.")
    return header["training"]


def load_state(path: Path, modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    """Put a training state back into modules and optimizers made by the same recipe.

    Raises:
        CheckpointError: the file is damaged or belongs to other networks.
    """
    try:
        tensors = safetensors.torch.load_file(path)
        for name, module in modules.items():
            module.load_state_dict(_below(tensors, name))
        for name, optimizer in optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in _below(tensors, name).items():
                index, moment = key.split("/")
                state.setdefault(int(index), {})[moment] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        torch.set_rng_state(tensors["rng/cpu"])
    except (RuntimeError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{path}: the training state does not fit the networks of this recipe ({error}). "
            "Start afresh with --fresh, or use another --out."
        ) from error


def _below(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}/")}

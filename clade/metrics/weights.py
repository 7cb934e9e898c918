"""Reading published weights without unpickling or downloading, and what else the metrics' networks share."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from clade.errors import CheckpointError, CladeError, first_line
from clade.metrics.judges.base import _full_precision

RANDOM = "random"
"""In place of a weights file: seeded random weights, for tests only; the name of what has them says so."""


def require(module: str, package: str, extra: str | None = None) -> Any:
    """The module; raises CladeError with the pip line where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        wanted = f"'clade[{extra}]' (or {package})" if extra else package
        raise CladeError(f"{package} is not installed ({first_line(error)}). Run: pip install {wanted}") from error


def hub_file(name: str, url: str, what: str) -> Path:
    """A file in torch hub's cache; raises CheckpointError with where it must be and how it gets there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        raise CheckpointError(
            f"{what} needs its weights, but {path} does not exist, and nothing is downloaded unasked. "
            f"`curl -L --create-dirs -o {path} {url}` fetches them; or name such a file (weights)."
        )
    return path


def read_tensors(path: Path, how: str) -> dict[str, Tensor]:
    """A state dict from a ``.pth`` or ``.safetensors`` file, never unpickled; raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file of weights. {how}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a stranger's file fails in many ways
        raise CheckpointError(
            f"{path}: cannot be read as plain tensors ({type(error).__name__}: {first_line(error)}). {how}"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: is not a mapping of names to tensors. {how}")
    return dict(state)


def fit_weights(network: nn.Module, state: Mapping[str, Tensor], path: Path, how: str) -> None:
    """Load all keys; raises CheckpointError naming the first that does not fit."""
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        told = " ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise CheckpointError(f"{path}: not the weights of this network ({told[:300]}). {how}") from error


def randomized(network: nn.Module, seed: int = 0) -> None:
    """He-normal weights, always the same, so that deep features keep their size; for tests."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                fan_in = math.prod(parameter.shape[1:])
                drawn = torch.randn(parameter.shape, generator=generator) * math.sqrt(2 / fan_in)
                parameter.copy_(drawn)


def network_key(name: str, network: nn.Module, options: Mapping[str, Any] | None = None) -> str:
    """Name and a hash of weights and options."""
    digest = hashlib.sha256(json.dumps(dict(options or {}), sort_keys=True).encode())
    for key, value in sorted(network.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.cpu().contiguous().numpy().data)
    return f"{name}-{digest.hexdigest()[:16]}"


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Float32 proper in convolutions and products, whatever the program around it uses, and no autocast."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with _full_precision(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Random numbers from a seed inside the block; those outside go on as if nothing was drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def named(name: str, weights: str | Path | None) -> str:
    return f"{name}-random" if weights == RANDOM else name

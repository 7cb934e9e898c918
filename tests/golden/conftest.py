"""The recorded behaviour of the published networks, ``../shared/golden`` beside the repository."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SHARED = Path(__file__).resolve().parents[3] / "shared"
FOLDER = SHARED / "golden"

Golden = Callable[[str], tuple[dict[str, torch.Tensor], dict]]


@functools.cache
def _load(name: str) -> tuple[dict[str, torch.Tensor], dict]:
    description = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    file = FOLDER / f"{name}.safetensors"
    tensors = load_file(file) if file.exists() else {}  # some recordings are numbers only
    for key, tensor in tensors.items():
        if key.startswith("state/") and tensor.dtype == torch.float16:
            tensors[key] = tensor.float()
    return tensors, description


@pytest.fixture(scope="session")
def golden() -> Golden:
    """``golden(name)`` -> (tensors by ``state/..``, ``in/..`` and ``out/..``, what the JSON beside them says).

    Every call hands out fresh dicts over the same tensors: do not write into a tensor.
    """
    if not FOLDER.is_dir():
        reason = "no golden data: the folder shared/golden is not beside the repository"
        if os.environ.get("CI") and SHARED.is_dir():
            pytest.fail(reason)
        pytest.skip(reason)

    def load(name: str) -> tuple[dict[str, torch.Tensor], dict]:
        tensors, description = _load(name)
        return dict(tensors), dict(description)

    return load

"""The recorded behaviour of the published networks: all of it in ``../shared/golden`` beside the repository, where that
is, and a small part in ``data/``."""

from __future__ import annotations

import functools
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

SHARED = Path(__file__).resolve().parents[3] / "shared"
FOLDER = SHARED / "golden"
PACKED = Path(__file__).parent / "data"

Golden = Callable[[str], tuple[dict[str, torch.Tensor], dict]]


@functools.cache
def _load(name: str) -> tuple[dict[str, torch.Tensor], dict]:
    if not FOLDER.is_dir() and not _path(f"{name}.json").exists():
        pytest.skip(f"the recording '{name}' is not in the repository, and shared/golden is not beside it")
    description = json.loads(_read(_path(f"{name}.json")))
    file = _path(f"{name}.safetensors")
    tensors = load(_read(file)) if file.exists() else {}  # some recordings are numbers only
    for key, tensor in tensors.items():
        if key.startswith("state/") and tensor.dtype == torch.float16:
            tensors[key] = tensor.float()
    return tensors, description


def _path(file: str) -> Path:
    return FOLDER / file if FOLDER.is_dir() else PACKED / f"{file}.gz"


def _read(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.fixture(scope="session")
def golden() -> Golden:
    """``golden(name)`` -> (tensors by ``state/..``, ``in/..`` and ``out/..``, what the JSON beside them says).

    Every call hands out fresh dicts over the same tensors: do not write into a tensor.
    """
    if os.environ.get("CI") and SHARED.is_dir() and not FOLDER.is_dir():
        pytest.fail("no golden data: the folder shared/golden is not beside the repository")

    def load(name: str) -> tuple[dict[str, torch.Tensor], dict]:
        tensors, description = _load(name)
        return dict(tensors), dict(description)

    return load

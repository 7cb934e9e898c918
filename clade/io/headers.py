"""What a checkpoint file says of itself, read without loading torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors

from clade._version import __version__
from clade.errors import CheckpointError
from clade.registry import near_match

KEY = "clade"
FORMAT = 1
PICKLED = (".pth", ".pt", ".ckpt")

_PACKAGE = Path(__file__).parents[1] / "weights"
PACKAGED = {"demo": _PACKAGE / "streets"}
"""Names of the weights that come with clade -> the label maps to draw with them."""


def find_checkpoint(path: str | Path) -> Path:
    """The file of a path, of a training's folder (its last.safetensors), or of a name of :data:`PACKAGED`.

    A file, or a training, of that name in the current folder comes first.
    """
    last = Path(path) / "last.safetensors"
    if last.is_file():
        return last
    return _PACKAGE / f"{path}.safetensors" if str(path) in PACKAGED and not Path(path).is_file() else Path(path)


def read_header(path: str | Path) -> dict[str, Any]:
    """The JSON header of a file of ours, or of weights that come with clade, by their name.

    Raises:
        CheckpointError: missing, not safetensors, or not written by clade.
    """
    path = find_checkpoint(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder, and no last.safetensors, a training's generator, is in it.")
    if not path.is_file():
        hint = "" if path.suffix or path.name != str(path) else near_match(str(path), PACKAGED)
        raise CheckpointError(
            f"{path}: no such file.{hint} A checkpoint is the .safetensors file that `clade train` writes, or "
            f"the name of weights that come with clade: {', '.join(PACKAGED)}."
        )
    if path.suffix in PICKLED:
        raise CheckpointError(
            f"{path}: is a pickled file, which is never opened here. For published weights: "
            "clade.import_official(name, torch.load(path, weights_only=True)), then clade.save."
        )
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except Exception as error:  # safetensors raises its own type, or OSError
        raise CheckpointError(f"{path}: not a safetensors file, or damaged ({error}).") from error
    if KEY not in metadata:
        raise CheckpointError(
            f"{path}: holds tensors, but says nothing of how to build the network. Weights in published layout go "
            "through clade.import_official(name, state_dict) and clade.save."
        )
    try:
        header = json.loads(metadata[KEY])
    except ValueError as error:
        raise CheckpointError(f"{path}: its header is damaged ({error}). Fetch or write the file anew.") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: its header is damaged (no mapping). Fetch or write the file anew.")
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: checkpoint format {header.get('format')}, this version of clade ({__version__}) reads {FORMAT}. "
            "Use the clade version that wrote it, or a newer one."
        )
    return header

"""One trained generator = one ``.safetensors`` file that carries its recipe and its label space."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from clade._version import __version__
from clade.errors import CheckpointError, CladeError
from clade.io.atomic import atomic_path
from clade.io.headers import FORMAT, KEY, PACKAGED, PICKLED, find_checkpoint, read_header
from clade.labels import LabelSpace
from clade.models import Generator, create_generator

__all__ = [
    "FORMAT",
    "LARGE",
    "PACKAGED",
    "Checkpoint",
    "find_checkpoint",
    "read_checkpoint",
    "read_header",
    "require_unfolded",
    "save",
    "write_tensors",
]

LARGE = 1 << 14
"""Tensors of so many values are stored in 16 bits on request. These are the kernels, nearly all of a file; what is
smaller (class tables, biases, statistics) would cost more of a picture than of the file (docs/demo.md)."""
_ROUNDING = 2.0**-10
"""Largest loss of a tensor in 16 bits, as a share of its norm; the format's own is at most half of it."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Args:
        generator: the network in eval mode, on the CPU.
        label_space: the classes that it was trained with, where known.
        recipe: the recipe that it was trained by, as plain values, where known.
        info: further facts: step, epoch, clade version.
    """

    generator: Generator
    label_space: LabelSpace | None
    recipe: dict[str, Any] | None
    info: dict[str, Any]


def save(
    generator: Generator,
    path: str | Path,
    label_space: LabelSpace | None = None,
    recipe: Any = None,
    info: Mapping[str, Any] | None = None,
    *,
    half: bool = False,
) -> None:
    """Write a generator made by ``create_generator`` (or imported) to one ``.safetensors`` file.

    Args:
        path: written under a temporary name and renamed.
        label_space: goes into the file, so that label files are read the same way ever after.
        recipe: a Recipe or its plain values.
        info: further plain values to keep.
        half: store the kernels in 16 bits (float16), for a file of half the size. Reading gives float32 again.

    Raises:
        CheckpointError: a generator that was not made by name, a label space of another number of classes, or weights
            that 16 bits cannot hold.
    """
    if Path(path).suffix in PICKLED:
        raise CheckpointError(
            f"{path}: that suffix means a pickled file. Name it .safetensors: that is what is written."
        )
    if Path(path).is_dir():
        raise CheckpointError(f"{path}: is a folder; needed is the name of a file that ends in .safetensors.")
    if not isinstance(generator, Generator) or not generator.name:
        raise CheckpointError(
            "This generator was not made by clade.create_generator, so a file could not say how to rebuild it. "
            "Make it by name (register your class in clade.models.GENERATORS)."
        )
    require_unfolded(generator)
    with torch.device("meta"):
        rebuilt = create_generator(generator.name, **generator.options).state_dict()
    own = {key: value.shape for key, value in generator.state_dict().items()}
    if {key: value.shape for key, value in rebuilt.items()} != own:
        raise CheckpointError(
            "The layers of this generator were changed after it was made (replace_spade?), so that a file could not "
            "say how to rebuild it. Make one by name that has these layers, and load the weights into it."
        )
    if label_space is not None and label_space.num_rows != generator.num_rows:
        raise CheckpointError(
            f"The label space has {label_space.num_rows} ids, the generator {generator.num_rows} (unknown included). "
            "Save it with the label space that it was built for."
        )
    header = {
        "format": FORMAT,
        "version": __version__,
        "generator": {"name": generator.name, "options": generator.options},
        "label_space": None if label_space is None else label_space.to_dict(),
        "recipe": recipe.to_dict() if hasattr(recipe, "to_dict") else recipe,
        "info": dict(info or {}),
    }
    tensors: Mapping[str, Tensor] = generator.state_dict()
    if half:
        header["half"] = True
        tensors = {key: _in_half(key, value) if _is_large(value) else value for key, value in tensors.items()}
    write_tensors(path, tensors, header)


def _is_large(value: Tensor) -> bool:
    return value.is_floating_point() and value.numel() >= LARGE


def _in_half(key: str, value: Tensor) -> Tensor:
    """float16; CheckpointError where that overflows, or loses more than a rounding to its 11 bits."""
    if not value.isfinite().all():
        raise CheckpointError(
            f"'{key}' has values that are no finite numbers, in whatever precision. Take weights from before the "
            "training went wrong."
        )
    stored = value.to(torch.float16)
    lost = (stored.double() - value.double()).norm()
    if not lost <= _ROUNDING * value.double().norm():  # also where it is infinite
        raise CheckpointError(
            f"'{key}' has values up to {value.abs().max():.3g}, which 16 bits do not hold (up to 65504, and full "
            "precision from 0.00006 on). Store these weights in 32 bits."
        )
    return stored


def require_unfolded(module: Any) -> None:
    """Raises CheckpointError for a network whose spectral norm was folded away, as a Synthesizer's is."""
    if getattr(module, "folded", False):
        raise CheckpointError(
            "The spectral norm of this generator was folded into its weights to draw faster, so that they no longer "
            "fit the network that a file would rebuild. Take the generator from before, or "
            "clade.read_checkpoint(path).generator."
        )


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Tensors and a JSON header -> a safetensors file, all or nothing, also when killed or when the power fails."""
    content = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(content, temporary, metadata={KEY: json.dumps(header)})


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file that :func:`save` wrote; nothing else is needed. The generator is in float32 however it is stored.

    Args:
        path: the file, or the name of weights that come with clade (``"demo"``).

    Raises:
        CheckpointError: missing, damaged, or not a generator's checkpoint.
    """
    path = find_checkpoint(path)
    header = read_header(path)
    if header.get("kind") == "judge":
        raise CheckpointError(f"{path}: holds a judge, not a generator; `clade judge score` and --judge take it.")
    if "generator" not in header:
        raise CheckpointError(
            f"{path}: holds a training state, not a generator. Beside it lie last.safetensors and best.safetensors."
        )
    try:
        name, options = header["generator"]["name"], _tuples(header["generator"]["options"])
        space, recipe = header["label_space"], header["recipe"]
        space = None if space is None else LabelSpace.from_dict(space, source="label space")
        info = {**header["info"], "version": header["version"]}
    except (KeyError, TypeError, AttributeError, CladeError) as error:
        raise CheckpointError(f"{path}: its header is damaged ({error}). Fetch or write the file anew.") from error
    imports = recipe.get("imports") if isinstance(recipe, dict) else None
    try:
        generator = create_generator(name, **options)
        generator.load_state_dict(safetensors.torch.load_file(path))
    except (CladeError, RuntimeError, TypeError) as error:
        hint = ""
        if imports:  # never by itself: the file may be a stranger's
            hint = f" Its training imported {', '.join(map(str, imports))}: import the same before (--import MODULE)."
        raise CheckpointError(
            f"{path}: the weights do not fit the network that the file names: {error}{hint}"
        ) from error
    return Checkpoint(generator=generator.eval(), label_space=space, recipe=recipe, info=info)


def _tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}

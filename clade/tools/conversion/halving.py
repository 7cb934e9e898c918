"""A checkpoint in half the bytes, and how far its pictures are from those of before."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clade.errors import CladeError
from clade.io.hashing import file_hash
from clade.io.images import to_uint8
from clade.labels import LabelMap
from clade.models import Generator
from clade.models.checkpoints import read_checkpoint, read_header, save
from clade.nn.spade_like import evaluating


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Between pictures I and I' of two generators, over all label maps.

    Attributes:
        psnr: 10 log10(4 / mean((I' - I)^2)), images in [-1, 1], in dB; inf for equal ones.
        largest: between values of the 8-bit pictures, 0..255.
        changed: share of the 8-bit pictures' values that differ.
    """

    maps: int
    psnr: float
    largest: int
    changed: float


def halve(path: str | Path, out: str | Path, recipe: dict[str, Any] | None = None) -> None:
    """Write a checkpoint anew with its kernels in 16 bits; ``info`` then has the hash of the file that it was.

    Args:
        recipe: in place of the one in the file.

    Raises:
        CheckpointError: no checkpoint, or weights that 16 bits cannot hold.
        CladeError: a checkpoint that is in 16 bits already.
    """
    if read_header(path).get("half"):
        raise CladeError(f"{path}: is stored in 16 bits already.")
    checkpoint = read_checkpoint(path)
    info = {key: value for key, value in checkpoint.info.items() if key != "version"}
    info["rounded_from_sha256"] = file_hash(path)
    save(checkpoint.generator, out, checkpoint.label_space, recipe or checkpoint.recipe, info, half=True)


@torch.no_grad()
def difference(original: Generator, other: Generator, maps: Iterable[LabelMap], seed: int = 0) -> Difference:
    """Draw label maps with both, the k-th with torch's random numbers from ``seed + k`` (latents, SEAN's noise)."""
    count, values, squares, largest, changed = 0, 0, 0.0, 0, 0
    with evaluating(original), evaluating(other):
        for label_map in maps:
            label_map = original.prepare(label_map)
            pictures = []
            for network in (original, other):
                with torch.random.fork_rng([]):
                    torch.manual_seed(seed + count)
                    pictures.append(network(label_map))
            before, after = pictures
            squares += (after - before).double().square().sum().item()
            levels = abs(to_uint8(after).astype(int) - to_uint8(before).astype(int))
            largest, changed = max(largest, int(levels.max())), changed + int((levels > 0).sum())
            count, values = count + 1, values + levels.size
    if not count:
        raise CladeError("No label map came to compare pictures on.")
    psnr = 10 * math.log10(4 * values / squares) if squares else math.inf
    return Difference(maps=count, psnr=psnr, largest=largest, changed=changed / values)

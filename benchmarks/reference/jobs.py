"""What the processes without the engine run: the networks in their published form."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import remove_spectral_norm

import clade
from benchmarks.reference.generator import ReferenceGenerator, one_hot
from benchmarks.reference.material import ROWS, drawing, eager, label_maps, mixed_maps, read_network
from clade import Generator
from clade.engine import keep_pages

FAIR = "published clade, folded, kept pages"


def published_network(generator: Generator, kind: str, width: int) -> ReferenceGenerator:
    network = ReferenceGenerator(kind, ROWS, width)
    network.load_state_dict(clade.export_official(generator))
    return network.eval()


def fair_jobs(folder: Path, width: int) -> dict[str, Callable[[], object]]:
    """The published form with what costs nothing to change."""
    keep_pages()
    network = published_network(read_network(folder, "clade"), "clade", width)
    for layer in network.modules():
        if hasattr(layer, "weight_orig"):
            remove_spectral_norm(layer)
    inputs = itertools.cycle((one_hot(label_map.ids, ROWS),) for label_map in mixed_maps())
    return {FAIR: partial(draw_published, network, inputs)}


def published_jobs(folder: Path, width: int) -> dict[str, Callable[[], object]]:
    """What the process without the engine runs."""
    maps = mixed_maps()
    hot = [one_hot(label_map.ids, ROWS) for label_map in maps]
    jobs: dict[str, Callable[[], object]] = {}
    for kind in ("clade", "clade-icpe"):
        network = published_network(read_network(folder, kind), kind, width)
        if kind == "clade":
            inputs = itertools.cycle((labels,) for labels in hot)
        else:
            offsets = [clade.positions(label_map.ids) for label_map in maps]
            inputs = itertools.cycle(zip(hot, offsets, strict=True))
        jobs[f"published {kind}"] = partial(draw_published, network, inputs)
    jobs["our eager clade"] = drawing(eager(read_network(folder, "clade")), maps)
    spade = eager(read_network(folder, "spade"))
    for name, own in label_maps().items():
        jobs[f"eager spade {name}"] = drawing(spade, own)
    return jobs


@torch.no_grad()
def draw_published(network: ReferenceGenerator, inputs: itertools.cycle[tuple[Tensor, ...]]) -> None:
    network(*next(inputs))

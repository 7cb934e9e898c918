"""CLADE's fused operation beside the separate ones that it stands for: time and memory kept for the backward.

`python -m benchmarks.modulation` measures one layer with LeakyReLU behind it, and whole residual blocks, forward and
backward, taking turns; `--rounds 2 --threads 1` is a quick look.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.common import Row, alternate, use_cores, write_table
from clade import LabelMap, LabelPyramid
from clade.complexity.measuring import scene_labels
from clade.engine import keep_pages
from clade.nn import CLADE, BatchNorm, ResidualBlock, look_up
from clade.nn.modulation import modulate

SEED = 0
NUM_ROWS = 151
LAYERS = ((2, 64, 256), (2, 128, 256), (2, 256, 128), (2, 512, 64), (2, 1024, 16))
BLOCKS = ((2, 128, 64, 256), (2, 512, 256, 64), (2, 1024, 1024, 16))
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
Calls = dict[str, Callable[[], object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    use_cores(args.threads)
    keep_pages()  # as `clade train` does
    torch.manual_seed(SEED)
    rows: list[Row] = []
    for shape in LAYERS:
        for precision in PRECISIONS:
            rows += layer_rows(*shape, precision, args.rounds)
    for shape in BLOCKS:
        for edges in (False, True):
            for precision in PRECISIONS:
                rows += block_rows(*shape, edges, precision, args.rounds)
    columns = ("what", "precision", "way", "forward (ms)", "backward (ms)", "faster (x)", "kept (MB)")
    notes = [
        "Separate: BatchNorm, dense maps of gamma and beta, multiply-add, LeakyReLU, plain concatenation of the edge. "
        "Fused: clade.nn.modulation. Both on channels-last features of a drawn street, 13 of 151 classes; "
        f"medians of {args.rounds} alternating runs. Freed memory stays with the process, as in training.",
        "Kept: tensors that autograd holds between forward and backward beyond the input and the parameters.",
    ]
    write_table("modulation", columns, rows, notes, seed=SEED)


def layer_rows(n: int, channels: int, side: int, precision: str, rounds: int) -> list[Row]:
    """One layer and its activation."""
    x = features(n, channels, side, PRECISIONS[precision])
    ids = pyramid(n, side).ids((side, side))
    gamma, beta = (table(NUM_ROWS, channels).requires_grad_() for table in (torch.rand, torch.randn))
    norm = BatchNorm(channels)

    def separate() -> Tensor:
        shift, scale = (look_up(table, ids, x.dtype) for table in (beta, gamma))
        return F.leaky_relu(torch.addcmul(shift, norm(x), scale), 0.2)

    def fused() -> Tensor:
        return modulate(x, ids, gamma, beta, norm, slope=0.2)

    what = f"layer {n}x{channels}x{side}x{side}"
    return measured(what, precision, {"separate": separate, "fused": fused}, (x, gamma, beta), rounds)


def block_rows(
    n: int, channels_in: int, channels_out: int, side: int, edges: bool, precision: str, rounds: int
) -> list[Row]:
    """A residual block of two layers, or three, with its convolutions."""
    x = features(n, channels_in, side, PRECISIONS[precision])
    labels = pyramid(n, side)
    blocks = {
        way: ResidualBlock(
            channels_in, channels_out, lambda c, layer=layer: layer(c, num_rows=NUM_ROWS, instance_edges=edges)
        )
        for way, layer in (("separate", SeparateCLADE), ("fused", CLADE))
    }

    def run(way: str) -> Callable[[], Tensor]:
        def call() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                return blocks[way](x, labels)

        return call

    parameters = [p for block in blocks.values() for p in block.parameters()]
    what = f"block {n}x{channels_in}-{channels_out}x{side}x{side}{' + edges' if edges else ''}"
    return measured(what, precision, {way: run(way) for way in blocks}, (x, *parameters), rounds)


class SeparateCLADE(CLADE):
    """The layer as separate operations."""

    def forward(self, x: Tensor, labels: LabelPyramid, slope: float | None = None) -> Tensor:
        y = self.normalize(x)
        scale, shift = self.modulation(labels, (y.shape[2], y.shape[3]), y.dtype)
        y = torch.addcmul(shift, y, scale)
        if self.edge is None:
            return y
        return torch.cat([y, self.edge(labels.edges((y.shape[2], y.shape[3]), y.dtype))], dim=1)

    def activates(self, x: Tensor) -> bool:
        return False


def measured(
    what: str, precision: str, ways: dict[str, Callable[[], Tensor]], leaves: tuple[Tensor, ...], rounds: int
) -> list[Row]:
    """A row per way: medians of forward and backward, how many times faster than the first, memory kept."""
    outputs: dict[str, Tensor] = {}
    calls: Calls = {}
    for way, forward in ways.items():
        calls[f"{way} forward"] = lambda way=way, forward=forward: outputs.update({way: forward()})
        calls[f"{way} backward"] = lambda way=way: outputs.pop(way).backward(gradient)
    gradient = torch.randn_like(next(iter(ways.values()))().detach().contiguous(memory_format=torch.channels_last))
    seconds = alternate(calls, rounds)
    medians = {name: statistics.median(times) * 1e3 for name, times in seconds.items()}
    rows: list[Row] = []
    first = 0.0
    for way, forward in ways.items():
        parts = (medians[f"{way} forward"], medians[f"{way} backward"])
        first = first or sum(parts)
        rows.append((what, precision, way, *parts, first / sum(parts), kept_bytes(forward, leaves) / 1e6))
    return rows


def kept_bytes(forward: Callable[[], Tensor], leaves: tuple[Tensor, ...]) -> int:
    """Bytes of storages that autograd keeps, without those of ``leaves``."""
    storages: dict[int, int] = {}
    with saving(storages):
        y = forward()
    for leaf in leaves:
        storages.pop(leaf.untyped_storage().data_ptr(), None)
    del y
    return sum(storages.values())


@contextmanager
def saving(storages: dict[int, int]) -> Iterator[None]:
    held = []  # so that no address is given out twice

    def pack(tensor: Tensor) -> Tensor:
        held.append(tensor)
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield


def features(n: int, channels: int, side: int, dtype: torch.dtype) -> Tensor:
    x = torch.randn(n, channels, side, side).to(dtype)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def pyramid(n: int, side: int) -> LabelPyramid:
    scene = scene_labels(NUM_ROWS, (256, 256))
    assert scene.instances is not None
    batch = LabelMap(scene.ids.expand(n, -1, -1), scene.instances.expand(n, -1, -1))
    labels = LabelPyramid(batch, NUM_ROWS)
    labels.ids((side, side))
    return labels


if __name__ == "__main__":
    main()

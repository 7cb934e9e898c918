"""The least that a generator can take on a CPU: its convolutions alone, with the weights in different orders.

`python -m benchmarks.convolutions` measures the convolutions of the SPADE-shaped generator of width 64 at 256x256 one
by one, and how fast this machine copies memory.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from benchmarks.common import Row, alternate, use_cores, write_table
from clade import LabelPyramid, create_generator
from clade.data.scenes import draw_scene
from clade.engine import keep_pages
from clade.engine.convolutions import PackedConv2d, can_pack
from clade.engine.winograd import WinogradConv2d, can_multiply, suitable
from clade.labels import LabelMap
from clade.nn import fold_spectral_norm
from clade.system.processor import multiplies_in_bf16

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    use_cores(args.threads)
    keep_pages()
    layers = convolutions(args.width)
    macs = sum(conv.weight[0].numel() * conv.out_channels * size[0] * size[1] for conv, size in layers)
    rows: list[Row] = []
    with torch.inference_mode():
        for dtype in (torch.float32, *([torch.bfloat16] if multiplies_in_bf16() else [])):
            totals: dict[str, float] = {}
            for conv, size in layers:
                for name, times in alternate(calls(conv, size, dtype), args.rounds).items():
                    totals[name] = totals.get(name, 0.0) + statistics.median(times)
            for name, seconds in totals.items():
                rows.append((name, str(dtype).removeprefix("torch."), seconds * 1e3, macs / seconds / 1e9))
        source = torch.rand(1 << 26)
        target = torch.empty_like(source)
        seconds = statistics.median(alternate({"": lambda: target.copy_(source)}, args.rounds)[""])
    moved = 2 * source.numel() * source.element_size() / seconds / 1e9
    write_table(
        "convolutions",
        ("weights and features", "type", "all convolutions (ms)", "multiply-adds (G/s)"),
        rows,
        [
            f"Sums over the convolutions of one picture of 256x256, width {args.width}: medians of {args.rounds} "
            f"alternating runs of each, {macs / 1e9:.1f} G multiply-adds, batch 1, {args.threads} threads. "
            "Multiply-adds per second are those of the plain sums also where minimal filtering takes fewer.",
            f"Copying 256 MiB: {moved:.1f} GB/s, read and written.",
        ],
        seed=SEED,
    )


def convolutions(width: int) -> list[tuple[nn.Conv2d, tuple[int, int]]]:
    """The backbone's convolutions with the sizes of their features."""
    torch.manual_seed(SEED)
    generator = create_generator("clade", num_classes=150, unknown_class=True, width=width, norm="none").eval()
    fold_spectral_norm(generator.requires_grad_(False))
    found: list[tuple[nn.Conv2d, tuple[int, int]]] = []

    def note(conv: nn.Conv2d, inputs: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        found.append((conv, (inputs[0].shape[2], inputs[0].shape[3])))

    for layer in generator.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(note)  # pyright: ignore[reportArgumentType]
    ids = draw_scene(2, seed=SEED, height=256, width=256).ids
    with torch.inference_mode():
        generator.synthesize(LabelPyramid(LabelMap(ids % 150), 151), None)
    for conv, _ in found:
        conv._forward_hooks.clear()
    return found


def calls(conv: nn.Conv2d, size: tuple[int, int], dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    first = copy.deepcopy(conv).to(dtype)
    last = copy.deepcopy(first).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    x = torch.randn(1, conv.in_channels, *size, dtype=dtype)
    y = x.contiguous(memory_format=torch.channels_last)
    found: dict[str, Callable[[], object]] = {"channels first": partial(first, x), "channels last": partial(last, y)}
    if can_pack():
        packed = PackedConv2d(first)
        found["channels last, packed"] = partial(packed, y)
        if dtype == torch.float32 and can_multiply():
            filtering = packed
            if suitable(first):
                filtering = WinogradConv2d(first)
                filtering.direct = packed
            found["channels last, packed, minimal filtering"] = partial(filtering, y)
    return found


if __name__ == "__main__":
    main()

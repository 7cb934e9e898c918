"""Time of the eager generator for one picture, per normalization layer and number of threads.

`python -m benchmarks.forward` measures the networks of the ADE20K setting (151 ids, 256x256, width 64) with random
weights, taking turns; `--width 16 --rounds 3` is a quick look.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from benchmarks.common import Row, alternate, use_cores, write_table
from clade import LabelMap, create_generator
from clade.data.scenes import draw_scene
from clade.models import Generator
from clade.nn import fold_spectral_norm

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    device = torch.device(args.device)
    label_map = _label_map().to(device)
    networks = {name: _network(name, args.width).to(device) for name in ("clade", "clade-icpe", "spade")}
    threads = [k for k in (1, 2) if k <= (os.cpu_count() or 1)] if device.type == "cpu" else [torch.get_num_threads()]
    rows: list[Row] = []
    for count in reversed(threads):  # a process can give cores away, but not take them back
        if device.type == "cpu":
            use_cores(count)
        calls: dict[str, Callable[[], object]] = {
            name: partial(_forward, network, label_map) for name, network in networks.items()
        }
        seconds = alternate(calls, args.rounds)
        base = statistics.median(seconds["spade"])
        for name, times in seconds.items():
            parameters = sum(p.numel() for p in networks[name].parameters()) / 1e6
            median = statistics.median(times)
            spread = (median * 1e3, min(times) * 1e3, max(times) * 1e3)
            rows.append((name, parameters, count, *spread, base / median))
    write_table(
        "forward",
        ("generator", "parameters (M)", "threads", "median (ms)", "min (ms)", "max (ms)", "faster than spade (x)"),
        rows,
        [
            f"Eager, float32, batch 1, 256x256, 150 classes and unknown, width {args.width}, spectral norm folded into "
            f"the weights, positions of clade-icpe computed in the call; {args.rounds} alternating runs each.",
        ],
        seed=SEED,
        device=args.device,
    )


def _network(name: str, width: int) -> Generator:
    torch.manual_seed(SEED)
    generator = create_generator(name, num_classes=150, unknown_class=True, width=width)
    fold_spectral_norm(generator.eval().requires_grad_(False))
    return generator


def _label_map() -> LabelMap:
    """A drawn street whose 13 ids are spread over the 151 of ADE20K."""
    ids = draw_scene(2, seed=SEED, height=256, width=256).ids
    return LabelMap(np.minimum(ids.astype(np.int64) * 12, 150).astype(np.uint8))


def _forward(network: Generator, label_map: LabelMap) -> None:
    with torch.inference_mode():
        network(label_map)
    if label_map.device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()

"""What every generator of the paper costs on this machine: parameters, multiply-adds, time, peak memory.

`python -m benchmarks.profile --dataset cityscapes` builds the networks at full size with random weights and measures
one picture and one training step of each. The table is written again after every step of the way, so that a run that is
cut short leaves what it had. `--quick` is a look at tiny networks; `--device cuda` measures a GPU.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from benchmarks.common import Row, alternate, use_cores, write_table
from clade.complexity import CONVENTIONS, count, inference_memory, training_memory
from clade.complexity.measuring import drawing
from clade.complexity.settings import SETTINGS, build

SEED = 0


@dataclass
class Line:
    """What is known of a generator so far; nan where it is still to come."""

    params: int
    macs: list[int]
    modulation: int
    memory: tuple[float, float] = (math.nan, math.nan)
    seconds: dict[int, list[float]] = field(default_factory=dict)
    """Threads -> seconds of every run."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="ade20k", choices=list(SETTINGS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--quick", action="store_true", help="width 4 and 128x128")
    args = parser.parse_args()

    setting = SETTINGS[args.dataset]
    size = (128, 128) if args.quick else setting.size
    changed = {"width": 4, "size": size} if args.quick else {}
    options = {name: setting.options(name, **changed) for name in setting.generators}
    cpu = torch.device(args.device).type == "cpu"
    counts = [k for k in (2, 1) if k <= (os.cpu_count() or 1)] if cpu else [torch.get_num_threads()]
    place = {"device": args.device, "precision": args.precision}
    lines: dict[str, Line] = {}

    def write(show: bool = False) -> None:
        columns = ["generator", "params (M)", "MACs, paper (G)", "MACs, true (G)", "modulation, true (G)"]
        columns += ["inference (GB)", "training step (GB)"]
        for k in reversed(counts):
            where = f"{k} thread{'s' * (k > 1)}" if cpu else args.device
            columns += [f"{where} (ms)", "min (ms)", "max (ms)"]
        flags = "".join(f" --{key} {getattr(args, key)}" for key in ("dataset", "rounds", "device", "precision"))
        write_table(
            f"profile-{args.dataset}" + ("-quick" if args.quick else ""),
            columns,
            [_row(name, line, counts) for name, line in lines.items()],
            [
                f"Setting of {args.dataset}, {size[0]}x{size[1]}, batch 1, random weights, {args.precision}. Time: "
                f"eager, eval mode, spectral norm folded, {args.rounds} runs of each in turn; median, least and most. "
                "nan: not measured before the run ended.",
                "Memory: peak of tensors as torch allocates them. Inference: weights and what a forward holds. "
                "Training step: weights, gradients, Adam's moments and activations of generator and multi-scale "
                "discriminator (hinge, feature matching), without perceptual loss and averaged weights.",
            ],
            seed=SEED,
            device=args.device,
            command="profile" + flags + (" --quick" if args.quick else ""),
            show=show,
        )

    for name in options:
        paper, true = (count(build(name, options[name], values=False), size, kind) for kind in CONVENTIONS)
        lines[name] = Line(paper.params, [paper.macs, true.macs], true.by_part["modulation"][1])
    write()
    calls: dict[str, Callable[[], object]] = {}
    for name, line in lines.items():
        torch.manual_seed(SEED)
        generator = build(name, options[name], values=True)
        line.memory = (inference_memory(generator, size, **place), training_memory(generator, size, **place))
        calls[name] = drawing(generator, size, **place)
        write()
    for k in counts:  # the most first: a process can give cores away, but not take them back
        if cpu:
            use_cores(k)
        alternate(calls, 0)  # warm up
        for _ in range(args.rounds):
            for name, times in alternate(calls, 1, warmup=0).items():
                lines[name].seconds.setdefault(k, []).extend(times)
            write()
    write(show=True)


def _row(name: str, line: Line, counts: list[int]) -> Row:
    row: list[str | int | float] = [name, line.params / 1e6, *(macs / 1e9 for macs in line.macs), line.modulation / 1e9]
    row += [memory / 1e9 for memory in line.memory]
    for k in reversed(counts):
        times = [1e3 * t for t in line.seconds.get(k, [math.nan])]
        row += [statistics.median(times), min(times), max(times)]
    return tuple(row)


if __name__ == "__main__":
    main()

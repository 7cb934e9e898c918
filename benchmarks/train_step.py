"""Time of one training step (generator and discriminator, with loading), per generator.

`python -m benchmarks.train_step` trains on drawn scenes, taking turns; `--width`, `--size` and `--batch` set the scale.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.common import Row, alternate, write_table
from clade import Recipe
from clade.engine import keep_pages
from clade.system.threads import use_threads
from clade.training.fit import stepper

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--threads", type=int, help="by default as many as find a free core")
    args = parser.parse_args()

    keep_pages()  # as `clade train` does
    use_threads(args.threads)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        calls: dict[str, Callable[[], object]] = {}
        for name in ("clade", "clade-icpe", "spade"):
            for precision in ("fp32", "bf16"):
                recipe = Recipe.from_dict(
                    {
                        "data": {"name": "scenes", "size": [args.size, args.size]},
                        "generator": {"name": name, "width": args.width},
                        "discriminator": {"width": args.width},
                        "losses": {"perceptual": 0, "l1": 2},
                        "training": {
                            "steps": 1000,
                            "batch_size": args.batch,
                            "precision": precision,
                            "seed": SEED,
                            "accelerator": args.accelerator,
                        },
                    }
                )
                step = stepper(recipe, Path(folder) / f"{name}-{precision}")
                calls[f"{name} {precision}"] = _synchronized(step) if args.accelerator == "cuda" else step
        seconds = alternate(calls, args.rounds, warmup=2)
    for name, times in seconds.items():
        generator, precision = name.split()
        median = statistics.median(times)
        base = statistics.median(seconds[f"spade {precision}"])
        rows.append(
            (generator, precision, median * 1e3, min(times) * 1e3, max(times) * 1e3, args.batch / median, base / median)
        )
    write_table(
        "train_step",
        ("generator", "precision", "median (ms)", "min (ms)", "max (ms)", "images/s", "faster than spade (x)"),
        rows,
        [
            f"One step of generator and discriminator with loading: {args.size}x{args.size}, batch {args.batch}, width "
            f"{args.width}, drawn scenes, hinge + feature matching + L1, no VGG; {args.rounds} alternating steps each.",
        ],
        seed=SEED,
        device="cuda" if args.accelerator == "cuda" else "cpu",
    )


def _synchronized(step: Callable[[], object]) -> Callable[[], object]:
    def run() -> None:
        step()
        torch.cuda.synchronize()

    return run


if __name__ == "__main__":
    main()

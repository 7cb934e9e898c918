"""How fast a training step is, and how much memory it takes, against the published one.

`python -m benchmarks.fast_training` measures the ADE20K setting (150 classes and unknown, width 64, 256x256, batch 2;
generator and discriminator, hinge loss and feature matching, no VGG) on two threads; `--width 8 --rounds 1` is a quick
look. The published step runs in a process of its own; steps of all take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.common import Row, alternate, use_cores, write_table
from benchmarks.reference import ReferenceTraining
from benchmarks.reference.material import CLASSES, ROWS, SEED, spread
from benchmarks.reference.memory import in_child, peak, reset_peak, resident, warm_libraries
from benchmarks.reference.process import Worker, serve
from benchmarks.reference.table import COLUMNS, Bar, line
from clade import Recipe
from clade.data import Batch, train_loader
from clade.data.scenes import UNKNOWN, draw_scene
from clade.engine import keep_pages
from clade.training.builders import build_augment, build_dataset
from clade.training.fit import stepper

NO_LABEL = 255
PICTURES = 8
PUBLISHED = "published, fp32"
OURS = {"ours, fp32": "fp32", "ours, bf16": "bf16"}
FASTER, SMALLER = Bar(3, True), Bar(0.6, False)
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args()

    use_cores(args.threads)
    if args.data:
        data = Path(args.data)
        if args.serve:
            serve({PUBLISHED: published_step(recipe(args, data, "fp32"))})
        else:
            print(json.dumps(memory_of(args.memory_of, args, data)))
        return
    numbers = ("rounds", "width", "size", "batch", "threads")
    same = [word for key in numbers for word in (f"--{key}", str(getattr(args, key)))]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        write_pictures(data, args.size)
        seconds = time_steps(args, data, same)
        memory = {
            name: in_child("benchmarks.fast_training", [*same, "--data", folder, "--memory-of", name])
            for name in (PUBLISHED, *OURS)
        }
        loading = loading_seconds(recipe(args, data, "fp32"))
    rows = [line(PUBLISHED, [1e3 * value for value in seconds[PUBLISHED]], "ms")]
    for name in OURS:
        ratio = statistics.median(seconds[PUBLISHED]) / statistics.median(seconds[name])
        rows.append(line(name, [1e3 * value for value in seconds[name]], "ms", PUBLISHED, ratio, FASTER))
    rows += memory_rows(memory)
    quick = (args.width, args.size, args.batch) != (64, 256, 2)
    write_table(
        "fast_training-quick" if quick else "fast_training",
        COLUMNS,
        rows,
        [
            f"One step of generator and discriminator: {args.size}x{args.size}, batch {args.batch}, {CLASSES} classes "
            f"and unknown, width {args.width}, hinge + 10 x feature matching, no VGG, no averaged weights; "
            f"{args.rounds} alternating steps each. All load the same augmented drawn scenes in the same way, "
            f"{loading * 1e3:.0f} ms of each step.",
            "Peak memory: what the process has in memory at most during three steps beyond what it has before the "
            "networks are built, each in a process of its own; weights and moments are those of both networks and "
            "their Adam.",
        ],
        seed=SEED,
        command="fast_training",
    )


def write_pictures(folder: Path, size: int) -> None:
    """Drawn scenes as a dataset folder of 150 classes."""
    for index in range(PICTURES):
        scene = draw_scene(index, seed=SEED, height=size, width=size)
        ids = np.where(scene.ids == UNKNOWN, NO_LABEL, spread(scene.ids, ROWS)).astype(np.uint8)
        for split in ("train", "val"):
            for name, pixels in (("images", scene.image), ("labels", ids)):
                path = folder / split / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)


def recipe(args: argparse.Namespace, data: Path, precision: str) -> Recipe:
    size = [args.size, args.size]
    return Recipe.from_dict(
        {
            "data": {
                "name": "folder",
                "root": str(data),
                "num_classes": CLASSES,
                "unknown": NO_LABEL,
                "size": size,
            },
            "generator": {"name": "clade", "width": args.width},
            "discriminator": {"width": args.width},
            "losses": {"perceptual": 0, "l1": 0},
            "training": {
                "steps": 100_000,
                "batch_size": args.batch,
                "precision": precision,
                "seed": SEED,
                "ema": 0,
                "accelerator": "cpu",
            },
        }
    )


def batches(recipe: Recipe) -> Iterator[Batch]:
    """The batches that the recipe's training sees."""
    dataset = build_dataset(recipe.data, "train")
    yield from train_loader(
        dataset,
        size=recipe.data.size,
        batch_size=recipe.training.batch_size,
        augment=build_augment(recipe.data),
        seed=SEED,
        with_positions=False,
        instances=False,
    )


def published_step(recipe: Recipe) -> Callable[[], object]:
    torch.manual_seed(SEED)
    width = recipe.generator.width
    assert width is not None
    training = ReferenceTraining("clade", ROWS, width, recipe.discriminator.width)
    source = batches(recipe)

    def step() -> dict[str, float]:
        batch = next(source)
        assert batch.image is not None
        losses = training.step(batch.label_map.ids, batch.image)
        return {name: float(loss) for name, loss in losses.items()}  # read for the curves, as ours are

    return step


def our_step(recipe: Recipe, folder: Path) -> Callable[[], object]:
    keep_pages()  # as `clade train` does
    return stepper(recipe, folder / f"run-{recipe.training.precision}")


def time_steps(args: argparse.Namespace, data: Path, same: list[str]) -> dict[str, list[float]]:
    """Seconds of each step by name."""
    with Worker("benchmarks.fast_training", [*same, "--data", str(data), "--serve"]) as published:
        calls: dict[str, Callable[[], object]] = {PUBLISHED: partial(published.do, PUBLISHED)}
        calls |= {name: our_step(recipe(args, data, precision), data) for name, precision in OURS.items()}
        return alternate(calls, args.rounds, warmup=2)


def loading_seconds(recipe: Recipe) -> float:
    """Median time of a batch once its pictures are decoded, which they are after the first epoch."""
    source = batches(recipe)
    times = []
    for _ in range(4 * PICTURES):
        begin = time.perf_counter()
        next(source)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[2 * PICTURES :])


def memory_of(name: str, args: argparse.Namespace, data: Path) -> dict[str, int]:
    """Peak bytes of three steps beyond what the process has before the networks are built."""
    warm_libraries()
    plan = recipe(args, data, OURS.get(name, "fp32"))
    next(batches(plan))
    before = resident()
    reset_peak()
    step = published_step(plan) if name == PUBLISHED else our_step(plan, data)
    for _ in range(3):
        step()
    return {"peak": peak() - before, "held": held_bytes(args.width)}


def held_bytes(width: int) -> int:
    """Bytes of both networks and the two moments of Adam, which every training holds between its steps."""
    with torch.device("meta"):
        training = ReferenceTraining("clade", ROWS, width, width)
    tensors = [t for n in (training.generator, training.discriminator) for t in n.parameters()]
    return 3 * sum(t.numel() * t.element_size() for t in tensors)


def memory_rows(memory: dict[str, dict[str, int] | None]) -> list[Row]:
    """Peak memory of each training, with and without what it holds between its steps."""
    rows: list[Row] = []
    base = memory[PUBLISHED]
    for name, own in memory.items():
        if own is None or base is None:
            return [line("peak memory: this system does not count it", [0], "MiB")]
        whole, beyond = f"{name}: peak", f"{name}: peak beyond weights and moments"
        for what, value, of, bar in (
            (whole, own["peak"], base["peak"], SMALLER),
            (beyond, own["peak"] - own["held"], base["peak"] - base["held"], None),
        ):
            if name == PUBLISHED:
                rows.append(line(what, [value / MIB], "MiB"))
            else:
                against = what.replace(name, PUBLISHED)
                rows.append(line(what, [value / MIB], "MiB", against, value / max(of, 1), bar))
    return rows


if __name__ == "__main__":
    main()

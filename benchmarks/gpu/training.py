"""Images per second and memory of training steps."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks.gpu.session import SEED, Item, Session
from clade import Recipe
from clade.training.fit import stepper

NETWORKS = ("clade", "clade, triton", "spade", "clade-icpe", "clade-icpe, triton", "pix2pixhd")


def items(session: Session) -> Iterator[Item]:
    session.table(
        "training",
        ("network", "precision", "batch", "images/s", "median (ms)", "min (ms)", "max (ms)", "peak memory (MB)"),
        [
            "A step of generator and discriminator: 256x256, width 64, hinge + feature matching + L1, no VGG; drawn "
            "scenes with their 13 classes, drawn by the loader's processes meanwhile. tf32: float32 with TF32 "
            "convolutions, torch's default; memory is what tensors take. triton: with CLADE_TRITON=1.",
        ],
    )
    batches = (2,) if session.quick else (16, 8, 32, 1)
    precisions = ("bf16",) if session.quick else ("bf16", "tf32", "fp32")
    for batch in batches:
        for precision in precisions:
            for network in NETWORKS[:2] if session.quick else NETWORKS:
                yield f"{network} {precision} batch {batch}", partial(_measure, session, network, precision, batch)


def _measure(session: Session, network: str, precision: str, batch: int) -> None:
    name, _, kernels = network.partition(", ")
    with patch.dict(os.environ, {"CLADE_TRITON": "1" if kernels else "0"}):
        _measure_steps(session, network, name, precision, batch)


def _measure_steps(session: Session, network: str, name: str, precision: str, batch: int) -> None:
    quick, cuda = session.quick, session.device.type == "cuda"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    width, size = (4, 64) if quick else (64, 256)
    recipe = Recipe.from_dict(
        {
            "data": {
                "name": "scenes",
                "size": [size, size],
                "workers": 0 if quick else max(1, min(12, (os.cpu_count() or 2) - 2)),
            },
            "generator": {"name": name, "width": width},
            "discriminator": {"width": width},
            "losses": {"perceptual": 0, "l1": 2},
            "training": {
                "steps": 1000,
                "batch_size": batch,
                "precision": "bf16" if precision == "bf16" else "fp32",
                "seed": SEED,
                "accelerator": session.device.type,
            },
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        step = stepper(recipe, Path(folder))
        for _ in range(1 if quick else 3):
            step()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        times: list[float] = []
        until = time.monotonic() + (0 if quick else 3)
        while len(times) < 2 or (len(times) < 100 and time.monotonic() < until):
            begin = time.perf_counter()
            step()  # reads its losses, so that it ends when the device is done
            times.append(time.perf_counter() - begin)
    memory: int | str = torch.cuda.max_memory_allocated() // 2**20 if cuda else ""
    median = statistics.median(times)
    # The mean, because a step that waits for its pictures makes up for others.
    speed = batch * len(times) / sum(times)
    session.add(
        "training", (network, precision, batch, speed, median * 1e3, min(times) * 1e3, max(times) * 1e3, memory)
    )

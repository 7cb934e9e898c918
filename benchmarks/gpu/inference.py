"""Latency, throughput and correctness of the generators, in each way of running them."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.gpu.session import SEED, Item, Session
from benchmarks.gpu.timing import interval, latencies
from clade import LabelMap, create_generator
from clade.data.scenes import draw_scene
from clade.engine import Engine
from clade.models import Generator
from clade.nn import fold_spectral_norm

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "backbone": ("clade", {"norm": "none"}),
    "clade": ("clade", {}),
    "clade-icpe": ("clade-icpe", {}),
    "spade": ("spade", {}),
    "pix2pixhd": ("pix2pixhd", {}),
}
PRECISIONS = ("bf16", "tf32", "fp32")
CLASSES = 35

_EXPLAINED = (
    "35 classes, width 64, random weights with BatchNorm statistics of drawn scenes. backbone: the clade network with "
    "identity in its normalization's place. eager: the plain generator with spectral norm folded, bf16 by autocast; "
    "engine: clade.engine; compiled: its kernels by torch.compile; graph: those in a CUDA graph. An engine's spade is "
    "exact SPADE. tf32: float32 with TF32 convolutions, torch's default; fp32: without."
)


def latency_items(session: Session, first: bool) -> Iterator[Item]:
    """Batch 1; ``first`` are CLADE and its backbone at 256x256, all others come later."""
    if first:
        session.table(
            "latency",
            ("network", "size", "precision", "variant", "median (ms)", "min (ms)", "max (ms)", "over backbone (x)",
             "largest error", "PSNR (dB)"),
            [
                _EXPLAINED,
                "Batch 1, from a label map in memory, positions of clade-icpe given with it unless its name "
                "says otherwise, to the image on the device, which is idle before. Error and PSNR: against the eager "
                "picture in fp32, both scaled so that this one spans [-1, 1].",
            ],
        )  # fmt: skip
    for network, size, precision, variant in _latency_order(session):
        if (network in ("clade", "backbone") and size == sizes(session)[0]) == first:
            label = f"{network} {size[0]}x{size[1]} {precision} {variant}"
            yield label, partial(_latency, session, network, size, precision, variant)


def throughput_items(session: Session) -> Iterator[Item]:
    session.table(
        "throughput",
        ("network", "size", "precision", "variant", "batch", "images/s", "ms per batch", "peak memory (MB)"),
        [_EXPLAINED, "One batch after the other; memory is what tensors take, weights included."],
    )
    batches = (2,) if session.quick else (64, 16, 4, 1, 2, 8, 32)
    for size in sizes(session):
        for precision in ("bf16",) if session.quick else ("bf16", "tf32"):
            for variant in ("engine",) if session.quick else ("graph", "eager"):
                for network in NETWORKS:
                    label = f"{network} {size[0]}x{size[1]} {precision} {variant}"
                    yield label, partial(_throughput, session, network, size, precision, variant, batches)


def _latency_order(session: Session) -> Iterator[tuple[str, tuple[int, int], str, str]]:
    variants = ("eager", "engine") if session.quick else ("graph", "eager", "engine", "compiled")
    for size in sizes(session):
        for precision in PRECISIONS[:1] if session.quick else PRECISIONS:
            for variant in variants:
                for network in NETWORKS:  # the backbone first, which the others are compared with
                    yield network, size, precision, variant
                if variant != "eager":
                    yield "clade-icpe, positions in the call", size, precision, variant


def sizes(session: Session) -> tuple[tuple[int, int], ...]:
    """(height, width) that all networks draw; the first is the one of the goals."""
    return ((32, 64),) if session.quick else ((256, 256), (256, 512))


def _latency(session: Session, network: str, size: tuple[int, int], precision: str, variant: str) -> None:
    name = network.split(",")[0]
    generator = _generator(name, session.quick, session.device)
    maps = _maps(1, size, generator if name == network else None)
    call = runner(generator, session.device, precision, variant)
    wanted = _reference(name, session.quick, size, session.device)
    _set_tf32(precision)
    for _ in range(4):  # compiles and records, then replays what is compared
        image = call(maps)
    error, psnr = _difference(image, wanted)
    times = latencies(partial(call, maps), session.device, 0.01 if session.quick else 1.0)
    median = statistics.median(times)
    base = _base(session, size, precision, variant)
    ratio = median * 1e3 / base if base else (1.0 if network == "backbone" else "")
    spread = (median * 1e3, min(times) * 1e3, max(times) * 1e3)
    place = (network, f"{size[0]}x{size[1]}", precision, variant)
    session.add("latency", (*place, *spread, ratio, f"{error:.1e}", psnr))


def _base(session: Session, size: tuple[int, int], precision: str, variant: str) -> float | None:
    """Milliseconds of the backbone, run the same way."""
    for row in session.tables["latency"].rows:
        if row[:4] == ("backbone", f"{size[0]}x{size[1]}", precision, variant):
            return float(row[4])
    return None


def _throughput(
    session: Session, network: str, size: tuple[int, int], precision: str, variant: str, batches: tuple[int, ...]
) -> None:
    generator = _generator(network, session.quick, session.device)
    call = runner(generator, session.device, precision, variant)
    _set_tf32(precision)
    for batch in batches:
        maps = _maps(batch, size, generator)
        call(maps)
        call(maps)
        memory: int | str = ""
        if session.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = interval(partial(call, maps), session.device, 0.01 if session.quick else 0.4)
        if session.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated() // 2**20
        place = (network, f"{size[0]}x{size[1]}", precision, variant)
        session.add("throughput", (*place, batch, batch / seconds, seconds * 1e3, memory))


def runner(generator: Generator, device: torch.device, precision: str, variant: str) -> Callable[[LabelMap], Tensor]:
    """Label maps on the CPU -> images on the device, by the variant's way."""
    if variant == "eager":
        plain = fold_spectral_norm(copy.deepcopy(generator)).to(device)

        def call(maps: LabelMap) -> Tensor:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                return plain(maps.to(device)).float()

        return call
    return Engine(
        generator,
        device,
        "bf16" if precision == "bf16" else "fp32",
        compile=variant in ("compiled", "graph"),
        without=() if variant == "graph" else ("cuda-graph",),
    )


@lru_cache(maxsize=len(NETWORKS))
def _generator(network: str, quick: bool, device: torch.device) -> Generator:
    """On the CPU, with BatchNorm statistics as a training would have left them."""
    name, options = NETWORKS[network]
    torch.manual_seed(SEED)
    generator = create_generator(name, num_classes=CLASSES, width=4 if quick else 64, **options).to(device)
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        generator.train()(_maps(4, (64, 64) if quick else (256, 256), generator).to(device))
    for norm in norms:
        norm.momentum = 0.1
    return generator.eval().requires_grad_(False).cpu()


@lru_cache(maxsize=32)
def _reference(network: str, quick: bool, size: tuple[int, int], device: torch.device) -> Tensor:
    """The eager picture in float32 without TF32."""
    generator = _generator(network, quick, device)
    _set_tf32("fp32")
    return runner(generator, device, "fp32", "eager")(_maps(1, size, generator)).cpu()


@lru_cache(maxsize=64)
def _drawn(index: int, size: tuple[int, int]) -> np.ndarray:
    """A drawn scene whose 13 ids are spread over the 35."""
    return np.minimum(draw_scene(index, seed=SEED, height=size[0], width=size[1]).ids.astype(np.int64) * 3, CLASSES - 1)


def _maps(batch: int, size: tuple[int, int], generator: Generator | None) -> LabelMap:
    maps = LabelMap(torch.as_tensor(np.stack([_drawn(k % 8, size) for k in range(batch)])).to(torch.uint8))
    return maps if generator is None else generator.prepare(maps)


def _difference(image: Tensor, wanted: Tensor) -> tuple[float, float | str]:
    """Largest difference, and PSNR in dB for a range of 2, of pictures scaled to span [-1, 1]."""
    difference = (image.cpu().double() - wanted.double()) / wanted.double().abs().max()
    if not bool(difference.isfinite().all()):
        raise ValueError("the image holds values that are no numbers")
    mean = float(difference.square().mean())
    return float(difference.abs().max()), 10 * math.log10(4 / mean) if mean else "same"


def _set_tf32(precision: str) -> None:
    torch.backends.cudnn.allow_tf32 = precision == "tf32"

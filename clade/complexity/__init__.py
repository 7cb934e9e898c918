"""What a generator costs: parameters, multiply-adds, time and memory; whole, per part and per layer."""

from __future__ import annotations

import dataclasses

import torch

from clade.complexity.counting import count
from clade.complexity.measuring import inference_memory, time_generators, training_memory
from clade.complexity.result import CONVENTIONS, PARTS, Complexity, Layer, Memory, Timing
from clade.models import Generator

__all__ = [
    "CONVENTIONS",
    "PARTS",
    "Complexity",
    "Layer",
    "Memory",
    "Timing",
    "count",
    "inference_memory",
    "profile",
    "time_generators",
    "training_memory",
]


def profile(
    generator: Generator,
    size: tuple[int, int] = (256, 256),
    convention: str = "paper",
    *,
    measure: bool = False,
    rounds: int = 5,
    threads: int = 1,
    device: str = "cpu",
    precision: str = "fp32",
) -> Complexity:
    """Parameters and multiply-adds of a generator for one picture, and time and memory where they are asked for.

    Counting computes nothing: the network runs on shapes alone (torch's meta device), in eval mode, with spectral norm
    folded into its weights, on a map whose sides are padded to a multiple of ``generator.multiple`` as in every
    forward. A generator built under ``torch.device("meta")`` is enough.

    ``convention="paper"`` counts as the paper's tables do, to the printed digit: convolutions and linear layers, one
    more per output element of a convolution with bias, a transposed convolution on its output elements, and neither
    normalization nor modulation nor activations, with the exceptions that
    :func:`clade.complexity.rules.paper_macs` names. ``convention="true"`` counts every arithmetic operation that is
    executed (:func:`clade.complexity.rules.executed_macs`): products by their true multiply-adds, normalization two per
    element, all else one per element; moving data costs nothing.

    Args:
        generator: any generator; it is not changed.
        size: (height, width) of the picture.
        convention: ``paper`` or ``true``.
        measure: also measure time per picture, and peak memory of a forward and of a training step. Takes seconds to
            minutes; needs a generator with values.
        rounds, threads, device, precision: of the measurement: runs that count; torch's threads; ``cpu``, ``cuda``;
            ``fp32``, ``bf16``, ``auto``.

    Raises:
        CladeError: an unknown convention, a size that is none, or a measurement that cannot be made.
    """
    counted = count(generator, size, convention)
    if not measure:
        return counted
    place = {"device": device, "precision": precision}
    with torch.random.fork_rng():  # what is drawn here changes nothing in the program around it
        timing = time_generators({"": generator}, size, rounds=rounds, threads_used=threads, **place)[""]
        inference, training = inference_memory(generator, size, **place), training_memory(generator, size, **place)
    memory = Memory(inference, training, timing.device, timing.precision)
    return dataclasses.replace(counted, time=timing, memory=memory)

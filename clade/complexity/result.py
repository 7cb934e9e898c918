"""What counting and measuring give: numbers with their units, nothing else."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

CONVENTIONS = ("paper", "true")
PARTS = ("backbone", "normalization", "modulation", "style")


@dataclass(frozen=True)
class Layer:
    """What one module costs by itself, without the modules inside it."""

    name: str
    """Where it is in the generator; empty for the generator's own forward."""
    kind: str
    """Its class."""
    part: str
    """One of ``PARTS``."""
    params: int
    macs: int
    shape: tuple[int, ...] | None
    """Of its output, None where it did not run or gives no single tensor."""


@dataclass(frozen=True)
class Complexity:
    """What a generator costs for one picture.

    Attributes:
        size: (height, width) of the picture.
        convention: how multiply-adds were counted, ``paper`` or ``true``; see :func:`clade.profile`.
        by_layer: every module that has parameters or multiply-adds of its own, in the order of the network.
        time: seconds per picture, where it was measured.
        memory: peak memory, where it was measured.
    """

    size: tuple[int, int]
    convention: str
    by_layer: tuple[Layer, ...]
    time: Timing | None = None
    memory: Memory | None = None

    @property
    def params(self) -> int:
        """All parameters, frozen ones included; buffers (BatchNorm statistics, spectral norm's vectors) are none."""
        return sum(layer.params for layer in self.by_layer)

    @property
    def macs(self) -> int:
        """Multiply-adds of one picture, which the paper calls FLOPs."""
        return sum(layer.macs for layer in self.by_layer)

    @property
    def by_part(self) -> dict[str, tuple[int, int]]:
        """Part -> (parameters, multiply-adds).

        ``normalization`` is BatchNorm, InstanceNorm and their like, ``modulation`` all else in layers that read the
        label map (:class:`clade.nn.NormLayer`), ``style`` the style encoder, which has multiply-adds only where the
        network draws through it (SEAN), ``backbone`` the rest.
        """
        return {
            part: (
                sum(layer.params for layer in self.by_layer if layer.part == part),
                sum(layer.macs for layer in self.by_layer if layer.part == part),
            )
            for part in PARTS
        }


@dataclass(frozen=True)
class Timing:
    """Time per picture of the eager generator, in eval mode, with spectral norm folded into its weights.

    Attributes:
        seconds: of every run that counts.
        threads: of torch on the CPU.
        device: where it ran, ``cpu`` or the accelerator's name.
        precision: ``fp32``, or ``bf16`` by autocast.
    """

    seconds: tuple[float, ...]
    threads: int
    device: str
    precision: str

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def min(self) -> float:
        return min(self.seconds)

    @property
    def max(self) -> float:
        return max(self.seconds)


@dataclass(frozen=True)
class Memory:
    """Peak memory of one picture in bytes, of tensors as torch allocates them; None where it was not measured.

    Attributes:
        inference: weights and buffers, and the most that was allocated at once during a forward without gradients.
        training: weights, buffers and Adam's states of generator and discriminator, and the most that was allocated at
            once during a step of both (:func:`clade.complexity.training_memory` says what is inside).
        device: where it was measured, ``cpu`` or the accelerator's name.
        precision: ``fp32``, or ``bf16`` by autocast.
    """

    inference: int | None
    training: int | None
    device: str
    precision: str

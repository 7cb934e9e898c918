"""What makes a trained generator fast, one idea a class. Each can be left out; each leaves the pictures as they are.

They change a copy of the generator, in the order of :data:`OPTIMIZATIONS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from clade.engine.blocks import FusedBlock, fusable
from clade.engine.convolutions import PackedConv2d, can_pack, packable
from clade.engine.kernels import CompiledKernels
from clade.engine.neighbourhoods import SpadeTable
from clade.engine.small import SmallFirst
from clade.engine.tables import CladeTable, TableNorm
from clade.engine.winograd import WinogradConv2d, can_multiply, suitable
from clade.models import Generator
from clade.models.generators.spade_shaped import SpadeShapedGenerator
from clade.nn import CLADE, SPADE, BatchNorm, NormLayer, fold_spectral_norm
from clade.registry import Registry


@dataclass(frozen=True)
class Target:
    """What a generator is made fast for.

    Args:
        device: where it computes.
        precision: ``fp32`` or ``bf16``.
        compile: whether ``torch.compile`` may be used.
    """

    device: torch.device
    precision: str
    compile: bool


class Optimization(ABC):
    """One idea."""

    @abstractmethod
    def suits(self, generator: Generator, target: Target) -> bool:
        """Whether it does anything for this generator there."""

    @abstractmethod
    def apply(self, generator: Generator, target: Target) -> None:
        """Change the generator."""


OPTIMIZATIONS: Registry[type[Optimization]] = Registry("optimization")


@OPTIMIZATIONS.register("folded-spectral-norm")
class FoldedSpectralNorm(Optimization):
    """Spectral norm divides the weights once instead of in every forward."""

    def suits(self, generator: Generator, target: Target) -> bool:
        return True

    def apply(self, generator: Generator, target: Target) -> None:
        fold_spectral_norm(generator)


@OPTIMIZATIONS.register("class-tables")
class ClassTables(Optimization):
    """CLADE's batch statistics, gamma and beta become one scale and one shift per class and channel."""

    def suits(self, generator: Generator, target: Target) -> bool:
        return any(_parts(generator, self._foldable))

    def apply(self, generator: Generator, target: Target) -> None:
        _replace(generator, self._foldable, CladeTable)

    @staticmethod
    def _foldable(module: nn.Module) -> bool:
        return type(module) is CLADE and isinstance(module.normalize, BatchNorm)


@OPTIMIZATIONS.register("neighbourhood-tables")
class NeighbourhoodTables(Optimization):
    """SPADE's modulation is computed once per distinct 5x5 neighbourhood of the labels, not per pixel."""

    def suits(self, generator: Generator, target: Target) -> bool:
        return any(_parts(generator, partial(self._foldable, generator)))

    def apply(self, generator: Generator, target: Target) -> None:
        _replace(generator, partial(self._foldable, generator), SpadeTable)

    @staticmethod
    def _foldable(generator: Generator, module: nn.Module) -> bool:
        if type(module) is not SPADE or not isinstance(module.normalize, BatchNorm):
            return False
        # CC-FPSE's layers read features beside the labels.
        return module.shared.in_channels == generator.num_rows + module.instance_edges


@OPTIMIZATIONS.register("fused-blocks")
class FusedBlocks(Optimization):
    """Upsampling, look-up and activation in one pass over the features, for both layers that read a block's input."""

    def suits(self, generator: Generator, target: Target) -> bool:
        return isinstance(generator, SpadeShapedGenerator) and any(fusable(block) for block in generator.blocks)

    def apply(self, generator: Generator, target: Target) -> None:
        assert isinstance(generator, SpadeShapedGenerator)
        # A generator that draws in its own way may use a block's input for other things, too.
        before = generator._upsample_before if type(generator)._draw is SpadeShapedGenerator._draw else frozenset()
        fused = [k for k, block in enumerate(generator.blocks) if fusable(block)]
        for k in fused:
            generator.blocks[k] = FusedBlock(generator.blocks[k], k in before)  # pyright: ignore[reportArgumentType]
        generator._upsample_before -= before.intersection(fused)


@OPTIMIZATIONS.register("small-convolutions")
class SmallConvolutions(Optimization):
    """What reads upsampled features is computed before the upsampling wherever 2x2 pixels are alike."""

    def suits(self, generator: Generator, target: Target) -> bool:
        return target.device.type == "cpu" and any(_parts(generator, self._doubles))

    def apply(self, generator: Generator, target: Target) -> None:
        for _, _, block in _parts(generator, self._doubles):
            assert isinstance(block, FusedBlock)
            assert isinstance(block.conv1, nn.Conv2d)
            assert isinstance(block.conv_shortcut, nn.Conv2d)
            varies = isinstance(block.norm1, CladeTable) and block.norm1.modulates_by_position
            block.small = SmallFirst(None if varies else block.conv1, block.conv_shortcut)

    @staticmethod
    def _doubles(module: nn.Module) -> bool:
        # Where the number of channels stays, the weights are many against the pixels.
        if not isinstance(module, FusedBlock) or not module.upsample or not isinstance(module.norm_shortcut, TableNorm):
            return False
        return isinstance(module.conv_shortcut, nn.Conv2d) and module.conv_shortcut.bias is None


@OPTIMIZATIONS.register("winograd")
class Winograd(Optimization):
    """Convolutions in float32 of many channels with a part of their multiplications (minimal filtering)."""

    def suits(self, generator: Generator, target: Target) -> bool:
        if target.device.type != "cpu" or target.precision != "fp32" or not can_multiply():
            return False
        return any(suitable(module) for module in _network(generator))

    def apply(self, generator: Generator, target: Target) -> None:
        network = set(_network(generator))
        _replace(generator, lambda module: module in network and suitable(module), WinogradConv2d)


@OPTIMIZATIONS.register("bf16")
class Bfloat16(Optimization):
    """Convolutions, and products of tables, in bfloat16 with sums in float32; look-ups compute in float32."""

    def suits(self, generator: Generator, target: Target) -> bool:
        return target.precision == "bf16"

    def apply(self, generator: Generator, target: Target) -> None:
        for module in _network(generator):
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                module.to(torch.bfloat16)


@OPTIMIZATIONS.register("packed-convolutions")
class PackedConvolutions(Optimization):
    """Weights reordered once for the processor's convolutions, which otherwise do so in every call."""

    def suits(self, generator: Generator, target: Target) -> bool:
        return target.device.type == "cpu" and can_pack() and any(_parts(generator, packable))

    def apply(self, generator: Generator, target: Target) -> None:
        _replace(generator, packable, lambda conv: PackedConv2d(conv, getattr(conv, "packed_for", None)))


@OPTIMIZATIONS.register("channels-last")
class ChannelsLast(Optimization):
    """Weights in the order of features with a pixel's channels side by side, where they are in none of their own."""

    def suits(self, generator: Generator, target: Target) -> bool:
        return any(isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) for module in generator.modules())

    def apply(self, generator: Generator, target: Target) -> None:
        for module in generator.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


@OPTIMIZATIONS.register("compiled-kernels")
class CompiledPasses(Optimization):
    """What lies between two convolutions is one loop that ``torch.compile`` makes, for all sizes."""

    def suits(self, generator: Generator, target: Target) -> bool:
        return target.compile and any(isinstance(module, (FusedBlock, TableNorm)) for module in generator.modules())

    def apply(self, generator: Generator, target: Target) -> None:
        kernels = CompiledKernels()
        for module in generator.modules():
            if isinstance(module, (FusedBlock, TableNorm)):
                module.kernels = kernels


@OPTIMIZATIONS.register("cuda-graph")
class CudaGraph(Optimization):
    """All of a forward's GPU work is launched at once, recorded per size; see :class:`clade.engine.graphs.Graphs`."""

    def suits(self, generator: Generator, target: Target) -> bool:
        # Noise of its own and tables whose length depends on the picture cannot be recorded.
        varying = any(isinstance(module, SpadeTable) for module in generator.modules())
        return target.device.type == "cuda" and target.compile and not generator.stochastic and not varying

    def apply(self, generator: Generator, target: Target) -> None:
        """The engine records; see :class:`clade.engine.Engine`."""


def _network(generator: Generator) -> Iterator[nn.Module]:
    """All modules but the style encoder's, whose codes are to stay as exact as they were."""
    encoder = set() if generator.encoder is None else set(generator.encoder.modules())
    return (module for module in generator.modules() if module not in encoder)


def _parts(root: nn.Module, wanted: Callable[[nn.Module], bool]) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """(module, name, part) of every wanted part; not a layer inside another one, which uses it in its own way (ACE)."""
    for module in list(root.modules()):
        for name, part in list(module._modules.items()):
            inside = isinstance(module, NormLayer) and isinstance(part, NormLayer)
            if part is not None and wanted(part) and not inside:
                yield module, name, part


def _replace(root: nn.Module, wanted: Callable[[nn.Module], bool], build: Callable[..., nn.Module]) -> None:
    """Put ``build(part)`` in the place of every wanted part; one that is used twice stays one."""
    made: dict[nn.Module, nn.Module] = {}
    for module, name, part in list(_parts(root, wanted)):
        if part not in made:
            made[part] = build(part)
        setattr(module, name, made[part])

"""A trained generator made fast: same pictures, in less time and memory."""

from __future__ import annotations

import copy
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from clade.engine.graphs import Graphs
from clade.engine.optimizations import OPTIMIZATIONS, Optimization, Target
from clade.errors import CladeError
from clade.labels import LabelMap
from clade.models import Generator
from clade.nn import InstanceNorm
from clade.system.pages import keep_pages
from clade.system.processor import resolve_precision

__all__ = ["OPTIMIZATIONS", "Engine", "Optimization", "Target", "keep_pages"]


class Engine:
    """A generator's copy for inference, with every optimization that suits it.

    Args:
        generator: any generator of this library; it stays as it is.
        device: where to compute.
        precision: ``fp32``, whose images differ from the generator's by rounding (1e-5 on a CPU; a GPU's convolutions
            may use TF32); ``bf16``, by a PSNR of 45 dB or more for trained networks with batch normalization; ``auto``:
            bf16 for these where the device multiplies in it, else fp32
            (:func:`clade.system.processor.resolve_precision`).
        compile: let ``torch.compile`` make the passes between convolutions (seconds at the first picture; its cache on
            disk shortens that for later processes), and record CUDA graphs.
        without: names of optimizations to leave out; :data:`OPTIMIZATIONS` has all.

    ``applied`` names those in effect, ``generator`` is the copy.

    Raises:
        CladeError: an unknown precision or optimization, or an engine's generator.
    """

    def __init__(
        self,
        generator: Generator,
        device: str | torch.device = "cpu",
        precision: str = "auto",
        *,
        compile: bool = False,
        without: Collection[str] = (),
    ) -> None:
        for name in without:
            OPTIMIZATIONS[name]  # raises for an unknown one
        self.device = torch.device(device)
        if precision == "auto" and _loses_in_bf16(generator):
            precision = "fp32"
        self.precision = resolve_precision(precision, self.device)
        if getattr(generator, "accelerated", False):
            raise CladeError(
                "This generator was made fast already (clade.load, Synthesizer), and cannot be again. Give the one "
                "that was trained: clade.read_checkpoint(path).generator."
            )
        target = Target(self.device, self.precision, compile)
        self.generator: Generator = copy.deepcopy(generator).eval().requires_grad_(False).to(self.device)
        self.applied: list[str] = []
        for name in OPTIMIZATIONS:
            optimization = OPTIMIZATIONS[name]()
            if name not in without and optimization.suits(self.generator, target):
                optimization.apply(self.generator, target)
                self.applied.append(name)
        vars(self.generator).update(folded=True, accelerated=True)  # it is built of other parts now
        self.compiles = "compiled-kernels" in self.applied or "cuda-graph" in self.applied
        self._graphs = Graphs(self._drawn) if "cuda-graph" in self.applied else None

    def __call__(self, label_map: LabelMap | Tensor, z: Tensor | None = None) -> Tensor:
        """Label maps -> images (N, 3, H, W) float32 in [-1, 1], on the engine's device.

        Args:
            label_map: label maps anywhere; positions, where the generator uses them, are computed on the CPU.
            z: latents (N or 1, *latent_shape), for a generator with latent input; drawn from the prior if left out.

        Raises:
            LabelError: ids outside the classes.
            CladeError: latents that do not fit.
        """
        maps = self.generator.prepare(label_map if isinstance(label_map, LabelMap) else LabelMap(label_map))
        if maps.instances is not None and not self.generator.uses_instances:
            maps = LabelMap(maps.ids, None, maps.positions).check(self.generator.num_rows)
        with self.on_device(), torch.inference_mode():
            maps = maps.to(self.device)
            z = None if z is None else z.to(self.device)
            if z is None:
                z = self.generator.default_latent(len(maps), maps.size)
            return self._drawn(maps, z) if self._graphs is None else self._graphs(maps, z)

    def _drawn(self, maps: LabelMap, z: Tensor | None) -> Tensor:
        with torch.inference_mode(), self.autocast():
            return self.generator(maps, z=z).float().contiguous()

    def on_device(self) -> AbstractContextManager[object]:
        """The device that CUDA's streams and kernels belong to, where there are several."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    def autocast(self) -> AbstractContextManager[object]:
        """The type that operators choose by themselves."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def _loses_in_bf16(generator: Generator) -> bool:
    """Whether it normalizes by each picture's own statistics, which makes more of rounding (pix2pixHD: 32 to 41 dB)."""
    encoder = set() if generator.encoder is None else set(generator.encoder.modules())
    return any(isinstance(module, InstanceNorm) and module not in encoder for module in generator.modules())

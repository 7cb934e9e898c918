"""Parameters and multiply-adds of a generator, counted on shapes alone: nothing is computed."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from clade.complexity.result import CONVENTIONS, PARTS, Complexity, Layer
from clade.complexity.rules import executed_macs, is_normalization, paper_macs
from clade.errors import CladeError
from clade.labels import LabelMap, LabelPyramid
from clade.models import Generator
from clade.nn import NormLayer, fold_spectral_norm
from clade.registry import near_match


def count(generator: Generator, size: tuple[int, int] = (256, 256), convention: str = "paper") -> Complexity:
    """Parameters and multiply-adds of one picture; see :func:`clade.profile`."""
    if convention not in CONVENTIONS:
        hint = near_match(str(convention), CONVENTIONS)
        raise CladeError(f"There is no convention '{convention}'.{hint} Known: {', '.join(CONVENTIONS)}.")
    if len(size) != 2 or not all(isinstance(side, int) and side >= 1 for side in size):
        raise CladeError(f"size is {size!r}; needed is (height, width), two whole numbers of at least 1.")
    generator = replica(generator, "meta").eval()
    fold_spectral_norm(generator)  # divided once for all pictures, so not a part of any
    tally = _Tally(generator)
    labels = shape_pyramid(generator, size)
    with torch.no_grad():
        if convention == "paper":
            tally.by_module(lambda *call: paper_macs(*call, plain_batch_norm=generator.plain_batch_norm))
            generator.counted_forward(labels)
        else:
            tally.by_module(lambda *_: 0)
            with _Executed(tally):
                generator.counted_forward(labels)
    return Complexity(size=(size[0], size[1]), convention=convention, by_layer=tally.layers())


def shape_pyramid(generator: Generator, size: tuple[int, int]) -> LabelPyramid:
    """Labels of one picture without values: what a network asks of them has its shape and type, on the meta device."""
    positions = torch.zeros(1, 2, *size)  # given, because connected components need values
    label_map = LabelMap(torch.zeros(1, *size, dtype=torch.uint8), positions=positions)
    padded = label_map.padded(generator.multiple).check(generator.num_rows)
    return LabelPyramid(padded.to("meta"), generator.num_rows)


def replica(generator: Generator, device: torch.device | str) -> Generator:
    """A copy on another device whose tensors are shared where they lie there already: for reading, never for training.

    On the meta device a copy takes no memory. Hooks of the original stay with it.

    Raises:
        CladeError: the generator of a Synthesizer, which is built of other parts.
    """
    if getattr(generator, "accelerated", False):
        raise CladeError(
            "This generator is made for drawing only (clade.load, Synthesizer): its layers are merged, so they cannot "
            "be counted or measured one by one. Profile the one that was saved: clade.read_checkpoint(path).generator."
        )
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach().to(device), p.requires_grad) for p in generator.parameters()}
    memo |= {id(b): b.detach().to(device) for b in generator.buffers()}
    made = copy.deepcopy(generator, memo)
    for module in made.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks):
            hooks.clear()
    return made


class _Tally:
    """Counts by module. What runs is booked to the innermost module that is running."""

    def __init__(self, generator: Generator) -> None:
        self._modules = dict(generator.named_modules())
        self._parts = _parts(self._modules)
        self._running = [""]
        self._macs: Counter[tuple[str, str]] = Counter()
        self._shapes: dict[str, tuple[int, ...]] = {}

    def by_module(self, rule: Callable[[nn.Module, tuple[Any, ...], Any], int]) -> None:
        """Book ``rule(module, inputs, output)`` whenever a module has run."""

        def enter(name: str) -> Callable[..., None]:
            return lambda *_: self._running.append(name)

        def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self.book(rule(module, inputs, output))
            name = self._running.pop()
            if isinstance(output, Tensor):
                self._shapes[name] = tuple(output.shape)

        for name, module in self._modules.items():
            module.register_forward_pre_hook(enter(name))
            module.register_forward_hook(leave)

    def book(self, macs: int, part: str | None = None) -> None:
        name = self._running[-1]
        own = self._parts[name]
        self._macs[name, own if part is None or own == "style" else part] += macs

    def layers(self) -> tuple[Layer, ...]:
        rows = []
        for name, module in self._modules.items():
            params = sum(p.numel() for p in module.parameters(recurse=False))
            for part in PARTS:
                own = params if part == self._parts[name] else 0
                macs = self._macs[name, part]
                if own or macs:
                    rows.append(Layer(name, type(module).__name__, part, own, macs, self._shapes.get(name)))
        return tuple(rows)


def _parts(modules: Mapping[str, nn.Module]) -> dict[str, str]:
    parts: dict[str, str] = {}
    for name, module in modules.items():  # a module comes after those that it is in
        outer = parts.get(name.rpartition(".")[0], "backbone")
        if name == "encoder" or outer == "style":
            parts[name] = "style"
        elif is_normalization(module):
            parts[name] = "normalization"
        else:
            parts[name] = "modulation" if isinstance(module, NormLayer) else outer
    return parts


class _Executed(TorchDispatchMode):
    """Books what torch executes, operation by operation."""

    def __init__(self, tally: _Tally) -> None:
        super().__init__()
        self._tally = tally

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        macs, normalizes = executed_macs(func, args, output)
        self._tally.book(macs, "normalization" if normalizes else None)
        return output

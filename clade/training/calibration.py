"""BatchNorm statistics that belong to the averaged weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch

from clade.data import Batch
from clade.models import Generator
from clade.nn import BatchNorm


@torch.no_grad()
def calibrated(
    generator: Generator, batches: Iterable[Batch], run: Callable[[Generator, Batch, int], object]
) -> Generator:
    """A copy whose BatchNorm statistics are the means over ``batches``, measured with its own weights.

    Running averages of a moving average's statistics lag behind its weights, so that early pictures come out grey.

    Args:
        generator: not changed; returned as it is where it has no BatchNorm.
        batches: what to measure on; over all processes where there are several.
        run: draws a batch: (generator, batch, number of the batch).
    """
    if not any(isinstance(module, BatchNorm) for module in generator.modules()):
        return generator
    measured = copy.deepcopy(generator)
    layers = [module for module in measured.modules() if isinstance(module, BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over batches
        layer.train()
    for number, batch in enumerate(batches):
        run(measured, batch, number)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return measured.eval()

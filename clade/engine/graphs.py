"""CUDA graphs: a forward recorded once per size, and replayed without the processor in between."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clade.errors import first_line
from clade.labels import LabelMap

_KEPT = 8  # graphs; they share the memory of the largest forward
_WARM_UPS = 3

Draw = Callable[[LabelMap, Tensor | None], Tensor]


class Graphs:
    """Calls of one function of label maps and latents, recorded per shape.

    Where recording fails, it says so once, and calls the function as it is; for want of memory, for that shape only.
    Threads take turns.

    Args:
        draw: (label maps on the GPU, checked; latents or None) -> images. It must not depend on values on the host.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._recorded: OrderedDict[tuple[Any, ...], _Graph] = OrderedDict()
        self._failed = False
        self._too_large: set[tuple[Any, ...]] = set()
        self._pool: Any = None
        self._turn = threading.Lock()

    def __call__(self, label_map: LabelMap, z: Tensor | None) -> Tensor:
        with self._turn:
            return self._replayed(label_map, z)

    def _replayed(self, label_map: LabelMap, z: Tensor | None) -> Tensor:
        parts = (label_map.ids, label_map.instances, label_map.positions, z)
        key = tuple(None if part is None else (tuple(part.shape), part.dtype) for part in parts)
        if self._failed or key in self._too_large:
            return self._draw(label_map, z)
        if key not in self._recorded:
            try:
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                self._recorded[key] = _Graph(self._draw, label_map, z, self._pool)
            except torch.OutOfMemoryError:
                self._too_large.add(key)
                return self._draw(label_map, z)
            except RuntimeError as error:
                self._failed = True
                warnings.warn(
                    f"A CUDA graph could not be recorded ({first_line(error)}). Pictures are drawn without.",
                    RuntimeWarning,
                    stacklevel=2,
                )
                return self._draw(label_map, z)
            while len(self._recorded) > _KEPT:
                self._recorded.popitem(last=False)
        self._recorded.move_to_end(key)
        return self._recorded[key].replay(label_map, z)


class _Graph:
    def __init__(self, draw: Draw, label_map: LabelMap, z: Tensor | None, pool: Any) -> None:
        self._map = LabelMap(
            *(None if p is None else p.clone() for p in (label_map.ids, label_map.instances, label_map.positions))
        )
        self._map._extent = label_map._extent  # so that nothing is read back while recording
        self._z = None if z is None else z.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                draw(self._map, self._z)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._image = draw(self._map, self._z)

    def replay(self, label_map: LabelMap, z: Tensor | None) -> Tensor:
        pairs = (
            (self._map.ids, label_map.ids),
            (self._map.instances, label_map.instances),
            (self._map.positions, label_map.positions),
            (self._z, z),
        )
        for own, given in pairs:
            if own is not None and given is not None:
                own.copy_(given)
        self._graph.replay()
        return self._image.clone()

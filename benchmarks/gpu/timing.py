"""Seconds of a call on a device, by its own clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def latencies(call: Callable[[], object], device: torch.device, seconds: float) -> list[float]:
    """Seconds from an idle device to the call's result, for about ``seconds``, three to 200 times."""
    times: list[float] = []
    until = time.monotonic() + seconds
    while len(times) < 3 or (len(times) < 200 and time.monotonic() < until):
        times.append(_elapsed(call, 1, device))
    return times


def interval(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Seconds per call where one follows the other, the median over rounds of about a fifth of ``seconds``."""
    once = _elapsed(call, 1, device)
    count = max(1, min(500, int(seconds / 5 / max(once, 1e-6))))
    return statistics.median(_elapsed(call, count, device) / count for _ in range(5 if once < seconds else 3))


def recorded_interval(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """:func:`interval` of the kernels alone: the launches come from a CUDA graph of ten calls."""
    if device.type != "cuda":
        return interval(call, device, seconds)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # compile and allocate outside of the recording
        call()
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(10):
            call()
    return interval(graph.replay, device, seconds) / 10


def _elapsed(call: Callable[[], object], count: int, device: torch.device) -> float:
    if device.type != "cuda":
        begin = time.perf_counter()
        for _ in range(count):
            call()
        return time.perf_counter() - begin
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(count):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3

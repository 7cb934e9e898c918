"""How many threads torch is to compute with: as many as find a free core when the work starts.

Parallel loops end when their slowest thread does. A thread that shares its core with a busy neighbour holds up all the
others at the end of every loop, so that two threads beside one neighbour on two cores are slower than one thread
(docs/performance.md).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
"""Where the system tells of itself, in ``proc`` and ``sys``."""
SAMPLE = 0.1
"""Seconds that the load is looked at; the system counts in hundredths."""


def choose_threads(asked: int | None = None, before: int | None = None, processes: int = 1) -> int:
    """The number of threads for work that starts now.

    Args:
        asked: what the user says, which wins.
        before: what the same work began with, which comes next: other numbers of threads round sums otherwise.
        processes: that do the work together on this machine, and share what is free.

    Returns:
        One of those; torch's own number where ``OMP_NUM_THREADS`` sets it; else what is free, and no more than torch's.
    """
    given = before if asked is None else asked
    if given is not None:
        return given
    import torch

    own = torch.get_num_threads()
    return own if os.environ.get("OMP_NUM_THREADS") else min(own, max(1, free_cores() // processes))


def use_threads(asked: int | None = None) -> None:
    """Let torch compute on :func:`choose_threads` threads from now on: for programs, not for libraries."""
    import torch

    torch.set_num_threads(choose_threads(asked))


def free_cores() -> int:
    """How many cores nobody else keeps busy just now, of those that this process may use; at least 1.

    Known are the affinity, the quotas of control groups (both versions), and how busy its cores and these groups are
    with others. Where the system does not tell what its cores do, its load average counts; where there is none, only
    the number of cores.
    """
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    quotas = {folder: quota for folder in _groups() if (quota := _quota(folder)) is not None}
    first = _Sample.take(quotas)
    time.sleep(SAMPLE)
    last = _Sample.take(quotas)
    left = [len(cores) - _busy(first, last, cores)]
    left += [quota - _used(first, last, folder) for folder, quota in quotas.items()]
    return max(1, int(min(left) + 0.5))


@dataclass(frozen=True)
class _Sample:
    """What was counted until a moment: seconds by the clock, of this process, of groups; (busy, all) of each core."""

    clock: float
    own: float
    groups: dict[Path, float]
    cores: dict[int, tuple[int, int]]

    @classmethod
    def take(cls, groups: dict[Path, float]) -> _Sample:
        times = os.times()
        used = {folder: seconds for folder in groups if (seconds := _usage(folder)) is not None}
        return cls(time.monotonic(), times.user + times.system, used, _cores())


def _busy(first: _Sample, last: _Sample, cores: set[int]) -> float:
    """Cores' worth of work of others on ``cores``."""
    shares = []
    for core in cores:
        if core in first.cores and core in last.cores:
            busy, total = (b - a for a, b in zip(first.cores[core], last.cores[core], strict=True))
            if total > 0:
                shares.append(busy / total)
    if shares:
        return max(0.0, sum(shares) / len(shares) * len(cores) - _own(first, last))
    # Nothing that moves: a sandbox or another system.
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _used(first: _Sample, last: _Sample, folder: Path) -> float:
    """Cores' worth of work of others in a control group."""
    if folder not in first.groups or folder not in last.groups:
        return 0.0
    seconds = last.groups[folder] - first.groups[folder]
    return max(0.0, seconds / (last.clock - first.clock) - _own(first, last))


def _own(first: _Sample, last: _Sample) -> float:
    return (last.own - first.own) / (last.clock - first.clock)


def _cores() -> dict[int, tuple[int, int]]:
    """(busy, all) hundredths of seconds of each core so far, by its number."""
    found = {}
    for line in _lines("proc/stat"):
        name, *counts = line.split()
        if name[:3] == "cpu" and name[3:].isdigit() and len(counts) >= 5:
            # user, nice, system, idle, waiting for disks, two kinds of interrupts, and what went to other machines.
            numbers = [int(count) for count in counts[:8]]
            total = sum(numbers)
            found[int(name[3:])] = (total - numbers[3] - numbers[4], total)
    return found


def _groups() -> Iterator[Path]:
    """Folders of the control groups that may limit this process, its own and those around it."""
    for line in _lines("proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = ROOT / "sys/fs/cgroup" / controllers  # without controllers: version 2
        inner = mount / path.lstrip("/")
        # In a container the path may be that of the machine outside, of which only the top is there.
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(mount) and folder.is_dir())


def _quota(folder: Path) -> float | None:
    """Cores' worth of time that a control group may use."""
    for line in _lines(folder / "cpu.max"):
        quota, period = line.split()
        return None if quota == "max" else int(quota) / int(period)
    for quota, period in zip(_lines(folder / "cpu.cfs_quota_us"), _lines(folder / "cpu.cfs_period_us"), strict=False):
        return None if int(quota) < 0 else int(quota) / int(period)
    return None


def _usage(folder: Path) -> float | None:
    """Seconds of work of a control group so far."""
    for line in _lines(folder / "cpu.stat"):
        key, value = line.split()
        if key == "usage_usec":
            return int(value) / 1e6
    for line in _lines(folder / "cpuacct.usage"):
        return int(line) / 1e9
    return None


def _lines(path: str | Path) -> list[str]:
    """Of one of the system's files; none where it is not there."""
    try:
        return (ROOT / path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []

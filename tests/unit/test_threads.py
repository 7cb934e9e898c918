"""The number of threads follows from what is free, on a system that is played by files."""

import os
from types import SimpleNamespace

import pytest
import torch

from clade.system import threads
from clade.system.threads import choose_threads, free_cores


class System:
    """Four cores; ``busy`` is the load of each by all processes, ``own`` that of this one, ``group`` that of its group.

    Time passes in ``sleep`` only, and the files then tell of what was done in it.
    """

    def __init__(self, root, monkeypatch):
        self.root, self.busy, self.own, self.group = root, [0.0] * 4, 0.0, 0.0
        self.now, self.worked, self.used, self.jiffies = 100.0, 7.0, 50.0, [[500.0, 900.0] for _ in range(4)]
        monkeypatch.setattr(threads, "ROOT", root)
        monkeypatch.setattr(threads, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep))
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
        monkeypatch.setattr(os, "times", lambda: SimpleNamespace(user=self.worked, system=0.0))
        monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        self.usage = None
        self.write("proc/stat", self.stat())

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def stat(self):
        # user nice system idle iowait irq softirq steal guest guest_nice: the work is split, disks are waited for.
        rows = [
            f"cpu{k} {busy * 0.5:.0f} {busy * 0.1:.0f} {busy * 0.2:.0f} {idle * 0.75:.0f} {idle * 0.25:.0f} 0 0 "
            f"{busy * 0.2:.0f} 3 0"
            for k, (busy, idle) in enumerate(self.jiffies)
        ]
        return "\n".join(["cpu  1 2 3 4 5 6 7 8 9 10", *rows, "intr 5 0 0", "ctxt 12"]) + "\n"

    def sleep(self, _):
        seconds = 10.0  # long, so that hundredths do not round what is checked
        self.now += seconds
        self.worked += self.own * seconds
        self.used += self.group * seconds
        for core, share in zip(self.jiffies, self.busy, strict=True):
            core[0] += 100 * share * seconds
            core[1] += 100 * (1 - share) * seconds
        if (self.root / "proc/stat").exists():
            self.write("proc/stat", self.stat())
        if self.usage is not None:
            self.usage()


@pytest.fixture
def system(tmp_path, monkeypatch):
    return System(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("busy", "own", "free"),
    [
        ([0, 0, 0, 0], 0, 4),
        ([1, 0, 0, 0], 0, 3),
        ([0.25, 0.25, 0.25, 0.25], 0, 3),  # a neighbour that wanders
        ([1, 1, 1, 1], 0, 1),
        ([1, 1, 0.4, 0], 0, 2),
        ([1, 1, 0, 0], 1, 3),  # one of the two is ourselves
        ([0.1, 0.1, 0.1, 0.1], 0, 4),  # what a system does by itself
    ],
)
def test_cores_that_others_keep_busy_are_not_free(system, busy, own, free):
    system.busy, system.own = busy, own
    assert free_cores() == free


def test_only_cores_of_the_affinity_count(system, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3}, raising=False)
    system.busy = [1, 0, 1, 1]
    assert free_cores() == 1
    system.busy = [1, 0, 1, 0]
    assert free_cores() == 2


@pytest.mark.parametrize(("quota", "free"), [("max 100000", 4), ("250000 100000", 3), ("50000 100000", 1)])
@pytest.mark.parametrize("place", ["", "a", "a/b"])
def test_the_quota_of_any_group_around_the_process_limits(system, quota, free, place):
    system.write("proc/self/cgroup", "0::/a/b\n")
    (system.root / "sys/fs/cgroup/a/b").mkdir(parents=True)
    system.write(f"sys/fs/cgroup/{place}/cpu.max", f"{quota}\n")
    assert free_cores() == free


@pytest.mark.parametrize("path", ["/jobs/7", "/docker/of/the/machine/outside"])
def test_quotas_of_the_first_version_limit_too(system, path):
    system.write("proc/self/cgroup", f"5:memory:/\n4:cpu,cpuacct:{path}\n3:cpuset:/\n")
    place = "sys/fs/cgroup/cpu,cpuacct" + ("/jobs" if path == "/jobs/7" else "")
    system.write(f"{place}/cpu.cfs_quota_us", "200000\n")
    system.write(f"{place}/cpu.cfs_period_us", "100000\n")
    assert free_cores() == 2
    system.write(f"{place}/cpu.cfs_quota_us", "-1\n")
    assert free_cores() == 4


@pytest.mark.parametrize(("group", "own", "free"), [(0, 0, 3), (1, 0, 2), (1, 1, 3), (3, 0, 1)])
def test_a_quota_is_shared_with_the_others_of_the_group(system, group, own, free):
    """Though the machine's cores are idle otherwise: two processes of a container with three cores' worth."""
    system.write("proc/self/cgroup", "0::/\n")
    system.write("sys/fs/cgroup/cpu.max", "300000 100000\n")

    def usage():
        system.write("sys/fs/cgroup/cpu.stat", f"usage_usec {system.used * 1e6:.0f}\nuser_usec 5\n")

    usage()
    system.usage, system.group, system.own = usage, group, own
    assert free_cores() == free


@pytest.mark.parametrize("text", [None, "", "cpu  0 0 0 0\n", "cpu0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0\n"])
def test_where_the_system_does_not_tell_its_load_average_counts(system, monkeypatch, text):
    (system.root / "proc/stat").unlink()
    if text is not None:
        monkeypatch.setattr(system, "stat", lambda: text)
        system.write("proc/stat", text)
    assert free_cores() == 4
    monkeypatch.setattr(os, "getloadavg", lambda: (2.1, 0.0, 0.0), raising=False)
    assert free_cores() == 2
    monkeypatch.delattr(os, "getloadavg")
    assert free_cores() == 4


@pytest.fixture
def torch_own(monkeypatch):
    """Eight threads of torch's own, whatever this machine has."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_what_is_asked_for_wins_then_what_was_then_the_environment_then_what_is_free(torch_own, monkeypatch):
    monkeypatch.setattr(threads, "free_cores", lambda: 5)
    assert choose_threads() == 5
    assert choose_threads(processes=2) == 2
    assert choose_threads(processes=9) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert choose_threads() == 8
    assert choose_threads(before=3) == 3
    assert choose_threads(12, before=3) == 12


def test_not_more_than_torch_itself_would_take(torch_own, monkeypatch):
    """It counts cores, where the system counts what two threads can share."""
    monkeypatch.setattr(threads, "free_cores", lambda: 16)
    assert choose_threads() == 8

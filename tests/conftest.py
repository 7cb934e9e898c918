"""Settings of all tests."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from clade.system.processor import instruction_set

# One thread per process, also in those that tests start: the test processes already share the cores among them, and
# threads that wait for each other on busy cores take several times as long. Read when torch is loaded, so set before.
os.environ["OMP_NUM_THREADS"] = "1"
# As the command line sets it: where a test asks for more threads, those that wait leave the cores to the others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# Shared machines stall now and then, so no example has a deadline. CI draws the same examples every time: what it
# refuses must be the change's own fault.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_configure(config: pytest.Config) -> None:
    """What torch.compile keeps on disk is found again under another limit on the instruction set, and crashed the
    process. Asking for the set loads torch, which a process that only hands out tests to others need not wait for.
    """
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return
    kernels = Path(tempfile.gettempdir()) / f"clade_kernels_{os.getuid()}_{instruction_set()}"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(kernels))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What the imports made stays: looking through it for garbage, again and again, took a fifth of the tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)

"""Work in a process of its own: what ours changes for a whole process (the allocator) must not help the reference."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence


class Worker:
    """A child process that does one of its jobs when told to, so that runs of both processes can alternate.

    Args:
        module: run as ``python -m MODULE ARGUMENTS``; it calls :func:`serve`.
        arguments: of the command line.
    """

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def do(self, job: str) -> None:
        """One run of a job; returns when it is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{job}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line == f"done {job}\n":
                return
        raise RuntimeError(f"The process that runs '{job}' has ended with code {self._process.wait()}.")


def serve(jobs: Mapping[str, Callable[[], object]]) -> None:
    """Do the jobs that come on standard input, one name a line, until it is closed."""
    for line in sys.stdin:
        jobs[line.strip()]()
        print(f"done {line.strip()}", flush=True)


def run_command(command: Sequence[str], threads: int) -> None:
    """A whole program, on as many threads; its output is shown only where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with code {done.returncode}:\n{done.stdout}")

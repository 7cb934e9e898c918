"""Stopping a training by signal, at the end of a step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Stop:
    """Whether a signal has asked to stop."""

    requested: bool = False


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """SIGINT and SIGTERM ask to stop; a second one ends the process at once."""
    stop = Stop()

    before: dict[int, Any] = {}

    def ask(number: int, frame: Any) -> None:
        stop.requested = True
        signal.signal(number, before[number])

    # Python allows handlers in the main thread only; elsewhere, in a notebook's thread say, no signal can stop the run.
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    except ValueError:
        pass
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

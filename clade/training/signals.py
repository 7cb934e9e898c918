"""Stopping a training, by signal or because its time is up."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

GRACE = 5.0
"""Seconds that calibrating and validating may go on for once a training is to stop."""


@dataclass
class Stop:
    """Whether a training is to stop at the end of its step.

    Args:
        requested: a signal asked for it.
        until: when its time is up, by ``time.monotonic()``; None for never.
    """

    requested: bool = False
    until: float | None = None
    _noticed: float | None = None

    def limit(self, started: float, minutes: float | None) -> None:
        """Its time is up ``minutes`` after it was ``started``, by ``time.monotonic()``; None for never."""
        self.until = None if minutes is None else started + minutes * 60

    @property
    def asked(self) -> bool:
        return self.requested or (self.until is not None and time.monotonic() > self.until)

    @property
    def overdue(self) -> bool:
        """Whether it was to stop, and :data:`GRACE` seconds have passed since this was first looked at."""
        if not self.asked:
            return False
        if self._noticed is None:
            self._noticed = time.monotonic()
        return time.monotonic() - self._noticed > GRACE


class Hurried(Generic[T]):
    """Batches until a stop is overdue, the first one in any case.

    Args:
        batches: of this process.
        count: how many any process has, at most: ``overdue`` is asked as often in each, so that they can agree on it.
        overdue: whether to leave out the rest.
    """

    def __init__(self, batches: Iterable[T], count: int, overdue: Callable[[], bool]) -> None:
        self.batches, self.count, self.overdue = batches, count, overdue
        self.cut = False
        """Whether some were left out."""

    def __iter__(self) -> Iterator[T]:
        batches = iter(self.batches)
        for number in range(self.count):
            if number and self.overdue():
                self.cut = True
                return
            for batch in batches:
                yield batch
                break


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """SIGINT and SIGTERM ask to stop; a second one of either ends the process at once."""
    stop = Stop()

    before: dict[int, Any] = {}

    def ask(number: int, frame: Any) -> None:
        stop.requested = True
        # Not what was there before: a shell ignores SIGINT for its background jobs, and a second one must still count.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

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
            if handler is not None:  # None: it is not Python's, and cannot be put back
                signal.signal(number, handler)

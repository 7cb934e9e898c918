"""One thread that is kept busy: helpers make what it needs ahead of it, and put away what it made behind it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


@dataclass(frozen=True)
class Pace:
    """How fast pictures were made.

    Args:
        pictures: how many.
        seconds: from the start until the last was written.
        network: seconds inside the network.
        span: seconds from the network's first call to the end of its last.
    """

    pictures: int = 0
    seconds: float = 0.0
    network: float = 0.0
    span: float = 0.0

    @property
    def busy(self) -> float:
        """Share of the time from the network's first call to its last that it was at work, in [0, 1]."""
        return self.network / self.span if self.span else 0.0

    @property
    def busy_overall(self) -> float:
        """The same share of all the time, with the first files to read and the last ones to write."""
        return self.network / self.seconds if self.seconds else 0.0

    @property
    def rate(self) -> float:
        """Pictures per second."""
        return self.pictures / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        return (
            f"{self.pictures} pictures in {self.seconds:.1f} s ({self.rate:.1f} pictures/s), "
            f"network busy {100 * self.busy:.0f} % of the time"
        )


class Pipeline:
    """Helper threads around the work of the thread that calls, to be used as a context.

    Leaving it waits for all that was handed to :meth:`behind` and raises its errors. An error inside does so too, and
    goes on its way afterwards; on an interruption (Ctrl-C) only what has begun is finished. Either way no helper lives
    on.

    Args:
        workers: helper threads; with 0 everything happens in turn in the calling thread.
        depth: how many results of :meth:`ahead` may be ready or in the making, and how many calls of :meth:`behind` may
            wait or run, at most. It bounds the memory.
    """

    def __init__(self, workers: int, depth: int) -> None:
        self._pool: Executor = ThreadPoolExecutor(workers, "clade-helper") if workers else _InTurn()
        self._depth, self._ahead = depth, depth if workers else 1
        self._coming: deque[Future[Any]] = deque()
        self._going: deque[Future[Any]] = deque()
        self._begin = time.perf_counter()
        self._end: float | None = None
        self._calls: tuple[float, float] | None = None  # begin of the first, end of the last
        self._busy = 0.0

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        dropped = [*self._coming] if kind is None or issubclass(kind, Exception) else [*self._coming, *self._going]
        for future in dropped:
            future.cancel()
        self._pool.shutdown(wait=True)
        self._end = time.perf_counter()
        if kind is None:
            self.flush()

    def ahead(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, Future[R]]]:
        """Each item with ``function(item)`` to come, in order; some items are begun before they are asked for."""
        waiting: deque[tuple[T, Future[R]]] = deque()
        for item in items:
            future = self._pool.submit(function, item)
            waiting.append((item, future))
            self._coming.append(future)
            if len(waiting) == self._ahead:
                self._coming.popleft()
                yield waiting.popleft()
        while waiting:
            self._coming.popleft()
            yield waiting.popleft()

    def behind(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call ``function`` some time later; its error is raised by a later call, by :meth:`flush` or at the end."""
        while len(self._going) >= self._depth:
            self._going.popleft().result()
        self._going.append(self._pool.submit(function, *args, **kwargs))
        while self._going and self._going[0].done():
            self._going.popleft().result()

    def flush(self) -> None:
        """Wait for everything behind."""
        while self._going:
            self._going.popleft().result()

    def network(self, steps: Iterable[T]) -> Iterator[T]:
        """The steps, with the time that each takes to come counted as the network's."""
        iterator = iter(steps)
        while True:
            begin = time.perf_counter()
            try:
                step = next(iterator)
            except StopIteration:
                return
            end = time.perf_counter()
            self._busy += end - begin
            self._calls = (begin if self._calls is None else self._calls[0], end)
            yield step

    def pace(self, pictures: int) -> Pace:
        """What the time until now, or until the end, went for."""
        first, last = self._calls or (0.0, 0.0)
        return Pace(pictures, (self._end or time.perf_counter()) - self._begin, self._busy, last - first)


class _InTurn(Executor):
    """No threads: a call happens when it is submitted."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

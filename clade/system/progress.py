"""How far long work is: a bar on a terminal, elsewhere a line every few seconds, on stderr.

What a command results in goes to stdout; this never mixes with it.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

LINE_EVERY = 5.0
"""Seconds between two lines, at least, where there is no terminal to draw a bar in."""
_WINDOW = 60.0  # seconds that the speed is measured over, where more than one thing is done in them
_APART = 0.5  # seconds between what the speed is measured from


class Progress:
    """To be used as a context; :meth:`update` says how far the work is.

    At 80 columns all of a bar stays visible but the end of its text. Where there is no terminal, work that takes less
    than :data:`LINE_EVERY` seconds says nothing.

    Args:
        title: what is counted, as in ``step``.
        total: how many there are; None where nobody knows.
        done: how many are done already.
        unit, each: what the speed counts (``images``), and how many of these one of the total is.
        quiet: say nothing.
        keep: leave the bar on the terminal when the work is done.
        console: rich's to draw on; by default one for stderr.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        *,
        done: int = 0,
        unit: str = "",
        each: float = 1,
        quiet: bool = False,
        keep: bool = False,
        console: Console | None = None,
    ) -> None:
        self.title, self.total, self.done, self.unit, self.each, self.quiet = title, total, done, unit, each, quiet
        self._bar: Any = None
        if not quiet and (console is not None or sys.stderr.isatty()):
            self._bar, self._task = _bar(self, keep, console)
        self._last_line = time.monotonic()
        self._times: deque[tuple[float, int]] = deque()  # not from the start on: the first one takes longer

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, text: str = "", *, always: bool = False) -> None:
        """``done`` of the total are done; ``text`` stands at the end of the bar or line, which ``always`` comes now."""
        now = time.monotonic()
        self.done = done
        if len(self._times) > 2 and now - self._times[-2][0] < _APART:
            self._times.pop()
        self._times.append((now, done))
        while len(self._times) > 2 and now - self._times[1][0] > _WINDOW:
            self._times.popleft()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, pace=self.pace, text=text)
        elif always or now - self._last_line >= LINE_EVERY:
            self._last_line = now
            count = f"{self.title} {done}" + ("" if self.total is None else f"/{self.total}")
            self.say("  ".join(part for part in (count, self.pace, text) if part))

    def advance(self, count: int = 1, text: str = "") -> None:
        """``count`` more are done."""
        self.update(self.done + count, text)

    def say(self, text: str, *, always: bool = False) -> None:
        """A line of its own, above the bar where there is one; ``always``: also where all else is quiet."""
        if self._bar is not None:
            self._bar.console.print(text, soft_wrap=True, markup=False, highlight=False)
        elif always or not self.quiet:
            print(text, file=sys.stderr, flush=True)

    @property
    def pace(self) -> str:
        """Speed and time left, ``3.4 images/s, about 12 min left``, as far as they are known."""
        if len(self._times) < 2 or self._times[-1][1] <= self._times[0][1]:
            return ""
        (first, before), (last, done) = self._times[0], self._times[-1]
        speed = (done - before) / max(last - first, 1e-9)
        rate = speed * self.each
        shown = [f"{rate:.0f} {self.unit}/s" if rate >= 10 else f"{rate:.2g} {self.unit}/s"] if self.unit else []
        if self.total is not None and self.total > done:
            shown.append(f"about {duration((self.total - done) / speed)} left")
        return ", ".join(shown)


def track(
    items: Iterable[T], title: str, total: int | None = None, *, unit: str = "", quiet: bool = False
) -> Iterator[T]:
    """The items, while :class:`Progress` tells how many have been handed out and worked on."""
    if total is None and isinstance(items, Collection):
        total = len(items)
    with Progress(title, total, unit=unit, quiet=quiet) as progress:
        for item in items:
            yield item
            progress.advance()


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.4 h``"""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"


def runs_on(device: object, precision: str, processes: int = 1) -> str:
    """What work runs on, as its first line says: ``cpu, bf16, 2 threads``."""
    import torch

    threads = torch.get_num_threads()
    named = f"{processes} x {device}" if processes > 1 else str(device)
    return f"{named}, {precision}, {threads} thread{'s' * (threads != 1)}"


def _bar(progress: Progress, keep: bool, console: Console | None) -> tuple[Any, Any]:
    """rich's, and its task; (None, None) where the console is no terminal."""
    from rich import progress as bars
    from rich.console import Console
    from rich.table import Column

    console = console or Console(stderr=True)
    if not console.is_terminal:
        return None, None
    whole = Column(no_wrap=True)
    bar = bars.Progress(
        bars.TextColumn("{task.description}", markup=False),
        bars.MofNCompleteColumn(table_column=whole),
        bars.BarColumn(10),
        bars.TimeElapsedColumn(table_column=whole),
        bars.TextColumn("{task.fields[pace]}", markup=False),
        # It takes the room that is left, and loses its end where that is too little.
        bars.TextColumn("{task.fields[text]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
        console=console,
        transient=not keep,
        expand=True,
    )
    return bar, bar.add_task(progress.title, total=progress.total, completed=progress.done, pace="", text="")

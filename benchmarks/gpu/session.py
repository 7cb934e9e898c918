"""A benchmark that ends in time: parts take turns by weight, and every number is on disk as soon as it is known."""

from __future__ import annotations

import gc
import json
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.common import Row, write_table

Item = tuple[str, Callable[[], None]]
"""What is measured in one go: its name, and what does it."""
SEED = 0


@dataclass
class Table:
    columns: Sequence[str]
    notes: Sequence[str]
    rows: list[Row] = field(default_factory=list)


class OutOfTime(BaseException):
    """The whole benchmark's time is over; no Exception, so that nothing in between takes it for a failure."""


class Session:
    """Runs items, writes tables, keeps to the time.

    Args:
        device: what is measured.
        quick: everything tiny, to try the script itself.
        minutes: until when all has to be done; what does not fit is left out and said so.
        out: a folder that gets a copy of every table, and ``results.json``.
    """

    def __init__(self, device: torch.device, quick: bool, minutes: float, out: Path | None) -> None:
        self.device, self.quick, self.out = device, quick, out
        self.started = time.monotonic()
        self.end = self.started + 60 * minutes
        self.tables: dict[str, Table] = {}
        self.failed = False
        self.table("failures", ("what", "why"), ["What failed or was left out for lack of time."])

    def table(self, name: str, columns: Sequence[str], notes: Sequence[str]) -> None:
        """Begin a table; :meth:`add` fills it."""
        self.tables[name] = Table(columns, notes)

    def add(self, name: str, row: Row) -> None:
        """One more row, printed and written at once."""
        table = self.tables[name]
        assert len(row) == len(table.columns), f"{name}: {row}"
        table.rows.append(row)
        cells = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in row)
        print(f"[{time.monotonic() - self.started:4.0f} s] {name}: {', '.join(cells)}", flush=True)
        self.write(name)

    def show(self) -> None:
        """Print all tables."""
        for name, table in self.tables.items():
            if table.rows:
                self.write(name, show=True)

    def write(self, name: str, show: bool = False) -> None:
        """The table, and all of them as JSON where there is a folder for it."""
        table = self.tables[name]
        path = write_table(
            f"gpu-{name}", table.columns, table.rows, table.notes,
            seed=SEED, device=str(self.device), command="gpu", show=show,
        )  # fmt: skip
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, self.out / path.name)
            numbers = {
                key: [dict(zip(t.columns, row, strict=True)) for row in t.rows] for key, t in self.tables.items()
            }
            unfinished = self.out / "results.json.tmp"
            unfinished.write_text(json.dumps(numbers, indent=1), encoding="utf-8")
            unfinished.replace(self.out / "results.json")

    def run(self, parts: Sequence[tuple[str, float, Callable[[Session], Iterator[Item]]]]) -> None:
        """The parts in turn, each with its weight's share of the time left. ``failed`` says whether an item raised."""
        try:
            with self._limit():
                for number, (name, weight, items) in enumerate(parts):
                    now = time.monotonic()
                    share = weight / sum(other for _, other, _ in parts[number:])
                    self._run_part(name, items, now + share * (self.end - now))
        except OutOfTime:
            self.add("failures", ("the rest", "the time was over"))

    def _run_part(self, name: str, items: Callable[[Session], Iterator[Item]], deadline: float) -> None:
        longest, skipped = 0.0, []
        for label, work in items(self):
            begun = time.monotonic()
            if begun + longest > deadline:
                skipped.append(label)
                continue
            try:
                work()
            except Exception as error:
                traceback.print_exc()
                self.failed = True
                self.add(
                    "failures", (f"{name}: {label}", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
                )
            self._clean()
            longest = max(longest, time.monotonic() - begun)
        if skipped:
            self.add("failures", (name, f"no time for {len(skipped)}: {', '.join(skipped)}"))

    def _clean(self) -> None:
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    @contextmanager
    def _limit(self) -> Iterator[None]:
        """Raises OutOfTime inside the block when the time is over, where the system can."""
        if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(*_: object) -> None:
            raise OutOfTime

        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, max(0.01, self.end - time.monotonic()))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

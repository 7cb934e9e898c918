"""Rows of the tables that say what was measured, against what, and whether that is enough."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.common import Row

COLUMNS = ("what", "median", "min", "max", "unit", "against", "ratio", "bar", "reached")


@dataclass(frozen=True)
class Bar:
    """What a measured ratio is held against."""

    value: float
    at_least: bool
    unit: str = "x"

    def __str__(self) -> str:
        return f"{'at least' if self.at_least else 'at most'} {self.value:g} {self.unit}"

    def reached(self, value: float) -> str:
        return "yes" if (value >= self.value if self.at_least else value <= self.value) else "no"


def line(
    what: str, values: Sequence[float], unit: str, against: str = "", ratio: float | None = None, bar: Bar | None = None
) -> Row:
    """A row: median, least and most of the values, and how the ratio (or, without one, the median) meets the bar."""
    median = statistics.median(values)
    held = median if ratio is None else ratio
    return (
        what,
        *(f"{value:.4g}" for value in (median, min(values), max(values))),
        unit,
        against,
        "" if ratio is None else f"{ratio:.3g}",
        "" if bar is None else str(bar),
        "" if bar is None else bar.reached(held),
    )

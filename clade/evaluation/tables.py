"""Tables of systems: the best value of each column marked, as text, Markdown, CSV, LaTeX and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clade.errors import CladeError
from clade.registry import near_match


@dataclass(frozen=True)
class Column:
    """One score or cost.

    Args:
        key: its name for programs.
        label: its name for eyes.
        higher: whether a larger value is better; None where neither is.
        digits: after the point.
    """

    key: str
    label: str
    higher: bool | None
    digits: int = 2

    @property
    def heading(self) -> str:
        return self.label if self.higher is None else f"{self.label} {'↑' if self.higher else '↓'}"


@dataclass(frozen=True)
class Value:
    """A number, or the mean of several trainings' with their standard deviation (n - 1)."""

    mean: float
    std: float | None = None
    n: int = 1

    @classmethod
    def of(cls, values: Sequence[float]) -> Value | None:
        """Of the numbers of several trainings; None without any."""
        values = [value for value in values if math.isfinite(value)]
        if not values:
            return None
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))

    def text(self, digits: int, plus_minus: str = "±") -> str:
        shown = f"{self.mean:.{digits}f}"
        return shown if self.std is None else f"{shown} {plus_minus} {self.std:.{digits}f}"


@dataclass(frozen=True)
class Row:
    """One system, or the trainings of one recipe.

    Args:
        n: how many checkpoints it stands for.
    """

    name: str
    values: Mapping[str, Value | None]
    n: int = 1


@dataclass(frozen=True)
class Table:
    """Systems whose scores may be compared.

    Args:
        title: what it was measured on, in words.
        notes: what must be said below it.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def best(self, column: Column) -> set[str]:
        """Names of the rows with the best value, as printed; none where fewer than two rows have one."""
        shown = {
            row.name: float(f"{value.mean:.{column.digits}f}")
            for row in self.rows
            if (value := row.values.get(column.key)) is not None
        }
        if column.higher is None or len(shown) < 2:
            return set()
        top = (max if column.higher else min)(shown.values())
        return {name for name, value in shown.items() if value == top}

    @property
    def counted(self) -> bool:
        """Whether rows stand for several trainings."""
        return any(row.n > 1 for row in self.rows)

    def cells(self, plus_minus: str, marked: Callable[[str], str], missing: str) -> list[list[str]]:
        best = {column.key: self.best(column) for column in self.columns}
        lines = []
        for row in self.rows:
            line = [row.name] + ([str(row.n)] if self.counted else [])
            for column in self.columns:
                value = row.values.get(column.key)
                text = missing if value is None else value.text(column.digits, plus_minus)
                line.append(marked(text) if row.name in best[column.key] else text)
            lines.append(line)
        return lines

    def headings(self) -> list[str]:
        return ["system", *(["n"] if self.counted else []), *(column.heading for column in self.columns)]


def as_text(table: Table) -> str:
    """For a terminal; ``*`` stands behind the best values."""
    lines = [table.headings(), *table.cells("±", lambda text: f"{text}*", "-")]
    # Marked or not, the digits of a column stand below each other.
    lines = [[cell if cell.endswith("*") or not k else f"{cell} " for k, cell in enumerate(line)] for line in lines]
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    shown = [
        "  ".join(cell.rjust(w) if k else cell.ljust(w) for k, (cell, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    shown.insert(1, "-" * max(map(len, shown)))
    return "\n".join([table.title, "", *(line.rstrip() for line in shown), *_below(table, "* best")])


def as_markdown(table: Table) -> str:
    """The best values are bold."""
    cells = table.cells("±", lambda text: f"**{text}**", "-")
    headings = table.headings()
    lines = [headings, [":--", *["--:"] * (len(headings) - 1)], *cells]
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([table.title, "", *rows, *_below(table)])


def _below(table: Table, legend: str = "") -> list[str]:
    notes = [f"- {note}" for note in table.notes]
    marks = [legend] if legend and any(table.best(column) for column in table.columns) else []
    return ["", *marks, *notes] if marks or notes else []


def as_latex(table: Table) -> str:
    """A ``tabular`` for the booktabs package; the best values are bold."""
    headings = [_tex(text) for text in table.headings()]
    cells = table.cells("$\\pm$", lambda text: f"\\textbf{{{text}}}", "--")
    lines = [[_tex(line[0]), *line[1:]] for line in cells]
    body = [" & ".join(line) + r" \\" for line in lines]
    top = [
        *(f"% {' '.join(text.split())}" for text in (table.title, *table.notes)),
        rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
        r"\toprule",
        " & ".join(headings) + r" \\",
        r"\midrule",
    ]
    return "\n".join([*top, *body, r"\bottomrule", r"\end{tabular}"])


_TEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(sign, sign) for sign in text)


def as_csv(tables: Sequence[Table]) -> str:
    """One line per system, numbers in full; ``table`` numbers the tables, whose scores do not compare."""
    columns = list(dict.fromkeys(column.key for table in tables for column in table.columns))
    spread = any(table.counted for table in tables)
    header = ["table", "system", *(["n"] if spread else [])]
    for key in columns:
        header += [key, f"{key}_std"] if spread else [key]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for number, table in enumerate(tables, start=1):
        for row in table.rows:
            line: list[Any] = [number, row.name, *([row.n] if spread else [])]
            for key in columns:
                value = row.values.get(key)
                line.append("" if value is None else value.mean)
                if spread:
                    line.append("" if value is None or value.std is None else value.std)
            writer.writerow(line)
    return out.getvalue().rstrip("\n")


def as_json(tables: Sequence[Table]) -> str:
    """Everything; ``best`` names the systems per column."""
    return json.dumps(
        [
            {
                "title": table.title,
                "columns": [{"key": c.key, "label": c.label, "higher_is_better": c.higher} for c in table.columns],
                "rows": [
                    {
                        "system": row.name,
                        "n": row.n,
                        **{c.key: _number(row.values.get(c.key)) for c in table.columns},
                    }
                    for row in table.rows
                ],
                "best": {c.key: sorted(table.best(c)) for c in table.columns if c.higher is not None},
                "notes": list(table.notes),
            }
            for table in tables
        ],
        indent=1,
        ensure_ascii=False,
    )


def _number(value: Value | None) -> Any:
    if value is None or (value.std is None and value.n == 1):
        return None if value is None else value.mean
    return {"mean": value.mean, "std": value.std, "n": value.n}


_EACH: dict[str, Callable[[Table], str]] = {"table": as_text, "markdown": as_markdown, "latex": as_latex}
_ALL: dict[str, Callable[[Sequence[Table]], str]] = {"csv": as_csv, "json": as_json}
FORMATS = (*_EACH, *_ALL)


def render(tables: Sequence[Table], style: str) -> str:
    """Tables as text.

    Raises:
        CladeError: an unknown format.
    """
    if style in _ALL:
        return _ALL[style](tables)
    if style not in _EACH:
        raise CladeError(f"There is no format '{style}'.{near_match(style, FORMATS)} Known: {', '.join(FORMATS)}.")
    return "\n\n".join(_EACH[style](table) for table in tables)

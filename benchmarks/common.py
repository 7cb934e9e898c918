"""What every benchmark shares: timing in alternation (:mod:`clade.system.measure`), and the table it leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from clade.system.measure import alternate, machine_lines, machine_slug, processor, use_cores
from clade.system.processor import instruction_set, limited

__all__ = ["RESULTS", "Row", "alternate", "machine_lines", "machine_slug", "processor", "use_cores", "write_table"]

RESULTS = Path(__file__).parent / "results"

Row = Sequence[str | int | float]
"""One line of a table; a float is shown with three significant digits."""


def write_table(
    name: str,
    columns: Sequence[str],
    rows: Sequence[Row],
    notes: Sequence[str] = (),
    *,
    seed: int | None = None,
    device: str = "cpu",
    command: str | None = None,
    show: bool = True,
) -> Path:
    """Print the table, and write it to ``benchmarks/results/<name>-<machine>.md`` with what it was measured on.

    Where ``ONEDNN_MAX_CPU_ISA`` limits the processor, the name ends in what is left of it (``-avx2``).

    Args:
        name: of the benchmark, as in ``python -m benchmarks.<name>``.
        notes: what was measured and how, one paragraph each.
        command: what writes this table, where the name does not say it.
        show: print it too; a benchmark that takes long writes what it has every now and then, and prints the end.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [all(not isinstance(row[i], str) for row in rows) for i in range(len(columns))]
    machine = machine_lines(seed, device)
    slug = machine_slug(device)
    if device == "cpu":
        machine.insert(1, f"Instruction set: {instruction_set()}{' (ONEDNN_MAX_CPU_ISA)' if limited() else ''}")
        slug += f"-{instruction_set()}" if limited() else ""

    if show:
        _print(name, columns, numeric, cells, [*notes, *machine])
    lines = [f"# {name}", "", f"`python -m benchmarks.{command or name}`", ""]
    lines += [_markdown_row(columns), _markdown_row(["--:" if right else ":--" for right in numeric])]
    lines += [_markdown_row(row) for row in cells]
    lines += [line for note in notes for line in ("", note)]
    lines += ["", *(f"- {line}" for line in machine)]
    path = RESULTS / f"{name}-{slug}.md"
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
    unfinished.replace(path)
    return path


def _print(
    name: str, columns: Sequence[str], numeric: Sequence[bool], cells: Sequence[Sequence[str]], lines: Sequence[str]
) -> None:
    table = Table(title=name)
    for column, right in zip(columns, numeric, strict=True):
        table.add_column(column, justify="right" if right else "left")
    for row in cells:
        table.add_row(*row)
    console = Console()
    console.print(table)
    for line in lines:
        console.print(line, markup=False, highlight=False)


def _cell(value: str | int | float) -> str:
    if not isinstance(value, float):
        return f"{value:,}".replace(",", " ") if isinstance(value, int) else value
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

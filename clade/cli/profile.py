"""``clade profile``: its words, and the tables that it prints."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clade.complexity import CONVENTIONS, Complexity, Timing, count
from clade.complexity.figure import draw_figure_5
from clade.complexity.measuring import inference_memory, time_generators, training_memory
from clade.complexity.paper import Cell, Table, tables
from clade.complexity.settings import Setting, build, find_setting
from clade.errors import CladeError
from clade.io.atomic import atomic_path
from clade.models import Generator
from clade.models.base import GENERATORS
from clade.models.checkpoints import PACKAGED, read_checkpoint

Size = tuple[int, int]
MEASURED = {"threads": 1, "device": "cpu", "precision": "fp32"}
"""How time is measured where nothing else is said."""


@dataclass(frozen=True)
class Subject:
    """A generator to profile: by name and options, or from a checkpoint."""

    label: str
    size: Size
    name: str | None = None
    options: dict[str, Any] | None = None
    checkpoint: Path | None = None

    def generator(self, *, values: bool) -> Generator:
        """The network; without values on the meta device where it is made by name."""
        if self.checkpoint is not None:
            return read_checkpoint(self.checkpoint).generator
        assert self.name is not None
        assert self.options is not None
        return build(self.name, self.options, values=values)


def run(args: argparse.Namespace, size: Size | None) -> int:
    """The command, with its arguments parsed."""
    if args.tables and args.names:
        raise CladeError(f"--tables prints the paper's own tables; leave out {', '.join(args.names)}.")
    if args.tables:
        fixed = ("width", "num_classes", "convention", "layers", "memory", "size")
        given = [f"--{key.replace('_', '-')}" for key in fixed if getattr(args, key)]
        given += [f"--{key}" for key, default in MEASURED.items() if getattr(args, key) != default]
        if given:
            raise CladeError(
                f"--tables prints the paper's own settings on one CPU thread; leave out {', '.join(given)}."
            )
    drawn = None if args.figure is None else draw_figure_5(args.figure, args.dataset or "ade20k")
    if args.tables:
        found = tables(args.dataset, args.rounds if args.time else None)
    else:
        setting = find_setting(args.dataset or "ade20k")
        found = profiles(_subjects(args, setting, size), args)
    text = "\n".join(render(table, args.format) for table in found) if args.format != "json" else _json(found)
    if args.out is None:
        print(text)
    else:
        with atomic_path(args.out) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        print(args.out)
    if drawn is not None:
        print(drawn)
    return 0


def _subjects(args: argparse.Namespace, setting: Setting, size: Size | None) -> list[Subject]:
    if args.names and (args.width or args.num_classes) and not any(name in GENERATORS for name in args.names):
        raise CladeError("A checkpoint has its own width and classes; leave out --width and --num-classes.")
    subjects = []
    for name in args.names or setting.generators:
        if name not in GENERATORS and (name in PACKAGED or Path(name).suffix or Path(name).exists() or "/" in name):
            subjects.append(_of_checkpoint(Path(name), setting, size))
            continue
        options = setting.options(name, num_classes=args.num_classes, width=args.width, size=size)
        subjects.append(Subject(name, size or setting.size, name, options))
    return subjects


def _of_checkpoint(path: Path, setting: Setting, size: Size | None) -> Subject:
    recipe = read_checkpoint(path).recipe
    if size is None and recipe is not None:
        height, width = recipe["data"]["size"]
        size = (height, width)
    return Subject(str(path), size or setting.size, checkpoint=path)


def profiles(subjects: Sequence[Subject], args: argparse.Namespace) -> list[Table]:
    """One table over all generators, and with ``--layers`` one more for each."""
    conventions = CONVENTIONS if args.convention is None else (args.convention,)
    counted: dict[str, dict[str, Complexity]] = {}
    for subject in subjects:
        generator = subject.generator(values=False)
        counted[subject.label] = {kind: count(generator, subject.size, kind) for kind in conventions}
    times = _times(subjects, args) if args.time else {}
    columns = ["generator", "size", "params (M)", "modulation (M)"]
    columns += [f"MACs, {kind} (G)" for kind in conventions]
    columns += ["modulation, true (G)"] if "true" in conventions else []
    columns += ["time (ms)", "min (ms)", "max (ms)", "threads"] if args.time else []
    columns += ["inference (GB)", "training step (GB)"] if args.memory else []
    rows = []
    for subject in subjects:
        by_convention = counted[subject.label]
        any_one = by_convention[conventions[0]]
        row: list[Cell] = [
            subject.label,
            "x".join(map(str, subject.size)),
            any_one.params / 1e6,
            any_one.by_part["modulation"][0] / 1e6,
            *(by_convention[kind].macs / 1e9 for kind in conventions),
        ]
        if "true" in conventions:
            row.append(by_convention["true"].by_part["modulation"][1] / 1e9)
        if args.time:
            time = times[subject.label]
            row += [1e3 * time.median, 1e3 * time.min, 1e3 * time.max, time.threads]
        if args.memory:
            row += _memory(subject, args)
        rows.append(tuple(row))
    classes = args.num_classes or find_setting(args.dataset or "ade20k").num_classes
    where = f", {classes} classes as in {args.dataset or 'ade20k'}" if any(s.name for s in subjects) else ""
    found = [Table(f"Cost of one picture{where} (MACs: multiply-adds)", tuple(columns), tuple(rows))]
    return found + [_layers(label, kinds) for label, kinds in counted.items() if args.layers]


def _times(subjects: Sequence[Subject], args: argparse.Namespace) -> dict[str, Timing]:
    """Generators of one size take turns; all of them lie in memory at once."""
    found: dict[str, Timing] = {}
    for size in dict.fromkeys(subject.size for subject in subjects):
        generators = {subject.label: subject.generator(values=True) for subject in subjects if subject.size == size}
        found |= time_generators(
            generators,
            size,
            rounds=args.rounds,
            threads_used=args.threads,
            device=args.device,
            precision=args.precision,
        )
    return found


def _memory(subject: Subject, args: argparse.Namespace) -> list[Cell]:
    generator = subject.generator(values=True)
    place = {"device": args.device, "precision": args.precision}
    return [measure(generator, subject.size, **place) / 1e9 for measure in (inference_memory, training_memory)]


def _layers(label: str, by_convention: dict[str, Complexity]) -> Table:
    rows: dict[tuple[str, str], list[Cell]] = {}
    # What is executed comes first: it has rows that the paper's counting leaves out, and the order of the network.
    for kind, counted in sorted(by_convention.items(), key=lambda item: item[0] != "true"):
        for layer in counted.by_layer:
            shape = "" if layer.shape is None else "x".join(map(str, layer.shape[1:]))
            start: list[Cell] = [layer.name or "(itself)", layer.kind, layer.part, shape, layer.params]
            row = rows.setdefault((layer.name, layer.part), start + [0] * len(by_convention))
            row[len(start) + list(by_convention).index(kind)] = layer.macs
    columns = ("layer", "kind", "part", "output", "params", *(f"MACs, {kind}" for kind in by_convention))
    return Table(f"Layers of {label}", columns, tuple(tuple(row) for row in rows.values()))


def render(table: Table, style: str) -> str:
    """A table as text: ``table`` for a terminal, ``markdown`` or ``csv``."""
    if style == "csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([table.columns, *table.rows])
        return out.getvalue()
    cells = [[_shown(cell, column) for cell, column in zip(row, table.columns, strict=True)] for row in table.rows]
    right = [all(not isinstance(row[i], str) for row in table.rows) for i in range(len(table.columns))]
    if style == "markdown":
        lines = [table.columns, ["--:" if number else ":--" for number in right], *cells]
        return "\n".join([f"{table.title}", "", *("| " + " | ".join(line) + " |" for line in lines), ""])
    widths = [max(len(row[i]) for row in [list(table.columns), *cells]) for i in range(len(table.columns))]
    lines = [
        "  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in [list(table.columns), *cells]
    ]
    return "\n".join([table.title, "", lines[0], "-" * max(map(len, lines)), *lines[1:], ""])


def _shown(cell: Cell, column: str) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:g}" if "printed" in column or "rounded" in column else f"{cell:.3f}"
    return f"{cell:,}".replace(",", " ") if isinstance(cell, int) else cell


def _json(found: Sequence[Table]) -> str:
    return json.dumps(
        [
            {"title": table.title, "rows": [dict(zip(table.columns, row, strict=True)) for row in table.rows]}
            for table in found
        ],
        indent=1,
    )

"""Several checkpoints -> the paper's Table 1 of them: scores and costs side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clade.complexity import inference_memory, time_generators
from clade.data.prepared.shards import file_hash
from clade.errors import CladeError
from clade.evaluation.evaluating import evaluate
from clade.evaluation.result import Evaluation
from clade.evaluation.tables import Column, Row, Table, Value, render
from clade.metrics.scores import SCORES
from clade.models.checkpoints import find_checkpoint, read_checkpoint, read_header
from clade.training.folder import FREE

Size = tuple[int, int]
COSTS = (
    Column("parameters", "params (M)", False),
    Column("multiply_adds", "MACs (G)", False),
    Column("time", "time (ms)", False, 1),
    Column("memory", "memory (GB)", False, 3),
)
_SIZED = ("multiply_adds", "time", "memory")


@dataclass(frozen=True)
class System:
    """One of the systems that are compared.

    Attributes:
        path: its checkpoint; None where only its evaluation.json was given.
        costs: time in ms and memory in GB, as far as they were measured.
    """

    name: str
    evaluation: Evaluation
    path: Path | None
    costs: Mapping[str, float]

    @property
    def seed(self) -> int | None:
        recipe = self.evaluation.checkpoint["recipe"]
        return None if recipe is None else recipe["training"]["seed"]

    def value(self, key: str) -> float | None:
        if key in SCORES:
            return self.evaluation.scores.get(key)
        if key in ("parameters", "multiply_adds"):
            return self.evaluation.checkpoint[key] / {"parameters": 1e6, "multiply_adds": 1e9}[key]
        return self.costs.get(key)


@dataclass(frozen=True)
class Comparison:
    """Tables of systems: one for all of them, or several where protocol, data or weights differ."""

    systems: tuple[System, ...]
    tables: tuple[Table, ...]

    def render(self, style: str = "table") -> str:
        """As ``table``, ``markdown``, ``latex``, ``csv`` or ``json``."""
        return render(self.tables, style)


def compare(
    systems: Sequence[str | Path],
    data: str | Path | None = None,
    protocol: str | Path = "paper",
    *,
    seeds: bool = False,
    cost: bool = True,
    rounds: int = 5,
    threads: int = 1,
    device: str = "auto",
    **options: Any,
) -> Comparison:
    """Evaluate checkpoints, measure what they cost, and lay them side by side.

    Scores are only ranked within one table, whose systems share protocol, data and weights of extractors and judge.

    Args:
        systems: checkpoints, and evaluation.json files of others; ``NAME=PATH`` names one.
        data, protocol, device, options: of :func:`clade.evaluate`, for the checkpoints.
        seeds: group those that differ only in training.seed, and give mean and standard deviation.
        cost: also measure time per picture and peak memory of drawing one. Checkpoints of one size take turns; of a
            group the first one is measured.
        rounds, threads: of the timing: runs that count, torch's threads on a CPU.

    Raises:
        CladeError: as :func:`clade.evaluate`; one checkpoint twice, or two systems of one name.
    """
    named = [_named(str(system)) for system in systems]
    if not named:
        raise CladeError("No system came; needed are checkpoints, or evaluation.json files.")
    _require_different([name for name, _ in named], "are both called")
    if cost and min(rounds, threads) < 1:
        raise CladeError(f"rounds is {rounds} and threads {threads}; needed is at least 1 of each.")
    # What is wrong is said before hours of drawing.
    written = {name: Evaluation.load(path) for name, path in named if path.suffix == ".json"}
    headers = {name: read_header(path) for name, path in named if path.suffix != ".json"}
    _require_new({name: (file_hash(path), "") for name, path in named if name in headers})
    if seeds:
        for name, _ in named:
            _require_recipe(name, (written[name].checkpoint if name in written else headers[name]).get("recipe"))
    found = {
        name: written[name] if name in written else evaluate(path, data, protocol, device=device, **options)
        for name, path in named
    }
    _require_new({name: (evaluation.checkpoint["sha256"], evaluation.key) for name, evaluation in found.items()})
    paths = {name: path for name, path in named if path.suffix != ".json"}
    groups = _by_recipe(found) if seeds else {name: [name] for name in found}
    measured = [members[0] for members in groups.values() if members[0] in paths] if cost else []
    costs = _costs({name: (paths[name], _size(found[name])) for name in measured}, rounds, threads, device)
    members = {
        name: System(name, evaluation, paths.get(name), costs.get(name, {})) for name, evaluation in found.items()
    }
    tables = [
        _table(rows, len(found), measured=bool(measured), threads=threads)
        for rows in _comparable([(name, [members[k] for k in names]) for name, names in groups.items()])
    ]
    return Comparison(tuple(members.values()), tuple(_told_apart(tables)))


def _named(text: str) -> tuple[str, Path]:
    """``NAME=PATH`` or a path, which is named by its run's folder."""
    before, equals, after = text.partition("=")
    if equals and before and not Path(text).exists():
        return before, find_checkpoint(after)
    path = find_checkpoint(text)
    return (path.resolve().parent.name if path.stem in ("last", "best", "evaluation") else path.stem), path


def _require_different(names: Sequence[str], what: str) -> None:
    for k, name in enumerate(names):
        if name in names[:k]:
            raise CladeError(f"Systems {names.index(name) + 1} and {k + 1} {what} '{name}'. Name them: NAME=PATH.")


def _require_new(found: Mapping[str, tuple[str, str]]) -> None:
    """Raises CladeError unless all hashes differ, of checkpoints and of what they were evaluated on."""
    seen: dict[tuple[str, str], str] = {}
    for name, key in found.items():
        other = seen.setdefault(key, name)
        if other != name:
            raise CladeError(f"'{other}' and '{name}' are the same checkpoint. Give each one once.")


# --- Trainings that differ only in their seed -----------------------------------------------------------------------


def _by_recipe(found: Mapping[str, Evaluation]) -> dict[str, list[str]]:
    """Row name -> names of the checkpoints that it stands for.

    Raises:
        CladeError: a checkpoint without a recipe, or two trainings of one recipe with the same seed.
    """
    groups: dict[str, list[list[str]]] = {}
    for name, evaluation in found.items():
        recipe = _require_recipe(name, evaluation.checkpoint["recipe"])
        # What is evaluated in another way makes another group: their scores have no common mean.
        same = groups.setdefault(json.dumps(_but_for_the_seed(recipe), sort_keys=True), [])
        for names in same:
            if all(evaluation.agrees(found[other]) for other in names):
                names.append(name)
                break
        else:
            same.append([name])
    named: dict[str, list[str]] = {}
    for names in (names for same in groups.values() for names in same):
        seeds: dict[int, str] = {}
        for name in names:
            seed = found[name].checkpoint["recipe"]["training"]["seed"]
            other = seeds.setdefault(seed, name)
            if other != name:
                raise CladeError(
                    f"'{other}' and '{name}' are trainings of one recipe with the same seed ({seed}), which say "
                    "nothing of a spread. Give one of them."
                )
        recipe_names = {found[name].checkpoint["recipe"]["name"] for name in names}
        label = recipe_names.pop() if len(names) > 1 and len(recipe_names) == 1 else names[0]
        named[label if label not in named else names[0]] = names
    return named


def _require_recipe(name: str, recipe: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if recipe is None:
        raise CladeError(f"'{name}' carries no recipe, so nothing says its seed. Leave out --seeds, or '{name}'.")
    return recipe


def _but_for_the_seed(recipe: Mapping[str, Any]) -> dict[str, Any]:
    own = (FREE - {"training.devices"}) | {"training.seed"}  # several devices draw more pictures per step
    return {
        f"{part}.{key}": value
        for part, content in recipe.items()
        if isinstance(content, Mapping)
        for key, value in content.items()
        if f"{part}.{key}" not in own
    }


# --- Costs ------------------------------------------------------------------------------------------------------------


def _size(evaluation: Evaluation) -> Size:
    height, width = evaluation.protocol["size"]
    return height, width


def _costs(
    subjects: Mapping[str, tuple[Path, Size]], rounds: int, threads: int, device: str
) -> dict[str, dict[str, float]]:
    """Time in ms (median) and memory in GB; generators of one size take turns, all of them in memory at once."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found: dict[str, dict[str, float]] = {}
    for size in dict.fromkeys(size for _, size in subjects.values()):
        generators = {
            name: read_checkpoint(path).generator for name, (path, other) in subjects.items() if other == size
        }
        times = time_generators(generators, size, rounds=rounds, threads_used=threads, device=device)
        for name, generator in generators.items():
            memory = inference_memory(generator, size, device=device) / 1e9
            found[name] = {"time": 1e3 * times[name].median, "memory": memory}
    return found


# --- Tables -----------------------------------------------------------------------------------------------------------


def _comparable(rows: Sequence[tuple[str, list[System]]]) -> list[list[tuple[str, list[System]]]]:
    """Rows whose scores may be compared, together."""
    together: list[list[tuple[str, list[System]]]] = []
    for row in rows:
        everyone = row[1]
        for others in together:
            if all(a.evaluation.agrees(b.evaluation) for _, group in others for a in group for b in everyone):
                others.append(row)
                break
        else:
            together.append([row])
    return together


def _table(rows: Sequence[tuple[str, list[System]]], total: int, *, measured: bool, threads: int) -> Table:
    systems = [system for _, group in rows for system in group]
    first = systems[0].evaluation
    asked = [key for key in SCORES if any(key in (*s.evaluation.scores, *s.evaluation.missing) for s in systems)]
    columns = [Column(key, SCORES[key].label, SCORES[key].higher, SCORES[key].digits) for key in asked]
    # A column of nothing but gaps is told below.
    columns = [c for c in (*columns, *COSTS) if any(system.value(c.key) is not None for system in systems)]
    lines = tuple(Row(name, {c.key: _value(c.key, group) for c in columns}, len(group)) for name, group in rows)
    data, protocol = first.data, first.protocol
    height, width = protocol["size"]
    title = (
        f"{first.pictures} pictures of {data['name']} ({data['split']}), {height}x{width}, "
        f"protocol {protocol['name']}, data {data['sha256'][:12]}"
    )
    notes = [*_partial(lines, columns), *_notes(systems, total, measured=measured, threads=threads)]
    return Table(title, tuple(columns), lines, tuple(notes))


def _partial(rows: Sequence[Row], columns: Sequence[Column]) -> Iterable[str]:
    """What is a mean of fewer trainings than its row says."""
    for row in rows:
        for column in columns:
            value = row.values[column.key]
            if column.key in SCORES and value is not None and value.n < row.n:
                yield f"{row.name}: {column.label} is of {value.n} of {row.n} trainings; the others have none."


def _value(key: str, group: Sequence[System]) -> Value | None:
    """Scores are means over a group; what its trainings cost is the same for all, and measured once."""
    systems = group if key in SCORES else group[:1]
    return Value.of([value for system in systems if (value := system.value(key)) is not None])


def _notes(systems: Iterable[System], total: int, *, measured: bool, threads: int) -> Iterable[str]:
    for system in systems:
        for score, reason in system.evaluation.missing.items():
            yield f"{system.name}: {SCORES[score].label} is not computed, because: {reason}"
    yield from dict.fromkeys(note for s in systems for note in s.evaluation.details.get("notes", ()))
    if measured and any(system.costs for system in systems):
        yield f"Time: median of one picture, {threads} thread(s) on a CPU; memory: peak of drawing it; both fp32."


def _told_apart(tables: Sequence[Table]) -> list[Table]:
    if len(tables) < 2:
        return list(tables)
    note = (
        f"One of {len(tables)} tables: protocol, data or weights differ, so that scores of two tables do not compare."
    )
    return [Table(table.title, table.columns, table.rows, (*table.notes, note)) for table in tables]

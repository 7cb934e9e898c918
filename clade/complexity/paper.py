"""The paper's own numbers beside ours: Tables 1 to 4, and the averages of section 3.3."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from clade.complexity.counting import count
from clade.complexity.measuring import time_generators
from clade.complexity.overhead import section_3_3
from clade.complexity.result import CONVENTIONS
from clade.complexity.settings import SETTINGS, build, find_setting
from clade.errors import CladeError
from clade.models import Generator
from clade.models.generators.spade_shaped import SpadeShapedGenerator
from clade.nn import Unnormalized

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """A title, headings, and rows of cells; None where there is nothing to say."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


TABLE_1: dict[str, dict[str, tuple[float, float]]] = {
    "ade20k": {
        "cc-fpse": (140.7, 438.2),
        "dagan": (96.6, 186.1),
        "pix2pixhd": (182.9, 99.3),
        "spade": (96.5, 181.3),
        "clade": (71.4, 42.2),
        "clade-icpe": (71.4, 42.2),
    },
    "coco-stuff": {
        "cc-fpse": (141.9, 456.1),
        "pix2pixhd": (183.0, 106.1),
        "spade": (97.5, 191.3),
        "clade": (72.5, 42.4),
        "clade-icpe": (72.5, 42.4),
    },
    "cityscapes": {
        "cc-fpse": (128.1, 739.2),
        "dagan": (93.1, 291.2),
        "pix2pixhd": (182.5, 151.3),
        "spade": (93.0, 281.5),
        "clade": (67.9, 75.5),
        "clade-icpe": (67.9, 75.5),
    },
}
"""Dataset -> generator -> (parameters in millions, FLOPs in billions), as printed."""

TABLE_2 = {
    "ade20k": {"spade": 4.104, "clade": 1.710},
    "coco-stuff": {"spade": 4.226, "clade": 1.875},
    "cityscapes": {"spade": 7.031, "clade": 2.936},
}
"""Dataset -> generator -> seconds on one thread of an Intel Xeon Gold 6148, as printed."""

TABLE_3 = {
    "ade20k": {"backbone": 68.1, "spade": 28.4, "clade": 3.3},
    "cityscapes": {"backbone": 67.1, "spade": 25.9, "clade": 0.8},
    "coco-stuff": {"backbone": 68.4, "spade": 29.1, "clade": 4.1},
}
"""Dataset -> what -> parameters in millions, as printed."""

TABLE_4 = {
    "ade20k": {"spade-light": 58.0, "clade": 42.2},
    "coco-stuff": {"spade-light": 68.0, "clade": 42.4},
    "cityscapes": {"spade-light": 132.9, "clade": 75.5},
}
"""Dataset -> generator -> FLOPs in billions, as printed."""


def table_1(datasets: Iterable[str] = TABLE_1) -> Table:
    """Parameters and FLOPs, printed and counted by ``convention="paper"``."""
    rows = []
    for dataset in datasets:
        for name, (params, flops) in TABLE_1[dataset].items():
            own = _totals(dataset, name)
            rows.append((dataset, name, params, own[0] / 1e6, flops, own[1] / 1e9))
    columns = ("dataset", "generator", "params, printed (M)", "params (M)", "FLOPs, printed (G)", "FLOPs (G)")
    return Table("Table 1: complexity", columns, tuple(rows))


def table_2(datasets: Iterable[str] = TABLE_2, rounds: int = 5) -> Table:
    """Seconds per picture on one thread, printed and measured here."""
    rows = []
    for dataset in datasets:
        setting, printed = find_setting(dataset), TABLE_2[dataset]
        generators = {name: build(name, setting.options(name), values=True) for name in printed}
        times = time_generators(generators, setting.size, rounds=rounds)
        rows += [
            (dataset, name, printed[name], printed["spade"] / printed[name], t.median, times["spade"].median / t.median)
            for name, t in times.items()
        ]
    columns = ("dataset", "generator", "printed (s)", "printed, faster (x)", "here (s)", "here, faster (x)")
    return Table("Table 2: time on one CPU thread", columns, tuple(rows))


def table_3(datasets: Iterable[str] = TABLE_3, rounds: int | None = None) -> Table:
    """The backbone (SPADE's generator without its normalization layers) and what the layers add to it.

    The layers' cost is a difference of totals. The paper subtracts rounded ones, so its 25.9 (Cityscapes) is
    93.0 - 67.1, where the layers have 25.986 M.

    Args:
        rounds: also measure time on one CPU thread, by so many runs.
    """
    rows = []
    for dataset in datasets:
        seconds = _seconds_of_parts(dataset, rounds) if rounds else {}
        bare, *layers = _parts_of(dataset)
        for what, whole in zip(("backbone", "spade", "clade"), (bare, *layers), strict=True):
            base = (0, 0, 0) if what == "backbone" else bare
            params, flops, executed = (own - less for own, less in zip(whole, base, strict=True))
            rounded = round(round(whole[0] / 1e6, 1) - round(base[0] / 1e6, 1), 1)
            cells = (TABLE_3[dataset][what], rounded, params / 1e6, flops / 1e9, executed / 1e9)
            rows.append((dataset, what, *cells, *((seconds[what],) if seconds else ())))
    columns = (
        "dataset",
        "part",
        "params, printed (M)",
        "of rounded totals (M)",
        "params (M)",
        "FLOPs (G)",
        "executed (G)",
        *(("time (s)",) if rounds else ()),
    )
    return Table("Table 3: backbone, and what normalization layers add to it", columns, tuple(rows))


def _parts_of(dataset: str) -> list[tuple[int, int, int]]:
    """Backbone, SPADE generator, CLADE generator: (parameters, multiply-adds of the paper, executed ones)."""
    setting = SETTINGS[dataset]
    both = {}
    for name in ("spade", "clade"):
        generator = build(name, setting.options(name), values=False)
        both[name] = [count(generator, setting.size, convention) for convention in CONVENTIONS]
    bare = [counted.by_part["backbone"] for counted in both["spade"]]
    wholes = [(paper.params, paper.macs, true.macs) for paper, true in both.values()]
    return [(bare[0][0], bare[0][1], bare[1][1]), *wholes]


def _seconds_of_parts(dataset: str, rounds: int) -> dict[str, float]:
    setting = SETTINGS[dataset]
    generators: dict[str, Generator] = {"backbone": backbone(dataset)}
    generators |= {name: build(name, setting.options(name), values=True) for name in ("spade", "clade")}
    times = {name: t.median for name, t in time_generators(generators, setting.size, rounds=rounds).items()}
    return {name: t - (0 if name == "backbone" else times["backbone"]) for name, t in times.items()}


def table_4(datasets: Iterable[str] = TABLE_4) -> Table:
    """FLOPs of SPADE-light and CLADE."""
    rows = [
        (dataset, name, flops, _totals(dataset, name)[1] / 1e9)
        for dataset in datasets
        for name, flops in TABLE_4[dataset].items()
    ]
    return Table("Table 4: SPADE-light", ("dataset", "generator", "FLOPs, printed (G)", "FLOPs (G)"), tuple(rows))


def table_of_section_3_3() -> Table:
    """The average overhead of normalization layers in the ADE20K setting, printed and by :func:`section_3_3`."""
    printed = {"spade": (39.21, 234.73), "clade": (4.57, 0.07), "clade-icpe": (None, 0.14)}
    as_printed, as_built = section_3_3(), section_3_3(shortcuts_as_3x3=False)
    rows = [
        (name, params, 100 * own.params, 100 * built.params, flops, 100 * own.flops, 100 * built.flops)
        for (name, (params, flops)), own, built in zip(
            printed.items(), as_printed.values(), as_built.values(), strict=True
        )
    ]
    kinds = ("printed (%)", "3x3 (%)", "1x1 (%)")
    columns = ("generator", *(f"{what}, {kind}" for what in ("params", "FLOPs") for kind in kinds))
    return Table(_SECTION, columns, tuple(rows))


_SECTION = "Section 3.3: layers in proportion to the convolutions after them, ADE20K; shortcuts as 3x3, and as they are"


def tables(dataset: str | None = None, rounds: int | None = None) -> list[Table]:
    """Tables 1 to 4 of one dataset or of all, Table 2 and the times of Table 3 only with ``rounds``; and section 3.3.

    Raises:
        CladeError: a dataset that these tables do not have.
    """
    if dataset is not None and dataset not in TABLE_1:
        find_setting(dataset)
        raise CladeError(
            f"The paper's Tables 1 to 4 have no '{dataset}', only {', '.join(TABLE_1)}. Choose one of them."
        )
    chosen = list(TABLE_1) if dataset is None else [dataset]
    timed = [] if rounds is None else [table_2(chosen, rounds)]
    return [table_1(chosen), *timed, table_3(chosen, rounds), table_4(chosen), table_of_section_3_3()]


@cache
def _totals(dataset: str, name: str) -> tuple[int, int]:
    setting = SETTINGS[dataset]
    counted = count(build(name, setting.options(name), values=False), setting.size)
    return counted.params, counted.macs


def backbone(dataset: str) -> Generator:
    """SPADE's generator without its normalization layers (Table 3)."""
    setting = find_setting(dataset)
    return SpadeShapedGenerator(
        Unnormalized,
        num_classes=setting.num_classes,
        unknown_class=setting.unknown_class,
        instance_edges=setting.instance_edges,
        upsampling=setting.upsampling,
    )

"""How fast the engine draws, against CLADE and SPADE as published, and what each of its ideas gives.

`python -m benchmarks.fast` measures the ADE20K setting (150 classes and unknown, width 64, 256x256, batch 1) on two
threads; `--width 8 --rounds 1` is a quick look. The published networks run in a process of their own, where nothing
that the engine sets up for its process can help them; runs of all take turns.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import clade
from benchmarks.common import Row, alternate, use_cores, write_table
from benchmarks.reference import ReferenceGenerator, one_hot
from benchmarks.reference.jobs import FAIR, draw_published, fair_jobs, published_jobs
from benchmarks.reference.material import (
    CLASSES,
    ROWS,
    SEED,
    SIZE,
    drawing,
    drawn_maps,
    eager,
    label_maps,
    maps_note,
    mixed_maps,
    others_note,
    read_network,
    save_network,
)
from benchmarks.reference.memory import in_child, peak, reset_peak, resident, warm_libraries
from benchmarks.reference.process import Worker, run_command, serve
from benchmarks.reference.table import COLUMNS, Bar, line
from clade import LabelMap
from clade.engine import Engine, keep_pages
from clade.system.processor import instruction_set, resolve_precision

NETWORKS = ("clade", "none", "clade-icpe", "spade")
PARTS = ("speed", "spade", "memory", "start", "ideas")
ROUNDS = 10
MIB = 2**20
KEPT_PAGES = "kept pages"
SMALL = "small-convolutions"
WITHOUT = f"without {SMALL}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="fewer are a quick look, with a table of its own")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled engine out")
    parser.add_argument("--serve", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--fresh-pages", metavar="PRECISION", help=argparse.SUPPRESS)
    parser.add_argument("--fair", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args()

    use_cores(args.threads)
    if args.serve:
        folder = Path(args.serve)
        if args.fresh_pages:
            serve(fresh_pages_job(folder, args.fresh_pages))
        else:
            serve(fair_jobs(folder, args.width) if args.fair else published_jobs(folder, args.width))
        return
    if args.memory_of:
        print(json.dumps(memory_of(args.memory_of, args.width)))
        return
    keep_pages()  # as `clade generate` does
    ending = "" if args.threads == 2 else f"-{args.threads}-threads"
    quick = args.width != 64 or args.rounds < ROUNDS
    some = quick or args.no_compile or not set(PARTS) - {"ideas"} <= set(args.parts)
    rows: list[Row] = []
    notes = [
        f"{CLASSES} classes and unknown, width {args.width}, {SIZE[0]}x{SIZE[1]}, batch 1; {args.rounds} alternating "
        "runs each, label maps in turn, every one as new to the engine (resizing and positions are part of the time). "
        "'Published' is benchmarks/reference: eager float32 on a one-hot map, whose making is not counted, in a "
        "process of its own; 'folded, kept pages' is the same with spectral norm divided out once and our allocator's "
        "setting.",
        "Weights are random, with BatchNorm statistics, gamma and beta that matter; pictures spread over [-1, 1]. "
        + maps_note(),
        others_note(),
    ]
    command = ["--width", str(args.width), "--threads", str(args.threads)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in NETWORKS if set(args.parts) - {"memory"} else ():
            save_network(folder, name, args.width)
        if {"speed", "spade"} & set(args.parts):
            serving = [*command, "--serve", temporary]
            with (
                Worker("benchmarks.fast", serving) as published,
                Worker("benchmarks.fast", [*serving, "--fair"]) as fair,
            ):
                if "speed" in args.parts:
                    rows += speed_rows(folder, published, fair, args.rounds, not args.no_compile)
                if "spade" in args.parts:
                    rows += spade_rows(folder, published, args.rounds)
        if "memory" in args.parts:
            rows += memory_rows(command)
        if "start" in args.parts:
            rows.append(start_row(folder, args.threads))
        if rows:
            write_table(("fast-quick" if some else "fast") + ending, COLUMNS, rows, notes, seed=SEED, command="fast")
        if "ideas" in args.parts:
            write_table(
                ("fast-ideas-quick" if quick else "fast-ideas") + ending,
                ("left out", "precision", "median (ms)", "min (ms)", "max (ms)", "slower without it (x)"),
                idea_rows(folder, command, args.rounds),
                [f"CLADE by the engine without compile, each idea left out in turn; {notes[0].split(';')[0]}."],
                seed=SEED,
                command="fast",
            )


def speed_rows(folder: Path, published: Worker, fair: Worker, rounds: int, compiled: bool) -> list[Row]:
    """CLADE against the published one, against no normalization, and CLADE-ICPE against CLADE."""
    maps = mixed_maps()
    ways = [
        (precision, compiles) for precision in precisions() for compiles in ((False, True) if compiled else (False,))
    ]
    calls: dict[str, Callable[[], object]] = {
        name: partial(published.do, name) for name in ("published clade", "our eager clade", "published clade-icpe")
    }
    calls[FAIR] = partial(fair.do, FAIR)
    engines: dict[str, Engine] = {}
    for name in ("clade", "none", "clade-icpe"):
        generator = read_network(folder, name)
        for precision, compiles in ways:
            key = f"{name}, {_way(precision, compiles)}"
            engines[key] = Engine(generator, precision=precision, compile=compiles)
            calls[key] = drawing(engines[key], maps)
            if name == "clade" and not compiles:
                calls[f"{key}, {WITHOUT}"] = drawing(Engine(generator, precision=precision, without=(SMALL,)), maps)
    equal = equality_rows(folder, engines, maps)
    seconds = alternate(calls, rounds, warmup=2)
    milliseconds = {name: [1e3 * value for value in values] for name, values in seconds.items()}
    median = {name: statistics.median(values) for name, values in milliseconds.items()}

    def against(what: str, base: str, bar: Bar | None = None, faster: bool = True) -> Row:
        ratio = median[base] / median[what] if faster else median[what] / median[base]
        return line(what, milliseconds[what], "ms", base, ratio, bar)

    rows = [line("published clade", milliseconds["published clade"], "ms")]
    rows += [against("published clade-icpe", "published clade", faster=False)]
    rows += [against("our eager clade", "published clade"), against(FAIR, "published clade")]
    for precision, compiles in ways:
        rows.append(against(f"clade, {_way(precision, compiles)}", "published clade", published_bar(precision)))
        rows.append(against(f"clade, {_way(precision, compiles)}", FAIR))
    for precision in precisions():
        slower = f"clade, {precision}, {WITHOUT}"
        rows.append(line(slower, milliseconds[slower], "ms"))
        rows.append(against(f"clade, {precision}", slower, Bar(1.25, True)))
    for precision, compiles in ways:
        way = _way(precision, compiles)
        rows.append(line(f"none, {way}", milliseconds[f"none, {way}"], "ms"))
        bar = Bar(1.05 if precision == "fp32" else 1.10, False)
        rows.append(against(f"clade, {way}", f"none, {way}", bar, faster=False))
    for precision, compiles in ways:
        way = _way(precision, compiles)
        rows.append(against(f"clade-icpe, {way}", f"clade, {way}", Bar(1.10, False), faster=False))
    for precision in precisions():
        slower = f"clade, {precision}, {WITHOUT}"
        rows.append(against(f"clade-icpe, {precision}", slower, faster=False))
    return rows + equal


def precisions() -> list[str]:
    """fp32, and bf16 where the processor multiplies in it."""
    return list(dict.fromkeys(("fp32", resolve_precision("auto"))))


def published_bar(precision: str) -> Bar:
    """How many times as fast as published CLADE is to be, by what the processor has."""
    has = instruction_set()
    if precision == "bf16":
        return Bar(18, True, "x (AMX)") if has == "amx" else Bar(15, True)
    return Bar(3.6, True, "x (AVX2)") if has == "avx2" else Bar(8, True)


def spade_bar() -> Bar:
    return Bar(3.5, True, "x (AVX2)") if instruction_set() == "avx2" else Bar(6, True)


def _way(precision: str, compiles: bool) -> str:
    return f"{precision}{', compiled' if compiles else ''}"


def equality_rows(folder: Path, engines: dict[str, Engine], maps: Sequence[LabelMap]) -> list[Row]:
    """Each engine's largest difference from the eager network, and bf16's PSNR against it."""
    rows: list[Row] = []
    exact: dict[str, list[Tensor]] = {}
    for name in dict.fromkeys(key.split(",")[0] for key in engines):
        draw = eager(read_network(folder, name))
        exact[name] = [draw(label_map) for label_map in maps]
        twice = read_network(folder, name).double()
        with torch.no_grad():
            noise = [_largest(twice(maps[k]), exact[name][k]) for k in range(min(2, len(maps)))]
        rows.append(line(f"{name}, eager fp32: difference from float64", noise, "of [-1, 1]"))
    for key, engine in engines.items():
        images = [engine(label_map) for label_map in maps]
        pairs = list(zip(images, exact[key.split(",")[0]], strict=True))
        difference = [_largest(image, other) for image, other in pairs]
        if engine.precision == "fp32":
            rows.append(line(f"{key}: difference from eager", difference, "of [-1, 1]", bar=Bar(1e-5, False, "")))
        else:
            rows.append(line(f"{key}: difference from eager", difference, "of [-1, 1]"))
            rows.append(line(f"{key}: PSNR", [psnr(*pair) for pair in pairs], "dB", bar=Bar(45, True, "dB")))
    return rows


def _largest(image: Tensor, other: Tensor) -> float:
    return float((image - other).abs().max())


def psnr(image: Tensor, other: Tensor) -> float:
    """Peak signal-to-noise ratio of images in [-1, 1], in dB."""
    return float(10 * torch.log10(4 / (image.double() - other.double()).square().mean()))


def spade_rows(folder: Path, published: Worker, rounds: int) -> list[Row]:
    """Exact SPADE against eager SPADE, per set of label maps."""
    generator = read_network(folder, "spade")
    engines = {precision: Engine(generator, precision=precision) for precision in precisions()}
    draw = eager(generator)
    rows: list[Row] = []
    for name, maps in label_maps().items():
        base = f"eager spade {name}"
        calls: dict[str, Callable[[], object]] = {base: partial(published.do, base)}
        calls |= {precision: drawing(engine, maps) for precision, engine in engines.items()}
        seconds = alternate(calls, rounds)
        rows.append(line(base, [1e3 * value for value in seconds[base]], "ms"))
        for precision, engine in engines.items():
            times = [1e3 * value for value in seconds[precision]]
            ratio = statistics.median(seconds[base]) / statistics.median(seconds[precision])
            rows.append(line(f"exact spade {name}, {precision}", times, "ms", base, ratio, spade_bar()))
            pairs = [(engine(label_map), draw(label_map)) for label_map in maps]
            if precision == "fp32":
                values = [_largest(*pair) for pair in pairs]
                rows.append(line(f"exact spade {name}: difference", values, "of [-1, 1]", bar=Bar(1e-4, False, "")))
            else:
                values = [psnr(*pair) for pair in pairs]
                rows.append(line(f"exact spade {name}, {precision}: PSNR", values, "dB", bar=Bar(45, True, "dB")))
    return rows


MEMORY = ("published clade", "our eager clade", "clade, fp32", "clade, bf16")


def memory_of(what: str, width: int) -> dict[str, int]:
    """Bytes of this process after the network is built (``held``), and the most in the first two forwards.

    Both are beyond what the process has before: its code and libraries. The network is what the process keeps: the
    engine's own form of the weights, not the generator that it was made of.
    """
    warm_libraries()
    label_map = label_maps(1).popitem()[1][0]
    labels = one_hot(label_map.ids, ROWS)
    before = resident()
    torch.manual_seed(SEED)
    draw: Callable[[], object]
    if what == "published clade":
        published = ReferenceGenerator("clade", ROWS, width).eval()
        draw = partial(draw_published, published, itertools.cycle([(labels,)]))
    else:
        generator = clade.create_generator("clade", num_classes=CLASSES, unknown_class=True, width=width)
        generator.eval().requires_grad_(False)
        if what == "our eager clade":
            called = eager(generator)
        else:
            keep_pages()
            called = Engine(generator, precision=what.split(", ")[1])
        draw = partial(called, label_map)
        del generator
    held = resident()
    reset_peak()
    draw()
    draw()
    highest = peak()
    kept = resident()
    reset_peak()
    draw()
    return {"held": held - before, "peak": highest - before, "again": peak() - kept}


def memory_rows(command: Sequence[str]) -> list[Row]:
    """Peak memory beyond the weights, each network in a process of its own."""
    rows: list[Row] = []
    base: dict[str, float] = {}
    for what in MEMORY:
        found = in_child("benchmarks.fast", [*command, "--memory-of", what])
        if found is None:
            return [line("peak memory: this system does not count it", [0], "MiB")]
        beyond = {"beyond the weights": found["peak"] - found["held"], "beyond what stays": found["again"]}
        rows.append(line(f"{what}: weights in memory", [found["held"] / MIB], "MiB"))
        for which, value in beyond.items():
            key = f"published clade: peak {which}"
            base.setdefault(which, value)
            bar = Bar(0.6, False) if which == "beyond the weights" and what.startswith("clade") else None
            ratio = value / max(base[which], 1)
            own = (line(f"{what}: peak {which}", [value / MIB], "MiB", key, ratio, bar),)
            rows += own if what != MEMORY[0] else (line(key, [value / MIB], "MiB"),)
    return rows


def start_row(folder: Path, threads: int) -> Row:
    """`clade generate` from its start to its end, one picture, in a new process."""
    label = folder / "label.png"
    Image.fromarray(drawn_maps(1, ROWS, SIZE)[0].ids[0].numpy()).save(label)
    seconds = []
    for k in range(3):
        begin = time.perf_counter()
        out = folder / f"out-{k}"
        files = [str(folder / "clade.safetensors"), str(label)]
        run_command([sys.executable, "-m", "clade", "generate", *files, "--out", str(out), "--device", "cpu"], threads)
        seconds.append(time.perf_counter() - begin)
        assert (out / "label.png").is_file()
    return line("first picture of `clade generate`", seconds, "s", bar=Bar(6, False, "s"))


def fresh_pages_job(folder: Path, precision: str) -> dict[str, Callable[[], object]]:
    """The engine in a process whose allocator is as it comes."""
    return {KEPT_PAGES: drawing(Engine(read_network(folder, "clade"), precision=precision), mixed_maps())}


def idea_rows(folder: Path, command: Sequence[str], rounds: int) -> list[Row]:
    """What the engine loses without each of its ideas, and without :func:`clade.engine.keep_pages`."""
    generator, maps = read_network(folder, "clade"), mixed_maps()
    rows: list[Row] = []
    for precision in precisions():
        whole = Engine(generator, precision=precision)
        calls = {"nothing": drawing(whole, maps)}
        for idea in whole.applied:
            calls[idea] = drawing(Engine(generator, precision=precision, without=(idea,)), maps)
        # In this process pages are kept already.
        with Worker("benchmarks.fast", [*command, "--serve", str(folder), "--fresh-pages", precision]) as fresh:
            calls[KEPT_PAGES] = partial(fresh.do, KEPT_PAGES)
            seconds = alternate(calls, rounds, warmup=2)
        base = statistics.median(seconds["nothing"])
        for idea, values in seconds.items():
            times = [1e3 * value for value in values]
            median = statistics.median(times)
            rows.append((idea, precision, median, min(times), max(times), median / (1e3 * base)))
    return rows


if __name__ == "__main__":
    main()

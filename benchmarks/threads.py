"""How many threads pay on a machine that others use: with one, with two, and with the number that clade chooses.

`python -m benchmarks.threads` does a training step of a small CLADE and draws pictures, with and without one neighbour
that keeps a core busy, all taking turns: once with threads that wait asleep, as clade's commands have it, and once with
torch's own, which spin, as in a program that loads torch first. `--rounds 3` is a quick look. Nothing else should run
meanwhile, or the rows without a neighbour have one, too: what clade chose shows it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import Row, write_table
from clade import LabelMap, Recipe, Synthesizer, create_generator
from clade.system.threads import choose_threads
from clade.training.fit import stepper

SEED = 0
COLUMNS = (
    "work",
    "waiting",
    "busy neighbours",
    "threads",
    "median (ms)",
    "min (ms)",
    "max (ms)",
    "faster than 1 thread (x)",
)
CHOSEN = "chosen"
WAITING = {"asleep": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}, "spinning": {}}
"""What clade/cli/__init__.py sets, and what torch does without it; read when torch loads."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="a third of them with threads that spin (9)")
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args)))
        return
    rows: list[Row] = []
    for waiting, variables in WAITING.items():
        # OMP_NUM_THREADS would be the choice.
        env = {k: v for k, v in os.environ.items() if k not in (*WAITING["asleep"], "OMP_NUM_THREADS")} | variables
        rounds = args.rounds if waiting == "asleep" else max(2, args.rounds // 3)
        words = ["--rounds", str(rounds), "--width", str(args.width), "--size", str(args.size), "--measure"]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.threads", *words], env=env, stdout=subprocess.PIPE, text=True, check=True
        )
        rows += lines(waiting, json.loads(done.stdout))
    write_table(
        "threads",
        COLUMNS,
        sorted(rows, key=lambda row: str(row[0])),
        [
            f"One training step of CLADE at {args.size}x{args.size}, width {args.width}, batch 2, and one drawing of "
            f"two pictures of {2 * args.size}x{2 * args.size}, both in fp32; rounds in turn ({args.rounds}, and "
            f"{max(2, args.rounds // 3)} where threads spin), the second of two calls each time. The neighbour is a "
            "process of another session that computes without end on whatever core it gets. 'Chosen' is what "
            "clade.system.threads takes when the work starts, and in how many rounds which number; the last column is "
            "1 thread's median over this one.",
        ],
        seed=SEED,
    )


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of each kind of work, by neighbours and threads; and the numbers of threads that they were done with."""
    most = torch.get_num_threads()
    found: dict[tuple[str, int, str], dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = {"training step": training(args, Path(folder)), "drawing": drawing(args)}
        for _ in range(args.rounds):
            for neighbours in (0, 1):
                with busy(neighbours):
                    for name in (*(str(k) for k in (1, 2) if k <= most), CHOSEN):
                        torch.set_num_threads(most)
                        count = choose_threads(None if name == CHOSEN else int(name))
                        torch.set_num_threads(count)
                        for what, call in work.items():
                            call()  # the first one starts the threads
                            begin = time.perf_counter()
                            call()
                            entry = found.setdefault((what, neighbours, name), {"seconds": [], "counts": []})
                            entry["seconds"].append(time.perf_counter() - begin)
                            entry["counts"].append(count)
    return [
        {"work": what, "neighbours": neighbours, "threads": name, **entry}
        for (what, neighbours, name), entry in found.items()
    ]


def lines(waiting: str, found: list[dict[str, Any]]) -> list[Row]:
    """The rows of one way of waiting."""
    alone = {(e["work"], e["neighbours"]): statistics.median(e["seconds"]) for e in found if e["threads"] == "1"}
    rows: list[Row] = []
    for entry in found:
        shown, times = entry["threads"], [1e3 * value for value in entry["seconds"]]
        if shown == CHOSEN:
            shown += ": " + ", ".join(f"{k} in {often}" for k, often in sorted(Counter(entry["counts"]).items()))
        median = statistics.median(times)
        ratio = 1e3 * alone[entry["work"], entry["neighbours"]] / median
        rows.append((entry["work"], waiting, entry["neighbours"], shown, median, min(times), max(times), ratio))
    return rows


def training(args: argparse.Namespace, folder: Path) -> Callable[[], object]:
    """A training step."""
    recipe = Recipe.from_dict(
        {
            "data": {"name": "scenes", "size": [args.size, args.size]},
            "generator": {"name": "clade", "width": args.width},
            "discriminator": {"width": args.width},
            "losses": {"perceptual": 0, "l1": 2},
            "training": {"batch_size": 2, "precision": "fp32", "seed": SEED, "accelerator": "cpu"},
        }
    )
    return stepper(recipe, folder / "run")


def drawing(args: argparse.Namespace) -> Callable[[], object]:
    """Two pictures of a map of blocks."""
    torch.manual_seed(SEED)
    synthesizer = Synthesizer(create_generator("clade", num_classes=20, width=args.width), None, "cpu", "fp32")
    ids = torch.randint(20, (2, args.size // 8, args.size // 8), dtype=torch.uint8)
    maps = LabelMap(ids.repeat_interleave(16, 1).repeat_interleave(16, 2))
    return lambda: synthesizer(maps)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute without end."""
    # In sessions of their own, as another user's would be: the scheduler may share time out by sessions.
    words = [sys.executable, "-c", "while True: pass"]
    neighbours = [subprocess.Popen(words, start_new_session=True) for _ in range(count)]
    time.sleep(0.3)  # until they do
    try:
        yield
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()


if __name__ == "__main__":
    main()

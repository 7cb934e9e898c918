"""Latency, throughput, training speed and the fused kernel on a GPU, in one command of nine minutes.

`python -m benchmarks.gpu` measures what matters most first, writes every number at once to benchmarks/results/ (and
`--out DIR`), and stops in time: what did not fit or failed is in the table of failures. `--quick` runs all of it tiny,
on the CPU too (`--device cpu`), to try the script itself, and leaves benchmarks/results/ alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks import common
from benchmarks.gpu import inference, kernels, training
from benchmarks.gpu.session import Session, Table

PARTS = (
    ("latency of clade", 2.0, partial(inference.latency_items, first=True)),
    ("kernel", 0.8, kernels.items),
    ("latency", 2.2, partial(inference.latency_items, first=False)),
    ("training", 2.2, training.items),
    ("throughput", 1.8, inference.throughput_items),
)
"""Name, weight in time and items of each part, in the order they run."""


def judge(session: Session) -> None:
    """The project's goals on an H200, and what came out."""
    session.table("goals", ("goal", "needed", "measured", "where"), ["The goals are for an H200."])
    size = "x".join(str(side) for side in inference.sizes(session)[0])
    latency = [row for row in session.tables.get("latency", Table((), ())).rows if row[1] == size]
    clade = min((row for row in latency if row[0] == "clade"), key=lambda row: row[4], default=None)
    if clade is not None:
        where = f"{clade[2]} {clade[3]}"
        session.add("goals", (f"CLADE, {size}, batch 1 (ms)", "at most 2.5", clade[4], where))
        session.add("goals", ("time over the backbone's (x)", "at most 1.15", clade[7], where))
    for row in session.tables.get("kernel", Table((), ())).rows[:4]:
        if row[3] != "copy":
            where = f"{row[0]} {row[1]}"
            session.add("goals", (f"fused kernel, {row[3]}, of copy bandwidth", "at least 0.70", row[6], where))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=9.0, help="everything ends within these")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny networks, to try the script")
    parser.add_argument("--out", type=Path, help="a folder for a copy of all tables and results.json")
    args = parser.parse_args(arguments)

    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(
            f"torch {torch.__version__} sees no CUDA device here, and this benchmark is about one. Run it where "
            "`torch.cuda.is_available()`; `--device cpu --quick` tries the script without.",
            file=sys.stderr,
        )
        return 2
    with tempfile.TemporaryDirectory() as trial:
        kept = common.RESULTS
        if args.quick:
            common.RESULTS = Path(trial)
        try:
            session = Session(device, args.quick, args.minutes, args.out)
            session.run(PARTS)
            judge(session)
            session.show()
            return int(session.failed)
        finally:
            common.RESULTS = kept


if __name__ == "__main__":
    sys.exit(main())

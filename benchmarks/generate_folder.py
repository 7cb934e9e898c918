"""How fast `clade generate` draws a folder, and how much of the time the network is at work.

`python -m benchmarks.generate_folder` draws real label maps (CamVid from ``../shared/data`` where that is present, else
scenes of CamVid's size) with everything in turn and with helper threads, taking turns; `--quick` is a look at a few.
Weights are random, so pictures are noise, which is the hardest to compress.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from benchmarks.common import Row, alternate, use_cores, write_table
from clade import LabelSpace, Synthesizer, create_generator
from clade.data import scenes
from clade.engine import keep_pages
from clade.synthesis import Pace, generate

SEED = 0
CAMVID = Path(__file__).resolve().parents[2] / "shared" / "data" / "camvid"
SIZES = {"256x256": (256, 256), "own": None}
WORKERS = {"in turn": 0, "overlapped": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--widths", type=int, nargs="+", default=[24, 64])
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--precision", default="auto", help="auto, fp32, bf16")
    parser.add_argument("--quick", action="store_true", help="8 files, width 24, 2 rounds")
    args = parser.parse_args()

    files, rounds, widths = (8, 2, [24]) if args.quick else (args.files, args.rounds, args.widths)
    use_cores(args.threads)
    keep_pages()  # as `clade generate` does
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        labels, space, source = label_files(Path(folder) / "labels", files)
        for width in widths:
            for name in ("clade", "clade-icpe"):
                synthesizer = random_synthesizer(name, width, space, args.precision)
                for size_name, size in SIZES.items():
                    paces = measure(synthesizer, labels, Path(folder) / "out", size, rounds)
                    rows.append((name, width, size_name, *summary(paces)))
    write_table(
        "generate_folder" + ("-quick" if args.quick else ""),
        (
            "generator",
            "width",
            "size",
            "network alone (pictures/s)",
            "in turn (pictures/s)",
            "overlapped (pictures/s)",
            "gain (x)",
            "busy in turn (%)",
            "busy overlapped (%)",
            "busy overlapped, least (%)",
        ),
        rows,
        [
            f"{files} label maps of {source}; medians of {rounds} alternating runs each, batch 1, "
            f"{args.threads} core(s), {WORKERS['overlapped']} helper threads, precision {args.precision}, random "
            "weights. Pictures a second count everything, from the first header read to the last file written. Busy is "
            "the network's share of the time from its first call to the end of its last. Network alone is what "
            "the network's own time would give, measured with everything in turn.",
        ],
        seed=SEED,
        command="generate_folder" + (" --quick" if args.quick else ""),
    )


def label_files(folder: Path, count: int) -> tuple[list[Path], LabelSpace, str]:
    """(label files, their classes, where they are from)"""
    found = sorted((CAMVID / "train" / "labels").glob("*.png"))
    if found:
        return found[:count], LabelSpace.from_json(CAMVID / "classes.json"), "CamVid (342 x 256 pixels)"
    folder.mkdir()
    for i in range(count):
        Image.fromarray(scenes.draw_scene(i, seed=SEED, height=256, width=342).ids).save(folder / f"{i}.png")
    space = LabelSpace(names=scenes.NAMES, unknown=scenes.UNKNOWN)
    return sorted(folder.iterdir()), space, "drawn scenes (342 x 256 pixels)"


def random_synthesizer(name: str, width: int, space: LabelSpace, precision: str) -> Synthesizer:
    torch.manual_seed(SEED)
    generator = create_generator(name, num_classes=space.num_classes, unknown_class=space.unknown_class, width=width)
    return Synthesizer(generator, space, device="cpu", precision=precision)


def measure(
    synthesizer: Synthesizer, labels: list[Path], out: Path, size: tuple[int, int] | None, rounds: int
) -> dict[str, list[Pace]]:
    """Paces of each way to draw the files, in alternation; one round before them is not counted."""
    paces: dict[str, list[Pace]] = {way: [] for way in WORKERS}

    def draw(way: str) -> None:
        outcome = generate(synthesizer, labels, out / way, size=size, workers=WORKERS[way])
        if outcome.failed:
            raise SystemExit("\n".join(outcome.failed.values()))
        paces[way].append(outcome.pace)

    calls: dict[str, Callable[[], object]] = {way: partial(draw, way) for way in WORKERS}
    alternate(calls, rounds, warmup=1)
    return {way: measured[1:] for way, measured in paces.items()}


def summary(paces: dict[str, list[Pace]]) -> tuple[float, ...]:
    in_turn, overlapped = paces["in turn"], paces["overlapped"]
    alone = statistics.median(pace.pictures / pace.network for pace in in_turn)
    rates = [statistics.median(pace.rate for pace in way) for way in (in_turn, overlapped)]
    busy = [100 * statistics.median(pace.busy for pace in way) for way in (in_turn, overlapped)]
    return (alone, *rates, rates[1] / rates[0], *busy, 100 * min(pace.busy for pace in overlapped))


if __name__ == "__main__":
    main()

"""How many label maps `clade data check` reads in a second.

`python -m benchmarks.check` writes maps of 512x512 (CamVid's and COCO-Stuff's from ``../shared/data`` where they are
present, enlarged; else drawn scenes) as 8-bit, 16-bit and RGB files, and checks them whole: reading, counting, hashing,
findings. `--quick` is a look at a few.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import Row, alternate, use_cores, write_table
from clade.data import FolderDataset, check, scenes
from clade.data.doctor.looking import Look, Reader
from clade.labels import LabelSpace

SEED = 0
SIDE = 512
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
WAYS = {"8-bit": False, "16-bit": False, "RGB": False, "8-bit and JPEG photos": True}
"""How the maps are written, and whether photos are read too."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--quick", action="store_true", help="60 files, 2 rounds")
    args = parser.parse_args()

    files, rounds = (60, 2) if args.quick else (args.files, args.rounds)
    use_cores(args.cores)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source = write_files(root, files)
        size = statistics.mean(path.stat().st_size for path in (root / "8-bit" / "labels").iterdir()) / 1024
        rows: list[Row] = []
        started = 0.0
        for way, photos in WAYS.items():
            rates, started = measure(root / way, files, photos, args.cores, rounds)
            rows.append((way, *rates))
    write_table(
        "check" + ("-quick" if args.quick else ""),
        ("files", "1 thread (maps/s)", f"{args.cores} threads (maps/s)", f"{args.cores} processes (maps/s)"),
        rows,
        [
            f"{files} maps of {SIDE} x {SIDE} pixels ({source}; {size:.1f} KiB each as 8-bit PNG), from the page "
            f"cache; medians of {rounds} alternating runs on {args.cores} cores. Threads: all of `clade.data.check`. "
            f"Processes: only the reading, in processes that are already there; starting them took {started:.1f} s "
            "more, as each imports the library. `clade data check` therefore reads in threads.",
        ],
        seed=SEED,
        command="check" + (" --quick" if args.quick else ""),
    )


def write_files(root: Path, count: int) -> str:
    """One dataset folder per way of writing; returns where the pictures are from."""
    pictures, space, source = originals(count)
    rgb_space = LabelSpace(names=space.names, colors=tuple(_colors(space.num_classes)), unknown=space.unknown)
    for way, with_photos in WAYS.items():
        for part in ("images", "labels"):
            (root / way / part).mkdir(parents=True)
        classes = rgb_space if way == "RGB" else space
        (root / way / "classes.json").write_text(json.dumps(classes.to_dict()), encoding="utf-8")
        for k, (ids, photo) in enumerate(pictures):
            pixels = ids.astype(np.uint16) if way == "16-bit" else ids
            if way == "RGB":
                rows = np.where(ids == space.unknown, space.num_classes, ids)
                pixels = rgb_space.colorize(rows)
            Image.fromarray(pixels).save(root / way / "labels" / f"{k}.png")
            if with_photos:
                Image.fromarray(photo).save(root / way / "images" / f"{k}.jpg", quality=90)
    return source


def originals(count: int) -> tuple[list[tuple[np.ndarray, np.ndarray]], LabelSpace, str]:
    """(numbers and photo of each picture, their classes, where they are from)"""
    camvid = sorted((SHARED / "camvid").glob("*/labels/*.png"))
    coco = sorted((SHARED / "samples" / "coco_stuff").glob("*_label/*.png"))
    if not camvid or not coco:
        space = LabelSpace(names=scenes.NAMES, unknown=scenes.UNKNOWN)
        drawn = [scenes.draw_scene(k, seed=SEED, height=SIDE, width=SIDE) for k in range(count)]
        return [(scene.ids.astype(np.uint8), scene.image) for scene in drawn], space, "drawn scenes"
    space = LabelSpace.from_json(SHARED / "samples" / "coco_stuff" / "classes.json")
    files = [(coco[k // 4 % len(coco)] if k % 4 == 0 else camvid[k % len(camvid)]) for k in range(count)]
    return [_enlarged(path, k) for k, path in enumerate(files)], space, "3 of 4 CamVid's, 1 of 4 COCO-Stuff's"


def _enlarged(label: Path, turn: int) -> tuple[np.ndarray, np.ndarray]:
    """A label map and its photo at 512x512, rolled so that no two files are equal."""
    folder = label.parent.name
    photos = label.parent.with_name("images" if folder == "labels" else folder.replace("_label", "_img"))
    photo = next(photos.glob(f"{label.stem}.*"))
    size = (SIDE, SIDE)
    ids = np.asarray(Image.open(label).resize(size, Image.Resampling.NEAREST))
    pixels = np.asarray(Image.open(photo).convert("RGB").resize(size, Image.Resampling.BICUBIC))
    return np.roll(ids, turn, axis=1), np.roll(pixels, turn, axis=1)


def _colors(count: int) -> list[tuple[int, int, int]]:
    """Distinct colours, none of them black."""
    return [(k * 37 % 251 + 4, k * 91 % 256, k) for k in range(1, count + 1)]


def measure(root: Path, files: int, photos: bool, cores: int, rounds: int) -> tuple[list[float], float]:
    """(maps a second with one thread, several threads and processes; seconds that starting processes took)"""

    def whole(workers: int) -> None:
        report = check(root, workers=workers, labels_only=not photos, progress=False)
        if not report.clean or report.splits[0].maps != files:
            raise SystemExit("\n".join(report.problems))

    context = multiprocessing.get_context("spawn")
    begin = time.perf_counter()
    with ProcessPoolExecutor(cores, context, _begin, (root, photos)) as pool:
        names = list(FolderDataset.list_files(root, None, not photos).labels)
        list(pool.map(_look, names[: 8 * cores]))
        started = time.perf_counter() - begin
        calls: dict[str, Callable[[], object]] = {
            "one": partial(whole, 1),
            "threads": partial(whole, cores),
            "processes": lambda: list(pool.map(_look, names, chunksize=16)),
        }
        seconds = alternate(calls, rounds)
    return [files / statistics.median(seconds[way]) for way in calls], started


_reader: Reader


def _begin(root: Path, photos: bool) -> None:
    global _reader
    space = FolderDataset.stored_space(root, None)
    _reader = Reader(FolderDataset.list_files(root, None, not photos), space)


def _look(name: str) -> Look:
    return _reader(name)


if __name__ == "__main__":
    main()

"""Time of the position maps of CLADE-ICPE: one map on one core, as a data loader worker computes it.

Real label maps are read from ``../shared/data`` where that is present; the drawn ones are always there. Noise is far
worse than any label map: it shows that the time stays bounded when almost every pixel is an object of its own.
"""

from __future__ import annotations

import functools
import statistics
from pathlib import Path

import cc3d
import numpy as np
import torch
from PIL import Image

from benchmarks.common import Row, alternate, use_cores, write_table
from clade.labels.positions import positions_of

SEED = 0
ROUNDS = {(256, 256): 50, (1024, 2048): 15}
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL = {"CamVid": "camvid/train/labels/*.png", "COCO-Stuff": "samples/coco_stuff/*_label/*.png"}
REAL_PER_DATASET = 4


def main() -> None:
    use_cores(1)
    rows: list[Row] = []
    for size, rounds in ROUNDS.items():
        maps = real_maps(size) | drawn_maps(size)
        calls = {name: functools.partial(positions_of, ids) for name, ids in maps.items()}
        for name, seconds in alternate(calls, rounds, warmup=2).items():
            ms = [1e3 * s for s in seconds]
            rows.append([name, f"{size[0]} x {size[1]}", objects(maps[name]), statistics.median(ms), min(ms), max(ms)])
    notes = [
        "`clade.labels.positions.positions_of`: one map on one core, the maps in turn, "
        f"{' and '.join(str(r) for r in ROUNDS.values())} rounds for the small and the large size. "
        "Real maps are nearest-resized; components are 8-connected areas of one class."
    ]
    if not any(DATA.glob(pattern) for pattern in REAL.values()):
        notes.append("The real label maps were not there: drawn maps only.")
    write_table("positions", ["map", "size", "components", "median ms", "min ms", "max ms"], rows, notes, seed=SEED)


def real_maps(size: tuple[int, int]) -> dict[str, np.ndarray]:
    """A few label maps of each real dataset that is there, evenly spaced in the order of their names."""
    height, width = size
    maps = {}
    for dataset, pattern in REAL.items():
        paths = sorted(DATA.glob(pattern), key=lambda path: path.name)
        for path in paths[:: max(1, -(-len(paths) // REAL_PER_DATASET))]:
            with Image.open(path) as image:
                maps[f"{dataset} {path.stem}"] = np.array(image.resize((width, height), Image.Resampling.NEAREST))
    return maps


def drawn_maps(size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Blobs of 12 classes, large and small, and noise."""
    generator = torch.Generator().manual_seed(SEED)

    def blobs(window: int) -> np.ndarray:
        noise = torch.randn(12, *size, generator=generator)
        smooth = torch.nn.functional.avg_pool2d(noise, (window, 1), 1, (window // 2, 0))
        smooth = torch.nn.functional.avg_pool2d(smooth, (1, window), 1, (0, window // 2))
        return smooth.argmax(0).byte().numpy()

    def noise(classes: int) -> np.ndarray:
        return torch.randint(classes, size, dtype=torch.uint8, generator=generator).numpy()

    return {
        "one class": np.zeros(size, np.uint8),
        "large blobs": blobs(63),
        "small blobs": blobs(9),
        "noise, 2 classes": noise(2),
        "noise, 20 classes": noise(20),
        "noise, 256 classes": noise(256),
    }


def objects(ids: np.ndarray) -> int:
    return int(cc3d.connected_components(ids.astype(np.uint16) + 1, connectivity=8, return_N=True)[1])


if __name__ == "__main__":
    main()

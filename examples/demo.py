"""Draw streets with the weights that come with clade; then train a small CLADE-ICPE on drawn scenes for a minute, and
draw label maps that it has never seen.

Run by `make demo`; `python examples/demo.py --help` lists what can be changed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see clade/cli/__init__.py; torch reads these when it loads
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np
from PIL import Image

import clade
from clade.data import ScenesDataset, plain_resize
from clade.engine import keep_pages
from clade.io.images import save_png, sheet, to_uint8
from clade.models.checkpoints import PACKAGED
from clade.system.threads import use_threads

MINUTES = 1
"""Of training; the same command goes on for as long again."""
FIRST_UNSEEN = 500
"""Scenes of the validation split from here on were neither trained on nor validated on."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the sheets and of the run")
    parser.add_argument("--rows", type=int, default=8, help="label maps on the sheet of the training")
    parser.add_argument("--threads", type=int, metavar="N", help="of torch; by default as many as find a free core")
    parser.add_argument("--no-training", action="store_true", help="only draw with the weights that come with clade")
    args, overrides = parser.parse_known_args()
    if args.threads is not None:
        if args.threads < 1:
            parser.error(f"--threads is {args.threads}; needed is at least 1")
        overrides += ["--training.threads", str(args.threads)] if not args.no_training else []
    keep_pages()  # for this process, as the command line does
    use_threads(args.threads)
    draw_streets(args.out / "streets.png")
    if args.no_training:
        if overrides:
            parser.error(f"{overrides[0]}: changes the training, which --no-training leaves out")
        return
    train_on_scenes(args.out, args.rows, overrides)


def draw_streets(path: Path) -> None:
    """Every packaged label map beside its picture, two pairs in a row."""
    started = time.monotonic()
    synthesizer = clade.load("demo")
    assert synthesizer.label_space is not None
    pictures = []
    for file in sorted(PACKAGED["demo"].glob("*.png")):
        label_map = synthesizer.read(file)
        colors = synthesizer.label_space.colorize(label_map.ids[0].numpy())
        pictures += [enlarged(colors), enlarged(to_uint8(synthesizer(label_map))[0], smooth=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(sheet([pictures[k : k + 4] for k in range(0, len(pictures), 4)]), path)
    seconds = time.monotonic() - started
    print(f"Streets drawn without training, label map and picture, {seconds:.1f} s: {path}", flush=True)


def train_on_scenes(folder: Path, count: int, overrides: list[str]) -> None:
    recipe = clade.Recipe.from_yaml("scenes-tiny", ["--training.max_minutes", str(MINUTES), *overrides])
    print(f"Training {recipe.generator.name} on drawn scenes, at most {recipe.training.max_minutes:g} min.")
    started = time.monotonic()
    try:
        result = clade.train(recipe, folder)
    except clade.RecipeError as error:  # the folder is the demo's own: an older recipe's training there is of no use
        print(f"Beginning anew: {error}")
        result = clade.train(recipe, folder, fresh=True)
    print(f"Step {result.step} of {result.steps}, {time.monotonic() - started:.0f} s.")
    if not result.finished:
        print("The time was up before the training was done, so the pictures are softer; the same command goes on.")

    synthesizer = clade.load(result.folder / "last.safetensors")
    height, width = recipe.data.size
    unseen = ScenesDataset(split="val", start=FIRST_UNSEEN, val_count=count, height=height, width=width)
    rows = []
    for index in range(len(unseen)):
        scene = plain_resize(unseen.read(index), recipe.data.size)
        assert scene.image is not None
        drawn = to_uint8(synthesizer(clade.LabelMap(np.array(scene.ids))))[0]
        rows.append([enlarged(picture) for picture in (unseen.label_space.colorize(scene.ids), drawn, scene.image)])
    path = result.folder / "demo.png"
    save_png(sheet(rows), path)
    print(f"Label map, generated picture and the scene as drawn, for {len(rows)} unseen label maps: {path}")


def enlarged(picture: np.ndarray, smooth: bool = False) -> np.ndarray:
    """(H, W, 3) -> (2 H, 2 W, 3)."""
    height, width, _ = picture.shape
    method = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture).resize((2 * width, 2 * height), method))


if __name__ == "__main__":
    try:
        main()
    except clade.CladeError as error:
        sys.exit(f"demo: {error}")

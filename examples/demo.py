"""Train a small CLADE-ICPE on drawn scenes, and draw label maps that it has never seen.

Run by `make demo`; `python examples/demo.py --help` lists what can be changed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see clade/cli.py; torch reads these when it loads
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np

import clade
from clade.data import ScenesDataset, plain_resize
from clade.images import save_png, sheet, to_uint8

FIRST_UNSEEN = 500
"""Scenes of the validation split from here on were neither trained on nor validated on."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the run")
    parser.add_argument("--rows", type=int, default=8, help="label maps on the sheet")
    args, overrides = parser.parse_known_args()

    recipe = clade.Recipe.from_yaml("scenes-tiny", overrides)
    print(f"Training {recipe.generator.name} on drawn scenes, at most {recipe.training.max_minutes} minutes.")
    started = time.monotonic()
    try:
        result = clade.train(recipe, args.out)
    except clade.RecipeError as error:  # the folder is the demo's own: an older recipe's training there is of no use
        print(f"Beginning anew: {error}")
        result = clade.train(recipe, args.out, fresh=True)
    print(f"Step {result.step} of {result.steps}, {time.monotonic() - started:.0f} s.")
    if not result.finished:
        print("The time was up before the training was done, so the pictures are softer; the same command goes on.")

    synthesizer = clade.load(result.folder / "last.safetensors")
    height, width = recipe.data.size
    unseen = ScenesDataset(split="val", start=FIRST_UNSEEN, val_count=args.rows, height=height, width=width)
    rows = []
    for index in range(len(unseen)):
        scene = plain_resize(unseen.read(index), recipe.data.size)
        assert scene.image is not None
        drawn = to_uint8(synthesizer(clade.LabelMap(np.array(scene.ids))))[0]
        rows.append([enlarged(picture) for picture in (unseen.label_space.colorize(scene.ids), drawn, scene.image)])
    path = result.folder / "demo.png"
    save_png(sheet(rows), path)
    print(f"Label map, generated picture and the scene as drawn, for {len(rows)} unseen label maps: {path}")


def enlarged(picture: np.ndarray, factor: int = 2) -> np.ndarray:
    return picture.repeat(factor, 0).repeat(factor, 1)


if __name__ == "__main__":
    try:
        main()
    except clade.CladeError as error:
        sys.exit(f"demo: {error}")

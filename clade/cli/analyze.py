"""``clade analyze``: its arguments, where its label maps come from, and what it prints."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clade.cli.arguments import add_quiet, add_threads, height_width
from clade.errors import CladeError, UsageError

if TYPE_CHECKING:
    from clade.data import Dataset, Sample
    from clade.data.transforms import Fit
    from clade.labels import LabelMap
    from clade.models import Generator
    from clade.models.checkpoints import Checkpoint
    from clade.synthesis import LabelFile
    from clade.tools.analysis import Analysis

Size = tuple[int, int]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="a .safetensors file that clade wrote, of a generator with SPADE or CLADE")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for tables (CSV, JSON) and pictures (PNG)")
    maps = parser.add_mutually_exclusive_group()
    maps.add_argument("--labels", nargs="+", metavar="PATH", help="label files, or folders of them")
    maps.add_argument("--data", metavar="DIR", help="where the checkpoint's dataset lies now; its validation part")
    parser.add_argument("--maps", type=int, default=50, metavar="N", help="at most so many label maps, spread (50)")
    parser.add_argument("--size", metavar="HxW", help="of the label maps; by default as trained")
    parser.add_argument("--layers", nargs="+", default=[], metavar="NAME", help="only these: names, or 'blocks.6.*'")
    parser.add_argument("--pictures", type=int, default=2, metavar="N", help="label maps to draw gamma and beta of (2)")
    parser.add_argument("--channels", type=int, default=2, metavar="N", help="channels of each layer to draw (2)")
    parser.add_argument(
        "--random-channels", action="store_true", help="channels by the seed, not those whose gamma varies most"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides what is drawn; the numbers do not depend on it")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N")
    parser.add_argument("--json", action="store_true", help="print the numbers for programs")
    add_threads(parser)
    add_quiet(parser)


def run(args: argparse.Namespace, _: list[str]) -> int:
    size = None if args.size is None else height_width(args.size)
    if args.maps < 1:
        raise UsageError(f"--maps is {args.maps}; needed is at least 1.")
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise CladeError(f"{out}: is a file; a folder is needed for the tables and pictures.")

    from clade.cli.early import require_generator, require_paths, require_root

    require_generator(args.checkpoint)
    require_paths(args.labels or ())
    require_root(args.data)
    from clade.complexity.measuring import checked_device
    from clade.models.checkpoints import read_checkpoint
    from clade.system.progress import track
    from clade.system.threads import use_threads
    from clade.tools.analysis import analyze, modulation_layers

    use_threads(args.threads)

    checkpoint = read_checkpoint(args.checkpoint)
    modulation_layers(checkpoint.generator, args.layers)  # says what is wrong before data is looked for
    maps, count, where = _label_maps(args, checkpoint, size)
    checkpoint.generator.to(checked_device(args.device))
    found = analyze(
        checkpoint.generator,
        track(maps, "label maps", count, quiet=args.quiet),
        layers=args.layers,
        pictures=args.pictures,
        channels=args.channels,
        choose="seed" if args.random_channels else "variance",
        seed=args.seed,
        label_space=checkpoint.label_space,
    )
    written = [*found.write(out), *_ratios(checkpoint.generator, found.size, out)]
    if args.json:
        print(json.dumps({"checkpoint": str(args.checkpoint), "maps of": where, **found.to_dict()}, indent=1))
        return 0
    print(report(found, where))
    print("\n".join(map(str, written)))
    return 0


def report(found: Analysis, where: str) -> str:
    """A table by resolution, and the summary in words."""
    from clade.tools.analysis.words import percent

    columns = ("features", "layers", "pixels inside", "γ", "inside", "border", "β", "inside", "border")
    rows: list[tuple[str, ...]] = [columns]
    for one in found.resolutions:
        shares = [percent(getattr(one, key)[part].eta) for key in ("gamma", "beta") for part in _PARTS]
        pixels = percent(one.gamma["inside"].pixels / one.gamma["everything"].pixels)
        rows.append((f"{one.size[0]}x{one.size[1]}", f"{one.layers} {one.kind}", pixels, *shares))
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(
        [
            f"Label maps: {where}.",
            "",
            "Within-class share of the variance of gamma and beta, E[Var(γ | class)] / Var(γ), over all pixels, those",
            "inside regions (one class in the 5x5 around) and those at borders:",
            "",
            *table,
            "",
            *found.to_dict()["summary"],
            "",
        ]
    )


_PARTS = ("everything", "inside", "border")


def _ratios(generator: Generator, size: Size, out: Path) -> list[Path]:
    """Figure 5 of this generator, where its layers stand before convolutions of residual blocks (section 3.3)."""
    from clade.complexity.overhead import layer_pairs
    from clade.nn import CLADE, SPADE, ResidualBlock
    from clade.tools.analysis.figures import draw_ratios
    from clade.tools.analysis.result import write_csv

    layers = [
        layer
        for block in generator.modules()
        if isinstance(block, ResidualBlock)
        for key in ("norm1", "norm2", "norm_shortcut")
        if (layer := getattr(block, key, None)) is not None
    ]
    if not layers or not all(isinstance(layer, (SPADE, CLADE)) for layer in layers):
        return []
    rows = [
        (pair.name, "SPADE" if pair.spade else "CLADE", pair.params_ratio, pair.flops_ratio)
        for pair in layer_pairs(generator, size)
    ]
    table = write_csv(out / "ratios.csv", ("layer", "kind", "parameters", "FLOPs"), rows)
    return [table, draw_ratios(rows, out / "ratios.png")]


def _label_maps(
    args: argparse.Namespace, checkpoint: Checkpoint, size: Size | None
) -> tuple[Iterator[LabelMap], int, str]:
    """Label maps read one by one, how many they are, and where they are from."""
    from clade.recipes import Recipe
    from clade.synthesis import find_labels
    from clade.training.builders import build_dataset
    from clade.training.validation import spread

    data = None
    if checkpoint.recipe is not None:
        data = Recipe.from_dict(checkpoint.recipe, source="the checkpoint's recipe").data
        size = size or data.size  # pyright: ignore[reportAssignmentType]  # checked by the recipe
    fit: Fit = "stretch" if data is None else data.fit  # pyright: ignore[reportAssignmentType]
    at = "" if size is None else f" at {size[0]}x{size[1]}"
    if args.labels:
        files, _ = find_labels(args.labels)
        count = min(args.maps, len(files))
        files = [files[k * len(files) // count] for k in range(count)]
        maps = (_read(file, checkpoint, size, fit) for file in files)
        return maps, count, f"{count} of {', '.join(args.labels)}{at}"
    if data is None:
        raise CladeError(
            f"{args.checkpoint}: carries no recipe that says which label maps it was trained with. Give --labels DIR."
        )
    data = data if args.data is None else dataclasses.replace(data, root=args.data)
    dataset = build_dataset(data, data.val_split)
    if dataset.label_space.num_rows != checkpoint.generator.num_rows:
        raise CladeError(
            f"{data.root or data.name}: has {dataset.label_space.num_rows} ids, the generator "
            f"{checkpoint.generator.num_rows}. Give its own dataset with --data, or --labels."
        )
    chosen = spread(dataset, args.maps)
    where = f"{len(chosen)} of the part '{data.val_split}' of {data.root or f'the {data.name}'}{at}"
    return _of(chosen, size, fit), len(chosen), where


def _of(dataset: Dataset, size: Size | None, fit: Fit) -> Iterator[LabelMap]:
    for index in range(len(dataset)):
        yield _resized(dataclasses.replace(dataset.read(index), image=None), size, fit)


def _read(file: LabelFile, checkpoint: Checkpoint, size: Size | None, fit: Fit) -> LabelMap:
    from clade.data import Sample
    from clade.data.files import require_same_size
    from clade.labels import LabelMap, read_instances, read_label

    ids = read_label(file.path, checkpoint.label_space)
    LabelMap(ids).check(checkpoint.generator.num_rows, source=str(file.path))
    instances = None if file.instances is None else read_instances(file.instances)
    if instances is not None and file.instances is not None:
        require_same_size(file.instances, instances.shape, file.path, ids.shape)
    return _resized(Sample(file.name, None, ids, instances), size, fit)


def _resized(sample: Sample, size: Size | None, fit: Fit) -> LabelMap:
    from clade.data import plain_resize
    from clade.labels import LabelMap

    sample = sample if size is None or sample.size == size else plain_resize(sample, size, fit)
    return LabelMap(sample.ids.copy(), sample.instances)

"""``clade convert``: a checkpoint -> one of another kind, and what there is to say of how near it is."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import yaml

from clade.data import Dataset, Sample, ScenesDataset, plain_resize
from clade.data.files import require_same_size
from clade.data.transforms import Fit
from clade.errors import CladeError
from clade.io.atomic import atomic_path
from clade.labels import LabelMap, read_instances, read_label
from clade.models import Generator
from clade.models.checkpoints import Checkpoint, find_checkpoint, read_checkpoint, save
from clade.recipes import Recipe
from clade.synthesis import LabelFile, find_labels
from clade.system.progress import track
from clade.tools.conversion import (
    CONVERSIONS,
    Kept,
    block_sizes,
    convert_checkpoint,
    difference,
    finetune_recipe,
    fit_tables,
    halve,
    kept,
)
from clade.tools.conversion.converting import block_layers, norm_option
from clade.training.builders import build_dataset
from clade.training.validation import spread

Size = tuple[int, int]


def run(args: argparse.Namespace, size: Size | None) -> int:
    """The command, with its arguments parsed."""
    if args.to is not None:
        CONVERSIONS[args.to]  # says what there is, before a large file is read
    if args.maps < 1 or (args.fit is not None and args.fit < 1):
        key, value = ("--maps", args.maps) if args.maps < 1 else ("--fit", args.fit)
        raise CladeError(f"{key} is {value}; needed is at least 1.")
    if args.recipe_out is None and args.finetune_steps is not None:
        raise CladeError("--finetune-steps is the length of the recipe that --recipe-out writes; give that, too.")
    path = find_checkpoint(args.checkpoint)
    if args.to is None:
        return _halve(args, path, size)
    blocks = args.spade_blocks or 0
    if args.above is not None:
        blocks = _blocks_up_to(args.above, read_checkpoint(path), size)
    original, converted = convert_checkpoint(path, args.to, spade_blocks=blocks)
    out = _out(args, path, f"{f'spade{blocks}-' * (blocks > 0)}{args.to}{'-half' * args.half}")
    recipe_out = None if args.recipe_out is None else Path(args.recipe_out)
    recipe = None
    if recipe_out is not None:
        recipe = finetune_recipe(converted, out, args.finetune_steps)
        if args.data is not None:
            recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, root=args.data))
    maps, where = _maps(args, original, size)
    fitted = _fit(args, original, converted, size)
    shown = track(maps, "comparing", quiet=args.quiet)
    save(converted.generator, out, converted.label_space, converted.recipe, converted.info, half=args.half)
    # What is kept is told of the weights that were written, which --half has rounded.
    written = read_checkpoint(out).generator if args.half else converted.generator
    result = kept(original.generator, written, shown)
    if recipe is not None and recipe_out is not None:
        _write_recipe(recipe, recipe_out)
    if args.json:
        facts = {"out": str(out), "generator": converted.generator.name, "options": converted.generator.options}
        compared = {"fitted": fitted, "compared_on": where, **dataclasses.asdict(result)}
        print(json.dumps({**facts, "info": converted.info, **compared}, indent=1))
        return 0
    if fitted:
        print(fitted)
    print(report(original.generator, converted.generator, result, where))
    print(out)
    if recipe is not None:
        print(f"{args.recipe_out}: a fine-tune from there, by `clade train {args.recipe_out}`")
    return 0


def report(original: Generator, converted: Generator, result: Kept, where: str) -> str:
    """What was converted, and how much it keeps, in words and a table."""
    sizes = [sum(p.numel() for p in network.parameters()) / 1e6 for network in (original, converted)]
    before, after = block_layers(original), [block.layers for block in result.blocks]
    rows = [("block", "layers", "features", "inside", "alone", "together")]
    rows += [
        (
            str(k),
            block.layers,
            "x".join(map(str, block.size)),
            *(_percent(share) for share in (block.inside, block.alone, block.together)),
        )
        for k, block in enumerate(result.blocks, start=1)
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(
        [
            f"{original.name} ({norm_option(before)}) -> {converted.name} ({norm_option(after)}), "
            f"{sizes[0]:.3f} -> {sizes[1]:.3f} M parameters",
            f"Compared on {result.maps} label maps: {where}.",
            "",
            f"image energy kept  {100 * result.energy:.2f} %   1 - |I' - I|^2 / |I - mean(I)|^2",
            f"PSNR               {result.psnr:.2f} dB   of I' against I, images in [-1, 1]",
            f"pixels inside      {100 * result.inside:.1f} %   deeper than 2 pixels in a region: same gamma and beta",
            "",
            *table,
            "",
            "inside: the same at the size of the block's features. alone: feature energy that the block keeps where it",
            "gets what the original's block got; together: after the converted blocks before it.",
        ]
    )


def _percent(share: float) -> str:
    return (
        "-" if math.isnan(share) else f"{100 * share:.1f} %"
    )  # features of one pixel have no energy around their mean


def _out(args: argparse.Namespace, path: Path, ending: str) -> Path:
    """The file to write: by default beside the checkpoint, for weights that come with clade in the current folder."""
    beside = Path(args.checkpoint).with_name(f"{path.stem}-{ending}.safetensors")
    out = beside if args.out is None else Path(args.out)
    if out.resolve() == path.resolve():
        raise CladeError(f"{out}: is the checkpoint that is converted. Choose another file with --out.")
    return out


def _halve(args: argparse.Namespace, path: Path, size: Size | None) -> int:
    """The same network in 16 bits."""
    out = _out(args, path, "half")
    original = read_checkpoint(path)
    maps, where = _maps(args, original, size)
    halve(path, out)
    shown = track(maps, "comparing", quiet=args.quiet)
    result = difference(original.generator, read_checkpoint(out).generator, shown)
    sizes = [file.stat().st_size for file in (path, out)]
    if args.json:
        facts = {"out": str(out), "bytes": sizes[1], "bytes_before": sizes[0], "compared_on": where}
        print(json.dumps({**facts, **dataclasses.asdict(result)}, indent=1))
        return 0
    print(
        f"{sizes[0] / 2**20:.1f} -> {sizes[1] / 2**20:.1f} MiB\n"
        f"Compared on {result.maps} label maps: {where}.\n"
        f"PSNR {result.psnr:.1f} dB; {100 * result.changed:.2f} % of the values of 8-bit pictures differ, by at most "
        f"{result.largest}.\n{out}"
    )
    return 0


def _blocks_up_to(resolution: int, checkpoint: Checkpoint, size: Size | None) -> int:
    """How many blocks have features whose shorter side is at most ``resolution``."""
    layers = block_layers(checkpoint.generator)
    if size is None and checkpoint.recipe is None:
        raise CladeError(
            "--above: for pictures of which size? The checkpoint carries no recipe. Give --size HxW, or --spade-blocks."
        )
    height, width = size or checkpoint.recipe["data"]["size"]  # pyright: ignore[reportOptionalSubscript]
    sizes = block_sizes(checkpoint.generator, (height, width))
    blocks = sum(min(features) <= resolution for features in sizes)
    if blocks == len(layers):
        raise CladeError(
            f"--above {resolution}: the features of the {len(layers)} blocks are "
            f"{', '.join(f'{h}x{w}' for h, w in sizes)} for a picture of {height}x{width}, and none is larger."
        )
    return blocks


def _maps(args: argparse.Namespace, checkpoint: Checkpoint, size: Size | None) -> tuple[list[LabelMap], str]:
    """Label maps to compare on, evenly chosen, and where they are from."""
    size, fit = _as_trained(checkpoint, size)
    if args.labels:
        files, _ = find_labels(args.labels)
        return _from_files(_evenly(files, args.maps), checkpoint, size, fit), f"of {', '.join(args.labels)}{_at(size)}"
    if args.data is not None and checkpoint.recipe is None:
        raise CladeError("--data: the checkpoint carries no recipe that says how to read it. Give --labels instead.")
    dataset, where = None, ""
    if checkpoint.recipe is not None:
        try:
            dataset, where = _own_data(args, checkpoint, training=False)
            where += _at(size)
        except CladeError as error:
            if args.data is not None:
                raise
            print(f"Note: the checkpoint's own data cannot be read ({error})", file=sys.stderr)
    if dataset is None:
        height, width = size or (256, 256)
        dataset = ScenesDataset(split="val", height=height, width=width)
        where = f"drawn scenes{_at((height, width))}"
        if checkpoint.label_space is None or checkpoint.label_space.names != dataset.label_space.names:
            where += ", whose classes stand for others; --labels gives it real ones"
    return _from_dataset(dataset, args.maps, checkpoint, size, fit), where


def _fit(args: argparse.Namespace, original: Checkpoint, converted: Checkpoint, size: Size | None) -> str | None:
    """Fit the tables where that is asked for, on other maps than are compared on; what was done, in words."""
    if args.fit is None:
        return None
    size, fit = _as_trained(original, size)
    if args.labels:
        files, _ = find_labels(args.labels)
        compared = _evenly(files, args.maps)
        others = [file for file in files if file not in compared]
        maps = _from_files(_evenly(others or files, args.fit), original, size, fit)
        where = f"of {', '.join(args.labels)}{', others than below' if others else ', the same as below'}"
    elif original.recipe is not None:
        dataset, where = _own_data(args, original, training=True)
        maps = _from_dataset(dataset, args.fit, original, size, fit)
    else:
        raise CladeError("--fit needs label maps, and the checkpoint carries no recipe that names any. Give --labels.")
    count = fit_tables(original.generator, converted.generator, track(maps, "fitting", quiet=args.quiet))
    return f"Tables fitted to what SPADE gives on {count} label maps: {where}."


def _as_trained(checkpoint: Checkpoint, size: Size | None) -> tuple[Size | None, Fit]:
    if checkpoint.recipe is None:
        return size, "stretch"
    data = Recipe.from_dict(checkpoint.recipe, source="the checkpoint's recipe").data
    return size or data.size, data.fit  # pyright: ignore[reportReturnType]  # checked by the recipe


def _own_data(args: argparse.Namespace, checkpoint: Checkpoint, *, training: bool) -> tuple[Dataset, str]:
    """The dataset that the checkpoint was trained or validated on, and what to call it."""
    assert checkpoint.recipe is not None
    data = Recipe.from_dict(checkpoint.recipe, source="the checkpoint's recipe").data
    data = data if args.data is None else dataclasses.replace(data, root=args.data)
    split = data.train_split if training else data.val_split
    dataset = build_dataset(data, split)
    if dataset.label_space.num_rows != checkpoint.generator.num_rows:
        raise CladeError(
            f"{data.root or data.name}: has {dataset.label_space.num_rows} ids, the generator "
            f"{checkpoint.generator.num_rows}. Give its own dataset with --data, or --labels."
        )
    return dataset, f"the part '{split}' of {data.root or f'the {data.name}'}"


def _from_dataset(dataset: Dataset, count: int, checkpoint: Checkpoint, size: Size | None, fit: Fit) -> list[LabelMap]:
    chosen = spread(dataset, count)
    samples = (_resized(dataclasses.replace(chosen.read(k), image=None), size, fit) for k in range(len(chosen)))
    return [LabelMap(sample.ids % checkpoint.generator.num_rows, sample.instances) for sample in samples]


def _evenly(files: list[LabelFile], count: int) -> list[LabelFile]:
    count = min(count, len(files))
    return [files[k * len(files) // count] for k in range(count)]


def _from_files(files: list[LabelFile], checkpoint: Checkpoint, size: Size | None, fit: Fit) -> list[LabelMap]:
    maps = []
    for file in files:
        ids = read_label(file.path, checkpoint.label_space)
        LabelMap(ids).check(checkpoint.generator.num_rows, source=str(file.path))
        instances = None if file.instances is None else read_instances(file.instances)
        if instances is not None and file.instances is not None:
            require_same_size(file.instances, instances.shape, file.path, ids.shape)
        sample = _resized(Sample(file.name, None, ids, instances), size, fit)
        maps.append(LabelMap(sample.ids.copy(), sample.instances))
    return maps


def _resized(sample: Sample, size: Size | None, fit: Fit) -> Sample:
    return sample if size is None or sample.size == size else plain_resize(sample, size, fit)


def _at(size: Size | None) -> str:
    return "" if size is None else f" at {size[0]}x{size[1]}"


def _write_recipe(recipe: Recipe, path: Path) -> None:
    """What differs from the defaults, as YAML."""
    with atomic_path(path) as temporary:
        content = _changed(recipe.to_dict(), Recipe().to_dict())
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
        temporary.write_text(f"# A fine-tune of what `clade convert` wrote.\n{text}", encoding="utf-8")


def _changed(value: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for key, content in value.items():
        nested = isinstance(content, dict) and isinstance(default.get(key), dict) and default[key]
        content = _changed(content, default[key]) if nested else content
        if (content if nested else content != default.get(key)) or key == "name":
            found[key] = content
    return found

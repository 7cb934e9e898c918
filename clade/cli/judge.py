"""``clade judge train`` and ``judge score``, and ``info`` of a judge: their arguments, and what is printed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clade.cli.arguments import add_quiet, add_threads, height_width
from clade.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from clade.metrics.judges import Judge
    from clade.recipes import DataConfig
    from clade.training.judges import Ceiling


def train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", help="a recipe (.yaml), or the name of one for judges that comes with clade: camvid, ccp"
    )
    parser.add_argument("--out", metavar="DIR", help="folder of the run (runs/judge-NAME); an unfinished one goes on")
    add_threads(parser, ", or as before (short for --training.threads)")
    parser.add_argument("--fresh", action="store_true", help="begin anew even if the folder holds a training")
    add_quiet(parser)
    parser.epilog = "Every key of the recipe can be overridden, as in --network.encoder resnet34 --data.root DIR."


def train(args: argparse.Namespace, overrides: list[str]) -> int:
    from clade.cli.early import require_data, require_folder
    from clade.training.judges.recipe import JudgeRecipe

    if args.threads is not None:
        overrides = [*overrides, "--training.threads", str(args.threads)]
    recipe = JudgeRecipe.from_yaml(args.recipe, overrides)
    require_folder(args.out)
    require_data(recipe.data)
    from clade.training.judges import train_judge

    result = train_judge(recipe, args.out, fresh=args.fresh, quiet=args.quiet)
    if result.rank == 0:
        if not result.finished:
            without = " without --fresh" if args.fresh else ""
            print(f"Stopped after step {result.step} of {result.steps}. The same command{without} goes on.")
        if result.best is not None:
            print(f"Best on held-out photos: mIoU {result.best:.4f}", file=sys.stderr)
        print(result.folder / ("last.safetensors" if result.best is None else "best.safetensors"))
    return 0


def score_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "judge", help="a file that `clade judge train` wrote, hf:NAME, or one of the paper's four (NAME or NAME=PATH)"
    )
    parser.add_argument("--data", metavar="DIR", help="the dataset; by default that of the judge's own recipe")
    parser.add_argument("--name", metavar="DATASET", help="its layout (folder, camvid, ...)")
    parser.add_argument("--split", help="which part (val)")
    parser.add_argument(
        "--as-is", action="store_true", help="own splits and classes of the data, not the recipe's split_file and merge"
    )
    parser.add_argument("--size", metavar="HxW", help="of photos and labels; by default as trained, else their own")
    parser.add_argument("--map", metavar="FILE", help="YAML: class of the dataset: class of the judge (or a list)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="pictures at once (8)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--json", action="store_true", help="print for programs")
    add_threads(parser)
    add_quiet(parser)


def score(args: argparse.Namespace, _: list[str]) -> int:
    size = None if args.size is None else height_width(args.size)
    for option in ("limit", "batch"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise UsageError(f"--{option} is {value}; needed is at least 1.")

    from clade.cli.early import require_root

    require_root(args.data)
    from clade.complexity.measuring import checked_device
    from clade.evaluation.data import telling_way_out
    from clade.metrics import judges
    from clade.system.threads import use_threads
    from clade.training.builders import build_dataset
    from clade.training.judges import score

    use_threads(args.threads)
    device = checked_device(_device(args.device))
    data, split = _data(args)
    with telling_way_out(data):
        dataset = build_dataset(data, split)
    judge = judges.open(args.judge, names=dataset.label_space.names, mapping=args.map).to(device)
    _notes(judge)
    recipe = getattr(judge, "recipe", None)
    own = data.size if recipe is not None else None
    fit: Any = data.fit
    ceiling = score(
        judge,
        dataset,
        size=size or own,
        batch_size=args.batch,
        limit=args.limit,
        fit=fit,
        progress=not args.quiet,
    )
    if args.json:
        print(json.dumps({"judge": judge.key, "data": data.root, "split": split, **ceiling.to_dict()}, indent=1))
    else:
        _print(ceiling)
    return 0


def info(path: str | Path, as_json: bool = False) -> int:
    """What ``clade info`` prints of a judge's file."""
    from clade.metrics.judges.trained import read_judge

    judge = read_judge(path)
    parameters = sum(p.numel() for p in judge.network.parameters())
    shape, ceiling = judge.architecture, judge.info.get("ceiling")
    if as_json:
        facts = {
            "judge": judge.name,
            "key": judge.key,
            "architecture": shape.name,
            "encoder": shape.encoder,
            "options": dict(shape.options),
            "size": judge.size,
            "parameters": parameters,
            "info": judge.info,
            "label_space": judge.label_space.to_dict(),
            "recipe": judge.recipe,
        }
        print(json.dumps(facts, indent=1))
        return 0
    print(f"{'judge':12} {judge.name}: {shape.name}, {shape.encoder}, {parameters / 1e6:.3f} M parameters")
    print(f"{'size':12} {judge.size[0]}x{judge.size[1]}")
    trained = {key: value for key, value in judge.info.items() if key != "ceiling" and value is not None}
    print(f"{'trained':12} {', '.join(f'{key} {value}' for key, value in trained.items())}")
    if ceiling:
        print(
            f"{'ceiling':12} mIoU {ceiling['miou']:.4f}, pixel accuracy {ceiling['accuracy']:.4f} on "
            f"{ceiling['pictures']} held-out photos"
        )
    print(f"{'classes':12} {judge.num_classes}: {', '.join(judge.names)}")
    return 0


def _data(args: argparse.Namespace) -> tuple[DataConfig, str]:
    """The dataset section, and which part of it."""
    from dataclasses import replace

    from clade.evaluation.data import in_layout, stored_as_is
    from clade.metrics.judges.trained import read_judge
    from clade.recipes import DataConfig, Recipe

    recipe = None
    file = Path(args.judge)
    if file.is_dir() and (file / "best.safetensors").is_file():
        file = file / "best.safetensors"
    if file.suffix == ".safetensors" and file.is_file():
        recipe = read_judge(file).recipe
    if recipe is not None:
        data = Recipe.from_dict({"data": recipe["data"]}, source=f"{file}: its recipe").data
        if args.data is not None:
            data = replace(data, root=args.data)
        if args.name is not None:
            data = in_layout(data, args.name)
        if args.as_is:
            data = stored_as_is(data)
    elif file.suffix == ".safetensors" or (len(file.parts) > 1 and ":" not in args.judge and "=" not in args.judge):
        raise CheckpointError(f"{file}: no such file. A judge is the best.safetensors that `clade judge train` writes.")
    elif args.data is None:
        raise UsageError(f"'{args.judge}' says nothing of a dataset; needed is --data DIR.")
    else:
        data = DataConfig(name=args.name or "folder", root=args.data)
    return data, args.split or data.val_split


def _notes(judge: Judge) -> None:
    for words, names in (
        ("does not know these classes, whose pixels are not counted", getattr(judge, "unmatched", ())),
        ("has these classes besides, which it never answers with", getattr(judge, "unused", ())),
    ):
        if names:
            listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
            print(f"Note: the judge {words} ({len(names)}): {listed}", file=sys.stderr)


def _print(ceiling: Ceiling) -> None:
    width = max(len(name) for name in ceiling.iou)
    for name, value in ceiling.iou.items():
        print(f"{name:{width}}  {'-' if value is None else f'{value:.4f}'}")
    print(f"\nmIoU {ceiling.miou:.4f}, pixel accuracy {ceiling.accuracy:.4f} on {ceiling.pictures} photos")


def _device(text: str) -> str:
    if text != "auto":
        return text
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"

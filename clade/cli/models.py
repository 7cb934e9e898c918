"""``clade train``, ``generate``, ``info``, ``convert`` and ``profile``: their arguments, and who does the work."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clade.cli.arguments import add_quiet, add_threads, height_width
from clade.errors import UsageError

if TYPE_CHECKING:
    from clade.labels import LabelSpace


def train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a recipe file (.yaml), or the name of one that comes with clade")
    parser.add_argument(
        "--out", metavar="DIR", help="folder of the run (runs/NAME); an unfinished training there goes on"
    )
    parser.add_argument(
        "--devices", type=int, metavar="N", help="train with N processes (short for --training.devices)"
    )
    add_threads(parser, ", or as before (short for --training.threads)")
    parser.add_argument("--fresh", action="store_true", help="begin anew even if the folder holds a training")
    add_quiet(parser)
    parser.epilog = "Every key of the recipe can be overridden, as in --generator.width 32 --training.steps 1000."


def train(args: argparse.Namespace, overrides: list[str]) -> int:
    from clade.cli.early import require_trainable
    from clade.recipes import Recipe

    for key in ("devices", "threads"):
        if getattr(args, key) is not None:
            overrides = [*overrides, f"--training.{key}", str(getattr(args, key))]
    recipe = Recipe.from_yaml(args.recipe, overrides)
    require_trainable(recipe, args.out, args.fresh)
    from clade.training import train

    result = train(recipe, args.out, fresh=args.fresh, quiet=args.quiet)
    if result.rank == 0:
        if not result.finished:
            without = " without --fresh" if args.fresh else ""
            print(f"Stopped after step {result.step} of {result.steps}. The same command{without} goes on.")
        if result.skipped:
            print(f"{result.skipped} files could not be used: {result.folder / 'skipped.txt'}", file=sys.stderr)
        print(result.folder / "last.safetensors")
    return 0


def generate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", help="a .safetensors file that `clade train` wrote, or demo: weights that come with clade"
    )
    parser.add_argument(
        "labels", nargs="*", help="label files, folders of them, dataset folders, or patterns; demo brings some along"
    )
    parser.add_argument(
        "--out", default="pictures", metavar="DIR", help="folder for the images (pictures); names are kept"
    )
    parser.add_argument("--size", metavar="HxW", help="bring label maps to this size first; 'trained' for the recipe's")
    parser.add_argument("--seed", type=_seed, help="which sample of a multi-modal generator")
    parser.add_argument(
        "--samples", type=int, default=1, metavar="N", help="N images of each label map, seeds from --seed"
    )
    parser.add_argument(
        "--style",
        action="append",
        default=[],
        metavar="PHOTO",
        help="photo to take the style from; for single classes sky=a.jpg,building=b.jpg (sean, groupdnet)",
    )
    parser.add_argument(
        "--style-labels", metavar="FILE", help="label map of the style photo, where it is not in labels/"
    )
    parser.add_argument("--to", metavar="PHOTO|SEED", help="the samples are steps from --style or --seed to this one")
    parser.add_argument("--grid", action="store_true", help="also write grid.png: label, generated, photo")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="maps of one size drawn at once (1)")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="threads that read and write meanwhile; by default 2 if cores are free"
    )
    _device_arguments(parser)


def _device_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--precision", default="auto", help="auto (bf16 where the device multiplies in it), fp32, bf16")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the passes between convolutions first: seconds, less from the second start on; for many pictures",
    )
    add_threads(parser)
    add_quiet(parser)


def generate(args: argparse.Namespace, _: list[str]) -> int:
    size = args.size
    if size not in (None, "trained"):
        size = height_width(size, "HxW, 256x512 say, or 'trained'")
    style, to = _style(args.style, args.style_labels), _target(args.to)
    from clade.cli.early import require_generator, require_paths
    from clade.io.headers import PACKAGED, find_checkpoint

    if not args.labels:
        packaged = PACKAGED.get(args.checkpoint)
        own = packaged is None or find_checkpoint(args.checkpoint).parent != packaged.parent  # a file, a training
        if own:
            raise UsageError("label maps to draw are needed after the checkpoint. See `clade generate --help`.")
        args.labels = [str(packaged)]
    require_generator(args.checkpoint)
    require_paths(args.labels)
    from clade.cli.generate import run

    return run(args, size, style, to)


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed < 2**63:
        raise argparse.ArgumentTypeError(f"{text} is no seed; needed is a whole number from 0 to 2^63 - 1")
    return seed


def _style(texts: Sequence[str], labels: str | None) -> Any:
    """A photo's path, a pair with its label map, or {class: photo}."""
    if len(texts) > 1:
        raise UsageError("--style was given more than once; several classes go into one, CLASS=PHOTO,CLASS=PHOTO.")
    text = texts[0] if texts else None
    if labels is not None:
        if text is None or ("=" in text and not os.path.exists(text)):
            raise UsageError("--style-labels is the label map of one photo, --style PHOTO.")
        return text, labels
    if text is None or "=" not in text or os.path.exists(text):
        return text
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and photo for name, _, photo in pairs):
        raise UsageError(f"--style is '{text}'; needed is a photo, or CLASS=PHOTO,CLASS=PHOTO.")
    styles = {name.strip(): photo for name, _, photo in pairs}
    if len(styles) < len(pairs):
        raise UsageError(f"--style is '{text}'; it names a class twice.")
    return styles


def _target(text: str | None) -> Any:
    """What the samples lead to: a seed or a style."""
    if text is None:
        return None
    try:
        return _seed(text)
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"--to: {error}.") from error
    except ValueError:
        return _style([text], None)


def info_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="a .safetensors file that clade wrote, or demo: weights that come with it")
    parser.add_argument("--classes", action="store_true", help="also list what numbers and colours of label files mean")
    parser.add_argument("--json", action="store_true", help="print everything, the recipe included, for programs")


def info(args: argparse.Namespace, _: list[str]) -> int:
    from clade.io.headers import read_header

    header = read_header(args.checkpoint)
    if header.get("kind") == "judge":
        from clade.cli.judge import info as judge_info

        return judge_info(args.checkpoint, args.json)
    from clade.models.checkpoints import read_checkpoint

    checkpoint = read_checkpoint(args.checkpoint)
    generator, space = checkpoint.generator, checkpoint.label_space
    facts = {
        "generator": generator.name,
        "options": generator.options,
        "parameters": sum(p.numel() for p in generator.parameters()),
        "half": bool(header.get("half")),
        "classes": generator.num_classes,
        "info": checkpoint.info,
    }
    if args.json:
        space_dict = None if space is None else space.to_dict()
        print(json.dumps({**facts, "label_space": space_dict, "recipe": checkpoint.recipe}, indent=1))
        return 0
    stored = ", stored in 16 bits" if facts["half"] else ""
    print(f"{'generator':12} {facts['generator']}, {facts['parameters'] / 1e6:.3f} M parameters{stored}")
    print(f"{'options':12} {', '.join(f'{k}={v}' for k, v in generator.options.items())}")
    print(f"{'trained':12} {', '.join(f'{k} {v}' for k, v in checkpoint.info.items() if v is not None)}")
    if checkpoint.recipe is not None:
        data = checkpoint.recipe["data"]
        print(
            f"{'recipe':12} {checkpoint.recipe['name']} (data {data['name']}, size {data['size'][0]}x{data['size'][1]})"
        )
    if space is not None:
        unknown = "" if space.unknown is None else f", unknown = {space.unknown}"
        print(f"{'classes':12} {space.num_classes}: {', '.join(space.names)}{unknown}")
        if args.classes:
            _print_classes(space)
    return 0


def _print_classes(space: LabelSpace) -> None:
    """What to write, or to paint with, into a label map; two lists where numbers are read as others (``remap``)."""
    own = [*range(space.num_classes)] + ([] if space.unknown is None else [space.unknown])
    names = dict(zip(own, [*space.names, "unknown"], strict=False))
    colors = [*space.colors, space.unknown_color][: len(own)]
    if space.remap:
        print("\nnumber  is read as")
        for number, target in sorted({**{number: number for number in own}, **space.remap}.items()):
            print(f"{number:6}  {names[target]}")
    print(f"\n{'' if space.remap else 'number  '}colour (r, g, b)           class")
    for number, (r, g, b) in zip(own, colors, strict=True):
        first = "" if space.remap else f"{number:6}  "
        print(f"{first}({r:3}, {g:3}, {b:3})  #{r:02x}{g:02x}{b:02x}  {names[number]}")


def profile_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="generators, or .safetensors checkpoints; none: what the paper compares there",
    )
    parser.add_argument("--dataset", help="ade20k (default), coco-stuff, cityscapes, celebamask-hq, deepfashion")
    parser.add_argument("--size", metavar="HxW", help="of the picture; by default the dataset's")
    parser.add_argument("--width", type=int, metavar="N", help="of the generators; by default as in the paper")
    parser.add_argument("--num-classes", type=int, metavar="N", help="by default the dataset's")
    parser.add_argument("--convention", choices=("paper", "true"), help="how multiply-adds are counted; default both")
    parser.add_argument("--layers", action="store_true", help="also a table of every generator's layers")
    parser.add_argument("--tables", action="store_true", help="the paper's Tables 1 to 4 and section 3.3 beside ours")
    parser.add_argument("--figure", metavar="FILE.png", help="also draw the paper's Figure 5")
    parser.add_argument("--time", action="store_true", help="also measure time per picture (with --tables: Table 2)")
    parser.add_argument("--memory", action="store_true", help="also measure peak memory: inference and training step")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the timing on a CPU")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="runs that the timing takes the median of")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N")
    parser.add_argument("--precision", default="fp32", help="auto (bf16 where the device multiplies in it), fp32, bf16")
    parser.add_argument("--format", choices=("table", "markdown", "csv", "json"), default="table")
    parser.add_argument("--out", metavar="FILE", help="write there instead of printing")


def profile(args: argparse.Namespace, _: list[str]) -> int:
    from clade.cli.early import require_subject

    for name in args.names:
        require_subject(name)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler prints its own comings and goings otherwise
    from clade.cli.profile import run

    return run(args, None if args.size is None else height_width(args.size))


def convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="a .safetensors file that clade wrote; for --to one with SPADE layers")
    parser.add_argument("--to", metavar="KIND", help="what it becomes: clade")
    parser.add_argument("--half", action="store_true", help="store kernels in 16 bits, for a file of half the size")
    parser.add_argument("--out", metavar="FILE", help="the file to write; by default NAME-clade.safetensors beside it")
    part = parser.add_mutually_exclusive_group()
    part.add_argument(
        "--above", type=int, metavar="N", help="only blocks whose features are larger than NxN; the others keep SPADE"
    )
    part.add_argument("--spade-blocks", type=int, metavar="K", help="the first K blocks, the coarsest, keep SPADE")
    maps = parser.add_mutually_exclusive_group()
    maps.add_argument("--labels", nargs="+", metavar="PATH", help="compare on these label files, or folders of them")
    maps.add_argument("--data", metavar="DIR", help="where the checkpoint's dataset lies now, to compare on")
    parser.add_argument("--maps", type=int, default=16, metavar="N", help="compare on at most N label maps (16)")
    parser.add_argument("--fit", type=int, metavar="N", help="fit the tables to what SPADE gives on N label maps")
    parser.add_argument("--size", metavar="HxW", help="of the label maps; by default as trained")
    parser.add_argument("--recipe-out", metavar="FILE", help="also write the recipe of a short fine-tune from there")
    parser.add_argument("--finetune-steps", type=int, metavar="N", help="its length; by default 5 %% of the training's")
    parser.add_argument("--json", action="store_true", help="print the comparison for programs")
    add_threads(parser)
    add_quiet(parser)


def convert(args: argparse.Namespace, _: list[str]) -> int:
    if args.to is None:
        if not args.half:
            raise UsageError("what is to change? --to KIND, or --half for 16 bits. See `clade convert --help`.")
        of_kind = ("above", "spade_blocks", "fit", "recipe_out", "finetune_steps")
        given = [f"--{key.replace('_', '-')}" for key in of_kind if getattr(args, key) is not None]
        if given:
            raise UsageError(f"{', '.join(given)}: goes with --to KIND. See `clade convert --help`.")
    from clade.cli.early import require_generator, require_paths, require_root

    require_generator(args.checkpoint)
    require_paths(args.labels or ())
    require_root(args.data)
    from clade.cli.convert import run
    from clade.system.threads import use_threads

    use_threads(args.threads)
    return run(args, None if args.size is None else height_width(args.size))

"""The command line: one table of commands, each a few lines over the library."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from clade import commands_data, commands_study
from clade._version import __version__
from clade.errors import CladeError, UsageError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See `{self.prog} --help`.")


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a recipe file (.yaml), or the name of one that comes with clade")
    parser.add_argument(
        "--out", metavar="DIR", help="folder of the run (runs/NAME); an unfinished training there goes on"
    )
    parser.add_argument(
        "--devices", type=int, metavar="N", help="train with N processes (short for --training.devices)"
    )
    parser.add_argument("--fresh", action="store_true", help="begin anew even if the folder holds a training")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.epilog = "Every key of the recipe can be overridden, as in --generator.width 32 --training.steps 1000."


def _train(args: argparse.Namespace, overrides: list[str]) -> int:
    from clade.config import Recipe
    from clade.training import train

    if args.devices is not None:
        overrides = [*overrides, "--training.devices", str(args.devices)]
    result = train(Recipe.from_yaml(args.recipe, overrides), args.out, fresh=args.fresh, quiet=args.quiet)
    if result.rank == 0:
        if not result.finished:
            without = " without --fresh" if args.fresh else ""
            print(f"Stopped after step {result.step} of {result.steps}. The same command{without} goes on.")
        print(result.folder / "last.safetensors")
    return 0


def _generate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="a .safetensors file that `clade train` wrote")
    parser.add_argument("labels", nargs="+", help="label files, folders of them, dataset folders, or patterns")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the images; names are kept")
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


def _generate(args: argparse.Namespace, _: list[str]) -> int:
    size = args.size
    if size not in (None, "trained"):
        size = _height_width(size, "HxW, 256x512 say, or 'trained'")
    style, to = _style(args.style, args.style_labels), _target(args.to)
    from clade.commands_generate import run

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


def _height_width(text: str, needed: str = "HxW, 256x512 say") -> tuple[int, int]:
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise UsageError(f"--size is '{text}'; needed is {needed}.") from error
    if min(height, width) < 1:
        raise UsageError(f"--size is '{text}'; both sides must be at least 1.")
    return height, width


def _info_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="a .safetensors file that clade wrote")
    parser.add_argument("--json", action="store_true", help="print everything, the recipe included, for programs")


def _info(args: argparse.Namespace, _: list[str]) -> int:
    from clade.checkpoints import read_checkpoint

    checkpoint = read_checkpoint(args.checkpoint)
    generator, space = checkpoint.generator, checkpoint.label_space
    facts = {
        "generator": generator.name,
        "options": generator.options,
        "parameters": sum(p.numel() for p in generator.parameters()),
        "classes": generator.num_classes,
        "info": checkpoint.info,
    }
    if args.json:
        space_dict = None if space is None else space.to_dict()
        print(json.dumps({**facts, "label_space": space_dict, "recipe": checkpoint.recipe}, indent=1))
        return 0
    print(f"{'generator':12} {facts['generator']}, {facts['parameters'] / 1e6:.3f} M parameters")
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
    return 0


def _profile_arguments(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--precision", default="fp32", help="fp32, bf16")
    parser.add_argument("--format", choices=("table", "markdown", "csv", "json"), default="table")
    parser.add_argument("--out", metavar="FILE", help="write there instead of printing")


def _profile(args: argparse.Namespace, _: list[str]) -> int:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler prints its own comings and goings otherwise
    from clade.commands_profile import run

    return run(args, None if args.size is None else _height_width(args.size))


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="a .safetensors file that clade wrote, of a generator with SPADE layers")
    parser.add_argument("--to", required=True, metavar="KIND", help="what it becomes: clade")
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


def _convert(args: argparse.Namespace, _: list[str]) -> int:
    from clade.commands_convert import run

    return run(args, None if args.size is None else _height_width(args.size))


Command = tuple[Callable[[argparse.Namespace, list[str]], int], Callable[[argparse.ArgumentParser], None], str]

COMMANDS: dict[str, Command] = {
    "train": (_train, _train_arguments, "train by a recipe, or go on with a training"),
    "generate": (_generate, _generate_arguments, "label maps -> images"),
    "data check": (
        commands_data.check,
        commands_data.check_arguments,
        "find everything that is wrong with a dataset, and what would fix it",
    ),
    "data convert": (
        commands_data.convert,
        commands_data.convert_arguments,
        "masks in other forms (RGB, parts, COCO, polygons, ...) -> a dataset folder",
    ),
    "data prepare": (
        commands_data.prepare,
        commands_data.prepare_arguments,
        "pack a dataset at the size of a recipe, for fast loading",
    ),
    "study build": (
        commands_study.build,
        commands_study.build_arguments,
        "make a blinded two-choice user study of pictures",
    ),
    "study serve": (commands_study.serve, commands_study.serve_arguments, "run a study as a web page"),
    "study report": (commands_study.report, commands_study.report_arguments, "what the participants of a study prefer"),
    "info": (_info, _info_arguments, "what a checkpoint holds"),
    "convert": (_convert, _convert_arguments, "a SPADE generator -> CLADE with its weights, without data"),
    "profile": (_profile, _profile_arguments, "what generators cost: parameters, multiply-adds, time, memory"),
}

_GROUPS = {name.split()[0] for name in COMMANDS if " " in name}
_WITH_RECIPE = ("train", "data prepare")
"""Commands that take a recipe and dotted overrides of its keys."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 well, 1 an error or a finding, 2 wrong words on the command line."""
    # OpenMP threads that wait by spinning keep a core from whoever could use it: with one busy neighbour on two cores a
    # training step took 3 to 10 times as long. Some microseconds of it cost little, and spare idle cores from sleeping
    # between two short operations (GNU's library only). torch reads these when it loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("clade: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone, as in `clade info X | head -1`
        return 1
    except UsageError as error:
        if debug:
            raise
        print(f"clade: error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if debug:
            raise
        kind = "" if isinstance(error, CladeError) else f"unexpected {type(error).__name__}: "
        hint = "" if isinstance(error, CladeError) else " (--debug shows where)"
        print(f"clade: error: {kind}{' '.join(str(error).split())}{hint}", file=sys.stderr)
        return 1


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["--version"]:
        print(f"clade {__version__}")
        return 0
    name = next((name for name in COMMANDS if arguments[: len(name.split())] == name.split()), None)
    if name is None:
        if not [word for word in arguments[:2] if word not in {*_GROUPS, "-h", "--help"}]:
            _print_help()
            return 0
        _unknown(arguments)
    run, add_arguments, summary = COMMANDS[name]
    parser = _Parser(prog=f"clade {name}", description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False)
    add_arguments(parser)
    rest = arguments[len(name.split()) :]
    if name not in _WITH_RECIPE:
        return run(parser.parse_args(rest), [])
    if "-h" in rest or "--help" in rest:
        from clade.config import recipe_parser

        parser.print_help()
        print()
        recipe_parser(f"clade {name} RECIPE").print_help()
        return 0
    if rest and rest[0].startswith("-"):
        raise UsageError(f"the recipe comes first, as in `clade {name} scenes-tiny --data.flip false`.")
    args, overrides = parser.parse_known_args(rest)
    return run(args, overrides)


def _print_help() -> None:
    print("usage: clade COMMAND ... [--debug]\n\nSemantic label maps become photos.\n\ncommands:")
    for name, (_, _, summary) in COMMANDS.items():
        print(f"  {name:12} {summary}")
    print(
        "\n`clade COMMAND --help` explains a command; `clade --version` prints the version; --debug shows tracebacks."
    )


def _unknown(arguments: Sequence[str]) -> NoReturn:
    from clade.registry import near_match

    words = " ".join(arguments[:2]) if arguments[0] in _GROUPS else arguments[0]
    raise UsageError(f"there is no command '{words}'.{near_match(words, COMMANDS)} Known: {', '.join(COMMANDS)}")


if __name__ == "__main__":
    sys.exit(main())

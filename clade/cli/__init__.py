"""The command line: one table of commands, each a few lines over the library."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from clade._version import __version__
from clade.cli import analyze, data, evaluate, judge, listing, models, study
from clade.errors import CladeError, UsageError
from clade.extras import how_to_install
from clade.system.pages import keep_pages


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See `{self.prog} --help`.")


Command = tuple[Callable[[argparse.Namespace, list[str]], int], Callable[[argparse.ArgumentParser], None], str]

COMMANDS: dict[str, Command] = {
    "train": (models.train, models.train_arguments, "train by a recipe, or go on with a training"),
    "generate": (models.generate, models.generate_arguments, "label maps -> images"),
    "data check": (
        data.check,
        data.check_arguments,
        "find everything that is wrong with a dataset, and what would fix it",
    ),
    "data convert": (
        data.convert,
        data.convert_arguments,
        "masks in other forms (RGB, parts, COCO, polygons, ...) -> a dataset folder",
    ),
    "data prepare": (
        data.prepare,
        data.prepare_arguments,
        "pack a dataset at the size of a recipe, for fast loading",
    ),
    "evaluate": (
        evaluate.evaluate,
        evaluate.evaluate_arguments,
        "a checkpoint's scores on a dataset: FID, mIoU, ...",
    ),
    "compare": (
        evaluate.compare,
        evaluate.compare_arguments,
        "scores and costs of several checkpoints, side by side",
    ),
    "judge train": (
        judge.train,
        judge.train_arguments,
        "train a segmenter that judges generated pictures",
    ),
    "judge score": (
        judge.score,
        judge.score_arguments,
        "a judge's score on real photos, the ceiling",
    ),
    "analyze": (
        analyze.run,
        analyze.arguments,
        "how constant SPADE's gamma and beta are inside a class (section 3.1)",
    ),
    "study build": (
        study.build,
        study.build_arguments,
        "make a blinded two-choice user study of pictures",
    ),
    "study serve": (study.serve, study.serve_arguments, "run a study as a web page"),
    "study report": (study.report, study.report_arguments, "what the participants of a study prefer"),
    "info": (models.info, models.info_arguments, "what a checkpoint holds"),
    "convert": (
        models.convert,
        models.convert_arguments,
        "a SPADE generator -> CLADE with its weights, without data; or any into 16 bits",
    ),
    "list": (listing.run, listing.arguments, "names of generators, layers, datasets, recipes, metrics, judges"),
    "profile": (
        models.profile,
        models.profile_arguments,
        "what generators cost: parameters, multiply-adds, time, memory",
    ),
}

_GROUPS = {name.split()[0] for name in COMMANDS if " " in name}
_WITH_RECIPE = ("train", "data prepare", "judge train")
"""Commands that take a recipe and dotted overrides of its keys."""
_WITH_NETWORKS = ("train", "generate", "evaluate", "compare", "judge train", "judge score", "analyze", "study build")
"""Commands that draw, train or judge with large tensors; their process keeps its memory until it ends."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 well, 1 an error or a finding, 2 wrong words on the command line."""
    # OpenMP threads that wait by spinning keep a core from whoever could use it: with one busy neighbour on two cores a
    # training step took 3 to 10 times as long. Some microseconds of it cost little, and spare idle cores from sleeping
    # between two short operations (GNU's library only). torch reads these when it loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    formatted = warnings.formatwarning
    if not debug:
        warnings.formatwarning = _in_one_line
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return _run(_imported(arguments))
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
        if isinstance(error, ModuleNotFoundError) and (hint := how_to_install(error)) is not None:
            print(f"clade: error: {hint}", file=sys.stderr)
            return 1
        kind = "" if isinstance(error, CladeError) else f"unexpected {type(error).__name__}: "
        hint = "" if isinstance(error, CladeError) else " (--debug shows where)"
        print(f"clade: error: {kind}{' '.join(str(error).split())}{hint}", file=sys.stderr)
        return 1
    finally:
        warnings.formatwarning = formatted


def _in_one_line(message: Warning | str, *_: object) -> str:
    """A warning as a user reads it, without the line of code that gave it."""
    return f"clade: warning: {' '.join(str(message).split())}\n"


def _imported(arguments: list[str]) -> list[str]:
    """The arguments without every ``--import MODULE``, which registers what a checkpoint or a name needs."""
    modules = [argument.partition("=")[2] for argument in arguments if argument.startswith("--import=")]
    arguments = [argument for argument in arguments if not argument.startswith("--import=")]
    while "--import" in arguments:
        at = arguments.index("--import")
        if at + 1 == len(arguments):
            raise UsageError("--import needs the name of a module, as in --import my_layers.")
        modules.append(arguments[at + 1])
        arguments = arguments[:at] + arguments[at + 2 :]
    if modules:
        from clade.registry import import_modules

        import_modules(modules)
    return arguments


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
    if name in _WITH_NETWORKS:
        keep_pages()
    if name not in _WITH_RECIPE:
        return run(parser.parse_args(rest), [])
    if "-h" in rest or "--help" in rest:
        parser.print_help()
        print()
        if name == "judge train":
            from clade.training.judges.recipe import judge_recipe_parser as recipe_parser
        else:
            from clade.recipes import recipe_parser
        recipe_parser(f"clade {name} RECIPE").print_help()
        return 0
    if rest and rest[0].startswith("-"):
        example = "camvid" if name == "judge train" else "scenes-tiny"
        raise UsageError(f"the recipe comes first, as in `clade {name} {example} --data.flip false`.")
    args, overrides = parser.parse_known_args(rest)
    return run(args, overrides)


def _print_help() -> None:
    print("usage: clade COMMAND ... [--debug]\n\nSemantic label maps become photos.\n\ncommands:")
    for name, (_, _, summary) in COMMANDS.items():
        print(f"  {name:12} {summary}")
    print(
        "\n`clade COMMAND --help` explains a command; `clade --version` prints the version; --debug shows tracebacks;\n"
        "--import MODULE imports one of yours first, which registers a layer, a generator, a dataset."
    )


def _unknown(arguments: Sequence[str]) -> NoReturn:
    from clade.registry import near_match

    words = " ".join(arguments[:2]) if arguments[0] in _GROUPS else arguments[0]
    raise UsageError(f"there is no command '{words}'.{near_match(words, COMMANDS)} Known: {', '.join(COMMANDS)}")


if __name__ == "__main__":
    sys.exit(main())

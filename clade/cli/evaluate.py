"""``clade evaluate`` and ``clade compare``: their words, and what they print."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clade.cli.arguments import add_quiet, add_threads
from clade.errors import CladeError, UsageError

if TYPE_CHECKING:
    from clade.evaluation import Evaluation

FORMATS = ("table", "markdown", "csv", "latex", "json")


def evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="a .safetensors file of a generator")
    _data_arguments(parser)
    parser.add_argument("--out", default="evaluation.json", metavar="FILE", help="what to write (evaluation.json)")
    add_threads(parser)
    parser.epilog = (
        "A score of the protocol whose weights are not there makes the exit code 1, --skip-missing makes it 0. With "
        "torchrun, processes share the pictures."
    )


def compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "systems", nargs="+", metavar="[NAME=]SYSTEM", help="checkpoints, or evaluation.json files of others"
    )
    _data_arguments(parser)
    parser.add_argument("--seeds", action="store_true", help="group trainings that differ only in training.seed")
    parser.add_argument("--no-cost", action="store_true", help="do not measure time and memory")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="runs that the time is the median of (5)")
    add_threads(parser, ", and 1 for the timing")
    parser.add_argument("--format", choices=FORMATS, default="table")
    parser.add_argument("--out", metavar="FILE", help="write the tables there instead of printing them")
    parser.add_argument("--sheet", metavar="FILE.png", help="also draw label maps, photos and pictures side by side")
    parser.add_argument("--maps", type=int, default=6, metavar="N", help="label maps on the sheet, by --seed (6)")
    parser.epilog = "Scores are ranked only within one protocol, data and weights; others get a table of their own."


def _data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="DIR", help="folder of the dataset; by default that of the recipe")
    parser.add_argument("--dataset", metavar="NAME", help="its layout; by default that of the recipe")
    parser.add_argument("--split", metavar="NAME", help="whose label maps are drawn; by default the recipe's (val)")
    parser.add_argument(
        "--as-is", action="store_true", help="own splits and classes of the data, not the recipe's split_file and merge"
    )
    parser.add_argument("--protocol", default="paper", help="paper, oasis, or a FILE.yaml")
    parser.add_argument("--metrics", metavar="LIST", help="scores instead of the protocol's, as in miou,fid,kid")
    parser.add_argument("--judge", metavar="SPEC", help="segmenter of mIoU and accuracy: NAME=PATH, hf:NAME, or a file")
    parser.add_argument("--judge-map", metavar="FILE.yaml", help="which class of the judge is which of the dataset")
    parser.add_argument("--extractor", metavar="NAME", help="features of fd, precision, ...: dinov2, timm:NAME, ...")
    parser.add_argument(
        "--weights", action="append", default=[], metavar="NAME=FILE", help="of inception, lpips or the extractor"
    )
    parser.add_argument("--size", metavar="HxW", help="of pictures and photos; by default as trained")
    parser.add_argument("--samples", type=int, metavar="K", help="pictures per label map for diversity (10)")
    parser.add_argument("--seed", type=int, help="which samples of a multi-modal generator (0)")
    parser.add_argument(
        "--batch", type=int, default=4, metavar="N", help="pictures drawn at once; changes no score (4)"
    )
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read the data (0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--precision", help="of the drawing: auto, fp32, bf16; by default the protocol's (fp32)")
    parser.add_argument("--skip-missing", action="store_true", help="exit code 0 also where a score is not computed")
    add_quiet(parser)


def evaluate(args: argparse.Namespace, _: list[str]) -> int:
    options = _options(args)
    from clade.cli.early import require_generator, require_root

    require_generator(args.checkpoint)
    require_root(args.data)
    from clade.evaluation import evaluate
    from clade.evaluation.processes import is_first
    from clade.system.threads import use_threads

    use_threads(args.threads)

    if is_first():
        _require_writable(args.out)
    found = evaluate(args.checkpoint, args.data, args.protocol, device=args.device, **options)
    if not is_first():
        return 0
    found.save(args.out)  # first: whoever reads what is printed may go away
    _print(found)
    print(args.out)
    return _told(found.missing, args)


def compare(args: argparse.Namespace, _: list[str]) -> int:
    options = _options(args)
    from clade.cli.early import require_root, require_system

    for system in args.systems:
        require_system(system)
    require_root(args.data)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler prints its own comings and goings otherwise
    from clade.evaluation import compare
    from clade.evaluation.processes import is_alone
    from clade.system.threads import use_threads

    use_threads(args.threads)

    if not is_alone():
        raise CladeError(
            "`clade compare` measures time, so it runs in one process. Evaluate the checkpoints by `torchrun ... clade "
            "evaluate`, and compare their evaluation.json files."
        )
    if args.sheet is not None and Path(args.sheet).suffix.lower() != ".png":
        raise UsageError(f"--sheet is '{args.sheet}'; needed is the name of a .png file.")
    if args.sheet is not None and (args.maps < 1 or all(system.endswith(".json") for system in args.systems)):
        raise UsageError(
            f"--sheet with --maps {args.maps} came; needed are at least one map, and a checkpoint to draw it."
        )
    for file in (args.out, args.sheet):
        if file is not None:
            _require_writable(file)
    found = compare(
        args.systems,
        args.data,
        args.protocol,
        seeds=args.seeds,
        cost=not args.no_cost,
        rounds=args.rounds,
        threads=args.threads or 1,
        device=args.device,
        **options,
    )
    text = found.render(args.format)
    if args.out is None:
        print(text)
    else:
        from clade.io.atomic import atomic_path

        with atomic_path(args.out) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        print(args.out)
    if args.sheet is not None:
        _draw_sheet(args, {s.name: s.path for s in found.systems if s.path is not None}, options)
        print(args.sheet, file=sys.stderr if args.out is None and args.format in ("csv", "json") else sys.stdout)
    return _told({name: "" for system in found.systems for name in system.evaluation.missing}, args)


def _require_writable(file: str) -> None:
    """Raises CladeError where a file cannot be written: before hours of drawing, not after them."""
    path = Path(file).absolute()
    if path.is_dir():
        raise CladeError(f"{file}: is a folder; needed is the name of a file in it.")
    try:
        with tempfile.TemporaryFile(dir=next(folder for folder in path.parents if folder.exists())):
            pass
    except OSError as error:
        raise CladeError(f"{file}: cannot be written ({error}). Name another file.") from error


def _draw_sheet(args: argparse.Namespace, paths: dict[str, Path], options: dict[str, Any]) -> None:
    from clade.evaluation.sheets import comparison_sheet
    from clade.io.images import save_png

    page = comparison_sheet(
        paths,
        args.data,
        args.protocol,
        maps=args.maps,
        device=args.device,
        **{key: options[key] for key in ("dataset", "split", "as_is", "size", "seed", "precision")},
    )
    try:
        save_png(page, args.sheet)
    except OSError as error:
        raise CladeError(f"{args.sheet}: cannot be written ({error}).") from error


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Keywords of :func:`clade.evaluate`."""
    weights: dict[str, str] = {}
    for text in args.weights:
        # The last sign, because an extractor's own name may hold one.
        name, equals, file = text.rpartition("=")
        if not equals or not name or not file:
            raise UsageError(f"--weights is '{text}'; needed is NAME=FILE, as in inception=weights.pth.")
        weights[name] = file
    metrics = None
    if args.metrics is not None:
        metrics = [name.strip() for name in args.metrics.split(",") if name.strip()]
    return {
        "dataset": args.dataset,
        "split": args.split,
        "as_is": args.as_is,
        "metrics": metrics,
        "judge": args.judge,
        "judge_map": args.judge_map,
        "extractor": args.extractor,
        "weights": weights,
        "size": None if args.size is None else _size(args.size),
        "samples": args.samples,
        "seed": args.seed,
        "precision": args.precision,
        "batch": args.batch,
        "workers": args.workers,
        "progress": not args.quiet,
    }


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise UsageError(f"--size is '{text}'; needed is HxW, 256x512 say.") from error
    return height, width


def _print(found: Evaluation) -> None:
    from clade.metrics.scores import SCORES

    height, width = found.protocol["size"]
    data = found.data
    print(
        f"{found.checkpoint['path']}: {found.checkpoint['generator']}, {found.pictures} pictures of {data['name']} "
        f"({data['split']}), {height}x{width}, protocol {found.protocol['name']}\n"
    )
    for name in found.protocol["metrics"]:
        score = SCORES[name]
        label = f"{score.label} {score.arrow}"
        if name in found.scores:
            print(f"{label:18} {found.scores[name]:.{score.digits}f}")
        else:
            print(f"{label:18} not computed, because: {found.missing[name]}")
    print()
    for note in found.details["notes"]:
        print(f"Note: {note}")


def _told(missing: dict[str, str], args: argparse.Namespace) -> int:
    """The exit code; a missing score must not pass for a complete evaluation."""
    if not missing or args.skip_missing:
        return 0
    print(f"clade: not computed: {', '.join(missing)}. --skip-missing accepts that.", file=sys.stderr)
    return 1

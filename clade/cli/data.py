"""``clade data check``, ``convert`` and ``prepare``: their arguments, and what is printed of what they did."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from pathlib import Path
from typing import Any

from clade.cli.arguments import add_quiet
from clade.errors import UsageError


def check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", help="folder of the dataset, in our layout or in that of a benchmark dataset")
    parser.add_argument("--name", metavar="DATASET", help="its layout (folder, ade20k, ...); found by itself")
    parser.add_argument("--split", help="only this part")
    _space_arguments(parser)
    parser.add_argument("--labels-only", action="store_true", help="leave the photos unread, which is faster")
    parser.add_argument("--workers", type=int, metavar="N", help="how many files are read at once; one per core")
    parser.add_argument("--json", action="store_true", help="print a report for programs")
    parser.add_argument("--html", metavar="FILE", help="also write a page with class shares and the worst pictures")
    parser.add_argument("--write", metavar="FILE", help="also write a classes.json that fixes what can be fixed so")
    add_quiet(parser)


def check(args: argparse.Namespace, _: list[str]) -> int:
    from rich.console import Console

    from clade.data import check
    from clade.data.doctor.report import require_new

    if args.write is not None:
        require_new(Path(args.write))
    report = check(
        args.dir,
        name=args.name,
        split=args.split,
        **_space(args),
        labels_only=args.labels_only,
        workers=args.workers,
        progress=not args.quiet,
    )
    if args.json:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        report.print(Console(soft_wrap=not sys.stdout.isatty()))
    if args.write is not None:
        _wrote(report.write_classes(args.write))
    if args.html is not None:
        _wrote(report.html(args.html))
    return 0 if report.clean else 1


def convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="folder of the pictures in their present form")
    parser.add_argument("out", help="folder of the dataset to make")
    parser.add_argument(
        "--from",
        dest="format",
        required=True,
        metavar="FORMAT",
        help="rgb, palette, masks, parts, coco, panoptic, labelme, voc, yolo, folder, or a dataset's name",
    )
    parser.add_argument("--split", help="the part to make (train, val); by default as the source is divided, if it is")
    parser.add_argument(
        "--val-share",
        type=float,
        metavar="X",
        help="divide a source that is not divided into train and val, with this share as val (0.1 say)",
    )
    parser.add_argument("--images", metavar="DIR", help="where the photos lie, if not where the format has them")
    parser.add_argument("--annotations", metavar="FILE", help="the JSON file of coco and panoptic")
    parser.add_argument("--palette", metavar="FILE", help="colours of the classes (json, yaml, text), or 'auto'")
    parser.add_argument("--pattern", help="file names of parts, {name}_{part}.png by default")
    parser.add_argument("--parts", help="names of the parts in the order of painting, skin,nose,hair say")
    parser.add_argument("--classes", metavar="FILE", help="names of the classes (a classes.json)")
    parser.add_argument(
        "--merge", metavar="FILE", help="YAML table that merges classes, or ccp-20 (docs/data-convert.md)"
    )
    parser.add_argument("--tolerance", type=int, default=0, metavar="N", help="rgb: how far off a colour may be")
    parser.add_argument("--exclude", metavar="NAMES", default="", help="names of pictures to leave out, with commas")
    parser.add_argument("--link", action="store_true", help="link photos (hard links) instead of copying them")
    parser.add_argument("--workers", type=int, metavar="N", help="how many pictures at once; one per core")
    parser.add_argument("--on-error", choices=("stop", "skip"), default="stop", help="what a broken file does")
    parser.add_argument("--json", action="store_true", help="print what was made for programs")
    add_quiet(parser)
    parser.epilog = "Nothing is overwritten; the same command goes on where it was stopped."


def convert(args: argparse.Namespace, _: list[str]) -> int:
    from rich.console import Console

    from clade.data.convert import convert
    from clade.recipes import find_merge_table

    report = convert(
        args.source,
        args.out,
        args.format,
        split=args.split,
        images=args.images,
        annotations=args.annotations,
        palette=args.palette,
        parts=None if args.parts is None else _listed(args.parts),
        pattern=args.pattern,
        merge=None if args.merge is None else str(find_merge_table(args.merge)),
        classes=args.classes,
        tolerance=args.tolerance,
        link=args.link,
        workers=args.workers,
        on_error=args.on_error,
        exclude=_listed(args.exclude),
        val_share=args.val_share,
        progress=not args.quiet,
    )
    if args.json:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        report.print(Console(soft_wrap=not sys.stdout.isatty()))
    return 1 if report.skipped else 0


def prepare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="the recipe that will be trained, a file or a name: its data section says what")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the prepared dataset")
    parser.add_argument("--shard-mib", type=int, default=256, metavar="N", help="size of a file (256)")
    parser.add_argument("--workers", type=int, metavar="N", help="reading processes; one per core")
    parser.add_argument("--on-error", choices=("stop", "skip"), default="stop", help="what a broken file does")
    add_quiet(parser)
    parser.epilog = (
        "Keys of the recipe's data section can be overridden, as in --data.root DIR. Train with --data.root OUT and "
        "the same recipe. The same command goes on where it was stopped."
    )


def prepare(args: argparse.Namespace, overrides: list[str]) -> int:
    from dataclasses import replace

    from clade.cli.early import require_data
    from clade.recipes import Recipe

    data = Recipe.from_yaml(args.recipe, overrides).data
    require_data(data)
    from clade.data.prepared import prepare, require_raw
    from clade.training.builders import part_of, raw_dataset

    if data.root is not None:
        require_raw(data.root)
    height, width = data.load_size or [math.ceil(side * data.max_zoom) for side in data.size]
    at_size = replace(data, load_size=(height, width))
    splits = list(dict.fromkeys([data.train_split, data.val_split]))
    parts = {split: part.to_dict() for split in splits if (part := part_of(data, split)) is not None}
    prepared = prepare(
        lambda split: raw_dataset(at_size, split),
        args.out,
        size=(height, width),
        name=data.name,
        options=data.options,
        splits=splits,
        fit=data.fit,  # pyright: ignore[reportArgumentType]  # checked there
        shard_mib=args.shard_mib,
        workers=args.workers,
        on_error=args.on_error,
        parts=parts,
        progress=not args.quiet,
    )
    print(prepared)
    own = [] if data.load_size else ["--data.load_size", f"[{height},{width}]"]
    words = [args.recipe, *_without_root(overrides), *own, "--data.root", str(prepared.root)]
    print(f"Train with: clade train {' '.join(map(shlex.quote, words))}")
    return 1 if prepared.skipped else 0


def _without_root(overrides: list[str]) -> list[str]:
    kept = [word for k, word in enumerate(overrides) if not k or overrides[k - 1] != "--data.root"]
    return [word for word in kept if word.partition("=")[0] != "--data.root"]


def _space_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-classes", type=int, metavar="N", help="number of classes, without a classes.json")
    parser.add_argument("--unknown", type=int, metavar="N", help="number of unlabelled pixels")
    parser.add_argument("--remap", metavar="MAP", help="numbers to read as others, '{37: 255}' say")
    parser.add_argument(
        "--palette", metavar="LIST", help="colours of the classes in RGB files, '[[128, 64, 128], ...]'"
    )


def _space(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "num_classes": args.num_classes,
        "unknown": args.unknown,
        "remap": _remap(args.remap),
        "palette": _palette(args.palette),
    }


def _remap(text: str | None) -> dict[int, int] | None:
    import yaml

    if text is None:
        return None
    try:
        return {int(source): int(target) for source, target in yaml.safe_load(text).items()}
    except (ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise UsageError(
            f"--remap is '{text}'; needed is a JSON mapping of numbers, or one in YAML: '{{37: 255}}' say."
        ) from error


def _palette(text: str | None) -> list[tuple[int, int, int]] | None:
    import yaml

    if text is None:
        return None
    try:
        return [(int(r), int(g), int(b)) for r, g, b in yaml.safe_load(text)]
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise UsageError(
            f"--palette is '{text}'; needed is a JSON list of colours, [[128, 64, 128], [70, 70, 70]] say."
        ) from error


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _wrote(path: str | Path) -> None:
    print(f"Wrote {path}", file=sys.stderr)

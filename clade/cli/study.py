"""``clade study build``, ``serve`` and ``report``: their arguments, and what is printed of what they did."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clade.cli.arguments import add_quiet, add_threads, height_width
from clade.errors import DataError, UsageError

if TYPE_CHECKING:
    from clade.tools.study import Preference, Report


def build_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "systems", nargs="+", metavar="[NAME=]SYSTEM", help="checkpoints (.safetensors), or folders of pictures"
    )
    parser.add_argument("--labels", required=True, metavar="DIR", help="folder of the label maps, or of a dataset")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the study to make")
    parser.add_argument("--questions", type=int, metavar="N", help="label maps that each pair is compared on (40)")
    parser.add_argument("--seed", type=int, default=0, help="which label maps, and which sample of a network (0)")
    parser.add_argument("--checks", type=int, default=3, metavar="K", help="attention checks (3)")
    parser.add_argument("--size", metavar="HxW", help="of all pictures; by default that of folders' pictures or labels")
    parser.add_argument("--photos", action="store_true", help="attention checks show photos (images/ beside labels/)")
    parser.add_argument("--jpeg", type=int, metavar="QUALITY", help="pictures as JPEG, which is smaller, not PNG")
    parser.add_argument("--ask", metavar="TEXT", help="the question, 'Which picture looks more realistic?' by default")
    parser.add_argument("--intro", metavar="FILE", help="text file with instructions and what participants consent to")
    parser.add_argument("--static", action="store_true", help="also public/index.html, which needs no server")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--precision", default="auto", help="auto (bf16 where the device multiplies in it), fp32, bf16")
    add_threads(parser)
    add_quiet(parser)
    parser.epilog = "Another study is never overwritten; the same command goes on where it was stopped."


def build(args: argparse.Namespace, _: list[str]) -> int:
    if len(args.systems) < 2:
        raise UsageError(f"only '{args.systems[0]}' came; a study compares at least two systems.")
    size = None if args.size is None else height_width(args.size)
    texts = {} if args.ask is None else {"ask": args.ask}
    if args.intro is not None:
        texts["intro"] = _text(args.intro)

    from clade.cli.early import require_paths, require_system

    for system in args.systems:
        require_system(system)
    require_paths([args.labels])
    from clade.system.threads import use_threads
    from clade.tools.study.building import build

    use_threads(args.threads)
    built = build(
        args.systems,
        args.labels,
        args.out,
        questions=args.questions,
        seed=args.seed,
        checks=args.checks,
        size=size,
        photos=args.photos,
        jpeg=args.jpeg,
        static=args.static,
        device=args.device,
        precision=args.precision,
        progress=not args.quiet,
        **texts,
    )
    if built.without_pictures:
        names = ", ".join(built.without_pictures[:5]) + (", ..." if len(built.without_pictures) > 5 else "")
        print(f"Note: {len(built.without_pictures)} label maps lack a picture of some system: {names}", file=sys.stderr)
    checks = sum(question.check for question in built.study.questions)
    kept = f", {built.kept} were there" if built.kept else ""
    print(
        f"{' and '.join(built.study.names)}: {len(built.study.questions)} questions, {checks} of them attention "
        f"checks; {built.drawn} pictures written{kept}"
    )
    if args.static:
        print(f"Hand out {Path(args.out) / 'public'}; keep study.json, which tells whose picture is which.")
    else:
        print(f"clade study serve {args.out}")
    return 0


def serve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", help="folder of a study")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for other machines")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (8000)")
    parser.epilog = "Answers go to answers.sqlite in the folder. Stop and start it at will: participants go on."


def serve(args: argparse.Namespace, _: list[str]) -> int:
    from clade.tools.study.server import serve

    serve(args.dir, args.host, args.port)
    return 0


def report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", help="folder of a study")
    parser.add_argument("answers", nargs="*", metavar="FILE", help="answers that participants sent (static page)")
    failed = parser.add_mutually_exclusive_group()
    failed.add_argument(
        "--exclude-failed",
        dest="keep_failed",
        action="store_false",
        help="leave out who failed attention checks (default)",
    )
    failed.add_argument("--keep-failed", action="store_true", help="count them too")
    parser.set_defaults(keep_failed=False)
    parser.add_argument("--allow", type=int, default=0, metavar="N", help="checks that may be answered wrongly (0)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (0)")
    parser.add_argument("--questions", action="store_true", help="also the votes of every question")
    parser.add_argument("--format", choices=("table", "markdown", "csv", "json"), default="table")
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="short for --format json")


def report(args: argparse.Namespace, _: list[str]) -> int:
    from clade.tools.study import report

    found = report(args.dir, args.answers, keep_failed=args.keep_failed, allowed=args.allow, seed=args.seed)
    if args.format == "json":
        value = found.to_dict()
        print(json.dumps(value if args.questions else {k: v for k, v in value.items() if k != "questions"}, indent=1))
        return 0
    tables = [found.pairs, found.questions] if args.questions else [found.pairs]
    print("\n\n".join(_render(table, args.format).rstrip("\n") for table in tables))
    if args.format != "csv":
        print()
    print("\n".join(_remarks(found)), file=sys.stderr if args.format == "csv" else sys.stdout)
    return 0


_HEAD = ("map", "first", "second", "votes", "participants", "for_first", "share", "wilson", "bootstrap", "p")
_TITLES = ("label map", "pair", "votes", "participants", "for the first", "95 % (Wilson)", "95 % (bootstrap)", "p")


def _render(table: Sequence[Preference], format: str) -> str:
    if format == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*_HEAD[:7], "wilson_low", "wilson_high", "bootstrap_low", "bootstrap_high", "p"])
        for row in table:
            intervals = [*(row.wilson or ("", "")), *(row.bootstrap or ("", ""))]
            values = [
                row.map,
                row.first,
                row.second,
                row.votes,
                row.participants,
                row.wins,
                row.share,
                *intervals,
                row.p,
            ]
            writer.writerow(["" if value is None else value for value in values])
        return out.getvalue()
    named = any(row.map is not None for row in table)
    titles = _TITLES if named else _TITLES[1:]
    rows = [_cells(row) if named else _cells(row)[1:] for row in table]
    if format == "markdown":
        lines = [titles, ["---"] * len(titles), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    left = 2 if named else 1  # columns of words
    return "".join(
        "  ".join(
            cell.ljust(width) if k < left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        + "\n"
        for line in [titles, *rows]
    )


def _cells(row: Preference) -> list[str]:
    share = "" if row.share is None else f"{row.share:.1%}"
    p = "" if row.p is None else f"{row.p:.2g}"
    intervals = ["" if i is None else f"{i[0]:.1%} to {i[1]:.1%}" for i in (row.wilson, row.bootstrap)]
    return [row.map or "", f"{row.first} vs. {row.second}", str(row.votes), str(row.participants), share, *intervals, p]


def _remarks(found: Report) -> list[str]:
    failed = "" if not found.failed else ", left out" if found.excluded else ", counted all the same"
    lines = [f"{found.participants} participants; {found.failed} failed the attention checks{failed}."]
    if found.unfinished:
        lines.append(f"{found.unfinished} of those counted have not finished; what they answered counts.")
    if found.unchecked:
        lines.append(f"{found.unchecked} of those counted have not met an attention check yet.")
    if found.left is not None:
        lines.append(f"{found.left:.1%} of the votes went to the left side; median time {found.seconds:.1f} s.")
    lines.append(
        "Wilson interval and p take all votes as independent; the bootstrap draws participants, so go by it where one "
        "participant gives many votes."
    )
    return lines


def _text(path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}).") from error
    if not text:
        raise DataError(f"{path}: is empty; needed is the text that participants read first.")
    return text

"""Words on the command line that several commands take."""

from __future__ import annotations

import argparse

from clade.errors import UsageError


def height_width(text: str, needed: str = "HxW, 256x512 say") -> tuple[int, int]:
    """What --size says; raises UsageError."""
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise UsageError(f"--size is '{text}'; needed is {needed}.") from error
    if min(height, width) < 1:
        raise UsageError(f"--size is '{text}'; both sides must be at least 1.")
    return height, width


def add_threads(parser: argparse.ArgumentParser, more: str = "") -> None:
    default = f"by default as many as find a free core{more}"
    parser.add_argument("--threads", type=_count, metavar="N", help=f"CPU threads of torch; {default}")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="do not tell how far it is")


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' came; needed is at least 1")
    return int(text)

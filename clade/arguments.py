"""Words on the command line that several commands take."""

from __future__ import annotations

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

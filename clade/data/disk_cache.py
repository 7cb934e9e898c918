"""What takes long to find out about a dataset, kept in the user's cache directory."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from filelock import FileLock

from clade.io.atomic import atomic_path

Arrays = dict[str, np.ndarray]


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/clade``, or ``~/.cache/clade``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "clade"


def files_key(paths: Iterable[Path], *more: object) -> str:
    """A digest of where files lie, their sizes and times, and of whatever else the result depends on.

    A file that is missing counts as such.
    """
    digest = hashlib.sha256(repr(more).encode())
    for path in paths:
        try:
            stat = path.stat()
            facts = f"{path.absolute()}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
        except OSError:
            facts = f"{path.absolute()}\0missing\n"
        digest.update(facts.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def cached(kind: str, key: str, make: Callable[[], Arrays]) -> Arrays:
    """What ``make`` gives, from the cache where it is there.

    Several processes that start at once make it once: one does, the others wait. A cache directory that cannot be
    written is said on stderr, and does no other harm.
    """
    path = cache_folder() / f"{kind}-{key}.npz"
    found = _load(path)
    if found is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:
        _say_not_kept(path, error)
        return make()
    try:
        found = _load(path)
        if found is not None:
            return found
        arrays = make()
        try:
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]  # its last keyword is not an array
        except OSError as error:
            _say_not_kept(path, error)
        return arrays
    finally:
        lock.release()


def _load(path: Path) -> Arrays | None:
    """None for a file that is not there or is damaged: it is made anew."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None


def _say_not_kept(path: Path, error: OSError) -> None:
    print(
        f"{path.parent}: cannot be written ({error.strerror}), so this will be found out again next time. "
        "XDG_CACHE_HOME names another place.",
        file=sys.stderr,
    )

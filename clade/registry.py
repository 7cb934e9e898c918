"""Name -> class, with near matches in the error."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from clade.errors import CladeError

T = TypeVar("T")
C = TypeVar("C")


def near_match(name: str, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"``, or an empty string when nothing is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


class Registry(Generic[T]):
    """A table of builders of one kind.

    Args:
        kind: what it holds, in the singular; used in messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Decorator: add the class or function under ``name``."""

        def add(entry: C) -> C:
            if name in self._entries:
                before, now = (getattr(one, "__module__", "?") for one in (self._entries[name], entry))
                raise CladeError(
                    f"There is a {self.kind} '{name}' already, of {before}; {now} needs another name for its own."
                )
            self._entries[name] = entry  # pyright: ignore[reportArgumentType]  # what is decorated keeps its own type
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        """The entry called ``name``; raises CladeError naming the known ones otherwise."""
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        return sorted(self._entries)

    def __iter__(self) -> Iterator[str]:
        """Names in the order of their registration."""
        return iter(self._entries)


def names_in_source(folder: Path, registry: str) -> list[str]:
    """The names that the modules of a folder register in ``registry``, read off their text instead of importing them.

    For what comes with clade, said before torch loads.
    """
    pattern = re.compile(rf"^@{registry}\.register\(\"([^\"]+)\"\)", re.MULTILINE)
    texts = (path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py")) + sorted(folder.glob("*/*.py")))
    return sorted(name for text in texts for name in pattern.findall(text))


def import_all(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that each registers what it holds: a new one is one file."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")


def import_modules(names: Iterable[str]) -> None:
    """Import modules that register something of their own; they may lie in the current folder.

    Raises:
        CladeError: no such module. What a module itself raises goes on as it is.
    """
    here = os.getcwd()
    for name in names:
        if here not in sys.path:
            sys.path.append(here)
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the module is there, and what it imports is not
            raise CladeError(
                f"There is no module '{name}' to import. Needed is the name of one that is installed or lies in "
                f"{here}, without .py."
            ) from error


def unknown(kind: str, name: str, known: Iterable[str]) -> CladeError:
    """There is no such entry; these are."""
    listed = sorted(known)
    return CladeError(f"There is no {kind} called '{name}'.{near_match(name, listed)} Known: {', '.join(listed)}.")

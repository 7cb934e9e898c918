"""Name -> class, with near matches in the error."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
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
            assert name not in self._entries, f"{self.kind} '{name}' registered twice"
            self._entries[name] = entry  # pyright: ignore[reportArgumentType]  # what is decorated keeps its own type
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        """The entry called ``name``; raises CladeError naming the known ones otherwise."""
        if name not in self._entries:
            known = ", ".join(self.names())
            hint = near_match(name, self._entries)
            raise CladeError(f"There is no {self.kind} called '{name}'.{hint} Known: {known}.")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        return sorted(self._entries)

    def __iter__(self) -> Iterator[str]:
        """Names in the order of their registration."""
        return iter(self._entries)

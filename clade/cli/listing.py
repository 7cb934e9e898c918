"""`clade list`: what can be named."""

from __future__ import annotations

import argparse
from collections.abc import Callable

KINDS = ("generators", "layers", "discriminators", "datasets", "recipes", "metrics", "judges")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", choices=KINDS, help="only these, one name a line; by default all kinds")


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Print the names of one kind, or of all."""
    if args.kind is not None:
        print("\n".join(names(args.kind)))
        return 0
    for kind in KINDS:
        print(f"{kind}: {', '.join(names(kind))}")
    return 0


def names(kind: str) -> list[str]:
    """What ``create_generator``, a recipe or the command line take of one kind, those of ``--import`` included."""
    return sorted(_NAMES[kind]())


def _generators() -> list[str]:
    from clade.models import GENERATORS

    return GENERATORS.names()


def _layers() -> list[str]:
    from clade.nn import NORMS

    return [*NORMS.names(), "none"]


def _discriminators() -> list[str]:
    from clade.models import DISCRIMINATORS

    return DISCRIMINATORS.names()


def _datasets() -> list[str]:
    from clade.data import DATASETS

    return DATASETS.names()


def _recipes() -> list[str]:
    from clade.recipes import list_recipes

    return list_recipes()


def _metrics() -> list[str]:
    from clade.metrics.scores import SCORES

    return list(SCORES)


def _judges() -> list[str]:
    from clade.metrics import judges

    return judges.names()


_NAMES: dict[str, Callable[[], list[str]]] = {
    "generators": _generators,
    "layers": _layers,
    "discriminators": _discriminators,
    "datasets": _datasets,
    "recipes": _recipes,
    "metrics": _metrics,
    "judges": _judges,
}

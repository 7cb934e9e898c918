"""What a command can tell at once to be wrong: before torch and the rest load, which takes seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from clade.errors import CheckpointError, CladeError, DataError, RecipeError
from clade.io.headers import PACKAGED, find_checkpoint, read_header
from clade.registry import names_in_source, unknown

if TYPE_CHECKING:
    from clade.recipes import DataConfig, Recipe

_PACKAGE = Path(__file__).parents[1]


def require_trainable(recipe: Recipe, out: str | None, fresh: bool) -> None:
    """Raises CladeError for names that nothing has, and for paths that are not there or of the wrong kind."""
    require_folder(out)
    folder = Path("runs") / recipe.name if out is None else Path(out)
    _require_known("generator", recipe.generator.name, "models", "GENERATORS")
    _require_known("discriminator", recipe.discriminator.name, "models", "DISCRIMINATORS")
    require_data(recipe.data)
    start = recipe.training.init_from
    if start is not None and (fresh or not (folder / "state.safetensors").exists()):  # else it has begun long ago
        try:
            require_generator(start)
        except CheckpointError as error:
            raise RecipeError(f"training.init_from: {error}") from error


def require_data(data: DataConfig) -> None:
    """Raises CladeError for a layout that nobody knows, or a root that is not there."""
    _require_known("dataset", data.name, "data", "DATASETS")
    require_root(data.root)


def require_root(root: str | None) -> None:
    """Raises DataError where a dataset's folder is given and not there; URLs are not looked at."""
    if root is not None and "://" not in root and not Path(root).is_dir():
        what = "is a file" if Path(root).exists() else "no such folder"
        raise DataError(f"{root}: {what}. Name the dataset's folder (data.root in a recipe).")


def require_generator(path: str | Path) -> None:
    """Raises CheckpointError unless a file is a generator's, by its header."""
    header = read_header(path)
    if header.get("kind") == "judge":
        raise CheckpointError(f"{path}: holds a judge, not a generator; `clade judge score` and --judge take it.")


def require_system(text: str) -> None:
    """The same of ``[NAME=]SYSTEM``, where that is a checkpoint."""
    before, equals, after = text.partition("=")
    path = find_checkpoint(after if equals and before and not Path(text).exists() else text)
    if path.suffix == ".safetensors":
        require_generator(path)


def require_subject(name: str) -> None:
    """Raises CladeError unless ``clade profile`` can take it: a generator's name, or a checkpoint."""
    if name in names_in_source(_PACKAGE / "models", "GENERATORS"):
        return  # also where a file or folder has that name
    if name in PACKAGED or Path(name).suffix or Path(name).exists() or "/" in name:
        require_generator(name)
    else:
        _require_known("generator", name, "models", "GENERATORS")


def require_folder(out: str | None) -> None:
    """Raises CladeError where a training's folder is a file."""
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise CladeError(f"{out}: is a file; a folder is needed for the training.")


def require_paths(paths: Iterable[str]) -> None:
    """Raises DataError for a path that is not there and no pattern either."""
    for path in paths:
        if not Path(path).exists() and not any(sign in path for sign in "*?["):
            raise DataError(f"{path}: there is no such file or folder, and it matches nothing as a pattern.")


def _require_known(kind: str, name: str, room: str, registry: str) -> None:
    if f"clade.{room}" in sys.modules:
        return  # it is loaded, perhaps with entries from elsewhere, and will say so itself
    known = names_in_source(_PACKAGE / room, registry)
    if name not in known:
        raise unknown(kind, name, known)

"""The YAML files that come with clade: recipes, and what recipes name."""

from __future__ import annotations

from pathlib import Path

from clade.errors import DataError
from clade.registry import near_match

_SUFFIXES = (".yaml", ".yml", ".json")


def shipped(kind: str = "") -> dict[str, Path]:
    """Name -> file of what comes with clade: the recipes of generators, or those in the folder KIND."""
    return {path.stem: path for path in sorted((Path(__file__).parent / kind).glob("*.yaml"))}


def list_splits() -> list[str]:
    """Names of the split files that come with clade (``data.split_file``)."""
    return sorted(shipped("splits"))


def find_split_file(name: str | Path) -> Path:
    """The split file of a path or of a name that comes with clade; DataError for another name."""
    return _find(name, "splits", "split file", "data.split_file")


def list_merges() -> list[str]:
    """Names of the merge tables that come with clade (``data.merge``)."""
    return sorted(shipped("merges"))


def find_merge_table(name: str | Path) -> Path:
    """The merge table of a path or of a name that comes with clade; DataError for another name."""
    return _find(name, "merges", "merge table", "data.merge")


def _find(name: str | Path, kind: str, what: str, key: str) -> Path:
    path = Path(name)
    if path.suffix.lower() in _SUFFIXES or path.is_file():
        return path
    known = shipped(kind)
    if str(name) not in known:
        raise DataError(
            f"{key} is '{name}', and no {what} of that name comes with clade.{near_match(str(name), known)} "
            f"Known: {', '.join(known)}, or a path ending in .yaml."
        )
    return known[str(name)]

"""Packages that only some judges need."""

from __future__ import annotations

import importlib.util

from clade.errors import CladeError


def require(package: str, what: str) -> None:
    """Raises CladeError where a package of the extra ``judges`` is missing."""
    if importlib.util.find_spec(package) is None:
        pip = package.replace("_", "-")
        raise CladeError(f"{what} needs {package}, which is not installed. Install it: pip install {pip}")

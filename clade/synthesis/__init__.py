"""A checkpoint draws: one label map, or label files -> image files, names kept and nothing skipped silently."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clade.synthesis.folder import GRID, GRID_ROWS, Outcome, generate
    from clade.synthesis.inputs import LabelFile, by_size, find_labels, other_names
    from clade.synthesis.pipeline import Pace, Pipeline
    from clade.synthesis.synthesizer import Synthesizer, load

# On first use: drawing one label map needs none of what reads and writes folders.
_LATER = {
    "GRID": "folder",
    "GRID_ROWS": "folder",
    "LabelFile": "inputs",
    "Outcome": "folder",
    "Pace": "pipeline",
    "Pipeline": "pipeline",
    "Synthesizer": "synthesizer",
    "by_size": "inputs",
    "find_labels": "inputs",
    "generate": "folder",
    "load": "synthesizer",
    "other_names": "inputs",
}

__all__ = [
    "GRID",
    "GRID_ROWS",
    "LabelFile",
    "Outcome",
    "Pace",
    "Pipeline",
    "Synthesizer",
    "by_size",
    "find_labels",
    "generate",
    "load",
    "other_names",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'clade.synthesis' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"clade.synthesis.{_LATER[name]}"), name)
    globals()[name] = value
    return value

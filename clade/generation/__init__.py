"""Many label files -> image files, with names kept and nothing skipped silently."""

from clade.generation.folder import GRID, GRID_ROWS, Outcome, generate
from clade.generation.inputs import LabelFile, by_size, find_labels, other_names
from clade.generation.pipeline import Pace, Pipeline

__all__ = [
    "GRID",
    "GRID_ROWS",
    "LabelFile",
    "Outcome",
    "Pace",
    "Pipeline",
    "by_size",
    "find_labels",
    "generate",
    "other_names",
]

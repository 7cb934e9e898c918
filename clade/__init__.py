"""Semantic label maps become photos: class-adaptive normalization and the systems that it is compared with."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from clade._version import __version__
from clade.errors import CheckpointError, CladeError, DataError, LabelError, RecipeError

if TYPE_CHECKING:
    from clade.checkpoints import read_checkpoint, save
    from clade.complexity import Complexity, profile
    from clade.config import Recipe, list_recipes
    from clade.conversion import convert
    from clade.evaluation import Comparison, Evaluation, compare, evaluate
    from clade.labels import LabelMap, LabelPyramid, LabelSpace, positions
    from clade.models import Generator, create_generator, list_generators
    from clade.published import export_official, import_official
    from clade.synthesizer import Synthesizer, load
    from clade.training import train

# Made available on first use: `import clade` takes milliseconds, and a program can set torch up before it loads.
_LATER = {
    "Comparison": "clade.evaluation",
    "Complexity": "clade.complexity",
    "Evaluation": "clade.evaluation",
    "Generator": "clade.models",
    "LabelMap": "clade.labels",
    "LabelPyramid": "clade.labels",
    "LabelSpace": "clade.labels",
    "Recipe": "clade.config",
    "Synthesizer": "clade.synthesizer",
    "compare": "clade.evaluation",
    "convert": "clade.conversion",
    "create_generator": "clade.models",
    "evaluate": "clade.evaluation",
    "export_official": "clade.published",
    "import_official": "clade.published",
    "list_generators": "clade.models",
    "list_recipes": "clade.config",
    "load": "clade.synthesizer",
    "positions": "clade.labels",
    "profile": "clade.complexity",
    "read_checkpoint": "clade.checkpoints",
    "save": "clade.checkpoints",
    "train": "clade.training",
}

__all__ = [
    "CheckpointError",
    "CladeError",
    "Comparison",
    "Complexity",
    "DataError",
    "Evaluation",
    "Generator",
    "LabelError",
    "LabelMap",
    "LabelPyramid",
    "LabelSpace",
    "Recipe",
    "RecipeError",
    "Synthesizer",
    "__version__",
    "compare",
    "convert",
    "create_generator",
    "evaluate",
    "export_official",
    "import_official",
    "list_generators",
    "list_recipes",
    "load",
    "positions",
    "profile",
    "read_checkpoint",
    "save",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'clade' has no attribute '{name}'")
    value = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

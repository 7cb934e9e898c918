"""Semantic label maps become photos: class-adaptive normalization and the systems that it is compared with."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from clade._version import __version__
from clade.errors import CheckpointError, CladeError, DataError, LabelError, RecipeError
from clade.extras import how_to_install

if TYPE_CHECKING:
    from clade.complexity import Complexity, profile
    from clade.evaluation import Comparison, Evaluation, compare, evaluate
    from clade.labels import LabelMap, LabelPyramid, LabelSpace, positions
    from clade.models import Generator, create_generator, list_generators
    from clade.models.checkpoints import read_checkpoint, save
    from clade.models.published import export_official, import_official
    from clade.recipes import Recipe, list_recipes
    from clade.synthesis.folder import generate
    from clade.synthesis.synthesizer import Synthesizer, load
    from clade.tools.conversion import convert
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
    "Recipe": "clade.recipes",
    "Synthesizer": "clade.synthesis.synthesizer",
    "compare": "clade.evaluation",
    "convert": "clade.tools.conversion",
    "create_generator": "clade.models",
    "evaluate": "clade.evaluation",
    "export_official": "clade.models.published",
    "generate": "clade.synthesis.folder",
    "import_official": "clade.models.published",
    "list_generators": "clade.models",
    "list_recipes": "clade.recipes",
    "load": "clade.synthesis.synthesizer",
    "positions": "clade.labels",
    "profile": "clade.complexity",
    "read_checkpoint": "clade.models.checkpoints",
    "save": "clade.models.checkpoints",
    "train": "clade.training",
}

_ROOMS = (
    "complexity",
    "data",
    "engine",
    "evaluation",
    "labels",
    "losses",
    "metrics",
    "models",
    "nn",
    "recipes",
    "synthesis",
    "training",
)

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
    "generate",
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
    if name not in _LATER and name not in _ROOMS:
        raise AttributeError(f"module 'clade' has no attribute '{name}'")
    try:
        if name in _ROOMS:
            return importlib.import_module(f"clade.{name}")
        value = getattr(importlib.import_module(_LATER[name]), name)
    except ModuleNotFoundError as error:
        hint = how_to_install(error)
        if hint is None:
            raise
        raise ModuleNotFoundError(hint, name=error.name) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])

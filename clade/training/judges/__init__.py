"""Trains judges: segmenters that learn from the same real photos as the generators that they judge."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clade.training.judges.fit import Result, train_judge
    from clade.training.judges.recipe import JudgeRecipe, list_judge_recipes
    from clade.training.judges.scoring import Ceiling, score

# On first use: a recipe is read, and found to be wrong, before torch loads.
_LATER = {
    "Ceiling": "clade.training.judges.scoring",
    "JudgeRecipe": "clade.training.judges.recipe",
    "Result": "clade.training.judges.fit",
    "list_judge_recipes": "clade.training.judges.recipe",
    "score": "clade.training.judges.scoring",
    "train_judge": "clade.training.judges.fit",
}

__all__ = ["Ceiling", "JudgeRecipe", "Result", "list_judge_recipes", "score", "train_judge"]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'clade.training.judges' has no attribute '{name}'")
    return getattr(importlib.import_module(_LATER[name]), name)

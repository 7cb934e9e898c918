"""Trains judges: segmenters that learn from the same real photos as the generators that they judge."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clade.judging.fit import Result, train_judge
    from clade.judging.recipe import JudgeRecipe, list_judge_recipes
    from clade.judging.scoring import Ceiling, score

# On first use: a recipe is read, and found to be wrong, before torch loads.
_LATER = {
    "Ceiling": "clade.judging.scoring",
    "JudgeRecipe": "clade.judging.recipe",
    "Result": "clade.judging.fit",
    "list_judge_recipes": "clade.judging.recipe",
    "score": "clade.judging.scoring",
    "train_judge": "clade.judging.fit",
}

__all__ = ["Ceiling", "JudgeRecipe", "Result", "list_judge_recipes", "score", "train_judge"]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'clade.judging' has no attribute '{name}'")
    return getattr(importlib.import_module(_LATER[name]), name)

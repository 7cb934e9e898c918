"""Trains judges: segmenters that learn from the same real photos as the generators that they judge."""

from clade.judging.fit import Result, train_judge
from clade.judging.recipe import JudgeRecipe, list_judge_recipes
from clade.judging.scoring import Ceiling, score

__all__ = ["Ceiling", "JudgeRecipe", "Result", "list_judge_recipes", "score", "train_judge"]

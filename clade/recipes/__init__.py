"""The recipe of a training: a tree of frozen dataclasses, read from YAML and overridden by dotted keys."""

from clade.recipes.recipe import Recipe, find_recipe, known_keys, list_recipes, recipe_parser
from clade.recipes.sections import (
    DataConfig,
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    OptimizerConfig,
    TrainingConfig,
)
from clade.recipes.shipped import find_merge_table, find_split_file, list_merges, list_splits

__all__ = [
    "DataConfig",
    "DiscriminatorConfig",
    "GeneratorConfig",
    "LossConfig",
    "OptimizerConfig",
    "Recipe",
    "TrainingConfig",
    "find_merge_table",
    "find_recipe",
    "find_split_file",
    "known_keys",
    "list_merges",
    "list_recipes",
    "list_splits",
    "recipe_parser",
]

"""The recipe of a training: a tree of frozen dataclasses, read from YAML and overridden by dotted keys."""

from clade.config.recipe import Recipe, find_recipe, known_keys, list_recipes, recipe_parser
from clade.config.sections import (
    DataConfig,
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    OptimizerConfig,
    TrainingConfig,
)

__all__ = [
    "DataConfig",
    "DiscriminatorConfig",
    "GeneratorConfig",
    "LossConfig",
    "OptimizerConfig",
    "Recipe",
    "TrainingConfig",
    "find_recipe",
    "known_keys",
    "list_recipes",
    "recipe_parser",
]

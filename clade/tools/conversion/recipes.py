"""The checkpoint of a converted generator, and the recipe of a short fine-tune from there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from clade.errors import CladeError
from clade.io.hashing import file_hash
from clade.models import Generator
from clade.models.checkpoints import Checkpoint, read_checkpoint
from clade.recipes import Recipe
from clade.tools.conversion.converting import changed_options, convert, layers_now

FINETUNE = 0.05
"""Part of the original training's length that a fine-tune takes."""


def convert_checkpoint(path: str | Path, to: str = "clade", *, spade_blocks: int = 0) -> tuple[Checkpoint, Checkpoint]:
    """A checkpoint file -> (what it holds, the same converted); see :func:`clade.convert`.

    Label space and recipe are carried along, the recipe with the generator section of the new network, so that training
    can go on from it. ``info`` says what it was made of.

    Raises:
        CladeError: a file that is no checkpoint, or a generator that cannot be converted so.
    """
    original = read_checkpoint(path)
    generator = convert(original.generator, to, spade_blocks=spade_blocks)
    dropped = ("version", "val_l1")  # of the file that it came from, and of the network that it was
    info = {
        **{key: value for key, value in original.info.items() if key not in dropped},
        "converted_from": Path(path).name,
        "converted_from_generator": original.generator.name,
        "converted_from_sha256": file_hash(path),
    }
    recipe = None if original.recipe is None else converted_recipe(original.recipe, generator)
    return original, Checkpoint(generator, original.label_space, recipe, info)


def converted_recipe(recipe: dict[str, Any], generator: Generator) -> dict[str, Any]:
    """A recipe's plain values with the generator section of a converted network."""
    section = dict(recipe["generator"])
    options = changed_options(generator.name, section.get("options", {}), layers_now(generator))
    if section.get("width") is None and "width" in generator.options:  # spade-light's own, which clade has not
        section["width"] = generator.options["width"]
    return {**recipe, "generator": {**section, "name": generator.name, "options": options}}


def finetune_recipe(checkpoint: Checkpoint, path: str | Path, steps: int | None = None) -> Recipe:
    """The recipe of a fine-tune that starts from a checkpoint's weights.

    Args:
        checkpoint: with the recipe that it was trained by.
        path: where the checkpoint lies.
        steps: how long; by default 5 % of the recipe's own length.

    Raises:
        CladeError: the checkpoint carries no recipe, or one that is no longer understood; less than one step.
    """
    if checkpoint.recipe is None:
        raise CladeError(
            "The checkpoint carries no recipe, so none can be written for a fine-tune. Write one with "
            f"training.init_from: {path} and the generator section that `clade info` shows."
        )
    if steps is not None and steps < 1:
        raise CladeError(f"A fine-tune of {steps} steps was asked for; needed is at least 1.")
    recipe = Recipe.from_dict(checkpoint.recipe, source="the checkpoint's recipe")
    training = recipe.training
    if steps is None and training.steps is not None:
        steps = max(1, round(FINETUNE * training.steps))
    return replace(
        recipe,
        name=f"{recipe.name}-{checkpoint.generator.name}-finetune",
        training=replace(
            training, init_from=str(path), steps=steps, epochs=FINETUNE * training.epochs, max_minutes=None
        ),
    )

"""Whether a judge's training may go on with a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clade.training.folder import data_changes, differing, flat
from clade.training.judges.recipe import JudgeRecipe

# What may change between the parts of one training without making it another one.
_FREE = {
    "name",
    "data.root",
    "data.workers",
    "data.cache_mib",
    "data.on_error",
    "network.weights",  # where the training began
    "training.max_minutes",
    "training.save_every",
    "training.log_every",
    "training.devices",
    "training.threads",
    "training.accelerator",
}


def changes(
    facts: Mapping[str, Any], recipe: Mapping[str, Any], data: Mapping[str, Any], per_step: int, pictures: int
) -> list[str]:
    """What makes the training that ``facts`` tells of another one, as :func:`clade.training.folder.changes` has it."""
    before = {**flat(JudgeRecipe().to_dict()), **flat(facts["recipe"])}
    now = flat(recipe)
    before |= {"pictures per step": facts["per_step"], "pictures": facts["pictures"]}
    now |= {"pictures per step": per_step, "pictures": pictures}
    keys = differing(before, now, _FREE)
    return [f"{k} ({before.get(k)} -> {now.get(k)})" for k in keys] or data_changes(facts, data)

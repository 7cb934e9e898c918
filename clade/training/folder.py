"""The folder of a run: what lies in it, and whether a recipe may go on with what is there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from clade.errors import CladeError
from clade.recipes import Recipe

STATE, LAST, BEST = "state.safetensors", "last.safetensors", "best.safetensors"
SKIPPED = "skipped.txt"

# What may change between the parts of one training without making it another one.
FREE = {
    "name",
    "data.root",
    "data.workers",
    "data.cache_mib",
    "data.on_error",  # a training that a broken file has stopped may go on without it
    "training.max_minutes",
    "training.save_every",
    "training.log_every",
    "training.samples",
    "training.devices",  # what counts is the number of pictures per step
    "training.threads",
    "training.accelerator",
}
LENGTH = {"training.steps", "training.epochs"}
LONGER = (
    ": the learning rate falls to the last step, so a longer training is another one; training.init_from with the "
    "finished checkpoint and another --out begins one with these weights"
)
# What was written out before it was left to the network.
FORMER = {"generator.width": 64, "generator.upsampling": "normal"}


def tidy(folder: Path, fresh: bool) -> None:
    """Make the folder, and remove what a killed run left half written; with ``fresh`` also the training in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CladeError(f"{folder}: cannot be made ({error}). Choose another folder with --out.") from error
    for part in (folder, folder / "samples"):
        for leftover in part.glob(".*.tmp"):
            if re.fullmatch(r"\..+\.(safetensors|png|txt)\.\d+(-\d+)?\.tmp", leftover.name):
                leftover.unlink(missing_ok=True)
    if fresh:  # or, killed before it saves, the training before this one would go on
        for name in (STATE, LAST, BEST, SKIPPED):
            (folder / name).unlink(missing_ok=True)


def changes(
    facts: Mapping[str, Any], recipe: Mapping[str, Any], data: Mapping[str, Any], per_step: int, pictures: int
) -> list[str]:
    """What makes the training that ``facts`` tells of another one than this: "key (before -> now)", empty if nothing.

    Args:
        facts: as a training state holds them.
        recipe: plain values of the recipe now.
        data: what its files say now (:func:`clade.training.checks.data_facts`).
        per_step: pictures per step now, over all processes.
        pictures: in the training data now.
    """
    # A key that is newer than the state had its default's effect.
    before, now = {**flat(Recipe().to_dict()), **flat(facts["recipe"])}, flat(recipe)
    for k, value in FORMER.items():
        if now.get(k, value) is None and before.get(k) == value:
            before[k] = None
    keys = differing(before, now, FREE)
    found = [f"{k} ({before.get(k)} -> {now.get(k)}{LONGER if k in LENGTH else ''})" for k in keys]
    found = found or data_changes(facts, data)
    if not found and facts["per_step"] != per_step:
        found = [f"training.devices ({facts['per_step']} -> {per_step} pictures per step)"]
    before_pictures = facts.get("pictures", pictures)
    if not found and before_pictures != pictures:
        found = [f"the dataset ({before_pictures} -> {pictures} pictures)"]
    return found


def differing(before: Mapping[str, Any], now: Mapping[str, Any], free: Set[str]) -> list[str]:
    """Keys of two flat recipes that make another training of it, sorted; a precision left open (auto) makes none."""
    keys = sorted(k for k in before.keys() | now.keys() if k not in free and before.get(k) != now.get(k))
    return [k for k in keys if k != "training.precision" or "auto" not in (before.get(k), now.get(k))]


def precision_note(facts: Mapping[str, Any], asked: str, precision: str) -> str:
    """What a user must know of a training that goes on in another precision; empty where it is the same.

    Args:
        facts: as a training state holds them; before ``auto`` was there, they had no precision but the recipe's.
        asked: the recipe's now.
        precision: what it comes to on this device.
    """
    before = facts.get("precision", facts["recipe"]["training"]["precision"])
    if before == precision:
        return ""
    only = " only" if precision == "fp32" else ""
    why = f"this device multiplies in {precision}{only}" if asked == "auto" else f"training.precision={asked}"
    return (
        f"Note: this training ran in {before}, now in {precision}: {why}. "
        f"Results stay valid, but are not bit-identical; set training.precision={before} to keep it."
    )


def data_changes(facts: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    """Which of the files that the recipe names say something else than when ``facts`` were stored, in words.

    States from before these were stored have none, and nothing is compared.
    """
    before = facts.get("data")
    if before is None:
        return []
    found = [
        f"what data.split_file says of the part '{name}'"
        for name in data["parts"]
        if before["parts"].get(name) != data["parts"][name]
    ]
    keys = [key for key in data["classes"] if before["classes"].get(key) != data["classes"][key]]
    if keys:
        found.append(f"the classes ({', '.join(keys)}), by data.merge or the dataset's classes.json")
    weights = data.get("weights", {})
    keys = [key for key in weights if before.get("weights", {}).get(key, weights[key]) != weights[key]]
    return found + ([f"the weights of {', '.join(keys)}"] if keys else [])


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested plain values by dotted keys."""
    found: dict[str, Any] = {}
    for key, content in value.items():
        if isinstance(content, Mapping):
            found.update(flat(content, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = content
    return found

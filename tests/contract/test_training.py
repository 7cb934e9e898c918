"""Every registered generator trains: 30 steps on the built-in scenes without NaN and with falling feature matching."""

from __future__ import annotations

import math
import statistics

import pytest

from clade.models import generator_options, list_generators
from clade.recipes import Recipe
from clade.training.fit import stepper

# One batch over and over; a discriminator that hardly moves, so that the features to be matched stay what they are, and
# a bounded adversarial loss, so that it does not outgrow the matching: what falls is the generator's own doing.
SETTINGS = {
    "data": {"name": "scenes", "size": [64, 64], "flip": False, "max_zoom": 1.0, "options": {"count": 2}},
    "discriminator": {"width": 8},
    "losses": {"perceptual": 0, "adversarial": "least-squares"},
    "optimizer": {"lr_generator": 1e-3, "lr_discriminator": 1e-5},
    "training": {"steps": 30, "batch_size": 2, "threads": 1},
}
SMALL = {"hidden": 16, "style_dim": 16}


@pytest.mark.slow
@pytest.mark.parametrize("name", list_generators())
def test_every_generator_trains_against_the_segmentation_discriminator(name, tmp_path):
    """Not enough steps to learn anything: both sides' losses stay numbers, and move."""
    known = generator_options(name)
    generator = {"name": name, "width": 4, "options": {key: value for key, value in SMALL.items() if key in known}}
    if name in ("cc-fpse", "groupdnet", "groupdnet-clade"):
        generator["encoder"] = True
    discriminator = {"name": "segmentation", "width": 4, "diff_augment": "color,translation,cutout"}
    recipe = {**SETTINGS, "generator": generator, "discriminator": discriminator}
    step = stepper(Recipe.from_dict({**recipe, "losses": {"perceptual": 0, "feature_matching": 0, "l1": 1}}), tmp_path)
    losses = [step() for _ in range(3)]
    assert {"gan", "l1", "d_real", "d_fake", "d_label_mix"} <= losses[0].keys()
    assert all(math.isfinite(value) for step_losses in losses for value in step_losses.values())
    assert all(losses[0][key] != losses[2][key] for key in losses[0] if losses[0][key])


@pytest.mark.slow
@pytest.mark.parametrize("name", list_generators())
def test_thirty_steps_bring_its_pictures_nearer_to_the_photos(name, tmp_path):
    known = generator_options(name)
    options = {key: value for key, value in SMALL.items() if key in known}
    generator = {"name": name, "width": 4, "options": options}
    if name in ("cc-fpse", "groupdnet", "groupdnet-clade"):
        generator["encoder"] = True  # as they are published; their latents then come from the photos
    discriminator = {"name": "fpse", "width": 8} if name == "cc-fpse" else SETTINGS["discriminator"]
    step = stepper(Recipe.from_dict({**SETTINGS, "generator": generator, "discriminator": discriminator}), tmp_path)
    losses = [step() for _ in range(30)]
    assert all(math.isfinite(value) for step_losses in losses for value in step_losses.values())
    matching = [step_losses["feature_matching"] for step_losses in losses]
    assert statistics.mean(matching[-5:]) < 0.85 * statistics.mean(matching[:5])
    assert not list(tmp_path.iterdir())

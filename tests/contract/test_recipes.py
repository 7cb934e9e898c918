"""Every recipe that comes with clade builds its networks, at a size that fits a test; each kind of network trains."""

import dataclasses
import functools
import os
from pathlib import Path

import pytest
import torch

from clade.data import Batch, layouts
from clade.errors import CheckpointError
from clade.labels import LabelMap, LabelPyramid, LabelSpace
from clade.models import generator_options
from clade.recipes import Recipe, list_recipes
from clade.training.builders import build_discriminator, build_generator, build_objective, build_optimizer
from clade.training.step import TrainableDiscriminator, TrainableGenerator, look_numbers, training_step

read = functools.cache(Recipe.from_yaml)
# What classes.json of the real data says, where the recipe leaves it to the folder.
CLASSES = {"camvid": (11, 255), "ccp": (59, None), "scenes": (12, 255)}


def label_space(recipe):
    if recipe.data.name in layouts() and recipe.data.name != "folder":
        return layouts()[recipe.data.name].stored_space(Path(), recipe.data.train_split)
    count, unknown = recipe.data.num_classes, recipe.data.unknown
    if count is None:
        count, unknown = CLASSES[recipe.name.split("-")[0]]
    return LabelSpace(names=tuple(f"class {k}" for k in range(count)), unknown=unknown)


def tiny(config, space):
    """The same network, narrow inside, too."""
    small = {"hidden": 8, "style_dim": 8, "encoder_width": 4 * space.num_rows if "groupdnet" in config.name else 2}
    known = set(generator_options(config.name))
    options = {**config.options, **{k: v for k, v in small.items() if k in known}}
    return dataclasses.replace(config, width=2, options=options)


def fake_batch(space, size=(64, 64), count=2):
    random = torch.Generator().manual_seed(0)
    coarse = torch.randint(space.num_rows, (count, 4, 4), generator=random)
    ids = coarse.repeat_interleave(size[0] // 4, 1).repeat_interleave(size[1] // 4, 2)
    ids[:, 0, 0] = space.num_rows - 1
    image = torch.rand(count, 3, *size, generator=random) * 2 - 1
    return Batch(image, LabelMap(ids, instances=ids), tuple("ab"[:count]))


def test_there_are_recipes():
    assert "scenes-tiny" in list_recipes()


def built(name):
    """(recipe, label space, generator, discriminator)"""
    recipe = read(name)
    space = label_space(recipe)
    torch.manual_seed(0)
    generator = build_generator(tiny(recipe.generator, space), space, (64, 64))
    narrow = dataclasses.replace(recipe.discriminator, width=4)
    return recipe, space, generator, build_discriminator(narrow, space, recipe.generator.instance_edges)


@pytest.mark.parametrize("name", list_recipes())
def test_recipe_builds_its_networks_for_its_classes(name):
    recipe, space, generator, _ = built(name)
    assert generator.num_rows == space.num_rows
    assert generator.uses_instances == recipe.generator.instance_edges


def kinds():
    """One recipe of each kind of networks: where recipes differ in classes, edges, start and weights of losses alone,
    the one with edges and, of those, the fewest classes."""
    found = {}
    for name in list_recipes():
        recipe = read(name)
        space = label_space(recipe)
        generator = dataclasses.replace(tiny(recipe.generator, space), instance_edges=False, upsampling=None)
        generator.options.pop("encoder_width", None)  # a multiple of the classes
        key = repr((generator, dataclasses.replace(recipe.discriminator, width=1), recipe.losses.adversarial))
        rank = (not recipe.generator.instance_edges, space.num_rows, name)
        found[key] = min(found.get(key, rank), rank)
    return sorted(name for *_, name in found.values())


@pytest.mark.parametrize("name", kinds())
def test_each_kind_of_networks_in_the_recipes_trains_a_step(name):
    recipe, space, generator, discriminator = built(name)
    objective = build_objective(dataclasses.replace(recipe.losses, perceptual=0))
    batch = fake_batch(space)
    labels = LabelPyramid(batch.label_map, space.num_rows)
    edges = recipe.generator.instance_edges
    shape = generator.latent_shape(batch.label_map.size)
    noise = None if shape is None else torch.randn(len(batch), *shape)
    judge = TrainableDiscriminator(discriminator, objective, edges)
    numbers = look_numbers(0, 0, len(batch), discriminator.draws, 0, 1)
    networks = (TrainableGenerator(generator), judge)
    losses = training_step(*networks, batch, labels, objective, noise=noise, numbers=numbers)
    build_optimizer(recipe.optimizer, generator, recipe.optimizer.lr_generator).step()
    build_optimizer(recipe.optimizer, discriminator, recipe.optimizer.lr_discriminator).step()
    for module in (generator, discriminator):
        learned = [p for p in module.parameters() if p.requires_grad]  # SEAN has frozen ones that nothing uses
        assert all(p.grad is not None and p.grad.isfinite().all() for p in learned)
        assert all(p.isfinite().all() for p in module.parameters())
    assert all(value.isfinite() for value in losses.values())


@pytest.mark.parametrize("name", list_recipes())
def test_recipe_without_vgg_weights_says_where_to_get_them(name, tmp_path, monkeypatch):
    recipe = read(name)
    if not recipe.losses.perceptual:
        assert build_objective(recipe.losses).vgg is None
        assert recipe.losses.l1 > 0
        return
    monkeypatch.setitem(os.environ, "TORCH_HOME", str(tmp_path))
    with pytest.raises(CheckpointError) as caught:
        build_objective(recipe.losses)
    assert "losses.perceptual to 0" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


PAPER = [n for n in list_recipes() if n.split("-")[0] in ("ade20k", "coco", "cityscapes") and "groupdnet" not in n]


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_recipes_have_the_paper_s_settings(name):
    recipe = read(name)
    assert recipe.training.epochs == 200
    assert recipe.training.batch_size == (16 if name.startswith("cityscapes") else 32)
    assert recipe.data.size == ((256, 512) if name.startswith("cityscapes") else (256, 256))
    assert recipe.data.load_size == ((256, 512) if name.startswith("cityscapes") else (286, 286))
    assert name.startswith(f"{recipe.data.name}-")
    assert (recipe.optimizer.lr_generator, recipe.optimizer.lr_discriminator) == (1e-4, 4e-4)
    assert (recipe.optimizer.beta1, recipe.optimizer.beta2, recipe.optimizer.constant) == (0, 0.9, 0.5)
    # CC-FPSE's weight of 10 is over 4 layers where ours averages over 3 score maps.
    assert recipe.losses.feature_matching == (7.5 if name.endswith("cc-fpse") else 10)
    assert (recipe.losses.perceptual, recipe.losses.l1) == (10, 0)
    assert recipe.losses.adversarial == "hinge"
    # None is the network's own: 64, for spade-light 8.
    assert recipe.generator.width == (32 if name == "cityscapes-spade-light" else None)
    assert recipe.discriminator.width == 64
    assert recipe.generator.instance_edges == (not name.startswith("ade20k"))

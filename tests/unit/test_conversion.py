"""SPADE generators become CLADE generators: what stays the same, how the rest is measured, training on from there."""

from __future__ import annotations

import copy
import math

import pytest
import torch

import clade
from clade import CheckpointError, CladeError, LabelMap, LabelPyramid, Recipe, RecipeError, create_generator
from clade.labels import LabelSpace
from clade.nn import CLADE, SPADE, fold_spectral_norm
from clade.tools.conversion import (
    block_sizes,
    convert,
    convert_checkpoint,
    converted_recipe,
    finetune_recipe,
    fit_tables,
    kept,
)
from clade.training.builders import build_generator
from clade.training.fit import _Run, train
from clade.training.launch import make_fabric

SPACE = LabelSpace.numbered(4, unknown=255)
SMALL = {"num_classes": 4, "unknown_class": True, "width": 2, "hidden": 6}
VARIANTS = {
    "spade": ("spade", {}),
    "edges": ("spade", {"instance_edges": True}),
    "instance normalization": ("spade", {"normalization": "instance"}),
    "most": ("spade", {"upsampling": "most"}),
    "latent": ("spade", {"z_dim": 3, "size": (64, 64), "encoder": True, "encoder_width": 2}),
    "positions at the input": ("spade", {"positions": "input", "skip_class": 0}),
    "light": ("spade-light", {}),
    "dagan": ("dagan", {"instance_edges": True}),
    "hybrid": ("clade", {"norm": "spade:5,clade", "instance_edges": True}),
    "hybrid with positions": ("clade-icpe", {"norm": "spade:5,clade", "skip_class": 1}),
    "hybrid with a position channel": ("clade", {"norm": ["spade"] * 3 + ["clade"] * 4, "positions": "features"}),
    "hybrid with bare blocks": ("clade", {"norm": "none:2,spade:2,clade"}),
}


def trained(name="spade", seed=0, **options):
    """A generator with weights and statistics far from their start."""
    torch.manual_seed(seed)
    generator = create_generator(name, **{**SMALL, **options})
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
        for key, value in generator.state_dict().items():
            if key.endswith("running_mean"):
                value.normal_(0, 0.5)
            elif key.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif key.endswith("num_batches_tracked"):
                value.fill_(7)
    return generator.eval()


def halves(height=64, width=64):
    """Class 1 left of class 3, each one instance."""
    ids = torch.ones(1, height, width, dtype=torch.long)
    ids[:, :, width // 2 :] = 3
    return LabelMap(ids, ids.int())


def latent(generator):
    shape = generator.latent_shape((64, 64))
    return None if shape is None else torch.randn(1, *shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_converted_layer_gives_inside_regions_what_spade_gave(variant):
    name, options = VARIANTS[variant]
    original = trained(name, **options)
    converted = convert(original)
    pyramid = LabelPyramid(halves(32, 40), 5)
    inside = torch.zeros(1, 32, 40, dtype=torch.bool)
    border = 20 + 2 + original.instance_edges  # the edge marks a pixel on both sides, which reaches 2 further
    inside[:, 2:-2, 2 : 40 - border] = inside[:, 2:-2, border:-2] = True
    layers = {key: layer for key, layer in original.named_modules() if isinstance(layer, SPADE)}
    assert layers
    for key, layer in layers.items():
        new = converted.get_submodule(key)
        assert type(new) is CLADE
        x = torch.randn(1, layer.out_channels, 32, 40, generator=torch.Generator().manual_seed(1)) * 2 + 1
        before, after = layer(x, pyramid), new(x, pyramid)[:, : layer.out_channels]
        far = (before - after).abs().amax(1)
        assert far[inside].max() < 1e-6 * before.abs().max()
        assert far[~inside].max() > 1e-2
    assert not any(isinstance(layer, SPADE) for layer in converted.modules())


def test_the_picture_of_one_class_is_the_same_as_far_as_its_border_does_not_reach():
    original = trained(width=1, hidden=3)
    converted = convert(original)
    # 2 pixels of each layer and 1 of each convolution, doubled by each upsampling, come to 222 pixels.
    ids = torch.full((1, 544, 544), 2)
    with torch.no_grad():
        before, after = original(ids), converted(ids)
    far = (before - after).abs().amax(1)[0]
    assert far[240:-240, 240:-240].max() < 1e-5
    assert far.max() > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_file_rebuilds_what_was_converted(variant, tmp_path):
    name, options = VARIANTS[variant]
    converted = convert(trained(name, **options), spade_blocks=2)
    clade.save(converted, tmp_path / "c.safetensors", SPACE)
    again = clade.read_checkpoint(tmp_path / "c.safetensors").generator
    assert (again.name, again.options) == (converted.name, converted.options)
    z = latent(again)
    with torch.no_grad():
        assert torch.equal(again(halves(), z=z), converted(halves(), z=z))


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_other_weights_and_statistics_are_carried_over(variant):
    name, options = VARIANTS[variant]
    original = trained(name, **options)
    before = copy.deepcopy(original.state_dict())
    state = convert(original).state_dict()
    modulation = tuple(
        f"{key}.{part}."
        for key, layer in original.named_modules()
        if isinstance(layer, SPADE)
        for part in ("shared", "to_gamma", "to_beta")
    )
    for key, value in before.items():
        if key.startswith(modulation):
            assert key not in state
        elif state[key].shape == value.shape:
            assert torch.equal(state[key], value), key
        else:  # CLADE's further channel, of an edge or a position
            assert key.endswith(("conv1.parametrizations.weight.original", "conv2.parametrizations.weight.original",
                                 "conv_shortcut.parametrizations.weight.original", "._v")), key  # fmt: skip
            kept_part = state[key][tuple(slice(length) for length in value.shape)]
            assert torch.equal(kept_part, value)
            assert state[key].count_nonzero() == value.count_nonzero()
    assert all(torch.equal(value, before[key]) for key, value in original.state_dict().items())


def test_the_edge_channel_leaves_spectral_norm_alone_and_can_be_learned():
    original = trained(instance_edges=True)
    converted = convert(original)
    for network in (original, converted):
        network.train()
    for old, new in zip(original.blocks, converted.blocks, strict=True):
        for name in ("conv1", "conv2"):
            before = getattr(old, name)
            after = getattr(new, name)
            for _ in range(2):  # each use in training mode iterates the singular vectors
                wanted, got = before.weight, after.weight
            assert torch.allclose(got[:, :-1], wanted, rtol=1e-5, atol=1e-6)
            assert (got[:, -1] == 0).all()
    converted(halves()).square().mean().backward()
    gradient = converted.blocks[-1].conv1.parametrizations.weight.original.grad
    assert (gradient[:, -1] != 0).any()


def test_kept_spade_blocks_are_exactly_the_same():
    original = trained()
    for k in (1, 4, 6):
        converted = convert(original, spade_blocks=k)
        assert (converted.name, converted.options["norm"]) == ("clade", f"spade:{k},clade")
        result = kept(original, converted, [halves()])
        assert [block.layers for block in result.blocks] == ["spade"] * k + ["clade"] * (7 - k)
        assert all(block.together == block.alone == 1 for block in result.blocks[:k])
        assert all(block.together < 1 and block.alone < 1 for block in result.blocks[k:])


def test_the_comparison_is_the_formula_that_it_states():
    original = trained()
    converted = convert(original, spade_blocks=3)
    maps = [halves(64, 96), halves(50, 64)]
    result = kept(original, converted, maps)
    with torch.no_grad():
        pairs = [(original(one).numpy(), converted(one).numpy()) for one in maps]
    lost = sum(float(((after - before) ** 2).sum()) for before, after in pairs)
    energy = sum(float(((before - before.mean((2, 3), keepdims=True)) ** 2).sum()) for before, _ in pairs)
    error = lost / sum(before.size for before, _ in pairs)
    assert result.maps == 2
    assert math.isclose(result.energy, 1 - lost / energy, rel_tol=1e-4)
    assert math.isclose(result.psnr, 10 * math.log10(4 / error), rel_tol=1e-4)
    # Each half loses 2 pixels on all four sides.
    pixels = 2 * (60 * 44 + 46 * 28)
    assert math.isclose(result.inside, pixels / (64 * 96 + 50 * 64))
    assert [block.size for block in result.blocks] == block_sizes(original, (50, 64))


def test_alone_is_with_what_the_original_s_block_got():
    original = trained()
    converted = convert(original)
    result = kept(original, converted, [halves()])
    pyramid = LabelPyramid(halves(), 5)
    with torch.no_grad():
        x = original.stem(pyramid.semantics((2, 2), False))
        for k, (old, new) in enumerate(zip(original.blocks, converted.blocks, strict=True)):
            x = original._upsampled(x, k)
            wanted, got = old(x, pyramid), new(x, pyramid)
            energy = (wanted - wanted.mean((2, 3), keepdim=True)).square().sum()
            assert math.isclose(result.blocks[k].alone, 1 - float((got - wanted).square().sum() / energy), abs_tol=1e-5)
            x = wanted


def test_a_generator_keeps_all_of_itself():
    original = trained(z_dim=3, size=(64, 64))
    original.train()
    result = kept(original, copy.deepcopy(original), [halves(), halves()], seed=5)
    assert (result.energy, result.psnr) == (1, math.inf)
    assert original.training


def test_fitted_tables_are_the_least_squares_line_of_each_class_and_channel():
    original = trained(normalization="instance")
    converted = convert(original, spade_blocks=1)
    patches = copy.deepcopy(converted.state_dict())
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    layer = original.blocks[2].norm1
    layer.register_forward_hook(lambda _, given, y: seen.update(pair=(layer.normalize(given[0]), y)))
    ids = torch.randint(0, 3, (1, 8, 8), generator=torch.Generator().manual_seed(0)).repeat_interleave(8, 1)
    ids = ids.repeat_interleave(8, 2)
    assert fit_tables(original, converted, [LabelMap(ids)]) == 1
    x, y = (part[0].flatten(1).double() for part in seen["pair"])
    at = LabelPyramid(LabelMap(ids), 5).ids((4, 4)).flatten()
    new, old = converted.blocks[2].norm1, {name: patches[f"blocks.2.norm1.{name}"] for name in ("gamma", "beta")}
    for row in range(3):
        mask = at == row
        for channel in (0, 5):
            # The row that there was counts as a pixel: one more equation for gamma, one for beta.
            features = torch.stack([x[channel, mask], torch.ones(int(mask.sum()))], 1)
            left = torch.cat([features, torch.eye(2)])
            right = torch.cat([y[channel, mask], torch.stack([old[name][row, channel] for name in old]).double()])
            wanted = torch.linalg.lstsq(left.double(), right[:, None]).solution[:, 0]
            got = torch.stack([new.gamma[row, channel], new.beta[row, channel]]).double()
            assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-5)
    assert torch.allclose(new.gamma[3:], old["gamma"][3:])  # classes that never came
    with pytest.raises(CladeError, match="no label maps to fit"):
        fit_tables(original, converted, [])


def test_instance_edges_are_not_inside():
    ids = torch.ones(1, 64, 64, dtype=torch.long)
    instances = torch.ones(1, 64, 64, dtype=torch.int32)
    instances[:, 32:] = 2
    original = trained(instance_edges=True)
    result = kept(original, convert(original), [LabelMap(ids, instances)])
    # The edge marks rows 31 and 32, so that rows 2 to 28 and 35 to 61 are inside, columns 2 to 61.
    assert math.isclose(result.blocks[-1].inside, 2 * 27 * 60 / 64**2)
    assert math.isclose(result.inside, 60 * 60 / 64**2)


def test_what_cannot_be_converted_says_what_it_is():
    with pytest.raises(CladeError, match=r"no conversion called 'clad'\. Did you mean 'clade'"):
        convert(trained(), to="clad")
    for name, options, layers in (
        ("clade", {"hidden": 6}, "CLADE"),
        ("groupdnet", {"width": 40}, "GroupSPADE"),
        ("cc-fpse", {}, "SPADE"),
        ("pix2pixhd", {}, "none"),
    ):
        generator = create_generator(name, num_classes=3, **{"width": 4, **options})
        with pytest.raises(CladeError, match=rf"is '{name}'.*no plain SPADE.*layers: [\w, ]*{layers}"):
            convert(generator)
    with pytest.raises(CladeError, match=r"7 blocks were to keep SPADE; needed is a number from 0 to 6"):
        convert(trained(), spade_blocks=7)
    with pytest.raises(CladeError, match=r"above them there is none: .*spade:2,clade"):
        convert(trained("clade", norm="spade:2,clade"), spade_blocks=2)
    with pytest.raises(CheckpointError, match="folded"):
        convert(fold_spectral_norm(trained()))  # pyright: ignore[reportArgumentType]
    with pytest.raises(CladeError, match="no label maps"):
        kept(trained(), convert(trained()), [])


# --- Recipes and training on ------------------------------------------------------------------------------------------

RECIPE = {
    "name": "small",
    "data": {"size": [32, 32], "options": {"count": 4, "val_count": 2}},
    "generator": {"name": "spade", "width": 2, "options": {"hidden": 4}},
    "discriminator": {"width": 4, "layers": 2},
    "losses": {"perceptual": 0, "l1": 1},
    "training": {"steps": 40, "batch_size": 2, "accelerator": "cpu", "threads": 1, "calibrate": 1, "samples": 1},
}


def recipe_of(**sections):
    return Recipe.from_dict({**RECIPE, **sections})


def saved(path, recipe):
    """A checkpoint of the recipe's generator, and its path."""
    space = clade.data.ScenesDataset().label_space
    torch.manual_seed(1)
    generator = build_generator(recipe.generator, space, recipe.data.size)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    clade.save(generator, path, space, recipe, {"step": 40, "epoch": 20.0, "val_l1": 0.1})
    return path


@pytest.mark.parametrize(
    "section",
    [
        {"name": "spade", "width": 2, "options": {"hidden": 4}},
        {"name": "spade-light", "instance_edges": True},
        {"name": "dagan", "width": 2, "upsampling": "more"},
        {"name": "clade-icpe", "width": 2, "options": {"norm": "spade:5,clade", "hidden": 4}},
        {"name": "spade", "width": 2, "z_dim": 3, "encoder": True, "options": {"encoder_width": 2}},
    ],
    ids=lambda section: section["name"],
)
def test_the_recipe_that_is_carried_along_builds_the_converted_network(section, tmp_path):
    path = saved(tmp_path / "s.safetensors", recipe_of(generator=section))
    for spade_blocks in (0, 3):
        _, converted = convert_checkpoint(path, spade_blocks=spade_blocks)
        assert converted.recipe is not None
        recipe = Recipe.from_dict(converted.recipe)
        with torch.device("meta"):  # shapes are what is looked at
            rebuilt = build_generator(recipe.generator, converted.label_space, recipe.data.size)
        shapes = [{key: value.shape for key, value in g.state_dict().items()} for g in (rebuilt, converted.generator)]
        assert shapes[0] == shapes[1], spade_blocks
        assert rebuilt.name == converted.generator.name
        assert converted.recipe["training"] == recipe_of().to_dict()["training"]


def test_info_tells_what_it_was_made_of(tmp_path):
    path = saved(tmp_path / "s.safetensors", recipe_of())
    _, converted = convert_checkpoint(path)
    assert converted.info["converted_from"] == "s.safetensors"
    assert converted.info["converted_from_generator"] == "spade"
    assert len(converted.info["converted_from_sha256"]) == 64
    assert converted.info["step"] == 40
    assert "val_l1" not in converted.info  # the other network's


def test_a_fine_tune_is_a_twentieth_of_the_training(tmp_path):
    path = saved(tmp_path / "s.safetensors", recipe_of())
    _, converted = convert_checkpoint(path)
    recipe = finetune_recipe(converted, "c.safetensors")
    assert (recipe.training.steps, recipe.training.init_from) == (2, "c.safetensors")
    assert recipe.generator.name == "clade"
    assert finetune_recipe(converted, "c.safetensors", 7).training.steps == 7
    by_epochs = {**RECIPE, "training": {"epochs": 100}}
    converted = clade.models.checkpoints.Checkpoint(
        converted.generator, None, converted_recipe(Recipe.from_dict(by_epochs).to_dict(), converted.generator), {}
    )
    recipe = finetune_recipe(converted, "c.safetensors")
    assert (recipe.training.steps, recipe.training.epochs) == (None, 5)
    with pytest.raises(CladeError, match="needed is at least 1"):
        finetune_recipe(converted, "c.safetensors", 0)
    with pytest.raises(CladeError, match="carries no recipe"):
        finetune_recipe(clade.models.checkpoints.Checkpoint(converted.generator, None, None, {}), "c.safetensors")


@pytest.fixture
def converted_file(tmp_path):
    """A converted checkpoint, and the recipe of a fine-tune from it."""
    _, converted = convert_checkpoint(saved(tmp_path / "s.safetensors", recipe_of()))
    path = tmp_path / "c.safetensors"
    clade.save(converted.generator, path, converted.label_space, converted.recipe, converted.info)
    return path, finetune_recipe(converted, path)


def test_training_starts_from_the_converted_weights(converted_file, tmp_path):
    path, recipe = converted_file
    converted = clade.read_checkpoint(path).generator
    run = _Run(recipe, tmp_path / "run", make_fabric(recipe), fresh=False, quiet=True)
    ids = run.feed.validation.read(0).ids.copy()
    with torch.no_grad():
        wanted = converted(ids)
        assert torch.equal(run.ema.generator(ids), wanted)  # what a validation would draw
        assert torch.equal(run.generator.eval()(ids), wanted)
    assert not torch.equal(run.generator.state_dict()["stem.weight"], build_of(recipe).state_dict()["stem.weight"])


def build_of(recipe):
    torch.manual_seed(recipe.training.seed)
    return build_generator(recipe.generator, clade.data.ScenesDataset().label_space, recipe.data.size)


def test_a_fine_tune_trains_and_goes_on_without_the_file_that_it_began_with(converted_file, tmp_path):
    path, recipe = converted_file
    result = train(recipe, tmp_path / "run", quiet=True)
    assert result.finished
    assert result.steps == 2
    tuned = clade.read_checkpoint(tmp_path / "run/last.safetensors")
    converted = clade.read_checkpoint(path).generator.state_dict()
    far = [
        (value - converted[key]).abs().max() for key, value in tuned.generator.state_dict().items() if "gamma" in key
    ]
    assert 0 < max(far) < 0.01  # two steps of Adam
    path.unlink()
    assert train(recipe, tmp_path / "run", quiet=True).finished
    with pytest.raises(CheckpointError, match="no such file"):
        train(recipe, tmp_path / "run", fresh=True, quiet=True)


def test_weights_that_do_not_fit_are_refused_before_anything_is_written(converted_file, tmp_path):
    path, recipe = converted_file
    options = {**recipe.to_dict(), "generator": {"name": "clade", "width": 3}}
    with pytest.raises(RecipeError, match=r"init_from: the weights in .*c\.safetensors \('clade'\) do not fit"):
        train(Recipe.from_dict(options), tmp_path / "run", quiet=True)
    clade.save(clade.read_checkpoint(path).generator, path, LabelSpace.numbered(12, unknown=255))
    with pytest.raises(RecipeError, match=r"init_from: .* was trained with other classes"):
        train(recipe, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()

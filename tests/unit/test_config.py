"""Recipes: what a file or an override may say, and what a wrong one is told."""

import dataclasses
import json

import numpy as np
import pytest
import yaml

from clade.data import Augment, ScenesDataset
from clade.errors import RecipeError
from clade.recipes import DataConfig, Recipe, find_recipe, list_recipes, recipe_parser
from clade.training.builders import build_augment
from clade.training.judges.recipe import JudgeRecipe


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def leaves(cls=Recipe, prefix=""):
    for f in dataclasses.fields(cls):
        if dataclasses.is_dataclass(f.default_factory):
            yield from leaves(f.default_factory, f"{prefix}{f.name}.")
        else:
            yield prefix + f.name


def test_a_recipe_takes_what_the_file_says_and_defaults_for_the_rest(written):
    recipe = Recipe.from_yaml(written("generator: {name: spade}\ntraining: {batch_size: 3}\n"))
    assert recipe.generator.name == "spade"
    assert recipe.training.batch_size == 3
    assert dataclasses.replace(recipe.generator, name="clade") == Recipe().generator
    assert recipe.losses == Recipe().losses


def test_the_name_is_the_file_s_unless_it_says_otherwise(written):
    assert Recipe.from_yaml(written("")).name == "mine"
    assert Recipe.from_yaml(written("name: other")).name == "other"


def test_a_recipe_comes_in_every_form(written):
    recipe = Recipe.from_yaml("scenes-tiny")
    assert Recipe.of(recipe) is recipe
    assert Recipe.of("scenes-tiny") == Recipe.of(recipe.to_dict()) == recipe
    assert Recipe.of(written("training: {steps: 7}")).training.steps == 7


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "{}", "null"])
def test_an_empty_file_is_the_default_recipe(written, text):
    assert Recipe.from_yaml(written(text)) == Recipe(name="mine")


def test_overrides_win_over_the_file(written):
    path = written("training: {batch_size: 3, steps: 5}\ndata: {size: [64, 64]}")
    recipe = Recipe.from_yaml(path, ["--training.batch_size", "7", "--data.size=[32, 96]", "--data.options.count", "4"])
    assert (recipe.training.batch_size, recipe.training.steps) == (7, 5)
    assert recipe.data.size == (32, 96)
    assert recipe.data.options == {"count": 4}


@pytest.mark.parametrize("number", ["1e-4", "1.0e-4", "0.0001"])
def test_step_sizes_are_read_in_every_usual_notation(written, number):
    assert Recipe.from_yaml(written(f"optimizer: {{lr_generator: {number}}}")).optimizer.lr_generator == 1e-4
    override = ["--optimizer.lr_generator", number]
    assert Recipe.from_yaml(written(""), override).optimizer.lr_generator == 1e-4


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("training.batchsize", "training.batch_size"),
        ("generator.widht", "generator.width"),
        ("batch_size", "training.batch_size"),
        ("trainin.steps", "training.steps"),
        ("losses.feature_maching", "losses.feature_matching"),
    ],
)
def test_a_misspelt_key_is_refused_with_the_nearest_one(written, wrong, meant):
    content = 1
    for part in reversed(wrong.split(".")):
        content = {part: content}
    in_file = f"mine.yaml: there is no key '{wrong.split('.')[0] if wrong.startswith('trainin.') else wrong}'"
    with pytest.raises(RecipeError) as caught:
        Recipe.from_yaml(written(yaml.safe_dump(content)))
    assert in_file in str(caught.value)
    assert "Did you mean 'training" in str(caught.value) or f"Did you mean '{meant}'?" in str(caught.value)
    for override in ([f"--{wrong}", "1"], [f"--{wrong}=1"]):
        with pytest.raises(RecipeError, match="command line: there is no key") as caught:
            Recipe.from_yaml(written(""), override)
        assert f"'{wrong}'" in str(caught.value)
        assert f"Did you mean '{meant}'?" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.batch_size", "many"),
        ("training.batch_size", 1.5),
        ("training.steps", [1]),
        ("data.size", 256),
        ("data.size", [256]),
        ("data.size", [256, 256, 3]),
        ("data.flip", "perhaps"),
        ("data.remap", {"road": "street"}),
        ("discriminator.width", None),
        ("optimizer.beta1", "zero"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_key(written, key, value):
    group, name = key.split(".")
    with pytest.raises(RecipeError) as caught:
        Recipe.from_yaml(written(yaml.safe_dump({group: {name: value}})))
    assert "mine.yaml" in str(caught.value)
    assert key in str(caught.value)
    with pytest.raises(RecipeError, match=key):
        Recipe.from_yaml(written(""), [f"--{key}", json.dumps(value)])


@pytest.mark.parametrize("content", ["fast", 3, ["steps"], None])
def test_a_group_that_is_no_mapping_is_refused(written, content):
    with pytest.raises(RecipeError, match=r"mine\.yaml: 'training' is a group of keys"):
        Recipe.from_yaml(written(yaml.safe_dump({"training": content})))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "a recipe is a mapping of keys to values, got list"),
        ("only words", "got str"),
        ("training: {steps: 1", "not readable as YAML"),
        ("a: !!python/object/apply:os.system [true]", "not readable as YAML"),
        ("[" * 5000, "not readable as YAML"),
    ],
)
def test_a_file_that_holds_no_recipe_is_refused(written, text, message):
    with pytest.raises(RecipeError) as caught:
        Recipe.from_yaml(written(text))
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\x89PNG\r\n\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not readable as YAML"):
        Recipe.from_yaml(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe file"):
        Recipe.from_yaml(tmp_path / "none.yaml")


def test_an_unknown_recipe_name_is_refused_with_the_nearest_one():
    with pytest.raises(RecipeError, match="Did you mean 'scenes-tiny'"):
        Recipe.from_yaml("scenes-tyni")


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_survives_its_plain_values(name):
    recipe = Recipe.from_yaml(name)
    assert recipe.name == name == find_recipe(name).stem
    plain = recipe.to_dict()
    assert Recipe.from_dict(plain) == recipe
    for stored in (json.loads(json.dumps(plain)), yaml.safe_load(yaml.safe_dump(plain))):
        assert stored == plain or Recipe.from_dict(stored) == recipe


def test_nothing_of_a_recipe_is_left_in_the_next(written):
    """The parser is made once. Free mappings, which can be changed, and what was refused leave nothing behind, too."""
    plain, path = Recipe.from_dict({}), written("data: {options: {count: 3}, remap: {1: 2}}\ntraining: {steps: 7}")
    first = Recipe.from_yaml(path, ["--data.options.seed=1", "--losses.l1=2", "--generator.options.hidden=4"])
    assert first.data.options == {"count": 3, "seed": 1}
    for refused in (["--training.steps=many"], ["--data.options.seed=5", "--optimizer.beta1=zero"], ["stray"]):
        with pytest.raises(RecipeError):
            Recipe.from_yaml(path, refused)
    for recipe in (first, Recipe.from_dict({}), Recipe.from_dict({}, ["--training.seed=0"])):
        recipe.data.options["added"] = True
        recipe.generator.options["added"] = True
    assert Recipe.from_dict({}) == Recipe.from_dict({}, ["--training.seed=0"]) == plain == Recipe()


def test_free_mappings_survive_the_plain_values():
    values = {"data": {"remap": {37: 255, 0: 1}, "options": {"count": 3, "more": {"deep": [1, 2]}}}}
    recipe = Recipe.from_dict(values)
    assert recipe.data.remap == {37: 255, 0: 1}
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_the_help_explains_every_key():
    text = " ".join(recipe_parser().format_help().split())
    assert len(list(leaves())) > 40
    entries = text.split("--")
    for key in leaves():
        entry = next((e for e in entries if e.startswith((f"{key} ", f"{key}+ ")) and "(type:" in e), None)
        assert entry is not None, f"{key} is missing"
        explained = entry.split(" ", 2)[-1].split("(type:")[0]
        assert len(explained) > len(key.split(".")[-1]) + 10, f"{key} has no explanation: {entry}"


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("training.batch_size", 0, "at least 1"),
        ("training.accumulate", 0, "at least 1"),
        ("training.save_every", 0, "at least 1"),
        ("training.log_every", -1, "at least 1"),
        ("training.validate_every", 0, "above 0"),
        ("training.ema", 1, "in [0, 1)"),
        ("training.ema", -0.1, "in [0, 1)"),
        ("training.precision", "fp16", "'auto', 'fp32' or 'bf16'"),
        ("training.steps", 0, "at least 1"),
        ("training.epochs", 0, "above 0"),
        ("training.devices", 0, "at least 1"),
        ("training.threads", 0, "at least 1"),
        ("training.seed", -1, "at least 0"),
        ("training.samples", 0, "at least 1"),
        ("training.accelerator", "tpu", "'auto', 'cpu' or 'cuda'"),
        ("optimizer.constant", 1.5, "in [0, 1]"),
        ("optimizer.lr_generator", -1e-4, "at least 0"),
        ("optimizer.lr_discriminator", -1e-4, "at least 0"),
        ("optimizer.beta1", 1.0, "in [0, 1)"),
        ("optimizer.beta2", 1.0, "in [0, 1)"),
        ("data.size", [16, 64], "at least 32 x 32"),
        ("data.fit", "pad", "'stretch' or 'crop'"),
        ("data.max_zoom", 0.9, "at least 1"),
        ("data.jitter", 2, "in [0, 1)"),
        ("data.jitter", 1.0, "in [0, 1)"),
        ("data.max_zoom", float("inf"), "a finite number"),
        ("data.max_zoom", float("nan"), "a finite number"),
        ("training.epochs", float("nan"), "a finite number"),
        ("optimizer.lr_generator", float("inf"), "a finite number"),
        ("data.workers", -1, "at least 0"),
        ("data.cache_mib", -1, "at least 0"),
        ("discriminator.width", 0, "at least 1"),
        ("discriminator.scales", 0, "at least 1"),
        ("discriminator.layers", 0, "at least 1"),
    ],
)
def test_a_value_out_of_range_is_refused_by_key_value_and_range(key, value, needed):
    group, name = key.split(".")
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict({group: {name: value}}, source="mine")
    message = str(caught.value)
    assert message.startswith(f"mine: {key} is ")
    assert message.endswith(f"needed is {needed}.")


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("size", [16, 64], "at least 32 x 32"),
        ("fit", "pad", "'stretch' or 'crop'"),
        ("load_size", [0, 9], "at least 1 x 1"),
        ("crop", "zom", "'zoom' or 'pixels'"),
        ("crop", "pixels", "at least data.size on both sides, because data.crop is 'pixels'"),
        ("max_zoom", 0.9, "at least 1"),
        ("max_zoom", float("nan"), "a finite number"),
        ("jitter", 1.0, "in [0, 1)"),
        ("jitter", -0.1, "in [0, 1)"),
        ("sampling", "even", "'uniform' or 'balanced'"),
        ("on_error", "ask", "'stop' or 'skip'"),
        ("workers", -1, "at least 0"),
        ("cache_mib", -1, "at least 0"),
    ],
)
@pytest.mark.parametrize("recipe", [Recipe, JudgeRecipe])
def test_both_kinds_of_recipe_refuse_the_same_data(recipe, key, value, needed):
    with pytest.raises(RecipeError) as caught:
        recipe.from_dict({"data": {key: value}}, source="mine")
    assert str(caught.value).startswith("mine: data.")
    assert str(caught.value).endswith(f"needed is {needed}.")


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("max_zoom", [1.0, 3.0])
def test_what_a_recipe_takes_can_be_augmented_with(jitter, max_zoom):
    data = Recipe.from_dict({"data": {"jitter": jitter, "max_zoom": max_zoom}}).data
    sample = ScenesDataset(height=32, width=32).read(0)
    assert build_augment(data)(sample, (32, 32), np.random.default_rng(0)).size == (32, 32)


def test_the_augmentation_has_the_recipe_s_defaults():
    assert build_augment(DataConfig()) == Augment()


def test_a_recipe_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().training.steps = 3


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("discriminator.width", "abc", "int"),
        ("data.size", "64", r"two numbers, as in '\[256,256\]'"),
        ("data.unknown", "foo", r"int \| None"),
        ("training.precision", "fp99", "'auto', 'fp32' or 'bf16'"),
    ],
)
def test_a_wrong_value_on_the_command_line_is_said_plainly_and_not_of_the_file(key, value, needed):
    with pytest.raises(RecipeError, match=rf"^command line: {key} is '?{value}'?; needed is {needed}\.$"):
        Recipe.from_yaml("scenes-tiny", [f"--{key}", value])


def test_pixels_are_cut_out_of_a_load_size_that_holds_them():
    whole = {"data": {"size": [64, 64], "crop": "pixels", "load_size": [72, 64]}}
    assert Recipe.from_dict(whole).data.load_size == (72, 64)
    for load_size in (None, [72, 60]):
        with pytest.raises(RecipeError, match=r"data\.load_size .* needed is at least data\.size"):
            Recipe.from_dict({"data": {**whole["data"], "load_size": load_size}})


SEGMENTED = {"discriminator": {"name": "segmentation"}, "losses": {"feature_matching": 0}}


def test_the_segmentation_discriminator_takes_no_losses_of_scores_and_features():
    assert Recipe.from_dict(SEGMENTED).losses.adversarial == "hinge"
    only_name = {"discriminator": SEGMENTED["discriminator"]}
    with pytest.raises(RecipeError, match=r"losses\.feature_matching is 10\.0; needed is 0, because .*'segmentation'"):
        Recipe.from_dict(only_name)
    with pytest.raises(RecipeError, match=r"^command line: losses\.feature_matching is 2\.0; needed is 0"):
        Recipe.from_dict(SEGMENTED, ["--losses.feature_matching", "2"])
    with pytest.raises(RecipeError, match=r"losses\.adversarial is 'wasserstein'; needed is 'hinge' \(leave it out\)"):
        Recipe.from_dict({**SEGMENTED, "losses": {"feature_matching": 0, "adversarial": "wasserstein"}})

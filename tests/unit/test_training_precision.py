"""The precision of a training: what auto comes to is kept, and going on in another one is said or refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from clade import RecipeError
from clade.models.checkpoints import read_header
from clade.recipes import Recipe
from clade.training import train
from clade.training.folder import changes, precision_note
from clade.training.judges import JudgeRecipe, train_judge
from clade.training.state import read_facts

pytestmark = pytest.mark.processor


def recipe(precision: str, *overrides: str) -> Recipe:
    value = {
        "name": "tiny",
        "data": {"size": [32, 32], "options": {"count": 4, "val_count": 1}},
        "generator": {"name": "clade", "width": 2},
        "discriminator": {"width": 4, "layers": 2},
        "losses": {"perceptual": 0, "l1": 1},
        "training": {"steps": 2, "batch_size": 2, "accelerator": "cpu", "threads": 1, "calibrate": 1, "samples": 1},
    }
    return Recipe.from_dict(value, ["--training.precision", precision, *overrides])


def judge_recipe(precision: str, *overrides: str) -> JudgeRecipe:
    value = {
        "data": {"name": "scenes", "size": [64, 64], "options": {"count": 4, "val_count": 1}},
        "network": {
            "architecture": "unet",
            "encoder": "mobilenet_v2",
            "options": {"encoder_depth": 3, "decoder_channels": [16, 8, 8]},
        },
        "training": {"steps": 2, "batch_size": 2, "accelerator": "cpu", "threads": 1, "validate_every": 100},
    }
    return JudgeRecipe.from_dict(value, ["--training.precision", precision, *overrides])


STOP = ("--training.max_minutes", "0.0000001")  # after the first step
TRAININGS = {"generator": (train, recipe), "judge": (train_judge, judge_recipe)}


def play(monkeypatch, instructions):
    monkeypatch.setattr("clade.system.processor.instruction_set", lambda: instructions)


def test_auto_is_the_default_of_trainings_and_judges():
    assert Recipe().training.precision == JudgeRecipe().training.precision == "auto"


def test_a_training_computes_in_what_auto_comes_to_and_keeps_it(monkeypatch, tmp_path):
    play(monkeypatch, "amx")
    train(recipe("auto", "--training.steps", "1"), tmp_path / "auto", quiet=True)
    assert read_facts(tmp_path / "auto/state.safetensors")["precision"] == "bf16"
    header = read_header(tmp_path / "auto/last.safetensors")
    assert header["info"]["precision"] == "bf16"
    assert header["recipe"]["training"]["precision"] == "auto"
    train(recipe("bf16", "--training.steps", "1"), tmp_path / "named", quiet=True)
    one, other = (load_file(tmp_path / name / "last.safetensors") for name in ("auto", "named"))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize("what", TRAININGS)
def test_going_on_with_the_same_processor_is_silent_whatever_the_precision_is_called(
    monkeypatch, tmp_path, capsys, what
):
    run, build = TRAININGS[what]
    play(monkeypatch, "avx2")
    run(build("fp32"), tmp_path / "whole", quiet=True)
    assert run(build("fp32", *STOP), tmp_path / "parts").step == 1
    assert run(build("auto"), tmp_path / "parts").finished
    assert "training ran in" not in capsys.readouterr().err
    one, other = (load_file(tmp_path / name / "state.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(value, other[key]) for key, value in one.items() if not key.startswith("rng"))


@pytest.mark.parametrize("what", TRAININGS)
def test_going_on_with_another_processor_says_what_changes(monkeypatch, tmp_path, capsys, what):
    run, build = TRAININGS[what]
    play(monkeypatch, "amx")
    assert run(build("auto", *STOP), tmp_path).step == 1
    play(monkeypatch, "avx2")
    assert run(build("auto"), tmp_path).finished
    said = capsys.readouterr().err
    assert "ran in bf16, now in fp32: this device multiplies in fp32 only" in said
    assert "set training.precision=bf16" in said
    assert read_facts(tmp_path / "state.safetensors")["precision"] == "fp32"
    assert read_header(tmp_path / "last.safetensors")["info"]["precision"] == "fp32"


@pytest.mark.parametrize("what", TRAININGS)
def test_another_precision_by_name_is_another_training(tmp_path, what):
    run, build = TRAININGS[what]
    run(build("fp32", *STOP), tmp_path, quiet=True)
    with pytest.raises(RecipeError, match=r"training\.precision \(fp32 -> bf16\)"):
        run(build("bf16"), tmp_path, quiet=True)


def facts(asked: str, **more: str) -> dict:
    return {"recipe": recipe(asked).to_dict(), "per_step": 2, "pictures": 4, **more}


@pytest.mark.parametrize(
    ("before", "asked", "now", "said"),
    [
        (facts("bf16"), "auto", "bf16", ""),  # a state from before auto was there
        (facts("bf16"), "auto", "fp32", "ran in bf16, now in fp32: this device multiplies in fp32 only."),
        (facts("fp32"), "auto", "bf16", "ran in fp32, now in bf16: this device multiplies in bf16."),
        (facts("auto", precision="bf16"), "bf16", "bf16", ""),
        (facts("auto", precision="bf16"), "fp32", "fp32", "ran in bf16, now in fp32: training.precision=fp32."),
    ],
)
def test_what_a_state_and_a_recipe_come_to(before, asked, now, said):
    assert changes(before, recipe(asked).to_dict(), {}, 2, 4) == []
    note = precision_note(before, asked, now)
    assert said in note
    assert bool(note) == bool(said)

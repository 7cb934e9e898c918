"""The real trainings and their report, run tiny on drawn scenes."""

from __future__ import annotations

import json
import statistics

import numpy as np
import pytest
import yaml

from benchmarks.real import stages
from benchmarks.real.__main__ import main
from benchmarks.real.found import Comparison, Found, spread, table
from benchmarks.real.plan import FOLDER, read_plan
from benchmarks.real.report import section
from clade import CladeError, Recipe
from clade.data import ScenesDataset
from clade.io.images import save_png
from clade.training.judges import JudgeRecipe

PLANS = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.fixture
def job(tmp_path):
    """A dataset folder, and a plan of two systems that is done in seconds."""
    data = tmp_path / "data"
    for split, count in (("train", 4), ("val", 3)):
        scenes = ScenesDataset(split=split, count=count, val_count=count, height=32, width=32)
        for index in range(count):
            scene = scenes.read(index)
            save_png(np.asarray(scene.image), data / split / "images" / f"{index}.png")
            ids = np.where(scene.ids == scenes.label_space.num_classes, 255, scene.ids).astype(np.uint8)
            save_png(ids, data / split / "labels" / f"{index}.png")
        (data / "classes.json").write_text(json.dumps(scenes.label_space.to_dict()))
    tiny = {"data": {"name": "folder", "size": [32, 32]}, "training": {"steps": 20, "batch_size": 2}}
    recipe = {
        **tiny,
        "generator": {"width": 2},
        "discriminator": {"width": 2},
        "losses": {"perceptual": 0, "l1": 2},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "judge.yaml").write_text(yaml.safe_dump(tiny))
    plan = {
        "title": "Drawn scenes",
        "recipe": str(tmp_path / "recipe.yaml"),
        "judge": str(tmp_path / "judge.yaml"),
        "splits": {"val": "other scenes"},
        "systems": {
            "clade": {"title": "CLADE"},
            "spade": {
                "title": "SPADE",
                "set": {"generator.name": "spade", "generator.options": {"hidden": 4}},
            },
        },
        "tables": {"Comparison": ["spade", "clade"]},
        "convert": "spade",
        "fit": 0,
        "analyze": "spade",
        "sheet": ["spade", "clade"],
        "maps": 2,
        "paper": {
            "source": "Table 0",
            "pairs": [["clade", "spade"]],
            "scores": {"miou": {"clade": 60.44, "spade": 61.95}},
        },
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    return tmp_path


def run(job, *more: str) -> int:
    folders = ["--out", str(job / "runs"), "--results", str(job / "results")]
    return main(["run", str(job / "plan.yaml"), "--data", str(job / "data"), *folders, "--rounds", "1", *more])


@pytest.mark.slow
def test_a_plan_is_carried_out_goes_on_and_is_reported(job, capsys):
    assert run(job, "--only", "clade") == 0
    assert not (job / "runs" / "spade-0").exists()
    before = (job / "runs" / "clade-0" / "last.safetensors").stat().st_mtime_ns
    assert run(job, "--jobs", "2") == 0
    assert (job / "runs" / "clade-0" / "last.safetensors").stat().st_mtime_ns == before
    capsys.readouterr()

    found = Found(read_plan(str(job / "plan.yaml")), job / "results")
    finetuned = found.evaluation("spade-0-converted-finetuned")
    assert finetuned is not None
    assert finetuned.checkpoint["generator"] == "clade"
    assert finetuned.checkpoint["recipe"]["training"]["steps"] == 1
    (job / "pictures").mkdir()
    text = "\n\n".join(section(found, job / "pictures"))
    measured = found.values("clade-0")
    row = next(line for line in text.splitlines() if line.startswith("| CLADE | 1 |"))
    assert f"{measured['miou']:.2f}" in row
    assert f"{measured['fd-val']:.1f}" in row
    sha = json.loads((job / "results" / "trainings.json").read_text())["clade-0"]["sha256"]
    assert f"| `clade-0` | `{sha}` |" in text
    assert "CLADE against SPADE | mIoU (%) ↑ | -1.51 |" in text
    assert f"- **CLADE and SPADE**: mIoU (%) {measured['miou']:.2f} and" in text
    assert "- Of 1 differences these seeds leave 1 undecided" in text
    photos = json.loads((job / "results" / "photos.json").read_text())
    assert f"FD of these real photos to the training photos is {photos['fd']['val']:.1f}" in text
    counted = json.loads((job / "results" / "costs.json").read_text())["sizes"]
    share = counted["clade"]["parameters"] / counted["spade"]["parameters"]
    assert f"- **Cost of CLADE** over that of SPADE: parameters {share:.2f}, multiply-adds" in text
    assert {path.name for path in (job / "pictures").iterdir()} == {
        "plan-val.png",
        "plan-maps.png",
        "plan-histograms.png",
    }


def test_when_the_time_is_up_trainings_are_told_once_and_may_save(tmp_path, monkeypatch):
    slow = tmp_path / "python"
    slow.write_text(
        f"#!/bin/sh\ntrap 'trap - TERM; sleep 2; echo saved; exit 0' TERM\ntouch {tmp_path}/on\nsleep 30 & wait\n"
    )
    slow.chmod(0o755)
    monkeypatch.setattr(stages.sys, "executable", str(slow))
    monkeypatch.setattr(stages, "out_of_time", lambda job: (tmp_path / "on").exists())
    job = stages.Job(plan=read_plan("camvid-128"), data="", out=tmp_path / "runs", results=tmp_path / "results")
    assert stages.run_all(job, {"one": ["train"], "two": ["train"]}) == {"one": 0, "two": 1}  # two did not begin
    assert (tmp_path / "runs" / "one" / "log.txt").read_text() == "saved\n"


@pytest.mark.parametrize("name", PLANS)
def test_plans_name_recipes_that_are_there_and_systems_that_can_be_built(name):
    plan = read_plan(name)
    JudgeRecipe.from_yaml(plan.judge)
    names = [one.name for one in plan.trainings]
    assert len(set(names)) == len(names)
    for one in plan.trainings:
        recipe = Recipe.from_yaml(one.recipe, one.arguments())
        assert recipe.training.seed == one.seed
        assert recipe.losses.perceptual == 0  # no weights to be had offline
    shared = [Recipe.from_yaml(plan.recipe, one.arguments()).to_dict() for one in plan.trainings]
    for recipe in shared:  # one budget, one discriminator: only the generator and the seed differ
        recipe.pop("generator")
        recipe["training"].pop("seed")
    assert all(recipe == shared[0] for recipe in shared)


def test_a_plan_that_names_unknown_systems_is_refused(job):
    content = yaml.safe_load((job / "plan.yaml").read_text())
    (job / "plan.yaml").write_text(yaml.safe_dump({**content, "sheet": ["spada"]}))
    with pytest.raises(CladeError, match="spada"):
        read_plan(str(job / "plan.yaml"))
    with pytest.raises(CladeError, match="There is no plan 'nothing'"):
        read_plan("nothing")


def test_a_difference_counts_where_its_interval_leaves_0_out():
    def compared(ones, others, paper, deviation=1.0, freedom=3):
        return Comparison("a", "b", "miou", paper, ones, others, deviation, freedom)

    sure = compared([64.0, 65.0], [60.0, 60.0], 1.5)  # two seeds each: the standard error is 1
    assert sure.margin == pytest.approx(3.182, abs=1e-3)  # Student's t at 97.5 %, 3 degrees of freedom
    assert sure.shown() == "+4.50 ± 3.18"
    assert sure.verdict == "as the paper"
    assert compared([64.0, 65.0], [60.0, 60.0], -1.5).verdict == "**not** as the paper"
    undecided = compared([62.0, 63.0], [60.0, 60.0], 1.5)
    assert undecided.agrees is None
    assert undecided.verdict == "not decided; about 3 seeds of each would"
    small = compared([61.0, 61.0], [60.0, 60.0], 1.5)
    assert small.verdict == "not decided; about 8 seeds of each would"  # 2 (2 * 1 / 1)^2
    assert compared([60.0], [60.0], 1.5).verdict == "not decided; no sensible number of seeds would"
    alone = compared([61.0], [50.0], 1.5, float("nan"), 0)
    assert (alone.shown(), alone.verdict) == ("+11.00", "not decided; no system has several seeds")


def test_spreads_and_tables():
    assert spread([1.0, 2.0], 2) == f"1.50 ± {statistics.stdev([1, 2]):.2f}"
    assert spread([1.234], 1) == "1.2"
    assert spread([], 1) == "-"
    assert table(["a", "b"], [["x", "1"]]).splitlines() == ["| a | b |", "|---|--:|", "| x | 1 |"]

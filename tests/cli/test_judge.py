"""``clade judge``: the commands, and what they print."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from clade.cli import judge as commands_judge
from clade.data import ScenesDataset
from clade.errors import CheckpointError, CladeError, DataError, LabelError, RecipeError, UsageError

pytest.importorskip("segmentation_models_pytorch")

PAGE = Path(__file__).parents[2] / "docs/judges.md"


def call(name: str, *words: object) -> int:
    """``clade judge NAME ...`` by its own functions."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    getattr(commands_judge, f"{name}_arguments")(parser)
    args, overrides = parser.parse_known_args(list(map(str, words)))
    return getattr(commands_judge, name)(args, overrides)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A dataset folder of drawn scenes, a recipe, and the judge that it trains."""
    root = tmp_path_factory.mktemp("judge")
    for split in ("train", "val"):
        scenes = ScenesDataset(split=split, count=8, val_count=3, height=64, width=64)
        for kind in ("images", "labels"):
            (root / "data" / split / kind).mkdir(parents=True)
        for index in range(len(scenes)):
            sample = scenes.read(index)
            raw = np.where(sample.ids == scenes.label_space.num_classes, 255, sample.ids).astype(np.uint8)
            assert sample.image is not None
            Image.fromarray(sample.image).save(root / f"data/{split}/images/{index}.png")
            Image.fromarray(raw).save(root / f"data/{split}/labels/{index}.png")
    space = scenes.label_space
    (root / "data/classes.json").write_text(json.dumps(space.to_dict()), encoding="utf-8")
    content = {
        "data": {"name": "folder", "root": str(root / "data"), "size": [64, 64]},
        "network": {"architecture": "unet", "encoder": "mobilenet_v2"},
        "training": {"steps": 2, "batch_size": 2, "accelerator": "cpu"},
    }
    content["network"]["options"] = {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}
    (root / "tiny.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    assert call("train", root / "tiny.yaml", "--out", root / "run", "--quiet") == 0
    return root


def test_training_says_where_the_judge_is_and_goes_on(workplace, tmp_path, capsys):
    words = ["train", workplace / "tiny.yaml", "--out", tmp_path / "run", "--training.steps", 3]
    assert call(*words, "--training.max_minutes", "0.00001") == 0
    out = capsys.readouterr().out
    assert "Stopped after step 1 of 3. The same command goes on." in out
    assert out.splitlines()[-1] == str(tmp_path / "run/last.safetensors")
    assert call(*words) == 0
    out, told = capsys.readouterr()
    assert out.strip() == str(tmp_path / "run/best.safetensors")
    assert "Going on: step 1 of 3." in told
    assert "Best on held-out photos: mIoU" in told
    with pytest.raises(RecipeError, match=r"training by another recipe: learning\.lr"):
        call(*words, "--learning.lr", "0.1")
    with pytest.raises(RecipeError, match=r"no key 'learning\.rl'"):
        call(*words, "--learning.rl", "0.1")


def test_score_gives_the_ceiling_that_the_file_holds(workplace, capsys):
    best = workplace / "run/best.safetensors"
    assert call("score", best, "--json", "--device", "cpu") == 0
    printed = json.loads(capsys.readouterr().out)
    assert commands_judge.info(best, as_json=True) == 0
    facts = json.loads(capsys.readouterr().out)
    assert printed["miou"] == pytest.approx(facts["info"]["ceiling"]["miou"], abs=1e-3)
    assert printed["judge"] == facts["key"]
    assert printed["pictures"] == 3
    assert call("score", workplace / "run", "--data", workplace / "data", "--split", "train", "--limit", 2) == 0
    table = capsys.readouterr().out
    assert re.search(r"^mIoU 0\.\d{4}, pixel accuracy 0\.\d{4} on 2 photos$", table, re.M)
    assert table.count("\n") == facts["label_space"]["names"].__len__() + 2


def test_score_keeps_the_parts_of_the_recipe_in_another_layout_unless_told_to_take_the_data_as_they_are(
    workplace, tmp_path, capsys
):
    (tmp_path / "split.yaml").write_text('train: {from: train}\nval: {from: val, names: ["1"]}', encoding="utf-8")
    words = ["--data.split_file", tmp_path / "split.yaml", "--out", tmp_path / "run", "--quiet"]
    assert call("train", workplace / "tiny.yaml", *words) == 0
    original = tmp_path / "original"
    shutil.copytree(workplace / "data", original)
    capsys.readouterr()
    for more, pictures in (([], 1), (["--name", "folder"], 1), (["--as-is"], 3), (["--as-is", "--split", "train"], 8)):
        assert call("score", tmp_path / "run", "--data", original, "--json", *more) == 0
        assert json.loads(capsys.readouterr().out)["pictures"] == pictures
    parser = argparse.ArgumentParser()
    commands_judge.score_arguments(parser)
    data, split = commands_judge._data(parser.parse_args([str(tmp_path / "run"), "--name", "camvid"]))
    assert (data.name, data.split_file, split) == ("camvid", str(tmp_path / "split.yaml"), "val")
    for folder in ("images", "labels"):
        (original / f"val/{folder}/1.png").unlink()
    with pytest.raises(DataError, match=r"'1' under 'names' matches none .*--as-is takes a dataset's own splits"):
        call("score", tmp_path / "run", "--data", original)


def test_score_of_other_classes_says_which_are_not_counted(workplace, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    (data / "train").symlink_to(workplace / "data/train")
    space = json.loads((workplace / "data/classes.json").read_text(encoding="utf-8"))
    names = list(space["names"])
    known, names[0] = names[0], "martian"
    (data / "classes.json").write_text(json.dumps({**space, "names": names}), encoding="utf-8")
    words = ["score", workplace / "run", "--data", data, "--split", "train", "--json"]
    assert call(*words) == 0
    out, told = capsys.readouterr()
    assert "does not know these classes, whose pixels are not counted (1): martian" in told
    assert f"never answers with (1): {known}" in told
    assert json.loads(out)["iou"]["martian"] is None
    (tmp_path / "map.yaml").write_text(f"martian: {known}", encoding="utf-8")
    assert call(*words, "--map", tmp_path / "map.yaml") == 0
    out, told = capsys.readouterr()
    assert "Note" not in told
    assert call("score", workplace / "run", "--split", "train", "--json") == 0
    assert json.loads(out)["miou"] == pytest.approx(json.loads(capsys.readouterr().out)["miou"])
    (tmp_path / "map.yaml").write_text("martian: nothing", encoding="utf-8")
    with pytest.raises(LabelError, match=r"map\.yaml: the judge has no class 'nothing'"):
        call(*words, "--map", tmp_path / "map.yaml")


def test_info_says_what_a_judge_is(workplace, capsys):
    assert commands_judge.info(workplace / "run/best.safetensors") == 0
    out = capsys.readouterr().out
    assert re.search(r"^judge +tiny: unet, mobilenet_v2, \d+\.\d+ M parameters$", out, re.M)
    assert re.search(r"^ceiling +mIoU 0\.\d+, pixel accuracy 0\.\d+ on 3 held-out photos$", out, re.M)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["hf:a/b"], UsageError, "needed is --data DIR"),
        (["missing.safetensors", "--data", "{data}"], CheckpointError, "no such file"),
        (["{run}", "--limit", "0"], UsageError, "--limit is 0"),
        (["{run}", "--device", "banana"], CladeError, "no device 'banana'"),
        (["{run}", "--size", "big"], UsageError, "--size is 'big'"),
        (["hf:a/b", "--data", "{data}"], CheckpointError, "local cache"),
    ],
)
def test_wrong_words_are_named(workplace, words, error, message):
    filled = [word.format(data=workplace / "data", run=workplace / "run") for word in words]
    with pytest.raises(error, match=message):
        call("score", *filled)


def test_commands_of_the_page_are_understood():
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.split("  #")[0] for block in blocks for line in block.splitlines() if line.startswith("clade judge ")]
    assert {line.split()[2] for line in lines} == {"train", "score"}
    for line in lines:
        _, _, name, *words = shlex.split(line)
        parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
        getattr(commands_judge, f"{name}_arguments")(parser)
        args, overrides = parser.parse_known_args(words)
        if name == "train":
            from clade.training.judges import JudgeRecipe

            JudgeRecipe.from_yaml(args.recipe, overrides)
        else:
            assert overrides == []


@pytest.mark.parametrize("judge", ["nowhere.safetensors", "runs/nowhere"])
def test_a_judge_that_is_not_there_is_named(judge):
    with pytest.raises(CheckpointError, match=rf"{judge}: no such file.*clade judge train"):
        call("score", judge)

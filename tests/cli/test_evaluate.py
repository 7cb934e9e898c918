"""`clade evaluate` and `clade compare`: what they print and write, and what they say where something is wrong."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import clade
from clade.cli import COMMANDS, main
from clade.data import ScenesDataset
from clade.metrics.scores import PROTOCOLS, SCORES, Protocol, find_protocol
from clade.recipes import Recipe

pytest.importorskip("timm")
EXTRACTOR = "timm:test_vit.r160_in1k"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A folder with two checkpoints."""
    folder = tmp_path_factory.mktemp("checkpoints")
    space = ScenesDataset().label_space
    for seed, name in enumerate(("a", "b_1")):
        torch.manual_seed(seed)
        generator = clade.create_generator("clade", num_classes=space.num_classes, unknown_class=True, width=2)
        with torch.no_grad():
            for parameter in generator.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
        data = {"size": [32, 32], "options": {"count": 8, "val_count": 6}}
        recipe = {"name": "tiny", "data": data, "training": {"seed": seed}}
        clade.save(generator, folder / f"{name}.safetensors", label_space=space, recipe=Recipe.from_dict(recipe))
    return folder


@pytest.fixture
def call(capsys, checkpoints, tmp_path, monkeypatch):
    """``call(*words)`` -> (exit code, stdout, stderr), in a folder with two checkpoints and no weights anywhere."""
    shutil.copytree(checkpoints, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_evaluate_prints_a_table_and_writes_the_file(call, tmp_path):
    code, out, _ = call(
        "evaluate", "a.safetensors", "--metrics", "l1,fd", "--extractor", EXTRACTOR, "--weights", f"{EXTRACTOR}=random",
        "--protocol", "oasis", "--out", "e.json",
    )  # fmt: skip
    assert code == 0
    assert out.splitlines()[-1] == "e.json"
    assert "6 pictures of scenes (val), 32x32, protocol oasis" in out
    found = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    shown = {line.split()[0]: float(line.split()[-1]) for line in out.splitlines() if line.startswith(("L1", "FD"))}
    assert shown["L1"] == pytest.approx(found["scores"]["l1"], abs=1e-4)
    assert shown["FD"] == pytest.approx(found["scores"]["fd"], abs=1e-2)
    assert found["data"]["reference_split"] == "val"
    assert "random weights" in out


def test_a_missing_score_is_told_and_makes_the_exit_code_1(call, tmp_path):
    code, out, err = call("evaluate", "a.safetensors")
    assert (code, out) == (1, "")
    assert "None of miou, accuracy, fid can be computed" in err
    assert not (tmp_path / "evaluation.json").exists()


def test_skip_missing_accepts_what_is_not_computed(call, tmp_path, monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "paper", Protocol(metrics=("l1", "fid")))
    code, out, err = call("evaluate", "a.safetensors")
    assert code == 1
    assert "FID ↓              not computed, because: " in out
    assert "not computed: fid. --skip-missing accepts that" in err
    assert call("evaluate", "a.safetensors", "--skip-missing")[0] == 0
    found = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert list(found["scores"]) == ["l1"]
    assert list(found["missing"]) == ["fid"]
    code, out, _ = call("compare", "a.safetensors", "b_1.safetensors", "--no-cost")
    assert code == 1
    assert "a: FID is not computed, because: " in out


COMPARE = ["compare", "a.safetensors", "b_1.safetensors", "--metrics", "l1"]


def test_compare_as_csv_is_read_back(call):
    code, out, _ = call(*COMPARE, "--rounds", 1, "--format", "csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["system"] for row in rows] == ["a", "b_1"]
    for row in rows:
        assert {key for key, value in row.items() if key != "system" and float(value) > 0} == row.keys() - {"system"}


@pytest.mark.parametrize(
    ("style", "marked"), [("table", "*"), ("markdown", "**"), ("latex", r"\textbf{"), ("json", '"best"')]
)
def test_compare_marks_the_best_in_every_format(call, style, marked):
    code, out, _ = call(*COMPARE, "--no-cost", "--format", style)
    assert code == 0
    assert marked in out
    assert "L1" in out


def test_compare_reads_evaluations_and_draws_a_sheet(call, tmp_path):
    assert call("evaluate", "a.safetensors", "--metrics", "l1", "--out", "e.json")[0] == 0
    words = ["first=e.json", "b_1.safetensors", "--metrics", "l1", "--no-cost", "--sheet", "s.png", "--maps", 2]
    code, out, _ = call("compare", *words, "--out", "table.md", "--format", "markdown")
    assert code == 0
    assert out.split() == ["table.md", "s.png"]
    assert "| first | " in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert Image.open(tmp_path / "s.png").size == (3 * 32 + 4 * 4, 18 + 2 * 32 + 4 * 4)


def test_compare_over_seeds(call):
    code, out, _ = call(*COMPARE, "--seeds", "--no-cost", "--format", "csv")
    assert code == 0
    (row,) = csv.DictReader(io.StringIO(out))
    assert (row["system"], row["n"]) == ("tiny", "2")
    assert float(row["l1_std"]) > 0


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        (["evaluate", "none.safetensors"], 1, "no such file"),
        (["evaluate", "a.safetensors", "--metrics", "fod"], 1, "no metric 'fod'. Did you mean"),
        (["evaluate", "a.safetensors", "--metrics", "fid"], 1, "weights-inception"),
        (["evaluate", "a.safetensors", "--metrics", "miou"], 1, "--judge SPEC"),
        (["evaluate", "a.safetensors", "--metrics", "miou", "--judge", "upernet11"], 1, "Did you mean 'upernet101'"),
        (["evaluate", "a.safetensors", "--weights", "file.pth"], 2, "needed is NAME=FILE"),
        (["evaluate", "a.safetensors", "--size", "32"], 2, "needed is HxW"),
        (["evaluate", "a.safetensors", "--protocol", "opsis"], 1, "Did you mean 'oasis'"),
        (["evaluate", "a.safetensors", "--data", "nowhere"], 1, "nowhere"),
        (["compare", "a.safetensors", "e.json", "--metrics", "l1"], 1, "e.json: cannot be read"),
        (["compare", "a.safetensors", "--metrics", "l1", "--sheet", "s.jpg"], 2, "a .png file"),
        ([*COMPARE, "--format", "latx"], 2, "latx"),
        (["compare", "a.safetensors", "--sheet", "s.png", "--maps", 0], 2, "at least one map"),
        (["compare", "e.json", "--sheet", "s.png"], 2, "a checkpoint to draw"),
    ],
)
def test_what_is_wrong_is_said(call, words, exit_code, message):
    code, out, err = call(*words)
    assert (code, out) == (exit_code, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [["evaluate", "a.safetensors", "--metrics", "l1"], COMPARE])
@pytest.mark.parametrize(("file", "message"), [("folder", "is a folder"), ("a.safetensors/e", "cannot be written")])
def test_a_file_that_cannot_be_written_is_said_before_anything_is_drawn(
    call, tmp_path, monkeypatch, words, file, message
):
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr("clade.evaluation.evaluate", None)
    monkeypatch.setattr("clade.evaluation.compare", None)
    code, out, err = call(*words, "--out", file)
    assert (code, out) == (1, "")
    assert message in err
    assert "unexpected" not in err


def test_the_commands_of_the_page_are_understood():
    text = (Path(__file__).parents[2] / "docs/evaluate.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    seen = []
    for line in lines:
        name, *words = shlex.split(line)[1:]
        seen.append(name)
        if name == "train":
            Recipe.from_dict({}, words[1:])
            continue
        parser = argparse.ArgumentParser()
        COMMANDS[name][1](parser)
        parser.parse_args(words)
    assert set(seen) == {"evaluate", "compare", "train"}


def test_the_python_of_the_page_runs(call, tmp_path, capsys):
    text = (Path(__file__).parents[2] / "docs/evaluate.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    block = block.replace('"dataset"', "None").replace("runs/mine/best.safetensors", "a.safetensors")
    exec(block, {})
    assert "| a | " in capsys.readouterr().out.replace(tmp_path.name, "a")
    assert (tmp_path / "evaluation.json").exists()


def test_the_page_s_protocol_is_one(tmp_path):
    text = (Path(__file__).parents[2] / "docs/evaluate.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "mine.yaml").write_text(block, encoding="utf-8")
    assert find_protocol(tmp_path / "mine.yaml").size == (256, 512)
    named = set(re.findall(r"`(\w+)`", text))
    assert {field.name for field in dataclasses.fields(Protocol)} - {"name", "metrics", "size", "seed"} <= named
    assert set(SCORES) <= named

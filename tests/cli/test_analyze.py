"""`clade analyze`: what it writes and prints, and what it says where something is wrong."""

from __future__ import annotations

import argparse
import csv
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clade
from clade import Recipe
from clade.cli.analyze import arguments, run
from clade.complexity.overhead import layer_pairs
from clade.data import ScenesDataset
from clade.errors import CladeError, UsageError
from clade.training.builders import build_generator

PAGE = Path(__file__).parents[2] / "docs/analysis.md"
RECIPE = {
    "name": "small",
    "data": {"size": [64, 96], "options": {"count": 4, "val_count": 5}},
    "generator": {"name": "spade", "width": 2, "options": {"hidden": 4}},
}
Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """``call(*words)`` -> (exit code, stdout), in a folder of its own with nothing on stderr"""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str]:
        parser = argparse.ArgumentParser()
        arguments(parser)
        code = run(parser.parse_args(words), [])
        out, err = capsys.readouterr()
        assert err == ""
        return code, out

    return call


def write_checkpoint(path: str, *, recipe: bool = True, name: str | None = None) -> None:
    space = ScenesDataset().label_space
    plan = Recipe.from_dict(RECIPE)
    torch.manual_seed(0)
    generator = build_generator(plan.generator, space, plan.data.size)
    if name is not None:
        generator = clade.create_generator(name, num_classes=space.num_classes, unknown_class=True, width=2)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    clade.save(generator, path, space, plan if recipe else None)


def write_labels(folder: str, size: tuple[int, int] = (50, 70)) -> None:
    Path(folder).mkdir(parents=True)
    for k in range(3):
        ids = np.full(size, k, np.uint8)
        ids[:20, : 20 + k] = 5
        Image.fromarray(ids).save(f"{folder}/{k}.png")


def read(path: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_it_prints_and_writes_the_numbers_of_its_own_validation_data(call: Call) -> None:
    write_checkpoint("s.safetensors")
    code, out = call("s.safetensors", "--out", "out", "--maps", "3", "--pictures", "1")
    assert code == 0
    assert out.startswith("Label maps: 3 of the part 'val' of the scenes at 64x96.\n")
    stored = json.loads(Path("out/analysis.json").read_text())
    assert (stored["maps"], stored["size"]) == (3, [64, 96])
    finest = stored["resolutions"][-1]
    row = next(line for line in out.splitlines() if line.split()[:1] == ["64x96"])
    assert row.split()[1:3] == ["3", "SPADE"]
    shown = [float(word) for word in row.split()[3:] if word != "%"]
    assert shown[1:] == pytest.approx(
        [100 * finest[key][part]["eta"] for key in ("gamma", "beta") for part in ("everything", "inside", "border")],
        abs=0.051,
    )
    assert finest["gamma"]["inside"]["eta"] < 1e-9
    for line in stored["summary"]:
        assert line in out
    listed = [line for line in out.splitlines() if line.startswith("out/")]
    assert sorted(Path(line).name for line in listed) == sorted(path.name for path in Path("out").iterdir())
    assert sum(line.startswith("out/maps-") for line in listed) == 1


def test_ratios_are_those_of_the_profile(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    # Their picture takes seconds; the test above has it written, the one below has it drawn.
    monkeypatch.setattr("clade.tools.analysis.result.draw_histograms", lambda _, path: path)
    write_checkpoint("s.safetensors")
    call("s.safetensors", "--out", "out", "--maps", "1", "--pictures", "0", "--layers", "blocks.0.*")
    pairs = layer_pairs(clade.read_checkpoint("s.safetensors").generator, (64, 96))
    rows = read("out/ratios.csv")
    assert [(row["layer"], float(row["parameters"]), float(row["FLOPs"])) for row in rows] == [
        (pair.name, pair.params_ratio, pair.flops_ratio) for pair in pairs
    ]
    assert Path("out/ratios.png").is_file()
    assert {row["layer"] for row in read("out/layers.csv")} == {"blocks.0.norm1", "blocks.0.norm2"}


def test_label_files_of_any_size_and_json(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clade.tools.analysis.figures._save", lambda *_: None)  # the numbers are what is looked at
    write_checkpoint("c.safetensors", recipe=False, name="clade")
    write_labels("data/labels")
    words = ["c.safetensors", "--labels", "data", "--layers", "blocks.6.*", "--pictures", "0", "--json"]
    code, out = call(*words, "--out", "out", "--maps", "2")
    assert code == 0
    found = json.loads(out)
    assert found["maps of"] == "2 of data"
    assert (found["maps"], found["size"]) == (2, [50, 70])
    assert [layer["size"] for layer in found["layers"]] == [[64, 96]] * 3  # padded to a multiple of 32
    assert {layer["gamma"]["everything"]["within"] for layer in found["layers"]} == {0}
    found = json.loads(call(*words, "--out", "other", "--size", "32x64")[1])
    assert (found["maps"], found["layers"][0]["size"]) == (3, [32, 64])


def test_errors_say_what_to_do(call: Call) -> None:
    write_checkpoint("s.safetensors", recipe=False)
    write_checkpoint("p.safetensors", name="pix2pixhd")
    write_labels("a/labels")
    write_labels("a/labels/large", size=(64, 64))
    Path("file").write_text("")
    for words, message in {
        "s.safetensors --out out": "s.safetensors: carries no recipe .* Give --labels DIR",
        "p.safetensors --out out": "The generator is 'pix2pixhd', which has no CLADE and no plain SPADE",
        "s.safetensors --out out --labels a": "resolutions can only be compared on maps of one size.*--size",
        "s.safetensors --out file --labels a": "file: is a file; a folder is needed",
        "s.safetensors --out out --labels a --layers block.6": "No SPADE or CLADE layer is called 'block.6'",
        "s.safetensors --out out --labels a --size 64x64 --device npu:x": "There is no device 'npu:x'",
        "missing.safetensors --out out": "missing.safetensors: no such file",
    }.items():
        with pytest.raises(CladeError, match=message):
            call(*words.split())
    for words in ("s.safetensors --out out --size big", "s.safetensors --out out --maps 0"):
        with pytest.raises(UsageError, match=r"--size is 'big'|--maps is 0"):
            call(*words.split())
    assert not Path("out").exists()


def test_commands_of_the_page_are_understood() -> None:
    lines = [line.split("  #")[0] for line in PAGE.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line.startswith("clade analyze ")]
    assert len(lines) >= 3
    parser = argparse.ArgumentParser(exit_on_error=False)
    arguments(parser)
    for line in lines:
        assert parser.parse_args(shlex.split(line)[2:]).out

"""``clade data check``, ``convert`` and ``prepare`` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clade.cli import main
from clade.data import FolderDataset, PreparedDataset

COLORS = [(10, 20, 30), (200, 0, 0), (0, 200, 0)]


@pytest.fixture
def masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Photos and RGB masks in two folders of the working directory -> the ids that the masks mean."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    made = {}
    for name in ("a", "b", "c"):
        made[name] = rng.integers(0, 3, (6, 5), np.uint8).repeat(8, 0).repeat(8, 1)
        for folder, pixels in (("photos", rng.integers(0, 256, (48, 40, 3), np.uint8)), ("masks", of(made[name]))):
            Path(folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(f"{folder}/{name}.png")
    Path("colors.txt").write_text("10 20 30 ground\n200 0 0 car\n0 200 0 tree\n")
    return made


def of(ids: np.ndarray) -> np.ndarray:
    return np.array(COLORS, np.uint8)[ids]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


CONVERT = ("data", "convert", "masks", "dataset", "--from", "rgb", "--images", "photos", "--palette", "colors.txt")


def test_from_masks_to_a_prepared_dataset(masks, capsys):
    assert run(capsys, *CONVERT, "--split", "train")[0] == 0
    code, out, _ = run(capsys, *CONVERT, "--split", "val", "--json")
    assert code == 0
    assert json.loads(out)
    for split in ("train", "val"):
        dataset = FolderDataset("dataset", split)
        assert dataset.label_space.names == ("ground", "car", "tree")
        assert {dataset.name(k): dataset.read(k).ids.tolist() for k in range(3)} == {
            name: ids.tolist() for name, ids in masks.items()
        }
    # The same pictures in both splits are what the doctor must see.
    code, out, _ = run(capsys, "data", "check", "dataset", "--html", "report.html", "--json")
    assert json.loads(out)["duplicates"]
    assert Path("report.html").read_text().startswith("<!DOCTYPE html>")

    code, out, _ = run(
        capsys, "data", "prepare", "camvid-clade", "--out", "packed", "--workers", "0",
        "--data.root", "dataset", "--data.size", "[32,32]",
    )  # fmt: skip
    assert code == 0
    assert "clade train camvid-clade --data.size '[32,32]' --data.load_size '[36,36]' --data.root packed\n" in out
    prepared = PreparedDataset("packed", "train")
    assert len(prepared) == 3
    assert prepared.read(0).size == (36, 36)

    for words in (("check", "packed"), ("prepare", "camvid-clade", "--out", "again", "--data.root", "packed")):
        code, _, err = run(capsys, "data", *words)
        assert code == 1
        assert "packed: is prepared data (prepared.json), made of a dataset of the layout 'folder': 3 in train" in err


def test_the_doctor_writes_classes_that_fix_what_it_found(masks, capsys):
    for name, ids in masks.items():
        for part, pixels in (("images", of(ids)), ("labels", np.where(ids == 2, 9, ids).astype(np.uint8))):
            Path("wrong", part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(f"wrong/{part}/{name}.png")
    Path("three.json").write_text(json.dumps({"names": ["x", "y", "z"]}))
    code, out, _ = run(capsys, "data", "check", "wrong", "--num-classes", "3")
    assert code == 1
    assert "id 9" in out
    for remap in ("{9: 0}", '{"9": 0}'):
        assert run(capsys, "data", "check", "wrong", "--num-classes", "3", "--remap", remap)[0] == 0
    code, _, err = run(capsys, "data", "check", "wrong", "--num-classes", "3", "--write", "wrong/classes.json")
    assert code == 1
    assert "wrong/classes.json" in err
    assert run(capsys, "data", "check", "wrong")[0] == 0


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (("data", "check", "masks", "--remap", "[1]"), "JSON mapping of numbers"),
        (("data", "check", "masks", "--palette", '{"a": 1}'), "JSON list of colours"),
        (("data", "convert", "masks", "dataset", "--from", "rbg"), "'rgb'"),
        (("data", "convert", "masks", "dataset", "--from", "RGB"), "Did you mean 'rgb'"),
        (("data", "check", "masks", "--remap", "{1: [}"), "mapping of numbers"),
        (("train", "camvid-clade", "--data.root", ".", "--out", "run"), "Known layouts are near: near (folder)"),
        (("train", "camvid-clade", "--data.root", "near", "--data.size", "64"), "two numbers, as in '[256,256]'"),
        (("train", "camvid-clade", "--data.root", "photos/flat", "--data.num_classes", "1"), "--data.val_split train"),
        (("data", "convert", "masks", "dataset"), "--from"),
        (("data", "convert", "nowhere", "dataset", "--from", "rgb"), "nowhere"),
        (("data", "prepare", "--out", "packed"), "the recipe comes first"),
        (("data", "prepare", "camvid-clade", "--out", "packed", "--data.root", "nowhere"), "nowhere"),
        (("data", "prepare", "camvid-clade", "--out", "packed", "--data.rot", "x"), "data.rot"),
        (("data", "chek", "masks"), "data check"),
    ],
)
def test_wrong_words_are_told_in_one_line(masks, capsys, words, needed):
    for folder in ("near/train", "near/val", "photos/flat"):
        for part in ("images", "labels"):
            Path(folder, part).mkdir(parents=True)
            Image.new("L", (8, 8)).save(f"{folder}/{part}/a.png")
    code, out, err = run(capsys, *words)
    assert code in (1, 2)
    assert out == ""
    assert err.startswith("clade: error: ")
    assert len(err.splitlines()) == 1
    assert needed in err
    assert not Path("dataset").exists()

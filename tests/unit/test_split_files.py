"""Split files: parts of a dataset by the names of pictures, from the raw files and from prepared ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clade.cli import main
from clade.config import DataConfig, Recipe, find_split_file, list_splits
from clade.data import Dataset, PreparedDataset, Resized
from clade.data.sampling import read_classes
from clade.data.split_files import read_part, read_parts
from clade.errors import DataError
from clade.metrics.statistics import dataset_key
from clade.training.builders import build_dataset
from clade.training.checks import check_parts

DATA = Path(__file__).parents[3] / "shared/data"
TRAIN, VAL = ("A_1", "A_2", "A_10", "B_1", "b_2"), ("V_1", "V_2")
SPLIT = """
train: {from: train, names: ["A_*", b_2], except: [A_2]}
val: {from: train, names: ["B_?"]}
clip: {from: val}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    for split, names in (("train", TRAIN), ("val", VAL)):
        for name in names:
            for folder, shape in (("images", (12, 16, 3)), ("labels", (12, 16))):
                path = root / split / folder / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 3, shape, np.uint8)).save(path)
    (root / "classes.json").write_text(json.dumps({"names": ["sky", "tree", "road"]}))
    return root


@pytest.fixture
def config(root: Path) -> DataConfig:
    return DataConfig(name="folder", root=str(root), split_file=str(written(root, SPLIT)), size=(32, 32))


def written(root: Path, text: str) -> Path:
    path = root.parent / "split.yaml"  # beside the data
    path.write_text(text)
    return path


def names(dataset: Dataset) -> list[str]:
    return [dataset.name(index) for index in range(len(dataset))]


def message(make: Callable[[], Any]) -> str:
    with pytest.raises(DataError) as caught:
        make()
    return str(caught.value)


def test_a_part_holds_the_named_pictures_in_the_order_of_the_split(config: DataConfig):
    whole = build_dataset(replace(config, split_file=None), "train")
    train = build_dataset(config, "train")
    assert names(whole) == ["A_1", "A_2", "A_10", "B_1", "b_2"]
    assert names(train) == ["A_1", "A_10", "b_2"]
    assert names(build_dataset(config, "val")) == ["B_1"]  # case counts: b_2 is not B_?
    assert names(build_dataset(config, "clip")) == ["V_1", "V_2"]
    for index, at in enumerate((0, 2, 4)):
        ours, theirs = train.read(index), whole.read(at)
        assert (ours.name, ours.ids.tolist()) == (theirs.name, theirs.ids.tolist())
        assert np.array_equal(ours.image, theirs.image)  # pyright: ignore[reportArgumentType]
        assert train.classes(index).tolist() == whole.classes(at).tolist()


@pytest.mark.parametrize("load_size", [None, (6, 8)])
def test_pictures_that_are_not_in_the_part_are_not_read(config: DataConfig, root: Path, load_size: Any):
    for name in ("A_2", "B_1"):
        (root / f"train/labels/{name}.png").write_bytes(b"broken")
    train = build_dataset(replace(config, load_size=load_size), "train")
    assert [train.read(index).name for index in range(len(train))] == ["A_1", "A_10", "b_2"]
    assert len(read_classes(train)) == 3


def test_a_name_that_looks_like_a_pattern_is_meant_as_it_is(root: Path):
    for folder in ("images", "labels"):
        (root / "val" / folder / "V_1.png").rename(root / "val" / folder / "V[1].png")
    file = written(root, 'val: {from: val, names: ["V[1]"]}')
    assert names(build_dataset(DataConfig(name="folder", root=str(root), split_file=str(file)), "val")) == ["V[1]"]


def test_drawn_scenes_have_parts_too(tmp_path: Path):
    file = written(tmp_path / "x", 'train: {from: train, names: ["*-000000[0-2]"]}\nval: {from: train, names: ["*3"]}')
    config = DataConfig(split_file=str(file), size=(32, 32), options={"count": 5})
    assert names(build_dataset(config, "train")) == [f"scene-000000{k}" for k in range(3)]
    assert names(build_dataset(config, "val")) == ["scene-0000003"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "split.yaml: the split file cannot be read"),
        ("[a, b]", "split.yaml: a split file maps the names of parts"),
        ("train: [A_1]", "split.yaml: the part 'train': has no split of the dataset under 'from'"),
        ("train: {from: train, name: [A_1]}", r"the part 'train': there is no key 'name'\. Did you mean 'names'\?"),
        ("train: {from: train, names: A_1}", "'names' is 'A_1'; needed is a list"),
        ("train: {from: train, names: [0536]}", r"'names' holds 350, which is no text\. Put names of digits in quotes"),
        ("train: {from: train, names: []}", "the part 'train': is empty, because 'names' is"),
        ("tarin: {from: train}", r"no part 'train' in the split file\. Did you mean 'tarin'\? It has tarin "),
        ('train: {from: train, names: ["a_*"]}', "the part 'train': 'a_\\*' under 'names' matches none of the 5 pic"),
        ('train: {from: train, except: ["A_3"]}', "the part 'train': 'A_3' under 'except' matches none of the 5"),
        ('train: {from: train, except: ["*"]}', "the part 'train': is empty"),
        ("train: {from: tran}", r"no split 'tran'.*Read for .*split.yaml: the part 'train', from the split 'tran'"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_split_file_is_said(config: DataConfig, root: Path, text: str, said: str):
    written(root, text)
    with pytest.raises(DataError, match=said):
        build_dataset(config, "train")


def test_a_missing_file_and_an_unknown_name_are_said(config: DataConfig, tmp_path: Path):
    gone = str(tmp_path / "gone.yaml")
    assert gone in message(lambda: build_dataset(replace(config, split_file=gone), "train"))
    said = message(lambda: build_dataset(replace(config, split_file="camvid-drive"), "train"))
    assert "Did you mean 'camvid-drives'?" in said
    assert "Known: camvid-drives, ccp" in said


# --- Trainings --------------------------------------------------------------------------------------------------------


def apart(config: DataConfig) -> None:
    check_parts(config, build_dataset(config, config.train_split), build_dataset(config, config.val_split))


def test_parts_that_share_pictures_are_refused_unless_they_are_one_part(config: DataConfig, root: Path):
    apart(config)
    apart(replace(config, val_split="train"))
    for folder in ("images", "labels"):  # the same name in another split is another picture
        (root / "val" / folder / "V_1.png").rename(root / "val" / folder / "A_1.png")
    apart(replace(config, val_split="clip"))
    written(root, 'train: {from: train, names: ["A_*"]}\nval: {from: train, names: ["*_1", A_2]}')
    said = message(lambda: apart(config))
    assert "share 2 pictures: A_1, A_2." in said
    assert "split.yaml: the part 'train', which is trained on" in said


@pytest.mark.parametrize(
    "command", [("train", "scenes-tiny"), ("judge", "train", "camvid", "--data.name", "scenes", "--data.root", "null")]
)
def test_trainings_look_at_the_parts(tmp_path: Path, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
    file = written(tmp_path / "x", 'train: {from: train}\nval: {from: train, names: ["*1"]}')
    words = [*command, "--data.split_file", str(file), "--data.options.count", "12", "--out", str(tmp_path / "run")]
    assert main(words) == 1
    assert "share 2 pictures: scene-0000001, scene-0000011." in capsys.readouterr().err


def test_keys_tell_parts_apart(config: DataConfig, root: Path):
    keys = [dataset_key(build_dataset(config, part)) for part in ("train", "val", "clip")]
    assert None not in keys
    assert len(set(keys)) == 3
    assert keys[2] == dataset_key(build_dataset(replace(config, split_file=None), "val"))
    written(root, SPLIT.replace(", except: [A_2]", ""))
    assert dataset_key(build_dataset(config, "train")) != keys[0]


# --- Prepared ---------------------------------------------------------------------------------------------------------


def prepared(config: DataConfig, out: Path, *more: str) -> int:
    words = ["data", "prepare", "camvid-clade", "--out", str(out), "--workers", "0", "--data.name", config.name]
    words += ["--data.root", str(config.root), "--data.load_size", "[36,36]", "--data.size", "[32,32]", *more]
    return main([*words, *(["--data.split_file", config.split_file] if config.split_file else [])])


def test_a_prepared_dataset_holds_the_parts_and_refuses_others(config: DataConfig, root: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert prepared(config, out) == 0
    there = replace(config, root=str(out), load_size=(36, 36))
    for part in ("train", "val"):
        ours, raw = build_dataset(there, part), build_dataset(replace(there, root=str(root)), part)
        assert names(ours) == names(raw)
        assert np.array_equal(ours.read(0).ids, raw.read(0).ids)
    assert names(build_dataset(replace(there, split_file=None, name="prepared"), "val")) == ["B_1"]
    assert "there is no split 'clip'" in message(lambda: build_dataset(there, "clip"))
    said = message(lambda: build_dataset(replace(there, split_file=None), "val"))
    assert "'val' was prepared with a split file that makes it of {'from': 'train', 'names': ['B_?']" in said
    assert "but the recipe is without a split file" in said

    elsewhere = tmp_path / "elsewhere.yaml"  # the content counts, not where it lies, nor the other parts
    elsewhere.write_text('other: {from: val}\ntrain: {from: train, names: [b_2, "A_*"], except: [A_2]}')
    assert len(build_dataset(replace(there, split_file=str(elsewhere)), "train")) == 3
    written(root, SPLIT.replace("B_?", "B_*"))
    assert len(build_dataset(there, "train")) == 3
    assert "was prepared with a split file" in message(lambda: build_dataset(there, "val"))
    assert prepared(config, out) == 1


def test_parts_are_made_of_what_was_prepared_whole(config: DataConfig, root: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert prepared(replace(config, split_file=None), out) == 0
    there = replace(config, root=str(out), load_size=(36, 36))
    assert [names(build_dataset(there, part)) for part in ("train", "clip")] == [["A_1", "A_10", "b_2"], ["V_1", "V_2"]]
    written(root, "train: {from: tran}")
    said = message(lambda: build_dataset(there, "train"))
    assert "no split 'tran'. Did you mean 'train'?" in said
    assert "(Read for " in said
    assert isinstance(build_dataset(replace(there, split_file=None), "train"), PreparedDataset)


# --- What comes with clade --------------------------------------------------------------------------------------------


def test_split_files_that_come_with_clade_are_found_and_read():
    assert {"camvid-drives", "ccp"} <= set(list_splits())
    for name in list_splits():
        assert {"train", "val"} <= set(read_parts(find_split_file(name)))
    assert read_part(find_split_file("camvid-drives"), "clip").split == "val"


@pytest.mark.skipif(not (DATA / "camvid").is_dir(), reason="no real data beside the project")
def test_camvid_by_drive():
    recipe = Recipe.from_yaml(
        "camvid-clade", ["--data.split_file", "camvid-drives", "--data.root", str(DATA / "camvid")]
    )
    parts = {part: names(build_dataset(recipe.data, part)) for part in ("train", "val", "clip")}
    assert {part: len(found) for part, found in parts.items()} == {"train": 266, "val": 101, "clip": 101}
    drives = {part: {name.split("_")[0] for name in found} for part, found in parts.items()}
    assert drives == {"train": {"0016E5", "0001TP"}, "val": {"0006R0"}, "clip": {"0016E5"}}


@pytest.mark.skipif(not (DATA / "ccp").is_dir(), reason="no real data beside the project")
def test_ccp_without_its_bad_maps():
    recipe = Recipe.from_yaml("ccp-clade-icpe", ["--data.split_file", "ccp", "--data.root", str(DATA / "ccp")])
    train, val = (names(build_dataset(recipe.data, part)) for part in ("train", "val"))
    assert (len(train), len(val)) == (802, 99)
    assert not {"0536", "0591", "0868"} & {*train, *val}
    assert isinstance(build_dataset(replace(recipe.data, load_size=(48, 32), cache_mib=0), "val"), Resized)

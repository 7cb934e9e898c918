"""Split files: parts of a dataset by the names of pictures, from the raw files and from prepared ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

import clade
from clade.cli import main
from clade.data import Dataset, PreparedDataset, Resized
from clade.data.sampling import read_classes
from clade.data.split_files import read_part, read_parts
from clade.errors import DataError
from clade.evaluation.data import Subject, in_layout, stored_as_is
from clade.metrics.scores import Protocol
from clade.metrics.statistics import dataset_key
from clade.models.checkpoints import read_header
from clade.recipes import DataConfig, Recipe, find_split_file, list_splits
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


# --- Going on, and other data -----------------------------------------------------------------------------------------


TINY = (
    "--data.size=[32,32]",
    "--training.accelerator=cpu",
    "--training.threads=1",
    "--training.steps=4",
    "--training.batch_size=2",
)
GENERATOR = (
    *("train", "camvid-clade", *TINY, "--generator.width=2", "--generator.upsampling=normal"),
    *("--discriminator.width=2", "--discriminator.layers=2", "--training.calibrate=1"),
)
JUDGE = (
    *("judge", "train", "camvid", *TINY, "--network.architecture=unet", "--network.encoder=resnet18"),
    "--network.options={encoder_depth: 3, decoder_channels: [16, 8, 8]}",
)


@pytest.mark.slow
@pytest.mark.parametrize("command", [GENERATOR, JUDGE], ids=["generator", "judge"])
def test_a_training_goes_on_only_with_what_its_files_said(
    command: tuple[str, ...], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    if command is JUDGE:
        pytest.importorskip("segmentation_models_pytorch")
    split, merge, out = written(root, SPLIT), tmp_path / "merge.yaml", tmp_path / "run"
    merge.write_text("classes: {above: [sky, tree], below: [road]}")
    words = [*command, "--data.name", "folder", "--data.root", str(root), "--out", str(out), "--quiet"]
    words += ["--data.split_file", str(split), "--data.merge", str(merge), "--training.max_minutes", "0"]

    def go() -> str:
        code = main(words)
        return "" if code == 0 else capsys.readouterr().err

    assert go() == ""
    before = (out / "state.safetensors").read_bytes()
    written(root, SPLIT.replace("A_2", "A_1"))  # as many pictures, but others
    said = go()
    assert "holds a training by another recipe: what data.split_file says of the part 'train'. Use the same" in said
    written(root, SPLIT.replace("B_?", "A_2"))
    assert "what data.split_file says of the part 'val'." in go()
    written(root, SPLIT.replace("clip", "other"))  # neither trained nor validated on
    merge.write_text("classes: {above: [sky], below: [road, tree]}")  # the same names
    assert "training by another recipe: the classes (remap), by data.merge or the dataset's classes.json." in go()
    assert (out / "state.safetensors").read_bytes() == before

    merge.write_text("classes: {above: [0, 1], below: 2}")  # the same, in other words
    assert go() == ""
    assert read_header(out / "state.safetensors")["training"]["step"] == 2
    header = read_header(out / "state.safetensors")
    del header["training"]["data"]  # a state from before this was compared
    save_file(load_file(out / "state.safetensors"), out / "state.safetensors", {"clade": json.dumps(header)})
    written(root, SPLIT.replace("A_2", "A_1"))
    assert go() == ""


def checkpoint(config: DataConfig, path: Path) -> Path:
    space = build_dataset(config, config.train_split).label_space
    generator = clade.create_generator("clade", num_classes=space.num_classes, width=2)
    clade.save(generator, path, space, Recipe(data=config))
    return path


def test_another_layout_keeps_the_parts_and_the_merged_classes(config: DataConfig, root: Path, tmp_path: Path):
    (tmp_path / "merge.yaml").write_text("classes: {above: [sky, tree], below: [road]}")
    config = replace(config, merge=str(tmp_path / "merge.yaml"), val_split="clip", options={"x": 1}, num_classes=3)
    kept = in_layout(config, "camvid")
    assert (kept.name, kept.root, kept.size) == ("camvid", str(root), (32, 32))
    assert (kept.split_file, kept.merge) == (config.split_file, config.merge)
    assert (kept.train_split, kept.val_split) == ("train", "clip")
    assert (kept.options, kept.num_classes) == ({}, None)
    assert in_layout(config, "folder") is config
    plain = stored_as_is(config)
    assert (plain.split_file, plain.merge, plain.train_split, plain.val_split) == (None, None, "train", "val")
    assert stored_as_is(replace(config, split_file=None)).val_split == "clip"  # a split of the dataset itself


def test_evaluation_draws_the_part_of_the_recipe_unless_told_to_take_the_data_as_they_are(
    config: DataConfig, root: Path, tmp_path: Path
):
    path = checkpoint(config, tmp_path / "a.safetensors")

    def drawn(**words: Any) -> list[str]:
        subject = Subject.open(path, Protocol(), **words)
        return names(subject.split(subject.config.val_split))

    other = tmp_path / "other"
    shutil.copytree(root, other)
    assert drawn() == drawn(root=other) == drawn(root=other, name="folder") == ["B_1"]
    assert drawn(root=other, split="clip") == drawn(root=other, as_is=True) == ["V_1", "V_2"]
    assert len(drawn(root=other, as_is=True, split="train")) == 5
    for as_is, pictures in ((False, 1), (True, 2)):
        found = clade.evaluate(path, other, metrics=["l1"], device="cpu", as_is=as_is)
        assert (found.pictures, found.data["split"]) == (pictures, "val")
        assert found.data["split_file"] == (None if as_is else config.split_file)
    for folder in ("images", "labels"):
        (other / "train" / folder / "B_1.png").unlink()
    said = message(lambda: drawn(root=other, name="folder"))
    assert "'B_?' under 'names' matches none of the 4 pictures" in said
    assert "reads its data by split_file" in said
    assert "--as-is takes a dataset's own splits" in said
    assert "--as-is" in message(lambda: drawn(root=other, split="test"))
    assert "--as-is" not in message(lambda: drawn(root=tmp_path / "gone"))

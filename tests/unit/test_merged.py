"""Classes merged while they are read: the same as `clade data convert --merge` writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import clade
from clade.cli import main
from clade.data import Dataset, FolderDataset, create_dataset
from clade.data.convert.merging import plan
from clade.data.merged import Merged
from clade.errors import CladeError
from clade.labels import LabelSpace, read_label
from clade.metrics.statistics import dataset_key
from clade.recipes import DataConfig, Recipe, find_merge_table, list_merges
from clade.training.builders import build_dataset

DATA = Path(__file__).parents[3] / "shared/data"
CLASSES = {
    "names": ["sky", "cloud", "car", "truck", "tree", "void"],
    "colors": [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12], [13, 14, 15], [16, 17, 18]],
    "unknown": 200,
    "unknown_color": [9, 9, 9],
    "remap": {"7": 4, "8": 200},
}
NUMBERS = (0, 1, 2, 3, 4, 5, 7, 8, 200)
MERGED = {0: 1, 1: 1, 2: 0, 3: 0, 4: 2, 5: 255, 7: 2, 8: 255, 200: 255}
"""Number in the files -> number that `clade data convert --merge` writes for it."""
TABLE = "classes: {vehicle: [truck, car], above: [0, cloud], green: tree}\nunknown: [void]\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    for split in ("train", "val"):
        for name in ("1", "2"):
            ids = np.concatenate([np.array(NUMBERS), rng.choice(NUMBERS, 111)]).reshape(10, 12).astype(np.uint8)
            for folder, pixels in (
                ("images", rng.integers(0, 256, (10, 12, 3), np.uint8)),
                ("labels", ids),
                ("instances", rng.integers(0, 900, (10, 12)).astype(np.uint16)),
            ):
                path = root / split / folder / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    (root / "classes.json").write_text(json.dumps(CLASSES))
    return root


@pytest.fixture
def config(root: Path, tmp_path: Path) -> DataConfig:
    (tmp_path / "merge.yaml").write_text(TABLE)
    return DataConfig(name="folder", root=str(root), merge=str(tmp_path / "merge.yaml"), size=(32, 32), cache_mib=0)


def message(make: Callable[[], Any]) -> str:
    with pytest.raises(CladeError) as caught:
        make()
    return str(caught.value)


def same(ours: Dataset, theirs: Dataset) -> None:
    assert len(ours) == len(theirs)
    for index in range(len(ours)):
        mine, other = ours.read(index), theirs.read(index)
        assert mine.name == other.name
        assert mine.ids.dtype == other.ids.dtype
        for part in ("image", "ids", "instances"):
            assert np.array_equal(getattr(mine, part), getattr(other, part)), part
        assert ours.classes(index).tolist() == theirs.classes(index).tolist() == np.unique(other.ids).tolist()


def shown(space: LabelSpace) -> dict[str, Any]:
    """All of a label space but what its files' numbers are read as."""
    return {**space.to_dict(), "remap": None}


def test_what_is_read_is_what_convert_writes(config: DataConfig, tmp_path: Path):
    out = tmp_path / "converted"
    assert main(["data", "convert", str(config.root), str(out), "--from", "folder", "--merge", str(config.merge)]) == 0
    for split in ("train", "val"):
        ours, converted = build_dataset(config, split), FolderDataset(out, split)
        assert ours.label_space.names == ("vehicle", "above", "green")
        assert shown(ours.label_space) == shown(converted.label_space)
        same(ours, converted)
        assert 3 in ours.read(0).ids  # unknown pixels
    resized = replace(config, load_size=(7, 5))
    same(build_dataset(resized, "val"), build_dataset(replace(resized, root=str(out), merge=None), "val"))


def test_files_of_the_unmerged_dataset_are_read_by_the_merged_classes(config: DataConfig):
    space = build_dataset(config, "train").label_space
    raw = np.array(NUMBERS)
    expected = [3 if MERGED[number] == 255 else MERGED[number] for number in NUMBERS]
    assert space.encode(raw).tolist() == expected
    assert "pixels have class 6" in message(lambda: space.encode(np.array([6])))  # no number of the dataset
    for name in ("1", "2"):  # as `clade generate` reads a file, and as a checkpoint keeps the space
        kept = LabelSpace.from_dict(json.loads(json.dumps(space.to_dict())))
        ids = read_label(Path(str(config.root)) / f"train/labels/{name}.png", kept)
        assert np.array_equal(ids, build_dataset(config, "train").read(int(name) - 1).ids)


def test_colours_of_the_files_are_those_before_merging(root: Path, config: DataConfig):
    ids = read_label(root / "train/labels/1.png", LabelSpace.from_dict(CLASSES))
    palette = np.array([*CLASSES["colors"], CLASSES["unknown_color"]], np.uint8)
    before = build_dataset(config, "train").read(0).ids
    Image.fromarray(palette[ids]).save(root / "train/labels/1.png")
    assert np.array_equal(build_dataset(config, "train").read(0).ids, before)


def test_a_table_that_does_not_fit_is_refused_with_its_name(config: DataConfig, tmp_path: Path):
    (tmp_path / "merge.yaml").write_text("classes: {a: [sky, clowd]}\nrest: b")
    said = message(lambda: build_dataset(config, "train"))
    assert "merge.yaml: the source has no class 'clowd'. Did you mean 'cloud'?" in said
    said = message(lambda: build_dataset(replace(config, merge="cpp-20"), "train"))
    assert "data.merge is 'cpp-20'" in said
    assert "Did you mean 'ccp-20'?" in said


def test_merging_leaves_the_photos_alone(config: DataConfig):
    unmerged = build_dataset(replace(config, merge=None), "train")
    assert dataset_key(build_dataset(config, "train")) == dataset_key(unmerged) is not None


def test_drawn_scenes_can_be_merged():
    scenes = create_dataset("scenes", count=2)
    merged = Merged(scenes, {"classes": {"above": ["sky", "cloud"]}, "rest": "below"})
    sample, own = merged.read(0), scenes.read(0)
    assert np.array_equal(sample.ids, np.where(own.ids == 12, 2, own.ids > 1))
    assert sample.instances is not None
    assert sample.instances.max() > 0


# --- Prepared ---------------------------------------------------------------------------------------------------------


def prepared(config: DataConfig, out: Path) -> int:
    words = ["data", "prepare", "camvid-clade", "--out", str(out), "--workers", "0", "--data.name", "folder"]
    words += ["--data.root", str(config.root), "--data.load_size", "[36,36]", "--data.size", "[32,32]"]
    return main([*words, *(["--data.merge", config.merge] if config.merge else [])])


def test_a_prepared_dataset_holds_merged_classes_and_refuses_other_tables(config: DataConfig, tmp_path: Path):
    out = tmp_path / "out"
    assert prepared(config, out) == 0
    there = replace(config, root=str(out), load_size=(36, 36))
    raw = build_dataset(replace(there, root=config.root), "val")
    same(build_dataset(there, "val"), raw)
    assert build_dataset(there, "val").label_space == raw.label_space
    same(build_dataset(replace(there, name="prepared", merge=None), "val"), raw)
    build_dataset(replace(there, num_classes=6, unknown=200, remap={7: 4}), "val")  # of the files
    assert "data.num_classes 6, but the recipe has 3" in message(
        lambda: build_dataset(replace(there, num_classes=3), "val")
    )
    said = message(lambda: build_dataset(replace(there, merge=None), "val"))
    assert "was prepared with 3 classes, made of 6 by a merge table, but the recipe has data.merge unset" in said
    (tmp_path / "merge.yaml").write_text(TABLE + "# another file, the same classes")
    build_dataset(there, "val")
    (tmp_path / "merge.yaml").write_text(TABLE.replace("[truck, car]", "[truck, car, void]").replace("[void]", "[]"))
    assert "merge.yaml, which gives others" in message(lambda: build_dataset(there, "val"))
    assert prepared(config, out) == 1


def test_what_was_prepared_unmerged_is_merged_as_it_is_read(config: DataConfig, tmp_path: Path):
    out = tmp_path / "out"
    assert prepared(replace(config, merge=None), out) == 0
    there = replace(config, root=str(out), load_size=(36, 36))
    same(build_dataset(there, "train"), build_dataset(replace(there, root=config.root), "train"))


# --- What comes with clade --------------------------------------------------------------------------------------------


def test_the_table_that_comes_with_clade_is_known_by_name_to_convert(root: Path, tmp_path: Path, capsys: Any):
    assert "ccp-20" in list_merges()
    words = ["data", "convert", str(root), str(tmp_path / "out"), "--from", "folder", "--merge", "ccp-20"]
    assert main(words) == 1
    assert f"{find_merge_table('ccp-20')}: the source has no class" in capsys.readouterr().err


@pytest.mark.skipif(not (DATA / "ccp").is_dir(), reason="no real data beside the project")
def test_ccp_with_20_classes():
    words = ["--data.merge", "ccp-20", "--data.split_file", "ccp", "--data.root", str(DATA / "ccp")]
    data = build_dataset(Recipe.from_yaml("ccp-clade-icpe", words).data, "val")
    files = FolderDataset(DATA / "ccp", "val")
    assert len(data) == 99
    assert data.label_space.num_classes == 20
    table = plan(files.label_space, find_merge_table("ccp-20")).table
    assert np.array_equal(data.read(0).ids, table[files.read(0).ids])


# --- What a user is told ----------------------------------------------------------------------------------------------


def test_info_lists_every_number_of_the_files_with_the_class_it_is_read_as(
    config: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    space = build_dataset(config, "train").label_space
    path = tmp_path / "a.safetensors"
    clade.save(clade.create_generator("clade", num_classes=3, unknown_class=True, width=1), path, space)
    assert main(["info", str(path), "--classes"]) == 0
    numbers, colors = capsys.readouterr().out.split("number  is read as\n")[1].split("\n\ncolour (r, g, b) ")
    listed = {int(number): name for number, name in (line.split() for line in numbers.splitlines())}
    names = {0: "vehicle", 1: "above", 2: "green", 255: "unknown"}
    assert listed == {number: names[target] for number, target in {**MERGED, 255: 255}.items()}
    assert list(listed) == sorted(listed)
    assert colors.splitlines()[1:] == [
        "( 10,  11,  12)  #0a0b0c  vehicle",
        "(  1,   2,   3)  #010203  above",
        "( 13,  14,  15)  #0d0e0f  green",
        "(  9,   9,   9)  #090909  unknown",
    ]


def test_colours_of_the_unmerged_classes_are_refused_with_the_way_out(config: DataConfig, root: Path, tmp_path: Path):
    space = build_dataset(config, "train").label_space
    Image.new("RGB", (4, 4), (4, 5, 6)).save(tmp_path / "cloud.png")
    said = message(lambda: read_label(tmp_path / "cloud.png", space))
    assert "(4, 5, 6): 16 pixels" in said
    assert "as one channel or a palette" in said
    assert "palette" not in message(lambda: read_label(tmp_path / "cloud.png", replace(space, remap={})))

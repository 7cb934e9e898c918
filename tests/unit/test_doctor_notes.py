"""What `clade data check` finds suspicious, and folders in no known layout."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clade.data import FolderDataset, check
from clade.data.doctor.looking import in_threads, runs, tally
from clade.errors import CladeError, DataError

NAMES = {"names": ["sky", "tree", "road"], "unknown": 255}


def save(path: Path, pixels: Any, kind: Any = np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(pixels, kind)).save(path)


def add(folder: Path, name: str, ids: Any, gray: int) -> None:
    save(folder / "labels" / f"{name}.png", ids)
    save(folder / "images" / f"{name}.png", np.full((*np.shape(ids), 3), gray))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "classes.json").write_text(json.dumps(NAMES))
    add(tmp_path / "train", "a", [[0, 1, 2]], 1)
    add(tmp_path / "train", "b", [[0, 2, 1]], 2)
    add(tmp_path / "val", "c", [[2, 1, 0]], 3)
    return tmp_path


def test_nothing_is_noted_of_a_sound_dataset(root: Path):
    report = check(root)
    assert report.notes == []
    assert report.layout == "folder"
    assert report.to_dict()["layout"] == "folder"


@pytest.mark.parametrize("kind", [np.uint8, np.int32])
@pytest.mark.parametrize("seed", range(3))
def test_counting_runs_counts_pixels(kind: Any, seed: int):
    rng = np.random.default_rng(seed)
    pixels = np.repeat(rng.integers(0, (3, 100, 256)[seed], 60), 5).reshape(15, 20).astype(kind)
    assert tally(*runs(pixels), pixels.size) == dict(Counter(pixels.ravel().tolist()))
    assert tally(*runs(pixels[:1, :1]), 1) == {int(pixels[0, 0]): 1}


def test_constant_and_nearly_empty_maps_are_named(root: Path):
    add(root / "train", "flat", np.ones((4, 4)), 10)
    nearly = np.zeros((40, 40))
    nearly[0, :3] = 1
    add(root / "train", "nearly", nearly, 11)
    not_quite = np.zeros((40, 40))
    not_quite[0, :20] = 1
    add(root / "train", "not-quite", not_quite, 12)
    unlabelled = np.full((40, 40), 255)
    unlabelled[:1] = np.arange(40) % 3
    add(root / "val", "unlabelled", unlabelled, 13)
    report = check(root)
    assert report.clean
    train, val = report.splits
    assert train.constant == {"flat": 1}
    assert train.nearly_empty == {"nearly": pytest.approx(1597 / 1600)}
    assert val.nearly_empty == {"unlabelled": pytest.approx(1560 / 1600)}
    constant, nearly_ = report.notes
    assert "train/flat (1, 'tree')" in constant
    assert "train/nearly (99.8%), val/unlabelled (97.5%)" in nearly_


def test_duplicates_are_found_within_and_across_splits(root: Path):
    add(root / "train", "a2", [[0, 1, 2]], 1)  # all of a again
    add(root / "val", "b2", [[0, 2, 0]], 2)  # b's photo, with other labels
    add(root / "val", "c2", [[2, 1, 0]], 9)  # c's labels, with another photo
    add(root / "train", "flat", [[0, 0, 0]], 20)
    add(root / "train", "flat2", [[0, 0, 0]], 21)  # a constant map says nothing
    found = {(d.what, d.across): d.members for d in check(root).duplicates}
    assert found == {
        ("photos", True): (("train", "b"), ("val", "b2")),
        ("pictures", False): (("train", "a"), ("train", "a2")),
        ("labels", False): (("val", "c"), ("val", "c2")),
    }
    report = check(root)
    assert report.clean
    text = "\n".join(report.notes)
    assert "Equal photos with different label maps in several splits" in text
    assert "train/b, val/b2" in text
    assert json.loads(json.dumps(report.to_dict()))["duplicates"][0] == {
        "what": "photos",
        "across": True,
        "files": [["train", "b"], ["val", "b2"]],
    }
    blind = [d.what for d in check(root, labels_only=True).duplicates]
    assert blind == ["labels", "labels"]


def test_arrays_of_equal_bytes_and_other_shape_are_no_duplicates(root: Path):
    add(root / "train", "tall", [[0], [1], [2]], 1)
    assert check(root).duplicates == []


def test_photos_are_compared_by_their_pixels_not_their_bytes(root: Path):
    save(root / "val/images/d.bmp", np.full((1, 3, 3), 1))
    save(root / "val/labels/d.png", [[0, 1, 1]])
    assert [d.members for d in check(root).duplicates] == [(("train", "a"), ("val", "d"))]


def test_classes_that_never_occur_or_in_one_split_only(root: Path):
    (root / "classes.json").write_text(json.dumps({"names": ["sky", "tree", "road", "dog", "cat"], "unknown": 255}))
    add(root / "val", "d", [[3, 3, 0]], 8)
    assert check(root).notes == [
        "Classes that never occur (1 of 5): cat.",
        "Classes that occur in val only (1): dog.",
    ]


def test_a_train_set_without_val_is_noted_with_the_option_that_helps(root: Path, tmp_path: Path):
    flat = tmp_path / "flat"
    (flat).mkdir()
    (flat / "classes.json").write_text(json.dumps(NAMES))
    add(flat, "a", [[0, 1, 2]], 1)
    assert "--data.val_split train" in check(flat).notes[0]
    assert check(root, split="train").notes == []  # it was not asked for


def test_instances_of_only_one_split_are_noted(root: Path):
    for name in ("a", "b"):
        save(root / f"train/instances/{name}.png", [[1, 1, 1]], np.uint16)
    report = check(root)
    assert [split.objects for split in report.splits] == [2, 0]
    assert "val has no instance maps" in report.notes[0]


def test_splits_with_different_classes_are_a_problem(root: Path):
    (root / "val/classes.json").write_text(json.dumps({"names": ["sky", "road", "tree"], "unknown": 255}))
    problem = check(root).problems[0]
    assert "the classes of the splits differ" in problem
    assert "1: 'tree' and 'road'" in problem


def test_off_by_one_is_said(root: Path):
    for split, name in (("train", "a"), ("train", "b"), ("val", "c")):
        save(root / split / "labels" / f"{name}.png", [[1, 2, 3]])
    assert "off by one" in check(root).problems[0]


@pytest.mark.parametrize("kind", ["ids", "masks", "rgb", "palette"])
def test_photos_and_masks_under_other_names_are_recognised(kind: str, tmp_path: Path):
    rng = np.random.default_rng(0)
    source = tmp_path / "my set"
    for k in range(3):
        save(source / "JPEGImages" / f"{k}.jpg", rng.integers(0, 256, (8, 8, 3)))
        ids = np.arange(64).reshape(8, 8) // 32
        picture = Image.fromarray((ids * 255 if kind == "masks" else ids).astype(np.uint8))
        if kind == "palette":
            picture.putpalette([0, 0, 0, 200, 0, 0])
        if kind == "rgb":
            picture = Image.fromarray(np.array([[9, 0, 0], [0, 9, 0]], np.uint8)[ids])
        (source / "SegmentationClass").mkdir(exist_ok=True)
        picture.save(source / "SegmentationClass" / f"{k}.png")
    report = check(source)
    assert not report.clean
    assert report.layout is None
    assert report.splits[0].pairs == 3
    problem = report.problems[0]
    assert "JPEGImages/ holds 3 photos" in problem
    if kind == "ids":
        for old, new in (("JPEGImages", "images"), ("SegmentationClass", "labels")):
            assert f"{source / old} to {source / new}" in problem
            (source / old).rename(source / new)
        assert len(FolderDataset(source, num_classes=2)) == 3
    else:
        assert f"--from {kind} --images '{source}/JPEGImages'" in problem
        assert f"clade data convert '{source}/SegmentationClass'" in problem


def test_labels_under_another_name_beside_images_are_found(root: Path):
    (root / "train/labels").rename(root / "train/masks")
    problems = "\n".join(check(root).problems)
    assert f"Rename {root}/train/masks to {root}/train/labels" in problems


def test_a_root_one_level_off_is_told_the_right_one(root: Path):
    (root / "inner").mkdir()
    for part in ("train", "val"):
        (root / part).rename(root / "inner" / part)
    with pytest.raises(DataError, match=r"Known layouts are near: .*/inner \(folder\)"):
        check(root)


def test_a_layout_that_is_not_there_or_has_no_files_is_an_error(root: Path):
    assert check(root, name="folder").layout == "folder"
    with pytest.raises(CladeError, match="Did you mean 'folder'"):
        check(root, name="folders")


def test_what_has_not_begun_is_dropped_when_the_caller_stops():
    begun: list[str] = []

    def look(name: str) -> str:
        begun.append(name)
        return name

    names = [str(k) for k in range(10_000)]
    for name in in_threads(look, names, 2):
        if name == "20":
            break
    assert len(begun) < 1000
    assert list(in_threads(str.upper, ["a", "b", "c"] * 50, 3)) == ["A", "B", "C"] * 50


def test_a_split_that_cannot_be_listed_is_a_problem_beside_the_others(root: Path, monkeypatch: pytest.MonkeyPatch):
    listed = FolderDataset.list_files

    def fail(root: Path, split: str | None, labels_only: bool = False) -> Any:
        if split == "val":
            raise DataError("val: cannot be listed.")
        return listed(root, split, labels_only)

    monkeypatch.setattr(FolderDataset, "list_files", fail)
    report = check(root)
    assert report.problems == ["val: cannot be listed."]
    assert [split.name for split in report.splits] == ["train"]
    with pytest.raises(DataError, match="val: cannot be listed"):
        check(root, split="val")

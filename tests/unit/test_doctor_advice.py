"""What `clade data check` advises makes the dataset open."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from clade.data import FolderDataset, check
from clade.errors import DataError
from clade.labels import LabelSpace
from clade.recipes import Recipe

ABC = {"names": ["a", "b", "c"], "colors": [[9, 0, 0], [0, 9, 0], [0, 0, 9]]}


def make(root: Path, maps: list[Any], classes: dict[str, Any] | None = None, kind: Any = np.uint8) -> Path:
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    for k, pixels in enumerate(maps):
        array = np.array(pixels, kind)
        Image.fromarray(array).save(root / "labels" / f"{k}.png")
        Image.fromarray(np.full((*array.shape[:2], 3), k, np.uint8)).save(root / "images" / f"{k}.png")
    if classes is not None:
        (root / "classes.json").write_text(json.dumps(classes))
    return root


def colors(ids: list[list[int]], palette: list[list[int]]) -> np.ndarray:
    return np.array(palette, np.uint8)[np.array(ids)]


BLACK = [0, 0, 0]
CASES: dict[str, tuple[list[Any], dict[str, Any] | None, Any, dict[str, Any]]] = {
    "no classes": ([[[0, 1, 4, 255]]], None, np.uint8, {"num_classes": 5, "unknown": 255}),
    "scattered ids": (
        [[[7, 33, 1000]]],
        None,
        np.uint16,
        {"num_classes": 3, "remap": {7: 0, 33: 1, 1000: 2}},
    ),
    "from one, no classes": ([[[1, 2, 3]]], None, np.uint8, {"num_classes": 3, "remap": {1: 0, 2: 1, 3: 2}}),
    "a mask, no classes": ([[[0, 255]]], None, np.uint8, {"num_classes": 2, "remap": {255: 1}}),
    "off by one": ([[[1, 2]], [[3, 255]]], {**ABC, "unknown": 255}, np.uint8, {"remap": {1: 0, 2: 1, 3: 2}}),
    "0 is unlabelled": ([[[0, 1]], [[2, 3]]], ABC, np.uint8, {"unknown": 255, "remap": {0: 255, 1: 0, 2: 1, 3: 2}}),
    "0 is unlabelled, 255 too": (
        [[[0, 1]], [[2, 3]], [[255, 1]]],
        {**ABC, "unknown": 255},
        np.uint8,
        {"remap": {0: 255, 1: 0, 2: 1, 3: 2}},
    ),
    "perhaps one more, perhaps 0 is unlabelled": ([[[0, 1, 3]]], ABC, np.uint8, {"num_classes": 4}),
    "a few pixels after all classes": (
        [np.arange(4096).reshape(64, 64) % 3 + 3 * (np.arange(4096).reshape(64, 64) == 30)],
        {**ABC, "unknown": 255},
        np.uint8,
        {"remap": {3: 255}},
    ),
    "a mask": ([[[0, 255]]], ABC, np.uint8, {"remap": {255: 1}}),
    "a mask of unknown": ([[[0, 255]]], {**ABC, "unknown": 255}, np.uint8, {"remap": {255: 1}}),
    "a mask of one class": ([[[0, 255]]], {"names": ["a"]}, np.uint8, {"num_classes": 2, "remap": {255: 1}}),
    "unknown missing": ([[[0, 1, 2, 255]]], ABC, np.uint8, {"unknown": 255}),
    "one more class": ([[[0, 1, 2, 3, 4]]], ABC, np.uint8, {"num_classes": 5}),
    "a stray": ([[[0, 1, 2, 37]]], {**ABC, "unknown": 255}, np.uint8, {"remap": {37: 255}}),
    "a stray, no unknown": ([[[0, 1, 2, 37]]], ABC, np.uint8, {"unknown": 255, "remap": {37: 255}}),
    "a few pixels of the next id": (
        [np.where(np.arange(4096).reshape(64, 64) < 3, 3, 0)],
        {**ABC, "unknown": 255},
        np.uint8,
        {"remap": {3: 255}},
    ),
    "colours, no classes": (
        [colors([[0, 1, 1]], [BLACK, [9, 9, 0]])],
        None,
        np.uint8,
        {"num_classes": 2, "palette": [BLACK, [9, 9, 0]]},
    ),
    "colours that the names have not": (
        [colors([[0, 1, 1]], [[7, 7, 0], [9, 9, 0]])],
        {"names": ["a", "b"]},
        np.uint8,
        {"num_classes": 2, "palette": [[7, 7, 0], [9, 9, 0]]},
    ),
    "one more colour": (
        [colors([[0, 1, 1]], [[9, 0, 0], [9, 9, 0]])],
        ABC,
        np.uint8,
        {"num_classes": 4, "palette": [[9, 0, 0], [0, 9, 0], [0, 0, 9], [9, 9, 0]]},
    ),
    "black is unknown": ([colors([[0, 1, 1]], [[9, 0, 0], BLACK])], ABC, np.uint8, {"unknown": 255}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_lines_make_it_clean_in_a_recipe_and_in_classes_json(case: str, tmp_path: Path):
    maps, classes, kind, expected = CASES[case]
    root = make(tmp_path / "set", maps, classes, kind)
    report = check(root)
    assert not report.clean
    assert report.to_dict()["fix"] == json.loads(json.dumps(expected))
    lines = "\n".join(report.fix_lines())
    options = yaml.safe_load(lines)["data"]
    assert options == expected

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: mine\n{lines}\n  name: folder\n  root: {root}\n")
    data = Recipe.from_yaml(recipe).data
    chosen = {
        "num_classes": data.num_classes,
        "unknown": data.unknown,
        "remap": data.remap,
        "palette": data.palette,
    }
    dataset = FolderDataset(root, **chosen)
    assert [dataset.read(k).ids.shape[1] for k in range(len(dataset))] == [np.shape(m)[1] for m in maps]
    assert check(root, **chosen).clean
    assert check(root, **chosen).fix_lines() == []

    written = report.write_classes(tmp_path / "new" / "classes.json")
    space = LabelSpace.from_json(written)
    assert space == dataset.label_space
    (root / "classes.json").write_bytes(written.read_bytes())
    assert check(root).clean


@pytest.mark.parametrize("maps", [[[[0, 1, 2, 3]]], [[[0, 1, 3]]]])
def test_where_0_may_be_unlabelled_both_readings_are_said_and_both_fit(maps: list[Any], tmp_path: Path):
    root = make(tmp_path, maps, ABC)
    report = check(root)
    (problem,) = report.problems
    assert "num_classes 4" in problem
    assert "None" not in problem
    assert "unknown 255, remap {0: 255, 1: 0, ..., 3: 2}" in problem
    assert check(root, unknown=255, remap={0: 255, 1: 0, 2: 1, 3: 2}).clean
    assert check(root, num_classes=4).clean
    comments = "\n".join(line for line in report.fix_lines() if line.startswith("#"))
    other = "num_classes: 4" if "remap" in report.advice.options else "unknown: 255, remap: {0: 255, 1: 0, 2: 1, 3: 2}"
    assert other in comments


def test_the_flags_are_the_lines_for_a_shell(tmp_path: Path):
    report = check(make(tmp_path, [[[0, 1, 2, 3]]], ABC))
    flags = shlex.split(report.advice.flags())
    assert flags == ["--data.unknown", "255", "--data.remap", "{0: 255, 1: 0, 2: 1, 3: 2}"]
    data = Recipe.from_yaml("camvid-clade", [*flags, "--data.root", str(tmp_path)]).data
    assert (data.unknown, data.remap) == (255, {0: 255, 1: 0, 2: 1, 3: 2})


def test_black_as_a_class_of_made_up_names_is_told(tmp_path: Path):
    report = check(make(tmp_path, [colors([[0, 1, 2]], [BLACK, [9, 9, 0], [0, 0, 9]])]))
    lines = "\n".join(report.fix_lines())
    assert "Black is class 0" in lines
    assert "name the classes in classes.json" in lines
    # What it says to do where black is unlabelled.
    assert check(tmp_path, num_classes=2, unknown=255, palette=[(0, 0, 9), (9, 9, 0)]).clean


def test_jpeg_masks_are_listed_once_with_the_way_out(tmp_path: Path):
    root = make(tmp_path, [[[0, 1, 2]]], ABC)
    Image.new("L", (8, 8)).save(root / "labels/x.jpg")
    Image.new("RGB", (8, 8)).save(root / "images/x.png")
    problems = check(root).problems
    assert [problem.count("x.jpg") for problem in problems] == [1]
    assert "--tolerance N" in problems[0]


def test_written_classes_keep_names_and_colours(tmp_path: Path):
    report = check(make(tmp_path / "set", [[[0, 1, 2, 3, 4]]], ABC))
    space = LabelSpace.from_json(report.write_classes(tmp_path / "out.json"))
    assert space.names == ("a", "b", "c", "class 3", "class 4")
    assert [list(color) for color in space.colors[:3]] == ABC["colors"]


def test_an_existing_classes_json_is_not_overwritten(tmp_path: Path):
    report = check(make(tmp_path / "set", [[[0, 9]]], ABC))
    before = (tmp_path / "set/classes.json").read_bytes()
    with pytest.raises(DataError, match=r"set/classes\.json: exists"):
        report.write_classes(tmp_path / "set/classes.json")
    assert (tmp_path / "set/classes.json").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["classes.json", "images", "labels"]


def test_nothing_is_advised_where_nothing_is_to_be_fixed_or_can_be(tmp_path: Path):
    clean = check(make(tmp_path / "clean", [[[0, 1, 2]]], ABC))
    assert (clean.fix_lines(), clean.suggestion) == ([], None)
    broken = check(make(tmp_path / "broken", [[[0, 1]]], {"names": []}))
    assert broken.fix_lines() == []
    contradiction = check(make(tmp_path / "c", [[[0, 1]]], ABC), unknown=1)
    assert "'unknown' is 1" in contradiction.problems[0]
    assert contradiction.fix_lines() == []


def test_options_that_were_given_stay_in_the_lines(tmp_path: Path):
    report = check(make(tmp_path, [[[0, 1, 2, 40, 50]]], ABC), unknown=255, remap={40: 0})
    assert yaml.safe_load("\n".join(report.fix_lines())) == {"data": {"unknown": 255, "remap": {40: 0, 50: 255}}}


def test_masks_that_were_resized_smoothly_are_named_and_get_no_palette(tmp_path: Path):
    smooth = np.stack([np.arange(400).reshape(20, 20) % 256, np.arange(400).reshape(20, 20) // 256], -1)
    smooth = np.concatenate([smooth, np.zeros((20, 20, 1))], -1)  # 400 colours, of which a has one
    report = check(make(tmp_path, [smooth, colors([[0, 1]], [[9, 0, 0], [0, 9, 0]])], ABC))
    assert len(report.problems) == 1
    assert "labels/0.png (399 colours)" in report.problems[0]
    assert "resized smoothly" in report.problems[0]
    assert report.fix_lines() == []


def test_colours_of_no_class_are_counted_with_their_files(tmp_path: Path):
    report = check(make(tmp_path, [colors([[0, 1, 1]], [[9, 0, 0], [5, 6, 7]])], ABC))
    split = report.to_dict()["splits"][0]
    assert split["colors"] == {"(5, 6, 7)": 2}
    assert list(split["colored"].values()) == [{"colors": 1, "pixels": 2}]
    assert split["ids"] == [{"id": 0, "class": "a", "pixels": 1, "share": 1.0, "maps": 1}]
    assert "(5, 6, 7): 2 pixels" in report.problems[0]


def test_two_classes_of_one_colour_are_named(tmp_path: Path):
    twice = {"names": ["a", "b"], "colors": [BLACK, [9, 0, 0]], "unknown": 255}  # whose colour is black too
    report = check(make(tmp_path, [colors([[0, 1]], [[9, 0, 0], BLACK])], twice))
    assert "Two classes share one colour" in report.problems[0]
    assert report.fix_lines() == []

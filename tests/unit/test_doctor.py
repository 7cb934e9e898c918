"""``clade data check``: everything that is wrong, at once."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from clade.data import FolderDataset, check
from clade.errors import CladeError, DataError

CLASSES = {"names": ["sky", "tree", "road"], "unknown": 255}


def save(path: Path, pixels: Any, kind: Any = np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(pixels, kind)).save(path)


def add(folder: Path, name: str, ids: Any, kind: Any = np.uint8) -> None:
    save(folder / "labels" / f"{name}.png", ids, kind)
    save(folder / "images" / f"{name}.png", np.zeros((*np.shape(ids), 3)))


def printed(report: Any) -> str:
    stream = io.StringIO()
    report.print(Console(file=stream, width=160))
    return stream.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    add(tmp_path / "train", "a", [[0, 1, 1], [0, 255, 1]])
    add(tmp_path / "train", "b", [[0, 0], [0, 0]])
    add(tmp_path / "val", "c", [[2, 2]])
    return tmp_path


def test_a_sound_dataset_is_clean_and_can_be_built(root: Path):
    report = check(root)
    assert report.clean
    assert report.problems == []
    assert [split.name for split in report.splits] == ["train", "val"]
    assert len(FolderDataset(root)) == report.splits[0].pairs
    assert "No problems found." in printed(report)


def test_counts_pixels_maps_and_sizes_of_every_id(root: Path):
    train = check(root).splits[0]
    assert train.pairs == train.maps == 2
    assert dict(train.pixels) == {0: 6, 1: 3, 255: 1}
    assert dict(train.used) == {0: 2, 1: 1, 255: 1}
    assert dict(train.sizes) == {(2, 3): 1, (2, 2): 1}
    assert train.share(0) == pytest.approx(0.6)
    assert [train.class_of(n) for n in (0, 1, 255, 7)] == ["sky", "tree", "unknown", None]


def test_only_the_split_that_is_asked_for_is_read(root: Path):
    assert [split.name for split in check(root, split="val").splits] == ["val"]
    with pytest.raises(DataError, match="Did you mean 'val'"):
        check(root, split="vall")


def test_ids_outside_are_listed_for_all_files(root: Path):
    add(root / "train", "x", [[7, 7, 0]])
    add(root / "train", "y", [[7, 300, 0]], np.uint16)
    report = check(root)
    labels = root / "train" / "labels"
    assert report.splits[0].outside == {str(labels / "x.png"): {7: 2}, str(labels / "y.png"): {7: 1, 300: 1}}
    seven, wide = report.problems
    assert "id 7 " in seven
    assert "3 pixels in 2 label maps" in seven
    assert "id 300 " in wide
    assert "remap" in wide
    assert not report.clean
    assert check(root, remap={7: 0, 300: 255}).clean
    assert check(root, num_classes=8, remap={300: 255}).clean


def test_a_black_and_white_mask_gets_its_own_hint(tmp_path: Path):
    add(tmp_path, "a", [[0, 255]])
    assert "{255: 1}" in check(tmp_path, num_classes=2).problems[0]
    assert check(tmp_path, num_classes=2, remap={255: 1}).clean


def test_every_broken_file_is_listed_not_only_the_first(root: Path):
    for name in ("p", "q"):
        add(root / "train", name, [[0, 1]])
    (root / "train/labels/p.png").write_bytes(b"no picture")
    (root / "train/images/q.png").write_bytes((root / "train/images/q.png").read_bytes()[:40])
    add(root / "val", "r", [[0, 1]])
    save(root / "val/images/r.png", np.zeros((5, 4, 3)))
    problems = check(root).problems
    assert len(problems) == 3
    assert "labels/p.png: cannot be read" in problems[0]
    assert "images/q.png: cannot be read" in problems[1]
    assert "4 x 5" in problems[2]
    assert "2 x 1" in problems[2]


def test_unpaired_files_are_reported_and_the_pairs_still_read(root: Path):
    save(root / "train/images/lonely.png", np.zeros((2, 2, 3)))
    save(root / "train/labels/blind.png", [[0, 9]])
    report = check(root)
    text = "\n".join(report.problems)
    assert "lonely" in text
    assert "blind" in text
    assert "id 9 " in text
    assert report.splits[0].pairs == 2


def test_instances_are_read_and_their_sizes_compared(root: Path):
    save(root / "val/instances/c.png", [[1, 2, 3]], np.uint16)
    assert "instances/c.png is 3 x 1" in check(root).problems[0]
    (root / "val/instances/c.png").write_bytes(b"")
    assert "instances/c.png: cannot be read" in check(root).problems[0]


def test_without_classes_it_reports_the_ids_and_a_classes_json_that_works(root: Path):
    (root / "classes.json").unlink()
    report = check(root)
    assert not report.clean
    assert "classes.json" in report.problems[0]
    assert dict(report.splits[0].pixels) == {0: 6, 1: 3, 255: 1}
    assert report.suggestion == {"names": ["class 0", "class 1", "class 2"], "unknown": 255}
    assert "\ndata:\n  num_classes: 3\n  unknown: 255\n" in printed(report)
    (root / "classes.json").write_text(json.dumps(report.suggestion))
    assert check(root).clean


def test_scattered_ids_are_suggested_as_a_remap_that_works(tmp_path: Path):
    for number, ids in enumerate(([[7, 33, 1000]], [[0, 255, 255]])):
        root = tmp_path / str(number)
        add(root, "a", ids, np.uint16)
        suggestion = check(root).suggestion
        assert suggestion is not None
        assert len(suggestion["names"]) == len(np.unique(ids))
        (root / "classes.json").write_text(json.dumps(suggestion))
        assert check(root).clean


def test_broken_classes_are_a_problem_and_the_files_are_still_read(root: Path):
    (root / "classes.json").write_text("{")
    report = check(root)
    assert len(report.problems) == 1  # once, not for each split
    assert "classes.json: not readable" in report.problems[0]
    assert report.splits[0].maps == 2


def test_colour_coded_labels_are_counted_as_the_numbers_of_their_classes(tmp_path: Path):
    classes = {"names": ["a", "b"], "colors": [[9, 0, 0], [0, 9, 0]], "unknown": 255}
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    palette = np.array([[9, 0, 0], [0, 9, 0], [0, 0, 0]], np.uint8)
    save(tmp_path / "labels/a.png", palette[[[0, 1, 1, 2]]])
    save(tmp_path / "images/a.png", np.zeros((1, 4, 3)))
    report = check(tmp_path)
    assert report.clean
    assert dict(report.splits[0].pixels) == {0: 1, 1: 2, 255: 1}
    (tmp_path / "classes.json").unlink()
    assert "colour picture" in "\n".join(check(tmp_path, num_classes=None).problems)


def test_labels_only_does_not_ask_for_photos(tmp_path: Path):
    save(tmp_path / "labels/a.png", [[0, 1]])
    assert check(tmp_path, num_classes=2, labels_only=True).clean
    assert not check(tmp_path, num_classes=2).clean


def test_a_folder_that_is_no_dataset_is_an_error(tmp_path: Path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match=path.name):
            check(path)


def test_a_split_without_label_maps_is_a_problem(root: Path):
    (root / "test" / "labels").mkdir(parents=True)
    assert "no label files" in "\n".join(check(root).problems)


def test_report_as_plain_values_survives_json(root: Path):
    add(root / "train", "x", [[7]])
    value = json.loads(json.dumps(check(root).to_dict()))
    assert value["clean"] is False
    train = value["splits"][0]
    assert train["pairs"] == 3
    assert train["sizes"] == {"2 x 3": 1, "2 x 2": 1, "1 x 1": 1}
    assert train["ids"][0] == {"id": 0, "class": "sky", "pixels": 6, "share": pytest.approx(6 / 11), "maps": 2}
    assert list(train["outside"].values()) == [{"7": 1}]


def test_printing_shows_square_brackets_and_groups_what_is_alike(root: Path):
    for k in range(30):
        (root / "train/labels" / f"[red]{k}.png").write_bytes(b"")
        save(root / "train/images" / f"[red]{k}.png", np.zeros((1, 1, 3)))
    report = check(root)
    text = printed(report)
    assert "[red]0.png: cannot be read" in text
    assert text.count("cannot be read") == 3
    assert "30 label maps cannot be used" in text
    assert len(report.problems) == 30


def test_printing_shortens_long_lists(root: Path):
    for number in range(100, 130):
        add(root / "train", str(number), [[number]])
    assert "and 10 more problems" in printed(check(root))


def test_number_of_threads_changes_nothing_and_warning_filters_stay(root: Path):
    for k in range(20):
        add(root / "train", f"n{k}", [[k % 5, 0]])
    before = list(warnings.filters)
    one, four = check(root, workers=1), check(root, workers=4)
    assert one.to_dict() == four.to_dict()
    assert list(warnings.filters) == before


def test_what_cannot_be_written_and_no_workers_are_said(root: Path):
    with pytest.raises(CladeError, match="workers is 0"):
        check(root, workers=0)
    report = check(root)
    (root / "file").touch()
    for write in (report.html, report.write_classes):
        with pytest.raises(DataError, match=r"file/x: cannot be written"):
            write(root / "file/x")


def test_nothing_is_written_to_a_stderr_that_is_no_terminal(root: Path, capsys: pytest.CaptureFixture[str]):
    check(root)
    assert capsys.readouterr() == ("", "")


def test_names_that_are_no_utf_8_are_shown_with_their_bytes(root: Path, tmp_path: Path):
    odd = root / "train/labels" / "x\udcff.png"
    try:
        odd.write_bytes(b"damaged")
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    page = check(root).html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert r"x\udcff.png: cannot be read" in page


def test_a_mask_whose_255_passes_for_unknown_is_named(tmp_path: Path):
    add(tmp_path, "a", [[0, 255]])
    problems = check(tmp_path, num_classes=5, unknown=255).problems
    assert len(problems) == 1
    assert "only 0 and 255" in problems[0]
    add(tmp_path, "b", [[1, 0]])
    assert check(tmp_path, num_classes=5, unknown=255).clean

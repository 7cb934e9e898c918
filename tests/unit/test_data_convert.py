"""`clade data convert` around the formats: stopping and going on, merging, what is refused."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from clade.cli.data import convert_arguments
from clade.data import FolderDataset, check
from clade.data.convert import convert, running
from clade.data.convert.base import Item
from clade.data.convert.layouts import find_converter
from clade.data.convert.merging import plan
from clade.data.convert.sharing import shared
from clade.errors import CladeError, DataError, LabelError
from clade.labels import LabelSpace
from clade.recipes import find_merge_table

CLASSES = {
    "names": ["sky", "tree", "road", "car"],
    "colors": [[9, 9, 9], [1, 0, 0], [0, 2, 0], [0, 0, 3]],
    "unknown": 255,
}


def add(folder: Path, name: str, seed: int, instances: bool = True) -> None:
    dice = np.random.default_rng(seed)
    ids = dice.choice(np.array([0, 1, 2, 3, 255], np.uint8), (6, 8))
    made = {"images": dice.integers(0, 256, (6, 8, 3), dtype=np.uint8), "labels": ids}
    if instances:
        made["instances"] = ids.astype(np.uint16) * 7
    for part, pixels in made.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / part / f"{name}.png")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    for k in range(6):
        add(root / "train", f"frame{k}", k)
    add(root / "val", "one", 10)
    (root / "classes.json").write_text(json.dumps(CLASSES))
    return root


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def go(source: Path, out: Path, **options: Any):
    return convert(source, out, "folder", progress=False, **{"workers": 2, **options})


def message(error: type[Exception], *args: Any, **options: Any) -> str:
    with pytest.raises(error) as caught:
        go(*args, **options)
    return str(caught.value)


# --- Stopping and going on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["photo", "instances", "label"])
@pytest.mark.parametrize("at", [1, 3])
def test_a_stopped_conversion_goes_on_to_the_same_bytes(
    file: str, at: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = go(source, tmp_path / "whole")
    calls: list[Path] = []
    put_array, put_photo = running._put_array, running._put_photo

    def stop() -> None:
        calls.append(Path())
        if len(calls) == at:
            raise KeyboardInterrupt

    def array(path: Path, pixels: np.ndarray) -> None:
        if path.parent.name == {"instances": "instances", "label": "labels"}.get(file):
            stop()
        put_array(path, pixels)

    def photo(*args: Any) -> None:
        put_photo(*args)
        if file == "photo":
            stop()

    with monkeypatch.context() as patch:
        patch.setattr(running, "_put_array", array)
        patch.setattr(running, "_put_photo", photo)
        with pytest.raises(KeyboardInterrupt):
            go(source, tmp_path / "out", workers=1)
    made = tree(tmp_path / "out")
    assert {"convert.json", "classes.json"} <= set(made)
    assert len(made) < len(tree(tmp_path / "whole"))
    (tmp_path / "out/train/labels/.frame5.png.12-345.tmp").write_text("left by a killed process")
    report = go(source, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    present = sum(part.present for part in report.splits.values())
    assert at - 1 <= present == sum("/labels/" in name for name in made) < 7
    assert [part.pixels for part in report.splits.values()] == [part.pixels for part in whole.splits.values()]
    again = go(source, tmp_path / "out")
    assert [(part.written, part.present) for part in again.splits.values()] == [(0, 6), (0, 1)]


def test_another_command_is_refused_and_says_what_differs(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    go(source, out, split="train")
    before = tree(out)
    said = message(DataError, source, out, split="train", exclude=["frame1"])
    assert 'exclude none, now ["frame1"]' in said
    assert "pictures 6, now 5" in said
    (source / "classes.json").write_text(json.dumps({**CLASSES, "names": ["a", "b", "c", "d"]}))
    assert "have changed since" in message(DataError, source, out, split="train")
    assert "names ('sky'" in message(DataError, source, out, split="val")
    assert tree(out) == before
    (source / "classes.json").write_text(json.dumps(CLASSES))
    report = go(source, out, split="val")
    assert list(report.splits) == ["val"]
    assert len(FolderDataset(out, "train")) == 6
    assert len(FolderDataset(out, "val")) == 1


@pytest.mark.parametrize("kind", ["rgb", "folder"])
def test_what_failed_before_its_first_picture_is_not_in_the_way(kind: str, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if kind == "folder":
        kept = {path: path.read_bytes() for path in source.rglob("labels/*.png")}
        for path, content in kept.items():
            path.write_bytes(content[:50])
        message(LabelError, source, out)
        for path, content in kept.items():
            path.write_bytes(content)
    else:
        (tmp_path / "masks").mkdir()
        Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "masks/a.png")
        with pytest.raises(LabelError):
            convert(tmp_path / "masks", out, "rgb", palette={"other": [9, 9, 9]}, progress=False)
    assert sorted(tree(out)) == ["classes.json", "convert.json"]
    report = go(source, out, exclude=["frame0"])
    assert len(report.excluded) == 1
    assert len(FolderDataset(out, "train")) == 5
    assert len(json.loads((out / "convert.json").read_text())["runs"]) == 1
    assert 'exclude ["frame0"], now none' in message(DataError, source, out)


def test_parts_that_have_not_begun_stay_where_others_come(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kept = (source / "val/labels/one.png").read_bytes()
    (source / "val/labels/one.png").write_bytes(kept[:50])
    message(LabelError, source, out, split="val")
    go(source, out, split="train")
    (source / "val/labels/one.png").write_bytes(kept)
    go(source, out, split="val")
    assert len(json.loads((out / "convert.json").read_text())["runs"]) == 2


def flat(root: Path, count: int) -> Path:
    for k in range(count):
        add(root, str(k), k)
    (root / "classes.json").write_text(json.dumps(CLASSES))
    return root


def test_a_share_makes_train_and_val_and_more_pictures_move_none(tmp_path: Path) -> None:
    few = flat(tmp_path / "flat", 20)
    report = go(few, tmp_path / "few", val_share=0.3)
    assert list(report.splits) == ["train", "val"]
    first = {split: set(FolderDataset(tmp_path / "few", split)._names) for split in ("train", "val")}
    assert sum(map(len, first.values())) == 20
    for split, names in first.items():
        for name in names:
            made, was = tmp_path / "few" / split / "labels" / f"{name}.png", few / "labels" / f"{name}.png"
            assert np.array_equal(np.asarray(Image.open(made)), np.asarray(Image.open(was)))
    go(flat(few, 40), tmp_path / "more", val_share=0.3)
    more = {split: set(FolderDataset(tmp_path / "more", split)._names) for split in ("train", "val")}
    assert all(first[split] < more[split] for split in first)
    assert sum(map(len, more.values())) == 40
    assert "It holds train, val, and this conversion makes one part" in message(DataError, few, tmp_path / "more")
    assert "val_share 0.3, now 0.4" in message(DataError, few, tmp_path / "more", val_share=0.4)


def test_shares_are_as_large_as_asked_for() -> None:
    items = [Item(f"frame_{k:05}", lambda: (np.zeros((1, 1)), None), Path("x")) for k in range(4000)]
    val = sum(item.split == "val" for item in shared(items, 0.1, None))
    assert abs(val - 400) < 4 * (4000 * 0.1 * 0.9) ** 0.5
    assert {item.name for item in shared(items, 0.1, None) if item.split == "val"} <= {
        item.name for item in shared(items, 0.2, None) if item.split == "val"
    }


def test_a_share_that_makes_no_sense_is_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "between 0 and 1" in message(CladeError, source, out, val_share=1.0)
    assert "the split 'val' came too" in message(CladeError, source, out, val_share=0.1, split="val")
    assert "divided already (train, val)" in message(DataError, source, out, val_share=0.1)
    add(tmp_path / "flat", "a", 1)
    add(tmp_path / "flat", "b", 2)
    (tmp_path / "flat/classes.json").write_text(json.dumps(CLASSES))
    said = message(DataError, tmp_path / "flat", out, val_share=0.0001)
    assert "puts 0 of the 2 pictures into val" in said
    low, high = re.findall(r"one of (\S+) to (\S+)\.", said)[0]
    for number, share in enumerate((low, high)):
        report = go(tmp_path / "flat", tmp_path / str(number), val_share=float(share))
        assert [part.written for part in report.splits.values()] == [1, 1]


def test_one_part_without_splits_and_splits_do_not_mix(source: Path, tmp_path: Path) -> None:
    for name in ("0", "1"):
        add(tmp_path / "flat", name, 1)
    (tmp_path / "flat/classes.json").write_text(json.dumps(CLASSES))
    go(tmp_path / "flat", tmp_path / "out")
    said = message(DataError, source, tmp_path / "out", split="val")
    assert "It holds one part without splits, and this conversion makes val." in said
    assert "None" not in said


def test_nothing_that_it_did_not_make_is_overwritten(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert "notes.txt" in message(DataError, source, out)
    (out / "notes.txt").unlink()
    go(source, out, split="train")
    for path in (out / "train/images/frame2.png", out / "train/instances/frame2.png"):
        (out / "train/labels/frame2.png").unlink(missing_ok=True)
        kept = path.read_bytes()
        Image.fromarray(np.full((6, 8, 3), 77, np.uint8)).save(path)
        mine = path.read_bytes()
        assert str(path) in message(DataError, source, out, split="train")
        assert path.read_bytes() == mine
        path.write_bytes(kept)
    (out / "val").mkdir()
    assert "no conversion made it" in message(DataError, source, out, split="val")


@pytest.mark.parametrize("inside", ["", "made"])
def test_out_does_not_lie_in_the_source(inside: str, source: Path) -> None:
    assert "lies in" in message(DataError, source, source / inside)


# --- Broken files -----------------------------------------------------------------------------------------------------


def test_a_broken_file_stops_or_is_skipped_and_counted(source: Path, tmp_path: Path) -> None:
    broken = source / "train/images/frame3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    said = message(DataError, source, tmp_path / "stopped")
    assert str(broken) in said
    assert not (tmp_path / "stopped/train/labels/frame3.png").exists()
    report = go(source, tmp_path / "out", on_error="skip")
    assert [str(broken) in line for line in report.skipped] == [True]
    assert not report.clean
    assert (report.splits["train"].written, report.splits["val"].written) == (5, 1)
    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    report.print(console)
    assert "1 skipped" in console.export_text()
    assert check(tmp_path / "out").clean
    add(source / "train", "frame3", 3)
    assert go(source, tmp_path / "out").splits["train"].written == 1


def test_sizes_that_differ_name_both_files(source: Path, tmp_path: Path) -> None:
    photo = source / "train/images/frame0.png"
    Image.fromarray(np.zeros((3, 3, 3), np.uint8)).save(photo)
    said = message(DataError, source, tmp_path / "out")
    assert f"{photo} is 3 x 3" in said
    assert f"{source / 'train/labels/frame0.png'} is 8 x 6" in said


# --- Names and photos -------------------------------------------------------------------------------------------------


def masks(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(folder / name)
    return folder


def test_two_files_of_one_name_stop_before_anything_is_written(tmp_path: Path) -> None:
    folder = masks(tmp_path / "masks", "a.png", "a.bmp", "b.png")
    with pytest.raises(DataError, match="would both become 'a'"):
        convert(folder, tmp_path / "out", "masks")
    masks(tmp_path / "deep/0", "a_L.png")
    masks(tmp_path / "deep/1", "a_L.png")
    with pytest.raises(DataError, match="would both become 'a'"):
        convert(tmp_path / "deep", tmp_path / "out", "masks", pattern="{name}_L.png")
    assert not (tmp_path / "out").exists()


def test_photos_are_paired_and_those_left_over_are_reported(tmp_path: Path) -> None:
    folder = masks(tmp_path / "masks", "a.png", "b.png")
    photos = masks(tmp_path / "photos", "a.jpg")
    with pytest.raises(DataError, match="1 of 2 masks have no photo there: b"):
        convert(folder, tmp_path / "out", "masks", images=photos)
    masks(photos, "b.png", "c.png")
    report = convert(folder, tmp_path / "out", "masks", images=photos, progress=False)
    assert report.unused == [str(photos / "c.png")]
    assert report.photos
    assert (tmp_path / "out/images/a.jpg").read_bytes() == (photos / "a.jpg").read_bytes()


def test_links_share_the_file_and_its_mode(tmp_path: Path) -> None:
    folder, photos = masks(tmp_path / "masks", "a.png"), masks(tmp_path / "photos", "a.png")
    (photos / "a.png").chmod(0o440)
    convert(folder, tmp_path / "out", "masks", images=photos, link=True, progress=False)
    linked = (tmp_path / "out/images/a.png").stat()
    assert linked.st_ino == (photos / "a.png").stat().st_ino
    assert linked.st_mode & 0o777 == 0o440


def test_split_folders_become_splits(tmp_path: Path) -> None:
    for split, name in (("train", "a.png"), ("val", "b.png")):
        masks(tmp_path / "masks" / split, name)
        masks(tmp_path / "photos" / split, name)
    convert(tmp_path / "masks", tmp_path / "out", "masks", images=tmp_path / "photos", progress=False)
    assert len(FolderDataset(tmp_path / "out", "train")) == len(FolderDataset(tmp_path / "out", "val")) == 1
    masks(tmp_path / "masks", "loose.png")
    with pytest.raises(DataError, match=r"beside them, loose\.png"):
        convert(tmp_path / "masks", tmp_path / "other", "masks")


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a/../../x.png", ".x.png"])
def test_names_that_lead_out_of_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": name, "width": 2, "height": 2}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="no name for a file"):
        convert(tmp_path / "a.json", tmp_path / "out", "coco")
    assert not (tmp_path / "out").exists()


def test_exclude_leaves_out_and_knows_its_names(source: Path, tmp_path: Path) -> None:
    report = go(source, tmp_path / "out", exclude=["frame1", "val/one"])
    assert report.excluded == ["train/frame1", "val/one"]
    assert {split: part.written for split, part in report.splits.items()} == {"train": 5}
    assert "Did you mean 'frame1'" in message(DataError, source, tmp_path / "no", exclude=["frame_1"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"palette": "auto"}, "does not take 'palette'"),
        ({"tolerance": 3}, "does not take 'tolerance'"),
        ({"on_error": "ignore"}, "'stop' or 'skip'"),
        ({"workers": 0}, "at least 1"),
        ({"split": "../x"}, "no name of a folder"),
        ({"split": "tran"}, "Did you mean 'train'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str, source: Path, tmp_path: Path) -> None:
    assert words in message(CladeError, source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


# --- Many classes, many objects ---------------------------------------------------------------------------------------


def test_more_than_255_classes_make_16_bit_labels(tmp_path: Path) -> None:
    ids = np.arange(300, dtype=np.uint16).reshape(20, 15)
    masks(tmp_path / "masks", "a.png")
    Image.fromarray(ids).save(tmp_path / "masks/a.png")
    report = convert(tmp_path / "masks", tmp_path / "out", "palette", progress=False)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/labels/a.png")), ids)
    assert report.space.num_classes == 300


def test_object_numbers_are_kept_or_counted_anew() -> None:
    fits = np.array([[0, 24003, 65535]])
    assert np.array_equal(running.instance_numbers(fits, Path("a")), fits)
    assert running.instance_numbers(np.array([[0, 1 << 20, 7, 7]]), Path("a")).tolist() == [[0, 2, 1, 1]]
    with pytest.raises(DataError, match="65536 objects"):
        running.instance_numbers(np.arange(1, (1 << 16) + 1).reshape(256, 256) * 3, Path("a"))


# --- Merging ----------------------------------------------------------------------------------------------------------


def test_merging_by_a_table(source: Path, tmp_path: Path) -> None:
    table = tmp_path / "merge.yaml"
    table.write_text("classes: {nature: [tree, 0], vehicle: car}\nunknown: [road]\n")
    report = go(source, tmp_path / "out", merge=table)
    made = LabelSpace.from_json(tmp_path / "out/classes.json")
    assert made.names == ("nature", "vehicle")
    assert made.colors == ((1, 0, 0), (0, 0, 3))  # of the first class of each
    assert made.unknown == 255
    for path in sorted((source / "train/labels").iterdir()):
        before, after = (np.asarray(Image.open(p)) for p in (path, tmp_path / "out/train/labels" / path.name))
        expected = [[{0: 0, 1: 0, 2: 255, 3: 1, 255: 255}[int(v)] for v in row] for row in before]
        assert after.tolist() == expected
    assert report.merged == {"nature": ["tree", "sky"], "vehicle": ["car"]}
    total = sum(part.pixels.total() for part in report.splits.values())
    assert total == 7 * 6 * 8


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_merging_is_the_table_pixel_by_pixel(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    space = LabelSpace(names=tuple(f"c{k}" for k in range(count)), unknown=data.draw(st.sampled_from([None, 255])))
    target = data.draw(st.lists(st.sampled_from(["x", "y", "z", "unknown", "rest"]), min_size=count, max_size=count))
    if "x" not in target:
        target[0] = "x"
    rest = data.draw(st.sampled_from(["x", "w", "unknown"]))
    classes: dict[str, list[Any]] = {}
    for k, name in enumerate(target):
        if name in "xyz":
            classes.setdefault(name, []).append(data.draw(st.sampled_from([k, f"c{k}"])))
    unknown = [f"c{k}" for k, name in enumerate(target) if name == "unknown"]
    merging = plan(space, {"classes": classes, "unknown": unknown, "rest": rest})
    made = merging.space
    for row in range(space.num_rows):
        wanted = "unknown" if row == count else target[row]
        wanted = rest if wanted == "rest" else wanted
        number = int(merging.table[row])
        assert ("unknown" if number == made.unknown else made.names[number]) == wanted
    assert (made.unknown is None) == (
        "unknown" not in [rest if t == "rest" else t for t in target] and space.unknown is None
    )


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"classes": {"a": ["sky"]}}, "3 of the 4 classes are not named: tree, road, car"),
        ({"classes": {"a": ["skyy"]}, "rest": "a"}, "Did you mean 'sky'"),
        ({"classes": {"a": ["sky"], "b": [0]}, "rest": "a"}, "'sky' is named twice"),
        ({"classes": {"a": [4]}, "rest": "a"}, "class 4, but the source has 4"),
        ({"classes": {"a": [True]}, "rest": "a"}, "quotes"),
        ({"classes": {"a": ["sky"]}, "others": "a"}, "no key 'others'"),
        ({"classes": {"unknown": ["sky"]}, "rest": "a"}, "under the key 'unknown'"),
        ({"sky": ["sky"]}, "no mapping 'classes'"),
    ],
)
def test_wrong_merge_tables_are_named(table: dict[str, Any], words: str) -> None:
    with pytest.raises(LabelError) as caught:
        plan(LabelSpace.from_dict(CLASSES), table)
    assert words in str(caught.value)


def test_unknown_pixels_can_become_a_class() -> None:
    merging = plan(LabelSpace.from_dict(CLASSES), {"classes": {"back": ["unknown", "sky"]}, "rest": "front"})
    assert merging.table.tolist() == [0, 1, 1, 1, 0]
    assert merging.space.unknown is None


# --- The page and its example -----------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]


def test_the_example_makes_20_classes_of_ccp() -> None:
    source = LabelSpace.from_json(ROOT / "clade/data/classes/ccp.json")
    merging = plan(source, find_merge_table("ccp-20"))
    assert merging.space.num_classes == 20
    made = {source.name(row): merging.space.names[merging.table[row]] for row in range(source.num_classes)}
    assert len(made) == 59
    assert (made["null"], made["pumps"], made["jacket"]) == ("background", "footwear", "outerwear")


def test_commands_of_the_page_are_parsed_and_take_what_the_table_says() -> None:
    text = (ROOT / "docs/data-convert.md").read_text(encoding="utf-8")
    lines = re.findall(r"^clade data convert (.*)$", text, re.MULTILINE)
    assert len(lines) >= 12
    for line in lines:
        parser = argparse.ArgumentParser()
        convert_arguments(parser)
        options = parser.parse_args(shlex.split(line))
        takes = find_converter(options.format).options
        for key in ("images", "annotations", "palette", "parts", "pattern", "classes"):
            assert getattr(options, key) is None or key in takes, line
    for row in re.findall(r"^\| `(\w+)` \|(.*)$", text, re.MULTILINE):
        assert set(re.findall(r"`--(\w+)`", row[1])) == set(find_converter(row[0]).options), row[0]

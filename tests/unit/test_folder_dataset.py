"""Folders of files, and the drawn scenes, as datasets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clade.data import FolderDataset, ScenesDataset, create_dataset, read_photo
from clade.errors import CladeError, DataError, LabelError
from clade.labels.labelspace import LabelSpace

CLASSES = {"names": ["sky", "tree", "road"], "colors": [[0, 0, 255], [0, 255, 0], [90, 90, 90]], "unknown": 255}


def save(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def add(
    folder: Path, name: str, ids: Any = ((0, 1, 2), (2, 255, 0)), instances: Any = None, photo: str = ".png"
) -> None:
    """A photo, its label map and, where given, its instances below ``folder``."""
    ids = np.array(ids, np.uint8)
    save(folder / "labels" / f"{name}.png", ids)
    save(folder / "images" / f"{name}{photo}", np.repeat(ids[..., None], 3, axis=2) * 60)
    if instances is not None:
        save(folder / "instances" / f"{name}.png", np.array(instances, np.uint16))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    for split, name in (("train", "frame1"), ("train", "frame2"), ("val", "frame3")):
        add(tmp_path / split, name)
    return tmp_path


def names(dataset: FolderDataset) -> list[str]:
    return [dataset.name(k) for k in range(len(dataset))]


def message(make: Callable[[], Any], error: type[Exception] = DataError) -> str:
    with pytest.raises(error) as caught:
        make()
    return str(caught.value)


def test_reads_photo_and_encoded_ids(root: Path):
    dataset = FolderDataset(root)
    assert len(dataset) == 2
    assert dataset.label_space.names == ("sky", "tree", "road")
    sample = dataset.read(0)
    assert sample.name == "frame1"
    assert sample.ids.tolist() == [[0, 1, 2], [2, 3, 0]]  # 255 is the last row
    assert sample.image is not None
    assert sample.image.shape == (2, 3, 3)
    assert sample.image.dtype == np.uint8
    assert sample.instances is None


def test_each_split_has_its_own_files(root: Path):
    assert names(FolderDataset(root, split="train")) == ["frame1", "frame2"]
    assert names(FolderDataset(root, split="val")) == ["frame3"]


def test_names_are_in_natural_order_with_subfolders(root: Path):
    for name in ("frame10", "b/2", "b/10", "b/9"):
        add(root / "train", name)
    assert names(FolderDataset(root)) == ["b/2", "b/9", "b/10", "frame1", "frame2", "frame10"]


def test_folder_without_splits_is_the_training_set_and_no_other(tmp_path: Path):
    add(tmp_path, "a")
    assert len(FolderDataset(tmp_path, num_classes=3, unknown=255)) == 1
    assert len(FolderDataset(tmp_path, split=None, num_classes=3, unknown=255)) == 1
    text = message(lambda: FolderDataset(tmp_path, split="val", num_classes=3))
    assert "--data.val_split train" in text
    assert "--val-share 0.1" in text
    assert "None" not in text


def test_wrong_split_names_the_splits_that_are_there(root: Path):
    text = message(lambda: FolderDataset(root, split="vall"))
    assert "Did you mean 'val'?" in text
    assert "train, val" in text
    text = message(lambda: FolderDataset(root, split=None))
    assert "only splits. It has train, val" in text
    assert "None" not in text


def test_missing_or_foreign_root_says_which_layout_is_needed(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").mkdir()
    for path in (tmp_path / "none", tmp_path / "file", tmp_path / "other"):
        text = message(lambda path=path: FolderDataset(path))
        assert str(path) in text
        assert "labels/NAME.png" in text


def test_empty_labels_folder_is_an_error(tmp_path: Path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    assert "no label files" in message(lambda: FolderDataset(tmp_path, num_classes=3))


def test_files_without_partners_are_counted_and_named(root: Path):
    for k in range(8):
        save(root / "train/images" / f"lonely{k}.png", np.zeros((2, 3, 3), np.uint8))
    save(root / "train/labels/blind.png", np.zeros((2, 3), np.uint8))
    text = message(lambda: FolderDataset(root))
    assert "8 photos" in text
    assert "lonely0, lonely1, lonely2, lonely3, lonely4 and 3 more" in text
    assert "1 label maps" in text
    assert "blind" in text


def test_instances_for_only_some_label_maps_are_an_error(root: Path):
    add(root / "train", "frame1", instances=[[1, 2, 3], [4, 5, 6]])
    text = message(lambda: FolderDataset(root))
    assert "1 label maps" in text
    assert "instances: frame2" in text


def test_instances_are_read_as_16_bit_numbers(root: Path):
    for name in ("frame1", "frame2"):
        add(root / "train", name, instances=[[24001, 24002, 3], [4, 5, 6]])
    instances = FolderDataset(root).read(0).instances
    assert instances is not None
    assert instances.tolist() == [[24001, 24002, 3], [4, 5, 6]]
    assert instances.dtype == np.int32


def test_two_files_of_one_name_are_an_error(root: Path):
    save(root / "train/images/frame1.jpg", np.zeros((2, 3, 3), np.uint8))
    text = message(lambda: FolderDataset(root))
    assert "frame1.jpg" in text
    assert "frame1.png" in text


def test_jpeg_labels_are_refused_before_reading(root: Path):
    save(root / "train/labels/frame1.jpg", np.zeros((2, 3), np.uint8))
    assert "JPEG" in message(lambda: FolderDataset(root))


def test_hidden_and_foreign_files_are_left_alone(root: Path):
    for place in ("train/images/.DS_Store", "train/images/._frame1.png", "train/labels/notes.txt"):
        (root / place).write_text("x")
    add(root / "train", ".ipynb_checkpoints/frame1")
    assert names(FolderDataset(root)) == ["frame1", "frame2"]


def test_folders_behind_links_are_read_and_circles_end(root: Path, tmp_path_factory: pytest.TempPathFactory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    add(elsewhere, "far")
    for part in ("images", "labels"):
        (root / "train" / part / "more").symlink_to(elsewhere / part)
        (root / "train" / part / "circle").symlink_to(root / "train" / part)
    assert names(FolderDataset(root)) == ["frame1", "frame2", "more/far"]


def test_sizes_that_differ_are_an_error_with_both_paths_and_sizes(root: Path):
    save(root / "train/images/frame1.png", np.zeros((5, 4, 3), np.uint8))
    text = message(lambda: FolderDataset(root).read(0))
    for part in ("images/frame1.png is 4 x 5", "labels/frame1.png is 3 x 2"):
        assert part in text
    assert "EXIF" not in text
    save(root / "train/images/frame1.png", np.zeros((3, 2, 3), np.uint8))
    assert "EXIF" in message(lambda: FolderDataset(root).read(0))


def test_label_outside_the_space_names_file_id_and_pixels(root: Path):
    add(root / "train", "frame2", ids=[[0, 37, 37], [0, 1, 2]])
    text = message(lambda: FolderDataset(root).read(1), LabelError)
    assert "labels/frame2.png: 2 pixels have class 37" in text


def test_without_classes_the_error_says_what_to_write(root: Path):
    (root / "classes.json").unlink()
    text = message(lambda: FolderDataset(root))
    assert "num_classes" in text
    assert '{"names": ' in text


def test_classes_of_the_split_come_before_those_of_the_root(root: Path):
    (root / "val" / "classes.json").write_text(json.dumps({"names": ["x", "y", "z", "w"], "unknown": 255}))
    assert FolderDataset(root, split="val").label_space.names == ("x", "y", "z", "w")
    assert FolderDataset(root, split="train").label_space.num_classes == 3


def test_options_override_and_complete_the_stored_classes(root: Path):
    space = FolderDataset(root, num_classes=5, unknown=254, remap={255: 4}).label_space
    assert space.names == ("sky", "tree", "road", "class 3", "class 4")
    assert space.colors[:3] == tuple(map(tuple, CLASSES["colors"]))
    assert space.encode(np.array([254, 255, 2])).tolist() == [5, 4, 2]
    fewer = FolderDataset(root, num_classes=2, remap={2: 1}).label_space
    assert fewer.names == ("sky", "tree")
    assert fewer.encode(np.array([2, 255])).tolist() == [1, 2]
    given = LabelSpace(names=("a", "b", "c"), unknown=255)
    assert FolderDataset(root, label_space=given).label_space.names == ("a", "b", "c")
    assert "folder" not in message(lambda: FolderDataset(root, unknown=1), LabelError)


def test_colour_coded_labels_are_decoded(root: Path):
    colours = np.array([*CLASSES["colors"], [0, 0, 0]], np.uint8)
    save(root / "train/labels/frame1.png", colours[[[0, 1, 2], [2, 3, 0]]])
    assert FolderDataset(root).read(0).ids.tolist() == [[0, 1, 2], [2, 3, 0]]


def test_labels_only_needs_no_photos(tmp_path: Path):
    save(tmp_path / "labels/a.png", np.zeros((2, 3), np.uint8))
    sample = FolderDataset(tmp_path, split=None, num_classes=1, labels_only=True).read(0)
    assert sample.image is None
    assert sample.ids.shape == (2, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photo_is_turned_upright_by_its_exif_data(tmp_path: Path, orientation: int):
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:4, :8] = 250
    # How a camera stores it, for each orientation: the inverse of what a viewer does.
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.jpg"
    save(path, np.ascontiguousarray(undo[orientation](upright)), exif=exif, quality=100, subsampling=0)
    assert np.abs(read_photo(path).astype(int) - upright).max() < 12


def test_photo_modes_all_become_rgb(tmp_path: Path):
    grey = np.array([[0, 100], [200, 255]], np.uint8)
    expected = np.repeat(grey[..., None], 3, axis=2)
    image = Image.fromarray(grey)
    palette = image.convert("P")
    opaque = Image.merge("LA", (image, Image.new("L", (2, 2), 255)))
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    variants = {"grey": image, "rgb": image.convert("RGB"), "palette": palette, "la": opaque, "wide": wide}
    variants["rgba"] = opaque.convert("RGBA")
    for name, variant in variants.items():
        variant.save(tmp_path / f"{name}.png")
        assert np.array_equal(read_photo(tmp_path / f"{name}.png"), expected), name
    image.convert("1", dither=Image.Dither.NONE).save(tmp_path / "bits.png")
    assert read_photo(tmp_path / "bits.png")[..., 0].tolist() == [[0, 0], [255, 255]]
    image.convert("RGB").convert("CMYK").save(tmp_path / "cmyk.tif")
    assert np.array_equal(read_photo(tmp_path / "cmyk.tif"), expected)


def test_transparent_pixels_of_a_photo_are_laid_over_white(tmp_path: Path):
    pixels = np.zeros((1, 2, 4), np.uint8)
    pixels[0, 1] = (10, 20, 30, 255)
    save(tmp_path / "a.png", pixels)
    assert read_photo(tmp_path / "a.png").tolist() == [[[255, 255, 255], [10, 20, 30]]]


def test_floating_point_photo_says_what_to_do(tmp_path: Path):
    Image.new("F", (2, 2), 0.5).save(tmp_path / "a.tif")
    assert "8-bit RGB" in message(lambda: read_photo(tmp_path / "a.tif"))


def test_create_dataset_names_the_near_option_and_the_missing_one(root: Path):
    assert len(create_dataset("folder", root=root, split="val")) == 1
    assert "Did you mean 'split'?" in message(lambda: create_dataset("folder", root=root, splits="val"), CladeError)
    assert "data.root" in message(lambda: create_dataset("folder"), CladeError)
    assert "Did you mean 'scenes'?" in message(lambda: create_dataset("scene"), CladeError)


def test_scenes_of_different_splits_never_meet():
    splits = [
        ScenesDataset(count=50, val_count=40, split=split, height=16, width=16) for split in ("train", "val", "test")
    ]
    seen = [{dataset.name(k) for k in range(len(dataset))} for dataset in splits]
    assert [len(part) for part in seen] == [50, 40, 40]
    assert len(set().union(*seen)) == 130
    first = [dataset.read(0) for dataset in splits]
    assert not np.array_equal(first[0].ids, first[1].ids)


def test_scenes_too_many_for_their_split_are_refused():
    for options in ({"count": 1_000_001}, {"start": 999_999, "count": 2}, {"count": 0}, {"start": -1}):
        with pytest.raises(DataError, match="do not fit"):
            ScenesDataset(**options)
    assert "Did you mean 'val'?" in message(lambda: ScenesDataset(split="vall"))


def test_scenes_are_the_same_every_time_and_fit_their_space():
    one, two = (create_dataset("scenes", count=6, height=32, width=48, seed=3) for _ in range(2))
    for k in range(6):
        a, b = one.read(k), two.read(k)
        assert a.size == (32, 48)
        assert np.array_equal(a.ids, b.ids)
        assert a.image is not None
        assert np.array_equal(a.image, b.image)
        assert int(a.ids.max()) < one.label_space.num_rows

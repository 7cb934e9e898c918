"""The benchmark datasets in their official layouts, on small files written for the test."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clade.data import create_dataset, find_layout, layouts
from clade.data.datasets.celebamask_hq import PARTS
from clade.errors import CladeError, DataError, LabelError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def save(path: Path, pixels: Any, kind: type = np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(pixels, kind)).save(path)


def photo(path: Path, height: int, width: int, value: int = 100) -> None:
    save(path, np.full((height, width, 3), value))


def names(dataset: Any) -> list[str]:
    return [dataset.name(k) for k in range(len(dataset))]


def message(make: Callable[[], Any], error: type[Exception] = DataError) -> str:
    with pytest.raises(error) as caught:
        make()
    return str(caught.value)


# --- Small datasets ---------------------------------------------------------------------------------------------------


def make_ade20k(root: Path, **labels: Any) -> Path:
    """``labels``: name -> numbers; those with "val" in the name are of that part."""
    for name, numbers in (labels or {"ADE_train_1": [[0, 1, 150]], "ADE_val_1": [[3, 5, 27]]}).items():
        part = "validation" if "val" in name else "training"
        save(root / f"annotations/{part}/{name}.png", numbers)
        photo(root / f"images/{part}/{name}.jpg", *np.array(numbers).shape)
    return root


def make_spade(root: Path) -> Path:
    for split, name in (("train", "000000000009"), ("train", "000000000025"), ("val", "000000000139")):
        save(root / f"{split}_label/{name}.png", [[0, 0, 255], [181, 91, 2]])
        save(root / f"{split}_inst/{name}.png", [[0, 1, 255], [181, 91, 2]])
        photo(root / f"{split}_img/{name}.jpg", 2, 3)
    return root


def make_cityscapes(root: Path) -> Path:
    for split, city, number in (
        ("train", "aachen", "000000_000019"),
        ("train", "ulm", "000001_000019"),
        ("val", "lindau", "000002_000019"),
    ):
        stem = f"{city}/{city}_{number}"
        save(root / f"gtFine/{split}/{stem}_gtFine_labelIds.png", [[0, 7, 26], [33, 26, 23]])
        save(root / f"gtFine/{split}/{stem}_gtFine_instanceIds.png", [[0, 7, 26001], [33000, 26012, 23]], np.uint16)
        save(root / f"gtFine/{split}/{stem}_gtFine_color.png", np.zeros((2, 3, 3)))
        (root / f"gtFine/{split}/{stem}_gtFine_polygons.json").write_text("{}")
        photo(root / f"leftImg8bit/{split}/{stem}_leftImg8bit.png", 2, 3)
    return root


def make_face(root: Path, number: int, parts: dict[str, Any], size: int = 8, colour: bool = False) -> Path:
    for part, mask in parts.items():
        pixels = np.array(mask) * 255
        path = root / f"CelebAMask-HQ-mask-anno/{number // 2000}/{number:05d}_{part}.png"
        save(path, np.repeat(pixels[..., None], 3, axis=2) if colour else pixels)
    photo(root / f"CelebA-HQ-img/{number}.jpg", size, size)
    return root


def make_celebamask(root: Path) -> Path:
    for number in (3, 28000):
        make_face(root, number, {"skin": np.eye(4), "hair": np.eye(4)[::-1]})
    return root


def make_deepfashion(root: Path) -> Path:
    for part in ("train", "test"):
        for kind, mode in (("label", 8), ("inst", 8), ("edgeD", 256)):
            save(root / f"{part}_{kind}/a.png", np.arange(6).reshape(2, 3) % mode)
        photo(root / f"{part}_img/a.jpg", 2, 3)
    return root


def make_camvid(root: Path) -> Path:
    for split in ("train", "val", "test"):
        save(root / f"{split}annot/0001TP_{split}.png", [[0, 10, 11]])
        photo(root / f"{split}/0001TP_{split}.png", 1, 3)
    return root


def make_ccp(root: Path) -> Path:
    scipy_io = pytest.importorskip("scipy.io")
    (root / "annotations/pixel-level").mkdir(parents=True)
    for number in (1, 804, 805, 1004):
        scipy_io.savemat(
            root / f"annotations/pixel-level/{number:04d}.mat",
            {"groundtruth": np.array([[0, 58, number % 50]], np.uint8)},
        )
        photo(root / f"photos/{number:04d}.jpg", 1, 3)
    photo(root / "photos/1005.jpg", 1, 3)
    return root


MADE = {
    "ade20k": make_ade20k,
    "coco-stuff": make_spade,
    "cityscapes": make_cityscapes,
    "celebamask-hq": make_celebamask,
    "deepfashion": make_deepfashion,
    "camvid": make_camvid,
    "ccp": make_ccp,
}
CLASSES = {
    "ade20k": (150, 151),
    "coco-stuff": (182, 183),
    "cityscapes": (35, 35),
    "celebamask-hq": (19, 19),
    "deepfashion": (8, 8),
    "camvid": (11, 12),
    "ccp": (59, 60),
}


@pytest.fixture(params=MADE)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    return request.param, MADE[request.param](tmp_path / "data")


# --- All of them ------------------------------------------------------------------------------------------------------


def test_layout_is_found_by_itself(made: tuple[str, Path]):
    name, root = made
    assert find_layout(root) == name
    others = [other for other, cls in layouts().items() if other not in (name, "folder") and cls.recognizes(root)]
    assert others == []


def test_train_and_val_are_read_with_the_dataset_s_own_classes(made: tuple[str, Path]):
    name, root = made
    for split in ("train", "val"):
        dataset = create_dataset(name, root=root, split=split)
        assert (dataset.label_space.num_classes, dataset.label_space.num_rows) == CLASSES[name]
        assert len(set(dataset.label_space.names)) == CLASSES[name][0]
        for index in range(len(dataset)):
            sample = dataset.read(index)
            assert sample.image is not None
            assert sample.image.shape == (*sample.ids.shape, 3)
            assert np.array_equal(dataset.classes(index), np.unique(sample.ids))


def test_photos_are_not_needed_for_labels_alone(made: tuple[str, Path]):
    name, root = made
    for path in root.rglob("*.jpg"):
        path.unlink()
    sample = create_dataset(name, root=root, split="val", labels_only=True).read(0)
    assert sample.image is None


def test_a_missing_photo_is_named(made: tuple[str, Path]):
    name, root = made
    listing = layouts()[name].list_files(root, "train")
    assert listing.images is not None
    missing = next(iter(listing.images))
    listing.images[missing].unlink()
    said = message(lambda: create_dataset(name, root=root))
    assert missing in said
    assert "no photo" in said


def test_the_right_folder_is_named_for_a_root_a_level_too_high_or_low(made: tuple[str, Path]):
    name, root = made
    below = next(path for path in sorted(root.iterdir()) if path.is_dir())
    for wrong in (root.parent, below):
        assert f"seems to be {root}: set data.root" in message(lambda wrong=wrong: create_dataset(name, root=wrong))


def test_a_root_that_is_not_there_is_named(made: tuple[str, Path], tmp_path: Path):
    said = message(lambda: create_dataset(made[0], root=tmp_path / "nowhere"))
    assert f"{tmp_path / 'nowhere'}: no such folder" in said
    assert layouts()[made[0]].LAYOUT in said


def test_another_split_is_refused_with_those_that_are_there(made: tuple[str, Path]):
    said = message(lambda: create_dataset(made[0], root=made[1], split="vla"))
    assert "Did you mean 'val'?" in said
    assert "train, val" in said


def test_a_broken_label_file_is_named(made: tuple[str, Path]):
    name, root = made
    dataset = create_dataset(name, root=root)
    path = layouts()[name].list_files(root, "train").labels[dataset.name(0)]
    path.write_bytes(b"not a picture")
    assert str(path) in message(lambda: dataset.read(0), CladeError)


def test_a_list_of_names_chooses(made: tuple[str, Path], tmp_path: Path):
    name, root = made
    for split in ("train", "val"):
        first = create_dataset(name, root=root, split=split).name(0)
        (tmp_path / f"{split}.txt").write_text(f"# chosen\n{first}.png\n\n")
        dataset = create_dataset(name, root=root, split=split, list_file=str(tmp_path / "{split}.txt"))
        assert names(dataset) == [first]
    (tmp_path / "val.txt").write_text("nobody\n")
    said = message(lambda: create_dataset(name, root=root, split="val", list_file=str(tmp_path / "{split}.txt")))
    assert f"{tmp_path / 'val.txt'}: 1 of its 1 names" in said


def test_folder_is_the_last_layout_and_takes_what_no_other_knows(tmp_path: Path):
    save(tmp_path / "train/labels/a.png", [[0]])
    photo(tmp_path / "train/images/a.jpg", 1, 1)
    assert list(layouts())[-1] == "folder"
    assert find_layout(tmp_path) == "folder"


# --- ADE20K -----------------------------------------------------------------------------------------------------------


def test_ade20k_shifts_by_one_and_reads_0_as_unknown(tmp_path: Path):
    dataset = create_dataset("ade20k", root=make_ade20k(tmp_path, ADE_train_1=[[0, 1, 2, 150]]))
    assert dataset.read(0).ids.tolist() == [[150, 0, 1, 149]]
    assert dataset.label_space.names[0] == "wall"
    assert dataset.label_space.names[149] == "flag"


def test_ade20k_refuses_numbers_above_150(tmp_path: Path):
    dataset = create_dataset("ade20k", root=make_ade20k(tmp_path, ADE_train_1=[[1, 151, 151]]))
    assert "2 pixels have class 151" in message(lambda: dataset.read(0), LabelError)


OUTDOOR = {
    "ADE_train_1": [[3, 1, 1, 1]],  # sky on a quarter
    "ADE_train_2": [[5, 27, 1, 1]],  # tree and sea on a half
    "ADE_train_3": [[4, 6, 1, 0]],  # floor, ceiling, wall
    "ADE_val_1": [[3, 3, 3, 3]],
}


def test_outdoor_pictures_are_those_with_outdoor_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = make_ade20k(tmp_path, **OUTDOOR)
    assert names(create_dataset("ade20k-outdoor", root=root)) == ["ADE_train_1", "ADE_train_2"]
    assert "kept 2 of 3 pictures of train (the paper has 9649)" in capsys.readouterr().err
    assert names(create_dataset("ade20k-outdoor", root=root, split="val")) == ["ADE_val_1"]
    assert names(create_dataset("ade20k-outdoor", root=root, min_share=0.3)) == ["ADE_train_2"]
    assert names(create_dataset("ade20k-outdoor", root=root, classes=["floor"])) == ["ADE_train_3"]
    assert "Did you mean 'tree'?" in message(lambda: create_dataset("ade20k-outdoor", root=root, classes=["trees"]))
    assert "none of 3" in message(lambda: create_dataset("ade20k-outdoor", root=root, classes=["flag"]))


def test_labels_are_read_once_for_the_outdoor_rule(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    root = make_ade20k(tmp_path, **OUTDOOR)
    create_dataset("ade20k-outdoor", root=root)
    assert len(list(cache.rglob("*.npz"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr("clade.data.files.read_label", lambda *_: pytest.fail("read again"))
        assert len(create_dataset("ade20k-outdoor", root=root, min_share=0.3)) == 1
    save(root / "annotations/training/ADE_train_3.png", [[3, 3, 3, 3, 3]])
    photo(root / "images/training/ADE_train_3.jpg", 1, 5)
    assert len(create_dataset("ade20k-outdoor", root=root)) == 3


def test_a_damaged_cache_is_made_anew(tmp_path: Path, cache: Path):
    root = make_ade20k(tmp_path, **OUTDOOR)
    create_dataset("ade20k-outdoor", root=root)
    next(cache.rglob("*.npz")).write_bytes(b"PK broken")
    assert len(create_dataset("ade20k-outdoor", root=root)) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="needs a path that cannot be a folder")
def test_a_cache_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(create_dataset("ade20k-outdoor", root=make_ade20k(tmp_path / "data", **OUTDOOR))) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_list_replaces_the_outdoor_rule_for_both_splits(tmp_path: Path):
    root = make_ade20k(tmp_path / "data", **OUTDOOR)
    (tmp_path / "list.txt").write_text("ADE_train_3.jpg\nADE_val_1\n")
    for split, name in (("train", "ADE_train_3"), ("val", "ADE_val_1")):
        assert names(create_dataset("ade20k-outdoor", root=root, split=split, list_file=tmp_path / "list.txt")) == [
            name
        ]
    (tmp_path / "list.txt").write_text("ADE_train_3\nADE_train_4\n")
    said = message(lambda: create_dataset("ade20k-outdoor", root=root, list_file=tmp_path / "list.txt"))
    assert "ADE_train_4" in said
    assert "ADE_train_3: " not in said


# --- Cityscapes -------------------------------------------------------------------------------------------------------


def test_cityscapes_reads_ids_and_16_bit_instances(tmp_path: Path):
    dataset = create_dataset("cityscapes", root=make_cityscapes(tmp_path))
    assert names(dataset) == ["aachen/aachen_000000_000019", "ulm/ulm_000001_000019"]
    sample = dataset.read(0)
    assert sample.ids.tolist() == [[0, 7, 26], [33, 26, 23]]
    assert sample.instances is not None
    assert sample.instances.tolist() == [[0, 7, 26001], [33000, 26012, 23]]
    assert [dataset.label_space.names[k] for k in (7, 26, 34)] == ["road", "car", "license plate"]


def test_cityscapes_with_polygons_alone_tells_what_makes_ids(tmp_path: Path):
    root = make_cityscapes(tmp_path)
    for path in root.rglob("*Ids.png"):
        path.unlink()
    said = message(lambda: create_dataset("cityscapes", root=root))
    assert "2 *_gtFine_polygons.json" in said
    assert "gtFine_trainvaltest.zip" in said


def test_instances_can_be_left_out(tmp_path: Path):
    root = make_cityscapes(tmp_path)
    for path in root.rglob("*instanceIds.png"):
        path.unlink()
    assert "set data.options.instances to false" in message(lambda: create_dataset("cityscapes", root=root))
    assert create_dataset("cityscapes", root=root, instances=False).read(0).instances is None


# --- CelebAMask-HQ ----------------------------------------------------------------------------------------------------


def slow_merge(parts: dict[str, np.ndarray], size: int) -> np.ndarray:
    """The loop of the dataset's documentation, pixel by pixel, and the enlargement by division of indices."""
    order = "skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip l_lip hair hat ear_r neck_l neck cloth"
    ids = np.zeros((size, size), int)
    for number, part in enumerate(order.split(), start=1):
        mask = parts.get(part)
        for i in range(size if mask is not None else 0):
            for j in range(size):
                if mask[i * len(mask) // size][j * len(mask) // size]:
                    ids[i, j] = number
    return ids


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("size", [8, 16])
def test_parts_of_a_face_are_merged_in_the_documented_order(tmp_path: Path, size: int, colour: bool):
    rng = np.random.default_rng(0)
    parts = {part: rng.random((8, 8)) < 0.3 for part in PARTS if part not in ("hat", "eye_g")}
    dataset = create_dataset("celebamask-hq", root=make_face(tmp_path, 2001, parts, size, colour))
    assert names(dataset) == ["2001"]
    assert np.array_equal(dataset.read(0).ids, slow_merge(parts, size))
    assert [dataset.label_space.names[k] for k in (0, 13, 18)] == ["background", "hair", "cloth"]


def test_faces_are_split_by_their_number(tmp_path: Path):
    for number in (0, 1999, 27999, 28000, 29999):
        make_face(tmp_path, number, {"skin": np.ones((4, 4))})
    assert names(create_dataset("celebamask-hq", root=tmp_path)) == ["0", "1999", "27999"]
    assert names(create_dataset("celebamask-hq", root=tmp_path, split="val")) == ["28000", "29999"]


def test_mask_folders_of_faces_may_be_links(tmp_path: Path):
    make_face(tmp_path, 5, {"skin": np.ones((4, 4))})
    here, there = tmp_path / "CelebAMask-HQ-mask-anno/0", tmp_path / "other disk"
    here.rename(there)
    here.symlink_to(there)
    assert create_dataset("celebamask-hq", root=tmp_path).read(0).ids.tolist() == np.ones((8, 8)).tolist()


def test_a_part_of_the_faces_without_validation_pictures_says_so(tmp_path: Path):
    make_face(tmp_path, 5, {"skin": np.ones((4, 4))})
    assert "28000 or more" in message(lambda: create_dataset("celebamask-hq", root=tmp_path, split="val"))


def test_one_list_for_both_splits_of_the_faces_is_refused(tmp_path: Path):
    (tmp_path / "list.txt").write_text("3\n")
    root = make_celebamask(tmp_path / "data")
    assert "{split}" in message(lambda: create_dataset("celebamask-hq", root=root, list_file=tmp_path / "list.txt"))


def test_a_face_without_any_part_is_a_problem(tmp_path: Path):
    photo(make_celebamask(tmp_path) / "CelebA-HQ-img/4.jpg", 8, 8)
    said = message(lambda: create_dataset("celebamask-hq", root=tmp_path))
    assert "1 photos" in said
    assert ": 4." in said


def test_a_face_of_another_size_than_its_masks_is_refused(tmp_path: Path):
    dataset = create_dataset("celebamask-hq", root=make_face(tmp_path, 1, {"skin": np.eye(4)}, size=6))
    said = message(lambda: dataset.read(0), LabelError)
    assert "1.jpg is 6 x 6 pixels" in said
    assert "00001_skin.png is 4 x 4" in said


def test_a_mask_file_that_is_no_part_is_named(tmp_path: Path):
    make_face(tmp_path, 1, {"skin": np.eye(4), "beard": np.eye(4)})
    assert "00001_beard.png" in message(lambda: create_dataset("celebamask-hq", root=tmp_path))


# --- DeepFashion, CamVid, CCP -----------------------------------------------------------------------------------------


def test_deepfashion_in_the_folders_of_smis(tmp_path: Path):
    for part in ("train", "test"):
        save(tmp_path / f"cihp_{part}_mask/a.png", [[0, 7]])
        photo(tmp_path / f"{part}/a.jpg", 1, 2)
    assert find_layout(tmp_path) == "deepfashion"
    sample = create_dataset("deepfashion", root=tmp_path, split="val").read(0)
    assert sample.ids.tolist() == [[0, 7]]
    assert sample.instances is None


def test_deepfashion_reads_instances_where_there_are_some(tmp_path: Path):
    sample = create_dataset("deepfashion", root=make_deepfashion(tmp_path), split="val").read(0)
    assert sample.instances is not None
    assert sample.instances.tolist() == sample.ids.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(("name", "void"), [("camvid", 11), ("ccp", 59)])
def test_folder_layout_is_read_with_the_same_classes(tmp_path: Path, name: str, void: int):
    save(tmp_path / "train/labels/a.png", [[0, 10, 255]])
    photo(tmp_path / "train/images/a.jpg", 1, 3)
    dataset = create_dataset(name, root=tmp_path)
    assert dataset.read(0).ids.tolist() == [[0, 10, void]]


def test_camvid_reads_11_as_void(tmp_path: Path):
    root = make_camvid(tmp_path)
    assert create_dataset("camvid", root=root, split="test").read(0).ids.tolist() == [[0, 10, 11]]
    assert create_dataset("camvid", root=root, split="test").label_space.name(11) == "unknown"


def test_ccp_reads_matlab_files_and_splits_by_number(tmp_path: Path):
    root = make_ccp(tmp_path)
    dataset = create_dataset("ccp", root=root)
    assert names(dataset) == ["0001", "0804"]
    assert dataset.read(1).ids.tolist() == [[0, 58, 4]]
    assert names(create_dataset("ccp", root=root, split="val")) == ["0805"]
    assert names(create_dataset("ccp", root=root, split="test")) == ["1004"]


@pytest.mark.parametrize(
    "value", [{"other": np.eye(2)}, {"groundtruth": np.ones((2, 2, 2))}, {"groundtruth": np.full((2, 2), 0.5)}]
)
def test_a_matlab_file_without_a_label_map_is_refused(tmp_path: Path, value: dict[str, Any]):
    scipy_io = pytest.importorskip("scipy.io")
    dataset = create_dataset("ccp", root=make_ccp(tmp_path))
    scipy_io.savemat(tmp_path / "annotations/pixel-level/0001.mat", value)
    said = message(lambda: dataset.read(0), LabelError)
    assert "0001.mat: 'groundtruth'" in said


def test_matlab_files_without_scipy_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dataset = create_dataset("ccp", root=make_ccp(tmp_path))
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    assert "pip install scipy" in message(lambda: dataset.read(0), LabelError)


# --- Real files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "layout"),
    [
        ("camvid", "folder"),
        ("ccp", "folder"),
        ("samples/coco_stuff", "coco-stuff"),
        ("samples/deepfashion", "deepfashion"),
    ],
)
def test_layouts_of_real_data_are_found(folder: str, layout: str):
    if not (DATA / folder).is_dir():
        pytest.skip(f"the data set '{folder}' is not beside this checkout (shared/data)")
    assert find_layout(DATA / folder) == layout


@pytest.mark.parametrize("name", ["camvid", "ccp"])
def test_real_folders_are_the_same_by_name_and_as_folder(name: str):
    if not (DATA / name).is_dir():
        pytest.skip(f"the data set '{name}' is not beside this checkout (shared/data)")
    own, plain = (create_dataset(kind, root=DATA / name, split="val") for kind in (name, "folder"))
    assert own.label_space.names == plain.label_space.names
    assert own.label_space.colors == plain.label_space.colors
    assert names(own) == names(plain)
    assert np.array_equal(own.read(3).ids, plain.read(3).ids)


def test_real_deepfashion_labels_are_read():
    if not (DATA / "samples/deepfashion").is_dir():
        pytest.skip("the samples are not beside this checkout (shared/data)")
    dataset = create_dataset("deepfashion", root=DATA / "samples/deepfashion")
    assert names(dataset) == ["1", "2"]
    for index in range(2):
        sample = dataset.read(index)
        stored = np.asarray(Image.open(DATA / f"samples/deepfashion/label/{index + 1}.png"))
        assert np.array_equal(sample.ids, stored)
        assert set(np.unique(stored)) == set(range(6))
        assert np.array_equal(sample.instances, stored)

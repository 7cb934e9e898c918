"""COCO-Stuff in both of its layouts, and the instance maps made of COCO's annotations."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clade.data import create_dataset, find_layout
from clade.data.datasets.coco_instances import FIRST, InstanceIndex
from clade.errors import DataError

# Of pycocotools with newer numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "samples" / "coco_stuff"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def save(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(pixels, np.uint8)).save(path)


def photo(path: Path, height: int, width: int) -> None:
    save(path, np.zeros((height, width, 3)))


def message(make: Callable[[], Any], error: type[Exception] = DataError) -> str:
    with pytest.raises(error) as caught:
        make()
    return str(caught.value)


def box(left: int, top: int, right: int, bottom: int) -> list[float]:
    """A polygon around whole pixels, as COCO writes it."""
    return [left, top, right, top, right, bottom, left, bottom]


def runs(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths: columns first, beginning with what is outside."""
    flat = mask.T.ravel().tolist()
    lengths, value = [0], 0
    for pixel in flat:
        if pixel != value:
            lengths.append(0)
            value = pixel
        lengths[-1] += 1
    return lengths


HEIGHT, WIDTH = 12, 16
NAME = "000000000139"


def labels() -> np.ndarray:
    """Sky (156) above grass (123); three persons (0), a car (2) over one of them, a crowd (0) and unknown (255)."""
    ids = np.full((HEIGHT, WIDTH), 156, np.uint8)
    ids[8:] = 123
    ids[2:10, 1:4] = 0
    ids[2:10, 4:7] = 0
    ids[1:5, 9:12] = 0
    ids[6:9, 5:9] = 2
    ids[10:, 12:] = 0
    ids[0, 0] = 255
    return ids


def annotations() -> dict[str, Any]:
    third = np.zeros((HEIGHT, WIDTH), np.uint8)
    third[1:3, 9:12] = 1
    crowd = np.zeros((HEIGHT, WIDTH), np.uint8)
    crowd[10:, 12:] = 1
    objects = [
        {"category_id": 3, "segmentation": [box(5, 6, 9, 9)], "iscrowd": 0},  # the car first: the next one covers it
        {"category_id": 1, "segmentation": [box(1, 2, 4, 10)], "iscrowd": 0},
        {"category_id": 1, "segmentation": [box(4, 2, 7, 10)], "iscrowd": 0},
        {"category_id": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs(third)}, "iscrowd": 0},
        {"category_id": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs(crowd)}, "iscrowd": 1},
    ]
    return {
        "images": [
            {"id": 285, "height": 4, "width": 4},
            {"id": 139, "height": HEIGHT, "width": WIDTH},
        ],
        "annotations": [{"id": k, "image_id": 139, **one} for k, one in enumerate(objects)],
    }


def expected() -> np.ndarray:
    """Pixel by pixel: an object's number where its rectangle and its class agree, else the label."""
    rectangles = [(2, 5, 6, 9, 9), (0, 1, 2, 4, 10), (0, 4, 2, 7, 10), (0, 9, 1, 12, 3)]
    ids = labels()
    numbers = ids.astype(int)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            for k, (label, left, top, right, bottom) in enumerate(rectangles):
                if left <= x < right and top <= y < bottom and ids[y, x] == label:
                    numbers[y, x] = FIRST + k
    return numbers


def make_official(root: Path, maps: str = "stuffthingmaps", photos: str = "images/val2017") -> Path:
    save(root / maps / f"val2017/{NAME}.png", labels())
    photo(root / photos / f"{NAME}.jpg", HEIGHT, WIDTH)
    (root / "annotations").mkdir()
    (root / "annotations/instances_val2017.json").write_text(json.dumps(annotations()))
    return root


def val(root: Path, **options: Any) -> Any:
    return create_dataset("coco-stuff", root=root, split="val", **options)


# --- The published layout ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("photos", ["val2017", "images/val2017"])
@pytest.mark.parametrize("maps", ["stuffthingmaps", "stuffthingmaps_trainval2017"])
def test_published_layout_gives_labels_and_instances(tmp_path: Path, maps: str, photos: str):
    root = make_official(tmp_path, maps, photos)
    assert find_layout(root) == "coco-stuff"
    sample = val(root).read(0)
    assert sample.name == NAME
    assert sample.ids.tolist() == np.where(labels() == 255, 182, labels()).tolist()
    assert sample.instances is not None
    assert sample.instances.dtype == np.int32
    assert np.array_equal(sample.instances, expected())


def test_instances_are_the_same_without_photos(tmp_path: Path):
    sample = val(make_official(tmp_path), labels_only=True).read(0)
    assert sample.image is None
    assert np.array_equal(sample.instances, expected())


def test_no_two_objects_and_no_stuff_share_a_number(tmp_path: Path):
    instances = val(make_official(tmp_path)).read(0).instances
    assert {k for k in np.unique(instances) if k >= FIRST} == {FIRST, FIRST + 1, FIRST + 2, FIRST + 3}
    assert {k for k in np.unique(instances) if k < FIRST} == {0, 123, 156, 255}  # 0: the crowd, and what no mask covers


def test_index_is_built_once_and_the_same_from_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    root = make_official(tmp_path)
    first = val(root).read(0)
    assert "reading 0 MiB of annotations" in capsys.readouterr().err
    assert len(list(cache.rglob("coco-instances-*.npz"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr("clade.data.datasets.coco_instances._build", lambda _: pytest.fail("built again"))
        again = val(root)
    assert np.array_equal(again.read(0).instances, first.instances)
    assert np.array_equal(pickle.loads(pickle.dumps(again)).read(0).instances, first.instances)
    assert capsys.readouterr().err == ""


def test_masks_of_the_index_are_those_of_pycocotools(tmp_path: Path):
    from pycocotools import mask

    rng = np.random.default_rng(0)
    shapes: list[Any] = [[rng.uniform(0, 12, 10).tolist() for _ in range(2)] for _ in range(20)]
    plain = rng.random((HEIGHT, WIDTH)) < 0.5
    packed = mask.encode(np.asfortranarray(plain.astype(np.uint8)))
    shapes.append({"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode("ascii")})
    objects = [{"image_id": 7, "category_id": 1, "segmentation": shape} for shape in shapes]
    content = {"images": [{"id": 7, "height": HEIGHT, "width": WIDTH}], "annotations": objects}
    (tmp_path / "a.json").write_text(json.dumps(content))
    index = InstanceIndex.read(tmp_path / "a.json")
    everywhere = np.zeros((HEIGHT, WIDTH), np.uint8)
    slow = np.zeros((HEIGHT, WIDTH), int)
    for k, shape in enumerate(shapes):
        if isinstance(shape, dict):
            inside = plain
        else:
            inside = np.zeros((HEIGHT, WIDTH), bool)
            for polygon in shape:
                inside |= mask.decode(mask.frPyObjects([polygon], HEIGHT, WIDTH)[0]).astype(bool)
        slow[inside] = FIRST + k
    assert np.array_equal(index.paint(7, everywhere), slow)


def test_a_picture_without_objects_keeps_its_labels(tmp_path: Path):
    root = make_official(tmp_path)
    save(root / "stuffthingmaps/val2017/000000000285.png", np.full((4, 4), 123))
    photo(root / "images/val2017/000000000285.jpg", 4, 4)
    dataset = val(root)
    assert dataset.name(1) == "000000000285"
    assert np.unique(dataset.read(1).instances).tolist() == [123]


def test_missing_annotations_say_where_they_are_and_how_to_do_without(tmp_path: Path):
    root = make_official(tmp_path)
    (root / "annotations/instances_val2017.json").unlink()
    said = message(lambda: val(root))
    assert "instances_val2017.json: no such file" in said
    assert "annotations_trainval2017.zip" in said
    assert "data.options.instances to false" in said
    assert val(root, instances=False).read(0).instances is None


@pytest.mark.parametrize("text", ["{", "[]", '{"images": []}', '{"images": [], "annotations": [{"image_id": 1}]}'])
def test_a_file_that_holds_no_instances_is_refused(tmp_path: Path, text: str):
    root = make_official(tmp_path)
    (root / "annotations/instances_val2017.json").write_text(text)
    assert "instances_val2017.json: is no file of COCO's instance" in message(lambda: val(root))


def test_labels_of_no_annotated_picture_are_named(tmp_path: Path):
    root = make_official(tmp_path)
    for name in ("000000000999", "holiday"):
        save(root / f"stuffthingmaps/val2017/{name}.png", labels())
        photo(root / f"images/val2017/{name}.jpg", HEIGHT, WIDTH)
    assert "2 label maps" in message(lambda: val(root))
    assert len(val(root, instances=False)) == 3


def test_a_map_of_another_size_than_its_annotations_is_refused(tmp_path: Path):
    root = make_official(tmp_path)
    save(root / f"stuffthingmaps/val2017/{NAME}.png", labels()[:-1])
    photo(root / f"images/val2017/{NAME}.jpg", HEIGHT - 1, WIDTH)
    said = message(lambda: val(root).read(0))
    assert "instances_val2017.json is 16 x 12 pixels" in said


# --- The folders of the SPADE code ------------------------------------------------------------------------------------


def make_spade(root: Path) -> Path:
    for kind, names in (("train", ("2", "10")), ("val", ("1",))):
        for name in names:
            save(root / f"{kind}_label/{name}.png", [[0, 181, 255]])
            save(root / f"{kind}_inst/{name}.png", [[7, 181, 255]])
            photo(root / f"{kind}_img/{name}.jpg", 1, 3)
    for part in ("label", "inst"):
        save(root / f"train_{part}_portrait/5.png", [[0, 0]])
    photo(root / "train_img_portrait/5.jpg", 1, 2)
    return root


def test_portraits_join_the_training_pictures(tmp_path: Path):
    root = make_spade(tmp_path)
    dataset = create_dataset("coco-stuff", root=root)
    assert [dataset.name(k) for k in range(len(dataset))] == ["2", "5", "10"]
    assert dataset.read(1).ids.tolist() == [[0, 0]]
    assert len(create_dataset("coco-stuff", root=root, portraits=False)) == 2
    assert len(val(root)) == 1


def test_a_portrait_with_the_name_of_another_picture_is_refused(tmp_path: Path):
    root = make_spade(tmp_path)
    for folder, suffix in (("label", "png"), ("inst", "png"), ("img", "jpg")):
        portrait = root / f"train_{folder}_portrait"
        (portrait / f"5.{suffix}").rename(portrait / f"2.{suffix}")
    said = message(lambda: create_dataset("coco-stuff", root=root))
    assert f"{root}/train_label/2.png and {root}/train_label_portrait/2.png" in said
    assert len(create_dataset("coco-stuff", root=root, portraits=False)) == 2


def test_instance_files_of_spade_are_read_as_they_are(tmp_path: Path):
    sample = val(make_spade(tmp_path)).read(0)
    assert sample.ids.tolist() == [[0, 181, 182]]
    assert sample.instances is not None
    assert sample.instances.tolist() == [[7, 181, 255]]


@pytest.mark.parametrize(("split", "count"), [("train", 13), ("val", 5)])
def test_real_samples_are_read_exactly(split: str, count: int):
    if not DATA.is_dir():
        pytest.skip("the samples are not beside this checkout (shared/data)")
    dataset = create_dataset("coco-stuff", root=DATA, split=split)
    assert len(dataset) == count
    assert list(dataset.label_space.names) == json.loads((DATA / "classes.json").read_text())["names"]
    for index in range(count):
        sample = dataset.read(index)
        assert sample.image is not None
        stored = np.asarray(Image.open(DATA / f"{split}_label/{sample.name}.png"))
        assert np.array_equal(np.where(sample.ids == 182, 255, sample.ids), stored)
        assert np.array_equal(sample.instances, np.asarray(Image.open(DATA / f"{split}_inst/{sample.name}.png")))

"""Every format of `clade data convert`, on files written here, against maps drawn pixel by pixel."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from clade.data import FolderDataset
from clade.data.convert import convert, formats
from clade.errors import CladeError, DataError, LabelError
from clade.labels import LabelSpace

SKY, TREE, ROAD = (0, 0, 255), (0, 255, 0), (90, 90, 90)
CLASSES = {"names": ["sky", "tree", "road"], "colors": [SKY, TREE, ROAD]}
IDS = np.array([[0, 0, 1, 2], [1, 1, 2, 2], [0, 2, 2, 1]], np.uint8)


def save(path: Path, pixels: Any, palette: list[int] | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels))
    if palette is not None:
        image = Image.fromarray(np.asarray(pixels), "P") if image.mode != "P" else image
        image.putpalette(palette)
    image.save(path, **options)
    return path


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def photo(path: Path, height: int = 3, width: int = 4) -> Path:
    dice = np.random.default_rng(height * width)
    return save(path, dice.integers(0, 256, (height, width, 3), dtype=np.uint8))


def colored(ids: np.ndarray) -> np.ndarray:
    return np.array([SKY, TREE, ROAD], np.uint8)[ids]


def run(source: Path, tmp_path: Path, format: str, **options: Any) -> Path:
    out = tmp_path / "out"
    report = convert(source, out, format, progress=False, workers=2, **options)
    assert report.clean
    return out


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def space(out: Path) -> LabelSpace:
    return LabelSpace.from_json(out / "classes.json")


def message(error: type[Exception], *args: Any, **options: Any) -> str:
    with pytest.raises(error) as caught:
        convert(*args, progress=False, **options)
    return str(caught.value)


# --- Colours, indices, 0/255 ------------------------------------------------------------------------------------------

PALETTES = {
    "classes.json": json.dumps(CLASSES),
    "colors.json": json.dumps({"sky": SKY, "tree": TREE, "road": ROAD}),
    "colors.yaml": "sky: [0, 0, 255]\ntree: [0, 255, 0]\nroad: [90, 90, 90]\n",
    "label_colors.txt": "0 0 255\t\tsky\n0 255 0 tree\n90 90 90 road\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nsky:0,0,255::\ntree:0,255,0::\nroad:90,90,90::\n",
}


@pytest.mark.parametrize("name", PALETTES)
def test_rgb_by_every_kind_of_palette(name: str, tmp_path: Path) -> None:
    save(tmp_path / "masks/a.png", colored(IDS))
    rgba = np.dstack([colored(IDS[::-1]), np.full(IDS.shape, 255, np.uint8)])
    save(tmp_path / "masks/deep/b.png", rgba)
    for inside in ("a", "deep/b"):
        photo(tmp_path / f"photos/{inside}.png")
    out = run(
        tmp_path / "masks", tmp_path, "rgb", images=tmp_path / "photos", palette=write(tmp_path / name, PALETTES[name])
    )
    assert np.array_equal(pixels(out / "labels/a.png"), IDS)
    assert np.array_equal(pixels(out / "labels/deep/b.png"), IDS[::-1])
    assert space(out).names == ("sky", "tree", "road")
    assert space(out).colors == (SKY, TREE, ROAD)
    assert (out / "images/deep/b.png").read_bytes() == (tmp_path / "photos/deep/b.png").read_bytes()
    assert len(FolderDataset(out)) == 2


def test_rgb_finds_colours_by_itself_and_refuses_smooth_ones(tmp_path: Path) -> None:
    save(tmp_path / "masks/a.png", colored(IDS))
    save(tmp_path / "masks/b.png", np.zeros((2, 2, 3), np.uint8))
    out = run(tmp_path / "masks", tmp_path, "rgb", palette="auto")
    assert space(out).names == ("#000000", "#0000ff", "#00ff00", "#5a5a5a")  # in the order of their numbers
    assert np.array_equal(pixels(out / "labels/a.png"), IDS + 1)
    ramp = np.stack(np.meshgrid(np.arange(20), np.arange(20), [0]), -1)[:, :, 0].astype(np.uint8)
    save(tmp_path / "smooth/a.png", ramp)
    said = message(LabelError, tmp_path / "smooth", tmp_path / "out2", "rgb", palette="auto")
    assert "400 colours" in said
    assert "resized smoothly" in said
    assert not (tmp_path / "out2").exists()


def test_found_colours_are_told_and_black_can_be_unknown(tmp_path: Path) -> None:
    ids = np.array([[0, 1], [2, 2]])
    save(tmp_path / "masks/a.png", np.array([(0, 0, 0), SKY, TREE], np.uint8)[ids])
    found = convert(tmp_path / "masks", tmp_path / "auto", "rgb", palette="auto", progress=False)
    names, black = found.notes
    assert "(0, 0, 0) is class 0, (0, 0, 255) is class 1" in names
    assert "rename the classes in classes.json" in names
    assert "'0 0 0 unknown'" in black
    for k, palette in enumerate(
        ("0 0 255 sky\n0 0 0 unknown\n0 255 0 tree\n", {"sky": SKY, "unknown": [0, 0, 0], "tree": TREE})
    ):
        table = write(tmp_path / "table.txt", palette) if isinstance(palette, str) else palette
        out = run(tmp_path / "masks", tmp_path / str(k), "rgb", palette=table)
        assert (space(out).names, space(out).unknown, space(out).unknown_color) == (("sky", "tree"), 255, (0, 0, 0))
        assert np.array_equal(pixels(out / "labels/a.png"), np.array([255, 0, 1])[ids])


def test_colours_found_in_a_second_part_say_which_palette_to_give(tmp_path: Path) -> None:
    save(tmp_path / "one/a.png", colored(IDS))
    save(tmp_path / "two/b.png", colored(IDS % 2))
    out = tmp_path / "out"
    convert(tmp_path / "one", out, "rgb", palette="auto", split="train", progress=False)
    said = message(DataError, tmp_path / "two", out, "rgb", palette="auto", split="val")
    assert f"--palette {out / 'classes.json'}" in said
    convert(tmp_path / "two", out, "rgb", palette=out / "classes.json", split="val", progress=False)
    assert np.array_equal(pixels(out / "val/labels/b.png"), IDS % 2)


def test_jpeg_masks_need_a_tolerance(tmp_path: Path) -> None:
    ids = np.kron(IDS, np.ones((13, 11), np.uint8))
    save(tmp_path / "masks/a.jpg", colored(ids), quality=95, subsampling=0)
    options = {"palette": {"sky": SKY, "tree": TREE, "road": ROAD}}
    assert "--tolerance N" in message(DataError, tmp_path / "masks", tmp_path / "out", "rgb", **options)
    said = message(LabelError, tmp_path / "masks", tmp_path / "out", "rgb", **options, tolerance=1)
    assert "further than 1" in said
    out = run(tmp_path / "masks", tmp_path / "right", "rgb", **options, tolerance=60)
    assert np.array_equal(pixels(out / "labels/a.png"), ids)


def test_a_colour_of_no_class_and_transparency_are_named(tmp_path: Path) -> None:
    path = save(tmp_path / "masks/a.png", colored(IDS) + np.uint8(1))
    said = message(LabelError, tmp_path / "masks", tmp_path / "out", "rgb", palette=CLASSES)
    assert str(path) in said
    save(path, np.zeros((2, 2, 4), np.uint8))
    assert "opaque" in message(LabelError, tmp_path / "masks", tmp_path / "out3", "rgb", palette=CLASSES)


def test_palette_files_keep_indices_and_colours(tmp_path: Path) -> None:
    flat = [*SKY, *TREE, *ROAD, *[7] * (252 * 3), 1, 2, 3]
    ids = IDS.copy()
    ids[0, 0] = 255
    save(tmp_path / "masks/a.png", ids, palette=flat)
    out = run(tmp_path / "masks", tmp_path, "palette", split="val")
    assert np.array_equal(pixels(out / "val/labels/a.png"), ids)
    assert space(out).colors == (SKY, TREE, ROAD)
    assert space(out).unknown == 255
    assert space(out).unknown_color == (1, 2, 3)
    save(tmp_path / "other/a.png", IDS, palette=flat)
    save(tmp_path / "other/b.png", IDS, palette=[*TREE, *SKY, *ROAD])
    said = message(LabelError, tmp_path / "other", tmp_path / "out4", "palette")
    assert str(tmp_path / "other/b.png") in said
    assert "differently" in said


def test_a_broken_first_palette_file_is_skipped_when_asked(tmp_path: Path) -> None:
    save(tmp_path / "masks/b.png", IDS, palette=[*SKY, *TREE, *ROAD])
    broken = write(tmp_path / "masks/a.png", "no picture")
    assert str(broken) in message(LabelError, tmp_path / "masks", tmp_path / "no", "palette")
    report = convert(tmp_path / "masks", tmp_path / "out", "palette", on_error="skip")
    assert [str(broken) in line for line in report.skipped] == [True]
    assert space(tmp_path / "out").colors == (SKY, TREE, ROAD)


def test_masks_are_two_classes(tmp_path: Path) -> None:
    mask = (IDS == 2).astype(np.uint8)
    save(tmp_path / "both/a_mask.png", mask * 255)
    save(tmp_path / "both/b_mask.png", mask)
    for name in "ab":
        photo(tmp_path / f"both/{name}.png")
    out = run(
        tmp_path / "both",
        tmp_path,
        "masks",
        images=tmp_path / "both",
        pattern="{name}_mask.png",
        classes=["other", "car"],
    )
    for name in "ab":
        assert np.array_equal(pixels(out / f"labels/{name}.png"), mask)
    assert space(out).names == ("other", "car")
    save(tmp_path / "soft/a.png", np.array([[0, 100, 255]], np.uint8))
    assert "has also 100" in message(LabelError, tmp_path / "soft", tmp_path / "out5", "masks")
    out = run(tmp_path / "soft", tmp_path / "cut", "masks", tolerance=127)
    assert pixels(out / "labels/a.png").tolist() == [[0, 0, 1]]


def test_parts_are_painted_in_their_order(tmp_path: Path) -> None:
    skin, eye, hair = (np.zeros((3, 4), np.uint8) for _ in range(3))
    skin[:2], eye[0, :2], hair[:, 0] = 255, 255, 255
    for name, part, mask in (("0", "skin", skin), ("0", "l_eye", eye), ("0", "hair", hair), ("1", "l_eye", eye)):
        save(tmp_path / f"parts/{int(name) // 1}/{name}_{part}.png", mask)
    out = run(tmp_path / "parts", tmp_path, "parts", parts="eye,skin,l_eye,hair")
    expected = np.zeros((3, 4), np.uint8)
    for i in range(3):
        for j in range(4):
            for k, mask in ((2, skin), (3, eye), (4, hair)):
                if mask[i, j]:
                    expected[i, j] = k
    assert np.array_equal(pixels(out / "labels/0.png"), expected)
    assert np.array_equal(pixels(out / "labels/1.png"), np.where(eye > 0, 3, 0))
    assert space(out).names == ("background", "eye", "skin", "l_eye", "hair")
    assert "1_l_eye" in message(DataError, tmp_path / "parts", tmp_path / "no", "parts", parts=["skin", "hair"])


# --- COCO -------------------------------------------------------------------------------------------------------------


def runs(mask: np.ndarray) -> list[int]:
    """COCO's plain run lengths: column by column, zeros first."""
    counts, value, length = [], 0, 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(length)
            value, length = pixel, 0
        length += 1
    return [*counts, length]


@pytest.fixture
def coco_json(tmp_path: Path) -> Path:
    from pycocotools import mask as tools

    big, box, crowd = (np.zeros((12, 16), np.uint8) for _ in range(3))
    big[1:11, 2:9], box[4:6, 3:6], crowd[:, 8:] = 1, 1, 1
    packed = tools.encode(np.asfortranarray(big))
    annotations = [
        {"id": 1, "image_id": 7, "category_id": 3, "segmentation": {"size": [12, 16], "counts": runs(box)}},
        {
            "id": 2,
            "image_id": 7,
            "category_id": 1,
            "segmentation": {"size": [12, 16], "counts": packed["counts"].decode()},
        },
        {
            "id": 3,
            "image_id": 7,
            "category_id": 3,
            "iscrowd": 1,
            "segmentation": {"size": [12, 16], "counts": runs(crowd)},
        },
        {
            "id": 4,
            "image_id": 7,
            "category_id": 90,
            "segmentation": [[9.3, 1.2, 14.7, 2.1, 12.2, 9.8], [0, 11, 3, 11, 0, 8]],
        },
    ]
    content = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 16, "height": 12},
            {"id": 8, "file_name": "empty.png", "width": 5, "height": 4},
        ],
        "categories": [{"id": 90, "name": "kite"}, {"id": 1, "name": "cat"}, {"id": 3, "name": "car"}],
        "annotations": [{"iscrowd": 0, "bbox": [0, 0, 1, 1], "area": 1, **entry} for entry in annotations],
    }
    photo(tmp_path / "photos/a.png", 12, 16)
    photo(tmp_path / "photos/empty.png", 4, 5)
    return write(tmp_path / "instances.json", content)


def test_coco_is_what_pycocotools_draws(coco_json: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strange = photo(tmp_path / "photos/strange.png")
    out = run(coco_json, tmp_path, "coco", images=tmp_path / "photos", split="val")
    assert convert(coco_json, out, "coco", images=tmp_path / "photos", split="val").unused == [str(strange)]
    tool = COCO(str(coco_json))
    drawn = {number: tool.annToMask(annotation).astype(bool) for number, annotation in tool.anns.items()}
    ids, instances = np.full((12, 16), 255), np.zeros((12, 16), int)
    order = [3, *sorted((1, 2, 4), key=lambda number: -drawn[number].sum())]
    for number in order:
        for i, j in zip(*np.nonzero(drawn[number]), strict=True):
            ids[i, j] = {1: 1, 2: 0, 3: 1, 4: 2}[number]  # cat, car, kite: by their category ids
            instances[i, j] = 0 if number == 3 else number
    assert np.array_equal(pixels(out / "val/labels/a.png"), ids)
    assert np.array_equal(pixels(out / "val/instances/a.png"), instances)
    assert (pixels(out / "val/labels/empty.png") == 255).all()
    assert space(out).names == ("cat", "car", "kite")
    assert [sample.instances is not None for sample in map(FolderDataset(out, "val").read, (0, 1))] == [True, True]


def test_coco_takes_label_maps_from_a_folder(coco_json: Path, tmp_path: Path) -> None:
    for name, size in (("a", (12, 16)), ("empty", (4, 5))):
        save(tmp_path / f"stuff/{name}.png", np.full(size, 156, np.uint8))
    out = run(tmp_path / "stuff", tmp_path, "coco", annotations=coco_json)
    assert (pixels(out / "labels/a.png") == 156).all()
    assert set(np.unique(pixels(out / "instances/a.png"))) == {0, 1, 2, 4}
    assert (space(out).num_classes, space(out).unknown) == (182, 255)


BROKEN_SEGMENTS = {
    "no segmentation": [],
    "at least 3 points": [[1, 2, 3, 4]],
    "far outside": [[1, 2, 3, 4, 1e9, 5]],
    "add up": {"size": [12, 16], "counts": [5, 5]},
    "the picture's is": {"size": [12, 15], "counts": [12 * 15]},
    "do not add up": {"size": [12, 16], "counts": "04"},
    "damaged": {"size": [12, 16], "counts": "o"},
}


@pytest.mark.parametrize("words", BROKEN_SEGMENTS)
def test_broken_segmentations_are_named(words: str, coco_json: Path, tmp_path: Path) -> None:
    content = json.loads(coco_json.read_text())
    content["annotations"][1]["segmentation"] = BROKEN_SEGMENTS[words]
    write(coco_json, content)
    said = message(DataError, coco_json, tmp_path / "out", "coco")
    assert words in said
    assert "annotation 2" in said
    assert "a.png" in said


def test_panoptic(tmp_path: Path) -> None:
    numbers = np.zeros((4, 6), int)
    numbers[0], numbers[1, :3], numbers[1, 3:], numbers[2] = 300, 70000, 70001, 5
    rgb = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], -1).astype(np.uint8)
    save(tmp_path / "panoptic/x.png", rgb)
    photo(tmp_path / "photos/x.png", 4, 6)
    segments = [
        {"id": 70000, "category_id": 18, "iscrowd": 0},
        {"id": 300, "category_id": 200, "iscrowd": 0},
        {"id": 70001, "category_id": 18, "iscrowd": 0},
        {"id": 5, "category_id": 18, "iscrowd": 1},
    ]
    content = {
        "images": [{"id": 1, "file_name": "x.png", "width": 6, "height": 4}],
        "categories": [
            {"id": 200, "name": "sky", "isthing": 0, "color": [1, 2, 3]},
            {"id": 18, "name": "dog", "isthing": 1, "color": [4, 5, 6]},
        ],
        "annotations": [{"image_id": 1, "file_name": "x.png", "segments_info": segments}],
    }
    write(tmp_path / "panoptic.json", content)
    out = run(tmp_path / "panoptic", tmp_path, "panoptic", images=tmp_path / "photos")
    assert pixels(out / "labels/x.png").tolist() == [[1] * 6, [0] * 6, [0] * 6, [255] * 6]
    assert pixels(out / "instances/x.png").tolist() == [[0] * 6, [1] * 3 + [3] * 3, [0] * 6, [0] * 6]
    assert space(out).colors == ((4, 5, 6), (1, 2, 3))
    del segments[0]
    write(tmp_path / "panoptic.json", content)
    assert "70000" in message(DataError, tmp_path / "panoptic", tmp_path / "no", "panoptic")


# --- Polygons ---------------------------------------------------------------------------------------------------------


def labelme_json(**changes: Any) -> dict[str, Any]:
    inside = io.BytesIO()
    Image.fromarray(np.array([[255, 0], [0, 255]], np.uint8)).save(inside, "PNG")
    shapes = [
        {"label": "sky", "points": [[0, 0], [9, 0], [9, 4], [0, 4]], "shape_type": "polygon", "group_id": None},
        {"label": "car", "points": [[8, 7], [6, 5]], "shape_type": "rectangle", "group_id": 1},
        {"label": "car", "points": [[1, 6], [2, 7]], "shape_type": "rectangle", "group_id": 1},
        {"label": "sun", "points": [[5, 2], [5, 4]], "shape_type": "circle", "group_id": None},
        {"label": "__ignore__", "points": [[0, 0], [0, 0], [0, 0]], "group_id": None},
        {
            "label": "car",
            "points": [[3, 5], [4, 6]],
            "shape_type": "mask",
            "mask": base64.b64encode(inside.getvalue()).decode(),
        },
    ]
    content = {"shapes": shapes, "imagePath": "..\\photos\\a.png", "imageWidth": 10, "imageHeight": 8}
    return {**content, **changes}


def test_labelme(tmp_path: Path) -> None:
    write(tmp_path / "shapes/a.json", labelme_json())
    photo(tmp_path / "photos/a.png", 8, 10)
    out = run(tmp_path / "shapes", tmp_path, "labelme")
    ids, instances = np.zeros((8, 10), int), np.zeros((8, 10), int)
    for y in range(8):
        for x in range(10):
            if y <= 4:
                ids[y, x], instances[y, x] = 2, 1
            if (6 <= x <= 8 and 5 <= y <= 7) or (1 <= x <= 2 and 6 <= y <= 7):
                ids[y, x], instances[y, x] = 1, 2
            if (x - 5) ** 2 + (y - 2) ** 2 <= 5:
                ids[y, x], instances[y, x] = 3, 3
    ids[0, 0], instances[0, 0] = 255, 4
    for y, x in ((5, 3), (6, 4)):
        ids[y, x], instances[y, x] = 1, 5
    assert np.array_equal(pixels(out / "labels/a.png"), ids)
    assert np.array_equal(pixels(out / "instances/a.png"), instances)
    assert space(out).names == ("_background_", "car", "sky", "sun")
    assert (out / "images/a.png").read_bytes() == (tmp_path / "photos/a.png").read_bytes()


def test_labelme_leaves_out_a_file_whose_photo_is_not_known(tmp_path: Path) -> None:
    write(tmp_path / "shapes/a.json", labelme_json())
    shapes = [{**labelme_json()["shapes"][0], "label": "nowhere else"}]
    broken = write(tmp_path / "shapes/b.json", labelme_json(shapes=shapes, imagePath=None))
    photo(tmp_path / "photos/a.png", 8, 10)
    assert str(broken) in message(DataError, tmp_path / "shapes", tmp_path / "no", "labelme")
    report = convert(tmp_path / "shapes", tmp_path / "out", "labelme", on_error="skip")
    assert [str(broken) in line for line in report.skipped] == [True]
    assert [path.name for path in (tmp_path / "out/labels").iterdir()] == ["a.png"]


def test_labelme_takes_classes_and_refuses_lines(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.txt", "__ignore__\n_background_\nsun\nsky\ncar\n")
    path = write(tmp_path / "shapes/a.json", labelme_json())
    photo(tmp_path / "photos/a.png", 8, 10)
    out = run(tmp_path / "shapes", tmp_path, "labelme", classes=labels)
    assert space(out).names == ("_background_", "sun", "sky", "car")
    assert pixels(out / "labels/a.png")[7, 8] == 3
    said = message(LabelError, tmp_path / "shapes", tmp_path / "no", "labelme", classes=["sun", "sky"])
    assert "car" in said
    line = {"label": "car", "points": [[0, 0], [5, 5]], "shape_type": "line"}
    write(path, labelme_json(shapes=[line]))
    said = message(DataError, tmp_path / "shapes", tmp_path / "no", "labelme")
    assert str(path) in said
    assert "has no area" in said


def test_yolo(tmp_path: Path) -> None:
    write(tmp_path / "set/data.yaml", "path: .\ntrain: ../train/images\nval: images/val\nnames: {0: cat, 1: dog}\n")
    photo(tmp_path / "set/train/images/a.png", 8, 10)
    photo(tmp_path / "set/images/val/b.png", 4, 4)
    photo(tmp_path / "set/images/val/none.png", 4, 4)
    small, large = "1 .2 .25 .4 .25 .4 .5 .2 .5", "0 0 0 .7 0 .7 .75 0 .75"
    write(tmp_path / "set/train/labels/a.txt", f"{small}\n{large}\n")
    path = write(tmp_path / "set/labels/val/b.txt", "0 0 0 1 0 1 1 0 1\n")
    out = run(tmp_path / "set", tmp_path, "yolo")
    lost = write(tmp_path / "lost/data.yaml", "path: ../datasets/x\ntrain: images\nnames: [cat]\n")
    said = message(DataError, tmp_path / "lost", tmp_path / "no", "yolo")
    assert f"{lost} says 'train: images', below its 'path: ../datasets/x'" in said
    ids, instances = np.full((8, 10), 255), np.zeros((8, 10), int)
    for y in range(8):
        for x in range(10):
            if x <= 7 and y <= 6:
                ids[y, x], instances[y, x] = 0, 2
            if 2 <= x <= 4 and 2 <= y <= 4:  # the smaller one is on top
                ids[y, x], instances[y, x] = 1, 1
    assert np.array_equal(pixels(out / "train/labels/a.png"), ids)
    assert np.array_equal(pixels(out / "train/instances/a.png"), instances)
    assert (pixels(out / "val/labels/b.png") == 0).all()
    assert (pixels(out / "val/labels/none.png") == 255).all()
    assert space(out).names == ("cat", "dog")
    for line, words in (("0 .5 .5 .1 .1", "a box"), ("0 5 5 6 6 5 9", "0..1"), ("7 0 0 1 0 1 1", "class 7")):
        write(path, line)
        said = message(DataError, tmp_path / "set", tmp_path / "no" / words[-1], "yolo", split="val")
        assert f"{path}: line 1" in said
        assert words in said


# --- Layouts of datasets ----------------------------------------------------------------------------------------------


def test_voc(tmp_path: Path) -> None:
    root = tmp_path / "VOC2012"
    labels = np.array([[0, 0, 255], [15, 15, 20]], np.uint8)
    objects = np.array([[0, 0, 255], [1, 2, 3]], np.uint8)
    for name in ("a", "b", "unlisted"):
        save(root / f"SegmentationClass/{name}.png", labels, palette=list(range(256)) * 3)
        save(root / f"SegmentationObject/{name}.png", objects, palette=list(range(256)) * 3)
        photo(root / f"JPEGImages/{name}.png", 2, 3)
    for name, listed in (("train", "a"), ("val", "b"), ("trainval", "a\nb")):
        write(root / f"ImageSets/Segmentation/{name}.txt", f"{listed}\n")
    out = run(root, tmp_path, "voc")
    for inside in ("train/{}/a.png", "val/{}/b.png"):
        assert np.array_equal(pixels(out / inside.format("labels")), labels)
        assert pixels(out / inside.format("instances")).tolist() == [[0, 0, 0], [1, 2, 3]]
    assert sorted(path.name for path in out.glob("*/labels/*")) == ["a.png", "b.png"]
    assert (space(out).names[15], space(out).colors[15]) == ("person", (192, 128, 128))  # as on VOC's own page
    assert space(out).colors[20] == (0, 64, 128)


def test_voc_as_cvat_exports_it(tmp_path: Path) -> None:
    root = tmp_path / "cvat"
    save(root / "SegmentationClass/a.png", colored(IDS))
    save(root / "SegmentationObject/a.png", colored(IDS))
    photo(root / "JPEGImages/a.png")
    write(root / "labelmap.txt", PALETTES["labelmap.txt"])
    out = run(root, tmp_path, "voc")
    assert np.array_equal(pixels(out / "labels/a.png"), IDS)
    assert space(out).unknown == 255
    stored = pixels(out / "instances/a.png")
    assert all(len(np.unique(stored[k == IDS])) == 1 for k in range(3))
    assert len(np.unique(stored)) == 3


def test_our_own_layout_and_that_of_a_dataset(tmp_path: Path) -> None:
    root = tmp_path / "own"
    for split in ("train", "val"):
        save(root / split / "labels/a.png", IDS)
        save(root / split / "instances/a.png", IDS.astype(np.uint16) * 20000)
        photo(root / split / "images/a.png")
    write(root / "classes.json", CLASSES)
    out = run(root, tmp_path, "folder")
    assert sorted(path.relative_to(out) for path in out.rglob("*.png")) == sorted(
        path.relative_to(root) for path in root.rglob("*.png")
    )
    assert np.array_equal(pixels(out / "val/instances/a.png"), IDS.astype(int) * 20000)
    assert "folder" in formats()
    assert "scenes" not in formats()
    assert "Did you mean 'yolo'" in message(CladeError, root, tmp_path / "no", "yollo")

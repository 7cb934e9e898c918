"""The built-in scenes: reproducible, consistently labelled, and with structure inside their objects."""

import numpy as np
import pytest

from clade.data.scenes import COLORS, NAMES, UNKNOWN, UNKNOWN_COLOR, Scene, draw_scene
from clade.errors import CladeError

THINGS = ("tree", "building", "window", "car", "person")
SKY, CLOUD, MOUNTAIN, TREE, GRASS, WATER, ROAD, PAVEMENT, BUILDING, WINDOW, CAR, PERSON = range(12)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(index) for index in range(60)]


def brightness(scene: Scene) -> np.ndarray:
    return scene.image.astype(float).mean(axis=2)


def objects_of(scenes: list[Scene], kind: int, smallest: int):
    """(scene, mask) of every object of a class with at least so many pixels."""
    for scene in scenes:
        numbers, counts = np.unique(scene.instances[scene.ids == kind], return_counts=True)
        for number in numbers[counts >= smallest]:
            yield scene, (scene.ids == kind) & (scene.instances == number)


def share_of_height(mask: np.ndarray) -> np.ndarray:
    """0 on the top row of an object, 1 on its bottom row."""
    rows = np.flatnonzero(mask.any(axis=1))
    return np.broadcast_to((np.arange(mask.shape[0])[:, None] - rows[0]) / max(np.ptp(rows), 1), mask.shape)


def share_of_width(mask: np.ndarray) -> np.ndarray:
    """0 on the left column of an object, 1 on its right column."""
    return share_of_height(mask.T).T


def equal(first: Scene, second: Scene) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("image", "ids", "instances"))


def test_the_same_seed_and_index_draw_the_same_scene(scenes):
    assert equal(draw_scene(7), scenes[7])
    assert equal(draw_scene(np.int64(7), seed=np.int32(0)), scenes[7])


def test_another_index_or_seed_draws_another_scene(scenes):
    labels = [scene.ids.tobytes() for scene in scenes] + [draw_scene(0, seed=seed).ids.tobytes() for seed in (1, 2)]
    assert len(set(labels)) == len(labels)


def test_class_table_names_twelve_classes_in_distinct_colors():
    assert NAMES[SKY] == "sky"
    assert NAMES[PERSON] == "person"
    assert len(NAMES) == 12
    assert len({*COLORS, UNKNOWN_COLOR}) == 13


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 90), (64, 64), (512, 256), (300, 640)])
def test_any_size_is_filled_with_valid_labels(height, width):
    for index in range(4):
        scene = draw_scene(index, height=height, width=width)
        assert scene.image.shape == (height, width, 3)
        assert scene.ids.shape == scene.instances.shape == (height, width)
        assert (scene.image.dtype, scene.ids.dtype, scene.instances.dtype) == (np.uint8, np.uint8, np.int32)
        assert set(np.unique(scene.ids)) <= {*range(12), UNKNOWN}
        assert scene.image.flags.c_contiguous


def test_a_large_scene_has_the_classes_of_the_small_one(scenes):
    large = draw_scene(2, height=1024, width=2048)
    assert set(np.unique(scenes[2].ids)) <= set(np.unique(large.ids))


def test_every_class_and_both_kinds_of_scene_occur(scenes):
    seen = [set(np.unique(scene.ids)) for scene in scenes]
    assert set().union(*seen) == {*range(12), UNKNOWN}
    streets = sum({PAVEMENT, ROAD, BUILDING, WINDOW} <= kinds for kinds in seen)
    landscapes = sum(GRASS in kinds and PAVEMENT not in kinds for kinds in seen)
    assert streets + landscapes == 60
    assert min(streets, landscapes) >= 20


def test_unlabelled_pixels_are_few_and_absent_from_some_scenes(scenes):
    shares = [np.mean(scene.ids == UNKNOWN) for scene in scenes]
    assert max(shares) <= 0.05
    assert 0.001 < np.mean(shares) < 0.03
    assert min(shares) == 0


@pytest.mark.parametrize("index", range(12))
def test_layout_is_the_same_at_every_size(scenes, index):
    double = draw_scene(index, height=256, width=256)
    assert np.mean(double.ids[1::2, 1::2] == scenes[index].ids) > 0.9
    wide = draw_scene(index, height=128, width=256)
    assert np.mean(wide.ids[:, 1::2] == scenes[index].ids) > 0.9


def test_things_carry_instance_numbers_and_stuff_carries_none(scenes):
    thing_ids = [NAMES.index(name) for name in THINGS]
    for scene in scenes:
        assert np.array_equal(scene.instances > 0, np.isin(scene.ids, thing_ids))


def test_an_instance_number_belongs_to_one_class_only(scenes):
    for scene in scenes:
        pairs = np.unique(np.stack([scene.instances.ravel(), scene.ids.ravel()]), axis=1)
        numbers = pairs[0][pairs[0] > 0]
        assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("kind", [CAR, PERSON, TREE, BUILDING, WINDOW])
def test_two_objects_of_a_class_have_different_numbers(scenes, kind):
    most = max(len(np.unique(scene.instances[scene.ids == kind])) for scene in scenes)
    assert most >= 2


def test_sky_is_deeper_blue_at_the_top_than_at_the_horizon(scenes):
    for scene in scenes:
        rows = np.flatnonzero((scene.ids == SKY).sum(axis=1) > 8)
        top, bottom = (scene.image[row][scene.ids[row] == SKY].astype(float).mean(axis=0) for row in rows[[0, -1]])
        assert top.mean() < bottom.mean() - 20
        assert top[2] - top[0] > bottom[2] - bottom[0] + 20


@pytest.mark.parametrize(
    ("kind", "smallest", "upper_is_brighter"),
    [
        (CLOUD, 60, True),
        (TREE, 200, True),
        (BUILDING, 500, True),
        (CAR, 120, True),
        (GRASS, 2000, False),
    ],
)
def test_brightness_depends_on_height_inside_the_object(scenes, kind, smallest, upper_is_brighter):
    gaps = []
    for scene, mask in objects_of(scenes, kind, smallest):
        height, light = share_of_height(mask), brightness(scene)
        gaps.append(light[mask & (height < 0.3)].mean() - light[mask & (height > 0.8)].mean())
    assert len(gaps) >= 10
    assert np.mean(np.sign(gaps)) * (1 if upper_is_brighter else -1) > 0.5


def test_snow_lies_on_high_ground(scenes):
    seen = 0
    for scene in scenes:
        snow = (scene.ids == MOUNTAIN) & (brightness(scene) > 225)
        if snow.sum() > 20:
            seen += 1
            rows = np.arange(128)[:, None]
            assert np.mean(rows + 0 * snow, where=snow) < np.mean(rows + 0 * snow, where=scene.ids == MOUNTAIN) - 2
    assert seen >= 5


def test_tree_is_lit_from_the_left(scenes):
    gaps = []
    for scene, mask in objects_of(scenes, TREE, 200):
        across, light = share_of_width(mask), brightness(scene)
        gaps.append(light[mask & (across < 0.3)].mean() - light[mask & (across > 0.7)].mean())
    assert np.mean(np.array(gaps) > 0) > 0.8


def test_water_darkens_towards_the_viewer(scenes):
    gaps = []
    for scene, mask in objects_of(scenes, WATER, 500):
        height, light = share_of_height(mask), brightness(scene)
        gaps.append(light[mask & (height < 0.2)].mean() - light[mask & (height > 0.7)].mean())
    assert len(gaps) >= 5
    assert np.mean(gaps) > 5


def test_road_has_bright_marks_on_dark_asphalt(scenes):
    for scene in scenes:
        if PAVEMENT in scene.ids:
            road = brightness(scene)[scene.ids == ROAD]
            assert 0.01 < np.mean(road > 180) < 0.2
            assert np.median(road) < 120


def test_car_has_dark_wheels_at_its_bottom_corners_and_a_dark_windscreen_above():
    darker = []
    for scene, mask in objects_of([draw_scene(index, height=256, width=256) for index in range(30)], CAR, 1000):
        height, across, light = share_of_height(mask), share_of_width(mask), brightness(scene)
        wheels = mask & (height > 0.9) & ((across < 0.2) | (across > 0.8))
        screen = mask & (height > 0.15) & (height < 0.35) & (np.abs(across - 0.5) < 0.15)
        bonnet = mask & (height > 0.5) & (height < 0.62) & (np.abs(across - 0.5) < 0.15)
        if all(part.any() for part in (wheels, screen, bonnet)):
            assert np.median(light[wheels]) < 90
            darker.append(np.median(light[screen]) < np.median(light[bonnet]))
    assert len(darker) >= 5
    assert np.mean(darker) > 0.6


def test_person_wears_dark_trousers_below_a_brighter_torso():
    gaps = []
    for scene, mask in objects_of([draw_scene(index, height=256, width=256) for index in range(30)], PERSON, 400):
        height, light = share_of_height(mask), brightness(scene)
        gaps.append(light[mask & (height > 0.25) & (height < 0.45)].mean() - light[mask & (height > 0.6)].mean())
    assert len(gaps) >= 10
    assert np.mean(np.array(gaps) > 20) > 0.8


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 15},
        {"width": 0},
        {"height": -128},
        {"width": 64.0},
        {"height": "128"},
        {"index": -1},
        {"seed": -3},
    ],
)
def test_a_wrong_argument_is_named_in_the_error(wrong):
    (name,) = wrong
    with pytest.raises(CladeError, match=rf"{name} .*whole number"):
        draw_scene(**{"index": 0, **wrong})

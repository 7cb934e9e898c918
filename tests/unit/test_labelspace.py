"""The label space: numbers and colours of files -> ids, and what it says about those that do not belong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clade import LabelError, LabelSpace
from clade.labels.labelspace import distinct_colors

THREE = ("sky", "tree", "road")


def encode_slowly(space, raw):
    """The docstring, pixel by pixel; None where the number does not belong."""
    out = []
    for value in raw.ravel().tolist():
        value = space.remap.get(value, value)
        if value == space.unknown:
            out.append(space.num_classes)
        elif 0 <= value < space.num_classes:
            out.append(value)
        else:
            return None
    return np.array(out).reshape(raw.shape)


spaces = st.builds(
    lambda count, unknown, remap: LabelSpace(
        names=tuple(f"c{k}" for k in range(count)),
        unknown=None if unknown is None else count + unknown,
        remap={
            source: target % count if target < 40 or unknown is None else count + unknown for source, target in remap
        },
    ),
    st.integers(1, 12),
    st.none() | st.integers(0, 300),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 50)), max_size=4),
)


@settings(max_examples=80, deadline=None)
@given(spaces, st.lists(st.integers(0, 400), min_size=1, max_size=30))
def test_encoding_is_remap_then_unknown_then_the_class_itself(space, numbers):
    raw = np.array(numbers, np.uint16)
    expected = encode_slowly(space, raw)
    if expected is None:
        with pytest.raises(LabelError, match="but the label space has"):
            space.encode(raw)
    else:
        np.testing.assert_array_equal(space.encode(raw), expected)


@settings(max_examples=40, deadline=None)
@given(spaces, st.lists(st.integers(-3, 70000), min_size=1, max_size=30))
def test_unmapped_counts_exactly_the_pixels_that_encoding_refuses(space, numbers):
    raw = np.array(numbers)
    refused = [n for n in numbers if encode_slowly(space, np.array([n])) is None]
    assert space.unmapped(raw) == {n: refused.count(n) for n in refused}


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64])
def test_every_integer_type_encodes_alike(kind):
    space = LabelSpace(names=THREE, unknown=9)
    ids = space.encode(np.array([[0, 1], [2, 9]], kind))
    assert ids.dtype == np.uint8
    assert ids.tolist() == [[0, 1], [2, 3]]


def test_ids_take_one_byte_up_to_256_and_four_above():
    assert LabelSpace.numbered(256).encode(np.array([255])).dtype == np.uint8
    assert LabelSpace.numbered(255, unknown=1000).encode(np.array([1000])).tolist() == [255]
    wide = LabelSpace.numbered(256, unknown=1000).encode(np.array([1000, 255]))
    assert wide.dtype == np.int32
    assert wide.tolist() == [256, 255]


def test_an_id_outside_names_file_number_count_and_cure():
    raw = np.zeros((20, 20), np.uint8)
    raw[3, :7] = 37
    raw[9, :2] = 200
    with pytest.raises(LabelError) as caught:
        LabelSpace.numbered(35).encode(raw, source="labels/0017.png")
    message = str(caught.value)
    for fact in (
        "labels/0017.png",
        "7 pixels have class 37",
        "2 pixels have class 200",
        "35 classes (0..34)",
        "no unknown class",
        "data.num_classes",
        "map 37 in data.remap",
        "clade data check",
    ):
        assert fact in message
    assert message.index("class 37") < message.index("class 200")  # the most frequent first


def test_many_ids_outside_are_summed_up():
    with pytest.raises(LabelError, match="and 45 more ids"):
        LabelSpace.numbered(3).encode(np.arange(53))


@pytest.mark.parametrize("number", [-1, 65536, 2**40])
def test_numbers_beyond_16_bits_and_negative_ones_are_refused(number):
    with pytest.raises(LabelError, match=f"1 pixels have class {number},"):
        LabelSpace.numbered(3).encode(np.array([0, number]))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((0, 4), np.uint8), "empty"),
        (np.zeros((2, 2), np.float32), "whole numbers, got float32"),
        (np.zeros((2, 2), bool), "whole numbers, got bool"),
    ],
)
def test_maps_that_are_no_ids_are_refused(raw, message):
    with pytest.raises(LabelError, match=f"some.png.*{message}"):
        LabelSpace.numbered(3).encode(raw, source="some.png")


def test_unknown_is_the_last_row_and_counts_as_one():
    space = LabelSpace(names=THREE, unknown=255)
    assert (space.num_classes, space.num_rows, space.unknown_class) == (3, 4, True)
    assert space.name(3) == "unknown"
    assert LabelSpace(names=THREE).num_rows == 3


def test_remap_reaches_the_unknown_class():
    space = LabelSpace(names=THREE, unknown=255, remap={7: 255, 8: 1})
    assert space.encode(np.array([7, 8, 255])).tolist() == [3, 1, 3]


def test_remap_is_one_step_and_not_followed_further():
    assert LabelSpace(names=THREE, remap={0: 1, 1: 2, 2: 0}).encode(np.array([0, 1, 2])).tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"names": ()}, "at least one class"),
        ({"names": tuple(map(str, range(65536)))}, "at most 65535"),
        ({"names": THREE, "colors": ((0, 0, 0),)}, "1 colours came for 3 names"),
        ({"names": ("a",), "colors": ((0, 0, 256),)}, r"0\.\.255"),
        ({"names": ("a",), "colors": ((0, 0),)}, "three whole numbers"),
        ({"names": ("a",), "colors": (7,)}, "three whole numbers"),
        ({"names": ("a",), "colors": ((0.5, 0, 0),)}, "three whole numbers"),
        ({"names": ("a",), "unknown_color": (0, -1, 0)}, r"0\.\.255"),
        ({"names": THREE, "unknown": 2}, "also the class 'road'"),
        ({"names": THREE, "unknown": 2.5}, "whole numbers"),
        ({"names": THREE, "remap": {9: 3}}, "remap leads to 3"),
        ({"names": THREE, "remap": {9: -1}}, "remap leads to -1"),
        ({"names": THREE, "remap": {"x": 1}}, "whole numbers"),
    ],
)
def test_a_space_that_cannot_be_is_refused(fields, message):
    with pytest.raises(LabelError, match=message):
        LabelSpace(**fields)


def test_a_space_needs_a_positive_number_of_classes():
    with pytest.raises(LabelError, match="num_classes is 0"):
        LabelSpace.numbered(0)


def test_made_up_colours_differ():
    colors = distinct_colors(183)
    assert len(set(colors)) == 183
    assert colors[:20] == distinct_colors(20)


@pytest.mark.parametrize(
    "value",
    [
        {"names": ["sky", "tree", "road"], "unknown": 255},
        {"names": {"0": "sky", "2": "road", "1": "tree"}, "ignore": 255},
        {"names": {0: "sky", 1: "tree", 2: "road"}, "unknown": "255", "licence": "CC0", "colors": None},
        {"names": ["sky", "tree", "road"], "unknown": 255.0, "remap": None},
    ],
)
def test_classes_json_in_its_variants(tmp_path, value):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    space = LabelSpace.from_json(path)
    assert space.names == THREE
    assert space.unknown == 255
    assert len(set(space.colors)) == 3


def test_remap_keys_are_strings_in_json():
    space = LabelSpace.from_dict({"names": list(THREE), "remap": {"11": 0, "12": 2}})
    assert space.encode(np.array([11, 12])).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as JSON"),
        ("[1, 2]", "at least the key 'names'"),
        ("{}", "at least the key 'names'"),
        ('{"names": "sky"}', "needed is a list"),
        ('{"names": 3}', "needed is a list"),
        ('{"names": {"1": "sky", "3": "tree"}}', "gaps"),
        ('{"names": {"a": "sky"}}', "classes.json"),
        ('{"names": ["a"], "colors": [[1, 2]]}', "three whole numbers"),
        ('{"names": ["a"], "colors": 5}', "classes.json"),
        ('{"names": ["a"], "unknown": [1]}', "whole numbers"),
        ('{"names": ["a"], "remap": [1]}', "whole numbers"),
        ('{"names": ["a"], "unknown": 1e400}', "classes.json"),
    ],
)
def test_a_damaged_classes_json_is_named(tmp_path, text, message):
    path = tmp_path / "classes.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LabelError, match=message) as caught:
        LabelSpace.from_json(path)
    assert str(path) in str(caught.value)


def test_a_missing_classes_json_is_named(tmp_path):
    with pytest.raises(LabelError, match=r"nowhere\.json"):
        LabelSpace.from_json(tmp_path / "nowhere.json")


@settings(max_examples=40, deadline=None)
@given(spaces)
def test_a_space_survives_json(space):
    again = LabelSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    assert again == space


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.booleans(), st.integers(0, 2**32 - 1))
def test_decoding_undoes_colouring(count, unknown, seed):
    space = LabelSpace.numbered(count, unknown=255 if unknown else None)
    ids = np.random.default_rng(seed).integers(0, space.num_rows, (5, 7))
    pixels = space.colorize(ids)
    assert pixels.shape == (5, 7, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(space.decode_colors(pixels), ids)


def test_colours_that_belong_to_no_class_are_counted():
    space = LabelSpace(names=("a", "b"), colors=((10, 20, 30), (200, 100, 0)))
    pixels = space.colorize(np.zeros((4, 4), int))
    pixels[0, :3] = (11, 20, 30)
    pixels[1, 0] = (255, 255, 255)
    with pytest.raises(LabelError, match=r"x\.png: 4 pixels in 2 colours .*\(11, 20, 30\): 3, \(255, 255, 255\): 1"):
        space.decode_colors(pixels, source="x.png")


def test_two_classes_of_one_colour_cannot_be_decoded():
    space = LabelSpace(names=("a", "b"), colors=((1, 2, 3), (1, 2, 3)))
    with pytest.raises(LabelError, match="share one colour"):
        space.decode_colors(np.zeros((2, 2, 3), np.uint8))


def test_the_unknown_colour_is_no_class_where_nothing_is_unknown():
    space = LabelSpace(names=("a",), colors=((9, 9, 9),), unknown_color=(1, 1, 1))
    with pytest.raises(LabelError, match="belong to no class"):
        space.decode_colors(np.full((1, 1, 3), 1, np.uint8))

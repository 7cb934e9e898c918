from __future__ import annotations

import importlib
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clade.labels.positions import positions, positions_of

# The package may export the function under the same name.
module = importlib.import_module("clade.labels.positions")

SIDES = st.integers(1, 12)
MAPS = st.tuples(SIDES, SIDES, st.integers(1, 4)).flatmap(
    lambda size: hnp.arrays(np.uint8, size[:2], elements=st.integers(0, size[2] - 1))
)
DTYPES = [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64]
IDS = st.integers(-(2**63), 2**63 - 1)

quick = settings(max_examples=80, deadline=None)


def flood_filled(ids: np.ndarray, skip_class: int | None = None) -> np.ndarray:
    """Equations 12-14 word by word: find each object by walking over its pixels, then divide its offsets."""
    height, width = ids.shape
    offsets = np.zeros((2, height, width))
    left = {(i, j) for i in range(height) for j in range(width) if ids[i, j] != skip_class}
    while left:
        found = [left.pop()]
        for i, j in found:  # grows while we walk over it
            for near in [(i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)]:
                if near in left and ids[near] == ids[i, j]:
                    left.remove(near)
                    found.append(near)
        for axis in range(2):
            coordinates = [pixel[axis] for pixel in found]
            centre = sum(coordinates) / len(found)
            largest = max(abs(c - centre) for c in coordinates) + 1e-5
            for pixel in found:
                offsets[axis][pixel] = (pixel[axis] - centre) / largest
    return offsets


@pytest.mark.parametrize("max_run_share", [0.0, module._MAX_RUN_SHARE, 1.0])
@quick
@given(MAPS, st.sampled_from([None, 0, 1]))
def test_positions_equal_a_flood_fill(max_run_share, ids, skip_class):
    with mock.patch.multiple(module, _MAX_RUN_SHARE=max_run_share, _PIXELS_AT_A_TIME=20):
        actual = positions_of(ids, skip_class)
    np.testing.assert_allclose(actual, flood_filled(ids, skip_class), atol=1e-6)


@quick
@given(MAPS)
def test_values_lie_in_minus_one_to_one(ids):
    assert np.abs(positions_of(ids)).max() <= 1


@quick
@given(MAPS)
def test_mirroring_mirrors_and_negates_horizontal_positions(ids):
    y, x = positions_of(ids)
    mirrored_y, mirrored_x = positions_of(ids[:, ::-1])
    np.testing.assert_allclose(mirrored_y, y[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(mirrored_x, -x[:, ::-1], atol=1e-6)


@quick
@given(MAPS)
def test_flipping_flips_and_negates_vertical_positions(ids):
    y, x = positions_of(ids)
    flipped_y, flipped_x = positions_of(ids[::-1])
    np.testing.assert_allclose(flipped_y, -y[::-1], atol=1e-6)
    np.testing.assert_allclose(flipped_x, x[::-1], atol=1e-6)


@quick
@given(MAPS)
def test_transposing_swaps_the_channels(ids):
    y, x = positions_of(ids)
    np.testing.assert_allclose(positions_of(ids.T), np.stack([x.T, y.T]), atol=1e-6)


@quick
@given(MAPS, st.lists(IDS, min_size=4, max_size=4, unique=True))
@example(np.array([[2, 0]], np.uint8), [-1, 0, 2**63 - 2, 1])
@example(np.array([[2, 0], [0, 0]], np.uint8), [-1, 0, 2**63 - 2, 1])
def test_the_numbering_of_the_classes_does_not_matter(ids, numbers):
    renumbered = np.array(numbers)[ids]
    np.testing.assert_array_equal(positions_of(renumbered), positions_of(ids))
    np.testing.assert_array_equal(positions_of(renumbered, numbers[0]), positions_of(ids, 0))


@quick
@given(MAPS, st.tuples(*[st.integers(0, 5)] * 4))
def test_an_object_keeps_its_positions_where_it_moves(ids, margins):
    top, bottom, left, right = margins
    surrounded = np.pad(ids, ((top, bottom), (left, right)), constant_values=9)
    height, width = ids.shape
    inside = positions_of(surrounded)[:, top : top + height, left : left + width]
    np.testing.assert_allclose(inside, positions_of(ids), atol=1e-6)


@quick
@given(MAPS, st.sampled_from(DTYPES), st.sampled_from([None, 1]))
def test_every_integer_type_gives_the_same(ids, dtype, skip_class):
    expected = positions_of(ids, skip_class)
    typed = ids.astype(dtype)
    np.testing.assert_array_equal(positions_of(typed, skip_class), expected)
    np.testing.assert_array_equal(positions_of(typed.astype(typed.dtype.newbyteorder()), skip_class), expected)
    np.testing.assert_array_equal(positions(torch.from_numpy(typed), skip_class)[0], expected)


@quick
@given(MAPS)
def test_the_layout_in_memory_does_not_matter(ids):
    expected = positions_of(ids)
    height, width = ids.shape
    np.testing.assert_array_equal(positions_of(np.asfortranarray(ids)), expected)
    sparse = np.full((2 * height, 3 * width), 77, np.uint8)
    sparse[::2, ::3] = ids
    np.testing.assert_array_equal(positions_of(sparse[::2, ::3]), expected)
    np.testing.assert_array_equal(positions(torch.from_numpy(ids.T.copy()).T)[0], expected)
    assert positions_of(np.asfortranarray(ids)).flags.c_contiguous


@quick
@given(st.integers(1, 3).flatmap(lambda n: hnp.arrays(np.uint8, (n, 5, 7), elements=st.integers(0, 2))))
def test_a_batch_equals_its_maps(ids):
    expected = np.stack([positions_of(one) for one in ids])
    np.testing.assert_array_equal(positions(ids), expected)
    np.testing.assert_array_equal(positions(torch.from_numpy(ids)), expected)


@quick
@given(MAPS, st.integers(0, 3))
def test_the_skipped_class_is_zero_and_the_others_stay(ids, skip_class):
    expected = np.where(ids == skip_class, 0, positions_of(ids))
    np.testing.assert_array_equal(positions_of(ids, skip_class), expected)

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from clade.errors import LabelError
from clade.labels.positions import positions, positions_of

# The package may export the function under the same name.
module = importlib.import_module("clade.labels.positions")


@pytest.fixture(params=["runs", "pixels"], autouse=True)
def both_ways(request, monkeypatch):
    """Every test passes whichever way the map is handled."""
    monkeypatch.setattr(module, "_MAX_RUN_SHARE", {"runs": 1.0, "pixels": 0.0}[request.param])


def unit(*offsets: float) -> list[float]:
    """Offsets over their largest magnitude, as equation 14 has it."""
    return [offset / (max(map(abs, offsets)) + 1e-5) for offset in offsets]


def test_a_row_runs_from_minus_one_to_one():
    y, x = positions_of(np.zeros((1, 5), np.uint8))
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_allclose(x[0], unit(-2, -1, 0, 1, 2), atol=1e-6)


def test_the_centre_is_the_mean_of_the_pixels_not_of_the_box():
    ids = np.array([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]])  # 1 is an L: rows 0 0 0 0 1, columns 0 1 2 3 0
    y, x = positions_of(ids)
    np.testing.assert_allclose([*y[0], y[1, 0]], unit(-0.2, -0.2, -0.2, -0.2, 0.8), atol=1e-6)
    np.testing.assert_allclose([*x[0], x[1, 0]], unit(-1.2, -0.2, 0.8, 1.8, -1.2), atol=1e-6)


def test_objects_of_one_class_have_a_centre_each():
    x = positions_of(np.array([[7, 7, 7, 1, 7, 7]]))[1, 0]
    np.testing.assert_allclose(x, [*unit(-1, 0, 1), 0, *unit(-0.5, 0.5)], atol=1e-6)


def test_pixels_that_touch_at_a_corner_are_one_object():
    y, x = positions_of(np.array([[1, 2, 3], [4, 1, 5], [6, 7, 1]]))
    np.testing.assert_allclose(np.diagonal(y), unit(-1, 0, 1), atol=1e-6)
    np.testing.assert_allclose(np.diagonal(x), unit(-1, 0, 1), atol=1e-6)
    assert np.count_nonzero(y) == np.count_nonzero(x) == 2  # the others are single pixels


def test_one_pixel_has_no_offset():
    assert positions(torch.tensor([[5]])).tolist() == [[[[0.0]], [[0.0]]]]


def test_the_skipped_class_is_zero_and_the_others_stay():
    ids = np.random.default_rng(0).integers(-1, 3, (9, 11))
    for skipped in (-1, 0, 2):
        expected = np.where(ids == skipped, 0, positions_of(ids))
        assert expected.any()
        np.testing.assert_array_equal(positions_of(ids, skip_class=skipped), expected)


def test_skipping_a_class_that_the_map_cannot_hold_changes_nothing():
    ids = np.random.default_rng(0).integers(0, 3, (9, 11), np.uint8)
    for skipped in (-1, 3, 300):
        np.testing.assert_array_equal(positions_of(ids, skip_class=skipped), positions_of(ids))


def test_a_batch_is_its_maps():
    ids = torch.randint(0, 3, (3, 8, 6), generator=torch.Generator().manual_seed(0))
    offsets = positions(ids, skip_class=1)
    assert (offsets.shape, offsets.dtype) == ((3, 2, 8, 6), torch.float32)
    for one, expected in zip(ids, offsets, strict=True):
        assert torch.equal(positions(one, skip_class=1), expected[None])
        np.testing.assert_array_equal(positions_of(one.numpy(), skip_class=1), expected)


def test_small_objects_far_from_the_corner_keep_their_precision():
    small = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]])  # thirds, which float32 rounds
    large = np.zeros((3000, 4000), np.uint8)
    large[2990:2993, 3990:3993] = small
    np.testing.assert_allclose(
        positions_of(large)[:, 2990:2993, 3990:3993][:, small == 1], positions_of(small)[:, small == 1], atol=1e-6
    )


@pytest.mark.parametrize(
    "values",
    [
        (0, 255),
        (-128, 127),
        (2**32, 2**33),  # equal in their low 32 bits
        (1, 1 + 2**32, 1 + 2**40),
        (-(2**63), 2**63 - 1),  # the whole range of the type
        (-(2**63), -1, 0, 2**63 - 1),
        (-1, 0),
    ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_class_values_do_not_matter(values, skip):
    plain = np.random.default_rng(1).integers(0, len(values), (12, 10))
    ids = np.array(values)[plain]
    for k, value in enumerate(values):
        np.testing.assert_array_equal(
            positions_of(ids, skip_class=value if skip else None), positions_of(plain, skip_class=k if skip else None)
        )


def test_the_highest_unsigned_values():
    plain = np.random.default_rng(1).integers(0, 3, (12, 10))
    ids = np.array([0, 2**63, 2**64 - 1], np.uint64)[plain]
    np.testing.assert_array_equal(positions_of(ids), positions_of(plain))
    np.testing.assert_array_equal(positions_of(ids, 2**64 - 1), positions_of(plain, 2))


def test_more_objects_than_sixteen_bits_can_count():
    ids = np.arange(300 * 301).reshape(300, 301)  # every pixel an object of its own ...
    ids[-1, -3:] = 0  # ... but the last three
    y, x = positions_of(ids)
    assert not y.any()
    np.testing.assert_allclose(x[-1, -3:], unit(-1, 0, 1), atol=1e-6)
    assert np.count_nonzero(x) == 2


def test_the_map_is_left_as_it_was():
    ids = np.random.default_rng(0).integers(0, 4, (6, 7), np.uint8)
    before = ids.copy()
    ids.flags.writeable = False
    positions_of(ids, skip_class=1)
    positions(ids, skip_class=1)
    np.testing.assert_array_equal(ids, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_positions_return_to_the_device_of_the_map():
    ids = torch.randint(0, 3, (2, 8, 6))
    offsets = positions(ids.cuda())
    assert offsets.is_cuda
    assert torch.equal(offsets.cpu(), positions(ids))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bool])
def test_classes_that_are_not_integers_are_refused(dtype):
    with pytest.raises(LabelError, match=rf"{str(dtype).removeprefix('torch.')} .*integers.*\.long\(\)"):
        positions(torch.zeros(4, 4, dtype=dtype))


def test_a_float_array_is_refused():
    with pytest.raises(LabelError, match="float64"):
        positions_of(np.zeros((4, 4)))


@pytest.mark.parametrize("shape", [(), (4,), (1, 1, 4, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(LabelError, match=r"\(H, W\) or \(N, H, W\) is needed"):
        positions(torch.zeros(shape, dtype=torch.long))


def test_one_map_is_not_a_batch():
    with pytest.raises(LabelError, match=r"\(1, 4, 4\).*\(H, W\) is needed"):
        positions_of(np.zeros((1, 4, 4), np.uint8))


@pytest.mark.parametrize("shape", [(0, 4, 4), (0, 4), (4, 0), (2, 4, 0)])
def test_empty_maps_are_refused(shape):
    with pytest.raises(LabelError, match="no pixels"):
        positions(torch.zeros(shape, dtype=torch.uint8))

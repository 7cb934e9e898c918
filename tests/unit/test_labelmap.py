"""The label map: what it takes, what it refuses and why."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import clade
from clade import LabelError, LabelMap
from clade.data import Sample
from clade.data.transforms import to_batch
from clade.labels import nearest

TORCH_TYPES = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32]
NUMPY_TYPES = [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64, ">u2"]


def drawn(*shape, classes=5, seed=0, dtype=torch.int64):
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("kind", TORCH_TYPES, ids=str)
def test_tensors_of_every_integer_type_are_taken(kind):
    ids = torch.tensor([[0, 1], [2, 3]]).to(kind)
    label_map = LabelMap(ids).check(4)
    assert label_map.ids.long().tolist() == [[[0, 1], [2, 3]]]
    assert label_map.padded(3).size == (3, 3)  # torch can index with the type that is kept


@pytest.mark.parametrize("kind", NUMPY_TYPES, ids=str)
def test_arrays_of_every_integer_type_are_taken(kind):
    label_map = LabelMap(np.array([[0, 1], [2, 3]], kind)).check(4)
    assert label_map.ids.long().tolist() == [[[0, 1], [2, 3]]]


def test_large_uint16_ids_keep_their_value():
    assert LabelMap(np.array([[40000]], np.uint16)).ids.item() == 40000
    assert LabelMap(torch.tensor([[40000]], dtype=torch.uint16)).ids.item() == 40000


def test_small_types_are_kept_as_they_came():
    assert LabelMap(torch.zeros(2, 2, dtype=torch.uint8)).ids.dtype == torch.uint8


def test_strided_and_read_only_arrays_are_taken():
    array = np.arange(24, dtype=np.uint8).reshape(4, 6) % 5
    array.flags.writeable = False
    assert torch.equal(LabelMap(array[:, ::-1]).ids[0], torch.from_numpy(array.copy()).flip(1))


@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (1, 1, 4, 6)])
def test_a_missing_batch_axis_and_a_single_channel_are_understood(shape):
    ids = drawn(*shape)
    label_map = LabelMap(ids)
    assert label_map.ids.shape == (1, 4, 6)
    assert torch.equal(label_map.ids[0], ids.reshape(4, 6))
    assert (label_map.size, label_map.height, label_map.width, len(label_map)) == ((4, 6), 4, 6, 1)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.zeros(2, 4, 4), r"whole numbers .* got torch\.float32.*arg-max"),
        (torch.zeros(2, 4, 4, dtype=torch.float64), r"got torch\.float64"),
        (torch.zeros(2, 4, 4, dtype=torch.bool), r"got torch\.bool"),
        (torch.zeros(2, 4, 4, dtype=torch.complex64), r"got torch\.complex64"),
        (np.zeros((4, 4), np.float16), r"got torch\.float16"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), r"\(1, 3, 4, 4\).*one-hot"),
        (torch.zeros(2, 4, 4, 3, dtype=torch.uint8), r"\(2, 4, 4, 3\).*colour"),
        (np.zeros((40, 50, 3), np.uint8), "looks like a colour picture"),
        (np.zeros((40, 50, 4), np.uint8), "looks like a colour picture"),
        (torch.zeros(5, dtype=torch.uint8), r"got \(5,\)"),
        (torch.zeros((), dtype=torch.uint8), r"got \(\)"),
        (torch.zeros(1, 1, 1, 4, 4, dtype=torch.uint8), r"\(1, 1, 1, 4, 4\)"),
        (torch.zeros(0, 4, 4, dtype=torch.uint8), r"empty.*\(0, 4, 4\)"),
        (torch.zeros(4, 0, dtype=torch.uint8), "empty"),
        ("labels.png", "got str"),
        (None, "got NoneType"),
        (np.array([["a"]]), "got ndarray"),
    ],
    ids=lambda value: None if isinstance(value, str) else "ids",
)
def test_what_is_no_label_map_is_refused_with_its_reason(ids, message):
    with pytest.raises(LabelError, match=f"(?s){message}"):
        LabelMap(ids)


def test_a_float_instance_map_is_named_as_such():
    with pytest.raises(LabelError, match="An instance map holds whole numbers"):
        LabelMap(drawn(4, 4), torch.zeros(4, 4))


@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 4), (8, 8)])
def test_instances_of_another_size_are_refused(shape):
    with pytest.raises(LabelError, match=r"instance map is .* but the label map is 1 x 4 x 4"):
        LabelMap(drawn(4, 4), drawn(*shape))


@pytest.mark.parametrize(
    "positions", [torch.zeros(1, 2, 4, 5), torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 4, 4).int(), torch.zeros(4, 4)]
)
def test_positions_of_another_shape_or_type_are_refused(positions):
    with pytest.raises(LabelError, match=r"needed is a floating-point \(1, 2, 4, 4\)"):
        LabelMap(drawn(4, 4), positions=positions)


def test_positions_of_one_map_need_no_batch_axis():
    assert LabelMap(drawn(4, 4), positions=torch.zeros(2, 4, 4)).positions.shape == (1, 2, 4, 4)


def test_an_id_outside_names_source_number_count_and_cure():
    ids = torch.zeros(1, 10, 10, dtype=torch.uint8)
    ids[0, 0, :7] = 255
    with pytest.raises(LabelError) as caught:
        LabelMap(ids).check(5, source="labels/0003.png")
    for fact in ("labels/0003.png", "7 pixels have class 255", "5 classes (0..4", "data.remap", "data.num_classes"):
        assert fact in str(caught.value)


@pytest.mark.parametrize("value", [-1, 5, 127])
def test_ids_just_outside_are_refused_and_just_inside_are_not(value):
    ids = torch.full((1, 2, 2), value, dtype=torch.int8)
    with pytest.raises(LabelError, match=f"4 pixels have class {value}"):
        LabelMap(ids).check(5)
    if value > 0:
        LabelMap(ids).check(value + 1)


@pytest.fixture
def scans(monkeypatch):
    """How often ids were read to find their smallest and largest."""
    seen = []
    original = torch.aminmax
    monkeypatch.setattr(torch, "aminmax", lambda *args, **kw: seen.append(1) or original(*args, **kw))
    return seen


def test_ids_are_read_once_however_often_they_are_checked_moved_or_padded(scans):
    label_map = LabelMap(drawn(2, 5, 5)).check(5)
    label_map.check(9)
    label_map.to("cpu").check(5)
    label_map.padded(8).check(5)
    assert len(scans) == 1


def test_a_cached_check_still_refuses_a_smaller_label_space():
    label_map = LabelMap(torch.full((1, 2, 2), 4)).check(5)
    for other in (label_map, label_map.to("cpu"), label_map.padded(4)):
        with pytest.raises(LabelError, match="have class 4"):
            other.check(4)


def test_indexing_gives_the_pictures_in_order_with_all_their_parts():
    ids, instances, positions = drawn(3, 4, 6), drawn(3, 4, 6, seed=1), torch.rand(3, 2, 4, 6)
    batch = LabelMap(ids, instances, positions)
    assert len(batch) == 3
    for k, one in enumerate(batch):
        assert len(one) == 1
        assert torch.equal(one.ids[0], ids[k])
        assert torch.equal(one.instances[0], instances[k])
        assert torch.equal(one.positions[0], positions[k])
    assert torch.equal(batch[-1].ids[0], ids[2])
    assert torch.equal(batch[-3].ids[0], ids[0])
    assert torch.equal(batch[1:].ids, ids[1:])


@pytest.mark.parametrize("index", [3, -4])
def test_an_index_outside_is_an_index_error(index):
    with pytest.raises(IndexError):
        LabelMap(drawn(3, 4, 6))[index]


def test_stacking_undoes_iterating():
    batch = LabelMap(drawn(3, 4, 6), drawn(3, 4, 6, seed=1), torch.rand(3, 2, 4, 6))
    again = LabelMap.stack(list(batch))
    assert torch.equal(again.ids, batch.ids)
    assert torch.equal(again.instances, batch.instances)
    assert torch.equal(again.positions, batch.positions)


DERIVED = {
    "itself": lambda label_map: label_map,
    "on a device": lambda label_map: label_map.to("cpu"),
    "one of them": lambda label_map: label_map[1],
    "stacked": lambda label_map: LabelMap.stack(list(label_map)),
    "from a loader process": lambda label_map: pickle.loads(pickle.dumps(label_map)),
    "from a loader": lambda label_map: (
        to_batch([Sample("a", None, ids.numpy()) for ids in label_map.ids], True, False, skip_class=0).label_map
    ),
}


@pytest.mark.parametrize("way", DERIVED)
def test_positions_of_another_skipped_class_are_computed_anew(way):
    ids = drawn(2, 8, 12)
    made = DERIVED[way](LabelMap(ids).with_positions(0))
    assert torch.equal(made.positions, clade.positions(made.ids, 0))
    assert made.with_positions(0) is made
    for skipped in (None, 1):
        other = made.with_positions(skipped)
        assert torch.equal(other.positions, clade.positions(made.ids, skipped))
        assert not torch.equal(other.positions, made.positions)
        assert other.with_positions(skipped) is other


def test_a_padded_map_keeps_the_positions_of_its_own_class():
    padded = LabelMap(drawn(1, 6, 10)).with_positions(0).padded(4)
    assert padded.with_positions(0) is padded
    assert torch.equal(padded.with_positions(None).positions, clade.positions(padded.ids))


def test_a_generator_does_not_take_the_positions_that_another_one_skips_in():
    options = {"num_classes": 5, "width": 1}
    torch.manual_seed(0)
    skipping, plain = (clade.create_generator("clade-icpe", **options, skip_class=k) for k in (0, None))
    label_map = LabelMap(drawn(1, 32, 32))
    prepared = skipping.prepare(label_map)
    assert torch.equal(prepared.positions, clade.positions(label_map.ids, 0))
    assert torch.equal(plain.prepare(prepared).positions, clade.positions(label_map.ids))


def test_positions_that_were_given_are_every_model_s():
    given = LabelMap(drawn(2, 8, 12), positions=torch.rand(2, 2, 8, 12))
    for label_map in (given, given.to("cpu"), given[0], given.padded(4)):
        assert label_map.with_positions(0) is label_map
        assert label_map.with_positions(None) is label_map


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ([], "No label map"),
        ([LabelMap(torch.zeros(1, 4, 4).long()).with_positions(k) for k in (0, 1)], "with different skip_class"),
        ([LabelMap(drawn(4, 4)), LabelMap(drawn(4, 5))], r"\(4, 4\), \(4, 5\)"),
        ([LabelMap(drawn(4, 4)), LabelMap(drawn(4, 4), drawn(4, 4))], "1 of 2 label maps have no instances"),
        ([LabelMap(drawn(4, 4)), LabelMap(drawn(4, 4), positions=torch.zeros(2, 4, 4))], "have no positions"),
    ],
    ids=["none", "skipped classes", "sizes", "instances", "positions"],
)
def test_maps_that_do_not_go_together_are_not_stacked(maps, message):
    with pytest.raises(LabelError, match=message):
        LabelMap.stack(maps)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 8))
def test_padding_repeats_the_last_row_and_column(height, width, multiple):
    ids, instances = drawn(2, height, width), drawn(2, height, width, seed=1)
    positions = torch.rand(2, 2, height, width, generator=torch.Generator().manual_seed(2))
    padded = LabelMap(ids, instances, positions).padded(multiple)
    assert padded.height % multiple == padded.width % multiple == 0
    assert 0 <= padded.height - height < multiple
    assert 0 <= padded.width - width < multiple
    for i in range(padded.height):
        for j in range(padded.width):
            source = (..., min(i, height - 1), min(j, width - 1))
            assert torch.equal(padded.ids[:, i, j], ids[source])
            assert torch.equal(padded.instances[:, i, j], instances[source])
            assert torch.equal(padded.positions[..., i, j], positions[source])


def test_a_map_that_fits_is_not_copied():
    label_map = LabelMap(drawn(1, 8, 16))
    assert label_map.padded(8) is label_map


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 90), st.integers(1, 90))
def test_nearest_takes_the_pixels_that_interpolate_takes(height, width, out_height, out_width):
    ids = torch.arange(height * width).reshape(1, height, width)
    # In float32, as the published code resizes one-hot maps; torch places float64 pixels differently.
    expected = torch.nn.functional.interpolate(ids[None].float(), size=(out_height, out_width), mode="nearest")
    assert torch.equal(nearest(ids, (out_height, out_width)), expected[0].long())
    assert torch.equal(nearest(ids[None].double(), (out_height, out_width)), expected)


@pytest.mark.parametrize("lengths", [(1000, 49), (513, 256), (2047, 341), (255, 256), (341, 1023), (4099, 97)])
def test_nearest_takes_the_pixels_that_interpolate_takes_at_lengths_that_round_badly(lengths):
    length, out = lengths
    row = torch.arange(length).reshape(1, 1, length)
    expected = torch.nn.functional.interpolate(row[None].float(), size=(1, out), mode="nearest")[0].long()
    assert torch.equal(nearest(row, (1, out)), expected)
    assert torch.equal(nearest(row.mT, (out, 1)), expected.mT)


def test_repr_says_what_is_there():
    assert repr(LabelMap(drawn(2, 4, 6), drawn(2, 4, 6))) == "LabelMap(2 x 4 x 6, torch.int64, instances)"

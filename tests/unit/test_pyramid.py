"""The pyramid: each thing once, only when asked for, and the same as a slow reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from clade import LabelError, LabelMap, LabelPyramid, positions
from clade.labels import instance_edges
from clade.labels import pyramid as pyramid_module


def drawn(*shape, classes=5, seed=0):
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed))


def slow_edges(numbers):
    out = torch.zeros_like(numbers)
    n, height, width = numbers.shape
    numbers = numbers.tolist()  # elements of a tensor take microseconds each
    for k in range(n):
        for i in range(height):
            for j in range(width):
                for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                    if 0 <= a < height and 0 <= b < width and numbers[k][a][b] != numbers[k][i][j]:
                        out[k, i, j] = 1
    return out


def resized(full, size):
    return F.interpolate(full.double(), size=size, mode="nearest")


sizes = st.tuples(st.integers(1, 24), st.integers(1, 24))


@settings(max_examples=40, deadline=None)
@given(sizes, st.integers(1, 4), st.integers(0, 1000))
def test_edges_are_where_a_4_neighbour_differs(size, classes, seed):
    numbers = drawn(2, *size, classes=classes, seed=seed)
    assert torch.equal(instance_edges(numbers).long(), slow_edges(numbers))


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, st.integers(0, 1000))
def test_every_scale_is_interpolated_from_full_resolution(full, size, seed):
    ids, instances = drawn(2, *full, seed=seed), drawn(2, *full, classes=3, seed=seed + 1)
    labels = LabelPyramid(LabelMap(ids, instances), 5)
    assert torch.equal(labels.ids(size).double(), resized(ids[:, None], size)[:, 0])
    assert torch.equal(labels.edges(size).double(), resized(slow_edges(instances)[:, None], size))
    assert torch.equal(labels.positions(size).double(), resized(positions(ids), size))
    one_hot = F.one_hot(ids, 5).movedim(-1, 1)
    assert torch.equal(labels.one_hot(size).double(), resized(one_hot, size))
    both = torch.cat([one_hot, slow_edges(instances)[:, None]], 1)
    assert torch.equal(labels.semantics(size, True).double(), resized(both, size))
    assert torch.equal(labels.semantics(size, False), labels.one_hot(size))


def test_class_borders_stand_in_for_instances():
    ids = drawn(1, 9, 12)
    assert torch.equal(LabelPyramid(LabelMap(ids), 5).edges((9, 12)), slow_edges(ids)[:, None].float())


def test_instances_count_and_classes_do_not_where_there_are_instances():
    ids, instances = drawn(1, 9, 12), torch.zeros(1, 9, 12, dtype=torch.int64)
    assert not LabelPyramid(LabelMap(ids, instances), 5).edges((9, 12)).any()


def test_given_edges_go_before_instances():
    edges = drawn(1, 1, 8, 8, classes=2).to(torch.uint8)
    labels = LabelPyramid(LabelMap(drawn(1, 8, 8), drawn(1, 8, 8)), 5, edges=edges)
    assert torch.equal(labels.edges((8, 8)), edges.float())
    assert torch.equal(labels.edges((4, 4)), edges[..., ::2, ::2].float())


def test_given_positions_go_before_computed_ones():
    given_positions = torch.rand(1, 2, 8, 8)
    labels = LabelPyramid(LabelMap(drawn(1, 8, 8), positions=given_positions), 5)
    assert torch.equal(labels.positions((4, 4)), given_positions[..., ::2, ::2])


@pytest.fixture
def calls(monkeypatch):
    """Names of the costly things, in the order in which they are made."""
    made = []

    def watched(name, function):
        def run(*args, **kwargs):
            made.append(name)
            return function(*args, **kwargs)

        return run

    for name in ("instance_edges", "icpe_positions", "nearest"):
        monkeypatch.setattr(pyramid_module, name, watched(name, getattr(pyramid_module, name)))
    return made


def test_nothing_is_made_before_it_is_asked_for(calls):
    labels = LabelPyramid(LabelMap(drawn(1, 8, 8), drawn(1, 8, 8)), 5)
    assert calls == []
    labels.ids((4, 4))
    assert calls == ["nearest"]


def test_everything_is_made_once(calls):
    labels = LabelPyramid(LabelMap(drawn(1, 8, 8), drawn(1, 8, 8)), 5)
    for _ in range(3):
        for size in ((8, 8), (4, 4), (2, 2)):
            labels.ids(size), labels.edges(size), labels.positions(size)
            labels.one_hot(size), labels.semantics(size, True), labels.semantics(size, False)
    assert calls.count("instance_edges") == 1
    assert calls.count("icpe_positions") == 1
    assert calls.count("nearest") == 9  # ids, edges and positions at three sizes
    assert labels.semantics((4, 4), True) is labels.semantics((4, 4), True)


def test_types_are_kept_apart():
    labels = LabelPyramid(LabelMap(drawn(1, 8, 8)), 5)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        for made in (labels.edges, labels.positions, labels.one_hot):
            assert made((4, 4), dtype).dtype == dtype
        assert labels.semantics((4, 4), True, dtype).dtype == dtype


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
def test_ids_of_every_type_come_out_alike(kind):
    ids = drawn(2, 8, 12)
    labels = LabelPyramid(LabelMap(ids.to(kind)), 5)
    assert torch.equal(labels.ids((4, 6)), ids[:, ::2, ::2].int())
    assert torch.equal(labels.one_hot((8, 12)), F.one_hot(ids, 5).movedim(-1, 1).float())


def test_one_hot_has_a_channel_for_classes_that_do_not_occur():
    labels = LabelPyramid(LabelMap(torch.zeros(1, 2, 2, dtype=torch.uint8)), 7)
    assert labels.one_hot((2, 2)).shape == (1, 7, 2, 2)
    assert labels.one_hot((2, 2)).sum((0, 2, 3)).tolist() == [4, 0, 0, 0, 0, 0, 0]


def test_ids_outside_are_refused_when_the_pyramid_is_built():
    with pytest.raises(LabelError, match="4 pixels have class 5"):
        LabelPyramid(LabelMap(torch.full((1, 2, 2), 5)), 5)


def test_a_single_row_or_column_has_edges_and_positions():
    labels = LabelPyramid(LabelMap(torch.tensor([[[0, 0, 1, 1]]])), 2)
    assert labels.edges((1, 4)).flatten().tolist() == [0, 1, 1, 0]
    assert torch.equal(labels.positions((1, 4)), positions(torch.tensor([[[0, 0, 1, 1]]])))

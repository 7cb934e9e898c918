"""Positions against those of the published code (class 0 skipped there)."""

from __future__ import annotations

import pytest
import torch

from clade.labels.positions import positions, positions_of

MAPS = [
    "real_coco_139",
    "real_coco_785",
    "real_coco_1268",
    "real_coco_1503",
    "syn_full",
    "syn_checker",
    "syn_ring",
    "syn_points",
    "syn_noise",
]


def test_every_normalised_recording_is_compared(golden):
    about = golden("icpe_maps")[1]
    normalised = [name for name, one in about["maps"].items() if one["normal_mode"] == "norm"]
    assert sorted(MAPS) == sorted([*normalised, *about.get("left_out", ())])


@pytest.mark.parametrize("name", MAPS)
def test_positions_equal_the_published_ones(golden, name):
    tensors, about = golden("icpe_maps")
    if name in about.get("left_out", ()):
        pytest.skip(f"the real map {name} is not in the repository, and shared/golden is not beside it")
    expected = torch.stack([tensors[f"out/{name}/h"], tensors[f"out/{name}/w"]])
    ids = tensors[f"in/{name}"]
    torch.testing.assert_close(positions(ids, skip_class=0)[0], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.from_numpy(positions_of(ids.numpy(), skip_class=0)), expected, atol=1e-5, rtol=0)


def test_class_zero_has_positions_unless_it_is_skipped(golden):
    ids = golden("icpe_maps")[0]["in/syn_ring"]
    background = (ids == 0).expand(2, -1, -1)
    assert not positions(ids, skip_class=0)[0][background].any()
    assert positions(ids)[0][background].abs().amax() > 0.9

"""The recordings that a clone of the repository has: enough of each kind, and the same as in the full set."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file

PACKED = Path(__file__).parent / "data"
FULL = Path(__file__).resolve().parents[3] / "shared" / "golden"
NAMES = sorted(path.name.removesuffix(".json.gz") for path in PACKED.glob("*.json.gz"))


def unpacked(file):
    return gzip.decompress((PACKED / f"{file}.gz").read_bytes())


def tensors_of(name):
    return load(unpacked(f"{name}.safetensors")) if (PACKED / f"{name}.safetensors.gz").exists() else {}


def test_every_kind_has_a_recording_and_all_are_small():
    assert {
        "layer_clade_icpe",
        "layer_spade",
        "losses",
        "icpe_maps",
        "preprocess",
        "clade_vae",
        "multiscale_d",
        "state_keys",
    } == set(NAMES)
    page = (PACKED / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in NAMES)
    assert sum(path.stat().st_size for path in PACKED.iterdir()) < 700_000


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_in_the_repository_is_that_of_the_full_set(name):
    if not FULL.is_dir():
        pytest.skip("shared/golden is not beside the repository")
    about = json.loads(unpacked(f"{name}.json"))
    left_out = set(about.pop("left_out", ()))
    full = json.loads((FULL / f"{name}.json").read_text(encoding="utf-8"))
    own = tensors_of(name)
    expected = load_file(FULL / f"{name}.safetensors") if own else {}
    kept = [key for key in expected if not left_out.intersection(key.split("/"))]
    assert own.keys() == set(kept)
    assert all(torch.equal(own[key], expected[key]) for key in kept)
    if left_out:  # of the maps, what is told of the others is told
        assert about["maps"] == {key: value for key, value in full["maps"].items() if key not in left_out}
    else:
        assert about == full

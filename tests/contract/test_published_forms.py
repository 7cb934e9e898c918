"""Generators that were published: their weights go out under published names and come back the same."""

from __future__ import annotations

import pytest
import torch

import clade
from clade import CheckpointError, create_generator, list_generators
from clade.models import ConvEncoder, generator_options
from clade.models.published import FAMILIES

SMALL = {"width": 2, "hidden": 4, "style_dim": 6, "encoder_width": 2}
PUBLISHED = [name for name in list_generators() if name in FAMILIES]
every = pytest.mark.parametrize("name", PUBLISHED)


def make(name, **options):
    torch.manual_seed(0)
    small = {key: value for key, value in SMALL.items() if key in generator_options(name)}
    return create_generator(name, num_classes=3, **{**small, **options}).eval()


def assert_same_weights(one, other):
    state = one.state_dict()
    for key, value in other.state_dict().items():
        assert torch.equal(state[key], value), key


@every
@pytest.mark.parametrize("extra", [{}, {"instance_edges": True, "unknown_class": True}], ids=["plain", "edges"])
def test_what_goes_out_comes_back_the_same(name, extra):
    generator = make(name, **extra)
    state = clade.export_official(generator)
    again = clade.import_official(name, state, num_classes=3, **extra)
    assert again.num_rows == generator.num_rows
    assert again.uses_instances == generator.uses_instances
    assert_same_weights(again, generator)
    second = clade.export_official(again)
    assert second.keys() == state.keys()
    assert all(torch.equal(second[key], state[key]) for key in state)


@every
def test_most_options_are_read_from_the_shapes(name):
    generator = make(name)
    alone = clade.import_official(name, clade.export_official(generator))
    assert alone.num_rows == generator.num_rows
    assert_same_weights(alone, generator)


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "spade:2,clade"},
        {"norm": "clade:3,spade", "instance_edges": True},
        {"norm": "spade:4,clade", "positions": "modulation"},
        {"positions": "input"},
        {"positions": "features", "instance_edges": True},
    ],
    ids=str,
)
def test_hybrids_and_position_variants_come_back_without_being_told(options):
    generator = make("clade", **options)
    state = clade.export_official(generator)
    told = {"positions": "modulation"} if options.get("positions") == "modulation" else {}
    edges = {"num_classes": 3, "instance_edges": True} if options.get("instance_edges") else {}
    again = clade.import_official("clade", state, **told, **edges)
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in generator.state_dict().items()
    }
    ids = torch.arange(3).repeat_interleave(22)[:64].view(1, 64, 1).repeat(1, 1, 64)
    with torch.no_grad():
        assert torch.equal(again(ids), generator(ids))


@pytest.mark.parametrize(
    "options",
    [{"num_classes": 16, "width": 8}, {"num_classes": 8, "width": 8}, {"num_classes": 3, "width": 4}],
    ids=str,
)
def test_arrangements_of_groups_are_told_apart(options):
    torch.manual_seed(0)
    generator = create_generator("groupdnet-clade", **options).eval()
    again = clade.import_official("groupdnet-clade", clade.export_official(generator))
    assert all(torch.equal(a, b) for a, b in zip(generator.parameters(), again.parameters(), strict=True))


@every
def test_weights_with_spectral_norm_folded_in_are_not_given_out(name, tmp_path):
    folded = clade.Synthesizer(make(name), device="cpu").generator
    for give_out in (clade.export_official, lambda g: clade.save(g, tmp_path / "g.safetensors")):
        with pytest.raises(CheckpointError, match=r"folded into its weights.*read_checkpoint"):
            give_out(folded)
    assert list(tmp_path.iterdir()) == []


@every
def test_an_export_is_a_copy(name):
    generator = make(name)
    for value in clade.export_official(generator).values():
        value.zero_()
    assert any(parameter.abs().sum() > 0 for parameter in generator.parameters())


@every
def test_the_name_of_other_weights_is_told(name):
    other = "spade" if name.startswith("clade") else "clade"
    with pytest.raises(CheckpointError, match=f"It looks like one of '{other}'"):
        clade.import_official(name, clade.export_official(make(other)))


def test_a_wrong_option_is_set_against_what_the_shapes_say():
    state = clade.export_official(make("clade"))
    with pytest.raises(CheckpointError, match=r"The shapes say num_classes=3 \(given: 5\)"):
        clade.import_official("clade", state, num_classes=5)
    with pytest.raises(CheckpointError, match=r"The shapes say width=2 \(given: 4\)"):
        clade.import_official("clade", state, width=4)


@pytest.mark.parametrize("name", [n for n in PUBLISHED if {"z_dim", "encoder"} <= set(generator_options(n))])
def test_a_style_encoder_is_kept_apart_and_put_back(name):
    generator = make(name, z_dim=5, size=(64, 64), encoder=True)
    state = clade.export_official(generator)
    assert not any(key.startswith("encoder.") for key in state)
    encoder = clade.export_official(generator.encoder)
    again = clade.import_official(name, state, encoder=encoder, num_classes=3)
    photo = torch.rand(1, 3, 30, 40)
    with torch.no_grad():
        assert torch.equal(again.encode(photo)[0], generator.encode(photo)[0])
    assert isinstance(clade.import_official("encoder", encoder), ConvEncoder)
    with pytest.raises(CheckpointError, match="encoder's state dict is not a published one"):
        clade.import_official(name, state, encoder={"a": torch.zeros(1)})


@pytest.mark.parametrize(
    ("state", "hint"),
    [({1: torch.zeros(1)}, "no mapping of names"), ({"state_dict": {}}, "what is under 'state_dict'")],
)
def test_what_is_no_state_dict_is_refused(state, hint):
    with pytest.raises(CheckpointError, match=hint):
        clade.import_official("clade", state)


def test_what_has_no_published_form_is_refused():
    with pytest.raises(CheckpointError, match="Linear has no published form"):
        clade.export_official(torch.nn.Linear(1, 1))

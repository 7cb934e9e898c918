"""GroupDNet against recordings of the published one, and its full-size networks by their published keys."""

from __future__ import annotations

import functools

import pytest
import torch

import clade
from clade import LabelMap, LabelPyramid
from clade.models.generators.group_arrangements import GroupedBlock
from clade.models.published.naming import rename
from clade.models.published.spade_shaped import CONVS, MODULATION
from clade.nn import GroupSPADE, ResidualBlock

BLOCKS = {"head_0": 0, "G_middle_1": 2, "up_1": 4}
SPECTRAL = [
    ("weight_orig$", "parametrizations.weight.original$"),
    ("weight_u$", "parametrizations.weight.0._u$"),
    ("weight_v$", "parametrizations.weight.0._v$"),
]
# Published full-size networks: what the shapes do not tell, what they do, millions of parameters, G multiply-adds at
# a size. The totals stand in docs/parity.md.
FULL_SIZE = {
    "deepfashion": (
        {},
        {"num_classes": 8, "unknown_class": False, "width": 160, "arrangement": "deepfashion"},
        (96.324, 291.6, (256, 256)),
    ),
    "city": (
        {},
        {"num_classes": 35, "unknown_class": False, "width": 280, "arrangement": "cityscapes", "instance_edges": True},
        (76.501, 463.6, (256, 512)),
    ),
    "ade": (
        {"num_classes": 150},
        {"num_classes": 150, "unknown_class": True, "width": 64, "arrangement": "ade20k", "instance_edges": False},
        (68.327, 383.0, (256, 256)),
    ),
}
ENCODER_WIDTHS = {"deepfashion": 256, "city": 350, "ade": 604}


def part(tensors, prefix):
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def assert_near(value, expected):
    torch.testing.assert_close(value, expected, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def recorded(golden):
    tensors, about = golden("groupdnet_deepfashion")
    generator = clade.import_official("groupdnet", part(tensors, "state/"), upsampling="normal")
    return generator, tensors, about


def test_generator_with_options_read_from_the_shapes(recorded):
    generator, tensors, about = recorded
    assert generator.options == {
        "num_classes": 8,
        "unknown_class": False,
        "instance_edges": False,
        "width": 2,
        "arrangement": "deepfashion",
        "code_channels": 8,
        "upsampling": "normal",
    }
    assert sum(p.numel() for p in generator.parameters()) == about["n_params"]
    features = {}
    for name, k in BLOCKS.items():
        generator.blocks[k].register_forward_hook(lambda _m, _i, out, name=name: features.__setitem__(name, out))
    with torch.no_grad():
        assert_near(generator(LabelMap(tensors["in/label"]), z=tensors["in/z"]), tensors["out/image"])
    expected = part(tensors, "out/feat/")
    assert expected.keys() == BLOCKS.keys()
    for name, value in expected.items():
        assert_near(features[name], value)


def test_the_arrangement_of_the_recorded_network_is_the_one_chosen_by_itself():
    assert clade.create_generator("groupdnet", num_classes=8, width=2).arrangement == "deepfashion"


def test_the_recorded_network_goes_out_as_it_came_in(recorded):
    generator, tensors, _ = recorded
    out = clade.export_official(generator)
    state = part(tensors, "state/")
    assert out.keys() == state.keys()
    for key, value in state.items():
        assert torch.equal(out[key], value), key


def load_block(shape, rows, instance_edges, tensors):
    def norm(channels):
        return GroupSPADE(
            channels,
            num_rows=rows,
            instance_edges=instance_edges,
            hidden=shape.hidden,
            groups=shape.modulation_groups,
            shared_groups=shape.shared_groups,
        )

    block = ResidualBlock(shape.channels_in, shape.channels_out, norm, groups=shape.groups)
    pairs = [*SPECTRAL, *((a.strip("."), b.strip(".")) for a, b in (*CONVS, *MODULATION))]
    block.load_state_dict({rename(key, pairs): value for key, value in part(tensors, "state/").items()})
    return block.eval()


def assert_recorded_block(block, tensors, labels):
    features = {}
    for name, layer in (("norm_0", block.norm1), ("norm_1", block.norm2), ("norm_s", block.norm_shortcut)):
        layer.register_forward_hook(lambda _m, _i, out, name=name: features.__setitem__(name, out))
    with torch.no_grad():
        assert_near(block(tensors["in/x"], labels), tensors["out/y"])
    for name, value in part(tensors, "out/feat/").items():
        assert_near(features[name], value)


def test_block_of_the_ade20k_network(golden):
    tensors, _ = golden("groupdnet_block_ade20k")
    rows = tensors["in/seg"].shape[1]
    # Six classes do not divide into four groups, so every class has a hidden channel for each group.
    shape = GroupedBlock(
        channels_in=48, channels_out=24, groups=4, hidden=rows * 4, shared_groups=rows, modulation_groups=4
    )
    labels = LabelPyramid(LabelMap(tensors["in/seg"].argmax(1)), rows)
    assert_recorded_block(load_block(shape, rows, False, tensors), tensors, labels)


def test_block_of_the_cityscapes_network_with_an_edge_beside_every_class(golden):
    tensors, _ = golden("groupdnet_block_cityscapes")
    classes, edges = tensors["in/seg"][:, ::2], tensors["in/seg"][:, 1:2]
    rows = classes.shape[1]
    shape = GroupedBlock(
        channels_in=40, channels_out=20, groups=4, hidden=rows * 4, shared_groups=rows, modulation_groups=rows
    )
    labels = LabelPyramid(LabelMap(classes.argmax(1)), rows, edges=edges)
    assert_recorded_block(load_block(shape, rows, True, tensors), tensors, labels)


@pytest.fixture(scope="module")
def full_size(golden):
    """(module, its entry in the recording) of a published full-size network, on the meta device."""

    @functools.cache
    def build(network):
        kind, _, data = network.split("/")
        entry = golden("state_keys")[1][network]
        name = {"G": "groupdnet", "E": "encoder", "D": "discriminator"}[kind]
        options = FULL_SIZE[data][0] if kind == "G" else {}
        with torch.device("meta"):
            return clade.import_official(name, meta_state(entry), **options), entry

    return build


def meta_state(entry):
    return {key: torch.empty(shape, device="meta") for key, shape in entry["keys"].items()}


@pytest.mark.parametrize("data", FULL_SIZE)
@pytest.mark.parametrize("kind", ["G", "E", "D"])
def test_every_published_key_has_a_place_of_its_shape_and_none_is_left_empty(full_size, kind, data):
    module, entry = full_size(f"{kind}/groupdnet/{data}")
    assert sum(p.numel() for p in module.parameters()) == entry["n_params"]
    out = clade.export_official(module)
    assert {key: list(value.shape) for key, value in out.items()} == entry["keys"]


@pytest.mark.parametrize("data", FULL_SIZE)
def test_the_shapes_tell_the_options_of_a_full_size_network(full_size, data):
    generator, _ = full_size(f"G/groupdnet/{data}")
    options = FULL_SIZE[data][1]
    assert {key: generator.options[key] for key in options} == options


@pytest.mark.parametrize("data", FULL_SIZE)
def test_parameters_and_multiply_adds_are_those_of_the_paper(full_size, data):
    generator, _ = full_size(f"G/groupdnet/{data}")
    millions, giga, size = FULL_SIZE[data][2]
    cost = clade.profile(generator, size)
    assert round(cost.params / 1e6, 3) == millions
    assert round(cost.macs / 1e9, 1) == giga


@pytest.mark.parametrize("data", FULL_SIZE)
def test_a_published_encoder_is_attached_to_its_generator(golden, data):
    states = golden("state_keys")[1]
    encoder = meta_state(states[f"E/groupdnet/{data}"])
    with torch.device("meta"):
        generator = clade.import_official(
            "groupdnet", meta_state(states[f"G/groupdnet/{data}"]), encoder=encoder, **FULL_SIZE[data][0]
        )
    assert generator.options["encoder_width"] == ENCODER_WIDTHS[data]
    assert clade.export_official(generator.encoder).keys() == encoder.keys()
    assert not any(key.startswith("encoder") for key in clade.export_official(generator))


def test_the_encoder_of_five_layers_is_known_by_its_keys(golden):
    keys = golden("state_keys")[1]["E/groupdnet/deepfashion"]["keys"]
    state = {key: torch.empty(shape, device="meta") for key, shape in keys.items() if not key.startswith("layer6")}
    with torch.device("meta"):
        encoder = clade.import_official("encoder", state)
        generator = clade.create_generator("groupdnet", num_classes=8, width=2, encoder=True, encoder_layers=5)
    assert len(encoder.convs) == 5
    assert {key: value.shape for key, value in generator.encoder.state_dict().items()} == {
        key: value.shape for key, value in encoder.state_dict().items()
    }


def test_weights_of_groupdnet_and_spade_do_not_pass_for_each_other(golden):
    states = golden("state_keys")[1]
    with torch.device("meta"):
        with pytest.raises(clade.CheckpointError, match="'groupdnet'"):
            clade.import_official("spade", meta_state(states["G/groupdnet/deepfashion"]))
        with pytest.raises(clade.CheckpointError, match="'spade'"):
            clade.import_official("groupdnet", meta_state(states["G/spade/ade"]))

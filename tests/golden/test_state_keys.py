"""Every key of the published full-size networks has its place here, and their parameters add up to the paper's numbers.

Nothing is allocated: the networks are built on torch's meta device.
"""

from __future__ import annotations

import functools

import pytest
import torch

import clade

NAMES = {
    "G/clade": "clade",
    "G/clade_icpe": "clade-icpe",
    "G/clade_vae": "clade",
    "G/spade": "spade",
    "G/spade_light": "spade",
    "G/pix2pixhd": "pix2pixhd",
    "G/ccfpse": "cc-fpse",
    "G/dagan": "dagan",
    "D/multiscale": "discriminator",
    "D/ccfpse_fpse": "discriminator",
    "E/conv": "encoder",
}
NETWORKS = [
    *(f"{kind}/{data}" for kind in NAMES for data in ("ade", "coco", "city") if kind not in ("G/clade_vae", "E/conv")),
    "G/clade_vae/ade",
    "E/conv/any",
]

# Full-size totals in docs/parity.md, in millions.
TOTALS = {
    "G/spade/ade": 96.492,
    "G/clade/ade": 71.427,
    "G/spade/coco": 97.481,
    "G/clade/coco": 72.505,
    "G/spade/city": 93.048,
    "G/clade/city": 67.902,
    "G/pix2pixhd/ade": 182.886,
    "G/pix2pixhd/coco": 182.990,
    "G/pix2pixhd/city": 182.525,
    "G/ccfpse/ade": 140.704,
    "G/ccfpse/coco": 141.940,
    "G/ccfpse/city": 128.056,
    "G/dagan/ade": 96.579,
    "G/dagan/city": 93.134,
}


def place(golden, network, drop=(), add=(), **options):
    """Import the network's keys; (module, its entry in the recording)."""
    entry = golden("state_keys")[1][network]
    kind = network.rsplit("/", 1)[0]
    state = {key: torch.empty(shape, device="meta") for key, shape in entry["keys"].items() if key not in drop}
    state |= {key: torch.empty(1, device="meta") for key in add}
    with torch.device("meta"):
        return clade.import_official(NAMES[kind], state, **options), entry


@pytest.fixture(scope="module")
def full_size(golden):
    """Network with every option given, built once."""

    @functools.cache
    def build(network):
        return place(golden, network, **given(golden, network))

    return build


def labels(opt):
    return {
        "num_classes": opt["label_nc"],
        "unknown_class": opt["contain_dontcare_label"],
        "instance_edges": not opt["no_instance"],
    }


def given(golden, network):
    opt = golden("state_keys")[1][network]["opt"]
    if network.startswith("E/"):
        return {"width": opt["ngf"], "z_dim": opt["z_dim"]}
    if network.startswith("D/"):
        return labels(opt)
    if network.startswith("G/pix2pixhd/"):
        return labels(opt) | {"width": opt["ngf"], "blocks": opt["resnet_n_blocks"]}
    more = {"width": opt["ngf"], "upsampling": opt["num_upsampling_layers"]}
    if opt["use_vae"]:
        height = round(opt["crop_size"] / opt["aspect_ratio"])
        more |= {"z_dim": opt["z_dim"], "size": (height, opt["crop_size"])}
    return labels(opt) | more


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("network", NETWORKS)
def test_every_published_key_has_a_place_of_its_shape_and_none_is_left_empty(full_size, network):
    module, entry = full_size(network)
    assert len(module.state_dict()) == len(entry["keys"])
    assert count(module) == entry["n_params"]


@pytest.mark.parametrize("network", ["G/clade/ade", "G/clade_icpe/city", "G/clade/coco", "G/clade_vae/ade"])
def test_classes_and_edges_are_read_from_clade_shapes(golden, network):
    opt = golden("state_keys")[1][network]["opt"]
    module, entry = place(golden, network, upsampling=opt["num_upsampling_layers"])
    assert module.num_rows == opt["label_nc"] + opt["contain_dontcare_label"]
    assert module.uses_instances is not opt["no_instance"]
    assert module.z_dim == (opt["z_dim"] if opt["use_vae"] else None)
    assert count(module) == entry["n_params"]


@pytest.mark.parametrize("network", [f"G/ccfpse/{data}" for data in ("ade", "coco", "city")])
def test_layout_latent_and_size_of_cc_fpse_are_read_from_its_shapes(golden, network):
    options = given(golden, network)
    module, entry = place(golden, network, num_classes=options["num_classes"], instance_edges=options["instance_edges"])
    told = {key: module.options[key] for key in options}
    assert told == options
    assert count(module) == entry["n_params"]


@pytest.mark.parametrize("network", TOTALS)
def test_parameters_are_those_of_the_paper(full_size, network):
    module, _ = full_size(network)
    assert round(count(module) / 1e6, 3) == TOTALS[network]


@pytest.mark.parametrize("data", ["ade", "coco", "city"])
def test_positions_add_108_parameters_to_clade(full_size, data):
    (icpe, _), (plain, _) = full_size(f"G/clade_icpe/{data}"), full_size(f"G/clade/{data}")
    assert count(icpe) - count(plain) == 108


@pytest.mark.parametrize("network", ["G/clade/ade", "G/spade/city", "D/multiscale/coco", "E/conv/any"])
def test_a_key_that_is_missing_is_named(golden, network):
    dropped = list(golden("state_keys")[1][network]["keys"])[-1]
    options = given(golden, network)
    with pytest.raises(clade.CheckpointError, match=r"1 missing keys: \w+\.\w+"):
        place(golden, network, drop=(dropped,), **options)


@pytest.mark.parametrize("network", ["G/clade/ade", "G/spade/city", "D/multiscale/coco", "E/conv/any"])
def test_a_key_without_a_place_is_named(golden, network):
    with pytest.raises(clade.CheckpointError, match=r"1 keys without a place: surplus\.weight"):
        place(golden, network, add=("surplus.weight",), **given(golden, network))


def test_weights_of_clade_do_not_pass_for_those_of_another_network(golden):
    for network, name in (("G/clade/ade", "spade"), ("G/spade/ade", "clade"), ("G/clade/ade", "clade-icpe")):
        keys = golden("state_keys")[1][network]["keys"]
        state = {key: torch.empty(shape, device="meta") for key, shape in keys.items()}
        with torch.device("meta"), pytest.raises(clade.CheckpointError, match=f"'{name}'"):
            clade.import_official(name, state)

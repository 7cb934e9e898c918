"""Networks, layers and preprocessing against recordings of the published ones, through ``clade.import_official``."""

from __future__ import annotations

import pytest
import torch

import clade
from clade import LabelMap, LabelPyramid
from clade.nn import CLADE, SPADE

GENERATORS = {
    "clade_normal": "clade",
    "clade_more": "clade",
    "clade_most": "clade",
    "clade_inst": "clade",
    "clade_icpe": "clade-icpe",
    "clade_vae": "clade",
    "spade_inst": "spade",
}
NOT_IN_SHAPES = {
    "clade_more": {"upsampling": "more"},
    # SPADE's edge is one more input channel: only the number of classes tells it from a class.
    "spade_inst": {"num_classes": 5, "unknown_class": True},
}
BLOCKS = {"head_0": 0, "G_middle_0": 1, "G_middle_1": 2, "up_0": 3, "up_1": 4, "up_2": 5, "up_3": 6, "up_4": 7}


def part(tensors, prefix):
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def label_map(tensors):
    return LabelMap(tensors["in/label"], tensors.get("in/instance"), tensors.get("in/dist"))


def published_options(opt):
    """The published options in this library's words; all of them, whether or not the shapes tell them."""
    width = opt["crop_size"]
    return {
        "num_classes": opt["label_nc"],
        "unknown_class": opt["contain_dontcare_label"],
        "instance_edges": not opt["no_instance"],
        "width": opt["ngf"],
        "upsampling": opt["num_upsampling_layers"],
        "z_dim": opt["z_dim"] if opt["use_vae"] else None,
        "size": (round(width / opt["aspect_ratio"]), width),
        "encoder": False,
        "normalization": "batch",
    }


def told(about):
    """Only what the shapes do not tell."""
    options = published_options(about["opt"])
    return {key: options[key] for key in ("num_classes", "unknown_class", "upsampling")}


def assert_near(value, expected):
    torch.testing.assert_close(value, expected, atol=1e-4, rtol=0)


def run(generator, tensors):
    """Image, and what every block gave in the same forward."""
    features = {}
    for name, k in BLOCKS.items():
        if k < len(generator.blocks):
            generator.blocks[k].register_forward_hook(lambda _m, _i, out, name=name: features.__setitem__(name, out))
    with torch.no_grad():
        image = generator(label_map(tensors), z=tensors.get("in/z"))
    return image, features


def assert_recorded(generator, tensors):
    image, features = run(generator, tensors)
    assert_near(image, tensors["out/image"])
    recorded = part(tensors, "out/feat/")
    assert recorded  # every generator was recorded with some of its blocks
    for name, expected in recorded.items():
        assert_near(features[name], expected)


@pytest.mark.parametrize("name", GENERATORS)
def test_generator_with_options_read_from_the_shapes(golden, name):
    tensors, about = golden(name)
    generator = clade.import_official(GENERATORS[name], part(tensors, "state/"), **NOT_IN_SHAPES.get(name, {}))
    assert generator.num_rows == about["opt"]["label_nc"] + about["opt"]["contain_dontcare_label"]
    assert_recorded(generator, tensors)


@pytest.mark.parametrize("name", GENERATORS)
def test_generator_with_every_option_given(golden, name):
    tensors, about = golden(name)
    options = published_options(about["opt"])
    if GENERATORS[name] == "spade":
        options["hidden"] = int(about["changed_constants"][0]["here"][0])
    generator = clade.import_official(GENERATORS[name], part(tensors, "state/"), **options)
    assert not generator.training
    assert generator.options == options
    assert_recorded(generator, tensors)


@pytest.mark.parametrize("name", GENERATORS)
def test_every_published_parameter_is_used(golden, name):
    tensors, about = golden(name)
    generator = clade.import_official(GENERATORS[name], part(tensors, "state/"), **told(about))
    assert sum(p.numel() for p in generator.parameters()) == about["n_params"]


@pytest.mark.parametrize("name", ["clade_normal", "clade_inst", "clade_icpe", "clade_vae", "spade_inst"])
def test_an_imported_generator_survives_a_checkpoint(golden, name, tmp_path):
    tensors, about = golden(name)
    generator = clade.import_official(GENERATORS[name], part(tensors, "state/"), **told(about))
    clade.save(generator, tmp_path / "published.safetensors")
    again = clade.read_checkpoint(tmp_path / "published.safetensors").generator
    maps, z = label_map(tensors), tensors.get("in/z")
    with torch.no_grad():
        assert torch.equal(again(maps, z=z), generator(maps, z=z))


@pytest.mark.parametrize("name", GENERATORS)
def test_the_pyramid_makes_the_published_network_input(golden, name):
    tensors, about = golden(name)
    rows = about["opt"]["label_nc"] + about["opt"]["contain_dontcare_label"]
    pyramid = LabelPyramid(label_map(tensors), rows)
    semantics = pyramid.semantics(pyramid.size, not about["opt"]["no_instance"], torch.uint8)
    assert torch.equal(semantics, tensors["in/semantics"])


def test_positions_are_the_recorded_ones_where_class_zero_is_skipped(golden):
    tensors, _ = golden("clade_icpe")
    raw = tensors["in/label"][:, 0].int() + 1  # recorded from the unshifted map, in which nothing is class 0
    assert_near(clade.positions(raw, skip_class=0), tensors["in/dist"])


def test_icpe_computes_the_positions_that_were_recorded(golden):
    tensors, _ = golden("clade_icpe")
    generator = clade.import_official("clade-icpe", part(tensors, "state/"))
    with torch.no_grad():
        assert_near(generator(LabelMap(tensors["in/label"])), tensors["out/image"])


@pytest.mark.parametrize("options", [{}, {"width": 2, "z_dim": 256}])
def test_style_encoder(golden, options):
    tensors, _ = golden("conv_encoder")
    encoder = clade.import_official("encoder", part(tensors, "state/"), **options)
    with torch.no_grad():
        mu, logvar = encoder(tensors["in/image"])
    assert_near(mu, tensors["out/mu"])
    assert_near(logvar, tensors["out/logvar"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"channels_in": 10, "width": 6, "scales": 2, "layers": 4},
        {"num_classes": 5, "unknown_class": True, "instance_edges": True},
    ],
)
def test_multiscale_discriminator(golden, options):
    tensors, _ = golden("multiscale_d")
    discriminator = clade.import_official("discriminator", part(tensors, "state/"), **options)
    with torch.no_grad():
        features = discriminator(tensors["in/input"])
    expected = part(tensors, "out/pred/")
    assert {f"{scale}/{layer}" for scale, out in enumerate(features) for layer in range(len(out))} == set(expected)
    for key, value in expected.items():
        scale, layer = map(int, key.split("/"))
        assert_near(features[scale][layer], value)


def load_layer(layer, tensors, renamed):
    state = {}
    for key, value in part(tensors, "state/").items():
        for old, new in renamed.items():
            key = key.replace(old, new)
        state[key] = value
    layer.load_state_dict(state)
    return layer.eval()


def pyramid_of(semantics, positions=None):
    """Labels from a one-hot map whose last channel is the edge."""
    ids = semantics[:, :-1].argmax(1)
    return LabelPyramid(LabelMap(ids, positions=positions), semantics.shape[1] - 1, edges=semantics[:, -1:])


def test_clade_layer_with_edges_and_positions(golden):
    tensors, about = golden("layer_clade_icpe")
    renamed = {
        "param_free_norm": "normalize",
        "class_specified_affine.dist_conv_w": "position_gamma",
        "class_specified_affine.dist_conv_b": "position_beta",
        "class_specified_affine.weight": "gamma",
        "class_specified_affine.bias": "beta",
        "inst_conv": "edge",
    }
    semantics = tensors["in/semantics"]
    rows = semantics.shape[1] - 1
    layer = CLADE(about["args"]["norm_nc"], num_rows=rows, instance_edges=True, positions=True)
    load_layer(layer, tensors, renamed)
    with torch.no_grad():
        assert_near(layer(tensors["in/x"], pyramid_of(semantics, tensors["in/dist"])), tensors["out/y"])


def test_spade_layer_with_edges(golden):
    tensors, about = golden("layer_spade")
    renamed = {"param_free_norm": "normalize", "mlp_shared.0": "shared", "mlp_gamma": "to_gamma", "mlp_beta": "to_beta"}
    semantics = tensors["in/semantics"]
    rows = semantics.shape[1] - 1
    layer = SPADE(about["args"]["norm_nc"], num_rows=rows, instance_edges=True)
    load_layer(layer, tensors, renamed)
    with torch.no_grad():
        assert_near(layer(tensors["in/x"], pyramid_of(semantics)), tensors["out/y"])


def test_instance_edges_and_one_hot_are_the_published_ones_bit_for_bit(golden):
    tensors, about = golden("preprocess")
    space = clade.LabelSpace.numbered(about["opt"]["label_nc"], unknown=255)
    ids = torch.from_numpy(space.encode(tensors["in/label_raw"].numpy()))
    assert torch.equal(ids, tensors["in/label"])
    pyramid = LabelPyramid(LabelMap(ids, tensors["in/instance"]), space.num_rows)
    assert torch.equal(pyramid.edges(pyramid.size, torch.uint8), tensors["out/edge"])
    assert torch.equal(pyramid.semantics(pyramid.size, True, torch.uint8), tensors["out/semantics"])
    assert torch.equal(pyramid.semantics(pyramid.size, False, torch.uint8), tensors["out/semantics"][:, :-1])

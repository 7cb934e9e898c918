"""Published weights that do not fit: which name, which key, which shape, and what to do."""

from __future__ import annotations

import pytest
import torch

import clade
from clade import CheckpointError, CladeError, create_generator, import_official
from clade.models import ConvEncoder, MultiscaleDiscriminator

# Our names -> published names, for a state dict in published layout without the recordings.
PUBLISHED = [
    (".parametrizations.weight.original", ".weight_orig"),
    (".parametrizations.weight.0._u", ".weight_u"),
    (".parametrizations.weight.0._v", ".weight_v"),
    ("stem.", "fc."),
    ("to_image.", "conv_img."),
    ("blocks.0.", "head_0."),
    ("blocks.1.", "G_middle_0."),
    ("blocks.2.", "G_middle_1."),
    *((f"blocks.{k + 3}.", f"up_{k}.") for k in range(5)),
    ("norm_shortcut", "norm_s"),
    ("conv_shortcut", "conv_s"),
    ("norm1.", "norm_0."),
    ("norm2.", "norm_1."),
    ("conv1.", "conv_0."),
    ("conv2.", "conv_1."),
    (".normalize.", ".param_free_norm."),
    (".gamma", ".class_specified_affine.weight"),
    (".beta", ".class_specified_affine.bias"),
    (".edge.", ".inst_conv."),
    (".shared.", ".mlp_shared.0."),
    (".to_gamma.", ".mlp_gamma."),
    (".to_beta.", ".mlp_beta."),
]


def published(module):
    state = {}
    for key, value in module.state_dict().items():
        for ours, theirs in PUBLISHED:
            key = key.replace(ours, theirs)
        state[key] = value.clone()
    return state


def generator(name="clade", **options):
    torch.manual_seed(0)
    return create_generator(name, num_classes=3, width=1, **options).eval()


@pytest.fixture
def state():
    return published(generator())


def image(network):
    ids = torch.arange(3).repeat_interleave(11).view(1, 1, 33).expand(1, 32, 33)
    with torch.no_grad():
        return network(ids)


def test_a_state_dict_in_published_layout_comes_back_as_the_network_it_came_from(state):
    assert torch.equal(image(import_official("clade", state)), image(generator()))


@pytest.mark.parametrize("keys", ["all", "some"])
def test_the_prefix_of_data_parallel_training_is_left_out(state, keys):
    prefixed = {f"module.{key}" if keys == "all" or k % 2 else key: v for k, (key, v) in enumerate(state.items())}
    assert torch.equal(image(import_official("clade", prefixed)), image(generator()))


def test_half_precision_weights_are_read_as_float32(state):
    network = import_official("clade", {key: v.half() if v.is_floating_point() else v for key, v in state.items()})
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    torch.testing.assert_close(image(network), image(generator()), atol=1e-2, rtol=0)


def test_the_given_state_dict_is_left_as_it_is(state):
    before = {key: value.clone() for key, value in state.items()}
    network = import_official("clade", state)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert state.keys() == before.keys()
    for key, value in state.items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize(
    ("name", "near"), [("clade-ipce", "clade-icpe"), ("Spade", "spade"), ("discriminater", "discriminator")]
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(state, name, near):
    with pytest.raises(CheckpointError, match=f"'{name}'.*Did you mean '{near}'.*Known: .*encoder"):
        import_official(name, state)


def test_an_unknown_option_is_refused_with_the_nearest_known_one(state):
    with pytest.raises(CladeError, match=r"no option 'widht'.*Did you mean 'width'"):
        import_official("clade", state, widht=1)
    encoder = {"layer1.0.weight_orig": torch.zeros(1, 3, 3, 3), "fc_mu.weight": torch.zeros(4, 128)}
    with pytest.raises(CheckpointError, match=r"'encoder' has no option 'zdim'.*Did you mean 'z_dim'"):
        import_official("encoder", encoder, zdim=4)
    with pytest.raises(CheckpointError, match=r"'discriminator' has no option 'layer'.*Did you mean 'layers'"):
        import_official("discriminator", {"discriminator_0.model0.0.weight": torch.zeros(2, 5, 4, 4)}, layer=4)


def test_wrong_options_are_shown_with_the_keys_and_shapes_that_do_not_fit(state):
    with pytest.raises(CheckpointError) as caught:
        import_official("clade", state, width=2)
    message = str(caught.value)
    assert "does not fit 'clade' built with" in message
    assert "'width': 2" in message
    assert "other shapes" in message
    assert "fc.weight is (16, 3, 3, 3), expected (32, 3, 3, 3)" in message
    assert "Leave options out" in message


def test_a_wrong_number_of_classes_is_refused_and_not_cut_down(state):
    for options in ({"num_classes": 4}, {"num_classes": 3, "unknown_class": True}, {"num_classes": 1}):
        with pytest.raises(CheckpointError, match=r"class_specified_affine\.weight is \(3, 16\)|fc\.weight is"):
            import_official("clade", state, **options)


def test_one_class_less_means_that_the_last_is_the_unknown_one(state):
    network = import_official("clade", state, num_classes=2)
    assert (network.num_classes, network.num_rows) == (2, 3)


def test_edges_that_the_weights_do_not_have_are_missing_keys(state):
    with pytest.raises(CheckpointError, match=r"missing keys: .*edge"):
        import_official("clade", state, instance_edges=True)


def test_weights_of_another_upsampling_are_refused(state):
    with pytest.raises(CheckpointError, match="missing keys"):
        import_official("clade", state, upsampling="most", width=2)


@pytest.mark.parametrize("key", ["fc.weight", "conv_img.weight"])
def test_a_key_that_options_are_read_from_is_named_when_it_is_missing(state, key):
    del state[key]
    with pytest.raises(CheckpointError, match=f"the key '{key}' is missing.*{len(state)} keys, such as"):
        import_official("clade", state)


def test_any_other_missing_key_is_named(state):
    del state["up_3.conv_1.bias"], state["conv_img.bias"]
    with pytest.raises(CheckpointError, match=r"2 missing keys: .*up_3\.conv_1\.bias.*conv_img\.bias"):
        import_official("clade", state)


def test_a_surplus_key_is_named_and_not_dropped(state):
    state["ema.decay"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"1 keys without a place: ema\.decay"):
        import_official("clade", state)


@pytest.mark.parametrize("name", ["clade", "clade-icpe", "spade", "encoder", "discriminator"])
@pytest.mark.parametrize("state", [{}, {"weight": torch.zeros(2)}], ids=["empty", "foreign"])
def test_a_state_dict_of_something_else_is_refused(name, state):
    with pytest.raises(CheckpointError, match=f"no state dict of a published '{name}'.*missing"):
        import_official(name, state)


def test_weights_of_spade_are_no_weights_of_clade():
    with pytest.raises(CheckpointError, match="class_specified_affine"):
        import_official("clade", published(generator("spade", hidden=2)))


def test_plain_clade_weights_lack_the_positions_of_icpe(state):
    with pytest.raises(
        CheckpointError, match=r"missing keys: .*dist_conv_w.*It looks like one of 'clade': import it by that name"
    ):
        import_official("clade-icpe", state)


@pytest.mark.parametrize("instance_edges", [False, True])
@pytest.mark.parametrize("unknown_class", [False, True])
def test_classes_unknown_and_edges_of_spade_are_told_apart_by_the_options(instance_edges, unknown_class):
    options = {"unknown_class": unknown_class, "instance_edges": instance_edges}
    state = published(generator("spade", hidden=2, **options))
    for given in (options, {"num_classes": 3, **options}, {"num_classes": 3, "unknown_class": unknown_class}):
        network = import_official("spade", state, **given)
        assert (network.num_rows, network.uses_instances) == (3 + unknown_class, instance_edges)


@pytest.mark.parametrize("upsampling", ["normal", "more", "most"])
@pytest.mark.parametrize("size", [(128, 128), (256, 128), (128, 256)])
def test_latent_weights_come_back_for_the_size_that_was_given(upsampling, size):
    torch.manual_seed(0)
    made = create_generator("clade", num_classes=3, width=2, upsampling=upsampling, z_dim=4, size=size)
    network = import_official("clade", published(made), upsampling=upsampling, size=size)
    assert network.options["size"] == size
    assert network.z_dim == 4


@pytest.mark.parametrize("size", [(64, 64), (64, 128)])
def test_latent_weights_of_a_square_and_of_a_size_like_that_of_cityscapes_tell_it(size):
    made = create_generator("clade", num_classes=3, width=1, z_dim=4, size=size)
    assert import_official("clade", published(made)).options["size"] == size


def test_latent_weights_of_an_oblong_size_ask_for_the_size():
    made = create_generator("clade", num_classes=3, width=1, z_dim=4, size=(64, 96))
    with pytest.raises(CheckpointError, match=r"size=\(height, width\)"):
        import_official("clade", published(made))


def test_encoder_and_discriminator_refuse_wrong_options():
    torch.manual_seed(0)
    encoder = ConvEncoder(width=1, z_dim=4)
    names = [(".parametrizations.weight.original", ".weight_orig"), (".parametrizations.weight.0._u", ".weight_u")]
    names += [(".parametrizations.weight.0._v", ".weight_v"), ("to_mu", "fc_mu"), ("to_logvar", "fc_var")]
    names += [(f"convs.{k}.", f"layer{k + 1}.0.") for k in range(6)]
    state = {}
    for key, value in encoder.state_dict().items():
        for ours, theirs in names:
            key = key.replace(ours, theirs)
        state[key] = value
    photo = torch.rand(1, 3, 40, 40)
    imported = import_official("encoder", state)
    assert torch.equal(imported(photo)[0], encoder.eval()(photo)[0])
    with pytest.raises(CheckpointError, match=r"fc_mu\.weight is \(4, 128\), expected \(5, 128\)"):
        import_official("encoder", state, z_dim=5)


def test_a_discriminator_of_another_number_of_classes_is_refused():
    torch.manual_seed(0)
    discriminator = MultiscaleDiscriminator(3 + 3, width=2)
    state = {}
    for key, value in discriminator.state_dict().items():
        scale, rest = key.removeprefix("scales.").split(".", 1)
        rest = rest.replace("convs.0.", "model0.0.").replace("score.", "model4.0.")
        for k in (1, 2, 3):
            rest = rest.replace(f"convs.{k}.", f"model{k}.0.0.")
        for ours, theirs in PUBLISHED[:3]:
            rest = rest.replace(ours, theirs)
        state[f"discriminator_{scale}.{rest}"] = value
    x = torch.rand(1, 6, 32, 32)
    imported = import_official("discriminator", state, num_classes=3)
    assert torch.equal(imported(x)[1][-1], discriminator.eval()(x)[1][-1])
    with pytest.raises(CheckpointError, match=r"model0\.0\.weight is \(2, 6, 4, 4\), expected \(2, 7, 4, 4\)"):
        import_official("discriminator", state, num_classes=3, instance_edges=True)


def test_errors_are_of_the_kind_that_the_command_line_shows_without_a_traceback():
    assert issubclass(CheckpointError, clade.CladeError)

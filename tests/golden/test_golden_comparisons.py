"""pix2pixHD, DAGAN, CC-FPSE and its discriminator against recordings of the published networks."""

from __future__ import annotations

import pytest
import torch

import clade
from clade import LabelMap
from clade.losses import feature_matching

# Recording -> name, what the shapes do not tell, and options that they do.
GENERATORS = {
    "pix2pixhd": (
        "pix2pixhd",
        {"num_classes": 6, "unknown_class": True, "instance_edges": True},
        {"width": 3, "downsamplings": 4, "blocks": 2, "kernel": 3, "first_kernel": 7},
    ),
    "dagan": ("dagan", {"num_classes": 6, "unknown_class": True}, {"width": 3, "hidden": 16}),
    "ccfpse_vae": (
        "cc-fpse",
        {"num_classes": 5, "unknown_class": True},
        {"width": 3, "hidden": 4, "upsampling": "normal", "z_dim": 256, "size": (64, 64)},
    ),
    "ccfpse_more": (
        "cc-fpse",
        {"num_classes": 4, "instance_edges": True},
        {"width": 3, "hidden": 4, "upsampling": "more", "z_dim": None},
    ),
}
BLOCKS = {"head_0": 0, "G_middle_1": 2, "up_1": 4}
every = pytest.mark.parametrize("name", GENERATORS)


def part(tensors, prefix):
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def assert_near(value, expected):
    torch.testing.assert_close(value, expected, atol=1e-4, rtol=0)


def imported(golden, name, all_options=False):
    tensors, about = golden(name)
    ours, needed, told = GENERATORS[name]
    options = {**needed, **told} if all_options else needed
    return clade.import_official(ours, part(tensors, "state/"), **options), tensors, about


@every
@pytest.mark.parametrize("all_options", [False, True], ids=["read from shapes", "given"])
def test_images_and_features_are_the_recorded_ones(golden, name, all_options):
    generator, tensors, _ = imported(golden, name, all_options)
    assert GENERATORS[name][2].items() <= generator.options.items()
    features = {}
    recorded = part(tensors, "out/feat/")
    assert name == "pix2pixhd" or recorded
    for block in recorded:
        generator.blocks[BLOCKS[block]].register_forward_hook(
            lambda _m, _i, out, block=block: features.__setitem__(block, out)
        )
    with torch.no_grad():
        image = generator(LabelMap(tensors["in/label"], tensors.get("in/instance")), z=tensors.get("in/z"))
    assert_near(image, tensors["out/image"])
    for block, expected in recorded.items():
        torch.testing.assert_close(features[block], expected, atol=1e-4, rtol=1e-5)  # values of up to 57


@every
def test_every_published_parameter_is_used_and_goes_out_as_it_came(golden, name):
    generator, tensors, about = imported(golden, name)
    assert sum(parameter.numel() for parameter in generator.parameters()) == about["n_params"]
    state, out = part(tensors, "state/"), clade.export_official(generator)
    assert out.keys() == state.keys()
    for key, value in state.items():
        assert torch.equal(out[key], value), key


def fpse(golden, **options):
    tensors, about = golden("ccfpse_d")
    return clade.import_official("discriminator", part(tensors, "state/"), **options), tensors, about


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"channels_in": 10, "width": 4},
        {"num_classes": 5, "unknown_class": True, "instance_edges": True},
    ],
)
def test_the_pyramid_discriminator_gives_the_recorded_features_and_scores(golden, options):
    discriminator, tensors, about = fpse(golden, **options)
    assert sum(parameter.numel() for parameter in discriminator.parameters()) == about["n_params"]
    with torch.no_grad():
        out = discriminator(torch.cat([tensors["in/semantics"].float(), tensors["in/image"]], 1))
    assert [len(scale) for scale in out] == [5, 1, 1]
    for k, feature in enumerate(out[0][:-1]):
        assert_near(feature, tensors[f"out/feats/{k}"])
    for k, scale in enumerate(out):
        assert_near(scale[-1], tensors[f"out/results/{k}"])


def test_the_pyramid_discriminator_goes_out_as_it_came(golden):
    discriminator, tensors, _ = fpse(golden)
    state, out = part(tensors, "state/"), clade.export_official(discriminator)
    assert out.keys() == state.keys()
    for key, value in state.items():
        assert torch.equal(out[key], value), key


def test_options_of_the_other_discriminator_are_refused(golden):
    with pytest.raises(clade.CheckpointError, match="no option 'scales'"):
        fpse(golden, scales=2)


def test_a_feature_matching_weight_of_7_5_is_the_published_one_of_10(golden):
    """Published: 10 times the mean over the four layers of the mean absolute distance."""
    discriminator, tensors, _ = fpse(golden)
    with torch.no_grad():
        one, other = (
            discriminator(torch.cat([tensors["in/semantics"].float(), image], 1))
            for image in (tensors["in/image"], -tensors["in/image"])
        )
    recorded = [tensors[f"out/feats/{k}"] for k in range(4)]
    distances = [(a - b).abs().mean() for a, b in zip(recorded, other[0][:-1], strict=True)]
    torch.testing.assert_close(7.5 * feature_matching(one, other), 10 * torch.stack(distances).mean())

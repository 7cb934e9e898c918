"""What the compared networks do beyond the published recordings: conditional convolution, enhancers, attention."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

import clade
from clade import CheckpointError, CladeError, LabelMap, LabelPyramid, create_generator
from clade.losses import ADVERSARIAL, feature_matching
from clade.models import DISCRIMINATORS
from clade.models.generators.dagan import ChannelAttention, SpatialAttention
from clade.models.generators.pix2pixhd import mirror_border
from clade.nn import SPADE, ConditionalBlock, conditional_conv

DOUBLE = torch.float64


def noise(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def ids(*size, classes=3, seed=0):
    return torch.randint(0, classes, size, generator=torch.Generator().manual_seed(seed))


# --- CC-FPSE ----------------------------------------------------------------------------------------------------------


def by_unfolding(x, weights):
    n, c, h, w = x.shape
    patches = F.unfold(x, 3, padding=1).view(n, c, 9, h, w)
    return (patches * weights.view(n, c, 9, h, w)).sum(2)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 3)])
def test_a_conditional_convolution_weighs_each_neighbourhood_by_itself(size):
    x, weights = noise(2, 3, *size).requires_grad_(), noise(2, 27, *size, seed=1).requires_grad_()
    ours, slow = conditional_conv(x, weights), by_unfolding(x, weights)
    torch.testing.assert_close(ours, slow)
    g = noise(*ours.shape, seed=2)
    for gradient, expected in zip(*(torch.autograd.grad(y, (x, weights), g) for y in (ours, slow)), strict=True):
        torch.testing.assert_close(gradient, expected)


def test_equal_weights_everywhere_are_an_ordinary_depthwise_convolution():
    x, kernel = noise(2, 3, 5, 6), noise(3, 1, 3, 3, seed=1)
    weights = kernel.view(1, 27, 1, 1).expand(2, 27, 5, 6)
    torch.testing.assert_close(conditional_conv(x, weights), F.conv2d(x, kernel, padding=1, groups=3))


@pytest.mark.parametrize("channels_out", [4, 2])
def test_a_conditional_block_leaves_its_unused_layers_alone(channels_out):
    torch.manual_seed(0)
    block = ConditionalBlock(
        4, channels_out, lambda channels: SPADE(channels, num_rows=3, hidden=2), condition_channels=3, hidden=2
    )
    before = {key: value.clone() for key, value in block.unused.state_dict().items()}
    labels = LabelPyramid(LabelMap(ids(2, 8, 8)), 3)
    block(noise(2, 4, 8, 8, dtype=torch.float32), labels).square().sum().backward()
    for key, value in block.unused.state_dict().items():
        assert torch.equal(value, before[key]), key
    for key, parameter in block.named_parameters():
        assert parameter.requires_grad is not key.startswith("unused."), key
        assert (parameter.grad is not None) is parameter.requires_grad, key


def test_an_optimizer_leaves_the_unused_layers_of_cc_fpse_alone():
    torch.manual_seed(0)
    generator = create_generator("cc-fpse", num_classes=3, width=1, hidden=2, size=(32, 32)).train()
    optimizer = torch.optim.Adam(generator.parameters(), lr=0.1)
    before = {key: value.clone() for key, value in generator.named_parameters()}
    generator(ids(2, 32, 32)).square().sum().backward()
    optimizer.step()
    unused = [key for key in before if ".unused." in key]
    assert len(unused) == 7 * 3 * 2
    for key, parameter in generator.named_parameters():
        assert torch.equal(parameter, before[key]) or key not in unused, key


def test_cc_fpse_takes_a_latent_vector_unless_told_otherwise():
    latent = create_generator("cc-fpse", num_classes=3, width=1, hidden=2, size=(32, 32))
    assert latent.z_dim == 256
    assert create_generator("cc-fpse", num_classes=3, width=1, hidden=2, z_dim=None).z_dim is None


@pytest.mark.parametrize("name", ["cc-fpse", "dagan"])
def test_the_deepest_upsampling_is_refused_where_it_does_not_exist(name):
    with pytest.raises(CladeError, match=r"no upsampling 'most'.*Known: normal, more"):
        create_generator(name, num_classes=3, upsampling="most")


# --- Its discriminator ------------------------------------------------------------------------------------------------


def test_the_losses_take_scales_that_have_their_scores_alone():
    torch.manual_seed(0)
    discriminator = DISCRIMINATORS["fpse"](6, width=2)
    fake, real = (discriminator(noise(1, 6, 33, 47, seed=seed, dtype=torch.float32)) for seed in (1, 2))
    expected = sum((a - b).abs().mean() for a, b in zip(fake[0][:-1], real[0][:-1], strict=True)) / 3
    torch.testing.assert_close(feature_matching(fake, real), expected)
    assert ADVERSARIAL["hinge"].generator([scale[-1] for scale in fake]).isfinite()


def test_averaging_labels_before_their_embedding_is_averaging_the_embedding():
    torch.manual_seed(0)
    discriminator = DISCRIMINATORS["fpse"](6, width=2).double()
    embedded = []
    discriminator.embedding.register_forward_hook(lambda _m, _i, out: embedded.append(out))
    x = noise(1, 6, 64, 96)
    discriminator(x)
    full = F.conv2d(x[:, :3], discriminator.embedding.weight, discriminator.embedding.bias)
    for k, e in enumerate(embedded):
        torch.testing.assert_close(e, F.avg_pool2d(full, 4 * 2**k))


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (33, 47), (65, 129)])
def test_the_pyramid_discriminator_takes_any_size(size):
    torch.manual_seed(0)
    out = DISCRIMINATORS["fpse"](6, width=2)(noise(2, 6, *size, dtype=torch.float32))
    for k, scale in enumerate(out):
        assert scale[-1].shape == (2, 1, *(-(-side // 4 // 2**k) for side in size))
        assert all(f.isfinite().all() for f in scale)


# --- pix2pixHD --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("enhancers", [1, 2])
@pytest.mark.parametrize("size", [(64, 64), (33, 47), (1, 1)])
def test_local_enhancers_draw_any_size(enhancers, size):
    torch.manual_seed(0)
    generator = create_generator(
        "pix2pixhd", num_classes=3, width=2, downsamplings=2, blocks=1, enhancers=enhancers
    ).train()
    image = generator(ids(2, *size))
    assert image.shape == (2, 3, *size)
    assert generator.multiple == 2 ** (2 + enhancers)
    image.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in generator.parameters())


def test_an_enhancer_adds_the_coarser_network_of_twice_its_width_and_half_its_size():
    torch.manual_seed(0)
    generator = create_generator("pix2pixhd", num_classes=3, width=4, downsamplings=2, blocks=1, enhancers=2).eval()
    seen = []
    for network in generator.networks:
        network.register_forward_hook(lambda _m, inputs, out: seen.append((inputs, out)))
    with torch.no_grad():
        generator(ids(1, 64, 32))
    shapes = [(inputs[0].shape[2:], out.shape[1:]) for inputs, out in seen]
    assert shapes == [((16, 8), (16, 16, 8)), ((32, 16), (8, 32, 16)), ((64, 32), (4, 64, 32))]
    assert seen[0][0][1] is None
    for (_, coarser), (inputs, _) in itertools.pairwise(seen):
        assert inputs[1] is coarser
    torch.testing.assert_close(
        seen[1][0][0], F.avg_pool2d(seen[2][0][0], 3, stride=2, padding=1, count_include_pad=False)
    )


def test_local_enhancers_have_no_published_form():
    with pytest.raises(CheckpointError, match="enhancers=0"):
        clade.export_official(create_generator("pix2pixhd", num_classes=3, width=1, enhancers=1))


@pytest.mark.parametrize("option", ["kernel", "first_kernel"])
def test_even_kernels_are_refused(option):
    with pytest.raises(CladeError, match=f"{option} is 4; needed is an odd number"):
        create_generator("pix2pixhd", num_classes=3, width=1, **{option: 4})


@pytest.mark.parametrize(("option", "value"), [("width", 0), ("downsamplings", -1), ("blocks", -1), ("enhancers", -1)])
def test_impossible_counts_are_refused(option, value):
    with pytest.raises(CladeError, match=f"{option} is {value}; needed is a number of at least"):
        create_generator("pix2pixhd", num_classes=3, **{option: value})


def test_a_border_is_mirrored_and_repeated_where_there_is_too_little_to_mirror():
    row = torch.arange(4.0).expand(1, 1, 4, 4)
    assert mirror_border(row, 3)[0, 0, 0].tolist() == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]
    assert mirror_border(row[:, :, :3, :3], 3)[0, 0, 0].tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 2]


# --- DAGAN ------------------------------------------------------------------------------------------------------------


def test_attention_of_channels_is_one_weight_each_and_sees_only_their_means():
    torch.manual_seed(0)
    attention = ChannelAttention(4, 2).double()
    x = noise(2, 4, 3, 5)
    weights = attention(x)
    assert weights.shape == (2, 2, 1, 1)
    assert 0 < weights.min() < weights.max() < 1
    torch.testing.assert_close(attention(x.flip(2).roll(1, 3)), weights)


def test_attention_of_pixels_sees_mean_and_maximum_of_the_channels():
    torch.manual_seed(0)
    attention = SpatialAttention().double()
    x = noise(2, 4, 3, 5)
    weights = attention(x)
    assert weights.shape == (2, 1, 3, 5)
    torch.testing.assert_close(attention(x.flip(1)), weights)
    inputs = torch.stack([x.mean(1), x.max(1).values], 1)
    torch.testing.assert_close(weights, torch.sigmoid(F.conv2d(inputs, attention.conv.weight, padding=1)))

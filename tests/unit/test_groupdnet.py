"""GroupDNet: what is grouped stays apart, a style of its own for every class, and the three arrangements."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from torch.nn import functional as F

import clade
from clade import CladeError, LabelError, LabelMap, LabelPyramid, create_generator
from clade.models import GroupEncoder
from clade.models.encoders.group import class_crops
from clade.models.generators.group_arrangements import ARRANGEMENTS, arrange, unused_block
from clade.nn import CLADE, SPADE, GroupCLADE, GroupSPADE, ResidualBlock, reparameterize

NAMES = ("groupdnet", "groupdnet-clade")
either = pytest.mark.parametrize("name", NAMES)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def photo(*shape, seed=0):
    return noise(*shape, seed=seed).clamp(-1, 1)


def drawn(n, height, width, classes, seed=0):
    source = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, classes, (n, -(-height // 4), -(-width // 4)), generator=source)
    return coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :height, :width].contiguous()


def make(name, *, num_classes=3, width=2, seed=0, **options):
    """In eval mode, with statistics that are not their start."""
    torch.manual_seed(seed)
    generator = create_generator(name, num_classes=num_classes, width=width, **options)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=source), alpha=0.2)
        for _ in range(3):
            generator(drawn(2, 64, 64, generator.num_rows))
    return generator.eval()


def feature_of_block(generator, k, label_map, z):
    kept = []
    handle = generator.blocks[k].register_forward_hook(lambda _m, _i, out: kept.append(out))
    with torch.no_grad():
        generator(label_map, z=z)
    handle.remove()
    return kept[0]


def groups_that_differ(a, b, groups):
    return {k for k, (x, y) in enumerate(zip(a.chunk(groups, 1), b.chunk(groups, 1), strict=True)) if not x.equal(y)}


# --- What is grouped stays apart --------------------------------------------------------------------------------------


@either
@pytest.mark.parametrize(
    ("options", "blocks"),
    [
        ({"num_classes": 8}, 2),
        ({"num_classes": 3}, 1),
        ({"num_classes": 5, "width": 70, "instance_edges": True}, 2),
    ],
    ids=["deepfashion", "ade20k", "cityscapes"],
)
def test_the_style_of_a_class_stays_in_its_group_until_groups_merge(name, options, blocks, request):
    generator = make(name, upsampling="normal", **options)
    assert generator.arrangement in request.node.callspec.id
    rows = generator.num_rows
    ids = drawn(1, 64, 64, rows)
    z = noise(1, *generator.latent_shape((64, 64)))
    other = generator.mix(z, noise(*z.shape, seed=1), [2])
    early = [feature_of_block(generator, blocks - 1, ids, codes) for codes in (z, other)]
    assert groups_that_differ(*early, rows) == {2}
    later = [feature_of_block(generator, 6, ids, codes) for codes in (z, other)]
    assert not torch.allclose(*later)


@either
def test_labels_of_two_classes_reach_their_groups_alone(name):
    generator = make(name, num_classes=8, upsampling="normal")
    ids = drawn(1, 64, 64, 8)
    changed = torch.where(ids == 3, 6, ids)
    z = noise(1, *generator.latent_shape((64, 64)))
    features = [feature_of_block(generator, 1, one, z) for one in (ids, changed)]
    if name == "groupdnet":
        assert groups_that_differ(*features, 8) == {3, 6}
    else:  # CLADE's scale of a pixel's class is that of all channels
        assert groups_that_differ(*features, 8) == set(range(8))


def test_grouped_spade_with_one_group_is_spade():
    own, plain = GroupSPADE(6, num_rows=4, hidden=5), SPADE(6, num_rows=4, hidden=5)
    own.load_state_dict(plain.state_dict())
    pyramid = LabelPyramid(LabelMap(drawn(2, 20, 28, 4)), 4)
    x = noise(2, 6, 10, 14)
    torch.testing.assert_close(own(x, pyramid), plain(x, pyramid))


def test_grouped_spade_is_one_spade_per_group():
    classes, channels, hidden = 4, 6, 8
    layer = GroupSPADE(channels, num_rows=classes, instance_edges=True, hidden=hidden, groups=2, shared_groups=4)
    ids, instances = drawn(2, 20, 28, classes), drawn(2, 20, 28, 9, seed=1)
    pyramid = LabelPyramid(LabelMap(ids, instances), classes)
    x = noise(2, channels, 10, 14)
    edges = pyramid.edges((10, 14))
    small = F.interpolate(F.one_hot(ids, classes).movedim(-1, 1).float(), size=(10, 14), mode="nearest")
    parts = []
    for k in range(classes):
        of = slice(k * hidden // classes, (k + 1) * hidden // classes)
        sees = torch.cat([small[:, k : k + 1], edges], 1)
        parts.append(F.conv2d(sees, layer.shared.weight[of], layer.shared.bias[of], padding=1).clamp(min=0))
    out = []
    for g in range(2):
        of, inside = slice(g * 3, g * 3 + 3), torch.cat(parts[2 * g : 2 * g + 2], 1)
        gamma = F.conv2d(inside, layer.to_gamma.weight[of], layer.to_gamma.bias[of], padding=1)
        beta = F.conv2d(inside, layer.to_beta.weight[of], layer.to_beta.bias[of], padding=1)
        out.append(F.batch_norm(x[:, of], None, None, training=True) * (1 + gamma) + beta)
    torch.testing.assert_close(layer(x, pyramid), torch.cat(out, 1))


# --- CLADE in a grouped network ---------------------------------------------------------------------------------------


def test_grouped_clade_puts_the_modulated_edge_at_the_end_of_every_group():
    layer = GroupCLADE(6, num_rows=4, instance_edges=True, groups=3)
    torch.nn.init.constant_(layer.group_edge.weight, 1.5)
    torch.nn.init.constant_(layer.group_edge.bias, -0.25)
    plain = CLADE(6, num_rows=4)
    plain.load_state_dict({key: value for key, value in layer.state_dict().items() if "edge" not in key})
    pyramid = LabelPyramid(LabelMap(drawn(2, 20, 28, 4), drawn(2, 20, 28, 9, seed=1)), 4)
    x = noise(2, 6, 10, 14)
    y, features = layer(x, pyramid), plain(x, pyramid)
    assert y.shape[1] == layer.out_channels == 9
    edge = 1.5 * pyramid.edges((10, 14))[:, 0] - 0.25
    assert edge.unique().numel() == 2
    channel = 0
    for group in range(3):
        for k in range(2):
            torch.testing.assert_close(y[:, channel], features[:, 2 * group + k])
            channel += 1
        torch.testing.assert_close(y[:, channel], edge)
        channel += 1


def test_every_group_of_the_convolution_after_it_sees_the_edge():
    torch.manual_seed(0)
    block = ResidualBlock(8, 8, partial(GroupCLADE, num_rows=4, instance_edges=True, groups=4), groups=4).eval()
    for layer in (block.norm1, block.norm2):
        torch.nn.init.constant_(layer.group_edge.weight, 1.5)
    ids, x = drawn(1, 16, 16, 4), noise(1, 8, 16, 16)
    with torch.no_grad():
        one, other = (block(x, LabelPyramid(LabelMap(ids, drawn(1, 16, 16, 9, seed=seed)), 4)) for seed in (1, 2))
    assert groups_that_differ(one, other, 4) == {0, 1, 2, 3}


def test_without_edges_grouped_clade_is_clade():
    own, plain = GroupCLADE(6, num_rows=4, groups=3), CLADE(6, num_rows=4)
    own.load_state_dict(plain.state_dict())
    pyramid = LabelPyramid(LabelMap(drawn(2, 20, 28, 4)), 4)
    x = noise(2, 6, 10, 14)
    assert torch.equal(own(x, pyramid), plain(x, pyramid))
    assert own.out_channels == 6


# --- Arrangements -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "width", "edges", "chosen"),
    [
        (8, 2, False, "deepfashion"),
        (8, 2, True, "deepfashion"),  # 2 is no width for Cityscapes' 20 and 14 groups
        (35, 280, True, "cityscapes"),
        (35, 280, False, "ade20k"),
        (35, 64, True, "ade20k"),
        (16, 4, False, "deepfashion"),
        (16, 1, False, "ade20k"),  # one channel at the end, and two groups
        (24, 12, False, "deepfashion"),  # with hidden channels that divide into 24 groups
        (151, 64, False, "ade20k"),
        (1, 1, True, "ade20k"),
    ],
)
def test_the_first_arrangement_that_fits_is_chosen(rows, width, edges, chosen):
    name, blocks = arrange(None, rows, width, edges)
    assert name == chosen
    assert blocks == ARRANGEMENTS[name](rows, width)
    assert arrange(name, rows, width, edges)[1] == blocks


def test_the_ade20k_arrangement_divides_for_any_number_of_classes_and_any_width():
    for rows, width in itertools.product(range(1, 70), (1, 2, 3, 5, 7, 64)):
        for block in [*arrange("ade20k", rows, width, True)[1], unused_block(rows, width)]:
            for channels in (block.channels_in, block.channels_out, block.hidden):
                assert channels % block.groups == channels % block.modulation_groups == 0
            assert block.hidden % block.shared_groups == rows % block.shared_groups == 0


@either
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arrangement": "deepfashion", "num_classes": 5}, r"does not fit 5 classes.*5 is no multiple of 8"),
        (
            {"arrangement": "cityscapes", "num_classes": 4, "unknown_class": True, "width": 64},
            r"5 classes.*width=64: block 0 \(1024 -> 1024 channels\) would divide 1024 channels into 5 groups\. "
            r"Choose a width that is a multiple of 70\..*arrangement='ade20k', which takes any",
        ),
        (
            {"arrangement": "deepfashion", "num_classes": 16, "width": 3},
            r"block 5 \(12 -> 6 .* 6 channels into 4 groups.*multiple of 2\.",
        ),
        ({"arrangement": "cityscape"}, r"no arrangement 'cityscape'.*Did you mean 'cityscapes'"),
        ({"upsampling": "most"}, r"no upsampling 'most'.*Known: normal, more"),
        ({"code_channels": 0}, r"code_channels is 0"),
    ],
)
def test_an_arrangement_that_cannot_be_says_where_and_what_to_change(name, options, message):
    with pytest.raises(CladeError, match=message):
        create_generator(name, **{"num_classes": 3, "width": 2, **options})


@pytest.mark.parametrize(("rows", "width"), [(5, 70), (35, 140)])
def test_the_advised_width_is_one_that_fits(rows, width):
    assert arrange("cityscapes", rows, width, True)[0] == "cityscapes"


def test_the_block_that_no_forward_runs_is_frozen_and_only_where_published_weights_have_it():
    generator = create_generator("groupdnet", num_classes=3, width=2)
    assert not any(parameter.requires_grad for parameter in generator.unused.parameters())
    frozen = [key for key, parameter in generator.named_parameters() if not parameter.requires_grad]
    assert frozen
    assert all(key.startswith("unused.") for key in frozen)
    for name, rows in (("groupdnet", 8), ("groupdnet-clade", 3)):
        other = create_generator(name, num_classes=rows, width=2)
        assert all(parameter.requires_grad for parameter in other.parameters())


# --- Latents ----------------------------------------------------------------------------------------------------------


@either
@pytest.mark.parametrize(
    ("upsampling", "size", "grid"),
    [
        ("normal", (64, 96), (2, 3)),
        ("more", (64, 96), (1, 2)),
        ("more", (256, 256), (4, 4)),
        ("normal", (1, 1), (1, 1)),
    ],
)
def test_the_latent_has_codes_for_every_class_at_the_coarsest_scale(name, upsampling, size, grid):
    generator = create_generator(
        name, num_classes=3, unknown_class=True, width=1, upsampling=upsampling, code_channels=5
    )
    assert generator.latent_shape(size) == (20, *grid)


@either
def test_codes_of_another_grid_are_resized_smoothly(name):
    generator = make(name, upsampling="normal")
    ids = drawn(1, 64, 96, 3)
    z = noise(1, 24, 4, 4)
    resized = F.interpolate(z, size=(2, 3), mode="bilinear", align_corners=False)
    with torch.no_grad():
        assert torch.equal(generator(ids, z=z), generator(ids, z=resized))
    with pytest.raises(CladeError, match=r"needed is \(1, 24, 2, 3\)"):
        generator(ids, z=noise(1, 23, 2, 3))


@either
def test_mixing_takes_the_codes_of_some_classes_from_another_picture(name):
    generator = create_generator(name, num_classes=3, width=1)
    z, other = noise(2, 24, 2, 2), noise(1, 24, 2, 2, seed=1)
    mixed = generator.mix(z, other, [0, 2])
    for k, source in enumerate((other.expand(2, -1, -1, -1), z, other.expand(2, -1, -1, -1))):
        assert torch.equal(mixed[:, 8 * k : 8 * k + 8], source[:, 8 * k : 8 * k + 8])
    assert torch.equal(generator.mix(z, other, []), z)
    uniform = torch.ones(1, 24, 5, 3)
    assert torch.equal(generator.mix(z, uniform, range(3)), torch.ones(2, 24, 2, 2))


@either
@pytest.mark.parametrize(
    ("z", "other", "classes", "message"),
    [
        ((1, 24, 2, 2), (1, 24, 2, 2), [3], "no class 3.*0 to 2"),
        ((1, 24, 2, 2), (1, 24, 2, 2), [-1], "no class -1"),
        ((1, 24, 2, 2), (1, 16, 2, 2), [0], r"\(1, 16, 2, 2\).*8 channels for each of 3 classes"),
        ((1, 24), (1, 24), [0], r"needed is \(N, 24, height, width\)"),
        ((2, 24, 2, 2), (3, 24, 2, 2), [0], "2 latents cannot be mixed with 3"),
    ],
)
def test_what_cannot_be_mixed_is_refused(name, z, other, classes, message):
    with pytest.raises(CladeError, match=message):
        create_generator(name, num_classes=3, width=1).mix(noise(*z), noise(*other), classes)


# --- The style encoder ------------------------------------------------------------------------------------------------


def crops_slowly(image, ids, rows, size):
    out = torch.zeros(len(image), rows, 3, *size)
    for n, k in itertools.product(range(len(image)), range(rows)):
        mask = ids[n] == k
        places = mask.nonzero()
        if len(places):
            (top, left), (bottom, right) = places.amin(0).tolist(), places.amax(0).tolist()
            box = (image[n] * mask)[:, top : bottom + 1, left : right + 1]
            out[n, k] = F.interpolate(box[None], size=size, mode="nearest")[0]
    return out


@pytest.mark.parametrize("size", [(64, 64), (128, 64), (7, 5)])
@pytest.mark.parametrize("shape", [(33, 47), (64, 64), (1, 9), (150, 201)])
def test_a_class_is_cut_out_by_its_box(shape, size):
    image = photo(3, 3, *shape)
    image[:, :, :, ::3] = 0  # black pixels, which are not the end of an object
    ids = drawn(3, *shape, 4)
    ids[0][ids[0] == 1] = 2  # a class that only one picture lacks
    ids[:, 0, 0] = 3
    assert torch.equal(class_crops(image, ids, 5, size), crops_slowly(image, ids, 5, size))


def encoded_slowly(encoder, crops):
    """Crops (N, rows, 3, h, w) -> mu, logvar"""
    rows, x = crops.shape[1], crops.flatten(1, 2)
    for conv in encoder.convs:
        x = F.conv2d(x, conv.weight, stride=2, padding=1, groups=rows)
        if x[0, 0].numel() > 1:
            mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), unbiased=False, keepdim=True)
            x = (x - mean) / (var + 1e-5).sqrt()
        x = torch.where(x > 0, x, 0.2 * x)
    return (F.conv2d(x, end.weight, end.bias, padding=1, groups=rows) for end in (encoder.to_mu, encoder.to_logvar))


@torch.no_grad()
@pytest.mark.parametrize("grid", [(2, 3), (1, 1)], ids=["several-pixels-to-the-end", "one-pixel-at-the-end"])
def test_the_encoder_is_its_convolutions_one_after_the_other(grid):
    torch.manual_seed(0)
    encoder = GroupEncoder(num_rows=3, width=6, code_channels=4).double().eval()
    for parameter in encoder.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.3)
    ids, image = drawn(2, 70, 90, 3), photo(2, 3, 70, 90)
    crops = crops_slowly(image, ids, 3, (64 * grid[0], 64 * grid[1])).double()
    for own, expected in zip(encoder(image.double(), ids, grid), encoded_slowly(encoder, crops), strict=True):
        assert own.shape == (2, 12, *grid)
        torch.testing.assert_close(own, expected)


def test_the_encoder_gives_a_class_the_style_of_its_own_pixels_only():
    torch.manual_seed(0)
    encoder = GroupEncoder(num_rows=3, width=6).eval()
    ids, image = drawn(1, 64, 64, 3), photo(1, 3, 64, 64)
    changed = torch.where(ids[:, None] == 1, photo(1, 3, 64, 64, seed=1), image)
    with torch.no_grad():
        for one, other in zip(encoder(image, ids), encoder(changed, ids), strict=True):
            assert one.shape == (1, 24, 4, 4)
            assert groups_that_differ(one, other, 3) == {1}


def test_a_class_that_is_not_in_the_photo_has_the_same_code_in_all_photos():
    torch.manual_seed(0)
    encoder = GroupEncoder(num_rows=4, width=4).eval()
    with torch.no_grad():
        mu, logvar = encoder(photo(2, 3, 48, 40), drawn(2, 48, 40, 3))
        empty, _ = encoder(torch.zeros(1, 3, 48, 40), drawn(1, 48, 40, 3))
    assert mu.isfinite().all()
    assert logvar.isfinite().all()
    assert torch.equal(mu[0, 24:], mu[1, 24:])
    assert torch.equal(mu[0, 24:], empty[0, 24:])
    assert not torch.allclose(mu[0, :24], mu[1, :24])


@either
@pytest.mark.parametrize("size", [(64, 96), (33, 47), (1, 1)])
def test_a_style_photo_is_read_by_its_own_label_map(name, size):
    generator = make(name, upsampling="normal", encoder=True, encoder_width=3)
    ids, image = drawn(2, *size, 3), photo(2, 3, *size)
    with torch.no_grad():
        mu, logvar = generator.encode(image, LabelMap(ids))
        assert mu.shape == logvar.shape == (2, *generator.latent_shape(size))
        assert torch.equal(generator(ids, style=image), generator(ids, z=mu))
        alone = generator.encode(image[1:], LabelMap(ids[1:]))[0]
    torch.testing.assert_close(alone[0], mu[1], atol=1e-4, rtol=1e-4)


def test_a_grid_of_a_single_code_still_tells_photos_apart():
    generator = make("groupdnet", encoder=True, encoder_width=3)
    labels = LabelMap(drawn(1, 64, 64, 3))
    with torch.no_grad():
        one, other = (generator.encode(photo(1, 3, 64, 64, seed=seed), labels)[0] for seed in (0, 1))
    assert one.shape == (1, 24, 1, 1)
    assert not torch.allclose(one, other)


def test_a_photo_of_another_size_is_resized_to_its_label_map():
    generator = make("groupdnet", encoder=True, encoder_width=3)
    labels = LabelMap(drawn(1, 64, 96, 3))
    image = photo(1, 3, 20, 30)
    large = F.interpolate(image, size=(64, 96), mode="bilinear", align_corners=False)
    with torch.no_grad():
        assert torch.equal(generator.encode(image, labels)[0], generator.encode(large, labels)[0])


@either
def test_what_cannot_be_encoded_is_refused(name):
    generator = create_generator(name, num_classes=3, width=1, encoder=True)
    with pytest.raises(CladeError, match="needs its label map"):
        generator.encode(photo(1, 3, 8, 8))
    with pytest.raises(CladeError, match="2 style photos came with 1 label maps"):
        generator(drawn(1, 8, 8, 3), style=photo(2, 3, 8, 8))
    with pytest.raises(LabelError, match="have class 3"):
        generator.encode(photo(1, 3, 8, 8), LabelMap(torch.full((1, 8, 8), 3)))
    with pytest.raises(CladeError, match="z and a style were both given"):
        generator(drawn(1, 8, 8, 3), z=noise(1, 24, 1, 1), style=photo(1, 3, 8, 8))
    with pytest.raises(CladeError, match="no style encoder"):
        create_generator(name, num_classes=3, width=1)(drawn(1, 8, 8, 3), style=photo(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder_width": 4}, r"4 channels at its first layer.*3 classes.*multiple of 3"),
        ({"encoder_width": 0}, r"multiple of 3"),
        ({"encoder_layers": 0}, r"0 layers"),
    ],
)
def test_an_encoder_that_cannot_be_is_refused(options, message):
    with pytest.raises(CladeError, match=message):
        create_generator("groupdnet", num_classes=3, width=1, encoder=True, **options)


@pytest.mark.parametrize(("rows", "width"), [(8, 256), (151, 604), (35, 245), (1, 256), (300, 1200)])
def test_the_encoders_own_width_divides_among_the_classes(rows, width):
    with torch.device("meta"):
        assert GroupEncoder(num_rows=rows).convs[0].out_channels == width


def test_five_layers_make_the_same_grid_from_smaller_cut_outs():
    generator = make("groupdnet", encoder=True, encoder_width=3, encoder_layers=5)
    with torch.no_grad():
        mu, _ = generator.encode(photo(1, 3, 70, 130), LabelMap(drawn(1, 70, 130, 3)))
    assert mu.shape == (1, *generator.latent_shape((70, 130)))


@either
def test_training_reaches_generator_and_encoder(name):
    torch.manual_seed(0)
    generator = create_generator(
        name, num_classes=3, width=2, upsampling="normal", encoder=True, encoder_width=3, instance_edges=True
    ).train()
    labels, real = LabelMap(drawn(2, 64, 64, 3)), photo(2, 3, 64, 64)
    z, mu, logvar = generator.training_latent(labels, real, noise(2, *generator.latent_shape((64, 64))))
    torch.testing.assert_close(z, reparameterize(mu, logvar, noise(*z.shape)))
    image = generator(labels, z=z)
    (image * noise(*image.shape)).sum().backward()
    for key, parameter in generator.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
    assert generator.encoder.to_logvar.weight.grad.any()


@either
@torch.no_grad()
def test_mixed_precision_is_near_full_precision(name):
    generator = make(name, encoder=True, encoder_width=12, instance_edges=True, upsampling="normal")
    for parameter in generator.encoder.to_mu.parameters():
        parameter.mul_(20)  # far from the prior, so that the image depends on the style
    labels = LabelMap(drawn(1, 64, 64, 3), drawn(1, 64, 64, 5, seed=1))
    image, another = photo(1, 3, 64, 64), photo(1, 3, 64, 64, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, codes = generator(labels, style=image), generator.encode(image, labels)
    full, far = (generator(labels, style=style) for style in (image, another))
    assert full.std() > 0.1
    assert (mixed.float() - full).abs().mean() < 0.01
    assert (far - full).abs().mean() > 0.02
    full_codes, far_codes = (generator.encode(style, labels) for style in (image, another))
    for own, expected, wrong in zip(codes, full_codes, far_codes, strict=True):
        assert (own.float() - expected).abs().mean() < 0.03 * expected.std()
        assert (wrong - expected).abs().mean() > 0.3 * expected.std()


@either
def test_a_checkpoint_keeps_the_encoder(name, tmp_path):
    generator = make(name, encoder=True, encoder_width=3)
    clade.save(generator, tmp_path / "g.safetensors")
    again = clade.read_checkpoint(tmp_path / "g.safetensors").generator
    ids, image = drawn(1, 64, 64, 3), photo(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(ids, style=image), generator(ids, style=image))

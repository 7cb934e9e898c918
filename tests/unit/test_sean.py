"""SEAN: style codes as region means, mixing, the mean style, noise, and what CLADE's label part changes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional as F

from clade import CladeError, LabelError, LabelMap, LabelPyramid, create_generator
from clade.complexity import profile
from clade.models import RegionEncoder, generator_options
from clade.models.generators.sean import MOMENTUM, STYLED_BLOCKS
from clade.nn import ACE, CLADE, SPADE, ClassLinear

ROWS, DIM = 4, 5
BOTH = pytest.mark.parametrize("name", ["sean", "sean-clade"])


def make(name="sean", seed=0, **options):
    """A tiny network all of whose parameters, running statistics and mean styles differ from their start."""
    torch.manual_seed(seed)
    if name == "sean":
        options = {"hidden": 4, **options}
    generator = create_generator(name, num_classes=ROWS, width=2, style_dim=DIM, encoder_width=2, **options).eval()
    scatter(generator)
    with torch.no_grad():
        generator.style_mean.normal_()
        generator.style_var.uniform_(0.5, 2)
    return generator


def scatter(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.3)
        for key, buffer in module.named_buffers():
            if key.endswith("running_mean"):
                buffer.normal_()
            if key.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return module


def drawn(n=1, height=32, width=48, seed=0, classes=ROWS):
    source = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, classes, (n, height // 8, width // 8), generator=source)
    return coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)


def photos(n=1, height=32, width=48, seed=0):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def draw(generator, *args, seed=0, **kwargs):
    torch.manual_seed(seed)
    with torch.no_grad():
        return generator(*args, **kwargs)


def quiet(generator):
    """The generator without noise."""
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, ACE):
                module.noise_var.zero_()
    return generator


def aces(generator):
    return [module for module in generator.modules() if isinstance(module, ACE)]


# --- Style codes ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_style_codes_are_the_means_of_the_features_over_each_class():
    generator = make()
    ids = drawn(2)
    assert len(ids.unique()) == ROWS
    codes, logvar = generator.encode(photos(2), LabelMap(ids))
    assert logvar is None
    features = generator.encoder.features(photos(2))
    assert features.shape == (2, DIM, 16, 24)
    for n in range(2):
        small = ids[n, ::2, ::2]
        for k in range(ROWS):
            inside = [features[n, :, i, j] for i in range(16) for j in range(24) if small[i, j] == k]
            expected = torch.stack(inside).mean(0) if inside else generator.style_mean[k]
            torch.testing.assert_close(codes[n, k], expected)


@torch.no_grad()
def test_the_encoder_is_its_convolutions_one_after_the_other():
    encoder = scatter(RegionEncoder(width=3, style_dim=DIM))
    x = photos(2, 12, 20)
    for k, conv in enumerate(encoder.convs):
        if k == 0:
            x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), conv.weight, conv.bias)
        elif k == 3:
            x = F.conv_transpose2d(x, conv.weight, conv.bias, stride=2, padding=1, output_padding=1)
        else:
            x = F.conv2d(x, conv.weight, conv.bias, stride=2, padding=1)
        mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), unbiased=False, keepdim=True)
        x = (x - mean) / (var + 1e-5).sqrt()
        x = torch.where(x > 0, x, 0.2 * x)
    x = torch.tanh(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), encoder.to_style.weight, encoder.to_style.bias))
    torch.testing.assert_close(encoder.features(photos(2, 12, 20)), x, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_class_that_the_photo_does_not_have_takes_the_mean_style():
    generator = make()
    ids = torch.zeros(1, 32, 32, dtype=torch.long)
    ids[:, :, 16:] = 2
    codes = generator.encode(photos(1, 32, 32), LabelMap(ids))[0][0]
    assert torch.equal(codes[[1, 3]], generator.style_mean[[1, 3]])
    assert (codes[[0, 2]] - generator.style_mean[[0, 2]]).abs().amax(1).gt(0.01).all()
    assert codes[[0, 2]].abs().max() <= 1  # means of a tanh


@torch.no_grad()
def test_the_photos_label_map_may_have_another_size():
    generator = make()
    ids = drawn(1)
    codes = generator.encode(photos(), LabelMap(ids))[0]
    large = LabelMap(ids.repeat_interleave(3, 1).repeat_interleave(3, 2))
    torch.testing.assert_close(generator.encode(photos(), large)[0], codes)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 1), (3, 5), (17, 31)])
@BOTH
def test_tiny_and_odd_photos_have_a_style(name, size):
    generator = make(name)
    codes = generator.encode(photos(2, *size), LabelMap(drawn(2, 40, 40)))[0]
    assert codes.shape == (2, ROWS, DIM)
    assert codes.isfinite().all()
    assert draw(generator, drawn(2, 40, 40), style=photos(2, *size)).isfinite().all()


def test_a_style_photo_without_its_label_map_is_refused():
    with pytest.raises(CladeError, match=r"came without its label map.*encode\(photo, label_map\)"):
        make().encode(photos())
    with pytest.raises(CladeError, match=r"2 style photos came with 1 label maps.*its own label map"):
        make().encode(photos(2), LabelMap(drawn(1)))
    with pytest.raises(LabelError, match="have class 4"):
        make().encode(photos(), LabelMap(drawn(1) + 1))


@BOTH
def test_training_reaches_encoder_and_layers_through_the_codes(name):
    generator = make(name).train()
    z, mu, logvar = generator.training_latent(LabelMap(drawn(2)), photos(2), torch.randn(2, ROWS, DIM))
    assert mu is None
    assert logvar is None
    image = generator(drawn(2), z=z)
    (image * torch.randn(image.shape)).sum().backward()
    for key, parameter in generator.named_parameters():
        frozen = "blending" in key and int(key.split(".")[1]) >= STYLED_BLOCKS
        assert parameter.requires_grad is not frozen
        assert frozen or (parameter.grad.isfinite().all() and parameter.grad.any()), key


# --- Whose style ------------------------------------------------------------------------------------------------------


@BOTH
def test_a_photo_given_as_style_is_the_photo_of_the_map_that_is_drawn(name):
    generator = make(name)
    ids = drawn(2)
    with torch.no_grad():
        codes = generator.encode(photos(2), LabelMap(ids))[0]
    assert torch.equal(draw(generator, ids, style=photos(2)), draw(generator, ids, z=codes))


@BOTH
def test_another_photo_gives_its_style_through_its_own_label_map(name):
    generator = quiet(make(name))
    ids, other = drawn(1), drawn(1, 64, 64, seed=1)
    with torch.no_grad():
        codes = generator.encode(photos(1, 64, 64, seed=1), LabelMap(other))[0]
    styled = draw(generator, ids, z=codes)
    assert styled.shape == (1, 3, 32, 48)
    assert not torch.allclose(styled, draw(generator, ids, style=photos()), atol=1e-2)
    twice = draw(generator, ids.expand(2, -1, -1), z=codes)
    torch.testing.assert_close(twice, styled.expand(2, -1, -1, -1), atol=1e-5, rtol=0)


@BOTH
def test_without_a_style_every_class_has_its_mean_style(name):
    generator = make(name)
    ids = drawn(2)
    assert torch.equal(draw(generator, ids), draw(generator, ids, z=generator.style_mean[None]))


@torch.no_grad()
def test_the_prior_is_normal_around_the_mean_style():
    generator = make()
    noise = torch.randn(3, ROWS, DIM)
    torch.testing.assert_close(generator.prior(torch.zeros(1, ROWS, DIM))[0], generator.style_mean)
    torch.testing.assert_close(
        (generator.prior(noise) - generator.style_mean) / noise, generator.style_var.sqrt().expand(3, -1, -1)
    )
    fresh = create_generator("sean", num_classes=2, width=1, style_dim=3, encoder_width=1)
    noise = torch.randn(2, 2, 3)
    assert torch.equal(fresh.prior(noise), noise)


@torch.no_grad()
def test_validation_draws_with_the_style_of_the_real_photos():
    generator = make()
    expected = generator.encode(photos(2), LabelMap(drawn(2)))[0]
    assert torch.equal(generator.validation_latent(LabelMap(drawn(2)), photos(2)), expected)


def test_the_style_of_some_classes_comes_from_another_picture():
    generator = make()
    one, other = torch.randn(2, ROWS, DIM), torch.randn(1, ROWS, DIM)
    mixed = generator.mix(one, other, [1, 3])
    assert torch.equal(mixed[:, [0, 2]], one[:, [0, 2]])
    assert torch.equal(mixed[:, [1, 3]], other[:, [1, 3]].expand(2, -1, -1))
    assert torch.equal(generator.mix(one, other, []), one)
    assert generator.mix(other, one, [0]).shape == one.shape


@BOTH
def test_a_mixed_style_changes_the_picture_only_near_its_class(name):
    generator = quiet(make(name))
    ids = torch.zeros(1, 32, 512, dtype=torch.long)
    ids[:, :, 448:] = 1
    one, other = torch.randn(2, 1, ROWS, DIM)
    image, mixed = (draw(generator, ids, z=z) for z in (one, generator.mix(one, other, [1])))
    assert not torch.allclose(mixed[..., 448:], image[..., 448:], atol=1e-2)
    torch.testing.assert_close(mixed[..., :32], image[..., :32], atol=1e-5, rtol=0)
    absent = draw(generator, ids, z=generator.mix(one, other, [2, 3]))
    assert torch.equal(absent, image)


def test_what_cannot_be_mixed_is_refused():
    generator, codes = make(), torch.zeros(2, ROWS, DIM)
    with pytest.raises(CladeError, match=r"no class 4 to mix: classes are 0 to 3"):
        generator.mix(codes, codes, [0, 4])
    with pytest.raises(CladeError, match=r"shape \(2, 4, 6\) came; needed is \(N, 4, 5\)"):
        generator.mix(codes, torch.zeros(2, ROWS, DIM + 1), [0])
    with pytest.raises(CladeError, match="2 and 3 style codes cannot be mixed"):
        generator.mix(codes, torch.zeros(3, ROWS, DIM), [0])


@pytest.mark.parametrize("shape", [(1, ROWS + 1, DIM), (1, ROWS, DIM + 1), (3, ROWS, DIM), (ROWS, DIM)])
def test_codes_of_another_shape_are_refused(shape):
    with pytest.raises(CladeError, match=r"z has shape .* needed is \(2, 4, 5\)"):
        make()(drawn(2), z=torch.zeros(shape))


def test_codes_and_a_photo_together_are_refused():
    with pytest.raises(CladeError, match="z and a style were both given"):
        make()(drawn(), z=torch.zeros(1, ROWS, DIM), style=photos())


# --- Statistics of the styles over training ---------------------------------------------------------------------------


def codes_seen(generator, batches):
    """All codes of present classes in the batches, class by class."""
    seen = [[] for _ in range(ROWS)]
    for ids, image in batches:
        codes = generator.encode(image, LabelMap(ids))[0]
        for n in range(len(ids)):
            for k in ids[n].unique():
                seen[k].append(codes[n, k])
    return seen


def fresh(**options):
    generator = make(**options)
    generator.style_mean.zero_()
    generator.style_var.fill_(1)
    return generator


@torch.no_grad()
def test_mean_styles_are_those_of_all_photos_seen_as_long_as_these_are_few():
    generator = fresh().train()
    # Class 3 never comes; half of the maps have classes 0 and 1 only.
    batches = [(drawn(3, seed=k, classes=2 + k % 2), photos(3, seed=k)) for k in range(6)]
    for ids, image in batches:
        generator.training_latent(LabelMap(ids), image, None)
    for k, seen in enumerate(codes_seen(generator, batches)):
        assert generator.style_count[k] == len(seen)
        assert bool(seen) is (k < 3)
        mean = torch.stack(seen).mean(0) if seen else torch.zeros(DIM)
        var = torch.stack(seen).var(0, unbiased=False) if seen else torch.ones(DIM)
        torch.testing.assert_close(generator.style_mean[k], mean)
        torch.testing.assert_close(generator.style_var[k], var, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_after_many_photos_the_latest_ones_count_a_hundredth_each_batch():
    generator = fresh().train()
    generator.style_count.fill_(10_000)
    ids, image = drawn(2, classes=2), photos(2)
    generator.training_latent(LabelMap(ids), image, None)
    for k, seen in enumerate(codes_seen(generator, [(ids, image)])):
        mean = MOMENTUM * torch.stack(seen).mean(0) if seen else torch.zeros(DIM)
        torch.testing.assert_close(generator.style_mean[k], mean, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_statistics_move_in_training_only():
    generator = make()
    before = copy.deepcopy(generator.state_dict())
    generator.training_latent(LabelMap(drawn(2)), photos(2), None)
    generator.counted_forward(LabelPyramid(LabelMap(drawn()), ROWS))
    generator.train()
    generator.validation_latent(LabelMap(drawn(2)), photos(2))
    generator.encode(photos(2), LabelMap(drawn(2)))
    after = generator.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before if "style_" in key)


def observe(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.set_num_threads(1)
    generator = fresh().train()
    for k in range(2):
        mine = slice(2 * rank, 2 * rank + 2)
        generator.training_latent(LabelMap(drawn(4, seed=k, classes=3)[mine]), photos(4, seed=k)[mine], None)
    torch.save(dict(generator.named_buffers(recurse=False)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@torch.no_grad()
def test_several_processes_gather_the_statistics_of_all(tmp_path):
    mp.spawn(observe, (str(tmp_path),), nprocs=2)
    generator = fresh().train()
    for k in range(2):
        generator.training_latent(LabelMap(drawn(4, seed=k, classes=3)), photos(4, seed=k), None)
    expected = dict(generator.named_buffers(recurse=False))
    assert set(expected) == {"style_mean", "style_var", "style_count"}
    for rank in range(2):
        for key, value in torch.load(tmp_path / f"{rank}.pt", weights_only=True).items():
            torch.testing.assert_close(value, expected[key], atol=1e-6, rtol=1e-5)


# --- Noise ------------------------------------------------------------------------------------------------------------


@BOTH
def test_noise_is_drawn_by_torchs_random_numbers(name):
    generator = make(name)
    ids = drawn(1)
    assert torch.equal(draw(generator, ids, seed=1), draw(generator, ids, seed=1))
    assert not torch.allclose(draw(generator, ids, seed=1), draw(generator, ids, seed=2), atol=1e-3)


@BOTH
def test_a_fresh_network_has_no_noise(name):
    generator = create_generator(name, num_classes=ROWS, width=2, style_dim=DIM, encoder_width=2).eval()
    assert torch.equal(draw(generator, drawn(), seed=1), draw(generator, drawn(), seed=2))


def test_every_layer_draws_once_per_forward_in_the_order_of_the_network(monkeypatch):
    generator = make()
    shapes, randn = [], torch.randn

    def recorded(*shape, device=None):
        shapes.append(shape)
        return randn(*shape, device=device)

    monkeypatch.setattr(torch, "randn", recorded)
    generator(drawn(2, 32, 64))
    scales = [32, 32, 16, 16, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1]
    assert shapes == [(2, 64 // s, 32 // s, 1) for s in scales]  # width first


# --- The layer --------------------------------------------------------------------------------------------------------


def pyramid(n=2, height=6, width=10, style=True):
    ids = torch.randint(0, ROWS, (n, height, width), generator=torch.Generator().manual_seed(3))
    labels = LabelPyramid(LabelMap(ids), ROWS)
    labels.style = torch.randn(n, ROWS, DIM, generator=torch.Generator().manual_seed(4)) if style else None
    return labels


@torch.no_grad()
@pytest.mark.parametrize("style_layers", [None, 7])
@pytest.mark.parametrize("styled", [True, False])
@pytest.mark.parametrize("label", ["spade", "clade"])
def test_the_layer_is_its_equation(label, styled, style_layers):
    layer = ACE(3, num_rows=ROWS, style_dim=DIM if styled else None, style_layers=style_layers, label=label, hidden=4)
    scatter(layer).double().eval()
    labels, x = pyramid(), torch.randn(2, 3, 6, 10, dtype=torch.float64)
    labels.style = labels.style.double()
    ids = labels.ids((6, 10)).long()
    torch.manual_seed(5)
    noise = torch.randn(2, 10, 6, 1)
    torch.manual_seed(5)
    actual = layer(x, labels)
    noisy = x + (noise.double() * layer.noise_var).transpose(1, 3)
    mean, var = (s.view(1, -1, 1, 1) for s in (layer.normalize.running_mean, layer.normalize.running_var))
    normalized = (noisy - mean) / (var + 1e-5).sqrt()
    if label == "spade":
        one_hot = F.one_hot(ids, ROWS).movedim(-1, 1).double()
        hidden = layer.label.shared(one_hot).clamp(min=0)
        scale, shift = 1 + layer.label.to_gamma(hidden), layer.label.to_beta(hidden)
    else:
        scale, shift = layer.label.gamma[ids].movedim(-1, 1), layer.label.beta[ids].movedim(-1, 1)
    if styled:
        style = torch.empty(2, DIM, 6, 10, dtype=torch.float64)
        for n in range(2):
            for i in range(6):
                for j in range(10):
                    k = ids[n, i, j]
                    mu = layer.style.weight[k] @ labels.style[n, k] + layer.style.bias[k]
                    style[n, :, i, j] = mu.clamp(min=0)
        a, b = torch.sigmoid(layer.blending_gamma), torch.sigmoid(layer.blending_beta)
        scale = a * (1 + layer.style_gamma(style)) + (1 - a) * scale
        shift = b * layer.style_beta(style) + (1 - b) * shift
    torch.testing.assert_close(actual, normalized * scale + shift)


def test_a_styled_layer_asks_for_codes():
    layer = ACE(3, num_rows=ROWS, style_dim=DIM)
    with pytest.raises(CladeError, match=r"reads style codes \(2, 4, 5\) in labels\.style.*none came"):
        layer(torch.randn(2, 3, 6, 10), pyramid(style=False))
    labels = pyramid()
    labels.style = torch.zeros(2, ROWS, DIM + 1)
    with pytest.raises(CladeError, match=r"they are \(2, 4, 6\)"):
        layer(torch.randn(2, 3, 6, 10), labels)


def test_impossible_options_are_refused():
    with pytest.raises(CladeError, match="style_layers is 3, but there are 4 classes"):
        make(style_layers=3)
    with pytest.raises(CladeError, match="style_dim is 0"):
        create_generator("sean", num_classes=2, style_dim=0)
    with pytest.raises(CladeError, match=r"no label part 'spad'.*Did you mean 'spade'"):
        ACE(3, num_rows=2, label="spad")
    with pytest.raises(CladeError, match="no normalization 'layer'"):
        make(normalization="layer")


def test_class_layers_start_as_linear_layers_do():
    layer = ClassLinear(3, 200)
    assert not layer.bias.any()
    assert layer.weight.std((1, 2)).sub(0.02 * 200**-0.5).abs().max() < 1e-4


# --- SPADE's label part, CLADE's, and the whole -----------------------------------------------------------------------


def test_options_are_those_that_mean_something():
    common = {"num_classes", "unknown_class", "instance_edges", "width", "upsampling", "normalization"}
    own = {"style_dim", "style_layers", "encoder_width"}
    assert set(generator_options("sean-clade")) == common | own
    assert set(generator_options("sean")) == common | own | {"hidden"}


@torch.no_grad()
def test_sean_clade_is_sean_where_spades_modulation_is_one_per_class():
    sean, ours = make("sean"), make("sean-clade")
    for layer, other in zip(aces(sean), aces(ours), strict=True):
        spade, clade = layer.label, other.label
        assert isinstance(spade, SPADE)
        assert isinstance(clade, CLADE)
        hidden, channels = spade.shared.out_channels, spade.out_channels
        assert hidden == ROWS
        # The hidden channels are the one-hot labels, and the centre of the second kernel is the table.
        gamma, beta = torch.rand(ROWS, channels), torch.randn(ROWS, channels)
        for conv in (spade.shared, spade.to_gamma, spade.to_beta):
            conv.weight.zero_()
            conv.bias.zero_()
        spade.shared.weight[:, :, 1, 1] = torch.eye(ROWS)
        spade.to_gamma.weight[:, :, 1, 1] = gamma.t()
        spade.to_beta.weight[:, :, 1, 1] = beta.t()
        clade.gamma.copy_(1 + gamma)
        clade.beta.copy_(beta)
    known = ours.state_dict()
    shared = {key: value for key, value in sean.state_dict().items() if key in known}
    missing = ours.load_state_dict(shared, strict=False).missing_keys
    assert missing
    assert all(".label." in key for key in missing)
    torch.testing.assert_close(
        draw(ours, drawn(2), style=photos(2)), draw(sean, drawn(2), style=photos(2)), atol=1e-4, rtol=0
    )


def test_sean_clade_carries_nothing_unused():
    keys = make("sean-clade", instance_edges=True).state_dict()
    assert {key.split(".label.")[1] for key in keys if ".label." in key} == {
        *("gamma", "beta", "edge.weight", "edge.bias"),
    }
    assert not any("blending" in key and int(key.split(".")[1]) >= STYLED_BLOCKS for key in keys)


def test_the_edge_is_a_channel_more_for_clade_and_one_of_the_input_for_spade():
    sean, ours = make("sean", instance_edges=True), make("sean-clade", instance_edges=True)
    assert sean.blocks[0].conv1.in_channels + 1 == ours.blocks[0].conv1.in_channels == 33
    assert sean.blocks[0].norm1.label.shared.in_channels == ROWS + 1


@pytest.mark.parametrize("upsampling", ["normal", "most"])
@BOTH
def test_blocks_from_up_3_on_have_no_style(name, upsampling):
    generator = make(name, upsampling=upsampling)
    for k, block in enumerate(generator.blocks):
        for layer in (block.norm1, block.norm2, block.norm_shortcut):
            assert layer is None or (layer.style_dim is not None) is (k < STYLED_BLOCKS)


@BOTH
@pytest.mark.parametrize("normalization", ["batch", "instance"])
def test_half_precision_stays_near_and_trains(name, normalization):
    options = {"hidden": 4} if name == "sean" else {}
    torch.manual_seed(0)
    generator = scatter(
        create_generator(
            name, num_classes=ROWS, width=8, style_dim=16, encoder_width=4, normalization=normalization, **options
        )
    )
    ids, image = drawn(2, 64, 64), coarse_photos(seed=0)
    generator.train()
    with torch.autocast("cpu", torch.bfloat16):
        z = generator.training_latent(LabelMap(ids), image, None)[0]
        half = generator(ids, z=z)
    half.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in generator.parameters() if p.requires_grad)
    assert generator.style_mean.dtype == torch.float32
    generator.eval()
    full = draw(generator, ids, style=image)
    assert full.std() > 0.1
    with torch.autocast("cpu", torch.bfloat16):
        half = draw(generator, ids, style=image)
    assert (half.float() - full).abs().mean() < 0.015
    for another in ({}, {"style": coarse_photos(seed=1)}):  # the mean style, and that of other photos
        assert (draw(generator, ids, **another) - full).abs().mean() > 0.03


def coarse_photos(seed):
    """Two photos whose regions differ so much that their styles do."""
    return photos(2, 4, 4, seed=seed).repeat_interleave(16, 2).repeat_interleave(16, 3)


@pytest.mark.parametrize(("name", "params", "macs"), [("sean", 266.907, 346.27), ("sean-clade", 241.690, 247.10)])
def test_full_size_costs(name, params, macs):
    with torch.device("meta"):
        generator = create_generator(name, num_classes=19)
    cost = profile(generator, (256, 256))
    assert round(cost.params / 1e6, 3) == params
    assert round(cost.macs / 1e9, 2) == macs
    style = cost.by_part["style"]
    assert style[0] == sum(p.numel() for p in generator.encoder.parameters())
    assert style[1] > 0


def test_leaky_relus_of_the_encoder_are_modules_which_the_papers_counting_counts():
    assert sum(isinstance(module, nn.LeakyReLU) for module in RegionEncoder().modules()) == 4

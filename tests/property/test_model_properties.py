"""What must not change an image: how classes are numbered, which way the picture faces, and norms in other words."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import clade
from clade import LabelMap, create_generator, list_generators
from clade.models import GENERATORS, generator_options
from clade.models.generators.sean import SeanShapedGenerator
from clade.models.generators.spade_shaped import SpadeShapedGenerator
from clade.nn import CLADE, SPADE, ClassLinear

CLASSES = 4
SHAPED = [name for name in list_generators() if issubclass(GENERATORS[name], SpadeShapedGenerator)]
# Networks that read the labels in their stem and in normalization layers only; CC-FPSE also makes features of them, by
# convolutions of stride 2, which no mirror leaves alone.
PLAIN = [name for name in SHAPED if name != "cc-fpse"]


def make(name, seed=0, **options):
    """A tiny network all of whose parameters and running statistics differ from their start; SEAN's draws no noise."""
    torch.manual_seed(seed)
    tiny = {"hidden": 4, "style_dim": 4, "encoder_width": 1}
    options = {**{key: value for key, value in tiny.items() if key in generator_options(name)}, **options}
    generator = create_generator(name, num_classes=CLASSES, width=2, **options).eval()
    with torch.no_grad():
        for key, parameter in generator.named_parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.0 if key.endswith("noise_var") else 0.3)
        for key, buffer in generator.named_buffers():
            if key.endswith(("running_mean", "style_mean")):
                buffer.normal_()
            if key.endswith("running_var"):
                buffer.uniform_(0.5, 2)
        if generator.plain_batch_norm:  # its predicted weights multiply each other, and overflow without statistics
            for _ in range(3):
                generator.train()(drawn(2, 64, 64))
    return generator.eval()


def latents(generator, ids):
    """One set of latents, for a network that would draw them."""
    shape = generator.latent_shape(tuple(ids.shape[1:]))
    return None if shape is None else generator.prior(torch.ones(len(ids), *shape))


def drawn(n, height, width, seed=0, classes=CLASSES):
    source = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, classes, (n, -(-height // 8), -(-width // 8)), generator=source)
    return coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width].contiguous()


@torch.no_grad()
def renumber(generator, order):
    """Move what belongs to class k to class ``order[k]``: table rows, and input channels that read one-hot labels."""
    if isinstance(generator, SeanShapedGenerator):
        generator.style_mean[order] = generator.style_mean.clone()
    for module in generator.modules():
        if isinstance(module, CLADE):
            for table in (module.gamma, module.beta):
                table[order] = table.clone()
        if isinstance(module, ClassLinear):
            for table in (module.weight, module.bias):
                table[order] = table.clone()
        if isinstance(module, SPADE):
            module.shared.weight[:, order] = module.shared.weight[:, : len(order)].clone()
    if isinstance(generator.stem, nn.Conv2d):
        generator.stem.weight[:, order] = generator.stem.weight[:, : len(order)].clone()
    return generator


@settings(max_examples=8, deadline=None)
@given(st.permutations(range(CLASSES)), st.sampled_from(PLAIN), st.booleans())
def test_the_numbering_of_classes_changes_nothing(order, name, edges):
    generator = make(name, instance_edges=edges)
    order = torch.tensor(order)
    ids = drawn(1, 40, 64)
    with torch.no_grad():
        expected = generator(ids)
        renumbered = renumber(generator, order)(order[ids])
    torch.testing.assert_close(renumbered, expected, atol=1e-5, rtol=0)


def test_renumbering_is_seen_where_only_the_labels_change():
    generator = make("clade")
    ids = drawn(1, 40, 64)
    with torch.no_grad():
        assert not torch.allclose(generator(ids), generator((ids + 1) % CLASSES), atol=1e-2)


@pytest.mark.parametrize("name", [name for name in PLAIN if "z_dim" in generator_options(name)])
def test_equal_modulation_of_all_classes_leaves_no_trace_of_the_labels_after_the_stem(name):
    """A latent generator whose modulation is one and the same for all classes draws the same image for all maps."""
    generator = make(name, z_dim=4, size=(32, 32))
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, CLADE):
                module.gamma.copy_(module.gamma[:1].expand_as(module.gamma))
                module.beta.copy_(module.beta[:1].expand_as(module.beta))
                if module.uses_positions:
                    for part in (module.position_gamma, module.position_beta):
                        part.weight.zero_()
                        part.bias.zero_()
            if isinstance(module, SPADE):
                module.shared.weight.zero_()
        z = torch.randn(1, 4)
        one, other = (generator(drawn(1, 32, 32, seed), z=z) for seed in (0, 1))
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_equal_rows_make_clade_a_network_of_plain_batch_norm(training):
    generator = make("clade", z_dim=4, size=(64, 64)).train(training)
    plain = make("clade", z_dim=4, size=(64, 64)).train(training)

    class Plain(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.norm = nn.BatchNorm2d(layer.gamma.shape[1])
            self.norm.load_state_dict({"weight": layer.gamma[0], "bias": layer.beta[0], **layer.normalize.state_dict()})

        def forward(self, x, labels):
            return self.norm(x)

    with torch.no_grad():
        for block, other in zip(generator.blocks, plain.blocks, strict=True):
            for key in ("norm1", "norm2", "norm_shortcut"):
                layer = getattr(block, key)
                if layer is not None:
                    layer.gamma.copy_(layer.gamma[:1].expand_as(layer.gamma))
                    layer.beta.copy_(layer.beta[:1].expand_as(layer.beta))
                    setattr(other, key, Plain(layer).train(training))
        z = torch.randn(2, 4)
        torch.testing.assert_close(generator(drawn(2, 64, 64), z=z), plain(drawn(2, 64, 64), z=z), atol=1e-4, rtol=0)


@torch.no_grad()
def face_the_other_way(generator):
    """Mirror every kernel, and the first of the offsets' two directions that is horizontal."""
    for module in generator.modules():
        if isinstance(module, nn.Conv2d):
            weight = module.parametrizations.weight.original if hasattr(module, "parametrizations") else module.weight
            weight.copy_(weight.flip(3))
            if hasattr(module, "parametrizations"):
                norm = module.parametrizations.weight[0]
                norm._v.copy_(norm._v.view(1, *weight.shape[1:]).flip(3).flatten())
        if isinstance(module, CLADE) and module.uses_positions:
            for part in (module.position_gamma, module.position_beta):
                part.weight[:, 1].neg_()
    return generator


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_mirrored_map_gives_the_mirrored_image_where_the_kernels_are_mirrored(name, seed):
    # Every 32 columns are equal, so that nearest resizing takes the same labels from either side.
    ids = torch.randint(0, CLASSES, (1, 2, 3), generator=torch.Generator().manual_seed(seed))
    ids = ids.repeat_interleave(32, 1).repeat_interleave(32, 2)
    generator = make(name, instance_edges=False)
    offsets = torch.randn(1, 2, 2, 3).repeat_interleave(32, 2).repeat_interleave(32, 3)
    mirrored = offsets.flip(3) * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    with torch.no_grad():
        image = generator(LabelMap(ids, positions=offsets))
        other = face_the_other_way(generator)(LabelMap(ids.flip(2), positions=mirrored))
    torch.testing.assert_close(other, image.flip(3), atol=2e-5, rtol=0)


def test_positions_do_not_depend_on_how_classes_are_numbered():
    generator = make("clade-icpe")
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, CLADE):
                module.gamma.copy_(module.gamma[:1].expand_as(module.gamma))
                module.beta.copy_(module.beta[:1].expand_as(module.beta))
        generator.stem.weight.copy_(generator.stem.weight.mean(1, keepdim=True).expand_as(generator.stem.weight))
        ids = drawn(1, 40, 64)
        expected = generator(ids)
        for order in ([1, 2, 3, 0], [3, 2, 1, 0]):
            torch.testing.assert_close(generator(torch.tensor(order)[ids]), expected, atol=1e-6, rtol=0)
        # With every class alike, the shapes of the objects still decide, through the positions.
        assert not torch.allclose(generator(drawn(1, 40, 64, seed=1)), expected, atol=1e-3)


def test_clade_icpe_starts_as_clade_with_the_same_weights():
    generator = create_generator("clade-icpe", num_classes=CLASSES, width=2).eval()
    plain = create_generator("clade", num_classes=CLASSES, width=2).eval()
    missing = plain.load_state_dict(generator.state_dict(), strict=False)
    assert missing.missing_keys == []
    assert all("position" in key for key in missing.unexpected_keys)
    ids = drawn(1, 40, 64)
    with torch.no_grad():
        assert torch.equal(generator(ids), plain(ids))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(SHAPED))
def test_the_numbers_of_instances_do_not_matter(seed, name):
    generator = make(name, instance_edges=True)
    ids, instances = drawn(1, 40, 64), drawn(1, 40, 64, seed=seed, classes=6)
    numbers = torch.randperm(1000, generator=torch.Generator().manual_seed(seed))[:6]
    with torch.no_grad():
        z = latents(generator, ids)
        expected = generator(LabelMap(ids, instances), z=z)
        assert torch.equal(generator(LabelMap(ids, numbers[instances]), z=z), expected)
        assert expected.isfinite().all()


@pytest.mark.parametrize("name", SHAPED)
def test_a_synthesizer_draws_what_the_generator_draws(name):
    generator = make(name)
    ids = drawn(1, 40, 64)
    with torch.no_grad():
        z = latents(generator, ids)
        expected = generator(ids, z=z)
        assert expected.isfinite().all()
        image = clade.Synthesizer(generator, device="cpu", precision="fp32")(LabelMap(ids), z=z)
        torch.testing.assert_close(image, expected, atol=5e-5, rtol=0)  # cc-fpse itself is 2e-5 from float64
        assert torch.equal(generator(ids, z=z), expected)  # the one that was given is left as it is


def test_upsampling_of_the_label_map_by_two_and_nearest_labels_agree():
    """A layer at half the size sees every second pixel of the map."""
    layer = CLADE(3, num_rows=CLASSES).eval()
    ids = drawn(1, 32, 32)
    x = torch.randn(1, 3, 16, 16)
    full = clade.LabelPyramid(LabelMap(ids), CLASSES)
    half = clade.LabelPyramid(LabelMap(F.interpolate(ids[:, None].float(), scale_factor=0.5)[:, 0].long()), CLASSES)
    assert torch.equal(layer(x, full), layer(x, half))

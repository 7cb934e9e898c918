"""Minimal filtering: the sums of the plain convolution, of any size, and chosen by size and processor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clade import LabelMap, create_generator
from clade.engine import Engine, winograd
from clade.engine.convolutions import PackedConv2d, can_pack
from clade.engine.winograd import WinogradConv2d, can_multiply, choice, form, suitable

pytestmark = [
    pytest.mark.processor,
    pytest.mark.skipif(not can_multiply(), reason="this build of torch has no products of many small matrices"),
]

FORMS = [(4, 3), (2, 3), (3, 2), (2, 2)]


def convolution(kernel=3, channels_in=24, channels_out=17, bias=True):
    torch.manual_seed(0)
    return nn.Conv2d(channels_in, channels_out, kernel, padding=1, bias=bias).requires_grad_(False)


def always(monkeypatch, outputs):
    """Every convolution that has this form uses it, of whatever size."""
    monkeypatch.setattr(winograd, "choice", lambda i, o, kernel, size: outputs.get(kernel))


@pytest.mark.parametrize(("outputs", "kernel"), FORMS)
def test_a_form_is_the_convolution_of_one_dimension(outputs, kernel):
    f = form(outputs, kernel)
    assert f.points == outputs + kernel - 1
    d, w = torch.randn(f.points, dtype=torch.float64), torch.randn(kernel, dtype=torch.float64)
    expected = torch.stack([d[i : i + kernel] @ w for i in range(outputs)])
    y = f.a.double() @ ((f.g.double() @ w) * (f.b.double() @ d))
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("outputs", "kernel"), FORMS)
@pytest.mark.parametrize("size", [(16, 16), (8, 24), (9, 13), (4, 4), (1, 7), (6, 1), (2, 2), (130, 12)])
def test_it_is_the_plain_convolution(monkeypatch, outputs, kernel, size):
    always(monkeypatch, {kernel: outputs})
    conv = convolution(kernel)
    x = torch.randn(1, 24, *size)
    y = WinogradConv2d(conv)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(y, conv(x), atol=3e-5, rtol=1e-5)
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("width", [20, 21])
def test_what_is_not_in_the_picture_does_not_touch_it(monkeypatch, width):
    """Tiles lie in one row of memory: a pixel beside the border is a neighbour of the next line."""
    always(monkeypatch, {3: 4})
    conv = convolution()
    x = torch.zeros(1, 24, 12, width)
    x[..., 0], x[..., -1] = 1e6, -1e6
    torch.testing.assert_close(WinogradConv2d(conv)(x)[..., 2:-2], conv(x)[..., 2:-2], atol=1.0, rtol=0)
    x[...] = 0
    x[:, :, 5, 0] = float("inf")
    y = WinogradConv2d(conv)(x)
    assert y[:, :, 9:].isfinite().all()


def test_a_picture_does_not_depend_on_its_batch(monkeypatch):
    always(monkeypatch, {3: 4})
    layer = WinogradConv2d(convolution())
    x = torch.randn(3, 24, 36, 40)
    assert torch.equal(layer(x)[1:2], layer(x[1:2]))


@pytest.mark.parametrize("bias", [True, False])
def test_it_adds_a_map(monkeypatch, bias):
    always(monkeypatch, {3: 2})
    conv = convolution(bias=bias)
    x, add = torch.randn(2, 24, 10, 7), torch.randn(2, 17, 10, 7)
    kept = add.clone()
    torch.testing.assert_close(WinogradConv2d(conv)(x, add), conv(x) + add, atol=3e-5, rtol=1e-5)
    assert torch.equal(add, kept)


def test_sizes_that_follow_each_other_get_their_own_weights(monkeypatch):
    sides = {8: None, 16: 2, 32: 4, 1024: 4}
    monkeypatch.setattr(winograd, "choice", lambda i, o, kernel, size: sides[size[0]])
    conv = convolution()
    layer = WinogradConv2d(conv)
    if can_pack():
        layer.direct = PackedConv2d(conv)
    for side in (16, 32, 8, 32, 16, 8):
        x = torch.randn(1, 24, side, side)
        torch.testing.assert_close(layer(x), conv(x), atol=3e-5, rtol=1e-5)


def test_defaults_and_gradients_of_the_program_do_not_reach_it(monkeypatch):
    always(monkeypatch, {3: 4})
    conv = convolution()
    x = torch.randn(1, 24, 19, 22)
    expected = conv(x)
    winograd.form.cache_clear()
    winograd._kept.__dict__.clear()
    torch.set_default_dtype(torch.float64)
    try:
        torch.testing.assert_close(WinogradConv2d(conv)(x), expected, atol=3e-5, rtol=1e-5)
    finally:
        torch.set_default_dtype(torch.float32)
    assert not WinogradConv2d(conv)(x.requires_grad_()).requires_grad
    torch.testing.assert_close(WinogradConv2d(conv)(x.detach()), expected, atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("instruction_set", ["avx2", "avx512", "amx"])
def test_large_layers_are_worth_it_and_small_ones_are_not(monkeypatch, instruction_set):
    monkeypatch.setattr(winograd, "instruction_set", lambda: instruction_set)
    choice.cache_clear()
    try:
        assert choice(512, 512, 3, (32, 32)) == 4
        assert choice(256, 512, 2, (64, 64)) == 3
        assert choice(1024, 1024, 3, (4, 4)) is None
        assert choice(64, 3, 3, (256, 256)) is None
        assert choice(8, 8, 3, (512, 512)) is None
        many_weights = choice(1024, 1024, 3, (16, 16))
        few_channels = choice(64, 64, 3, (256, 256))
    finally:
        choice.cache_clear()
    # Where multiplying is slow against memory, it pays for more layers, be their weights many.
    assert (many_weights, few_channels) == ((2, 4) if instruction_set == "avx2" else (None, None))


@pytest.mark.parametrize(
    "changed",
    [{"stride": 2}, {"padding": 0}, {"dilation": 2}, {"groups": 2}, {"padding_mode": "reflect"}, {"kernel_size": 5}],
)
def test_other_convolutions_stay(changed):
    options = {"kernel_size": 3, "padding": 1}
    assert suitable(nn.Conv2d(256, 256, **options))
    assert not suitable(nn.Conv2d(256, 256, **(options | changed)))
    assert not suitable(nn.Conv2d(256, 256, **options).bfloat16())


@pytest.mark.parametrize("name", ["clade", "clade-icpe", "spade", "sean"])
def test_pictures_stay_what_they_are(monkeypatch, name):
    always(monkeypatch, {3: 4, 2: 3})
    torch.manual_seed(0)
    generator = create_generator(name, num_classes=5, width=2).eval()
    label_map = LabelMap(torch.randint(0, 5, (2, 8, 12)).repeat_interleave(8, 1).repeat_interleave(8, 2))
    engine = Engine(generator, precision="fp32")
    assert "winograd" in engine.applied
    assert any(isinstance(module, WinogradConv2d) for module in engine.generator.modules())
    with torch.no_grad():
        expected = generator(label_map)
    torch.testing.assert_close(engine(label_map), expected, atol=1e-4, rtol=0)


def test_it_is_left_out_where_it_loses(monkeypatch):
    """bf16 has too few digits for its sums; a small network has too few channels; without MKL it is slow."""
    small = create_generator("clade", num_classes=5, width=2).eval()
    assert "winograd" not in Engine(small, precision="fp32").applied
    always(monkeypatch, {3: 4})
    assert "winograd" in Engine(small, precision="fp32").applied
    assert "winograd" not in Engine(small, precision="bf16").applied
    monkeypatch.setattr("clade.engine.optimizations.can_multiply", lambda: False)
    assert "winograd" not in Engine(small, precision="fp32").applied


def test_codes_of_an_encoder_stay_exact(monkeypatch):
    always(monkeypatch, {3: 4})
    generator = create_generator("clade", num_classes=5, width=2, z_dim=8, encoder=True).eval()
    engine = Engine(generator, precision="fp32")
    assert not any(isinstance(module, WinogradConv2d) for module in engine.generator.encoder.modules())

"""Spectral norm inside autocast; its values and gradients in float32 are tested in test_nn.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clade.nn import conv2d
from clade.nn.spectral import SpectralNorm


def weight_of(conv):
    return conv.parametrizations.weight.original


@pytest.mark.parametrize("training", [True, False])
def test_autocast_rounds_the_weight_of_float32_once(training):
    conv, plain = (conv2d(5, 4, 3, spectral=True).train(training) for _ in range(2))
    conv.load_state_dict(plain.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        weight = conv.weight
    assert weight.dtype == torch.bfloat16
    assert torch.equal(weight, plain.weight.bfloat16())
    for (key, a), b in zip(conv.state_dict().items(), plain.state_dict().values(), strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b), key


def test_autocast_leaves_float64_alone():
    norm = SpectralNorm(torch.randn(4, 6)).double()
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(torch.randn(4, 6, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_under_autocast_is_the_equation_in_float32(memory_format):
    """dL/dW = (G - <G, W> / sigma u v^T) / sigma, of the G in 16 bits that comes."""
    torch.manual_seed(0)
    weight = torch.randn(8, 6, 3, 3, requires_grad=True)
    norm = SpectralNorm(weight).eval()
    given = torch.randn(8, 6, 3, 3).bfloat16().to(memory_format=memory_format)
    before = given.clone()
    with torch.autocast("cpu", torch.bfloat16):
        norm(weight).backward(given)
    assert torch.equal(given, before)
    w, g = weight.detach().double().flatten(1), given.double().flatten(1)
    u, v = norm._u.double(), norm._v.double()
    sigma = u @ w @ v
    expected = (g - (g * w).sum() / sigma * torch.outer(u, v)) / sigma
    assert weight.grad.dtype == torch.float32
    assert weight.grad.is_contiguous()
    assert torch.allclose(weight.grad.double().flatten(1), expected, rtol=1e-5, atol=1e-6)


def test_nothing_but_the_weight_itself_is_kept_for_the_backward_pass():
    """Where the convolution gets 16 bits, the quotient in float32 would be one more copy of the weights."""
    kept = []
    layer = conv2d(16, 16, 3, spectral=True).train()

    def keep(tensor):
        kept.append(tensor)
        return tensor

    x = torch.randn(1, 16, 4, 4)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), torch.autocast("cpu", torch.bfloat16):
        layer(x)
    large = [t for t in kept if t.dtype == torch.float32 and t.numel() == weight_of(layer).numel()]
    assert all(t.data_ptr() == weight_of(layer).data_ptr() for t in large)
    assert isinstance(layer, nn.Conv2d)

"""The normalization layers against loops over pixels, and spectral norm against torch's own."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from clade import CladeError, LabelError, LabelMap, LabelPyramid, create_generator
from clade.nn import (
    CLADE,
    NORMS,
    SPADE,
    BatchNorm,
    ResidualBlock,
    conv2d,
    fold_spectral_norm,
    parameter_free,
    reparameterize,
    spectral_norm,
    upsample2,
)
from clade.nn.clade import OneChannel, look_up
from clade.nn.spectral import SpectralNorm

ROWS = 4


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=random(seed), dtype=torch.float64).to(dtype)


def drawn(*shape, classes=ROWS, seed=0):
    return torch.randint(0, classes, shape, generator=random(seed))


def scatter_parameters(module, seed=0):
    """Give every parameter and running statistic a value of its own, so that nothing is hidden by zeros and ones."""
    source = random(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=source))
            if name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=source) + 0.5)
    return module


def labels(size=(10, 14), n=2, **given):
    return LabelPyramid(LabelMap(drawn(n, *size), drawn(n, *size, classes=3, seed=1), **given), ROWS)


# --- CLADE against a loop over pixels ---------------------------------------------------------------------------------


def normalize_slowly(layer, x):
    """Equation 1 in float64, one channel after the other."""
    out = torch.empty_like(x)
    for c in range(x.shape[1]):
        if isinstance(layer.normalize, nn.InstanceNorm2d):
            for n in range(len(x)):
                values = x[n, c]
                out[n, c] = (values - values.mean()) / (values.var(unbiased=False) + 1e-5).sqrt()
        elif layer.training:
            values = x[:, c]
            out[:, c] = (values - values.mean()) / (values.var(unbiased=False) + 1e-5).sqrt()
        else:
            mean, var = layer.normalize.running_mean[c].double(), layer.normalize.running_var[c].double()
            out[:, c] = (x[:, c] - mean) / (var + 1e-5).sqrt()
    return out


def clade_slowly(layer, x, ids, edge, offsets):
    """CLADE as its docstring says it, in float64; ``ids``, ``edge``, ``offsets`` at full resolution."""
    x = x.double()
    gamma, beta = layer.gamma.detach().double(), layer.beta.detach().double()
    height, width = ids.shape[1:]
    n, channels, h, w = x.shape
    normal = normalize_slowly(layer, x)
    out = torch.zeros(n, channels + (layer.edge is not None), h, w, dtype=torch.float64)
    for k in range(n):
        for i in range(h):
            for j in range(w):
                source = (i * height // h, j * width // w)
                row = ids[(k, *source)]
                scale, shift = gamma[row], beta[row]
                if layer.uses_positions:
                    y, right = offsets[k, 0][source].double(), offsets[k, 1][source].double()
                    for part, module in (("scale", layer.position_gamma), ("shift", layer.position_beta)):
                        weight, bias = module.weight.detach().double().flatten(), module.bias.detach().double()
                        factor = 1 + weight[0] * y + weight[1] * right + bias
                        scale, shift = (scale * factor, shift) if part == "scale" else (scale, shift * factor)
                out[k, :channels, i, j] = scale * normal[k, :, i, j] + shift
                if layer.edge is not None:
                    weight, bias = layer.edge.weight.detach().double(), layer.edge.bias.detach().double()
                    out[k, channels, i, j] = (weight.flatten() * edge[(k, *source)] + bias).item()
    return out


def edges_slowly(numbers):
    out = torch.zeros(numbers.shape)
    n, height, width = numbers.shape
    for k in range(n):
        for i in range(height):
            for j in range(width):
                near = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
                inside = [(a, b) for a, b in near if 0 <= a < height and 0 <= b < width]
                out[k, i, j] = any(numbers[k, a, b] != numbers[k, i, j] for a, b in inside)
    return out


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("normalization", ["batch", "instance"])
@pytest.mark.parametrize("edges", [False, True], ids=["", "edges"])
@pytest.mark.parametrize("positions", [False, True], ids=["", "positions"])
@pytest.mark.parametrize("size", [(10, 14), (5, 7), (4, 9)])
def test_clade_scales_and_shifts_every_pixel_by_its_class(training, normalization, edges, positions, size):
    layer = CLADE(3, num_rows=ROWS, instance_edges=edges, positions=positions, normalization=normalization)
    scatter_parameters(layer).train(training)
    offsets = torch.rand(2, 2, 10, 14, generator=random(5)) * 2 - 1
    pyramid = labels(positions=offsets)
    x = noise(2, 3, *size, seed=3) * 2 + 1
    expected = clade_slowly(
        layer, x, pyramid.label_map.ids, edges_slowly(pyramid.label_map.instances), pyramid.label_map.positions
    )
    y = layer(x, pyramid)
    assert y.shape[1] == layer.out_channels == 3 + edges
    torch.testing.assert_close(y.double(), expected, atol=2e-5, rtol=1e-5)


def test_clade_moves_running_statistics_as_batch_norm_does():
    layer, plain = CLADE(3, num_rows=ROWS).train(), nn.BatchNorm2d(3).train()
    for step in range(3):
        x = (noise(2, 3, 5, 7, seed=step) * 3 + step).contiguous(memory_format=torch.channels_last)  # CLADE's own
        layer(x, labels())
        plain(x)
    torch.testing.assert_close(layer.normalize.running_mean, plain.running_mean, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(layer.normalize.running_var, plain.running_var, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_equal_rows_are_plain_batch_norm(training):
    layer, plain = CLADE(3, num_rows=ROWS).train(training), nn.BatchNorm2d(3).train(training)
    with torch.no_grad():
        layer.gamma.copy_(noise(1, 3).expand(ROWS, 3))
        layer.beta.copy_(noise(1, 3, seed=1).expand(ROWS, 3))
        plain.weight.copy_(layer.gamma[0])
        plain.bias.copy_(layer.beta[0])
    x = noise(2, 3, 5, 7)
    torch.testing.assert_close(layer(x, labels()), plain(x), atol=1e-6, rtol=1e-5)


def test_clade_icpe_starts_as_clade():
    torch.manual_seed(0)
    icpe = CLADE(3, num_rows=ROWS, positions=True)
    plain = CLADE(3, num_rows=ROWS)
    plain.load_state_dict({key: value for key, value in icpe.state_dict().items() if "position" not in key})
    x = noise(2, 3, 5, 7)
    torch.testing.assert_close(icpe(x, labels()), plain(x, labels()), atol=1e-6, rtol=1e-6)


def test_positions_can_be_learned_from_their_zero_start():
    layer = CLADE(3, num_rows=ROWS, positions=True)
    with torch.no_grad():
        layer.beta.copy_(noise(ROWS, 3))  # a shift of zero has nothing to modulate
    layer(noise(2, 3, 5, 7), labels()).square().sum().backward()
    for module in (layer.position_gamma, layer.position_beta):
        assert module.weight.grad.abs().min() > 0
        assert module.bias.grad.abs().min() > 0


def test_gamma_starts_uniform_and_beta_at_zero():
    torch.manual_seed(0)
    layer = CLADE(64, num_rows=200)
    assert 0 <= layer.gamma.min() < 0.01
    assert 0.99 < layer.gamma.max() < 1
    assert abs(layer.gamma.mean() - 0.5) < 0.01
    assert not layer.beta.any()


def test_classes_that_do_not_occur_get_no_gradient():
    layer = CLADE(3, num_rows=ROWS)
    pyramid = LabelPyramid(LabelMap(torch.tensor([[[0, 2], [2, 2]]])), ROWS)
    layer(noise(1, 3, 2, 2), pyramid).square().sum().backward()
    assert layer.gamma.grad.abs().sum(1).bool().tolist() == [True, False, True, False]
    assert not layer.beta.grad[[1, 3]].any()


def test_gradients_of_clade_are_those_of_finite_differences():
    layer = scatter_parameters(CLADE(2, num_rows=ROWS, instance_edges=True, positions=True).double())
    pyramid = labels((4, 6), n=1)
    x = noise(1, 2, 4, 6, dtype=torch.float64).requires_grad_()
    parameters = tuple(layer.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: layer(x, pyramid), (x, *parameters), atol=1e-4)


def test_no_generator_of_clade_asks_for_one_hot_beyond_its_first_convolution(monkeypatch):
    original, sizes = LabelPyramid.one_hot, []

    def watched(self, size, dtype=torch.float32):
        sizes.append(size)
        return original(self, size, dtype)

    monkeypatch.setattr(LabelPyramid, "one_hot", watched)
    ids = drawn(1, 64, 96)
    for name in ("clade", "clade-icpe"):
        for edges in (False, True):
            create_generator(name, num_classes=ROWS, width=1, instance_edges=edges).eval()(ids)
    assert set(sizes) == {(2, 3)}
    sizes.clear()
    create_generator("clade", num_classes=ROWS, width=1, z_dim=4).eval()(ids)
    assert sizes == []
    create_generator("spade", num_classes=ROWS, width=1, hidden=2).eval()(ids)
    assert (64, 96) in sizes  # the watch does see what is asked for


# --- The table look-up ------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), st.integers(1, 5), st.sampled_from(["int32", "int64"]))
def test_look_up_is_indexing_and_so_is_its_gradient(rows, channels, height, width, kind):
    table = noise(rows, channels).requires_grad_()
    ids = drawn(2, height, width, classes=rows)
    weight = noise(2, channels, height, width, seed=1)
    expected = table[ids].permute(0, 3, 1, 2)
    (expected_grad,) = torch.autograd.grad((expected * weight).sum(), table)
    found = look_up(table, ids.to(getattr(torch, kind)), torch.float32)
    (grad,) = torch.autograd.grad((found * weight).sum(), table)
    assert torch.equal(found, expected)
    torch.testing.assert_close(grad, expected_grad, atol=1e-6, rtol=1e-5)


def test_look_up_passes_the_gradient_checks_of_first_and_second_order():
    table = noise(3, 2, dtype=torch.float64).requires_grad_()
    ids = drawn(1, 4, 5, classes=3).int()
    # Tighter than float32 could pass: a float64 table is summed in float64.
    assert torch.autograd.gradcheck(lambda t: look_up(t, ids, torch.float64), table, atol=1e-8, rtol=1e-9, eps=1e-3)
    assert torch.autograd.gradgradcheck(lambda t: look_up(t, ids, torch.float64), table)


def test_a_float64_table_is_summed_in_float64():
    table = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([1.0, 1e-12], dtype=torch.float64).view(1, 1, 1, 2)
    (look_up(table, torch.zeros(1, 1, 2, dtype=torch.int32), torch.float64) * weight).sum().backward()
    assert table.grad.item() == 1 + 1e-12


def test_the_gradient_of_bfloat16_features_is_summed_in_float32():
    # In bfloat16 the sum of ones sticks at 256, because 257 rounds back to it.
    table = torch.zeros(1, 2, requires_grad=True)
    look_up(table, torch.zeros(1, 64, 64, dtype=torch.int32), torch.bfloat16).sum().backward()
    assert table.grad.dtype == torch.float32
    assert table.grad.tolist() == [[4096.0, 4096.0]]


def test_look_up_gives_the_type_that_is_asked_for():
    assert look_up(torch.ones(2, 3), drawn(1, 2, 2, classes=2), torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("channels", [1, 2])
def test_one_channel_is_a_1x1_convolution(channels):
    layer, conv = scatter_parameters(OneChannel(channels)), nn.Conv2d(channels, 1, 1)
    conv.load_state_dict(layer.state_dict())  # the same keys and shapes
    x = noise(2, channels, 4, 5)
    torch.testing.assert_close(layer(x), conv(x), atol=1e-6, rtol=1e-5)
    grads = [torch.autograd.grad(m(x).square().sum(), list(m.parameters())) for m in (layer, conv)]
    for own, expected in zip(*grads, strict=True):
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-5)


# --- SPADE and the parts that are shared ------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", [False, True])
def test_spade_is_its_equation(edges):
    layer = scatter_parameters(SPADE(3, num_rows=ROWS, instance_edges=edges, hidden=5)).eval()
    pyramid = labels()
    full = F.one_hot(pyramid.label_map.ids, ROWS).movedim(-1, 1).float()
    if edges:
        full = torch.cat([full, edges_slowly(pyramid.label_map.instances)[:, None]], 1)
    small = F.interpolate(full, size=(5, 7), mode="nearest")
    x = noise(2, 3, 5, 7)
    hidden = F.conv2d(small, layer.shared.weight, layer.shared.bias, padding=1).clamp(min=0)
    gamma = F.conv2d(hidden, layer.to_gamma.weight, layer.to_gamma.bias, padding=1)
    beta = F.conv2d(hidden, layer.to_beta.weight, layer.to_beta.bias, padding=1)
    expected = normalize_slowly(layer, x.double()) * (1 + gamma) + beta
    torch.testing.assert_close(layer(x, pyramid).double(), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", NORMS.names())
@pytest.mark.parametrize("normalization", ["batch", "instance"])
@pytest.mark.parametrize("edges", [False, True], ids=["", "edges"])
def test_every_norm_layer_keeps_the_size_and_reaches_every_parameter(name, normalization, edges):
    layer = NORMS[name](6, num_rows=ROWS, instance_edges=edges, normalization=normalization)
    scatter_parameters(layer).train()
    pyramid = labels()
    x = noise(2, 6, 5, 7).requires_grad_()
    y = layer(x, pyramid)
    assert y.shape == (2, layer.out_channels, 5, 7)
    (y * noise(*y.shape, seed=1)).sum().backward()
    for tensor in (x, *layer.parameters()):
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()


@pytest.mark.parametrize("name", NORMS.names())
def test_every_norm_layer_takes_ids_and_label_maps(name):
    layer = NORMS[name](6, num_rows=ROWS).eval()
    scatter_parameters(layer)
    pyramid, x = labels(), noise(2, 6, 5, 7)
    with torch.no_grad():
        drawn = []
        for given in (pyramid, pyramid.label_map, pyramid.label_map.ids):
            torch.manual_seed(0)  # one of them draws noise
            drawn.append(layer(x, given))
        assert torch.equal(drawn[0], drawn[1])
        assert torch.equal(drawn[0], drawn[2])
        with pytest.raises(LabelError, match="1 label maps came with features of 2 pictures"):
            layer(x, pyramid.label_map.ids[:1])
        with pytest.raises(LabelError, match=str(ROWS)):
            layer(x, torch.full((2, 5, 7), ROWS))


@pytest.mark.parametrize("name", NORMS.names())
def test_every_norm_layer_refuses_an_unknown_normalization(name):
    with pytest.raises(CladeError, match=r"no normalization 'layer'.*batch, instance"):
        NORMS[name](6, num_rows=ROWS, normalization="layer")


@pytest.mark.parametrize("training", [True, False])
def test_instance_norm_of_a_single_pixel_is_zero_and_of_more_is_torchs(training):
    norm = parameter_free("instance", 3).train(training)
    assert not norm(noise(2, 3, 1, 1)).any()
    x = noise(2, 3, 1, 2)
    assert torch.equal(norm(x), F.instance_norm(x))
    assert norm.state_dict() == {}


def test_batch_norm_is_torchs():
    own, plain = BatchNorm(3), nn.BatchNorm2d(3, affine=False)
    for step in range(3):
        x = noise(2, 3, 4, 5, seed=step)
        assert torch.equal(own(x), plain(x))
    for key, value in plain.state_dict().items():
        assert torch.equal(own.state_dict()[key], value)
    assert torch.equal(own.eval()(x), plain.eval()(x))


@pytest.mark.parametrize(("channels_in", "channels_out"), [(4, 4), (6, 2), (2, 6)])
@pytest.mark.parametrize("edges", [False, True])
def test_residual_block_is_its_equation(channels_in, channels_out, edges):
    block = ResidualBlock(channels_in, channels_out, lambda c: CLADE(c, num_rows=ROWS, instance_edges=edges)).eval()
    pyramid, x = labels(), noise(2, channels_in, 5, 7)
    middle = min(channels_in, channels_out)
    assert (block.conv1.out_channels, block.conv2.in_channels) == (middle, middle + edges)
    y = block.conv1(F.leaky_relu(block.norm1(x, pyramid), 0.2))
    y = block.conv2(F.leaky_relu(block.norm2(y, pyramid), 0.2))
    shortcut = x
    if channels_in != channels_out:
        assert block.conv_shortcut.bias is None
        shortcut = F.conv2d(block.norm_shortcut(x, pyramid), block.conv_shortcut.weight)  # no activation
    else:
        assert block.norm_shortcut is None
    torch.testing.assert_close(block(x, pyramid), shortcut + y)


def test_upsampling_repeats_every_pixel():
    x = noise(2, 3, 4, 5)
    assert torch.equal(upsample2(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_reparameterized_samples_have_the_mean_and_variance_that_were_given():
    mu, logvar = torch.tensor([1.0, -2.0]), torch.tensor([0.0, 2.0])
    z = reparameterize(mu, logvar, noise(200_000, 2))
    torch.testing.assert_close(z.mean(0), mu, atol=0.03, rtol=0)
    torch.testing.assert_close(z.var(0), logvar.exp(), atol=0.1, rtol=0)


@pytest.mark.parametrize("build", [lambda: conv2d(64, 32, 3), lambda: conv2d(64, 32, 4, stride=2)])
def test_convolutions_start_xavier_normal_with_gain_002_and_no_bias(build):
    torch.manual_seed(0)
    conv = build()
    fan_in, fan_out = 64 * conv.kernel_size[0] ** 2, 32 * conv.kernel_size[0] ** 2
    assert conv.weight.std().item() == pytest.approx(0.02 * (2 / (fan_in + fan_out)) ** 0.5, rel=0.03)
    assert not conv.bias.any()


# --- Spectral norm ----------------------------------------------------------------------------------------------------


def pair(kind, channels=(5, 4), kernel=3):
    """Our convolution and torch's of the same weight and vectors; ``kind`` is which of torch's two."""
    own = conv2d(*channels, kernel, spectral=True)
    with torch.no_grad():
        own.parametrizations.weight.original.copy_(noise(channels[1], channels[0], kernel, kernel))
    other = nn.Conv2d(*channels, kernel, padding=kernel // 2)
    if kind == "new":
        nn.utils.parametrizations.spectral_norm(other)
        other.load_state_dict(own.state_dict())  # the same keys
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nn.utils.spectral_norm(other)
        names = {"original": "weight_orig", "0._u": "weight_u", "0._v": "weight_v"}
        state = {key.replace("parametrizations.weight.", ""): value for key, value in own.state_dict().items()}
        other.load_state_dict({names.get(key, key): value for key, value in state.items()})
    return own, other


def original(conv):
    return conv.weight_orig if hasattr(conv, "weight_orig") else conv.parametrizations.weight.original


@pytest.mark.parametrize("kind", ["new", "old"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_spectral_norm_of_torch_has_the_same_values_and_gradients(kind, kernel):
    own, other = pair(kind, kernel=kernel)
    own.eval(), other.eval()
    x = noise(2, 5, 6, 6)
    values = [conv(x) for conv in (own, other)]
    torch.testing.assert_close(*values, atol=1e-6, rtol=1e-5)
    grads = [
        torch.autograd.grad((y * y.detach().sin()).sum(), original(c))
        for y, c in zip(values, (own, other), strict=True)
    ]
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-4)


def test_spectral_norm_trains_as_the_published_kind_does():
    """The published kind moves v before u; torch's new one u before v."""
    own, other = pair("old")
    x = noise(2, 5, 6, 6)
    optimizers = [torch.optim.SGD(conv.parameters(), 0.05) for conv in (own, other)]
    for step in range(5):
        losses = []
        for conv, optimizer in zip((own, other), optimizers, strict=True):
            optimizer.zero_grad()
            loss = (conv(x) * noise(2, 4, 6, 6, seed=step)).sum()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-4, abs=1e-4)
    torch.testing.assert_close(original(own), original(other), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(own.parametrizations.weight[0]._u, other.weight_u, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(own.parametrizations.weight[0]._v, other.weight_v, atol=1e-5, rtol=1e-4)


def test_the_largest_singular_value_becomes_one():
    conv = conv2d(5, 4, 3, spectral=True).train()
    for _ in range(60):
        weight = conv.weight
    assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-4)


def test_vectors_move_in_training_only():
    conv = conv2d(5, 4, 3, spectral=True)
    norm = conv.parametrizations.weight[0]
    with torch.no_grad():
        norm._u.copy_(F.normalize(noise(4), dim=0))
    start = norm._u.clone()
    conv.eval().weight  # noqa: B018
    assert torch.equal(norm._u, start)
    conv.train().weight  # noqa: B018
    assert not torch.equal(norm._u, start)


def test_two_forwards_before_one_backward_give_the_gradient_of_both():
    conv, x = conv2d(2, 3, 3, spectral=True).train(), noise(1, 2, 4, 4)
    start = {key: value.clone() for key, value in conv.state_dict().items()}
    (conv(x).sum() + 2 * conv(x).square().sum()).backward()
    together = original(conv).grad.clone()
    conv.load_state_dict(start)
    original(conv).grad = None
    conv(x).sum().backward()
    (2 * conv(x).square().sum()).backward()
    torch.testing.assert_close(together, original(conv).grad)


def test_the_gradient_is_that_of_finite_differences():
    norm = SpectralNorm(noise(4, 6)).double().eval()
    weight = noise(4, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(norm, weight)


def test_second_order_gradients_are_refused_rather_than_wrong():
    norm = SpectralNorm(noise(4, 6)).eval()
    weight = noise(4, 6).requires_grad_()
    (grad,) = torch.autograd.grad(norm(weight).square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.square().sum().backward()


def test_spectral_norm_computes_in_float32_under_autocast():
    conv = conv2d(5, 4, 3, spectral=True).eval()
    expected = conv.weight.detach().clone()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv.weight.float(), expected.bfloat16().float())  # rounded once, at the end
        conv.train().weight  # noqa: B018
    assert conv.parametrizations.weight[0]._u.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        conv(noise(1, 5, 4, 4)).sum().backward()
    assert original(conv).grad.dtype == torch.float32


def test_folding_keeps_the_output_and_leaves_a_plain_convolution():
    block = ResidualBlock(4, 2, lambda c: CLADE(c, num_rows=ROWS)).eval()
    pyramid, x = labels(), noise(2, 4, 5, 7)
    before = block(x, pyramid)
    assert fold_spectral_norm(block) is block
    assert torch.equal(block(x, pyramid), before)
    assert not any("parametrizations" in key for key in block.state_dict())
    assert block.conv1.weight.requires_grad


def test_folding_a_copy_leaves_the_original_as_it_was():
    conv, x = conv2d(2, 3, 3, spectral=True).eval(), noise(1, 2, 4, 4)
    expected = conv(x)
    folded = fold_spectral_norm(copy.deepcopy(conv))
    assert torch.equal(folded(x), expected)
    assert torch.equal(conv(x), expected)
    with torch.no_grad():
        original(conv).mul_(2)
        conv.parametrizations.weight[0]._u.neg_()
    assert torch.equal(conv(x) - conv.bias.view(-1, 1, 1), -(expected - conv.bias.view(-1, 1, 1)))


def test_a_folded_network_can_be_folded_again():
    conv = fold_spectral_norm(conv2d(2, 2, 3, spectral=True).eval())
    weight = conv.weight.detach().clone()
    assert torch.equal(fold_spectral_norm(conv).weight, weight)


def test_full_size_networks_can_be_built_without_memory():
    with torch.device("meta"):
        conv = spectral_norm(nn.Conv2d(1024, 1024, 3))
    assert conv.weight.is_meta

"""CLADE's fused operation against the separate operations that it stands for."""

import copy
import multiprocessing
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from clade import CladeError, LabelMap, LabelPyramid
from clade.nn import CLADE, BatchNorm, ResidualBlock, modulation, modulation_plain
from clade.nn.clade import beside, look_up
from clade.nn.modulation import can_modulate, modulate
from clade.nn.modulation_plain import apply_plain, input_plain, reduce_plain

ROWS = 5


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def ids_of(n, height, width):
    """Not of class 3."""
    ids = torch.randint(ROWS - 1, (n, height, width), generator=torch.Generator().manual_seed(1))
    return torch.where(ids == 3, ROWS - 1, ids).int()


@pytest.fixture(params=[1 << 18, 40], ids=["one piece", "many pieces"])
def pieces(request, monkeypatch):
    monkeypatch.setattr(modulation_plain, "_PIECE", request.param)


def separate(x, ids, gamma, beta, norm, scales=None, slope=None):
    """Dense maps of gamma and beta, in the tables' type."""
    if norm.training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    else:
        mean, variance = norm.running_mean.to(x.dtype), norm.running_var.to(x.dtype)
    normal = (x - mean.view(1, -1, 1, 1)) / (variance.view(1, -1, 1, 1) + norm.eps).sqrt()
    scale, shift = gamma[ids.long()].movedim(-1, 1), beta[ids.long()].movedim(-1, 1)
    if scales is not None:
        of_gamma, of_beta = scales.view(2, len(ids), 1, *ids.shape[1:])
        scale, shift = scale * of_gamma, shift * of_beta
    y = normal * scale + shift
    return y if slope is None else F.leaky_relu(y, slope)


def case(dtype, scaled, training, channels=6, size=(2, 4, 7)):
    """(x, gamma, beta, scales) as leaves, ids, norm"""
    n, height, width = size
    norm = BatchNorm(channels).train(training)
    norm.running_mean.copy_(noise(channels, seed=7))
    norm.running_var.copy_(noise(channels, seed=8).square() + 0.5)
    x = (noise(n, channels, height, width, dtype=dtype) * 2 + 1).contiguous(memory_format=torch.channels_last)
    tables = torch.promote_types(dtype, torch.float32)
    leaves = [x, noise(ROWS, channels, seed=2, dtype=tables), noise(ROWS, channels, seed=3, dtype=tables)]
    if scaled:
        leaves.append(1 + noise(2, n * height * width, seed=4, dtype=tables) / 2)
    return [leaf.requires_grad_() for leaf in leaves], ids_of(*size), norm


def fused(leaves, ids, norm, slope):
    x, gamma, beta, *scales = leaves
    return modulate(x, ids, gamma, beta, norm, scales=scales[0] if scales else None, slope=slope)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("slope", [None, 0.2])
@pytest.mark.parametrize("scaled", [False, True], ids=["", "scales"])
@pytest.mark.usefixtures("pieces")
def test_gradients_are_those_of_finite_differences(scaled, slope, training):
    leaves, ids, norm = case(torch.float64, scaled, training, channels=3, size=(2, 3, 4))
    norm.double()
    assert can_modulate(leaves[0], norm)
    assert torch.autograd.gradcheck(lambda *leaves: fused(leaves, ids, norm, slope), leaves, atol=1e-7)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("slope", [None, 0.2])
@pytest.mark.parametrize("scaled", [False, True], ids=["", "scales"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-7), (torch.float16, 2**-9)]
)
@pytest.mark.usefixtures("pieces")
def test_values_and_gradients_are_those_of_the_separate_operations_in_float64(
    dtype, tolerance, scaled, slope, training
):
    leaves, ids, norm = case(dtype, scaled, training)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    y = fused(leaves, ids, norm, slope)
    expected = separate(exact[0], ids, *exact[1:3], norm, exact[3] if scaled else None, slope)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y.double(), expected, atol=tolerance, rtol=tolerance)
    weight = noise(*y.shape, seed=5, dtype=dtype)
    y.backward(weight)
    expected.backward(weight.double())
    for leaf, other in zip(leaves, exact, strict=True):
        assert leaf.grad.dtype == leaf.dtype
        torch.testing.assert_close(leaf.grad.double(), other.grad, atol=8 * tolerance, rtol=tolerance)
    assert not leaves[1].grad[3].any()  # a class that does not occur


@pytest.mark.parametrize("scaled", [False, True], ids=["", "scales"])
@pytest.mark.usefixtures("pieces")
def test_the_primitives_are_their_equations(scaled):
    x, grad = noise(30, 4, dtype=torch.float64), noise(30, 4, seed=1, dtype=torch.float64)
    ids = ids_of(1, 5, 6).flatten()
    gamma, beta = noise(ROWS, 4, seed=2, dtype=torch.float64), noise(ROWS, 4, seed=3, dtype=torch.float64)
    mean, rstd = noise(4, seed=4, dtype=torch.float64), noise(4, seed=5, dtype=torch.float64).abs()
    scales = noise(2, 30, seed=6, dtype=torch.float64) if scaled else None
    of_gamma, of_beta = torch.ones(2, 30, 1, dtype=torch.float64) if scales is None else scales[:, :, None]
    rest = (x, ids, gamma, beta, mean, rstd, scales, 0.2)

    normal = (x - mean) * rstd
    before = gamma[ids.long()] * of_gamma * normal + beta[ids.long()] * of_beta
    torch.testing.assert_close(apply_plain(*rest), torch.where(before > 0, before, 0.2 * before))
    torch.testing.assert_close(apply_plain(*rest[:-1]), before)

    g = grad * torch.where(before > 0, 1.0, 0.2)
    d = g * gamma[ids.long()] * of_gamma
    dgamma, dbeta, inner, dscales = reduce_plain(grad, *rest)
    for k in range(ROWS):
        torch.testing.assert_close(dgamma[k], (g * of_gamma * normal)[ids == k].sum(0))
        torch.testing.assert_close(dbeta[k], (g * of_beta)[ids == k].sum(0))
    torch.testing.assert_close(inner, torch.stack([d.sum(0), (d * normal).sum(0)]))
    if scaled:
        expected = [(g * gamma[ids.long()] * normal).sum(1), (g * beta[ids.long()]).sum(1)]
        torch.testing.assert_close(dscales, torch.stack(expected))
    else:
        assert dscales is None

    inner_mean = noise(2, 4, seed=7, dtype=torch.float64)
    expected = rstd * (d - inner_mean[0] - normal * inner_mean[1])
    torch.testing.assert_close(input_plain(grad, *rest, inner_mean), expected)
    kept = torch.empty_like(x)
    reduce_plain(grad, *rest, kept=kept)
    torch.testing.assert_close(kept, g)
    assert input_plain(kept, *rest[:-1], None, inner_mean, out=kept) is kept
    torch.testing.assert_close(kept, expected)


def test_sums_of_bfloat16_features_are_made_in_float32():
    # In bfloat16 the sum of ones sticks at 256, because 257 rounds back to it.
    x = noise(1, 2, 64, 64, dtype=torch.bfloat16)
    beta = torch.zeros(1, 2, requires_grad=True)
    modulate(x, torch.zeros(1, 64, 64).int(), torch.ones(1, 2), beta, BatchNorm(2)).sum().backward()
    assert beta.grad.tolist() == [[4096.0, 4096.0]]


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_are_torchs(momentum):
    own, plain = (BatchNorm(3), nn.BatchNorm2d(3, affine=False))
    own.momentum = plain.momentum = momentum
    for step in range(3):
        x = (noise(2, 3, 5, 7, seed=step) * 3 + step).contiguous(memory_format=torch.channels_last)
        modulate(x, ids_of(2, 5, 7), torch.ones(ROWS, 3), torch.zeros(ROWS, 3), own)
        plain(x)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(own.state_dict()[key], value, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_of_many_pixels_stay_exact(dtype):
    x = (noise(1, 3, 512, 600) + 20).to(dtype).contiguous(memory_format=torch.channels_last)
    norm = BatchNorm(3)
    norm.momentum = 1.0
    modulate(x, torch.zeros(1, 512, 600, dtype=torch.int32), torch.ones(ROWS, 3), torch.zeros(ROWS, 3), norm)
    exact = x.double()
    torch.testing.assert_close(norm.running_mean.double(), exact.mean((0, 2, 3)), atol=1e-4, rtol=0)
    torch.testing.assert_close(norm.running_var.double(), exact.var((0, 2, 3)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("n", [1, 2])
def test_the_layout_of_features_and_gradients_does_not_matter(layout, n):
    (x, gamma, beta), ids, norm = case(torch.float32, False, True, size=(n, 4, 7))
    grads = []
    weight = noise(n, 8, 4, 7, seed=5)
    for arranged, own in ((x, weight), (x.contiguous(memory_format=layout), weight.contiguous(memory_format=layout))):
        y = modulate(arranged, ids, gamma, beta, norm, slope=0.2)
        grads.append(torch.autograd.grad(y, (x, gamma, beta), own[:, 1:7]))  # a slice, as concatenation passes on
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_the_same_call_gives_the_same_bits():
    leaves, ids, norm = case(torch.float32, True, True, size=(2, 60, 90))
    first, second = (
        torch.autograd.grad(fused(leaves, ids, norm, 0.2).square().sum(), leaves, retain_graph=False) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("scaled", [False, True], ids=["", "scales"])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_of_dense_maps_only_the_features_are_kept_for_the_backward(scaled, layout):
    leaves, ids, norm = case(torch.float32, scaled, True, channels=16, size=(2, 8, 8))
    leaves[0] = leaves[0].detach().contiguous(memory_format=layout).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        fused(leaves, ids, norm, 0.2).sum()
    dense = [t for t in kept if t.numel() >= leaves[0].numel()]
    assert len(dense) == 1
    assert torch.equal(dense[0], leaves[0].detach().permute(0, 2, 3, 1).flatten(0, 2))
    assert (dense[0].data_ptr() == leaves[0].data_ptr()) == (layout == torch.channels_last)  # no copy, where it can be


def test_only_the_gradients_that_are_asked_for_are_needed():
    leaves, ids, norm = case(torch.float32, False, True)
    expected = torch.autograd.grad(fused(leaves, ids, norm, 0.2).square().sum(), leaves)
    x, gamma, beta = (leaf.detach() for leaf in leaves)
    found = [
        torch.autograd.grad(fused((x.requires_grad_(), gamma, beta), ids, norm, 0.2).square().sum(), x)[0],
        torch.autograd.grad(fused((x.detach(), gamma.requires_grad_(), beta), ids, norm, 0.2).square().sum(), gamma)[0],
    ]
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("ids_type", [torch.int32, torch.int64])
@pytest.mark.parametrize("scaled", [False, True], ids=["", "scales"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_table_much_larger_than_the_map_gives_the_same(training, scaled, ids_type, monkeypatch):
    results = []
    for pixel in (modulation._PIXEL, 1 << 20):  # by the rows that occur, by all of them
        monkeypatch.setattr(modulation, "_PIXEL", pixel)
        (x, *_), ids, norm = case(torch.float32, scaled, training)
        tables = [noise(300, 6, seed=k).requires_grad_() for k in (2, 3)]
        scales = [1 + noise(2, 56, seed=4) / 2] if scaled else []
        leaves = [x, *tables, *(leaf.requires_grad_() for leaf in scales)]
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t) or t, lambda t: t):
            y = fused(leaves, (70 * ids).to(ids_type), norm, 0.2)
        grads = torch.autograd.grad((y * noise(*y.shape, seed=5)).sum(), leaves)
        assert not grads[1][1:70].any()
        results.append((y, *grads, *norm.buffers(), sum(t.shape == (300, 6) for t in kept)))
    assert (results[0][-1], results[1][-1]) == (0, 2)
    for found, expected in zip(results[0][:-1], results[1][:-1], strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_a_single_pixel_cannot_be_trained_on():
    norm = BatchNorm(3)
    with pytest.raises(CladeError, match=r"\(1, 3\).*more than 1 value.*larger"):
        modulate(noise(1, 3, 1, 1), ids_of(1, 1, 1), torch.ones(ROWS, 3), torch.zeros(ROWS, 3), norm)
    y = modulate(noise(1, 3, 1, 1), ids_of(1, 1, 1), torch.ones(ROWS, 3), torch.zeros(ROWS, 3), norm.eval())
    torch.testing.assert_close(y, noise(1, 3, 1, 1), atol=1e-4, rtol=1e-4)


def test_a_second_derivative_is_refused_rather_than_wrong():
    leaves, ids, norm = case(torch.float64, False, True)
    norm.double()
    (grad,) = torch.autograd.grad(fused(leaves, ids, norm, None).square().sum(), leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.square().sum().backward()


def test_memory_that_inference_left_behind_serves_training_too():
    modulation_plain._kept.__dict__.clear()
    leaves, ids, norm = case(torch.bfloat16, False, False)
    with torch.inference_mode():
        expected = fused(leaves, ids, norm, 0.2)
    y = fused(leaves, ids, norm, 0.2)
    y.sum().backward()
    assert torch.equal(y, expected)


def test_a_system_without_triton_computes_in_plain_torch(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(modulation.importlib, "import_module", missing)
    modulation._triton.cache_clear()
    assert modulation._triton() is None
    modulation._triton.cache_clear()
    assert modulation._primitives(torch.zeros(1, 1)) is modulation.PLAIN


@pytest.mark.parametrize(
    ("asked", "dtype", "taken"),
    [
        (None, torch.float32, False),
        ("0", torch.float32, False),
        ("", torch.float32, False),
        ("1", torch.float32, True),
        ("1", torch.bfloat16, True),
        ("1", torch.float64, False),  # its kernels compute in float32
    ],
)
def test_on_cuda_triton_computes_only_where_it_is_asked_for(monkeypatch, asked, dtype, taken):
    kernels = modulation.Primitives(*modulation.PLAIN)
    monkeypatch.setattr(modulation, "_triton", lambda: kernels)
    monkeypatch.delenv("CLADE_TRITON", raising=False)
    if asked is not None:
        monkeypatch.setenv("CLADE_TRITON", asked)
    chosen = modulation._primitives(SimpleNamespace(is_cuda=True, dtype=dtype))  # there is no such device here
    assert (chosen is kernels) == taken
    assert taken or chosen is modulation.PLAIN
    assert modulation._primitives(torch.zeros(1, 1, dtype=dtype)) is modulation.PLAIN


# --- In the layer -----------------------------------------------------------------------------------------------------


def labels(size=(10, 14), n=2):
    return LabelPyramid(LabelMap(ids_of(n, *size), ids_of(n, *size)), ROWS)


def layer_of(**options):
    layer = CLADE(6, num_rows=ROWS, **options)
    with torch.no_grad():
        for k, parameter in enumerate(layer.parameters()):
            parameter.copy_(noise(*parameter.shape, seed=k))
    return layer


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("slope", [None, 0.2])
@pytest.mark.parametrize(
    "options",
    [{}, {"positions": True}, {"instance_edges": True, "position_channel": True}],
    ids=["", "positions", "channels"],
)
def test_the_layer_gives_what_its_separate_operations_give(options, slope, training):
    layer = layer_of(**options).train(training)
    hooked = copy.deepcopy(layer)
    seen = []
    hooked.normalize.register_forward_hook(lambda *call: seen.append(call[2]))  # it has to run by itself
    results = []
    for one in (layer, hooked):
        x = noise(2, 6, 5, 7, seed=9).requires_grad_()
        y = one(x, labels(), slope)
        grads = torch.autograd.grad((y * noise(*y.shape, seed=10)).sum(), [x, *one.parameters()])
        results.append((y.detach(), *grads, *one.buffers()))
    assert len(seen) == 1
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6 if found is results[0][0] else 2e-5, rtol=1e-5)


def test_drawing_without_gradients_equals_look_up_to_a_millionth():
    layer = layer_of().eval()
    layer.normalize.running_mean.copy_(noise(6, seed=3))
    x, pyramid = noise(2, 6, 10, 14, seed=9), labels()
    ids = pyramid.ids((10, 14))
    expected = torch.addcmul(look_up(layer.beta, ids, x.dtype), layer.normalize(x), look_up(layer.gamma, ids, x.dtype))
    with torch.inference_mode():
        torch.testing.assert_close(layer(x, pyramid), expected, atol=1e-6, rtol=1e-6)


def test_under_autocast_features_stay_bfloat16_and_tables_float32():
    block = ResidualBlock(6, 4, lambda c: CLADE(c, num_rows=ROWS, instance_edges=True, positions=True))
    x = noise(2, 6, 5, 7).requires_grad_()
    exact = block(x, labels())
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x.bfloat16(), labels())
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y.float(), exact, atol=0.05, rtol=0.05)
    y.sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in block.parameters())


def test_features_without_values_take_the_separate_operations():
    layer = CLADE(3, num_rows=ROWS)
    assert layer.activates(noise(1, 3, 2, 2))
    assert not layer.to("meta").activates(torch.empty(1, 3, 2, 2, device="meta"))
    for norm in (nn.InstanceNorm2d(3), nn.SyncBatchNorm(3), nn.BatchNorm2d(3), BatchNorm(3).double(), nn.Identity()):
        assert not can_modulate(noise(1, 3, 2, 2), norm)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_channels_are_put_beside_in_the_layout_of_the_features(layout):
    y, edge, position = noise(2, 3, 4, 5).contiguous(memory_format=layout), noise(2, 1, 4, 5), noise(2, 1, 4, 5, seed=1)
    found = beside(y, edge, position)
    assert torch.equal(found, torch.cat([y, edge, position], 1))
    assert found.is_contiguous(memory_format=layout)


# --- Two processes ----------------------------------------------------------------------------------------------------


def steps(part, dtype):
    """Outputs, gradients and statistics of three batches far from zero mean."""
    norm, out = BatchNorm(6).to(dtype), {}
    gamma, beta = (noise(ROWS, 6, seed=k, dtype=dtype).requires_grad_() for k in (2, 3))
    for step in range(3):
        x = (noise(5, 6, 4, 7, seed=step, dtype=dtype) + 30)[part].requires_grad_()
        scales = (1 + noise(2, 5, 28, seed=4, dtype=dtype) / 2)[:, part].flatten(1).requires_grad_()
        y = modulate(x, ids_of(5, 4, 7)[part], gamma, beta, norm, scales=scales, slope=0.2)
        y.backward(noise(5, 6, 4, 7, seed=5, dtype=dtype)[part])
        out |= {f"y{step}": y.detach(), f"x{step}": x.grad, f"scales{step}": scales.grad.view(2, -1, 28).movedim(1, 0)}
        out |= {f"norm.{key}{step}": value.clone() for key, value in norm.state_dict().items()}
    out |= {"table.gamma": gamma.grad, "table.beta": beta.grad}
    return {key: value.contiguous() for key, value in out.items()}


def in_process(folder, rank):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    part = slice(0, 2) if rank == 0 else slice(2, 5)
    single = {f"single.{key}": value for key, value in steps(part, torch.float32).items()}
    save_file(steps(part, torch.float64) | single, folder / f"{rank}.safetensors")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_modulate_like_one_with_the_joined_batch(tmp_path):
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=in_process, args=(tmp_path, rank)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    parts = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(2)]
    for prefix, dtype, tolerance in (("", torch.float64, 1e-10), ("single.", torch.float32, 2e-4)):
        for key, expected in steps(slice(None), dtype).items():
            both = [part[prefix + key] for part in parts]
            if key.startswith("norm."):
                found = both
            elif key.startswith("table."):  # DDP averages them over processes
                found = [both[0] + both[1]]
            else:
                found = [torch.cat(both)]
            for one in found:
                assert torch.allclose(one.double(), expected.double(), rtol=tolerance, atol=tolerance), prefix + key

"""SPADE layers of other people's networks become CLADE: what stays the same, what is saved, what is refused."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import re
import weakref
from pathlib import Path

import pytest
import torch
from monai.networks.blocks.spade_norm import SPADE as MonaiSPADE
from monai.networks.nets import SPADEAutoencoderKL, SPADEDiffusionModelUNet, SPADENet
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import clade
from clade import CladeError, LabelMap, LabelPyramid, create_generator, positions
from clade.nn import CLADE, SPADE, SegmapCLADE, replace_spade

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class PublishedSPADE(nn.Module):
    """As the official code has it."""

    def __init__(self, channels, read=3, dims=2, spectral=False, norm=None):
        super().__init__()
        wrap = nn.utils.parametrizations.spectral_norm if spectral else lambda conv: conv
        self.param_free_norm = norm or BATCH_NORM[dims](channels, affine=False)
        self.mlp_shared = nn.Sequential(wrap(CONV[dims](read, 16, 3, padding=1)), nn.ReLU())
        self.mlp_gamma = wrap(CONV[dims](16, channels, 3, padding=1))
        self.mlp_beta = wrap(CONV[dims](16, channels, 3, padding=1))

    def forward(self, x, segmap):
        normalized = self.param_free_norm(x)
        hidden = self.mlp_shared(F.interpolate(segmap, size=x.shape[2:], mode="nearest"))
        return normalized * (1 + self.mlp_gamma(hidden)) + self.mlp_beta(hidden)


class Network(nn.Module):
    """Features at two sizes, three SPADE layers; each convolution widens what a border reaches by one pixel."""

    def __init__(self, read=3, dims=2, **options):
        super().__init__()
        self.dims = dims
        self.first = PublishedSPADE(4, read, dims, **options)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"norm": PublishedSPADE(4, read, dims, **options), "conv": CONV[dims](4, 4, 3, padding=1)})
            for _ in range(2)
        )

    def forward(self, x, segmap):
        x = self.first(x, segmap)
        for block in self.blocks:
            x = block["conv"](F.leaky_relu(block["norm"](F.interpolate(x, scale_factor=2.0), segmap), 0.2))
        return x


class Holder(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, segmap):
        return self.layer(x, segmap)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def one_hot(ids, classes=3):
    return F.one_hot(ids.long(), classes).movedim(-1, 1).float()


def stripes(*size, classes=3):
    """Wide stripes along the first dimension, so that regions have an inside; (1, *size)."""
    row = torch.arange(size[0]) * classes // size[0]
    return row.view(1, -1, *[1] * (len(size) - 1)).expand(1, *size)


def inside(ids, margin):
    """Pixels whose surroundings up to ``margin`` pixels are one class and within the picture."""
    dims = ids.ndim - 1
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[dims]
    padded = F.pad(ids[:, None].float(), [margin] * 2 * dims, value=-1)
    high, low = pool(padded, 2 * margin + 1, 1), -pool(-padded, 2 * margin + 1, 1)
    return (high == low)[:, 0]


def settle(module):
    """Statistics and weights of their own everywhere."""
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return module


def agree(a, b, where, **tolerance):
    assert where.any()
    torch.testing.assert_close(a.movedim(1, -1)[where], b.movedim(1, -1)[where], **tolerance)


@pytest.mark.parametrize(("dims", "spectral"), [(1, False), (2, False), (2, True), (3, False)])
def test_inside_regions_a_replaced_network_gives_the_same_and_at_borders_it_does_not(dims, spectral):
    network = settle(Network(dims=dims, spectral=spectral)).eval()
    size = {1: (96,), 2: (96, 40), 3: (96, 24, 24)}[dims]
    ids = stripes(*size)
    x = torch.randn(1, 4, *(n // 4 for n in size))
    expected = network(x, one_hot(ids))
    replace_spade(network, 3)
    assert not any(isinstance(module, PublishedSPADE) for module in network.modules())
    actual = network(x, one_hot(ids))
    agree(actual, expected, inside(ids, 11), rtol=1e-4, atol=1e-4)  # 2 pixels at 1/4, 3 at 1/2 and 3 at 1/1 less 2
    assert not torch.allclose(actual, expected, atol=1e-2)


def test_maps_of_other_sizes_are_resized_as_before():
    layer = settle(PublishedSPADE(4)).eval()
    holder = Holder(copy.deepcopy(layer))
    replace_spade(holder)
    ids = stripes(50, 33)  # not a multiple of the features' size
    x = torch.randn(1, 4, 30, 21)
    small = F.interpolate(one_hot(ids), size=(30, 21), mode="nearest").argmax(1)
    agree(holder(x, one_hot(ids)), layer(x, one_hot(ids)), inside(small, 2))


def test_our_spade_layers_become_our_clade_layers_and_fit_the_clade_generator():
    generator = create_generator("spade", num_classes=3, width=4).eval()
    settle(generator)
    for parameter in generator.parameters():
        parameter.data.mul_(10)  # the initial weights are too small for a difference to show
    layer = generator.get_submodule("blocks.6.norm2")
    ids, x = stripes(48, 32), torch.randn(1, 4, 48, 32)
    pyramid = LabelPyramid(LabelMap(ids), 3)
    expected = layer(x, pyramid)
    report = replace_spade(generator)
    assert len(report.layers) == 18
    assert sum(type(module) is CLADE for module in generator.modules()) == 18
    assert not any(isinstance(module, SPADE) for module in generator.modules())
    agree(generator.get_submodule("blocks.6.norm2")(x, pyramid), expected, inside(ids, 2))

    clade = create_generator("clade", num_classes=3, width=4).eval()
    clade.load_state_dict(generator.state_dict())
    ids = stripes(64, 64)
    torch.testing.assert_close(clade(ids), generator(ids))


def test_our_edge_channel_is_left_out_and_reported():
    generator = create_generator("spade", num_classes=3, unknown_class=True, instance_edges=True, width=2).eval()
    with pytest.raises(CladeError, match=r"reads 4 classes \(the unknown one included\), but num_classes is 3"):
        replace_spade(generator, 3)
    report = replace_spade(generator, positions=True)
    assert {layer.ignored_channels for layer in report.layers} == {1}
    assert "instance edges" in str(report)
    assert generator(stripes(32, 32)).shape == (1, 3, 32, 32)


def monai_network(dims=2):
    size = [32] * dims
    return SPADENet(dims, 1, 1, label_nc=4, input_shape=size, channels=[8, 16], z_dim=4, spade_intermediate_channels=8)


@pytest.mark.parametrize("dims", [2, 3])
def test_monai_networks_run_and_shrink(dims):
    network = monai_network(dims)
    before = sum(p.numel() for p in network.parameters())
    segmap = one_hot(stripes(*[32] * dims, classes=4), 4)
    report = replace_spade(network, 4, example=segmap)
    after = sum(p.numel() for p in network.parameters())
    assert (report.network_before, report.network_after) == (before, after)
    assert after < before / 1.2
    names = [name for name, module in network.named_modules() if isinstance(module, SegmapCLADE)]
    assert [layer.name for layer in report.layers] == names
    image, mu, logvar = network(segmap, torch.randn(1, 1, *[32] * dims))
    assert image.shape == (1, 1, *[32] * dims)
    (image.square().sum() + mu.sum() + logvar.sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
    # With a norm over the picture, beta right before it would cancel; every table must still be reached.
    assert all(network.get_submodule(name).gamma.grad.abs().sum() > 0 for name in names)


@pytest.mark.parametrize("dims", [2, 3])
def test_monai_layers_normalise_gamma_over_the_picture_so_tables_come_from_the_example(dims):
    size = (32,) + (12,) * (dims - 1)
    ids = stripes(*size)
    layer = MonaiSPADE(3, 5, spatial_dims=dims).eval()
    x = torch.randn(1, 5, *size)
    expected = layer(x, one_hot(ids))
    holder = Holder(copy.deepcopy(layer))
    report = replace_spade(holder, 3, example=one_hot(ids))
    assert not report.layers[0].exact
    assert "normalise gamma and beta" in str(report)
    where = inside(ids, 2)
    agree(holder(x, one_hot(ids)), expected, where, rtol=1e-3, atol=1e-3)

    # Without an example: still nearer than a fresh start.
    def error(start):
        other = Holder(copy.deepcopy(layer))
        replace_spade(other, 3, start=start)
        return (other(x, one_hot(ids)) - expected).movedim(1, -1)[where].norm().item()

    assert error("spade") < 0.7 * error("fresh")


def test_monai_layers_without_that_norm_are_replaced_exactly():
    layer = MonaiSPADE(3, 5).eval()
    for mlp in (layer.mlp_gamma, layer.mlp_beta):
        del mlp.adn
    ids, x = stripes(30, 12), torch.randn(1, 5, 30, 12)
    expected = layer(x, one_hot(ids))
    holder = Holder(layer)
    report = replace_spade(holder, 3)
    assert report.layers[0].exact
    agree(holder(x, one_hot(ids)), expected, inside(ids, 2))


def test_a_class_that_the_example_lacks_keeps_the_row_of_equal_areas():
    layer = MonaiSPADE(3, 5).eval()
    without, with_example = Holder(copy.deepcopy(layer)), Holder(copy.deepcopy(layer))
    replace_spade(without, 3)
    replace_spade(with_example, 3, example=one_hot(stripes(32, 32, classes=2)))
    torch.testing.assert_close(with_example.layer.gamma[2], without.layer.gamma[2])
    assert not torch.allclose(with_example.layer.gamma[1], without.layer.gamma[1])


def test_fresh_is_the_start_of_clade():
    network = Network()
    replace_spade(network, 3, start="fresh")
    gamma, beta = network.first.gamma, network.first.beta
    assert gamma.min() >= 0
    assert gamma.max() <= 1
    assert gamma.std() > 0.1
    assert not beta.any()
    assert not torch.equal(gamma, network.blocks[0]["norm"].gamma)


def test_gradients_reach_every_parameter_as_in_a_loop_over_pixels():
    holder = Holder(settle(PublishedSPADE(4)))
    replace_spade(holder)
    ids, x = torch.randint(0, 3, (2, 6, 5)), torch.randn(2, 4, 6, 5)
    weight = torch.randn(2, 4, 6, 5)
    (holder(x, one_hot(ids)) * weight).sum().backward()
    normal = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    for k in range(3):
        at = (ids == k)[:, None]
        torch.testing.assert_close(holder.layer.gamma.grad[k], (normal * weight * at).sum((0, 2, 3)))
        torch.testing.assert_close(holder.layer.beta.grad[k], (weight * at).sum((0, 2, 3)))


def test_state_dict_round_trip():
    network = settle(Network())
    replace_spade(network, 3, positions=True)
    nn.init.normal_(network.first.position_gamma.weight)
    other = Network()
    replace_spade(other, 3, positions=True, start="fresh")
    other.load_state_dict(network.state_dict())
    x, segmap = torch.randn(1, 4, 8, 8), one_hot(stripes(32, 32))
    torch.testing.assert_close(other.eval()(x, segmap), network.eval()(x, segmap))


def test_copies_and_pickles_share_one_reader_of_their_own_and_remember_nothing():
    network = Network().eval()
    replace_spade(network, 3)
    x, segmap = torch.randn(1, 4, 8, 8), one_hot(stripes(32, 32))
    expected = network(x, segmap)
    saved = io.BytesIO()
    torch.save(network, saved)
    saved.seek(0)
    for other in (copy.deepcopy(network), torch.load(saved, weights_only=False), pickle.loads(pickle.dumps(network))):
        torch.testing.assert_close(other(x, segmap), expected)
        assert other.first._segmaps is other.blocks[1]["norm"]._segmaps
        assert other.first._segmaps is not network.first._segmaps


def test_the_normalization_is_kept_with_its_statistics_and_the_mode_type_and_freezing_follow():
    network = settle(Network()).double()
    network.blocks[0].eval()
    for mlp in (network.first.mlp_shared, network.first.mlp_gamma, network.first.mlp_beta):
        mlp.requires_grad_(False)
    norms = [network.first.param_free_norm, network.blocks[0]["norm"].param_free_norm]
    before = [{key: value.clone() for key, value in norm.state_dict().items()} for norm in norms]
    replace_spade(network, 3, positions=True)
    assert network.first.param_free_norm is norms[0]
    for norm, state in zip(norms, before, strict=True):
        for key, value in norm.state_dict().items():
            torch.testing.assert_close(value, state[key], rtol=0, atol=0)
    assert {p.dtype for p in network.parameters()} == {torch.float64}
    assert network.first.training
    assert norms[0].training
    assert not network.blocks[0]["norm"].training
    assert not norms[1].training
    assert not any(p.requires_grad for p in network.first.parameters())
    assert all(p.requires_grad for p in network.blocks[0].parameters())


def test_spectral_norm_in_training_mode_is_not_moved_by_a_failed_replacement():
    network = nn.ModuleDict({"good": PublishedSPADE(4, spectral=True), "bad": Tanh(4)})
    state = copy.deepcopy(network.state_dict())
    with pytest.raises(CladeError, match="bad"):
        replace_spade(network)
    assert isinstance(network["good"], PublishedSPADE)
    assert network["good"].training
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0)


def test_bfloat16_layers_stay_bfloat16():
    holder = Holder(PublishedSPADE(4).bfloat16())
    replace_spade(holder)
    y = holder(torch.randn(1, 4, 8, 8).bfloat16(), one_hot(stripes(8, 8)).bfloat16())
    assert y.dtype == torch.bfloat16


def test_meta_networks_are_counted_without_memory():
    with torch.device("meta"):
        network = Network()
    report = replace_spade(network, 3)
    assert report.params_after == 3 * 2 * 3 * 4
    assert network.first.gamma.is_meta


def test_icpe_starts_as_clade_and_then_differs_by_the_position_in_the_full_size_map():
    network = settle(Network()).eval()
    plain = copy.deepcopy(network)
    replace_spade(plain, 3)
    report = replace_spade(network, 3, positions=True)
    assert report.layers[0].params_after == 3 * 2 * 4 + 6
    ids = stripes(32, 32).clone()
    ids[:, 3:14, 5:21] = 2
    x, segmap = torch.randn(1, 4, 8, 8), one_hot(ids)
    torch.testing.assert_close(network(x, segmap), plain(x, segmap))

    layer = network.first
    for part in (layer.position_gamma, layer.position_beta):
        nn.init.normal_(part.weight)
        nn.init.normal_(part.bias)
    d = positions(ids)[:, :, ::4, ::4]
    k = ids[0, ::4, ::4]
    scale, shift = (
        1 + part.weight[0, 0] * d[0, 0] + part.weight[0, 1] * d[0, 1] + part.bias
        for part in (layer.position_gamma, layer.position_beta)
    )
    gamma, beta = layer.gamma[k].movedim(-1, 0) * scale, layer.beta[k].movedim(-1, 0) * shift
    torch.testing.assert_close(layer(x, segmap)[0], layer.param_free_norm(x)[0] * gamma + beta)


def test_a_layer_at_two_places_stays_one_layer():
    network = Network()
    network.blocks[1]["norm"] = network.first
    report = replace_spade(network, 3)
    assert network.blocks[1]["norm"] is network.first
    assert isinstance(network.first, SegmapCLADE)
    assert [(layer.name, layer.also) for layer in report.layers] == [
        ("first", ("blocks.1.norm",)),
        ("blocks.0.norm", ()),
    ]
    assert report.network_after == sum(p.numel() for p in network.parameters())
    x, segmap = torch.randn(1, 4, 8, 8), one_hot(stripes(32, 32))
    assert network(x, segmap).shape == (1, 4, 32, 32)


def test_report_counts():
    network = Network()
    spade = (3 * 16 * 9 + 16) + 2 * (16 * 4 * 9 + 4)
    report = replace_spade(network, 3)
    assert [layer.channels for layer in report.layers] == [4, 4, 4]
    assert (report.params_before, report.params_after) == (3 * spade, 3 * 2 * 3 * 4)
    assert report.network_before - report.network_after == report.params_before - report.params_after
    assert report.layers[0].macs_saved(8, 10) == 80 * (3 * 16 * 9 + 2 * 16 * 4 * 9)
    text = str(report)
    assert "blocks.1.norm" in text
    assert f"{3 * spade:,} -> 72 parameters" in text
    assert "3 SPADE layers became CLADE (start: spade)" in text
    assert "Note" not in text


def test_further_channels_are_not_read_and_reported():
    network = Network(read=5)
    report = replace_spade(network, 3)
    assert [layer.ignored_channels for layer in report.layers] == [2, 2, 2]
    assert "Note: 2 channels past the classes" in str(report)
    segmap = torch.cat([one_hot(stripes(32, 32)), torch.ones(1, 2, 32, 32)], 1)
    x = torch.randn(1, 4, 8, 8)
    torch.testing.assert_close(network.eval()(x, segmap), network(x, segmap[:, :3]))


def test_soft_maps_count_by_their_largest_class_and_boolean_ones_are_taken():
    network = Network().eval()
    replace_spade(network, 3)
    x, ids = torch.randn(1, 4, 8, 8), stripes(32, 32)
    soft = (one_hot(ids) * 2 + torch.rand(1, 3, 32, 32)).softmax(1)
    torch.testing.assert_close(network(x, soft), network(x, one_hot(ids)))
    torch.testing.assert_close(network(x, one_hot(ids).bool()), network(x, one_hot(ids)))


def test_pixels_of_no_class_are_one_more_class_where_asked_for():
    layer = settle(PublishedSPADE(4)).eval()
    holder = Holder(copy.deepcopy(layer))
    replace_spade(holder, 3, unknown_class=True)
    assert holder.layer.gamma.shape == (4, 4)
    ids = stripes(40, 12, classes=4)
    segmap, x = one_hot(ids, 4)[:, :3], torch.randn(1, 4, 40, 12)
    agree(holder(x, segmap), layer(x, segmap), inside(ids, 2))


class Counting:
    """How often a reader takes the arg-max."""

    def __init__(self, reader, monkeypatch):
        self.count, ids = 0, reader._ids

        def counted(segmap):
            self.count += 1
            return ids(segmap)

        monkeypatch.setattr(reader, "_ids", counted)


def replaced(monkeypatch):
    network = Network().eval()
    replace_spade(network, 3)
    return network, Counting(network.first._segmaps, monkeypatch)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_forward_reads_the_map_once(monkeypatch, mode):
    network, reads = replaced(monkeypatch)
    with mode():
        x, segmap = torch.randn(1, 4, 8, 8), one_hot(stripes(32, 32))
        for forward in range(3):
            network(x, segmap)
            assert reads.count == forward + 1


def fresh_result(network, x, segmap):
    return copy.deepcopy(network)(x, segmap)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_maps_that_change_in_place_are_read_again(mode):
    network = Network().eval()
    replace_spade(network, 3)
    with mode():
        x, array = torch.randn(1, 4, 8, 8), one_hot(stripes(32, 32)).numpy()
        segmap = torch.from_numpy(array)
        first = network(x, segmap)
        segmap.copy_(segmap.flip(1))
        second = network(x, segmap)
        array[:] = array[:, [1, 0, 2]]  # no version tells
        third = network(x, segmap)
        segmap.data = segmap.data.flip(2)
        fourth = network(x, segmap)
        assert not torch.equal(first, second)
        assert not torch.equal(second, third)
        torch.testing.assert_close(fourth, fresh_result(network, x, segmap))


def test_layers_called_by_hand_notice_a_write_between_them():
    network = Network().eval()
    replace_spade(network, 3)
    x, segmap = torch.randn(1, 4, 32, 32), one_hot(stripes(32, 32))
    network.first(x, segmap)
    segmap.copy_(segmap.flip(1))
    layer = network.blocks[0]["norm"]
    torch.testing.assert_close(layer(x, segmap), copy.deepcopy(layer)(x, segmap))


def test_layers_called_by_hand_with_different_maps_do_not_share_them():
    network = Network().eval()
    replace_spade(network, 3)
    x, one, other = torch.randn(1, 4, 32, 32), one_hot(stripes(32, 32)), one_hot(stripes(32, 32).flip(1))
    network.first(x, one)
    layer = network.blocks[0]["norm"]
    torch.testing.assert_close(layer(x, other), copy.deepcopy(layer)(x, other))


def test_new_maps_in_old_memory_are_read_and_gone_ones_are_forgotten():
    network = Network().eval()
    replace_spade(network, 3)
    x = torch.randn(1, 4, 8, 8)
    memory = torch.empty(1, 3, 32, 32)
    for k in range(6):
        ids = stripes(32, 32).roll(k, 1) if k % 2 else stripes(32, 32).transpose(1, 2)
        segmap = memory.view(1, 3, 32, 32)  # the same memory, and most likely the same id()
        segmap.data.copy_(one_hot(ids))
        torch.testing.assert_close(network(x, segmap), fresh_result(network, x, one_hot(ids)))
    labels = weakref.ref(network.first._segmaps._last)
    del segmap
    gc.collect()
    assert network.first._segmaps._last is None
    assert labels() is None


def test_training_after_inference_with_the_same_map():
    network = Network()
    replace_spade(network, 3)
    x, segmap = torch.randn(2, 4, 8, 8), one_hot(stripes(32, 32)).expand(2, -1, -1, -1)
    with torch.inference_mode():
        network.first(x, segmap)
    network.blocks[0]["norm"](x, segmap).sum().backward()
    assert network.blocks[0]["norm"].beta.grad is not None


class Tanh(PublishedSPADE):
    def forward(self, x, segmap):
        return torch.tanh(super().forward(x, segmap))


class ThreeInputs(PublishedSPADE):
    def forward(self, x, segmap, style):
        return super().forward(x, segmap) * style


class LinearSPADE(nn.Module):
    """The same attributes, but modulated by a vector instead of a map."""

    def __init__(self):
        super().__init__()
        self.param_free_norm, self.mlp_shared = nn.BatchNorm2d(4), nn.Linear(3, 4)
        self.mlp_gamma, self.mlp_beta = nn.Linear(4, 4), nn.Linear(4, 4)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 3, 3)), {}, "has no SPADE layer.*param_free_norm, mlp_shared"),
        (lambda: Holder(LinearSPADE()), {}, "has no SPADE layer"),
        (lambda: PublishedSPADE(4), {}, "itself a SPADE layer"),
        (lambda: SPADE(4, num_rows=3), {}, "itself a SPADE layer"),
        (lambda: Holder(PublishedSPADE(4)), {"num_classes": 7}, "layer reads 3 classes, but num_classes is 7"),
        (lambda: Holder(PublishedSPADE(4)), {"num_classes": 0}, "num_classes is 0"),
        (lambda: Holder(PublishedSPADE(4)), {"start": "zero"}, "start is 'zero'"),
        (lambda: Holder(PublishedSPADE(4, dims=3)), {"positions": True}, "3-D features.*positions=False"),
        (lambda: Holder(Tanh(4)), {}, "computes something else"),
        (lambda: Holder(ThreeInputs(4)), {}, r"cannot be called as layer\(x, segmap\)"),
        (lambda: Holder(MonaiSPADE(3, 4)), {"example": torch.zeros(1, 8, 8)}, r"example has shape \(1, 8, 8\)"),
        (lambda: Holder(SPADE(4, num_rows=3)), {"unknown_class": True}, "Leave unknown_class out"),
    ],
)
def test_what_cannot_be_replaced_is_an_error_that_leaves_the_module_alone(make, options, message):
    module = make()
    children = list(module.modules())
    with pytest.raises(CladeError, match=message):
        replace_spade(module, **options)
    assert list(module.modules()) == children


def test_wrong_maps_are_errors_when_they_come():
    network = Network()
    replace_spade(network, 3)
    x = torch.randn(1, 4, 8, 8)
    with pytest.raises(CladeError, match=r"\(1, 2, 8, 8\) has 2 channels; needed is one per class, 3"):
        network(x, torch.zeros(1, 2, 8, 8))
    with pytest.raises(CladeError, match=r"segmap of shape \(1, 8, 8\).*one-hot"):
        network(x, torch.zeros(1, 8, 8))


def test_example_of_the_documentation_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "drop-in.md").read_text(encoding="utf-8")
    layer, swapped = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    alone: dict = {}
    exec(layer, alone)
    assert alone["features"].shape == alone["alone"].shape == (2, 16, 32, 32)
    names: dict = {}
    exec(swapped, names)
    assert names["image"].shape == (1, 1, 64, 64)
    assert names["report"].network_after < names["report"].network_before
    assert "SPADE layers became CLADE" in capsys.readouterr().out


def table_of_the_documentation():
    """Network -> its parameters (M) and multiply-adds (G) before and after, as printed."""
    page = (Path(__file__).parents[2] / "docs" / "drop-in.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`SPADE.*?) \| (\S+) -> (\S+) M \| (\S+) -> (\S+) G \|", page, re.MULTILINE)
    assert rows
    return {name: numbers for name, *numbers in rows}


def printed_networks():
    def spade_net(*channels):
        return SPADENet(2, 1, 1, label_nc=6, input_shape=[256, 256], channels=list(channels), z_dim=16)

    return {
        "`SPADENet`, 256 x 256, channels 16 to 128": lambda: spade_net(16, 32, 64, 128),
        "`SPADENet`, 256 x 256, channels 16 to 512": lambda: spade_net(16, 32, 64, 128, 256, 512),
        "`SPADEAutoencoderKL`, 128 x 128": lambda: SPADEAutoencoderKL(2, label_nc=6),
        "`SPADEDiffusionModelUNet`, 64 x 64": lambda: SPADEDiffusionModelUNet(2, 3, 3, label_nc=6),
    }


@pytest.mark.parametrize("row", printed_networks())
def test_printed_parameters_and_multiply_adds_are_those_of_the_networks(row):
    assert printed_networks().keys() == table_of_the_documentation().keys()
    side = int(re.search(r"(\d+) x", row)[1])
    network = printed_networks()[row]().eval()
    segmap = one_hot(stripes(side, side, classes=6), 6)
    image = torch.zeros(1, 3 if "Diffusion" in row else 1, side, side)
    inputs = {"SPADENet": (segmap, image), "KL": (image, segmap), "UNet": (image, torch.tensor([5]), segmap)}
    numbers = []
    for _ in range(2):
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network(*next(given for key, given in inputs.items() if key in row))
        params = sum(parameter.numel() for parameter in network.parameters())
        numbers.append((f"{params / 1e6:.2f}", f"{counter.get_total_flops() / 2e9:.2f}"))
        if len(numbers) == 1:
            replace_spade(network, 6)
    assert [one for pair in zip(*numbers, strict=True) for one in pair] == table_of_the_documentation()[row]


def test_the_conditional_shortcut_of_cc_fpse_is_no_layer_to_replace():
    generator = create_generator("cc-fpse", num_classes=3, width=2, hidden=4)
    before = dict(generator.named_modules())
    with pytest.raises(CladeError, match=r"part of CC-FPSE.*features besides the labels"):
        replace_spade(generator)
    assert dict(generator.named_modules()) == before


@pytest.mark.parametrize("name", ["spade", "spade-light", "dagan", "sean"])
def test_a_generator_with_other_layers_is_not_saved_as_what_it_was(name, tmp_path):
    options = {"style_dim": 4, "encoder_width": 2} if name == "sean" else {}
    generator = create_generator(name, num_classes=3, width=2, hidden=4, **options)
    replace_spade(generator)
    with pytest.raises(CladeError, match=r"layers of this generator were changed.*replace_spade"):
        clade.save(generator, tmp_path / "g.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_positions_of_a_replaced_generator_are_those_of_clade_icpe_where_a_map_is_padded():
    torch.manual_seed(0)
    generator = create_generator("spade", num_classes=3, width=2, hidden=4).eval()
    replace_spade(generator, positions=True)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    named = create_generator("clade-icpe", num_classes=3, width=2).eval()
    named.load_state_dict(generator.state_dict())
    ids = torch.randint(3, (1, 5, 7)).repeat_interleave(10, 1).repeat_interleave(10, 2)
    assert generator.uses_positions
    with torch.no_grad():
        assert torch.equal(generator(ids), named(ids))

"""Losses against their equations, and the VGG network against torchvision's own layers."""

import math
import shutil
import socket

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torchvision.models import VGG19_Weights
from torchvision.models.vgg import cfgs, make_layers

from clade.errors import CheckpointError, CladeError
from clade.losses import ADVERSARIAL, VGGPerceptual, feature_matching, kl_divergence

# Per loss, for one score: what the discriminator pays on a real and on a fake image, and what the generator pays.
BY_HAND = {
    "hinge": (lambda s: max(0.0, 1 - s), lambda s: max(0.0, 1 + s), lambda s: -s),
    "least-squares": (lambda s: (s - 1) ** 2, lambda s: s**2, lambda s: (s - 1) ** 2),
    "non-saturating": (
        lambda s: -math.log(1 / (1 + math.exp(-s))),
        lambda s: -math.log(1 - 1 / (1 + math.exp(-s))),
        lambda s: -math.log(1 / (1 + math.exp(-s))),
    ),
    "wasserstein": (lambda s: -s, lambda s: s, lambda s: -s),
}
SCORES = st.lists(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=6), min_size=1, max_size=3)


def mean(values):
    return sum(values) / len(values)


def by_hand(term, scales):
    return mean([mean([term(score) for score in scale]) for scale in scales])


def maps(scales):
    return [torch.tensor(scale).view(1, 1, 1, -1) for scale in scales]


def test_every_adversarial_loss_is_checked_here():
    assert sorted(BY_HAND) == ADVERSARIAL.names()


@pytest.mark.parametrize("name", BY_HAND)
@given(real=SCORES, fake=SCORES)
def test_adversarial_losses_equal_their_equations(name, real, fake):
    on_real, on_fake, fool = BY_HAND[name]
    real_term, fake_term = ADVERSARIAL[name].discriminator(maps(real), maps(fake))
    assert real_term.item() == pytest.approx(by_hand(on_real, real), abs=1e-5)
    assert fake_term.item() == pytest.approx(by_hand(on_fake, fake), abs=1e-5)
    assert ADVERSARIAL[name].generator(maps(fake)).item() == pytest.approx(by_hand(fool, fake), abs=1e-5)


@pytest.mark.parametrize("name", BY_HAND)
@given(scores=SCORES, better=st.floats(0.01, 1))
def test_fakes_scored_higher_cost_the_generator_less_and_the_discriminator_more(name, scores, better):
    # Least squares has its optima at 0 and 1: in between, higher is better for the generator.
    below = [(scale.sigmoid() * 0.5).requires_grad_() for scale in maps(scores)]
    above = [scale + better / 2 for scale in below]
    loss = ADVERSARIAL[name]
    assert loss.generator(above) < loss.generator(below)
    _, fake_below = loss.discriminator(below, below)
    _, fake_above = loss.discriminator(below, above)
    assert fake_above > fake_below
    real_below, _ = loss.discriminator(below, below)
    real_above, _ = loss.discriminator(above, below)
    assert real_above < real_below


@pytest.mark.parametrize("name", BY_HAND)
def test_scales_count_alike_whatever_their_size(name):
    small, large = torch.full((1, 1, 2, 2), 0.3), torch.full((1, 1, 64, 64), -0.7)
    loss = ADVERSARIAL[name]
    both = loss.generator([small, large])
    torch.testing.assert_close(both, (loss.generator([small]) + loss.generator([large])) / 2)


@pytest.mark.parametrize("name", BY_HAND)
def test_half_precision_scores_are_averaged_in_float32(name):
    scores = [torch.linspace(-1, 1, 4096).bfloat16()]
    value = ADVERSARIAL[name].generator(scores)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, ADVERSARIAL[name].generator([scores[0].float()]), rtol=0, atol=0)


def test_extreme_scores_stay_finite():
    scores = [torch.tensor([-1e4, 1e4])]
    for name in ADVERSARIAL.names():
        loss = ADVERSARIAL[name]
        assert torch.stack([loss.generator(scores), *loss.discriminator(scores, scores)]).isfinite().all()


def test_an_unknown_adversarial_loss_is_answered_with_the_nearest():
    with pytest.raises(CladeError, match="Did you mean 'wasserstein'"):
        ADVERSARIAL["waserstein"]


def features(seed, grad=False):
    generator = torch.Generator().manual_seed(seed)
    shapes = [[(2, 3, 8, 8), (2, 4, 4, 4), (2, 1, 3, 3)], [(2, 3, 4, 4), (2, 4, 2, 2), (2, 1, 1, 1)]]
    return [[torch.randn(s, generator=generator).requires_grad_(grad) for s in scale] for scale in shapes]


def test_feature_matching_equals_its_equation():
    fake, real = features(0), features(1)
    expected = mean(
        [
            sum((fake[scale][layer] - real[scale][layer]).abs().double().mean().item() for layer in range(2))
            for scale in range(2)
        ]
    )
    assert feature_matching(fake, real).item() == pytest.approx(expected, rel=1e-6)


def test_feature_matching_reaches_the_fake_features_but_neither_the_real_ones_nor_the_scores():
    fake, real = features(0, grad=True), features(1, grad=True)
    feature_matching(fake, real).backward()
    assert all(layer.grad is None for scale in real for layer in scale)
    assert all(layer.grad is not None and layer.grad.any() for scale in fake for layer in scale[:-1])
    assert all(scale[-1].grad is None for scale in fake)


@given(factor=st.floats(0.125, 8))
def test_feature_matching_grows_with_the_distance(factor):
    real = features(1)
    fake = [[layer + factor for layer in scale] for scale in real]
    assert feature_matching(fake, real).item() == pytest.approx(2 * factor, rel=1e-4)
    assert feature_matching(real, real).item() == 0


def test_feature_matching_refuses_to_broadcast_a_smaller_batch():
    fake, real = features(0), [[layer[:1] for layer in scale] for scale in features(1)]
    with pytest.raises(CladeError, match=r"\(2, 3, 8, 8\).*\(1, 3, 8, 8\)"):
        feature_matching(fake, real)


def test_kl_divergence_equals_that_of_torch_distributions():
    mu, logvar = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), torch.linspace(-2, 2, 15).view(3, 5)
    normal = torch.distributions.Normal
    exact = torch.distributions.kl_divergence(normal(mu, (logvar / 2).exp()), normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(kl_divergence(mu, logvar), exact)
    assert kl_divergence(torch.zeros(2, 4), torch.zeros(2, 4)) == 0


def test_kl_divergence_does_not_grow_with_the_batch():
    mu, logvar = torch.ones(1, 4), torch.full((1, 4), -1.0)
    one, four = kl_divergence(mu, logvar), kl_divergence(mu.repeat(4, 1), logvar.repeat(4, 1))
    torch.testing.assert_close(one, four)


@pytest.fixture(scope="module")
def torchvision_layers():
    """The layers of torchvision's vgg19().features, with random weights under which deep features keep their size."""
    torch.manual_seed(7)
    layers = make_layers(cfgs["E"])
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.normal_(layer.get_parameter("bias"), std=0.1)
    return layers


@pytest.fixture(scope="module")
def weights_file(torchvision_layers, tmp_path_factory):
    """A file laid out as torchvision's: keys ``features.*``, and a classifier that the loss does not need."""
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    state = {f"features.{key}": value for key, value in torchvision_layers.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(2, 2)}, path)
    return path


@pytest.fixture(scope="module")
def vgg(weights_file):
    return VGGPerceptual(weights_file)


@pytest.fixture(scope="module")
def raw_vgg(weights_file):
    return VGGPerceptual(weights_file, vgg_input="raw")


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty torch hub cache, and any attempt to fetch into it fails."""

    def refuse(*args, **kwargs):
        raise AssertionError("the network was touched")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path / "hub" / "checkpoints" / VGG19_Weights.IMAGENET1K_V1.url.rpartition("/")[2]


def pictures(seed, size=(32, 32), batch=2):
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1  # [-1, 1]


def slow_features(layers, x):
    """relu1_1 .. relu5_1: the first ReLU of each block, walking torchvision's layers."""
    found, first = [], True
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            x, first = layer(x), True
        elif isinstance(layer, nn.Conv2d):
            x = F.conv2d(x, layer.weight, layer.bias, padding=1)
        else:
            x = x.clamp(min=0)
            if first:
                found.append(x)
            first = False
    return found


@pytest.mark.parametrize("depth", range(5))
def test_vgg_features_are_those_of_torchvision(raw_vgg, torchvision_layers, depth):
    images = pictures(0, (32, 48))
    with torch.no_grad():
        expected = slow_features(torchvision_layers, images)[depth]
        actual = raw_vgg.features(images)[depth]
    assert expected.std() > 0.1
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_perceptual_loss_weights_five_layers(raw_vgg, torchvision_layers):
    fake, real = pictures(0), pictures(1)
    pairs = zip(slow_features(torchvision_layers, fake), slow_features(torchvision_layers, real), strict=True)
    expected = sum((a - b).abs().mean() / 2**k for k, (a, b) in zip((5, 4, 3, 2, 0), pairs, strict=True))
    torch.testing.assert_close(raw_vgg(fake, real), expected)
    assert raw_vgg(fake, fake) == 0


@torch.no_grad()
def test_images_are_normalised_as_torchvision_normalises_them(vgg, raw_vgg):
    images = pictures(0)
    transforms = VGG19_Weights.IMAGENET1K_V1.transforms()
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (transforms.mean, transforms.std))
    normalised = ((images * 0.5 + 0.5) - mean) / std
    for actual, expected in zip(vgg.features(images), raw_vgg.features(normalised), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(vgg(images, pictures(1)), raw_vgg(images, pictures(1)), rtol=1e-2)


def test_the_gradient_reaches_the_fake_image_only(vgg):
    fake, real = pictures(0).requires_grad_(), pictures(1).requires_grad_()
    vgg(fake, real).backward()
    assert fake.grad is not None
    assert fake.grad.abs().sum() > 0
    assert real.grad is None
    assert not any(buffer.requires_grad for buffer in vgg.buffers())


def test_a_step_along_the_gradient_brings_the_fake_closer(vgg):
    fake, real = pictures(0).requires_grad_(), pictures(1)
    before = vgg(fake, real)
    (gradient,) = torch.autograd.grad(before, fake)
    assert vgg(fake.detach() - 1e-2 * gradient / gradient.abs().max(), real) < before


@torch.no_grad()
def test_the_loss_is_a_mean_over_the_batch(vgg):
    fake, real = pictures(0), pictures(1)
    each = torch.stack([vgg(fake[i : i + 1], real[i : i + 1]) for i in range(len(fake))])
    torch.testing.assert_close(vgg(fake, real), each.mean())


def test_a_parent_holds_nothing_of_vgg_in_its_state_or_its_parameters(vgg):
    parent = nn.ModuleDict({"generator": nn.Conv2d(3, 3, 1), "perceptual": vgg})
    assert set(parent.state_dict()) == {"generator.weight", "generator.bias"}
    assert {name for name, _ in parent.named_parameters()} == {"generator.weight", "generator.bias"}
    parent.load_state_dict(parent.state_dict(), strict=True)


@torch.no_grad()
def test_train_mode_changes_nothing(vgg):
    fake, real = pictures(0), pictures(1)
    expected = vgg.eval()(fake, real)
    torch.testing.assert_close(vgg.train()(fake, real), expected, rtol=0, atol=0)


@torch.no_grad()
def test_half_precision_images_are_compared_in_float32(vgg):
    fake, real = pictures(0).bfloat16(), pictures(1).bfloat16()
    value = vgg(fake, real)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, vgg(fake.float(), real.float()), rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_network_follows_to(weights_file, vgg, dtype):
    value = VGGPerceptual(weights_file).to(dtype)(pictures(0), pictures(1))
    assert value.dtype == torch.float32
    torch.testing.assert_close(
        value, vgg(pictures(0), pictures(1)), rtol=0.02 if dtype == torch.bfloat16 else 1e-5, atol=0
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.no_grad()
def test_the_loss_on_a_gpu_is_that_on_the_cpu(weights_file, vgg):
    on_gpu = VGGPerceptual(weights_file).cuda()(pictures(0).cuda(), pictures(1).cuda())
    torch.testing.assert_close(on_gpu.cpu(), vgg(pictures(0), pictures(1)), rtol=1e-2, atol=0)


@torch.no_grad()
def test_sixteen_pixels_are_enough_and_fifteen_are_not(vgg):
    assert vgg.features(pictures(0, (16, 17)))[-1].shape[2:] == (1, 1)
    with pytest.raises(CladeError, match=r"15x32.*16x16.*losses\.perceptual"):
        vgg(pictures(0, (15, 32)), pictures(1, (15, 32)))


@pytest.mark.parametrize(
    "images",
    [torch.zeros(3, 32, 32), torch.zeros(1, 1, 32, 32), torch.zeros(1, 3, 32, 32, dtype=torch.uint8)],
    ids=["no batch", "grey", "bytes"],
)
def test_what_is_no_batch_of_images_is_refused(vgg, images):
    with pytest.raises(CladeError, match=r"\(N, 3, height, width\)"):
        vgg(images, images)


def test_images_of_different_sizes_are_refused(vgg):
    with pytest.raises(CladeError, match="same number of images, at the same size"):
        vgg(pictures(0), pictures(1)[:1])


def test_an_unknown_vgg_input_is_refused():
    with pytest.raises(CladeError, match="Did you mean 'imagenet'"):
        VGGPerceptual("random", vgg_input="image-net")  # pyright: ignore[reportArgumentType]


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["features.", ""])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_are_read_whole_or_as_features_from_either_kind_of_file(
    tmp_path, torchvision_layers, vgg, prefix, suffix
):
    path = tmp_path / f"weights{suffix}"
    state = {f"{prefix}{key}": value.half() for key, value in torchvision_layers.state_dict().items()}
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    loaded = VGGPerceptual(str(path))
    torch.testing.assert_close(loaded(pictures(0), pictures(1)), vgg(pictures(0), pictures(1)), rtol=1e-3, atol=0)


def test_missing_weights_say_which_file_to_put_where_and_what_else_to_do(no_network):
    with pytest.raises(CheckpointError) as caught:
        VGGPerceptual()
    message = str(caught.value)
    for part in (
        str(no_network),
        VGG19_Weights.IMAGENET1K_V1.url,
        "VGG19_Weights.IMAGENET1K_V1",
        ".safetensors",
        "download=True",
        "losses.perceptual",
    ):
        assert part in message


@torch.no_grad()
def test_the_cached_file_of_torchvision_is_found(no_network, weights_file, vgg):
    no_network.parent.mkdir(parents=True)
    no_network.symlink_to(weights_file)
    torch.testing.assert_close(VGGPerceptual()(pictures(0), pictures(1)), vgg(pictures(0), pictures(1)))


@torch.no_grad()
def test_download_true_lets_torchvision_fetch_its_file(monkeypatch, tmp_path, weights_file, vgg):
    fetched = []

    def fetch(url, destination, *args, **kwargs):
        fetched.append(url)
        shutil.copy(weights_file, destination)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for _ in range(2):  # the second time it is there
        downloaded = VGGPerceptual(download=True)
    assert fetched == [VGG19_Weights.IMAGENET1K_V1.url]
    torch.testing.assert_close(downloaded(pictures(0), pictures(1)), vgg(pictures(0), pictures(1)))


def test_a_failed_download_says_what_else_to_do(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(CheckpointError, match=r"no route to host.*losses\.perceptual"):
        VGGPerceptual(download=True)


def test_a_path_that_is_not_there_is_named(no_network, tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pth: no such file.*losses\.perceptual"):
        VGGPerceptual(tmp_path / "nowhere.pth", download=True)


class Stranger:
    """Something that only an unsafe unpickler would build."""


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.pth", b"not a weights file"), ("b.safetensors", b"nor is this"), ("c.pth", None)],
)
def test_a_file_that_is_no_state_dict_is_refused(tmp_path, name, content):
    path = tmp_path / name
    if content is None:
        torch.save({"features.0.weight": Stranger()}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} cannot be read.*plain tensors"):
        VGGPerceptual(path)


def test_missing_or_misshapen_weights_are_named(tmp_path, weights_file):
    state = torch.load(weights_file, weights_only=True)
    missing = {key: value for key, value in state.items() if key != "features.21.bias"}
    torch.save(missing, tmp_path / "missing.pth")
    with pytest.raises(CheckpointError, match=r"has nothing under 'features\.21\.bias'"):
        VGGPerceptual(tmp_path / "missing.pth")
    torch.save(state | {"features.10.weight": torch.zeros(256, 64, 3, 3)}, tmp_path / "misshapen.pth")
    with pytest.raises(
        CheckpointError, match=r"shape \(256, 64, 3, 3\) under 'features.10.weight'.*\(256, 128, 3, 3\)"
    ):
        VGGPerceptual(tmp_path / "misshapen.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="has nothing under"):
        VGGPerceptual(tmp_path / "list.pth")


@torch.no_grad()
def test_random_weights_are_the_same_every_time_and_leave_the_global_seed_alone():
    state = torch.random.get_rng_state()
    first, second = VGGPerceptual("random"), VGGPerceptual("random")
    assert torch.equal(torch.random.get_rng_state(), state)
    value = first(pictures(0), pictures(1))
    assert value > 0
    assert value == second(pictures(0), pictures(1))

"""Losses that compare a generated image with the real one, and the KL term of the style encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VGG19_Weights

from clade.errors import CheckpointError, CladeError
from clade.registry import near_match


def feature_matching(fake: Sequence[Sequence[Tensor]], real: Sequence[Sequence[Tensor]]) -> Tensor:
    """Distance of discriminator features (pix2pixHD, equation 4; as in SPADE).

        L = 1/S sum_s sum_{l < last} mean |fake[s][l] - real[s][l]|

    The last layer of a scale is its score map and is left out. The real side is detached.

    Args:
        fake: features of the generated images: per scale, per layer, any shape. A scale may have its scores alone.
        real: features of the real images, of the same shapes.

    Raises:
        CladeError: the shapes differ.
    """
    layers = [
        _mean_distance(fake_layer, real_layer.detach())
        for fake_scale, real_scale in zip(fake, real, strict=True)
        for fake_layer, real_layer in zip(fake_scale[:-1], real_scale[:-1], strict=True)
    ]
    return torch.stack(layers).sum() / len(fake)


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)), summed over dimensions, mean over the batch.

        L = 1/N sum_n -1/2 sum_d (1 + logvar - mu^2 - exp(logvar))

    The published code sums over the batch, so its value is N times this one; see docs/parity.md.

    Args:
        mu: means, (N, D).
        logvar: natural logarithms of the variances, (N, D).
    """
    mu, logvar = mu.float(), logvar.float()
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).flatten(1).sum(1).mean()


def _mean_distance(fake: Tensor, real: Tensor) -> Tensor:
    if fake.shape != real.shape:  # l1_loss would broadcast
        raise CladeError(
            f"The generated side has shape {tuple(fake.shape)} and the real side {tuple(real.shape)}, but they are "
            "compared element by element. Pass the same number of images, at the same size."
        )
    return F.l1_loss(fake.float(), real.float())


VGGInput = Literal["imagenet", "raw"]

_LAYER_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
_MIN_SIZE = 16  # four poolings leave one pixel
# For each returned feature, the layers since the one before: a convolution (and its ReLU) by its index in torchvision's
# vgg19().features, or a pooling.
_POOL = -1
_STAGES = ((0,), (2, _POOL, 5), (7, _POOL, 10), (12, 14, 16, _POOL, 19), (21, 23, 25, _POOL, 28))
# Output channels of each convolution.
_CHANNELS = dict.fromkeys((0, 2), 64) | dict.fromkeys((5, 7), 128)
_CHANNELS |= dict.fromkeys((10, 12, 14, 16), 256) | dict.fromkeys((19, 21, 23, 25, 28), 512)


class VGGPerceptual(nn.Module):
    """Distance of VGG19 features (Johnson et al. 2016; weights and layers of pix2pixHD and SPADE).

        L = sum_i w_i mean |phi_i(fake) - phi_i(real)|
        phi = relu1_1, relu2_1, relu3_1, relu4_1, relu5_1,   w = 1/32, 1/16, 1/8, 1/4, 1

    The network never trains and never lands in a checkpoint: its weights are non-persistent buffers, so they follow
    ``.to(...)`` but are no parameters and no part of the ``state_dict`` of any module that owns this one. Nothing in it
    depends on train or eval mode.

    Args:
        weights: where the VGG19 weights come from. None: torchvision's own file in the torch hub cache. A path: a
            ``.pth`` (read with ``weights_only=True``) or ``.safetensors`` file with the state dict of torchvision's
            vgg19, or of its ``features`` alone. ``"random"``: seeded random weights, for tests only.
        vgg_input: ``"imagenet"`` moves images from [-1, 1] to [0, 1] and normalises them by ImageNet's mean and
            standard deviation, as VGG19 was trained; ``"raw"`` feeds them as they are, as the published code does.
        download: let torchvision fetch its file when ``weights`` is None and the cache does not have it.

    Raises:
        CheckpointError: the weights are missing or not those of VGG19.
        CladeError: ``vgg_input`` is unknown.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, weights: str | Path | None = None, vgg_input: VGGInput = "imagenet", download: bool = False
    ) -> None:
        super().__init__()
        if vgg_input not in get_args(VGGInput):
            hint = near_match(vgg_input, get_args(VGGInput))
            raise CladeError(f"vgg_input is '{vgg_input}', but must be 'imagenet' or 'raw'.{hint}")
        self.vgg_input = vgg_input
        state = _random_state() if weights == "random" else _read_state(weights, download)
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    nn.MaxPool2d(2) if index == _POOL else _FrozenConv(state[f"{index}.weight"], state[f"{index}.bias"])
                    for index in stage
                )
            )
            for stage in _STAGES
        )
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """The loss, a float32 scalar. No gradient reaches ``real``.

        Args:
            fake: generated images in [-1, 1], (N, 3, H, W), H and W at least 16, any floating type.
            real: real images, of the same shape.

        Raises:
            CladeError: not images of this kind, or their shapes differ.
        """
        with torch.no_grad():
            real_features = self.features(real)
        fake_features = self.features(fake)
        terms = [
            weight * _mean_distance(fake_feature, real_feature)
            for weight, fake_feature, real_feature in zip(_LAYER_WEIGHTS, fake_features, real_features, strict=True)
        ]
        return torch.stack(terms).sum()

    def features(self, images: Tensor) -> list[Tensor]:
        """relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1.

        Feature i = 0..4 is (N, C_i, H // 2^i, W // 2^i), C = 64, 128, 256, 512, 512.

        Args:
            images: in [-1, 1], (N, 3, H, W), H and W at least 16, any floating type.

        Raises:
            CladeError: not images of this kind.
        """
        _check_images(images)
        x = images.to(self.mean.dtype)
        if self.vgg_input == "imagenet":
            x = ((x + 1) / 2 - self.mean) / self.std
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class _FrozenConv(nn.Module):
    """A 3x3 convolution and ReLU, whose weights are non-persistent buffers."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(F.conv2d(x, self.weight, self.bias, padding=1))


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise CladeError(
            f"The perceptual loss got {tuple(images.shape)} of {images.dtype}, but needs RGB images of floating type, "
            "(N, 3, height, width), in [-1, 1]. Convert them first."
        )
    height, width = images.shape[2:]
    if min(height, width) < _MIN_SIZE:
        raise CladeError(
            f"The perceptual loss got images of {height}x{width}, but VGG19 halves them four times and needs at least "
            f"{_MIN_SIZE}x{_MIN_SIZE}. Train on larger images, or set losses.perceptual to 0 in the recipe."
        )


def _shapes() -> dict[str, tuple[int, ...]]:
    """Key in torchvision's vgg19().features -> shape, of every weight that is used."""
    shapes, before = {}, 3
    for index, channels in _CHANNELS.items():
        shapes[f"{index}.weight"] = (channels, before, 3, 3)
        shapes[f"{index}.bias"] = (channels,)
        before = channels
    return shapes


def _random_state() -> dict[str, Tensor]:
    """He-normal weights, so that deep features keep their size; always the same."""
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.randn(shape, generator=generator) * (math.sqrt(2 / math.prod(shape[1:])) if len(shape) > 1 else 0.1)
        for key, shape in _shapes().items()
    }


def _read_state(weights: str | Path | None, download: bool) -> dict[str, Tensor]:
    if weights is not None:
        path = Path(weights)
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file of VGG19 weights. {_how_to_get_weights()}")
        return _select(_load(path), path)
    path = _cached_file()
    if path.is_file():
        return _select(_load(path), path)
    if not download:
        raise CheckpointError(
            f"The perceptual loss needs the VGG19 weights, but {path} does not exist, and nothing is downloaded "
            f"unasked. {_how_to_get_weights()}"
        )
    try:
        state = VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no network, or a damaged download
        raise CheckpointError(f"The VGG19 weights could not be downloaded: {error}. {_how_to_get_weights()}") from error
    return _select(state, path)


def _cached_file() -> Path:
    """Where torchvision keeps its VGG19 file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(VGG19_Weights.IMAGENET1K_V1.url).name


def _how_to_get_weights() -> str:
    return (
        f"Download {VGG19_Weights.IMAGENET1K_V1.url} (torchvision's VGG19_Weights.IMAGENET1K_V1) and put it at "
        f"{_cached_file()}; or name such a .pth or .safetensors file (losses.vgg_weights in the recipe, weights= in "
        "Python, where download=True lets torchvision fetch it); or set losses.perceptual to 0 in the recipe."
    )


def _load(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a stranger's file fails in many ways
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}), but must hold plain tensors: a .safetensors file, or "
            f"a .pth saved by torch.save(vgg19.state_dict(), ...). {_how_to_get_weights()}"
        ) from error


def _select(state: object, path: Path) -> dict[str, Tensor]:
    """The weights that are used, by their key in vgg19().features, in float32."""
    state = state if isinstance(state, Mapping) else {}
    prefix = "features." if "features.0.weight" in state else ""
    selected = {}
    for key, shape in _shapes().items():
        value = state.get(prefix + key)
        if not isinstance(value, Tensor) or value.shape != shape:
            came = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else "nothing"
            raise CheckpointError(
                f"{path} has {came} under '{prefix + key}', but torchvision's vgg19 has shape {shape} under "
                f"'features.{key}'. {_how_to_get_weights()}"
            )
        selected[key] = value.float()
    return selected

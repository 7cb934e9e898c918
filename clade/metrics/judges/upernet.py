"""UPerNet on ResNet-101 (Xiao et al. 2018), ADE20K: ``ade20k-resnet101-upernet`` of CSAILVision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.errors import CladeError
from clade.metrics.judges.base import Size
from clade.metrics.judges.layers import bilinear, bottlenecks, conv_bn_relu
from clade.metrics.judges.pixels import Images, as_pixels, bilinear_pixels, normalized
from clade.metrics.judges.published import PublishedJudge, State

POOLS = (1, 2, 3, 6)
WIDTH = 512
ENCODER = (256, 512, 1024, 2048)


class Encoder(nn.Module):
    """The repository's own ResNet-101: three 3x3 convolutions in place of torchvision's 7x7.

    (N, 3, H, W) -> features at 1/4, 1/8, 1/16 and 1/32 with 256, 512, 1024 and 2048 channels.
    """

    def __init__(self) -> None:
        super().__init__()
        for k, (channels_in, channels_out) in enumerate(((3, 64), (64, 64), (64, 128)), start=1):
            conv = nn.Conv2d(channels_in, channels_out, 3, 2 if k == 1 else 1, padding=1, bias=False)
            self.add_module(f"conv{k}", conv)
            self.add_module(f"bn{k}", nn.BatchNorm2d(channels_out))
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = bottlenecks(128, 64, 3)
        self.layer2 = bottlenecks(256, 128, 4, stride=2)
        self.layer3 = bottlenecks(512, 256, 23, stride=2)
        self.layer4 = bottlenecks(1024, 512, 3, stride=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        for k in (1, 2, 3):
            x = F.relu(self.get_submodule(f"bn{k}")(self.get_submodule(f"conv{k}")(x)))
        x = self.maxpool(x)
        features = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """Pyramid pooling, a feature pyramid from the top down, and their fusion at 1/4: features -> logits."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        top = ENCODER[-1]
        self.ppm_conv = nn.ModuleList(conv_bn_relu(top, WIDTH, 1) for _ in POOLS)
        self.ppm_last_conv = conv_bn_relu(top + len(POOLS) * WIDTH, WIDTH, 3)
        self.fpn_in = nn.ModuleList(conv_bn_relu(channels, WIDTH, 1) for channels in ENCODER[:-1])
        self.fpn_out = nn.ModuleList(nn.Sequential(conv_bn_relu(WIDTH, WIDTH, 3)) for _ in ENCODER[:-1])
        self.conv_last = nn.Sequential(
            conv_bn_relu(len(ENCODER) * WIDTH, WIDTH, 3), nn.Conv2d(WIDTH, num_classes, kernel_size=1)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        top = features[-1]
        pooled = [
            conv(bilinear(F.adaptive_avg_pool2d(top, pool), _size(top)))
            for pool, conv in zip(POOLS, self.ppm_conv, strict=True)
        ]
        running = self.ppm_last_conv(torch.cat([top, *pooled], 1))
        levels = [running]
        for feature, inward, outward in reversed(list(zip(features, self.fpn_in, self.fpn_out, strict=False))):
            running = inward(feature) + bilinear(running, _size(feature))
            levels.insert(0, outward(running))
        size = _size(features[0])
        return self.conv_last(torch.cat([levels[0], *(bilinear(level, size) for level in levels[1:])], 1))


class UPerNet(nn.Module):
    """Encoder and decoder, under these names: (N, 3, H, W) -> logits at 1/4."""

    def __init__(self, num_classes: int = 150) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class UPerNetJudge(PublishedJudge):
    """UPerNet101 for ADE20K, 150 classes. Scores are probabilities: the mean over several image sizes.

    Args:
        short_sides: the image is judged once for each of these lengths of its shorter side (published: five). One of
            them is a single-scale test; ``(256,)`` leaves 256x256 images at their size.
        max_side: the longer side is at most this, before both are rounded up to a multiple of 32.
    """

    name = "upernet101"
    data = "ADE20K"
    files = ("encoder_epoch_50.pth", "decoder_epoch_50.pth")
    url = "http://sceneparsing.csail.mit.edu/model/pytorch/ade20k-resnet101-upernet/"
    signature = "decoder.ppm_last_conv.0.weight"
    network: UPerNet

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(
        self,
        state: State,
        *,
        short_sides: Sequence[int] = (300, 375, 450, 525, 600),
        max_side: int = 1000,
    ) -> None:
        super().__init__(state)
        if not short_sides or min(short_sides) < 1 or max_side < 1:
            raise CladeError(
                f"short_sides is {short_sides}, max_side {max_side}; needed are lengths of 1 pixel or more."
            )
        self.short_sides, self.max_side = tuple(short_sides), max_side

    def options(self) -> dict[str, object]:
        return {"short_sides": self.short_sides, "max_side": self.max_side}

    @classmethod
    def build(cls, state: State) -> nn.Module:
        return UPerNet()

    @classmethod
    def tidy(cls, state: State) -> dict[str, Tensor]:
        """The two files have no prefixes, but buffers of synchronised BatchNorm, which only training uses."""
        unused = ("._tmp_running_mean", "._tmp_running_var", "._running_iter")
        return {_place(key): value for key, value in state.items() if not key.endswith(unused)}

    def preprocess(self, images: Images) -> list[Tensor]:
        """Images -> the network's inputs, one for each of ``short_sides``."""
        pixels = as_pixels(images)
        return [
            normalized(bilinear_pixels(pixels, size).to(self.device), self.mean, self.std)
            for size in input_sizes(_size(pixels), self.short_sides, self.max_side)
        ]

    def evaluate(self, x: Tensor, size: Size | None) -> Tensor:
        logits = self.network(x)
        return logits if size is None else bilinear(logits, size).softmax(1)

    def combine(self, inputs: Tensor | Sequence[Tensor], size: Size) -> Tensor:
        """The mean probability decides, not the mean logit."""
        assert not isinstance(inputs, Tensor)
        total = self(inputs[0], size) / len(inputs)
        for x in inputs[1:]:
            total += self(x, size) / len(inputs)
        return total


def _size(x: Tensor) -> Size:
    return x.shape[-2], x.shape[-1]


def input_sizes(size: Size, short_sides: Sequence[int], max_side: int) -> list[Size]:
    """The sizes that an image of ``size`` (height, width) is judged at; its aspect ratio is kept but for rounding."""
    sizes = []
    for side in short_sides:
        scale = min(side / float(min(size)), max_side / float(max(size)))
        height, width = (_round_up(int(length * scale), 32) for length in size)
        sizes.append((height, width))
    return sizes


def _round_up(length: int, multiple: int) -> int:
    return (length - 1) // multiple * multiple + multiple


def _place(key: str) -> str:
    if key.startswith(("encoder.", "decoder.")):
        return key
    decoder = ("ppm_", "fpn_", "conv_last.")
    return ("decoder." if key.startswith(decoder) else "encoder.") + key

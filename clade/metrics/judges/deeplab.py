"""DeepLab v2 on ResNet-101 (Chen et al. 2017), multi-scale, COCO-Stuff: kazuto1011/deeplab-pytorch."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.metrics.judges.base import Size
from clade.metrics.judges.layers import bilinear
from clade.metrics.judges.pixels import Images, as_pixels
from clade.metrics.judges.published import PublishedJudge, State

SCALES = (0.5, 0.75)
RATES = (6, 12, 18, 24)


def conv_bn(
    channels_in: int, channels_out: int, kernel: int, *, stride: int = 1, dilation: int = 1, relu: bool = True
) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(channels_in, channels_out, kernel, stride, padding, dilation, bias=False),
        bn=nn.BatchNorm2d(channels_out),
    )
    if relu:
        layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


class Block(nn.Module):
    """Bottleneck whose first 1x1 convolution carries the stride, as in Caffe."""

    def __init__(self, channels_in: int, channels: int, stride: int, dilation: int, first: bool) -> None:
        super().__init__()
        width = channels // 4
        self.reduce = conv_bn(channels_in, width, 1, stride=stride)
        self.conv3x3 = conv_bn(width, width, 3, dilation=dilation)
        self.increase = conv_bn(width, channels, 1, relu=False)
        self.shortcut = conv_bn(channels_in, channels, 1, stride=stride, relu=False) if first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.increase(self.conv3x3(self.reduce(x))) + self.shortcut(x))


def blocks(channels_in: int, channels: int, count: int, stride: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            (f"block{k + 1}", Block(channels if k else channels_in, channels, 1 if k else stride, dilation, k == 0))
            for k in range(count)
        )
    )


class ASPP(nn.Module):
    """The sum of four dilated 3x3 convolutions: (N, 2048, h, w) -> (N, num_classes, h, w)"""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for k, rate in enumerate(RATES):
            self.add_module(f"c{k}", nn.Conv2d(2048, num_classes, 3, padding=rate, dilation=rate))

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.children()
        y = first(x)
        for conv in others:
            y = y + conv(x)
        return y


class DeepLabV2(nn.Sequential):
    """One scale: (N, 3, H, W) -> logits at 1/8."""

    def __init__(self, num_classes: int) -> None:
        stem: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=conv_bn(3, 64, 7, stride=2), pool=nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        )
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            layer1=nn.Sequential(stem),
            layer2=blocks(64, 256, 3, stride=1, dilation=1),
            layer3=blocks(256, 512, 4, stride=2, dilation=1),
            layer4=blocks(512, 1024, 23, stride=1, dilation=2),
            layer5=blocks(1024, 2048, 3, stride=1, dilation=4),
            aspp=ASPP(num_classes),
        )
        super().__init__(layers)


class MultiScale(nn.Module):
    """The elementwise maximum of the logits of x, of x at half size and at three quarters: logits at 1/8."""

    def __init__(self, num_classes: int = 182) -> None:
        super().__init__()
        self.base = DeepLabV2(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.base(x)
        size = (logits.shape[-2], logits.shape[-1])
        for scale in SCALES:
            # Positions follow from the factor itself, not from the ratio of the rounded sizes: torch's rule since 1.6.
            small = F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
            logits = torch.maximum(logits, bilinear(self.base(small), size))
        return logits


class DeepLabJudge(PublishedJudge):
    """DeepLab v2 for COCO-Stuff, 182 classes. Scores are probabilities, from logits resized to the label map's size."""

    name = "deeplabv2"
    data = "COCO-Stuff"
    files = ("deeplabv2_resnet101_msc-cocostuff164k-100000.pth",)
    url = "https://github.com/kazuto1011/deeplab-pytorch/releases/download/v1.0/"
    signature = "base.aspp.c0.weight"
    network: MultiScale
    min_size = 2  # half of one pixel is none

    mean = (104.008, 116.669, 122.675)  # blue, green, red, of 0..255

    @classmethod
    def build(cls, state: State) -> nn.Module:
        return MultiScale()

    @classmethod
    def tidy(cls, state: State) -> dict[str, Tensor]:
        """Files from before February 2019 have older names."""
        older = (("scale.", "base.", True), (".proj.", ".shortcut.", False), (".aspp.stages.", ".aspp.", False))
        renamed = {}
        for key, value in state.items():
            for old, new, at_start in older:
                if not at_start or key.startswith(old):
                    key = key.replace(old, new, 1)
            renamed[key] = value
        return renamed

    def preprocess(self, images: Images) -> Tensor:
        """Images -> BGR in 0..255, less the mean; the size stays."""
        bgr = as_pixels(images).to(self.device).float().flip(1)
        # Double, then rounded once, as numpy subtracts the mean in the published code.
        return (bgr.double() - bgr.new_tensor(self.mean, dtype=torch.float64).view(3, 1, 1)).float()

    def evaluate(self, x: Tensor, size: Size | None) -> Tensor:
        logits = self.network(x)
        return logits if size is None else bilinear(logits, size).softmax(1)

"""What the published segmenters are built from."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck


def conv_bn_relu(
    channels_in: int,
    channels_out: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    bias: bool = False,
    norm: bool = True,
) -> nn.Sequential:
    """Convolution (0), BatchNorm where asked for (1) and ReLU; of stride 1, the size stays."""
    padding = dilation * (kernel // 2)
    layers: list[nn.Module] = [nn.Conv2d(channels_in, channels_out, kernel, stride, padding, dilation, bias=bias)]
    if norm:
        layers.append(nn.BatchNorm2d(channels_out))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


def bottlenecks(channels_in: int, width: int, count: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """torchvision's bottlenecks, the 3x3 convolution carrying stride and dilation: the first one changes to 4 width."""
    channels = 4 * width
    shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
    first = Bottleneck(channels_in, width, stride, shortcut, dilation=dilation)
    return nn.Sequential(first, *(Bottleneck(channels, width, dilation=dilation) for _ in range(count - 1)))


def bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize to (height, width), align_corners=False."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)

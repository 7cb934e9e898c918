"""U-Net (Ronneberger et al. 2015) for faces, CelebAMask-HQ: face_parsing of switchablenorms/CelebAMask-HQ."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.errors import CladeError
from clade.metrics.judges.base import Size
from clade.metrics.judges.layers import conv_bn_relu
from clade.metrics.judges.pixels import Images, as_pixels, nearest, normalized
from clade.metrics.judges.published import PublishedJudge, State

WIDTHS = (16, 32, 64, 128, 256)
MULTIPLE = 16


class DoubleConv(nn.Module):
    """Twice a 3x3 convolution with bias, BatchNorm and ReLU."""

    def __init__(self, channels_in: int, channels_out: int, norm: bool = True) -> None:
        super().__init__()
        self.conv1 = conv_bn_relu(channels_in, channels_out, 3, bias=True, norm=norm)
        self.conv2 = conv_bn_relu(channels_out, channels_out, 3, bias=True, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class Up(nn.Module):
    """Doubles the size, halves the channels, and joins the encoder's features of that size."""

    def __init__(self, channels_in: int, channels_out: int, norm: bool) -> None:
        super().__init__()
        self.conv = DoubleConv(channels_in, channels_out, norm)
        self.up = nn.ConvTranspose2d(channels_in, channels_out, kernel_size=2, stride=2)

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        return self.conv(torch.cat([skip, self.up(x)], 1))


class UNet(nn.Module):
    """(N, 3, H, W), sides multiples of 16 -> logits of the same size.

    Args:
        up_norm: BatchNorm on the way up; the code before 2019-09-14 had none there.
    """

    def __init__(self, num_classes: int = 19, up_norm: bool = True) -> None:
        super().__init__()
        first, *deeper = WIDTHS
        self.conv1 = DoubleConv(3, first)
        names = ("conv2", "conv3", "conv4", "center")
        for name, channels_in, channels_out in zip(names, WIDTHS, deeper, strict=False):
            self.add_module(name, DoubleConv(channels_in, channels_out))
        for k in (4, 3, 2, 1):
            self.add_module(f"up_concat{k}", Up(WIDTHS[k], WIDTHS[k - 1], up_norm))
        self.final = nn.Conv2d(first, num_classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.conv1(x)]
        for name in ("conv2", "conv3", "conv4", "center"):
            skips.append(self.get_submodule(name)(F.max_pool2d(skips[-1], 2)))
        y = skips.pop()
        for k in (4, 3, 2, 1):
            y = self.get_submodule(f"up_concat{k}")(skips.pop(), y)
        return self.final(y)


class UNetJudge(PublishedJudge):
    """The U-Net for CelebAMask-HQ, 19 classes. Scores are logits at ``input_size``, repeated or thinned to other sizes.

    Args:
        input_size: images are made squares of this side by Pillow's nearest filter (published: 512), a multiple of 16.
    """

    name = "unet-celebamask"
    data = "CelebAMask-HQ"
    files = ("model.pth",)
    url = "https://drive.google.com/file/d/1o1m-eT38zNCIFldcRaoWcLvvBtY8S4W3"
    signature = "center.conv1.0.weight"
    network: UNet

    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def __init__(self, state: State, *, input_size: int = 512) -> None:
        super().__init__(state)
        if input_size < MULTIPLE or input_size % MULTIPLE:
            raise CladeError(f"input_size is {input_size}; the U-Net needs a multiple of {MULTIPLE}, such as 512.")
        self.input_size = input_size

    def options(self) -> dict[str, object]:
        return {"input_size": self.input_size}

    @classmethod
    def build(cls, state: State) -> nn.Module:
        """The first published file has no BatchNorm on the way up."""
        return UNet(up_norm=any(".conv.conv1.1." in key or ".conv.conv2.1." in key for key in state))

    def preprocess(self, images: Images) -> Tensor:
        """Images -> squares of ``input_size``, RGB in [-1, 1]."""
        size = (self.input_size, self.input_size)
        return normalized(nearest(as_pixels(images).to(self.device), size), self.mean, self.std)

    def check(self, x: Tensor) -> None:
        super().check(x)
        height, width = x.shape[-2:]
        if height % MULTIPLE or width % MULTIPLE:
            up = tuple(-(-side // MULTIPLE) * MULTIPLE for side in (height, width))
            raise CladeError(
                f"The input is {height} x {width}; the U-Net needs sides that are multiples of {MULTIPLE}, such as "
                f"{up[0]} x {up[1]}. judge.predict(images) resizes any image as published."
            )

    def evaluate(self, x: Tensor, size: Size | None) -> Tensor:
        logits = self.network(x)
        return logits if size is None else nearest(logits, size)

"""Discriminators: what all do, and those that see the label map and the image together and score patches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from clade.errors import CladeError
from clade.labels import LabelPyramid
from clade.nn import conv2d
from clade.registry import Registry

Features = list[list[Tensor]]
Losses = tuple[dict[str, Tensor], dict[str, Tensor]]  # the generator's and the discriminator's, weighted, by name


class PatchDiscriminator(nn.Module):
    """4x4 convolutions with LeakyReLU(0.2), strides 2 but for the last two; inner ones have spectral and instance norm.

    Args:
        channels_in: channels of labels and image together.
        width: channels of the first layer, doubled at each further one up to 512.
        layers: convolutions before the one that scores.
        last_stride: stride of the last of them; 1 as published by all but SEAN, which has 2.
    """

    def __init__(self, channels_in: int, *, width: int = 64, layers: int = 4, last_stride: int = 1) -> None:
        super().__init__()
        if last_stride not in (1, 2) or min(width, layers) < 1:
            raise CladeError(
                f"width is {width}, layers {layers} and last_stride {last_stride}; needed are at least 1, at least 1, "
                "and 1 or 2."
            )
        widths = [min(width * 2**k, 512) if k else width for k in range(layers)]
        first = conv2d(channels_in, width, 4, stride=2, padding=2)
        inner = [
            conv2d(
                widths[k - 1],
                widths[k],
                4,
                stride=last_stride if k == layers - 1 else 2,
                padding=2,
                bias=False,
                spectral=True,
            )
            for k in range(1, layers)
        ]
        self.convs = nn.ModuleList([first, *inner])
        self.score = conv2d(widths[-1], 1, 4, padding=2)

    @property
    def first(self) -> nn.Conv2d:
        """The convolution that sees labels and image."""
        conv = self.convs[0]
        assert isinstance(conv, nn.Conv2d)
        return conv

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.after_first(self.first(x))

    def after_first(self, x: Tensor) -> list[Tensor]:
        """What :meth:`forward` gives, from the result of the first convolution."""
        x = F.leaky_relu(x, 0.2)
        features = [x]
        for conv in self.convs[1:]:
            x = F.leaky_relu(F.instance_norm(conv(x)), 0.2)
            features.append(x)
        return [*features, self.score(x)]


@dataclass(frozen=True)
class Look:
    """What a discriminator is shown of one batch.

    Args:
        labels: N label maps.
        fake: their generated images (N, 3, H, W) in [-1, 1].
        real: their photos, of the same shape.
        instance_edges: whether the edge channel is shown, too.
        visible: (N, 1, H, W), true where the images show something; None where they do everywhere, or where nobody asks
            (``Discriminator.wants_visible``).
        numbers: uniform random numbers in [0, 1), (N, ``Discriminator.draws``); None where it draws none.
    """

    labels: LabelPyramid
    fake: Tensor
    real: Tensor
    instance_edges: bool
    visible: Tensor | None = None
    numbers: Tensor | None = None


class Discriminator(nn.Module, ABC):
    """What every discriminator does: one look at fake and real images gives the losses of both sides."""

    draws: int = 0
    """Random numbers per picture that :meth:`losses` needs."""
    wants_visible: bool = False
    """Whether :meth:`losses` reads ``Look.visible``, which is None otherwise."""

    @abstractmethod
    def losses(self, look: Look, of_features: Callable[[Features, Features], Losses]) -> Losses:
        """The generator's and the discriminator's weighted losses by name, scalars in float32.

        Gradients reach ``look.fake`` through the generator's.

        Args:
            look: the batch.
            of_features: what the recipe makes of features of fake and of real images; for discriminators that score.
        """

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises CladeError where images of this height and width cannot be seen."""


class ScoringDiscriminator(Discriminator):
    """Scores patches of labels and image; trained by an adversarial loss of the scores, and matched by its features."""

    def losses(self, look: Look, of_features: Callable[[Features, Features], Losses]) -> Losses:
        return of_features(*discriminate(self, look.labels, look.fake, look.real, look.instance_edges))

    @abstractmethod
    def forward(self, x: Tensor) -> Features:
        """Labels, edge where used, and image, concatenated -> per scale, features of every layer, scores last."""

    def of_images(self, labels: LabelPyramid, images: Sequence[Tensor], instance_edges: bool) -> list[Features]:
        """Features of several batches of images (N, 3, H, W) of the same label maps: :meth:`forward` of each.

        What depends on the labels alone can be computed once here.
        """
        size = (images[0].shape[2], images[0].shape[3])
        semantics = labels.semantics(size, instance_edges, images[0].dtype)
        return [self(torch.cat([semantics, image], dim=1)) for image in images]


DISCRIMINATORS: Registry[type[Discriminator]] = Registry("discriminator")
"""What ``discriminator.name`` of a recipe chooses from. A recipe and its data are given by keyword, as far as the class
takes them: ``channels_in`` (labels, edge where used, and image together), ``num_classes`` (without the unknown one),
``unknown_class``, ``width``, ``scales`` and ``layers``; all others are ``discriminator.options``."""


@DISCRIMINATORS.register("multiscale")
class MultiscaleDiscriminator(ScoringDiscriminator):
    """Patch discriminators on the input and on its halves (pix2pixHD; SPADE's choice of norms).

    Args:
        channels_in: channels of labels, edge where used, and image together.
        width: channels of the first layer (the official ``ndf``).
        scales: number of discriminators; the k-th sees the input halved k times.
        layers: convolutions of each before the one that scores.
        last_stride: stride of the last of them; 1 as published by all but SEAN, which has 2.
    """

    def __init__(
        self, channels_in: int, *, width: int = 64, scales: int = 2, layers: int = 4, last_stride: int = 1
    ) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            PatchDiscriminator(channels_in, width=width, layers=layers, last_stride=last_stride) for _ in range(scales)
        )

    def forward(self, x: Tensor) -> Features:
        """Labels and image concatenated (N, channels_in, H, W) -> per scale, features of every layer, scores last."""
        out = []
        for k, scale in enumerate(self.scales):
            if k:
                x = _halved(x)
            out.append(scale(x))
        return out

    def of_images(self, labels: LabelPyramid, images: Sequence[Tensor], instance_edges: bool) -> list[Features]:
        """The first convolution is linear: its share of the labels is computed once for all images.

            conv(W, [labels, image]) = conv(W_labels, labels) + conv(W_image, image)

        At full size the labels are one-hot and their share is a sum of table rows, at a half one-hot averages.
        """
        size = (images[0].shape[2], images[0].shape[3])
        ids = labels.ids(size)
        images = [torch.cat([labels.edges(size, x.dtype), x], 1) for x in images] if instance_edges else images
        averages, out = None, [[] for _ in images]
        for k, scale in enumerate(self.scales):
            assert isinstance(scale, PatchDiscriminator)
            first, rows = scale.first, labels.num_rows
            assert not isinstance(first.padding, str)
            if k:
                images = [_halved(image) for image in images]
                averages = _halved_one_hot(ids, rows, images[0].dtype) if averages is None else _halved(averages)
            of_labels, of_image = first.weight[:, :rows], first.weight[:, rows:]
            if averages is None:
                shared = one_hot_conv(ids, of_labels, first.bias, first.stride[0], first.padding[0])
            else:
                shared = F.conv2d(averages, of_labels, first.bias, first.stride, first.padding)
            for features, image in zip(out, images, strict=True):
                own = F.conv2d(image, of_image, None, first.stride, first.padding)
                features.append(scale.after_first(own + shared.to(own.dtype)))
        return out


def one_hot_conv(ids: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """``F.conv2d`` of one-hot labels without the one-hot map: at every pixel, a sum of one table row per tap.

        y[n, :, i, j] = bias + sum_ab weight[:, ids[n, s i + a - p, s j + b - p], a, b]

    Args:
        ids: (N, H, W) integers in [0, K).
        weight: (C, K, size, size), a square.
        bias: (C), or None.

    Returns:
        (N, C, h, w) in the weight's type, channels last in memory.
    """
    channels, count, taps = weight.shape[0], weight.shape[1], weight.shape[2] * weight.shape[3]
    outside = F.pad(ids.to(torch.int32), [padding] * 4, value=count)  # a row of zeros
    windows = outside.unfold(1, weight.shape[2], stride).unfold(2, weight.shape[3], stride)
    tables = torch.arange(taps, dtype=torch.int32, device=ids.device) * (count + 1)
    table = F.pad(weight.permute(2, 3, 1, 0), [0, 0, 0, 1]).reshape(taps * (count + 1), channels)
    y = F.embedding_bag(windows.reshape(-1, taps) + tables, table, mode="sum")
    y = y if bias is None else y + bias
    return y.view(*windows.shape[:3], channels).movedim(-1, 1)


def _halved(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


def _halved_one_hot(ids: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """``_halved`` of a one-hot map, which is not made: (N, H, W) -> (N, count, h, w)"""
    windows = F.pad(ids.long(), [1] * 4, value=count).unfold(1, 3, 2).unfold(2, 3, 2).flatten(3)
    seen = torch.zeros(*windows.shape[:3], count + 1, dtype=dtype, device=ids.device)
    seen = seen.scatter_add_(3, windows, seen.new_ones(()).expand(windows.shape))[..., :count]
    return (seen / (windows < count).sum(3, keepdim=True)).movedim(-1, 1)


def discriminate(
    discriminator: ScoringDiscriminator, labels: LabelPyramid, fake: Tensor, real: Tensor, instance_edges: bool
) -> tuple[Features, Features]:
    """Features of fake and of real images by the same weights: one step of the power iteration for both.

    They are seen one after the other, not in one batch as published: no layer mixes pictures, and a gradient that is
    wanted for the fake images alone then leaves the real half out.

    Args:
        labels: the maps that both belong to.
        fake, real: (N, 3, H, W) in [-1, 1].
        instance_edges: whether the discriminator gets the edge channel.

    Returns:
        (features of fake, features of real)
    """
    with parametrize.cached():
        of_fake, of_real = discriminator.of_images(labels, [fake, real.to(fake.dtype)], instance_edges)
    return of_fake, of_real

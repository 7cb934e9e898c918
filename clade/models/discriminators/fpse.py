"""The feature-pyramid semantics-embedding discriminator of CC-FPSE (Liu et al. 2019, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from clade.labels import LabelPyramid
from clade.models.discriminators.multiscale import DISCRIMINATORS, Features, ScoringDiscriminator
from clade.nn import InstanceNorm, conv2d


@DISCRIMINATORS.register("fpse")
class FpseDiscriminator(ScoringDiscriminator):
    """Scores an image at three scales by its realism and by how its features match an embedding of the labels.

        s_k = tf(g_k) + sum_c (seg(g_k) * E_k)_c,   k = 2, 3, 4

    g_k are features of the image at 1 / 2^k of its size, from a feature pyramid, and E_k is a 1x1 convolution of the
    labels averaged down to that size. tf and seg are 1x1 convolutions that the scales share.

    The published code averages the matching loss over the four layers below (weight 10 / 4 each), where
    :func:`clade.losses.feature_matching` sums layers and averages over scales, three here: its weight of 10 is 7.5 in a
    recipe of this library.

    Args:
        channels_in: channels of labels, edge where used, and image together.
        width: channels of the first layer (the official ``ndf``).
    """

    def __init__(self, channels_in: int, *, width: int = 64) -> None:
        super().__init__()
        widths = [3, width, 2 * width, 4 * width, 8 * width, 8 * width]
        self.encoders = nn.ModuleList(_Layer(widths[k], widths[k + 1], 3, stride=2) for k in range(5))
        # Of the last four encoders, and of the three finer results of the pyramid.
        self.laterals = nn.ModuleList(_Layer(width_in, 4 * width, 1) for width_in in widths[2:])
        self.finals = nn.ModuleList(_Layer(4 * width, 2 * width, 3) for _ in range(3))
        self.realism = conv2d(2 * width, 1, 1)
        self.matching = conv2d(2 * width, 2 * width, 1)
        self.embedding = conv2d(channels_in - 3, 2 * width, 1)

    def forward(self, x: Tensor) -> Features:
        """Labels and image concatenated (N, channels_in, H, W) -> [[e_2, e_3, e_4, e_5, s_2], [s_3], [s_4]].

        e_2 to e_5 are the encoder's features at 1/4 to 1/32 of the size, for feature matching.
        """
        return self._features(x[:, -3:], self._embedded(x[:, :-3]))

    def of_images(self, labels: LabelPyramid, images: Sequence[Tensor], instance_edges: bool) -> list[Features]:
        size = (images[0].shape[2], images[0].shape[3])
        embedded = self._embedded(labels.semantics(size, instance_edges, images[0].dtype))
        return [self._features(image, embedded) for image in images]

    def _embedded(self, labels: Tensor) -> list[Tensor]:
        """E_2, E_3 and E_4."""
        labels = _halved(labels)
        embedded = []
        for _ in self.finals:
            # The average of an embedding is the embedding of the average, which has far fewer pixels.
            labels = _halved(labels)
            embedded.append(self.embedding(labels))
        return embedded

    def _features(self, features: Tensor, embedded: list[Tensor]) -> Features:
        encoded = []
        for encoder in self.encoders:
            features = encoder(features)
            encoded.append(features)
        encoded = encoded[1:]
        pyramid: list[Tensor] = []  # from coarse to fine
        for lateral, e in zip(reversed(self.laterals), reversed(encoded), strict=True):
            f = lateral(e)
            pyramid.append(f + F.interpolate(pyramid[-1], f.shape[2:], mode="bilinear") if pyramid else f)
        scores = []
        for final, f, e in zip(self.finals, pyramid[:0:-1], embedded, strict=True):
            g = final(f)
            scores.append(self.realism(g) + (self.matching(g) * e).sum(1, keepdim=True))
        return [[*encoded, scores[0]], [scores[1]], [scores[2]]]


class _Layer(nn.Module):
    """Convolution with spectral and instance norm, LeakyReLU(0.2)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = conv2d(channels_in, channels_out, kernel, stride=stride, bias=False, spectral=True)
        self.normalize = InstanceNorm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.normalize(self.conv(x)), 0.2)


def _halved(x: Tensor) -> Tensor:
    """Average of 2x2 pixels; an odd side is rounded up, as by a strided convolution."""
    return F.avg_pool2d(x, 2, ceil_mode=True)

"""DRN-D-105 (Yu, Koltun, Funkhouser 2017), Cityscapes: fyu/drn."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from clade.metrics.judges.base import Size
from clade.metrics.judges.layers import bottlenecks, conv_bn_relu
from clade.metrics.judges.pixels import Images, as_pixels, normalized
from clade.metrics.judges.published import PublishedJudge, State

TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The label id of each trainId."""


class DRNSeg(nn.Module):
    """(N, 3, H, W) -> log-probabilities at 8 ceil(H/8) x 8 ceil(W/8), and logits at 1/8."""

    def __init__(self, num_classes: int = 19) -> None:
        super().__init__()
        self.base = nn.Sequential(
            conv_bn_relu(3, 16, 7),
            conv_bn_relu(16, 16, 3),
            conv_bn_relu(16, 32, 3, stride=2),
            bottlenecks(32, 64, 3, stride=2),
            bottlenecks(256, 128, 4, stride=2),
            bottlenecks(512, 256, 23, dilation=2),
            bottlenecks(1024, 512, 3, dilation=4),
            conv_bn_relu(2048, 512, 3, dilation=2),
            conv_bn_relu(512, 512, 3),
        )
        self.seg = nn.Conv2d(512, num_classes, kernel_size=1)
        self.up = nn.ConvTranspose2d(num_classes, num_classes, 16, stride=8, padding=4, groups=num_classes, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.seg(self.base(x))
        return F.log_softmax(self.up(logits), 1), logits


class DRNJudge(PublishedJudge):
    """DRN-D-105 for Cityscapes, 19 trainIds. Scores are log-probabilities at the image's size.

    Label maps of 35 label ids become trainIds by :meth:`from_ids`.
    """

    name = "drn-d105"
    data = "Cityscapes"
    files = ("drn-d-105_ms_cityscapes.pth",)
    url = "http://go.yf.io/drn-cityscapes-models"
    signature = "base.8.0.weight"
    network: DRNSeg

    mean = (0.29010095242892997, 0.32808144844279574, 0.28696394422942517)
    std = (0.1829540508368939, 0.18656561047509476, 0.18447508988480435)

    @classmethod
    def build(cls, state: State) -> nn.Module:
        return DRNSeg()

    @property
    def table(self) -> dict[int, int]:
        return {**dict.fromkeys(range(35), self.ignored), **{label: k for k, label in enumerate(TRAIN_IDS)}}

    def preprocess(self, images: Images) -> Tensor:
        """Images -> RGB, less Cityscapes' mean, by its deviation; the size stays."""
        return normalized(as_pixels(images).to(self.device), self.mean, self.std)

    def logits(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 19, ceil(H/8), ceil(W/8)), before the last upsampling."""
        return self.guarded(x, lambda: self.network(x)[1])

    def evaluate(self, x: Tensor, size: Size | None) -> Tensor:
        scores = self.network(x)[0]
        if size is None:
            return scores
        height, width = x.shape[-2:]
        scores = scores[..., :height, :width]
        if tuple(size) == (height, width):
            return scores
        # Pillow's bilinear filter, which also averages when it shrinks.
        return F.interpolate(scores, size=size, mode="bilinear", align_corners=False, antialias=True)

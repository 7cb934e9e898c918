"""Spatially-adaptive normalization (SPADE, Park et al. 2019), the baseline."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clade.labels import LabelPyramid
from clade.nn.blocks import conv2d
from clade.nn.norm import NORMS, NormLayer, parameter_free


@NORMS.register("spade")
class SPADE(NormLayer):
    """Normalize, then scale and shift every pixel by what a small network makes of the label map around it.

        y = x^ * (1 + gamma(m)) + beta(m),   gamma, beta: two 3x3 convolutions of the one-hot labels m

    Args:
        channels: channels of x.
        num_rows: number of ids, the unknown class included.
        instance_edges: the edge is one more channel of m.
        hidden: channels between the two convolutions.
        normalization: ``batch`` (synchronised under DDP) or ``instance``.

    Shapes: x (N, C, H, W); labels of the same pictures at any size; y (N, C, H, W).
    """

    def __init__(
        self,
        channels: int,
        *,
        num_rows: int,
        instance_edges: bool = False,
        hidden: int = 128,
        normalization: str = "batch",
    ) -> None:
        super().__init__()
        self.out_channels = channels
        self.instance_edges = instance_edges
        self.normalize = parameter_free(normalization, channels)
        self.num_rows = num_rows
        self.shared = conv2d(num_rows + instance_edges, hidden, 3)
        self.to_gamma = conv2d(hidden, channels, 3)
        self.to_beta = conv2d(hidden, channels, 3)

    def forward(self, x: Tensor, labels: LabelPyramid) -> Tensor:
        scale, shift = self.modulation(labels, (x.shape[2], x.shape[3]), x.dtype)
        return self.normalize(x) * scale + shift

    def modulation(self, labels: LabelPyramid, size: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """1 + gamma(m) and beta(m) at a size, each (N, C, *size)."""
        hidden = F.relu(self.shared(labels.semantics(size, self.instance_edges, dtype)))
        return 1 + self.to_gamma(hidden), self.to_beta(hidden)

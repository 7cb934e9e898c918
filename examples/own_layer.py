"""A normalization layer of one's own, used by name: only the shift follows the class (docs/own-parts.md)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clade.labels import LabelPyramid
from clade.nn import NORMS, NormLayer, parameter_free


@NORMS.register("class-shift")
class ClassShift(NormLayer):
    """y[n, c, i, j] = x^[n, c, i, j] + beta[k, c],   k = ids[n, i, j]

    Args:
        channels: of the features.
        num_rows: number of ids, the unknown class included.
        normalization: ``batch`` or ``instance``.
    """

    def __init__(self, channels: int, *, num_rows: int, normalization: str = "batch") -> None:
        super().__init__()
        self.out_channels, self.num_rows = channels, num_rows
        self.normalize = parameter_free(normalization, channels)
        self.beta = nn.Parameter(torch.zeros(num_rows, channels))

    def forward(self, x: Tensor, labels: LabelPyramid) -> Tensor:
        """(N, C, H, W), labels of the same pictures at any size -> (N, C, H, W)"""
        ids = labels.ids((x.shape[2], x.shape[3]))
        return self.normalize(x) + self.beta[ids].permute(0, 3, 1, 2)

"""Normalization for grouped networks, in which every group of channels belongs to some of the classes (GroupDNet)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.labels import LabelPyramid
from clade.nn.blocks import conv2d
from clade.nn.clade import CLADE, OneChannel
from clade.nn.norm import NORMS, NormLayer, parameter_free


@NORMS.register("group-spade")
class GroupSPADE(NormLayer):
    """SPADE with grouped convolutions, so that a group is modulated by its own classes only (Zhu et al. 2020).

        y = x^ * (1 + gamma(m)) + beta(m),   gamma, beta: two grouped 3x3 convolutions of the one-hot labels m

    With ``instance_edges`` every class is followed by the edge, m = [class 0, edge, class 1, edge, ...], so that each
    group sees it.

    Args:
        channels: channels of x.
        num_rows: number of ids, the unknown class included.
        instance_edges: the edge follows every class in m.
        hidden: channels between the two convolutions.
        groups: groups of the convolutions that give gamma and beta.
        shared_groups: groups of the convolution before them; None for the same.
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
        groups: int = 1,
        shared_groups: int | None = None,
        normalization: str = "batch",
    ) -> None:
        super().__init__()
        self.out_channels = channels
        self.instance_edges = instance_edges
        self.normalize = parameter_free(normalization, channels)
        self.num_rows = num_rows
        self.shared = conv2d(num_rows * (1 + instance_edges), hidden, 3, groups=shared_groups or groups)
        self.to_gamma = conv2d(hidden, channels, 3, groups=groups)
        self.to_beta = conv2d(hidden, channels, 3, groups=groups)

    def forward(self, x: Tensor, labels: LabelPyramid) -> Tensor:
        size = (x.shape[2], x.shape[3])
        semantics = labels.one_hot(size, x.dtype)
        if self.instance_edges:
            edges = labels.edges(size, x.dtype).expand_as(semantics)
            semantics = torch.stack([semantics, edges], dim=2).flatten(1, 2)
        hidden = F.relu(self.shared(semantics))
        return self.normalize(x) * (1 + self.to_gamma(hidden)) + self.to_beta(hidden)


@NORMS.register("group-clade")
class GroupCLADE(CLADE):
    """CLADE whose edge channel reaches every group of the grouped convolution after it.

        y[n, c] = gamma[k, c] * x^[n, c] + beta[k, c],   and gamma_c * E + beta_c (equation 2) after the last channel
        of each group

    CLADE appends one edge channel at the end, where only the last group would see it. Without ``instance_edges`` the
    two are the same.

    Args:
        channels: channels of x.
        num_rows: number of ids, the unknown class included.
        instance_edges: append the modulated edge to each group; ``out_channels`` is then ``channels + groups``.
        groups: groups of the convolution that follows.
        normalization: ``batch`` (synchronised under DDP) or ``instance``.

    Shapes: x (N, C, H, W); labels of the same pictures at any size; y (N, out_channels, H, W).
    """

    def __init__(
        self,
        channels: int,
        *,
        num_rows: int,
        instance_edges: bool = False,
        groups: int = 1,
        normalization: str = "batch",
    ) -> None:
        super().__init__(channels, num_rows=num_rows, normalization=normalization)
        self.groups = groups
        self.out_channels = channels + groups * instance_edges
        self.group_edge: OneChannel | None = None
        if instance_edges:
            self.group_edge = OneChannel(1)
            nn.init.xavier_normal_(self.group_edge.weight, gain=0.02)

    def forward(self, x: Tensor, labels: LabelPyramid, slope: float | None = None) -> Tensor:
        y = super().forward(x, labels, slope)
        if self.group_edge is None:
            return y
        edge = self.group_edge(labels.edges((x.shape[2], x.shape[3]), y.dtype))
        if slope is not None:
            edge = F.leaky_relu(edge, slope)
        grouped = y.unflatten(1, (self.groups, -1))
        edges = edge[:, None].expand(-1, self.groups, -1, -1, -1)
        return torch.cat([grouped, edges], dim=2).flatten(1, 2)

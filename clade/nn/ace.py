"""Semantic region-adaptive normalization (SEAN, Zhu et al. 2020), with SPADE's or CLADE's label part (section 4.10)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clade.errors import CladeError
from clade.labels import LabelPyramid
from clade.nn.blocks import conv2d
from clade.nn.clade import CLADE, look_up
from clade.nn.norm import NORMS, NormLayer, parameter_free
from clade.nn.spade import SPADE
from clade.registry import near_match

LABEL_PARTS = ("spade", "clade")


@NORMS.register("ace")
class ACE(NormLayer):
    """Add noise, normalize, then scale and shift every pixel by its class's style and by the label map.

        y = x^ * (a_g (1 + gamma_s(m)) + (1 - a_g) g) + a_b beta_s(m) + (1 - a_b) b

    x^ is the parameter-free normalization of x + noise_var * noise, with one number of noise per pixel, drawn by
    torch's global random numbers. The style map m holds at every pixel what its class's own linear layer makes of that
    class's style code s, ``m[n, :, i, j] = relu(W_k s[n, k] + c_k), k = ids[n, i, j]``, and gamma_s, beta_s are 3x3
    convolutions of it. g and b are scale and shift by the labels alone: 1 + gamma and beta of SPADE, or the class's
    rows of CLADE's tables, which have no 1 +. a_g and a_b are two learned numbers in (0, 1).

    Args:
        channels: channels of x.
        num_rows: number of ids, the unknown class included.
        instance_edges: as in the layer of the label part; CLADE's appends a channel.
        normalization: ``batch`` (synchronised under DDP) or ``instance``.
        style_dim: length of the style codes, which the generator leaves in ``labels.style`` (N, num_rows, style_dim);
            None for a layer without style, ``y = x^ * g + b``.
        style_layers: number of linear layers, one per class; those beyond num_rows, which published weights have, are
            unused. None for num_rows.
        label: ``spade`` or ``clade``.
        hidden: channels inside SPADE's modulation network.

    Shapes: x (N, C, H, W); labels of the same pictures at any size; y (N, out_channels, H, W).
    """

    num_rows: int
    stochastic = True

    def __init__(
        self,
        channels: int,
        *,
        num_rows: int,
        instance_edges: bool = False,
        normalization: str = "batch",
        style_dim: int | None = None,
        style_layers: int | None = None,
        label: str = "spade",
        hidden: int = 128,
    ) -> None:
        super().__init__()
        self.normalize = parameter_free(normalization, channels)
        self.noise_var = nn.Parameter(torch.zeros(channels))
        self.label = _label_part(label, channels, num_rows, instance_edges, hidden)
        self.out_channels = self.label.out_channels
        self.num_rows = num_rows
        self.style_dim = style_dim
        if style_dim is not None:
            layers = num_rows if style_layers is None else style_layers
            if layers < num_rows:
                raise CladeError(
                    f"style_layers is {layers}, but there are {num_rows} classes (the unknown one included), each with "
                    "a layer of its own. Leave style_layers out, or give a larger number."
                )
            self.style = ClassLinear(layers, style_dim)
            self.style_gamma = conv2d(style_dim, channels, 3)
            self.style_beta = conv2d(style_dim, channels, 3)
            self.blending_gamma = nn.Parameter(torch.zeros(1))
            self.blending_beta = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, labels: LabelPyramid) -> Tensor:
        # Width before height, as published: the same seed then gives the same noise.
        noise = torch.randn(x.shape[0], x.shape[3], x.shape[2], 1, device=x.device).to(x.dtype)
        x = self.normalize(torch.addcmul(x, noise.transpose(1, 3), self.noise_var.to(x.dtype).view(1, -1, 1, 1)))
        size = (x.shape[2], x.shape[3])
        scale, shift = self.label.modulation(labels, size, x.dtype)
        if self.style_dim is not None:
            style = self._style_map(labels, size, x.dtype)
            scale = _blend(scale, 1 + self.style_gamma(style), self.blending_gamma)
            shift = _blend(shift, self.style_beta(style), self.blending_beta)
        y = torch.addcmul(shift, x, scale)
        return self.label.extended(y, labels) if isinstance(self.label, CLADE) else y

    def _style_map(self, labels: LabelPyramid, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """m (N, style_dim, *size)"""
        codes, ids = labels.style, labels.ids(size)
        needed = (len(ids), self.num_rows, self.style_dim)
        if codes is None or codes.shape != needed:
            came = "none came" if codes is None else f"they are {tuple(codes.shape)}"
            raise CladeError(
                f"This layer reads style codes {needed} in labels.style, one per picture and class, and {came}. "
                "Set labels.style, or build the layer with style_dim=None."
            )
        table = F.relu(self.style(codes))
        first = torch.arange(len(ids), device=ids.device, dtype=ids.dtype) * self.num_rows
        return look_up(table.flatten(0, 1), ids + first.view(-1, 1, 1), dtype)


class ClassLinear(nn.Module):
    """A linear layer of its own for every class.

        y[n, k] = W_k x[n, k] + b_k

    Args:
        layers: number of them.
        features: length of x[n, k] and y[n, k].

    Shapes: x (N, K, features) with K up to ``layers``, of which the first K then serve; y the same.
    """

    def __init__(self, layers: int, features: int) -> None:
        super().__init__()
        self.in_features = features
        self.weight = nn.Parameter(torch.empty(layers, features, features))
        self.bias = nn.Parameter(torch.zeros(layers, features))
        for weight in self.weight:
            nn.init.xavier_normal_(weight, gain=0.02)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight[: x.shape[1]], self.bias[: x.shape[1]]
        return torch.einsum("nkd,ked->nke", x.to(weight.dtype), weight) + bias


def _blend(label: Tensor, style: Tensor, blending: Tensor) -> Tensor:
    """a * style + (1 - a) * label, a = sigmoid(blending)"""
    return torch.lerp(label, style.to(label.dtype), torch.sigmoid(blending).to(label.dtype))


def _label_part(label: str, channels: int, num_rows: int, instance_edges: bool, hidden: int) -> SPADE | CLADE:
    if label == "spade":
        part = SPADE(channels, num_rows=num_rows, instance_edges=instance_edges, hidden=hidden)
    elif label == "clade":
        part = CLADE(channels, num_rows=num_rows, instance_edges=instance_edges)
    else:
        raise CladeError(f"There is no label part '{label}'.{near_match(label, LABEL_PARTS)} Known: spade, clade.")
    part.normalize = nn.Identity()  # only its modulation is used
    return part

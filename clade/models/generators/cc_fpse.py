"""The CC-FPSE generator (Liu et al. 2019): convolutions whose weights are predicted from the label map."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from clade.labels import LabelPyramid
from clade.models.base import GENERATORS
from clade.models.generators.spade_shaped import LAYOUTS, SpadeShapedGenerator, require_upsampling
from clade.nn import SPADE, BatchNorm, ConditionalBlock, conv2d, upsample2


@GENERATORS.register("cc-fpse")
class CcFpseGenerator(SpadeShapedGenerator):
    """The SPADE-shaped generator with conditional convolutions (:class:`clade.nn.ConditionalBlock`).

    They are predicted from the labels and, beside them, from features that a feature pyramid makes of the labels
    (:class:`LabelFeatures`).

    Args:
        num_classes, unknown_class: see :class:`Generator`.
        instance_edges: the borders between objects are one more channel beside the labels.
        width: channels of the last block, and of the feature pyramid.
        upsampling: ``normal`` or ``more``.
        z_dim: length of the latent vector that the network starts from, which the paper's has; None for the labels.
        hidden: channels inside the networks that predict weights, attention and modulation.
        options: ``size``, ``encoder``, ``encoder_width``; see :class:`SpadeShapedGenerator`.
    """

    upsamplings = ("normal", "more")
    plain_batch_norm = True

    def __init__(
        self,
        *,
        num_classes: int,
        unknown_class: bool = False,
        instance_edges: bool = False,
        width: int = 64,
        upsampling: str = "normal",
        z_dim: int | None = 256,
        hidden: int = 128,
        **options: Any,
    ) -> None:
        require_upsampling(upsampling, self.upsamplings)
        num_rows = num_classes + unknown_class
        super().__init__(
            partial(SPADE, num_rows=num_rows + width, instance_edges=instance_edges, hidden=hidden),
            block=partial(
                ConditionalBlock,
                condition_channels=num_rows + instance_edges + width,
                instance_edges=instance_edges,
                hidden=hidden,
            ),
            num_classes=num_classes,
            unknown_class=unknown_class,
            instance_edges=instance_edges,
            width=width,
            upsampling=upsampling,
            z_dim=z_dim,
            **options,
        )
        self.label_features = LabelFeatures(num_rows + instance_edges, width, LAYOUTS[upsampling][0])

    def synthesize(self, labels: LabelPyramid, z: Tensor | None) -> Tensor:
        semantics = labels.semantics(labels.size, self.instance_edges, self.to_image.weight.dtype)
        return self._draw(self._start(labels, z), ConditionPyramid(labels, self.label_features(semantics)))


class LabelFeatures(nn.Module):
    """A feature pyramid of the labels, from full size down and up again (CC-FPSE, section 3.1).

        e_0 = enc_0(m),   e_k = enc_k(e_(k-1)) at half the size
        f_K = e_K,        f_k = dec_k(up(f_(k+1)) + lat_k(e_k))

    enc and dec are 3x3 convolutions, lat 1x1, each with spectral norm, BatchNorm and LeakyReLU(0.2).

    Args:
        channels_in: channels of m.
        width: channels of all features.
        depth: K.
    """

    def __init__(self, channels_in: int, width: int, depth: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            _layer(width if k else channels_in, width, 3, stride=2 if k else 1) for k in range(depth + 1)
        )
        # From coarse to fine.
        self.laterals = nn.ModuleList(_layer(width, width, 1) for _ in range(depth))
        self.decoders = nn.ModuleList(_layer(width, width, 3) for _ in range(depth))

    def forward(self, semantics: Tensor) -> dict[tuple[int, int], Tensor]:
        """m, (N, channels_in, H, W), sides multiples of 2^K -> by size, f_k (N, width, H / 2^k, W / 2^k)"""
        encoded = [semantics]
        for encoder in self.encoders:
            encoded.append(encoder(encoded[-1]))
        features = [encoded[-1]]
        for lateral, decoder, e in zip(self.laterals, self.decoders, reversed(encoded[1:-1]), strict=True):
            features.append(decoder(upsample2(features[-1]) + lateral(e)))
        return {(f.shape[2], f.shape[3]): f for f in features}


class ConditionPyramid(LabelPyramid):
    """A label pyramid whose semantics have features behind the one-hot labels (and the edge).

    Args:
        labels: the label maps.
        features: by size, (N, D, h, w).
    """

    def __init__(self, labels: LabelPyramid, features: Mapping[tuple[int, int], Tensor]) -> None:
        self.__dict__.update(labels.__dict__)  # and what it has already made
        self._labels = labels
        self._features = features
        self._conditions: dict[tuple[tuple[int, int], bool, torch.dtype], Tensor] = {}

    def semantics(self, size: tuple[int, int], instance_edges: bool, dtype: torch.dtype = torch.float32) -> Tensor:
        """(N, num_rows (+ 1) + D, h, w)"""
        key = (size, instance_edges, dtype)
        if key not in self._conditions:
            semantics = self._labels.semantics(size, instance_edges, dtype)
            self._conditions[key] = torch.cat([semantics, self._features[size].to(dtype)], dim=1)
        return self._conditions[key]


def _layer(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        conv2d(channels_in, channels_out, kernel, stride=stride, bias=False, spectral=True),
        BatchNorm(channels_out, affine=True),
        nn.LeakyReLU(0.2),
    )

"""Tables of a converted generator by least squares: label maps, but no photos."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from clade.errors import CladeError
from clade.labels import LabelMap, LabelPyramid
from clade.models import Generator
from clade.nn import CLADE, SPADE
from clade.nn.spade_like import evaluating
from clade.tools.conversion.keeping import latent

PRIOR = 1.0
"""The rows from one-class patches count as so many pixels."""


@torch.no_grad()
def fit_tables(original: Generator, converted: Generator, maps: Iterable[LabelMap], seed: int = 0) -> int:
    """Fit the tables of ``converted`` to what SPADE gives on label maps; changes ``converted``.

    Where regions are small beside the features' pixels, as in the coarsest blocks, there is no inside for a table to be
    right in. There, the best row of class k and channel c is the line through what the original's layer made of its
    normalized features, over all pixels of k:

        gamma, beta = argmin  sum_pixels (x^ gamma + beta - y)^2 + (gamma - gamma_0)^2 + (beta - beta_0)^2

    with gamma_0 and beta_0 the row that there was, which a class that never comes keeps.

    Args:
        original: the generator with SPADE.
        converted: what :func:`clade.convert` made of it.
        maps: label maps.
        seed: of the latents of a multi-modal generator.

    Returns:
        The number of maps.

    Raises:
        CladeError: no maps; LabelError: ids outside the classes.
    """
    sums: dict[str, list[Tensor]] = {}
    count = 0

    def note(key: str) -> Any:
        def hook(layer: SPADE, given: tuple[Tensor, LabelPyramid], y: Tensor) -> None:
            x, labels = given
            ids = labels.ids((x.shape[2], x.shape[3])).flatten().long()
            x, y = (part.movedim(1, -1).flatten(0, 2).double() for part in (layer.normalize(x), y))
            rows = sums.setdefault(key, [x.new_zeros(labels.num_rows, x.shape[1]) for _ in range(5)])
            for total, value in zip(rows, (torch.ones_like(x), x, x * x, y, x * y), strict=True):
                total.index_add_(0, ids, value)

        return hook

    pairs = [
        (key, cast(CLADE, layer), cast(nn.Module, old))
        for key, layer in converted.named_modules()
        if isinstance(layer, CLADE) and isinstance(old := original.get_submodule(key), SPADE)
    ]
    hooks = [old.register_forward_hook(note(key)) for key, _, old in pairs]
    try:
        with evaluating(original):
            for label_map in maps:
                label_map = original.prepare(label_map)
                pyramid = LabelPyramid(label_map.padded(original.multiple), original.num_rows)
                original.synthesize(pyramid, latent(original, label_map, seed + count))
                count += len(label_map)
    finally:
        for hook in hooks:
            hook.remove()
    if not count:
        raise CladeError("There are no label maps to fit the tables to; needed is at least one.")
    for key, layer, _ in pairs:
        gamma, beta = _solved(sums[key], layer.gamma.double(), layer.beta.double())
        layer.gamma.copy_(gamma)
        layer.beta.copy_(beta)
    return count


def _solved(sums: list[Tensor], gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """The normal equations of each row and channel, all (rows, C)."""
    n, x, xx, y, xy = sums
    a, b, d = xx + PRIOR, x, n + PRIOR
    right, below = xy + PRIOR * gamma, y + PRIOR * beta
    determinant = a * d - b * b
    return (right * d - below * b) / determinant, (a * below - b * right) / determinant

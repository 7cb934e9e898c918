"""One pass over label maps: gamma and beta of every layer, by class, inside regions and at their borders."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from clade.errors import CladeError
from clade.labels import LabelMap, LabelPyramid, LabelSpace
from clade.models import Generator
from clade.nn import CLADE
from clade.nn.spade_like import evaluating
from clade.tools.analysis.layers import Layer, Size, feature_sizes, inside, inside_values, kind, modulation_layers
from clade.tools.analysis.moments import Histogram, Moments
from clade.tools.analysis.result import (
    Analysis,
    Bins,
    ClassSpread,
    Factor,
    LayerResult,
    Picture,
    PictureRow,
    Share,
    Spread,
)

PARAMETERS = ("gamma", "beta")
Choice = Literal["variance", "seed"]


@torch.no_grad()
def analyze(
    generator: Generator,
    label_maps: Iterable[LabelMap],
    *,
    layers: Sequence[str] = (),
    pictures: int = 2,
    channels: int = 2,
    choose: Choice = "variance",
    seed: int = 0,
    label_space: LabelSpace | None = None,
) -> Analysis:
    """How much gamma and beta of SPADE and CLADE layers vary within a class (section 3.1), on label maps.

    gamma and beta are those of equation 1, ``y = gamma x^ + beta``; so SPADE's gamma is its 1 + gamma(m). By the law of
    total variance, for each channel over all pixels of all maps at the layer's resolution,

        Var(gamma) = E[Var(gamma | class)] + Var(E[gamma | class]),   eta = E[Var(gamma | class)] / Var(gamma)

    and the layer's eta is the ratio of the two variances averaged over channels: 0 where the class decides everything,
    as in CLADE, 1 where it decides nothing. The same is done of the pixels inside regions alone (one class, no
    instance edge and no picture's end in the 5x5 around) and of all others. Inside, SPADE's two 3x3 convolutions see
    the same everywhere, so its gamma and beta are constants of the class and eta is 0.

    One map lies in memory at a time. Maps are padded as in every forward, and padding counts. The network is not
    changed; it draws one picture, to learn the sizes of its features.

    Args:
        label_maps: of one size.
        layers: only these: names or patterns such as ``blocks.6.*``.
        pictures: label maps whose gamma and beta are kept to be drawn (Figure 2), chosen by the seed.
        channels: channels of each layer that are kept of them.
        choose: the channels whose gamma varies most (``variance``), or any (``seed``).
        seed: decides what is drawn; the numbers do not depend on it.
        label_space: names and colours of the classes.

    Raises:
        CladeError: no maps, maps of several sizes, no such layers, or a network whose gamma or beta is not finite.
    """
    if pictures < 0 or channels < 1:
        raise CladeError(f"pictures is {pictures} and channels {channels}; needed are at least 0 and 1.")
    if choose not in ("variance", "seed"):
        raise CladeError(f"choose is '{choose}'. Known: variance, seed.")
    chosen = modulation_layers(generator, layers)
    device = next(generator.parameters()).device
    sums: dict[str, _Sums] = {}
    kept: list[tuple[int, LabelMap]] = []
    chance = random.Random(seed)
    size: Size | None = None
    count = 0
    with evaluating(generator):
        for label_map in (one for several in label_maps for one in several):
            if size is None:
                size = label_map.size
                sizes = feature_sizes(generator, label_map.to(device))
                sums = {
                    name: _Sums(layer, sizes[name], generator.num_rows)
                    for name, layer in chosen.items()
                    if name in sizes
                }
            if label_map.size != size:
                raise CladeError(
                    f"Label map {count} is {label_map.height}x{label_map.width}, those before are {size[0]}x{size[1]}; "
                    "resolutions can only be compared on maps of one size. Bring them to one first (--size HxW)."
                )
            pyramid = _pyramid(generator, label_map)
            for name, layer_sums in sums.items():
                layer_sums.add(pyramid, name)
            if count < pictures:
                kept.append((count, label_map))
            elif (place := chance.randrange(count + 1)) < pictures:  # so each map is kept with the same chance
                kept[place] = (count, label_map)
            count += 1
        if size is None:
            raise CladeError("There are no label maps to analyze; needed is at least one.")
        drawn = _drawn(sums, channels, choose, seed, every_layer=bool(layers))
        shown = [
            _picture(k, _pyramid(generator, label_map), drawn) for k, label_map in sorted(kept, key=lambda one: one[0])
        ]
    names = tuple(f"class {k}" if label_space is None else label_space.name(k) for k in range(generator.num_rows))
    return Analysis(
        generator=generator.name or type(generator).__name__,
        maps=count,
        size=size,
        seed=seed,
        layers=tuple(layer_sums.result(name) for name, layer_sums in sums.items()),
        classes=names,
        pictures=tuple(shown),
        label_space=label_space,
    )


def _pyramid(generator: Generator, label_map: LabelMap) -> LabelPyramid:
    label_map = generator.prepare(label_map).to(next(generator.parameters()).device)
    return LabelPyramid(label_map.padded(generator.multiple), generator.num_rows)


class _Sums:
    """What is known of a layer so far. Pixel groups are ``2 class``, inside regions, and ``2 class + 1``, elsewhere."""

    def __init__(self, layer: Layer, size: Size, num_rows: int) -> None:
        self.layer, self.size, self.num_rows = layer, size, num_rows
        tables = inside_values(layer, num_rows)
        self.tables = {key: table.cpu() for key, table in zip(PARAMETERS, tables, strict=True)}
        self.channels = tables[0].shape[1]
        self.moments = {key: Moments(2 * num_rows, self.channels) for key in PARAMETERS}
        self.values = {key: Histogram(num_rows) for key in PARAMETERS}
        self.deviations = {key: Histogram(num_rows) for key in PARAMETERS}
        self.factors = {key: Moments(1, 1) for key in PARAMETERS}
        self.ends = {key: (float("inf"), float("-inf")) for key in PARAMETERS}

    def add(self, labels: LabelPyramid, name: str) -> None:
        ids = labels.ids(self.size).flatten().long().cpu()
        groups = 2 * ids + (~inside(self.layer, labels, self.size)).flatten().long().cpu()
        modulation = self.layer.modulation(labels, self.size, torch.float32)
        for key, part in zip(PARAMETERS, modulation, strict=True):
            values = part[0].flatten(1).cpu()
            if not bool(values.isfinite().all()):
                raise CladeError(
                    f"{name}: {key} is not finite everywhere, so the weights are broken. Take another checkpoint."
                )
            self.moments[key].add(values, groups)
            self.values[key].add(values, ids)
            self.deviations[key].add(values - self.tables[key].t()[:, ids], ids)
        if isinstance(self.layer, CLADE) and self.layer.modulates_by_position:
            offsets = labels.positions(self.size)
            for key in PARAMETERS:
                factor = 1 + getattr(self.layer, f"position_{key}")(offsets).flatten().cpu()
                self.factors[key].add(factor[None], torch.zeros_like(ids))
                low, high = self.ends[key]
                self.ends[key] = (min(low, float(factor.min())), max(high, float(factor.max())))

    def total_variance(self, key: str) -> Tensor:
        """Of each channel over all pixels, (C,)"""
        everything = self.moments[key].joined(torch.zeros(2 * self.num_rows, dtype=torch.long), 1)
        return everything.squares[0] / everything.count[0]

    def result(self, name: str) -> LayerResult:
        gamma, beta = (_spread(self.moments[key], self.num_rows) for key in PARAMETERS)
        factors = {
            f"{key}_factor": Factor(
                mean=float(self.factors[key].mean),
                std=float(self.factors[key].squares / self.factors[key].count) ** 0.5,
                low=self.ends[key][0],
                high=self.ends[key][1],
            )
            for key in PARAMETERS
            if self.factors[key].count > 0
        }
        bins = {
            (key, what): Bins(histogram.width, histogram.counts.numpy())
            for what, of in (("value", self.values), ("deviation", self.deviations))
            for key, histogram in of.items()
        }
        return LayerResult(
            name=name,
            kind=kind(self.layer),
            size=self.size,
            channels=self.channels,
            gamma=gamma,
            beta=beta,
            bins=bins,
            **factors,
        )


def _spread(moments: Moments, num_rows: int) -> Spread:
    groups = torch.arange(2 * num_rows)
    in_class, border = groups // 2, groups % 2 == 1
    by_class = moments.joined(in_class, num_rows)
    everything = _share(by_class)
    parts = {
        "inside": _share(moments.joined(in_class.masked_fill(border, -1), num_rows)),
        "border": _share(moments.joined(in_class.masked_fill(~border, -1), num_rows)),
    }

    def variance(of: Moments, row: int) -> float:
        return float(of.squares[row].mean() / of.count[row])

    classes = tuple(
        ClassSpread(
            row=k,
            pixels=int(by_class.count[k]),
            inside=float(moments.count[2 * k] / by_class.count[k]),
            variance=variance(by_class, k),
            variance_inside=variance(moments, 2 * k),
            variance_border=variance(moments, 2 * k + 1),
        )
        for k in by_class.count.nonzero()[:, 0].tolist()
    )
    return Spread(everything=everything, **parts, classes=classes)


def _share(by_class: Moments) -> Share:
    """Within-class and total variance of the pixels of some groups, one per class."""
    total = by_class.joined(torch.zeros(len(by_class.count), dtype=torch.long), 1)
    pixels = total.count[0]
    within, whole = by_class.squares.sum(0) / pixels, total.squares[0] / pixels
    varies = whole > 0
    ratios = (within[varies] / whole[varies]).mean()
    return Share(pixels=int(pixels), within=float(within.mean()), total=float(whole.mean()), eta_channels=float(ratios))


def _drawn(
    sums: Mapping[str, _Sums], channels: int, choose: Choice, seed: int, *, every_layer: bool
) -> dict[str, tuple[_Sums, list[int]]]:
    """Layers to draw, by default the first of each resolution, from coarse to fine, with the channels to draw."""
    found: dict[str, tuple[_Sums, list[int]]] = {}
    seen: set[tuple[Size, str]] = set()
    for name, layer in sorted(sums.items(), key=lambda item: item[1].size):
        place = (layer.size, kind(layer.layer))
        if place in seen and not every_layer:
            continue
        seen.add(place)
        count = min(channels, layer.channels)
        if choose == "variance":
            order = layer.total_variance("gamma").argsort(descending=True, stable=True)
            found[name] = layer, sorted(order[:count].tolist())
        else:
            found[name] = layer, sorted(random.Random(f"{seed} {name}").sample(range(layer.channels), count))
    return found


def _picture(index: int, labels: LabelPyramid, drawn: Mapping[str, tuple[_Sums, list[int]]]) -> Picture:
    rows = []
    for name, (layer, channels) in drawn.items():
        gamma, beta = layer.layer.modulation(labels, layer.size, torch.float32)
        rows.append(
            PictureRow(
                layer=name,
                channels=tuple(channels),
                ids=labels.ids(layer.size)[0].cpu().numpy(),
                gamma=gamma[0, channels].cpu().numpy(),
                beta=beta[0, channels].cpu().numpy(),
            )
        )
    return Picture(index=index, rows=tuple(rows))

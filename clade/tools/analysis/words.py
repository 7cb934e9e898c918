"""What the numbers of an analysis say, in words."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clade.tools.analysis.result import Analysis, Resolution

ROUNDING = 1e-9
"""A share of variance below this is what float32 convolutions leave of 0."""


def summary(analysis: Analysis) -> list[str]:
    """Sentences, each of which only repeats and compares numbers of the analysis."""
    height, width = analysis.size
    kinds = [layer.kind for layer in analysis.layers]
    layers = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    maps = f"{analysis.maps} label map{'s' * (analysis.maps > 1)}"
    lines = [f"{analysis.generator}, {maps} of {height}x{width}, layers: {layers}."]
    for kind in dict.fromkeys(kinds):
        places = [one for one in analysis.resolutions if one.kind == kind]
        for key in ("gamma", "beta"):
            lines += _trend(kind, key, places)
        lines += _inside(kind, places)
    lines += _factors(analysis)
    return lines


def _trend(kind: str, key: str, places: list[Resolution]) -> list[str]:
    shares = [(one, getattr(one, key)["everything"].eta) for one in places]
    known = [(one, eta) for one, eta in shares if not math.isnan(eta)]
    what = f"{kind}, {key}: the within-class share of all variance"
    if not known:
        return [f"{kind}, {key}: does not vary at all, so that it has no shares."]
    if all(eta == 0 for _, eta in known):
        return [f"{what} is exactly 0 at every resolution."]
    (first, start), (last, end) = known[0], known[-1]
    if len(known) == 1:
        return [f"{what} is {percent(start)} at {at(first)}."]
    rises = [(a, b) for (a, x), (b, y) in itertools.pairwise(known) if y >= x]
    steps = "it falls at every step." if not rises else "it does not fall "
    if rises:
        steps += ", nor ".join(f"from {at(a)} to {at(b)}" for a, b in rises) + "."
    return [f"{what} is {percent(start)} at {at(first)} and {percent(end)} at {at(last)}; {steps}"]


def _inside(kind: str, places: list[Resolution]) -> list[str]:
    with_some = [one for one in places if one.gamma["inside"].pixels]
    if not with_some:
        return [f"{kind}: no pixel has 5x5 pixels of one class around it at any resolution."]
    parts = [
        f"{percent(_inside_share(one))} at {at(one)}"
        for one in (places if len(places) < 2 else (places[0], places[-1]))
    ]
    line = f"{kind}: pixels with one class in the 5x5 around are {' and '.join(parts)} of all."
    worst = max(_inside_eta(one) for one in with_some)
    if worst == 0:
        found = "exactly 0"
    elif worst < ROUNDING:
        found = f"at most {worst:.1g} of all variance, which is rounding"
    else:
        found = f"up to {percent(worst)} of all variance"
    return [line, f"{kind}: within a class, gamma's and beta's variance over these pixels is {found}."]


def _inside_eta(one: Resolution) -> float:
    """Within-class variance of the pixels inside, against the variance of all pixels."""
    shares = ((part["inside"].within, part["everything"].total) for part in (one.gamma, one.beta))
    return max(within / total if total else 0.0 for within, total in shares)


def _inside_share(one: Resolution) -> float:
    return one.gamma["inside"].pixels / one.gamma["everything"].pixels


def _factors(analysis: Analysis) -> list[str]:
    lines = []
    for key in ("gamma", "beta"):
        factors = [factor for one in analysis.layers if (factor := getattr(one, f"{key}_factor")) is not None]
        if factors:
            low, high = min(factor.std for factor in factors), max(factor.std for factor in factors)
            ends = min(factor.low for factor in factors), max(factor.high for factor in factors)
            lines.append(
                f"Positions multiply {key} by {ends[0]:.4g} to {ends[1]:.4g}; the factor's standard deviation is "
                f"{low:.3g} to {high:.3g}, by layer."
            )
    return lines


def at(one: Resolution) -> str:
    return f"{one.size[0]}x{one.size[1]}"


def percent(share: float) -> str:
    """A share as a percentage; of a small one, its order; of nan, a dash."""
    if math.isnan(share):
        return "-"
    return f"{100 * share:.1f} %" if share == 0 or share >= 5e-4 else f"{100 * share:.1g} %"

"""How sure a share of votes is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
Interval = tuple[float, float]


def wilson(wins: int, votes: int, confidence: float = CONFIDENCE) -> Interval:
    """Score interval of a share (Wilson 1927), as if votes were independent.

        (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),   p = wins / n

    Args:
        wins, votes: ``votes`` at least 1.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = wins / votes
    middle = p + z * z / (2 * votes)
    reach = z * math.sqrt(p * (1 - p) / votes + z * z / (4 * votes * votes))
    scale = 1 + z * z / votes
    low = 0.0 if wins == 0 else (middle - reach) / scale
    high = 1.0 if wins == votes else (middle + reach) / scale
    return low, high


def binomial_test(wins: int, votes: int) -> float:
    """Two-sided exact p-value of ``wins`` among ``votes`` where both choices are equally likely.

    The distribution is symmetric, so that is twice the smaller tail, at most 1.
    """
    few = min(wins, votes - wins)
    if 2 * few >= votes - 1:  # the two tails are everything
        return 1.0
    whole = math.lgamma(votes + 1) - votes * math.log(2)
    terms = (math.exp(whole - math.lgamma(k + 1) - math.lgamma(votes - k + 1)) for k in range(few + 1))
    return min(1.0, 2 * math.fsum(terms))


def bootstrap(
    wins: Sequence[int], votes: Sequence[int], confidence: float = CONFIDENCE, rounds: int = 10_000, seed: int = 0
) -> Interval | None:
    """Percentile interval of sum(wins) / sum(votes) over participants drawn anew, with replacement.

    The votes of one participant stay together, since they are not independent.

    Args:
        wins, votes: of each participant, ``votes`` at least 1.

    Returns:
        None for fewer than 2 participants, whose spread cannot be known.
    """
    if len(wins) < 2:
        return None
    each = np.stack([np.asarray(wins), np.asarray(votes)]).astype(np.int64)
    rng = np.random.default_rng(seed)
    # How often each participant is drawn is multinomial: the same as drawing them one by one, with less memory.
    counts = rng.multinomial(len(wins), np.full(len(wins), 1 / len(wins)), size=rounds)
    won, cast = each @ counts.T
    low, high = np.quantile(won / cast, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)

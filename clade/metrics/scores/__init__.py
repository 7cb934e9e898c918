"""How drawn pictures are scored: protocols, and the scores themselves while pictures come by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clade.metrics.scores.protocols import PROTOCOLS, SCORES, Protocol, Score, find_protocol

if TYPE_CHECKING:
    from clade.metrics.scores.stream import Scores

__all__ = ["PROTOCOLS", "SCORES", "Protocol", "Score", "Scores", "find_protocol"]


def __getattr__(name: str) -> Any:
    if name != "Scores":
        raise AttributeError(f"module 'clade.metrics.scores' has no attribute '{name}'")
    from clade.metrics.scores.stream import Scores  # torchmetrics takes seconds, and most trainings compute no score

    return Scores

"""What an evaluation came to: its scores, and all that they depend on."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clade.errors import CladeError
from clade.io.atomic import atomic_path
from clade.metrics.scores import SCORES

FORMAT = 1
_INSIDE = {
    "scores": (),
    "missing": (),
    "details": (),
    "checkpoint": ("sha256", "parameters", "multiply_adds", "recipe"),
    "data": ("name", "split", "sha256", "reference_sha256"),
    "protocol": ("name", "size"),
    "weights": (),
}
"""What tables read of a file."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of one checkpoint, and what they depend on; ``evaluation.json`` in memory.

    Attributes:
        scores: name -> value, as :data:`clade.metrics.scores.SCORES` prints them (shares of mIoU and accuracy in
            percent).
        missing: name -> why a score that the protocol has was not computed.
        details: what stands behind scores: IoU per class, subsets of KID, notes.
        pictures: how many were drawn and scored.
        checkpoint: path, sha256, generator, options, parameters, multiply_adds, info, recipe.
        data: name, root, split, sha256 of what was drawn from and its photos; split, number and sha256 of the reference
            photos, the latter two None where no score needed them.
        protocol: every field, resolved.
        weights: which extractor, judge, ... computed: name -> key, a hash of weights and preprocessing.
        drawn_with: where the latents came from.
        versions, machine, device: of what computed it.
        created: time of the end, UTC. ``seconds``: how long it took.
    """

    scores: dict[str, float]
    missing: dict[str, str]
    details: dict[str, Any]
    pictures: int
    checkpoint: dict[str, Any]
    data: dict[str, Any]
    protocol: dict[str, Any]
    weights: dict[str, str]
    drawn_with: str
    versions: dict[str, str]
    machine: dict[str, Any]
    created: str
    seconds: float
    processes: int = 1

    @property
    def key(self) -> str:
        """What two evaluations share whose scores may be compared, as text: their protocol, and the data's hash.

        Which scores were asked for, and what the protocol is called, changes no score; and judge and extractor are
        told apart by their weights (:meth:`agrees`).
        """
        left_out = ("name", "metrics", "judge", "extractor")
        settings = {name: value for name, value in self.protocol.items() if name not in left_out}
        return json.dumps([settings, self.data["sha256"]], sort_keys=True)

    def agrees(self, other: Evaluation) -> bool:
        """Whether scores of both may be compared: same key, and same weights and photos where both used them."""
        photos = {e.data["reference_sha256"] for e in (self, other)} - {None}
        shared = self.weights.keys() & other.weights.keys()
        return self.key == other.key and len(photos) < 2 and all(self.weights[k] == other.weights[k] for k in shared)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; not-a-number becomes None."""
        value = dataclasses.asdict(self)
        return {"format": FORMAT, **_finite(value)}

    def save(self, path: str | Path) -> None:
        """Write ``evaluation.json``, all or nothing."""
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Read a file that :meth:`save` wrote.

        Raises:
            CladeError: missing, or no such file.
        """
        needed = "Needed is an evaluation.json, as `clade evaluate` writes it."
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CladeError(f"{path}: cannot be read ({error}). {needed}") from error
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise CladeError(f"{path}: is no evaluation of format {FORMAT}. {needed}")
        fields = {field.name: field for field in dataclasses.fields(cls)}
        lacking = [name for name in fields if name not in value]
        for name, keys in _INSIDE.items():
            content = value.get(name)
            lacking += [name] if not isinstance(content, Mapping) else [f"{name}.{k}" for k in keys if k not in content]
        if lacking:
            raise CladeError(f"{path}: lacks '{lacking[0]}'. {needed}")
        scores = {
            str(name): math.nan if score is None else float(score)
            for name, score in value["scores"].items()
            if name in SCORES
        }
        return cls(**{**{name: value[name] for name in fields}, "scores": scores})


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(content) for key, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(content) for content in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

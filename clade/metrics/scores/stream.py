"""The scores of a protocol, while drawn pictures come by."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clade.data import Batch
from clade.errors import CladeError
from clade.labels import LabelSpace
from clade.metrics.judges import Judge
from clade.metrics.judges.matching import ClassMap
from clade.metrics.scores.measures import MEASURES, Measure
from clade.metrics.scores.protocols import SCORES, Protocol
from clade.metrics.scores.sources import Reference, Seen, Sources


class Scores:
    """Scores of drawn pictures under a protocol; each picture is seen once, and nothing of it is kept but features.

    Where there are several processes, each brings its own pictures, and :meth:`compute` merges what they saw: the same
    numbers, but for rounding.

    Args:
        protocol: which scores; with its size, fit and judge chosen.
        space: the classes of the label maps.
        reference: opens the dataset whose photos the distribution is compared with; called where a score needs it.
        device: where extractors and judge compute.
        weights: files by name: inception, lpips, or the extractor's name.
        judge: the judge itself, in place of the protocol's.
        judge_map: what the dataset's classes are called by the judge, where names differ
            (:func:`clade.metrics.judges.matching.match`).
        named: scores that were asked for by name: these raise where they cannot be computed, all others are noted in
            ``missing``.
        pictures: how many will come, so that too few are an error at once.
        workers, progress: of reading the real photos.

    Attributes:
        missing: score -> why it is not computed.
        keys: inception, extractor, judge, lpips -> a hash of weights and preprocessing, as far as they are used.
        reference_pictures: photos that the distribution is compared with; None where no score needs them.
        reference_sha256: of these photos, as they are compared with.

    Raises:
        CladeError: a score of ``named`` that cannot be computed, or none at all.
    """

    def __init__(
        self,
        protocol: Protocol,
        space: LabelSpace,
        reference: Reference,
        *,
        device: torch.device | str = "cpu",
        weights: Mapping[str, str | Path] | None = None,
        judge: Judge | None = None,
        judge_map: ClassMap | None = None,
        named: Collection[str] = (),
        pictures: int | None = None,
        workers: int = 0,
        progress: bool = False,
    ) -> None:
        self.protocol, self.device = protocol, torch.device(device)
        self.missing: dict[str, str] = {}
        self._named = frozenset(named)
        self._sources = Sources(
            protocol,
            space,
            reference,
            device=self.device,
            weights=weights or {},
            judge=judge,
            judge_map=judge_map,
            pictures=pictures,
            workers=workers,
            progress=progress,
        )
        self._measures: list[Measure] = []
        for name in MEASURES:
            kind = MEASURES[name]
            if asked := self._asked(kind):
                self._try(asked, lambda kind=kind: self._measures.append(kind(self._sources)))
        known = {name for kind in MEASURES for name in MEASURES[kind].names}
        for name in protocol.metrics:
            if name not in known:
                self._lacks([name], CladeError(f"No measure computes '{name}': register one in MEASURES."))
        if not self._measures:
            reasons = " ".join(dict.fromkeys(self.missing.values()))
            raise CladeError(f"None of {', '.join(protocol.metrics)} can be computed. {reasons}")

    @property
    def keys(self) -> dict[str, str]:
        return self._sources.keys

    @property
    def reference_pictures(self) -> int | None:
        return self._sources.reference_pictures

    @property
    def reference_sha256(self) -> str | None:
        return self._sources.reference_sha256

    def _try(self, names: Collection[str], make: Callable[[], object]) -> None:
        """Run ``make``; where it fails, these scores are missing, or the error goes on if one was asked for by name."""
        try:
            make()
        except CladeError as error:
            self._lacks(names, error)

    def _lacks(self, names: Collection[str], error: CladeError) -> None:
        if self._named.intersection(names):
            raise error
        self.missing.update(dict.fromkeys(names, str(error)))

    def _asked(self, measure: Measure | type[Measure]) -> list[str]:
        """Those of its scores that the protocol asks for."""
        return [name for name in measure.names if name in self.protocol.metrics]

    def _of_samples(self, measure: Measure) -> bool:
        return any(SCORES[name].samples for name in self._asked(measure))

    @property
    def wants_samples(self) -> bool:
        """Whether :meth:`update_samples` has to be called."""
        return any(map(self._of_samples, self._measures))

    @torch.no_grad()
    def update(self, batch: Batch, images: Tensor) -> None:
        """Add pictures.

        Args:
            batch: label maps and photos that the pictures were drawn from.
            images: (N, 3, H, W) in [-1, 1]; all scores but L1 see them rounded to 8 bits, as a PNG file holds them.
        """
        seen = Seen(batch, images.detach().float(), self.device)
        for measure in self._measures:
            measure.update(seen)

    @torch.no_grad()
    def update_samples(self, images: Tensor) -> None:
        """Add K pictures of each of N label maps, (N, K, 3, H, W) in [-1, 1]."""
        for measure in self._measures:
            if self._of_samples(measure):
                measure.update_samples(images.to(self.device))

    def reset(self) -> None:
        """Forget all pictures; extractors, judge and the real photos' statistics stay."""
        for measure in self._measures:
            measure.metric.reset()

    def compute(self) -> tuple[dict[str, float], dict[str, Any]]:
        """(values by score, in the protocol's order; what stands behind them), over all processes.

        Raises:
            CladeError: a score of ``named`` that cannot be computed of these pictures.
        """
        values: dict[str, float] = {}
        details: dict[str, Any] = {}
        notes = list(self._sources.notes)
        for measure in self._measures:
            self._try(self._asked(measure), lambda measure=measure: self._read(measure, values, details, notes))
        details["notes"] = list(dict.fromkeys(notes))
        return {name: values[name] for name in self.protocol.metrics if name in values}, details

    def _read(self, measure: Measure, values: dict[str, float], details: dict[str, Any], notes: list[str]) -> None:
        found, behind = measure.compute()
        lacking = [name for name in self._asked(measure) if name not in found]
        if lacking:
            raise CladeError(f"{type(measure).__name__} computed no '{lacking[0]}', which is among its names.")
        notes += getattr(measure.metric, "notes", ())
        values.update(found)
        details.update(behind)

"""What scores are made of: judge, extractors, statistics of the real photos, each opened once and when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from clade.data import Batch, Dataset
from clade.errors import CladeError
from clade.io.images import to_uint8
from clade.labels import LabelSpace
from clade.metrics.extractors import Extractor, create_extractor
from clade.metrics.judges import Judge
from clade.metrics.judges.matching import ClassMap
from clade.metrics.judges.opened import open_judge
from clade.metrics.scores.protocols import Protocol
from clade.metrics.statistics import Statistics, real_statistics, require_pictures

Reference = Callable[[], Dataset]
"""Opens the dataset of the real photos."""


class Sources:
    """What the measures of one protocol share.

    Args: see :class:`clade.metrics.scores.Scores`.

    Attributes:
        keys: inception, extractor, judge, lpips -> a hash of weights and preprocessing, of those that were opened.
        notes: what a reader of the scores has to know.
        reference_pictures, reference_sha256: photos that the distribution is compared with; None before that.
    """

    def __init__(
        self,
        protocol: Protocol,
        space: LabelSpace,
        reference: Reference,
        *,
        device: torch.device,
        weights: Mapping[str, str | Path],
        judge: Judge | None,
        judge_map: ClassMap | None,
        pictures: int | None,
        workers: int,
        progress: bool,
    ) -> None:
        self.protocol, self.space, self.device, self.weights = protocol, space, device, dict(weights)
        self.keys: dict[str, str] = {}
        self.notes: list[str] = []
        self.reference_pictures: int | None = None
        self.reference_sha256: str | None = None
        self._reference, self._workers, self._progress = reference, workers, progress
        self._given, self._judge_map, self._pictures = judge, judge_map, pictures
        self._judge: Judge | None = None
        self._extractors: dict[str, Extractor | CladeError] = {}
        self._real: dict[str, Statistics] = {}
        known = ("inception", "lpips", protocol.extractor)
        for name in self.weights:
            if name not in known:
                raise CladeError(f"Weights were given for '{name}'. Known here: {', '.join(known)}.")

    def require_pictures(self, count: int, why: str) -> None:
        """CladeError where fewer will come, as far as that is known."""
        if self._pictures is not None:
            require_pictures(self._pictures, count, why)

    def judge(self) -> Judge:
        """The judge given, or the protocol's; CladeError without one, or where it knows other classes."""
        if self._judge is not None:
            return self._judge
        if self.protocol.judge is None and self._given is None:
            raise CladeError(
                "mIoU and accuracy need a judge, and these data have no published one. Give one (--judge SPEC); "
                "`clade judge train` makes it."
            )
        judge = self._given
        if judge is None:
            judge = open_judge(str(self.protocol.judge), names=self.space.names, mapping=self._judge_map)
        judge = judge.to(self.device)
        # Says now, not after an hour of drawing, that a judge knows other classes.
        judge.from_ids(torch.zeros(1, dtype=torch.int64), self.space.num_classes)
        self.keys["judge"] = judge.key
        unmatched = getattr(judge, "unmatched", ())
        if unmatched:
            self.notes.append(f"{judge.name} has no class for {', '.join(unmatched)}: no score counts their pixels.")
        self._judge = judge
        return judge

    def extractor(self, what: str) -> Extractor:
        """``inception``, or the protocol's ``extractor``, with the real photos' statistics behind it."""
        if what not in self._extractors:
            name = "inception" if what == "inception" else self.protocol.extractor
            try:
                extractor = create_extractor(name, self.weights.get(name)).to(self.device)
                self._real[what] = self._statistics(extractor)
                self.note_network(what, extractor.key, extractor.name)
                self._extractors[what] = extractor
            except CladeError as error:
                self._extractors[what] = error  # for the other scores in these features, too
        found = self._extractors[what]
        if isinstance(found, CladeError):
            raise found
        return found

    def real(self, what: str) -> Statistics:
        """Of the real photos, in an extractor's features."""
        self.extractor(what)
        return self._real[what]

    def note_network(self, what: str, key: str, name: str) -> None:
        """Keep the hash of a network that is used; random weights are noted."""
        self.keys[what] = key
        if name.endswith("-random"):
            self.notes.append(f"{name}: random weights, whose scores say nothing of pictures.")

    def _statistics(self, extractor: Extractor) -> Statistics:
        dataset, protocol = self._reference(), self.protocol
        assert protocol.size is not None
        found = real_statistics(
            dataset,
            extractor,
            protocol.size,
            protocol.fit or "stretch",  # pyright: ignore[reportArgumentType]  # checked by the protocol
            keep=protocol.reference_features,
            device=self.device,
            workers=self._workers,
            progress=self._progress,
        )
        self.reference_pictures, self.reference_sha256 = found.count, found.sha256
        return found


class Seen:
    """Drawn pictures as the measures see them, what several of them need made once.

    Args:
        batch: label maps and photos that the pictures were drawn from.
        images: (N, 3, H, W) in [-1, 1], float32.
        device: where extractors and judge compute.
    """

    def __init__(self, batch: Batch, images: Tensor, device: torch.device) -> None:
        self.batch, self.images, self.device = batch, images, device
        self._features: dict[int, Tensor] = {}

    @cached_property
    def pixels(self) -> Tensor:
        """Rounded to 8 bits, as a PNG file holds them: (N, 3, H, W) uint8."""
        return torch.from_numpy(to_uint8(self.images)).movedim(-1, 1).contiguous().to(self.device)

    def features(self, extractor: Extractor) -> Tensor:
        """(N, dim)"""
        if id(extractor) not in self._features:
            self._features[id(extractor)] = extractor(self.pixels)
        return self._features[id(extractor)]

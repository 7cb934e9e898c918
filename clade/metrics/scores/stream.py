"""The scores of a protocol, while drawn pictures come by."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from clade.data import Batch, Dataset
from clade.errors import CladeError
from clade.io.images import to_uint8
from clade.labels import LabelSpace
from clade.metrics.diversity import LPIPS, Diversity
from clade.metrics.extractors import Extractor, create_extractor
from clade.metrics.frechet import FrechetDistance
from clade.metrics.judges import Judge
from clade.metrics.judges.matching import ClassMap
from clade.metrics.judges.opened import open_judge
from clade.metrics.kernel import KernelDistance
from clade.metrics.manifold import Manifold
from clade.metrics.scores.protocols import SCORES, Protocol
from clade.metrics.segmentation import SegmentationScore
from clade.metrics.statistics import Statistics, real_statistics, require_pictures

_MANIFOLD = ("precision", "recall", "density", "coverage")
Reference = Callable[[], Dataset]
"""Opens the dataset of the real photos."""


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
        self.protocol, self.space, self.device = protocol, space, torch.device(device)
        self.missing: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self.notes: list[str] = []
        self.reference_pictures: int | None = None
        self.reference_sha256: str | None = None
        self._named, self._weights = frozenset(named), dict(weights or {})
        self._pictures = pictures
        self._reference, self._workers, self._progress = reference, workers, progress
        self._metrics: dict[str, Metric] = {}
        self._extractors: dict[str, Extractor] = {}
        self.judge: Judge | None = None
        self._given, self._judge_map = judge, judge_map
        self._check_weights()
        makers = {
            "judge": self._make_judge,
            "inception": lambda: self._make_features("inception", ("fid", "kid"), ()),
            "extractor": lambda: self._make_features("extractor", ("fd",), _MANIFOLD),
            "lpips": self._make_diversity,
            "": lambda: self._add("l1", MeanMetric()),
        }
        for what, make in makers.items():
            names = [name for name in protocol.metrics if SCORES[name].needs == what]
            if names:
                self._try(names, make)
        if not self._metrics:
            reasons = " ".join(dict.fromkeys(self.missing.values()))
            raise CladeError(f"None of {', '.join(protocol.metrics)} can be computed. {reasons}")

    def _check_weights(self) -> None:
        known = ("inception", "lpips", self.protocol.extractor)
        for name in self._weights:
            if name not in known:
                raise CladeError(f"Weights were given for '{name}'. Known here: {', '.join(known)}.")

    def _try(self, names: Collection[str], make: Callable[[], object]) -> None:
        """Run ``make``; where it fails, these scores are missing, or the error goes on if one was asked for by name."""
        try:
            make()
        except CladeError as error:
            if self._named.intersection(names):
                raise
            self.missing.update(dict.fromkeys(names, str(error)))

    # --- What they are made of ------------------------------------------------------------------------------------

    def _add(self, name: str, metric: Metric) -> None:
        self._metrics[name] = metric.to(self.device)

    def _make_judge(self) -> None:
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
        self.judge = judge
        unmatched = getattr(judge, "unmatched", ())
        if unmatched:
            self.notes.append(f"{judge.name} has no class for {', '.join(unmatched)}: no score counts their pixels.")
        self._add("judge", SegmentationScore(judge.num_classes, absent=self.protocol.absent_classes))  # pyright: ignore[reportArgumentType]  # checked by the protocol

    def _make_features(self, what: str, own: Collection[str], neighbourly: Collection[str]) -> None:
        protocol, asked = self.protocol, self.protocol.metrics
        name = "inception" if what == "inception" else protocol.extractor
        neighbours = max(protocol.neighbours, protocol.density_neighbours) if set(neighbourly) & set(asked) else 1
        if self._pictures is not None:
            require_pictures(self._pictures, neighbours + 1, f"a neighbourhood of {neighbours}")
        extractor = create_extractor(name, self._weights.get(name)).to(self.device)
        real = self._real(extractor)
        self.keys[what] = extractor.key
        self._extractors[what] = extractor
        self._note_random(extractor.name)
        for score in ("fid", "fd"):
            if score in own and score in asked:
                self._add(score, FrechetDistance(extractor.dim, real))
        if "kid" in own and "kid" in asked:
            subsets = {"subsets": protocol.kid_subsets, "subset_size": protocol.kid_subset_size}
            self._add("kid", KernelDistance(extractor.dim, real, seed=protocol.kid_seed, **subsets))
        if set(neighbourly) & set(asked):
            self._add("manifold", Manifold(extractor.dim, real, protocol.neighbours, protocol.density_neighbours))

    def _note_random(self, name: str) -> None:
        if name.endswith("-random"):
            self.notes.append(f"{name}: random weights, whose scores say nothing of pictures.")

    def _real(self, extractor: Extractor) -> Statistics:
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

    def _make_diversity(self) -> None:
        lpips = LPIPS(weights=self._weights.get("lpips"))
        self.keys["lpips"] = lpips.key
        self._note_random(lpips.name)
        self._add("diversity", Diversity(lpips))

    # --- Pictures -------------------------------------------------------------------------------------------------

    @property
    def wants_samples(self) -> bool:
        """Whether :meth:`update_samples` has to be called."""
        return "diversity" in self._metrics

    @torch.no_grad()
    def update(self, batch: Batch, images: Tensor) -> None:
        """Add pictures.

        Args:
            batch: label maps and photos that the pictures were drawn from.
            images: (N, 3, H, W) in [-1, 1]; all scores but L1 see them rounded to 8 bits, as a PNG file holds them.
        """
        images = images.detach().float()
        if "l1" in self._metrics:
            assert batch.image is not None
            self._metrics["l1"].update((images - batch.image.to(images)).abs().mean((1, 2, 3)))
        pixels = torch.from_numpy(to_uint8(images)).movedim(-1, 1).contiguous().to(self.device)
        for what, extractor in self._extractors.items():
            features = extractor(pixels)
            for name in ("fid", "kid") if what == "inception" else ("fd", "manifold"):
                if name in self._metrics:
                    self._metrics[name].update(features)
        if self.judge is not None:
            ids = batch.label_map.ids
            truth = self.judge.from_ids(ids, self.space.num_classes)
            self._metrics["judge"].update(self.judge.predict(pixels, batch.label_map.size), truth)

    @torch.no_grad()
    def update_samples(self, images: Tensor) -> None:
        """Add K pictures of each of N label maps, (N, K, 3, H, W) in [-1, 1]."""
        self._metrics["diversity"].update(images.to(self.device))

    def reset(self) -> None:
        """Forget all pictures; extractors, judge and the real photos' statistics stay."""
        for metric in self._metrics.values():
            metric.reset()

    # --- Values ---------------------------------------------------------------------------------------------------

    def compute(self) -> tuple[dict[str, float], dict[str, Any]]:
        """(values by score, in the protocol's order; what stands behind them), over all processes.

        Raises:
            CladeError: a score of ``named`` that cannot be computed of these pictures.
        """
        values: dict[str, float] = {}
        details: dict[str, Any] = {}
        for kind, metric in self._metrics.items():
            names = {"judge": ("miou", "accuracy"), "manifold": _MANIFOLD}.get(kind, (kind,))
            asked = [name for name in names if name in self.protocol.metrics]
            self._try(asked, lambda kind=kind, metric=metric: self._read(kind, metric, values, details))
        details["notes"] = list(dict.fromkeys(self.notes))
        return {name: values[name] for name in self.protocol.metrics if name in values}, details

    def _read(self, kind: str, metric: Metric, values: dict[str, float], details: dict[str, Any]) -> None:
        found = metric.compute()
        self.notes += getattr(metric, "notes", ())
        if kind == "l1":
            values["l1"] = float(found)
        elif kind == "diversity":
            values["diversity"] = float(found["lpips"])
            details["diversity"] = _plain(found)
        elif kind in ("fid", "fd"):
            values[kind] = float(found["frechet"])
        elif kind == "kid":
            values["kid"] = 1000 * float(found["kernel_mean"])
            details["kid"] = _plain(found)
        elif kind == "manifold":
            values.update({name: float(found[name]) for name in _MANIFOLD})
        else:
            assert self.judge is not None
            values.update({name: 100 * float(found[name]) for name in ("miou", "accuracy")})
            per_class = {name: (100 * found[name]).tolist() for name in ("iou", "class_accuracy")}
            details["judge"] = {"names": list(self.judge.names), **per_class, "pixels": int(found["pixels"])}


def _plain(values: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value.ndim == 0}

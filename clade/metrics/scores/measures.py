"""What computes scores, one class for each kind; what they are made of is opened once for all (:class:`Sources`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from torchmetrics import MeanMetric, Metric

from clade.errors import CladeError
from clade.metrics.diversity import LPIPS, Diversity
from clade.metrics.frechet import FrechetDistance
from clade.metrics.kernel import KernelDistance
from clade.metrics.manifold import Manifold
from clade.metrics.scores.sources import Seen, Sources
from clade.metrics.segmentation import SegmentationScore
from clade.registry import Registry


class Measure(ABC):
    """Scores of one kind, while drawn pictures come by.

    A new one is a subclass in :data:`MEASURES` and an entry for each of its ``names`` in
    :data:`clade.metrics.scores.SCORES`; evaluate, compare, trainings and tables know it then.

    Args:
        sources: protocol, device, and what else it needs: extractors, the real photos' statistics, the judge.

    ``metric`` holds what it has seen, and merges it over processes.

    Raises:
        CladeError: something that it needs is not there; its scores are missing then, or an error where they were asked
            for by name.
    """

    names: ClassVar[tuple[str, ...]]
    metric: Metric

    @abstractmethod
    def __init__(self, sources: Sources) -> None: ...

    @abstractmethod
    def update(self, seen: Seen) -> None:
        """Add pictures."""

    def update_samples(self, images: Tensor) -> None:
        """Add K pictures of each of N label maps, (N, K, 3, H, W) in [-1, 1], for scores of ``samples``."""
        raise NotImplementedError

    @abstractmethod
    def compute(self) -> tuple[Mapping[str, float], Mapping[str, Any]]:
        """(score -> value, what stands behind it), over all processes.

        Raises:
            CladeError: these pictures have no such score (too few, say).
        """


MEASURES: Registry[type[Measure]] = Registry("measure")
"""In the order in which they are made."""


@MEASURES.register("judge")
class Judged(Measure):
    """mIoU and accuracy of the judge's segmentation of the pictures, by their label maps."""

    names = ("miou", "accuracy")

    def __init__(self, sources: Sources) -> None:
        self.judge = sources.judge()
        absent: Any = sources.protocol.absent_classes  # checked by the protocol
        self.metric = SegmentationScore(self.judge.num_classes, absent=absent).to(sources.device)
        self.num_classes = sources.space.num_classes

    def update(self, seen: Seen) -> None:
        truth = self.judge.from_ids(seen.batch.label_map.ids, self.num_classes)
        self.metric.update(self.judge.predict(seen.pixels, seen.batch.label_map.size), truth)

    def compute(self) -> tuple[Mapping[str, float], Mapping[str, Any]]:
        found = self.metric.compute()
        per_class = {name: (100 * found[name]).tolist() for name in ("iou", "class_accuracy")}
        behind = {"names": list(self.judge.names), **per_class, "pixels": int(found["pixels"])}
        return {name: 100 * float(found[name]) for name in self.names}, {"judge": behind}


class _OfFeatures(Measure):
    """In the features of a network: Inception, or the protocol's extractor."""

    what: ClassVar[str] = "extractor"

    def __init__(self, sources: Sources) -> None:
        neighbours = self._neighbours(sources)
        sources.require_pictures(neighbours + 1, f"a neighbourhood of {neighbours}")
        self.extractor = sources.extractor(self.what)
        self.metric = self._metric(sources).to(sources.device)

    def _neighbours(self, sources: Sources) -> int:
        return 1

    @abstractmethod
    def _metric(self, sources: Sources) -> Metric: ...

    def update(self, seen: Seen) -> None:
        self.metric.update(seen.features(self.extractor))


@MEASURES.register("fid")
class FID(_OfFeatures):
    """Fréchet distance in Inception's features."""

    names = ("fid",)
    what = "inception"

    def _metric(self, sources: Sources) -> Metric:
        return FrechetDistance(self.extractor.dim, sources.real(self.what))

    def compute(self) -> tuple[Mapping[str, float], Mapping[str, Any]]:
        return {self.names[0]: float(self.metric.compute()["frechet"])}, {}


@MEASURES.register("kid")
class KID(_OfFeatures):
    """Kernel distance in Inception's features, times 1000."""

    names = ("kid",)
    what = "inception"

    def _metric(self, sources: Sources) -> Metric:
        protocol = sources.protocol
        subsets = {"subsets": protocol.kid_subsets, "subset_size": protocol.kid_subset_size}
        return KernelDistance(self.extractor.dim, sources.real(self.what), seed=protocol.kid_seed, **subsets)

    def compute(self) -> tuple[Mapping[str, float], Mapping[str, Any]]:
        found = self.metric.compute()
        return {"kid": 1000 * float(found["kernel_mean"])}, {"kid": _plain(found)}


@MEASURES.register("fd")
class FD(FID):
    """Fréchet distance in the features of the protocol's extractor."""

    names = ("fd",)
    what = "extractor"


@MEASURES.register("manifold")
class Neighbourhoods(_OfFeatures):
    """Precision, recall, density and coverage in the features of the protocol's extractor."""

    names = ("precision", "recall", "density", "coverage")

    def _neighbours(self, sources: Sources) -> int:
        return max(sources.protocol.neighbours, sources.protocol.density_neighbours)

    def _metric(self, sources: Sources) -> Metric:
        protocol = sources.protocol
        real = sources.real(self.what)
        return Manifold(self.extractor.dim, real, protocol.neighbours, protocol.density_neighbours)

    def compute(self) -> tuple[Mapping[str, float], Mapping[str, Any]]:
        found = self.metric.compute()
        return {name: float(found[name]) for name in self.names}, {}


@MEASURES.register("diversity")
class OfSamples(Measure):
    """LPIPS between several pictures of one label map."""

    names = ("diversity",)

    def __init__(self, sources: Sources) -> None:
        lpips = LPIPS(weights=sources.weights.get("lpips"))
        sources.note_network("lpips", lpips.key, lpips.name)
        self.metric = Diversity(lpips).to(sources.device)

    def update(self, seen: Seen) -> None:
        """One picture of each has no diversity."""

    def update_samples(self, images: Tensor) -> None:
        self.metric.update(images)

    def compute(self) -> tuple[Mapping[str, float], Mapping[str, Any]]:
        found = self.metric.compute()
        return {"diversity": float(found["lpips"])}, {"diversity": _plain(found)}


@MEASURES.register("l1")
class L1(Measure):
    """Mean difference from the photos, as drawn, not rounded."""

    names = ("l1",)

    def __init__(self, sources: Sources) -> None:
        self.metric = MeanMetric().to(sources.device)

    def update(self, seen: Seen) -> None:
        photos = seen.batch.image
        if photos is None:
            raise CladeError("L1 compares with photos, and these label maps have none.")
        self.metric.update((seen.images - photos.to(seen.images)).abs().mean((1, 2, 3)))

    def compute(self) -> tuple[Mapping[str, float], Mapping[str, Any]]:
        return {"l1": float(self.metric.compute())}, {}


def _plain(values: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value.ndim == 0}

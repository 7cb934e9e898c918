"""Scores of generated images, and what they are computed with. Knows nothing of generators."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clade.metrics.diversity import LPIPS, Diversity
    from clade.metrics.extractors import Extractor, create_extractor
    from clade.metrics.frechet import FrechetDistance, frechet_distance
    from clade.metrics.kernel import KernelDistance, kernel_distance
    from clade.metrics.manifold import Manifold, density_coverage, precision_recall
    from clade.metrics.segmentation import SegmentationScore
    from clade.metrics.statistics import Statistics, dataset_key, real_statistics

# Made available on first use: a judge alone needs no torchmetrics.
_LATER = {
    "Diversity": "diversity",
    "Extractor": "extractors",
    "FrechetDistance": "frechet",
    "KernelDistance": "kernel",
    "LPIPS": "diversity",
    "Manifold": "manifold",
    "SegmentationScore": "segmentation",
    "Statistics": "statistics",
    "create_extractor": "extractors",
    "dataset_key": "statistics",
    "density_coverage": "manifold",
    "frechet_distance": "frechet",
    "kernel_distance": "kernel",
    "precision_recall": "manifold",
    "real_statistics": "statistics",
}

__all__ = [
    "LPIPS",
    "Diversity",
    "Extractor",
    "FrechetDistance",
    "KernelDistance",
    "Manifold",
    "SegmentationScore",
    "Statistics",
    "create_extractor",
    "dataset_key",
    "density_coverage",
    "frechet_distance",
    "ignored_number",
    "kernel_distance",
    "precision_recall",
    "real_statistics",
]


def ignored_number(num_classes: int) -> int:
    """What stands in a label map for pixels that no score counts: 255, as published maps have it, or -1 where 255 is a
    class."""
    return 255 if num_classes <= 255 else -1


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'clade.metrics' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"clade.metrics.{_LATER[name]}"), name)
    globals()[name] = value
    return value

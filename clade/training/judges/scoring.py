"""A judge's score on real photos: the ceiling of what it can give to generated ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clade.data import Batch, Chosen, Dataset, eval_loader
from clade.data.transforms import Fit
from clade.errors import DataError
from clade.metrics.judges import Judge
from clade.recipes import DataConfig
from clade.system.progress import track
from clade.training.builders import build_dataset


@dataclass(frozen=True)
class Ceiling:
    """What a judge says of real photos.

    Args:
        miou: mean of the classes' intersection over union, in [0, 1].
        accuracy: share of the pixels that it names rightly, of those that have a class.
        iou: of each class by name; None where neither labels nor judge have a pixel of it, which the mean leaves out.
        pictures: how many were looked at.
    """

    miou: float
    accuracy: float
    iou: dict[str, float | None]
    pictures: int

    def to_dict(self) -> dict[str, Any]:
        return {"miou": self.miou, "accuracy": self.accuracy, "iou": self.iou, "pictures": self.pictures}


def confusion_of(
    predict: Callable[[Tensor], Tensor], judge: Judge, batches: Iterable[Batch], num_classes: int
) -> Tensor:
    """Pixels by class in the labels and class predicted, and in a last row the number of pictures: (K + 1, K) float64.

    Args:
        predict: images -> classes.
        judge: of the classes.
        num_classes: of the dataset.

    Raises:
        DataError: pictures without photos.
    """
    k = judge.num_classes
    total = torch.zeros(k + 1, k, dtype=torch.float64)
    for batch in batches:
        if batch.image is None:
            raise DataError(f"'{batch.names[0]}' has no photo; images/ is needed beside labels/.")
        truth = judge.from_ids(batch.label_map.ids, num_classes)
        predicted = predict(batch.image).to(truth.device)
        known = truth != judge.ignored
        pairs = torch.bincount(truth[known] * k + predicted[known], minlength=k * k)
        total[:k] += pairs.view(k, k).cpu()
        total[k, 0] += len(batch)
    return total


def ceiling_of(confusion: Tensor, names: Iterable[str]) -> Ceiling:
    """The scores of what :func:`confusion_of` counted.

    Raises:
        DataError: not one pixel with a class.
    """
    counts = confusion[:-1]
    if not counts.sum():
        raise DataError("Not one pixel that was judged has a class that the judge knows, so there is nothing to score.")
    hit = counts.diag()
    union = counts.sum(0) + counts.sum(1) - hit
    values = (hit / union).tolist()  # 0 / 0 is NaN
    there = (union > 0).tolist()
    iou = {name: value if seen else None for name, value, seen in zip(names, values, there, strict=True)}
    scored = [value for value in iou.values() if value is not None]
    return Ceiling(
        miou=sum(scored) / len(scored),
        accuracy=float(hit.sum() / counts.sum()),
        iou=iou,
        pictures=int(confusion[-1, 0]),
    )


def score(
    judge: Judge,
    data: DataConfig | Dataset,
    split: str | None = None,
    *,
    size: tuple[int, int] | None = None,
    batch_size: int = 8,
    limit: int | None = None,
    fit: Fit = "stretch",
    progress: bool = False,
) -> Ceiling:
    """A judge's score on the real photos of a dataset.

    Args:
        judge: answers in the dataset's classes, see :func:`clade.metrics.judges.open`.
        data: the dataset, or the data section of a recipe.
        split: which part; by default the section's ``val_split``.
        size: (height, width) of photos and labels; by default the section's, or each picture's own.
        limit: look at no more than these, from the first on.
        fit: how a picture of another shape is made to fit ``size``; a section says that itself.
        progress: tell how far it is (:class:`clade.system.progress.Progress`).

    Raises:
        CladeError: data that cannot be used, or that have other classes than the judge.
    """
    if isinstance(data, DataConfig):
        size, fit = size or data.size, data.fit  # pyright: ignore[reportAssignmentType]  # checked by the loader
        data = build_dataset(data, split or data.val_split)
    batches: Any = eval_loader(
        data if limit is None else Chosen(data, range(min(limit, len(data)))),
        size=size,
        batch_size=1 if size is None else batch_size,
        with_positions=False,
        instances=False,
        fit=fit,
    )
    device, shown = judge.device, track(batches, "batch", len(batches), quiet=not progress)
    counts = confusion_of(lambda image: judge.predict(image.to(device)), judge, shown, data.label_space.num_classes)
    return ceiling_of(counts, judge.names)

"""mIoU and pixel accuracy of what a judge sees against the label map that the picture was made from."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torchmetrics import Metric

from clade.errors import CladeError, DataError, LabelError
from clade.metrics import ignored_number
from clade.registry import near_match

Absent = Literal["skip", "zero"]
"""What a class counts that neither the label maps nor the predictions have: nothing, or 0 in the mean over all."""


def confusion(prediction: Tensor, truth: Tensor, num_classes: int, ignored: int | None = None) -> Tensor:
    """Pixels by (class in the label map, class predicted), (C, C) int64.

    Args:
        prediction: classes of any shape, in [0, num_classes).
        truth: of the same shape; ``ignored`` counts nowhere, by default :func:`clade.metrics.ignored_number`.

    Raises:
        LabelError: other shapes, or classes outside.
    """
    if prediction.shape != truth.shape:
        raise LabelError(
            f"The prediction is {tuple(prediction.shape)}, the label map {tuple(truth.shape)}; both must have the same "
            "size. Judge.predict(images, size) answers at the label map's."
        )
    ignored = ignored_number(num_classes) if ignored is None else ignored
    counted = truth != ignored
    seen, true = prediction[counted].long(), truth[counted].long()
    for what, ids in (("prediction", seen), ("label map", true)):
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= num_classes):
            raise LabelError(
                f"A {what} has classes {int(ids.min())}..{int(ids.max())}, needed are 0..{num_classes - 1}, and in "
                f"label maps {ignored} for pixels that do not count. Judge.from_ids translates a dataset's ids."
            )
    return torch.bincount(true * num_classes + seen, minlength=num_classes**2).view(num_classes, num_classes)


def class_iou(matrix: Tensor) -> Tensor:
    """Intersection over union of each class, (C,) float64; NaN where neither side has it.

    iou_c = n_cc / (sum_j n_cj + sum_i n_ic - n_cc)
    """
    hits = matrix.diagonal().double()
    return hits / (matrix.sum(0) + matrix.sum(1) - matrix.diagonal()).double()


class SegmentationScore(Metric):
    """Streaming mIoU and pixel accuracy.

    Pixels are counted over all pictures before anything is divided, as the published protocols do.

    Args:
        num_classes: of the judge.
        ignored: in label maps, what counts nowhere; by default 255, or -1 where 255 is a class
            (:func:`clade.metrics.ignored_number`).
        absent: what a class counts in mIoU that occurs in no label map and no prediction: "skip" leaves it out (DRN's
            ``nanmean``), "zero" counts it as 0 (CSAIL's UperNet code, whose validation set has every class).
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    matrix: Tensor

    def __init__(self, num_classes: int, ignored: int | None = None, absent: Absent = "skip", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if absent not in get_args(Absent):
            raise CladeError(
                f"absent is '{absent}', but must be 'skip' or 'zero'.{near_match(absent, get_args(Absent))}"
            )
        if ignored is not None and 0 <= ignored < num_classes:
            raise CladeError(f"ignored is {ignored}, which is one of the {num_classes} classes. Leave it out.")
        self.num_classes, self.ignored, self.absent = num_classes, ignored, absent
        self.add_state("matrix", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, truth: Tensor) -> None:
        """Add classes of pixels, both (N, H, W); raises LabelError as :func:`confusion`."""
        counts = confusion(prediction, truth.to(prediction.device), self.num_classes, self.ignored)
        self.matrix = self.matrix + counts.to(self.matrix.device)

    def compute(self) -> dict[str, Tensor]:
        """``miou``, ``accuracy`` in [0, 1], the number of ``pixels``, and per class ``iou`` and ``class_accuracy``,
        (C,), NaN where there is none.

        Raises:
            DataError: no pixel was counted.
        """
        pixels = self.matrix.sum()
        if not int(pixels):
            raise DataError("No pixel has a class to score. Look at the label maps: all are unknown, or none came.")
        iou = class_iou(self.matrix)
        hits = self.matrix.diagonal().double()
        return {
            "miou": iou.nanmean() if self.absent == "skip" else iou.nan_to_num(0).mean(),
            "accuracy": hits.sum() / pixels,
            "pixels": pixels,
            "iou": iou,
            "class_accuracy": hits / self.matrix.sum(1).double(),
        }

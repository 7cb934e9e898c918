"""What a judge is: a segmenter that says what it sees in a generated image."""

from __future__ import annotations

import contextlib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clade.errors import CladeError, LabelError
from clade.metrics import ignored_number
from clade.metrics.judges.pixels import Images, as_pixels

Size = tuple[int, int]
"""(height, width)"""
_NO_CLASS = -2


class Judge(nn.Module, ABC):
    """A segmenter with the preprocessing and scoring that its published numbers were made with.

    Always in eval mode, without gradients for its weights, in float32 (no TF32, no autocast), on the device of its
    weights.

    Args:
        network: the segmenter itself.
        names: of its classes.

    ``ignored`` stands in :meth:`from_ids` for pixels that no score counts (:func:`clade.metrics.ignored_number`).
    """

    name: str
    min_size = 1
    """Sides of an input are at least this."""

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.names = tuple(names)
        self.num_classes = len(self.names)
        self.ignored = ignored_number(self.num_classes)
        self.eval()

    def train(self, mode: bool = True) -> Judge:
        """Stays in eval mode, also as a part of something that trains."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    # --- The network ----------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, size: Size | None = None) -> Tensor:
        """Preprocessed inputs (N, 3, H, W) -> scores (N, num_classes, h, w).

        Args:
            size: (height, width) of the scores that decide. None: what the network gives in eval mode, at its own size.

        Raises:
            CladeError: an input that the network cannot take.
        """
        return self.guarded(x, lambda: self.evaluate(x, size))

    @abstractmethod
    def evaluate(self, x: Tensor, size: Size | None) -> Tensor:
        """:meth:`forward` of a checked input."""

    def logits(self, x: Tensor) -> Tensor:
        """Preprocessed inputs (N, 3, H, W) -> logits at the size that the network computes them at."""
        return self(x)

    def check(self, x: Tensor) -> None:
        """Raises CladeError for an input that the network cannot take."""
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[-2:]) < self.min_size or not x.is_floating_point():
            raise CladeError(
                f"The input is {tuple(x.shape)}, {x.dtype}; needed are floats (N, 3, H, W), sides of {self.min_size} "
                "or more, as judge.preprocess(images) makes them."
            )

    def guarded(self, x: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        self.check(x)
        with _full_precision(), torch.autocast(x.device.type, enabled=False):
            return compute()

    # --- Images ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def preprocess(self, images: Images) -> Tensor | list[Tensor]:
        """Images -> the network's input (a list where it looks at several sizes), on the judge's device."""

    @torch.no_grad()
    def scores(self, images: Images, size: Size | None = None) -> Tensor:
        """Images -> the scores whose largest decides, (N, num_classes, *size).

        Args:
            images: generated, (N, 3, H, W) in [-1, 1]; or uint8 photos.
            size: (height, width) of the label maps; None: the images'.
        """
        pixels = as_pixels(images)
        image_size = (pixels.shape[-2], pixels.shape[-1])
        return self.combine(self.preprocess(pixels), size or image_size)

    def combine(self, inputs: Tensor | Sequence[Tensor], size: Size) -> Tensor:
        """What :meth:`preprocess` gave -> :meth:`scores`."""
        assert isinstance(inputs, Tensor)
        return self(inputs, size)

    def predict(self, images: Images, size: Size | None = None) -> Tensor:
        """Images, as :meth:`scores` takes them -> class of every pixel, (N, *size) int64 in [0, num_classes)."""
        return self.scores(images, size).argmax(1)

    # --- Labels ---------------------------------------------------------------------------------------------------

    @property
    def table(self) -> dict[int, int]:
        """Class id of the dataset -> class of the judge, or ``ignored``."""
        return {k: k for k in range(self.num_classes)}

    def from_ids(self, ids: Tensor | np.ndarray, num_classes: int | None = None) -> Tensor:
        """The dataset's ids -> the judge's, int64 of the same shape and device, ``ignored`` where no score counts.

        Args:
            ids: any shape. The unknown class, the row after the last class, is not counted; nor is 255, where it is
                no class.
            num_classes: of the dataset, without the unknown one. Ids of a dataset with the judge's own classes stay.
                None: as many as the generators of the paper were trained with.

        Raises:
            LabelError: another number of classes, or ids outside them.
        """
        ids = torch.as_tensor(ids)
        table = {k: k for k in range(self.num_classes)} if num_classes == self.num_classes else self.table
        if num_classes not in (None, len(table)):
            own = " or ".join(str(count) for count in sorted({len(self.table), self.num_classes}))
            raise LabelError(
                f"The label maps have {num_classes} classes; '{self.name}' judges {own}. "
                "Take a judge that was trained for these classes."
            )
        unknown = sorted({len(table), max(len(table), 255)})
        known = torch.full((unknown[-1] + 1,), _NO_CLASS, dtype=torch.int64)
        known[list(table)] = torch.tensor(list(table.values()))
        known[unknown] = self.ignored
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise LabelError(f"Label maps of type {ids.dtype} came; needed are whole numbers.")
        ids = ids.long()
        outside = (ids < 0) | (ids >= len(known))
        out = known.to(ids.device)[ids.masked_fill(outside, 0)].masked_fill(outside, _NO_CLASS)
        wrong = ids[out == _NO_CLASS]
        if wrong.numel():
            raise LabelError(
                f"{wrong.numel()} pixels have ids that '{self.name}' has no class for, such as {int(wrong[0])}; needed "
                f"are 0..{len(table) - 1}, and {' or '.join(map(str, unknown))} for unknown."
            )
        return out

    # --- Identity -------------------------------------------------------------------------------------------------

    def options(self) -> dict[str, object]:
        """What changes the scores besides the weights."""
        return {}

    @property
    def key(self) -> str:
        """Tells judges apart in caches and tables: their name, and a hash of weights and options."""
        hashed = hashlib.sha256(f"{self._weights} {json.dumps(self.options(), sort_keys=True)}".encode())
        return f"{self.name}-{hashed.hexdigest()[:16]}"

    @cached_property
    def _weights(self) -> str:
        hashed = hashlib.sha256()
        for key, value in sorted(self.network.state_dict().items()):
            hashed.update(key.encode())
            hashed.update(value.cpu().contiguous().numpy().data)
        return hashed.hexdigest()


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """A GPU's convolutions in float32 proper, where torch's default is TF32."""
    owner: Any = torch.backends.cudnn
    switch, off = "allow_tf32", False
    if hasattr(owner, "conv"):
        # Newer torch has a switch for convolutions alone, and refuses to read the older one when other layers differ.
        owner, switch, off = owner.conv, "fp32_precision", "ieee"
    before = getattr(owner, switch)
    setattr(owner, switch, off)
    try:
        yield
    finally:
        setattr(owner, switch, before)

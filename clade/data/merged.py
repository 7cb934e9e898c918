"""A dataset with its classes merged, as ``clade data convert --merge`` writes it, but without writing anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clade.data.base import Dataset, Sample
from clade.labels.labelspace import LabelSpace

MergeTable = str | Path | Mapping[str, Any]
"""A merge table, or the YAML or JSON file of one (:func:`clade.data.convert.merging.plan`)."""


class Merged(Dataset):
    """The pictures of a dataset, with the classes that a merge table makes of its own; instances stay as they are.

    Args:
        dataset: whose pictures.
        merge: the table.

    Attributes:
        label_space: names, colours and numbers as ``clade data convert --merge`` gives them. Its ``remap`` leads from
            the numbers of the dataset's own label files to the merged classes: what reads label files by it
            (``clade generate``) takes those of the dataset, not those that ``convert`` writes.
        unmerged: the label space of the dataset itself.

    Raises:
        DataError, LabelError: as :func:`clade.data.convert.merging.plan`.
    """

    def __init__(self, dataset: Dataset, merge: MergeTable) -> None:
        self.dataset, self.unmerged = dataset, dataset.label_space
        self.label_space, self._ids = merged_space(dataset.label_space, merge)

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return self.dataset.name(index)

    def read(self, index: int) -> Sample:
        sample = self.dataset.read(index)
        return replace(sample, ids=self._ids[sample.ids])

    def classes(self, index: int) -> np.ndarray:
        return np.unique(self._ids[self.dataset.classes(index)])


def merged_space(source: LabelSpace, merge: MergeTable) -> tuple[LabelSpace, np.ndarray]:
    """What :class:`Merged` makes of a label space, and id of the source -> id, (num_rows of the source,)."""
    from clade.data.convert.merging import plan

    merging = plan(source, merge)
    known = [*range(source.num_classes), *([] if source.unknown is None else [source.unknown]), *source.remap]
    numbers = np.array(sorted(set(known)))
    # Numbers that stay the same are named too: `clade generate` then does not compare them with other names.
    remap = dict(zip(numbers.tolist(), merging.table[source.encode(numbers)].tolist(), strict=True))
    return replace(merging.space, remap=remap), merging.space.encode(merging.table)


def unmerged_space(dataset: Dataset) -> LabelSpace | None:
    """The label space before :class:`Merged`, however the dataset is wrapped; None where nothing is merged."""
    inner: Any = dataset
    while inner is not None:
        if isinstance(inner, Merged):
            return inner.unmerged
        inner = getattr(inner, "dataset", None)
    return None

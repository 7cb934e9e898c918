"""Our own layout again, to merge classes, and those of the registered datasets."""

from __future__ import annotations

from functools import partial

import numpy as np

from clade.data.convert.base import CONVERTERS, Converter, Item, Request, Source, formats
from clade.data.files import FileDataset, Listing, layouts
from clade.errors import CladeError, DataError, LabelError
from clade.labels.labelspace import LabelSpace
from clade.registry import near_match


def find_converter(name: str) -> Converter:
    """The format of that name; raises CladeError naming the known ones."""
    if name in CONVERTERS:
        return CONVERTERS[name]
    if name in layouts():
        return Converter((), partial(from_dataset, layouts()[name]))
    known = formats()
    raise CladeError(f"There is no format called '{name}'.{near_match(name.lower(), known)} Known: {', '.join(known)}.")


def from_dataset(cls: type[FileDataset], request: Request) -> Source:
    """All splits of a dataset in its own layout, or one."""
    splits = cls.splits(request.source)
    if request.split is not None:
        if request.split not in splits:
            known = [str(split) for split in splits if split is not None]
            hint = near_match(request.split, known)
            raise DataError(
                f"{request.source}: no split '{request.split}'.{hint} It has {', '.join(known) or 'no parts'}."
            )
        splits = [request.split]
    space: LabelSpace | None = None
    items: list[Item] = []
    for split in splits:
        dataset = cls(request.source, split=split)
        if space is not None and dataset.label_space != space:
            raise LabelError(f"{request.source}: the splits have different classes. Convert one at a time.")
        space = dataset.label_space
        files = dataset.files
        items += [
            Item(name, partial(_read, files, name, space), files.labels[name], _photo(files, name), split)
            for name in files.names
        ]
    assert space is not None
    return Source(space, items)


def _photo(files: Listing, name: str):
    """The file itself where it is read as it is; its pixels where the layout changes them."""
    if files.images is None:
        return None
    return files.images[name] if type(files).photo is Listing.photo else partial(_pixels, files, name)


def _pixels(files: Listing, name: str) -> np.ndarray:
    photo = files.photo(name)
    assert photo is not None
    return photo


def _read(files: Listing, name: str, space: LabelSpace) -> tuple[np.ndarray, np.ndarray | None]:
    return files.ids(name, space), files.objects(name)

"""The pictures that a checkpoint is evaluated on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clade.data import Batch, Dataset, is_prepared
from clade.errors import CladeError, DataError, LabelError
from clade.metrics.scores import Protocol
from clade.models.checkpoints import Checkpoint, read_checkpoint
from clade.recipes import DataConfig, Recipe
from clade.training.builders import build_dataset

_ROOM = 1 << 256


@dataclass(frozen=True)
class Subject:
    """A checkpoint with the data that it is looked at on.

    Attributes:
        config: how the data are read.
        protocol: with everything spelled out that the checkpoint's recipe or the dataset decides.
    """

    path: Path
    checkpoint: Checkpoint
    config: DataConfig
    protocol: Protocol

    @classmethod
    def open(
        cls,
        path: str | Path,
        protocol: Protocol,
        root: str | Path | None = None,
        name: str | None = None,
        split: str | None = None,
        as_is: bool = False,
    ) -> Subject:
        """Read a checkpoint; root, name, split and as_is as :func:`data_of` takes them.

        Raises:
            CladeError: no recipe and no size or data given instead.
        """
        path = Path(path)
        checkpoint = read_checkpoint(path)
        config = data_of(checkpoint, path, root, name, split, as_is)
        if protocol.size is None and checkpoint.recipe is None:
            raise CladeError(f"{path}: carries no recipe that says the size of pictures. Give it (--size HxW).")
        size, fit = protocol.size or config.size, protocol.fit or config.fit
        protocol = dataclasses.replace(protocol, size=size, fit=fit).with_judge_of(config.name)
        return cls(path, checkpoint, dataclasses.replace(config, size=size, fit=fit), protocol)

    @property
    def size(self) -> tuple[int, int]:
        assert self.protocol.size is not None
        return self.protocol.size

    def split(self, name: str) -> Dataset:
        return open_split(self.config, name, self.checkpoint, self.path)

    @property
    def reference_split(self) -> str:
        return self.config.val_split if self.protocol.reference == "val" else self.config.train_split


def data_of(
    checkpoint: Checkpoint,
    path: Path,
    root: str | Path | None,
    name: str | None,
    split: str | None,
    as_is: bool = False,
) -> DataConfig:
    """How to read the dataset: as in the checkpoint's recipe, as far as another layout has that.

    Args:
        path: the checkpoint's, for messages.
        root: folder of the dataset; None for that of the recipe.
        name: of the dataset's layout; None for that of the recipe.
        split: what is drawn; None for that of the recipe. With a split file, one of its parts.
        as_is: the dataset's own splits and classes, without the recipe's split file and merge table.

    Raises:
        CladeError: neither a recipe nor a folder.
    """
    recipe = checkpoint.recipe
    own = None if recipe is None else Recipe.from_dict(recipe, source=f"the recipe in {path}").data
    if own is None and root is None:
        raise CladeError(f"{path}: carries no recipe that names its data. Give the dataset's folder (--data DIR).")
    if name is None:
        # Drawn scenes have no files: a folder that is given holds something else.
        name = "folder" if own is None or (own.name == "scenes" and root is not None) else own.name
    config = in_layout(own or DataConfig(name=name), name)
    if as_is:
        config = stored_as_is(config)
    if root is not None:
        config = dataclasses.replace(config, root=str(root))
    if split is not None:
        config = dataclasses.replace(config, val_split=split)
    # Resized once, not by way of the size that the training loads; what was prepared at that size stays.
    prepared = config.root is not None and is_prepared(config.root)
    return dataclasses.replace(config, cache_mib=0, load_size=config.load_size if prepared else None)


def in_layout(config: DataConfig, name: str) -> DataConfig:
    """The same pictures and classes, from a dataset in a layout that may be another one.

    Parts and merged classes are kept, or other pictures would pass for these; how files are read is the layout's own.
    """
    if name == config.name:
        return config
    kept = ("root", "size", "fit", "train_split", "val_split", "split_file", "merge")
    return DataConfig(name=name, **{key: getattr(config, key) for key in kept})


def stored_as_is(config: DataConfig) -> DataConfig:
    """Without split file and merge table; the splits are then train and val, where they were parts."""
    default = config if config.split_file is None else DataConfig()
    return dataclasses.replace(
        config, split_file=None, merge=None, train_split=default.train_split, val_split=default.val_split
    )


@contextmanager
def telling_way_out(config: DataConfig) -> Iterator[None]:
    """Lets the message about data that do not fit split file or merge table end with how to do without."""
    try:
        yield
    except (DataError, LabelError) as error:
        named = {"split_file": config.split_file, "merge": config.merge}
        files = [f"{key} {value}" for key, value in named.items() if value is not None]
        if not files or (config.root is not None and not Path(config.root).exists()):
            raise
        kind = LabelError if isinstance(error, LabelError) else DataError
        raise kind(
            f"{error} (The recipe reads its data by {' and '.join(files)}; --as-is takes a dataset's own splits and "
            "classes instead.)"
        ) from error


def open_split(config: DataConfig, split: str, checkpoint: Checkpoint, path: Path) -> Dataset:
    """A split of the dataset.

    Raises:
        CladeError: classes that are not the generator's.
    """
    with telling_way_out(config):
        dataset = build_dataset(config, split)
    theirs, ours = dataset.label_space, checkpoint.label_space
    where = config.root or f"the data '{config.name}'"
    if theirs.num_rows != checkpoint.generator.num_rows or (ours is not None and ours.names != theirs.names):
        have = "" if ours is None else f", {ours.names[0]} first"
        raise CladeError(
            f"{where}: has {theirs.num_rows} ids ({theirs.names[0]} first), and {path} was trained with "
            f"{checkpoint.generator.num_rows}{have}. Give the data of its own classes."
        )
    return dataset


class DataHash:
    """A hash of pictures as they are scored (names, ids, photos), the same in any order and over any processes.

    H = sum of SHA-256(picture) mod 2^256.
    """

    def __init__(self) -> None:
        self.total = 0

    def update(self, batch: Batch) -> None:
        """Raises DataError where there are no photos."""
        if batch.image is None:
            raise DataError("The data hold no photos to compare with; images/ is needed beside labels/.")
        ids = batch.label_map.ids.cpu().numpy().astype("<i4")
        photos = ((batch.image.cpu() + 1) * 127.5).round().byte().numpy()
        for name, labels, photo in zip(batch.names, ids, photos, strict=True):
            digest = hashlib.sha256(f"{name} {labels.shape}".encode())
            digest.update(np.ascontiguousarray(labels).data)
            digest.update(np.ascontiguousarray(photo).data)
            self.add(int.from_bytes(digest.digest(), "big"))

    def add(self, total: int) -> None:
        self.total = (self.total + total) % _ROOM

    def hexdigest(self) -> str:
        return f"{self.total:064x}"

"""Reading a prepared dataset."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from clade.data.base import DATASETS, Dataset, Sample
from clade.data.merged import merged_space
from clade.data.prepared.manifest import AGAIN, MANIFEST, Manifest, Split
from clade.data.prepared.places import Place, is_url
from clade.data.prepared.shards import ShardFile
from clade.errors import DataError
from clade.io.hashing import file_hash
from clade.labels.labelspace import LabelSpace
from clade.registry import near_match


def is_prepared(root: str | Path) -> bool:
    """Whether a folder or a URL holds a finished prepared dataset.

    Raises:
        DataError: a URL that cannot be read, or that holds no prepared dataset: nothing else is read from URLs.
    """
    place = Place(root)
    there = place.holds_manifest()
    if not there and is_url(root):
        raise DataError(
            f"{root}: there is no {MANIFEST}, or it cannot be reached. Only prepared datasets are read from URLs: "
            "`clade data prepare` makes one, whose folder is then copied there."
        )
    return there


def prepared_with(root: str | Path) -> tuple[bool, bool]:
    """Whether a prepared dataset was made with a split file, whose parts are its splits, and with a merge table."""
    facts = Place(root).manifest().facts
    return "parts" in facts, "unmerged" in facts


def require_raw(root: str | Path) -> None:
    """Raises DataError for a folder that `clade data prepare` made, saying of what."""
    if is_url(root) or not is_prepared(root):
        return
    manifest = Place(root).manifest()
    height, width = manifest.size
    made = ", ".join(f"{len(split.names)} in {name}" for name, split in manifest.splits.items())
    raise DataError(
        f"{root}: is prepared data ({MANIFEST}), made of a dataset of the layout '{manifest.facts['name']}': {made}, "
        f"at {height} x {width}. All of it was read then: it is for training (--data.root {root}). "
        "To check it or to prepare it anew, name the folder that it was made of."
    )


@DATASETS.register("prepared")
class PreparedDataset(Dataset):
    """The pictures of a dataset as :class:`clade.data.Resized` gives them, already decoded.

    Args:
        root: a folder that ``clade data prepare`` made, or the fsspec URL of one.
        split: which of its splits.
        cache: folder for copies of remote shards; by default in the user's cache folder.
        expect: what a recipe asks for, see :meth:`require`.

    Raises:
        DataError: no such dataset or split, a damaged one, or another one than expected.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        cache: str | Path | None = None,
        expect: Mapping[str, Any] | None = None,
    ) -> None:
        self.place = Place(root, cache)
        manifest = self.place.manifest()
        if split not in manifest.splits:
            raise DataError(
                f"{root}: there is no split {split!r}.{near_match(str(split), manifest.splits)} It has "
                f"{', '.join(manifest.splits)} (data.train_split and data.val_split choose)."
            )
        self.facts = manifest.facts
        self.size, self.fit = manifest.size, str(manifest.facts["fit"])
        self.label_space = manifest.label_space
        unmerged = manifest.facts.get("unmerged")
        self.unmerged = None if unmerged is None else LabelSpace.from_dict(unmerged, MANIFEST)
        """The classes before a merge table put some together; None where none did."""
        self.split: Split = manifest.splits[split]
        self.name_of_split = split
        if expect is not None:
            self.require(**expect)
        self._ends = list(accumulate(shard.pictures for shard in self.split.shards))
        self._open: dict[int, ShardFile] = {}

    def __len__(self) -> int:
        return len(self.split.names)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # each process opens the files by itself

    def name(self, index: int) -> str:
        return self.split.names[index]

    def classes(self, index: int) -> np.ndarray:
        return np.array(self.split.classes[index], self._ids_type)

    @property
    def _ids_type(self) -> Any:
        return np.uint8 if self.label_space.num_rows <= 256 else np.int32

    def read(self, index: int) -> Sample:
        """Raises DataError, with the file, for a shard that is missing or damaged."""
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        number = bisect_right(self._ends, index)
        shard = self.split.shards[number]
        if number not in self._open:
            self._open[number] = ShardFile(self.place.shard(shard), shard)
        return self._open[number].read(index - (self._ends[number] - shard.pictures), self.name(index))

    def verify(self) -> None:
        """Read every shard whole.

        Raises:
            DataError: the first one that is not what was written.
        """
        for shard in self.split.shards:
            path = self.place.shard(shard)
            ShardFile(path, shard)
            if file_hash(path) != shard.sha256:
                raise DataError(f"{path}: its bytes are not those that were written (another hash). {AGAIN}")

    def require(
        self,
        *,
        name: str | None = None,
        size: tuple[int, int] | None = None,
        fit: str | None = None,
        num_classes: int | None = None,
        unknown: int | None = None,
        remap: Mapping[int, int] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        options: Mapping[str, Any] | None = None,
        at_least: tuple[int, int] | None = None,
        part: Mapping[str, Any] | None = None,
        merge: str | Path | None = None,
    ) -> None:
        """Compare what is stored with what a recipe's data section asks for; None asks for nothing.

        Args:
            name, options: of the dataset that was prepared ("prepared" is any).
            size: the recipe's load_size.
            fit: looked at only together with ``size``.
            num_classes, unknown, remap: of the label space, before classes were merged.
            palette: that RGB label files were read with; the colours of the classes.
            at_least: (height, width) of the training, which is not to enlarge what was shrunk before.
            part: what the recipe's split file says of the split (:meth:`clade.data.split_files.Part.to_dict`).
            merge: the recipe's merge table.

        Raises:
            DataError: something differs; the message says what is stored, what is asked for and what to do.
        """
        facts = self.facts
        space = self.unmerged or self.label_space
        asked: list[tuple[str, Any, Any]] = [
            ("data.name", facts["name"], None if name == "prepared" else name),
            ("data.load_size", list(self.size), None if size is None else list(size)),
            ("data.fit", self.fit, None if size is None else fit),
            ("data.num_classes", space.num_classes, num_classes),
            ("data.unknown", space.unknown, unknown),
        ]
        asked += [(f"data.remap.{k}", space.remap.get(k), v) for k, v in (remap or {}).items()]
        asked.append(("data.palette", plain(space.colors), plain(palette)))
        stored = facts.get("options", {})
        asked += [(f"data.options.{k}", stored.get(k), plain(v)) for k, v in (options or {}).items()]
        for key, have, want in asked:
            if want is not None and want != have:
                raise DataError(
                    f"{self.place.root}: was prepared with {key} {_shown(have)}, but the recipe has {_shown(want)}. "
                    f"Set {key} to {_shown(have)}, or prepare the dataset again, into another folder, with this recipe."
                )
        if name not in (None, "prepared") or part is not None:
            have, want = facts.get("parts", {}).get(self.name_of_split), plain(part)
            if want != have:
                raise DataError(
                    f"{self.place.root}: '{self.name_of_split}' was prepared {_of_part(have)}, but the recipe is "
                    f"{_of_part(want)}. Set data.split_file to that file, or prepare the dataset again, into another "
                    "folder, with this recipe."
                )
        if name not in (None, "prepared") or merge is not None:
            wanted = space if merge is None else merged_space(space, merge)[0]
            if wanted != self.label_space:
                raise DataError(
                    f"{self.place.root}: was prepared with {self.label_space.num_classes} classes, made of "
                    f"{space.num_classes} by a merge table, but the recipe has data.merge {_shown(merge)}, which gives "
                    "others. Set data.merge to that table, or prepare the dataset again, into another folder, with "
                    "this recipe."
                )
        if at_least is not None and any(have < want for have, want in zip(self.size, at_least, strict=True)):
            raise DataError(
                f"{self.place.root}: was prepared at {self.size[0]} x {self.size[1]} (height x width), which is "
                f"smaller than data.size, {at_least[0]} x {at_least[1]}. Train at a smaller size, or prepare the "
                "dataset again, into another folder, with this recipe."
            )


def plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _of_part(part: Any) -> str:
    return "without a split file" if part is None else f"with a split file that makes it of {part}"


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value)


def stored_manifest(folder: Path) -> Manifest | None:
    """The manifest of a local folder, None where there is none; DataError for a damaged one."""
    place = Place(folder)
    return place.manifest() if place.holds_manifest() else None

"""``prepared.json``: what a prepared dataset holds, from which source, and how to tell whether it is whole."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clade._version import __version__
from clade.errors import DataError, LabelError
from clade.io.atomic import atomic_path
from clade.labels.labelspace import LabelSpace

MANIFEST = "prepared.json"
FORMAT = 1
NAME = re.compile(r"\w[\w.-]*")
"""What a split, and so a shard, may be called."""
AGAIN = "Prepare it again (`clade data prepare`), or copy it again."


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of pictures.

    Args:
        file: its name, beside the manifest.
        pictures: how many it holds.
        bytes, sha256: of the whole file.
    """

    file: str
    pictures: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Split:
    """The pictures of a split, in order.

    Args:
        names: of the pictures.
        classes: ids that occur in each picture, as it is stored.
        shards: the files that hold them, one after the other.
        skipped: name -> message of the pictures that could not be read and are not there.
    """

    names: list[str] = field(default_factory=list)
    classes: list[list[int]] = field(default_factory=list)
    shards: list[Shard] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All of ``prepared.json``.

    Args:
        facts: where the pictures are from and what was done to them (:func:`clade.data.prepared.prepare` writes name,
            options, size, fit, shard_mib, label_space, on_error and, per split, count and hash of the names).
        splits: what there is to read.
    """

    facts: dict[str, Any]
    splits: dict[str, Split]

    @property
    def label_space(self) -> LabelSpace:
        return LabelSpace.from_dict(self.facts["label_space"], MANIFEST)

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.facts["size"]
        return int(height), int(width)

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        write_json(path, {"format": FORMAT, "clade": __version__, **asdict(self)})

    @classmethod
    def parse(cls, text: str | bytes, source: str) -> Manifest:
        """From the text of a file.

        Raises:
            DataError: damaged, or of another format.
        """
        try:
            value = json.loads(text)
            number = value["format"]
            if number == FORMAT:
                manifest = cls(
                    facts=dict(value["facts"]),
                    splits={name: _split(split) for name, split in value["splits"].items()},
                )
                _ = manifest.size, manifest.label_space, manifest.facts["name"], manifest.facts["fit"]
                return manifest
        except (LabelError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{source}: is damaged, or was not written by `clade data prepare` ({type(error).__name__}: {error}). "
                f"{AGAIN}"
            ) from error
        raise DataError(
            f"{source}: has format {number!r}, this version of clade reads format {FORMAT}. Prepare the dataset again "
            "with this version, or install the clade that wrote it."
        )


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Whole or not at all; the same text for the same value."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value) + "\n", encoding="utf-8")


def _split(value: Mapping[str, Any]) -> Split:
    split = Split(
        names=[str(name) for name in value["names"]],
        classes=[[int(k) for k in ids] for ids in value["classes"]],
        shards=[Shard(**shard) for shard in value["shards"]],
        skipped=dict(value["skipped"]),
    )
    count = sum(shard.pictures for shard in split.shards)
    if not len(split.names) == len(split.classes) == count:
        raise ValueError(f"{len(split.names)} names, {len(split.classes)} lists of classes, {count} pictures")
    for shard in split.shards:  # a stranger's manifest shall not lead out of its folder, or of the cache
        if not NAME.fullmatch(shard.file) or not re.fullmatch(r"[0-9a-f]{64}", shard.sha256):
            raise ValueError(f"a shard called {shard.file!r} with the hash {shard.sha256!r}")
    return split

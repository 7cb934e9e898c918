"""Where the pictures of a study come from: networks, and folders."""

from __future__ import annotations

import hashlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from PIL import Image

from clade.data.files import PHOTO_SUFFIXES, by_name
from clade.data.photos import read_photo
from clade.errors import CladeError, DataError
from clade.io.hashing import file_hash
from clade.labels import LabelSpace
from clade.models.checkpoints import find_checkpoint, read_header
from clade.synthesis import LabelFile, generate
from clade.synthesis.synthesizer import Synthesizer, load

Size = tuple[int, int]
CLASSES = "classes.json"


class System(ABC):
    """One of the systems that a study compares."""

    kind: ClassVar[str]

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path

    @abstractmethod
    def has(self, file: LabelFile) -> bool:
        """Whether there is, or can be, a picture of a label map."""

    @abstractmethod
    def picture(self, file: LabelFile, size: Size, seed: int) -> np.ndarray:
        """(H, W, 3) uint8 of ``size``; ``seed`` is for networks that draw at random."""

    @abstractmethod
    def sha256(self, files: Iterable[LabelFile]) -> str:
        """Hash of what the pictures of label maps come from."""


class Checkpoint(System):
    """A network that draws the pictures."""

    kind = "checkpoint"

    def __init__(self, name: str, path: Path, device: str, precision: str) -> None:
        super().__init__(name, path)
        self.device, self.precision = device, precision
        stored = read_header(path).get("label_space")
        self.space = None if stored is None else LabelSpace.from_dict(stored, source=str(path))

    @cached_property
    def synthesizer(self) -> Synthesizer:
        return load(self.path, self.device, self.precision)

    def has(self, file: LabelFile) -> bool:
        return True

    def picture(self, file: LabelFile, size: Size, seed: int) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            outcome = generate(self.synthesizer, [file.path], folder, size=size, seed=seed, workers=0)
            for message in outcome.failed.values():
                raise DataError(f"{self.name}: {message}")
            return read_photo(outcome.written[0])

    def sha256(self, files: Iterable[LabelFile]) -> str:
        return file_hash(self.path)


class Pictures(System):
    """A folder of pictures, named as the label maps are."""

    kind = "pictures"

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(name, path)
        problems: list[str] = []
        self.files = by_name(path, PHOTO_SUFFIXES, problems)
        if problems:
            raise DataError("\n".join(problems))
        if not self.files:
            raise DataError(f"{path}: holds no pictures ({' '.join(sorted(PHOTO_SUFFIXES))}).")
        stems: dict[str, list[Path]] = {}
        for inside, file in self.files.items():
            stems.setdefault(PurePosixPath(inside).name, []).append(file)
        self._by_stem = {stem: found[0] for stem, found in stems.items() if len(found) == 1}

    def has(self, file: LabelFile) -> bool:
        return self._find(file) is not None

    def _find(self, file: LabelFile) -> Path | None:
        """The picture of the same path below the folder, or else the only one of the same stem."""
        return self.files.get(file.name) or self._by_stem.get(PurePosixPath(file.name).name)

    def at(self, file: LabelFile) -> Path:
        path = self._find(file)
        assert path is not None
        return path

    def require_distinct(self, files: Iterable[LabelFile]) -> None:
        """Raises DataError where one picture would count for several label maps."""
        taken: dict[Path, LabelFile] = {}
        for file in files:
            other = taken.setdefault(self.at(file), file)
            if other is not file:
                raise DataError(
                    f"{self.at(file)}: has the name of both {other.path} and {file.path}. Give the folder of one part "
                    "as --labels, or keep the pictures in subfolders as the label maps are."
                )

    def size(self, file: LabelFile) -> Size:
        height, width, _ = read_photo(self.at(file)).shape
        return height, width

    def picture(self, file: LabelFile, size: Size, seed: int) -> np.ndarray:
        return resized(read_photo(self.at(file)), size, Image.Resampling.LANCZOS)

    def sha256(self, files: Iterable[LabelFile]) -> str:
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.name} {file_hash(self.at(file))}\n".encode())
        return digest.hexdigest()


def resized(pixels: np.ndarray, size: Size, resampling: Image.Resampling) -> np.ndarray:
    """(H, W, 3) uint8 at ``size`` (height, width)."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), resampling))


def named_systems(given: Sequence[str | Path], device: str, precision: str) -> list[System]:
    """Paths, or ``NAME=PATH``, -> systems. Without a name, a run's checkpoint has that of its folder.

    Raises:
        CladeError: fewer than two, or two of one name.
        CheckpointError, DataError: a file or folder that cannot be used.
    """
    if len(given) < 2:
        raise CladeError(f"{len(given)} system came; a study compares at least two.")
    systems: list[System] = []
    for text in map(str, given):
        before, equals, after = text.partition("=")
        name, path = (before, Path(after)) if equals and before and not Path(text).exists() else (None, Path(text))
        named_by = path.resolve().name
        path = find_checkpoint(path)
        if path.is_dir():
            systems.append(Pictures(name or named_by, path))
        else:
            own = path.resolve().parent.name if path.stem in ("last", "best") else path.stem
            systems.append(Checkpoint(name or own, path, device, precision))
    for k, system in enumerate(systems):
        other = next((s for s in systems[:k] if s.name == system.name), None)
        if other is not None:
            raise CladeError(
                f"{other.path} and {system.path} would both be called '{system.name}'. Name them: "
                f"{system.name}-1={other.path} {system.name}-2={system.path}."
            )
    return systems


def stored_space(label: Path, root: Path) -> LabelSpace | None:
    """The classes.json above a label file, up to the folder that ``root`` lies in; None where there is none."""
    for folder in label.parents:
        if (folder / CLASSES).is_file():
            return LabelSpace.from_json(folder / CLASSES)
        if folder == root.parent:
            break
    return None

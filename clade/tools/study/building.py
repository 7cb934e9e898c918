"""``clade study build``: pictures of several systems -> a blinded study."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from clade._version import __version__
from clade.data.files import natural_key
from clade.data.photos import read_photo
from clade.errors import CladeError, DataError
from clade.io.atomic import atomic_path
from clade.io.hashing import file_hash
from clade.labels import LabelSpace, read_label
from clade.labels.files import open_image
from clade.synthesis import LabelFile, find_labels
from clade.system.progress import track
from clade.tools.study.page import write_page
from clade.tools.study.sources import Checkpoint, Pictures, Size, System, named_systems, resized, stored_space
from clade.tools.study.study import (
    ASK,
    BROKEN,
    INTACT,
    INTRO,
    PICTURES,
    PUBLIC,
    STUDY,
    Question,
    Study,
    blinded,
    read_json,
    write_study,
)

BUILDING = "building.json"
QUESTIONS = 40
"""Label maps that each pair is compared on: as many as in the paper's user study."""

_WRITTEN_AT = 315532800  # 1980: times of files would tell in which order they were made


@dataclass(frozen=True)
class Built:
    """What :func:`build` came to.

    Args:
        study: as it now lies in the folder.
        drawn, kept: pictures that were made now, and that were there already.
        without_pictures: label maps that not every folder of pictures has a picture of.
    """

    study: Study
    drawn: int
    kept: int
    without_pictures: list[str]


def build(
    systems: Sequence[str | Path],
    labels: str | Path,
    out: str | Path,
    *,
    questions: int | None = None,
    seed: int = 0,
    checks: int = 3,
    size: Size | None = None,
    photos: bool = False,
    jpeg: int | None = None,
    ask: str = ASK,
    intro: str = INTRO,
    static: bool = False,
    device: str = "auto",
    precision: str = "auto",
    progress: bool = False,
) -> Built:
    """Make a study of every pair of systems, or go on with one; the same arguments give the same study.

    Args:
        systems: checkpoints and folders of pictures (paired with label maps by name), each as a path or ``NAME=PATH``.
        labels: folder of the label maps.
        out: the study's folder; another study there is left alone.
        questions: label maps per pair, drawn by ``seed``; by default 40, or as many as there are.
        checks: attention checks: a picture beside itself with its pixels shuffled.
        size: (height, width) of all pictures; by default that of the pictures in folders, else of each label map.
        photos: attention checks show the photos in images/ beside labels/, instead of the systems' pictures.
        jpeg: write pictures as JPEG of this quality, which is smaller, instead of PNG.
        ask, intro: what participants read.
        static: also write ``public/index.html``, which needs no server.
        device, precision: of the drawing, see :class:`clade.Synthesizer`.

    Raises:
        CladeError, DataError, LabelError, CheckpointError: what cannot be used, and a folder that holds other things.
    """
    _require_sensible(questions, checks, jpeg)
    found = named_systems(systems, device, precision)
    maps, without = _usable(find_labels([labels])[0], found, Path(labels))
    rng = random.Random(f"{seed}")
    rng.shuffle(maps)
    count = min(QUESTIONS, len(maps)) if questions is None else questions
    if count > len(maps):
        raise DataError(f"{count} questions were asked for, but only {len(maps)} label maps of {labels} can be used.")
    asked, rest = maps[:count], maps[count:]
    checked = _check_maps(rest, asked, checks, photos, Path(labels))
    sizes = {file.name: _size(file, size, found) for file in [*asked, *checked]}
    hashes = [system.sha256([*asked, *checked]) for system in found]
    content = {
        "ask": ask,
        "intro": intro,
        "seed": seed,
        "questions": count,
        "checks": checks,
        "sizes": sizes,
        "photos": [file_hash(file.photo) for file in checked if file.photo is not None] if photos else None,
        "jpeg": jpeg,
        "precision": precision,
        "systems": [[s.name, s.kind, digest] for s, digest in zip(found, hashes, strict=True)],
        "maps": [[file.name, file_hash(file.path)] for file in [*asked, *checked]],
    }
    secret = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    draft = _Draft(secret, found, sizes, seed, "png" if jpeg is None else "jpg", Path(labels))
    for file in asked:
        for pair in combinations(found, 2):
            draft.ask(file, pair)
    for k, file in enumerate(checked):
        draft.check(k, file, None if photos else found[k % len(found)])
    study = Study(
        id=blinded(secret, "id", digits=16),
        secret=secret,
        ask=ask,
        intro=intro,
        systems=[
            {"name": s.name, "kind": s.kind, "source": str(s.path), "sha256": digest}
            for s, digest in zip(found, hashes, strict=True)
        ],
        questions=draft.questions,
        facts={
            "labels": str(labels),
            "seed": seed,
            "size": size,
            "precision": precision,
            "versions": {
                "clade": __version__,
                "torch": str(torch.__version__),
                "pillow": PIL.__version__,
                "python": platform.python_version(),
            },
        },
    )
    return _write(study, draft, Path(out), jpeg, static, without, progress)


def _write(
    study: Study, draft: _Draft, out: Path, jpeg: int | None, static: bool, without: list[str], progress: bool
) -> Built:
    before = _require_place(study, out)
    folder = out / PUBLIC / PICTURES
    if before is None:
        with atomic_path(out / BUILDING) as temporary:
            temporary.write_text(json.dumps({"id": study.id}) + "\n", encoding="utf-8")
    stored = {} if before is None else before.pictures
    kept = {name for name in draft.jobs if (folder / name).is_file() and _is_whole(folder / name, stored.get(name))}
    todo = [name for name in sorted(draft.jobs) if name not in kept]  # even the order of writing says nothing
    for name in track(todo, "pictures", unit="pictures", quiet=not progress):
        _save(draft.jobs[name](), folder / name, jpeg)
    for unfinished in folder.glob(".*.tmp"):  # of a build that was killed
        unfinished.unlink(missing_ok=True)
    pictures = {name: file_hash(folder / name) for name in sorted(draft.jobs)}
    if before is None or before.pictures != pictures:
        study = replace(study, pictures=pictures)
        write_study(study, out)
    else:
        study = before
    if static:
        write_page(study, out / PUBLIC)
    (out / BUILDING).unlink(missing_ok=True)
    return Built(study, len(todo), len(kept), without)


def _require_place(study: Study, out: Path) -> Study | None:
    """The same study that already lies there, if any; raises DataError for anything else there."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; a folder is needed for the study.")
    if (out / STUDY).is_file():
        before = Study.from_dict(read_json(out / STUDY), str(out / STUDY))
        if before.id != study.id:
            raise DataError(
                f"{out}: holds another study ({' and '.join(before.names)}, {len(before.questions)} questions), or the "
                "files or arguments that it was built from have changed. Choose another folder."
            )
        return before
    if (out / BUILDING).is_file():
        if read_json(out / BUILDING) != {"id": study.id}:
            raise DataError(
                f"{out}: holds the beginning of another study, or the files or arguments that it is built from have "
                "changed. Choose another folder, or remove this one."
            )
    elif out.is_dir() and any(path.suffix != ".tmp" for path in out.iterdir()):
        raise DataError(f"{out}: holds other files. Choose a folder that is empty or not there.")
    return None


class _Draft:
    """Questions, and how each of their pictures is made."""

    def __init__(
        self, secret: str, systems: Sequence[System], sizes: dict[str, Size], seed: int, suffix: str, root: Path
    ) -> None:
        self.secret, self.systems, self.sizes, self.seed = secret, systems, sizes, seed
        self.suffix, self.root = suffix, root
        self.questions: list[Question] = []
        self.jobs: dict[str, Callable[[], np.ndarray]] = {}

    def ask(self, file: LabelFile, pair: tuple[System, System]) -> None:
        one, other = (
            self._job(lambda s=system: self._drawn(file, s), "drawn", file.name, system.name) for system in pair
        )
        self._question(file, (pair[0].name, pair[1].name), (one, other))

    def check(self, number: int, file: LabelFile, system: System | None) -> None:
        """An attention check; of the photo where there is no system."""

        def intact() -> np.ndarray:
            return self._photo(file) if system is None else self._drawn(file, system)

        who = None if system is None else system.name
        good = self._job(intact, "check", file.name, who)
        bad = self._job(lambda: self._shuffled(intact(), file.name), "broken", file.name, who)
        self._question(file, (INTACT, BROKEN), (good, bad), number)

    def _question(
        self, file: LabelFile, systems: tuple[str, str], pictures: tuple[str, str], check: int | None = None
    ) -> None:
        id = blinded(self.secret, "question", file.name, systems, check, digits=16)
        label = self._job(lambda: self._label(file), "label", file.name)
        self.questions.append(Question(id, file.name, label, systems, pictures, check is not None))

    def _job(self, make: Callable[[], np.ndarray], *what: Any) -> str:
        name = f"{blinded(self.secret, *what)}.{self.suffix}"
        self.jobs.setdefault(name, make)
        return name

    def _drawn(self, file: LabelFile, system: System) -> np.ndarray:
        seed = int(blinded(f"{self.seed}", "seed", file.name, digits=7), 16)  # the same noise for every system
        return system.picture(file, self.sizes[file.name], seed)

    def _photo(self, file: LabelFile) -> np.ndarray:
        assert file.photo is not None
        return resized(read_photo(file.photo), self.sizes[file.name], Image.Resampling.LANCZOS)

    def _shuffled(self, pixels: np.ndarray, name: str) -> np.ndarray:
        rng = np.random.default_rng(int(blinded(self.secret, "shuffle", name), 16))
        return rng.permutation(pixels.reshape(-1, 3)).reshape(pixels.shape)

    def _label(self, file: LabelFile) -> np.ndarray:
        space = self._space or stored_space(file.path, self.root)
        ids = read_label(file.path, space)
        colors = (space or LabelSpace.numbered(int(ids.max()) + 1)).colorize(ids)
        return resized(colors, self.sizes[file.name], Image.Resampling.NEAREST)

    @cached_property
    def _space(self) -> LabelSpace | None:
        """The classes that the first checkpoint was trained with."""
        spaces = (system.space for system in self.systems if isinstance(system, Checkpoint))
        return next((space for space in spaces if space is not None), None)


def _save(pixels: np.ndarray, path: Path, jpeg: int | None) -> None:
    """Pixels and nothing else: no comment, no EXIF data, no time."""
    with atomic_path(path) as temporary:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        if jpeg is None:
            image.save(temporary, format="PNG")
        else:
            image.save(temporary, format="JPEG", quality=jpeg, subsampling=0)
        os.utime(temporary, (_WRITTEN_AT, _WRITTEN_AT))


def _is_whole(path: Path, sha256: str | None) -> bool:
    """Whether a picture is as it was written; of an unfinished study, which knows no hashes, they are all whole."""
    return sha256 is None or file_hash(path) == sha256


def _usable(files: Iterable[LabelFile], systems: Sequence[System], labels: Path) -> tuple[list[LabelFile], list[str]]:
    """Label maps that every system has a picture of, in natural order, and the names of the others."""
    ordered = sorted(files, key=lambda file: natural_key(file.name))
    usable = [file for file in ordered if all(system.has(file) for system in systems)]
    if not usable:
        wanted = ", ".join(file.name for file in ordered[:3])
        have = "; ".join(f"{s.path} has {', '.join(list(s.files)[:3])}" for s in systems if isinstance(s, Pictures))
        raise DataError(
            f"{labels}: no label map has a picture of its name from every system. Label maps: {wanted}, ...; {have}."
        )
    for system in systems:
        if isinstance(system, Pictures):
            system.require_distinct(usable)
    kept = {file.name for file in usable}
    return usable, [file.name for file in ordered if file.name not in kept]


def _check_maps(
    rest: list[LabelFile], asked: list[LabelFile], checks: int, photos: bool, labels: Path
) -> list[LabelFile]:
    """Label maps of the attention checks: such as no question shows, where there are any."""
    if photos:
        rest, asked = ([file for file in files if file.photo is not None] for files in (rest, asked))
    pool = rest or asked
    if checks and not pool:
        raise DataError(
            f"{labels}: no photos in images/ beside labels/, which attention checks were to show. Leave out --photos."
        )
    return [pool[k % len(pool)] for k in range(checks)]


def _size(file: LabelFile, size: Size | None, systems: Sequence[System]) -> Size:
    """(height, width) of all pictures of a label map."""
    if size is not None:
        return size
    sizes = {s.name: s.size(file) for s in systems if isinstance(s, Pictures)}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {height}x{width}" for name, (height, width) in sizes.items())
        raise DataError(
            f"{file.name}: the pictures are of different sizes ({listed}), by which they could be told apart. "
            "Give the size that all are brought to, --size 256x256 say."
        )
    if sizes:
        return next(iter(sizes.values()))
    image = open_image(file.path)
    return image.height, image.width


def _require_sensible(questions: int | None, checks: int, jpeg: int | None) -> None:
    if questions is not None and questions < 1:
        raise CladeError(f"{questions} questions were asked for; needed is at least 1.")
    if checks < 0:
        raise CladeError(f"{checks} attention checks were asked for; needed is at least 0.")
    if jpeg is not None and not 1 <= jpeg <= 100:
        raise CladeError(f"A JPEG quality of {jpeg} was asked for; needed is 1 to 100.")

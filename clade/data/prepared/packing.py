"""Writing a prepared dataset: read and resize once, in parallel, and store in shards."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clade.data.base import Dataset, create_dataset
from clade.data.merged import unmerged_space
from clade.data.prepared.dataset import plain, stored_manifest
from clade.data.prepared.manifest import MANIFEST, NAME, Manifest, write_json
from clade.data.prepared.places import is_url, require_space
from clade.data.prepared.plan import Plan
from clade.data.resized import Resized
from clade.data.transforms import Fit, Size
from clade.errors import DataError
from clade.system.progress import Progress

UNFINISHED = "preparing.json"
_LOCK = ".lock"
_MIB = 1 << 20
_OTHER = "Choose another folder for it, or remove this one."

OnError = Literal["stop", "skip"]


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepare` made.

    Args:
        root: the folder.
        pictures: split -> how many it holds.
        skipped: "split/name: message" of each picture that was left out.
        shards, bytes: number and size of the files.
        kept: how many of the shards were there already.
        size, fit: what the pictures were brought to.
    """

    root: Path
    pictures: dict[str, int]
    skipped: list[str]
    shards: int
    bytes: int
    kept: int
    size: Size
    fit: str

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {split}" for split, count in self.pictures.items())
        kept = f" ({self.kept} were there already)" if self.kept else ""
        lines = [
            f"{self.root}: {counts} pictures at {self.size[0]} x {self.size[1]} ({self.fit}), "
            f"{self.bytes / (1 << 20):.1f} MiB in {self.shards} shards{kept}."
        ]
        if self.skipped:
            lines.append(f"{len(self.skipped)} pictures could not be read and were left out:")
            lines += [f"  {message}" for message in self.skipped]
        return "\n".join(lines)


def prepare(
    source: str | Callable[[str], Dataset],
    out: str | Path,
    *,
    size: Size,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    splits: Sequence[str] = ("train", "val"),
    fit: Fit = "stretch",
    shard_mib: int = 256,
    workers: int | None = None,
    on_error: OnError = "stop",
    parts: Mapping[str, Mapping[str, Any]] | None = None,
    progress: bool = True,
) -> Prepared:
    """Store what ``Resized(dataset, size, fit)`` gives, without loss, for :class:`PreparedDataset` to read.

    Shards are written one after the other, each whole or not at all; the same call goes on where it was stopped, and
    makes anew what was damaged. The bytes do not depend on ``workers``.

    Args:
        source: name of a registered dataset, or a function split -> dataset.
        out: local folder; new, empty, or begun by the same call.
        size: (height, width) to load at; ``data.load_size`` of the recipes that train on it.
        name, options: of the dataset; with a function, what to call it and what to remember of it.
        splits: which to store.
        fit: see :class:`clade.data.Resized`.
        shard_mib: about how large a file becomes.
        workers: reading processes; 0 reads in this one, by default one per core.
        on_error: a picture that cannot be read stops everything, or is left out and counted.
        parts: split -> what the split file says of it, for :meth:`PreparedDataset.require` to compare with.
        progress: tell how far it is (:class:`clade.system.progress.Progress`).

    Raises:
        DataError: the folder holds something else, too little room, no usable picture, a number that makes no sense.
        CladeError: from the dataset, or from the first picture that cannot be used.
    """
    if is_url(out):
        raise DataError(f"{out}: is a URL. Prepare into a local folder, and copy that to the URL.")
    if shard_mib < 1 or (workers is not None and workers < 0) or not splits:
        raise DataError(
            f"shard_mib is {shard_mib}, workers is {workers}, splits is {list(splits)}; needed are at least 1 MiB, "
            "0 workers and one split."
        )
    odd = [split for split in splits if not NAME.fullmatch(split)]
    if odd:
        raise DataError(f"The split {odd[0]!r} cannot be the name of a file; use letters, digits, '-', '_' and '.'.")
    if on_error not in ("stop", "skip"):
        raise DataError(f"on_error is {on_error!r}; it is 'stop' or 'skip'.")
    given = dict(options or {})
    datasets = {
        split: Resized(
            create_dataset(source, split=split, **given) if isinstance(source, str) else source(split), size, fit
        )
        for split in splits
    }
    out = Path(out).expanduser()
    facts = {
        "name": name or (source if isinstance(source, str) else "function"),
        "options": plain(given),
        "size": list(size),
        "fit": fit,
        "shard_mib": shard_mib,
        "on_error": on_error,
        "label_space": plain(_one_space(datasets, out).to_dict()),
        "splits": {split: _listing(dataset) for split, dataset in datasets.items()},
    }
    unmerged = [space for dataset in datasets.values() if (space := unmerged_space(dataset)) is not None]
    if unmerged:
        facts["unmerged"] = plain(unmerged[0].to_dict())
    if parts:
        facts["parts"] = plain(parts)
    try:
        _claim(out, facts)
        with _only_here(out):
            return _pack(out, facts, datasets, _workers(workers), on_error, progress)
    except OSError as error:
        raise DataError(
            f"{error.filename or out}: cannot be written ({error.strerror or error}). The same command goes on when "
            "that is cured."
        ) from error


def _pack(
    out: Path, facts: dict[str, Any], datasets: dict[str, Resized], workers: int, on_error: str, progress: bool
) -> Prepared:
    hashes = _written_hashes(out)
    write_json(out / UNFINISHED, {"facts": facts})
    for stray in out.glob(".*.safetensors.*.tmp"):  # of a process that was killed
        stray.unlink()
    plans = {
        split: Plan(out, split, dataset, facts["shard_mib"] * _MIB, on_error, hashes)
        for split, dataset in datasets.items()
    }
    missing = sum(plan.missing_bytes for plan in plans.values())
    if missing:
        (out / MANIFEST).unlink(missing_ok=True)  # what is being mended is not to be trained on
        instead = "Make room there, or choose another folder or a smaller size; what was finished is kept."
        require_space(out, missing, "what is still to be written", instead)
    for split, plan in plans.items():
        pictures, kept = len(datasets[split]), plan.kept_pictures
        with Progress(split, pictures, done=kept, unit="pictures", quiet=not progress) as shown:
            for _ in plan.write(workers):
                shown.advance()
    done = {split: plan.split() for split, plan in plans.items()}
    Manifest(facts=facts, splits=done).write(out / MANIFEST)
    (out / UNFINISHED).unlink()
    shards = [shard for split in done.values() for shard in split.shards]
    return Prepared(
        root=out,
        pictures={name: len(split.names) for name, split in done.items()},
        skipped=[f"{name}/{k}: {text}" for name, split in done.items() for k, text in split.skipped.items()],
        shards=len(shards),
        bytes=sum(shard.bytes for shard in shards),
        kept=sum(plan.kept for plan in plans.values()),
        size=(facts["size"][0], facts["size"][1]),
        fit=facts["fit"],
    )


def _one_space(datasets: Mapping[str, Dataset], out: Path) -> Any:
    (first, space), *others = [(split, dataset.label_space) for split, dataset in datasets.items()]
    for split, other in others:
        if other != space:
            raise DataError(
                f"{out}: the splits '{first}' and '{split}' have other classes ({space.num_rows} and {other.num_rows} "
                "ids). One prepared dataset has one label space; prepare them one by one, into folders of their own."
            )
    return space


def _listing(dataset: Dataset) -> dict[str, Any]:
    names = "\n".join(dataset.name(index) for index in range(len(dataset)))
    return {
        "pictures": len(dataset),
        "names_sha256": hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest(),
    }


def _claim(out: Path, facts: dict[str, Any]) -> None:
    """Raises DataError unless the folder is new, empty, or was begun from the same facts."""
    if out.is_file():
        raise DataError(f"{out}: is a file; needed is a folder to prepare into.")
    if not out.exists():
        out.mkdir(parents=True)
        return
    theirs: Any = None
    if (out / UNFINISHED).exists():
        try:
            theirs = json.loads((out / UNFINISHED).read_text(encoding="utf-8"))["facts"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{out / UNFINISHED}: is damaged ({error}). {_OTHER}") from error
    else:
        manifest = stored_manifest(out)
        theirs = None if manifest is None else manifest.facts
    if theirs is None:
        if any(path.name != _LOCK for path in out.iterdir()):
            raise DataError(f"{out}: holds files, but no prepared dataset. {_OTHER}")
        return
    for key in dict.fromkeys([*facts, *theirs]):
        if key == "on_error" and theirs.get(key) == "stop":
            continue  # whatever was finished lacks nothing
        if facts.get(key) != theirs.get(key):
            raise DataError(
                f"{out}: holds a dataset that was prepared with {key} {_short(theirs.get(key))}; now it is "
                f"{_short(facts.get(key))}. {_OTHER}"
            )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


@contextmanager
def _only_here(out: Path) -> Iterator[None]:
    """Keeps a second process out of the folder while this one writes."""
    from filelock import FileLock, Timeout

    lock = FileLock(out / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DataError(f"{out}: another process is preparing into this folder. Wait for it to end.") from error
    try:
        yield
    finally:
        lock.release()
        (out / _LOCK).unlink(missing_ok=True)


def _written_hashes(out: Path) -> dict[str, str]:
    manifest = stored_manifest(out)
    return {
        shard.file: shard.sha256 for split in (manifest.splits.values() if manifest else ()) for shard in split.shards
    }


def _workers(workers: int | None) -> int:
    if workers is not None:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

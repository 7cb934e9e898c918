"""OUT/convert.json: what made a folder, so that the same command goes on and another does not mix in."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clade.data.files import walk
from clade.errors import DataError
from clade.io.atomic import atomic_path
from clade.labels.labelspace import LabelSpace

MANIFEST, CLASSES = "convert.json", "classes.json"
VERSION = 1


def begin(out: Path, run: Mapping[str, Any], space: LabelSpace, notes: Mapping[str, Any]) -> None:
    """Make ``out`` ready for a run: its manifest and its classes.json, written before any picture.

    Args:
        run: plain values, all that decides what is made; ``run["splits"]`` names the parts. A folder takes one run per
            part: the same one goes on, another part may come from another run with the same classes.
        notes: what classes.json says besides the classes.

    Raises:
        DataError: files that no conversion made, another run for the same part, or other classes.
    """
    runs = _stored(out)
    if run not in runs and _is_in_the_way(runs, run, out, space) and _holds_nothing(out):
        runs = []  # failed before a picture was finished
        (out / CLASSES).unlink(missing_ok=True)
    same = [old for old in runs if set(old["splits"]) & set(run["splits"])]
    for old in same:
        if old != run:
            raise DataError(
                f"{out}: holds another conversion: {differences(old, run)}. "
                "Choose another folder, give the same command again to go on with that one, or remove it first."
            )
    if not same:
        if runs and None in [*run["splits"], *(split for old in runs for split in old["splits"])]:
            raise DataError(
                f"{out}: a folder is either one part or has splits. It holds {_named(runs)}, and this conversion makes "
                f"{_parts(run['splits'])}. Give each part a name (--split, --val-share), or choose another folder."
            )
        for split in run["splits"]:
            if split is not None and (out / split).exists():
                raise DataError(f"{out / split}: is there, and no conversion made it. Choose another folder.")
        if (out / CLASSES).exists():
            _require_same_classes(out, space, run)
        _write(out / MANIFEST, {"made_by": "clade data convert", "version": VERSION, "runs": [*runs, run]})
    if (out / CLASSES).exists():
        _require_same_classes(out, space, run)
    else:
        _write(out / CLASSES, {**space.to_dict(), **notes})


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What two runs differ in, in words."""
    words = [
        f"{key} {_said(old.get(key), key)}, now {_said(new.get(key), key)}"
        for key in {**old, **new}
        if old.get(key) != new.get(key) and key != "hash"
    ]
    return "; ".join(words) or "the classes, the names or the annotations of the source have changed since"


def _said(value: Any, key: str) -> str:
    if key == "splits" and isinstance(value, list):
        return _parts(value)
    return "none" if value is None else json.dumps(value)


def content_hash(parts: Iterable[Any], files: Iterable[Path]) -> str:
    """SHA-256 of plain values and of the content of files."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part, sort_keys=True).encode() + b"\n")
    for path in files:
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    return digest.hexdigest()


def _stored(out: Path) -> list[dict[str, Any]]:
    """Runs that are recorded in ``out``."""
    path = out / MANIFEST
    if not path.exists():
        if out.exists() and not out.is_dir():
            raise DataError(f"{out}: is a file. Name a folder for what comes out.")
        held = sorted(child.name for child in out.iterdir() if not child.name.startswith(".")) if out.exists() else []
        if held:
            raise DataError(
                f"{out}: holds {', '.join(held[:5])}, and no conversion made that. Name an empty or a new folder; "
                "nothing is ever overwritten."
            )
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise DataError(f"{path}: is of version {content['version']}, this is {VERSION}. Choose another folder.")
        runs = content["runs"]
        assert all(isinstance(run["splits"], list) for run in runs)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: cannot be read ({type(error).__name__}: {error}). Choose another folder.") from error
    return runs


def _named(runs: list[dict[str, Any]]) -> str:
    return _parts([split for run in runs for split in run["splits"]])


def _parts(splits: list[str | None]) -> str:
    return ", ".join("one part without splits" if split is None else split for split in splits)


def _is_in_the_way(runs: list[dict[str, Any]], run: Mapping[str, Any], out: Path, space: LabelSpace) -> bool:
    """Whether recorded runs make the same parts, or forbid them, or have other classes."""
    parts = {split for old in runs for split in old["splits"]}
    if not parts:
        return False
    if parts & set(run["splits"]) or None in parts | set(run["splits"]):
        return True
    return (out / CLASSES).exists() and LabelSpace.from_json(out / CLASSES) != space


def _holds_nothing(out: Path) -> bool:
    """Whether there is no file but those of :func:`begin`; hidden ones do not count."""
    return set(walk(out)) <= {MANIFEST, CLASSES}


def _require_same_classes(out: Path, space: LabelSpace, run: Mapping[str, Any]) -> None:
    stored = LabelSpace.from_json(out / CLASSES)
    if stored == space:
        return
    for key, old, new in (
        ("number of classes", stored.num_classes, space.num_classes),
        ("names", stored.names, space.names),
        ("unknown", stored.unknown, space.unknown),
    ):
        if old != new:
            what = f"{key} {old}, this conversion has {new}"
            break
    else:
        what = "other colours"
    if run.get("palette") == "auto":
        raise DataError(
            f"{out / CLASSES}: has {what}: other colours occur here than in the part that was converted first. Give "
            f"that part's with --palette {shlex.quote(str(out / CLASSES))}; where it lacks colours, convert all parts "
            "anew with a palette that has all."
        )
    raise DataError(
        f"{out / CLASSES}: has {what}. All splits share their classes: give the same palette, classes or merge table "
        "to each (what was discovered for one split can be given to the next), or choose another folder."
    )


def _write(path: Path, content: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

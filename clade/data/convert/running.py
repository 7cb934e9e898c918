"""``clade data convert``: everything becomes the folder layout of docs/data.md."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from clade.data.convert.base import Item, Request, Source
from clade.data.convert.layouts import find_converter
from clade.data.convert.manifest import begin, content_hash
from clade.data.convert.merging import Merging, plan
from clade.data.convert.sharing import shared
from clade.data.convert.summary import ConvertReport, SplitSummary
from clade.data.convert.tables import split_list
from clade.data.datasets.folder import IMAGES, INSTANCES, LABELS
from clade.data.files import require_same_size
from clade.data.photos import read_photo
from clade.errors import CladeError, DataError
from clade.io.atomic import atomic_path
from clade.labels.files import read_instances, read_label
from clade.registry import near_match

MAX_OBJECTS = 65535
_OPTIONS = ("images", "annotations", "palette", "parts", "pattern", "classes", "tolerance")


def convert(
    source: str | Path,
    out: str | Path,
    format: str,
    *,
    split: str | None = None,
    images: str | Path | None = None,
    annotations: str | Path | None = None,
    palette: str | Path | Mapping[str, Any] | None = None,
    parts: str | Sequence[str] | None = None,
    pattern: str | None = None,
    merge: str | Path | Mapping[str, Any] | None = None,
    classes: str | Path | Sequence[str] | None = None,
    tolerance: int = 0,
    link: bool = False,
    workers: int | None = None,
    on_error: str = "stop",
    exclude: Sequence[str] = (),
    val_share: float | None = None,
    progress: bool = True,
) -> ConvertReport:
    """Label maps in another form -> ``out``/[split/]images, labels, instances, and ``out``/classes.json.

    Nothing is overwritten. The same call goes on where one was stopped: a picture is finished when its label is there.

    Args:
        source: folder or file; which, the format says (docs/data-convert.md).
        format: one of :func:`clade.data.convert.formats`.
        split: convert this part only; for a source without parts, the part that it becomes.
        images: folder of the photos.
        annotations: a JSON file beside the source (coco, panoptic).
        palette: which colour means which class (rgb): a file, {name: colour}, or "auto".
        parts: names of the part masks in the order of painting (parts); a list or "a,b,c".
        pattern: names of the mask files, "{name}_L.png" say.
        merge: which classes become one, a YAML file or a mapping; see :func:`clade.data.convert.merging.plan`.
        classes: names of the classes, a list or a file.
        tolerance: how far values may be off a palette colour, or off 0 and 255, for masks that were JPEG.
        link: hard links to the photos in place of copies.
        workers: threads; by default one per core.
        on_error: "stop" at a file that cannot be used, or "skip" it, which the report counts.
        exclude: names, or SPLIT/NAME, to leave out.
        val_share: divide a source of one part into train and val (:func:`clade.data.convert.sharing.shared`).

    Raises:
        CladeError: wrong options; DataError, LabelError: files that cannot be used, each with its path.
    """
    given = {
        "images": None if images is None else Path(images),
        "annotations": None if annotations is None else Path(annotations),
        "palette": palette,
        "parts": split_list(parts),
        "pattern": pattern,
        "classes": classes,
        "tolerance": tolerance,
    }
    converter = find_converter(format)
    for key, value in given.items():
        if value not in (None, 0) and key not in converter.options:
            takes = ", ".join(converter.options) or "none of its own"
            raise CladeError(f"Format '{format}' does not take '{key}'. It takes: {takes} (and split, merge, exclude).")
    if on_error not in ("stop", "skip"):
        raise CladeError(f"on_error is '{on_error}'; needed is 'stop' or 'skip'.")
    if not 0 <= tolerance <= 255:
        raise CladeError(f"tolerance is {tolerance}; it lies in 0..255.")
    if workers is not None and workers < 1:
        raise CladeError(f"workers is {workers}; needed is at least 1.")
    source, out = Path(source), Path(out)
    _check_places(source, out, given["images"], split)
    request = Request(
        source=source,
        split=split,
        workers=workers or os.cpu_count() or 1,
        on_error=on_error,
        progress=progress,
        **given,
    )
    found = converter.find(request)
    items, excluded = _without(found.items, exclude)
    if val_share is not None:
        items = shared(items, val_share, split)
    _check_names(items)
    merging = plan(found.space, merge)
    report = ConvertReport(out, merging.space, merged=dict(merging.merged), excluded=excluded)
    report.splits = {item.split: SplitSummary() for item in items}
    report.unused, report.notes = [str(path) for path in found.unused], list(found.notes)
    report.photos = any(item.photo is not None for item in items)
    try:
        run = _run(request, format, found, items, merging, merge, exclude, val_share)
        begin(out, run, merging.space, _notes(format, merging))
        for item, done in request.each(partial(_make, out, merging, link), items, "converting"):
            _count(report, item, done)
    except OSError as error:
        raise DataError(
            f"{error.filename2 or error.filename or out}: cannot be written ({error.strerror or error}). "
            "The same command goes on when that is cured."
        ) from error
    _sweep(out, items)
    return report


def _sweep(out: Path, items: list[Item]) -> None:
    """Remove what a killed process left half-written; only now, as nothing has gone wrong."""
    for split in {item.split for item in items}:
        for part in (IMAGES, LABELS, INSTANCES):
            for path in (out / (split or "") / part).rglob(".*.tmp"):
                if re.fullmatch(r"\..+\.\d+-\d+\.tmp", path.name):
                    path.unlink(missing_ok=True)


def _check_places(source: Path, out: Path, images: Path | None, split: str | None) -> None:
    if not source.exists():
        raise DataError(f"{source}: no such file or folder. Name what is to be converted.")
    if images is not None and not images.is_dir():
        raise DataError(
            f"{images}: {'is a file' if images.exists() else 'no such folder'}. Name the folder of the photos."
        )
    for folder in (source, images):
        if folder is not None and folder.is_dir() and folder.resolve() in (out.resolve(), *out.resolve().parents):
            raise DataError(f"{out}: lies in {folder}, which is converted. Choose a folder outside.")
    if split is not None and (split in (IMAGES, LABELS, INSTANCES) or not _is_plain(split) or "/" in split):
        raise CladeError(f"The split is called '{split}', which is no name of a folder. Call it train or val, say.")


def _is_plain(name: str) -> bool:
    """Whether a name stays below the folder that it is put in, and shows there."""
    parts = PurePosixPath(name).parts
    bad = any(part.startswith(".") or not part.strip() for part in parts) or any(c in name for c in "\\:\0")
    return bool(parts) and not name.startswith("/") and not bad and "/".join(parts) == name


def _without(items: list[Item], exclude: Sequence[str]) -> tuple[list[Item], list[str]]:
    titles = {_title(item) for item in items} | {item.name for item in items}
    lost = [name for name in exclude if name not in titles]
    if lost:
        raise DataError(f"exclude names '{lost[0]}', which is no picture of the source.{near_match(lost[0], titles)}")
    kept, left = [], []
    for item in items:
        named = item.name in exclude or _title(item) in exclude
        (left if named else kept).append(item)
    if not kept:
        raise DataError("The source has no pictures" + (" besides those of exclude." if left else "."))
    return kept, [_title(item) for item in left]


def _title(item: Item) -> str:
    return item.name if item.split is None else f"{item.split}/{item.name}"


def _check_names(items: list[Item]) -> None:
    seen: dict[str, Item] = {}
    for item in items:
        title = _title(item)
        where = item.photo if isinstance(item.photo, Path) else item.label
        if not _is_plain(item.name):
            raise DataError(f"{item.label}: the picture '{item.name}' ({where}) has no name for a file below a folder.")
        if title in seen:
            first = seen[title].photo if isinstance(seen[title].photo, Path) else seen[title].label
            raise DataError(f"{first} and {where} would both become {title}. Rename or exclude one.")
        seen[title] = item


def _run(
    request: Request,
    format: str,
    found: Source,
    items: list[Item],
    merging: Merging,
    merge: Any,
    exclude: Sequence[str],
    val_share: float | None,
) -> dict[str, Any]:
    """All that decides what comes out, as plain values."""
    options = {key: getattr(request, key) for key in _OPTIONS}
    options |= {"split": request.split, "merge": merge, "exclude": sorted(exclude), "val_share": val_share}
    plain = {key: _plain(value, key) for key, value in options.items() if value not in (None, 0, [])}
    facts = [found.space.to_dict(), merging.space.to_dict(), merging.table.tolist(), [_title(item) for item in items]]
    return {
        "format": format,
        "source": str(request.source.resolve()),
        **plain,
        "splits": list(dict.fromkeys(item.split for item in items)),
        "pictures": len(items),
        "hash": content_hash(facts, found.decides),
    }


def _plain(value: Any, key: str) -> Any:
    if isinstance(value, Path) or (
        isinstance(value, str) and key in ("palette", "classes", "merge") and value != "auto"
    ):
        return str(Path(value).resolve())
    if isinstance(value, Mapping):
        return {str(k): _plain(v, "") for k, v in value.items()}
    return [_plain(v, "") for v in value] if isinstance(value, (list, tuple)) else value


def _notes(format: str, merging: Merging) -> dict[str, Any]:
    notes: dict[str, Any] = {"source": f"clade data convert, format {format}"}
    return {**notes, "merged": dict(merging.merged)} if merging.merged else notes


# --- One picture ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Done:
    written: bool
    instances: bool
    pixels: dict[int, int]


def _make(out: Path, merging: Merging, link: bool, item: Item) -> _Done:
    """Photo, instances, and last the label, which says that the picture is finished."""
    folder = out / (item.split or "")
    label, objects = folder / LABELS / f"{item.name}.png", folder / INSTANCES / f"{item.name}.png"
    if label.exists():
        return _Done(False, objects.exists(), _pixels(read_label(label)))
    ids, instances = item.read()
    if item.photo is not None:
        _put_photo(item, folder / IMAGES, ids.shape, link)
    if instances is not None:
        if instances.shape != ids.shape:
            raise DataError(f"{item.label}: instances are of shape {instances.shape}, labels of {ids.shape}.")
        _put_array(objects, instance_numbers(instances, item.label))
    numbers = merging.table[ids]
    _put_array(label, numbers)
    return _Done(True, instances is not None, _pixels(numbers))


def instance_numbers(instances: np.ndarray, source: Path) -> np.ndarray:
    """Object numbers (H, W) -> uint16, 0 for no object; as they are where they fit, else counted anew.

    Raises:
        LabelError: more than 65535 objects.
    """
    low, high = int(instances.min()), int(instances.max())
    if low < 0 or high > MAX_OBJECTS:
        values, inverse = np.unique(instances, return_inverse=True)
        objects = values[values != 0]
        if len(objects) > MAX_OBJECTS:
            raise DataError(
                f"{source}: {len(objects)} objects; at most {MAX_OBJECTS} fit into a 16-bit file. Split it."
            )
        new = np.zeros(len(values), np.uint16)
        new[values != 0] = np.arange(1, len(objects) + 1)
        return new[inverse].reshape(instances.shape)
    return instances.astype(np.uint16)


def _pixels(numbers: np.ndarray) -> dict[int, int]:
    counts = np.bincount(numbers.ravel())
    return {int(number): int(counts[number]) for number in np.flatnonzero(counts)}


def _put_photo(item: Item, folder: Path, shape: tuple[int, ...], link: bool) -> None:
    photo = item.photo
    if not isinstance(photo, Path):
        assert photo is not None
        pixels = photo()
        require_same_size(item.label, pixels.shape, item.label, shape)
        _put_array(folder / f"{item.name}.png", pixels)
        return
    require_same_size(photo, read_photo(photo).shape, item.label, shape)
    target = folder / f"{item.name}{photo.suffix}"
    if _is_there(target, lambda: filecmp.cmp(photo, target, shallow=False)):
        return
    if not link:
        with atomic_path(target) as temporary:
            shutil.copyfile(photo, temporary)
        return
    folder = target.parent
    folder.mkdir(parents=True, exist_ok=True)
    try:
        os.link(photo.resolve(), target)
    except OSError as error:
        raise DataError(
            f"{target}: cannot be a hard link to {photo} ({error.strerror}). Both must be on one disk; or copy them."
        ) from error


def _put_array(path: Path, pixels: np.ndarray) -> None:
    if _is_there(path, lambda: _holds(path, pixels)):
        return
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def _holds(path: Path, pixels: np.ndarray) -> bool:
    stored = read_photo(path) if pixels.ndim == 3 else read_instances(path)
    return np.array_equal(stored, pixels)


def _is_there(path: Path, same: Callable[[], bool]) -> bool:
    """Whether an earlier run wrote the file; raises DataError for another file of its name."""
    if not path.exists():
        return False
    if not same():
        raise DataError(
            f"{path}: is there, and is not what this conversion makes. Move it away; nothing is overwritten."
        )
    return True


def _count(report: ConvertReport, item: Item, done: _Done | CladeError) -> None:
    if isinstance(done, CladeError):
        report.skipped.append(str(done))
        return
    part = report.splits[item.split]
    part.written += done.written
    part.present += not done.written
    part.pixels.update(done.pixels)
    part.maps.update(Counter(done.pixels.keys()))
    report.instances = report.instances or done.instances

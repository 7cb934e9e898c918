"""A dataset as folders of files: ``root/[split/]images``, ``labels`` and, where there are any, ``instances``."""

from __future__ import annotations

import shlex
from pathlib import Path

from clade.data.base import DATASETS
from clade.data.files import LABEL_SUFFIXES, PHOTO_SUFFIXES, FileDataset, Listing, by_name, paired, require_folder
from clade.errors import DataError
from clade.labels.labelspace import LabelSpace
from clade.registry import near_match

SPLITS = ("train", "val", "test")
IMAGES, LABELS, INSTANCES = "images", "labels", "instances"
LAYOUT = (
    "A dataset folder holds images/NAME.jpg and labels/NAME.png (and instances/NAME.png, if any), "
    "either directly or in train/, val/ and test/, and a classes.json."
)


@DATASETS.register("folder")
class FolderDataset(FileDataset):
    """Photos, labels and instances that share their file names.

    A root without split folders is read as "train", or with ``split=None``; the classes are those of ``classes.json``
    in the split's folder or in ``root``. Arguments and errors as in :class:`clade.data.files.FileDataset`.
    """

    LAYOUT = LAYOUT

    @classmethod
    def recognizes(cls, root: Path) -> bool:
        try:
            return bool(find_splits(root))
        except DataError:
            return False

    @classmethod
    def splits(cls, root: Path) -> list[str | None]:
        return find_splits(root)

    @classmethod
    def list_files(cls, root: Path, split: str | None, labels_only: bool = False) -> Listing:
        return list_files(split_folder(root, split), labels_only)

    @classmethod
    def stored_space(cls, root: Path, split: str | None) -> LabelSpace | None:
        return stored_space(split_folder(root, split), root)


def split_folder(root: Path, split: str | None) -> Path:
    """The folder that holds labels/ of a split.

    Raises:
        DataError: it is not there; the message says which splits are.
    """
    found = find_splits(root)
    if split is None:
        if None in found:
            return root
    elif split in found:
        return root / split
    elif found == [None] and split == SPLITS[0]:
        return root
    named = [name for name in found if name is not None]
    have = (
        f"It has {', '.join(named)} (data.train_split and data.val_split choose)."
        if named
        else "It is one part without splits, which is read as 'train': validate on the same pictures with "
        f"--data.val_split train, or put some aside with `clade data convert {shlex.quote(str(root))} OUT "
        "--from folder --val-share 0.1`."
    )
    missing = f"no split '{split}'" if split is not None else f"no {LABELS}/ directly in it, only splits"
    raise DataError(f"{root}: there is {missing}.{near_match(str(split), named)} {have} {LAYOUT}")


def find_splits(root: Path) -> list[str | None]:
    """Folders in ``root`` that hold labels/ or images/, train, val and test first; None stands for ``root`` itself.

    Raises:
        DataError: ``root`` is missing, is a file, or holds neither.
    """
    require_folder(root, LAYOUT)
    try:
        names = sorted(path.name for path in root.iterdir() if path.is_dir())
        order = [name for name in SPLITS if name in names] + [name for name in names if name not in SPLITS]
        found: list[str | None] = [None] if _holds_data(root) else []
        found += [name for name in order if _holds_data(root / name)]
    except OSError as error:
        raise DataError(f"{root}: cannot be listed ({error}).") from error
    if not found:
        raise DataError(f"{root}: neither {LABELS}/ nor {IMAGES}/ is in it. {LAYOUT}")
    return found


def _holds_data(folder: Path) -> bool:
    return (folder / LABELS).is_dir() or (folder / IMAGES).is_dir()


def stored_space(folder: Path, root: Path) -> LabelSpace | None:
    """The ``classes.json`` of a split, else of the whole dataset, else None; LabelError for one that is broken."""
    for place in (folder, root):
        if (place / "classes.json").exists():
            return LabelSpace.from_json(place / "classes.json")
    return None


def list_files(folder: Path, labels_only: bool = False) -> Listing:
    """Pair the files of a split.

    Raises:
        DataError: a folder that cannot be listed. What does not pair up is in ``Listing.problems``.
    """
    problems: list[str] = []
    labels = by_name(folder / LABELS, LABEL_SUFFIXES, problems)
    images = None if labels_only else by_name(folder / IMAGES, PHOTO_SUFFIXES, problems)
    instances = by_name(folder / INSTANCES, LABEL_SUFFIXES, problems) if (folder / INSTANCES).is_dir() else None
    places = [folder / part for part in (LABELS, IMAGES, INSTANCES)]
    return paired(folder, problems, labels, images, instances, places=places)

"""What the loaders of the benchmark datasets share: fixed folders, built-in classes, lists of names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from clade.data.files import (
    LABEL_SUFFIXES,
    PHOTO_SUFFIXES,
    FileDataset,
    Listing,
    by_name,
    natural_key,
    paired,
    require_folder,
    some,
)
from clade.errors import DataError
from clade.labels.labelspace import Color, LabelSpace
from clade.registry import near_match

_CLASSES = Path(__file__).parent / "classes"
_LOOKED_AT = 50  # folders below a wrong root that are tried


@dataclass(frozen=True)
class Place:
    """Where the files of a split lie, as folders from the root."""

    labels: str
    images: str
    instances: str | None = None


Places = Mapping[str, Place]
"""Split -> its folders."""


class BenchmarkDataset(FileDataset):
    """A dataset in the layout in which it is published, with its own classes.

    Args:
        root, split, label_space, num_classes, unknown, remap, palette, labels_only: as in
            :class:`clade.data.files.FileDataset`.
        instances: read instance maps, where the layout has them; False leaves their files alone.
        list_file: file with the names to keep, one per line; ``{split}`` in its path stands for the split. Without it,
            one list serves all splits.

    Raises:
        DataError, LabelError: as in FileDataset.
    """

    NAME: ClassVar[str]
    """As it is registered."""
    CLASSES: ClassVar[str]
    """Name of the table of classes, in clade/data/classes."""
    ALTERNATIVES: ClassVar[Sequence[Places]]
    """Where the files may lie; the first that is there counts."""

    def __init__(
        self,
        root: str | Path,
        split: str | None = "train",
        label_space: LabelSpace | None = None,
        num_classes: int | None = None,
        unknown: int | None = None,
        remap: Mapping[int, int] | None = None,
        palette: Sequence[Color] | None = None,
        labels_only: bool = False,
        instances: bool = True,
        list_file: str | Path | None = None,
    ) -> None:
        self._options = {"instances": instances, "list_file": list_file, **self._options}
        super().__init__(root, split, label_space, num_classes, unknown, remap, palette, labels_only)

    @classmethod
    def recognizes(cls, root: Path) -> bool:
        try:
            return cls.places(root) is not None
        except OSError:
            return False

    @classmethod
    def splits(cls, root: Path) -> list[str | None]:
        places = cls._required(root)
        return [name for name, place in places.items() if _there(root, place)]

    @classmethod
    def stored_space(cls, root: Path, split: str | None) -> LabelSpace | None:
        return LabelSpace.from_json(_CLASSES / f"{cls.CLASSES}.json")

    @classmethod
    def list_files(
        cls,
        root: Path,
        split: str | None,
        labels_only: bool = False,
        instances: bool = True,
        list_file: str | Path | None = None,
        **options: Any,
    ) -> Listing:
        name, place = cls._split(root, split)
        files = cls.list_place(root, name, place, labels_only, instances, **options)
        if list_file is None:
            return cls.chosen(files, root, name)
        return keep(files, cls._listed(root, name, Path(list_file), files))

    @classmethod
    def list_place(
        cls, root: Path, split: str, place: Place, labels_only: bool, instances: bool, **options: Any
    ) -> Listing:
        """Pair the files of one split; a layout with file names of its own kind overrides this.

        Raises:
            DataError: a folder that cannot be listed.
        """
        return pair_place(root, place, labels_only, instances)

    @classmethod
    def chosen(cls, files: Listing, root: Path, split: str) -> Listing:
        """The files that belong to the split where no list says so: all of them, unless a layout has a rule."""
        return files

    @classmethod
    def places(cls, root: Path) -> Places | None:
        """The first of ``ALTERNATIVES`` with label folders in ``root``, else None."""
        found = (places for places in cls.ALTERNATIVES if any((root / p.labels).is_dir() for p in places.values()))
        return next(found, None)

    @classmethod
    def _required(cls, root: Path) -> Places:
        require_folder(root, cls.LAYOUT)
        try:
            places = cls.places(root)
        except OSError as error:
            raise DataError(f"{root}: cannot be listed ({error}).") from error
        if places is None:
            expected = " or ".join(dict.fromkeys(next(iter(p.values())).labels + "/" for p in cls.ALTERNATIVES))
            raise DataError(f"{root}: {expected} is not in it.{cls._elsewhere(root)} {cls.LAYOUT}")
        return places

    @classmethod
    def _split(cls, root: Path, split: str | None) -> tuple[str, Place]:
        places = cls._required(root)
        there = {name: place for name, place in places.items() if _there(root, place)}
        if split is None and len(there) == 1:
            split = next(iter(there))
        if split is None or split not in there:
            raise DataError(
                f"{root}: there is no split {split!r}.{near_match(str(split), there)} It has {', '.join(there)} "
                f"(data.train_split and data.val_split choose). {cls.LAYOUT}"
            )
        return split, there[split]

    @classmethod
    def _elsewhere(cls, root: Path) -> str:
        """Where the dataset seems to be, when the root is a level too high or too low."""
        root = root.absolute()
        try:
            below = [path for path in sorted(root.iterdir())[:_LOOKED_AT] if path.is_dir()]
        except OSError:
            below = []
        near = [path for path in (*below, root.parent, root.parent.parent) if cls.places(path) is not None]
        return f" It seems to be {near[0]}: set data.root to that." if near else ""

    @classmethod
    def _listed(cls, root: Path, split: str, list_file: Path, files: Listing) -> set[str]:
        """The names that a list file holds for a split.

        Raises:
            DataError: it cannot be read, or has names that the dataset does not have.
        """
        path = Path(str(list_file).replace("{split}", split))
        wanted = read_names(path)
        missing = [name for name in wanted if name not in files.labels]
        if path == list_file:
            others = [cls._split(root, name)[1] for name in cls.splits(root) if name != split]
            known = set().union(*(pair_place(root, place, True, False).labels for place in others))
            missing = [name for name in missing if name not in known]
        if missing or not any(name in files.labels for name in wanted):
            raise DataError(
                f"{path}: {len(missing) or 'all'} of its {len(wanted)} names have no label map in the split {split!r} "
                f"of {root}: {some(missing or wanted)}. Needed is one name per line, as {some(list(files.labels)[:2])}."
            )
        return set(wanted)


def pair_place(
    root: Path,
    place: Place,
    labels_only: bool,
    instances: bool,
    rename: Mapping[str, Callable[[str], str | None]] | None = None,
) -> Listing:
    """Pair the files of a place by their names.

    Args:
        rename: for "labels", "images" and "instances", see :func:`clade.data.files.by_name`.
    """
    rename, problems = rename or {}, []
    labels = by_name(root / place.labels, LABEL_SUFFIXES, problems, rename.get("labels"))
    images = None if labels_only else by_name(root / place.images, PHOTO_SUFFIXES, problems, rename.get("images"))
    objects = None
    where = [root / part for part in (place.labels, place.images, place.instances) if part is not None]
    if instances and place.instances is not None:
        objects = by_name(root / place.instances, LABEL_SUFFIXES, problems, rename.get("instances"))
        if labels and not objects:
            problems.append(
                f"{where[-1]}: no instance maps. Put them there, or set data.options.instances to false: object "
                "borders are then those of the classes."
            )
            objects = None
    return paired(root / place.labels, problems, labels, images, objects, places=where)


def keep(files: Listing, names: set[str]) -> Listing:
    """Some names of a listing only."""
    parts = {
        key: {name: path for name, path in part.items() if name in names}
        for key in ("labels", "images", "instances")
        if (part := getattr(files, key)) is not None
    }
    return replace(files, **parts)


def joined(folder: Path, first: Listing, second: Listing) -> Listing:
    """The files of two places as one split; a name that both have is a problem."""
    both, problems = {}, [*first.problems, *second.problems]
    shared = [f"{first.labels[name]} and {second.labels[name]}" for name in first.labels if name in second.labels]
    if shared:
        problems.append(
            f"{len(shared)} pictures of {second.folder} have the same name as others of the split: {some(shared)}. "
            "Rename one of each, with its photo and instances."
        )
    for key in ("labels", "images", "instances"):
        one, two = getattr(first, key), getattr(second, key)
        if one is None or two is None:
            both[key] = None
            continue
        merged = {**one, **two}
        both[key] = {name: merged[name] for name in sorted(merged, key=natural_key)}
    return Listing(folder, **both, problems=problems)


def read_names(path: Path) -> list[str]:
    """Names from a text file, one per line; blank lines, lines that start with # and suffixes of pictures are left out.

    Raises:
        DataError: unreadable, or without a name.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: the list of names cannot be read ({error}). Name a text file, one name per line."
        ) from error
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise DataError(f"{path}: the list of names is empty. Needed is one name per line.")
    return [str(Path(name).with_suffix("")) if Path(name).suffix.lower() in PHOTO_SUFFIXES else name for name in names]


def _there(root: Path, place: Place) -> bool:
    return (root / place.labels).is_dir() or (root / place.images).is_dir()

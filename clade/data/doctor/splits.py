"""What one split of a dataset holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clade.data.doctor.looking import MANY_COLORS, Look
from clade.data.files import Listing, some
from clade.labels.labelspace import Color, LabelSpace

_LISTED = 5


@dataclass
class SplitReport:
    """What one split holds. Ids are the numbers as they stand in the label files.

    Args:
        name: of the split, None for a root without split folders.
        space: its classes, None where they are not known.
        files: what was read.
        maps, photos, objects: number of label maps, photos and instance maps that were read.
        pairs: names that have all their files.
        sizes: (height, width) of the label maps -> number of maps.
        pixels: id -> pixels over all maps.
        used: id -> number of maps that have it.
        outside: label file -> id that the space does not know -> pixels.
        colors: colour that belongs to no class -> pixels.
        decoded: number of colour pictures in which classes were found by their colours.
        colored: label file with such colours -> (how many colours, pixels).
        constant: name -> the only id of its map.
        nearly_empty: name -> share of the most frequent id, or of unknown pixels where that is more.
        hashes: name -> (label map, photo); None for what was not read.
        unpaired: what does not pair up, in words.
        failures: (kind, name, message) of files that cannot be read or used.
    """

    name: str | None
    space: LabelSpace | None
    files: Listing
    maps: int = 0
    photos: int = 0
    objects: int = 0
    pairs: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    pixels: Counter[int] = field(default_factory=Counter)
    used: Counter[int] = field(default_factory=Counter)
    outside: dict[str, dict[int, int]] = field(default_factory=dict)
    colors: Counter[int] = field(default_factory=Counter)
    decoded: int = 0
    colored: dict[str, tuple[int, int]] = field(default_factory=dict)
    constant: dict[str, int] = field(default_factory=dict)
    nearly_empty: dict[str, float] = field(default_factory=dict)
    hashes: dict[str, tuple[bytes | None, bytes | None]] = field(default_factory=dict)
    unpaired: list[str] = field(default_factory=list)
    failures: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, look: Look) -> None:
        """Take up what the files of one name hold."""
        self.failures += [(kind, look.name, message) for kind, message in look.failures]
        self.hashes[look.name] = (look.label_hash, look.photo_hash)
        self.photos += look.photo_hash is not None
        self.objects += look.objects
        self.decoded += look.decoded
        if look.size is None:
            return
        self.maps += 1
        self.sizes[look.size] += 1
        self.pixels.update(look.pixels)
        self.used.update(look.pixels.keys())
        if look.outside:
            self.outside[str(look.label)] = look.outside
        if look.colors:
            self.colored[str(look.label)] = (look.colors, sum(look.strange.values()))
            if look.colors <= MANY_COLORS:
                self.colors.update(look.strange)
        if look.constant:
            self.constant[look.name] = next(iter(look.pixels))
        elif look.nearly_empty:
            self.nearly_empty[look.name] = max(look.unknown, max(look.pixels.values()) / sum(look.pixels.values()))

    @property
    def errors(self) -> list[str]:
        """Files that cannot be read or used, in words."""
        return [message for _, _, message in self.failures]

    @property
    def problems(self) -> list[str]:
        return [*self.unpaired, *self.errors, *self.findings]

    @property
    def findings(self) -> list[str]:
        """Ids and colours that mean no class, in words."""
        return [*self._outside_problems(), *self._mask_problem(), *self._color_problems()]

    @property
    def black_and_white(self) -> bool:
        """Whether the numbers in the files are 0 and 255, as in masks of one object."""
        return set(self.pixels) == {0, 255} and not self.decoded

    @property
    def smooth(self) -> dict[str, int]:
        """Label file of more colours than a mask can have -> how many."""
        return {path: count for path, (count, _) in self.colored.items() if count > MANY_COLORS}

    def share(self, number: int) -> float:
        """Share of all pixels that have this id, 0 to 1."""
        return self.pixels[number] / max(self.pixels.total(), 1)

    def row_of(self, number: int) -> int | None:
        """Id inside the library of a number in the files; None where it is outside the space, or none is known."""
        numbers = np.array([number])
        if self.space is None or self.space.unmapped(numbers):
            return None
        return int(self.space.encode(numbers)[0])

    def class_of(self, number: int) -> str | None:
        """Name of the class as which a number is read; None where it is outside the space, or no space is known."""
        row = self.row_of(number)
        return None if row is None or self.space is None else self.space.name(row)

    def rows(self) -> Counter[int]:
        """Id inside the library -> pixels."""
        found: Counter[int] = Counter()
        for number, pixels in self.pixels.items():
            if (row := self.row_of(number)) is not None:
                found[row] += pixels
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; sizes are written "height x width", colours "(r, g, b)"."""
        ids = [
            {"id": n, "class": self.class_of(n), "pixels": self.pixels[n], "share": self.share(n), "maps": self.used[n]}
            for n in sorted(self.pixels)
        ]
        return {
            "name": self.name,
            "pairs": self.pairs,
            "maps": self.maps,
            "photos": self.photos,
            "instances": self.objects,
            "sizes": {f"{height} x {width}": count for (height, width), count in self.sizes.most_common()},
            "ids": ids,
            "outside": {path: {str(n): count for n, count in ids.items()} for path, ids in self.outside.items()},
            "colors": {str(unpacked(color)): pixels for color, pixels in self.colors.most_common()},
            "colored": {path: {"colors": count, "pixels": pixels} for path, (count, pixels) in self.colored.items()},
            "constant": self.constant,
            "nearly_empty": self.nearly_empty,
            "unpaired": self.unpaired,
            "errors": self.errors,
        }

    def _outside_problems(self) -> list[str]:
        files: dict[int, dict[str, int]] = {}
        for path, counts in self.outside.items():
            for number, pixels in counts.items():
                files.setdefault(number, {})[path] = pixels
        return [self._outside_problem(number, files[number]) for number in sorted(files)]

    def _mask_problem(self) -> list[str]:
        space = self.space
        if space is None or space.unknown != 255 or 255 in space.remap or not self.black_and_white:
            return []  # where 255 is no number of the space, that has been said
        return [
            f"all label maps hold only 0 and 255: a mask of one object, or only '{space.names[0]}' and unknown of "
            f"the {space.num_classes} classes. A mask is read as two classes by the remap {{255: 1}}."
        ]

    def _outside_problem(self, number: int, files: dict[str, int]) -> str:
        assert self.space is not None
        worst = Counter(files).most_common(3)
        listed = ", ".join(f"{path} ({pixels} pixels)" for path, pixels in worst)
        more = f" and {len(files) - len(worst)} more" if len(files) > len(worst) else ""
        hint = ""
        if set(self.pixels) <= {0, 255}:
            hint = " The remap {255: 1} reads a mask of 0 and 255 as two classes."
        elif off_by_one(set(self.pixels), self.space):
            hint = f" The ids are 1 to {number} and never 0: they are probably off by one."
        elif number == self.space.num_classes and one_too_high(set(self.pixels), self.space):
            last = f", {number}: {number - 1}" if number > 1 else ""
            hint = (
                f" Either the name of class {number} is missing (num_classes {number + 1}), or 0 is unlabelled and all "
                f"other ids are one too high (unknown {free_number(self.space)}, remap "
                f"{{0: {free_number(self.space)}, 1: 0{', ...' if number > 2 else ''}{last}}})."
            )
        none = "none for unknown" if self.space.unknown is None else f"unknown = {self.space.unknown}"
        return (
            f"id {number} is outside the label space of {self.space.num_classes} classes "
            f"(0..{self.space.num_classes - 1}, {none}): {sum(files.values())} pixels in "
            f"{len(files)} label maps: {listed}{more}. "
            f"Set num_classes or unknown, or map {number} with remap, in classes.json or as data.* options.{hint}"
        )

    def _color_problems(self) -> list[str]:
        smooth, found = self.smooth, []
        if few := [path for path in self.colored if path not in smooth]:
            worst = ", ".join(f"{unpacked(color)}: {n} pixels" for color, n in self.colors.most_common(_LISTED))
            cure = "Give the colour of every class in palette."
            if self.space is not None and not one_color_each(self.space):
                cure = "Two classes share one colour, so that none is read: give each its own in classes.json."
            more = f" and {len(self.colors) - _LISTED} more colours" if len(self.colors) > _LISTED else ""
            found.append(
                f"{len(few)} label maps are colour pictures with {len(self.colors)} colours that belong to no class "
                f"({worst}{more}): {some(few)}. {cure}"
            )
        if smooth:
            listed = some([f"{path} ({count} colours)" for path, count in smooth.items()])
            found.append(
                f"{len(smooth)} label maps have more than {MANY_COLORS} colours that belong to no class: {listed}. "
                "They were resized smoothly or were JPEG, or are photos. Make them anew with nearest neighbour; "
                "`clade data convert --from rgb --tolerance N` reads slightly wrong colours as the nearest class."
            )
        return found


def off_by_one(numbers: set[int], space: LabelSpace) -> bool:
    """Whether the files seem to count the classes from 1: N classes, N is used and 0 never."""
    classes = {number for number in numbers if number != space.unknown}
    return not space.remap and space.num_classes in classes and min(classes) >= 1 and max(classes) == space.num_classes


def one_too_high(numbers: set[int], space: LabelSpace) -> bool:
    """Whether 0 may be unlabelled and the classes counted from 1: of N classes, the ids begin with 0 and end with N."""
    classes = {number for number in numbers if number != free_number(space)}
    return not space.remap and {0, space.num_classes} <= classes and max(classes) == space.num_classes


def free_number(space: LabelSpace) -> int:
    """The number of unlabelled pixels, or the one that it would best be."""
    return space.unknown if space.unknown is not None else 255 if space.num_classes < 255 else 65535


def one_color_each(space: LabelSpace) -> bool:
    """Whether colours tell the classes apart, the unknown one too."""
    colors = [*space.colors, space.unknown_color][: space.num_rows]
    return len(set(colors)) == len(colors)


def unpacked(color: int) -> Color:
    """(r, g, b) of r << 16 | g << 8 | b."""
    return color >> 16, color >> 8 & 255, color & 255

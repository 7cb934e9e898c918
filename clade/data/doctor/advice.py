"""The recipe keys, or the ``classes.json``, with which a dataset opens."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clade.data.doctor.looking import MANY_COLORS
from clade.data.doctor.splits import SplitReport, free_number, off_by_one, one_color_each, one_too_high, unpacked
from clade.data.files import completed_space
from clade.errors import CladeError
from clade.labels.labelspace import LabelSpace

_MISSING_CLASS = 0.001  # ids right after the last class, of at least this share of the pixels, are more classes


@dataclass
class Advice:
    """What makes the ids and colours of a dataset fit its classes.

    Args:
        options: keys of a recipe's ``data`` section, empty where nothing has to be set.
        why: a sentence for each decision in them.
        space: the classes that come of it; None where no classes fit.
    """

    options: dict[str, Any] = field(default_factory=dict)
    why: list[str] = field(default_factory=list)
    space: LabelSpace | None = None

    def lines(self) -> list[str]:
        """The options as YAML, with the reasons as comments."""
        if not self.options:
            return []
        # Lists and mappings of numbers look the same in YAML as in Python.
        options = (f"  {key}: {value}" for key, value in self.options.items())
        return [*(f"# {sentence}" for sentence in self.why), "data:", *options]

    def flags(self) -> str:
        """The options for the command line, quoted for a shell."""
        return " ".join(f"--data.{key} {shlex.quote(str(value))}" for key, value in self.options.items())


def advise(splits: list[SplitReport], stored: LabelSpace | None, given: Mapping[str, Any]) -> Advice:
    """Options that make every id and colour of the splits a class.

    Args:
        stored: the classes that the dataset brings, if any.
        given: num_classes, unknown, remap, palette that came with the question; they stay.
    """
    used: Counter[int] = Counter()
    colors: Counter[int] = Counter()
    for split in splits:
        used.update(split.pixels)
        colors.update(split.colors)
    given = {key: value for key, value in given.items() if value is not None}
    try:
        base = completed_space(stored, **given)
    except CladeError:
        if stored is not None or given:
            return Advice()  # a contradiction that only its author can solve
        base = None
    if len(colors) > MANY_COLORS:
        colors.clear()  # a different few in every file: no palette
    if base is not None and all(fits(base, split) for split in splits):
        return Advice(space=base)

    advice = Advice()
    if base is None:
        _new(advice, used, colors)
    else:
        decoded = any(split.decoded for split in splits)
        _numbers(advice, base, used, mask=set(used) == {0, 255} and not decoded)
        _colors(advice, base, colors, named=bool(used))
        if not advice.options:
            return Advice(space=base)
    options = {**given, **advice.options}
    if "remap" in given and "remap" in advice.options:
        options["remap"] = {**given["remap"], **advice.options["remap"]}
    order = ("num_classes", "unknown", "remap", "palette")
    advice.options = {key: options[key] for key in order if key in options}
    try:
        advice.space = completed_space(stored, **advice.options)
    except CladeError:
        return Advice()
    known = {pack(color) for color in advice.space.colors}
    if advice.space.unknown_class:
        known.add(pack(advice.space.unknown_color))
    if colors and not one_color_each(advice.space):
        return Advice()
    if advice.space.unmapped(np.array([*used] or [0])) or not known.issuperset(colors):
        return Advice()
    return advice


def fits(space: LabelSpace, split: SplitReport) -> bool:
    """Whether nothing has to be said about the ids and colours of a split."""
    return split.space is not None and not split.findings and not space.unmapped(np.array([*split.pixels] or [0]))


def classes_for(ids: set[int]) -> dict[str, Any] | None:
    """A ``classes.json`` that fits the ids in use, where nothing is known of the classes."""
    unknown = 255 if 255 in ids and len(ids) > 2 and max(ids) == 255 else None
    classes = sorted(ids - {unknown})
    if not classes or classes[0] < 0:
        return None
    from_one = len(classes) > 1 and classes == list(range(1, len(classes) + 1))
    scattered = classes[-1] >= 4 * len(classes) or from_one
    count = len(classes) if scattered else classes[-1] + 1
    found: dict[str, Any] = {"names": [f"class {k}" for k in range(count)], "unknown": unknown}
    if scattered:
        found["remap"] = {str(number): k for k, number in enumerate(classes) if number != k}
    return found


def _new(advice: Advice, used: Counter[int], colors: Counter[int]) -> None:
    """Classes where none are known."""
    found = classes_for(set(used))
    count = 0
    if found is not None:
        count = len(found["names"])
        advice.options["num_classes"] = count
        if found["unknown"] is not None:
            advice.options["unknown"] = found["unknown"]
        if "remap" in found:
            advice.options["remap"] = {int(source): target for source, target in found["remap"].items()}
        mask = set(used) == {0, 255}
        advice.why.append(
            "255 marks the object in a mask of 0 and 255." if mask else f"{count} classes fit the ids in use."
        )
    if colors and not count:
        _palette(advice, sorted(colors), named=False)
        advice.options["num_classes"] = len(colors)


def _numbers(advice: Advice, space: LabelSpace, used: Counter[int], mask: bool) -> None:
    """Numbers outside a known space; ``mask`` says whether they are those of masks of one object."""
    outside = sorted(space.unmapped(np.array([*used] or [0])))
    numbers = set(used)
    if mask and (outside or space.unknown == 255) and 255 not in space.remap:
        advice.options["remap"] = {255: 1}
        if space.num_classes < 2:
            advice.options["num_classes"] = 2
        advice.why.append("255 marks the object in a mask of 0 and 255.")
        return
    if not outside:
        return
    if off_by_one(numbers, space):
        advice.options["remap"] = {number: number - 1 for number in range(1, space.num_classes + 1)}
        advice.why.append(f"The ids are 1 to {space.num_classes} and never 0: each counts one too many.")
        return
    count = space.num_classes
    either_way = one_too_high(numbers, space) and used[count] >= _MISSING_CLASS * used.total()
    unlabelled = free_number(space)
    shifted = {0: unlabelled, **{number: number - 1 for number in range(1, count + 1)}}
    # Names that are as many as the ids without 0 are rarely one too few: lists of classes seldom name "unlabelled".
    if either_way and numbers - {unlabelled} == set(range(count + 1)):
        if space.unknown is None:
            advice.options["unknown"] = unlabelled
        advice.options["remap"] = shifted
        advice.why += [
            f"The ids are 0 to {count} for {count} names: 0 is taken for unlabelled, all others for one too high.",
            f"If 0 is a class, and the name of {count} is missing: num_classes: {count + 1}, without this remap.",
        ]
        return
    if either_way:
        advice.why.append(f"If 0 is unlabelled and the ids are one too high: unknown: {unlabelled}, remap: {shifted}")
    # An id that follows on the last class is one more class; any other is probably no class at all.
    while count in outside and used[count] >= _MISSING_CLASS * used.total() and count != space.unknown:
        count += 1
    if count > space.num_classes:
        advice.options["num_classes"] = count
        advice.why.append(
            f"Ids {space.num_classes} to {count - 1} follow on the last class: name them in classes.json."
        )
        outside = [number for number in outside if number >= count]
    unknown = space.unknown
    if outside and unknown is None:
        unknown = next((n for n in (255, 65535) if n >= count and (n in outside or n not in used)), None)
        advice.options["unknown"] = unknown
    strays = [number for number in outside if number != unknown]
    if strays:
        advice.options["remap"] = dict.fromkeys(strays, unknown)
        listed = ", ".join(map(str, strays[:5])) + (" ..." if len(strays) > 5 else "")
        advice.why.append(f"Pixels of {listed} become unknown; map them to a class instead if they are one.")


def _colors(advice: Advice, space: LabelSpace, colors: Counter[int], named: bool) -> None:
    """Colours that a known space does not have; ``named`` says whether any of its classes were found."""
    unknown_color = pack(space.unknown_color)
    strange = sorted(colors)
    if unknown_color in colors and space.unknown is None and "unknown" not in advice.options:
        advice.options["unknown"] = next(n for n in (255, 65535) if n >= space.num_classes)
        advice.why.append(f"{space.unknown_color} is the colour of unknown pixels.")
        strange.remove(unknown_color)
    if strange:
        known = [pack(color) for color in space.colors]
        _palette(advice, [*known, *strange] if named else strange)
        advice.options["num_classes"] = len(advice.options["palette"])


def _palette(advice: Advice, colors: list[int], named: bool = True) -> None:
    advice.options["palette"] = [list(unpacked(color)) for color in colors]
    advice.why.append("The order of the palette says which colour is which class: put it in the order of your names.")
    if not named:
        advice.why.append("The names (class 0, ...) are made up: name the classes in classes.json.")
        if 0 in colors:
            advice.why.append(
                f"Black is class {colors.index(0)} here, and often means unlabelled: then leave it out of the palette "
                "and of num_classes, and set unknown: 255."
            )


def pack(color: tuple[int, int, int]) -> int:
    r, g, b = color
    return r << 16 | g << 8 | b

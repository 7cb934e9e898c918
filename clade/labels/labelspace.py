"""Which ids a label file may hold, what they are called, and how they look."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from clade.errors import LabelError

Color = tuple[int, int, int]

_TABLE_SIZE = 1 << 16  # ids up to 16 bits go through a table; larger ones are never valid


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """The classes of a dataset.

    Inside the library a pixel's id is its row in the class tables: ``0 .. num_classes - 1``, and ``num_classes`` for
    unknown pixels where the space has an unknown class. Files may write other numbers: ``remap`` renames them first,
    then ``unknown`` (255, say) becomes the last row. Nothing is clamped; any other number is an error.

    Args:
        names: one name per class; their count is ``num_classes``.
        colors: one (r, g, b) per class, each 0..255; made up (distinct and fixed) when left out.
        unknown: the number that label files use for unlabelled pixels, or None where every pixel has a class.
        unknown_color: its (r, g, b).
        remap: number in the file -> number to read it as (a class id, or ``unknown``).

    Raises:
        LabelError: no class, colours that do not match the names or are no colours, a remap target outside the space.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...] = ()
    unknown: int | None = None
    unknown_color: Color = (0, 0, 0)
    remap: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.names:
            raise LabelError("A label space needs at least one class; 'names' is empty.")
        if len(self.names) >= _TABLE_SIZE:
            raise LabelError(f"{len(self.names)} classes came; at most {_TABLE_SIZE - 1} fit into 16-bit label files.")
        set_ = object.__setattr__
        set_(self, "names", tuple(str(name) for name in self.names))
        colors = self.colors or distinct_colors(len(self.names))
        set_(self, "colors", tuple(_color(color) for color in colors))
        set_(self, "unknown_color", _color(self.unknown_color))
        try:
            set_(self, "unknown", None if self.unknown is None else _whole(self.unknown))
            set_(self, "remap", {_whole(source): _whole(target) for source, target in dict(self.remap).items()})
        except (TypeError, ValueError) as error:
            raise LabelError(f"'unknown' and 'remap' hold whole numbers, got {self.unknown}, {self.remap}.") from error
        if len(self.colors) != len(self.names):
            raise LabelError(
                f"{len(self.colors)} colours came for {len(self.names)} names. Give one (r, g, b) per name, or none."
            )
        outside = [n for n in (self.unknown, *self.remap) if n is not None and not 0 <= n < _TABLE_SIZE]
        if outside:
            raise LabelError(f"'unknown' or 'remap' names {outside[0]}, but files hold 0..{_TABLE_SIZE - 1}.")
        if self.unknown is not None and self.unknown < self.num_classes:
            raise LabelError(
                f"'unknown' is {self.unknown}, which is also the class '{self.names[self.unknown]}'. "
                f"Use a number outside 0..{self.num_classes - 1}, or shift the classes with 'remap'."
            )
        wrong = [t for t in self.remap.values() if not 0 <= t < self.num_classes and t != self.unknown]
        if wrong:
            raise LabelError(f"remap leads to {wrong[0]}, but the label space has {self._extent()}.")

    @property
    def num_classes(self) -> int:
        """Number of classes, without the unknown one."""
        return len(self.names)

    @property
    def unknown_class(self) -> bool:
        """Whether unlabelled pixels have a class of their own, the last."""
        return self.unknown is not None

    @property
    def num_rows(self) -> int:
        """Number of ids inside the library: the classes, and one more for unknown pixels."""
        return self.num_classes + self.unknown_class

    @classmethod
    def numbered(cls, num_classes: int, unknown: int | None = None) -> LabelSpace:
        """A space whose classes are only known by number."""
        if num_classes < 1:
            raise LabelError(f"num_classes is {num_classes}; at least 1 is needed.")
        return cls(names=tuple(f"class {k}" for k in range(num_classes)), unknown=unknown)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], source: str = "label space") -> LabelSpace:
        """From the keys of a ``classes.json``: names, colors, unknown (or ignore), unknown_color, remap.

        ``names`` is a list, or a mapping id -> name without gaps. Other keys (licence, source) are left alone.
        """
        if not isinstance(value, Mapping) or "names" not in value:
            raise LabelError(f"{source}: a label space is a mapping with at least the key 'names' (a list of classes).")
        names = value["names"]
        try:
            if isinstance(names, Mapping):
                numbered = {int(k): v for k, v in names.items()}
                if sorted(numbered) != list(range(len(numbered))):
                    raise LabelError("the ids of 'names' have gaps; number the classes 0, 1, 2, ...")
                names = [numbered[k] for k in range(len(numbered))]
            if isinstance(names, str) or not isinstance(names, Sequence):
                raise LabelError(f"'names' is {type(names).__name__}, needed is a list of class names.")
            unknown_color = value.get("unknown_color", value.get("ignore_color")) or (0, 0, 0)
            return cls(
                names=tuple(names),
                colors=tuple(value.get("colors") or ()),
                unknown=value.get("unknown", value.get("ignore")),
                unknown_color=unknown_color,
                remap=value.get("remap") or {},
            )
        except (LabelError, TypeError, ValueError) as error:
            raise LabelError(f"{source}: {error}") from error

    @classmethod
    def from_json(cls, path: str | Path) -> LabelSpace:
        """Read a ``classes.json``."""
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise LabelError(f"{path}: not readable as JSON ({error}).") from error
        return cls.from_dict(value, source=str(path))

    def to_dict(self) -> dict[str, Any]:
        """Plain values; ``LabelSpace.from_dict`` reads them back."""
        value = asdict(self)
        value["remap"] = {str(source): target for source, target in self.remap.items()}
        return value

    def encode(self, raw: np.ndarray, source: str = "label map") -> np.ndarray:
        """Numbers as a file holds them -> ids in ``[0, num_rows)``.

        Args:
            raw: integers of any shape.
            source: what to call the map in an error, normally its path.

        Returns:
            uint8 where that is enough, else int32; same shape.

        Raises:
            LabelError: a number outside the space, with its pixel count and the cure.
        """
        if raw.size == 0:
            raise LabelError(f"{source}: the label map is empty (shape {raw.shape}).")
        if not np.issubdtype(raw.dtype, np.integer):
            raise LabelError(
                f"{source}: labels must be whole numbers, got {raw.dtype}. Cast the ids to an integer type."
            )
        low, high = int(raw.min()), int(raw.max())
        if low < 0 or high >= _TABLE_SIZE:
            raise self._outside(raw, source)
        ids = self._table[raw]
        if ids.min() < 0:
            raise self._outside(raw, source)
        return ids.astype(np.uint8 if self.num_rows <= 256 else np.int32)

    def unmapped(self, raw: np.ndarray) -> dict[int, int]:
        """Numbers in ``raw`` that the space does not know -> their pixel counts."""
        values, counts = np.unique(raw, return_counts=True)
        return {
            int(value): int(count)
            for value, count in zip(values, counts, strict=True)
            if not (0 <= value < _TABLE_SIZE and self._table[value] >= 0)
        }

    def decode_colors(self, rgb: np.ndarray, source: str = "label map") -> np.ndarray:
        """A colour-coded map (H, W, 3) uint8 -> ids (H, W) in ``[0, num_rows)``, by exact colour.

        Raises:
            LabelError: colours that belong to no class, or two classes of one colour.
        """
        palette = [*self.colors, self.unknown_color] if self.unknown_class else list(self.colors)
        keys = _pack(np.array(palette, np.uint8))
        if len(set(keys.tolist())) < len(keys):
            raise LabelError(f"{source}: colours cannot be read as classes, because two classes share one colour.")
        order = np.argsort(keys)
        pixels = _pack(rgb)
        at = np.searchsorted(keys[order], pixels).clip(max=len(keys) - 1)
        ids = order[at]
        wrong = keys[ids] != pixels
        if wrong.any():
            values, counts = np.unique(pixels[wrong], return_counts=True)
            worst = np.argsort(-counts)[:5]
            listed = ", ".join(
                f"({v >> 16}, {v >> 8 & 255}, {v & 255}): {c}"
                for v, c in zip(values[worst], counts[worst], strict=True)
            )
            raise LabelError(
                f"{source}: {int(counts.sum())} pixels in {len(values)} colours belong to no class ({listed} pixels). "
                "A colour-coded label map needs 'colors' in classes.json that match exactly, and must never have been "
                f"a JPEG or resized smoothly.{self._of_numbers()}"
            )
        return ids.astype(np.uint8 if self.num_rows <= 256 else np.int32)

    def colorize(self, ids: np.ndarray) -> np.ndarray:
        """ids in ``[0, num_rows)``, any shape -> their colours, (..., 3) uint8."""
        return np.array([*self.colors, self.unknown_color], np.uint8)[np.asarray(ids)]

    def name(self, row: int) -> str:
        """Name of an id inside the library."""
        return self.names[row] if row < self.num_classes else "unknown"

    @cached_property
    def _table(self) -> np.ndarray:
        table = np.full(_TABLE_SIZE, -1, np.int32)
        table[: self.num_classes] = np.arange(self.num_classes)
        if self.unknown is not None:
            table[self.unknown] = self.num_classes
        for source, target in self.remap.items():
            table[source] = self.num_classes if target == self.unknown else target
        return table

    def _of_numbers(self) -> str:
        """What else may be wrong with colours where classes are other ones than in the files."""
        if not self.remap:
            return ""
        return (
            " Here numbers of the files are read as others (data.remap or data.merge), and colours are those of the "
            "classes after that: save label maps with the files' own numbers, as one channel or a palette."
        )

    def _extent(self) -> str:
        unknown = "no unknown class" if self.unknown is None else f"unknown = {self.unknown}"
        return f"{self.num_classes} classes (0..{self.num_classes - 1}) and {unknown}"

    def _outside(self, raw: np.ndarray, source: str) -> LabelError:
        return outside_error(source, self.unmapped(raw), self._extent())


class OutsideError(LabelError):
    """Ids outside a label space. ``facts`` says which, without a cure, for callers that know a better one."""

    def __init__(self, facts: str, cure: str) -> None:
        super().__init__(f"{facts} {cure}")
        self.facts = facts

    def __reduce__(self) -> tuple[Any, ...]:  # loader processes send errors to the main one
        return (_rebuilt, (str(self), self.facts))


def _rebuilt(message: str, facts: str) -> OutsideError:
    return OutsideError(facts, message.removeprefix(facts).strip())


def outside_error(source: str, counts: Mapping[int, int], extent: str, cure: str | None = None) -> OutsideError:
    """The error for ids outside a label space; ``counts`` is id -> pixels, ``cure`` what to do but for files."""
    worst = sorted(counts.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{pixels} pixels have class {value}" for value, pixels in worst[:5])
    more = f", and {len(worst) - 5} more ids" if len(worst) > 5 else ""
    return OutsideError(
        f"{source}: {listed}{more}, but the label space has {extent}.",
        cure
        or f"Set data.num_classes or data.unknown, or map {worst[0][0]} in data.remap. "
        "`clade data check DIR` lists every such file.",
    )


def distinct_colors(count: int) -> tuple[Color, ...]:
    """``count`` fixed colours that are easy to tell apart, by steps of the golden angle in hue."""
    colors = []
    for k in range(count):
        value, saturation = (0.95, 0.70, 0.80)[k % 3], (0.65, 0.85, 0.45)[k // 3 % 3]
        r, g, b = colorsys.hsv_to_rgb(k * 0.618033988749895 % 1.0, saturation, value)
        colors.append((round(r * 255), round(g * 255), round(b * 255)))
    return tuple(colors)


def _pack(rgb: np.ndarray) -> np.ndarray:
    wide = rgb.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _whole(value: Any) -> int:
    """int, also of "7" and of 7.0 as JSON may have them; raises ValueError for 7.5 and infinity."""
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"{value} is not a whole number")
    return int(value)


def _color(value: Iterable[int]) -> Color:
    try:
        r, g, b = (_whole(channel) for channel in value)
    except (TypeError, ValueError) as error:
        raise LabelError(f"A colour is three whole numbers (r, g, b), got {value!r}.") from error
    if not all(0 <= channel <= 255 for channel in (r, g, b)):
        raise LabelError(f"A colour's numbers lie in 0..255, got {value!r}.")
    return (r, g, b)

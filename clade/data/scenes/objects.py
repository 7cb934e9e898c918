"""The canvas of the built-in scenes and the single objects drawn on it.

Every position is relative: x runs from 0 (left) to 1 (right), y from 0 (top) to 1 (bottom). Inside an object, u runs
from -1 (left) to 1 (right) and v from 0 (its foot) to 1 (its top). Light always comes from the left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

SKY, CLOUD, MOUNTAIN, TREE, GRASS, WATER, ROAD, PAVEMENT, BUILDING, WINDOW, CAR, PERSON = range(12)
UNKNOWN = 255

T = TypeVar("T")


class Dice:
    """Random numbers of one scene.

    Only ``Generator.random`` is used: numpy may change the streams of the derived distributions between versions.
    """

    def __init__(self, seed: int, index: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64((seed, index)))

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self._generator.random()

    def integer(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return low + int(self._generator.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self._generator.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._generator.random() * len(options))]

    def field(self, *shape: int) -> np.ndarray:
        """Independent values in [-1, 1)."""
        return 2 * self._generator.random(shape) - 1

    def color(self, palette: Sequence[tuple[int, int, int]], spread: float = 0.05) -> np.ndarray:
        """A colour of the palette, a little darker or brighter."""
        return rgb(*self.pick(palette)) * self.uniform(1 - spread, 1 + spread)


def rgb(red: float, green: float, blue: float) -> np.ndarray:
    """A colour that broadcasts over the channel-first image, (3, 1, 1)."""
    return np.array((red, green, blue), dtype=np.float64).reshape(3, 1, 1)


def mix(first: np.ndarray, second: np.ndarray, amount: np.ndarray | float) -> np.ndarray:
    """``first`` where amount is 0, ``second`` where it is 1."""
    return first + (second - first) * amount


def value_noise(lattice: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear interpolation of a lattice that spans the whole picture, (height, width)."""
    rows, columns = lattice.shape
    top, down = np.divmod(y.ravel() * (rows - 1), 1)
    left, right = np.divmod(x.ravel() * (columns - 1), 1)
    i, j = top.astype(np.intp), left.astype(np.intp)
    lines = mix(lattice[i], lattice[i + 1], down[:, None])
    return mix(lines[:, j], lines[:, j + 1], right)


@dataclass
class Patch:
    """A rectangle of the canvas: views to paint into and the coordinates of its pixel centres."""

    x: np.ndarray
    y: np.ndarray
    image: np.ndarray
    ids: np.ndarray
    instances: np.ndarray
    grain: np.ndarray

    def paint(self, mask: np.ndarray | bool, color: np.ndarray, kind: int, number: np.ndarray | int = 0) -> None:
        """Write colour, class and instance number where the mask holds, so that the three cannot disagree."""
        np.copyto(self.image, color, where=mask, casting="same_kind")
        self.label(mask, kind, number)

    def label(self, mask: np.ndarray | bool, kind: int, number: np.ndarray | int = 0) -> None:
        np.copyto(self.ids, kind, where=mask, casting="unsafe")
        np.copyto(self.instances, number, where=mask, casting="unsafe")

    def shade(self, mask: np.ndarray, factor: np.ndarray | float) -> None:
        """Darken or brighten what is already there; its class stays."""
        np.multiply(self.image, factor, out=self.image, where=mask, casting="same_kind")


class Canvas:
    """Image (3, height, width) in 0..255, class ids and instance numbers, painted from back to front."""

    def __init__(self, height: int, width: int, dice: Dice) -> None:
        self.height, self.width = height, width
        self.x = ((np.arange(width) + 0.5) / width)[None, :]
        self.y = ((np.arange(height) + 0.5) / height)[:, None]
        self.image = np.zeros((3, height, width), dtype=np.float32)
        self.ids = np.full((height, width), UNKNOWN, dtype=np.uint8)
        self.instances = np.zeros((height, width), dtype=np.int32)
        self.grain = value_noise(dice.field(56, 56), self.x, self.y)
        self._last_number = 0

    def numbers(self, count: int = 1) -> int:
        """Reserve instance numbers; returns the first."""
        first = self._last_number + 1
        self._last_number += count
        return first

    def patch(self, left: float, top: float, right: float, bottom: float) -> Patch:
        """The part of the rectangle that lies on the canvas, perhaps empty."""
        rows = slice(
            _clip(math.floor(top * self.height), self.height), _clip(math.ceil(bottom * self.height), self.height)
        )
        columns = slice(
            _clip(math.floor(left * self.width), self.width), _clip(math.ceil(right * self.width), self.width)
        )
        return Patch(
            x=self.x[:, columns],
            y=self.y[rows],
            image=self.image[:, rows, columns],
            ids=self.ids[rows, columns],
            instances=self.instances[rows, columns],
            grain=self.grain[rows, columns],
        )

    def rim(self, patch: Patch, mask: np.ndarray) -> None:
        """Leave a thin band around an object unlabelled, as annotators do."""
        grown = mask.copy()
        down, across = round(self.height / 128), round(self.width / 128)
        if 0 < down < mask.shape[0]:
            grown[down:] |= mask[:-down]
            grown[:-down] |= mask[down:]
        if 0 < across < mask.shape[1]:
            grown[:, across:] |= mask[:, :-across]
            grown[:, :-across] |= mask[:, across:]
        patch.label(grown & ~mask, UNKNOWN)


def _clip(position: int, size: int) -> int:
    return min(max(position, 0), size)


def ground_shadow(canvas: Canvas, x: float, base: float, width: float, height: float) -> None:
    """An ellipse of shade under an object, a little to the right because the light comes from the left."""
    patch = canvas.patch(x - width, base - height, x + width, base + height)
    distance = ((patch.x - x - 0.12 * width) / width) ** 2 + ((patch.y - base) / height) ** 2
    patch.shade(distance < 1, 0.62 + 0.38 * np.minimum(distance, 1) ** 2)


def cloud(canvas: Canvas, dice: Dice, x: float, y: float, width: float) -> None:
    """A heap of lumps over a flat bottom: white on top, blue-grey below."""
    height = 0.42 * width
    patch = canvas.patch(x - 0.6 * width, y - 1.2 * height, x + 0.6 * width, y)
    u, v = (patch.x - x) / (width / 2), (y - patch.y) / height
    mask = np.zeros((v.shape[0], u.shape[1]), dtype=bool)
    for place in (-0.62, -0.25, 0.12, 0.45, 0.75):
        radius = dice.uniform(0.35, 0.5) * (1.15 - 0.55 * abs(place))
        rise = dice.uniform(0.05, 0.32) * (1 - abs(place))
        mask |= ((u - place) / radius) ** 2 + ((v - rise) / (1.35 * radius)) ** 2 + 0.12 * patch.grain < 1
    mask &= v > 0.04
    light = np.clip(0.15 + 1.15 * v - 0.15 * u + 0.12 * patch.grain, 0, 1)
    patch.paint(mask, mix(rgb(172, 186, 208), rgb(252, 252, 250), light), CLOUD)


LEAVES = ((72, 126, 52), (88, 136, 50), (60, 112, 58), (122, 132, 48))
CROWN = ((0.0, 0.8), (-0.15, 0.68), (0.15, 0.67), (-0.1, 0.53), (0.1, 0.52), (0.0, 0.64))
BARK = rgb(98, 72, 50)


def broadleaf(canvas: Canvas, dice: Dice, x: float, base: float, height: float, rim: bool = False) -> None:
    """A trunk under a lumpy crown that is bright at the top left and dark at the bottom right."""
    leaf = dice.color(LEAVES)
    lumps = [(a + dice.uniform(-0.03, 0.03), b + dice.uniform(-0.03, 0.03), dice.uniform(0.15, 0.19)) for a, b in CROWN]
    patch = canvas.patch(x - 0.45 * height, base - 1.03 * height, x + 0.45 * height, base)
    a, v = (patch.x - x) / height, (base - patch.y) / height
    trunk = (np.abs(a) < 0.035 + 0.03 * (v < 0.03)) & (v < 0.55)
    inside = np.full((v.shape[0], a.shape[1]), -1.0)
    for left, up, radius in lumps:
        np.maximum(inside, 1 - ((a - left) ** 2 + (v - up) ** 2) / radius**2, out=inside)
    crown = inside + 0.3 * patch.grain > 0
    number = canvas.numbers()
    if rim:
        canvas.rim(patch, trunk | crown)
    ground = BARK * np.clip(1 - 5 * a, 0.65, 1.25)
    light = 0.92 + 1.3 * (v - 0.66) - 0.9 * a + 0.2 * patch.grain + 0.12 * inside
    patch.paint(trunk, ground, TREE, number)
    patch.paint(crown, leaf * np.clip(light, 0.42, 1.6), TREE, number)


def treeline(canvas: Canvas, dice: Dice, base: float, height: float) -> None:
    """A distant wood, one instance."""
    lumps = dice.field(40)
    patch = canvas.patch(0, base - 1.6 * height, 1, base)
    level = (base - patch.y) / height
    top = 1 + 0.35 * np.interp(patch.x, np.linspace(0, 1, 40), lumps) + 0.2 * patch.grain
    patch.paint(
        level < top,
        rgb(70, 108, 70) * np.clip(0.6 + 0.5 * level + 0.15 * patch.grain, 0.5, 1.3),
        TREE,
        canvas.numbers(),
    )


NEEDLES = ((44, 92, 62), (52, 100, 58), (40, 82, 66))


def conifer(canvas: Canvas, dice: Dice, x: float, base: float, height: float) -> None:
    """A fir: tiers of branches, each dark under the tier above."""
    needle, tiers = dice.color(NEEDLES), dice.integer(4, 5)
    patch = canvas.patch(x - 0.3 * height, base - height, x + 0.3 * height, base)
    a, v = (patch.x - x) / height, (base - patch.y) / height
    in_tier = ((1 - v) * tiers) % 1
    # Never thinner than a pixel of a small picture, or the tip breaks into dots.
    reach = np.maximum((1 - v) * 0.2 + 0.09 * in_tier * (1.2 - v), 0.014)
    crown = (np.abs(a) < reach * (1 + 0.15 * patch.grain)) & (v > 0.1)
    trunk = (np.abs(a) < 0.03) & (v < 0.12)
    number = canvas.numbers()
    light = 0.68 + 0.42 * in_tier + 0.3 * v - 1.5 * a + 0.12 * patch.grain
    patch.paint(trunk, BARK * np.clip(1 - 6 * a, 0.6, 1.2), TREE, number)
    patch.paint(crown, needle * np.clip(light, 0.45, 1.6), TREE, number)


PAINTS = ((190, 44, 40), (44, 86, 158), (226, 226, 222), (70, 74, 82), (222, 172, 52), (58, 122, 92))


def car(canvas: Canvas, dice: Dice, x: float, base: float, width: float, coming: bool, rim: bool = False) -> None:
    """A car from the front or the back: wheels at the bottom corners, a windscreen in the upper half, lamps."""
    paint, height = dice.color(PAINTS), 0.82 * width
    patch = canvas.patch(x - 0.55 * width, base - 1.04 * height, x + 0.55 * width, base + 0.02 * height)
    u, v = (patch.x - x) / (width / 2), (base - patch.y) / height
    side = np.abs(u)
    cabin_side = 0.84 - 0.42 * (v - 0.55)
    body = (v > 0.13) & (v < 0.6) & (side < 0.98 - 1.2 * np.maximum(v - 0.5, 0))
    cabin = (v >= 0.55) & (v < 1) & (side < cabin_side - 4 * np.maximum(v - 0.94, 0))
    wheels = (v >= 0) & (v < 0.24) & (side > 0.6) & (side < 0.95)
    screen = (v > 0.6) & (v < 0.9) & (side < cabin_side - 0.1)
    lamps = (v > 0.36) & (v < 0.5) & (side > 0.66) & (side < 0.94)
    plate = (v > 0.25) & (v < 0.35) & (side < 0.22)

    color = paint * np.clip((0.62 + 0.55 * v) * (1 - 0.16 * u) + 0.22 * (v > 0.94), 0.4, 1.35)
    np.copyto(color, paint * 0.45, where=(v < 0.24) & (side < 0.98))
    np.copyto(color, rgb(34, 34, 38) * (1 + 0.8 * (v > 0.16)), where=wheels)
    glass = mix(rgb(36, 48, 62), rgb(150, 178, 200), np.clip(0.1 + 0.9 * (v - 0.6) - 0.35 * u, 0, 1))
    np.copyto(color, glass, where=screen)
    np.copyto(color, rgb(255, 240, 190) if coming else rgb(226, 40, 30), where=lamps)
    np.copyto(color, rgb(236, 236, 226), where=plate)
    silhouette = body | cabin | wheels
    if rim:
        canvas.rim(patch, silhouette)
    patch.paint(silhouette, color, CAR, canvas.numbers())


SKIN = ((232, 186, 150), (198, 144, 108), (136, 92, 66))
SHIRTS = ((206, 62, 54), (58, 108, 178), (236, 196, 72), (88, 150, 92), (226, 222, 214))
TROUSERS = ((44, 50, 74), (62, 54, 50), (36, 38, 44))


def person(canvas: Canvas, dice: Dice, x: float, base: float, height: float, rim: bool = False) -> None:
    """Head with hair, coloured torso with arms, dark legs."""
    skin, shirt, trousers = dice.color(SKIN), dice.color(SHIRTS), dice.color(TROUSERS)
    stride = dice.uniform(0.02, 0.07)
    patch = canvas.patch(x - 0.24 * height, base - 1.04 * height, x + 0.24 * height, base + 0.02 * height)
    a, v = (patch.x - x) / height, (base - patch.y) / height
    side = np.abs(a)
    head = a**2 + ((v - 0.9) * 0.85) ** 2 < 0.078**2
    torso = (v > 0.46) & (v < 0.82) & (side < 0.125 - 0.5 * np.maximum(v - 0.77, 0))
    arms = (v > 0.44) & (v < 0.79) & (np.abs(side - 0.15 - 0.05 * (0.79 - v)) < 0.032)
    legs = (v >= 0) & (v <= 0.47) & (np.abs(side - 0.06 - stride * (0.47 - v)) < 0.05)
    limbs = arms | legs

    color = np.broadcast_to(shirt, (3, v.shape[0], a.shape[1])) * np.clip(1.02 - 1.6 * a, 0.65, 1.25)
    np.copyto(color, color * 0.8, where=arms & ~torso)
    np.copyto(color, trousers * np.clip(1.1 - 2 * a, 0.7, 1.4), where=(v <= 0.48))
    np.copyto(color, rgb(28, 24, 24), where=(v < 0.05) & (side < 1))
    np.copyto(color, skin * np.clip(1.02 - 2 * a, 0.75, 1.15), where=head | (arms & (v < 0.5) & ~torso))
    np.copyto(color, rgb(62, 44, 34), where=head & (v > 0.925))
    silhouette = head | torso | limbs
    if rim:
        canvas.rim(patch, silhouette)
    patch.paint(silhouette, color, PERSON, canvas.numbers())


def sign(canvas: Canvas, dice: Dice, x: float, base: float, height: float) -> None:
    """A traffic sign on a pole: in the picture, but of no class."""
    board = dice.color(((40, 90, 180), (200, 40, 36), (240, 200, 60)))
    patch = canvas.patch(x - 0.2 * height, base - height, x + 0.2 * height, base)
    a, v = (patch.x - x) / height, (base - patch.y) / height
    distance = a**2 + (v - 0.86) ** 2
    patch.paint((np.abs(a) < 0.02) & (v < 0.8), rgb(128, 130, 134) * (1 - 8 * a), UNKNOWN)
    patch.paint(distance < 0.13**2, np.where(distance < 0.09**2, board, rgb(244, 244, 240)), UNKNOWN)


@dataclass
class Plan:
    """What varies between house fronts: the grid of windows, the column of the door, the light that falls on it."""

    floors: int
    columns: int
    door: int
    light: float
    mirrored: int = 1


def wall(
    canvas: Canvas, patch: Patch, u: np.ndarray, v: np.ndarray, paint: np.ndarray, plan: Plan, number: int
) -> None:
    """A house front; u in [0, 1) runs along it, v from 0 at the street to 1 under the roof."""
    mask = (u >= 0) & (u < 1) & (v >= 0) & (v < 1)
    across, up = u * plan.columns, v * plan.floors
    storey, column = np.floor(up), np.floor(across)
    in_storey, in_column = up - storey, across - column - 0.5
    ground, aside, middle = storey < 1, np.abs(in_column), np.abs(in_storey - 0.5)
    doorway = ground & (column == plan.door)

    light = (0.84 + 0.22 * v) * np.where(v > 0.965, 0.72, 1) * np.where(in_storey < 0.07, 0.86, 1)
    light = light * np.where(ground, 0.7, 1) * np.where(np.minimum(u, 1 - u) < 0.02, 0.85, 1)
    np.copyto(light, 0.38, where=doorway & (aside < 0.22) & (in_storey < 0.72))

    half = np.where(ground, 0.4, 0.29)
    pane = mask & ~doorway & (aside < half) & (middle < 0.27) & (v < 0.96)
    frame = (half - aside < 0.06) | (middle > 0.22) | ((aside < 0.035) & ~ground)
    gloss = 0.1 + 0.75 * (in_storey - 0.2) - 0.5 * in_column * plan.mirrored
    glass = mix(rgb(44, 60, 84), rgb(166, 198, 222), np.clip(gloss, 0, 1)) * (0.75 + 0.25 * plan.light)
    color = np.where(pane & ~frame, glass, paint * np.where(pane, 1.25, light))

    patch.paint(mask, color, BUILDING, number)
    first = canvas.numbers(plan.columns * plan.floors)
    patch.label(pane, WINDOW, first + column + plan.columns * storey)

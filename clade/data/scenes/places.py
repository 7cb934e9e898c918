"""Compositions of the built-in scenes: a street in perspective and an open landscape, each from back to front."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from clade.data.scenes.objects import (
    BUILDING,
    GRASS,
    MOUNTAIN,
    PAVEMENT,
    ROAD,
    SKY,
    UNKNOWN,
    WATER,
    Canvas,
    Dice,
    Patch,
    Plan,
    broadleaf,
    car,
    cloud,
    conifer,
    ground_shadow,
    mix,
    person,
    rgb,
    sign,
    treeline,
    value_noise,
    wall,
)

WALLS = ((214, 186, 142), (186, 96, 74), (222, 214, 200), (168, 148, 126), (150, 164, 176), (226, 196, 110))
ROOFS = ((140, 62, 48), (92, 74, 70), (110, 66, 52))
ROCKS = ((122, 124, 144), (138, 122, 112), (110, 120, 138))
SKIES = (((58, 120, 206), (200, 224, 242)), ((74, 134, 210), (226, 230, 228)), ((50, 104, 188), (190, 216, 240)))


@dataclass
class View:
    """Where the eye is: a ground point at scale s (1 at the bottom edge, 0 at the horizon) and offset X appears at

    x = vanish + X s,   y = horizon + (1 - horizon) s,

    and a point h eye heights above it at y - h (1 - horizon) s. The road ends at |X| = road, the pavement at
    |X| = kerb.
    """

    horizon: float
    vanish: float
    road: float
    kerb: float

    def at(self, scale: float, offset: float) -> tuple[float, float]:
        return self.vanish + offset * scale, self.horizon + (1 - self.horizon) * scale

    def tall(self, scale: float, heights: float) -> float:
        return heights * (1 - self.horizon) * scale


def sky(canvas: Canvas, dice: Dice, horizon: float) -> None:
    """Deep blue at the top, pale at the horizon, with some clouds."""
    deep, pale = dice.pick(SKIES)
    patch = canvas.patch(0, 0, 1, 1)
    fade = np.clip(patch.y / horizon, 0, 1) ** 0.8
    patch.paint(True, mix(rgb(*deep), rgb(*pale), fade), SKY)
    for _ in range(dice.integer(0, 4)):
        low = dice.uniform(0.12, 0.72)
        cloud(canvas, dice, dice.uniform(0, 1), low * horizon, dice.uniform(0.38, 0.55) * (1.15 - low))


def _ridge(dice: Dice) -> np.ndarray:
    """65 heights of a fractal mountain line in about [0, 1], by midpoint displacement."""
    line, spread = 0.5 + 0.4 * dice.field(5), 0.3
    while line.size < 65:
        middle = (line[1:] + line[:-1]) / 2 + spread * dice.field(line.size - 1)
        line = np.insert(line, np.arange(1, line.size), middle)
        spread /= 2
    return np.clip(line, 0.05, 1)


def mountains(canvas: Canvas, dice: Dice, base: float, height: float, rock: np.ndarray, haze: float) -> None:
    """A ridge with facets lit from the left, snow on what is high, and haze towards its foot."""
    line, snow = _ridge(dice), dice.uniform(0.16, 0.22) / height
    patch = canvas.patch(0, base - height, 1, base)
    knots = np.linspace(0, 1, line.size)
    level = (base - patch.y) / height
    # Facets run down and away from the ridge: each pixel takes the slope of the line above it, moved sideways.
    above = np.interp(patch.x, knots, line)
    foot = np.interp(patch.x + 0.25 * (above - level) + 0.015 * patch.grain, knots, line)
    ahead = np.interp(patch.x + 0.25 * (above - level) + 0.015 * patch.grain + 0.03, knots, line)
    light = np.clip(0.95 + 1.8 * (ahead - foot), 0.62, 1.25)
    snowy = level > snow + 0.09 * patch.grain + 0.1 * (light < 0.9)
    color = np.where(snowy, rgb(240, 244, 250), rock) * light
    color = mix(color, rgb(196, 214, 230), haze * (1 - np.clip(level, 0, 1)))
    patch.paint(level < above, color, MOUNTAIN)


def grass(patch: Patch, mask: np.ndarray | bool, near: np.ndarray) -> None:
    """Brighter towards the viewer (near: 0 at the horizon, 1 at the bottom edge), with tufts."""
    color = mix(rgb(78, 118, 58), rgb(128, 184, 70), near)
    patch.paint(mask, color * (1 + (0.05 + 0.13 * near) * patch.grain), GRASS)


def facade(canvas: Canvas, view: View, side: int, depth: tuple[float, float], plan: Plan, paint: np.ndarray) -> None:
    """A house between two depths on one side of the street (-1 left, 1 right), with its end wall facing the viewer."""
    near, far = 1 / depth[0], 1 / depth[1]
    height, number = 0.98 * plan.floors, canvas.numbers()
    (x_near, foot), (x_far, _) = view.at(near, side * view.kerb), view.at(far, side * view.kerb)
    top = foot - view.tall(near, height)

    outside = x_near + side * 1.2 * near
    end = canvas.patch(min(x_near, outside), top, max(x_near, outside), foot)
    level = (foot - end.y) / (foot - top)
    covered = (side * (end.x - x_near) > 0) & (level > 0) & (level < 1)
    end.paint(covered, paint * (0.72 + 0.12 * level) * np.where(level > 0.965, 0.75, 1), BUILDING, number)

    patch = canvas.patch(min(x_near, x_far), top, max(x_near, x_far), foot)
    # Along the front the depth is 1 / scale, so that windows shrink and crowd with distance.
    scale = np.maximum(side * (patch.x - view.vanish) / view.kerb, 1e-6)
    u = (1 / scale - depth[0]) / (depth[1] - depth[0])
    v = (1 - (patch.y - view.horizon) / ((1 - view.horizon) * scale)) / height
    wall(canvas, patch, u, v, paint * plan.light, plan, number)


def row_of_houses(canvas: Canvas, dice: Dice, view: View, side: int) -> None:
    """Houses along one side of the street, painted from the far end to the near one."""
    edge = view.vanish if side < 0 else 1 - view.vanish
    breaks = [0.75 * view.kerb / edge]
    while breaks[-1] < 8:
        breaks.append(breaks[-1] + dice.uniform(0.8, 1.5))
    light = 0.8 if side < 0 else 1.04
    houses = []
    for depth in pairwise(breaks):
        columns = dice.integer(2, 4)
        plan = Plan(dice.integer(2, 4), columns, dice.integer(0, columns - 1), light, mirrored=-side)
        houses.append((depth, plan, dice.color(WALLS)))
    for depth, plan, paint in reversed(houses):
        facade(canvas, view, side, depth, plan, paint)


def skyline(canvas: Canvas, dice: Dice, base: float, middle: float) -> None:
    """Blocks that close the street at its far end."""
    left = middle - 0.3
    while left < middle + 0.3:
        width, height = dice.uniform(0.07, 0.13), dice.uniform(0.07, 0.19)
        plan = Plan(dice.integer(3, 5), 3, 0, 0.95)
        paint = mix(dice.color(WALLS), rgb(190, 205, 220), 0.35)
        patch = canvas.patch(left, base - height, left + width, base)
        u, v = (patch.x - left) / width, (base - patch.y) / height
        wall(canvas, patch, u, v, paint * (1.08 - 0.2 * u), plan, canvas.numbers())
        left += width


def street_ground(canvas: Canvas, dice: Dice, view: View, park: int) -> None:
    """Road with lane marks, kerbs, paving; grass behind the pavement on the park side (-1 left, 1 right, 0 none)."""
    phase = dice.uniform(0, 1)
    patch = canvas.patch(0, view.horizon, 1, 1)
    scale = np.maximum((patch.y - view.horizon) / (1 - view.horizon), 1e-3)
    offset, depth = (patch.x - view.vanish) / scale, 1 / scale
    away = np.abs(offset)

    stones = np.where(((depth * 4) % 1 < 0.14) | ((away * 11) % 1 < 0.1), 1 - 0.14 * np.minimum(2.2 * scale, 1), 1)
    stones = np.where(away < view.road + 0.03, 1.14, stones) * np.where(offset < -view.road - 0.06, 0.8, 1)
    patch.paint(True, rgb(186, 178, 168) * (0.86 + 0.16 * scale) * stones, PAVEMENT)
    if park:
        grass(patch, offset * park > view.kerb, scale)
    road = away < view.road
    mark = ((away < 0.016) & ((depth * 1.6 + phase) % 1 < 0.55)) | (np.abs(away - view.road + 0.045) < 0.01)
    rut = 1 - 0.07 * (np.abs(away - view.road / 2) < 0.12) + 0.04 * patch.grain
    asphalt = rgb(96, 98, 106) * (1.08 - 0.2 * scale) * rut
    patch.paint(road, np.where(mark, rgb(236, 234, 222), asphalt), ROAD)


def street_things(canvas: Canvas, dice: Dice, view: View, park: int) -> None:
    """Cars, people, trees and signs, the far ones first."""

    def add_car(scale: float) -> None:
        lane = dice.pick((-1, 1))
        x, base = view.at(scale, lane * view.road * dice.uniform(0.46, 0.62))
        width = 0.62 * view.road * scale
        ground_shadow(canvas, x, base, 0.6 * width, 0.09 * width)
        car(canvas, dice, x, base, width, coming=lane < 0, rim=dice.chance(0.3))

    def add_person(scale: float) -> None:
        share = dice.uniform(0.2, 0.7)
        x, base = view.at(scale, dice.pick((-1, 1)) * (view.road + share * (view.kerb - view.road)))
        stand(canvas, dice, x, base, view.tall(scale, dice.uniform(0.56, 0.66)))

    def add_tree(scale: float) -> None:
        side = dice.pick((-1, 1))
        place = 1.15 if side == park else 0.7
        x, base = view.at(scale, side * view.kerb * (place + dice.uniform(0, 0.12)))
        grow(canvas, dice, x, base, view.tall(scale, dice.uniform(1.3, 1.8)), firs=False)

    def add_sign(scale: float) -> None:
        x, base = view.at(scale, dice.pick((-1, 1)) * (view.road + 0.05))
        sign(canvas, dice, x, base, view.tall(scale, 0.85))

    things = [(scale, add_car) for scale in spread(dice, dice.integer(1, 4), 0.16, 0.85)]
    things += [(scale, add_person) for scale in spread(dice, dice.integer(1, 4), 0.25, 0.75)]
    things += [(scale, add_tree) for scale in spread(dice, dice.integer(1, 4) + 2 * abs(park), 0.16, 0.5)]
    things += [(scale, add_sign) for scale in spread(dice, dice.integer(0, 1), 0.25, 0.5)]
    for scale, add in sorted(things, key=lambda thing: thing[0]):
        add(scale)


def spread(dice: Dice, count: int, low: float, high: float) -> list[float]:
    """Random places, one in each of ``count`` equal parts of [low, high]."""
    return [low + (high - low) * (part + dice.uniform(0.1, 0.9)) / count for part in range(count)]


def stand(canvas: Canvas, dice: Dice, x: float, base: float, height: float) -> None:
    ground_shadow(canvas, x, base, 0.22 * height, 0.04 * height)
    person(canvas, dice, x, base, height, rim=dice.chance(0.25))


def grow(canvas: Canvas, dice: Dice, x: float, base: float, height: float, firs: bool) -> None:
    ground_shadow(canvas, x, base, 0.25 * height, 0.05 * height)
    if firs:
        conifer(canvas, dice, x, base, height)
    else:
        broadleaf(canvas, dice, x, base, height, rim=dice.chance(0.15))


def street(canvas: Canvas, dice: Dice) -> None:
    """A street between houses, or with a park on one side."""
    road = dice.uniform(0.42, 0.56)
    view = View(dice.uniform(0.42, 0.52), dice.uniform(0.4, 0.6), road, road + dice.uniform(0.2, 0.28))
    park = dice.pick((-1, 0, 0, 0, 1))
    sky(canvas, dice, view.horizon)
    if dice.chance(0.3):
        mountains(canvas, dice, view.horizon, dice.uniform(0.15, 0.25), rgb(118, 126, 140), haze=0.7)
    skyline(canvas, dice, view.horizon + 0.01, view.vanish)
    if park:
        treeline(canvas, dice, view.horizon + 0.01, 0.06)
    street_ground(canvas, dice, view, park)
    for side in (-1, 1):
        if side != park:
            row_of_houses(canvas, dice, view, side)
    street_things(canvas, dice, view, park)


def hills(canvas: Canvas, dice: Dice, horizon: float) -> None:
    """Grassy rises at the horizon, brighter at their crest."""
    rise, phase, waves = dice.uniform(0.02, 0.05), dice.uniform(0, 6), dice.uniform(3, 7)
    patch = canvas.patch(0, horizon - 2 * rise, 1, horizon)
    crest = rise * (1 + np.sin(waves * patch.x + phase))
    level = (horizon - patch.y) / np.maximum(crest, 1e-6)
    grass(patch, level < 1, 0.35 * np.clip(level, 0, 1))


def lake(canvas: Canvas, dice: Dice, horizon: float) -> None:
    """Water from the horizon to a curved shore: mirrors what is behind it, ripples, darkens towards the viewer."""
    depth, phase = dice.uniform(0.14, 0.34), dice.uniform(0, 2 * np.pi)
    bend, ripples = dice.uniform(0.02, 0.07), dice.field(90, 7)
    patch = canvas.patch(0, horizon, 1, 1)
    shore = horizon + depth + bend * np.sin(4.5 * patch.x + phase)
    wave = value_noise(ripples, patch.x, patch.y)
    near = np.clip((patch.y - horizon) / (depth + bend), 0, 1)

    first = canvas.height - patch.y.size
    mirrored = np.clip(first - 1 - np.arange(patch.y.size), 0, None)
    reflection = canvas.image[:, mirrored]
    color = mix(reflection, rgb(50, 106, 156), 0.4 + 0.3 * near)
    color *= 1.05 - 0.48 * near + (0.04 + 0.08 * near) * wave
    patch.paint(patch.y < shore, color, WATER)
    # The beach is of no class.
    beach = (patch.y >= shore) & (patch.y < shore + 0.012)
    patch.paint(beach, rgb(206, 188, 146) * (1 + 0.1 * patch.grain), UNKNOWN)


def country_road(canvas: Canvas, dice: Dice, view: View) -> None:
    """A winding road to the horizon, with a dashed centre line."""
    bend, phase, end = dice.uniform(0.05, 0.14), dice.uniform(0, 6), dice.uniform(0, 1)
    patch = canvas.patch(0, view.horizon, 1, 1)
    scale = np.maximum((patch.y - view.horizon) / (1 - view.horizon), 1e-3)
    middle = view.vanish + (end - 0.5) * scale + bend * np.sin(phase + 5 * np.sqrt(scale)) * (1 - scale)
    offset = np.abs(patch.x - middle) / scale
    mark = (offset < 0.012) & ((1.6 / scale) % 1 < 0.55)
    asphalt = rgb(112, 108, 108) * (1.06 - 0.18 * scale + 0.04 * patch.grain)
    patch.paint(offset < view.road, np.where(mark, rgb(236, 234, 222), asphalt), ROAD)


def cottage(canvas: Canvas, dice: Dice, x: float, base: float, width: float) -> None:
    """A house with a pitched roof, seen from the front."""
    paint, roof, number = dice.color(WALLS), dice.color(ROOFS), canvas.numbers()
    plan = Plan(dice.integer(1, 2), dice.integer(3, 4), 1, 1.0)
    tall, pitch, left = width * (0.2 + 0.22 * plan.floors), 0.38 * width, x - width / 2
    ground_shadow(canvas, x + 0.1 * width, base, 0.62 * width, 0.06 * width)
    above = canvas.patch(left - 0.08 * width, base - tall - pitch, left + 1.08 * width, base - tall)
    climb = (base - tall - above.y) / pitch
    side = (above.x - x) / width
    tiles = (0.94 + 0.12 * ((climb * 6) % 1 > 0.3)) * np.where(side < 0, 1.12, 0.86)
    above.paint(np.abs(side) < 0.57 - 0.4 * climb, roof * tiles, BUILDING, number)
    patch = canvas.patch(left, base - tall, left + width, base)
    u, v = (patch.x - left) / width, (base - patch.y) / tall
    wall(canvas, patch, u, v, paint * (1.1 - 0.25 * u), plan, number)


def landscape(canvas: Canvas, dice: Dice) -> None:
    """Open country: mountains, perhaps a lake or a road, trees, now and then a house or a walker."""
    view = View(dice.uniform(0.42, 0.54), dice.uniform(0.3, 0.7), dice.uniform(0.12, 0.17), 0)
    wet = dice.chance(0.55)
    sky(canvas, dice, view.horizon)
    if dice.chance(0.85):
        mountains(canvas, dice, view.horizon, dice.uniform(0.26, 0.38), dice.color(ROCKS), haze=0.75)
    if dice.chance(0.4):
        mountains(canvas, dice, view.horizon, dice.uniform(0.12, 0.2), rgb(98, 110, 104), haze=0.4)
    if dice.chance(0.5):
        hills(canvas, dice, view.horizon)
    if dice.chance(0.6):
        treeline(canvas, dice, view.horizon, dice.uniform(0.03, 0.06))
    ground = canvas.patch(0, view.horizon, 1, 1)
    near = (ground.y - view.horizon) / (1 - view.horizon)
    grass(ground, True, near)
    if wet:
        lake(canvas, dice, view.horizon)
    elif dice.chance(0.6):
        country_road(canvas, dice, view)
    country_things(canvas, dice, view, first=0.62 if wet else 0.08)


def country_things(canvas: Canvas, dice: Dice, view: View, first: float) -> None:
    """Houses, trees and people on the meadow nearer than scale ``first``, the far ones first."""

    def add_house(scale: float) -> None:
        _, base = view.at(scale, 0)
        cottage(canvas, dice, dice.uniform(0.1, 0.9), base, view.tall(scale, dice.uniform(0.9, 1.1)))

    def add_tree(scale: float) -> None:
        _, base = view.at(scale, 0)
        grow(canvas, dice, dice.uniform(0, 1), base, 0.06 + view.tall(scale, dice.uniform(0.7, 1.0)), dice.chance(firs))

    def add_person(scale: float) -> None:
        _, base = view.at(scale, 0)
        stand(canvas, dice, dice.uniform(0.1, 0.9), base, 0.04 + view.tall(scale, 0.32))

    firs, last = dice.uniform(0, 1), min(1.0, first + 0.6)
    things = [(scale, add_tree) for scale in spread(dice, dice.integer(2, 7), first, last)]
    things += [(scale, add_house) for scale in spread(dice, dice.pick((0, 0, 1)), first, last)]
    things += [(scale, add_person) for scale in spread(dice, dice.pick((0, 1, 2)), max(first, 0.4), 0.95)]
    for scale, add in sorted(things, key=lambda thing: thing[0]):
        add(scale)

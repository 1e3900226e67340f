"""The looks under the sky: street, square and park."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from avsc_e2e.toycity.sprites import Mover, Path, Scenery, car, cyclist, drive, flock, person, walk_across, walk_along
from avsc_e2e.toycity.stage import FACADES, LIVERIES, SKIES, Canvas, Colour, Point, Stage, choose, ordered, tint, vary


def _house_colours(city: Generator, place: Generator) -> list[Colour]:
    chosen = city.permutation(len(FACADES))[:4]
    return [vary(place, FACADES[index], 14) for index in chosen]


def street(canvas: Canvas, city: Generator, place: Generator, clip: Generator) -> Scenery:
    """A street between two rows of houses, with people on the pavements and something on the road."""
    stage = Stage(canvas, place, place.uniform(1.6, 2.6), place.uniform(0.45, 0.56), place.uniform(0.35, 0.65))
    above, below, light = choose(place, SKIES)
    stage.sky(vary(place, above, 8), vary(place, below, 8))
    colours = _house_colours(city, place)
    half, pavement = place.uniform(2.8, 4.2), place.uniform(2.0, 3.2)
    edge = half + pavement
    asphalt = tint(vary(place, (92, 92, 96), 7), light)
    slabs = tint(vary(place, (168, 160, 150), 9), light)
    stage.flat(slabs, -60, 60, 0.5, 400)
    stage.flat(asphalt, -half, half, 0.5, 400)
    stage.front(tint(below, 0.85), -60, 60, 0, place.uniform(6, 14), 90)
    for x in (-half, half):
        stage.line((205, 200, 195), 0.15, (x, 0, 1.2), (x, 0, 90))
    for z in np.arange(1.5, 60, 3.0):
        stage.flat((225, 222, 215), -0.09, 0.09, z, z + 1.4)
    for direction, shade in ((-1, place.uniform(0.7, 1.0)), (1, place.uniform(0.7, 1.0))):
        x = direction * edge
        fronts = []
        z = place.uniform(0.3, 1.5)
        while z < 85:
            depth = place.uniform(6, 12)
            fronts.append((z, z + depth, place.uniform(9, 17), choose(place, tuple(colours))))
            z += depth
        for near, far, high, colour in reversed(fronts):
            wall = tint(vary(place, colour, 6), light * shade)
            stage.side(wall, x, 0, high, near, far)
            stage.polygon(
                tint(wall, 0.6),
                (x, high, near),
                (x, high, far),
                (x * 1.25, high + 1.8, far),
                (x * 1.25, high + 1.8, near),
            )
            glass = tint((70, 85, 105), light * place.uniform(0.8, 1.3))
            for floor in np.arange(4.2, high - 1.5, 3.0):
                for window in np.arange(near + 0.7, far - 1.0, 2.1):
                    stage.side(tint(wall, 1.2), x * 0.998, floor - 0.1, floor + 1.75, window - 0.12, window + 1.12)
                    stage.side(glass, x * 0.997, floor, floor + 1.65, window, window + 1.0)
            awning = vary(place, choose(place, LIVERIES), 15)
            stage.side(tint((60, 55, 55), light), x * 0.998, 0.3, 2.7, near + 0.5, far - 0.5)
            stage.side((215, 200, 150), x * 0.997, 0.6, 2.3, near + 0.9, far - 0.9)
            stage.polygon(
                awning,
                (x, 3.4, near + 0.4),
                (x, 3.4, far - 0.4),
                (x - direction, 2.7, far - 0.4),
                (x - direction, 2.7, near + 0.4),
            )
        for z in (34, 26, 18, 10):
            post = direction * (half + 0.3)
            stage.line((50, 52, 55), 0.12, (post, 0, z), (post, 5.2, z))
            stage.disc((250, 240, 200), post, 5.2, z, 0.28)
    movers = [
        Mover(person(clip), walk_along(clip, *ordered(side * (half + 0.4), side * (edge - 0.5)), 4, 26), 6)
        for side in clip.choice((-1, 1), 10)
    ]
    movers += [Mover(person(clip), walk_across(clip, edge - 1, 9, 20), 6)]
    movers.append(Mover(car(clip, True), drive(clip, -half * 0.5, clip.uniform(-7, -3))))
    movers.append(Mover(car(clip, False), drive(clip, half * 0.5, clip.uniform(3, 7))))
    movers.append(Mover(cyclist(clip), drive(clip, -half * 0.85, clip.uniform(-5, -3)), 5))
    return Scenery(stage, movers)


def square(canvas: Canvas, city: Generator, place: Generator, clip: Generator) -> Scenery:
    """A wide paved square: a row of houses and a tower behind it, a monument, people crossing."""
    stage = Stage(canvas, place, place.uniform(1.8, 3.0), place.uniform(0.5, 0.6), 0.5)
    above, below, light = choose(place, SKIES)
    stage.sky(vary(place, above, 8), vary(place, below, 8))
    for _ in range(place.integers(2, 5)):
        x, y = place.uniform(-60, 60), place.uniform(28, 60)
        for shift in range(4):
            stage.disc(tint(below, 1.04), x + 5 * shift, y + place.uniform(-1, 1), 90, place.uniform(3, 6), 0.5)
    colours = _house_colours(city, place)
    stones = tint(vary(place, choose(place, ((190, 178, 160), (170, 168, 170), (200, 175, 150))), 8), light)
    stage.flat(stones, -300, 300, 0.4, 400)
    joint = tint(stones, 0.86)
    for x in np.arange(-60, 61, 2.5):
        stage.line(joint, 0.06, (x, 0, 1.5), (x, 0, 42))
    for z in 42 / np.arange(1, 22):
        stage.line(joint, 0.05, (-90, 0, z), (90, 0, z))
    tower, height = place.uniform(-18, 18), place.uniform(24, 36)
    wall = tint(vary(place, colours[0]), 0.9 * light)
    stage.front(wall, tower - 3, tower + 3, 0, height, 48)
    stage.polygon(
        tint((90, 140, 125), light), (tower - 3.6, height, 48), (tower + 3.6, height, 48), (tower, height + 11, 48)
    )
    stage.disc((240, 235, 220), tower, height - 4, 48, 1.7)
    x = -46.0
    while x < 46:
        wide, high = place.uniform(6, 11), place.uniform(8, 13)
        wall = tint(vary(place, choose(place, tuple(colours)), 8), light)
        stage.front(wall, x, x + wide, 0, high, 44)
        stage.polygon(
            tint((165, 85, 65), light),
            (x - 0.3, high, 44),
            (x + wide + 0.3, high, 44),
            (x + wide - 1, high + 3, 44),
            (x + 1, high + 3, 44),
        )
        for floor in np.arange(3.8, high - 1.2, 2.7):
            for window in np.arange(x + 0.8, x + wide - 1.2, 1.9):
                stage.front(tint((70, 85, 105), light), window, window + 1.0, floor, floor + 1.6, 44)
        for arch in np.arange(x + 0.6, x + wide - 1.6, 2.2):
            stage.front((70, 60, 55), arch, arch + 1.4, 0, 2.2, 44)
            stage.disc((70, 60, 55), arch + 0.7, 2.2, 44, 0.7)
        x += wide
    x, z = place.uniform(-4, 4), place.uniform(15, 20)
    stone = tint((205, 200, 190), light)
    stage.disc(tint(stones, 0.75), x, 0, z, 3.2, 0.22)
    stage.disc(tint(stone, 0.9), x, 0.35, z, 2.7, 0.22)
    if place.random() < 0.5:
        stage.disc(tint((90, 150, 185), light), x, 0.45, z, 2.3, 0.2)
    stage.front(stone, x - 1.0, x + 1.0, 0.3, 2.6, z)
    stage.front(tint(stone, 0.85), x - 1.3, x + 1.3, 2.6, 2.9, z)
    bronze = tint((70, 95, 85), light)
    stage.front(bronze, x - 0.4, x + 0.4, 2.9, 4.7, z)
    stage.disc(bronze, x, 5.0, z, 0.35)
    stage.line(bronze, 0.25, (x, 4.4, z), (x + 1.1, 5.2, z))
    for post in (-9, 9):
        stage.line((45, 48, 50), 0.16, (post, 0, 17), (post, 4.6, 17))
        for arm in (-0.6, 0.6):
            stage.disc((250, 245, 215), post + arm, 4.6, 17, 0.35)
    movers = [Mover(person(clip), walk_across(clip, 9, 6, 26), 6) for _ in range(10)]
    movers += [Mover(person(clip), walk_along(clip, -6, 6, 6, 30), 6) for _ in range(3)]
    return Scenery(stage, movers + flock(clip, 3))


def park(canvas: Canvas, city: Generator, place: Generator, clip: Generator) -> Scenery:
    """Meadows and trees, a winding path with people, birds above."""
    stage = Stage(canvas, place, place.uniform(1.7, 2.8), place.uniform(0.4, 0.52), place.uniform(0.4, 0.6))
    above, below, light = choose(place, SKIES)
    stage.sky(vary(place, above, 8), vary(place, below, 8))
    leaf = vary(place, choose(place, ((70, 125, 55), (95, 140, 60), (55, 105, 65), (130, 135, 50))), 8)
    grass = tint(vary(place, (110, 155, 75), 10), light)
    for x in range(-90, 91, 6):
        size = place.uniform(5, 10)
        stage.disc(tint(leaf, 0.75 * light * place.uniform(0.85, 1.1)), x, size * 0.4, 80, size)
    stage.flat(grass, -300, 300, 0.4, 400)
    for _ in range(160):
        z = 2.5 / place.uniform(0.03, 1)
        stage.disc(tint(grass, place.uniform(0.85, 1.12)), place.uniform(-0.9, 0.9) * z, 0, z, 0.5 + 0.03 * z, 0.25)
    if place.random() < 0.4:
        stage.disc(tint((110, 150, 180), light), place.choice((-9, 9)), 0, 22, 6.5, 0.12)
    bend, begin = place.uniform(-5, 5), place.uniform(-0.8, 0.8)
    gravel = tint(vary(place, (205, 190, 160), 8), light)

    def middle(z: float) -> float:
        return begin + bend * np.sin(z / 16)

    steps = 60 / np.arange(1, 42)
    stage.polygon(gravel, *((middle(z) - 1.2, 0, z) for z in steps), *((middle(z) + 1.2, 0, z) for z in steps[::-1]))
    trees = sorted(
        ((place.uniform(5, 45), place.choice((-1, 1)) * place.uniform(2.8, 16)) for _ in range(16)), reverse=True
    )
    for z, shift in trees:
        x, high = middle(z) + shift, place.uniform(2.2, 3.4)
        shade = light * place.uniform(0.8, 1.1)
        stage.disc(tint(grass, 0.7), x, 0, z, 2.0, 0.15)
        stage.line(tint((95, 72, 52), shade), 0.4, (x, 0, z), (x, high + 1, z))
        for tone in (0.7, 0.85, 1.0, 1.15):
            for _ in range(5):
                spot = place.normal(0, 1, 2)
                stage.disc(
                    tint(leaf, tone * shade),
                    x + 1.1 * spot[0] - 0.2 * tone,
                    high + 1.6 + 0.8 * spot[1] + 0.4 * tone,
                    z,
                    place.uniform(0.5, 1.1),
                )
    z = place.uniform(7, 10)
    x = middle(z) + place.choice((-1, 1)) * 2.4
    wood = tint((125, 85, 55), light)
    for y in (0.45, 0.75, 0.95):
        stage.line(wood, 0.12, (x - 0.9, y, z), (x + 0.9, y, z))
    for leg in (-0.8, 0.8):
        stage.line((60, 60, 60), 0.09, (x + leg, 0, z), (x + leg, 0.95, z))
    movers = []
    for _ in range(6):
        walk = walk_along(clip, -0.7, 0.7, 5, 32, clip.choice((1.3, 2.6)))
        movers.append(Mover(person(clip), _along(walk, middle), 7))
    movers += [Mover(person(clip), walk_across(clip, 8, 9, 20), 6) for _ in range(2)]
    return Scenery(stage, movers + flock(clip, 4))


def _along(walk: Path, middle: Callable[[float], float]) -> Path:
    """A walk beside a line that winds: its middle (metres) at each distance."""

    def path(time: float) -> Point:
        x, _, z = walk(time)
        return x + middle(z), 0.0, z

    return path

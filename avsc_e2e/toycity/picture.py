"""The six looks of the toy city, drawn: carriage, hall, street, platform, park and square."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

_Colour = tuple[int, int, int]
_Point = tuple[float, float, float]

_FACADES = (
    (214, 180, 120), (228, 210, 170), (178, 92, 70), (196, 150, 120), (170, 165, 158), (232, 226, 214),
    (214, 160, 140), (160, 180, 190), (190, 175, 110), (150, 110, 90), (205, 195, 205), (230, 190, 90),
)  # fmt: skip
_LIVERIES = (
    (30, 90, 170), (200, 40, 45), (40, 140, 80), (230, 130, 30), (20, 140, 150), (110, 60, 140),
    (235, 190, 40), (90, 100, 115),
)  # fmt: skip
_CLOTHES = (
    (40, 45, 70), (150, 40, 45), (60, 90, 60), (200, 180, 60), (90, 120, 170), (230, 230, 225), (30, 30, 32),
    (170, 110, 70), (120, 60, 110), (70, 140, 140), (220, 120, 60), (110, 110, 115),
)  # fmt: skip
_SKIES = (
    ((95, 150, 215), (205, 225, 240), 1.0),
    ((150, 165, 180), (215, 218, 222), 0.85),
    ((90, 110, 165), (245, 200, 160), 0.8),
    ((125, 175, 225), (235, 235, 225), 1.05),
)  # colour above, colour at the horizon, brightness of what stands below


def _tint(colour: _Colour, factor: float) -> _Colour:
    return tuple(int(min(255, max(0, value * factor))) for value in colour)


def _vary(draws: Generator, colour: _Colour, spread: float = 12) -> _Colour:
    return tuple(
        int(min(255, max(0, value + shift))) for value, shift in zip(colour, draws.normal(0, spread, 3), strict=True)
    )


def _choose(draws: Generator, options: tuple) -> tuple:
    return options[draws.integers(len(options))]


class Canvas(Protocol):
    """What is drawn on: size in pixels, frames a second, length in seconds. A ToyCity is one."""

    height: int
    width: int
    frame_rate: int
    duration: float


class _Stage:
    """A still picture in the making, in metres: x right, y up from the ground, z away from the camera."""

    scale = 3  # drawn larger and reduced, for smooth edges

    def __init__(self, canvas: Canvas, place: Generator, eye: float, horizon: float, sideways: float = 0.5):
        self.width, self.height = canvas.width, canvas.height
        self.eye = eye
        self.centre = (sideways * self.width, horizon * self.height)
        self.focal = place.uniform(0.8, 1.0) * self.height
        self.image = Image.new("RGB", (self.width * self.scale, self.height * self.scale))
        self.draw = ImageDraw.Draw(self.image)

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Pixels of the finished picture."""
        z = max(z, 0.3)
        return self.centre[0] + self.focal * x / z, self.centre[1] - self.focal * (y - self.eye) / z

    def _pixels(self, points) -> list[tuple[float, float]]:
        return [(x * self.scale, y * self.scale) for x, y in (self.project(*point) for point in points)]

    def polygon(self, colour: _Colour, *points: _Point) -> None:
        self.draw.polygon(self._pixels(points), fill=colour)

    def line(self, colour: _Colour, thickness: float, *points: _Point) -> None:
        """`thickness` in metres at the first point's distance."""
        width = max(1, round(thickness * self.focal / max(points[0][2], 0.3) * self.scale))
        self.draw.line(self._pixels(points), fill=colour, width=width)

    def disc(self, colour: _Colour, x: float, y: float, z: float, radius: float, flat: float = 1.0) -> None:
        (centre_x, centre_y), size = (self._pixels([(x, y, z)])[0], radius * self.focal / max(z, 0.3) * self.scale)
        box = (centre_x - size, centre_y - size * flat, centre_x + size, centre_y + size * flat)
        self.draw.ellipse(box, fill=colour)

    def front(self, colour: _Colour, left: float, right: float, low: float, high: float, z: float) -> None:
        self.polygon(colour, (left, low, z), (right, low, z), (right, high, z), (left, high, z))

    def side(self, colour: _Colour, x: float, low: float, high: float, near: float, far: float) -> None:
        self.polygon(colour, (x, low, near), (x, low, far), (x, high, far), (x, high, near))

    def flat(self, colour: _Colour, left: float, right: float, near: float, far: float, y: float = 0.0) -> None:
        self.polygon(colour, (left, y, near), (right, y, near), (right, y, far), (left, y, far))

    def sky(self, above: _Colour, below: _Colour) -> None:
        rows = round(self.centre[1] * self.scale) + 1
        blend = np.linspace(0, 1, rows)[:, None] * (np.array(below) - above) + above
        ramp = np.broadcast_to(blend[:, None], (rows, self.image.width, 3)).astype(np.uint8)
        self.image.paste(Image.fromarray(np.ascontiguousarray(ramp)), (0, 0))

    def finished(self) -> Image.Image:
        return self.image.reduce(self.scale)


@dataclass
class _Sprite:
    """Something that moves: drawn once per phase of its gait, at the largest size, and cached by size."""

    phases: list[Image.Image]
    """RGBA, all of one size."""
    size: float
    """Height in metres."""
    cache: dict[tuple[int, int], Image.Image] = field(default_factory=dict)

    def at(self, phase: int, pixels: int) -> Image.Image:
        key = phase % len(self.phases), pixels
        if key not in self.cache:
            master = self.phases[key[0]]
            width = max(1, round(master.width * pixels / master.height))
            self.cache[key] = master.resize((width, pixels), Image.Resampling.BOX)
        return self.cache[key]


class _Mover(NamedTuple):
    """A sprite on its way."""

    sprite: _Sprite
    path: Callable[[float], _Point]
    """Where its feet are, in metres, at a time in seconds."""
    gait: float = 0.0
    """Phases per second."""


_Overlay = Callable[[Image.Image, float], None]


class _Scenery(NamedTuple):
    """What a look's function gives: the still picture, what moves over it and what changes in it."""

    stage: _Stage
    movers: list[_Mover]
    overlay: _Overlay | None = None
    """Changes the picture for a time in seconds, before the movers are drawn."""


def draw(look: str, canvas: Canvas, city: Generator, place: Generator, clip: Generator) -> Iterator[Image.Image]:
    """The frames of one of the six looks, by the draws of the city, the location and the clip."""
    scenery = _LOOKS[look](canvas, city, place, clip)
    stage = scenery.stage
    still = scenery.stage.finished()
    exposure = place.uniform(0.8, 1.2) * clip.uniform(0.95, 1.05)
    gamma = place.uniform(0.85, 1.2)
    balance = place.normal(1, 0.035, 3)
    ramp = np.arange(256) / 255
    table = np.concatenate([np.clip(255 * (ramp**gamma * exposure * gain), 0, 255) for gain in balance])
    table = table.astype(np.uint8).tolist()
    grain = place.normal(0, 3, (canvas.height, canvas.width, 1))
    still = Image.fromarray(np.clip(np.asarray(still) + grain, 0, 255).astype(np.uint8))

    for number in range(max(1, round(canvas.duration * canvas.frame_rate))):
        time = number / canvas.frame_rate
        picture = still.copy()
        if scenery.overlay:
            scenery.overlay(picture, time)
        positions = [(mover.path(time), mover) for mover in scenery.movers]
        for (x, y, z), mover in sorted(positions, key=lambda item: -item[0][2]):  # the nearest last
            pixels = round(mover.sprite.size * stage.focal / z)
            if 2 <= pixels <= 2 * stage.height:
                sprite = mover.sprite.at(int(time * mover.gait), pixels)
                left, bottom = stage.project(x, y, z)
                picture.paste(sprite, (round(left - sprite.width / 2), round(bottom) - pixels), sprite)
        yield picture.point(table)


def _person(draws: Generator) -> _Sprite:
    """A walker, 1.5 to 1.9 m, four phases."""
    coat, trousers = (_vary(draws, _choose(draws, _CLOTHES)), _tint(_vary(draws, _choose(draws, _CLOTHES)), 0.7))
    skin = _choose(draws, ((236, 196, 165), (198, 150, 115), (140, 95, 70), (225, 180, 150)))
    hair = _choose(draws, ((40, 30, 25), (90, 60, 35), (190, 160, 100), (120, 120, 120)))
    bag = draws.random() < 0.4
    side = draws.choice((-1, 1))
    phases = []
    for stride in (1.0, 0.35, -1.0, -0.35):
        image = Image.new("RGBA", (80, 160))
        draw = ImageDraw.Draw(image)
        for direction, shade in ((-1, 0.8), (1, 1.0)):
            foot = 40 + 15 * stride * direction
            draw.line(
                [(40, 86), (40 + 8 * stride * direction, 120), (foot, 156)], fill=_tint(trousers, shade), width=12
            )
            hand = 40 - 15 * stride * direction
            draw.line([(40, 42), (hand, 84)], fill=_tint(coat, 0.75 * shade), width=9)
        draw.rounded_rectangle((25, 32, 55, 92), 10, fill=coat)
        if bag:
            draw.rounded_rectangle((40 + side * 18 - 9, 62, 40 + side * 18 + 9, 90), 3, fill=_tint(trousers, 1.4))
        draw.ellipse((29, 4, 51, 30), fill=hair)
        draw.ellipse((31, 8, 49, 31), fill=skin)
        phases.append(image)
    return _Sprite(phases, draws.uniform(1.55, 1.9))


def _car(draws: Generator, approaching: bool) -> _Sprite:
    """A car from the front or from behind."""
    paint = _vary(draws, _choose(draws, _LIVERIES + _CLOTHES[5:7]))
    image = Image.new("RGBA", (140, 110))
    draw = ImageDraw.Draw(image)
    for x in (14, 102):
        draw.rounded_rectangle((x, 80, x + 24, 110), 5, fill=(25, 25, 28))
    draw.polygon([(22, 48), (38, 6), (102, 6), (118, 48)], fill=_tint(paint, 0.85))
    draw.polygon([(30, 46), (43, 12), (97, 12), (110, 46)], fill=(70, 88, 105))
    draw.rounded_rectangle((6, 44, 134, 96), 12, fill=paint)
    draw.rectangle((40, 66, 100, 84), fill=_tint(paint, 0.55) if approaching else (235, 235, 225))
    for x in (12, 106):
        draw.ellipse((x, 54, x + 22, 70), fill=(255, 250, 215) if approaching else (215, 40, 35))
    return _Sprite([image], 1.5)


def _cyclist(draws: Generator) -> _Sprite:
    """A rider from the front, pedalling."""
    rider = _person(draws)
    phases = []
    for figure in rider.phases:
        image = Image.new("RGBA", (80, 180))
        ImageDraw.Draw(image).rounded_rectangle((36, 96, 44, 180), 4, fill=(30, 30, 32))
        image.alpha_composite(figure.crop((0, 0, 80, 140)))
        ImageDraw.Draw(image).line([(16, 82), (64, 82)], fill=(60, 60, 64), width=5)
        phases.append(image)
    return _Sprite(phases, 1.85)


def _bird(draws: Generator) -> _Sprite:
    phases = []
    for lift in (2, 10, 18, 10):
        image = Image.new("RGBA", (40, 22))
        ImageDraw.Draw(image).line([(2, lift), (20, 12), (38, lift)], fill=(40, 40, 45, 255), width=4)
        phases.append(image)
    return _Sprite(phases, 0.4)


def _across(draws: Generator, reach: float, near: float, far: float, speed: float = 1.3) -> Callable[[float], _Point]:
    """A walk from side to side that turns at the ends."""
    z, begin = draws.uniform(near, far), draws.uniform(-reach, reach)
    pace = speed * draws.uniform(0.7, 1.3) * draws.choice((-1, 1))

    def path(time: float) -> _Point:
        return abs((begin + pace * time + reach) % (4 * reach) - 2 * reach) - reach, 0.0, z

    return path


def _along(draws: Generator, left: float, right: float, near: float, far: float, speed: float = 1.3) -> Callable:
    """A walk towards the camera or away from it that turns at the ends."""
    x, begin = draws.uniform(left, right), draws.uniform(0, far - near)
    pace = speed * draws.uniform(0.7, 1.3) * draws.choice((-1, 1))
    drift, length = draws.uniform(-0.3, 0.3), far - near

    def path(time: float) -> _Point:
        return x + drift * np.sin(time), 0.0, near + abs((begin + pace * time) % (2 * length) - length)

    return path


def _drive(draws: Generator, x: float, pace: float) -> Callable[[float], _Point]:
    """A drive along the street at `pace` metres per second, negative towards the camera, over and over."""
    begin = draws.uniform(0, 32)
    return lambda time: (x, 0.0, 1.5 + (begin + pace * time) % 32)


def _house_colours(city: Generator, place: Generator) -> list[_Colour]:
    chosen = city.permutation(len(_FACADES))[:4]
    return [_vary(place, _FACADES[index], 14) for index in chosen]


def _street(canvas: Canvas, city: Generator, place: Generator, clip: Generator) -> _Scenery:
    """A street between two rows of houses, with people on the pavements and something on the road."""
    stage = _Stage(canvas, place, place.uniform(1.6, 2.6), place.uniform(0.45, 0.56), place.uniform(0.35, 0.65))
    above, below, light = _choose(place, _SKIES)
    stage.sky(_vary(place, above, 8), _vary(place, below, 8))
    colours = _house_colours(city, place)
    half, pavement = place.uniform(2.8, 4.2), place.uniform(2.0, 3.2)
    edge = half + pavement
    asphalt = _tint(_vary(place, (92, 92, 96), 7), light)
    slabs = _tint(_vary(place, (168, 160, 150), 9), light)
    stage.flat(slabs, -60, 60, 0.5, 400)
    stage.flat(asphalt, -half, half, 0.5, 400)
    stage.front(_tint(below, 0.85), -60, 60, 0, place.uniform(6, 14), 90)
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
            fronts.append((z, z + depth, place.uniform(9, 17), _choose(place, tuple(colours))))
            z += depth
        for near, far, high, colour in reversed(fronts):
            wall = _tint(_vary(place, colour, 6), light * shade)
            stage.side(wall, x, 0, high, near, far)
            stage.polygon(
                _tint(wall, 0.6),
                (x, high, near),
                (x, high, far),
                (x * 1.25, high + 1.8, far),
                (x * 1.25, high + 1.8, near),
            )
            glass = _tint((70, 85, 105), light * place.uniform(0.8, 1.3))
            for floor in np.arange(4.2, high - 1.5, 3.0):
                for window in np.arange(near + 0.7, far - 1.0, 2.1):
                    stage.side(_tint(wall, 1.2), x * 0.998, floor - 0.1, floor + 1.75, window - 0.12, window + 1.12)
                    stage.side(glass, x * 0.997, floor, floor + 1.65, window, window + 1.0)
            awning = _vary(place, _choose(place, _LIVERIES), 15)
            stage.side(_tint((60, 55, 55), light), x * 0.998, 0.3, 2.7, near + 0.5, far - 0.5)
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
        _Mover(_person(clip), _along(clip, *sorted((side * (half + 0.4), side * (edge - 0.5))), 4, 26), 6)
        for side in clip.choice((-1, 1), 10)
    ]
    movers += [_Mover(_person(clip), _across(clip, edge - 1, 9, 20), 6)]
    movers.append(_Mover(_car(clip, True), _drive(clip, -half * 0.5, clip.uniform(-7, -3))))
    movers.append(_Mover(_car(clip, False), _drive(clip, half * 0.5, clip.uniform(3, 7))))
    movers.append(_Mover(_cyclist(clip), _drive(clip, -half * 0.85, clip.uniform(-5, -3)), 5))
    return _Scenery(stage, movers)


def _square(canvas: Canvas, city: Generator, place: Generator, clip: Generator) -> _Scenery:
    """A wide paved square: a row of houses and a tower behind it, a monument, people crossing."""
    stage = _Stage(canvas, place, place.uniform(1.8, 3.0), place.uniform(0.5, 0.6), 0.5)
    above, below, light = _choose(place, _SKIES)
    stage.sky(_vary(place, above, 8), _vary(place, below, 8))
    for _ in range(place.integers(2, 5)):
        x, y = place.uniform(-60, 60), place.uniform(28, 60)
        for shift in range(4):
            stage.disc(_tint(below, 1.04), x + 5 * shift, y + place.uniform(-1, 1), 90, place.uniform(3, 6), 0.5)
    colours = _house_colours(city, place)
    stones = _tint(_vary(place, _choose(place, ((190, 178, 160), (170, 168, 170), (200, 175, 150))), 8), light)
    stage.flat(stones, -300, 300, 0.4, 400)
    joint = _tint(stones, 0.86)
    for x in np.arange(-60, 61, 2.5):
        stage.line(joint, 0.06, (x, 0, 1.5), (x, 0, 42))
    for z in 42 / np.arange(1, 22):
        stage.line(joint, 0.05, (-90, 0, z), (90, 0, z))
    tower, height = place.uniform(-18, 18), place.uniform(24, 36)
    wall = _tint(_vary(place, colours[0]), 0.9 * light)
    stage.front(wall, tower - 3, tower + 3, 0, height, 48)
    stage.polygon(
        _tint((90, 140, 125), light), (tower - 3.6, height, 48), (tower + 3.6, height, 48), (tower, height + 11, 48)
    )
    stage.disc((240, 235, 220), tower, height - 4, 48, 1.7)
    x = -46.0
    while x < 46:
        wide, high = place.uniform(6, 11), place.uniform(8, 13)
        wall = _tint(_vary(place, _choose(place, tuple(colours)), 8), light)
        stage.front(wall, x, x + wide, 0, high, 44)
        stage.polygon(
            _tint((165, 85, 65), light),
            (x - 0.3, high, 44),
            (x + wide + 0.3, high, 44),
            (x + wide - 1, high + 3, 44),
            (x + 1, high + 3, 44),
        )
        for floor in np.arange(3.8, high - 1.2, 2.7):
            for window in np.arange(x + 0.8, x + wide - 1.2, 1.9):
                stage.front(_tint((70, 85, 105), light), window, window + 1.0, floor, floor + 1.6, 44)
        for arch in np.arange(x + 0.6, x + wide - 1.6, 2.2):
            stage.front((70, 60, 55), arch, arch + 1.4, 0, 2.2, 44)
            stage.disc((70, 60, 55), arch + 0.7, 2.2, 44, 0.7)
        x += wide
    x, z = place.uniform(-4, 4), place.uniform(15, 20)
    stone = _tint((205, 200, 190), light)
    stage.disc(_tint(stones, 0.75), x, 0, z, 3.2, 0.22)
    stage.disc(_tint(stone, 0.9), x, 0.35, z, 2.7, 0.22)
    if place.random() < 0.5:
        stage.disc(_tint((90, 150, 185), light), x, 0.45, z, 2.3, 0.2)
    stage.front(stone, x - 1.0, x + 1.0, 0.3, 2.6, z)
    stage.front(_tint(stone, 0.85), x - 1.3, x + 1.3, 2.6, 2.9, z)
    bronze = _tint((70, 95, 85), light)
    stage.front(bronze, x - 0.4, x + 0.4, 2.9, 4.7, z)
    stage.disc(bronze, x, 5.0, z, 0.35)
    stage.line(bronze, 0.25, (x, 4.4, z), (x + 1.1, 5.2, z))
    for post in (-9, 9):
        stage.line((45, 48, 50), 0.16, (post, 0, 17), (post, 4.6, 17))
        for arm in (-0.6, 0.6):
            stage.disc((250, 245, 215), post + arm, 4.6, 17, 0.35)
    movers = [_Mover(_person(clip), _across(clip, 9, 6, 26), 6) for _ in range(10)]
    movers += [_Mover(_person(clip), _along(clip, -6, 6, 6, 30), 6) for _ in range(3)]
    return _Scenery(stage, movers + _flock(clip, 3))


def _flock(clip: Generator, count: int) -> list[_Mover]:
    movers = []
    for _ in range(count):
        path, height = _across(clip, 14, 14, 26, 4.0), clip.uniform(6, 12)
        movers.append(
            _Mover(_bird(clip), lambda time, p=path, h=height: (p(time)[0], h + np.sin(time * 2), p(time)[2]), 9)
        )
    return movers


def _park(canvas: Canvas, city: Generator, place: Generator, clip: Generator) -> _Scenery:
    """Meadows and trees, a winding path with people, birds above."""
    stage = _Stage(canvas, place, place.uniform(1.7, 2.8), place.uniform(0.4, 0.52), place.uniform(0.4, 0.6))
    above, below, light = _choose(place, _SKIES)
    stage.sky(_vary(place, above, 8), _vary(place, below, 8))
    leaf = _vary(place, _choose(place, ((70, 125, 55), (95, 140, 60), (55, 105, 65), (130, 135, 50))), 8)
    grass = _tint(_vary(place, (110, 155, 75), 10), light)
    for x in np.arange(-90, 91, 6):
        size = place.uniform(5, 10)
        stage.disc(_tint(leaf, 0.75 * light * place.uniform(0.85, 1.1)), x, size * 0.4, 80, size)
    stage.flat(grass, -300, 300, 0.4, 400)
    for _ in range(160):
        z = 2.5 / place.uniform(0.03, 1)
        stage.disc(_tint(grass, place.uniform(0.85, 1.12)), place.uniform(-0.9, 0.9) * z, 0, z, 0.5 + 0.03 * z, 0.25)
    if place.random() < 0.4:
        stage.disc(_tint((110, 150, 180), light), place.choice((-9, 9)), 0, 22, 6.5, 0.12)
    bend, begin = place.uniform(-5, 5), place.uniform(-0.8, 0.8)
    gravel = _tint(_vary(place, (205, 190, 160), 8), light)

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
        stage.disc(_tint(grass, 0.7), x, 0, z, 2.0, 0.15)
        stage.line(_tint((95, 72, 52), shade), 0.4, (x, 0, z), (x, high + 1, z))
        for tone in (0.7, 0.85, 1.0, 1.15):
            for _ in range(5):
                spot = place.normal(0, 1, 2)
                stage.disc(
                    _tint(leaf, tone * shade),
                    x + 1.1 * spot[0] - 0.2 * tone,
                    high + 1.6 + 0.8 * spot[1] + 0.4 * tone,
                    z,
                    place.uniform(0.5, 1.1),
                )
    z = place.uniform(7, 10)
    x = middle(z) + place.choice((-1, 1)) * 2.4
    wood = _tint((125, 85, 55), light)
    for y in (0.45, 0.75, 0.95):
        stage.line(wood, 0.12, (x - 0.9, y, z), (x + 0.9, y, z))
    for leg in (-0.8, 0.8):
        stage.line((60, 60, 60), 0.09, (x + leg, 0, z), (x + leg, 0.95, z))
    movers = []
    for _ in range(6):
        walk = _along(clip, -0.7, 0.7, 5, 32, clip.choice((1.3, 2.6)))
        movers.append(_Mover(_person(clip), lambda time, w=walk: (w(time)[0] + middle(w(time)[2]), 0.0, w(time)[2]), 7))
    movers += [_Mover(_person(clip), _across(clip, 8, 9, 20), 6) for _ in range(2)]
    return _Scenery(stage, movers + _flock(clip, 4))


def _hall(canvas: Canvas, city: Generator, place: Generator, clip: Generator) -> _Scenery:
    """A bright indoor hall: shop fronts on both sides, a polished floor, rows of lamps, hanging signs."""
    stage = _Stage(canvas, place, place.uniform(1.6, 2.4), place.uniform(0.46, 0.58), place.uniform(0.4, 0.6))
    half, high, deep = place.uniform(5, 7), place.uniform(5.5, 7.5), place.uniform(28, 40)
    floor = _vary(place, _choose(place, ((205, 200, 192), (190, 195, 200), (215, 200, 175))), 7)
    ceiling = _vary(place, _choose(place, ((225, 225, 225), (200, 205, 210), (230, 220, 205))), 7)
    stage.image.paste(ceiling, (0, 0, *stage.image.size))
    stage.flat(floor, -half, half, 0.4, deep)
    stage.flat(ceiling, -half, half, 0.4, deep, high)
    for z in 30 / np.arange(1, 16):
        stage.line(_tint(floor, 0.9), 0.05, (-half, 0, z), (half, 0, z))
    for x in np.linspace(-half, half, 8):
        stage.line(_tint(floor, 0.92), 0.05, (x, 0, 1.4), (x, 0, deep))
    stage.front((150, 185, 215), -half, half, 0, high, deep)
    stage.front((205, 225, 240), -half, half, high * 0.45, high, deep)
    for x in np.linspace(-half, half, 7):
        stage.line((90, 95, 100), 0.25, (x, 0, deep), (x, high, deep))
    rows = place.choice((2, 3))
    for x in np.linspace(-half * 0.6, half * 0.6, rows):
        for z in np.arange(deep - 2, 1.5, -2.6):
            stage.flat((255, 253, 240), x - 0.5, x + 0.5, z, z + 1.3, high)
            stage.flat(_tint(floor, 1.13), x - 0.4, x + 0.4, z, z + 0.9)
    accent = _vary(place, _LIVERIES[city.integers(len(_LIVERIES))], 12)
    for direction in (-1, 1):
        x = direction * half
        stage.side(_tint(ceiling, 0.82), x, 0, high, 0.4, deep)
        z = deep
        while z > 1.2:
            wide = place.uniform(3.2, 5.0)
            near = max(0.5, z - wide)
            inside = _choose(place, ((250, 235, 190), (235, 240, 245), (245, 215, 200), (225, 240, 220)))
            stage.side(_vary(place, inside, 8), x * 0.998, 0.1, 2.9, near + 0.25, z - 0.25)
            for shelf in (0.7, 1.3, 1.9):
                for item in np.arange(near + 0.5, z - 0.7, 0.5):
                    goods = _vary(place, _choose(place, _CLOTHES), 25)
                    stage.side(goods, x * 0.997, shelf, shelf + place.uniform(0.2, 0.42), item, item + 0.32)
            sign = _vary(place, _choose(place, _LIVERIES), 18)
            stage.side(sign, x * 0.995, 3.0, 3.7, near + 0.2, z - 0.2)
            for letter in np.arange(near + wide * 0.25, z - wide * 0.25, 0.35):
                stage.side((250, 250, 245), x * 0.99, 3.2, 3.5, letter, letter + 0.2)
            stage.side(_tint(ceiling, 0.65), x * 0.99, 0, high, near - 0.15, near + 0.15)
            z -= wide
        for z in np.arange(deep - 4, 5, -6.5):
            post = x * 0.72
            stage.front(_tint(ceiling, 0.88), post - 0.28, post + 0.28, 0, high, z)
            stage.front(_tint(ceiling, 1.03), post - 0.28, post - 0.05, 0, high, z)
    for z in (place.uniform(16, 20), place.uniform(8, 11)):
        x = place.uniform(-1.5, 1.5)
        for end in (-1.3, 1.3):
            stage.line((80, 80, 85), 0.06, (x + end, high, z), (x + end, 3.9, z))
        stage.front(accent, x - 1.8, x + 1.8, 3.2, 4.0, z)
        stage.polygon((255, 255, 255), (x - 1.5, 3.6, z), (x - 1.1, 3.85, z), (x - 1.1, 3.35, z))
        for letter in np.arange(x - 0.8, x + 1.4, 0.3):
            stage.front((255, 255, 255), letter, letter + 0.18, 3.45, 3.75, z)
    movers = [_Mover(_person(clip), _along(clip, -half * 0.6, half * 0.6, 4.5, 26), 6) for _ in range(8)]
    movers += [_Mover(_person(clip), _across(clip, half - 1, 7, 20), 6) for _ in range(3)]
    return _Scenery(stage, movers)


def _platform(canvas: Canvas, city: Generator, place: Generator, clip: Generator) -> _Scenery:
    """An underground platform: tiled walls, the yellow edge, rails, and a train that pulls in."""
    turn = place.choice((-1, 1))
    stage = _Stage(canvas, place, place.uniform(1.6, 2.1), place.uniform(0.42, 0.54), 0.5 - 0.12 * turn)
    high, deep = place.uniform(3.6, 4.6), 45.0
    tiles = _vary(place, _choose(place, ((200, 200, 190), (165, 180, 180), (190, 170, 145), (150, 155, 165))), 8)
    stripe = _vary(place, _LIVERIES[city.integers(len(_LIVERIES))], 12)
    floor = _vary(place, (125, 122, 120), 8)
    wall, bed, edge = -turn * place.uniform(3.2, 4.2), turn * 4.6, turn * 1.4
    stage.image.paste((30, 30, 36), (0, 0, *stage.image.size))
    stage.flat(_tint(floor, 0.5), *sorted((wall, bed)), 0.4, deep, high)
    for z in np.arange(deep - 3, 1, -3.0):
        stage.flat((250, 250, 235), *sorted((wall * 0.45, wall * 0.3)), z, z + 2.0, high)
    stage.flat((48, 44, 42), *sorted((edge, bed)), 0.4, deep, -1.0)
    for z in 30 / np.arange(1, 30):
        stage.line((75, 65, 55), 0.2, (edge + turn * 0.3, -1, z), (bed - turn * 0.2, -1, z))
    for rail in (edge + turn * 0.7, edge + turn * 2.2):
        stage.line((175, 175, 180), 0.1, (rail, -0.9, 0.9), (rail, -0.9, deep))
    stage.side(_tint(floor, 0.45), edge, -1.0, 0, 0.4, deep)
    stage.flat(floor, *sorted((wall, edge)), 0.4, deep)
    for z in 24 / np.arange(1, 14):
        stage.line(_tint(floor, 0.85), 0.04, (wall, 0, z), (edge, 0, z))
    stage.flat((235, 200, 50), *sorted((edge, edge - turn * 0.35)), 0.4, deep)
    for x, shade in ((wall, 1.0), (bed, 0.7)):
        low = 0 if x == wall else -1.0
        stage.side(_tint(tiles, shade), x, low, high, 0.4, deep)
        for y in np.arange(low + 0.4, high, 0.5):
            stage.line(_tint(tiles, shade * 0.84), 0.03, (x, y, 1.0), (x, y, deep))
        for z in 20 / np.arange(1, 18):
            stage.line(_tint(tiles, shade * 0.84), 0.03, (x, low, z), (x, high, z))
        stage.side(_tint(stripe, shade), x * 0.998, 2.3, 2.8, 0.4, deep)
        for z in (20, 13, 8, 4.5):
            stage.side((245, 245, 240), x * 0.996, 2.38, 2.72, z, z + 2.2)
            poster = _vary(place, _choose(place, _LIVERIES), 20)
            stage.side((235, 235, 230), x * 0.996, 0.8, 2.1, z, z + 1.6)
            stage.side(poster, x * 0.994, 0.9, 2.0, z + 0.12, z + 1.45)
            stage.side(_tint(poster, 1.7), x * 0.992, 1.2, 1.5, z + 0.4, z + 1.1)
    for z in np.arange(28, 4, -7.0):
        post = wall * 0.55
        stage.front(_tint(stripe, 0.9), post - 0.2, post + 0.2, 0, high, z)
    z = place.uniform(8, 11)
    stage.front((25, 30, 40), -1.2, 1.2, 2.7, 3.3, z)
    for letter in np.arange(-1.0, 0.9, 0.28):
        stage.front((250, 190, 60), letter, letter + 0.18, 2.85, 3.12, z)

    livery = _vary(clip, _LIVERIES[city.integers(len(_LIVERIES))], 12)
    speed, arrival = clip.uniform(4, 9), clip.uniform(-2, 4)
    track = edge + turn * 0.25

    def overlay(picture: Image.Image, time: float) -> None:
        nose = max(3.0, 40 - speed * (time - arrival))
        if nose >= 40:
            return
        train = copy(stage)
        train.image, train.scale, train.draw = picture, 1, ImageDraw.Draw(picture)
        train.side(livery, track, -0.8, 2.9, nose, 44)
        train.side((215, 218, 222), track, 0.5, 2.3, nose, 44)
        for z in np.arange(nose + 0.5, 42, 3.2):
            train.side((250, 240, 190), track, 1.0, 2.0, z, z + 1.5)
            train.side(_tint(livery, 0.7), track, 0.05, 2.2, z + 1.9, z + 2.7)
        train.front(_tint(livery, 0.9), *sorted((track, track + turn * 2.6)), -0.8, 2.9, nose)
        train.front((40, 45, 55), *sorted((track + turn * 0.3, track + turn * 2.3)), 1.1, 2.4, nose)
        for lamp in (0.5, 2.1):
            train.disc((255, 250, 210), track + turn * lamp, 0.2, nose, 0.18)

    movers = [_Mover(_person(clip), _along(clip, *sorted((wall * 0.8, edge - turn * 0.7)), 4, 24), 6) for _ in range(6)]
    for _ in range(3):
        x, z = clip.uniform(*sorted((wall * 0.8, edge - turn * 0.7))), clip.uniform(5, 18)
        movers.append(_Mover(_person(clip), lambda time, x=x, z=z: (x + 0.05 * np.sin(2 * time), 0.0, z), 0.4))
    return _Scenery(stage, movers, overlay)


def _carriage(canvas: Canvas, city: Generator, place: Generator, clip: Generator) -> _Scenery:
    """Along the aisle of a vehicle: seats, poles and straps, the city or a tunnel behind the windows."""
    stage = _Stage(canvas, place, place.uniform(1.45, 1.75), place.uniform(0.42, 0.52), place.uniform(0.42, 0.58))
    half, high, deep = place.uniform(1.25, 1.5), place.uniform(2.25, 2.5), place.uniform(8, 12)
    panel = _vary(place, _choose(place, ((215, 215, 210), (200, 208, 215), (225, 215, 195))), 7)
    seat = _vary(place, _LIVERIES[city.integers(len(_LIVERIES))], 15)
    pole = _choose(place, ((240, 200, 40), (190, 192, 198), (230, 120, 40), (90, 170, 90)))
    floor = _vary(place, (105, 105, 110), 10)
    low, top, wide, pillar = place.uniform(0.9, 1.05), place.uniform(1.85, 2.0), place.uniform(1.2, 1.8), 0.28
    stage.image.paste(panel, (0, 0, *stage.image.size))
    stage.flat(_tint(panel, 1.05), -half, half, 0.4, deep, high)
    stage.flat(floor, -half, half, 0.4, deep)
    for x in (-half * 0.45, half * 0.45):
        for z in np.arange(deep - 1, 0.6, -1.6):
            stage.flat((255, 254, 245), x - 0.12, x + 0.12, z, z + 1.3, high)
    stage.front(_tint(panel, 0.9), -half, half, 0, high, deep)
    stage.front(_tint(panel, 0.6), -0.45, 0.45, 0, 2.0, deep)
    stage.front((80, 95, 110), -0.33, 0.33, 0.9, 1.85, deep)
    begin = place.uniform(0, 1)
    fronts = np.arange(begin + 0.3, deep - 0.3, wide + pillar)
    mask = Image.new("1", (stage.width, stage.height))
    for x in (-half, half):
        stage.side(_tint(panel, 0.93), x, 0, high, 0.4, deep)
        stage.side(_tint(panel, 0.72), x, 0, 0.45, 0.4, deep)
        stage.side(_tint(seat, 0.8), x, 2.1, 2.22, 0.4, deep)
        for z in fronts:
            corners = [(x, y, s) for y, s in ((low, z), (low, z + wide), (top, z + wide), (top, z))]
            stage.polygon(
                (50, 52, 56),
                *(
                    (x, y + e, s + f)
                    for (x, y, s), (e, f) in zip(
                        corners, ((-0.05, -0.05), (-0.05, 0.05), (0.05, 0.05), (0.05, -0.05)), strict=True
                    )
                ),
            )
            stage.polygon((1, 2, 3), *corners)
            ImageDraw.Draw(mask).polygon([stage.project(*corner) for corner in corners], fill=1)
    empty = np.asarray(mask).copy()
    for z in np.arange(deep - 0.8, 1.3, -place.uniform(0.8, 0.95)):
        for direction in (-1, 1):
            left, right = sorted((direction * (half - 0.05), direction * (half - 0.5)))
            cloth = _tint(_vary(place, seat, 5), 0.75 + 0.25 * (1 - z / deep))
            stage.front(cloth, left, right, 0.4, 1.12, z)
            stage.front(_tint(cloth, 1.25), left + 0.05, right - 0.05, 0.85, 1.06, z)
            stage.flat(_tint(cloth, 0.8), left, right, z - 0.45, z, 0.45)
            stage.front(_tint(cloth, 0.5), left, right, 0.1, 0.45, z - 0.45)
    for z in (deep * 0.7, deep * 0.45, 2.6):
        for x in (-0.55, 0.55):
            stage.line(pole, 0.05, (x, 0, z), (x, high, z))
    for x in (-0.55, 0.55):
        stage.line(pole, 0.05, (x, 2.0, 0.9), (x, 2.0, deep))
    # Windows are where the drawing still holds their colour: seats and poles stand before them.
    shape = np.asarray(stage.image.resize((stage.width, stage.height), Image.Resampling.NEAREST))
    rows, columns = np.nonzero(empty & (shape == (1, 2, 3)).all(-1))
    offset = columns + 0.5 - stage.centre[0]
    distance = half * stage.focal / np.maximum(np.abs(offset), 1)
    height = (stage.centre[1] - rows) * distance / stage.focal + stage.eye
    view = _outside(place, clip)
    along = (distance * 24).astype(int) + np.where(offset < 0, 0, view.shape[1] // 2)
    up = np.clip((top + 0.1 - height) / (top + 0.1 - low + 0.1) * view.shape[0], 0, view.shape[0] - 1).astype(int)
    speed, phase = clip.uniform(5, 12), clip.uniform(0, 6)

    def overlay(picture: Image.Image, time: float) -> None:
        travelled = int(24 * speed * (time + 0.8 * np.sin(0.7 * time + phase)))
        pixels = np.array(picture)
        pixels[rows, columns] = view[up, (along + travelled) % view.shape[1]]
        picture.paste(Image.fromarray(pixels))

    movers = []
    strap = Image.new("RGBA", (60, 100))
    ImageDraw.Draw(strap).line([(30, 0), (30, 55)], fill=(60, 60, 62), width=7)
    ImageDraw.Draw(strap).ellipse((8, 50, 52, 96), outline=pole, width=9)
    straps = _Sprite([strap], 0.3)
    for z in np.arange(1.8, deep - 1, 0.9):
        for x in (-0.55, 0.55):
            swing = clip.uniform(0, 6)
            movers.append(_Mover(straps, lambda t, x=x, z=z, s=swing: (x + 0.05 * np.sin(2.5 * t + s), 1.68, z)))
    for _ in range(clip.integers(3, 6)):
        x, z, sway = (clip.choice((-1, 1)) * clip.uniform(0.2, 0.9), clip.uniform(2.6, deep - 1), clip.uniform(0, 6))
        movers.append(_Mover(_person(clip), lambda t, x=x, z=z, s=sway: (x + 0.06 * np.sin(1.6 * t + s), -0.02, z)))
    walk = _along(clip, -0.2, 0.2, 3, deep - 1, 0.8)
    movers.append(_Mover(_person(clip), walk, 5))
    return _Scenery(stage, movers, overlay)


def _outside(place: Generator, clip: Generator) -> np.ndarray:
    """What passes by a window, (32, 960, 3) uint8: houses and trees, or the lamps of a tunnel."""
    view = Image.new("RGB", (960, 32))
    draw = ImageDraw.Draw(view)
    if place.random() < 0.4:
        draw.rectangle((0, 0, 960, 32), fill=_vary(place, (35, 35, 42), 5))
        for x in range(0, 960, 48):
            draw.rectangle((x, 8, x + 10, 12), fill=(255, 235, 180))
            draw.rectangle((x + 20, 0, x + 24, 32), fill=(60, 60, 68))
        draw.line((0, 24, 960, 24), fill=(80, 80, 90), width=2)
    else:
        above, _, light = _choose(place, _SKIES)
        draw.rectangle((0, 0, 960, 32), fill=above)
        x = 0
        while x < 960:
            wide = int(clip.integers(16, 60))
            if clip.random() < 0.6:
                draw.rectangle((x, int(clip.integers(2, 14)), x + wide, 32), fill=_tint(_choose(clip, _FACADES), light))
                for window in range(x + 3, x + wide - 4, 8):
                    draw.rectangle((window, 16, window + 4, 22), fill=(70, 80, 95))
            else:
                draw.ellipse((x, 6, x + wide, 40), fill=_tint((80, 125, 65), light))
            x += wide
        draw.rectangle((0, 28, 960, 32), fill=(110, 110, 112))
    return np.asarray(view.filter(ImageFilter.BoxBlur(1)))


_LOOKS = {
    "carriage": _carriage,
    "hall": _hall,
    "park": _park,
    "platform": _platform,
    "square": _square,
    "street": _street,
}

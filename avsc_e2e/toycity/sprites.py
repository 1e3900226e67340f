"""What moves in the toy city: people, cars, cyclists and birds, and the ways they take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from avsc_e2e.toycity.stage import CLOTHES, LIVERIES, Point, Stage, choose, tint, vary

Path = Callable[[float], Point]
"""Where something's feet are, in metres, at a time in seconds."""


@dataclass
class Sprite:
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


class Mover(NamedTuple):
    """A sprite on its way."""

    sprite: Sprite
    path: Path
    gait: float = 0.0
    """Phases per second."""


class Scenery(NamedTuple):
    """What a look's function gives: the still image, what moves over it and what changes in it."""

    stage: Stage
    movers: list[Mover]
    overlay: Callable[[Image.Image, float], None] | None = None
    """Changes the frame for a time in seconds, before the movers are drawn."""


def person(draws: Generator) -> Sprite:
    """A walker, 1.5 to 1.9 m, four phases."""
    coat, trousers = (vary(draws, choose(draws, CLOTHES)), tint(vary(draws, choose(draws, CLOTHES)), 0.7))
    skin = choose(draws, ((236, 196, 165), (198, 150, 115), (140, 95, 70), (225, 180, 150)))
    hair = choose(draws, ((40, 30, 25), (90, 60, 35), (190, 160, 100), (120, 120, 120)))
    bag = draws.random() < 0.4
    side = draws.choice((-1, 1))
    phases = []
    for stride in (1.0, 0.35, -1.0, -0.35):
        image = Image.new("RGBA", (80, 160))
        draw = ImageDraw.Draw(image)
        for direction, shade in ((-1, 0.8), (1, 1.0)):
            foot = 40 + 15 * stride * direction
            draw.line([(40, 86), (40 + 8 * stride * direction, 120), (foot, 156)], fill=tint(trousers, shade), width=12)
            hand = 40 - 15 * stride * direction
            draw.line([(40, 42), (hand, 84)], fill=tint(coat, 0.75 * shade), width=9)
        draw.rounded_rectangle((25, 32, 55, 92), 10, fill=coat)
        if bag:
            draw.rounded_rectangle((40 + side * 18 - 9, 62, 40 + side * 18 + 9, 90), 3, fill=tint(trousers, 1.4))
        draw.ellipse((29, 4, 51, 30), fill=hair)
        draw.ellipse((31, 8, 49, 31), fill=skin)
        phases.append(image)
    return Sprite(phases, draws.uniform(1.55, 1.9))


def car(draws: Generator, approaching: bool) -> Sprite:
    """A car from the front or from behind."""
    paint = vary(draws, choose(draws, LIVERIES + CLOTHES[5:7]))
    image = Image.new("RGBA", (140, 110))
    draw = ImageDraw.Draw(image)
    for x in (14, 102):
        draw.rounded_rectangle((x, 80, x + 24, 110), 5, fill=(25, 25, 28))
    draw.polygon([(22, 48), (38, 6), (102, 6), (118, 48)], fill=tint(paint, 0.85))
    draw.polygon([(30, 46), (43, 12), (97, 12), (110, 46)], fill=(70, 88, 105))
    draw.rounded_rectangle((6, 44, 134, 96), 12, fill=paint)
    draw.rectangle((40, 66, 100, 84), fill=tint(paint, 0.55) if approaching else (235, 235, 225))
    for x in (12, 106):
        draw.ellipse((x, 54, x + 22, 70), fill=(255, 250, 215) if approaching else (215, 40, 35))
    return Sprite([image], 1.5)


def cyclist(draws: Generator) -> Sprite:
    """A rider from the front, pedalling."""
    rider = person(draws)
    phases = []
    for figure in rider.phases:
        image = Image.new("RGBA", (80, 180))
        ImageDraw.Draw(image).rounded_rectangle((36, 96, 44, 180), 4, fill=(30, 30, 32))
        image.alpha_composite(figure.crop((0, 0, 80, 140)))
        ImageDraw.Draw(image).line([(16, 82), (64, 82)], fill=(60, 60, 64), width=5)
        phases.append(image)
    return Sprite(phases, 1.85)


def _bird(draws: Generator) -> Sprite:
    phases = []
    for lift in (2, 10, 18, 10):
        image = Image.new("RGBA", (40, 22))
        ImageDraw.Draw(image).line([(2, lift), (20, 12), (38, lift)], fill=(40, 40, 45, 255), width=4)
        phases.append(image)
    return Sprite(phases, 0.4)


def walk_across(draws: Generator, reach: float, near: float, far: float, speed: float = 1.3) -> Path:
    """A walk from side to side that turns at the ends."""
    z, begin = draws.uniform(near, far), draws.uniform(-reach, reach)
    pace = speed * draws.uniform(0.7, 1.3) * draws.choice((-1, 1))

    def path(time: float) -> Point:
        return abs((begin + pace * time + reach) % (4 * reach) - 2 * reach) - reach, 0.0, z

    return path


def walk_along(draws: Generator, left: float, right: float, near: float, far: float, speed: float = 1.3) -> Path:
    """A walk towards the camera or away from it that turns at the ends."""
    x, begin = draws.uniform(left, right), draws.uniform(0, far - near)
    pace = speed * draws.uniform(0.7, 1.3) * draws.choice((-1, 1))
    drift, length = draws.uniform(-0.3, 0.3), far - near

    def path(time: float) -> Point:
        return x + drift * np.sin(time), 0.0, near + abs((begin + pace * time) % (2 * length) - length)

    return path


def drive(draws: Generator, x: float, pace: float) -> Path:
    """A drive along the street at `pace` metres per second, negative towards the camera, over and over."""
    begin = draws.uniform(0, 32)
    return lambda time: (x, 0.0, 1.5 + (begin + pace * time) % 32)


def sway(x: float, y: float, z: float, reach: float, rate: float, phase: float = 0.0) -> Path:
    """Standing, with a sideways swing."""
    return lambda time: (x + reach * np.sin(rate * time + phase), y, z)


def _flight(path: Path, height: float) -> Path:
    return lambda time: (path(time)[0], height + np.sin(time * 2), path(time)[2])


def flock(clip: Generator, count: int) -> list[Mover]:
    movers = []
    for _ in range(count):
        path, height = walk_across(clip, 14, 14, 26, 4.0), clip.uniform(6, 12)
        movers.append(Mover(_bird(clip), _flight(path, height), 9))
    return movers

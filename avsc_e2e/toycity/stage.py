"""A still image in the making: colours, and shapes in metres projected onto it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float, float]

FACADES = (
    (214, 180, 120), (228, 210, 170), (178, 92, 70), (196, 150, 120), (170, 165, 158), (232, 226, 214),
    (214, 160, 140), (160, 180, 190), (190, 175, 110), (150, 110, 90), (205, 195, 205), (230, 190, 90),
)  # fmt: skip
LIVERIES = (
    (30, 90, 170), (200, 40, 45), (40, 140, 80), (230, 130, 30), (20, 140, 150), (110, 60, 140),
    (235, 190, 40), (90, 100, 115),
)  # fmt: skip
CLOTHES = (
    (40, 45, 70), (150, 40, 45), (60, 90, 60), (200, 180, 60), (90, 120, 170), (230, 230, 225), (30, 30, 32),
    (170, 110, 70), (120, 60, 110), (70, 140, 140), (220, 120, 60), (110, 110, 115),
)  # fmt: skip
SKIES = (
    ((95, 150, 215), (205, 225, 240), 1.0),
    ((150, 165, 180), (215, 218, 222), 0.85),
    ((90, 110, 165), (245, 200, 160), 0.8),
    ((125, 175, 225), (235, 235, 225), 1.05),
)  # colour above, colour at the horizon, brightness of what stands below


def tint(colour: Colour, factor: float) -> Colour:
    red, green, blue = (int(min(255, max(0, value * factor))) for value in colour)
    return red, green, blue


def vary(draws: Generator, colour: Colour, spread: float = 12) -> Colour:
    shifts = draws.normal(0, spread, 3)
    red, green, blue = (int(min(255, max(0, value + shift))) for value, shift in zip(colour, shifts, strict=True))
    return red, green, blue


def choose(draws: Generator, options: tuple) -> tuple:
    return options[draws.integers(len(options))]


def ordered(one: float, other: float) -> tuple[float, float]:
    """The lower and the higher of two."""
    return min(one, other), max(one, other)


class Canvas(Protocol):
    """What is drawn on: size in pixels, frames a second, length in seconds. A ToyCity is one."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def frame_rate(self) -> int: ...
    @property
    def duration(self) -> float: ...


class Stage:
    """A still image in the making, in metres: x right, y up from the ground, z away from the camera."""

    scale = 3  # drawn larger and reduced, for smooth edges

    def __init__(self, canvas: Canvas, place: Generator, eye: float, horizon: float, sideways: float = 0.5):
        self.width, self.height = canvas.width, canvas.height
        self.eye = eye
        self.centre = (sideways * self.width, horizon * self.height)
        self.focal = place.uniform(0.8, 1.0) * self.height
        self.image = Image.new("RGB", (self.width * self.scale, self.height * self.scale))
        self.draw = ImageDraw.Draw(self.image)

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Pixels of the finished image."""
        z = max(z, 0.3)
        return self.centre[0] + self.focal * x / z, self.centre[1] - self.focal * (y - self.eye) / z

    def _pixels(self, points) -> list[tuple[float, float]]:
        return [(x * self.scale, y * self.scale) for x, y in (self.project(*point) for point in points)]

    def polygon(self, colour: Colour, *points: Point) -> None:
        self.draw.polygon(self._pixels(points), fill=colour)

    def line(self, colour: Colour, thickness: float, *points: Point) -> None:
        """`thickness` in metres at the first point's distance."""
        width = max(1, round(thickness * self.focal / max(points[0][2], 0.3) * self.scale))
        self.draw.line(self._pixels(points), fill=colour, width=width)

    def disc(self, colour: Colour, x: float, y: float, z: float, radius: float, flat: float = 1.0) -> None:
        (centre_x, centre_y), size = (self._pixels([(x, y, z)])[0], radius * self.focal / max(z, 0.3) * self.scale)
        box = (centre_x - size, centre_y - size * flat, centre_x + size, centre_y + size * flat)
        self.draw.ellipse(box, fill=colour)

    def front(self, colour: Colour, left: float, right: float, low: float, high: float, z: float) -> None:
        self.polygon(colour, (left, low, z), (right, low, z), (right, high, z), (left, high, z))

    def side(self, colour: Colour, x: float, low: float, high: float, near: float, far: float) -> None:
        self.polygon(colour, (x, low, near), (x, low, far), (x, high, far), (x, high, near))

    def flat(self, colour: Colour, left: float, right: float, near: float, far: float, y: float = 0.0) -> None:
        self.polygon(colour, (left, y, near), (right, y, near), (right, y, far), (left, y, far))

    def sky(self, above: Colour, below: Colour) -> None:
        rows = round(self.centre[1] * self.scale) + 1
        blend = np.linspace(0, 1, rows)[:, None] * (np.array(below) - above) + above
        ramp = np.broadcast_to(blend[:, None], (rows, self.image.width, 3)).astype(np.uint8)
        self.image.paste(Image.fromarray(np.ascontiguousarray(ramp)), (0, 0))

    def finished(self) -> Image.Image:
        return self.image.reduce(self.scale)

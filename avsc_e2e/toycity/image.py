"""The frames of the six looks: carriage, hall, street, platform, park and square."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.random import Generator
from PIL import Image

from avsc_e2e.toycity.indoors import carriage, hall, platform
from avsc_e2e.toycity.outdoors import park, square, street
from avsc_e2e.toycity.stage import Canvas

LOOKS = {
    "carriage": carriage,
    "hall": hall,
    "park": park,
    "platform": platform,
    "square": square,
    "street": street,
}


def draw(look: str, canvas: Canvas, city: Generator, place: Generator, clip: Generator) -> Iterator[Image.Image]:
    """The frames of one of the six looks, by the draws of the city, the location and the clip."""
    scenery = LOOKS[look](canvas, city, place, clip)
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
        frame = still.copy()
        if scenery.overlay:
            scenery.overlay(frame, time)
        positions = [(mover.path(time), mover) for mover in scenery.movers]
        for (x, y, z), mover in sorted(positions, key=lambda item: -item[0][2]):  # the nearest last
            pixels = round(mover.sprite.size * stage.focal / z)
            if 2 <= pixels <= 2 * stage.height:
                sprite = mover.sprite.at(int(time * mover.gait), pixels)
                left, bottom = stage.project(x, y, z)
                frame.paste(sprite, (round(left - sprite.width / 2), round(bottom) - pixels), sprite)
        yield frame.point(table)

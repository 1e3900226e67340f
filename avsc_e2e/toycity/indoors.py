"""The looks under a roof: hall, platform and carriage."""

from __future__ import annotations

from copy import copy

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from avsc_e2e.toycity.sprites import Mover, Scenery, Sprite, person, sway, walk_across, walk_along
from avsc_e2e.toycity.stage import CLOTHES, FACADES, LIVERIES, SKIES, Canvas, Stage, choose, ordered, tint, vary


def hall(canvas: Canvas, city: Generator, place: Generator, clip: Generator) -> Scenery:
    """A bright indoor hall: shop fronts on both sides, a polished floor, rows of lamps, hanging signs."""
    stage = Stage(canvas, place, place.uniform(1.6, 2.4), place.uniform(0.46, 0.58), place.uniform(0.4, 0.6))
    half, high, deep = place.uniform(5, 7), place.uniform(5.5, 7.5), place.uniform(28, 40)
    floor = vary(place, choose(place, ((205, 200, 192), (190, 195, 200), (215, 200, 175))), 7)
    ceiling = vary(place, choose(place, ((225, 225, 225), (200, 205, 210), (230, 220, 205))), 7)
    stage.image.paste(ceiling, (0, 0, *stage.image.size))
    stage.flat(floor, -half, half, 0.4, deep)
    stage.flat(ceiling, -half, half, 0.4, deep, high)
    for z in 30 / np.arange(1, 16):
        stage.line(tint(floor, 0.9), 0.05, (-half, 0, z), (half, 0, z))
    for x in np.linspace(-half, half, 8):
        stage.line(tint(floor, 0.92), 0.05, (x, 0, 1.4), (x, 0, deep))
    stage.front((150, 185, 215), -half, half, 0, high, deep)
    stage.front((205, 225, 240), -half, half, high * 0.45, high, deep)
    for x in np.linspace(-half, half, 7):
        stage.line((90, 95, 100), 0.25, (x, 0, deep), (x, high, deep))
    rows = place.choice((2, 3))
    for x in np.linspace(-half * 0.6, half * 0.6, rows):
        for z in np.arange(deep - 2, 1.5, -2.6):
            stage.flat((255, 253, 240), x - 0.5, x + 0.5, z, z + 1.3, high)
            stage.flat(tint(floor, 1.13), x - 0.4, x + 0.4, z, z + 0.9)
    accent = vary(place, LIVERIES[city.integers(len(LIVERIES))], 12)
    for direction in (-1, 1):
        x = direction * half
        stage.side(tint(ceiling, 0.82), x, 0, high, 0.4, deep)
        z = deep
        while z > 1.2:
            wide = place.uniform(3.2, 5.0)
            near = max(0.5, z - wide)
            inside = choose(place, ((250, 235, 190), (235, 240, 245), (245, 215, 200), (225, 240, 220)))
            stage.side(vary(place, inside, 8), x * 0.998, 0.1, 2.9, near + 0.25, z - 0.25)
            for shelf in (0.7, 1.3, 1.9):
                for item in np.arange(near + 0.5, z - 0.7, 0.5):
                    goods = vary(place, choose(place, CLOTHES), 25)
                    stage.side(goods, x * 0.997, shelf, shelf + place.uniform(0.2, 0.42), item, item + 0.32)
            sign = vary(place, choose(place, LIVERIES), 18)
            stage.side(sign, x * 0.995, 3.0, 3.7, near + 0.2, z - 0.2)
            for letter in np.arange(near + wide * 0.25, z - wide * 0.25, 0.35):
                stage.side((250, 250, 245), x * 0.99, 3.2, 3.5, letter, letter + 0.2)
            stage.side(tint(ceiling, 0.65), x * 0.99, 0, high, near - 0.15, near + 0.15)
            z -= wide
        for z in np.arange(deep - 4, 5, -6.5):
            post = x * 0.72
            stage.front(tint(ceiling, 0.88), post - 0.28, post + 0.28, 0, high, z)
            stage.front(tint(ceiling, 1.03), post - 0.28, post - 0.05, 0, high, z)
    for z in (place.uniform(16, 20), place.uniform(8, 11)):
        x = place.uniform(-1.5, 1.5)
        for end in (-1.3, 1.3):
            stage.line((80, 80, 85), 0.06, (x + end, high, z), (x + end, 3.9, z))
        stage.front(accent, x - 1.8, x + 1.8, 3.2, 4.0, z)
        stage.polygon((255, 255, 255), (x - 1.5, 3.6, z), (x - 1.1, 3.85, z), (x - 1.1, 3.35, z))
        for letter in np.arange(x - 0.8, x + 1.4, 0.3):
            stage.front((255, 255, 255), letter, letter + 0.18, 3.45, 3.75, z)
    movers = [Mover(person(clip), walk_along(clip, -half * 0.6, half * 0.6, 4.5, 26), 6) for _ in range(8)]
    movers += [Mover(person(clip), walk_across(clip, half - 1, 7, 20), 6) for _ in range(3)]
    return Scenery(stage, movers)


def platform(canvas: Canvas, city: Generator, place: Generator, clip: Generator) -> Scenery:
    """An underground platform: tiled walls, the yellow edge, rails, and a train that pulls in."""
    turn = place.choice((-1, 1))
    stage = Stage(canvas, place, place.uniform(1.6, 2.1), place.uniform(0.42, 0.54), 0.5 - 0.12 * turn)
    high, deep = place.uniform(3.6, 4.6), 45.0
    tiles = vary(place, choose(place, ((200, 200, 190), (165, 180, 180), (190, 170, 145), (150, 155, 165))), 8)
    stripe = vary(place, LIVERIES[city.integers(len(LIVERIES))], 12)
    floor = vary(place, (125, 122, 120), 8)
    wall, bed, edge = -turn * place.uniform(3.2, 4.2), turn * 4.6, turn * 1.4
    stage.image.paste((30, 30, 36), (0, 0, *stage.image.size))
    stage.flat(tint(floor, 0.5), *ordered(wall, bed), 0.4, deep, high)
    for z in np.arange(deep - 3, 1, -3.0):
        stage.flat((250, 250, 235), *ordered(wall * 0.45, wall * 0.3), z, z + 2.0, high)
    stage.flat((48, 44, 42), *ordered(edge, bed), 0.4, deep, -1.0)
    for z in 30 / np.arange(1, 30):
        stage.line((75, 65, 55), 0.2, (edge + turn * 0.3, -1, z), (bed - turn * 0.2, -1, z))
    for rail in (edge + turn * 0.7, edge + turn * 2.2):
        stage.line((175, 175, 180), 0.1, (rail, -0.9, 0.9), (rail, -0.9, deep))
    stage.side(tint(floor, 0.45), edge, -1.0, 0, 0.4, deep)
    stage.flat(floor, *ordered(wall, edge), 0.4, deep)
    for z in 24 / np.arange(1, 14):
        stage.line(tint(floor, 0.85), 0.04, (wall, 0, z), (edge, 0, z))
    stage.flat((235, 200, 50), *ordered(edge, edge - turn * 0.35), 0.4, deep)
    for x, shade in ((wall, 1.0), (bed, 0.7)):
        low = 0 if x == wall else -1.0
        stage.side(tint(tiles, shade), x, low, high, 0.4, deep)
        for y in np.arange(low + 0.4, high, 0.5):
            stage.line(tint(tiles, shade * 0.84), 0.03, (x, y, 1.0), (x, y, deep))
        for z in 20 / np.arange(1, 18):
            stage.line(tint(tiles, shade * 0.84), 0.03, (x, low, z), (x, high, z))
        stage.side(tint(stripe, shade), x * 0.998, 2.3, 2.8, 0.4, deep)
        for z in (20, 13, 8, 4.5):
            stage.side((245, 245, 240), x * 0.996, 2.38, 2.72, z, z + 2.2)
            poster = vary(place, choose(place, LIVERIES), 20)
            stage.side((235, 235, 230), x * 0.996, 0.8, 2.1, z, z + 1.6)
            stage.side(poster, x * 0.994, 0.9, 2.0, z + 0.12, z + 1.45)
            stage.side(tint(poster, 1.7), x * 0.992, 1.2, 1.5, z + 0.4, z + 1.1)
    for z in np.arange(28, 4, -7.0):
        post = wall * 0.55
        stage.front(tint(stripe, 0.9), post - 0.2, post + 0.2, 0, high, z)
    z = place.uniform(8, 11)
    stage.front((25, 30, 40), -1.2, 1.2, 2.7, 3.3, z)
    for letter in np.arange(-1.0, 0.9, 0.28):
        stage.front((250, 190, 60), letter, letter + 0.18, 2.85, 3.12, z)

    livery = vary(clip, LIVERIES[city.integers(len(LIVERIES))], 12)
    speed, arrival = clip.uniform(4, 9), clip.uniform(-2, 4)
    track = edge + turn * 0.25

    def overlay(frame: Image.Image, time: float) -> None:
        nose = max(3.0, 40 - speed * (time - arrival))
        if nose >= 40:
            return
        train = copy(stage)
        train.image, train.scale, train.draw = frame, 1, ImageDraw.Draw(frame)
        train.side(livery, track, -0.8, 2.9, nose, 44)
        train.side((215, 218, 222), track, 0.5, 2.3, nose, 44)
        for z in np.arange(nose + 0.5, 42, 3.2):
            train.side((250, 240, 190), track, 1.0, 2.0, z, z + 1.5)
            train.side(tint(livery, 0.7), track, 0.05, 2.2, z + 1.9, z + 2.7)
        train.front(tint(livery, 0.9), *ordered(track, track + turn * 2.6), -0.8, 2.9, nose)
        train.front((40, 45, 55), *ordered(track + turn * 0.3, track + turn * 2.3), 1.1, 2.4, nose)
        for lamp in (0.5, 2.1):
            train.disc((255, 250, 210), track + turn * lamp, 0.2, nose, 0.18)

    movers = [
        Mover(person(clip), walk_along(clip, *ordered(wall * 0.8, edge - turn * 0.7), 4, 24), 6) for _ in range(6)
    ]
    for _ in range(3):
        x, z = clip.uniform(*ordered(wall * 0.8, edge - turn * 0.7)), clip.uniform(5, 18)
        movers.append(Mover(person(clip), sway(x, 0.0, z, 0.05, 2), 0.4))
    return Scenery(stage, movers, overlay)


def carriage(canvas: Canvas, city: Generator, place: Generator, clip: Generator) -> Scenery:
    """Along the aisle of a vehicle: seats, poles and straps, the city or a tunnel behind the windows."""
    stage = Stage(canvas, place, place.uniform(1.45, 1.75), place.uniform(0.42, 0.52), place.uniform(0.42, 0.58))
    half, high, deep = place.uniform(1.25, 1.5), place.uniform(2.25, 2.5), place.uniform(8, 12)
    panel = vary(place, choose(place, ((215, 215, 210), (200, 208, 215), (225, 215, 195))), 7)
    seat = vary(place, LIVERIES[city.integers(len(LIVERIES))], 15)
    pole = choose(place, ((240, 200, 40), (190, 192, 198), (230, 120, 40), (90, 170, 90)))
    floor = vary(place, (105, 105, 110), 10)
    low, top, wide, pillar = place.uniform(0.9, 1.05), place.uniform(1.85, 2.0), place.uniform(1.2, 1.8), 0.28
    stage.image.paste(panel, (0, 0, *stage.image.size))
    stage.flat(tint(panel, 1.05), -half, half, 0.4, deep, high)
    stage.flat(floor, -half, half, 0.4, deep)
    for x in (-half * 0.45, half * 0.45):
        for z in np.arange(deep - 1, 0.6, -1.6):
            stage.flat((255, 254, 245), x - 0.12, x + 0.12, z, z + 1.3, high)
    stage.front(tint(panel, 0.9), -half, half, 0, high, deep)
    stage.front(tint(panel, 0.6), -0.45, 0.45, 0, 2.0, deep)
    stage.front((80, 95, 110), -0.33, 0.33, 0.9, 1.85, deep)
    begin = place.uniform(0, 1)
    fronts = np.arange(begin + 0.3, deep - 0.3, wide + pillar)
    mask = Image.new("1", (stage.width, stage.height))
    for x in (-half, half):
        stage.side(tint(panel, 0.93), x, 0, high, 0.4, deep)
        stage.side(tint(panel, 0.72), x, 0, 0.45, 0.4, deep)
        stage.side(tint(seat, 0.8), x, 2.1, 2.22, 0.4, deep)
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
            cloth = tint(vary(place, seat, 5), 0.75 + 0.25 * (1 - z / deep))
            stage.front(cloth, left, right, 0.4, 1.12, z)
            stage.front(tint(cloth, 1.25), left + 0.05, right - 0.05, 0.85, 1.06, z)
            stage.flat(tint(cloth, 0.8), left, right, z - 0.45, z, 0.45)
            stage.front(tint(cloth, 0.5), left, right, 0.1, 0.45, z - 0.45)
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

    def overlay(frame: Image.Image, time: float) -> None:
        travelled = int(24 * speed * (time + 0.8 * np.sin(0.7 * time + phase)))
        pixels = np.array(frame)
        pixels[rows, columns] = view[up, (along + travelled) % view.shape[1]]
        frame.paste(Image.fromarray(pixels))

    movers = []
    strap = Image.new("RGBA", (60, 100))
    ImageDraw.Draw(strap).line([(30, 0), (30, 55)], fill=(60, 60, 62), width=7)
    ImageDraw.Draw(strap).ellipse((8, 50, 52, 96), outline=pole, width=9)
    straps = Sprite([strap], 0.3)
    for z in np.arange(1.8, deep - 1, 0.9):
        for x in (-0.55, 0.55):
            swing = clip.uniform(0, 6)
            movers.append(Mover(straps, sway(x, 1.68, z, 0.05, 2.5, swing)))
    for _ in range(clip.integers(3, 6)):
        x, z, lag = (clip.choice((-1, 1)) * clip.uniform(0.2, 0.9), clip.uniform(2.6, deep - 1), clip.uniform(0, 6))
        movers.append(Mover(person(clip), sway(x, -0.02, z, 0.06, 1.6, lag)))
    walk = walk_along(clip, -0.2, 0.2, 3, deep - 1, 0.8)
    movers.append(Mover(person(clip), walk, 5))
    return Scenery(stage, movers, overlay)


def _outside(place: Generator, clip: Generator) -> np.ndarray:
    """What passes by a window, (32, 960, 3) uint8: houses and trees, or the lamps of a tunnel."""
    view = Image.new("RGB", (960, 32))
    draw = ImageDraw.Draw(view)
    if place.random() < 0.4:
        draw.rectangle((0, 0, 960, 32), fill=vary(place, (35, 35, 42), 5))
        for x in range(0, 960, 48):
            draw.rectangle((x, 8, x + 10, 12), fill=(255, 235, 180))
            draw.rectangle((x + 20, 0, x + 24, 32), fill=(60, 60, 68))
        draw.line((0, 24, 960, 24), fill=(80, 80, 90), width=2)
    else:
        above, _, light = choose(place, SKIES)
        draw.rectangle((0, 0, 960, 32), fill=above)
        x = 0
        while x < 960:
            wide = int(clip.integers(16, 60))
            if clip.random() < 0.6:
                draw.rectangle((x, int(clip.integers(2, 14)), x + wide, 32), fill=tint(choose(clip, FACADES), light))
                for window in range(x + 3, x + wide - 4, 8):
                    draw.rectangle((window, 16, window + 4, 22), fill=(70, 80, 95))
            else:
                draw.ellipse((x, 6, x + wide, 40), fill=tint((80, 125, 65), light))
            x += wide
        draw.rectangle((0, 28, 960, 32), fill=(110, 110, 112))
    return np.asarray(view.filter(ImageFilter.BoxBlur(1)))

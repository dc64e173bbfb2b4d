"""Occluders: things worn on a face or held before it.

Each kind is a function of the :class:`~synthetic_faces.layers.Stage` and a stream; it returns the layers that
are laid over the picture in turn.
"""

import functools

import numpy as np
from scipy import ndimage

from synthetic_faces.chance import choose, normal
from synthetic_faces.head import head_grid
from synthetic_faces.layers import Layer, Stage, coverage, flat_colour, limb
from synthetic_faces.light import shade
from synthetic_faces.mesh import Solid, grid_normals, power, rasterise
from synthetic_faces.paint import Paint, linear
from synthetic_faces.recipe import GLASSES, HAIR, OCCLUDER, SUNGLASSES
from synthetic_faces.scene import random_colour
from synthetic_faces.skin import azimuth


def mask(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """A surgical or a cloth mask, stretched over nose and chin, with loops to the ears."""
    shape, size = stage.shape, stage.view.size
    grid = head_grid(shape)
    # Cloth spans the hollows beside nose and mouth.
    taut = np.maximum(0.6 * ndimage.maximum_filter(grid[..., 2], (5, 5)) + 0.4 * grid[..., 2], grid[..., 2])
    cloth = grid + 4 * grid_normals(grid)
    cloth[..., 2] = np.where(grid[..., 2] > 30, taut + 4, cloth[..., 2])
    seen = rasterise(stage.view, [Solid(cloth, stage.turn, place=grid)])[0]
    high = shape.nose_length * rng.uniform(0.3, 0.75)
    low = 112 * shape.stretch + 0.6 * shape.jaw_open
    y, angle = seen.place[:, 1], np.abs(azimuth(seen.place))
    inside = (y > high + np.clip(angle - 15, 0, None) * rng.uniform(0.2, 0.5)) & (angle < rng.uniform(52, 66))
    inside &= y < low - np.clip(angle - 30, 0, None) * 0.8
    seen = seen[inside & (seen.depth > stage.depth[seen.pixel] - 6)]
    y = seen.place[:, 1]
    surgical = linear(str(rng.choice(["#9fc4dd", "#b9d8e6", "#e8ecee", "#1d1d20", "#8fae9a"])))
    colour = surgical if rng.random() < 0.6 else random_colour(rng)
    paint = Paint.plain(len(y), colour, OCCLUDER, 0.1)
    paint.darken(0.22 * np.cos(2 * np.pi * (y - high) / rng.uniform(12, 17)) ** 6)  # pleats
    cover, lit = np.zeros(size * size, np.float32), np.zeros((size * size, 3), np.float32)
    cover[seen.pixel] = 1
    lit[seen.pixel] = shade(stage.light, paint, seen.normal, cover[seen.pixel])
    loops = []
    for side in (-1, 1):
        if side * stage.turn[0, 2] < 0.25:  # the other ear is out of sight
            ear = (side * 78, 10, -12)
            for height in (high + 12, low - 25):
                loops.append(stage.at((side * 62, height, 42), (side * 73, 0.5 * height + 8, 8), ear))
    cords = coverage(size, loops, 1.8 * stage.view.scale)
    cords = Layer(cords, flat_colour(stage.light, colour, 0), shadow=0.0)
    return [cords, Layer(cover.reshape(size, size), lit.reshape(size, size, 3))]


def spectacles(stage: Stage, rng: np.random.Generator, dark: bool = False) -> list[Layer]:
    """Glasses: two lenses before the eyes, bridge and temples; clear with glare, or ``dark``.

    Clear ones are part of the person; dark ones hide what is behind them, and have a class of their own.
    """
    size, label = stage.view.size, SUNGLASSES if dark else GLASSES
    half_w = rng.uniform(24, 31) if dark else rng.uniform(19, 27)
    half_h = half_w * (rng.uniform(0.65, 0.95) if dark else rng.uniform(0.5, 0.95))
    square, angle = rng.uniform(0.45, 1.0), np.linspace(0, 2 * np.pi, 33)  # 1 is an ellipse
    ring_x, ring_y = half_w * power(np.cos(angle), square), half_h * power(np.sin(angle), square)
    z, apart = 86 + 0.25 * stage.shape.nose_height, max(stage.shape.eye_x, half_w + 6)
    lenses, wires = [], [stage.at((-apart + half_w, -2, z), (0, -5, z + 4), (apart - half_w, -2, z))]
    for side in (-1, 1):
        x = side * apart + ring_x
        lenses.append(stage.at(*np.column_stack([x, 3 + ring_y, z - 0.007 * x**2])))  # bent round the face
        if side * stage.turn[0, 2] < 0.12:  # the other temple is behind the face
            ends = (side * (apart + half_w), -2, z - 18), (side * 79, -2, 30), (side * 80, 2, -14)
            wires.append(stage.at(*ends))
    frame_colour = random_colour(rng, 0.4) * 0.3 if rng.random() < 0.75 else linear("#b99a58")
    thick = rng.uniform(3.0, 5.5) if dark or rng.random() < 0.5 else rng.uniform(1.2, 2.4)
    glass = coverage(size, lenses)
    sweep = np.linspace(0, 1, size, dtype=np.float32)
    glare = np.exp(-(((sweep[None, :] + 0.6 * sweep[:, None] - rng.uniform(0.3, 1.2)) / 0.05) ** 2))
    if dark:
        tint = flat_colour(stage.light, random_colour(rng, 0.5) * 0.12, 0.12)
        lens = Layer(glass, tint + 0.15 * glare[..., None] * rng.uniform(0, 1), label, 0.3)
    else:
        haze = (glass * (0.04 + 0.35 * rng.uniform(0, 1) * glare)).astype(np.float32)
        lens = Layer(haze, np.full(3, 0.8, np.float32), None, 0.0)
    rim = coverage(size, [*lenses, *wires], max(0.9, thick * stage.view.scale))
    return [lens, Layer(rim, flat_colour(stage.light, frame_colour, 0.25), label, 0.25)]


def strands(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """Locks of hair that fall across the face: curved, tapering, with gaps between them."""
    side = rng.choice([-1, 1])
    start, sweep, width = rng.uniform(-10, 30), rng.uniform(10, 60), rng.uniform(2.0, 3.2)
    t = np.linspace(0, 1, 12)
    taper = 0.5 * width * stage.view.scale * (1 - t[:, None] ** 2)
    hair = flat_colour(stage.light, stage.hair, 0.02)
    layers = []
    for _ in range(int(rng.integers(4, 11))):
        drop, root = rng.uniform(60, 170), start + rng.normal(0, 18)
        lean, bend, phase = sweep * rng.uniform(0.6, 1.4), rng.normal(0, 6), rng.uniform(0, 3)
        outlines = []
        for _ in range(int(rng.integers(5, 11))):
            fall = drop * rng.uniform(0.75, 1)
            # The hairs of a lock part a little on the way and meet again at its tip.
            apart = rng.normal(0, 3.5) * (1 - 0.8 * t**2)
            x = root + lean * (fall * t / 110) ** 1.3 + bend * np.sin(phase + 4 * t) * t + apart
            y = -stage.shape.hairline - rng.uniform(4, 20) + fall * t
            z = np.sqrt(np.clip(84**2 - (x * 84 / 80) ** 2, 0, None)) + 8
            points = stage.at(*np.column_stack([side * x, y, z]))
            along = np.gradient(points, axis=0)
            out = along[:, ::-1] * [1, -1] / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
            outlines.append(np.concatenate([points + out * taper, (points - out * taper)[::-1]]))
        tone = np.float32(rng.uniform(0.7, 1.5))
        layers.append(Layer(coverage(stage.view.size, outlines), hair * tone, HAIR, 0.35))
    return layers


def _axes(angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the unit vectors up and across, in pixels, of something leaning right by ``angle`` (radians)."""
    up = np.array([np.sin(angle), -np.cos(angle)])
    return up, np.array([np.cos(angle), np.sin(angle)])


def _arm(stage: Stage, rng: np.random.Generator, wrist, elbow, grow: float, tone) -> list[Layer]:
    """Return forearm and, mostly, a sleeve from ``wrist`` to ``elbow`` (pixels)."""
    layers = [limb(stage, [wrist, elbow], np.array([27, 45]) * grow, tone, 0.2)]
    if rng.random() < 0.7:
        cuff = wrist + (elbow - wrist) * rng.uniform(0.0, 0.25)
        layers.append(limb(stage, [cuff, elbow], np.array([36, 58]) * grow, random_colour(rng, 0.7), 0.05))
    return layers


def _finger(stage: Stage, base, aim, bend, length: float, width: float, tone) -> Layer:
    """Return a finger of three joints from ``base`` along ``aim``, curving by ``bend``; all in pixels."""
    steps = ((0, 0), (0.45, 0), (0.78, 1), (1, 2))
    joints = [base + (aim + curve * bend) * part * length for part, curve in steps]
    return limb(stage, joints, width * np.array([1.0, 0.98, 0.9, 0.75]), tone, 0.25)


def hand(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """A hand with bent fingers on the cheek, over the mouth, under the chin or before the eyes."""
    side = rng.choice([-1, 1])
    spots = {
        (52, 40, 60): 1.0,  # the cheek
        (12, 70, 90): 1.0,  # the mouth
        (15, 118, 75): 2.0,  # the chin
        (18, 4, 80): 0.4,  # the eyes
        (40, -45, 70): 0.5,  # the brow
        (95, 70, 60): 0.7,  # beside the face
    }
    spot = choose(rng, spots)
    grow = stage.view.scale * normal(rng, 1.0, 0.08)
    tip = stage.at(spot * np.array([side, 1, 1]))[0] + rng.normal(0, 4, 2) * stage.view.scale
    # Fingers point from the wrist, which comes from below or from the side, to the target.
    up, across = _axes(-np.radians(normal(rng, 25, 18)) * side)
    reach = rng.uniform(10, 50) if spot[1] == 118 else rng.uniform(35, 85)  # bent fingers under the chin
    palm = tip - up * (reach + 35) * grow
    wrist = palm - up * 75 * grow
    tone = stage.flesh * rng.uniform(0.85, 1.1)
    layers = _arm(stage, rng, wrist, wrist - up * 260 * grow + side * across * 60 * grow, grow, tone)
    back = [wrist, palm - up * 45 * grow, palm]
    layers.append(limb(stage, back, np.array([27, 34, 40]) * grow, tone, 0.2))
    spread, curl = rng.uniform(0.0, 0.16), rng.uniform(-0.12, 0.12)
    for k in rng.permutation(4):
        base = palm + across * (k - 1.5) * 19.5 * grow + up * 18 * grow
        aim = up + across * ((k - 1.5) * spread + rng.normal(0, 0.05))
        length = reach * (1.0, 1.12, 1.05, 0.85)[k] * grow
        layers.append(_finger(stage, base, aim, across * curl, length, 10.5 * grow, tone))
    thumb = across * side * (1 if rng.random() < 0.8 else -1)
    aim = up * rng.uniform(0.2, 1.0) + thumb * rng.uniform(0.2, 1.0)
    aim, base = aim / np.linalg.norm(aim), palm - up * 25 * grow + thumb * 34 * grow
    return [*layers, _finger(stage, base, aim, 0.1 * up, 62 * grow, 12.5 * grow, tone)]


def phone(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """A phone at the ear or before the face, held by a hand of which four fingers come round it."""
    grow, side = stage.view.scale, rng.choice([-1, 1])
    middle = stage.at((side * rng.uniform(45, 90), rng.uniform(10, 60), 70))[0]
    up, across = _axes(side * rng.uniform(0.0, 0.6))
    wide, high = rng.uniform(20, 37) * grow, rng.uniform(55, 80) * grow
    angle = np.linspace(0, 2 * np.pi, 41)[:, None]
    outline = middle + wide * power(np.cos(angle), 0.25) * across + high * power(np.sin(angle), 0.25) * up
    colour = linear(str(rng.choice(["#141416", "#2a2c30", "#d9dadb", "#7c2231"])))
    layers = [Layer(coverage(stage.view.size, [outline]), flat_colour(stage.light, colour, 0.15))]
    out, tone = side * across, stage.flesh * rng.uniform(0.85, 1.1)
    hold = middle + out * (wide + 12 * grow)
    wrist = hold - up * 62 * grow + out * 8 * grow
    elbow = wrist - up * 240 * grow + out * rng.uniform(-10, 90) * grow
    layers += _arm(stage, rng, wrist, elbow, grow, tone)
    palm = [hold + up * 18 * grow, hold - up * 30 * grow, wrist]
    layers.append(limb(stage, palm, np.array([26, 30, 26]) * grow, tone, 0.2))
    for k in rng.permutation(4):
        base = middle + up * (26 - 18.5 * k) * grow + out * (wide + 6 * grow)
        length = wide * rng.uniform(0.9, 1.3) + (6, 12, 10, 2)[k] * grow
        aim = -out + 0.1 * up * rng.normal()
        layers.append(_finger(stage, base, aim, 0.05 * up, length, 10 * grow, tone))
    return layers


def microphone(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """One to three microphones that come from below, some as far as the mouth."""
    layers = []
    for _ in range(int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))):
        head = stage.at((rng.normal(0, 28), stage.shape.mouth_y + rng.uniform(8, 90), 130))[0]
        up, _ = _axes(normal(rng, 0, 0.5))
        grow = stage.view.scale * rng.uniform(0.8, 1.5)
        stick = linear("#16161a") * np.float32(rng.uniform(0.5, 2))
        handle = [head - up * 20 * grow, head - up * 320 * grow]
        layers.append(limb(stage, handle, np.array([13, 11]) * grow, stick, 0.4))
        ball = random_colour(rng) if rng.random() < 0.4 else linear("#35363a")
        ends = [head - up * 12 * grow, head + up * 12 * grow]
        layers.append(limb(stage, ends, np.array([21, 24]) * grow, ball, 0.3))
    return layers


KINDS = {
    "sunglasses": functools.partial(spectacles, dark=True),
    **{kind.__name__: kind for kind in (mask, strands, hand, phone, microphone)},
}
"""Each kind by name, in the order in which several are laid over each other."""

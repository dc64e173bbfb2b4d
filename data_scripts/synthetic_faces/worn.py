"""Worn occluders: meshes and curves in millimetres that sit on the head and turn with it."""

import dataclasses

import numpy as np
from scipy import ndimage

from synthetic_faces.chance import choose, field
from synthetic_faces.classes import GLASSES, HAIR, OCCLUDER, SUNGLASSES
from synthetic_faces.colour import linear
from synthetic_faces.head import head_grid, sections
from synthetic_faces.layers import (
    FRONT,
    Layer,
    Stage,
    lit_colour,
    on_pixels,
    polygon,
    ribbons,
    strokes,
)
from synthetic_faces.mesh import azimuths, grid_normals, power, rasterise, tube
from synthetic_faces.scene import draw_fabric, random_colour
from synthetic_faces.skin import Paint, azimuth


def mask(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """A surgical or a cloth mask, stretched over nose and chin, with loops to the ears."""
    shape = stage.shape
    grid = head_grid(shape)
    # Cloth spans the hollows beside nose and mouth.
    taut = np.maximum(0.6 * ndimage.maximum_filter(grid[..., 2], (5, 5)) + 0.4 * grid[..., 2], grid[..., 2])
    cloth = grid + 4 * grid_normals(grid)
    cloth[..., 2] = np.where(grid[..., 2] > 30, taut + 4, cloth[..., 2])
    seen = rasterise(stage.view, cloth, stage.turn, place=grid)
    high = shape.nose_length * rng.uniform(0.3, 0.75)
    low = 112 * shape.stretch + 0.6 * shape.jaw_open
    y, angle = seen.place[:, 1], np.abs(azimuth(seen.place))
    top = high + np.clip(angle - 15, 0, None) * rng.uniform(0.2, 0.5)
    bottom = low - np.clip(angle - 30, 0, None) * 0.8
    seen = seen[(y > top) & (y < bottom) & (angle < rng.uniform(52, 66))]
    x, y, _ = seen.place.T
    if rng.random() < 0.6:  # surgical: one colour and pleats
        colour = linear(str(rng.choice(["#9fc4dd", "#b9d8e6", "#e8ecee", "#1d1d20", "#8fae9a"])))
        paint = Paint.plain(len(y), colour, OCCLUDER, 0.1)
        pleat = np.cos(2 * np.pi * (y - high) / rng.uniform(12, 17)) ** 6
        paint.darken((0.22 * pleat).astype(np.float32))
    else:  # cloth: any fabric, a seam in the middle
        paint = Paint.plain(len(y), np.zeros(3), OCCLUDER, 0.05)
        paint.albedo = draw_fabric(rng, stage.photos)(x, y)
        paint.darken((0.3 * np.exp(-((x / 1.5) ** 2))).astype(np.float32))
        colour = paint.albedo.mean(0) if len(y) else np.zeros(3)
    loops = []
    for side in (-1, 1):
        if side * stage.turn[0, 2] < 0.25:  # the other ear is out of sight
            ear = (side * 78, 10, -12)
            for height in (high + 12, low - 25):
                loops.append(stage.at((side * 62, height, 42), (side * 73, 0.5 * height + 8, 8), ear))
    cord = Layer(
        strokes(stage.view.size, loops, 1.8 * stage.view.scale),
        lit_colour(stage.light, FRONT, colour, 0)[0],
        shadow=0.0,
    )
    return [cord, on_pixels(stage, seen, paint, stage.depth)]


def _crown(stage: Stage, rim: float, lift: float, tall: float, square: float) -> np.ndarray:
    """Return the crown of a hat ``[16,41,3]``: a dome over skull and hair.

    Args:
        stage: for the head's shape.
        rim: height y of the lower edge.
        lift: how far the crown stands off the skull, in millimetres.
        tall: how much higher than that it rises.
        square: 2 for a dome, larger for the upright sides of a felt hat.
    """
    knots = sections(stage.shape)[:8]
    width, front, back, centre = (np.interp(rim, knots[:, 0], knots[:, column]) for column in (1, 2, 3, 4))
    top = knots[0, 0] - lift - tall
    t = np.linspace(0, 1, 16) ** 1.6  # more rings where the dome curves
    radius = (1 - (1 - t) ** square) ** (1 / square)
    rings = np.stack(
        [
            top + (rim - top) * t,
            (width + lift) * radius,
            centre + (front + lift - centre) * radius,
            centre + (back - lift - centre) * radius,
            np.full(16, centre),
        ],
        axis=1,
    )
    crown = tube(rings, 16)
    crown[..., 1] += 0.10 * (20 - crown[..., 2])  # sits lower at the back
    return crown


def _brim(ring: np.ndarray, angle: np.ndarray, peak: bool, rng: np.random.Generator) -> np.ndarray:
    """Return a brim ``[6,41,3]`` around a crown's lowest ``ring`` ``[41,3]``, or a cap's peak."""
    reach = rng.uniform(45, 75) if peak else rng.uniform(35, 70)
    out = np.ones(len(angle))
    if peak:
        facing = angle if rng.random() < 0.88 else angle + 180  # some wear it backwards
        out = np.clip(np.cos(np.radians(facing)) * 1.9 - 0.55, 0, 1) ** 0.7
    away = ring - ring.mean(0)
    away[:, 1] = 0
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    steps = np.linspace(0, reach, 6)[:, None, None] * out[:, None]
    if not peak:
        away[:, 1] = rng.uniform(-0.05, 0.35)
        return ring + steps * away
    # A peak slopes down, and its sides more than its middle.
    away[:, 1] = rng.uniform(0.3, 0.6) + 0.5 * np.sin(np.radians(facing)) ** 2
    return ring + steps * away


def hat(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """A cap with a peak, a felt hat with a brim, a woollen hat or a helmet."""
    kind = choose(rng, {"cap": 2.2, "wool": 1.2, "felt": 1.0, "helmet": 0.8})
    rim = {"cap": -52, "wool": -44, "felt": -50, "helmet": -48}[kind] + rng.uniform(-12, 12)
    lift = min(34.0, 5 + 0.8 * stage.style.top + rng.uniform(0, 8))
    tall = {"cap": 4, "wool": 10, "felt": 16, "helmet": 10}[kind] * rng.uniform(0.7, 1.5)
    square = {"cap": 2.4, "wool": 2.2, "felt": 5.0, "helmet": 2.1}[kind]
    crown = _crown(stage, rim, lift, tall, square)
    if kind == "cap":  # its edge lies close to the head
        close = np.clip((crown[..., 1] - rim + 22) / 30, 0, 1)[..., None]
        crown = crown * (1 - np.array([0.055, 0, 0.055]) * close)
    colour = random_colour(rng)
    if rng.random() < 0.4:
        colour = linear(str(rng.choice(["#17181c", "#20304f", "#7d1f24"])))
    angle = np.broadcast_to(np.degrees(azimuths(41)), crown.shape[:2])
    place = np.stack([angle, crown[..., 1], 0 * angle], axis=-1)
    seen = rasterise(stage.view, crown, stage.turn, place=place)
    paint = Paint.plain(len(seen.pixel), colour, OCCLUDER, 0.5 if kind == "helmet" else 0.08)
    a, h = seen.place[:, 0], seen.place[:, 1]
    if kind == "wool":
        rib = np.cos(2 * np.pi * a / 5) * (0.5 + 0.5 * (h > rim - 26))
        paint.darken((0.2 * np.clip(rib, 0, 1)).astype(np.float32))
    elif kind == "cap":
        seams = np.exp(-((((a + 30) % 60 - 30) / 1.5) ** 2)) * (h < rim - 4)  # six panels
        paint.darken((0.35 * seams).astype(np.float32))
        if rng.random() < 0.6:
            badge = np.hypot(a * 1.3, h - rim + 32) < rng.uniform(10, 20)
            paint.cover(badge.astype(np.float32), random_colour(rng))
    elif kind == "felt":
        paint.cover((np.abs(h - rim + 8) < 9).astype(np.float32) * 0.8, random_colour(rng) * 0.5)
    weave = 0.12 * field(rng, a / 9 + 40, h / 12) + 0.06 * field(rng, a / 1.5 + 300, h / 2, 64)
    paint.albedo *= np.exp(weave)[:, None]
    # The crown presses the hair down, so nothing of the person lies in front of it.
    layers = [on_pixels(stage, seen, paint, hidden=None, shadow=0.45)]
    if kind in ("cap", "felt"):
        hidden = stage.depth.copy()
        hidden[seen.pixel] = np.maximum(hidden[seen.pixel], seen.depth)
        seen = rasterise(
            stage.view, _brim(crown[-1], angle[-1], kind == "cap", rng), stage.turn, sides="both"
        )
        paint = Paint.plain(len(seen.pixel), colour * np.float32(0.8), OCCLUDER, 0.1)
        layers.append(on_pixels(stage, seen, paint, hidden, shadow=0.6 if kind == "cap" else 0.5))
    return layers


def scarf(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """A scarf wound around the neck, up to the chin, the mouth or the nose."""
    shape = stage.shape
    high = rng.choice(
        [104, shape.mouth_y + 14, shape.mouth_y - 12, 0.75 * shape.nose_length], p=[0.4, 0.25, 0.2, 0.15]
    ) + rng.uniform(-5, 5)
    y = np.linspace(0, 1, 14)
    bulge = np.sin(np.pi * np.clip(y, 0.08, 0.95)) ** 0.5
    rings = np.stack(
        [high + y * (205 - high), 60 + 26 * bulge + 8 * y, 78 + 26 * bulge, -85 - 22 * bulge, 0 * y - 8],
        axis=1,
    )
    grid = tube(rings, 14)
    angle = np.broadcast_to(np.degrees(azimuths(41)), grid.shape[:2])
    grid[..., 1] += 5 * np.sin(np.radians(angle) * 2 + rng.uniform(0, 6)) + 0.12 * (90 - grid[..., 2])
    grid *= 1 + 0.03 * np.cos(2 * np.pi * y * 3 + np.radians(angle).T).T[..., None] * np.array([1, 0, 1])
    place = np.stack([angle, grid[..., 1], 0 * angle], axis=-1)
    seen = rasterise(stage.view, grid, stage.turn, place=place)
    a, h = seen.place[:, 0], seen.place[:, 1]
    paint = Paint.plain(len(a), np.zeros(3), OCCLUDER, 0.05)
    paint.albedo = draw_fabric(rng, stage.photos)(1.4 * a, h)  # a degree is 1.4 mm around the neck
    return [on_pixels(stage, seen, paint, stage.depth)]


def _frame(stage: Stage, half_w: float, half_h: float, square: float) -> tuple[list, list]:
    """Return the outlines of two lenses, and bridge and visible temples, ``[P,2]`` in pixels.

    Args:
        stage: where the head is.
        half_w, half_h: half width and height of a lens in millimetres.
        square: 1 for ellipses, smaller for squarer lenses.
    """
    angle = np.linspace(0, 2 * np.pi, 33)
    ring_x, ring_y = half_w * power(np.cos(angle), square), half_h * power(np.sin(angle), square)
    z = 86 + 0.25 * stage.shape.nose_height
    apart = max(stage.shape.eye_x, half_w + 6)
    lenses = []
    for side in (-1, 1):
        x = side * apart + ring_x
        lenses.append(stage.at(*np.column_stack([x, 3 + ring_y, z - 0.007 * x**2])))  # bent round the face
    wires = [stage.at((-apart + half_w, -2, z), (0, -5, z + 4), (apart - half_w, -2, z))]
    for side in (-1, 1):
        if side * stage.turn[0, 2] < 0.12:  # the other temple is behind the face
            wires.append(
                stage.at((side * (apart + half_w), -2, z - 18), (side * 79, -2, 30), (side * 80, 2, -14))
            )
    return lenses, wires


def spectacles(stage: Stage, rng: np.random.Generator, dark: bool) -> list[Layer]:
    """Glasses: two lenses in a plane before the eyes, bridge and temples; clear with glare, or dark.

    Clear ones are part of the person; dark ones hide what is behind them, and are labelled apart.
    """
    size, label = stage.view.size, SUNGLASSES if dark else GLASSES
    half_w = rng.uniform(24, 31) if dark else rng.uniform(19, 27)
    half_h = half_w * (rng.uniform(0.65, 0.95) if dark else rng.uniform(0.5, 0.95))
    lenses, wires = _frame(stage, half_w, half_h, square=rng.uniform(0.45, 1.0))
    frame_colour = random_colour(rng, 0.4) * 0.3 if rng.random() < 0.75 else linear("#b99a58")
    thick = rng.uniform(3.0, 5.5) if dark or rng.random() < 0.5 else rng.uniform(1.2, 2.4)
    glass = polygon(size, *lenses)
    sweep = np.linspace(0, 1, size, dtype=np.float32)
    glare = np.exp(-(((sweep[None, :] + 0.6 * sweep[:, None] - rng.uniform(0.3, 1.2)) / 0.05) ** 2))
    if dark:
        tint = lit_colour(stage.light, FRONT, random_colour(rng, 0.5) * 0.12, 0.12)[0]
        shine = 0.15 * glare[..., None] * rng.uniform(0, 1)
        lens = Layer(glass * np.float32(rng.uniform(0.88, 1.0)), tint + shine, label, 0.3)
    else:
        haze = (glass * (0.04 + 0.35 * rng.uniform(0, 1) * glare)).astype(np.float32)
        lens = Layer(haze, np.full(3, 0.8, np.float32), None, 0.0)
    rim = strokes(size, [*lenses, *wires], max(0.9, thick * stage.view.scale))
    return [lens, Layer(rim, lit_colour(stage.light, FRONT, frame_colour, 0.25)[0], label, 0.25)]


def sunglasses(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """Dark glasses."""
    return spectacles(stage, rng, dark=True)


def strands(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """Locks of hair that fall across the face: curved, tapering, with gaps between them."""
    side = rng.choice([-1, 1])
    start, sweep = rng.uniform(-10, 30), rng.uniform(10, 60)
    t = np.linspace(0, 1, 12)
    lines = []
    for _ in range(int(rng.integers(4, 11))):
        drop, root = rng.uniform(60, 170), start + rng.normal(0, 18)
        lean, bend, phase = sweep * rng.uniform(0.6, 1.4), rng.normal(0, 6), rng.uniform(0, 3)
        for _ in range(int(rng.integers(5, 11))):
            fall = drop * rng.uniform(0.75, 1)
            # The hairs of a lock part a little on the way and meet again at its tip.
            apart = rng.normal(0, 3.5) * (1 - 0.8 * t**2)
            x = root + lean * (fall * t / 110) ** 1.3 + bend * np.sin(phase + 4 * t) * t + apart
            y = -stage.shape.hairline - rng.uniform(4, 20) + fall * t
            z = np.sqrt(np.clip(84**2 - (x * 84 / 80) ** 2, 0, None)) + 8
            lines.append(stage.at(*np.column_stack([side * x, y, z])))
    tones = rng.uniform(0.3, 1, len(lines))
    cover, tone = ribbons(stage.view.size, lines, rng.uniform(2.0, 3.2) * stage.view.scale, tones)
    hair = lit_colour(stage.light, FRONT, np.asarray(stage.look.hair_rgb), 0.02)[0]
    return [Layer(cover, hair * (0.4 + 1.1 * tone[..., None]), HAIR, 0.35)]


def veil(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """A headscarf or hood that leaves the face free, or a veil, some of them sheer, over its lower half."""
    shape = stage.shape
    lift = min(34.0, 8 + 1.2 * max(stage.style.top, stage.style.sides))
    fall = [
        [95, 78, 70, -92, -12],
        [140, 88, 78, -98, -12],
        [190, 104, 92, -104, -12],
        [240, 118, 100, -110, -12],
    ]
    grid = tube(np.concatenate([sections(shape)[:9], fall]), 30)
    angle = np.broadcast_to(np.degrees(azimuths(41)), grid.shape[:2])
    place = np.stack([angle, grid[..., 1], 0 * angle], axis=-1)
    grid = grid + lift * grid_normals(grid)
    phase, crown, low = rng.uniform(0, 6), -shape.hairline + rng.uniform(-8, 22), 124.0
    veiled = rng.random() < 0.3
    sheer = rng.uniform(0.55, 0.9) if veiled and rng.random() < 0.4 else 1.0
    fabric = draw_fabric(rng, stage.photos)
    layers = []
    for side in ("back", "front"):
        seen = rasterise(stage.view, grid, stage.turn, place=place, sides=side)
        a, h = seen.place[:, 0], seen.place[:, 1]
        middle, half = 0.5 * (crown + low), 0.5 * (low - crown)
        opening = 66 * np.sqrt(np.clip(1 - ((h - middle) / half) ** 2, 0, 1)) + 3 * np.sin(h / 14 + phase)
        free = (np.abs(a) < opening) & (h < (0.6 * shape.nose_length if veiled else low))
        seen, a, h = seen[~free], a[~free], h[~free]
        paint = Paint.plain(len(a), np.zeros(3), OCCLUDER, 0.06)
        paint.albedo = fabric(1.4 * h, 1.4 * a)
        if side == "back":
            paint.darken(np.full(len(a), 0.6, np.float32))
        layer = on_pixels(stage, seen, paint, stage.depth, shadow=0.4 if side == "front" else 0.0)
        layers.append(dataclasses.replace(layer, cover=layer.cover * np.float32(sheer)))
    return layers

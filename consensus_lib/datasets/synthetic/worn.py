"""Worn occluders: meshes and curves in millimetres that sit on the head and turn with it."""

import numpy as np
from scipy import ndimage

from consensus_lib.datasets.synthetic.chance import choose, field, profile
from consensus_lib.datasets.synthetic.classes import GLASSES, HAIR, OCCLUDER
from consensus_lib.datasets.synthetic.colour import linear
from consensus_lib.datasets.synthetic.head import head_grid, sections
from consensus_lib.datasets.synthetic.layers import Layer, Stage, coverage, lit_colour, on_pixels, polygon
from consensus_lib.datasets.synthetic.mesh import azimuths, grid_normals, rasterise, tube
from consensus_lib.datasets.synthetic.scene import random_colour
from consensus_lib.datasets.synthetic.skin import Paint, azimuth


def mask(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """A surgical or a cloth mask, stretched over nose and chin."""
    shape = stage.shape
    grid = head_grid(shape)
    wide = grid_normals(grid)
    high = shape.nose_length * rng.uniform(0.3, 0.75)
    low = 112 * shape.stretch + 0.6 * shape.jaw_open
    # Cloth spans the hollows beside nose and mouth.
    taut = ndimage.maximum_filter(grid[..., 2], (5, 5)) * 0.6 + 0.4 * grid[..., 2]
    cloth = grid + 4 * wide
    cloth[..., 2] = np.where(grid[..., 2] > 30, np.maximum(taut, grid[..., 2]) + 4, cloth[..., 2])
    seen = rasterise(stage.view, cloth, stage.turn, place=grid)
    y = seen.place[:, 1]
    reach = rng.uniform(52, 66)
    angle = np.abs(azimuth(seen.place))
    top = high + np.clip(angle - 15, 0, None) * rng.uniform(0.2, 0.5)
    inside = (y > top) & (y < low - np.clip(angle - 30, 0, None) * 0.8) & (angle < reach)
    seen, y, angle = seen[inside], y[inside], angle[inside]
    colour = linear(str(rng.choice(["#9fc4dd", "#b9d8e6", "#e8ecee", "#1d1d20", "#2c4a6e", "#8fae9a"])))
    if rng.random() < 0.25:
        colour = random_colour(rng)
    paint = Paint.plain(len(y), colour, OCCLUDER, 0.1)
    if rng.random() < 0.6:
        pleat = np.cos(2 * np.pi * (y - high) / rng.uniform(12, 17)) ** 6
        paint.darken((0.22 * pleat).astype(np.float32))
    else:
        paint.albedo *= np.exp(0.3 * field(rng, seen.place[:, 0] / 6, y / 6))[:, None]
        paint.darken((0.3 * np.exp(-((seen.place[:, 0] / 1.5) ** 2))).astype(np.float32))
    layers = [on_pixels(stage, seen, paint, stage.depth)]
    for side in (-1, 1):  # loops to the ears
        if side * stage.turn[0, 2] > 0.25:
            continue
        for height in (high + 12, low - 25):
            start = np.array([side * 62, height, 42.0])
            line = stage.at(start, (side * 73, 0.5 * height + 8, 8), (side * 78, 10, -12))
            width = 1.8 * stage.view.scale

            def loop(draw, k, line=line, width=width):
                draw.line(
                    [tuple(p) for p in line * k], fill=255, width=max(1, round(width * k)), joint="curve"
                )

            layers.append(
                Layer(
                    coverage(stage.view.size, loop),
                    lit_colour(stage.light, np.array([[0, 0, 1.0]]), colour, 0)[0],
                    shadow=0.0,
                )
            )
    return layers[::-1]


def _crown(stage: Stage, rim: float, lift: float, tall: float, square: float) -> np.ndarray:
    """Return the crown of a hat ``[16,45,3]``: a dome over skull and hair.

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
    """Return a brim ``[6,45,3]`` around a crown's lowest ``ring`` ``[45,3]``, or a cap's peak."""
    reach = rng.uniform(45, 75) if peak else rng.uniform(35, 70)
    out = np.ones(len(angle))
    if peak:
        facing = angle if rng.random() < 0.88 else angle + 180  # some wear it backwards
        out = np.clip(np.cos(np.radians(facing)) * 1.9 - 0.55, 0, 1) ** 0.7
    away = ring - ring.mean(0)
    away[:, 1] = 0
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    away[:, 1] = rng.uniform(-0.05, 0.35)
    return ring + np.linspace(0, reach, 6)[:, None, None] * out[:, None] * away


def hat(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """A cap with a peak, a felt hat with a brim, a woollen hat or a helmet."""
    kind = choose(rng, {"cap": 2.2, "wool": 1.2, "felt": 1.0, "helmet": 0.8})
    rim = {"cap": -52, "wool": -44, "felt": -50, "helmet": -48}[kind] + rng.uniform(-12, 12)
    lift = min(34.0, 5 + 0.8 * stage.style.top + rng.uniform(0, 8))
    tall = {"cap": 4, "wool": 10, "felt": 16, "helmet": 10}[kind] * rng.uniform(0.7, 1.5)
    square = {"cap": 2.4, "wool": 2.2, "felt": 5.0, "helmet": 2.1}[kind]
    crown = _crown(stage, rim, lift, tall, square)
    colour = random_colour(rng)
    if rng.random() < 0.4:
        colour = linear(str(rng.choice(["#17181c", "#20304f", "#7d1f24"])))
    angle = np.broadcast_to(np.degrees(azimuths(45)), crown.shape[:2])
    place = np.stack([angle, crown[..., 1], 0 * angle], axis=-1)
    seen = rasterise(stage.view, crown, stage.turn, place=place)
    paint = Paint.plain(len(seen.pixel), colour, OCCLUDER, 0.5 if kind == "helmet" else 0.08)
    a, h = seen.place[:, 0], seen.place[:, 1]
    if kind == "wool":
        rib = np.cos(2 * np.pi * a / 5) * (0.5 + 0.5 * (h > rim - 26))
        paint.darken((0.2 * np.clip(rib, 0, 1)).astype(np.float32))
    elif kind == "cap" and rng.random() < 0.6:
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
        layers.append(on_pixels(stage, seen, paint, hidden=hidden, shadow=0.5))
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
    angle = np.broadcast_to(np.degrees(azimuths(45)), grid.shape[:2])
    grid[..., 1] += 5 * np.sin(np.radians(angle) * 2 + rng.uniform(0, 6)) + 0.12 * (90 - grid[..., 2])
    grid *= 1 + 0.03 * np.cos(2 * np.pi * y * 3 + np.radians(angle).T).T[..., None] * np.array([1, 0, 1])
    place = np.stack([angle, grid[..., 1], 0 * angle], axis=-1)
    seen = rasterise(stage.view, grid, stage.turn, place=place)
    a, h = seen.place[:, 0], seen.place[:, 1]
    paint = Paint.plain(len(a), random_colour(rng), OCCLUDER, 0.05)
    fold = profile(rng, (h + 0.15 * a) / 9 + 300) * 0.3 + 0.2 * field(rng, a / 14 + 40, h / 5)
    paint.albedo *= np.exp(fold)[:, None]
    if rng.random() < 0.4:
        stripe = (np.sin(2 * np.pi * a / rng.uniform(8, 30)) > 0).astype(np.float32)
        paint.cover(0.8 * stripe, random_colour(rng))
    return [on_pixels(stage, seen, paint, stage.depth)]


def spectacles(stage: Stage, rng: np.random.Generator, dark: bool) -> list[Layer]:
    """Glasses: two lenses in a plane before the eyes, bridge and temples; clear with glare, or dark."""
    shape, size, mm = stage.shape, stage.view.size, stage.view.scale
    half_w = rng.uniform(24, 31) if dark else rng.uniform(19, 27)
    half_h = half_w * (rng.uniform(0.65, 0.95) if dark else rng.uniform(0.5, 0.95))
    square = rng.uniform(0.45, 1.0)
    angle = np.linspace(0, 2 * np.pi, 33)
    ring = np.stack(
        [
            half_w * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** square,
            half_h * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** square,
        ],
        1,
    )
    z = 86 + 0.25 * shape.nose_height
    middle_x = max(shape.eye_x, half_w + 6)
    frame_colour = random_colour(rng, 0.4) * 0.3 if rng.random() < 0.75 else linear("#b99a58")
    thick = rng.uniform(3.0, 5.5) if dark or rng.random() < 0.5 else rng.uniform(1.2, 2.4)
    lenses = []
    for side in (-1, 1):
        bow = z - 0.006 * (side * middle_x + ring[:, 0]) ** 2 * 1.2
        lenses.append(stage.at(*np.column_stack([side * middle_x + ring[:, 0], 3 + ring[:, 1], bow])))
    bridge = stage.at((-middle_x + half_w, -2, z), (0, -5, z + 4), (middle_x - half_w, -2, z))
    temples = [
        stage.at((side * (middle_x + half_w), -2, z - 18), (side * 79, -2, 30), (side * 80, 2, -14))
        for side in (-1, 1)
        if side * stage.turn[0, 2] < 0.12
    ]
    width = max(0.9, thick * mm)

    def frame(draw, k):
        for line in (*lenses, bridge, *temples):
            draw.line([tuple(p) for p in line * k], fill=255, width=max(1, round(width * k)), joint="curve")

    front = np.array([[0, -0.2, 0.98]])
    layers = []
    glass = np.maximum(*[polygon(size, lens) for lens in lenses])
    sweep = np.linspace(0, 1, size, dtype=np.float32)
    glare = np.exp(-(((sweep[None, :] + 0.6 * sweep[:, None] - rng.uniform(0.3, 1.2)) / 0.05) ** 2))
    if dark:
        tint = random_colour(rng, 0.5) * 0.12
        colour = lit_colour(stage.light, front, tint, 0.5)[0] + 0.15 * glare[..., None] * rng.uniform(0, 1)
        layers.append(Layer(glass * np.float32(rng.uniform(0.88, 1.0)), colour, GLASSES, 0.3))
    else:
        layers.append(
            Layer(
                (glass * (0.04 + 0.35 * rng.uniform(0, 1) * glare)).astype(np.float32),
                np.float32(0.8) * np.ones(3, np.float32),
                None,
                0.0,
            )
        )
    layers.append(
        Layer(coverage(size, frame), lit_colour(stage.light, front, frame_colour, 0.6)[0], GLASSES, 0.25)
    )
    return layers


def sunglasses(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """Dark glasses."""
    return spectacles(stage, rng, dark=True)


def strands(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """Locks of hair that fall across the face."""
    size, mm = stage.view.size, stage.view.scale
    side = rng.choice([-1, 1])
    shape = stage.shape
    lines = []
    start, sweep = rng.uniform(-10, 30), rng.uniform(10, 60)
    for _ in range(int(rng.integers(20, 70))):
        t = np.linspace(0, 1, 9)
        drop = rng.uniform(40, 170)
        x = side * (start + rng.normal(0, 11) + sweep * (drop * t / 110) ** 1.3 + rng.normal(0, 5) * t)
        y = -shape.hairline - 10 + drop * t
        z = np.sqrt(np.clip(84**2 - (x * 84 / 80) ** 2, 0, None)) + 8
        lines.append(stage.at(*np.column_stack([x, y, z])))
    width = rng.uniform(1.5, 3.0) * mm

    def locks(draw, k):
        for line in lines:
            draw.line([tuple(p) for p in line * k], fill=255, width=max(1, round(width * k)), joint="curve")

    cover = coverage(size, locks)
    grain = np.exp(0.35 * rng.standard_normal((size, size, 1), dtype=np.float32))
    colour = lit_colour(stage.light, np.array([[0, 0, 1.0]]), np.asarray(stage.look.hair_rgb), 0.2)[0] * grain
    return [Layer(cover, colour, HAIR, 0.35)]


def veil(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """A headscarf or hood that leaves the face free, or a veil over its lower half."""
    shape = stage.shape
    knots = sections(shape)[:9, :].copy()
    lift = min(34.0, 8 + 1.2 * max(stage.style.top, stage.style.sides))
    fall = np.array(
        [
            [95, 78, 70, -92, -12],
            [140, 88, 78, -98, -12],
            [190, 104, 92, -104, -12],
            [240, 118, 100, -110, -12],
        ]
    )
    rings = np.concatenate([knots, fall.astype(float)])
    grid = tube(rings, 30)
    angle = np.broadcast_to(np.degrees(azimuths(45)), grid.shape[:2])
    place = np.stack([angle, grid[..., 1], 0 * angle], axis=-1)
    grid = grid + lift * grid_normals(grid)
    phase = rng.uniform(0, 6)
    crown, chin = (
        -shape.hairline + rng.uniform(-8, 22),
        rng.choice([124.0, 0.6 * shape.nose_length], p=[0.75, 0.25]),
    )
    colour = random_colour(rng)
    stripes, second = rng.random() < 0.3, random_colour(rng)
    threads, waves = rng.integers(2**31, size=2)
    layers = []
    for side in ("back", "front"):
        seen = rasterise(stage.view, grid, stage.turn, place=place, sides=side)
        a, h = seen.place[:, 0], seen.place[:, 1]
        middle, half = 0.5 * (crown + 124), 0.5 * (124 - crown)
        opening = 66 * np.sqrt(np.clip(1 - ((h - middle) / half) ** 2, 0, 1)) + 3 * np.sin(h / 14 + phase)
        free = (np.abs(a) < opening) & (h < chin)
        seen, a, h = seen[~free], a[~free], h[~free]
        paint = Paint.plain(len(a), colour, OCCLUDER, 0.06)
        folds = 0.28 * profile(np.random.default_rng(threads), (a + 0.25 * h) / 7 + 300)
        paint.albedo *= np.exp(folds + 0.15 * field(np.random.default_rng(waves), a / 20 + 40, h / 9))[
            :, None
        ]
        if stripes:
            paint.cover(0.8 * (np.sin((h + 0.3 * a) / 4) > 0.4).astype(np.float32), second)
        if side == "back":
            paint.darken(np.full(len(a), 0.6, np.float32))
        layers.append(on_pixels(stage, seen, paint, stage.depth, shadow=0.4 if side == "front" else 0.0))
    return layers

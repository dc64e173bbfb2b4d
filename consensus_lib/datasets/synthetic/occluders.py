"""Occluders: what covers a face, in front of it or worn on it.

Each kind is a function of the :class:`Stage` (the head as drawn, the light, the view) and a stream; it
returns layers that are laid over the picture in turn. A layer has soft coverage, its own colours, already
lit, and a class; it throws a soft shadow on what lies under it.
"""

import dataclasses

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from consensus_lib.datasets.synthetic import photographs
from consensus_lib.datasets.synthetic.chance import choose, field, normal, profile
from consensus_lib.datasets.synthetic.classes import GLASSES, HAIR, OCCLUDER
from consensus_lib.datasets.synthetic.colour import linear, skin_colour
from consensus_lib.datasets.synthetic.hair import Style
from consensus_lib.datasets.synthetic.head import Shape, head_grid, sections
from consensus_lib.datasets.synthetic.light import Light, shade
from consensus_lib.datasets.synthetic.mesh import View, azimuths, grid_normals, rasterise, tube
from consensus_lib.datasets.synthetic.scene import random_colour
from consensus_lib.datasets.synthetic.skin import Look, Paint, azimuth


@dataclasses.dataclass(frozen=True)
class Stage:
    """What an occluder needs to know of the picture so far.

    Attributes:
        view, turn, shape, look, style, light: how the person was drawn.
        depth: float32 ``[H*W]``, depth of what is visible, -inf for the background.
        photos: whether photographs may be used as texture.
    """

    view: View
    turn: np.ndarray
    shape: Shape
    look: Look
    style: Style
    light: Light
    depth: np.ndarray
    photos: bool

    def at(self, *points) -> np.ndarray:
        """Return pixel coordinates ``[N,2]`` of points on the head, in millimetres."""
        return self.view.project(np.array(points, float) @ self.turn.T)[:, :2]


@dataclasses.dataclass(frozen=True)
class Layer:
    """One thing laid over the picture.

    Attributes:
        cover: float32 ``[H,W]``, coverage 0-1.
        colour: linear float32 ``[H,W,3]`` or ``[3]``, lit.
        label: its class; None for what only tints, such as a clear lens.
        shadow: strength of its shadow, 0-1.
    """

    cover: np.ndarray
    colour: np.ndarray
    label: int | None = OCCLUDER
    shadow: float = 0.5


def coverage(size: int, paint, finer: int = 4) -> np.ndarray:
    """Return coverage float32 ``[size,size]`` of what ``paint(draw, factor)`` draws in white."""
    picture = Image.new("L", (finer * size, finer * size))
    paint(ImageDraw.Draw(picture), finer)
    return np.asarray(picture.reduce(finer), np.float32) / 255


def polygon(size: int, points: np.ndarray) -> np.ndarray:
    """Return coverage ``[size,size]`` of a polygon in pixel coordinates ``[P,2]``."""
    return coverage(size, lambda draw, k: draw.polygon([tuple(p) for p in np.asarray(points) * k], fill=255))


def lay(image: np.ndarray, labels: np.ndarray, layer: Layer, light: Light) -> np.ndarray:
    """Lay a layer over ``image`` ``[H,W,3]`` and ``labels`` ``[H,W]``, both changed in place.

    Returns:
        bool ``[H,W]``, where it covers.
    """
    size = labels.shape[0]
    if layer.shadow:
        # The shadow falls away from the lamp, by a few millimetres' worth of pixels.
        shift = (light.key[1] * -0.035 * size, light.key[0] * -0.035 * size)
        dark = ndimage.gaussian_filter(ndimage.shift(layer.cover, shift, order=1), 0.012 * size, truncate=2.5)
        image *= (1 - layer.shadow * np.clip(dark, 0, 1))[..., None]
    image += layer.cover[..., None] * (layer.colour - image)
    covered = layer.cover >= 0.5
    if layer.label is not None:
        labels[covered] = layer.label
    return covered & (layer.label is not None)


def _lit(light: Light, normal: np.ndarray, albedo: np.ndarray, gloss: float) -> np.ndarray:
    """Return lit colours of ``[...,3]`` normals and colours, in full reach of the key light."""
    flat = normal.reshape(-1, 3).astype(np.float32)
    colour = np.ascontiguousarray(np.broadcast_to(np.asarray(albedo, np.float32), normal.shape)).reshape(
        -1, 3
    )
    paint = Paint(colour, None, np.full(len(flat), gloss, np.float32), np.zeros(len(flat), np.float32))
    return shade(light, paint, flat, np.ones(len(flat), np.float32)).reshape(normal.shape)


def _limb(size: int, chain: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coverage ``[H,W]`` and normals ``[H,W,3]`` of a chain of round sticks.

    Args:
        size: image size.
        chain: joints ``[J,2]`` in pixels.
        radii: radius at each joint ``[J]`` in pixels.
    """
    grid = np.arange(size, dtype=np.float32) + 0.5
    x, y = np.meshgrid(grid, grid)
    best = np.full((size, size), 1e9, np.float32)
    nx, ny = np.zeros_like(best), np.zeros_like(best)
    for k in range(len(chain) - 1):
        a, b, ra, rb = chain[k], chain[k + 1], radii[k], radii[k + 1]
        d = (b - a).astype(np.float32)
        t = np.clip(((x - a[0]) * d[0] + (y - a[1]) * d[1]) / max(float(d @ d), 1e-6), 0, 1)
        dx, dy = x - np.float32(a[0]) - t * d[0], y - np.float32(a[1]) - t * d[1]
        radius = np.float32(ra) + t * np.float32(rb - ra)
        gap = np.hypot(dx, dy) - radius
        nearer = gap < best
        best = np.where(nearer, gap, best)
        nx, ny = np.where(nearer, dx / radius, nx), np.where(nearer, dy / radius, ny)
    flat = np.clip(nx**2 + ny**2, 0, 1)
    return np.clip(0.5 - best, 0, 1), np.stack([nx, ny, np.sqrt(1.02 - flat)], axis=-1)


def hand(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """A hand with bent fingers on the cheek, over the mouth, under the chin or before the eyes."""
    size, mm = stage.view.size, stage.view.scale
    shape = stage.shape
    side = rng.choice([-1, 1])
    target = choose(rng, {"cheek": 1.0, "mouth": 1.0, "chin": 1.5, "eyes": 0.4, "brow": 0.5, "beside": 0.7})
    spot = {
        "cheek": (side * 52, 40, 60),
        "mouth": (side * 12, shape.mouth_y, 90),
        "chin": (side * 10, 118, 80),
        "eyes": (side * 18, 4, 80),
        "brow": (side * 40, -45, 70),
        "beside": (side * 95, 70, 60),
    }[target]
    tip = stage.at(spot)[0] + rng.normal(0, 4, 2) * mm
    # Fingers point from the wrist, which comes from below or from the side, to the target.
    lean = np.radians(normal(rng, 25, 18)) * side
    up = np.array([-np.sin(lean), -np.cos(lean)])
    across = np.array([-up[1], up[0]])
    reach = rng.uniform(35, 85) if target != "chin" else rng.uniform(15, 50)  # how straight the fingers are
    grow = mm * normal(rng, 1.0, 0.08)
    palm = tip - up * (reach + 35) * grow
    tone = skin_colour(stage.look.tone, stage.look.blood + 0.3) * np.float32(rng.uniform(0.85, 1.1))
    if rng.random() < 0.08:
        tone = random_colour(rng)  # a glove
    layers = []
    wrist = palm - up * 75 * grow
    elbow = wrist - (up + 0.3 * side * np.array([-1, 0])) * 260 * grow
    sleeve = rng.random() < 0.7
    cover, normals = _limb(
        size, np.stack([wrist + up * 20 * grow, wrist, elbow]), np.array([27, 27, 45]) * grow
    )
    layers.append(Layer(cover, _lit(stage.light, normals, tone, 0.2)))
    if sleeve:
        cuff = wrist - up * rng.uniform(-5, 50) * grow
        cover, normals = _limb(size, np.stack([cuff, elbow]), np.array([36, 58]) * grow)
        layers.append(Layer(cover, _lit(stage.light, normals, random_colour(rng, 0.7), 0.05)))
    cover, normals = _limb(size, np.stack([palm - up * 50 * grow, palm]), np.array([33, 40]) * grow)
    normals = normals * np.array([0.7, 0.7, 1.0])
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    layers.append(Layer(cover, _lit(stage.light, normals, tone, 0.2)))
    spread = rng.uniform(0.0, 0.14)
    curl = rng.uniform(-0.5, 0.5)
    for k in rng.permutation(4):
        offset = (k - 1.5) * 19.5
        base = palm + across * offset * grow + up * 18 * grow
        aim = up + across * (k - 1.5) * spread + across * rng.normal(0, 0.05)
        bend = across * curl * 0.25
        length = reach * (1.0, 1.12, 1.05, 0.85)[k]
        joints = np.stack(
            [
                base,
                base + aim * 0.45 * length * grow,
                base + (aim + bend) * 0.78 * length * grow,
                base + (aim + 2 * bend) * length * grow,
            ]
        )
        cover, normals = _limb(size, joints, np.array([10.5, 10, 9, 7.5]) * grow)
        layers.append(Layer(cover, _lit(stage.light, normals, tone, 0.25), shadow=0.35))
    thumb_side = side * (1 if rng.random() < 0.8 else -1)
    base = palm - up * 25 * grow + across * thumb_side * 34 * grow
    aim = up * rng.uniform(0.2, 1.0) + across * thumb_side * rng.uniform(0.2, 1.0)
    aim /= np.linalg.norm(aim)
    joints = np.stack([base, base + aim * 34 * grow, base + (aim * 60 + up * 8) * grow])
    cover, normals = _limb(size, joints, np.array([14, 11, 9]) * grow)
    layers.append(Layer(cover, _lit(stage.light, normals, tone, 0.25), shadow=0.35))
    return layers


def microphone(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """One to three microphones that come from below, some as far as the mouth."""
    size, mm = stage.view.size, stage.view.scale
    layers = []
    for _ in range(int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))):
        head = stage.at((rng.normal(0, 28), stage.shape.mouth_y + rng.uniform(8, 90), 130))[0]
        lean = normal(rng, 0, 0.5)
        up = np.array([np.sin(lean), -np.cos(lean)])
        grow = mm * rng.uniform(0.8, 1.5)
        handle = linear("#16161a") * np.float32(rng.uniform(0.5, 2))
        cover, normals = _limb(
            size, np.stack([head - up * 20 * grow, head - up * 320 * grow]), np.array([13, 11]) * grow
        )
        layers.append(Layer(cover, _lit(stage.light, normals, handle, 0.4), shadow=0.25))
        ball = random_colour(rng) if rng.random() < 0.4 else linear("#35363a")
        cover, normals = _limb(
            size, np.stack([head - up * 12 * grow, head + up * 12 * grow]), np.array([21, 24]) * grow
        )
        grid = np.arange(size, dtype=np.float32)
        mesh = 1 + 0.25 * np.sin(2 * np.pi * (grid[:, None] + grid) / (5 * mm)) * np.sin(
            2 * np.pi * (grid[:, None] - grid) / (5 * mm)
        )
        layers.append(Layer(cover, _lit(stage.light, normals, ball * mesh[..., None], 0.3), shadow=0.3))
        if rng.random() < 0.3:  # the station's cube
            middle = head - up * 55 * grow
            across = np.array([-up[1], up[0]])
            half = np.array([22, 20]) * grow
            square = [
                middle + a * half[0] * across + b * half[1] * up
                for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
            ]
            layers.append(Layer(polygon(size, np.stack(square)), random_colour(rng) + 0.02, shadow=0.2))
    return layers


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
    layers = [_on_pixels(stage, seen, paint)]
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
                    _lit(stage.light, np.array([[0, 0, 1.0]]), colour, 0)[0],
                    shadow=0.0,
                )
            )
    return layers[::-1]


def _on_pixels(stage: Stage, seen, paint, label: int = OCCLUDER, shadow: float = 0.4) -> Layer:
    """Return the layer of a worn mesh: its painted fragments, lit, where nothing nearer hides them."""
    size = stage.view.size
    keep = seen.depth > stage.depth[seen.pixel] - 6
    colour = np.zeros((size * size, 3), np.float32)
    cover = np.zeros(size * size, np.float32)
    colour[seen.pixel] = shade(stage.light, paint, seen.normal, np.ones(len(seen.pixel), np.float32))
    cover[seen.pixel[keep]] = 1
    return Layer(cover.reshape(size, size), colour.reshape(size, size, 3), label, shadow)


def hat(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """A cap, a brimmed hat, a woollen hat, a helmet or a headscarf's crown."""
    shape = stage.shape
    kind = choose(rng, {"cap": 2, "wool": 1.2, "brim": 1.2, "helmet": 0.8})
    rim = {"cap": -52, "wool": -46, "brim": -50, "helmet": -48}[kind] + rng.uniform(-14, 12)
    lift = min(26.0, 5 + 1.2 * stage.style.top + rng.uniform(0, 8))
    knots = sections(shape)[:8].copy()
    heights = np.linspace(0, 1, 16)
    y = knots[0, 0] + (rim - knots[0, 0]) * heights**1.5
    inner = np.stack([np.interp(y, knots[:, 0], knots[:, c]) for c in range(5)], axis=1)
    inner[:, 0] = y
    tall = {"cap": 4, "wool": 10, "brim": 24, "helmet": 10}[kind] * rng.uniform(0.7, 1.5)
    square = {"brim": 0.35}.get(kind, 0.8)
    inner[:, 1] = np.maximum(inner[:, 1], inner[-1, 1] * heights**square * 0.98) * (heights > 0)
    for column, sign in ((2, 1), (3, -1)):
        rimmed = inner[0, 4] + (inner[-1, column] - inner[0, 4]) * heights**square * 0.98
        inner[:, column] = np.maximum(sign * inner[:, column], sign * rimmed) * sign
    inner[:, 0] -= (lift * 0.6 + tall) * (1 - heights)
    inner[:, 1] += lift * (heights > 0)
    inner[:, 2] += lift * (heights > 0)
    inner[:, 3] -= lift * (heights > 0)
    crown = tube(inner, 53)
    crown[..., 1] += 0.10 * (20 - crown[..., 2])  # sits lower at the back
    colour = (
        random_colour(rng)
        if rng.random() < 0.6
        else linear(str(rng.choice(["#17181c", "#20304f", "#7d1f24"])))
    )
    angle = np.broadcast_to(np.degrees(azimuths(53)), crown.shape[:2])
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
    elif kind == "brim":
        paint.cover((np.abs(h - rim + 8) < 9).astype(np.float32) * 0.8, random_colour(rng) * 0.5)
    paint.albedo *= np.exp(
        0.12 * field(rng, a / 9 + 40, h / 12) + 0.06 * field(rng, a / 1.5 + 300, h / 2, 512)
    )[:, None]
    layers = [_on_pixels(stage, seen, paint, shadow=0.45)]
    if kind in ("cap", "brim"):
        ring = crown[-1]
        reach = rng.uniform(45, 75) if kind == "cap" else rng.uniform(35, 70)
        out = (
            np.clip(np.cos(np.radians(angle[-1])) * 1.9 - 0.55, 0, 1) ** 0.7 if kind == "cap" else np.ones(53)
        )
        if rng.random() < 0.12 and kind == "cap":
            out = out[np.r_[26:53, 1:27]]  # worn backwards
        away = ring - ring.mean(0)
        away[:, 1] = 0
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        steps = np.linspace(0, 1, 6)[:, None, None]
        dip = rng.uniform(-0.05, 0.35) * reach
        brim = ring + steps * out[:, None] * reach * away + steps * np.array([0, 1, 0]) * dip * out[:, None]
        seen = rasterise(stage.view, brim, stage.turn, both_sides=True)
        paint = Paint.plain(len(seen.pixel), colour * np.float32(0.8), OCCLUDER, 0.1)
        layers.append(_on_pixels(stage, seen, paint, shadow=0.5))
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
    grid = tube(rings, 53)
    angle = np.broadcast_to(np.degrees(azimuths(53)), grid.shape[:2])
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
    return [_on_pixels(stage, seen, paint)]


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
        colour = _lit(stage.light, front, tint, 0.5)[0] + 0.15 * glare[..., None] * rng.uniform(0, 1)
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
    layers.append(Layer(coverage(size, frame), _lit(stage.light, front, frame_colour, 0.6)[0], GLASSES, 0.25))
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
    start_x, sweep = rng.uniform(-10, 30), rng.uniform(10, 60)
    for _ in range(int(rng.integers(8, 40))):
        t = np.linspace(0, 1, 9)
        drop = rng.uniform(60, 170)
        x = side * (start_x + rng.normal(0, 9) + sweep * t**1.3 + rng.normal(0, 5) * t)
        y = -shape.hairline - 6 + drop * t
        z = np.sqrt(np.clip(84**2 - (x * 84 / 80) ** 2, 0, None)) + 8
        lines.append(stage.at(*np.column_stack([x, y, z])))
    width = rng.uniform(2.0, 4.5) * mm

    def locks(draw, k):
        for line in lines:
            draw.line([tuple(p) for p in line * k], fill=255, width=max(1, round(width * k)), joint="curve")

    cover = coverage(size, locks)
    grain = np.exp(0.35 * rng.standard_normal((size, size, 1), dtype=np.float32))
    colour = _lit(stage.light, np.array([[0, 0, 1.0]]), np.asarray(stage.look.hair_rgb), 0.2)[0] * grain
    return [Layer(cover, colour, HAIR, 0.35)]


def phone(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """A phone at the ear or before the face, held by a hand."""
    size, mm = stage.view.size, stage.view.scale
    side = rng.choice([-1, 1])
    middle = stage.at((side * rng.uniform(45, 90), rng.uniform(10, 60), 70))[0]
    lean = side * rng.uniform(0.0, 0.6)
    up, across = np.array([np.sin(lean), -np.cos(lean)]), np.array([np.cos(lean), np.sin(lean)])
    half = np.array([rng.uniform(20, 37), rng.uniform(55, 80)]) * mm
    corners = [
        (a * (1 - c), b * (1 - d))
        for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        for c, d in (((0.15, 0), (0, 0.08)) if a * b < 0 else ((0, 0.08), (0.15, 0)))
    ]
    outline = np.stack([middle + a * half[0] * across + b * half[1] * up for a, b in corners])
    colour = linear(str(rng.choice(["#141416", "#2a2c30", "#d9dadb", "#7c2231"])))
    body = Layer(polygon(size, outline), _lit(stage.light, np.array([[0.1, -0.1, 0.98]]), colour, 0.5)[0])
    tone = skin_colour(stage.look.tone, stage.look.blood + 0.3)
    layers = [body]
    for k in range(4):
        at = middle + up * (25 - 21 * k) * mm
        joints = np.stack(
            [at + side * across * 42 * mm, at + side * across * 12 * mm, at - side * across * 8 * mm]
        )
        cover, normals = _limb(size, joints, np.array([11, 10, 8]) * mm)
        layers.append(Layer(cover, _lit(stage.light, normals, tone, 0.2), shadow=0.3))
    wrist = middle + side * across * 38 * mm - up * 45 * mm
    cover, normals = _limb(
        size,
        np.stack([middle + side * across * 46 * mm, wrist, wrist - up * 250 * mm]),
        np.array([30, 30, 42]) * mm,
    )
    layers.append(Layer(cover, _lit(stage.light, normals, tone, 0.2), shadow=0.3))
    return layers


def cup(stage: Stage, rng: np.random.Generator) -> list[Layer]:
    """A cup or glass at the mouth, with fingers around it."""
    size, mm = stage.view.size, stage.view.scale
    middle = stage.at((rng.normal(0, 14), stage.shape.mouth_y + rng.uniform(10, 60), 110))[0]
    lean = rng.normal(0, 0.15)
    up, across = np.array([np.sin(lean), -np.cos(lean)]), np.array([np.cos(lean), np.sin(lean)])
    wide, high = rng.uniform(34, 46) * mm, rng.uniform(36, 60) * mm
    angle = np.linspace(0, np.pi, 12)
    rim = [middle + up * (high + 0.18 * wide * np.sin(a)) + across * wide * np.cos(a) for a in angle]
    foot = [middle - up * (high + 0.15 * wide * np.sin(a)) - across * 0.75 * wide * np.cos(a) for a in angle]
    cover = polygon(size, np.stack(rim + foot))
    grid = np.arange(size) + 0.5
    x = ((grid[None, :] - middle[0]) * across[0] + (grid[:, None] - middle[1]) * across[1]) / wide
    x = np.clip(x, -0.98, 0.98)
    normals = np.stack([x, 0 * x, np.sqrt(1 - x**2)], axis=-1)
    colour = random_colour(rng) if rng.random() < 0.5 else linear("#e6e4df")
    if stage.photos and photographs.names() and rng.random() < 0.5:
        names = photographs.names()
        colour = photographs.crop(rng, names[rng.integers(len(names))], size, 0.6)
    layers = [Layer(cover, _lit(stage.light, normals, colour, 0.5))]
    tone = skin_colour(stage.look.tone, stage.look.blood + 0.3)
    side = rng.choice([-1, 1])
    for k in range(4):
        at = middle + up * (24 - 18 * k) * mm
        joints = np.stack(
            [
                at + side * across * (wide + 8 * mm),
                at + side * across * 0.5 * wide,
                at - side * across * 0.2 * wide,
            ]
        )
        cover, normals = _limb(size, joints, np.array([10, 9.5, 8]) * mm)
        layers.append(Layer(cover, _lit(stage.light, normals, tone, 0.2), shadow=0.3))
    hold = middle + side * across * (wide + 12 * mm)
    cover, normals = _limb(
        size,
        np.stack([hold, hold - up * 60 * mm, hold - up * 300 * mm + side * across * 60 * mm]),
        np.array([30, 28, 45]) * mm,
    )
    layers.append(Layer(cover, _lit(stage.light, normals, tone, 0.2), shadow=0.3))
    return layers


KINDS = {
    "hand": hand,
    "mask": mask,
    "microphone": microphone,
    "hat": hat,
    "sunglasses": sunglasses,
    "scarf": scarf,
    "strands": strands,
    "phone": phone,
    "cup": cup,
}

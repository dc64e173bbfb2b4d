"""Hair: a shell over the scalp that may hang down, cut off along a hairline, with strands for texture.

The shell covers more than a style needs; ``keeps`` tells which of its points carry hair.
"""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from synthetic_faces.chance import choose, field, line, normal
from synthetic_faces.head import sections
from synthetic_faces.mesh import azimuths, grid_normals, tube
from synthetic_faces.paint import Paint, skin_colour
from synthetic_faces.recipe import HAIR

ANGLES = (0, 18, 36, 52, 64, 76, 88, 100, 114, 130, 180)

FEMININE = {"short": 0.12, "bob": 0.3, "long": 0.39, "tied": 0.14, "afro": 0.01, "bowl": 0.04}
MASCULINE = {
    "bald": 0.05, "buzz": 0.09, "receding": 0.12, "short": 0.56, "bowl": 0.1, "afro": 0.01, "long": 0.05,
    "tied": 0.02,
}  # fmt: skip


def sample_style(rng: np.random.Generator, shape, look) -> SimpleNamespace:
    """Sample a style that fits age and look; lengths in millimetres, angles in degrees."""
    odds = dict(FEMININE if look.feminine else MASCULINE)
    if not look.feminine:
        old = max(0.0, shape.age - 0.45)
        odds["bald"] += 0.3 * old
        odds["receding"] += 0.7 * old
    if look.tone > 6:
        odds["afro"] += 0.06
    kind = choose(rng, odds)
    h, peak, burn = shape.hairline, rng.uniform(0, 6), rng.uniform(0, 30)
    front = [-h + peak, -h, -h + 2, -h + 12, -34]
    style = {
        "kind": kind,
        "top": rng.uniform(6, 30) if kind == "short" else rng.uniform(6, 18),  # thickness of the shell
        "sides": rng.uniform(4, 14),
        "line": [*front, burn, -8, -10, 35, 62, 74],  # heights y of the hairline at ANGLES
        "part": float(rng.choice([-35, 35, 0]) + normal(rng, 0, 8)),  # azimuth of the parting
        "comb": rng.uniform(-0.6, 0.6),  # slope of the strands
        "curl": float(rng.choice([0.0, rng.uniform(0.2, 0.9)], p=[0.7, 0.3])),  # 0 straight to 1
        "ragged": rng.uniform(1.5, 5),  # roughness of the edge
        "length": 70.0,  # height y of the lower end at the back and the sides
        "fringe": 0.0,  # how far below the hairline strands fall over the forehead
        "flare": 0.0,
        "drape": 0.0,
    }
    if kind == "buzz":
        style |= {"top": rng.uniform(2, 4), "sides": rng.uniform(1.5, 3), "ragged": 2.0, "curl": 0.5}
    elif kind == "receding":
        far = rng.uniform(10, 40)
        edge = [-h - far, -h - far - 3, -h - far, -h - 0.6 * far, -45, burn, -8, -10, 35, 62, 74]
        if rng.random() < 0.45:  # only a wreath is left
            edge[:5] = [-140, -140, -140, -140, rng.uniform(-75, -45)]
        style |= {"line": edge, "top": rng.uniform(3, 9)}
    elif kind == "bowl":
        style |= {"top": rng.uniform(8, 16), "sides": rng.uniform(8, 16), "fringe": rng.uniform(12, 42)}
    elif kind == "afro":
        size = rng.uniform(18, 60)
        style |= {"top": size, "sides": 0.8 * size, "curl": 1.0, "ragged": 6.0}
    elif kind == "tied":
        edge = [*front, -20, -12, 10, 50, 66, 74]
        style |= {"line": edge, "top": rng.uniform(4, 10), "sides": rng.uniform(3, 6)}
    elif kind in ("bob", "long"):
        length = rng.uniform(85, 140) if kind == "bob" else rng.uniform(150, 290)
        style |= {
            "line": [*front[:3], -h + rng.uniform(6, 16), -38 + rng.uniform(-20, 15), *(6 * [length])],
            "length": length,
            "top": rng.uniform(6, 26),
            "sides": rng.uniform(10, 35),
            "flare": rng.uniform(0, 34),  # how much wider than the head it gets
            "drape": rng.uniform(0, 70) * (rng.random() < 0.7),  # how far it lies forward on the shoulders
            "closing": rng.uniform(-12, 22),  # how far it closes in towards the throat
            "fringe": rng.uniform(8, 46) * (rng.random() < 0.4),
            "ragged": rng.uniform(2, 7),
        }
    style["hangs"] = style["length"] > 80  # below the ears
    return SimpleNamespace(**style)


def hair_grid(shape, style, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the shell ``[R,C,3]`` and, for each point, (azimuth in degrees, height y, 0) ``[R,C,3]``."""
    knots = sections(shape)[:8]
    if style.hangs:
        y = np.array([62, 95, 140, 200, max(style.length, 210) + 12], float)
        fall = np.clip((y - 40) / 100, 0, 1)
    else:
        y, fall = np.array([62, 84.0]), np.array([0, 0])
    width = knots[-1, 1] + style.flare * np.clip(fall * 1.6, 0, 1) - 3
    front, back, centre = 55 + style.drape * fall, -86 - 16 * fall, -18 + 0.85 * style.drape * fall
    hanging = np.stack([y, width + 0 * y, front, back, centre], axis=1)
    grid = tube(np.concatenate([knots, hanging]), 32 if style.hangs else 24)
    angle = np.broadcast_to(np.degrees(azimuths(41)), grid.shape[:2])
    height = grid[..., 1]
    place = np.stack([angle, height, 0 * height], axis=-1)
    up = np.clip((-height - 10) / 90, 0, 1)
    thick = style.sides + (style.top - style.sides) * up
    lowest = np.interp(np.abs(angle), ANGLES, style.line) + style.fringe * (np.abs(angle) < 60)
    edge = np.clip((lowest - height) / 26, 0, 1)
    thick = thick * (0.12 + 0.88 * edge**0.6) + 1.0
    across, down = np.radians(angle) * (3 + 4 * style.curl), height / (40 - 18 * style.curl)
    lumps = field(rng, across.ravel() + 40, down.ravel())
    seam = 1 - np.exp(-(((np.abs(angle) - 180) / 25) ** 2))  # the noise does not close at the back
    thick = thick * (1 + (0.18 + 0.12 * style.curl) * lumps.reshape(angle.shape) * seam)
    thick = thick * (1 - 0.45 * np.exp(-(((angle - style.part) / 5) ** 2)) * up)  # the parting
    return grid + grid_normals(grid) * np.maximum(thick, 0.8)[..., None], place


def keeps(style: SimpleNamespace, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that finds the places (azimuth, y, ·) ``[N,3]`` of the shell that carry hair."""
    coarse, fine, tips = line(rng), line(rng), line(rng)

    def keep(place: np.ndarray) -> np.ndarray:
        angle, y = place[:, 0], place[:, 1]
        beyond = np.abs(angle)
        edge = np.interp(beyond, ANGLES, style.line)
        rough = style.ragged * (0.7 * coarse(angle / 9 + 128) + 0.5 * fine(angle / 3 + 128))
        if style.fringe:
            # Locks end at their own length; the fringe is longer on the far side of the parting.
            bias = 0.75 - 0.25 * np.tanh((angle - style.part) * np.sign(style.part) / 25)
            slanted = angle + style.part / 200 * y + 300
            reach = style.fringe * (bias + 0.20 * coarse(slanted / 17) + 0.12 * fine(slanted / 5))
            edge = np.where(beyond < 66, np.minimum(edge + reach, np.maximum(edge, -12)), edge)
        if not style.hangs:
            return y < edge + rough
        # Hanging hair closes in below the chin; its tips differ in length.
        tip = style.length + 2 * style.ragged * tips(angle / 2 + 128)
        front = np.interp(y, [-30, 20, 90, 150], [64, 72, 62 - style.closing, 56 - style.closing])
        return np.where(y < -20, y < edge + rough, (beyond > front + 0.8 * rough) & (y < tip))

    return keep


def paint_hair(place: np.ndarray, style, look, rng: np.random.Generator) -> Paint:
    """Paint hair at places (azimuth, y, ·) ``[N,3]`` with strands along the comb."""
    angle, y = place[:, 0], place[:, 1]
    paint = Paint.plain(len(angle), look.hair_rgb, HAIR, 0.0)
    side = np.where(angle > style.part, 1, -1)
    top = np.clip((-y - 40) / 50, 0, 1)
    across = np.radians(angle) * 75 + style.comb * y + side * 0.9 * y * top
    warp = (2 + 16 * style.curl) * field(rng, across / 40, y / (45 - 30 * style.curl))
    q = across + warp
    strand = sum(part * line(rng)(q / step + 300) for part, step in ((0.5, 7), (0.35, 3), (0.25, 1.2)))
    strand += (0.25 + 0.35 * style.curl) * field(rng, q / 14, y / (30 - 20 * style.curl))
    # Locks lie over each other and shade the next.
    waves = 0.4 * field(rng, across / 26 + 40, y / 26)
    paint.albedo *= np.clip(np.exp(0.5 * strand + waves), 0.15, 3.5)[:, None]
    if style.kind == "buzz":  # the scalp shows through
        paint.albedo += np.float32(0.28) * (skin_colour(look.tone, look.blood) - paint.albedo)
    shine = 0.8 * np.clip(1 - style.curl, 0.15, 1) * np.clip(0.15 + np.mean(look.hair_rgb) * 4, 0, 0.6)
    paint.gloss = (shine * np.clip(0.6 + 0.5 * strand, 0, 2)).astype(np.float32)
    return paint

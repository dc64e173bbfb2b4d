"""Hair: a shell over the scalp that may hang down, cut off along a hairline, with strands for texture.

A style is a handful of numbers: how thick the shell is at the top and the sides, where the hairline runs,
how long the hair hangs, how it is combed and how much it curls. The shell covers more than the style needs;
``keeps`` says which of its points carry hair.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from synthetic_faces.chance import choose, field, line, normal, profile
from synthetic_faces.classes import HAIR
from synthetic_faces.colour import skin_colour
from synthetic_faces.head import Shape, sections
from synthetic_faces.mesh import azimuths, grid_normals, tube
from synthetic_faces.skin import Look, Paint

KINDS = ("bald", "buzz", "receding", "short", "quiff", "bowl", "afro", "bob", "long", "tied", "curly long")


@dataclasses.dataclass(frozen=True)
class Style:
    """One head of hair; lengths in millimetres.

    Attributes:
        kind: one of ``KINDS``.
        top, sides: thickness of the shell.
        line: heights y of the hairline at ``ANGLES`` from front to back; hair grows above.
        length: height y of the lower end at the back and the sides.
        flare: how much wider than the head hanging hair gets.
        drape: how far hanging hair lies forward over the shoulders.
        closing: how many degrees hanging hair closes in from the sides towards the throat.
        fringe: how far below the hairline strands fall over the forehead.
        part: azimuth of the parting in degrees.
        comb: slope of the strands.
        curl: 0 straight to 1 tight curls.
        ragged: roughness of the edge.
        bun: radius of a knot at the back of the head, 0 for none.
    """

    kind: str
    top: float
    sides: float
    line: tuple[float, ...]
    length: float
    flare: float
    drape: float
    closing: float
    fringe: float
    part: float
    comb: float
    curl: float
    ragged: float
    bun: float

    @property
    def hangs(self) -> bool:
        """Say whether hair falls below the ears."""
        return self.length > 80


ANGLES = (0, 18, 36, 52, 64, 76, 88, 100, 114, 130, 180)

FEMININE = {
    "short": 0.12, "bob": 0.30, "long": 0.30, "tied": 0.14, "curly long": 0.09, "afro": 0.01, "bowl": 0.04,
}  # fmt: skip
MASCULINE = {
    "bald": 0.05, "buzz": 0.09, "receding": 0.12, "short": 0.44, "quiff": 0.12, "bowl": 0.10, "afro": 0.01,
    "long": 0.04, "tied": 0.02, "curly long": 0.01,
}  # fmt: skip


def draw_style(rng: np.random.Generator, shape: Shape, look: Look) -> Style:
    """Draw a style that fits age and look."""
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
    usual = {
        "kind": kind,
        "top": rng.uniform(6, 18),
        "sides": rng.uniform(4, 14),
        "line": [*front, burn, -8, -10, 35, 62, 74],
        "length": 70.0,
        "flare": 0.0,
        "drape": 0.0,
        "closing": 0.0,
        "fringe": 0.0,
        "part": float(rng.choice([-35, 35, 0]) + normal(rng, 0, 8)),
        "comb": rng.uniform(-0.6, 0.6),
        "curl": float(rng.choice([0.0, rng.uniform(0.2, 0.9)], p=[0.7, 0.3])),
        "ragged": rng.uniform(1.5, 5),
        "bun": 0.0,
    }
    values = usual | _particular(rng, kind, h, front, burn)
    values["line"] = tuple(map(float, values["line"]))
    return Style(**values)


def _particular(rng: np.random.Generator, kind: str, h: float, front: list, burn: float) -> dict:
    """Return what sets a kind of style apart.

    Args:
        rng: the stream.
        kind: one of ``KINDS``.
        h: height of the hairline above the eyes.
        front: the usual hairline at the first five of ``ANGLES``.
        burn: height y of the sideburns' lower end.
    """
    if kind == "buzz":
        return {"top": rng.uniform(2, 4), "sides": rng.uniform(1.5, 3), "ragged": 2.0, "curl": 0.5}
    if kind == "receding":
        far = rng.uniform(10, 40)
        edge = [-h - far, -h - far - 3, -h - far, -h - 0.6 * far, -45, burn, -8, -10, 35, 62, 74]
        if rng.random() < 0.45:  # only a wreath is left
            edge[:5] = [-140, -140, -140, -140, rng.uniform(-75, -45)]
        return {"line": edge, "top": rng.uniform(3, 9)}
    if kind == "quiff":
        return {"top": rng.uniform(18, 36), "sides": rng.uniform(4, 12)}
    if kind == "bowl":
        return {"top": rng.uniform(8, 16), "sides": rng.uniform(8, 16), "fringe": rng.uniform(12, 42)}
    if kind == "afro":
        size = rng.uniform(18, 60)
        return {"top": size, "sides": 0.8 * size, "curl": 1.0, "ragged": 6.0}
    if kind == "tied":
        edge = [*front, -20, -12, 10, 50, 66, 74]
        bun = float(rng.choice([0, rng.uniform(22, 38)]))
        return {"line": edge, "top": rng.uniform(4, 10), "sides": rng.uniform(3, 6), "bun": bun}
    if kind in ("bob", "long", "curly long"):
        length = rng.uniform(85, 140) if kind == "bob" else rng.uniform(150, 290)
        curls = {"curl": rng.uniform(0.6, 1.0), "sides": rng.uniform(20, 42), "top": rng.uniform(14, 30)}
        return {
            "line": [*front[:3], -h + rng.uniform(6, 16), -38 + rng.uniform(-20, 15), *(6 * [length])],
            "length": length,
            "top": rng.uniform(6, 24),
            "sides": rng.uniform(10, 32),
            "flare": rng.uniform(0, 34),
            "drape": rng.uniform(0, 70) * (rng.random() < 0.7),
            "closing": rng.uniform(-12, 22),
            "fringe": rng.uniform(8, 46) * (rng.random() < 0.4),
            "ragged": rng.uniform(2, 7),
        } | (curls if kind == "curly long" else {})
    return {}


def hairline(style: Style, angle: np.ndarray) -> np.ndarray:
    """Return the height y of the hairline at azimuths in degrees, without the fringe."""
    return np.interp(np.abs(angle), ANGLES, style.line)


def hair_grid(shape: Shape, style: Style, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the shell ``[R,C,3]`` and, for each point, (azimuth in degrees, height y, 0) ``[R,C,3]``."""
    knots = sections(shape)[:8]
    if style.hangs:
        y = np.array([62, 95, 140, 200, max(style.length, 210) + 12], float)
        fall = np.clip((y - 40) / 100, 0, 1)
    else:
        y, fall = np.array([62, 84.0]), np.array([0, 0])
    width = knots[-1, 1] + style.flare * np.clip(fall * 1.6, 0, 1) - 3
    hanging = np.stack(
        [
            y,
            np.broadcast_to(width, y.shape),
            55 + style.drape * fall,
            -86 - 16 * fall,
            -18 + 0.85 * style.drape * fall,
        ],
        axis=1,
    )
    rings = np.concatenate([knots, hanging])
    grid = tube(rings, 32 if style.hangs else 24)
    angle = np.broadcast_to(np.degrees(azimuths(41)), grid.shape[:2])
    height = grid[..., 1]
    place = np.stack([angle, height, 0 * height], axis=-1)
    up = np.clip((-height - 10) / 90, 0, 1)
    thick = style.sides + (style.top - style.sides) * up
    if style.kind == "quiff":  # piled up in front
        thick = thick * (1 + 0.5 * np.cos(np.radians(np.clip(angle + 0.5 * style.part, -90, 90))) * up)
    edge = np.clip((hairline(style, angle) + style.fringe * (np.abs(angle) < 60) - height) / 26, 0, 1)
    thick = thick * (0.12 + 0.88 * edge**0.6) + 1.0
    across, down = np.radians(angle) * (3 + 4 * style.curl), height / (40 - 18 * style.curl)
    lumps = field(rng, across.ravel() + 40, down.ravel())
    seam = 1 - np.exp(-(((np.abs(angle) - 180) / 25) ** 2))  # the noise does not close at the back
    thick = thick * (1 + (0.18 + 0.12 * style.curl) * lumps.reshape(angle.shape) * seam)
    if style.part and style.top > 5:
        groove = np.exp(-(((angle - style.part) / 5) ** 2)) * up
        thick = thick * (1 - 0.45 * groove)
    return grid + grid_normals(grid) * np.maximum(thick, 0.8)[..., None], place


def bun_grid(shape: Shape, style: Style) -> tuple[np.ndarray, np.ndarray]:
    """Return a knot of hair on the back of the crown ``[R,C,3]`` and places as for :func:`hair_grid`."""
    t = np.linspace(0, np.pi, 10)
    radius = style.bun * np.maximum(np.sin(t), 1e-3)
    top = sections(shape)[0, 0]
    middle = (top + 0.1 * style.bun - style.top, -30.0) if style.bun > 30 else (top + 45, -112.0)
    rings = np.stack(
        [
            middle[0] - style.bun * np.cos(t),
            radius,
            middle[1] + radius,
            middle[1] - radius,
            0 * t + middle[1],
        ],
        axis=1,
    )
    grid = tube(rings, 10, 25, 1.0)
    angle = np.broadcast_to(np.degrees(azimuths(25)), grid.shape[:2])
    return grid, np.stack([angle, grid[..., 1], 0 * angle], axis=-1)


def keeps(style: Style, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that says which places (azimuth, y, ·) ``[N,3]`` of the shell carry hair."""
    coarse, fine, tips = line(rng), line(rng), line(rng)
    lean, sway = 0.2 * style.part / 40, np.sign(style.part or 1) / 25

    def keep(place: np.ndarray) -> np.ndarray:
        angle, y = place[:, 0], place[:, 1]
        beyond = np.abs(angle)
        edge = hairline(style, angle)
        rough = style.ragged * (0.7 * coarse(angle / 9 + 128) + 0.5 * fine(angle / 3 + 128))
        if style.fringe:
            # Locks end at their own length; the fringe is longer on the far side of the parting.
            bias = 0.75 - 0.25 * np.tanh((angle - style.part) * sway)
            slanted = angle + lean * y + 300
            reach = style.fringe * (bias + 0.20 * coarse(slanted / 17) + 0.12 * fine(slanted / 5))
            edge = np.where(beyond < 66, np.minimum(edge + reach, np.maximum(edge, -12)), edge)
        if not style.hangs:
            return y < edge + rough
        # Hanging hair closes in below the chin; its tips differ in length.
        tip = style.length + 2 * style.ragged * tips(angle / 2 + 128)
        front = np.interp(y, [-30, 20, 90, 150], [64, 72, 62 - style.closing, 56 - style.closing])
        return np.where(y < -20, y < edge + rough, (beyond > front + 0.8 * rough) & (y < tip))

    return keep


def paint_hair(place: np.ndarray, style: Style, look: Look, rng: np.random.Generator) -> Paint:
    """Paint hair at places (azimuth, y, ·) ``[N,3]`` with strands along the comb."""
    angle, y = place[:, 0], place[:, 1]
    paint = Paint.plain(len(angle), np.asarray(look.hair_rgb), HAIR, 0.0)
    side = np.where(angle > style.part, 1, -1)
    top = np.clip((-y - 40) / 50, 0, 1)
    across = np.radians(angle) * 75 + style.comb * y + side * 0.9 * y * top
    warp = (2 + 16 * style.curl) * field(rng, across / 40, y / (45 - 30 * style.curl))
    q = across + warp
    strand = (
        0.5 * profile(rng, q / 7 + 300)
        + 0.35 * profile(rng, q / 3 + 300)
        + 0.25 * profile(rng, q / 1.2 + 300)
    )
    strand += (0.25 + 0.35 * style.curl) * field(rng, q / 14, y / (30 - 20 * style.curl))
    streak = 0.12 * profile(rng, q / 20 + 300)
    # Locks lie over each other and shade the next.
    waves = 0.4 * field(rng, across / 26 + 40, y / 26)
    paint.albedo *= np.clip(np.exp(0.5 * strand + streak + waves), 0.15, 3.5)[:, None]
    if style.kind == "buzz":  # the scalp shows through
        paint.albedo += np.float32(0.28) * (skin_colour(look.tone, look.blood) - paint.albedo)
    if style.part and style.kind in ("short", "long", "bob", "tied") and style.top < 14:
        parting = np.exp(-(((angle - style.part) / 2.2) ** 2)) * (y < -68) * (y > -104)
        paint.darken((0.45 * parting).astype(np.float32))
    paint.gloss = (
        0.8
        * np.clip(1 - style.curl, 0.15, 1)
        * np.clip(0.6 + 0.5 * strand, 0, 2)
        * np.clip(0.15 + np.mean(look.hair_rgb) * 4, 0, 0.6)
    ).astype(np.float32)
    return paint

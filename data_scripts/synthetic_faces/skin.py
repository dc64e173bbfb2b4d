"""Skin and features: the colour and the class of each visible point of the head.

Every function here looks at points by their place on the head in millimetres, never in pixels: a brow, a
lid or a lip is a function of (x, y) on the face, so it turns, foreshortens and disappears with the surface.
"""

from types import SimpleNamespace

import numpy as np

from synthetic_faces.chance import choose, field, line, normal
from synthetic_faces.paint import HAIR_COLOURS, IRIS_COLOURS, Paint, bump, linear, ridge, skin_colour, soft
from synthetic_faces.recipe import BROWS, EYES, HAIR, MOUTH, NOSE, SKIN

TONES = (1.5, 3, 4, 4, 4, 2.5, 1.5, 1.0, 0.6, 0.4)
"""Odds of the ten tones of the Monk scale, lightest first."""


def sample_look(rng: np.random.Generator, shape: SimpleNamespace) -> SimpleNamespace:
    """Sample a person's colours, linear ``[3]``, and beard."""
    tone = float(np.clip(choose(rng, dict(enumerate(TONES, 1))) + rng.uniform(-0.5, 0.5), 1, 10))
    feminine = int(rng.random() < 0.4)
    dark = np.clip((tone - 4) / 3, 0, 1)
    fair = 1 - dark
    hair_odds = {
        "black": 0.25 + 2 * dark, "dark brown": 0.6 + 0.8 * dark, "brown": 0.6 * fair + 0.1,
        "light brown": 0.55 * fair, "blond": 0.55 * fair, "light blond": 0.35 * fair,
        "red": 0.15 * fair + 0.02,
    }  # fmt: skip
    hair = choose(rng, hair_odds)
    greying = np.clip((shape.age - 0.5) * 3, 0, 1) * (rng.random() < (0.4 if feminine else 0.8))
    grey = float(greying * rng.uniform(0.3, 1.0))
    if grey > 0.5:
        hair = "grey" if rng.random() < 0.7 else "white"
    colour = linear(HAIR_COLOURS[hair]) * np.float32(np.exp(normal(rng, 0, 0.25)))
    colour = colour + np.float32(min(grey, 0.6)) * (linear(HAIR_COLOURS["grey"]) - colour)
    beard_odds = {"none": 0.62, "stubble": 0.18, "moustache": 0.08, "full": 0.12}
    iris_odds = {"dark": 0.5 + 2 * dark, "brown": 0.6, "green": 0.4 * fair, "blue": 0.6 * fair}
    return SimpleNamespace(
        tone=tone,  # place on the Monk scale, 1 to 10
        blood=normal(rng, 1.15, 0.4),  # how flushed
        iris=linear(IRIS_COLOURS[choose(rng, iris_odds)]),
        hair=hair,  # a key of HAIR_COLOURS
        hair_rgb=colour,
        beard="none" if feminine else choose(rng, beard_odds),
        lipstick=feminine * (rng.random() < 0.7) * rng.uniform(0.3, 1),  # strength
        lipstick_rgb=rng.uniform([0.25, 0.02, 0.03], [0.55, 0.12, 0.14]).astype(np.float32),
        feminine=feminine,  # 0 or 1; steers make-up, beard, hair and clothes together
    )


def azimuth(place: np.ndarray) -> np.ndarray:
    """Return the angle around the head's axis in degrees, 0 in front, of places ``[N,3]``."""
    return np.degrees(np.arctan2(place[:, 0], place[:, 2] + 6))


def on_face(place: np.ndarray, shape: SimpleNamespace) -> np.ndarray:
    """Find the points of the head on the face, bool ``[N]``: from hairline to jaw, before the ears."""
    top = -shape.hairline
    heights = [top, top + 1, top + 6, top + 20, -22, 10, 60, 100, 118]
    limit = np.interp(place[:, 1], heights, [0, 18, 40, 56, 70, 82, 88, 95, 120])
    return np.abs(azimuth(place)) < limit


def flesh(place: np.ndarray, look: SimpleNamespace, pixel: float, rng: np.random.Generator) -> Paint:
    """Paint places ``[N,3]`` as plain skin, of which a pixel shows ``pixel`` millimetres.

    An equal ``rng`` gives parts of one person a grain that goes on from one to the next.
    """
    paint = Paint.plain(len(place), skin_colour(look.tone, look.blood), SKIN, 0.25)
    if pixel <= 4:  # coarser ones show no grain
        x, y, _ = place.T.copy()
        blotch = 0.05 * field(rng, x / 24, y / 24)
        grain = 0.035 * field(rng, x / 6, y / 6) + 0.03 * field(rng, x / 1.7, y / 1.7, 64)
        # Where blood shines through, red stays and the rest darkens.
        paint.albedo *= (1 + grain)[:, None] + blotch[:, None] * np.array([0.2, 1.2, 1.2], np.float32)
    return paint


def paint_head(paint: Paint, place: np.ndarray, shape, look, pixel: float, rng) -> None:
    """Turn plain skin at ``place`` ``[N,3]`` into a face: skin, brows, eyes, nose, mouth and (beard) hair.

    ``pixel`` is the width of a pixel on the head in millimetres.
    """
    x, y, z = np.ascontiguousarray(place.T)
    side, front = np.abs(x), np.clip((z - 10) / 20, 0, 1)
    _complexion(paint, shape, side, y, front)
    if look.beard != "none":
        _beard(paint, shape, look, x, y, z, pixel, rng)
    # Each feature is painted on the few points around it only.
    features = {
        _nose: (side < 2.2 * shape.nose_width) & (y > -10) & (y < 1.5 * shape.nose_length),
        _brows: (np.abs(side - shape.eye_x) < 30) & (y > shape.brow_y - 20) & (y < 0),
        _eyes: (np.abs(side - shape.eye_x) < 22) & (y > -20) & (y < 15),
        _mouth: (side < 1.3 * shape.mouth_width) & (y > shape.mouth_y - 18),
    }
    for feature, where in features.items():
        near = np.flatnonzero(where)
        part = paint[near]
        feature(part, shape, look, x[near], y[near], front[near], pixel, rng)
        paint[near] = part


def _complexion(paint, shape, side, y, front) -> None:
    """Paint the colours of cheeks and eye sockets, and the fold from nose to mouth."""
    cheeks = bump(side, y, 42, 34, 20, 18) + 0.8 * bump(side, y, 0, 42, 16, 12)
    paint.albedo *= 1 + (front * cheeks)[:, None] * np.array([0.03, -0.09, -0.08], np.float32)
    sockets = bump(side, y, shape.eye_x - 3, 7, 18, 9)
    paint.darken(front * sockets * (0.12 + 0.15 * shape.age))
    fold = ridge(side - (shape.nose_width + 6 + 0.32 * (y - 0.8 * shape.nose_length)), 3)
    fold *= ridge(y - shape.mouth_y + 10, 16)
    paint.darken(front * np.minimum(0.10 + 0.3 * shape.age + 0.25 * shape.smile, 0.6) * fold)


def _nose(paint, shape, look, x, y, front, pixel, rng) -> None:
    """Give the nose its class; darken the nostrils and the crease around the wings."""
    length, width, side = shape.nose_length, shape.nose_width, np.abs(x)
    half = np.interp(y / length, [-0.12, 0, 0.5, 0.8, 0.95, 1.1], [0.25, 0.36, 0.55, 0.95, 1.05, 0.75])
    inside = (side < half * width) & (y > -0.12 * length) & (y < 1.12 * length)
    paint.label[inside & (front > 0.5)] = NOSE
    crease = bump(side, y, 1.08 * width, 0.9 * length, 3, 9)
    under = bump(x, y, 0, 1.16 * length, 0.8 * width, 4)
    paint.darken(front * np.clip(0.4 * crease + 0.30 * under, 0, 1))
    hole = np.hypot((side - 0.45 * width) / 1.5, y - 1.07 * length) - 3.2
    paint.cover(0.75 * soft(hole, max(pixel, 1.5)) * front, np.array([0.03, 0.012, 0.01]))


def _brows(paint, shape, look, x, y, front, pixel, rng) -> None:
    """Paint both brows."""
    along = (np.abs(x) - (shape.eye_x - 19)) / 40  # 0 at the inner end, 1 at the outer
    arch = shape.brow_arch * np.sin(np.pi * np.clip(along, 0, 1) ** 1.4)
    middle = shape.brow_y - arch + 10 * np.clip(along - 0.65, 0, 1)
    half = 0.5 * shape.brow_weight * np.interp(along, [-0.05, 0.05, 0.5, 1.0, 1.05], [0, 1, 0.95, 0.35, 0])
    ragged = 0.5 * line(rng)((x + 0.6 * y) / 1.5)
    outside = np.abs(y - middle) - half + ragged + 20 * ((along < -0.05) | (along > 1.05))
    cover = soft(outside, max(pixel, 1.5)) * front
    paint.cover(0.85 * cover, 0.75 * look.hair_rgb + 0.02)
    paint.label[cover >= 0.5] = BROWS  # a fair brow is thinner in colour, not in class


def _eyes(paint, shape, look, x, y, front, pixel, rng) -> None:
    """Paint both eyes: lashes, white, iris, pupil, glint."""
    half, opening = shape.eye_width, shape.eye_open
    u = np.clip((np.abs(x) - shape.eye_x) / half, -1.3, 1.3)  # -1 at the inner corner, 1 at the outer
    v = y + shape.eye_tilt * u * half
    arc = np.clip(1 - u**2, 0, 1)
    upper, lower = -0.62 * opening * arc**0.7, 0.38 * opening * arc
    outside = np.maximum(np.maximum(upper - v, v - lower), (np.abs(u) - 1) * half)
    hole = soft(outside, pixel) * front.astype(np.float32)
    paint.darken(0.30 * front * ridge(v - upper + 5, 1.4) * (np.abs(u) < 1))  # the lid's fold
    paint.cover(hole, np.array([0.62, 0.56, 0.52]), EYES)
    paint.gloss += 0.25 * hole
    gx, gy = x - np.sign(x) * shape.eye_x - shape.gaze[0], v - shape.gaze[1]
    reach = np.hypot(gx, gy + 0.1 * opening)
    paint.cover(hole * soft(reach - 6.2, pixel), look.iris)
    paint.cover(hole * soft(reach - 2.6, pixel), np.array([0.004, 0.004, 0.004]))
    paint.darken(0.35 * hole * np.exp(-(v - upper) / 2.2))  # the lid's shadow
    lash = ridge(v - upper + 1, 1.3 + 0.9 * look.feminine) + 0.35 * ridge(v - lower - 0.5, 1)
    lash *= front * (np.abs(u) < 1.05)
    paint.cover(0.8 * np.clip(lash, 0, 1), np.array([0.02, 0.012, 0.01]))
    paint.cover(hole * soft(np.hypot(gx - 2, gy + 3) - 1.3, pixel), np.ones(3))  # the glint


def _mouth(paint, shape, look, x, y, front, pixel, rng) -> None:
    """Paint lips and, in an open mouth, teeth, tongue and the dark."""
    half, gap = shape.mouth_width, shape.jaw_open
    u = np.clip(x / half, -1.2, 1.2)
    arc = np.clip(1 - u**2, 0, 1)
    # With a smile the corners rise; the open jaw moves the lower lip only.
    slit = shape.mouth_y - 5 * shape.smile * u**2 + 1.0 * (1 - u**2)
    slit_low = slit + 0.75 * gap * arc**0.8
    cupid = 1 - 0.25 * ridge(u, 0.12)
    upper = slit - 0.75 * shape.lip * np.clip(1 - np.abs(u) ** 1.6, 0, 1) * cupid
    outside = np.maximum(np.maximum(upper - y, y - slit_low - shape.lip * arc), (np.abs(u) - 1) * half)
    cover = soft(outside, max(pixel, 1.2)) * front.astype(np.float32)
    bare = skin_colour(min(look.tone + 1.2, 10), look.blood + 1.0) * np.array([0.95, 0.62, 0.62], np.float32)
    paint.cover(0.9 * cover, bare + np.float32(look.lipstick) * (look.lipstick_rgb - bare))
    paint.label[cover >= 0.5] = MOUTH
    paint.gloss += cover * (0.35 + 0.5 * np.float32(look.lipstick) - paint.gloss)
    if gap <= 1.5:
        paint.darken(0.65 * front * ridge(y - slit, max(1.1, 0.6 * pixel)) * (np.abs(u) < 1))
        return
    inside = soft(np.maximum(slit - y, y - slit_low), pixel) * (np.abs(u) < 0.97) * cover
    paint.cover(inside, np.array([0.05, 0.012, 0.012]))
    tongue = 1 - soft(y - slit_low + 0.3 * gap, 2.0)
    paint.cover(0.8 * inside * tongue, np.array([0.30, 0.09, 0.08]))
    teeth = soft(y - slit - min(8.0, 0.72 * gap) * arc**0.5, max(pixel, 1.0))
    gaps = 1 - 0.15 * np.cos(2 * np.pi * x / 7.5) ** 16
    paint.cover(inside * teeth * gaps, np.array([0.78, 0.70, 0.58]))


def _beard(paint, shape, look, x, y, z, pixel, rng) -> None:
    """Paint stubble (skin seen through hair) or a beard (hair)."""
    mouth, side = shape.mouth_y, np.abs(x)
    # How far inside the beard points lie, in millimetres. A moustache hangs from the nose.
    inside = np.minimum(mouth - 4 + 0.004 * side**2 - y, y - mouth + 19 - 0.012 * side**2)
    inside = np.minimum(inside, shape.mouth_width + 5 - side)
    if look.beard != "moustache":
        lips = np.maximum(mouth - 7 - y, y - mouth - 0.75 * shape.jaw_open - 10)
        lips = np.maximum(lips, side - shape.mouth_width - 1)  # negative between the lips
        edge = np.interp(side, [0, 28, 50, 68, 80], [mouth - 14, mouth - 10, mouth - 14, 22, -5])
        inside = np.maximum(np.minimum(np.minimum(y - edge, lips), z + 8), inside)
    inside += 2.0 * field(rng, x / 5, y / 5, 64)
    hairs = line(rng)((x + 0.35 * y) / 1.6) * 0.5 + field(rng, x / 2.5, y / 5, 64) * 0.5
    if look.beard == "stubble":
        paint.cover(np.clip(inside / 10, 0, 1) * (0.32 + 0.06 * hairs), 0.6 * look.hair_rgb)
        return
    cover = soft(-inside, max(pixel, 3.0)) * 0.95
    paint.cover(cover, look.hair_rgb * np.clip(1 + 0.35 * hairs, 0.3, 2)[:, None], HAIR)
    paint.gloss *= 1 - 0.7 * cover

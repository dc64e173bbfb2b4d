"""Skin and features: what colour and which class each visible point of the head has.

Every function here looks at points by their place on the head in millimetres, never in pixels: a brow, a
lid or a lip is a function of (x, y) on the face, so it turns, foreshortens and disappears with the surface.
``soft`` turns a signed distance into coverage over the width of one pixel, and a class is given where
coverage is at least one half, so that an edge of the label lies on the edge in the image.
"""

import dataclasses

import numpy as np

from synthetic_faces.chance import choose, field, normal, profile
from synthetic_faces.classes import BROWS, EARS, EYES, HAIR, MOUTH, NECK, NOSE, SKIN
from synthetic_faces.colour import HAIR_COLOURS, IRIS_COLOURS, linear, skin_colour
from synthetic_faces.head import Shape


@dataclasses.dataclass(frozen=True)
class Look:
    """What a person looks like apart from shape.

    Attributes:
        tone: place on the Monk scale, 1 to 10.
        blood: how flushed, about 0 to 2.
        iris, hair: names of colours in ``colour``.
        hair_rgb: linear colour of the hair, grey mixed in.
        beard: ``none``, ``stubble``, ``moustache``, ``goatee`` or ``full``.
        freckles, lipstick, eyeshadow: strength, 0 to 1.
        lipstick_rgb: linear colour of the lips' make-up.
        feminine: 0 or 1; steers make-up, beard, hair and brows together.
    """

    tone: float
    blood: float
    iris: str
    hair: str
    hair_rgb: tuple[float, float, float]
    beard: str
    freckles: float
    lipstick: float
    eyeshadow: float
    lipstick_rgb: tuple[float, float, float]
    feminine: int


@dataclasses.dataclass
class Paint:
    """Colour, class and gloss of fragments while they are being painted, one entry each.

    Attributes:
        albedo: linear float32 ``[N,3]``.
        label: uint8 ``[N]``.
        gloss: float32 ``[N]``, strength of highlights.
        glow: float32 ``[N]``, light that comes back whatever the shading, such as glints.
    """

    albedo: np.ndarray
    label: np.ndarray
    gloss: np.ndarray
    glow: np.ndarray

    @classmethod
    def plain(cls, count: int, colour: np.ndarray, label: int, gloss: float) -> "Paint":
        """Return ``count`` entries of one colour, class and gloss."""
        return cls(
            np.tile(np.asarray(colour, np.float32), (count, 1)),
            np.full(count, label, np.uint8),
            np.full(count, gloss, np.float32),
            np.zeros(count, np.float32),
        )

    @classmethod
    def joined(cls, paints: list["Paint"]) -> "Paint":
        """Return the entries of several paints one after the other."""
        return cls(
            np.concatenate([paint.albedo for paint in paints], dtype=np.float32),
            np.concatenate([paint.label for paint in paints]),
            np.concatenate([paint.gloss for paint in paints], dtype=np.float32),
            np.concatenate([paint.glow for paint in paints], dtype=np.float32),
        )

    def cover(
        self, coverage: np.ndarray, colour: np.ndarray, label: int | None = None, gloss: float | None = None
    ) -> None:
        """Lay ``colour`` over with ``coverage`` ``[N]``; give ``label`` where that is at least one half."""
        self.albedo += coverage[:, None] * (np.asarray(colour, np.float32) - self.albedo)
        if label is not None:
            self.label[coverage >= 0.5] = label
        if gloss is not None:
            self.gloss += coverage * (np.float32(gloss) - self.gloss)

    def part(self, where: np.ndarray) -> "Paint":
        """Return a copy of the entries ``where`` ``[M]`` (indices), to be painted and put back."""
        return Paint(self.albedo[where], self.label[where], self.gloss[where], self.glow[where])

    def put(self, where: np.ndarray, part: "Paint") -> None:
        """Put back the entries that :meth:`part` took."""
        self.albedo[where], self.label[where] = part.albedo, part.label
        self.gloss[where], self.glow[where] = part.gloss, part.glow

    def darken(self, amount: np.ndarray) -> None:
        """Multiply the colour by ``1 - amount`` ``[N]``."""
        self.albedo *= (1 - amount)[:, None]


def soft(distance: np.ndarray, width: float) -> np.ndarray:
    """Return coverage 0-1 of a signed distance (negative inside), both in millimetres."""
    return np.clip(0.5 - distance / width, 0, 1).astype(np.float32)


def bump(x, y, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    """Return a bell of height 1 around (cx, cy)."""
    return np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)


def draw_look(rng: np.random.Generator, shape: Shape, tones: tuple[float, ...]) -> Look:
    """Draw a look; ``tones`` are the odds of the ten Monk tones."""
    tone = float(
        np.clip(choose(rng, dict(zip(range(1, 11), tones, strict=True))) + rng.uniform(-0.5, 0.5), 1, 10)
    )
    feminine = int(rng.random() < 0.4)
    dark = np.clip((tone - 4) / 3, 0, 1)
    fair = 1 - dark
    hair = choose(
        rng,
        {
            "black": 0.25 + 2 * dark,
            "dark brown": 0.6 + 0.8 * dark,
            "brown": 0.6 * fair + 0.1,
            "light brown": 0.55 * fair,
            "blond": 0.55 * fair,
            "light blond": 0.35 * fair,
            "red": 0.15 * fair + 0.02,
        },
    )
    greying = np.clip((shape.age - 0.5) * 3, 0, 1) * (rng.random() < (0.8 if not feminine else 0.4))
    grey = float(greying * rng.uniform(0.3, 1.0))
    if grey > 0.5:
        hair = "grey" if rng.random() < 0.7 else "white"
    colour = linear(HAIR_COLOURS[hair]) * np.float32(np.exp(normal(rng, 0, 0.25)))
    colour = colour + np.float32(min(grey, 0.6)) * (linear(HAIR_COLOURS["grey"]) - colour)
    beard = (
        "none"
        if feminine
        else choose(rng, {"none": 0.62, "stubble": 0.18, "moustache": 0.08, "goatee": 0.04, "full": 0.08})
    )
    iris = choose(
        rng,
        {
            "dark brown": 0.5 + 2 * dark,
            "brown": 0.6,
            "hazel": 0.25 * fair,
            "green": 0.15 * fair,
            "grey": 0.15 * fair,
            "blue": 0.5 * fair,
        },
    )
    lips = np.array([rng.uniform(0.25, 0.55), rng.uniform(0.02, 0.12), rng.uniform(0.03, 0.14)])
    return Look(
        tone=tone,
        blood=normal(rng, 1.15, 0.4),
        iris=iris,
        hair=hair,
        hair_rgb=tuple(map(float, colour)),
        beard=beard,
        freckles=float(fair * (rng.random() < 0.15) * rng.uniform(0.3, 1)),
        lipstick=float(feminine * (rng.random() < 0.7) * rng.uniform(0.3, 1)),
        eyeshadow=float(feminine * (rng.random() < 0.6) * rng.uniform(0.2, 0.9)),
        lipstick_rgb=tuple(map(float, lips)),
        feminine=feminine,
    )


def azimuth(place: np.ndarray) -> np.ndarray:
    """Return the angle around the head's axis in degrees, 0 in front, of places ``[N,3]``."""
    return np.degrees(np.arctan2(place[:, 0], place[:, 2] + 6))


def on_face(place: np.ndarray, shape: Shape) -> np.ndarray:
    """Say which points of the head lie on the face: below the hairline, before the ears, above the jaw's
    underside. Bool ``[N]``."""
    top = -shape.hairline
    limit = np.interp(
        place[:, 1],
        [top, top + 1, top + 6, top + 20, -22, 10, 60, 100, 118],
        [0, 18, 40, 56, 70, 82, 88, 95, 120],
    )
    return np.abs(azimuth(place)) < limit


def flesh(places: list[np.ndarray], look: Look, pixel: float, rng: np.random.Generator) -> list[Paint]:
    """Paint plain skin on several parts at once, so that its grain goes on from one to the next.

    Args:
        places: of each part, places ``[N,3]`` in millimetres.
        look: the person's look.
        pixel: a pixel's width in millimetres.
        rng: stream for the grain.

    Returns:
        the paint of each part.
    """
    counts = [len(place) for place in places]
    albedo = np.tile(skin_colour(look.tone, look.blood), (sum(counts), 1))
    if places and pixel <= 4:  # coarser ones show no grain
        x, y, _ = np.concatenate(places).T.copy()
        blotch = 0.05 * field(rng, x / 24, y / 24)
        grain = 0.035 * field(rng, x / 6, y / 6) + 0.03 * field(rng, x / 1.7, y / 1.7, 64)
        # Where blood shines through, red stays and the rest darkens.
        albedo *= (1 + grain)[:, None] + blotch[:, None] * np.array([0.2, 1.2, 1.2], np.float32)
    return [
        Paint(albedo[end - n : end], np.full(n, SKIN, np.uint8), np.full(n, 0.25, "f4"), np.zeros(n, "f4"))
        for n, end in zip(counts, np.cumsum(counts), strict=True)
    ]


def paint_neck(paint: Paint, place: np.ndarray, shape: Shape, rng: np.random.Generator) -> Paint:
    """Turn plain skin at ``place`` ``[N,3]`` into a neck."""
    x, y = place[:, 0], place[:, 1]
    paint.label[:] = NECK
    cords = np.exp(-(((np.abs(x) - (52 - 0.3 * (y - 80))) / 7) ** 2))  # from the ears to the breastbone
    paint.darken(0.12 * cords)
    paint.darken((0.10 * shape.age * np.clip(profile(rng, y / 9), 0, 1)).astype(np.float32))
    return paint


def paint_ear(paint: Paint, place: np.ndarray) -> Paint:
    """Turn plain skin at ``place`` ``[N,3]`` into an ear: redder than the face, dark inside the bowl."""
    y, z = place[:, 1] - 10, place[:, 2] + 18
    paint.label[:] = EARS
    inside = np.exp(-((y / 16) ** 2) - ((z - 3) / 8) ** 2)
    paint.albedo *= np.array([1.05, 0.9, 0.88], np.float32)
    paint.darken((0.45 * inside).astype(np.float32))
    return paint


def paint_head(
    paint: Paint, place: np.ndarray, shape: Shape, look: Look, pixel: float, rng: np.random.Generator
) -> Paint:
    """Turn plain skin into the head without hair on the scalp.

    Args:
        paint: the plain skin.
        place: visible points ``[N,3]`` of the head's mesh.
        shape: the person's shape.
        look: the person's look.
        pixel: width of a pixel on the head in millimetres.
        rng: stream for the skin's texture.

    Returns:
        the paint, with the classes skin, brows, eyes, nose, mouth and (beard) hair.
    """
    x, y, z = np.ascontiguousarray(place.T)
    front = np.clip((z - 10) / 20, 0, 1)
    _complexion(paint, shape, look, x, y, front, rng)
    _beard(paint, shape, look, x, y, z, pixel, rng)
    # Each feature is painted on the few points around it only.
    near = np.flatnonzero((np.abs(x) < 2.2 * shape.nose_width) & (y > -10) & (y < 1.5 * shape.nose_length))
    part = paint.part(near)
    _nose(part, shape, x[near], y[near], front[near], pixel)
    paint.put(near, part)
    near = np.flatnonzero((np.abs(np.abs(x) - shape.eye_x) < 30) & (y > shape.brow_y - 20) & (y < 15))
    part, u, v, ahead = paint.part(near), x[near], y[near], front[near]
    _brows(part, shape, look, u, v, ahead, pixel, rng)
    _eyes(part, shape, look, u, v, ahead, pixel)
    paint.put(near, part)
    near = np.flatnonzero((np.abs(x) < 1.3 * shape.mouth_width) & (y > shape.mouth_y - 18))
    part = paint.part(near)
    _mouth(part, shape, look, x[near], y[near], front[near], pixel)
    paint.put(near, part)
    return paint


def _complexion(paint, shape, look, x, y, front, rng) -> None:
    """Colour that varies over the face, freckles, make-up and wrinkles."""
    cheeks = bump(np.abs(x), y, 42, 34, 20, 18) + 0.8 * bump(x, y, 0, 42, 16, 12)
    paint.albedo *= 1 + (front * cheeks)[:, None] * np.array([0.03, -0.09, -0.08], np.float32)
    sockets = bump(np.abs(x), y, shape.eye_x - 3, 7, 18, 9)
    paint.darken((front * sockets * (0.12 + 0.15 * shape.age)).astype(np.float32))
    lids = bump(np.abs(x), y, shape.eye_x, -7, 16, 6) * look.eyeshadow * front
    paint.cover((0.55 * lids).astype(np.float32), skin_colour(min(look.tone + 3.5, 10), 0.6))
    if look.freckles:
        spots = np.clip(field(rng, x / 3.2, y / 3.2, 64) - 1.0, 0, 1) * (cheeks + 0.2)
        paint.darken((0.5 * look.freckles * front * np.clip(spots, 0, 1)).astype(np.float32))
    # Wrinkles: the forehead's, the fold from nose to mouth, crow's feet.
    wave = profile(rng, x / 25)
    rows = _ridges(y + 3 * wave, 11) * bump(x, y, 0, -42, 40, 16)
    mouth = shape.mouth_y
    fold_x = shape.nose_width + 6 + 0.32 * (y - 0.8 * shape.nose_length)
    fold = np.exp(-(((np.abs(x) - fold_x) / 3.0) ** 2)) * bump(0, y, 0, mouth - 10, 1, 16)
    feet = _ridges(y, 6) * bump(np.abs(x), y, shape.eye_x + 22, 0, 6, 9)
    depth = shape.age * (0.28 * rows + 0.22 * feet) + (0.10 + 0.3 * shape.age + 0.25 * shape.smile) * fold
    paint.darken((front * np.clip(depth, 0, 0.6)).astype(np.float32))


def _ridges(y: np.ndarray, step: float) -> np.ndarray:
    """Return narrow parallel ridges of height 1, ``step`` apart."""
    wave = np.cos((2 * np.pi / step) * y)
    wave *= wave
    wave *= wave
    return wave * wave


def _nose(paint, shape, x, y, front, pixel) -> None:
    """Give the nose its class; darken the nostrils and the crease around the wings."""
    length, width = shape.nose_length, shape.nose_width
    side = (
        np.interp(y / length, [-0.12, 0, 0.5, 0.8, 0.95, 1.1], [0.25, 0.36, 0.55, 0.95, 1.05, 0.75]) * width
    )
    outside = np.maximum(np.abs(x) - side, np.maximum(-0.12 * length - y, y - 1.12 * length))
    paint.label[(outside < 0) & (front > 0.5)] = NOSE
    crease = np.exp(-(((np.abs(x) - 1.08 * width) / 3) ** 2)) * bump(0, y, 0, 0.9 * length, 1, 9)
    under = bump(x, y, 0, 1.16 * length, 0.8 * width, 4)
    paint.darken((front * np.clip(0.4 * crease + 0.30 * under, 0, 1)).astype(np.float32))
    hole = np.hypot((np.abs(x) - 0.45 * width) / 1.5, y - 1.07 * length) - 3.2
    paint.cover(0.75 * soft(hole, max(pixel, 1.5)) * front.astype(np.float32), np.array([0.03, 0.012, 0.01]))


def _brows(paint, shape, look, x, y, front, pixel, rng) -> None:
    """Paint both brows."""
    along = (np.abs(x) - (shape.eye_x - 19)) / 40  # 0 at the inner end, 1 at the outer
    middle = (
        shape.brow_y
        - shape.brow_arch * np.sin(np.pi * np.clip(along, 0, 1) ** 1.4)
        + 5 * np.clip(along - 0.65, 0, 1) * 2
    )
    half = 0.5 * shape.brow_weight * np.interp(along, [-0.05, 0.05, 0.5, 1.0, 1.05], [0, 1, 0.95, 0.35, 0])
    ragged = 0.5 * profile(rng, (x + 0.6 * y) / 1.5)
    outside = np.abs(y - middle) - half + ragged + 20 * ((along < -0.05) | (along > 1.05))
    cover = soft(outside, max(pixel, 1.5)) * front.astype(np.float32)
    colour = 0.75 * np.asarray(look.hair_rgb, np.float32) + 0.02
    # A fair brow is drawn thinner in colour, not in class.
    paint.albedo += (0.85 * cover)[:, None] * (colour - paint.albedo)
    paint.label[cover >= 0.5] = BROWS


def _eyes(paint, shape, look, x, y, front, pixel) -> None:
    """Paint both eyes: lashes, white, iris, pupil, glint."""
    cx, half, opening = np.sign(x) * np.float32(shape.eye_x), shape.eye_width, shape.eye_open
    u = np.clip((np.abs(x) - shape.eye_x) / half, -1.3, 1.3)  # -1 at the inner corner, 1 at the outer
    v = y + shape.eye_tilt * u * half
    arc = np.clip(1 - u**2, 0, 1)
    upper, lower = -0.62 * opening * arc**0.7, 0.38 * opening * arc
    outside = np.maximum(np.maximum(upper - v, v - lower), (np.abs(u) - 1) * half)
    hole = soft(outside, pixel) * front.astype(np.float32)
    lash = np.exp(-(((v - upper + 1.0) / (1.3 + 0.9 * look.feminine)) ** 2)) * (np.abs(u) < 1.05)
    lash = lash + 0.35 * np.exp(-(((v - lower - 0.5) / 1.0) ** 2)) * (np.abs(u) < 1)
    fold = np.exp(-(((v - upper + 5) / 1.4) ** 2)) * (np.abs(u) < 1)
    paint.darken((front * np.clip(0.30 * fold, 0, 1)).astype(np.float32))
    paint.cover(hole, np.array([0.62, 0.56, 0.52]), EYES, gloss=0.5)
    gx, gy = shape.gaze
    reach = np.hypot(x - cx - gx, v + 0.1 * opening - gy)
    iris = hole * soft(reach - 6.2, pixel)
    paint.cover(iris, linear(IRIS_COLOURS[look.iris]))
    paint.cover(iris * soft(np.abs(reach - 5.8) - 0.6, pixel) * np.float32(0.6), np.array([0.01, 0.01, 0.01]))
    paint.cover(hole * soft(reach - 2.6, pixel), np.array([0.004, 0.004, 0.004]))
    paint.darken((0.35 * hole * np.exp(-((v - upper) / 2.2))).astype(np.float32))  # the lid's shadow
    paint.cover((0.8 * np.clip(lash, 0, 1) * front).astype(np.float32), np.array([0.02, 0.012, 0.01]))
    glint = hole * soft(np.hypot(x - cx - gx - 2, v - gy + 3) - 1.3, pixel)
    paint.glow += 0.8 * glint


def _mouth(paint, shape, look, x, y, front, pixel) -> None:
    """Paint lips and, in an open mouth, teeth, tongue and the dark."""
    half, middle, gap = shape.mouth_width, shape.mouth_y, shape.jaw_open
    u = np.clip(x / half, -1.2, 1.2)
    arc = np.clip(1 - u**2, 0, 1)
    # With a smile the corners rise; the open jaw moves the lower lip only.
    line = middle - 5 * shape.smile * u**2 + 1.0 * (1 - u**2)
    slit_low = line + 0.75 * gap * arc**0.8
    cupid = 1 - 0.25 * np.exp(-((u / 0.12) ** 2))
    upper = line - 0.75 * shape.lip * np.clip(1 - np.abs(u) ** 1.6, 0, 1) * cupid
    lower = slit_low + shape.lip * np.clip(1 - u**2, 0, 1)
    outside = np.maximum(np.maximum(upper - y, y - lower), (np.abs(u) - 1) * half)
    cover = soft(outside, max(pixel, 1.2)) * front.astype(np.float32)
    bare = skin_colour(min(look.tone + 1.2, 10), look.blood + 1.0) * np.array([0.95, 0.62, 0.62], np.float32)
    colour = bare + np.float32(look.lipstick) * (np.asarray(look.lipstick_rgb, np.float32) - bare)
    paint.albedo += (0.9 * cover)[:, None] * (colour - paint.albedo)
    paint.label[cover >= 0.5] = MOUTH
    paint.gloss += cover * (0.35 + 0.5 * np.float32(look.lipstick) - paint.gloss)
    inside = soft(np.maximum(line - y, y - slit_low), pixel) * (np.abs(u) < 0.97) * cover
    if gap > 1.5:
        paint.cover(inside, np.array([0.05, 0.012, 0.012]), gloss=0.1)
        bottom = soft(y - slit_low + 0.3 * gap, 2.0)
        paint.cover(inside * (1 - bottom) * np.float32(0.8), np.array([0.30, 0.09, 0.08]))
        teeth = soft(y - line - min(8.0, 0.72 * gap) * arc**0.5, max(pixel, 1.0))
        gaps = 1 - 0.15 * np.cos(2 * np.pi * x / 7.5) ** 16
        paint.cover((inside * teeth * gaps).astype(np.float32), np.array([0.78, 0.70, 0.58]), gloss=0.4)
    else:
        crack = np.exp(-(((y - line) / max(1.1, 0.6 * pixel)) ** 2)) * (np.abs(u) < 1)
        paint.darken((0.65 * crack * front).astype(np.float32))


def beard_cover(shape: Shape, kind: str, x, y, z) -> np.ndarray:
    """Return how far inside a beard of ``kind`` points lie, in millimetres (negative outside)."""
    mouth, side = shape.mouth_y, np.abs(x)
    under = mouth + 0.75 * shape.jaw_open  # line of the lower lip
    lips = np.maximum(mouth - 7 - y, y - under - 10)  # negative between the lips
    lips = np.maximum(lips, side - shape.mouth_width - 1)
    # A moustache hangs from the nose and thins out beyond the corners of the mouth.
    low = mouth - 4 + 0.004 * side**2
    high = mouth - 19 + 0.012 * side**2
    moustache = np.minimum(np.minimum(low - y, y - high), shape.mouth_width + 5 - side)
    if kind == "moustache":
        return moustache
    if kind == "goatee":
        chin = 24 - np.hypot(side, 0.9 * (y - under - 26))
        corners = np.minimum(6 - np.abs(side - shape.mouth_width - 3), 20 - np.abs(y - under - 2))
        return np.maximum(np.maximum(np.minimum(chin, lips), corners), moustache)
    cheek_line = np.interp(side, [0, 28, 50, 68, 80], [mouth - 14, mouth - 10, mouth - 14, 22, -5])
    return np.maximum(np.minimum(np.minimum(y - cheek_line, lips), z + 8), moustache)


def _beard(paint, shape, look, x, y, z, pixel, rng) -> None:
    """Paint stubble (skin seen through hair) or a beard (hair)."""
    if look.beard == "none":
        return
    kind = "full" if look.beard == "stubble" else look.beard
    inside = beard_cover(shape, kind, x, y, z) + 2.0 * field(rng, x / 5, y / 5, 64)
    strands = profile(rng, (x + 0.35 * y) / 1.6) * 0.5 + field(rng, x / 2.5, y / 5, 64) * 0.5
    colour = np.asarray(look.hair_rgb, np.float32)
    if look.beard == "stubble":
        cover = np.clip(inside / 10, 0, 1) * (0.32 + 0.06 * strands)
        paint.albedo += cover[:, None].astype(np.float32) * (0.6 * colour - paint.albedo)
        return
    cover = soft(-inside, max(pixel, 3.0)) * 0.95
    shade = colour * np.clip(1 + 0.35 * strands, 0.3, 2)[:, None].astype(np.float32)
    paint.albedo += cover[:, None] * (shade - paint.albedo)
    paint.label[cover >= 0.5] = HAIR
    paint.gloss *= 1 - 0.7 * cover

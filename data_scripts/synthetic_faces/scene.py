"""The scene: backgrounds (walls, flags, lettering, photographs) and clothes.

scikit-image and matplotlib carry a few freely usable photographs. Only those are read, none
is downloaded. Pictures of faces are cropped to the parts without one: no network here sees a real face.
"""

import functools
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from synthetic_faces.chance import choose, field, normal
from synthetic_faces.paint import Paint, linear, ridge, soft
from synthetic_faces.recipe import CLOTH

FABRICS = (
    "#101114", "#1b1e27", "#24304a", "#3b3d42", "#6b6d70", "#8c1f2b", "#2f5f8f", "#d9d7d2", "#f2f1ee",
    "#c9b28a", "#5b4632", "#2f4b36", "#a8c0d8", "#d88aa0", "#e0b030",
)  # fmt: skip

# Files, and (left, top, right, bottom) of the usable part in pixels, or None for all of it.
PHOTOGRAPHS = (
    ("coffee.png", None), ("camera.png", (230, 0, 512, 512)), ("brick.png", None), ("grass.png", None),
    ("gravel.png", None), ("motorcycle_left.png", None), ("rocket.jpg", None), ("chelsea.png", None),
    ("coins.png", None), ("hubble_deep_field.jpg", None), ("page.png", None),
    ("astronaut.png", (0, 0, 128, 300)), ("astronaut.png", (120, 300, 512, 512)),
    ("grace_hopper.jpg", (60, 400, 460, 600)),
)  # fmt: skip
FOLDERS = {"skimage": "data", "matplotlib": "mpl-data/sample_data"}


@functools.cache
def photographs() -> list[tuple[Path, tuple | None]]:
    """Return file and usable part of the photographs that the installed packages really hold."""
    found = ((importlib.util.find_spec(package), folder) for package, folder in FOLDERS.items())
    folders = [Path(spec.origin).parent / folder for spec, folder in found if spec]
    places = ((folder / name, part) for name, part in PHOTOGRAPHS for folder in folders)
    return [(file, part) for file, part in places if file.is_file()]


@functools.cache
def _opened(number: int) -> Image.Image:
    """Return one of them as RGB, its longer side at most 320 pixels."""
    file, part = photographs()[number]
    picture = Image.open(file).convert("RGB")
    picture = picture.crop(part) if part else picture
    picture.thumbnail((320, 320), Image.Resampling.LANCZOS)
    return picture


def random_colour(rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Return a linear colour ``[3]``: grey at ``strength`` 0, any hue at 1, dark ones more often."""
    level = rng.uniform(0, 1) ** 1.7
    hue = rng.uniform(-1, 1, 3) * strength
    return np.clip(level * np.exp(1.1 * hue), 0, 1).astype(np.float32)


def _ink(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple((255 * random_colour(rng)).astype(int).tolist())


def wall(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a plain wall or sky: two colours that run into each other."""
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    place = np.cos(angle) * ramp[None, :] + np.sin(angle) * ramp[:, None]
    place = (place - place.min()) / max(float(np.ptp(place)), 1e-6)
    first = random_colour(rng, 0.7)
    second = first * np.float32(rng.uniform(0.3, 1.6)) if rng.random() < 0.7 else random_colour(rng, 0.7)
    return first + place[..., None] * (second - first)


def blocks(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return an interior: panels, doors, stripes of a flag, lamps."""
    behind = Image.fromarray((255 * np.clip(wall(rng, 32), 0, 1)).astype(np.uint8))
    picture = behind.resize((2 * size, 2 * size))
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.integers(3, 14)):
        fill = _ink(rng)
        x, y = rng.uniform(-0.3, 1.1, 2) * 2 * size
        w, h = rng.uniform(0.03, 0.7, 2) * 2 * size
        lean = rng.uniform(-0.2, 0.2) * h
        if rng.random() < 0.25:
            draw.ellipse((x, y, x + w, y + w), fill=fill)
        else:
            draw.polygon([(x, y), (x + w, y), (x + w + lean, y + h), (x + lean, y + h)], fill=fill)
    if rng.random() < 0.25:
        colours = [_ink(rng) for _ in range(2)]
        step = rng.uniform(0.06, 0.2) * 2 * size
        left, top = rng.uniform(-0.2, 0.8) * 2 * size, rng.uniform(-0.3, 0.3) * 2 * size
        for k in range(8):
            draw.rectangle((left, top + k * step, left + size, top + (k + 1) * step), fill=colours[k % 2])
    if rng.random() < 0.3:
        _lettering(rng, draw, size)
    return np.asarray(picture.reduce(2), np.float32) / 255


def _lettering(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: int) -> None:
    """Draw rows of strokes like the sponsors' wall behind a press conference."""
    fill = _ink(rng)
    for row in range(rng.integers(1, 5)):
        y, height = rng.uniform(0, 2 * size), rng.uniform(0.06, 0.22) * 2 * size
        x = rng.uniform(-0.5, 0.5) * size
        while x < 2 * size:
            width = rng.uniform(0.3, 0.9) * height
            shape = rng.integers(3)
            if shape == 0:
                draw.ellipse((x, y, x + width, y + height), outline=fill, width=max(1, int(0.2 * height)))
            else:
                for end in ((x + (shape - 1) * width, y + height), (x + width, y + (row % 2) * height)):
                    draw.line([(x, y), end], fill=fill, width=max(1, int(0.2 * height)))
            x += width * 1.25


def clouds(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return out-of-focus foliage or a crowd: coloured noise at two scales."""
    small = (size + 1) // 2
    ramp = np.linspace(0, 1, small, dtype=np.float32)
    u, v = np.meshgrid(ramp * rng.uniform(3, 8), ramp * rng.uniform(3, 8))
    u, v = u.ravel(), v.ravel()
    first, second = random_colour(rng), random_colour(rng)
    mix = 1 / (1 + np.exp(-2.5 * field(rng, u, v)))
    shade = np.exp(0.5 * field(rng, 3.1 * u, 3.1 * v) + 0.3 * field(rng, 9 * u, 9 * v, 64))
    picture = ((first + mix[:, None] * (second - first)) * shade[:, None]).reshape(small, small, 3)
    return picture.repeat(2, axis=0).repeat(2, axis=1)[:size, :size]


def _photo(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a piece of a bundled photograph in other colours, now and then mixed with an interior."""
    picture = _opened(int(rng.integers(len(photographs()))))
    side = max(8.0, rng.uniform(0.35, 1) * min(picture.size))
    left, top = rng.uniform(0, picture.width - side), rng.uniform(0, picture.height - side)
    box = (left, top, left + side, top + side)
    tile = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box))
    picture = linear(tile[:, ::-1] if rng.random() < 0.5 else tile)
    picture = picture * np.exp(rng.uniform(-0.36, 0.36, 3) + normal(rng, -0.2, 0.5)).astype(np.float32)
    if rng.random() < 0.3:
        picture += np.float32(rng.uniform(0.2, 0.7)) * (blocks(rng, size) - picture)
    return picture


def background(rng: np.random.Generator, size: int, photos: bool = True) -> tuple[np.ndarray, str]:
    """Return what stands behind the person, linear float32 ``[size,size,3]``, and what it is."""
    kinds = {"wall": wall, "blocks": blocks, "clouds": clouds, "photo": _photo}
    odds = {"wall": 0.25, "blocks": 0.3, "clouds": 0.15, "photo": 0.3}
    if not (photos and photographs()):
        del odds["photo"]
    kind = choose(rng, odds)
    focus = choose(rng, {"sharp": 0.25, "soft": 0.4, "far": 0.35})
    blur = {"sharp": 0.0, "soft": rng.uniform(0.002, 0.012), "far": rng.uniform(0.014, 0.06)}[focus]
    coarse = 2 if focus == "far" else 1  # a strong blur needs no fine pixels
    small = -(-size // coarse)
    picture = kinds[kind](rng, small)
    if blur * small > 0.4 and kind != "wall":
        picture = ndimage.gaussian_filter(picture, (blur * small, blur * small, 0), truncate=2.0)
    picture = picture.repeat(coarse, axis=0).repeat(coarse, axis=1)[:size, :size]
    return picture.astype(np.float32), kind


def sample_outfit(rng: np.random.Generator, look: SimpleNamespace) -> dict:
    """Sample clothes: ``suit`` (jacket, shirt, tie), ``shirt`` or ``low`` (an open neckline)."""
    odds = {"suit": 0.2, "shirt": 0.45, "low": 0.35} if look.feminine else {"suit": 0.5, "shirt": 0.5}
    kind = choose(rng, odds)

    def pick():
        if rng.random() < 0.3:
            return random_colour(rng)
        return linear(FABRICS[rng.integers(len(FABRICS))]) * np.float32(np.exp(normal(rng, 0, 0.25)))

    return {
        "kind": kind,
        "main": linear(FABRICS[rng.integers(6)]) if kind == "suit" and rng.random() < 0.8 else pick(),
        "shirt": linear("#e9e9e8") if rng.random() < 0.6 else pick(),
        "tie": random_colour(rng),
        "tied": rng.random() < 0.8,
        "neckline": rng.uniform(40, 110),
        "stripe": (rng.random() < 0.25) * rng.uniform(0.1, 0.4),
        "wave": rng.uniform(6, 20),
    }


def paint_clothes(place: np.ndarray, outfit: dict, drop: float, pixel: float, rng) -> Paint:
    """Paint shoulders and chest at ``place`` ``[N,3]``; the shoulders begin at the height y ``drop``."""
    x, y, front = place[:, 0], place[:, 1] - drop, place[:, 2] > 0
    paint = Paint.plain(len(x), outfit["main"], CLOTH, 0.08)
    folds = 0.16 * field(rng, (x + 0.4 * y) / 34, (y - 0.5 * x) / 60) + 0.05 * field(rng, x / 7, y / 7)
    weave = 0.07 * field(rng, x / 2.3, y / 2.3, 64)
    weave += outfit["stripe"] * np.sign(np.sin(2 * np.pi * x / outfit["wave"]))
    if outfit["kind"] == "suit":
        opening = np.abs(x) - 8 - np.clip(105 - y, 0, 70) * 0.62
        shirt = soft(opening, pixel) * front
        paint.cover(shirt, outfit["shirt"])
        if outfit["tied"]:
            tie = np.abs(x) - np.interp(y, [-5, 12, 22, 120], [9, 8, 6, 22])
            paint.cover(soft(tie, pixel) * shirt * (y > 2), outfit["tie"])
        paint.darken(0.45 * ridge(opening - 1, 3) * front)  # the jacket's edge
        weave *= 1 - shirt
    paint.albedo *= np.clip(1 + folds + weave, 0.2, 2)[:, None].astype(np.float32)
    if outfit["kind"] != "low":
        paint.darken(0.25 * ridge(y - 4, 4))  # the collar
    return paint


def is_bare(place: np.ndarray, outfit: dict, drop: float) -> np.ndarray:
    """Find the places ``[N,3]`` of the torso that lie inside the neckline and show skin, bool ``[N]``."""
    x, y, depth = place[:, 0], place[:, 1] - drop, outfit["neckline"]
    return (np.abs(x) < 45 + 0.35 * depth - 0.45 * np.clip(y, 0, None)) & (y < depth) & (place[:, 2] > 10)

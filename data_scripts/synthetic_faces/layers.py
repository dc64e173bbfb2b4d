"""Layers: what an occluder is made of, and how it is laid over a picture.

An occluder knows the :class:`Stage` (the head as drawn, the light, the view) and returns layers. A layer has
soft coverage, its own colours, already lit, and a class; it throws a soft shadow on what lies under it.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from synthetic_faces.classes import OCCLUDER
from synthetic_faces.hair import Style
from synthetic_faces.head import Shape
from synthetic_faces.light import Light, shade
from synthetic_faces.mesh import Fragments, View
from synthetic_faces.skin import Look, Paint

FRONT = np.array([[0, -0.1, 0.995]])
"""The normal ``[1,3]`` of a flat thing that faces the camera, tipped up a little."""


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


class _Stencil:
    """A canvas on which shapes are drawn finer than the image and averaged, which gives soft edges."""

    def __init__(self, size: int):
        self.finer = max(1, min(4, 2048 // size))  # large images need less
        self.picture = Image.new("L", (self.finer * size, self.finer * size))
        self.pen = ImageDraw.Draw(self.picture)

    def path(self, points: np.ndarray) -> list[tuple]:
        """Return pixel coordinates ``[P,2]`` as the pen wants them."""
        return [tuple(point) for point in points * self.finer]

    def coverage(self) -> np.ndarray:
        """Return how much of each pixel is drawn, float32 ``[size,size]``."""
        return np.asarray(self.picture.reduce(self.finer), np.float32) / 255


def polygon(size: int, *outlines: np.ndarray) -> np.ndarray:
    """Return coverage float32 ``[size,size]`` of polygons in pixel coordinates ``[P,2]``."""
    stencil = _Stencil(size)
    for points in outlines:
        stencil.pen.polygon(stencil.path(points), fill=255)
    return stencil.coverage()


def strokes(size: int, lines: Iterable[np.ndarray], width: float) -> np.ndarray:
    """Return coverage float32 ``[size,size]`` of lines ``[P,2]``, ``width`` thick, all in pixels."""
    stencil = _Stencil(size)
    thick = max(1, round(width * stencil.finer))
    for points in lines:
        stencil.pen.line(stencil.path(points), fill=255, width=thick, joint="curve")
    return stencil.coverage()


def ribbons(
    size: int, lines: list[np.ndarray], width: float, tones: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw lines ``[P,2]`` that taper from ``width`` to a point, all in pixels, the last one on top.

    Returns:
        coverage float32 ``[size,size]``, and there the tone 0-1 of the line that is seen.
    """
    cover, tone = _Stencil(size), _Stencil(size)
    for points, shade_ in zip(lines, tones, strict=True):
        along = np.gradient(points, axis=0)
        side = along[:, ::-1] * [1, -1] / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
        side *= 0.5 * width * (1 - np.linspace(0, 1, len(points))[:, None] ** 2)
        outline = cover.path(np.concatenate([points + side, (points - side)[::-1]]))
        cover.pen.polygon(outline, fill=255)
        tone.pen.polygon(outline, fill=int(255 * shade_))
    covered = cover.coverage()
    return covered, tone.coverage() / np.maximum(covered, 1 / 255)


def lay(image: np.ndarray, labels: np.ndarray, layer: Layer, light: Light) -> np.ndarray:
    """Lay a layer over ``image`` ``[H,W,3]`` and ``labels`` ``[H,W]``, both changed in place.

    Returns:
        bool ``[H,W]``, where it covers.
    """
    covered = layer.cover >= 0.5
    rows, columns = np.flatnonzero(layer.cover.any(1)), np.flatnonzero(layer.cover.any(0))
    if len(rows) == 0:
        return covered
    size = labels.shape[0]
    # The shadow falls away from the lamp, by some millimetres' worth of pixels.
    shift = (light.key[1] * -0.035 * size, light.key[0] * -0.035 * size)
    margin = int(0.08 * size)
    window = tuple(slice(max(0, axis[0] - margin), axis[-1] + margin + 1) for axis in (rows, columns))
    cover, under = layer.cover[window], image[window]
    if layer.shadow:
        dark = ndimage.gaussian_filter(_shifted(cover, shift), 0.012 * size, truncate=2.5)
        dark *= labels[window] > 0  # the background is too far away to catch it
        under *= (1 - layer.shadow * dark)[..., None]
    colour = layer.colour if layer.colour.ndim == 1 else layer.colour[window]
    under += cover[..., None] * (colour - under)
    if layer.label is None:
        return np.zeros_like(covered)
    labels[covered] = layer.label
    return covered


def _shifted(values: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    """Return ``values`` ``[H,W]`` moved by whole pixels (down, right), zeros where nothing moved to."""
    moved = np.zeros_like(values)
    (dy, dx), (height, width) = (round(step) for step in shift), values.shape
    target = np.s_[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)]
    source = np.s_[max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)]
    moved[target] = values[source]
    return moved


def lit_colour(light: Light, normal: np.ndarray, albedo: np.ndarray, gloss: float) -> np.ndarray:
    """Return lit colours of ``[...,3]`` normals and colours, in full reach of the key light."""
    flat = np.asarray(normal, np.float32).reshape(-1, 3)
    colour = np.broadcast_to(np.asarray(albedo, np.float32), normal.shape).reshape(-1, 3)
    paint = Paint(colour, None, np.full(len(flat), gloss, np.float32), np.zeros(len(flat), np.float32))
    return shade(light, paint, flat, np.ones(len(flat), np.float32)).reshape(normal.shape)


def rounded(
    stage: "Stage", chain: np.ndarray, radii: np.ndarray, albedo, gloss: float, shadow: float
) -> Layer:
    """Return the layer of a lit limb; see :func:`_limb`."""
    cover, normals = limb(stage.view.size, chain, radii)
    inside = cover > 0
    colour = np.zeros_like(normals)
    albedo = np.asarray(albedo, np.float32)
    colour[inside] = lit_colour(
        stage.light, normals[inside], albedo[inside] if albedo.ndim > 1 else albedo, gloss
    )
    return Layer(cover, colour, OCCLUDER, shadow)


def limb(size: int, chain: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coverage ``[H,W]`` and normals ``[H,W,3]`` of a chain of round sticks.

    Args:
        size: image size.
        chain: joints ``[J,2]`` in pixels.
        radii: radius at each joint ``[J]`` in pixels.
    """
    reach = radii.max() + 1
    low = np.clip(np.floor(chain.min(0) - reach).astype(int), 0, size)
    high = np.clip(np.ceil(chain.max(0) + reach).astype(int), 0, size)
    cover, normals = np.zeros((size, size), np.float32), np.zeros((size, size, 3), np.float32)
    normals[..., 2] = 1
    x = np.arange(low[0], high[0], dtype=np.float32)[None, :] + 0.5
    y = np.arange(low[1], high[1], dtype=np.float32)[:, None] + 0.5
    best = np.full(np.broadcast_shapes(x.shape, y.shape), 1e9, np.float32)
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
    window = np.s_[low[1] : high[1], low[0] : high[0]]
    cover[window] = np.clip(0.5 - best, 0, 1)
    normals[window] = np.stack([nx, ny, np.sqrt(1.02 - np.clip(nx**2 + ny**2, 0, 1))], axis=-1)
    return cover, normals


def on_pixels(
    stage: Stage, seen: Fragments, paint: Paint, hidden: np.ndarray | None, shadow: float = 0.4
) -> Layer:
    """Return the layer of a worn mesh.

    Args:
        stage: the light and the view.
        seen: the mesh's fragments.
        paint: their paint.
        hidden: depth map ``[H*W]``; what lies more than 6 mm behind it is left out. None hides nothing.
        shadow: strength of the shadow.
    """
    size = stage.view.size
    colour = np.zeros((size * size, 3), np.float32)
    cover = np.zeros(size * size, np.float32)
    colour[seen.pixel] = shade(stage.light, paint, seen.normal, np.ones(len(seen.pixel), np.float32))
    nearer = slice(None) if hidden is None else seen.depth > hidden[seen.pixel] - 6
    cover[seen.pixel[nearer]] = 1
    return Layer(cover.reshape(size, size), colour.reshape(size, size, 3), OCCLUDER, shadow)

"""Layers: how a thing is laid over a picture.

A layer has soft coverage, its own colours, already lit, and a class; it throws a soft shadow on what lies
under it.
"""

import dataclasses
from collections.abc import Iterable
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from synthetic_faces.light import Light, shade
from synthetic_faces.mesh import View
from synthetic_faces.paint import Paint
from synthetic_faces.recipe import OCCLUDER


@dataclasses.dataclass(frozen=True)
class Stage:
    """The picture that an occluder is laid over."""

    view: View
    turn: np.ndarray  # of the head
    shape: SimpleNamespace
    flesh: np.ndarray  # linear colour [3] of hands
    hair: np.ndarray  # linear colour [3] of strands
    light: Light
    depth: np.ndarray  # float32 [H*W], depth of what is visible, -inf for the background

    def at(self, *points) -> np.ndarray:
        """Return pixel coordinates ``[N,2]`` of points on the head, in millimetres."""
        return self.view.project(np.array(points, float) @ self.turn.T)[:, :2]


@dataclasses.dataclass(frozen=True)
class Layer:
    """One thing laid over the picture."""

    cover: np.ndarray  # float32 [H,W], 0 to 1
    colour: np.ndarray  # linear float32 [H,W,3] or [3], lit
    label: int | None = OCCLUDER  # None for what only tints, such as a clear lens
    shadow: float = 0.4  # strength of its shadow, 0 to 1


def coverage(size: int, shapes: Iterable[np.ndarray], width: float | None = None) -> np.ndarray:
    """Return how much of each pixel polygons cover, or lines of a ``width``, float32 ``[size,size]``, 0-1.

    ``shapes`` are their corners ``[P,2]``, all in pixels; rendered finer than the image and averaged.
    """
    finer = max(1, min(4, 2048 // size))  # large images need less
    picture = Image.new("L", (finer * size, finer * size))
    pen = ImageDraw.Draw(picture)
    for points in shapes:
        path = [tuple(point) for point in points * finer]
        if width is None:
            pen.polygon(path, fill=255)
        else:
            pen.line(path, fill=255, width=max(1, round(width * finer)), joint="curve")
    return np.asarray(picture.reduce(finer), np.float32) / 255


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
    margin = int(0.08 * size)
    window = tuple(slice(max(0, axis[0] - margin), axis[-1] + margin + 1) for axis in (rows, columns))
    cover, under = layer.cover[window], image[window]
    if layer.shadow:
        # The shadow falls away from the lamp, by some millimetres' worth of pixels.
        shift = [round(float(light.key[axis]) * -0.035 * size) for axis in (1, 0)]
        moved = ndimage.shift(cover, shift, order=0)
        dark = ndimage.gaussian_filter(moved, 0.012 * size, truncate=2.5)
        dark *= labels[window] > 0  # the background is too far away to catch it
        under *= (1 - layer.shadow * dark)[..., None]
    colour = layer.colour if layer.colour.ndim == 1 else layer.colour[window]
    under += cover[..., None] * (colour - under)
    if layer.label is None:
        return np.zeros_like(covered)
    labels[covered] = layer.label
    return covered


def _lit(light: Light, normals: np.ndarray, albedo: np.ndarray, gloss: float) -> np.ndarray:
    """Return the lit colours ``[N,3]`` of one surface with ``normals`` ``[N,3]``, all of it in the light."""
    paint = Paint.plain(len(normals), albedo, OCCLUDER, gloss)
    return shade(light, paint, normals, np.ones(len(normals), np.float32))


def flat_colour(light: Light, albedo: np.ndarray, gloss: float) -> np.ndarray:
    """Return the lit colour ``[3]`` of a flat thing that faces the camera, tipped up a little."""
    return _lit(light, np.array([[0, -0.1, 0.995]], np.float32), albedo, gloss)[0]


def limb(stage: Stage, joints: list, radii: np.ndarray, albedo: np.ndarray, gloss: float) -> Layer:
    """Return a chain of round sticks of one colour: joints ``[2]`` and a radius at each, in pixels."""
    size, chain = stage.view.size, np.stack(joints)
    reach = radii.max() + 1
    low = np.clip(np.floor(chain.min(0) - reach).astype(int), 0, size)
    high = np.clip(np.ceil(chain.max(0) + reach).astype(int), 0, size)
    x = np.arange(low[0], high[0], dtype=np.float32)[None, :] + 0.5
    y = np.arange(low[1], high[1], dtype=np.float32)[:, None] + 0.5
    gap = np.full(np.broadcast_shapes(x.shape, y.shape), 1e9, np.float32)
    nx, ny = np.zeros_like(gap), np.zeros_like(gap)
    for a, b, ra, rb in zip(chain[:-1], chain[1:], radii[:-1], radii[1:], strict=True):
        d = (b - a).astype(np.float32)
        t = np.clip(((x - a[0]) * d[0] + (y - a[1]) * d[1]) / max(float(d @ d), 1e-6), 0, 1)
        dx, dy = x - np.float32(a[0]) - t * d[0], y - np.float32(a[1]) - t * d[1]
        radius = np.float32(ra) + t * np.float32(rb - ra)
        this = np.hypot(dx, dy) - radius
        nearer = this < gap
        gap = np.where(nearer, this, gap)
        nx, ny = np.where(nearer, dx / radius, nx), np.where(nearer, dy / radius, ny)
    cover, colour = np.zeros((size, size), np.float32), np.zeros((size, size, 3), np.float32)
    window, inside = np.s_[low[1] : high[1], low[0] : high[0]], gap < 0.5
    cover[window] = np.clip(0.5 - gap, 0, 1)
    normals = np.stack([nx, ny, np.sqrt(1.02 - np.clip(nx**2 + ny**2, 0, 1))], axis=-1)
    colour[window][inside] = _lit(stage.light, normals[inside], albedo, gloss)
    return Layer(cover, colour)

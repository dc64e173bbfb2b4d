"""The camera: what happens between the light and the file."""

import io

import numpy as np
from PIL import Image
from scipy import ndimage

from synthetic_faces.chance import normal

_ROOTS = np.linspace(0, 1, 1024)


def expose(image: np.ndarray, face: np.ndarray, level: float, pull: float) -> np.ndarray:
    """Scale a linear image ``[H,W,3]`` so that the mean of ``face`` (bool ``[H,W]``) comes near ``level``.

    ``pull`` 1 brings every face to the same level; 0 leaves the image as it is.
    """
    if not face.any():
        return image
    mean = float(image[face].mean())
    return image * np.float32((level / max(mean, 1e-4)) ** pull)


def develop(image: np.ndarray, outside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn linear light ``[H,W,3]`` into a uint8 picture: cast, contrast, blur, noise and JPEG.

    ``outside`` ``[H,W]`` (see :func:`corners`) stays black.
    """
    size = image.shape[0]
    cast = np.exp(np.array([1, 0, -1]) * normal(rng, 0.0, 0.07) + np.array([0, 1, 0]) * normal(rng, 0, 0.03))
    image = image * cast.astype(np.float32)
    # A shoulder, so that highlights roll off instead of clipping hard.
    bright = image > 0.6
    image[bright] = 0.6 + 0.4 * np.tanh((image[bright] - 0.6) / 0.4)
    blur = (0.45 + 0.7 * rng.uniform() ** 2) * size / 128
    image = ndimage.gaussian_filter(image, (blur, blur, 0), truncate=2.5)
    if rng.random() < 0.03:
        grey = image @ np.array([0.3, 0.59, 0.11], np.float32)
        image = np.repeat(grey[..., None], 3, axis=2)
    contrast, lift = normal(rng, 1.15, 0.15), max(0, normal(rng, 0, 0.01))
    # The curve, looked up by the root of the light, which keeps the dark end fine.
    curve = 255 * np.minimum(0.2 * (_ROOTS**2 / 0.2) ** contrast + lift, 1) ** (1 / 2.2)
    root = np.sqrt(np.minimum(np.maximum(image, 0), 1)) * np.float32(len(_ROOTS) - 1)
    picture = curve.astype(np.float32).take((root + np.float32(0.5)).astype(np.intp))
    noise = rng.uniform(0, 1) ** 2 * 7
    if noise > 0.7:  # less is lost in rounding
        picture += noise * rng.standard_normal(picture.shape, dtype=np.float32)
    picture = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    picture[outside] = 0
    if rng.random() < 0.8:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=int(rng.integers(55, 96)))
        picture = np.asarray(Image.open(file))
    return picture


def corners(rng: np.random.Generator, size: int, face: np.ndarray) -> np.ndarray:
    """Return the pixels, bool ``[H,W]``, that lie outside the original photograph after alignment.

    Funnelled photographs were turned and moved, which leaves black corners. The ``face`` ``[H,W]`` is never
    cut nor touched: a corner that would is left out.
    """
    outside = np.zeros((size, size), bool)
    if rng.random() < 0.15:
        return outside
    angle = np.radians(normal(rng, 0, 5))
    for side in range(4):
        inset = size * (0.5 - max(0.0, normal(rng, 0.012, 0.04)))
        turn = angle + side * np.pi / 2
        if not (_beyond(size, turn, inset - size / 64) & face).any():
            outside |= _beyond(size, turn, inset)
    return outside


def _beyond(size: int, turn: float, inset: float) -> np.ndarray:
    """Return the pixels farther than ``inset`` from the middle in the direction ``turn`` (radians)."""
    place = np.arange(size) + 0.5 - size / 2
    return np.cos(turn) * place[None, :] + np.sin(turn) * place[:, None] > inset

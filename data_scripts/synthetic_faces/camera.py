"""The camera: exposure, development and the file."""

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
    return image * np.float32((level / max(float(image[face].mean()), 1e-4)) ** pull)


def develop(image: np.ndarray, outside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn linear light ``[H,W,3]`` into a uint8 picture: cast, contrast, blur, noise and JPEG.

    ``outside`` ``[H,W]`` (see :func:`corners`) stays black.
    """
    image = image * np.exp(np.array([1, 0, -1]) * normal(rng, 0.0, 0.07)).astype(np.float32)
    # A shoulder, so that highlights roll off instead of clipping hard.
    bright = image > 0.6
    image[bright] = 0.6 + 0.4 * np.tanh((image[bright] - 0.6) / 0.4)
    blur = (0.45 + 0.7 * rng.uniform() ** 2) * image.shape[0] / 128
    image = ndimage.gaussian_filter(image, (blur, blur, 0), truncate=2.5)
    # The curve, looked up by the root of the light, which keeps the dark end fine.
    curve = 255 * np.minimum(0.2 * (_ROOTS**2 / 0.2) ** normal(rng, 1.15, 0.15), 1) ** (1 / 2.2)
    root = np.sqrt(np.clip(image, 0, 1)) * np.float32(len(_ROOTS) - 1)
    picture = curve.astype(np.float32).take((root + np.float32(0.5)).astype(np.intp))
    noise = rng.uniform(0, 1) ** 2 * 7
    if noise > 0.7:  # less is lost in rounding
        picture += noise * rng.standard_normal(picture.shape, dtype=np.float32)
    picture = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    picture[outside] = 0
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=int(rng.integers(55, 98)))
    return np.asarray(Image.open(file))


def corners(rng: np.random.Generator, size: int, face: np.ndarray) -> np.ndarray:
    """Return the pixels, bool ``[H,W]``, that lie outside the original photograph after an alignment.

    It turns and moves photographs, which leaves black corners; one that would touch the face is left out.
    """
    outside = np.zeros((size, size), bool)
    if rng.random() < 0.15:
        return outside
    angle, place = np.radians(normal(rng, 0, 5)), np.arange(size) + 0.5 - size / 2
    for turn in angle + np.arange(4) * np.pi / 2:
        inset = size * (0.5 - max(0.0, normal(rng, 0.012, 0.04)))
        away = np.cos(turn) * place[None, :] + np.sin(turn) * place[:, None]
        if not ((away > inset - size / 64) & face).any():
            outside |= away > inset
    return outside

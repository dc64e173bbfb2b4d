"""Photographs: opened as a viewer shows them, searched for faces, cut out and laid back."""

import functools
import os
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from scipy import spatial
from skimage import data as samples
from skimage import draw
from skimage.feature import Cascade

FACE_SHARE = 0.475
"""Side of the box that the face detector finds, as a share of the training images' side.

Median over the 300 validation photographs of LFW Part Labels, whose centre is also the box's to 1%.
"""

DETECTED_SIDE = 640
"""Longest side of the picture in pixels in which faces are looked for."""

MOST_PIXELS = 100_000_000
"""A larger photograph is refused."""

Box = tuple[float, float, float, float]


class PhotoError(ValueError):
    """A file is no photograph that can be parsed, or there is no face in it."""


def open_photo(photo: str | os.PathLike | Image.Image | np.ndarray) -> Image.Image:
    """Return a photograph as an upright RGB picture, as a viewer shows it.

    Raises:
        PhotoError: it is no picture, an animated or broken one, smaller than 8 pixels or larger than
            :data:`MOST_PIXELS`.
    """
    name = photo if isinstance(photo, str | os.PathLike) else "photo"
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim not in (2, 3) or photo.shape[2:] not in ((), (3,), (4,)):
            raise PhotoError(f"photo: expected uint8 [H,W,3], got {photo.dtype} {list(photo.shape)}")
        return _as_shown(Image.fromarray(photo), name)
    if isinstance(photo, Image.Image):
        return _as_shown(photo, name)
    if Path(photo).is_dir():
        raise PhotoError(f"{name}: expected a photograph, got a folder")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # there is a limit of our own
            with Image.open(photo) as picture:
                return _as_shown(picture, name)
    except PhotoError:
        raise
    except FileNotFoundError:
        raise PhotoError(f"{name}: expected a photograph, got no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PhotoError(f"{name}: expected a photograph, got: {error}") from None


def _as_shown(picture: Image.Image, name) -> Image.Image:
    if picture.width * picture.height > MOST_PIXELS or min(picture.size) < 8:
        wanted = f"8 pixels a side and at most {MOST_PIXELS:,} in all"
        raise PhotoError(f"{name}: expected at least {wanted}, got {picture.width}×{picture.height}")
    if getattr(picture, "n_frames", 1) > 1:
        raise PhotoError(f"{name}: expected one picture, got {picture.n_frames} frames")
    kind = picture.format
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16") or (picture.mode, kind) == ("I", "PNG"):
        picture = Image.fromarray(np.rint(np.asarray(picture) / 257).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def find_faces(picture: Image.Image) -> list[Box]:
    """Return the boxes of the faces in an RGB picture, largest first; each reaches from brow to chin.

    A cascade of local binary patterns, which comes with scikit-image, finds them; it sees frontal faces.
    """
    scale = min(1.0, DETECTED_SIDE / max(picture.size))
    small = picture.resize([max(1, round(side * scale)) for side in picture.size])
    least = max(24, min(small.size) // 12)
    found = _cascade().detect_multi_scale(
        np.asarray(small), scale_factor=1.1, step_ratio=1, min_size=(least, least), max_size=small.size[::-1]
    )
    boxes = []
    for one in sorted(found, key=lambda one: -one["width"]):
        x, y, side = one["c"] + one["width"] / 2, one["r"] + one["height"] / 2, one["width"]
        if all(abs(x - a) > max(side, b) / 2 or abs(y - c) > max(side, b) / 2 for a, c, b in boxes):
            boxes.append((x, y, side))
    return [tuple(n / scale for n in (x - s / 2, y - s / 2, x + s / 2, y + s / 2)) for x, y, s in boxes]


def convex_hull(mask: np.ndarray) -> np.ndarray:
    """Return the convex hull of a mask, bool ``[H,W]``; a mask without an area stays as it is."""
    y, x = np.nonzero(mask)
    if not len(y):
        return mask
    ends = [(down, right) for down in (-0.5, 0.5) for right in (-0.5, 0.5)]
    corners = np.concatenate([np.stack([y + down, x + right], 1) for down, right in ends])
    corners = corners[spatial.ConvexHull(corners).vertices]
    return draw.polygon2mask(mask.shape, corners) | mask


def window_of(box: Box) -> Box:
    """Return the square that a network should see of a face: as wide as the training images around theirs."""
    left, top, right, bottom = box
    x, y, half = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / FACE_SHARE / 2
    return x - half, y - half, x + half, y + half


def check_box(box: Box, size: tuple[int, int]) -> Box:
    """Return a box as floats.

    Raises:
        ValueError: it is empty or outside a picture of this width and height.
    """
    left, top, right, bottom = map(float, box)
    if not (max(left, 0) < min(right, size[0]) and max(top, 0) < min(bottom, size[1])):
        raise ValueError(f"boxes: expected left, top, right, bottom within {size[0]}×{size[1]}, got {box}")
    return left, top, right, bottom


def cut_window(picture: Image.Image, window: Box, size: int) -> np.ndarray:
    """Return a window of a picture, uint8 ``[size,size,3]``; beyond the picture its border is repeated."""
    left, top, right, bottom = (round(n) for n in window)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height)
    inner = np.asarray(picture.crop((x0, y0, x1, y1)))
    full = np.pad(inner, [(y0 - top, bottom - y1), (x0 - left, right - x1), (0, 0)], mode="edge")
    return np.asarray(Image.fromarray(full).resize((size, size), Image.Resampling.LANCZOS))


def paste_window(seen: torch.Tensor, window: Box, shape: tuple[int, int]):
    """Return where a window lies in a photograph of ``shape``, and ``seen`` ``[K,S,S]`` at that size."""
    left, top, right, bottom = (round(n) for n in window)
    side = bottom - top, right - left
    shrinks = side[0] < seen.shape[1]
    maps = F.interpolate(seen[None].float(), side, mode="bilinear", align_corners=False, antialias=shrinks)[0]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, shape[1]), min(bottom, shape[0])
    return (slice(y0, y1), slice(x0, x1)), maps[:, y0 - top : y1 - top, x0 - left : x1 - left]


@functools.cache
def _cascade() -> Cascade:
    return Cascade(samples.lbp_frontal_face_cascade_filename())

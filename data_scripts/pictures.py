"""Images and masks of any kind: opened, turned into class numbers, and brought to one square size.

All scripts read through these functions; ``consensus_lib.data.images`` reads what a prepared folder holds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

from consensus_lib import IGNORE
from consensus_lib.data.folder import DatasetError
from consensus_lib.data.images import open_image, resize_image, resize_labels, to_rgb

NUMBERS = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
"""Picture modes whose values are numbers."""


def open_rgb(source: Path | bytes, name: str = "") -> Image.Image:
    """Return an image file, or the content of one, as an upright RGB picture of any shape.

    Raises:
        DatasetError: it is missing, no image, or a broken one; calls it ``name``.
    """
    return to_rgb(*open_image(source, name), name or str(source))


def read_layer(path: Path) -> np.ndarray:
    """Return a mask, or the probabilities, of one class: uint8 ``[H,W]``. Errors as :func:`open_rgb`."""
    return np.asarray(open_image(path)[0].convert("L"))


def read_numbers(path: Path, classes: int) -> np.ndarray:
    """Return a mask of class numbers, uint8 ``[H,W]``.

    Raises:
        DatasetError: as :func:`open_rgb`; it has colours, or a number is no class.
    """
    picture, _ = open_image(path)
    if picture.mode not in ("L", "P"):
        raise DatasetError(f"{path}: expected a mask of one channel, got mode {picture.mode}")
    labels = np.asarray(picture)
    if labels.max() >= classes:
        raise DatasetError(f"{path}: expected class numbers 0..{classes - 1}, got {labels.max()}")
    return labels


def join_layers(layers: Mapping[int, Path]) -> np.ndarray:
    """Return the labels uint8 ``[H,W]`` of one mask for each class; a later one covers an earlier one.

    Args:
        layers: class number → its mask, white, or the largest value, where the class is. The rest is 0.

    Raises:
        DatasetError: as :func:`open_rgb`, or two masks differ in shape.
    """
    labels = first = None
    for number, path in layers.items():
        values = read_layer(path)
        if labels is None:
            labels, first = np.zeros(values.shape, np.uint8), path
        if values.shape != labels.shape:
            raise DatasetError(f"{path}: expected {_size(labels)} as {first.name}, got {_size(values)}")
        labels[values > values.max() / 2] = number
    return labels


def values_of(picture: Image.Image, colours: bool, name: object = "mask") -> np.ndarray:
    """Return the numbers of a mask, or its colours packed as 0xRRGGBB, int32 ``[H,W]``.

    Raises:
        DatasetError: numbers are asked for, and there are colours.
    """
    if not colours and picture.mode in NUMBERS:
        return np.asarray(picture).astype(np.int32)
    red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB")).astype(np.int32), 2, 0)  # each [H, W]
    if colours:
        return red << 16 | green << 8 | blue
    if (red != green).any() or (red != blue).any():
        raise DatasetError(f"{name}: expected numbers, got colours (mode {picture.mode})")
    return red


def unpack(value):
    """Return red, green and blue of 0xRRGGBB, a number or an array."""
    return value >> 16, value >> 8 & 255, value & 255


def classes_of(
    values: np.ndarray,
    known: Sequence,
    where: object,
    *,
    ignore: object = None,
    within: float = 0,
    most: float = 0.0,
) -> tuple[np.ndarray, int]:
    """Turn the values of a mask into class numbers.

    Args:
        values: of :func:`values_of`.
        known: a number, or a colour ``(red, green, blue)``, of each class.
        where: the file, for messages.
        ignore: what stands for ignored pixels; None if nothing does.
        within: the largest difference, in a channel, at which a value is taken for the nearest class, as in
            antialiased masks. Values farther from all are *unclear* and become 255 = ignore.
        most: the share of the pixels that may be unclear.

    Returns:
        uint8 ``[H,W]``, and how many pixels are unclear.

    Raises:
        DatasetError: more are; names the file, the most frequent such value and where it is.
    """
    known = [*known, *([] if ignore is None else [ignore])]
    numbers = np.array([*range(len(known))], np.uint8)
    numbers[len(known) - (ignore is not None) :] = IGNORE
    places = np.array(known).reshape(len(known), -1)  # [K, 1 or 3]
    colours = places.shape[1] == 3
    codes = places @ (2**16, 2**8, 1) if colours else places[:, 0]
    order = codes.argsort()
    at = order[np.searchsorted(codes, values, sorter=order).clip(max=len(known) - 1)]  # [H, W]
    labels, other = numbers[at], codes[at] != values
    if not other.any():
        return labels, 0
    found, inverse, counts = np.unique(values[other], return_inverse=True, return_counts=True)
    seen = np.stack(unpack(found), 1) if colours else found[:, None]
    far, nearest = cKDTree(places).query(seen, p=np.inf)
    labels[other] = np.where(far <= within, numbers[nearest], IGNORE)[inverse]
    counts = counts * (far > within)
    unclear = int(counts.sum())
    if unclear > most * values.size:
        worst = found[counts.argmax()]
        row, column = np.argwhere(values == worst)[0].tolist()
        raise DatasetError(
            f"{where}: expected the {'colours' if colours else 'numbers'} {known}"
            + (f", or others within {within:g} of them" if within else "")
            + (f", on all but {most:.0%} of the pixels" if most else "")
            + f", got {unpack(int(worst)) if colours else int(worst)} at row {row}, column {column} "
            f"({unclear:,} such pixels, {unclear / values.size:.1%})"
        )
    return labels, unclear


def fit(
    image: Image.Image,
    labels: np.ndarray | None,
    size: int,
    where: object = "",
    *,
    rescale: bool = True,
    crop: str = "pad",
) -> dict:
    """Bring an image and its mask to ``size`` × ``size``, as ``image`` and ``labels`` of a dictionary.

    Args:
        image: RGB, of any shape.
        labels: uint8 ``[H,W]``, or None.
        size: height and width of the result.
        where: the mask's file, for messages.
        rescale: whether the two may differ in scale.
        crop: what makes them square: ``"pad"`` about the centre, with black and with 255 = ignore, or
            ``"centre"``, which cuts off.

    Raises:
        DatasetError: the shapes differ by more than a scale, or by a scale without ``rescale``.
    """
    made = {"image": resize_image(square_image(image, crop), size)}
    if labels is None:
        return made
    height, width = labels.shape
    if image.size != (width, height):
        alike = abs(image.width * height - image.height * width) <= max(*image.size, width, height)
        if not (alike and rescale):
            raise DatasetError(
                f"{where}: expected the size of its image, {image.width}×{image.height} (width×height), got "
                f"{width}×{height}" + ("; --rescale brings masks of another scale to their image" * alike)
            )
    return made | {"labels": resize_labels(square(labels, crop), size)}


def square_image(image: Image.Image, crop: str = "pad") -> Image.Image:
    """Return a picture made square about its centre: padded with black, or cut."""
    if image.width == image.height:
        return image
    left, top, side = _square_of(image.width, image.height, crop)
    return image.crop((left, top, left + side, top + side))


def square(array: np.ndarray, crop: str = "pad", fill: int = IGNORE) -> np.ndarray:
    """Return ``[H,W]`` made a square ``[N,N]`` about its centre: padded with ``fill``, or cut."""
    height, width = array.shape
    left, top, side = _square_of(width, height, crop)
    if crop == "centre":
        return array[top : top + side, left : left + side]
    padded = np.full((side, side), fill, array.dtype)
    padded[-top : height - top, -left : width - left] = array
    return padded


def _square_of(width: int, height: int, crop: str) -> tuple[int, int, int]:
    """Return left, top (below 0 outside) and side of the square."""
    side = (min if crop == "centre" else max)(width, height)
    return int((width - side) / 2), int((height - side) / 2), side


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}×{array.shape[0]} (width×height)"

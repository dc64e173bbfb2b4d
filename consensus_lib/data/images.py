"""Image files: opened rightly or refused by name, and resized about the image's centre.

Whatever the size, each place of the scene stays at its share of width and height. Images and labels go
through one filter (Lanczos, low-passed when reducing): labels as one plane for each class, of which the
largest wins. A nearest pixel instead would move labels by a quarter of a pixel against the image at a factor
of two. Without torch: the data scripts need these too.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from consensus_lib import IGNORE

_FILTER = Image.Resampling.LANCZOS

_TIE = 1e-4
"""Votes this near are equal: far above the rounding of float32, far below any weight of the filter."""


class DatasetError(ValueError):
    """A data set on disk, or an archive that one is made from, is not what was expected."""


def read_image(source: Path | bytes, name: str = "") -> Image.Image:
    """Return an image file as a square 8-bit RGB picture, upright.

    The orientation that its EXIF data state is applied. Grey becomes RGB, 16 bits of grey are scaled to 8 (of
    other 16-bit images Pillow keeps the upper 8), and transparency is left out.

    Args:
        source: a file, or the bytes of one.
        name: of the bytes, for messages.

    Raises:
        DatasetError: it is no image, a broken one, not square, or has more than 16 bits a channel.
    """
    name = name or str(source)
    picture = to_rgb(*open_image(source, name), name)
    _check_square(picture, name)
    return picture


def to_rgb(picture: Image.Image, kind: str, name: str) -> Image.Image:
    """Return a picture of the file format ``kind`` as 8-bit RGB; see :func:`read_image`."""
    if picture.mode.startswith("I;16") or (picture.mode, kind) == ("I", "PNG"):
        grey = np.rint(np.asarray(picture) / 257).astype(np.uint8)  # 65,535 / 257 = 255
        picture = Image.fromarray(grey)
    elif picture.mode in ("I", "F"):
        raise DatasetError(f"{name}: expected 8 or 16 bits a channel, got mode {picture.mode} ({kind})")
    try:
        picture = picture.convert("RGBA") if "transparency" in picture.info else picture
        return picture.convert("RGB")
    except ValueError as error:
        raise DatasetError(f"{name}: expected an image that can be shown as RGB, got: {error}") from error


def read_numbers(path: Path) -> np.ndarray:
    """Return a map of numbers (class numbers, superpixels), uint16 ``[N,N]``.

    One channel of 1, 8 or 16 bits, or a palette, whose indices are the numbers.

    Raises:
        DatasetError: the file is no image, a broken one, not square, or has colours or larger numbers.
    """
    picture, _ = open_image(path)
    if picture.mode not in ("1", "L", "P", "I") and not picture.mode.startswith("I;16"):
        raise DatasetError(
            f"{path}: expected one channel of numbers or a palette, got mode {picture.mode}; "
            "turn colours into class numbers first"
        )
    _check_square(picture, str(path))
    numbers = np.asarray(picture)
    if numbers.min() < 0 or numbers.max() > 65_535:
        raise DatasetError(f"{path}: expected 0..65535, got {numbers.min()}..{numbers.max()}")
    return numbers.astype(np.uint16)


def read_labels(path: Path, classes: int) -> np.ndarray:
    """Return a label map uint8 ``[N,N]`` of 0..``classes`` - 1 and 255 = ignore.

    Raises:
        DatasetError: as :func:`read_numbers`, or a number is no class.
    """
    numbers = read_numbers(path)
    found = np.unique(numbers)
    unknown = found[(found >= classes) & (found != IGNORE)].tolist()
    if unknown:
        raise DatasetError(
            f"{path}: expected class numbers 0..{classes - 1} or {IGNORE} (ignore), got {found.tolist()[:9]}"
            + ("; classes are counted from 0" if unknown == [classes] and 0 not in found else "")
        )
    return numbers.astype(np.uint8)


def read_layers(path: Path, count: int) -> list[Image.Image]:
    """Return the square layers, 8-bit grey, that lie one below the other in a file.

    Raises:
        DatasetError: the file is no image, a broken one, or has not ``count`` square layers.
    """
    picture, _ = open_image(path)
    side = picture.width
    if picture.mode != "L" or picture.height != count * side:
        raise DatasetError(
            f"{path}: expected {count} square layers of 8-bit grey, one below the other, "
            f"got {picture.width}×{picture.height} {picture.mode}"
        )
    return [picture.crop((0, k * side, side, (k + 1) * side)) for k in range(count)]


def resize_image(picture: Image.Image, size: int) -> np.ndarray:
    """Return a square picture at ``size`` pixels a side, uint8 ``[size,size,3]``."""
    return np.asarray(picture if picture.size == (size, size) else picture.resize((size, size), _FILTER))


def resize_labels(labels: np.ndarray, size: int) -> np.ndarray:
    """Return a label map at ``size`` pixels a side: the argmax of the resized one-hot labels.

    255 = ignore is voted for like a class. Ties go to the lower class, and ignore loses them.

    Args:
        labels: uint8 ``[N,N]``.
        size: height and width of the result, uint8 ``[size,size]``.

    >>> labels = np.zeros((8, 8), np.uint8)
    >>> labels[2:6, 2:8] = 1
    >>> resize_labels(labels, 4)
    array([[0, 0, 0, 0],
           [0, 1, 1, 1],
           [0, 1, 1, 1],
           [0, 0, 0, 0]], dtype=uint8)
    """
    if labels.shape == (size, size):
        return labels
    best = np.full((size, size), -np.inf, np.float32)
    resized = np.empty((size, size), np.uint8)
    for value in np.unique(labels):  # rising, so that ignore comes last
        plane = Image.fromarray((labels == value).astype(np.float32))
        vote = np.asarray(plane.resize((size, size), _FILTER))
        wins = vote > best + _TIE
        resized[wins], best[wins] = value, vote[wins]
    return resized


def resize_numbers(numbers: np.ndarray, size: int) -> np.ndarray:
    """Return a map of many numbers at ``size`` pixels a side: at each pixel the one that covers most of it.

    Ties go to the lower number.

    Args:
        numbers: integers ``[N,N]``, such as superpixels.
        size: height and width of the result, of the same type.

    >>> resize_numbers(np.array([[7, 7, 3, 2], [7, 1, 2, 3]] * 2), 2)
    array([[7, 2],
           [7, 2]])
    """
    side = len(numbers)
    if side == size:
        return numbers
    start = np.arange(size) * side / size  # of each new pixel, in old ones
    at = np.floor(start)[:, None] + np.arange(int(np.ceil(side / size)) + 1)  # [size, n]
    covered = np.minimum(at + 1, start[:, None] + side / size) - np.maximum(at, start[:, None])
    covered = covered.clip(0)  # [size, n], lengths
    at = at.astype(int).clip(0, side - 1)
    seen = numbers[at[:, None, :, None], at[None, :, None, :]].reshape(size, size, -1)  # [size, size, n²]
    weight = (covered[:, None, :, None] * covered[None, :, None, :]).reshape(size, size, -1)
    best, resized = np.zeros((size, size)), np.zeros((size, size), numbers.dtype)
    for k in range(seen.shape[2]):
        number = seen[..., k]
        vote = (weight * (seen == number[..., None])).sum(2)
        near = np.abs(vote - best) <= _TIE
        wins = np.where(near, number < resized, vote > best)
        resized[wins], best[wins] = number[wins], vote[wins]
    return resized


def resize_shares(layer: Image.Image, size: int) -> np.ndarray:
    """Return one class's probabilities at ``size`` pixels a side, uint8 ``[size,size]``.

    Bilinear, low-passed when reducing: like Lanczos about the same centre, and never below 0 or above 1.
    """
    same = layer.size == (size, size)
    return np.asarray(layer if same else layer.resize((size, size), Image.Resampling.BILINEAR))


def open_image(source: Path | bytes, name: str = "") -> tuple[Image.Image, str]:
    """Return a decoded upright picture and its format; a DatasetError calls the file ``name``."""
    name = name or str(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            picture.load()
            kind = picture.format  # a turned picture has none
            ImageOps.exif_transpose(picture, in_place=True)
            return picture, kind
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{name}: expected a readable image, got: {error}") from error


def _check_square(picture: Image.Image, name: str) -> None:
    if picture.width != picture.height:
        raise DatasetError(
            f"{name}: expected a square image, got {picture.width}×{picture.height} (width×height); "
            "crop or pad it first, and its labels alike"
        )

"""Factorisation: from the extent of a face and a teacher's face mask to occlusion blobs and labels.

A pixel inside the complete face that the teacher does not see as face is occluded. Each step is a function
of one image's masks; :func:`factorise` runs all of them.

Source: Masi et al., CVPR 2020, Sec. 3.1 and Fig. 2. Notebook 04 shows the steps.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage


class Cleaning(NamedTuple):
    """Kernels that clean a residual, (width, height) in parts of the crop's longer side.

    Attributes:
        erosion: of the rectangle that erodes, twice; 0 does not erode along that axis.
        dilation: of the ellipse that dilates, once; None reverses the two erosions (an opening).
    """

    erosion: tuple[float, float]
    dilation: tuple[float, float] | None = None


PAPER = Cleaning(erosion=(25 / 500, 7 / 500), dilation=(45 / 500, 45 / 500))
"""The paper's kernels, 25×7 and 45×45 pixels of a crop of 500×500; width before height is our reading."""

OPENING = Cleaning(erosion=(0.024, 0.024))
"""The default: removes parts narrower than a twentieth of the crop, such as the rim along cheeks. Chosen on
validation photographs with composed occluders (``notebooks/studies/occlusion_labels.csv``)."""


class Factorised(NamedTuple):
    """The masks of each step.

    Attributes:
        extent: bool ``[H,W]``, the complete face.
        face: bool ``[H,W]``, the teacher's face.
        difference: int8 ``[H,W]``, extent − face.
        residual: bool ``[H,W]``, where that is positive.
        cleaned: bool ``[H,W]``, the residual without specks and thin rims.
        ids: int64 ``[H,W]``, C: 0 background, 1 face, from 2 one number for each occlusion.
        labels: int64 ``[H,W]``: 0 background, 1 face, 2 occlusion.
    """

    extent: np.ndarray
    face: np.ndarray
    difference: np.ndarray
    residual: np.ndarray
    cleaned: np.ndarray
    ids: np.ndarray
    labels: np.ndarray


def difference(extent: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Return extent − face: +1 hidden face, −1 face outside the extent, else 0.

    Args:
        extent, face: bool ``[H,W]``.

    Returns:
        int8 ``[H,W]``.

    Raises:
        ValueError: a mask is not boolean, or the shapes differ.
    """
    extent, face = _pair(extent=extent, face=face)
    return extent.astype(np.int8) - face


def residual(difference: np.ndarray) -> np.ndarray:
    """Return the positive part of a difference, bool ``[H,W]`` (Eq. 1); the negative is ambiguous."""
    return np.asarray(difference) > 0


def kernel_size(part: float, side: int, times: int = 1) -> int:
    """Return the odd number of pixels, at least 1, that ``times`` times over is nearest to times·part·side.

    >>> kernel_size(25 / 500, 500, times=2), kernel_size(25 / 500, 128, 2), kernel_size(7 / 500, 128, 2)
    (25, 7, 3)
    """
    wanted = part * side + 1 - 1 / times
    return 1 + 2 * max(0, round((wanted - 1) / 2)) if part > 0 else 1


def ellipse(width: int, height: int) -> np.ndarray:
    """Return a filled ellipse, bool ``[height,width]``, both odd.

    >>> ellipse(5, 3).astype(int)
    array([[0, 1, 1, 1, 0],
           [1, 1, 1, 1, 1],
           [0, 1, 1, 1, 0]])
    """
    y, x = np.ogrid[-(height // 2) : height // 2 + 1, -(width // 2) : width // 2 + 1]
    return (2 * x / width) ** 2 + (2 * y / height) ** 2 <= 1


def clean(residual: np.ndarray, cleaning: Cleaning | None = OPENING) -> np.ndarray:
    """Erode a residual twice with a rectangle, then dilate it once with an ellipse.

    Args:
        residual: bool ``[H,W]``.
        cleaning: the kernels, rounded to odd pixels; None cleans nothing, as the paper with human masks.

    Returns:
        bool ``[H,W]``.

    Raises:
        ValueError: ``residual`` is not a mask.
    """
    residual = _mask("residual", residual)
    if cleaning is None:
        return residual.copy()
    side = max(residual.shape)
    width, height = (kernel_size(part, side, times=2) for part in cleaning.erosion)
    if cleaning.dilation is None:
        oval = 2 * width - 1, 2 * height - 1
    else:
        oval = [kernel_size(part, side) for part in cleaning.dilation]
    # Masks are not eroded from the image's border.
    kept = ndimage.binary_erosion(residual, np.ones((height, width), bool), iterations=2, border_value=1)
    return ndimage.binary_dilation(kept, ellipse(*oval))


def merge(face: np.ndarray, occlusion: np.ndarray, connectivity: int = 4) -> np.ndarray:
    """Return C: 0 background, 1 face, from 2 the components of the occlusion, in reading order.

    A pixel of both masks is occlusion: an occlusion too large does less harm than one too small.

    Args:
        face, occlusion: bool ``[H,W]``.
        connectivity: 4 or 8 neighbours, as in :func:`~consensus_lib.losses.blobs.label_blobs`.

    Returns:
        int64 ``[H,W]``.

    Raises:
        ValueError: a mask or ``connectivity`` differs from the above.
    """
    face, occlusion = _pair(face=face, occlusion=occlusion)
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity: expected 4 or 8, got {connectivity}")
    neighbours = ndimage.generate_binary_structure(2, connectivity // 4)
    pieces, _ = ndimage.label(occlusion, neighbours)
    return np.where(pieces > 0, pieces + 1, face).astype(np.int64)


def factorise(
    extent: np.ndarray,
    face: np.ndarray,
    cleaning: Cleaning | None = OPENING,
    connectivity: int = 4,
) -> Factorised:
    """Split a face into its visible part and its occlusions.

    Occlusions are cut to the extent (Eq. 1) before components are counted. Face outside the extent stays
    face. Residual that cleaning removes is background (Eq. 2); to leave it out of a loss, set
    ``labels[residual & ~cleaned]`` to 255. Hair over the face counts as occlusion unless the extent leaves
    it out: ``extent & ~hair``.

    Args:
        extent: bool ``[H,W]``, the complete face.
        face: bool ``[H,W]``, the teacher's face.
        cleaning: kernels, or None; see :func:`clean`.
        connectivity: 4 or 8 neighbours, of the occlusions.

    Raises:
        ValueError: an argument differs from the above.
    """
    signed = difference(extent, face)
    hidden = residual(signed)
    cleaned = clean(hidden, cleaning) & extent
    ids = merge(face, cleaned, connectivity)
    labels = np.minimum(ids, 2)  # of Eq. 2, as in the task "occlusion"
    return Factorised(np.asarray(extent), np.asarray(face), signed, hidden, cleaned, ids, labels)


def _mask(name: str, mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype != bool:
        raise ValueError(f"{name}: expected booleans [H,W], got {mask.dtype} {list(mask.shape)}")
    return mask


def _pair(**masks: np.ndarray) -> list[np.ndarray]:
    (first, one), (second, other) = ((name, _mask(name, mask)) for name, mask in masks.items())
    if one.shape != other.shape:
        raise ValueError(
            f"{second}: expected the shape of {first} {list(one.shape)}, got {list(other.shape)}"
        )
    return [one, other]

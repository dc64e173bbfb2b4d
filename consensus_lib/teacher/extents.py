"""Extents: how far the face of a photograph reaches, what is hidden of it included.

Anything called like a :class:`FaceExtent` will do; ``synthetic_faces.DrawnExtent`` knows that of drawn faces.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from scipy import ndimage, spatial

from consensus_lib.teacher.teachers import Teacher


class FaceExtent(Protocol):
    """Gives the outline of the complete face.

    Attributes:
        name: what it is, for records.
    """

    name: str

    def __call__(self, images: torch.Tensor, ids: Sequence[str]) -> list[np.ndarray | None]:
        """Return for each image contour points float ``[P,2]``, or None where no face is found.

        Args:
            images: float ``[B,3,H,W]`` in [-1, 1].
            ids: their ids in the data set.

        Returns:
            (x, y) in pixels of these images, the centre of the first pixel at (0.5, 0.5).
        """
        ...


class TeacherExtent:
    """The hull of the face that a teacher sees: for any photograph, without landmarks or more weights.

    Of the largest connected piece of face. An occlusion inside the face, or one that leaves face on both
    sides of it, lies in the hull; one at the rim, such as a hand on the chin, is lost, and the face then
    looks smaller. If the teacher counts neck and ears as face (the task ``"parts"``), so does the hull.

    Args:
        teacher: who sees the face; it is asked anew, so it works twice where its probabilities are used
            too. :func:`mask_contour` makes contours of masks that are there already.
        least: part of the image that a face covers at least; less is no face.

    Raises:
        ValueError: the teacher has no class ``"face"``.
    """

    def __init__(self, teacher: Teacher, least: float = 0.01):
        if "face" not in teacher.classes:
            raise ValueError(f"teacher: expected one with a class 'face', got {teacher.classes}")
        self.teacher, self.least = teacher, least
        self.name = f"hull of {teacher.name}"

    def __call__(self, images: torch.Tensor, ids: Sequence[str]) -> list[np.ndarray | None]:
        """Return the contours of ``images``; see :class:`FaceExtent`."""
        if len(ids) != len(images):
            raise ValueError(f"ids: expected one for each of {len(images)} images, got {len(ids)}")
        seen = self.teacher(images).argmax(1) == self.teacher.classes.index("face")  # [B, H, W]
        return [mask_contour(mask, self.least) for mask in seen.cpu().numpy()]


def mask_contour(mask: np.ndarray, least: float = 0.0) -> np.ndarray | None:
    """Return the corners of the convex hull of a mask's largest 4-connected piece.

    Args:
        mask: bool ``[H,W]``.
        least: part of the image that the piece covers at least.

    Returns:
        float ``[P,2]``, (x, y) in pixels, around whole pixels; None if there is no such piece.

    >>> mask_contour(np.array([[1, 0, 0], [0, 1, 1]], bool)).tolist()
    [[1.0, 1.0], [3.0, 1.0], [3.0, 2.0], [1.0, 2.0]]
    """
    pieces, _ = ndimage.label(mask)
    size = np.bincount(pieces.ravel())[1:]
    if not size.size or size.max() < least * mask.size:
        return None
    y, x = np.nonzero(pieces == 1 + size.argmax())
    corners = np.concatenate([np.stack([x + right, y + down], 1) for right in (0, 1) for down in (0, 1)])
    return corners[spatial.ConvexHull(corners).vertices].astype(np.float64)

"""Tiny masks and predictors that one score tells apart and IoU does not: what each score is there for."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

CLASSES = ("background", "face", "hair")


class Contrast(NamedTuple):
    """Two predictions with the same IoU of every class.

    Attributes:
        score: the key of :class:`~consensus_lib.metrics.structure.StructureScores` that tells them apart.
        truth: uint8 ``[64,64]``, as the next two.
        better: the prediction that the score prefers.
        worse: the other.
        why: what differs, in a sentence.
    """

    score: str
    truth: np.ndarray
    better: np.ndarray
    worse: np.ndarray
    why: str


def contrasts() -> list[Contrast]:
    """Return a pair of predictions for each score of structure."""
    face = np.zeros((64, 64), np.uint8)
    face[16:48, 16:48] = 1
    family = face.copy()
    family[4:12, 16:48] = family[52:56, 30:34] = 2

    def drawn(truth, *parts):
        mask = truth.copy()
        for rows, columns, label in parts:
            mask[rows, columns] = label
        return mask

    s = slice
    return [
        Contrast(
            "islands",
            face,
            drawn(face, (s(20, 24), s(48, 52), 1)),
            drawn(face, (s(20, 24), s(54, 58), 1)),
            "the same 16 pixels too many, on the face or beside it",
        ),
        Contrast(
            "island_share",
            face,
            drawn(face, (s(20, 23), s(48, 53), 1), (20, 58, 1)),
            drawn(face, (s(20, 24), s(54, 58), 1)),
            "one island in both, of 1 pixel or of 16: the component error is 1 in both",
        ),
        Contrast(
            "large_islands",
            face,
            drawn(face, (s(20, 28, 2), 54, 1)),
            drawn(face, (s(20, 22), s(54, 56), 1)),
            "4 specks or one island of 4 pixels: the component error prefers the other one",
        ),
        Contrast(
            "large_holes",
            face,
            drawn(face, (s(20, 28, 2), 30, 0)),
            drawn(face, (s(20, 22), s(30, 32), 0)),
            "4 pinholes or one hole of 4 pixels: the hole error prefers the other one",
        ),
        Contrast(
            "hole_share",
            face,
            drawn(face, (s(20, 23), s(43, 48), 0), (30, 30, 0)),
            drawn(face, (s(30, 34), s(30, 34), 0)),
            "one hole in both, of 1 pixel or of 16: the hole error is 1 in both",
        ),
        Contrast(
            "betti0_error",
            family,
            drawn(family, (s(20, 24), s(48, 52), 1), (s(4, 8), s(16, 20), 0)),
            drawn(family, (s(20, 24), s(54, 58), 1), (s(52, 56), s(30, 34), 0)),
            "a piece of face too many and a piece of hair too few: the component error is 0 in both",
        ),
        Contrast(
            "betti1_error",
            face,
            drawn(face, (s(30, 34), s(44, 48), 0)),
            drawn(face, (s(30, 34), s(40, 44), 0)),
            "the same 16 pixels missing, at the rim or within: the component error is 0 in both",
        ),
        Contrast(
            "boundary_f1_2",
            face,
            drawn(face, (s(16, 48), 48, 1)),
            drawn(face, (s(28, 32), s(48, 56), 1)),
            "32 pixels too many: a contour that is off by one pixel everywhere, or by 8 in one place",
        ),
        Contrast(
            "hausdorff95",
            face,
            drawn(face, (s(28, 32), s(52, 60), 1)),
            drawn(face, (s(1, 5), s(55, 63), 1)),
            "the same island near or far: counts, shares and boundary F1 are equal",
        ),
        Contrast(
            "raggedness_error",
            face,
            drawn(face, (48, s(16, 32), 1)),
            drawn(face, (48, s(16, 48, 2), 1)),
            "16 pixels too many along the chin, in a row or as teeth",
        ),
    ]


Predictor = Callable[[torch.Tensor], torch.Tensor]


def flickering() -> tuple[torch.Tensor, Predictor, Predictor]:
    """Return an image float ``[1,1,64,64]`` and two predictors with the same mask of it.

    The first looks at each pixel, and its mask moves with the image. The second looks at every fourth pixel
    and answers for its neighbours too, as a network does whose last layers work on a quarter of the side.
    """
    image = torch.zeros(1, 1, 64, 64)
    image[..., 16:48, 16:48] = 1

    def steady(images):
        return (images[:, 0] > 0.5).long()

    def stepping(images):
        return steady(images)[:, ::4, ::4].repeat_interleave(4, 1).repeat_interleave(4, 2)

    return image, steady, stepping


def toy_face() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the toy of notebook 03: labels int64 ``[4,4]`` and the probability of face float64 ``[4,4]``.

    A face of six pixels, one of which, in row 2 and column 2, is a hole in the prediction.
    """
    labels = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0]])
    rows = [[0.1, 0.2, 0.1, 0.1], [0.2, 0.9, 0.8, 0.1], [0.1, 0.8, 0.2, 0.2], [0.1, 0.9, 0.8, 0.1]]
    return labels, torch.tensor(rows, dtype=torch.float64)

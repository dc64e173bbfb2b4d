"""Structure: how broken a mask is, beyond the paper's count of components.

Scores of area hardly notice a torn face, and a count of components weighs one stray pixel as a torn face.
Here pieces and holes come with their areas, topology class by class, contours with their distance from the
truth and their length. ``notebooks/support/examples.py`` has masks that each score tells apart and IoU does
not.
"""

import numpy as np

from consensus_lib.metrics.components import Regions, hole_areas, piece_areas
from consensus_lib.metrics.contours import contour_scores, raggedness
from consensus_lib.metrics.segmentation import SegmentationScores, mean_of_known

LARGE = 1 / 1024
"""From this share of an image's pixels on, an island or a hole is large: 16 pixels of 128×128."""

TOLERANCES = (1, 2, 4)
"""How far contours may lie apart for the boundary F1, in pixels of an image whose longer side has 128."""


class StructureScores(SegmentationScores):
    """Everything that ``SegmentationScores`` has, and scores of structure, which take several times longer.

    :meth:`per_image` has each of the following for each image, :meth:`compute` the mean over the images that
    have it. Class 0 and ignored pixels are background and not scored.

    =====================================  ===========================================================
    ``islands``                            components of a class apart from its largest
    ``large_islands``, ``large_holes``     those with at least ``LARGE`` of the image's pixels
    ``island_share``                       pixels of islands / pixels of the classes 1..
    ``hole_share``                         pixels of holes / pixels of the classes 1.. and of their holes
    ``island_share_error``                 abs(predicted - true)
    ``betti0_error``, ``betti1_error``     abs(components, or holes, predicted - true), summed over the
                                           classes (Clough et al., TPAMI 2022). The component error sums
                                           before it takes abs: one too many of one class then hides one
                                           too few of another
    ``boundary_f1_1``, ``_2``, ``_4``      mean over classes; see :func:`~.contours.contour_scores`. The
                                           numbers are ``TOLERANCES``
    ``hausdorff95``                        mean over classes, in pixels; see there
    ``raggedness_error``                   mean over classes of abs(:func:`~.contours.raggedness`)
    =====================================  ===========================================================

    A class that is in neither map has no boundary F1, no distance and no raggedness. An image in which no
    class has the score is NaN in :meth:`per_image`; a key that no image has is not in :meth:`compute`.

    >>> scores = StructureScores(["background", "face"])
    >>> import torch
    >>> truth = torch.tensor([[[0, 0, 0, 0], [1, 1, 0, 1], [1, 1, 0, 0]]])
    >>> scores.update(truth, truth)
    >>> scores.compute()["island_share"], scores.compute()["hausdorff95"]
    (0.2, 0.0)
    """

    def _score_structure(self, maps: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        true, rows = (_broken(one, len(self.classes)) for one in maps)
        rows["island_share_error"] = np.abs(rows["island_share"] - true["island_share"])
        betti = np.abs(counts[1] - counts[0])[:, 1:].sum(1)  # [B, 2]
        rows |= {"betti0_error": betti[:, 0], "betti1_error": betti[:, 1]}
        contours = np.array([_score_contours(*pair, len(self.classes)) for pair in zip(*maps, strict=True)])
        names = *(f"boundary_f1_{tolerance}" for tolerance in TOLERANCES), "hausdorff95", "raggedness_error"
        rows |= zip(names, contours.reshape(-1, len(names)).T, strict=True)
        return super()._score_structure(maps, counts) | rows


def _broken(maps: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Return the number and share of islands and holes in each image of ``[B,H,W]``, arrays ``[B]``."""
    images, large = len(maps), LARGE * maps.shape[1] * maps.shape[2]
    pieces, holes = (
        Regions(*(part[regions.label > 0] for part in regions))
        for regions in (piece_areas(maps), hole_areas(maps, k))
    )
    largest = np.zeros((images, k), np.int64)
    np.maximum.at(largest, (pieces.image, pieces.label), pieces.area)

    def tally(regions: Regions, weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(regions.image, weights, images)

    area, hole = tally(pieces, pieces.area), tally(holes, holes.area)
    return {
        "islands": tally(pieces) - (largest > 0).sum(1),
        "large_islands": tally(pieces, pieces.area >= large) - (largest >= large).sum(1),
        "large_holes": tally(holes, holes.area >= large),
        "island_share": (area - largest.sum(1)) / np.maximum(area, 1),
        "hole_share": hole / np.maximum(area + hole, 1),
    }


def _score_contours(target: np.ndarray, pred: np.ndarray, k: int) -> np.ndarray:
    """Return the boundary F1 at each tolerance, the Hausdorff distance and the raggedness of one image."""
    tolerances = np.multiply(TOLERANCES, max(target.shape) / 128)
    found = []
    for c in range(1, k):
        masks = pred == c, target == c
        f1, distance = contour_scores(*masks, tolerances)
        found.append([*f1, distance, abs(raggedness(*masks))])
    return mean_of_known(np.array(found).T)

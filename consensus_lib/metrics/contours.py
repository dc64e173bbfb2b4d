"""Contours of masks: how far those of two masks lie apart, and how ragged they are.

A contour is the mask's pixels with a pixel outside the mask above, below, left or right. The image's frame is
no contour.
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt


def contour_scores(
    pred: np.ndarray, target: np.ndarray, tolerances: Sequence[float], percentile: float = 95
) -> tuple[np.ndarray, float]:
    """Return the boundary F1 at each tolerance, and the Hausdorff distance in pixels, of two masks.

    F1 is 2PR / (P + R), where P is the share of the prediction's contour at most ``tolerance`` pixels from
    the truth's, and R the share of the truth's at most that far from the prediction's. The directed Hausdorff
    distance is the ``percentile`` of the distances of one contour's pixels to the other contour; of the two
    directions the larger counts.

    Both are NaN where neither map has the class. Where one contour is missing they are 1 and 0 if both masks
    fill the image; otherwise 0 and the image's diagonal from corner pixel to corner pixel, the largest
    distance that there can be: a lost class is paid for.

    Args:
        pred: bool ``[H,W]``.
        target: bool ``[H,W]``.
        tolerances: in pixels.
        percentile: 100 is the Hausdorff distance proper.

    Source: Csurka et al., BMVC 2013, for F1 of each class and image (Martin et al., TPAMI 2004, match pixels
    one to one); Huttenlocher et al., TPAMI 1993, in the form of Maier-Hein et al., Nature Methods 2024.

    >>> truth, pred = np.zeros((2, 5, 9), bool)
    >>> truth[1:4, 1:4], pred[1:4, 1:5] = True, True
    >>> f1, distance = contour_scores(pred, truth, (0, 1))
    >>> f1.round(3), distance
    (array([0.778, 1.   ]), np.float64(1.0))
    """
    if not pred.any() and not target.any():
        return np.full(len(tolerances), np.nan), np.nan
    a, b = _contour(pred), _contour(target)
    if not a.any() or not b.any():
        full = pred.all() and target.all()
        return np.full(len(tolerances), float(full)), 0.0 if full else np.hypot(*np.subtract(pred.shape, 1))
    box = tuple(slice(at.min(), at.max() + 1) for at in np.nonzero(a | b))
    a, b = a[box], b[box]
    apart = distance_transform_edt(~b)[a], distance_transform_edt(~a)[b]
    precision, recall = (np.array([np.mean(one <= t) for t in tolerances]) for one in apart)
    f1 = 2 * precision * recall / np.where(precision + recall > 0, precision + recall, 1)
    return f1, max(np.percentile(one, percentile) for one in apart)


def raggedness(pred: np.ndarray, target: np.ndarray) -> float:
    """Return the perimeter-to-area ratio of a mask against the truth's, in powers of two.

    log₂((P/A of the prediction) / (P/A of the truth)), where A is the number of pixels and P the number of
    pixel sides inside the image with a pixel outside the mask beyond. 0 is as ragged as the truth, 1 twice as
    ragged, -1 half as ragged. A mask that is only smaller is more ragged too, by its scale.

    Where one contour is missing, because the mask is empty or fills the image, the value is the largest that
    there can be, so that a lost class is paid for: -M if the prediction has none, +M if the truth has none,
    M = log₂(2(HW - 1)). Where both are missing, it is -M if the prediction is empty, +M if the truth is, 0 if
    neither is, and NaN if both are.

    Args:
        pred: bool ``[H,W]``.
        target: bool ``[H,W]``.

    Source: the perimeter-area ratio of landscapes, McGarigal and Marks, FRAGSTATS, 1995.

    >>> truth, pred = np.zeros((2, 6, 6), bool)
    >>> truth[1:5, 1:5] = True                           # 16 sides, 16 pixels
    >>> pred[1:5, 1:5] = np.indices((4, 4)).sum(0) % 2   # a chessboard: 32 sides, 8 pixels
    >>> raggedness(pred, truth)
    np.float64(2.0)
    """
    areas = [np.count_nonzero(mask) for mask in (pred, target)]
    if not any(areas):
        return np.nan
    ratios = [_perimeter(mask) / max(area, 1) for mask, area in zip((pred, target), areas, strict=True)]
    most = np.log2(2 * max(pred.size - 1, 1))
    if all(ratios):
        return np.log2(ratios[0]) - np.log2(ratios[1])
    return most * (np.sign(ratios[0] - ratios[1]) or bool(areas[0]) - bool(areas[1]))


def _perimeter(mask: np.ndarray) -> int:
    return np.count_nonzero(mask[1:] != mask[:-1]) + np.count_nonzero(mask[:, 1:] != mask[:, :-1])


def _contour(mask: np.ndarray) -> np.ndarray:
    return mask & ~binary_erosion(mask, border_value=1)

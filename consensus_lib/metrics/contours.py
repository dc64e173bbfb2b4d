"""Contours of label maps: how far those of two maps lie apart, and how ragged they are.

Label maps are integer ``[N,H,W]``, classes 0..K-1. The image's frame is no contour.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree


class ContourDistances(NamedTuple):
    """How far the contours of each class in two maps lie apart; made by :func:`contour_distances`.

    A contour of a class is its pixels with a pixel of another class above, below, left or right. Class 0 has
    none.

    Attributes:
        cell: the cell N·K of each contour pixel of the prediction, and of the truth: image · K + class.
        distance: to the nearest contour pixel of the same cell in the other map, in pixels between
            centres; infinite where that has none.
        occurs: bool ``[2,N,K]``, whether the class is in the prediction, and in the truth.
        shape: (H, W).
    """

    cell: tuple[np.ndarray, np.ndarray]
    distance: tuple[np.ndarray, np.ndarray]
    occurs: np.ndarray
    shape: tuple[int, int]

    def f1(self, tolerance: float) -> np.ndarray:
        """Return the boundary F1 of each image and class, float64 ``[N,K]``.

        2PR / (P + R), where P is the share of the prediction's contour at most ``tolerance`` pixels from
        the truth's, and R the share of the truth's at most that far from the prediction's (Csurka et al.,
        BMVC 2013, for each class and image; after Martin et al., TPAMI 2004, who match pixels one to one).

        NaN for class 0, and where the class is in neither map. Where one of the two contours is missing:
        1 if the class is all of both images, otherwise 0.
        """
        shares = []
        for cell, distance in zip(self.cell, self.distance, strict=True):
            hit = np.bincount(cell[distance <= tolerance], minlength=self.occurs[0].size)
            shares.append(hit / np.maximum(np.bincount(cell, minlength=len(hit)), 1))
        precision, recall = shares
        f1 = 2 * precision * recall / np.where(precision + recall > 0, precision + recall, 1)
        return self._ruled(f1, alike=1)

    def hausdorff(self, percentile: float = 95) -> np.ndarray:
        """Return the Hausdorff distance of each image and class in pixels, float64 ``[N,K]``.

        Its directed distance is the ``percentile`` of the distances of one contour's pixels to the other
        contour (linear between the two nearest ranks); of the two directions the larger counts. 100 is the
        Hausdorff distance proper; 95 forgives the farthest twentieth (Huttenlocher et al., TPAMI 1993; in
        this form Maier-Hein et al., *Metrics reloaded*, Nature Methods 2024).

        NaN for class 0, and where the class is in neither map. Where one of the two contours is missing:
        0 if the class is all of both images, otherwise the image's diagonal, from corner pixel to corner
        pixel, the largest distance that there can be. So whoever loses a class pays for it.
        """
        directed = [
            _percentile(cell, np.minimum(distance, self.diagonal), percentile, self.occurs[0].size)
            for cell, distance in zip(self.cell, self.distance, strict=True)
        ]
        return self._ruled(np.maximum(*directed), alike=0, otherwise=self.diagonal)

    @property
    def diagonal(self) -> float:
        """From corner pixel to corner pixel, in pixels."""
        return float(np.hypot(self.shape[0] - 1, self.shape[1] - 1))

    def _ruled(self, values: np.ndarray, alike: float, otherwise: float = 0) -> np.ndarray:
        """Fill in what the distances do not say: where a contour is missing."""
        shape = self.occurs.shape[1:]
        contour = [np.bincount(c, minlength=values.size).reshape(shape) > 0 for c in self.cell]
        values = np.where(contour[0] & contour[1], values.reshape(shape), otherwise)
        values[self.occurs.all(0) & ~contour[0] & ~contour[1]] = alike
        values[~self.occurs.any(0)] = np.nan
        values[:, 0] = np.nan
        return values


def contour_distances(pred: np.ndarray, target: np.ndarray, num_classes: int) -> ContourDistances:
    """Return how far the contours of two batches of label maps integer ``[N,H,W]`` lie apart.

    One search tree holds the contours of all images and classes, each in a plane of its own, and only
    those pixels are searched that the other contour lacks: equal masks cost nothing.

    >>> truth, pred = np.zeros((2, 1, 5, 9), int)
    >>> truth[0, 1:4, 1:4], pred[0, 1:4, 1:5] = 1, 1
    >>> distances = contour_distances(pred, truth, 2)
    >>> distances.hausdorff(100)[0, 1], distances.f1(0)[0, 1].round(3), distances.f1(1)[0, 1]
    (np.float64(1.0), np.float64(0.778), np.float64(1.0))
    """
    contours = [_contours(maps) for maps in (pred, target)]
    far = 2 * sum(target.shape[1:])  # between the planes: farther than anything within one
    cells, points = [], []
    for maps, contour in zip((pred, target), contours, strict=True):
        image, y, x = np.nonzero(contour)
        cells.append(image * num_classes + maps[image, y, x])
        points.append(np.stack([cells[-1] * far, y, x], axis=1))
    distances = []
    for here, there, other in ((0, 1, target), (1, 0, pred)):
        image, y, x = np.nonzero(contours[here])
        shared = contours[there][image, y, x] & (other[image, y, x] == cells[here] % num_classes)
        distance = np.zeros(len(image))
        search = np.flatnonzero(~shared)
        if len(search) and len(points[there]):
            distance[search] = KDTree(points[there]).query(points[here][search])[0]
        elif len(search):
            distance[search] = np.inf
        distance[distance >= far] = np.inf  # found in another cell: there is none in this one
        distances.append(distance)
    occurs = np.stack([pixels(maps, num_classes) > 0 for maps in (pred, target)])
    return ContourDistances(tuple(cells), tuple(distances), occurs, target.shape[1:])


def raggedness(pred: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the perimeter-to-area ratio of each class against the truth's, in powers of two.

    log₂((P/A of the prediction) / (P/A of the truth)), where A is the number of pixels and P the number of
    pixel sides inside the image with another class beyond. 0 is as ragged as the truth, 1 twice as ragged,
    -1 half as ragged: too smooth. A mask that is only smaller is more ragged too, by its scale. P counts
    sides, which overestimates slopes, but in both maps alike (the perimeter-area ratio of landscapes:
    McGarigal & Marks, *FRAGSTATS*, 1995).

    Where one of the two contours is missing, because the map lacks the class or is nothing else, the value
    is the largest that there can be: -M if the prediction has none, +M if the truth has none.
    M = log₂(2(HW - 1)) is that of one pixel, P/A = 4, against all pixels but one in a corner,
    P/A = 2/(HW - 1). So whoever loses a class pays for it. Where both are missing, it is -M if the prediction
    lacks the class, +M if the truth does, and 0 if both are nothing else.

    Args:
        pred: integer ``[N,H,W]``, classes 0..K-1.
        target: integer ``[N,H,W]``.
        num_classes: K.

    Returns:
        float64 ``[N,K]``, from -M to M; NaN where the class is in neither map.

    >>> truth, pred = np.zeros((2, 1, 6, 6), int)
    >>> truth[0, 1:5, 1:5] = 1                        # 16 sides, 16 pixels
    >>> pred[0, 1:5, 1:5] = np.indices((4, 4)).sum(0) % 2  # a chessboard: 32 sides, 8 pixels
    >>> raggedness(pred, truth, 2)[0, 1]
    np.float64(2.0)
    """
    most = np.log2(2 * max(target.shape[1] * target.shape[2] - 1, 1))
    ratios, occurs = [], []
    for maps in (pred, target):
        area = pixels(maps, num_classes)
        ratios.append(_perimeters(maps, num_classes) / np.maximum(area, 1))
        occurs.append((area > 0).astype(int))
    with np.errstate(divide="ignore", invalid="ignore"):  # log 0 is -inf, and NaN for both
        found = np.clip(np.log2(ratios[0]) - np.log2(ratios[1]), -most, most)
    found = np.where(np.isnan(found), most * (occurs[0] - occurs[1]), found)
    return np.where(occurs[0] | occurs[1], found, np.nan)


def pixels(maps: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the pixels of each class of label maps integer ``[N,H,W]``, int64 ``[N,K]``."""
    return np.array([np.bincount(one.ravel(), minlength=num_classes) for one in maps]).reshape(
        -1, num_classes
    )


def _perimeters(maps: np.ndarray, k: int) -> np.ndarray:
    """Return the number of pixel sides between each class and any other, int64 ``[N,K]``."""
    total = np.zeros((len(maps), k), np.int64)
    for a, b in ((maps[:, 1:], maps[:, :-1]), (maps[:, :, 1:], maps[:, :, :-1])):
        image, y, x = np.nonzero(a != b)
        for side in (a, b):
            cell = image * k + side[image, y, x]
            total += np.bincount(cell, minlength=total.size).reshape(-1, k)
    return total


def _contours(maps: np.ndarray) -> np.ndarray:
    """Return which pixels of the classes 1.. have a pixel of another class on one of four sides."""
    contour = np.zeros(maps.shape, bool)
    across, along = maps[:, 1:] != maps[:, :-1], maps[:, :, 1:] != maps[:, :, :-1]
    contour[:, 1:] |= across
    contour[:, :-1] |= across
    contour[:, :, 1:] |= along
    contour[:, :, :-1] |= along
    return contour & (maps > 0)


def _percentile(cell: np.ndarray, values: np.ndarray, percentile: float, cells: int) -> np.ndarray:
    """Return the percentile of the values of each cell as ``numpy.percentile`` does, 0 for an empty one."""
    values = values[np.lexsort((values, cell))]
    count = np.bincount(cell, minlength=cells)
    first, full = np.cumsum(count) - count, count > 0
    place = percentile / 100 * (count[full] - 1)
    low = place.astype(np.int64)
    below = values[first[full] + low]
    above = values[first[full] + np.minimum(low + 1, count[full] - 1)]
    found = np.zeros(cells)
    found[full] = below + (place - low) * (above - below)
    return found

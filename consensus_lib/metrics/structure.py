"""Structure: how broken a mask is, beyond the paper's count of components.

Scores of area hardly notice a torn face, and a count of components weighs one stray pixel as a torn face.
Here pieces and holes come with their areas, topology class by class, contours with their distance from the
truth and their length. :class:`StructureScores` is :class:`~consensus_lib.metrics.SegmentationScores` with
all of it; ``examples.py`` has masks that each score tells apart and IoU does not.

As there, class 0 is background and not scored, and an ignored pixel is background in both maps, so that
contours run around ignored regions too. An image without a labelled pixel has no score. The image's frame is
no contour.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import KDTree
from tqdm import tqdm

from consensus_lib.metrics.components import Regions, count_by_class, hole_areas, piece_areas
from consensus_lib.metrics.segmentation import SegmentationScores

LARGE = 1 / 1024
"""From this share of an image's pixels on, an island or a hole is large: 16 pixels of 128×128."""

TOLERANCES = (1, 2, 4)
"""How far contours may lie apart for the boundary F1, in pixels of an image whose longer side has 128."""


class StructureScores(SegmentationScores):
    """Everything that ``SegmentationScores`` has, and scores of structure, which take several times longer.

    :meth:`by_class` has each of the following for each image and class, :meth:`per_image` for each image,
    :meth:`compute` as a mean over the images. Counts and areas of an image are summed over the classes 1..,
    shares are shares of those sums, and the other scores are means over the classes that have them.

    ================================  ================================================================
    ``components``, ``holes``         as ``count_by_class`` counts them
    ``islands``                       components of a class apart from its largest
    ``large_islands``                 those with at least ``LARGE`` of the image's pixels
    ``large_holes``                   holes with as many
    ``area``                          pixels of the class
    ``island_area``                   of these, pixels outside its largest component
    ``hole_area``                     pixels of its holes: see :func:`~.components.hole_areas`
    ``island_share``                  ``island_area`` / ``area``; 0 where the class does not occur
    ``hole_share``                    ``hole_area`` / (``area`` + ``hole_area``)
    ``…_true``                        each of the above in the truth
    ``island_share_error``            abs(predicted - true)
    ``hole_share_error``              abs(predicted - true)
    ``betti0_error``                  abs(components predicted - true), for each class: see
                                      :func:`betti_error`. The paper's component error sums before it takes
                                      abs: one too many of one class then hides one too few of another
    ``betti1_error``                  abs(holes predicted - true), for each class
    ``boundary_f1_1``, ``_2``, ``_4``  see :meth:`ContourDistances.f1`; the number is from ``TOLERANCES``
    ``hausdorff95``                   in pixels; see :meth:`ContourDistances.hausdorff`
    ``hausdorff95_share``             the same as a share of the image's diagonal
    ``unmatched``                     classes that occur in one of the two maps only. There the boundary F1
                                      is 0, the Hausdorff distance the diagonal, and the error of raggedness
                                      the largest that an image of its size can have
    ``raggedness``                    see :func:`raggedness`: 0 like the truth, 1 twice as ragged
    ``raggedness_error``              abs of that
    ================================  ================================================================

    What is undefined is NaN in ``by_class`` and ``per_image``: a class that is in neither map has no boundary
    F1, no distance and no raggedness, and an image without a labelled pixel has no score at all. ``compute``
    leaves such images out, and a key that no image has: it never returns NaN.

    >>> scores = StructureScores(["background", "face"])
    >>> truth = torch.tensor([[[0, 0, 0, 0], [1, 1, 0, 1], [1, 1, 0, 0]]])
    >>> scores.update(truth, truth)
    >>> scores.compute()["island_share"], scores.compute()["hausdorff95"]
    (0.2, 0.0)
    """

    def __init__(self, classes: Sequence[str]):
        super().__init__(classes)
        self._structure: list[dict[str, np.ndarray]] = []  # [B, K-1] each

    @classmethod
    def joined(cls, parts: Sequence["StructureScores"]) -> "StructureScores":
        """Return the scores of the parts' images together; see ``SegmentationScores.joined``."""
        scores = super().joined(parts)
        for part in parts:
            scores._structure += part._structure
        return scores

    def _arrays(self) -> dict[str, np.ndarray]:
        rows = {key: np.concatenate([part[key] for part in self._structure]) for key in self._structure[0]}
        return super()._arrays() | {f"structure_{key}": values for key, values in rows.items()}

    def _take(self, arrays: dict[str, np.ndarray]) -> None:
        super()._take(arrays)
        of_structure = [key for key in arrays if key.startswith("structure_")]
        self._structure = [{key.removeprefix("structure_"): arrays[key] for key in of_structure}]

    def compute(self) -> dict[str, float | list[str] | int]:
        """Return all scores, as a flat dictionary that JSON can hold."""
        scores = super().compute()
        for key, values in self._structure_per_image().items():
            values = values[~np.isnan(values)]
            if len(values):
                scores[key] = float(values.mean())
        return scores

    def per_image(self) -> dict[str, np.ndarray]:
        """Return one value for each image, in the order of the updates; arrays ``[N]``."""
        return super().per_image() | self._structure_per_image()

    def by_class(self) -> dict[str, np.ndarray]:
        """Return the scores of structure for each image and class, arrays ``[N,K-1]``: class 0 has none."""
        joined = {
            key: self._of_labelled(np.concatenate([part[key] for part in self._structure]))
            for key in self._structure[0]
        }
        return joined | _shares(joined)

    def _structure_per_image(self) -> dict[str, np.ndarray]:
        own = self.by_class()
        rows = {
            key: _mean(values) if key.startswith(_MEANS) else values.sum(1) for key, values in own.items()
        }
        return rows | _shares(rows)

    def _count_pieces(self, maps: np.ndarray) -> None:
        super()._count_pieces(maps)
        self._structure.append(_count(maps[1], maps[0], len(self.classes)))


def score_structure(
    pred: torch.Tensor, target: torch.Tensor, classes: Sequence[str], *, progress: bool = False
) -> StructureScores:
    """Return the scores of predictions that are already there.

    Args:
        pred: integer ``[N,H,W]``, such as :func:`consensus_lib.training.predict` returns.
        target: integer ``[N,H,W]``; 255 = ignore.
        classes: names, class 0 first.
        progress: show a bar.

    Raises:
        ValueError: as ``SegmentationScores.update`` does.
    """
    if pred.shape != target.shape:
        raise ValueError(f"pred: expected the shape of target {list(target.shape)}, got {list(pred.shape)}")
    scores = StructureScores(classes)
    parts = zip(pred.split(32), target.split(32), strict=True)  # few enough to stay in the cache
    for part in tqdm(parts, "structure", -(-len(pred) // 32), disable=not progress, leave=False):
        scores.update(*part)
    return scores


def betti_error(pred: np.ndarray, target: np.ndarray, num_classes: int) -> np.ndarray:
    """Return abs(predicted - true) of the Betti numbers of each class.

    b₀ is the number of 8-connected pieces of the class and b₁ of holes in it, 4-connected pieces of its
    complement that do not reach the border; :func:`~.components.count_by_class` counts both.
    With these two neighbourhoods b₀ - b₁ is the Euler number of each class, taken alone; where two classes
    cross at a corner, both count as connected there. The numbers are compared, wherever the pieces lie, over
    whole images (Clough et al., TPAMI 2022; Hu et al., NeurIPS 2019, average over patches).

    Args:
        pred: integer ``[N,H,W]``, classes 0..K-1.
        target: integer ``[N,H,W]``.
        num_classes: K.

    Returns:
        int64 ``[N,K,2]``: errors of b₀ and of b₁.
    """
    return np.abs(count_by_class(pred, num_classes) - count_by_class(target, num_classes))


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
        area = _pixels(maps, num_classes)
        ratios.append(_perimeters(maps, num_classes) / np.maximum(area, 1))
        occurs.append((area > 0).astype(int))
    with np.errstate(divide="ignore", invalid="ignore"):  # log 0 is -inf, and NaN for both
        found = np.clip(np.log2(ratios[0]) - np.log2(ratios[1]), -most, most)
    found = np.where(np.isnan(found), most * (occurs[0] - occurs[1]), found)
    return np.where(occurs[0] | occurs[1], found, np.nan)


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
    occurs = np.stack([_pixels(maps, num_classes) > 0 for maps in (pred, target)])
    return ContourDistances(tuple(cells), tuple(distances), occurs, target.shape[1:])


_MEANS = ("boundary_f1", "hausdorff95", "raggedness")
"""Scores of an image that are means over its classes; the others are sums."""


def _count(pred: np.ndarray, target: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Return the scores of each image and class but the shares, arrays ``[B,K-1]``."""
    rows = {}
    for end, maps in (("", pred), ("_true", target)):
        pieces, holes = piece_areas(maps), hole_areas(maps, k)
        large = LARGE * maps.shape[1] * maps.shape[2]
        largest = np.zeros(len(maps) * k, np.int64)
        np.maximum.at(largest, pieces.image * k + pieces.label, pieces.area)
        largest = largest.reshape(-1, k)
        components, area = _tally(pieces, k, len(maps)), _pixels(maps, k)
        rows |= {
            f"components{end}": components,
            f"holes{end}": _tally(holes, k, len(maps)),
            f"islands{end}": components - (components > 0),
            f"large_islands{end}": _tally(pieces, k, len(maps), pieces.area >= large) - (largest >= large),
            f"large_holes{end}": _tally(holes, k, len(maps), holes.area >= large),
            f"area{end}": area,
            f"island_area{end}": area - largest,
            f"hole_area{end}": _tally(holes, k, len(maps), holes.area),
        }
    rows["betti0_error"] = np.abs(rows["components"] - rows["components_true"])
    rows["betti1_error"] = np.abs(rows["holes"] - rows["holes_true"])
    rows["unmatched"] = ((rows["area"] > 0) != (rows["area_true"] > 0)).astype(np.int64)
    distances = contour_distances(pred, target, k)
    scale = max(target.shape[1:]) / 128
    rows |= {f"boundary_f1_{tolerance}": distances.f1(tolerance * scale) for tolerance in TOLERANCES}
    rows["hausdorff95"] = distances.hausdorff()
    rows["hausdorff95_share"] = rows["hausdorff95"] / max(distances.diagonal, 1)
    rows["raggedness"] = raggedness(pred, target, k)
    rows["raggedness_error"] = np.abs(rows["raggedness"])
    return {key: values[:, 1:] for key, values in rows.items()}


def _shares(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the shares that islands and holes have, of arrays of any shape."""
    shares = {}
    for end in ("", "_true"):
        area, island, hole = (rows[f"{key}{end}"] for key in ("area", "island_area", "hole_area"))
        shares[f"island_share{end}"] = island / np.maximum(area, 1)
        shares[f"hole_share{end}"] = hole / np.maximum(area + hole, 1)
    for key in ("island_share", "hole_share"):
        shares[f"{key}_error"] = np.abs(shares[key] - shares[f"{key}_true"])
    return shares


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last dimension of what is not NaN, NaN where there is nothing."""
    there = ~np.isnan(values)
    total, count = np.where(there, values, 0).sum(-1), there.sum(-1)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def _tally(regions: Regions, k: int, images: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the number of regions, or the sum of their weights, int64 ``[N,K]``."""
    cell = regions.image * k + regions.label
    return np.bincount(cell, weights, images * k).astype(np.int64).reshape(images, k)


def _pixels(maps: np.ndarray, k: int) -> np.ndarray:
    return np.array([np.bincount(one.ravel(), minlength=k) for one in maps]).reshape(-1, k)  # [N, K]


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

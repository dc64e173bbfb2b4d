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

import numpy as np

from consensus_lib.metrics.components import Regions, hole_areas, piece_areas
from consensus_lib.metrics.contours import contour_distances, pixels, raggedness
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
    ``betti0_error``                  abs(components predicted - true), for each class, wherever they lie.
                                      The paper's component error sums before it takes abs: one too many of
                                      one class then hides one too few of another
    ``betti1_error``                  abs(holes predicted - true), for each class (Clough et al., TPAMI 2022)
    ``boundary_f1_1``,``_2``,``_4``   see :meth:`~.contours.ContourDistances.f1`; numbers of ``TOLERANCES``
    ``hausdorff95``                   in pixels; see :meth:`~.contours.ContourDistances.hausdorff`
    ``hausdorff95_share``             the same as a share of the image's diagonal
    ``unmatched``                     classes that occur in one of the two maps only. There the boundary F1
                                      is 0, the Hausdorff distance the diagonal, and the error of raggedness
                                      the largest that an image of its size can have
    ``raggedness``                    see :func:`~.contours.raggedness`: 0 like the truth, 1 twice as ragged
    ``raggedness_error``              abs of that
    ================================  ================================================================

    What is undefined is NaN in ``by_class`` and ``per_image``: a class that is in neither map has no boundary
    F1, no distance and no raggedness, and an image without a labelled pixel has no score at all. ``compute``
    leaves such images out, and a key that no image has: it never returns NaN.

    >>> scores = StructureScores(["background", "face"])
    >>> import torch
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
        components, area = _tally(pieces, k, len(maps)), pixels(maps, k)
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

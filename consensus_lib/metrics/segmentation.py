"""Metrics: what a prediction is worth, counted on label maps.

Scores of area (IoU, accuracy, F1) come from one integer confusion matrix over the data set. Scores of
structure count connected pieces and holes in each image, because a mask can be right in 99% of its pixels
and still be torn. Notebook 02 shows both beside pictures; ``structure.py`` looks closer.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from consensus_lib import IGNORE
from consensus_lib.metrics.components import count_by_class
from consensus_lib.paths import atomic


class SegmentationScores:
    """Collect predictions batch by batch, then compute all scores.

    Args:
        classes: class names; the position is the class number, and class 0 is the background.

    >>> scores = SegmentationScores(["background", "face"])
    >>> truth = torch.tensor([[[0, 0, 0], [0, 1, 1], [0, 1, 1]]])
    >>> scores.update(truth, truth)
    >>> scores.compute()["mean_iou"], scores.compute()["component_error"]
    (1.0, 0.0)
    """

    VERSION = 1
    """Raise when the same maps give other counts: scores saved before are then counted again."""

    def __init__(self, classes: Sequence[str]):
        if len(classes) < 2 or len(set(classes)) != len(classes):
            raise ValueError(f"classes: expected at least two different names, got {list(classes)}")
        self.classes = tuple(classes)
        self._confusion: list[np.ndarray] = []  # [B, K, K] each: truth in rows, prediction in columns
        self._pieces: list[np.ndarray] = []  # [B, 2, 2]: truth/prediction, components/holes
        self._superpixels = np.zeros(2, np.int64)  # right, all

    @classmethod
    def joined(cls, parts: Sequence["SegmentationScores"]) -> "SegmentationScores":
        """Return the scores of the parts' images together, in the order of the parts.

        Args:
            parts: at least one, all of the same classes: what several processes have counted.
        """
        scores = cls(parts[0].classes)
        for part in parts:
            if part.classes != scores.classes:
                raise ValueError(f"parts: expected the classes {scores.classes}, got {part.classes}")
            scores._confusion += part._confusion
            scores._pieces += part._pieces
            scores._superpixels += part._superpixels
        return scores

    def save(self, path: str | Path) -> None:
        """Write what was counted of each image as one ``.npz`` file, atomically; :meth:`load` reads it."""
        with atomic(path) as part, part.open("wb") as file:
            np.savez_compressed(file, classes=self.classes, **self._arrays())

    @classmethod
    def load(cls, path: str | Path) -> "SegmentationScores":
        """Return the scores that :meth:`save` wrote."""
        with np.load(path) as kept:
            scores = cls(kept["classes"].tolist())
            scores._take(dict(kept))
        return scores

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            "confusion": np.concatenate(self._confusion),
            "pieces": np.concatenate(self._pieces),
            "superpixels": self._superpixels,
        }

    def _take(self, arrays: dict[str, np.ndarray]) -> None:
        self._confusion, self._pieces = [arrays["confusion"]], [arrays["pieces"]]
        self._superpixels = arrays["superpixels"]

    def update(
        self, pred: torch.Tensor, target: torch.Tensor, superpixels: torch.Tensor | None = None
    ) -> None:
        """Count one batch.

        Args:
            pred: integer ``[B,H,W]``, predicted classes.
            target: integer ``[B,H,W]``, true classes; 255 = ignore. For components and holes an ignored
                pixel is background in both maps. An image without a labelled pixel counts in no score.
            superpixels: integer ``[B,H,W]`` of superpixel numbers, or None.

        Raises:
            ValueError: shapes or types differ from the above, or a class number is out of range.
        """
        k = len(self.classes)
        pred, target = _maps("pred", pred), _maps("target", target)
        _same_shape("pred", pred, target)
        ignored = target == IGNORE
        _in_range("pred", pred, k)
        _in_range("target", target[~ignored] if ignored.any() else target, k)
        # Class numbers as bytes, one image at a time: what fits the cache is counted several times faster.
        maps = np.empty((2, *target.shape), np.uint8)  # truth and prediction
        maps[0], maps[1] = target, pred
        counted = [~one if one.any() else ... for one in ignored]
        maps[:, ignored] = 0
        confusion = [
            np.bincount((a.astype(np.int64) * k + b)[use].ravel(), minlength=k * k)
            for a, b, use in zip(*maps, counted, strict=True)
        ]
        self._confusion.append(np.array(confusion, np.int64).reshape(-1, k, k))
        self._count_pieces(maps)
        if superpixels is not None:
            superpixels = _maps("superpixels", superpixels)
            _same_shape("superpixels", superpixels, target)
            self._superpixels += _superpixels_right(maps, superpixels, counted, k)

    def _count_pieces(self, maps: np.ndarray) -> None:
        """Count what hangs together in uint8 ``[2,B,H,W]``: truth and prediction, ignored pixels 0."""
        pieces = count_by_class(maps.reshape(-1, *maps.shape[2:]), len(self.classes))[:, 1:].sum(
            1
        )  # [2*B, 2]
        self._pieces.append(pieces.reshape(2, -1, 2).swapaxes(0, 1))

    @property
    def confusion(self) -> np.ndarray:
        """Pixel counts int64 ``[K,K]``: truth in rows, prediction in columns."""
        k = len(self.classes)
        return sum((part.sum(0) for part in self._confusion), np.zeros((k, k), np.int64))

    def compute(self) -> dict[str, float | list[str] | int]:
        """Return all scores, as a flat dictionary that JSON can hold.

        ==============================  ==============================================================
        ``images``                      number of images with a labelled pixel
        ``pixel_accuracy``              share of right pixels
        ``mean_recall``, ``mean_iou``   mean over the classes that occur
        ``iou_NAME`` …                  of each class; also ``precision_``, ``recall_``, ``f1_``
        ``absent``                      classes that occur in neither truth nor prediction: left out above
        ``component_error``             mean over images of abs(components predicted - true). Components are
                                        8-connected pieces of equal label, background not counted: the
                                        paper's "sparsity", as its released code computes it
        ``component_error_signed``      the same without abs: above 0, too many pieces
        ``holes``, ``holes_true``       mean number of holes in an image. A hole of a class is a 4-connected
                                        piece of its complement that does not reach the border: what
                                        the component error cannot see
        ``hole_error``                  mean over images of abs(holes predicted - true)
        ``superpixel_accuracy``         share of superpixels whose majority class is right; only where
                                        superpixels were given. A tie goes to the lower class
        ==============================  ==============================================================

        Raises:
            ValueError: nothing was counted yet.
        """
        if not self._confusion or not self.confusion.any():
            raise ValueError("compute: expected at least one labelled pixel, got none; call update first")
        confusion = self.confusion
        present = (confusion.sum(0) + confusion.sum(1)) > 0
        area, rows = _area_scores(confusion, self.classes), self._piece_scores()
        scores: dict = {"images": int(self._labelled().sum())}
        scores |= {key: float(value) for key, value in area.items() if not np.isnan(value)}
        scores["absent"] = [name for name, here in zip(self.classes, present, strict=True) if not here]
        scores |= {key: float(_mean_of_known(values)) for key, values in rows.items() if key in _MEANS}
        if self._superpixels[1]:
            scores["superpixel_accuracy"] = float(self._superpixels[0] / self._superpixels[1])
        return scores

    def per_image(self) -> dict[str, np.ndarray]:
        """Return one value for each image, in the order of the updates: for statistics and galleries.

        Keys: ``pixel_accuracy``, ``mean_iou``, ``iou_NAME`` (NaN where the class occurs in neither map),
        ``components``, ``components_true``, ``component_error``, ``component_error_signed``, ``holes``,
        ``holes_true``, ``hole_error``; arrays ``[N]``. All are NaN for an image without a labelled pixel;
        counts are int64 where there is none.
        """
        confusion = np.concatenate(self._confusion)
        total = confusion.sum((1, 2))
        right = np.trace(confusion, axis1=1, axis2=2)
        iou = _class_scores(confusion)["iou"]  # [N, K]
        rows = {
            "pixel_accuracy": _ratio(right, total),
            "mean_iou": _mean_of_known(iou),
        }
        rows |= {f"iou_{name}": iou[:, c] for c, name in enumerate(self.classes)}
        return rows | self._piece_scores()

    def weighted(self, key: str, weights: np.ndarray) -> np.ndarray:
        """Return a score as :meth:`compute` has it, had each image occurred so many times.

        With it a score is found for a part of the images, and for images drawn anew; see
        :mod:`consensus_lib.metrics.comparison`.

        Args:
            key: a score of area, or one of :meth:`per_image`, which is averaged over the images that have it.
            weights: at least 0, ``[N]`` or several sets of them, ``[R,N]``, in the order of the updates.

        Returns:
            float64 ``[]`` or ``[R]``; NaN where no image with weight has the score.

        Raises:
            ValueError: there is no such score, or not one weight an image.
        """
        weights, images = np.asarray(weights, float), sum(len(part) for part in self._confusion)
        if weights.shape[-1:] != (images,):
            raise ValueError(f"weights: expected [...,{images}], one an image, got {list(weights.shape)}")
        confusion = np.tensordot(weights, np.concatenate(self._confusion), 1)  # [..., K, K]
        area = _area_scores(confusion, self.classes)
        if key in area:
            return area[key]
        rows = self.per_image()
        if key not in rows:
            raise ValueError(f"key: expected one of {sorted(area | rows)}, got {key!r}")
        there = ~np.isnan(rows[key])
        return _ratio(weights[..., there] @ rows[key][there], weights[..., there].sum(-1))

    def _labelled(self) -> np.ndarray:
        """Return which images have a labelled pixel, bool ``[N]``."""
        return np.concatenate(self._confusion).any((1, 2))

    def _of_labelled(self, rows: np.ndarray) -> np.ndarray:
        """Return rows ``[N,...]`` with NaN for images without a labelled pixel."""
        out = ~self._labelled()
        if out.any():
            rows = rows.astype(float)  # a copy
            rows[out] = np.nan
        return rows

    def _piece_scores(self) -> dict[str, np.ndarray]:
        pieces = self._of_labelled(np.concatenate(self._pieces))  # [N, truth/prediction, components/holes]
        excess = pieces[:, 1] - pieces[:, 0]
        return {
            "components": pieces[:, 1, 0],
            "components_true": pieces[:, 0, 0],
            "component_error": abs(excess[:, 0]),
            "component_error_signed": excess[:, 0],
            "holes": pieces[:, 1, 1],
            "holes_true": pieces[:, 0, 1],
            "hole_error": abs(excess[:, 1]),
        }


_MEANS = ("component_error", "component_error_signed", "holes", "holes_true", "hole_error")


def _superpixels_right(maps, superpixels, counted, k) -> np.ndarray:
    """Return the numbers of superpixels with the right majority and of all superpixels."""
    total = np.zeros(2, np.int64)
    for target, pred, cell, use in zip(*maps, superpixels, counted, strict=True):
        first = cell.astype(np.int64) * k  # of the k counters of each superpixel
        span = int(first.max(initial=-k)) + k
        votes = [
            np.bincount((first + labels)[use].ravel(), minlength=span).reshape(-1, k)
            for labels in (target, pred)
        ]
        used = votes[0].any(1)
        right = votes[0].argmax(1)[used] == votes[1].argmax(1)[used]
        total += right.sum(), right.size
    return total


def _area_scores(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Return every score of area of matrices ``[...,K,K]``, arrays ``[...]``, NaN where undefined."""
    by_class = _class_scores(confusion)
    # A class that the truth lacks has no recall; one that nobody predicted has no precision.
    scores = {
        "pixel_accuracy": _ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum((-2, -1))),
        "mean_recall": _mean_of_known(by_class["recall"]),
        "mean_iou": _mean_of_known(by_class["iou"]),
    }
    for kind, values in by_class.items():
        scores |= {f"{kind}_{name}": values[..., c] for c, name in enumerate(classes)}
    return scores


def _class_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return IoU, precision, recall and F1 of each class, ``[...,K]``, NaN where undefined."""
    hit, true, called = np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-1), confusion.sum(-2)
    return {
        "iou": _ratio(hit, true + called - hit),
        "precision": _ratio(hit, called),
        "recall": _ratio(hit, true),
        "f1": _ratio(2 * hit, true + called),
    }


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(-1), known.sum(-1))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def _same_shape(name: str, maps: np.ndarray, target: np.ndarray) -> None:
    if maps.shape != target.shape:
        raise ValueError(f"{name}: expected the shape of target {list(target.shape)}, got {list(maps.shape)}")


def _in_range(name: str, labels: np.ndarray, k: int) -> None:
    if labels.size and not (labels.min() >= 0 and labels.max() < k):
        raise ValueError(f"{name}: expected classes 0..{k - 1}, got {labels.min()}..{labels.max()}")


def _maps(name: str, maps: torch.Tensor) -> np.ndarray:
    if maps.dim() != 3 or maps.is_floating_point() or maps.is_complex():
        raise ValueError(f"{name}: expected integers [B,H,W], got {maps.dtype} {list(maps.shape)}")
    return maps.detach().cpu().numpy()

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

    VERSION = 2
    """Raise when the same maps give other counts: scores saved before are then counted again."""

    def __init__(self, classes: Sequence[str]):
        if len(classes) < 2 or len(set(classes)) != len(classes):
            raise ValueError(f"classes: expected at least two different names, got {list(classes)}")
        self.classes = tuple(classes)
        self._confusion: list[np.ndarray] = []  # [B, K, K] each: truth in rows, prediction in columns
        self._rows: list[dict[str, np.ndarray]] = []  # [B] each, of `_score_structure`
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
            scores._rows += part._rows
            scores._superpixels += part._superpixels
        return scores

    def save(self, path: str | Path) -> None:
        """Write what was counted of each image as one ``.npz`` file, atomically; :meth:`load` reads it."""
        rows = {f"row_{key}": values for key, values in self._joined_rows().items()}
        confusion, superpixels = np.concatenate(self._confusion), self._superpixels
        with atomic(path) as part, part.open("wb") as file:
            np.savez_compressed(
                file, classes=self.classes, confusion=confusion, superpixels=superpixels, **rows
            )

    @classmethod
    def load(cls, path: str | Path) -> "SegmentationScores":
        """Return the scores that :meth:`save` wrote."""
        with np.load(path) as kept:
            scores = cls(kept["classes"].tolist())
            scores._confusion, scores._superpixels = [kept["confusion"]], kept["superpixels"]
            scores._rows = [{key[4:]: kept[key] for key in kept if key.startswith("row_")}]
        return scores

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
        target = _as_array("target", target, target)
        pred = _as_array("pred", pred, target)
        ignored = target == IGNORE
        _check_classes("pred", pred, k)
        _check_classes("target", target[~ignored] if ignored.any() else target, k)
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
        counts = count_by_class(maps.reshape(-1, *maps.shape[2:]), k).reshape(2, -1, k, 2)
        self._rows.append(self._score_structure(maps, counts))
        if superpixels is not None:
            superpixels = _as_array("superpixels", superpixels, target)
            self._superpixels += _superpixels_right(maps, superpixels, counted, k)

    def _score_structure(self, maps: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Return the scores of each image that are not of area, arrays ``[B]``.

        Args:
            maps: uint8 ``[2,B,H,W]``, truth and prediction, ignored pixels 0.
            counts: int64 ``[2,B,K,2]``, the components and the holes of each class in them.
        """
        true, found = counts[:, :, 1:].sum(2)  # [B, 2] each
        excess = found - true
        return {
            "components": found[:, 0],
            "components_true": true[:, 0],
            "component_error": abs(excess[:, 0]),
            "component_error_signed": excess[:, 0],
            "holes": found[:, 1],
            "holes_true": true[:, 1],
            "hole_error": abs(excess[:, 1]),
        }

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
        confusion = self.confusion
        if not confusion.any():
            raise ValueError("compute: expected at least one labelled pixel, got none; call update first")
        area, present = _area_scores(confusion, self.classes), confusion.any(0) | confusion.any(1)
        scores: dict = {"images": int(self._labelled().sum())}
        scores |= {key: float(value) for key, value in area.items() if not np.isnan(value)}
        scores["absent"] = [name for name, here in zip(self.classes, present, strict=True) if not here]
        for key, values in self._of_labelled().items():
            values = values[~np.isnan(values)]
            if len(values) and not key.startswith("components"):
                scores[key] = float(values.mean())
        if self._superpixels[1]:
            scores["superpixel_accuracy"] = float(self._superpixels[0] / self._superpixels[1])
        return scores

    def per_image(self) -> dict[str, np.ndarray]:
        """Return one value for each image, in the order of the updates: for statistics and galleries.

        Keys: ``pixel_accuracy``, ``mean_iou``, ``iou_NAME`` (NaN where the class occurs in neither map),
        ``components``, ``components_true``, and those of :meth:`compute` on components and holes; arrays
        ``[N]``. All are NaN for an image without a labelled pixel; counts are int64 where there is none.
        """
        confusion = np.concatenate(self._confusion)
        iou = _class_scores(confusion)["iou"]  # [N, K]
        accuracy = _ratio(np.trace(confusion, axis1=1, axis2=2), confusion.sum((1, 2)))
        rows = {"pixel_accuracy": accuracy, "mean_iou": mean_of_known(iou)}
        rows |= {f"iou_{name}": iou[:, c] for c, name in enumerate(self.classes)}
        return rows | self._of_labelled()

    def weighted(self, key: str, weights: np.ndarray) -> np.ndarray:
        """Return a score as :meth:`compute` has it, had each image occurred so many times.

        Args:
            key: a score of area, or one of :meth:`per_image`, which is averaged over the images that have it.
            weights: at least 0, ``[N]`` or several sets of them, ``[R,N]``, in the order of the updates.

        Returns:
            float64 ``[]`` or ``[R]``; NaN where no image with weight has the score.

        Raises:
            ValueError: there is no such score, or the number of weights is not that of the images.
        """
        weights, confusion = np.asarray(weights, float), np.concatenate(self._confusion)
        if weights.shape[-1:] != (len(confusion),):
            raise ValueError(
                f"weights: expected [...,{len(confusion)}], one an image, got {list(weights.shape)}"
            )
        area = _area_scores(np.tensordot(weights, confusion, 1), self.classes)
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

    def _joined_rows(self) -> dict[str, np.ndarray]:
        return {key: np.concatenate([part[key] for part in self._rows]) for key in self._rows[0]}

    def _of_labelled(self) -> dict[str, np.ndarray]:
        """Return the rows, arrays ``[N]``, with NaN for images without a labelled pixel."""
        labelled, rows = self._labelled(), self._joined_rows()
        if labelled.all():
            return rows
        return {key: np.where(labelled, values, np.nan) for key, values in rows.items()}


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
        "mean_recall": mean_of_known(by_class["recall"]),
        "mean_iou": mean_of_known(by_class["iou"]),
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


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last dimension of what is not NaN, NaN where there is nothing."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(-1), known.sum(-1))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def _as_array(name: str, maps: torch.Tensor, target: torch.Tensor | np.ndarray) -> np.ndarray:
    if maps.dim() != 3 or maps.is_floating_point() or maps.shape != target.shape:
        raise ValueError(
            f"{name}: expected integers [B,H,W], of the shape of target {list(target.shape)}, "
            f"got {maps.dtype} {list(maps.shape)}"
        )
    return maps.detach().cpu().numpy()


def _check_classes(name: str, labels: np.ndarray, k: int) -> None:
    if labels.size and not (labels.min() >= 0 and labels.max() < k):
        raise ValueError(f"{name}: expected classes 0..{k - 1}, got {labels.min()}..{labels.max()}")

"""Scores as in the paper's Table 1: face against the rest, inside the face boxes of COFW."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from consensus_lib import IGNORE

FACE = 1


def face_box_scores(predictions: Iterable, targets: Iterable, boxes: Iterable) -> dict:
    """Score face masks inside boxes. Occlusion and background are both non-face.

    ``iou_face`` = TP / (TP + FP + FN), ``accuracy`` = (TP + TN) / all, ``rec_face`` = TP / (TP + FN),
    ``rec_all`` = the mean of the recalls of face and of non-face.

    Args:
        predictions: class numbers ``[H,W]`` of each image; 1 is face.
        targets: likewise; 255 is ignored.
        boxes: ``(left, top, width, height)`` in pixels of each image; a pixel whose centre is inside counts.

    Returns:
        ``"set"``: scores of the confusion matrix summed over all images, as in Table 1; ``"images"``: the
        mean of each score over the images, without those in which it is not defined; ``"each"``: the scores
        of each image.

    Raises:
        ValueError: a prediction and its target have different shapes, or the three differ in number.
    """
    each = []
    for prediction, target, (left, top, width, height) in zip(predictions, targets, boxes, strict=True):
        prediction, target = np.asarray(prediction), np.asarray(target)
        if prediction.shape != target.shape:
            raise ValueError(f"predictions: expected {target.shape} like its target, got {prediction.shape}")
        row, column = np.ogrid[: target.shape[0], : target.shape[1]]
        inside = (row + 0.5 > top) & (row + 0.5 < top + height) & (column + 0.5 > left)
        inside &= (column + 0.5 < left + width) & (target != IGNORE)
        pair = 2 * (target[inside] == FACE) + (prediction[inside] == FACE)
        each.append(np.bincount(pair, minlength=4))  # TN, FP, FN, TP
    counts = np.array(each).reshape(-1, 4)
    images = [_scores(*row) for row in counts.tolist()]
    means = {name: np.array([scores[name] for scores in images]) for name in _scores(0, 0, 0, 0)}
    return {
        "set": _scores(*counts.sum(0).tolist()),
        "images": {
            name: float(np.mean(known)) if (known := values[~np.isnan(values)]).size else float("nan")
            for name, values in means.items()
        },
        "each": images,
    }


def read_boxes(folder: str | Path) -> dict[str, tuple[float, ...]]:
    """Return the face box of each image id of a prepared COFW: ``(left, top, width, height)``."""
    with (Path(folder) / "annotations.csv").open(newline="", encoding="utf-8") as lines:
        return {
            row["id"]: tuple(float(row[name]) for name in ("left", "top", "width", "height"))
            for row in csv.DictReader(lines)
        }


def _scores(tn: int, fp: int, fn: int, tp: int) -> dict[str, float]:
    def share(part: int, whole: int) -> float:
        return part / whole if whole else float("nan")

    recall = share(tp, tp + fn)
    return {
        "iou_face": share(tp, tp + fp + fn),
        "accuracy": share(tp + tn, tp + tn + fp + fn),
        "rec_face": recall,
        "rec_all": (recall + share(tn, tn + fp)) / 2,
    }

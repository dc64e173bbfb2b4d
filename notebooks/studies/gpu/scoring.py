"""How good the masks are: scored by processes on the CPU's cores, and differences with their intervals."""

import csv
import json
import time
from pathlib import Path

import numpy as np
import torch

from consensus_lib import IGNORE, paths
from consensus_lib.metrics.comparison import paired_bootstrap
from consensus_lib.metrics.structure import StructureScores

SCORES = ("images", "pixel_accuracy", "mean_recall", "mean_iou", "iou_", "f1_", "component_error", "holes",
          "hole_error", "boundary_f1_", "hausdorff95", "raggedness_error")  # fmt: skip
"""Beginnings of the names of the scores that a row has."""

KEPT = ("component_error", "hole_error", "boundary_f1_2")
"""Scores of each image that are filed; those of area are recomputed from its confusion matrix."""


def score(masks: str) -> tuple[dict, dict | None]:
    """Return the scores of a file of masks as a row says them, and what is known of each image.

    Args:
        masks: ``.npz`` of ``pred`` and ``truth``, uint8 ``[N,H,W]``, ``classes``, and ``row``, JSON.
    """
    begin = time.perf_counter()
    with np.load(masks) as found:
        pred, truth = found["pred"], found["truth"]
        classes, row = found["classes"].tolist(), json.loads(str(found["row"]))
    scores = StructureScores(classes)
    scores.update(torch.from_numpy(pred), torch.from_numpy(truth))
    values = {k: v for k, v in scores.compute().items() if k.startswith(SCORES)}
    seconds = time.perf_counter() - begin
    each = {k: [None if np.isnan(x) else round(float(x), 5) for x in scores.per_image()[k]] for k in KEPT}
    images = {"confusion": confusion(pred, truth, len(classes)).reshape(len(pred), -1).tolist(), **each}
    images = images if row["split"] == "test" else None
    return row | values | {"scoring_seconds": seconds}, images


def confusion(pred: np.ndarray, truth: np.ndarray, k: int) -> np.ndarray:
    """Return pixel counts of each image, int64 ``[N,K,K]``: truth in rows, prediction in columns."""
    cells = np.where(truth == IGNORE, k * k, truth.astype(np.int64) * k + pred)
    return np.stack([np.bincount(one.ravel(), minlength=k * k + 1)[:-1] for one in cells]).reshape(-1, k, k)


class Filed:
    """A training's images as filed: what :func:`paired_bootstrap` asks of scores."""

    def __init__(self, line: dict):
        self.rows = {key: np.array(line[key], float) for key in KEPT}
        matrix = np.array(line["confusion"])
        side = round(matrix.shape[1] ** 0.5)
        self.confusion = matrix.reshape(-1, side, side)

    def per_image(self) -> dict[str, np.ndarray]:
        """Return one value for each image; the key ``components`` tells how many there are."""
        return self.rows | {"components": self.confusion.sum((1, 2))}

    def weighted(self, key: str, weights: np.ndarray) -> np.ndarray:
        """Return a score, had each image occurred so many times: as ``SegmentationScores.weighted``."""
        if key == "mean_iou":
            counts = np.tensordot(np.asarray(weights, float), self.confusion, 1)  # [..., K, K]
            hit = np.diagonal(counts, axis1=-2, axis2=-1)
            union = counts.sum(-1) + counts.sum(-2) - hit
            return (hit / np.maximum(union, 1)).sum(-1) / (union > 0).sum(-1)
        there = ~np.isnan(self.rows[key])
        return weights[..., there] @ self.rows[key][there] / weights[..., there].sum(-1)


def write_tables(out: Path, rows: list[dict], base: str) -> None:
    """Write the trainings that were tested as ``trainings.csv``, and their differences to ``base``.

    A recipe is compared on the seeds that it and ``base`` both have; an interval is over images and seeds.
    """
    rows = [row for row in rows if row.get("split") == "test"]
    if not rows:
        return
    lines = map(json.loads, (out / "images.jsonl").read_text(encoding="utf-8").splitlines())
    images = {line["id"]: Filed(line) for line in lines}
    found: dict[tuple[str, str], dict[int, Filed]] = {}
    for row in rows:
        found.setdefault((row["id"].split("/")[0], row["recipe"]), {})[row["seed"]] = images[row["id"]]
    gains = []
    for (part, name), second in found.items():
        first = found.get((part, base), {})
        seeds = sorted(first.keys() & second.keys()) if name != base else []
        for key in ("mean_iou", *KEPT) if seeds else ():
            gain = paired_bootstrap([first[s] for s in seeds], [second[s] for s in seeds], key)._asdict()
            about = {"part": part, "base": base, "recipe": name, "seeds": len(seeds)}
            gains.append(about | {k: v for k, v in gain.items() if k != "of_trainings"})
    write_csv(out / "trainings.csv", [{k: v for k, v in r.items() if not isinstance(v, list)} for r in rows])
    if gains:
        write_csv(out / "differences.csv", gains)


def write_csv(path: Path, rows: list[dict]) -> None:
    """Write rows as a table with a column for each key, floats to five digits."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with paths.atomic(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(
            {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
        )

"""The evidence study's tables: differences with intervals over seeds and images and Holm within each family;
component error over epochs; scores by class, face size and occlusion share."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from consensus_lib.data import TASKS
from consensus_lib.experiments import results
from consensus_lib.metrics.comparison import holm, paired_difference
from consensus_lib.metrics.segmentation import SegmentationScores
from evidence_plan import (
    CE,
    CONSENSUS,
    CONSTANT,
    CONTROLS,
    FACES,
    LOVASZ_CE,
    METHODS,
    RECOMMENDED,
    SCNP,
    THEN,
)
from evidence_unlabelled import PSEUDO, SUPERVISED

SCORES = ("mean_iou", "component_error")
"""What is decided. The others have intervals and p values of their own, and are never called decided."""
BESIDE = ("hole_error", "boundary_f1_2")
KEPT = ("mean_iou", "component_error", "component_error_signed", "hole_error", "boundary_f1_2", "hausdorff95")
"""What a row has of a training's scores, beside each class's IoU."""
FOLLOWED = ("mean_iou", "component_error", "hole_error")
"""What is kept of the scores after each epoch."""
COLLAPSED = 0.8
"""A class has collapsed whose IoU is below this share of cross-entropy's on the same images."""
LEVEL, LEAST = 0.05, 5
"""Of p after Holm, and of the seeds: with fewer, nothing is decided."""


def stored(arrays: dict[str, np.ndarray], job_id: str) -> SegmentationScores:
    """Return the scores of a training from what ``evidence-images.npz`` keeps of it."""
    found = {key.rpartition("|")[2]: one for key, one in arrays.items() if key.startswith(f"{job_id}|")}
    found = {key: one.astype(np.int64 if one.dtype.kind == "u" else float) for key, one in found.items()}
    task = "occlusion" if job_id.startswith("occlusion|") else "parts"
    file = io.BytesIO()
    np.savez(file, classes=TASKS[task].classes, superpixels=np.zeros(2, np.int64), **found)
    file.seek(0)
    return SegmentationScores.load(file)


def collapsed(row: dict, base: dict) -> bool:
    """Say whether a training failed, or lost a class that ``base`` has."""
    if row["failed"]:
        return True
    keys = [key for key, value in base.items() if key.startswith("iou_") and value not in ("", None)]
    known = [key for key in keys if float(base[key]) == float(base[key])]  # NaN: a class of another task
    return any(not float(row[key]) >= COLLAPSED * float(base[key]) for key in known if key in row)


def comparisons(names: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield (family, first, second) of the methods that there are."""
    if SUPERVISED in names:
        for first, family in ((SUPERVISED, "against supervision alone"), (PSEUDO, "against pseudo-labels")):
            others = [name for name in names if name not in (SUPERVISED, first)]
            yield from ((family, first, name) for name in others if first in names)
        return
    controls = [name for name in names if name in CONTROLS]
    for name in controls:
        yield "against cross-entropy", CE, name
        if RECOMMENDED in names:
            yield "against controls", name, RECOMMENDED
    if controls:
        return
    for name in (name for name in names if THEN in name):
        method, _, repair = name.partition(THEN)
        yield "against no repair", method, name
        yield from (
            ("against cross-entropy", first, name) for first in (CE, CE + THEN + repair) if method != CE
        )
    if any(THEN in name for name in names):
        return  # what has no repair is compared in the factorial
    for name in names:
        base = METHODS[name].base if name in METHODS else None
        if name != CE:
            yield "against cross-entropy", CE, name
        if base in names:
            yield "against its base", base, name
        if name in CONSENSUS:
            yield from (("against rivals", rival, name) for rival in (SCNP, LOVASZ_CE) if rival in names)


def differences(rows: dict[str, dict], arrays: dict[str, np.ndarray]) -> list[dict]:
    """Return a row for each comparison and score of the trainings that both methods have."""
    groups: dict[tuple, dict[str, dict[int, str]]] = {}
    for key, row in rows.items():
        if row["scored"] == "test" and row["method"] != CONSTANT:
            parts = ["factorial", "control"] if row["part"] == "factorial" else [row["part"]]
            for part in parts:
                seeds = groups.setdefault((part, row["data"]), {}).setdefault(row["method"], {})
                seeds[int(row["seed"])] = key
    table = []
    for (part, data), methods in groups.items():
        if part == "control" and not any(name in CONTROLS for name in methods):
            continue  # nothing but what the factorial has
        kept = {
            key: stored(arrays, key)
            for seeds in methods.values()
            for key in seeds.values()
            if not rows[key]["failed"]
        }
        for family, first, second in comparisons(list(methods)):
            both = sorted(methods[first].keys() & methods[second].keys())
            pairs = [(methods[first][seed], methods[second][seed]) for seed in both]
            lost = any(collapsed(rows[b], rows[a]) for a, b in pairs)
            pairs = [pair for pair in pairs if set(pair) <= kept.keys()]
            if len(pairs) < 2:
                continue
            for score in SCORES + BESIDE:
                one, other = ([kept[pair[place]] for pair in pairs] for place in (0, 1))
                gain = paired_difference(one, other, score)
                table.append(
                    {"part": part, "data": data, "family": family, "base": first, "method": second}
                    | {"score": score, "seeds": len(pairs), "first": gain.first, "second": gain.second}
                    | {"difference": gain.mean, "low": gain.low, "high": gain.high, "p": gain.p}
                    | {"collapsed": lost}
                )
    for part, family in {(row["part"], row["family"]) for row in table}:
        of_family = [r for r in table if (r["part"], r["family"]) == (part, family) and r["score"] in SCORES]
        for row, corrected in zip(of_family, holm([row["p"] for row in of_family]), strict=True):
            row |= {"p_holm": corrected, "word": word(row, corrected)}
    return table


def word(row: dict, corrected: float) -> str:
    """Return the protocol's word for a difference with its corrected p."""
    if row["collapsed"]:
        return "collapsed"
    if row["seeds"] < LEAST:
        return "too few seeds"
    if not corrected < LEVEL:
        return "not decided"
    return "better" if (row["difference"] > 0) == (row["score"] == "mean_iou") else "worse"


def over_epochs(rows: dict[str, dict], arrays: dict[str, np.ndarray]) -> list[dict]:
    """Return a row for each epoch of each training of part ``epochs``, on the validation images."""
    return [
        {"method": row["method"], "seed": row["seed"], "epoch": epoch}
        | dict(zip(FOLLOWED, map(float, scores), strict=True))
        for key, row in rows.items()
        if f"{key}|epochs" in arrays
        for epoch, scores in enumerate(arrays[f"{key}|epochs"], 1)
    ]


def where(rows: dict[str, dict], arrays: dict[str, np.ndarray]) -> list[dict]:
    """Return the component error by class, and both scores in thirds of the images, as means over the seeds.

    Thirds are of the face's true pixels, and on covered faces also of the occlusion's share of face and
    occlusion; mean IoU is here the mean over images.
    """
    table: dict[tuple, list[dict]] = {}
    for key, row in rows.items():
        if row["failed"] or row["part"] not in ("factorial", "occlusion", "epochs"):
            continue
        about = row["part"], row["data"], row["method"]
        for place, errors in enumerate(arrays.get(f"{key}|by_class", np.empty((0, 0))).T, 1):
            name = TASKS["parts"].classes[place]
            found = {"images": len(errors), "component_error": errors.mean()}
            table.setdefault((*about, "class", name), []).append(found)
        if row["part"] == "epochs":
            continue
        scores = stored(arrays, key).per_image()
        pixels = arrays[f"{key}|confusion"].astype(np.int64).sum(2)  # [N, K], of the true classes
        by = {"face's share of the image": pixels[:, 1] / pixels.sum(1)}
        if row["data"] == FACES:
            by["occlusion's share of the face"] = pixels[:, 2] / pixels[:, 1:].sum(1).clip(1)
        for name, share in by.items():
            for third in np.array_split(np.argsort(share, kind="stable"), 3):
                place = f"{share[third].min():.3f} to {share[third].max():.3f}"
                found = {"images": len(third)} | {score: scores[score][third].mean() for score in SCORES}
                table.setdefault((*about, name, place), []).append(found)
    names = ("part", "data", "method", "by", "where")
    return [
        dict(zip(names, key, strict=True))
        | {"seeds": len(found), "images": found[0]["images"]}
        | {score: float(np.mean([one[score] for one in found])) for score in SCORES if score in found[0]}
        for key, found in table.items()
    ]


def write_tables(out: Path, rows: dict, arrays: dict, command: str) -> None:
    """Write ``evidence-differences.csv``, ``-epochs.csv`` and ``-where.csv``, those that are not empty."""
    for name, make in {"differences": differences, "epochs": over_epochs, "where": where}.items():
        if table := make(rows, arrays):
            results.write_table(out / f"evidence-{name}.csv", table, command)

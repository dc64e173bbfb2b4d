"""Results: one ``result.json`` for each training, its masks, tables, and what they were made with.

``result.json`` has flat keys and is written last: only that file makes a training done.
"""

import hashlib
import json
import math
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

import consensus_lib
from consensus_lib.paths import atomic, write_json

_PACKAGE = Path(consensus_lib.__file__).parent

RESULT, MASKS = "result.json", "masks.npz"
RESULT_KEYS = (
    *("notebook", "dataset", "split", "task", "loss", "seed", "epochs", "image_size", "width"),
    *("mean_iou", "pixel_accuracy", "component_error", "holes", "seconds", "device"),
)
"""Keys that every result has."""


def write_result(folder: str | Path, **values) -> Path:
    """Write ``folder/result.json``, atomically. Call it last: its presence says that the training is done.

    Raises:
        ValueError: one of ``RESULT_KEYS`` is missing, or a value is nested or not finite.
    """
    if missing := [key for key in RESULT_KEYS if key not in values]:
        raise ValueError(f"result: expected the keys {list(RESULT_KEYS)}, got none for {missing}")
    for key, value in values.items():
        for part in value if isinstance(value, list) else [value]:
            finite = not isinstance(part, float) or math.isfinite(part)
            if not (finite and isinstance(part, str | int | float | bool | None)):
                raise ValueError(f"result: expected flat and finite values, got {value!r} for {key}")
    path = Path(folder) / RESULT
    write_json(path, values)
    return path


def read_results(*folders: str | Path) -> list[dict]:
    """Return every training's result below ``folders``, ordered by path, each with its ``folder`` added.

    The ``result.json`` of a sweep's run, which repeats those of its trainings, is left out.
    """
    files = [file for folder in folders for file in sorted(Path(folder).rglob(RESULT))]
    found = [(file, json.loads(file.read_text(encoding="utf-8"))) for file in files]
    return [{**result, "folder": str(file.parent)} for file, result in found if "mean_iou" in result]


def add_masks(folder: Path, epoch: int, masks: np.ndarray) -> None:
    """Add masks uint8 ``[n,H,W]`` predicted after an epoch, in place of those of it and of later ones."""
    found = read_masks(folder) if (folder / MASKS).is_file() else {}
    found = {number: known for number, known in found.items() if number < epoch} | {epoch: masks}
    with atomic(folder / MASKS) as part, part.open("wb") as stream:
        np.savez_compressed(stream, epoch=list(found), masks=np.stack(list(found.values())))


def read_masks(folder: Path) -> dict[int, np.ndarray]:
    """Return epoch → masks uint8 ``[n,H,W]`` of a training's folder."""
    with np.load(folder / MASKS) as file:
        return dict(zip(file["epoch"].tolist(), file["masks"], strict=True))


def write_table(path: str | Path, results: Iterable[dict], command: str) -> None:
    """Write results as a CSV file with a column for each key, and one for the ``command`` that made them."""
    import pandas as pd  # here, so that a training does not wait for it

    left_out = ("folder", "data_folder", "absent")
    kept = [{key: value for key, value in row.items() if key not in left_out} for row in results]
    with atomic(path) as part:
        pd.DataFrame(kept).round(4).assign(command=command).to_csv(part, index=False)


def as_text(results: Iterable[dict]) -> str:
    """Return the main scores of ``results`` as a table in plain text, one line each."""
    import pandas as pd

    heads = {"mean_iou": "mean IoU", "component_error": "component error", "seconds": "training s"}
    shown = ["notebook", "dataset", "loss", "seed", "mean_iou", "component_error", "holes", "seconds"]
    table = pd.DataFrame(results, columns=shown).rename(columns=heads)
    return table.to_string(index=False, float_format="{:.3f}".format)


def summarise(table, by: Sequence[str], of: Sequence[str]):
    """Average scores over the runs of a sweep.

    Args:
        table: from :func:`consensus_lib.experiments.sweeps.gather`; stale rows are left out.
        by: columns whose values make a group, such as ``["alpha", "beta"]``.
        of: columns to average.

    Returns:
        A data frame with a row for each group and score: ``by``, ``score``, ``mean``, ``std`` (of a sample),
        ``n`` values, and how many are ``missing``, because their run is not done.
    """
    fresh = table[table.status != "stale"].reindex(columns=[*by, *of])
    found = fresh.groupby([*by], dropna=False)[[*of]].agg(["mean", "std", "count", "size"])
    found = found.stack(0, future_stack=True).rename_axis([*by, "score"]).reset_index()
    found["missing"] = found.pop("size") - found["count"]
    return found.rename(columns={"count": "n"})


def library_hash() -> str:
    """Return a hash of the library's source: its version stays the same while a checkout changes."""
    digest = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*.py")):
        digest.update(f"{file.relative_to(_PACKAGE).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def provenance() -> dict[str, str | None]:
    """Return what a result is made with, to be recorded beside it.

    ``version`` of the library; ``commit`` of its checkout, with ``-dirty`` where tracked files differ, None
    outside of one; ``source``, the :func:`library_hash`.
    """
    commit = None
    if (_PACKAGE.parent / ".git").exists():  # else git would name the repository around a virtual environment
        describe = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        done = subprocess.run(describe, cwd=_PACKAGE, capture_output=True, text=True)
        commit = done.stdout.strip() or None
    return {"version": consensus_lib.__version__, "commit": commit, "source": library_hash()}

"""The evidence study's choices: which try of each method is tested, and which form of consensus is recommended."""

import csv
import math
from collections.abc import Iterable
from pathlib import Path

from consensus_lib.experiments import results
from evidence_plan import ALL, CE, CONSENSUS, METHODS, SUPERVISED, choosing
from evidence_tables import KEPT, collapsed


def choose(rows: dict[str, dict], methods: Iterable[str], path: Path, command: str) -> None:
    """Write the table of choices from the rows of phase ``choose``, by the protocol's rule."""
    tries = {name: [rows[job.id] for job in choosing([name])] for name in methods}
    bases = {ALL[name].data: max(tries[name], key=_iou) for name in (CE, SUPERVISED) if name in tries}
    table, best = [], {}
    for name, tried in tries.items():
        base = bases[ALL[name].data]
        whole = [row for row in tried if not collapsed(row, base)]
        best[name] = max(whole or tried, key=_iou)
        for row in tried:
            keys = [key for key in row if key in KEPT or (key.startswith("iou_") and row[key] != "")]
            marks = {"collapsed": collapsed(row, base), "chosen": row is best[name], "recommended": False}
            kept = ("method", "setting", "seed", "scored", "epochs", "failed", *keys, "device", "commit")
            table.append({key: row.get(key, "") for key in kept} | marks)
    recommended = recommend(best, bases[ALL[CE].data])
    for row in table:
        row["recommended"] = row["chosen"] and row["method"] == recommended
    results.write_table(path, table, command)


def recommend(best: dict[str, dict], base: dict) -> str:
    """Return the form of consensus that the protocol's rule takes; an empty text where there is none.

    Of those without a collapsed class that have at least the mean IoU of cross-entropy and of their own base,
    the one with the least component error; if there is none, the one with the best mean IoU.
    """
    forms = [name for name in CONSENSUS if name in best and not collapsed(best[name], base)]

    def reached(name: str) -> bool:
        own = METHODS[name].base
        return _iou(best[name]) >= max(_iou(base), _iou(best[own]) if own in best else 0.0)

    good = [name for name in forms if reached(name)]
    if good:
        return min(good, key=lambda name: best[name]["component_error"])
    return max(forms, key=lambda name: _iou(best[name]), default="")


def _iou(row: dict) -> float:
    return -math.inf if row["failed"] else row["mean_iou"]


def chosen(path: Path) -> tuple[dict[str, str], str]:
    """Return method → setting, and the recommended form, from the table of choices."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["chosen"] == "True"]
    best = [row["method"] for row in rows if row["recommended"] == "True"]
    return {row["method"]: row["setting"] for row in rows}, best[0] if best else ""

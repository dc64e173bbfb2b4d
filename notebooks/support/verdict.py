"""The evidence study's tables as notebooks show them: the factorial, and each claim beside its row."""

from pathlib import Path

import pandas as pd

from consensus_lib import paths

ADDED = {"": "alone", " + deviation": "+ deviation", " + match and deviation": "+ match and deviation"}
SHOWN = {"mean_iou": "mean IoU", "component_error": "component error"}


def studies() -> Path:
    """Return the folder of the stored tables."""
    return paths.root() / "notebooks/studies"


def factorial(differences: pd.DataFrame, scores: pd.DataFrame, part: str) -> pd.DataFrame:
    """Return what each base scores, alone and with consensus, and whether that changes it.

    Args:
        differences: ``evidence-differences.csv``.
        scores: ``evidence.csv``.
        part: ``"factorial"`` (photographs) or ``"occlusion"`` (covered faces).
    """
    means = scores[scores.part == part].groupby("method")[list(SHOWN)].mean()
    own = differences[(differences.part == part) & (differences.family == "against its base")]
    words = {(row.base, row.method, row.score): row.word for _, row in own.iterrows()}
    bases = [name for name in means.index if f"{name} + deviation" in means.index]
    rows = {}
    for base in sorted(bases, key=lambda name: -means.mean_iou[name]):
        for score, title in SHOWN.items():
            for end, added in ADDED.items():
                if (name := base + end) in means.index:
                    said = f", {words[base, name, score]}" if end else ""
                    rows.setdefault(base, {})[title, added] = f"{means[score][name]:.3f}{said}"
    return pd.DataFrame(rows).T.rename_axis("base")

"""The evidence study's tables as notebooks show them: the factorial, and differences with their words."""

from collections.abc import Sequence

import pandas as pd

from consensus_lib.metrics.comparison import Difference, read_differences
from support.course import STUDIES, read_study

ADDED = {"": "alone", " + deviation": "+ deviation", " + match and deviation": "+ match and deviation"}
CONSTANT = "constant prediction"
SHOWN = {"mean_iou": "mean IoU", "component_error": "component error"}


def differences(study: str, base: str) -> dict[str, dict[str, Difference]]:
    """Return score → method → its difference to ``base``, from ``STUDY-differences.csv``."""
    return read_differences(STUDIES / f"{study}-differences.csv", base)


def as_differences(table: pd.DataFrame, score: str, methods: Sequence[str]) -> dict[str, Difference]:
    """Return method → its difference, of rows of ``evidence-differences.csv`` with one base."""
    rows = table[table.score == score].set_index("method").loc[list(methods)]
    return {
        name: Difference(score, row["first"], row.second, row.low, row.high, ())
        for name, row in rows.iterrows()
    }


def turn(one: Difference) -> Difference:
    """Return a difference with its two methods exchanged."""
    single = tuple(-value for value in one.of_trainings)
    return Difference(one.score, one.second, one.first, -one.high, -one.low, single)


def constant_prediction(part: str = "factorial") -> pd.Series:
    """Return the scores of the constant prediction on the test images of a part of ``evidence.csv``."""
    table = read_study("evidence")
    return table[(table.part == part) & (table.method == CONSTANT)].iloc[0]


def shared_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of ``evidence.csv`` whose seed all methods have, and the constant prediction's."""
    trained = scores[scores.method != CONSTANT]
    seeds = set.intersection(*trained.groupby("method").seed.apply(set))
    return scores[scores.seed.isin(seeds) | (scores.method == CONSTANT)]


def words(rows: pd.DataFrame, *index: str) -> pd.DataFrame:
    """Return differences as text: the first method's mean, the second's, and the word; a column for each score.

    Args:
        rows: of ``evidence-differences.csv``.
        index: columns that name a row of the table.
    """
    rows = rows[rows.score.isin(SHOWN)]
    said = [f"{row['first']:.3f} → {row.second:.3f}, {row.word}" for _, row in rows.iterrows()]
    table = rows.assign(said=said, score=rows.score.map(SHOWN))
    return table.pivot_table("said", list(index), "score", "first", sort=False)[list(SHOWN.values())]


def factorial(differences: pd.DataFrame, scores: pd.DataFrame, part: str) -> pd.DataFrame:
    """Return what each base scores, alone and with consensus, and whether that changes it.

    Means are over the seeds that all methods have; words are as decided, over all seeds of a pair. The last
    row is the constant prediction.

    Args:
        differences: ``evidence-differences.csv``.
        scores: ``evidence.csv``.
        part: ``"factorial"`` (photographs) or ``"occlusion"`` (covered faces).
    """
    means = shared_seeds(scores[scores.part == part]).groupby("method")[list(SHOWN)].mean()
    own = differences[(differences.part == part) & (differences.family == "against its base")]
    said = {(row.base, row.method, row.score): row.word for _, row in own.iterrows()}
    bases = [name for name in means.index if f"{name} + deviation" in means.index]
    rows = {}
    for base in sorted(bases, key=lambda name: -means.mean_iou[name]):
        for score, title in SHOWN.items():
            for end, added in ADDED.items():
                if (name := base + end) in means.index:
                    word = f", {said[base, name, score]}" if end else ""
                    rows.setdefault(base, {})[title, added] = f"{means[score][name]:.3f}{word}"
    rows[CONSTANT] = {(title, "alone"): f"{means[score][CONSTANT]:.3f}" for score, title in SHOWN.items()}
    return pd.DataFrame(rows).T.fillna("").rename_axis("base")

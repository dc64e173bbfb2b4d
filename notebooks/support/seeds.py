"""What differences of repeated trainings say in a word: notebooks 04 to 07."""

from collections.abc import Sequence

import numpy as np


def compare_seeds(gains: Sequence[float], higher: bool = True, spread: float | None = None) -> str:
    """Return in a word what the differences of paired trainings say.

    Args:
        gains: a score with something minus the score without it, one difference for each seed.
        higher: whether a higher score is better.
        spread: of either score over seeds; a mean difference that exceeds it is named so.

    Returns:
        ``"better"`` or ``"worse"`` if all seeds agree, else ``"not decided"``; and whether it is one seed only.

    >>> compare_seeds([0.01, 0.03]), compare_seeds([0.01, 0.03], higher=False), compare_seeds([0.01, -0.01])
    ('better', 'worse', 'not decided')
    >>> compare_seeds([0.02, 0.03], spread=0.01)
    'better, by more than the spread'
    """
    gains = np.asarray(gains, float)
    if not ((gains > 0).all() or (gains < 0).all()):
        return "not decided"
    word = "better" if (gains[0] > 0) == higher else "worse"
    if len(gains) == 1:
        return f"{word}, with one seed"
    beyond = spread is not None and abs(gains.mean()) > spread
    return f"{word}, by more than the spread" if beyond else word

"""Comparison: is the difference between two methods more than chance, and which methods are worth having?"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from consensus_lib.metrics.segmentation import SegmentationScores


class Difference(NamedTuple):
    """The second method's score minus the first's.

    Attributes:
        score: the key.
        first: the first method's, a mean over its trainings.
        second: the second's.
        low: end of the interval around the difference.
        high: the other end.
        of_trainings: the difference of each pair of trainings.
        p: how probable so large a difference is by chance, two-sided; NaN where it was not computed.
    """

    score: str
    first: float
    second: float
    low: float
    high: float
    of_trainings: tuple[float, ...]
    p: float = math.nan

    @property
    def mean(self) -> float:
        """The difference."""
        return self.second - self.first

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval does; of many comparisons some will by chance, see :func:`holm`."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(
    first: Sequence[SegmentationScores],
    second: Sequence[SegmentationScores],
    key: str,
    *,
    images: np.ndarray | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Compare two methods on the same images, with an interval for the difference.

    Images are drawn anew with replacement, the same for both methods and all trainings, and so are the pairs
    of trainings: the interval covers the choice of both. Scores of area are recomputed from the drawn images'
    pixels. With few trainings it is rather too short than too long, and with one it knows of images only.

    Args:
        first: the scores of one method, one for each training.
        second: of the other. Trainings of the same place make a pair: the same seed.
        key: a score, as for :meth:`SegmentationScores.weighted`.
        images: bool ``[N]``, which to compare on; None takes all.
        resamples: how often to draw.
        level: share of the resamples inside the interval (percentiles).
        seed: of the drawing.

    Raises:
        ValueError: there is no training, the numbers of trainings or images differ, no image is taken, or an
            option is out of range.

    Source: Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, Sec. 13.3.
    """
    if resamples < 1:
        raise ValueError(f"resamples: expected at least 1, got {resamples}")
    taken = _check_pairs(first, second, images, level, least=1)
    draw = np.random.default_rng(seed)
    drawn = draw.multinomial(len(taken), np.full(len(taken), 1 / len(taken)), size=resamples)
    means, gains = _score_pairs(first, second, key, taken, drawn)
    trainings = draw.integers(len(first), size=(resamples, len(first)))
    of_resamples = gains[trainings.T, np.arange(1, resamples + 1)].mean(0)
    low, high = np.nanquantile(of_resamples, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Difference(key, *means, low, high, tuple(gains[:, 0].tolist()))


def paired_difference(
    first: Sequence[SegmentationScores],
    second: Sequence[SegmentationScores],
    key: str,
    *,
    images: np.ndarray | None = None,
    level: float = 0.95,
) -> Difference:
    """Compare two methods on the same images, with an interval that holds for few trainings.

    Trainings and images are two crossed levels: the variance of the mean difference is the sum of what
    trainings, images and both together add, and the quantile is of Student's t with as many degrees of
    freedom as the mean squares behind that sum allow (Satterthwaite). A score of the data set, such as the
    mean IoU, is taken apart into images by the jackknife. What the interval covers is in
    ``notebooks/studies/interval_coverage.csv``.

    Args:
        first: the scores of one method, one for each training, at least two.
        second: of the other. Trainings of the same place make a pair: the same seed.
        key: a score, as for :meth:`SegmentationScores.weighted`.
        images: bool ``[N]``, which to compare on, at least two; None takes all.
        level: how often the interval should hold the difference.

    Raises:
        ValueError: there are less than two pairs of trainings or two images, or an option is out of range.

    Source: Satterthwaite, An Approximate Distribution of Estimates of Variance Components, Biometrics 1946.
    """
    taken = _check_pairs(first, second, images, level, least=2)
    means, gains = _score_pairs(first, second, key, taken, 1 - np.eye(len(taken)))
    whole, without = gains[:, :1], gains[:, 1:]
    of_images = len(taken) * whole - (len(taken) - 1) * without  # the jackknife's pseudo-values, [S, N]
    low, high, p = two_level_interval(of_images, whole[:, 0], level)
    return Difference(key, *means, low, high, tuple(whole[:, 0].tolist()), p)


def _check_pairs(first, second, images, level: float, least: int) -> np.ndarray:
    """Return the numbers of the images to compare on, at least ``least`` of them and of the trainings."""
    if len(first) < least or len(first) != len(second):
        wanted = f"expected as many trainings as first, at least {least}"
        raise ValueError(f"second: {wanted}, got {len(second)} and {len(first)}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a share between 0 and 1, got {level}")
    total = len(first[0].per_image()["component_error"])
    taken = np.arange(total) if images is None else np.flatnonzero(images)
    if len(taken) < least:
        raise ValueError(f"images: expected at least {least}, got {len(taken)}")
    return taken


def _score_pairs(first, second, key: str, taken: np.ndarray, weights: np.ndarray):
    """Return both methods' means, and the gains ``[S,1+R]`` of the taken images as they are and weighted.

    Args:
        first, second, key: as for :func:`paired_bootstrap`.
        taken: numbers of images, ``[N]``.
        weights: how often each of them occurs, ``[R,N]``.
    """
    counts = np.zeros((1 + len(weights), len(first[0].per_image()["component_error"])))
    counts[:, taken] = np.vstack([np.ones(len(taken)), weights])
    scored = np.array([[one.weighted(key, counts) for one in method] for method in (first, second)])
    return scored[:, :, 0].mean(1).tolist(), scored[1] - scored[0]


def two_level_interval(
    values: np.ndarray, means: np.ndarray | None = None, level: float = 0.95
) -> tuple[float, float, float]:
    """Return an interval for the mean of values of crossed trainings and images, and the p value of mean 0.

    Args:
        values: float ``[S,N]``, at least two of each.
        means: of each training ``[S]``, where they are known better than by averaging; None averages.
        level: how often the interval should hold the mean.
    """
    trainings, images = values.shape
    means = values.mean(1) if means is None else means
    of_images = values.mean(0)
    rest = values - values.mean(1, keepdims=True) - of_images + values.mean()
    degrees = np.array([trainings - 1, images - 1, (trainings - 1) * (images - 1)])
    squares = [
        images * means.var(ddof=1),
        trainings * of_images.var(ddof=1),
        (rest**2).sum() / degrees[2],
    ]  # mean squares of trainings, of images, and of what is neither's
    squares = np.maximum(squares, squares[2])  # a level adds nothing, at the least
    parts = squares / values.size * [1, 1, -1]
    variance, mean = parts.sum(), float(means.mean())
    if not variance > 0:
        return mean, mean, float(mean == 0)
    freedom = variance**2 / (parts**2 / degrees).sum()
    half = stats.t.ppf((1 + level) / 2, freedom) * math.sqrt(variance)
    return mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / math.sqrt(variance), freedom))


def holm(p: Sequence[float]) -> list[float]:
    """Return p values of one family, corrected for their number.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian J. of Statistics 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, float)
    order = p.argsort(kind="stable")
    corrected = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return corrected[order.argsort()].tolist()


def read_differences(path: str | Path, base: str) -> dict[str, dict[str, Difference]]:
    """Return score → method → its difference to ``base``, from a table of ``notebooks/studies/baselines.py``.

    The table's columns are ``base`` and ``variant``, the first and the second method, and the fields of
    :class:`Difference`, with spaces between the differences of trainings.
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["base"] == base]
    found: dict[str, dict[str, Difference]] = {}
    for row in rows:
        numbers = (float(row[name]) for name in ("first", "second", "low", "high"))
        single = tuple(map(float, row["of_trainings"].split()))
        found.setdefault(row["score"], {})[row["variant"]] = Difference(row["score"], *numbers, single)
    return found


def pareto_front(points: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the names of the points that no other one beats: at least as good in all, better in one.

    Args:
        points: name → coordinates, of which more is better.

    >>> pareto_front({"a": (0.7, -1.0), "b": (0.8, -2.0), "c": (0.7, -1.5)})
    ['a', 'b']
    """

    def beaten(point) -> bool:
        others = (np.asarray(other) for other in points.values())
        return any((other >= point).all() and (other > point).any() for other in others)

    return [name for name, point in points.items() if not beaten(np.asarray(point))]

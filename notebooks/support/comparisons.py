"""Comparisons of methods that notebooks 05, 06 and 07 show, beside the plots of ``consensus_lib.viz``."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame

from consensus_lib.metrics.comparison import Difference, pareto_front
from consensus_lib.viz.plots import DOUBLE, MARKERS, SINGLE, panels_beside, rows_of


def forest_plot(
    panels: Mapping[str, Mapping[str, Difference]],
    higher: Sequence[bool],
    constant: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """Draw differences to a method with their intervals, a panel for each score, methods below each other.

    The interval of a filled mark excludes 0, that of a hollow one does not; small dots are the pairs of trainings. The side on which a
    method is better than what it is compared with is shaded.

    Args:
        panels: axis label → method → its difference.
        higher: for each panel, whether more is better.
        constant: axis label → method → difference of the constant prediction to the same, marked by a cross.
    """
    methods = list(next(iter(panels.values())))
    figure, axes = rows_of(len(panels), methods, 0.55)
    for axis, (quantity, found), more in zip(axes, panels.items(), higher, strict=True):
        for row, method in enumerate(methods):
            one = found[method]
            axis.plot(one.of_trainings, [row + 0.22] * len(one.of_trainings), ".", color="0.55", markersize=3)
            ends = [[max(0, one.mean - one.low)], [max(0, one.high - one.mean)]]  # a table's are rounded
            axis.errorbar(
                one.mean, row, xerr=ends, fmt="o", color="C0", markersize=4, capsize=2,
                markerfacecolor="C0" if one.excludes_zero else "white",
            )  # fmt: skip
            if constant and quantity in constant:
                axis.plot(constant[quantity][method], row, "x", color="0.3", markersize=5)
        axis.axvline(0, color="black", linewidth=0.6, linestyle="-", zorder=0)
        axis.margins(x=0.08)
        least, most = axis.get_xlim()
        axis.axvspan(*((0, max(most, 0)) if more else (min(least, 0), 0)), color="0.93", zorder=-1)
        axis.set(xlim=(least, most), xlabel=quantity)
    if constant:
        cross = plt.Line2D([], [], marker="x", color="0.3", linestyle="none", label="constant prediction")
        figure.legend(handles=[cross], loc="outside upper right")
    return figure


def difference_table(gains: Mapping[str, Mapping[str, Difference]]) -> DataFrame:
    """Return a row for each method: what changes, its interval, and a star where that excludes 0.

    Args:
        gains: score → method → its difference to another one.
    """
    return DataFrame(
        {
            key: {
                name: f"{one.mean:+.3f} ({one.low:+.3f} to {one.high:+.3f}){' *' * one.excludes_zero}"
                for name, one in found.items()
            }
            for key, found in gains.items()
        }
    )


def front(points: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> list[str]:
    """Return the methods on the Pareto front; ``points`` as those of :func:`pareto_plot`."""
    return pareto_front({name: (np.mean(x), -np.mean(y)) for name, (x, y) in points.items()})


def pareto_plot(
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str, ylabel: str
) -> Figure:
    """Draw methods by accuracy (more is better) and error of structure (less is), with the Pareto front.

    Args:
        points: method → its accuracies and its errors, one for each training.
        xlabel: what the accuracy is.
        ylabel: what the error is.
    """
    figure, axis = plt.subplots(layout="constrained", figsize=(DOUBLE, 3.0))
    means = {name: (float(np.mean(x)), float(np.mean(y))) for name, (x, y) in points.items()}
    best = front(points)
    for number, (name, (x, y)) in enumerate(points.items()):
        middle = means[name]
        xerr, yerr = (  # a mean of equal values can miss them by a rounding
            [[max(0, mid - min(values))], [max(0, max(values) - mid)]]
            for mid, values in zip(middle, (x, y), strict=True)
        )
        axis.errorbar(
            *middle, yerr, xerr, label=name, color=f"C{number % 7}", marker=MARKERS[number % len(MARKERS)],
            markersize=5, linestyle="none", elinewidth=0.5,
            markerfacecolor=None if name in best else "white",
        )  # fmt: skip
    steps = sorted(means[name] for name in best)
    axis.step(*zip(*steps, strict=True), where="pre", color="0.6", linewidth=0.8, linestyle="--", zorder=0)
    axis.set(xlabel=f"{xlabel}  (right is better)", ylabel=f"{ylabel}  (lower is better)")
    figure.legend(loc="outside right center")
    return figure


def heatmap(
    panels: Mapping[str, Mapping[tuple[float, float], tuple[float, float, int]]],
    xlabel: str,
    ylabel: str,
    higher: Sequence[bool],
) -> Figure:
    """Draw scores over a grid of two parameters: a cell for each pair, darker where the mean is better.

    A cell says mean ± standard deviation over repetitions, and their number.

    Args:
        panels: title → (x, y) → mean, standard deviation (NaN of one value) and number of values.
        xlabel, ylabel: the two parameters.
        higher: for each panel, whether more is better.
    """
    xs, ys = (sorted({cell[k] for cell in next(iter(panels.values()))}) for k in (0, 1))
    figure, axes = panels_beside(len(panels), 0.8 + 0.5 * len(ys), SINGLE if len(panels) == 1 else DOUBLE)
    for axis, (title, found), more in zip(axes, panels.items(), higher, strict=True):
        means = np.full((len(ys), len(xs)), np.nan)
        for (x, y), (mean, _, _) in found.items():
            means[ys.index(y), xs.index(x)] = mean
        shade = means if more else -means
        share = (shade - np.nanmin(shade)) / (np.nanmax(shade) - np.nanmin(shade) or 1)
        axis.imshow(0.1 + 0.6 * share, cmap="Greys", vmin=0, vmax=1, origin="lower", aspect="auto")
        for (x, y), (mean, spread, n) in found.items():
            column, row = xs.index(x), ys.index(y)
            text = f"{mean:.3f} ± {spread:.3f}\n$n$ = {n}" if n > 1 else f"{mean:.3f}\n$n$ = {n}"
            colour = "white" if share[row, column] > 0.6 else "black"
            axis.text(column, row, text if n else "none", ha="center", va="center", fontsize=6, color=colour)
        axis.set(xticks=range(len(xs)), xticklabels=[f"{x:g}" for x in xs], xlabel=xlabel)
        axis.set(yticks=range(len(ys)), yticklabels=[f"{y:g}" for y in ys], ylabel=ylabel)
        axis.set_title(f"{title} ({'more' if more else 'less'} is better: darker)", fontsize=7.5)
        axis.tick_params(length=0)
    return figure

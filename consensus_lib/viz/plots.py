"""Plots of scores, and the style of all figures. Functions take numbers and return a figure.

Column widths are in inches. ``panels`` maps the axis label of a panel to what the panel shows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from consensus_lib.metrics.comparison import Difference, pareto_front
from consensus_lib.paths import atomic

SINGLE, DOUBLE = 3.35, 7.0
"""Width of one column and of the page, in inches."""

MARKERS = (*"os^Dvp*X<>Pd", (4, 1, 0), (3, 1, 180), (6, 1, 0))
"""Markers that differ in greyscale too; the last three are stars with 4, 3 and 6 points."""

LIVE = {"loss": "training loss", "mean_iou": "mean IoU", "component_error": "component error"}
"""What :class:`LiveCurves` draws → the axis label."""

LINES = ("-", "--", "-.", ":", (0, (6, 1)), (0, (3, 1, 1, 1, 1, 1)))


def use_style() -> None:
    """Take the project's style for all figures that follow."""
    plt.style.use(Path(__file__).with_name("consensus.mplstyle"))


def savefig(figure: Figure, path: str | Path) -> None:
    """Write ``path.pdf`` and ``path.png``, with the same bytes for the same figure."""
    undated = {".pdf": dict.fromkeys(("CreationDate", "Producer", "Creator")), ".png": {"Software": None}}
    for suffix, metadata in undated.items():
        with atomic(Path(path).with_suffix(suffix)) as part:
            figure.savefig(part, metadata=metadata)


def show(figure: Figure) -> None:
    """Display a figure in the notebook and close it."""
    from IPython.display import display

    display(figure)
    plt.close(figure)


def bar_chart(panels: Mapping[str, Mapping[str, Sequence[float]]], names: Sequence[str]) -> Figure:
    """Draw bars with their values, a panel for each quantity.

    Args:
        panels: axis label → series → one value for each name. A panel with several series has a legend.
        names: what the bars stand for, along the horizontal axis.
    """
    figure, axes = _panels(len(panels), 2.0)
    for axis, (quantity, series) in zip(axes, panels.items(), strict=True):
        width = 0.8 / len(series)
        for g, (label, values) in enumerate(series.items()):
            x = np.arange(len(names)) + (g - (len(series) - 1) / 2) * width
            look = {"hatch": ("", "///", "...", "xxx")[g % 4], "edgecolor": "white", "linewidth": 0.3}
            drawn = axis.bar(x, values, width, label=label, **look)
            texts = [f"{v:.0f}" if abs(v) >= 100 else f"{v:.3g}" for v in values]
            axis.bar_label(drawn, texts, fontsize=6, padding=1)
        axis.set(xticks=range(len(names)), xticklabels=names, ylabel=quantity)
        axis.margins(y=0.12)
        if len(series) > 1:
            axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(series))
    return figure


def dot_plot(
    panels: Mapping[str, Mapping[str, Sequence[float]]], constant: Mapping[str, float] | None = None
) -> Figure:
    """Draw scores of several trainings: a dot for each, a tick at their mean, methods below each other.

    Args:
        panels: axis label → method → one value for each training. The methods are those of the first panel;
            a thin line follows the mean of the first method, to compare with.
        constant: axis label → score of the constant prediction, to mark.
    """
    methods = list(next(iter(panels.values())))
    figure, axes = _rows(len(panels), methods, 0.5)
    for axis, (quantity, values) in zip(axes, panels.items(), strict=True):
        for row, method in enumerate(methods):
            axis.plot(values[method], [row] * len(values[method]), "o", color="C0", markersize=3.5, alpha=0.7)
            axis.plot(np.mean(values[method]), row, "|", color="black", markersize=10, markeredgewidth=1.4)
        axis.axvline(np.mean(values[methods[0]]), color="0.8", linewidth=0.6, zorder=0)
        if constant and quantity in constant:
            axis.axvline(constant[quantity], color="0.4", linewidth=0.8, linestyle=":")
            at = {"xy": (constant[quantity], 1), "xycoords": ("data", "axes fraction")}
            axis.annotate("constant", **at, ha="center", va="bottom", fontsize=6.5, color="0.3")
        axis.set_xlabel(quantity)
        axis.margins(x=0.08)
    return figure


def errorbar_plot(
    panels: Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]],
    xlabel: str,
    *,
    names: Mapping[float, str] | None = None,
    constant: Mapping[str, float] | None = None,
) -> Figure:
    """Draw scores against an amount: a line through the means, a bar from the least to the largest value.

    Args:
        panels: axis label → series → amount → one value for each repetition.
        xlabel: what the amount is.
        names: amount → its name; amounts then stand at equal distances, in this order. A series with one
            amount is a marker without a line.
        constant: axis label → score of the constant prediction, to mark.
    """
    figure, axes = _panels(len(panels), 2.3)
    series = next(iter(panels.values()))
    places = {amount: place for place, amount in enumerate(names)} if names else None
    for axis, (quantity, lines) in zip(axes, panels.items(), strict=True):
        for number, (name, values) in enumerate(lines.items()):
            x = np.array([places[amount] if places else amount for amount in values], float)
            reach = len(places) if places else x.max() - x.min() or 1
            x += (number - (len(lines) - 1) / 2) * reach * 0.014  # side by side, so that bars do not hide
            means = np.array([np.mean(found) for found in values.values()])
            ends = np.array([(min(found), max(found)) for found in values.values()]).T
            axis.errorbar(
                x, means, abs(ends - means), label=name, marker=MARKERS[number % len(MARKERS)],
                markersize=3.5, capsize=1.5, elinewidth=0.7, color=f"C{number % 7}",
                linestyle=LINES[number % len(LINES)],
            )  # fmt: skip
        if constant and quantity in constant:
            axis.axhline(constant[quantity], color="0.4", linewidth=0.8, linestyle=":")
        axis.set(xlabel=xlabel, ylabel=quantity)
        if names:
            axis.set(xticks=range(len(names)), xticklabels=names.values())
    if len(series) > 1:
        figure.set_figheight(2.3 + 0.17 * -(-len(series) // (2 * len(panels))))
        entries = axes[0].get_legend_handles_labels()
        figure.legend(*entries, loc="outside upper center", ncols=2 * len(panels))
    return figure


def forest_plot(panels: Mapping[str, Mapping[str, Difference]], higher: Sequence[bool]) -> Figure:
    """Draw differences to a method with their intervals, a panel for each score, methods below each other.

    A filled mark is decided, a hollow one not; small dots are the pairs of trainings. The side on which a
    method is better than what it is compared with is shaded.

    Args:
        panels: axis label → method → its difference.
        higher: for each panel, whether more is better.
    """
    methods = list(next(iter(panels.values())))
    figure, axes = _rows(len(panels), methods, 0.55)
    for axis, (quantity, found), more in zip(axes, panels.items(), higher, strict=True):
        for row, method in enumerate(methods):
            one = found[method]
            axis.plot(one.of_trainings, [row + 0.22] * len(one.of_trainings), ".", color="0.55", markersize=3)
            ends = [[max(0, one.mean - one.low)], [max(0, one.high - one.mean)]]  # a table's are rounded
            axis.errorbar(
                one.mean, row, xerr=ends, fmt="o", color="C0", markersize=4, capsize=2,
                markerfacecolor="C0" if one.decided else "white",
            )  # fmt: skip
        axis.axvline(0, color="black", linewidth=0.6, linestyle="-", zorder=0)
        axis.margins(x=0.08)
        least, most = axis.get_xlim()
        axis.axvspan(*((0, max(most, 0)) if more else (min(least, 0), 0)), color="0.93", zorder=-1)
        axis.set(xlim=(least, most), xlabel=quantity)
    return figure


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
    best = pareto_front({name: (x, -y) for name, (x, y) in means.items()})
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
    figure, axes = _panels(len(panels), 0.8 + 0.5 * len(ys), SINGLE if len(panels) == 1 else DOUBLE)
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


def curves(
    histories: Mapping[str, Sequence[Sequence[Mapping]]],
    keys: Mapping[str, str],
    *,
    x: str = "seconds",
    xlabel: str = "training time, s",
    constant: Mapping[str, float] | None = None,
    logarithmic: Sequence[str] = ("component_error", "holes"),
) -> Figure:
    """Draw scores over training: the mean over seeds as a line, their range as a band.

    Args:
        histories: name of a method → its trainings, one list of epochs for each seed.
        keys: score → its axis label; one panel each.
        x: the key of the horizontal axis, averaged over seeds.
        xlabel: its label.
        constant: score → that of the constant prediction, to mark.
        logarithmic: scores that fall over orders of magnitude; their axis is logarithmic, as in the
            paper's Fig. 4b, unless a value is 0.
    """
    figure, axes = _panels(len(keys), 2.1, single=2.5)
    for axis, (key, label) in zip(axes, keys.items(), strict=True):
        least = np.inf
        for name, runs in histories.items():
            scored = [[row for row in run if key in row] for run in runs]
            length = min(map(len, scored))
            least = min([least, *(row[key] for run in scored for row in run)])
            across = np.mean([[row[x] for row in run[:length]] for run in scored], axis=0)
            values = np.array([[row[key] for row in run[:length]] for run in scored])  # [seeds, epochs]
            look = {"marker": "." if length < 30 else None, "markersize": 3}
            (line,) = axis.plot(across, values.mean(0), label=name, **look)
            if len(values) > 1:
                band = {"color": line.get_color(), "alpha": 0.2, "linewidth": 0}
                axis.fill_between(across, values.min(0), values.max(0), **band)
        if key in logarithmic and least > 0:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("")
        if constant and key in constant:
            axis.axhline(constant[key], color="0.4", linewidth=0.8, linestyle=":")
            at = {"xy": (1, constant[key]), "xycoords": ("axes fraction", "data")}
            axis.annotate("constant", **at, ha="right", va="bottom", fontsize=6.5, color="0.3")
        axis.set(xlabel=xlabel, ylabel=label)
    if len(histories) > 1:
        axes[0].legend()
    return figure


class LiveCurves:
    """Redraw the loss and two scores after each epoch, in place. Hand it to ``fit(on_epoch=...)``.

    Args:
        epochs: how many there will be, for the horizontal axis.
        keys: what to draw → the axis label; None draws :data:`LIVE`.
    """

    def __init__(self, epochs: int, keys: Mapping[str, str] | None = None):
        self.epochs = epochs
        self.keys = keys or LIVE
        self._display = None

    def __call__(self, history: Sequence[Mapping]) -> None:
        """Redraw from the epochs so far."""
        from IPython.display import display

        keys = {key: label for key, label in self.keys.items() if any(key in row for row in history)}
        figure = curves({"": [history]}, keys, x="epoch", xlabel="epoch")
        left = history[-1]["seconds"] / history[-1]["epoch"] * (self.epochs - history[-1]["epoch"])
        figure.suptitle(f"epoch {history[-1]['epoch']} of {self.epochs}, about {left:.0f} s left", fontsize=8)
        for axis in figure.axes:
            axis.set_xlim(0.5, self.epochs + 0.5)
        if self._display is None:
            self._display = display(figure, display_id=True)
        else:
            self._display.update(figure)
        plt.close(figure)


def _panels(count: int, height: float, single: float = SINGLE) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with panels side by side, each ``single`` inches wide while the page has room."""
    size = (min(DOUBLE, single * count), height)
    figure, axes = plt.subplots(1, count, squeeze=False, layout="constrained", figsize=size)
    return figure, axes[0]


def _rows(count: int, methods: Sequence[str], height: float) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with panels side by side that share one row for each method, the first on top."""
    size = (DOUBLE if count > 1 else SINGLE, height + 0.2 * len(methods))
    figure, axes = plt.subplots(1, count, sharey=True, squeeze=False, layout="constrained", figsize=size)
    axes[0][0].set(yticks=range(len(methods)), yticklabels=methods, ylim=(len(methods) - 0.5, -0.5))
    return figure, axes[0]

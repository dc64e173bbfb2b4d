"""Plots of scores, and the style of all figures. Functions take numbers and return a figure.

Column widths are in inches. ``panels`` maps the axis label of a panel to what the panel shows.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

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


def show(figure: Figure, alt: str = "", kind: str = "png") -> None:
    """Display a figure in the notebook, and close it.

    Args:
        figure: what to show.
        alt: its alternative text.
        kind: ``"png"``; ``"jpeg"``, several times smaller for photographs; or ``"svg"`` for drawings, with a
            PNG beside it for readers that do not trust an SVG.
    """
    from IPython.display import display

    if kind == "png":
        display(figure, metadata={"image/png": {"alt": alt}} if alt else None)
        return plt.close(figure)

    def encoded(kind, **options):
        file = io.BytesIO()
        figure.savefig(file, format=kind, **options)
        return base64.b64encode(file.getvalue()).decode()

    data = {"text/plain": alt}
    if kind == "jpeg":
        data["image/jpeg"] = encoded("jpeg", dpi=100, pil_kwargs={"quality": 85, "subsampling": 0})
    else:
        vector = io.StringIO()
        with plt.rc_context({"svg.fonttype": "none", "savefig.bbox": None}):
            figure.savefig(vector, format="svg", metadata={"Date": None})
            data |= {"image/svg+xml": vector.getvalue(), "image/png": encoded("png", dpi=150)}
    plt.close(figure)
    about = {name: {"alt": alt} for name in data if name.startswith("image/")}
    display(data, metadata=about, raw=True)


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
    figure, axes = rows_of(len(panels), methods, 0.5)
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
    figure, axes = panels_beside(len(panels), 2.3)
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
            paper's Fig. 4b, unless a value, or the constant prediction's, is 0.
    """
    figure, axes = panels_beside(len(keys), 2.1, single=2.5)
    for axis, (key, label) in zip(axes, keys.items(), strict=True):
        least = np.inf if constant is None else constant.get(key, np.inf)
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
    if len(histories) > 3:  # in a panel they would cover its lines
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    elif len(histories) > 1:
        axes[0].legend()
    return figure


class LiveCurves:
    """Redraw the loss and two scores after each epoch, in place. Hand it to ``fit(on_epoch=...)``.

    Args:
        epochs: how many there will be, for the horizontal axis.
        keys: what to draw → the axis label; None draws :data:`LIVE`.
        title: what is trained, for the heading.
    """

    def __init__(self, epochs: int, keys: Mapping[str, str] | None = None, title: str = "training"):
        self.epochs, self.title = epochs, title
        self.keys = keys or LIVE
        self._display = None

    @property
    def drawn(self) -> bool:
        """Whether there is a picture yet."""
        return self._display is not None

    def __call__(self, history: Sequence[Mapping]) -> None:
        """Redraw from the epochs so far."""
        from IPython.display import display

        keys = {key: label for key, label in self.keys.items() if any(key in row for row in history)}
        figure = curves({"": [history]}, keys, x="epoch", xlabel="epoch")
        done = history[-1]["epoch"]
        left = history[-1]["seconds"] / done * (self.epochs - done)
        state = f"epoch {done} of {self.epochs}"
        state += f", about {left:.0f} s left" if done < self.epochs else ""
        figure.suptitle(f"{self.title}: {state}", fontsize=8)
        for axis in figure.axes:
            axis.set_xlim(0.5, self.epochs + 0.5)
        said = f"{self.title}, {state}: {', '.join(keys.values())} against the epoch"
        about = {"metadata": {"image/png": {"alt": said}}}
        if not self.drawn:
            self._display = display(figure, display_id=True, **about)
        else:
            self._display.update(figure, **about)
        plt.close(figure)


def panels_beside(count: int, height: float, single: float = SINGLE) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with panels side by side, each ``single`` inches wide while the page has room."""
    size = (min(DOUBLE, single * count), height)
    figure, axes = plt.subplots(1, count, squeeze=False, layout="constrained", figsize=size)
    return figure, axes[0]


def rows_of(count: int, methods: Sequence[str], height: float) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with panels side by side that share one row for each method, the first on top."""
    size = (DOUBLE if count > 1 else SINGLE, height + 0.2 * len(methods))
    figure, axes = plt.subplots(1, count, sharey=True, squeeze=False, layout="constrained", figsize=size)
    axes[0][0].set(yticks=range(len(methods)), yticklabels=methods, ylim=(len(methods) - 0.5, -0.5))
    return figure, axes[0]

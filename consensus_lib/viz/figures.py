"""Every picture of the project. Functions take arrays and return a figure; none trains or reads data.

Column widths are in inches. Colours come from the task, so that a class looks the same everywhere.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogLocator

from consensus_lib import IGNORE
from consensus_lib.metrics.comparison import Difference, pareto_front
from consensus_lib.paths import atomic
from consensus_lib.teacher.factorise import Factorised

SINGLE, DOUBLE = 3.35, 7.0
"""Width of one column and of the page, in inches."""

MARKERS = (*"os^Dvp*X<>Pd", (4, 1, 0), (3, 1, 180), (6, 1, 0))
"""Shapes that differ in grey, too; the last are stars by their points."""

Colours = Sequence[tuple[int, int, int]]


def use_style() -> None:
    """Take the project's style for all figures that follow."""
    plt.style.use(Path(__file__).with_name("consensus.mplstyle"))


def savefig(figure: Figure, path: str | Path) -> None:
    """Write ``path.pdf`` and ``path.png``, with the same bytes for the same figure."""
    for suffix, metadata in (
        (".pdf", {"CreationDate": None, "Producer": None, "Creator": None}),
        (".png", {"Software": None}),
    ):
        with atomic(Path(path).with_suffix(suffix)) as part:
            figure.savefig(part, metadata=metadata)


def show(figure: Figure) -> None:
    """Display a figure in the notebook and close it."""
    from IPython.display import display

    display(figure)
    plt.close(figure)


def picture(image) -> np.ndarray:
    """Bring an image ``[3,H,W]`` in [-1, 1], as a data set serves it, to ``[H,W,3]`` in [0, 1]."""
    return (np.moveaxis(np.asarray(image), 0, -1) + 1) / 2


def colour_labels(labels: np.ndarray, colours: Colours) -> np.ndarray:
    """Return label maps ``[...,H,W]`` as uint8 RGB ``[...,H,W,3]``; ignored pixels are white."""
    table = np.full((256, 3), 255, np.uint8)
    table[: len(colours)] = colours
    return table[np.asarray(labels).astype(np.uint8)]


def luminance(colour) -> float:
    """Return how light a colour is to the eye, 0 to 1 (WCAG 2.2): what greyscale leaves of it.

    Args:
        colour: red, green and blue, 0 to 255.

    >>> round(luminance((255, 255, 255)), 3), round(luminance((86, 180, 233)), 3)
    (1.0, 0.405)
    """
    share = np.asarray(colour, float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def overlay(image: np.ndarray, labels: np.ndarray, colours: Colours, opacity: float = 0.5) -> np.ndarray:
    """Lay the colours of the classes over an image; class 0 and ignored pixels stay as they are.

    Args:
        image: float ``[H,W,3]`` in [0, 1].
        labels: integer ``[H,W]``.
        colours: one for each class.
        opacity: of the colours, 0 to 1.

    Returns:
        float ``[H,W,3]`` in [0, 1].
    """
    marked = ((labels > 0) & (labels != IGNORE))[..., None]
    return np.where(marked, (1 - opacity) * image + opacity * colour_labels(labels, colours) / 255, image)


def colour_components(components: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Colour each component apart, the largest first and in calm colours, the background black.

    Args:
        components: integer ``[H,W]``, component numbers.
        background: bool ``[H,W]``.

    Returns:
        uint8 ``[H,W,3]``.
    """
    ids, inverse, counts = np.unique(components, return_inverse=True, return_counts=True)
    rank = np.empty(len(ids), int)
    rank[np.argsort(-counts)] = np.arange(len(ids))
    palette = (plt.get_cmap("tab20")(np.arange(1, 21) % 20)[:, :3] * 255).astype(np.uint8)
    rgb = palette[rank[inverse.reshape(components.shape)] % 20]
    rgb[background] = 0
    return rgb


def grid(
    rows: Sequence[Sequence[np.ndarray]],
    *,
    titles: Sequence[str] = (),
    labels: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    width: float = DOUBLE,
) -> Figure:
    """Show pictures in rows and columns.

    Args:
        rows: pictures ``[H,W]`` or ``[H,W,3]``, row by row.
        titles: one above each column.
        labels: one before each row.
        captions: a short text below each picture, row by row.
        width: of the figure, inches.
    """
    columns = max(map(len, rows))
    side = width / columns
    figure, axes = plt.subplots(
        len(rows),
        columns,
        squeeze=False,
        layout="constrained",
        figsize=(width, len(rows) * (side + (0.14 if captions else 0)) + 0.2 * bool(titles)),
    )
    for r, row in enumerate(axes):
        for c, axis in enumerate(row):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if c < len(rows[r]):
                axis.imshow(rows[r][c], vmin=0, vmax=1 if rows[r][c].dtype.kind == "f" else None)
            if captions and c < len(captions[r]):
                axis.set_xlabel(captions[r][c], fontsize=6.5, labelpad=1.5)
        if labels:
            row[0].set_ylabel(labels[r])
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, pad=2)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    return figure


def class_legend(figure: Figure, classes: Sequence[str], colours: Colours) -> Figure:
    """Add a legend of classes below a figure, in space of its own."""
    columns = min(6, len(classes))
    figure.set_figheight(figure.get_figheight() + 0.17 * -(-len(classes) // columns) + 0.08)
    patches = _class_patches(classes, colours)
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, handlelength=1.0)
    return figure


def _class_patches(classes: Sequence[str], colours: Colours) -> list[Patch]:
    return [
        Patch(facecolor=np.array(colour) / 255, edgecolor="0.5", linewidth=0.5, label=name)
        for name, colour in zip(classes, colours, strict=True)
    ]


def bars(panels: Mapping[str, Mapping[str, Sequence[float]]], names: Sequence[str]) -> Figure:
    """Draw bars with their values, a panel for each quantity.

    Args:
        panels: axis label → series → one value for each name. A panel with several series has a legend.
        names: what the bars stand for, along the horizontal axis.
    """
    figure, axes = plt.subplots(
        1, len(panels), squeeze=False, layout="constrained", figsize=(min(DOUBLE, SINGLE * len(panels)), 2.0)
    )
    for axis, (quantity, series) in zip(axes[0], panels.items(), strict=True):
        width = 0.8 / len(series)
        for g, (label, values) in enumerate(series.items()):
            drawn = axis.bar(
                np.arange(len(names)) + (g - (len(series) - 1) / 2) * width,
                values,
                width,
                label=label,
                hatch=("", "///", "...", "xxx")[g % 4],
                edgecolor="white",
                linewidth=0.3,
            )
            texts = [f"{v:.0f}" if abs(v) >= 100 else f"{v:.3g}" for v in values]
            axis.bar_label(drawn, texts, fontsize=6, padding=1)
        axis.set(xticks=range(len(names)), xticklabels=names, ylabel=quantity)
        axis.margins(y=0.12)
        if len(series) > 1:
            axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(series))
    return figure


def strips(
    panels: Mapping[str, Mapping[str, Sequence[float]]], floors: Mapping[str, float] | None = None
) -> Figure:
    """Draw scores of several trainings: a dot for each, a tick at their mean, methods below each other.

    Args:
        panels: axis label → method → one value for each training. The methods are those of the first panel;
            a thin line follows the mean of the first method, to compare with.
        floors: axis label → a value to mark as the floor.
    """
    methods = list(next(iter(panels.values())))
    figure, axes = plt.subplots(
        1, len(panels), sharey=True, squeeze=False, layout="constrained",
        figsize=(DOUBLE if len(panels) > 1 else SINGLE, 0.5 + 0.2 * len(methods)),
    )  # fmt: skip
    for axis, (quantity, values) in zip(axes[0], panels.items(), strict=True):
        for row, method in enumerate(methods):
            axis.plot(values[method], [row] * len(values[method]), "o", color="C0", markersize=3.5, alpha=0.7)
            axis.plot(np.mean(values[method]), row, "|", color="black", markersize=10, markeredgewidth=1.4)
        axis.axvline(np.mean(values[methods[0]]), color="0.8", linewidth=0.6, zorder=0)
        if floors and quantity in floors:
            axis.axvline(floors[quantity], color="0.4", linewidth=0.8, linestyle=":")
            axis.annotate(
                "floor", (floors[quantity], 1), xycoords=("data", "axes fraction"), ha="center", va="bottom",
                fontsize=6.5, color="0.3",
            )  # fmt: skip
        axis.set(yticks=range(len(methods)), yticklabels=methods, xlabel=quantity)
        axis.margins(x=0.08)
    axes[0][0].set_ylim(len(methods) - 0.5, -0.5)
    return figure


def against(
    panels: Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]],
    xlabel: str,
    *,
    names: Mapping[float, str] | None = None,
    floors: Mapping[str, float] | None = None,
) -> Figure:
    """Draw scores against an amount: a line through the means, a bar from the least to the largest value.

    Args:
        panels: axis label → series → amount → one value for each repetition.
        xlabel: what the amount is.
        names: amount → its name; amounts then stand at equal distances, in this order. A series with one
            amount is a marker without a line.
        floors: axis label → a value to mark as the floor.
    """
    figure, axes = plt.subplots(
        1, len(panels), squeeze=False, layout="constrained", figsize=(min(DOUBLE, SINGLE * len(panels)), 2.3)
    )
    series = next(iter(panels.values()))
    places = {amount: place for place, amount in enumerate(names)} if names else None
    for axis, (quantity, lines) in zip(axes[0], panels.items(), strict=True):
        for number, (name, values) in enumerate(lines.items()):
            x = np.array([places[amount] if places else amount for amount in values], float)
            reach = len(places) if places else x.max() - x.min() or 1
            x += (number - (len(lines) - 1) / 2) * reach * 0.014  # side by side, so that bars do not hide
            means = np.array([np.mean(found) for found in values.values()])
            ends = np.array([(min(found), max(found)) for found in values.values()]).T
            line = ("-", "--", "-.", ":", (0, (6, 1)), (0, (3, 1, 1, 1, 1, 1)))[number % 6]
            axis.errorbar(
                x, means, abs(ends - means), label=name, marker=MARKERS[number % len(MARKERS)],
                markersize=3.5, capsize=1.5, elinewidth=0.7, color=f"C{number % 7}", linestyle=line,
            )  # fmt: skip
        if floors and quantity in floors:
            axis.axhline(floors[quantity], color="0.4", linewidth=0.8, linestyle=":")
        axis.set(xlabel=xlabel, ylabel=quantity)
        if names:
            axis.set(xticks=range(len(names)), xticklabels=names.values())
    if len(series) > 1:
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.set_figheight(2.3 + 0.17 * -(-len(series) // (2 * len(panels))))
        figure.legend(handles, labels, loc="outside upper center", ncols=2 * len(panels))
    return figure


def intervals(panels: Mapping[str, Mapping[str, Difference]], higher: Sequence[bool]) -> Figure:
    """Draw differences to a method with their intervals, a panel for each score, methods below each other.

    A filled mark is decided, a hollow one not; small dots are the pairs of trainings. The side on which a
    method is better than what it is compared with is shaded.

    Args:
        panels: axis label → method → its difference.
        higher: for each panel, whether more is better.
    """
    methods = list(next(iter(panels.values())))
    figure, axes = plt.subplots(
        1, len(panels), sharey=True, squeeze=False, layout="constrained",
        figsize=(DOUBLE if len(panels) > 1 else SINGLE, 0.55 + 0.2 * len(methods)),
    )  # fmt: skip
    for axis, (quantity, found), more in zip(axes[0], panels.items(), higher, strict=True):
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
        axis.set(xlim=(least, most), yticks=range(len(methods)), yticklabels=methods, xlabel=quantity)
    axes[0][0].set_ylim(len(methods) - 0.5, -0.5)
    return figure


def front(points: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str, ylabel: str) -> Figure:
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
        style = {"color": f"C{number % 7}", "markersize": 5, "linestyle": "none"}
        style |= {"marker": MARKERS[number % len(MARKERS)]}
        middle = means[name]
        # A mean of equal values can miss them by a rounding.
        spread = {
            key: [[max(0, mid - min(values))], [max(0, max(values) - mid)]]
            for key, mid, values in zip(("xerr", "yerr"), middle, (x, y), strict=True)
        }
        axis.errorbar(
            *middle, **spread, **style, elinewidth=0.5, label=name,
            markerfacecolor=None if name in best else "white",
        )  # fmt: skip
    steps = sorted(means[name] for name in best)
    axis.step(*zip(*steps, strict=True), where="pre", color="0.6", linewidth=0.8, linestyle="--", zorder=0)
    axis.set(xlabel=f"{xlabel}  (right is better)", ylabel=f"{ylabel}  (lower is better)")
    figure.legend(loc="outside right center")
    return figure


def maps(
    panels: Mapping[str, Mapping[tuple[float, float], tuple[float, float, int]]],
    xlabel: str,
    ylabel: str,
    higher: Sequence[bool],
) -> Figure:
    """Draw scores over a grid of two parameters: a cell for each pair, darker where the mean is better.

    Each cell says its mean, the standard deviation over repetitions, and their number.

    Args:
        panels: title → (x, y) → mean, standard deviation (NaN of one value) and number of values.
        xlabel, ylabel: the two parameters.
        higher: for each panel, whether more is better.
    """
    cells = next(iter(panels.values()))
    xs, ys = (sorted({cell[k] for cell in cells}) for k in (0, 1))
    figure, axes = plt.subplots(
        1, len(panels), squeeze=False, layout="constrained",
        figsize=(DOUBLE if len(panels) > 1 else SINGLE, 0.8 + 0.5 * len(ys)),
    )  # fmt: skip
    for axis, (title, found), more in zip(axes[0], panels.items(), higher, strict=True):
        means = np.full((len(ys), len(xs)), np.nan)
        for (x, y), (mean, _, _) in found.items():
            means[ys.index(y), xs.index(x)] = mean
        shade = means if more else -means
        low, high = np.nanmin(shade), np.nanmax(shade)
        share = (shade - low) / (high - low or 1)
        axis.imshow(0.1 + 0.6 * share, cmap="Greys", vmin=0, vmax=1, origin="lower", aspect="auto")
        for (x, y), (mean, spread, n) in found.items():
            column, row = xs.index(x), ys.index(y)
            text = f"{mean:.3f} ± {spread:.3f}\n$n$ = {n}" if n > 1 else f"{mean:.3f}\n$n$ = {n}"
            axis.text(
                column, row, text if n else "none", ha="center", va="center", fontsize=6,
                color="white" if share[row, column] > 0.6 else "black",
            )  # fmt: skip
        axis.set(xticks=range(len(xs)), xticklabels=[f"{x:g}" for x in xs], xlabel=xlabel)
        axis.set(yticks=range(len(ys)), yticklabels=[f"{y:g}" for y in ys], ylabel=ylabel)
        axis.set_title(f"{title} ({'more' if more else 'less'} is better: darker)", fontsize=7.5)
        axis.tick_params(length=0)
    return figure


def histograms(panels: Mapping[str, Sequence[float]], limits: Mapping[str, Sequence[float]]) -> Figure:
    """Draw how values are spread, one panel each.

    Args:
        panels: axis label → values.
        limits: axis label → values to mark with a dashed line, such as those of a rule.
    """
    figure, axes = plt.subplots(
        1, len(panels), squeeze=False, layout="constrained", figsize=(min(DOUBLE, SINGLE * len(panels)), 1.8)
    )
    for axis, (quantity, values) in zip(axes[0], panels.items(), strict=True):
        axis.hist(np.asarray(values), bins=24, color="0.7", edgecolor="white", linewidth=0.3)
        for limit in limits.get(quantity, ()):
            axis.axvline(limit, color="#D55E00", linewidth=1, linestyle="--")
        axis.set(xlabel=quantity, ylabel="images")
    return figure


def factorisation(image: np.ndarray, contour: np.ndarray, found: Factorised, colours: Colours) -> Figure:
    """Draw the steps from a face to its occlusions, as in the paper's Fig. 2.

    Args:
        image: uint8 ``[H,W,3]``.
        contour: float ``[P,2]``, (x, y) in pixels, of the complete face.
        found: the steps.
        colours: of background, face and occlusion.
    """
    figure, axes = plt.subplots(2, 5, layout="constrained", figsize=(DOUBLE, 3.1))
    hidden = np.where(found.ids > 1, found.ids, 0)
    seen, covering = (np.where(mask[..., None], image, 255) for mask in (found.labels == 1, hidden > 0))
    signed = np.full((*found.face.shape, 3), 255, np.uint8)
    signed[found.extent & found.face] = 225
    signed[found.difference > 0], signed[found.difference < 0] = (0, 90, 160), (245, 140, 110)
    panels = {
        "photo and contour": image,
        "extent: its hull": found.extent.astype(float),
        "teacher's face": found.face.astype(float),
        "residual, with signs": signed,
        "cleaned": found.cleaned.astype(float),
        "face and components": colour_labels(np.minimum(found.ids, 9), _components(colours)),
        "labels": colour_labels(found.labels, colours),
        "face, cut out": seen,
        "occlusions, cut out": covering,
    }
    for axis, (title, picture) in zip(axes.flat, panels.items(), strict=False):
        axis.imshow(picture, vmin=0, vmax=1 if picture.dtype.kind == "f" else None)
        axis.set_title(title, pad=2)
    closed = np.vstack([contour, contour[:1]]) - 0.5  # a pixel's centre is its number here
    axes[0, 0].plot(*closed.T, color="white", linewidth=2)
    axes[0, 0].plot(*closed.T, color="black", linewidth=0.8, linestyle="--")
    axes[0, 0].set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    styles = ((1, "////", "#9ecae1", "+1: hidden"), (-1, "....", "#7f1d00", "−1: dropped"))
    for sign, hatch, colour, _ in styles:  # signs can be told without colours
        with plt.rc_context({"hatch.color": colour, "hatch.linewidth": 0.6}):
            mask = (found.difference == sign).astype(float)
            axes[0, 3].contourf(mask, levels=[0.5, 1.5], colors="none", hatches=[hatch])
    for number in range(2, found.ids.max() + 1):
        y, x = np.argwhere(found.ids == number).mean(0)
        style = {
            "ha": "center",
            "va": "center",
            "fontsize": 7,
            "bbox": {"fc": "white", "ec": "none", "pad": 0.8},
        }
        axes[1, 0].text(x, y - 0.07 * len(found.ids), str(number), **style)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(visible=True, color="0.8")
    axes[1, 4].set_axis_off()
    keys = [
        Patch(facecolor=np.array(face) / 255, edgecolor=edge, hatch=hatch, linewidth=0.5, label=label)
        for face, (_, hatch, edge, label) in zip(((0, 90, 160), (245, 140, 110)), styles, strict=True)
    ]
    keys += _class_patches(("background", "face", "occlusion"), colours)
    axes[1, 4].legend(handles=keys, loc="center left", handlelength=1.6, handleheight=1.1)
    return figure


def _components(colours: Colours) -> Colours:
    """Return colours of background, face and components from 2, apart from one another in greyscale."""
    return [
        *colours[:2],
        *((240, 228, 66), (213, 94, 0), (255, 255, 255), (0, 158, 115), (204, 121, 167)) * 2,
    ]


def curves(
    histories: Mapping[str, Sequence[Sequence[Mapping]]],
    keys: Mapping[str, str],
    *,
    x: str = "seconds",
    xlabel: str = "training time, s",
    floors: Mapping[str, float] | None = None,
    logarithmic: Sequence[str] = ("component_error", "holes"),
) -> Figure:
    """Draw scores over training: the mean over seeds as a line, their range as a band.

    Args:
        histories: name of a method → its trainings, one list of epochs for each seed.
        keys: score → its axis label; one panel each.
        x: the key of the horizontal axis, averaged over seeds.
        xlabel: its label.
        floors: score → a value to mark as the floor.
        logarithmic: scores that fall over orders of magnitude; their axis is logarithmic, as in the
            paper's Fig. 4b, unless a value is 0.
    """
    figure, axes = plt.subplots(
        1, len(keys), squeeze=False, layout="constrained", figsize=(min(DOUBLE, 2.5 * len(keys)), 2.1)
    )
    for axis, (key, label) in zip(axes[0], keys.items(), strict=True):
        for name, runs in histories.items():
            scored = [[row for row in run if key in row] for run in runs]
            length = min(map(len, scored))
            across = np.mean([[row[x] for row in run[:length]] for run in scored], axis=0)
            values = np.array([[row[key] for row in run[:length]] for run in scored])  # [seeds, epochs]
            (line,) = axis.plot(
                across, values.mean(0), label=name, marker="." if length < 30 else None, markersize=3
            )
            if len(values) > 1:
                axis.fill_between(
                    across, values.min(0), values.max(0), color=line.get_color(), alpha=0.2, linewidth=0
                )
        if key in logarithmic and all(
            row[key] > 0 for runs in histories.values() for run in runs for row in run if key in row
        ):
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("")
        if floors and key in floors:
            axis.axhline(floors[key], color="0.4", linewidth=0.8, linestyle=":")
            axis.annotate(
                "floor",
                (1, floors[key]),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                fontsize=6.5,
                color="0.3",
            )
        axis.set(xlabel=xlabel, ylabel=label)
    if len(histories) > 1:
        axes[0][0].legend()
    return figure


class LiveCurves:
    """Redraw the loss and two scores after each epoch, in place. Hand it to ``fit(on_epoch=...)``.

    Args:
        epochs: how many there will be, for the horizontal axis.
        keys: what to draw → the axis label.
    """

    def __init__(self, epochs: int, keys: Mapping[str, str] | None = None):
        self.epochs = epochs
        self.keys = keys or {
            "loss": "training loss",
            "mean_iou": "mean IoU",
            "component_error": "components off",
        }
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


def network(shapes: Sequence[tuple[str, tuple[int, int, int]]], branch: slice) -> Figure:
    """Draw a network as a row of boxes: height is the resolution, width the number of channels.

    Args:
        shapes: name and (channels, height, width) of each block's output, from input to logits.
        branch: which of them form the side branch; drawn below the main line and joined to it again.
    """
    figure, axis = plt.subplots(figsize=(DOUBLE, 1.9), layout="constrained")
    top = max(height for _, (_, height, _) in shapes)
    inside = range(*branch.indices(len(shapes)))
    boxes, right = [], 0.0
    for index, (name, (channels, height, _)) in enumerate(shapes):
        wide, high = 4 + 22 * channels / 512, 46 * height / top
        middle = -46 if index in inside else 0
        colour = "#E69F00" if index in inside else "#009E73" if name == "shuffle" else "#56B4E9"
        axis.add_patch(
            Rectangle(
                (right, middle - high / 2),
                wide,
                high,
                facecolor=colour,
                edgecolor="black",
                linewidth=0.6,
                zorder=2,
            )
        )
        axis.text(
            right + wide / 2,
            middle - high / 2 - 2,
            f"{channels}\n{name}",
            ha="center",
            va="top",
            fontsize=5.5,
        )
        boxes.append((right, right + wide, middle))
        right += wide + 7
    arrow = {"arrowstyle": "->", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
    links = [(i, i + 1) for i in range(len(boxes) - 1)] + [(inside.start - 1, inside.stop)]
    for a, b in links:
        axis.annotate("", (boxes[b][0], boxes[b][2]), (boxes[a][1], boxes[a][2]), arrowprops=arrow)
    axis.set(xlim=(-4, right), ylim=(-76, 26))
    axis.set_axis_off()
    return figure


def arrows(probability: np.ndarray, pulls: Mapping[str, np.ndarray], blobs: np.ndarray) -> Figure:
    """Draw how losses pull the pixels of a two-class toy: up towards class 1, down towards class 0.

    Args:
        probability: float ``[H,W]`` of class 1, in grey.
        pulls: loss → float ``[H,W]``, how far a step of descent moves each pixel towards class 1. Lengths
            are relative to the longest of their panel, whose value stands below it.
        blobs: integer ``[H,W]``; a line runs where it changes.
    """
    size = (DOUBLE, DOUBLE / len(pulls) + 0.35)
    figure, axes = plt.subplots(1, len(pulls), squeeze=False, layout="constrained", figsize=size)
    for axis, (name, pull) in zip(axes[0], pulls.items(), strict=True):
        _arrows(axis, probability, pull, blobs)
        axis.set_title(name)
    return figure


def toy(probability: np.ndarray, pull: np.ndarray, blobs: np.ndarray) -> Figure:
    """Draw one state of a two-class toy: probabilities, the mean of each blob, and :func:`arrows`."""
    size = (DOUBLE, DOUBLE / 3)
    figure, (numbers, bars, pulled) = plt.subplots(1, 3, layout="constrained", figsize=size)
    numbers.imshow(probability, vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(probability):
        colour = "white" if value < 0.5 else "black"
        numbers.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    numbers.set(xticks=[], yticks=[], title="probability of face")
    ids = np.unique(blobs)
    bars.bar(ids, [probability[blobs == id].mean() for id in ids], color="0.75")
    spread = np.linspace(-0.25, 0.25, probability.size)
    bars.plot(blobs.ravel() + spread, probability.ravel(), "o", color="C0", markersize=3)
    bars.set(xticks=ids, xticklabels=[f"blob {id}" for id in ids], ylim=(0, 1), title="blob means and pixels")
    _arrows(pulled, probability, pull, blobs)
    pulled.set_title("pull on each pixel")
    return figure


def _arrows(axis, probability: np.ndarray, pull: np.ndarray, blobs: np.ndarray) -> None:
    axis.imshow(probability, vmin=-0.3, vmax=1.3)  # not to black and white: arrows stay visible on it
    for row, column in np.argwhere(np.diff(blobs, axis=0)):
        axis.plot([column - 0.5, column + 0.5], [row + 0.5, row + 0.5], "-", color="#D55E00")
    for row, column in np.argwhere(np.diff(blobs, axis=1)):
        axis.plot([column + 0.5, column + 0.5], [row - 0.5, row + 0.5], "-", color="#D55E00")
    longest = np.abs(pull).max()
    for (row, column), value in np.ndenumerate(pull / (longest or 1.0)):
        ends = {"xy": (column, row - 0.42 * value), "xytext": (column, row + 0.42 * value)}
        for colour, width in (("white", 2.6), ("#0072B2", 1.3)):  # a rim keeps them apart from any grey
            style = {
                "arrowstyle": "-|>",
                "mutation_scale": 3 + 5 * abs(value),
                "color": colour,
                "linewidth": width,
            }
            axis.annotate("", **ends, arrowprops=style | {"shrinkA": 0, "shrinkB": 0})
    axis.set(xticks=[], yticks=[], xlabel=f"longest: {longest:.2g}")
    axis.spines[:].set_visible(False)

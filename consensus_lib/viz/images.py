"""Images and label maps as RGB arrays, and grids of them. Functions take arrays; none reads data.

Colours come from the task, so that a class looks the same in every figure.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from consensus_lib import IGNORE
from consensus_lib.viz.plots import DOUBLE

Colours = Sequence[tuple[int, int, int]]


def to_rgb(image) -> np.ndarray:
    """Bring an image ``[3,H,W]`` in [-1, 1], as a data set serves it, to ``[H,W,3]`` in [0, 1]."""
    return (np.moveaxis(np.asarray(image), 0, -1) + 1) / 2


def colorize(labels: np.ndarray, colours: Colours) -> np.ndarray:
    """Return label maps ``[...,H,W]`` as uint8 RGB ``[...,H,W,3]``; ignored pixels are white.

    ``skimage.color.label2rgb`` gives its colours to the labels that a map holds, in order, so that a class
    would change its colour where another one is absent.
    """
    table = np.full((256, 3), 255, np.uint8)
    table[: len(colours)] = colours
    return table[np.asarray(labels).astype(np.uint8)]


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
    return np.where(marked, (1 - opacity) * image + opacity * colorize(labels, colours) / 255, image)


def image_grid(
    rows: Sequence[Sequence[np.ndarray]],
    *,
    titles: Sequence[str] = (),
    labels: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    width: float = DOUBLE,
) -> Figure:
    """Show images in rows and columns.

    Args:
        rows: images ``[H,W]`` or ``[H,W,3]``, row by row.
        titles: one above each column.
        labels: one before each row.
        captions: a short text below each image, row by row.
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


def class_patches(classes: Sequence[str], colours: Colours) -> list[Patch]:
    """Return the entries of a legend of classes."""
    return [
        Patch(facecolor=np.array(colour) / 255, edgecolor="0.5", linewidth=0.5, label=name)
        for name, colour in zip(classes, colours, strict=True)
    ]


def class_legend(figure: Figure, classes: Sequence[str], colours: Colours) -> Figure:
    """Add a legend of classes below a figure, which grows by the legend's height."""
    columns = min(6, len(classes))
    figure.set_figheight(figure.get_figheight() + 0.17 * -(-len(classes) // columns) + 0.08)
    patches = class_patches(classes, colours)
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, handlelength=1.0)
    return figure

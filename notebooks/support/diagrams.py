"""Figures that illustrate one notebook, beside the plots of scores in ``consensus_lib.viz``.

02: the network as boxes, and its receptive field. 03: gradients on a toy. 04: the steps of the factorisation,
labels under their images, and histograms of pseudo-labels.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from skimage import measure
from torch import nn

from consensus_lib.data.tasks import Task
from consensus_lib.models.networks import FaceOccNet
from consensus_lib.teacher.factorise import Factorised
from consensus_lib.viz.images import Colours, class_legend, class_patches, colorize, image_grid, to_rgb
from consensus_lib.viz.plots import DOUBLE, SINGLE


def block_shapes(model: FaceOccNet, side: int) -> tuple[list[tuple[str, tuple[int, int, int]]], slice]:
    """Return the name and output shape of each block, and which blocks form the side branch.

    A shape is (channels, height, width).

    Args:
        model: the network.
        side: of the square input image, pixels.
    """
    blocks = [*model.encoder, *model.context, *model.decoder, model.head]
    shapes: list[tuple[str, tuple[int, int, int]]] = [("image", (3, side, side))]
    hooks = [
        block.register_forward_hook(
            lambda block, _, output: shapes.append((_block_name(block), tuple(output.shape[1:])))
        )
        for block in blocks
    ]
    with torch.no_grad():
        model(torch.zeros(1, 3, side, side, device=next(model.parameters()).device))
    for hook in hooks:
        hook.remove()
    first = 1 + len(model.encoder)
    return shapes, slice(first, first + len(model.context))


def receptive_field(model: nn.Module, side: int) -> int:
    """Return how many input pixels, across, one output pixel in the middle depends on.

    Found by going back from one output and looking where the input's gradient is not zero, so ``side``
    must be larger than the answer: where it is not, ``side`` comes back.
    """
    image = torch.rand(1, 3, side, side, requires_grad=True)
    was_training = model.training
    logits = model.eval()(image)  # evaluation: batch statistics would join all pixels
    (gradient,) = torch.autograd.grad(logits[0, :, side // 2, side // 2].sum(), image)
    model.train(was_training)
    seen = (gradient != 0).any(1)[0].any(0).nonzero()
    return int(seen.max() - seen.min()) + 1


def network_diagram(shapes: Sequence[tuple[str, tuple[int, int, int]]], branch: slice) -> Figure:
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


def number_grids(
    panels: Mapping[str, np.ndarray], blobs: np.ndarray, *, mark: tuple[int, int] | None = None
) -> Figure:
    """Draw small arrays side by side with their numbers in the cells, white on dark.

    Args:
        panels: title → ``[H,W]``; floats are from 0 to 1, integers are labels.
        blobs: integer ``[H,W]``; a line runs where it changes.
        mark: row and column of a pixel to frame.
    """
    figure, axes = _toy_axes(len(panels))
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        _draw_numbers(axis, values, blobs, mark)
        axis.set_title(title)
    return figure


def gradient_signs(
    pulls: Mapping[str, np.ndarray], blobs: np.ndarray, *, mark: tuple[int, int] | None = None
) -> Figure:
    """Draw how losses pull the pixels of a two-class toy: towards class 1 (▲, blue) or class 0 (▼, orange).

    Args:
        pulls: loss → float ``[H,W]``, how far a step of descent moves each pixel towards class 1. The numbers
            are in hundredths and can be compared between panels; the colours are relative to their panel.
        blobs: integer ``[H,W]``; a line runs where it changes.
        mark: row and column of a pixel to frame.
    """
    figure, axes = _toy_axes(len(pulls))
    for axis, (name, pull) in zip(axes, pulls.items(), strict=True):
        _draw_signs(axis, pull, blobs, mark)
        axis.set_title(name)
    return figure


def toy_panel(
    probability: np.ndarray, pull: np.ndarray, blobs: np.ndarray, mark: tuple[int, int] | None = None
) -> Figure:
    """Draw one state of a two-class toy: probabilities, mean of each blob, :func:`gradient_signs`."""
    places = {"left": 0.01, "right": 0.99, "bottom": 0.09, "top": 0.85, "wspace": 0.16}
    figure, (numbers, bars, pulled) = plt.subplots(  # a computed layout takes half of the time of a redraw
        1, 3, layout="none", figsize=(DOUBLE, DOUBLE / 3 + 0.1), gridspec_kw=places
    )
    _draw_numbers(numbers, probability, blobs, mark)
    numbers.set_title("probability of face")
    ids = np.unique(blobs)
    bars.bar(ids, [probability[blobs == id].mean() for id in ids], color="0.75")
    spread = np.linspace(-0.25, 0.25, probability.size)
    bars.plot(blobs.ravel() + spread, probability.ravel(), "o", color="C0", markersize=3)
    if mark:
        place = blobs[mark] + spread.reshape(blobs.shape)[mark]
        bars.plot(place, probability[mark], "o", color="#CC79A7", markersize=7, markerfacecolor="none")
    names = ["background", "face"] if len(ids) == 2 else ids
    bars.set(xticks=ids, xticklabels=names, ylim=(0, 1), title="blob means (bars), pixels (dots)")
    _draw_signs(pulled, pull, blobs, mark)
    pulled.set_title("pull in hundredths, ▲ is face")
    return figure


def loss_diagram(image: np.ndarray, labels: np.ndarray, p: np.ndarray, colours: Colours) -> Figure:
    """Draw the consensus loss from left to right: image, blobs, means, two divergences.

    Args:
        image: float ``[H,W,3]`` in [0, 1].
        labels: integer ``[H,W]``; its 4-connected components are the blobs.
        p: a network's probabilities of class 1, float ``[H,W]``.
        colours: one for each class.
    """
    figure = plt.figure(figsize=(DOUBLE, 2.75), layout="none")
    ids = measure.label(labels, background=-1, connectivity=1)
    means = np.zeros(p.shape)
    for blob in np.unique(ids):
        means[ids == blob] = p[ids == blob].mean()
    boxes = {
        "image": (0.00, 0.50, image),
        "true labels": (0.00, 0.02, colorize(labels, colours)),
        "probability p(s)": (0.245, 0.50, p),
        "blobs c": (0.245, 0.02, colorize(1 + ids % 6, [(0, 0, 0), *_component_colours(colours)[1:]])),
        "means p̂(c), Eq. 6": (0.49, 0.26, means),
    }
    for title, (x, y, picture) in boxes.items():
        axis = figure.add_axes((x, y, 0.16, 0.40))
        axis.imshow(picture, vmin=0, vmax=1 if picture.dtype.kind == "f" else None)
        axis.set(xticks=[], yticks=[])
        axis.set_title(title, pad=2)
        axis.spines[:].set(visible=True, color="0.6")
    sheet = figure.add_axes((0, 0, 1, 1))
    sheet.set(xlim=(0, 1), ylim=(0, 1))
    sheet.set_axis_off()
    arrow = {"arrowstyle": "-|>", "linewidth": 0.9, "color": "0.2", "shrinkA": 0, "shrinkB": 0}
    for start, end, name in (
        ((0.165, 0.70), (0.242, 0.70), "network"),
        ((0.165, 0.22), (0.242, 0.22), "cut"),
        ((0.408, 0.62), (0.487, 0.52), "average"),
        ((0.408, 0.24), (0.487, 0.40), "inside c"),
        ((0.653, 0.52), (0.715, 0.66), ""),
        ((0.653, 0.40), (0.715, 0.26), ""),
    ):
        sheet.annotate("", end, start, arrowprops=arrow)
        middle = (start[0] + end[0]) / 2, max(start[1], end[1]) + 0.015
        sheet.text(*middle, name, ha="center", va="bottom", fontsize=6.5)
    for y, colour, words in (
        (0.66, "#0072B2", "match the label\nα · KL( y ‖ p̂(c) )\ndoes the mean say the class?"),
        (0.26, "#D55E00", "match each other\nβ · mean over s of\nKL( p̂(c) ‖ p(s) )"),
    ):
        style = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": colour, "linewidth": 1.2}
        sheet.text(0.825, y, words, ha="center", va="center", fontsize=7.5, bbox=style)
    sheet.text(0.825, 0.46, "+", ha="center", va="center", fontsize=13)
    return figure


def factorisation_steps(image, found: Factorised, colours: Colours) -> Figure:
    """Draw the steps from a face to its occlusions, as in the paper's Fig. 2.

    Args:
        image: float ``[3,H,W]`` in [-1, 1], as a data set serves it.
        found: the steps.
        colours: of background, face and occlusion.
    """
    image = (255 * to_rgb(image)).round().astype(np.uint8)
    figure, axes = plt.subplots(2, 5, layout="constrained", figsize=(DOUBLE, 3.1))
    hidden = np.where(found.ids > 1, found.ids, 0)
    seen, covering = (np.where(mask[..., None], image, 255) for mask in (found.labels == 1, hidden > 0))
    signed = np.full((*found.face.shape, 3), 255, np.uint8)
    signed[found.extent & found.face] = 225
    signed[found.difference > 0], signed[found.difference < 0] = (0, 90, 160), (245, 140, 110)
    panels = {
        "photo and outline": image,
        "complete face": found.extent.astype(float),
        "teacher's face": found.face.astype(float),
        "residual, with signs": signed,
        "cleaned": found.cleaned.astype(float),
        "face and components": colorize(np.minimum(found.ids, 9), _component_colours(colours)),
        "labels": colorize(found.labels, colours),
        "face, cut out": seen,
        "occlusions, cut out": covering,
    }
    for axis, (title, picture) in zip(axes.flat, panels.items(), strict=False):
        axis.imshow(picture, vmin=0, vmax=1 if picture.dtype.kind == "f" else None)
        axis.set_title(title, pad=2)
    for colour, width, style in (("white", 2, "solid"), ("black", 0.8, "dashed")):
        axes[0, 0].contour(found.extent, [0.5], colors=colour, linewidths=width, linestyles=style)
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
    keys += class_patches(("background", "face", "occlusion"), colours)
    axes[1, 4].legend(handles=keys, loc="center left", handlelength=1.6, handleheight=1.1)
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


def labelled_images(images, rows: Mapping[str, np.ndarray], task: Task, captions: Sequence[str] = ()):
    """Show images above the labels that each method gives them.

    Args:
        images: float ``[B,3,H,W]`` in [-1, 1].
        rows: name → labels, integers ``[B,H,W]``, one row each.
        task: of the labels.
        captions: a text below each image's last labels.

    Returns:
        the figure.
    """
    pictures = [
        list(map(to_rgb, images)),
        *(list(colorize(labels, task.colours)) for labels in rows.values()),
    ]
    texts = [[""] * len(images)] * len(rows) + [list(captions)] if captions else ()
    figure = image_grid(pictures, labels=["image", *rows], captions=texts)
    return class_legend(figure, task.classes, task.colours)


def luminance(colour) -> float:
    """Return the relative luminance of a colour, 0 to 1 (WCAG 2.2), as a print in greyscale shows it.

    Args:
        colour: red, green and blue, 0 to 255.

    >>> round(luminance((255, 255, 255)), 3), round(luminance((86, 180, 233)), 3)
    (1.0, 0.405)
    """
    share = np.asarray(colour, float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _block_name(block: nn.Module) -> str:
    if isinstance(block, nn.PixelShuffle):
        return "shuffle"
    conv = block[0] if isinstance(block, nn.Sequential) else block
    extra = (
        f" /{conv.stride[0]}"
        if conv.stride[0] > 1
        else f" d{conv.dilation[0]}"
        if conv.dilation[0] > 1
        else ""
    )
    return "conv" + extra


def _toy_axes(count: int):
    size = (DOUBLE, DOUBLE / max(count, 3) + 0.25)
    figure, axes = plt.subplots(1, count, squeeze=False, layout="constrained", figsize=size)
    return figure, axes[0]


def _draw_numbers(axis, values: np.ndarray, blobs: np.ndarray, mark: tuple[int, int] | None) -> None:
    whole = values.dtype.kind in "iub"
    axis.imshow(values, vmin=0, vmax=1 if values.max() <= 1 else values.max())
    dark = values < 0.5 * max(1, values.max())
    for (row, column), value in np.ndenumerate(values):
        text = f"{value}" if whole else f"{value:.2f}".removeprefix("0") if value < 1 else "1.0"
        colour = "white" if dark[row, column] else "black"
        axis.text(column, row, text, ha="center", va="center", fontsize=7.5, color=colour)
    _draw_borders(axis, blobs, mark)


def _draw_signs(axis, pull: np.ndarray, blobs: np.ndarray, mark: tuple[int, int] | None) -> None:
    longest = np.abs(pull).max() or 1.0
    shade = np.abs(pull)[..., None] / longest * 0.75
    up, down = np.array([0.34, 0.71, 0.91]), np.array([0.90, 0.62, 0.0])
    axis.imshow(1 - shade * (1 - np.where((pull > 0)[..., None], up, down)))
    for (row, column), value in np.ndenumerate(pull):
        sign = "▲" if value > 0.0005 else "▼" if value < -0.0005 else ""
        style = {"ha": "center", "va": "center"}
        axis.text(column, row - 0.2, sign, fontsize=5 + 4 * abs(value) / longest, **style)
        axis.text(column, row + 0.22, f"{100 * value:+.1f}", fontsize=6.5, **style)
    _draw_borders(axis, blobs, mark)


def _draw_borders(axis, blobs: np.ndarray, mark: tuple[int, int] | None) -> None:
    for row, column in np.argwhere(np.diff(blobs, axis=0)):
        axis.plot([column - 0.5, column + 0.5], [row + 0.5, row + 0.5], "-", color="#D55E00")
    for row, column in np.argwhere(np.diff(blobs, axis=1)):
        axis.plot([column + 0.5, column + 0.5], [row - 0.5, row + 0.5], "-", color="#D55E00")
    if mark:
        frame = (mark[1] - 0.46, mark[0] - 0.46)
        axis.add_patch(Rectangle(frame, 0.92, 0.92, fill=False, edgecolor="#CC79A7", linewidth=2))
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _component_colours(colours: Colours) -> Colours:
    """Return colours of background, face and components from 2, apart from one another in greyscale."""
    return [
        *colours[:2],
        *((240, 228, 66), (213, 94, 0), (255, 255, 255), (0, 158, 115), (204, 121, 167)) * 2,
    ]

"""What notebook 05 compares, beside its statistics: the constant prediction, repaired masks, groups, pictures."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from consensus_lib.data import FaceDataset, Splits
from consensus_lib.experiments.train import Trained
from consensus_lib.metrics.structure import StructureScores
from consensus_lib.models.networks import MostFrequentLabel
from consensus_lib.models.postprocess import POSTPROCESSING, options_at
from consensus_lib.training.trainer import evaluate, predict
from consensus_lib.viz.images import class_legend, colorize, image_grid, to_rgb
from support import examples

ERRORS = ((0, 0, 0), (86, 180, 233), (255, 255, 255), (230, 159, 0))
"""Colours of pixels that both masks have right, the first alone has wrong, the second alone, and both."""


def constant_prediction(data: Splits) -> StructureScores:
    """Return the test scores of each pixel's most frequent label in the training set."""
    return evaluate(MostFrequentLabel(data.train), data.test, scores=StructureScores)


def repaired(one: Trained, name: str, test: FaceDataset) -> StructureScores:
    """Return the scores of a training's masks after a repair, from its folder where they are there."""
    sides = {"mirror": test.task.mirror} if name == "flip" else {}
    model = POSTPROCESSING[name].make(one.network, **options_at(test.size).get(name, sides))
    return one.cached(name, lambda: evaluate(model, test, scores=StructureScores), StructureScores)


def repairs(trained: Sequence[Trained], test: FaceDataset) -> dict[str, list[StructureScores]]:
    """Return the title of each repair → the scores of each training with it."""
    return {
        method.title: [repaired(one, name, test) for one in trained]
        for name, method in POSTPROCESSING.items()
    }


def truth_of(test: FaceDataset) -> np.ndarray:
    """Return all true labels, ``[N,H,W]``."""
    return torch.stack([test[i]["labels"] for i in range(len(test))]).numpy()


def masks_of(one: Trained, test: FaceDataset) -> np.ndarray:
    """Return all masks of a training, ``[N,H,W]``."""
    return predict(one.network, test).numpy()


def split_by_size(test: FaceDataset, occlusion: bool) -> dict[str, np.ndarray]:
    """Return group → which images are in it, bool ``[N]``: split at the median share of what is true of them.

    Args:
        test: the images. Its first two classes after the background are taken.
        occlusion: whether the labels tell what share of an image occludes a face.
    """
    truth = truth_of(test)
    shares = {name: (truth == k).mean((1, 2)) for k, name in enumerate(test.task.classes[1:3], 1)}
    if occlusion:
        covered = FaceDataset(test.folder, "test", "occlusion", size=test.size, progress=False)
        shares["occlusion"] = (truth_of(covered) == 2).mean((1, 2))
    return {
        f"{side} {what}": (share > np.median(share)) == (side == "large")
        for what, share in shares.items()
        for side in ("small", "large")
    }


def contrasts(pairs: Sequence[examples.Contrast], titles: Sequence[str]) -> Figure:
    """Draw a column for each pair of toy predictions: its truth, the better one and the worse one."""
    colours = [(235, 235, 235), (0, 114, 178), (213, 94, 0)]
    parts = ("truth", "better", "worse")
    rows = [[colorize(getattr(pair, part), colours) for pair in pairs] for part in parts]
    return image_grid(rows, titles=titles, labels=parts)


def epochs_shown(last: int) -> list[int]:
    """Return the first epoch, those after a quarter and a half of the training, and the last."""
    return sorted({1, *(max(1, round(last * share)) for share in (0.25, 0.5, 1))})


def learning(
    test: FaceDataset, chosen: Sequence[int], masks: Mapping[str, Mapping[int, np.ndarray]]
) -> Figure:
    """Draw masks while they are learned: a row for each image and method, a column for each epoch, the truth.

    Args:
        test: the images.
        chosen: which of them.
        masks: method → epoch → masks of the first images; the first, the last and two between are drawn.
    """
    after = epochs_shown(max(next(iter(masks.values()))))
    maps = [
        (i, [*(kept[epoch][i] for epoch in after), test[i]["labels"]])
        for i in map(int, chosen)
        for kept in masks.values()
    ]
    colours = test.task.colours
    rows = [[to_rgb(test[i]["image"]), *(colorize(one, colours) for one in row)] for i, row in maps]
    titles = ["image", *(f"epoch {epoch}" for epoch in after), "truth"]
    figure = image_grid(rows, titles=titles, labels=list(masks) * len(chosen), width=5.5)
    return class_legend(figure, test.task.classes, colours)


def side_by_side(test: FaceDataset, chosen: Sequence[int], masks: Mapping[str, np.ndarray]) -> Figure:
    """Draw a row for each chosen image: the image, the truth and the mask of each method, ``[N,H,W]``."""
    colours = test.task.colours
    rows = [
        [to_rgb(test[i]["image"]), *(colorize(one, colours) for one in (test[i]["labels"], *found))]
        for i, found in ((i, [kept[i] for kept in masks.values()]) for i in map(int, chosen))
    ]
    figure = image_grid(rows, titles=["image", "truth", *masks], width=5.5)
    return class_legend(figure, test.task.classes, colours)


def error_gallery(
    test: FaceDataset,
    chosen: Sequence[int],
    masks: Mapping[str, np.ndarray],
    counts: Sequence[Mapping[str, np.ndarray]],
) -> Figure:
    """Draw a column for each chosen image: image, truth, the masks of two methods, and where they err.

    Args:
        test: the images.
        chosen: which of them.
        masks: two methods → all their masks, ``[N,H,W]``.
        counts: of each method, the values of each image; ``components`` and ``holes`` are printed.
    """
    chosen, colours = [int(i) for i in chosen], test.task.colours
    truth = np.stack([test[i]["labels"] for i in chosen])
    wrong = [found[chosen] != truth for found in masks.values()]
    maps = [truth, *(found[chosen] for found in masks.values())]
    rows = [
        [to_rgb(test[i]["image"]) for i in chosen],
        *(list(colorize(one, colours)) for one in maps),
        list(colorize(wrong[0] + 2 * wrong[1], ERRORS)),
    ]
    said = [[f"{one['components'][i]} pieces, {one['holes'][i]} holes" for i in chosen] for one in counts]
    captions = [[], [], *said, []]
    return image_grid(rows, labels=["image", "truth", *masks, "errors"], captions=captions)

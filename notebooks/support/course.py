"""What notebooks 00 to 04 and 06 print and arrange, so that their cells hold the lesson alone."""

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from skimage.color import label2rgb

from consensus_lib import paths
from consensus_lib.data import TASKS, FaceDataset, Splits, is_prepared
from consensus_lib.data.dataset import as_images
from consensus_lib.experiments.train import Trained
from consensus_lib.losses import label_blobs
from consensus_lib.models.networks import MostFrequentLabel
from consensus_lib.models.parser import FaceParser
from consensus_lib.training import evaluate
from consensus_lib.training.devices import device_name, pick_device
from consensus_lib.viz.images import Colours, class_legend, colorize, image_grid, to_rgb

SCORES = {"mean_iou": "mean IoU", "component_error": "component error", "hole_error": "hole error"}
"""The scores of the first notebooks → their names in tables and on axes; see ``glossary.md``."""


def machine() -> pd.DataFrame:
    """Return what this machine has, and what the notebooks make of it, a row for each thing."""
    device = pick_device("auto")
    data = paths.data_dir().absolute()
    free = shutil.disk_usage(next(one for one in (data, *data.parents) if one.exists())).free / 1e9
    lfw = is_prepared("lfw_part_labels")
    rows = {
        "Python": (platform.python_version(), "3.11 or later is needed"),
        "PyTorch": (torch.__version__, "the tests ran with 2.13"),
        "networks run on": (device_name(device), "a GPU is taken where there is one; none is needed"),
        "CPU cores": (str(os.cpu_count()), "two are enough for the quick profile"),
        "free disk": (f"{free:.0f} GB", "the quick profile leaves less than 0.5 GB"),
        "rendered faces": ("yes", "made when first asked for"),
        "LFW Part Labels": ("yes" if lfw else "no", "optional: `make data-lfw` prepares it"),
        "LaTeX": ("yes" if shutil.which("pdflatex") else "no", "optional: never called by a notebook"),
    }
    return pd.DataFrame(rows, index=["here", "meaning"]).T


def constant_scores(data: Splits) -> tuple[dict, dict]:
    """Return the scores of the constant prediction, each pixel's most frequent training label.

    Returns:
        On the validation split, for curves of training, and on the test split, for tables.
    """
    constant = MostFrequentLabel(data.train)
    return tuple(evaluate(constant, split).compute() for split in (data.validation, data.test))


def score_table(rows: Mapping[str, Mapping[str, float]], classes: Sequence[str]) -> pd.DataFrame:
    """Return a table of scores, a row for each method: mean IoU, IoU of each class, errors of structure."""
    columns = {"mean_iou": "mean IoU", **{f"iou_{name}": f"IoU {name}" for name in classes}, **SCORES}
    found = {name: [scores[key] for key in columns] for name, scores in rows.items()}
    return pd.DataFrame(found, index=list(columns.values())).T.round(3)


def seed_rows(name: str, trained: Sequence[Trained], first: int) -> dict[str, dict]:
    """Return ``"name, seed n"`` → test scores of the trainings of one method."""
    return {f"{name}, seed {first + n}": one.scores.compute() for n, one in enumerate(trained)}


def differences(trained: Mapping[str, Sequence[Trained]]) -> pd.DataFrame:
    """Return the second method's test scores minus the first's, a row for each score, a column a seed."""
    first, second = ([one.scores.compute() for one in runs] for runs in trained.values())
    gains = {
        name: [b[key] - a[key] for a, b in zip(first, second, strict=True)] for key, name in SCORES.items()
    }
    return pd.DataFrame(gains).T.round(3).rename(columns="seed {}".format)


STUDIES = paths.root() / "notebooks" / "studies"


def read_study(name: str) -> pd.DataFrame:
    """Return the table ``notebooks/studies/NAME.csv``."""
    return pd.read_csv(STUDIES / f"{name}.csv")


def gallery(
    data: FaceDataset,
    chosen: Sequence[int],
    masks: Mapping[str, torch.Tensor],
    captions: Mapping[str, Sequence[str]],
    components: str = "",
) -> Figure:
    """Draw samples of a data set in columns: image, truth, and the masks of each method.

    Args:
        data: the samples.
        chosen: which of them.
        masks: method → predicted classes of all samples, uint8 ``[N,H,W]``.
        captions: row → a short text below each of its pictures; rows are "image", "truth" and the methods.
        components: a method whose components are drawn in a last row, each in a colour of its own.
    """
    task = data.task
    samples = [data[int(index)] for index in chosen]
    rows = {
        "image": [to_rgb(one["image"]) for one in samples],
        "truth": [colorize(one["labels"], task.colours) for one in samples],
        **{name: [colorize(found[int(i)], task.colours) for i in chosen] for name, found in masks.items()},
    }
    if components:
        found = masks[components][[int(i) for i in chosen]].long()
        ids = label_blobs(found, "component", connectivity=8).ids.numpy()
        rows["components"] = [
            label2rgb(np.where(mask == 0, 0, one + 1), bg_label=0)
            for one, mask in zip(ids, found.numpy(), strict=True)
        ]
    texts = [captions.get(name, [""] * len(samples)) for name in rows]
    figure = image_grid(list(rows.values()), labels=list(rows), captions=texts)
    return class_legend(figure, task.classes, task.colours)


def tail_of_traceback(notebook: str | os.PathLike, lines: int = 6) -> str:
    """Return the last lines of the traceback in an executed notebook, without terminal colours."""
    import re

    import nbformat

    book = nbformat.read(notebook, as_version=4)
    errors = [one for cell in book.cells for one in cell.get("outputs", ()) if one.output_type == "error"]
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(errors[-1].traceback))
    return "\n".join(text.splitlines()[-lines:])


class Example(NamedTuple):
    """A rendered face for drawings.

    Attributes:
        image: float ``[H,W,3]`` in [0, 1].
        labels: int64 ``[H,W]``, classes of the task ``parts``.
        p: float ``[K,H,W]``, probabilities of the parser ``parts`` that ships with the library.
        colours: one for each class.
    """

    image: np.ndarray
    labels: np.ndarray
    p: np.ndarray
    colours: Colours


def example_face(index: int = 8, seed: int = 7) -> Example:
    """Render one face at 128 pixels and let the shipped parser look at it."""
    from synthetic_faces import CLASSES, draw_face

    face, task = draw_face(seed, index, size=128), TASKS["parts"]
    parser = FaceParser.from_pretrained("parts", device="cpu")
    p, _ = parser.predict(as_images(face.image[None].copy()))
    labels = task.table(CLASSES)[face.labels].astype(np.int64)
    return Example(face.image / 255, labels, p[0].numpy(), task.colours)


def cut_out_hand(seed: int = 0, size: int = 128) -> np.ndarray:
    """Return a rendered hand, float ``[h,w,4]`` in [0, 1] with opacity last."""
    from synthetic_faces import CLASSES, Recipe, draw_face

    recipe = Recipe(occluded=1.0, occluders=(("hand", 1.0),), most=1)
    face = draw_face(seed, 0, size=size, recipe=recipe)
    hand = face.labels == CLASSES.index("occluder")
    rows, columns = (np.flatnonzero(hand.any(axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.dstack([face.image[box] / 255, hand[box]])


def study_gains(study: pd.DataFrame, baseline: str = "CE") -> pd.DataFrame:
    """Return what the variants of a study change, a row for each.

    Columns are, for each score, the mean difference to the baseline and the number of seeds in which the
    variant is better.
    """
    columns = {}
    for key, name in SCORES.items():
        table = study.pivot(index="seed", columns="variant", values=key)
        gain = table.drop(columns=baseline).sub(table[baseline], axis=0)
        better = gain > 0 if key == "mean_iou" else gain < 0
        columns[name] = gain.mean().map("{:+.3f}".format)
        columns[f"better in, of {len(table)} ({name})"] = better.sum()
    order = [name for name in study.variant.unique() if name != baseline]
    return pd.DataFrame(columns).loc[order].rename_axis(None)

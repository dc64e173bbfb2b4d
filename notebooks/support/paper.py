"""Reproductions of the paper's figures 1 to 6 and tables 1 to 4, from the results in a run folder.

A figure is a function of a run folder and a width in inches, a table one of a run folder; both return a
caption too, and raise :class:`~support.run_folder.MissingResult` for results that are not there. Numbers in
a caption come from the results. Notebook 07 says in which way each differs from the paper's.
"""

import csv
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from consensus_lib import paths
from consensus_lib.data import FaceDataset
from consensus_lib.losses import PRESETS, consensus_loss, pixelwise_loss
from consensus_lib.metrics.components import count_pieces
from consensus_lib.models.networks import MostFrequentLabel
from consensus_lib.teacher import factorise
from consensus_lib.teacher.teachers import ParserExtent, ParserTeacher
from consensus_lib.training import evaluate, predict
from consensus_lib.viz import plots
from consensus_lib.viz.images import class_legend, colorize, image_grid, to_rgb
from support import diagrams, examples, tables, verdict
from support.artifacts import epochs_shown
from support.recovery import within_the_face
from support.run_folder import MissingResult, RunFolder, dataset_title, describe_setup
from support.tables import MARKS, Column, Groups, Value
from synthetic_faces import Recipe, synthetic_folder

TRANSFER, ARTIFACTS = "04_teacher_distillation", "05_artifact_analysis"
STAGES = {"transfer, fine-tuning": "pixel-wise", "transfer, fine-tuning with consensus": "consensus"}
BASE, ALONE, OURS = "cross-entropy", PRESETS["alone"].title, PRESETS["recommended"].title
PAIR = {BASE: "pixel-wise", OURS: "consensus"}
METHODS = {
    BASE: "softmax + CE",
    "class, beta 5, size weight 0": "Eq. 8 on classes, as the paper",
    ALONE: ALONE,
    "Lovász-Softmax": "Lovász-Softmax",
    OURS: OURS,
}
"""Variants of the study ``baselines.csv`` that stand beside the paper's rows."""

SCORES = {
    "iou_face": ("face IoU", True),
    "mean_iou": ("mean IoU", True),
    "component_error": ("component error", False),
}
"""Score of a caption → its name, and whether more is better."""

PRINTED = paths.root() / "notebooks/studies/paper_tables.csv"
"""The paper's numbers, with their certainty."""

UNSEEN = 1000
"""Seed of faces that are drawn for figures alone; notebooks train and test with smaller ones."""


def percent(key: str, title: str) -> Column:
    """Return a column in percent."""
    return Column(key, title, scale=100, digits=1)


SPARSITY = Column("component_error", "comp. error", higher=False)
"""The paper's *sparsity*."""


def read_printed(path: str | Path, table: str) -> dict[str, dict[str, Value]]:
    """Return the rows of one of the paper's tables, as printed, from a file such as :data:`PRINTED`.

    Raises:
        ValueError: there is no such table, or a certainty is unknown.
    """
    with open(path, newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    if table not in (known := sorted({line["table"] for line in lines})):
        raise ValueError(f"table: expected one of {known}, got {table!r}")
    rows: dict[str, dict[str, Value]] = {}
    for line in lines:
        if line["certainty"] not in MARKS:
            raise ValueError(f"certainty: expected one of {list(MARKS)}, got {line['certainty']!r}")
        if line["table"] == table:
            value = Value((float(line["value"]),), MARKS[line["certainty"]], line["value"])
            rows.setdefault(line["row"], {})[line["column"]] = value
    return rows


def quoted(number: int) -> Groups:
    """Return the group of rows that the paper prints in a table."""
    rows = read_printed(PRINTED, f"table{number}")
    return {f"Masi et al. 2020, Table {number}, as printed, one training": rows}


def constant_prediction(where: str, scores: pd.Series, columns: Sequence[Column]) -> Groups:
    """Return a group of its own for the constant prediction, so that no method is compared with it in bold."""
    table = scores.to_frame().T.assign(variant=verdict.CONSTANT).infer_objects()
    row = tables.measured(table, {verdict.CONSTANT: "each pixel's most frequent label"}, columns)
    return {f"constant prediction, {where}": row}


def table1(folder: RunFolder) -> tuple[Groups, list[Column], str]:
    """Reproduce Table 1: face against occlusion; the students of notebook 04 stand for COFW."""
    found = folder.trainings(TRANSFER)
    columns = [
        percent("iou_face", "IoU face"),
        percent("pixel_accuracy", "acc"),
        percent("recall_face", "rec face"),
        percent("mean_recall", "rec all"),
        SPARSITY,
        Column("fps", "fps", digits=1),
    ]
    here = tables.measured(found, {name: name for name in found.name.unique()}, columns, by="name")
    caption = (
        "Reproduction of Table 1. Printed: COFW, face or not. Here: students of notebook 04, "
        f"three classes ({found.task.iloc[0]}), and acc and rec all are over all three. "
        f"{describe_setup(found)}. Not the same data: compare within a group only."
    )
    return quoted(1) | {f"here, {dataset_title(found.dataset.iloc[0])}": here}, columns, caption


def part_labels(number: int, folder: RunFolder | None = None) -> tuple[Groups, list[Column], str]:
    """Reproduce Table 2, 3 or 4, on Part Labels: the paper's rows and the study ``baselines.csv``.

    Args:
        number: of the table.
        folder: whose trainings of notebook 05 to add; None, or one that has none, adds nothing.
    """
    accuracy = percent("pixel_accuracy", "acc (pixels)")
    by_superpixel = percent("superpixel_accuracy", "acc (superpixels)")
    columns = {
        2: [accuracy, by_superpixel],
        3: [
            *(percent(f"iou_{name}", f"IoU {name}") for name in ("hair", "background", "face")),
            percent("mean_iou", "mean IoU"),
            percent("mean_recall", "rec all"),
            accuracy._replace(title="acc"),
            by_superpixel._replace(title="acc sp"),
            SPARSITY,
        ],
        4: [*(percent(f"f1_{name}", f"F1 {name}") for name in ("face", "hair", "background")), accuracy],
    }[number]
    study = pd.read_csv(paths.root() / "notebooks/studies/baselines.csv")
    study = study[study.variant.isin(METHODS)]
    groups = quoted(number) | {"here, photographs": tables.measured(study, METHODS, columns)}
    if SPARSITY in columns:
        groups |= constant_prediction("photographs", verdict.constant_prediction(), columns)
    printed = "at 128 pixels; reg is dropout and flips" if number == 3 else "at the size named"
    caption = f"Reproduction of Table {number}. Printed {printed}. Photographs: {describe_setup(study)}."
    try:
        mine = folder.trainings(ARTIFACTS) if folder else None
    except MissingResult:
        mine = None
    if mine is not None:
        names = {name: METHODS.get(name, name) for name in mine.name.unique()}
        groups[f"here, this run, {dataset_title(mine.dataset.iloc[0])}"] = tables.measured(
            mine, names, columns, by="name"
        )
        if "floor_component_error" in mine and SPARSITY in columns:
            floor = mine.iloc[0].filter(like="floor_").rename(lambda key: key.removeprefix("floor_"))
            groups |= constant_prediction("this run", floor, columns)
        caption += f" This run: {describe_setup(mine)}."
    return groups, columns, caption


@functools.lru_cache(maxsize=1)
def transfer(folder: RunFolder) -> tuple[FaceDataset, pd.DataFrame, dict[str, np.ndarray]]:
    """Return covered faces, the trainings of notebook 04, and what teacher and students see in these faces.

    The faces are rendered anew, so that no training saw them. The teacher is the parser that comes with the
    library.
    """
    found = folder.trainings(TRANSFER, *STAGES)
    first = found.drop_duplicates("name")
    made = synthetic_folder(counts={"test": 24}, seed=UNSEEN, recipe=Recipe(occluded=1.0), progress=False)
    size = int(first.iloc[0].image_size)
    test = FaceDataset(within_the_face(made), "test", "occlusion", size=size, progress=False)
    said = {"teacher": ParserTeacher()(_photos(test)).argmax(1).numpy()}
    said |= {STAGES[one["name"]]: predict(folder.network(one), test).numpy() for _, one in first.iterrows()}
    return test, found, said


def _photos(test: FaceDataset) -> torch.Tensor:
    return test.__getitems__(range(len(test)))["image"]


@functools.lru_cache(maxsize=1)
def watched(folder: RunFolder) -> tuple[FaceDataset, pd.DataFrame, dict[str, dict[int, np.ndarray]]]:
    """Return the test images of notebook 05, its trainings, and their masks of the first images by epoch."""
    found = folder.trainings(ARTIFACTS, *PAIR)
    first = found.drop_duplicates("name")
    masks = {PAIR[row["name"]]: folder.masks(row) for _, row in first.iterrows()}
    return folder.data(first.iloc[0]).test, found, masks


def figure1(folder: RunFolder, width: float) -> tuple[Figure, str]:
    """Reproduce Fig. 1: covered faces, the teacher's masks, and a student's without and with consensus."""
    test, found, said = transfer(folder)
    chosen = first_covered(test, said, 3)
    return faces(test, said, chosen, width), (
        f"Reproduction of Fig. 1. The first {len(chosen)} images of {dataset_title(test.info.name)} with "
        f"much {test.task.classes[2]}, seen by the networks of the first seed. On the test images of "
        f"notebook 04, {compared(found, STAGES, 'iou_face', 'component_error')}. {describe_setup(found)}."
    )


def figure2(folder: RunFolder, width: float) -> tuple[Figure, str]:
    """Reproduce Fig. 2: from a face's extent and the teacher's mask to blobs and labels."""
    test, _, said = transfer(folder)
    complete = ParserExtent()(_photos(test))
    steps = [factorise.factorise(f, seen == 1) for f, seen in zip(complete, said["teacher"], strict=True)]
    chosen = max(range(len(test)), key=lambda i: steps[i].cleaned.sum())
    found = steps[chosen]
    return diagrams.factorisation_steps(test[chosen]["image"], found, test.task.colours), (
        f"Reproduction of Fig. 2: of {len(test)} rendered faces the one with most recovered occlusion. "
        f"Visible and complete face are those of the parser that comes with the library, {test.size} pixels; "
        f"after cleaning, {max(0, found.ids.max() - 1)} components are left. A picked face: what is recovered "
        "on it can also be a beard or hair."
    )


def figure3a(folder: RunFolder | None, width: float) -> tuple[Figure, str]:
    """Reproduce the first part of Fig. 3: where two losses pull on the toy of notebook 03."""
    labels, face = examples.toy_face()
    pulls = {}
    consensus = functools.partial(consensus_loss, alpha=1, beta=1)
    for name, loss in (("pixel-wise", pixelwise_loss), ("consensus", consensus)):
        logits = torch.stack([1 - face, face]).log()[None].requires_grad_()
        (gradient,) = torch.autograd.grad(loss(logits, labels[None]), logits)
        pulls[name] = (gradient[0, 0] - gradient[0, 1]).numpy()
    return diagrams.gradient_signs(pulls, labels.numpy(), mark=(2, 2)), (
        "Reproduction of Fig. 3, first part. A face of six pixels with a hole, and how a step of descent "
        "moves each pixel, in hundredths: + is towards face. The orange line is the blob, the frame the hole."
    )


def figure3b(folder: RunFolder, width: float) -> tuple[Figure, str]:
    """Reproduce the second part of Fig. 3: a torn mask, and the same face with consensus."""
    test, _, masks = watched(folder)
    last = {name: kept[max(kept)] for name, kept in masks.items()}
    torn, whole = (np.array([_pieces(mask) for mask in kept]) for kept in last.values())
    chosen = int(np.argmax(torn - whole))
    return faces(test, truth_of(test, len(torn)) | last, [chosen], width), (
        f"Reproduction of Fig. 3, second part. Of {len(torn)} test images of "
        f"{dataset_title(test.info.name)} the one on which consensus saves most components, {torn[chosen]} "
        f"to {whole[chosen]}: a picked one. Over all {len(torn)} the mean is {torn.mean():.2f} and "
        f"{whole.mean():.2f}. Consensus is {OURS}."
    )


def figure4a(folder: RunFolder, width: float) -> tuple[Figure, str]:
    """Reproduce Fig. 4a: masks while they are learned."""
    test, found, masks = watched(folder)
    after = epochs_shown(found.epochs.max())
    colours = test.task.colours
    shown = range(min(2, len(test)))
    maps = [(i, [*(kept[e][i] for e in after), test[i]["labels"]]) for i in shown for kept in masks.values()]
    rows = [[to_rgb(test[i]["image"]), *(colorize(one, colours) for one in row)] for i, row in maps]
    titles = ["image", *(f"epoch {epoch}" for epoch in after), "truth"]
    figure = image_grid(rows, titles=titles, labels=list(masks) * len(shown), width=width)
    steps = -(-found.train_images.iloc[0] // found.batch_size.iloc[0])
    return class_legend(figure, test.task.classes, colours), (
        f"Reproduction of Fig. 4a. The first two test images, with {BASE} and with {OURS}, first seed. "
        f"The paper shows 10,000, 100,000 and 150,000 steps; here an epoch has {steps}. "
        f"{describe_setup(found)}."
    )


def figure4b(folder: RunFolder, width: float) -> tuple[Figure, str]:
    """Reproduce Fig. 4b: component error over the steps, on a logarithmic axis."""
    found = folder.trainings("03_consensus_loss", "cross-entropy", "consensus")
    histories = {
        name: [folder.history(row) for _, row in rows.iterrows()]
        for name, rows in found.groupby("name", sort=False)
    }
    printed = read_printed(PRINTED, "figure4b")
    theirs = ", ".join(f"{row['component_error'].values[0]:g}? ({name})" for name, row in printed.items())
    keys = {"component_error": "component error, validation"}
    data = folder.data(found.iloc[0])
    floor = evaluate(MostFrequentLabel(data.train), data.validation).compute()
    constant = {key: floor[key] for key in keys}
    return plots.curves(histories, keys, x="step", xlabel="steps", constant=constant), (
        f"Reproduction of Fig. 4b: mean and range over seeds; consensus is Eq. 8 on components, weighed by "
        f"size; dotted: the constant prediction. {describe_setup(found)}. The authors' curves, "
        f"on other data, end at about {theirs}."
    )


def figure4c(folder: RunFolder, width: float) -> tuple[Figure, str]:
    """Reproduce Fig. 4c: the same faces with a rising weight of the deviation."""
    every = folder.trainings(ARTIFACTS)
    at = {PRESETS["alone"].make().options["beta"]: ALONE}
    at |= {float(name.split()[1]): name for name in every.name.unique() if name.startswith("beta ")}
    betas = sorted(at)
    first = folder.trainings(ARTIFACTS, *(at[beta] for beta in betas)).drop_duplicates("name")
    test = folder.data(first.iloc[0]).test
    said = [_last(folder, row) for _, row in first.iterrows()]
    colours = test.task.colours
    shown = range(min(2, len(test)))
    rows = [[to_rgb(test[i]["image"]), *(colorize(one[i], colours) for one in said)] for i in shown]
    below = [f"{row.mean_iou:.3f} / {row.component_error:.2f}" for _, row in first.iterrows()]
    titles = ["image", *(f"β = {beta:g}" for beta in betas)]
    figure = image_grid(rows, titles=titles, captions=[["", *below]] * len(shown), width=width)
    return class_legend(figure, test.task.classes, colours), (
        "Reproduction of Fig. 4c: Eq. 8 on components, each weighed by its size, α = 10, one training each, "
        "which ranks nothing. Below each mask: mean IoU / component error, of all test images"
        f"{_of_the_constant(first, 'mean_iou', 'component_error')}. {describe_setup(first)}."
    )


def figure5(folder: RunFolder, width: float) -> tuple[Figure, str]:
    """Reproduce Fig. 5: covered faces, masks, and the face that each mask leaves."""
    test, found, said = transfer(folder)
    maps = truth_of(test, len(said["teacher"])) | said
    return faces(test, maps, first_covered(test, said, 4), width, cut=(1,)), (
        f"Reproduction of Fig. 5 (there COFW, here {dataset_title(test.info.name)}), each mask with the "
        f"face that it leaves. {describe_setup(found)}."
    )


def figure6(folder: RunFolder, width: float) -> tuple[Figure, str]:
    """Reproduce Fig. 6: parts, and what each mask cuts out as the first two: of ``parts``, face and hair."""
    test, found, masks = watched(folder)
    shown, cut = range(min(4, len(test))), range(1, min(3, len(test.task.classes)))
    maps = truth_of(test, len(shown)) | {name: kept[max(kept)] for name, kept in masks.items()}
    return faces(test, maps, shown, width, cut=cut), (
        f"Reproduction of Fig. 6: the first {len(shown)} test images. On all test images, "
        f"{compared(found, PAIR, 'mean_iou', 'component_error')}. Consensus is {OURS}. "
        f"{describe_setup(found)}."
    )


def faces(
    test: FaceDataset,
    maps: Mapping[str, np.ndarray],
    chosen: Sequence[int],
    width: float,
    cut: Sequence[int] = (),
) -> Figure:
    """Show a face in each row: the image, then each map and what its classes ``cut`` take out."""
    classes, colours = test.task.classes, test.task.colours
    rows = []
    for i in chosen:
        image = to_rgb(test[i]["image"])
        rows.append([image])
        for one in maps.values():
            out = [np.where((one[i] == c)[..., None], image, 1) for c in cut]
            rows[-1] += [colorize(one[i], colours), *out]
    titles = ["image", *(title for name in maps for title in (name, *(classes[c] for c in cut)))]
    return class_legend(image_grid(rows, titles=titles, width=width), classes, colours)


def truth_of(test: FaceDataset, count: int) -> dict[str, np.ndarray]:
    """Return the true labels of the first images, as a map of :func:`faces`."""
    return {"truth": np.stack([test[i]["labels"] for i in range(count)])}


def first_covered(test: FaceDataset, maps: Mapping[str, np.ndarray], count: int) -> list[int]:
    """Return the first images that there are maps of and of which the third class covers over a twentieth."""
    among = range(min(map(len, maps.values())))
    return [i for i in among if (test[i]["labels"] == 2).float().mean() > 0.05][:count]


def compared(found: pd.DataFrame, names: Mapping[str, str], *keys: str) -> str:
    """Return in words the mean scores of some methods, and the last against the one before, seed by seed.

    Better or worse is said where all seeds agree.

    Args:
        found: trainings.
        names: method → its title.
        keys: scores of ``SCORES``.
    """
    base, ours = list(names)[-2:]
    said = []
    for key in keys:
        title, higher = SCORES[key]
        means = [f"{name} {found[found.name == method][key].mean():.3f}" for method, name in names.items()]
        by_seed = found.pivot(index="seed", columns="name", values=key)
        gain = (by_seed[ours] - by_seed[base]).dropna()
        word = _of_seeds(gain if higher else -gain)
        floor = _of_the_constant(found, key)
        said.append(f"{title}: {', '.join(means)} ({names[ours]} against {names[base]}: {word}{floor})")
    return "; ".join(said)


def _of_seeds(gain: pd.Series) -> str:
    """Return in a word what a gain in each seed says; it is no decided difference."""
    if not len(gain):
        return "not compared"
    if gain.min() <= 0 <= gain.max():
        return "seeds disagree"
    word = "better" if gain.min() > 0 else "worse"
    return f"{word} in {'its one seed' if len(gain) == 1 else f'all {len(gain)} seeds'}"


def _of_the_constant(found: pd.DataFrame, *keys: str) -> str:
    """Return what trainings recorded of the constant prediction, as the end of a phrase; empty if nothing."""
    known = [f"floor_{key}" for key in keys]
    if not set(known) <= set(found):
        return ""
    return f"; constant prediction {' / '.join(f'{found[key].iloc[0]:.3f}' for key in known)}"


def _last(folder: RunFolder, training: pd.Series) -> np.ndarray:
    """Return what a training predicted at its end for the first test images."""
    kept = folder.masks(training)
    return kept[max(kept)]


def _pieces(mask: np.ndarray) -> int:
    """Return the number of components as the paper counts: of equal label, without the background."""
    return sum(count_pieces(mask == c)[0] for c in np.unique(mask) if c > 0)

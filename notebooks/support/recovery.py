"""Notebook 04: rendered faces labelled as Eq. 2 labels them, and scores of what a factorisation recovers."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy import ndimage

from consensus_lib import paths
from consensus_lib.data import TASKS, DatasetInfo, DatasetWriter, prepared_folder
from consensus_lib.data.folder import is_made, read_index, read_info
from consensus_lib.metrics.segmentation import SegmentationScores
from synthetic_faces import read_truth


class Recovered(NamedTuple):
    """What is found of an occlusion that is known.

    Attributes:
        iou: intersection over union of what was found and what is there; 1 if both are empty.
        pieces_off: components found minus components that are there.
    """

    iou: float
    pieces_off: int


def recovered(
    found: np.ndarray, truth: np.ndarray, apart: np.ndarray | None = None, connectivity: int = 4
) -> Recovered:
    """Score a recovered occlusion where the truth is known, as on drawn faces.

    Args:
        found, truth: bool ``[H,W]``, such as ``Factorised.cleaned`` and the true occlusion of the face.
        apart: bool ``[H,W]``, pixels that do not count; None counts all. Hair over the face is hidden face
            to Eq. 1 and no occlusion to a label, so that counting it blames the one for the other.
        connectivity: 4 or 8 neighbours, of the components.

    Returns:
        The scores of this image.

    Raises:
        ValueError: a mask differs from the above.

    >>> there = np.array([[1, 1, 0, 1]], bool)
    >>> recovered(np.array([[0, 1, 0, 0]], bool), there)
    Recovered(iou=0.3333333333333333, pieces_off=-1)
    """
    _check(found=found, truth=truth)
    if apart is not None:
        _check(found=found, apart=apart)
        found, truth = found & ~apart, truth & ~apart
    union = int((found | truth).sum())
    neighbours = ndimage.generate_binary_structure(2, connectivity // 4)
    pieces = [ndimage.label(mask, neighbours)[1] for mask in (found, truth)]
    return Recovered(int((found & truth).sum()) / union if union else 1.0, pieces[0] - pieces[1])


def noisy_mask(mask: np.ndarray, amount: float, seed: int = 0) -> np.ndarray:
    """Return a mask as a worse teacher would draw it: moved, ragged, with false holes and islands.

    All that is drawn at random is drawn whatever ``amount`` is, which only scales it: with one seed, a
    larger amount makes the same mistakes larger.

    Args:
        mask: bool ``[H,W]``.
        amount: 0 returns the mask; 1 moves it by up to 1.5% of the side along each axis, moves its border
            in and out by 1% of the side (one standard deviation), and inverts six discs around the mask
            whose radii reach 3.5% of the side. On drawn faces this leaves an IoU of 0.84, as the paper's
            teacher has on COFW.
        seed: of the mistakes.

    Returns:
        bool ``[H,W]``.

    Raises:
        ValueError: ``mask`` is not a mask, or ``amount`` is negative.
    """
    _check(mask=mask)
    if not amount >= 0:
        raise ValueError(f"amount: expected at least 0, got {amount}")
    if amount == 0 or not mask.any() or mask.all():
        return mask.copy()
    rng, side = np.random.default_rng(seed), max(mask.shape)
    depth = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)  # > 0 inside
    waves = ndimage.gaussian_filter(rng.standard_normal(mask.shape), 0.02 * side, mode="wrap")
    shift = amount * 0.015 * side * rng.uniform(-1, 1, 2)
    y, x = np.nonzero(mask)
    centres = rng.uniform((y.min(), x.min()), (y.max(), x.max()), (6, 2))
    radii = amount * 0.035 * side * rng.uniform(0.2, 1, 6)
    depth = ndimage.shift(depth, shift, order=1, mode="nearest")
    wrong = depth + amount * 0.01 * side * waves / waves.std() > 0
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    for (row, column), radius in zip(centres, radii, strict=True):
        wrong ^= (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    return wrong


def within_the_face(source: str | Path) -> Path:
    """Return a folder beside ``source`` with the same rendered faces, labelled as Eq. 2 labels them.

    An occlusion is one of the complete face: what an occluder hides beside it is background.

    Args:
        source: a data set of :func:`synthetic_faces.prepare_synthetic`.
    """
    source = Path(source)
    folder, info, task = source.with_name(f"{source.name}-face"), read_info(source), TASKS["occlusion"]
    classes = ("background", "face", "occluder")
    notes = {"rendered": info.index_sha256}
    if is_made(folder, info.size, notes, "the same rendered faces"):
        return folder
    about = DatasetInfo(info.name, classes, task.colours, info.source, info.licence, info.size, notes=notes)
    table = task.table(info.classes)
    with DatasetWriter(folder, about) as writer:
        for row in read_index(source):
            labels = table[np.asarray(Image.open(source / row.labels))]
            labels[(labels == 2) & ~read_truth(source, row.id)[1]] = 0
            image = (source / row.image).read_bytes()
            writer.add(row.id, row.split, row.subject, image=image, labels=labels)
    return folder


def unlabelled(dataset: str, faces: Path) -> Path:
    """Return the folder of the images to label: rendered faces, or those of a data set of photographs."""
    return faces if dataset == "synthetic" else prepared_folder(dataset)


def scores(labels: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return the IoU of background, face and occlusion, and the component error, of labels ``[B,H,W]``."""
    counted = SegmentationScores(TASKS["occlusion"].classes)
    counted.update(torch.from_numpy(labels), torch.from_numpy(truth))
    found = counted.compute()
    return {name: found[f"iou_{name}"] for name in counted.classes} | {
        "component error": found["component_error"]
    }


def read_study(name: str) -> pd.DataFrame:
    """Return the stored table of a study, such as ``"occlusion_students"``."""
    return pd.read_csv(paths.root() / f"notebooks/studies/{name}.csv")


def _check(**masks: np.ndarray) -> None:
    shape = np.shape(next(iter(masks.values())))
    for name, mask in masks.items():
        if mask.dtype != bool or mask.ndim != 2 or mask.shape != shape:
            raise ValueError(
                f"{name}: expected booleans [H,W], all of one shape, got {mask.dtype} {list(mask.shape)}"
            )

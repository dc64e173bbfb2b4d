"""Open a data set by its name or folder: rendered faces are made when first asked for, real ones beforehand.

A data set's script or renderer prepares it; this library only reads the folder that it leaves.
"""

import importlib
import os
from pathlib import Path
from typing import NamedTuple

from consensus_lib import paths
from consensus_lib.data.augment import Augment
from consensus_lib.data.dataset import FaceDataset
from consensus_lib.data.folder import DatasetError, is_folder
from consensus_lib.data.tasks import Task

SCRIPTS = {
    "lfw_part_labels": "python data_scripts/prepare_lfw_part_labels.py --size {size}   (or: make data-lfw)"
}
"""Data sets that somebody must prepare → how."""

RENDERED = {"synthetic": "synthetic_faces"}
"""Data sets that are rendered when first asked for → the module whose ``synthetic_folder`` takes ``size`` and
the ``counts`` of each split, and returns the folder."""


class Splits(NamedTuple):
    """The three splits of a data set; only ``train`` is augmented."""

    train: FaceDataset
    validation: FaceDataset
    test: FaceDataset


def is_prepared(name: str | os.PathLike, size: int = 128) -> bool:
    """Say whether the data set, a name or a folder, can be opened without a download."""
    return name in RENDERED or _folder(name, size).is_dir()


def prepared_folder(name: str | os.PathLike, *, size: int = 128, images: int = 600) -> Path:
    """Return the folder of a prepared data set; render it if it is one of those that are rendered.

    Args:
        name: ``"synthetic"``; a data set that was prepared as ``NAME-SIZE`` in the data folder, such as
            ``"lfw_part_labels"``; or the path of any prepared folder.
        size: side in pixels at which it was prepared. A path has its own.
        images: training images to render, for rendered data sets only. Validation gets a sixth as many, at
            least 24, and test a third, at least 48.

    Raises:
        ValueError: the name is unknown, or ``images`` is below 1 for rendered ones.
        DatasetError: the data set is not prepared, and the message says how to do it.
    """
    if name in RENDERED:
        if images < 1:
            raise ValueError(f"images: expected at least 1 (0 means all, for real data), got {images}")
        counts = {"train": images, "validation": max(24, images // 6), "test": max(48, images // 3)}
        return importlib.import_module(RENDERED[name]).synthetic_folder(counts=counts, size=size)
    folder = _folder(name, size)
    if folder.is_dir() or folder == Path(name):
        return folder
    if name not in SCRIPTS:
        known = [*RENDERED, *SCRIPTS]
        raise ValueError(f"dataset: expected one of {known}, got {name!r} and no {folder}")
    raise DatasetError(
        f"{name}: expected a prepared data set in {folder}, found none. Prepare it with: "
        f"{SCRIPTS[name].format(size=size)}"
    )


def open_splits(
    name: str | os.PathLike,
    task: str | Task | None,
    *,
    size: int = 64,
    images: int = 600,
    augment: Augment | None = None,
    seed: int = 0,
) -> Splits:
    """Open the train, validation and test split of a data set.

    Args:
        name: a name or a folder; see :func:`prepared_folder`.
        task: a name, a task, or None; see :class:`FaceDataset`.
        size: side in pixels to train at; prepared data of 128 (or of ``size``, if larger) are resized to it.
        images: training images: how many to render, or how many prepared ones to keep at most. 0 keeps all
            prepared ones.
        augment: variation of the training images.
        seed: of the augmentation, the order, and the choice of ``images`` prepared ones.

    Raises:
        ValueError, DatasetError: as :func:`prepared_folder` and :class:`FaceDataset`.
    """
    if images < 0:
        raise ValueError(f"images: expected at least 0, got {images}")
    folder = prepared_folder(name, size=max(size, 128), images=images)
    train = FaceDataset(folder, "train", task, size=size, augment=augment, seed=seed, limit=images or None)
    return Splits(train, *(FaceDataset(folder, split, task, size=size) for split in ("validation", "test")))


def _folder(name: str | os.PathLike, size: int) -> Path:
    """Return the folder of a data set: a prepared folder, or any path with a separator in it, is its own."""
    named = isinstance(name, str) and Path(name).name == name and not is_folder(name)
    return paths.data_dir() / f"{name}-{size}" if named else Path(name)

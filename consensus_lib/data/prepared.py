"""Open a data set by its name: drawn faces are drawn when first asked for, real ones must be prepared."""

from pathlib import Path
from typing import NamedTuple

from consensus_lib import paths
from consensus_lib.data.augment import Augment
from consensus_lib.data.dataset import FaceDataset
from consensus_lib.data.folder import DatasetError
from consensus_lib.data.tasks import Task

SCRIPTS = {
    "lfw_part_labels": "python data_scripts/prepare_lfw_part_labels.py --size {size}   (or: make data-lfw)"
}
"""Real data sets → how to prepare them."""


class Splits(NamedTuple):
    """The three splits of a data set; only ``train`` is augmented."""

    train: FaceDataset
    validation: FaceDataset
    test: FaceDataset


def is_prepared(name: str, size: int = 128) -> bool:
    """Say whether the data set can be opened without a download."""
    return name == "synthetic" or _folder(name, size).is_dir()


def prepared_folder(name: str, *, size: int = 128, images: int = 600) -> Path:
    """Return the folder of a prepared data set; draw the synthetic one if need be.

    Args:
        name: ``"synthetic"`` or a real data set such as ``"lfw_part_labels"``.
        size: side in pixels at which it was prepared.
        images: training images to draw, for synthetic faces only. Validation gets a sixth as many, at
            least 24, and test a third, at least 48.

    Raises:
        ValueError: the name is unknown.
        DatasetError: the data set is not prepared; the message says how to do it.
    """
    if name == "synthetic":
        from synthetic_faces import synthetic_folder

        counts = {"train": images, "validation": max(24, images // 6), "test": max(48, images // 3)}
        return synthetic_folder(counts=counts, size=size)
    if name not in SCRIPTS:
        raise ValueError(f"dataset: expected one of {['synthetic', *SCRIPTS]}, got {name!r}")
    if not is_prepared(name, size):
        raise DatasetError(
            f"{name}: expected a prepared data set in {_folder(name, size)}, found none. Prepare it "
            f"with: {SCRIPTS[name].format(size=size)}"
        )
    return _folder(name, size)


def open_splits(
    name: str,
    task: str | Task | None,
    *,
    size: int = 64,
    images: int = 600,
    augment: Augment | None = None,
    seed: int = 0,
) -> Splits:
    """Open the train, validation and test split of a data set.

    Args:
        name: see :func:`prepared_folder`.
        task: a name, a task, or None; see :class:`FaceDataset`.
        size: side in pixels to train at; prepared data of 128 (or of ``size``, if larger) are resized to it.
        images: training images: how many synthetic ones to draw, or how many real ones to keep at most.
            0 keeps all real ones.
        augment: variation of the training images.
        seed: of the augmentation, the order, and the choice of ``images`` real ones.

    Raises:
        ValueError, DatasetError: as :func:`prepared_folder` and :class:`FaceDataset`.
    """
    if images < 0 or (images == 0 and name == "synthetic"):
        raise ValueError(f"images: expected at least 1 (0 means all, for real data), got {images}")
    folder = prepared_folder(name, size=max(size, 128), images=images)
    train = FaceDataset(folder, "train", task, size=size, augment=augment, seed=seed, limit=images or None)
    return Splits(train, *(FaceDataset(folder, split, task, size=size) for split in ("validation", "test")))


def _folder(name: str, size: int) -> Path:
    return paths.data_dir() / f"{name}-{size}"

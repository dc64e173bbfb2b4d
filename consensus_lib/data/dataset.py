"""``FaceDataset``: one split of a prepared folder, decoded once, served in whole batches."""

import copy
import hashlib
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from consensus_lib import IGNORE, paths
from consensus_lib.data.augment import Augment
from consensus_lib.data.decoded import Cache
from consensus_lib.data.folder import DatasetError, check_contrast, read_index, read_info
from consensus_lib.data.tasks import Task
from consensus_lib.data.tasks import task as task_by_name
from consensus_lib.losses.blobs import Blobs, join_blobs, label_blobs

_DECODING = 2
"""Raise when the same files are decoded to other values: no cache serves old ones, no training goes on."""


class FaceDataset(Dataset):
    """Images and label maps of a prepared data set, for one task.

    Each split is decoded once into a cache on disk and mapped into memory from there, so an epoch costs
    array copies, not PNG decoding, and workers share the pages. A batch is a dictionary:

    =================  ========================  ====================================================
    ``image``          float32 ``[B,3,H,W]``     (x - 0.5) / 0.5, so -1 is black and 1 is white
    ``labels``         int64 ``[B,H,W]``         classes of the task, 255 = ignore
    ``index``          int64 ``[B]``             position in this data set
    ``superpixels``    int64 ``[B,H,W]``         only where the data set has them and nothing moves
    ``blobs``          :class:`Blobs`            only of :meth:`with_blobs`
    ``probabilities``  float32 ``[B,K,H,W]``     a teacher's, where asked for; they sum to 1
    =================  ========================  ====================================================

    ``fingerprint`` names what lies in the folder and how it is decoded, for caches and checkpoints.
    ``absent`` has the task's classes that no pixel of these samples has; if these are a whole split, a
    warning says so. Flips exchange the classes that the task calls ``mirrored``, in labels, probabilities
    and blobs.

    Args:
        folder: a prepared data set.
        split: its split, or several joined by ``+``: ``"train+validation"``.
        task: ``"parts"``, ``"occlusion"``, one of the data set's own, or a
            :class:`~consensus_lib.data.tasks.Task`; None, or ``"source"``, takes the classes of the data set
            as they are.
        size: side in pixels to resize to; None keeps the folder's. Image and labels go through the same
            antialiasing filter about the same centre: of the labels, once they are classes of the task, the
            class whose mask is largest there; see :mod:`consensus_lib.data.images`.
        augment: random variation, or None.
        seed: seed of the augmentation.
        limit: keep only the first so many samples, in the fixed random order of ``seed``; None keeps all.
        ids: keep only samples with these ids; None keeps all.
        probabilities: serve a teacher's probabilities beside its labels; see
            :mod:`consensus_lib.teacher.pseudo_labels`.
        progress: show a bar while decoding.

    Raises:
        DatasetError: the folder is not a prepared data set, lacks the split, or cannot serve the task; a
            file is broken, not square, or has numbers that are no classes; or the labels of the split have
            one class and 255 = ignore alone, as masks of 0 and 255 do.

    >>> data = FaceDataset("data/lfw_part_labels-128", "train", "parts", size=64)  # doctest: +SKIP
    >>> data[0]["image"].shape                                                     # doctest: +SKIP
    torch.Size([3, 64, 64])
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        split: str,
        task: str | Task | None = None,
        *,
        size: int | None = None,
        augment: Augment | None = None,
        seed: int = 0,
        limit: int | None = None,
        ids: Iterable[str] | None = None,
        probabilities: bool = False,
        progress: bool = True,
    ):
        self.folder = Path(folder)
        self.info = read_info(self.folder)
        # Of the whole description: two series of synthetic faces share an index and differ in their notes.
        described = (self.folder / "dataset.json").read_bytes() + str(_DECODING).encode()
        version = self.fingerprint = hashlib.sha256(described).hexdigest()[:16]
        self.task = task_by_name(task, self.info)
        self.split, self.size, self.augment, self.seed = split, size or self.info.size, augment, seed
        self.task.table(self.info.classes)  # complains before anything is decoded
        index = read_index(self.folder)
        self.rows = [row for row in index if row.split in split.split("+")]
        if not self.rows or set(split.split("+")) - {row.split for row in self.rows}:
            raise DatasetError(f"split: expected one of {self.info.counts} in {self.folder}, got {split!r}")
        if ids is not None:
            kept = set(ids)
            self.rows = [row for row in self.rows if row.id in kept]
            if len(self.rows) != len(kept) or not kept:
                raise DatasetError(
                    f"ids: expected some ids of the split {split!r} of {self.folder}, "
                    f"got {len(kept)}, of which it has {len(self.rows)}"
                )
            named = "\n".join([self.fingerprint, *sorted(kept)])
            self.fingerprint = hashlib.sha256(named.encode()).hexdigest()[:16]
        in_split = len(self.rows)
        if limit is not None:
            if limit < 1:
                raise ValueError(f"limit: expected at least 1, got {limit}")
            order = np.random.default_rng(seed).permutation(len(self.rows))[:limit]
            self.rows = [self.rows[i] for i in sorted(order)]
        unlabelled = [row.id for row in self.rows if not row.labels]
        if unlabelled:
            raise DatasetError(
                f"split {split!r}: expected labels, but {len(unlabelled)} images of "
                f"{self.folder} have none, such as {unlabelled[0]}"
            )
        cache = Cache(self.folder, self.info, index, version, progress)
        self._images = cache.open("image", self.rows, self.size)
        self._labels = cache.open("labels", self.rows, self.size, self.task)
        self._probabilities = None
        if probabilities:
            self._probabilities = cache.open("probabilities", self.rows, self.size, self.task)
        self._mirror = self.task.mirror if self.task.mirrored else None
        self._check_classes(whole=ids is None and (limit is None or limit >= in_split))
        self._superpixels = self._cut = None
        if all(row.superpixels for row in self.rows) and augment is None:
            self._superpixels = cache.open("superpixels", self.rows, self.size)

    def _check_classes(self, whole: bool) -> None:
        """Count the labels, find :attr:`absent`, and say what looks like a mistake."""
        where = f"split {self.split!r} of {paths.shown(self.folder)}"
        self._counts = sum(np.bincount(labels.ravel(), minlength=IGNORE + 1) for labels in self._labels)
        names = self.task.classes
        self.absent = tuple(name for name, count in zip(names, self._counts, strict=False) if not count)
        try:
            check_contrast(self._counts, names, f"labels of the {where}")
        except DatasetError as error:
            if whole:
                raise
            warnings.warn(str(error), stacklevel=3)  # a few photographs may well be so
        if whole and self.absent:
            warnings.warn(f"{where}: no pixel is {' or '.join(self.absent)}", stacklevel=3)
        if self.augment and self.augment.flip and self.task.unpaired:
            warnings.warn(
                f"augment: flips take left for right, but task {self.task.name!r} does not say which classes "
                f"change places; make it, or dataset.json, with mirrored={self.task.unpaired}",
                stacklevel=3,
            )

    def __getstate__(self) -> dict:
        """Return what a worker process is sent: names of files instead of all pixels, and no blobs."""
        return self.__dict__ | {"_kept": {}}

    def __len__(self) -> int:
        return len(self.rows)

    def with_blobs(self, **cut) -> "FaceDataset":
        """Return the same samples with ``blobs`` in each batch, made where the batch is: in its worker.

        Each image is cut once, and its blobs are kept and flipped with it. Where the augmentation moves
        pixels otherwise, the moved labels are cut, for each batch anew.

        Args:
            cut: keyword arguments of :func:`~consensus_lib.losses.label_blobs`, such as the
                ``blob_options`` of a :class:`~consensus_lib.losses.ConsensusLoss`.
        """
        data = copy.copy(self)
        data._cut, data._kept = cut, {}
        return data

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, torch.Tensor]:
        """Return one sample; ``key`` is an index, or (epoch, index) for another variation of it."""
        batch = self.__getitems__([key])
        return {name: value if name == "blobs" else value[0] for name, value in batch.items()}

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> dict[str, torch.Tensor]:
        """Return a batch: the samples at ``keys`` (indices, or pairs of epoch and index)."""
        pairs = [key if isinstance(key, tuple) else (0, key) for key in keys]
        epochs, indices = {epoch for epoch, _ in pairs}, [range(len(self))[index] for _, index in pairs]
        if len(epochs) != 1:
            raise ValueError(f"keys: expected one epoch in a batch, got {sorted(epochs)}")
        batch = {
            "image": as_images(self._images[indices]),
            "labels": torch.from_numpy(self._labels[indices]).long(),
            "index": torch.tensor(indices),
        }
        if self._superpixels is not None:
            batch["superpixels"] = torch.from_numpy(self._superpixels[indices].astype(np.int64))
        still = self.augment is None or self.augment.flips_only
        if self._cut is not None and still:
            batch["blobs"] = self._blobs(batch, indices)
        if self._probabilities is not None:
            soft = torch.from_numpy(self._probabilities[indices]).permute(0, 3, 1, 2).float()  # [B, K, H, W]
            batch["image"] = torch.cat([batch["image"], soft], 1)  # to move along
        if self.augment is not None:
            variation = self.seed, epochs.pop(), indices
            batch["image"], batch["labels"] = self.augment(
                batch["image"], batch["labels"], *variation, mirror=self._mirror
            )
            if "blobs" in batch:
                blobs, flipped = batch["blobs"], self.augment.flipped(*variation)
                ids = torch.where(flipped[:, None, None], blobs.ids.flip(2), blobs.ids)
                labels = blobs.labels
                if self._mirror is not None:
                    mirrored = torch.from_numpy(self._mirror)[labels]
                    labels = torch.where(flipped[blobs.image], mirrored, labels)
                batch["blobs"] = blobs._replace(ids=ids, labels=labels)
        if self._probabilities is not None:
            batch["image"], soft = batch["image"][:, :3].contiguous(), batch["image"][:, 3:]
            batch["probabilities"] = soft / soft.sum(1, keepdim=True)
        if self._cut is not None and not still:
            batch["blobs"] = label_blobs(batch["labels"], image=batch["image"], **self._cut)
        return batch

    def _blobs(self, batch: dict[str, torch.Tensor], indices: list[int]) -> Blobs:
        """Return the blobs of a batch that is not yet varied; cut only what was never cut before."""
        new = [position for position, index in enumerate(indices) if index not in self._kept]
        if new:
            blobs = label_blobs(batch["labels"][new], image=batch["image"][new], **self._cut)
            for position, part in zip(new, blobs.split(), strict=True):
                self._kept[indices[position]] = part._replace(ids=part.ids.int())
        return join_blobs([self._kept[index] for index in indices])

    def class_shares(self) -> np.ndarray:
        """Return each class's share of the labelled pixels, float64 ``[K]``."""
        counts = self._counts[: len(self.task.classes)]
        return counts / counts.sum()

    def most_frequent_labels(self) -> np.ndarray:
        """Return the most frequent label at each pixel, uint8 ``[H,W]``: the prediction that needs no image.

        On aligned faces it is the floor that any network must beat. Ties go to the lower class.
        """
        labels = self._labels[np.arange(len(self))]
        votes = [(labels == c).sum(0) for c in range(len(self.task.classes))]  # K of [H, W]
        return np.argmax(votes, axis=0).astype(np.uint8)


def as_images(pictures: np.ndarray) -> torch.Tensor:
    """Return pictures uint8 ``[B,H,W,3]`` as networks take them: float32 ``[B,3,H,W]`` in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1)

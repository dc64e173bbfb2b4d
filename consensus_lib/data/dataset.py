"""``FaceDataset``: one split of a prepared folder, decoded once, served in whole batches."""

import copy
import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from consensus_lib import IGNORE, paths
from consensus_lib.data.augment import Augment
from consensus_lib.data.folder import DatasetError, Row, check_contrast, read_index, read_info
from consensus_lib.data.images import (
    read_image,
    read_labels,
    read_layers,
    read_numbers,
    resize_image,
    resize_labels,
    resize_numbers,
    resize_shares,
)
from consensus_lib.data.tasks import Task
from consensus_lib.data.tasks import task as task_by_name
from consensus_lib.losses.blobs import Blobs, join_blobs, label_blobs

_DECODING = 2
"""Raise when the same files are decoded to other values: no cache serves old ones, no training goes on."""

_MAPPED = ("_images", "_labels", "_probabilities", "_superpixels")
"""What of a data set lies in files of the cache: a process that is handed the data set opens them anew."""


class FaceDataset(Dataset):
    """Images and label maps of a prepared data set, for one task.

    Images are decoded once into a cache on disk and mapped into memory from there, so an epoch costs
    array copies, not PNG decoding, and workers share the pages. A batch is a dictionary:

    ================  =========================  ====================================================
    ``image``         float32 ``[B,3,H,W]``      (x - 0.5) / 0.5, so -1 is black and 1 is white
    ``labels``        int64 ``[B,H,W]``          classes of the task, 255 = ignore
    ``index``         int64 ``[B]``              position in this data set
    ``superpixels``   int64 ``[B,H,W]``          only where the data set has them and nothing moves
    ``blobs``         :class:`Blobs`             only of :meth:`with_blobs`
    ``probabilities`` float32 ``[B,K,H,W]``      a teacher's, where asked for; they sum to 1
    ================  =========================  ====================================================

    ``fingerprint`` names what lies in the folder and how it is decoded, for caches and checkpoints.
    ``absent`` has the task's classes that no pixel of these samples has; if these are a whole split, a
    warning says so. Flips exchange the classes that the task calls ``mirrored``, in labels, probabilities
    and blobs.

    Args:
        folder: a prepared data set.
        split: its split, or several joined by ``+``: ``"train+validation"``.
        task: ``"parts"``, ``"occlusion"`` or a :class:`~consensus_lib.data.tasks.Task`; None takes the
            classes of the data set as they are.
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
        described = (self.folder / "dataset.json").read_bytes()
        self.fingerprint = hashlib.sha256(described + str(_DECODING).encode()).hexdigest()[:16]
        self.task = Task.of(self.info) if task is None else task_by_name(task)
        self.split, self.size, self.augment, self.seed = split, size or self.info.size, augment, seed
        table = self.task.table(self.info.classes)
        self.rows = [row for row in read_index(self.folder) if row.split in split.split("+")]
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
        self._images = self._decoded("image", progress)
        self._labels = self._decoded("labels", progress, table)
        self._probabilities = self._decoded("probabilities", progress, table) if probabilities else None
        self._mirror = self.task.mirror if self.task.mirrored else None
        self._check_classes(whole=ids is None and (limit is None or limit >= in_split))
        self._superpixels = self._cut = None
        if all(row.superpixels for row in self.rows) and augment is None:
            self._superpixels = self._decoded("superpixels", progress)

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
                f"change places; make it with mirrored={self.task.unpaired}",
                stacklevel=3,
            )

    def __getstate__(self) -> dict:
        """Return what a worker process is sent: names of files instead of all pixels."""
        state = self.__dict__ | {"_kept": {}}
        return state | {name: getattr(state[name], "filename", None) for name in _MAPPED}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        for name in _MAPPED:
            if state[name]:
                setattr(self, name, np.load(state[name], mmap_mode="r"))

    def __len__(self) -> int:
        return len(self.rows)

    def with_blobs(self, **cut) -> "FaceDataset":
        """Return the same samples with ``blobs`` in each batch, made where the batch is: in its worker.

        Each image is cut once, and its blobs are kept and flipped with it. Where the augmentation moves
        pixels otherwise, the moved labels are cut, for each batch anew.

        Args:
            cut: keyword arguments of :func:`~consensus_lib.losses.label_blobs`, such as the ``cut`` of a
                :class:`~consensus_lib.losses.ConsensusLoss`.
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
        votes = [(np.asarray(self._labels) == c).sum(0) for c in range(len(self.task.classes))]  # K of [H, W]
        return np.argmax(votes, axis=0).astype(np.uint8)

    def _decoded(self, column: str, progress: bool, table: np.ndarray | None = None) -> np.ndarray:
        """Return the rows' decoded files, uint8 or uint16 ``[N,H,W(,C)]``, mapped from the cache on disk."""
        version = hashlib.sha256("\n".join([self.fingerprint, *(row.id for row in self.rows)]).encode())
        version.update(b"" if table is None else table.tobytes())
        name = f"{self.info.name}-{column}-{self.size}-{version.hexdigest()[:16]}.npy"
        cached = paths.data_dir() / "cache" / name
        if not cached.is_file():
            classes = len(self.info.classes)
            arrays = np.stack(
                [
                    decode(self.folder, row, column, self.size, classes, table)
                    for row in tqdm(self.rows, f"decode {column}", leave=False, disable=not progress)
                ]
            )
            if column == "probabilities":  # those of source classes that the task takes for one are added
                into = table[:classes, None] == np.arange(len(self.task.classes))  # [S, K]
                arrays = np.minimum(arrays @ into.astype(np.uint16), 255).astype(np.uint8)
            with paths.atomic(cached) as part, part.open("wb") as file:
                np.save(file, arrays)
        return np.load(cached, mmap_mode="r")


def loader(
    data: FaceDataset,
    batch_size: int,
    *,
    shuffle: bool = False,
    workers: int = 0,
    first_epoch: int = 0,
    share: tuple[int, int] = (0, 1),
) -> DataLoader:
    """Return a ``DataLoader`` over ``data`` whose k-th pass is epoch ``first_epoch + k``.

    Order and augmentation depend on the data set's seed and the epoch only, whatever ``workers`` is.

    Args:
        data: the data set.
        batch_size: samples a batch; when shuffling, a last smaller batch is dropped, unless it is the
            only one.
        shuffle: a new random order in each epoch.
        workers: worker processes; 0 loads in this one.
        first_epoch: the number of the first pass.
        share: (rank, world), the part of one of several processes; ``batch_size`` is that of all together.
            When shuffling, each process gets its slice of each batch, all of one size; otherwise its slice
            of the data, so that the processes' samples, one after the other, are in the data's order.

    Raises:
        ValueError: ``batch_size`` is below 1, or cannot be shared.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    rank, world = share
    places = np.arange(len(data))  # in the order of an epoch
    if shuffle and world > 1:
        if batch_size % world or batch_size > len(data):
            raise ValueError(
                f"batch_size: expected a multiple of the {world} processes, at most the {len(data)} samples, "
                f"got {batch_size}"
            )
        whole = places[: len(data) // batch_size * batch_size]
        places = whole.reshape(-1, world, batch_size // world)[:, rank].ravel()
    elif world > 1:
        places = np.array_split(places, world)[rank]
    order = _EpochOrder(len(data), places, data.seed if shuffle else None, first_epoch)
    # A generator of its own: starting workers then draws nothing from the one that dropout reads.
    return DataLoader(
        data,
        max(1, batch_size // world),
        sampler=order,
        num_workers=workers,
        collate_fn=_as_it_is,
        drop_last=shuffle and len(data) >= batch_size,
        persistent_workers=workers > 0,
        generator=torch.Generator(),
        pin_memory=torch.cuda.is_available(),
    )


class _EpochOrder(Sampler):
    """Yield (epoch, index): workers that live on from epoch to epoch then know which one it is."""

    def __init__(self, length: int, places: np.ndarray, seed: int | None, first_epoch: int):
        self.length, self.places, self.seed, self.epoch = length, places, seed, first_epoch

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        order = (
            np.arange(self.length)
            if self.seed is None
            else np.random.default_rng((self.seed, epoch)).permutation(self.length)
        )
        return iter([(epoch, index) for index in order[self.places].tolist()])


def _as_it_is(batch):
    return batch


def as_images(pictures: np.ndarray) -> torch.Tensor:
    """Return pictures uint8 ``[B,H,W,3]`` as networks take them: float32 ``[B,3,H,W]`` in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1)


def decode(
    folder: Path, row: Row, column: str, size: int, classes: int = IGNORE, table: np.ndarray | None = None
) -> np.ndarray:
    """Return a file of a prepared data set, resized: image uint8 ``[H,W,3]``, other maps ``[H,W]``.

    A teacher's probabilities come as uint8 ``[H,W,S]``, in 255ths. How each is opened and resized, see
    :mod:`consensus_lib.data.images`.

    Args:
        folder: the data set.
        row: of its index.
        column: ``"image"``, ``"labels"``, ``"superpixels"`` or ``"probabilities"``.
        size: side in pixels.
        classes: how many the data set has, S.
        table: of a task, uint8 ``[256]``, that labels go through before they are resized; None keeps them.

    Raises:
        DatasetError: the file is missing, broken, not square, of another kind, or has numbers that are no
            classes.
    """
    if column == "probabilities":
        layers = read_layers(folder / f"probabilities/{row.id}.png", classes)
        return np.stack([resize_shares(layer, size) for layer in layers], -1)
    path = folder / getattr(row, column)
    if column == "image":
        return resize_image(read_image(path), size)
    if column == "superpixels":
        return resize_numbers(read_numbers(path), size)
    labels = read_labels(path, classes)
    return resize_labels(labels if table is None else table[labels], size)

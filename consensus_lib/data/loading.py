"""``loader``: batches of a data set in an order that depends on its seed and the epoch alone."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from consensus_lib.data.dataset import FaceDataset


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
    # A generator of its own: starting workers then takes nothing from the one that dropout reads.
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

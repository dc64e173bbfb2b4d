"""What is fed: photographs from a prepared folder or rendered faces, resident on the device.

Images and labels lie on the device as bytes. A thread makes the next epoch there, on a stream of its own, while
the present one trains: its order, the variation of its images and labels, and their blobs. So a step waits for
nothing. Order and variation are those of the library's loader: they depend on (seed, epoch, index) alone.
"""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from consensus_lib import paths
from consensus_lib.data import TASKS, Augment, FaceDataset
from consensus_lib.losses.blobs import Blobs, label_blobs
from synthetic_faces import CLASSES, Recipe, draw_face

SPLITS = {"train": 0, "validation": 1_000_000_000, "test": 2_000_000_000}
"""First index of each split of rendered faces, as in ``synthetic_faces``."""

FACES = Recipe(background="drawn")
"""Without photographs in the background: which there are depends on the packages of a machine."""


class Arrays(NamedTuple):
    """Images uint8 ``[N,H,W,3]`` and labels uint8 ``[N,H,W]``, 255 = ignore."""

    images: np.ndarray
    labels: np.ndarray


class Batch(NamedTuple):
    """A batch on the device: float ``[B,3,H,W]`` in [-1, 1], int64 ``[B,H,W]``, and blobs if asked for."""

    images: torch.Tensor
    labels: torch.Tensor
    blobs: Blobs | None


class Resident:
    """A split on the device, served in epochs."""

    def __init__(self, arrays: Arrays, device: torch.device):
        self.images = torch.from_numpy(arrays.images).permute(0, 3, 1, 2).contiguous().to(device)
        self.labels = torch.from_numpy(arrays.labels).to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def floats(self, at: torch.Tensor | slice) -> torch.Tensor:
        """Return images as networks take them, float32 ``[B,3,H,W]`` in [-1, 1]."""
        return self.images[at].float().div_(127.5).sub_(1)

    @torch.no_grad()
    def epoch(
        self, seed: int, epoch: int, batch: int, augment: Augment | None = None, cut: dict | None = None
    ) -> list[Batch]:
        """Return the batches of an epoch; a last smaller one is dropped, unless it is the only one.

        Args:
            cut: keyword arguments of :func:`label_blobs`; None makes no blobs.
        """
        order = np.random.default_rng((seed, epoch)).permutation(len(self))
        batches = []
        for begin in range(0, max(1, len(self) // batch) * batch, batch):
            indices = order[begin : begin + batch]
            at = torch.from_numpy(indices).to(self.labels.device)
            images, labels = self.floats(at), self.labels[at].long()
            if augment is not None:
                images, labels = augment(images, labels, seed, epoch, indices.tolist())
            batches.append(
                Batch(images, labels, None if cut is None else label_blobs(labels, image=images, **cut))
            )
        return batches

    def epochs(self, count: int, *given, **more) -> Iterator[list[Batch]]:
        """Yield so many epochs, each made while the one before trains; arguments as of :meth:`epoch`.

        On CUDA the caller must have waited for an epoch's last step before it asks for the next epoch.
        """
        device = self.labels.device
        side = torch.cuda.Stream(device) if device.type == "cuda" else None

        def make(number: int) -> list[Batch]:
            with torch.cuda.stream(side) if side else contextlib.nullcontext():
                made = self.epoch(given[0], number, *given[1:], **more)
            if side:
                side.synchronize()  # of this thread alone: the main one goes on
            return made

        with ThreadPoolExecutor(1) as thread:
            coming = thread.submit(make, 0)
            for number in range(count):
                made = coming.result()
                coming = thread.submit(make, number + 1) if number + 1 < count else None
                yield made


def photographs(folder: Path, size: int, limit: int | None) -> dict[str, Arrays]:
    """Return the labelled splits of a prepared folder for the task ``parts``."""
    found = {}
    for split in SPLITS:
        data = FaceDataset(folder, split, "parts", size=size, limit=limit)
        parts = [data.__getitems__(range(i, min(i + 256, len(data)))) for i in range(0, len(data), 256)]
        images = torch.cat([((part["image"] + 1) * 127.5).round().byte() for part in parts])
        labels = torch.cat([part["labels"].byte() for part in parts])
        found[split] = Arrays(images.permute(0, 2, 3, 1).numpy(), labels.numpy())
    return found


def draw(split: str, numbers: range, size: int, task: str) -> Arrays:
    """Return rendered faces of a split: runs in the processes of the pool."""
    table = TASKS[task].table(CLASSES)
    faces = [draw_face(0, SPLITS[split] + number, size, recipe=FACES) for number in numbers]
    return Arrays(np.stack([face.image for face in faces]), table[np.stack([face.labels for face in faces])])


def rendered(split: str, count: int, size: int, task: str, pool: Executor | None) -> Arrays:
    """Return the first so many rendered faces of a split, rendered by all processes of ``pool``."""
    chunks = [range(i, min(i + 16, count)) for i in range(0, count, 16)]
    parts = list(
        (pool.map if pool else map)(draw, *zip(*((split, c, size, task) for c in chunks), strict=True))
    )
    return Arrays(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def render(
    file: Path, profile, task: str, pool: Executor | None, cores: int, count: int | None = None
) -> dict:
    """Draw the faces of part 4 into ``file``; as many to train on as fit the allowance, or ``count``.

    Returns:
        What a row says of them. The rate is that of the faces for validation and test.
    """
    begin, (most, *held) = time.perf_counter(), profile.faces
    if pool:  # the processes start, and are not counted
        list(pool.map(draw, ["train"] * cores, [range(1)] * cores, [32] * cores, [task] * cores))
    started = time.perf_counter()
    splits = {
        split: rendered(split, n, profile.size, task, pool)
        for split, n in zip(("validation", "test"), held, strict=True)
    }
    rate = sum(held) / (time.perf_counter() - started)
    if count is None:
        spare = max(0.0, profile.allowance - (time.perf_counter() - begin))
        count = min(most, max(profile.batch, int(rate * spare) // 100 * 100))
    splits["train"] = rendered("train", count, profile.size, task, pool)
    with paths.atomic(file) as part, part.open("wb") as out:
        np.savez(out, **{f"{split} {k}": v for split, a in splits.items() for k, v in a._asdict().items()})
    return {"train_images": count, "faces_per_second": rate, "cores": cores, "task": task}


def load(file: Path) -> dict[str, Arrays]:
    """Return what :func:`render` has written."""
    with np.load(file) as found:
        return {split: Arrays(found[f"{split} images"], found[f"{split} labels"]) for split in SPLITS}

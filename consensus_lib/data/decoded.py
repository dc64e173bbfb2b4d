"""Decoded files: the images and maps of a split, decoded once into one array on disk.

There is one copy for each data set, split, column and size, and for labels and probabilities also for each
task: these go through its table before they are resized. Which rows are wanted is decided in memory.
``make clean`` removes the cache.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from consensus_lib import IGNORE, paths
from consensus_lib.data.folder import DatasetInfo, Row
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


class Decoded:
    """Rows of arrays in files, mapped into memory; a process that is sent them opens the files anew.

    Args:
        files: ``.npy`` files of arrays ``[n,H,W(,C)]``, all of one type.
        places: int64 ``[N,2]``, the file of each row and its position there.
    """

    def __init__(self, files: Sequence[Path], places: np.ndarray):
        self.__setstate__({"files": list(files), "places": places})

    def __getstate__(self) -> dict:
        return {"files": self.files, "places": self.places}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._arrays = [np.load(file, mmap_mode="r") for file in self.files]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int | Sequence[int] | np.ndarray) -> np.ndarray:
        """Return one row, or a copy of several."""
        places = self.places[index]  # [2] or [n, 2]
        if places.ndim == 1:
            return self._arrays[places[0]][places[1]]
        if len(self._arrays) == 1:
            return self._arrays[0][places[:, 1]]
        return np.stack([self._arrays[file][position] for file, position in places])


class Cache:
    """The decoded files of one prepared data set.

    Args:
        folder: the data set.
        info: what ``dataset.json`` says.
        index: all its rows.
        version: names what lies in the folder and how it is decoded.
        progress: show a bar while decoding.
    """

    def __init__(
        self, folder: Path, info: DatasetInfo, index: Sequence[Row], version: str, progress: bool = True
    ):
        self.folder, self.info, self.version, self.progress = folder, info, version, progress
        self._splits: dict[str, list[Row]] = {}
        for row in index:
            self._splits.setdefault(row.split, []).append(row)

    def open(self, column: str, rows: Sequence[Row], size: int, task: Task | None = None) -> Decoded:
        """Return a column of the rows, uint8 or uint16 ``[N,H,W(,C)]``; decode their splits if need be.

        Args:
            column: ``"image"``, ``"labels"``, ``"superpixels"`` or ``"probabilities"``.
            rows: of the index.
            size: side in pixels.
            task: whose classes labels and probabilities are to have. Probabilities of source classes that it
                takes for one are added.

        Raises:
            DatasetError: as :func:`decode`.
        """
        splits = sorted({row.split for row in rows})
        files = [self._decode(column, split, size, task) for split in splits]
        place = {
            row.id: (number, position)
            for number, split in enumerate(splits)
            for position, row in enumerate(self._splits[split])
        }
        return Decoded(files, np.array([place[row.id] for row in rows]))

    def _decode(self, column: str, split: str, size: int, task: Task | None) -> Path:
        """Return the file of a split's column, made if need be; labels that a row lacks are 255."""
        table = None if task is None else task.table(self.info.classes)
        known = [self.version, split, *([] if task is None else [len(task.classes), table.tolist()])]
        key = hashlib.sha256(str(known).encode())
        name = f"{self.info.name}-{column}-{size}-{key.hexdigest()[:16]}.npy"
        cached, classes = paths.data_dir() / "cache" / name, len(self.info.classes)
        if cached.is_file():
            return cached
        rows, array = self._splits[split], None
        with paths.atomic(cached) as part:
            bar = tqdm(rows, f"decode {column}", leave=False, disable=not self.progress)
            for number, row in enumerate(bar):
                if getattr(row, column, row.id):
                    one = decode(self.folder, row, column, size, classes, table)
                else:
                    blank, kind = (IGNORE, np.uint8) if column == "labels" else (0, np.uint16)
                    one = np.full((size, size), blank, kind)
                if column == "probabilities":
                    into = table[:classes, None] == np.arange(len(task.classes))  # [S, K]
                    one = np.minimum(one @ into.astype(np.uint16), 255).astype(np.uint8)
                if array is None:
                    array = np.lib.format.open_memmap(part, "w+", one.dtype, (len(rows), *one.shape))
                array[number] = one
            array.flush()
        return cached


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

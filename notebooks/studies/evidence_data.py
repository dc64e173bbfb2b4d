"""What the evidence study trains on: photographs, covered faces, and photographs with few, bad or no labels.

Few, bad and no labels are prepared folders of their own: the trainings then take the same number of steps.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from consensus_lib import IGNORE, paths
from consensus_lib.data import MILD, DatasetInfo, DatasetWriter, FaceDataset, Splits, open_splits
from consensus_lib.data.dataset import as_images
from consensus_lib.data.decoded import decode
from consensus_lib.data.folder import Row, ids_without_subjects_of, read_index
from consensus_lib.losses import label_blobs
from consensus_lib.teacher.teachers import NetworkTeacher
from evidence_plan import BAD, FACES, FEW, PHOTOGRAPHS, TEACHER, UNLABELLED_TOO
from evidence_unlabelled import SEGMENTS
from synthetic_faces import Recipe, synthetic_folder

COVERED = Recipe(background="drawn", occluded=1.0)
"""Every face is covered. No photographs in the background: which there are depends on a machine's packages."""


def rendered(counts: tuple[int, int, int], size: int, workers: int | None = None) -> Path:
    """Return the folder of the covered faces, rendered if need be."""
    named = dict(zip(("train", "validation", "test"), counts, strict=True))
    return synthetic_folder(counts=named, size=size, recipe=COVERED, workers=workers, progress=False)


@functools.lru_cache(maxsize=4)
def splits(
    data: str,
    source: str,
    size: int,
    images: int,
    faces: tuple[int, int, int],
    seed: int,
    scored: str,
    teacher: Path | None = None,
) -> Splits:
    """Open what a job names; ``test`` is the split that it is scored on. ``teacher``: see :func:`altered`."""
    if data == FACES:
        found = open_splits(rendered(faces, size), "occlusion", size=size, images=0, augment=MILD, seed=seed)
    else:
        found = open_splits(source, "parts", size=size, images=images, augment=MILD, seed=seed)
    if data not in (FACES, PHOTOGRAPHS):
        folder = altered(data, found.train, seed, teacher)
        free = data.endswith(UNLABELLED_TOO)
        kind = Segmented if free else FaceDataset
        train = kind(folder, "train", "parts", size=size, augment=MILD, seed=seed, progress=False)
        if free:
            train.segments = np.load(segments_file(found.train), mmap_mode="r")
        found = found._replace(train=train)
    return found if scored == "test" else found._replace(test=getattr(found, scored))


class Segmented(FaceDataset):
    """Few labels and photographs without any, whose batches have the SLIC ``segments`` of the latter.

    They are found once, in the photograph as it is stored, and moved with it: int64 ``[B,H,W]``, ``IGNORE``
    beyond the border and where there are labels.
    """

    segments: np.ndarray
    """Of the second half of the samples, uint8 ``[N/2,H,W]``."""

    def __getitems__(self, keys: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
        batch = super().__getitems__(keys)
        place = batch["index"].numpy() - (len(self) - len(self.segments))
        found = self.segments[place.clip(0)].astype(np.int64)
        found[place < 0] = IGNORE
        variation, blank = (self.seed, keys[0][0], batch["index"].tolist()), torch.zeros_like(batch["image"])
        _, segments = self.augment(blank, torch.from_numpy(found), *variation)
        return batch | {"segments": segments}


def segments_file(train: FaceDataset, mapped: Callable = map) -> Path:
    """Return the file of the segments of the photographs without labels, uint8 ``[N,H,W]``; ``mapped`` finds them."""
    file = paths.data_dir() / "evidence" / f"segments-{train.size}-{train.fingerprint[:8]}.npy"
    with paths.locked(file.with_name(f".{file.name}.lock")):
        if not file.is_file():
            of = functools.partial(_segments, folder=train.folder, size=train.size)
            found = np.stack(list(mapped(of, _free(read_index(train.folder)))))
            with paths.atomic(file) as part, part.open("wb") as stream:
                np.save(stream, found)
    return file


def _segments(row: Row, folder: Path, size: int) -> np.ndarray:
    """Return the number of each pixel's SLIC segment, uint8 ``[H,W]``."""
    image = as_images(np.stack([decode(folder, row, "image", size)]))
    blank = torch.zeros(1, size, size, dtype=torch.int64)
    return label_blobs(blank, "superpixel", image=image, segments=SEGMENTS).ids[0].numpy().astype(np.uint8)


def _free(rows: list[Row]) -> list[Row]:
    """Return the photographs without labels, of people in neither validation nor test."""
    kept = set(ids_without_subjects_of(rows, "unlabelled", ("validation", "test")))
    return [row for row in rows if row.id in kept]


def altered(data: str, train: FaceDataset, seed: int, teacher: Path | None = None) -> Path:
    """Return a prepared folder of the training photographs with few, bad or no labels.

    Few: so many photographs, drawn with ``seed``, each repeated until there are as many as before, or as
    photographs without labels, which then follow. Bad: every label map spoilt by :func:`spoil`, with ``seed``,
    or made by ``teacher``, the folder of a training.
    """
    folder = paths.data_dir() / "evidence" / f"{data.replace(' ', '-').replace('%', '')}-{train.size}-{seed}"
    made = f"-{teacher.name[-8:]}" if teacher else ""
    folder = folder.with_name(f"{folder.name}-{train.fingerprint[:8]}-{len(train)}{made}")
    with paths.locked(folder.with_name(f".{folder.name}.lock")):
        if folder.is_dir():
            return folder
        plain = FaceDataset(
            train.folder, train.split, "parts", size=train.size, ids=[r.id for r in train.rows]
        )
        info = DatasetInfo(
            "evidence", plain.task.classes, plain.task.colours, f"{plain.info.name}: {data}", "", plain.size
        )
        with DatasetWriter(folder, info) as writer:
            for number, (id, image, labels) in enumerate(_samples(data, plain, seed, teacher)):
                writer.add(f"{id}-{number}", "train", f"{id}-{number}", image=image, labels=labels)
    return folder


def _samples(
    data: str, plain: FaceDataset, seed: int, teacher: Path | None
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield id, image uint8 ``[H,W,3]`` and labels uint8 ``[H,W]`` of what :func:`altered` writes."""
    free = _free(read_index(plain.folder)) if data.endswith(UNLABELLED_TOO) else []
    order = np.random.default_rng(seed).permutation(len(plain))
    few = data.removesuffix(UNLABELLED_TOO) in FEW
    asked = NetworkTeacher(teacher, device="cpu") if data == TEACHER else None
    for number in range(len(free) or len(plain)):
        index = int(order[number % int(data.split()[0])]) if few else number
        image = decode(plain.folder, plain.rows[index], "image", plain.size)
        sample = plain[index]
        labels = sample["labels"].numpy().astype(np.uint8)
        if data in BAD:
            labels = spoil(labels, data, np.random.default_rng((seed, index)))
        elif asked:
            labels = asked(sample["image"][None]).argmax(1)[0].numpy().astype(np.uint8)
        yield plain.rows[index].id, image, labels
    nothing = np.full((plain.size,) * 2, IGNORE, np.uint8)
    yield from ((row.id, decode(plain.folder, row, "image", plain.size), nothing) for row in free)


def spoil(labels: np.ndarray, how: str, draw: np.random.Generator) -> np.ndarray:
    """Return a label map ``[H,W]`` as a careless hand leaves it.

    ``specks 5%`` and ``specks 20%``: specks and holes of 1 to 9 pixels until that share of each class's pixels
    has another class of the image. ``boundaries``: one class grows over the others by 1 to 3 pixels.
    ``pieces``: of one class but the background, what lies beyond a line through a random one of its pixels, at
    most half of it, becomes background.
    """
    spoilt, classes = labels.copy(), [c for c in np.unique(labels) if c != 255]
    if len(classes) < 2:
        return spoilt
    if how.startswith("specks"):
        share = float(how.split()[1].rstrip("%")) / 100
        for c in classes:
            inside = np.argwhere(labels == c)
            wanted = share * len(inside)
            while wanted >= 1:
                (y, x), side = inside[draw.integers(len(inside))], draw.integers(1, 4, size=2)
                part = np.s_[y : y + side[0], x : x + side[1]]
                there = labels[part] == c
                other = draw.choice([k for k in classes if k != c])
                spoilt[part][there] = other
                wanted -= there.sum()
        return spoilt
    c = draw.choice([k for k in classes if k or how == "boundaries"])
    if how == "boundaries":
        radius = draw.integers(1, 4)
        steps = np.arange(-radius, radius + 1)
        disc = steps[:, None] ** 2 + steps**2 <= radius**2
        grown = ndimage.binary_dilation(labels == c, disc) & (labels != 255)
        spoilt[grown] = c
        return spoilt
    inside, angle = np.argwhere(labels == c), draw.uniform(0, 2 * np.pi)
    along = inside @ [np.sin(angle), np.cos(angle)]
    gone = inside[along > np.quantile(along, draw.uniform(0.5, 0.9))]
    spoilt[tuple(gone.T)] = 0
    return spoilt

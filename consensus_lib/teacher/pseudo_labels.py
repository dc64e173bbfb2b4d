"""Pseudo-labels on disk: a teacher's labels of unlabelled photographs, and its confidence.

The data set has the common format (:mod:`consensus_lib.data.folder`) and ``probabilities/ID.png``: the
probabilities of the K classes, one below the other, in 256 steps, with the record of the image as text;
``records.csv`` has all records. :func:`choose` selects images on reading, without asking the teacher again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, PngImagePlugin
from tqdm import tqdm

from consensus_lib.data.dataset import as_images
from consensus_lib.data.decoded import decode
from consensus_lib.data.folder import (
    DatasetError,
    DatasetInfo,
    Row,
    ids_without_subjects_of,
    is_made,
    read_index,
    read_info,
)
from consensus_lib.data.tasks import TASKS
from consensus_lib.data.writer import DatasetWriter
from consensus_lib.paths import atomic
from consensus_lib.teacher.factorise import OPENING, Cleaning, factorise
from consensus_lib.teacher.teachers import FaceExtent, Teacher

OCCLUSION_CLASSES = ("background", "face", "occluder")
"""Classes of factorised labels: source classes of the task ``"occlusion"``."""

RECORDS = "records.csv"

CONFIDENCE = 0.88
"""Least confidence of labels by the shipped parser: keeps three quarters of the validation photographs with
composed occluders (``notebooks/studies/occlusion_labels.csv``)."""


def prepare_pseudo_labels(
    folder: str | Path,
    source: str | Path,
    teacher: Teacher,
    *,
    extent: FaceExtent | None = None,
    cleaning: Cleaning | None = OPENING,
    rules: Mapping | None = None,
    split: str = "unlabelled",
    held_out: Sequence[str] = ("validation", "test"),
    size: int | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> Path:
    """Label the images of a prepared data set by a teacher, unless ``folder`` has them already.

    Without an extent the labels are the teacher's most probable classes. With one, the teacher's face is
    factorised (Eq. 1 and 2) into background, face and occlusion; 1 - p(face) goes to occlusion inside the
    occlusions and to background elsewhere. Hair over the face counts as occlusion. Images come out in the
    split ``train``; those without a face, or that do not meet the ``rules``, have no labels and are in
    ``unlabelled``. An interrupted call is resumed.

    Args:
        folder: of the result.
        source: a prepared data set.
        teacher: gives probabilities; one of its classes must be ``"face"``.
        extent: gives the complete face; None does not factorise.
        cleaning: of the residual; see :func:`~consensus_lib.teacher.factorise.clean`.
        rules: keyword arguments of :func:`choose`, for the images to label; None labels every face, to
            choose among them later.
        split: of the images to label; their own labels are not read.
        held_out: splits for evaluation: images of people who occur in them are left out, and ``notes`` in
            ``dataset.json`` has their number as ``"left_out"``.
        size: side in pixels of the teacher's input and of the result; None keeps the source's.
        limit: label the first images of the index only.
        batch_size: images that the teacher gets at once.
        progress: show a bar.

    Returns:
        the folder.

    Raises:
        DatasetError: there is no such image, no face in any of them, or ``folder`` holds something else.
        ValueError: the teacher has no class ``"face"``, or does not return probabilities.
    """
    folder, source = Path(folder), Path(source)
    info = read_info(source)
    size = size or info.size
    index = read_index(source)
    kept = set(ids_without_subjects_of(index, split, set(held_out) - {split}))
    left_out = sum(row.split == split for row in index) - len(kept)
    rows = [row for row in index if row.id in kept][:limit]
    if not rows:
        raise DatasetError(f"split: expected images of a split of {source}: {info.counts}, got {split!r}")
    if "face" not in teacher.classes:
        raise ValueError(f"teacher: expected a class 'face', got {teacher.classes}")
    notes = {"teacher": teacher.name, "teacher_version": teacher.version}
    notes |= {"extent": extent and extent.name, "cleaning": extent and cleaning}
    notes |= {"rules": None if rules is None else choose.__kwdefaults__ | dict(rules)}
    notes |= {"source": info.name, "source_index": info.index_sha256, "split": split}
    notes |= {"images": len(rows), "held_out": sorted(held_out), "left_out": left_out}
    notes = json.loads(json.dumps(notes))
    if is_made(folder, size, notes, "one of the same teacher and images"):
        return folder
    classes = OCCLUSION_CLASSES if extent else teacher.classes
    described = DatasetInfo(
        name=f"{info.name}_by_{teacher.name}",
        classes=classes,
        colours=_colours(classes),
        source=f"labels by {teacher.name} {teacher.version}; images: {info.source}",
        licence=info.licence,
        size=size,
        notes=notes,
    )
    with DatasetWriter(folder, described) as writer:
        (writer.partial / "probabilities").mkdir(exist_ok=True)
        there = [writer.has(row.id, row.image.endswith(".jpg")) for row in rows]
        made, waiting = (
            [row for row, one in zip(rows, there, strict=True) if one == x] for x in (True, False)
        )
        records = {row.id: _read_record(writer.partial, row.id) for row in made}

        def add(row: Row, **files) -> None:
            record = pd.DataFrame([{"id": row.id} | records[row.id]])
            believed = records[row.id]["found"] if rules is None else choose(record, **rules)[0]
            subset = "train" if believed else "unlabelled"
            if not believed:
                files.pop("labels", None)
            writer.add(row.id, subset, row.subject, jpeg=row.image.endswith(".jpg"), **files)

        for row in made:
            add(row)
        with tqdm(total=len(rows), initial=len(made), desc="pseudo-labels", disable=not progress) as bar:
            for at in range(0, len(waiting), batch_size):
                batch = waiting[at : at + batch_size]
                pictures = np.stack([decode(source, row, "image", size) for row in batch])  # [B, H, W, 3]
                answers = _labelled(writer.partial, batch, pictures, teacher, extent, cleaning)
                for row, picture, (labels, records[row.id]) in zip(batch, pictures, answers, strict=True):
                    image = (source / row.image).read_bytes() if size == info.size else picture
                    add(row, image=image, labels=labels)
                bar.update(len(batch))
        if not any(record["found"] for record in records.values()):
            raise DatasetError(f"images: expected faces, but {teacher.name} found none in {len(rows)} images")
        table = pd.DataFrame([{"id": row.id, **records[row.id]} for row in rows])
        table.to_csv(writer.partial / RECORDS, index=False, lineterminator="\n")
    return folder


def read_records(folder: str | Path) -> pd.DataFrame:
    """Return a row for each image: ``id``, ``teacher``, ``version``, ``confidence``, ``face_area`` (share of
    the image), ``occlusions`` (number) and ``found`` (whether there is a face).

    Raises:
        DatasetError: the folder has no records.
    """
    path = Path(folder) / RECORDS
    if not path.is_file():
        raise DatasetError(f"{folder}: expected a pseudo-labelled data set with {RECORDS}, found none")
    text = dict.fromkeys(("id", "teacher", "version"), str)  # 007 stays 007, and NA is a name
    return pd.read_csv(path, dtype=text, keep_default_na=False)


def choose(
    records: pd.DataFrame, *, confidence: float = 0.0, face_area: tuple[float, float] = (0.02, 0.8)
) -> tuple[list[str], dict[str, int]]:
    """Return the ids of the images that meet the rules, and how many each rule drops.

    Args:
        records: of :func:`read_records`.
        confidence: smallest mean of the teacher's largest probability, over the complete face where there is
            an extent, else over the image.
        face_area: smallest and largest share of the image that is face.

    Returns:
        ids, for ``FaceDataset(ids=...)``; counts by reason, each image under its first, and ``"kept"``.
    """
    low, high = face_area
    tests = {
        "no face": records.found.astype(bool),
        "unsure": records.confidence >= confidence,
        "face too small": records.face_area >= low,
        "face too large": records.face_area <= high,
    }
    left, counts = pd.Series(True, records.index), {}
    for reason, passed in tests.items():
        counts[reason] = int((left & ~passed).sum())
        left &= passed
    return records.id[left].tolist(), counts | {"kept": int(left.sum())}


def _labelled(
    folder: Path,
    rows: Sequence[Row],
    pictures: np.ndarray,
    teacher: Teacher,
    extent: FaceExtent | None,
    cleaning: Cleaning | None,
) -> Iterator[tuple[np.ndarray | None, dict]]:
    """Store the teacher's probabilities; yield labels (None without a face) and record of each image."""
    images = as_images(pictures)
    found = teacher(images).float().cpu().numpy()  # [B, K, H, W]
    expected = (len(rows), len(teacher.classes), *pictures.shape[1:3])
    if found.shape != expected or not np.isfinite(found).all():
        raise ValueError(f"teacher: expected finite probabilities {list(expected)}, got {list(found.shape)}")
    extents = extent(images) if extent else np.ones((len(rows), *pictures.shape[1:3]), bool)
    number = teacher.classes.index("face")
    for row, probabilities, complete in zip(rows, found, extents, strict=True):
        labels, occlusions = probabilities.argmax(0), 0
        face = labels == number
        seen = bool(face.any() and complete.any())
        sure = probabilities.max(0)[complete] if complete.any() else np.zeros(1)
        if extent:
            parts = factorise(complete, face, cleaning)
            labels, occlusions = parts.labels, int(parts.ids.max(initial=1)) - 1
            p, hidden = probabilities[number], parts.cleaned
            probabilities = np.stack([np.where(hidden, 0, 1 - p), p, np.where(hidden, 1 - p, 0)])
        record = {
            "teacher": teacher.name,
            "version": teacher.version,
            "confidence": round(float(sure.mean()), 4),
            "face_area": round(float(face.mean()), 4),
            "occlusions": max(0, occlusions),
            "found": seen,
        }
        text = PngImagePlugin.PngInfo()
        text.add_text("record", json.dumps(record))
        steps = np.rint(probabilities * 255).astype(np.uint8).reshape(-1, probabilities.shape[2])  # [K*H, W]
        with atomic(folder / "probabilities" / f"{row.id}.png") as part:
            Image.fromarray(steps).save(part, "PNG", pnginfo=text)
        yield labels.astype(np.uint8) if seen else None, record


def _read_record(folder: Path, id: str) -> dict:
    with Image.open(folder / "probabilities" / f"{id}.png") as picture:
        return json.loads(picture.text["record"])


def _colours(classes: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
    """Return the colours that tasks give to these classes; grey to others."""
    known = {}
    for task in TASKS.values():
        known |= dict(zip(task.classes, task.colours, strict=True))
    known["occluder"] = known["occlusion"]
    return tuple(known.get(name, (128, 128, 128)) for name in classes)

"""A prepared data set on disk: its format, and how it is read.

A prepared data set is a folder::

    dataset.json    name, classes, colours, source, licence, size, counts, sha256 of the index
    index.csv       id,split,subject,image,labels,superpixels   (paths inside the folder; empty = none)
    images/         square; PNG, or JPEG where the source is JPEG; EXIF orientation is applied on reading
    labels/         PNG whose pixel values are class numbers, with a palette so that any viewer shows them
    superpixels/    16-bit PNG of superpixel numbers, where the source has them
    files.sha256    a line ``HASH  FILE`` for each file that the index names, as ``sha256sum -c`` reads it

:class:`~consensus_lib.data.writer.DatasetWriter` writes it.
"""

import csv
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from consensus_lib import IGNORE
from consensus_lib.data.images import DatasetError

CHECKSUMS = "files.sha256"
INDEX_COLUMNS = ("id", "split", "subject", "image", "labels", "superpixels")


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What ``dataset.json`` says of a prepared data set.

    Attributes:
        name: short name, such as ``"lfw_part_labels"``.
        classes: class names, at most 255; the position is the number in the label maps.
        colours: one ``(red, green, blue)``, 0-255, for each class.
        source: where the data come from (citation or address).
        licence: under which terms they may be used.
        size: height and width of images and label maps in pixels.
        counts: number of images in each split.
        index_sha256: SHA-256 of ``index.csv``; identifies the data set in caches and results.
        notes: anything a user of the data should know, such as what was counted while preparing them.
        mirrored: pairs of classes that change places when an image is flipped: ``(("l_eye", "r_eye"),)``.
        tasks: task → class of this data set → class of the task: how a task of
            :data:`~consensus_lib.data.tasks.TASKS` takes these classes, or a task of the data set's own.
    """

    name: str
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    source: str
    licence: str
    size: int
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    index_sha256: str = ""
    notes: dict = dataclasses.field(default_factory=dict)
    mirrored: tuple[tuple[str, str], ...] = ()
    tasks: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if not 1 <= len(self.classes) <= IGNORE:
            raise ValueError(f"classes: expected 1 to {IGNORE} names, got {len(self.classes)}")
        if len(self.classes) != len(self.colours):
            raise ValueError(
                f"colours: expected one for each of {len(self.classes)} classes, got {len(self.colours)}"
            )
        check_mirrored(self.mirrored, self.classes)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of ``index.csv``. ``labels`` and ``superpixels`` are empty where there are none."""

    id: str
    split: str
    subject: str
    image: str
    labels: str = ""
    superpixels: str = ""


def is_folder(name: str | os.PathLike) -> bool:
    """Say whether the data set is given as the path of a prepared folder."""
    return (Path(name) / "dataset.json").is_file()


def read_info(folder: str | Path) -> DatasetInfo:
    """Read ``dataset.json`` and check it against ``index.csv``.

    Raises:
        DatasetError: the folder is not a prepared data set, or its index was changed afterwards.
    """
    folder = Path(folder)
    try:
        fields = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        index = (folder / "index.csv").read_bytes()
    except FileNotFoundError as error:
        raise DatasetError(
            f"{folder}: expected a prepared data set with dataset.json and index.csv, "
            f"but {Path(error.filename).name} is missing"
        ) from None
    except ValueError as error:
        raise DatasetError(f"{folder}/dataset.json: expected JSON, got: {error}") from None
    known = {field.name for field in dataclasses.fields(DatasetInfo)}
    required = {"name", "classes", "colours", "source", "licence", "size", "counts", "index_sha256"}
    if not isinstance(fields, dict) or set(fields) - known or required - set(fields):
        raise DatasetError(f"{folder}/dataset.json: expected the keys {sorted(known)}, got {sorted(fields)}")
    fields["classes"] = tuple(fields["classes"])
    for name in ("colours", "mirrored"):
        fields[name] = tuple(map(tuple, fields.get(name, ())))
    info = DatasetInfo(**fields)
    found = hashlib.sha256(index).hexdigest()
    if found != info.index_sha256:
        raise DatasetError(
            f"{folder}/index.csv: expected sha256 {info.index_sha256[:12]}… as in "
            f"dataset.json, got {found[:12]}…; prepare the data set again"
        )
    return info


def check_mirrored(mirrored: Iterable[tuple[str, ...]], classes: tuple[str, ...]) -> None:
    """Raise ValueError unless ``mirrored`` has pairs of ``classes``, each class in one pair at most."""
    named = [name for pair in mirrored for name in pair]
    pairs = all(len(pair) == 2 for pair in mirrored)
    if not pairs or len(set(named)) < len(named) or set(named) - set(classes):
        raise ValueError(
            f"mirrored: expected pairs of {list(classes)}, each in one pair at most, got {list(mirrored)}"
        )


def is_made(folder: Path, size: int, notes: dict, expected: str) -> bool:
    """Say whether a data set is there already, made in the same way.

    Args:
        folder: where it would be.
        size, notes: as ``dataset.json`` would say them.
        expected: what else than a new folder is welcome, for the message.

    Raises:
        DatasetError: ``folder`` holds something else.
    """
    if not folder.exists():
        return False
    found = read_info(folder)
    if found.notes != notes or found.size != size:
        raise DatasetError(
            f"folder: expected a new folder or {expected}, but {folder} was made with "
            f"size {found.size} and {found.notes}, asked for size {size} and {notes}"
        )
    return True


def read_index(folder: str | Path) -> list[Row]:
    """Read ``index.csv`` as a list of rows, in file order.

    Raises:
        DatasetError: the columns are not those of the format.
    """
    path = Path(folder) / "index.csv"
    with path.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        if tuple(reader.fieldnames or ()) != INDEX_COLUMNS:
            raise DatasetError(
                f"{path}: expected the columns {','.join(INDEX_COLUMNS)}, "
                f"got {','.join(reader.fieldnames or ())}"
            )
        return [Row(**row) for row in reader]


def check_files(folder: str | Path, rows: Iterable[Row]) -> None:
    """Check that every file that the index names is there, without reading any.

    Raises:
        DatasetError: names the first missing file and how many are missing.
    """
    folder = Path(folder)
    names = [name for row in rows for name in (row.image, row.labels, row.superpixels) if name]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DatasetError(
            f"{folder / missing[0]}: expected the file that index.csv names, but it is "
            f"missing ({len(missing)} of {len(names)} are); remove the folder and prepare it "
            "again"
        )


def check_contrast(counts: np.ndarray, classes: tuple[str, ...], what: str) -> None:
    """Refuse labels in which 255 = ignore stands beside one class at most, as in masks of 0 and 255.

    Args:
        counts: pixels of each number, integers ``[256]``.
        classes: names, by number.
        what: for the message.

    Raises:
        DatasetError: so it is.
    """
    present = [name for name, count in zip(classes, counts, strict=False) if count]
    if len(present) < 2 <= len(classes) and counts[IGNORE]:
        raise DatasetError(
            f"{what}: expected several of the classes {list(classes)}, got {present} and {IGNORE} alone. "
            f"{IGNORE} means ignore: in masks of 0 and 255, write 1 for {classes[1]!r}"
        )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_checksums(folder: str | Path) -> dict[str, str]:
    """Return file → SHA-256 of a prepared data set; empty where an earlier version wrote none."""
    path = Path(folder) / CHECKSUMS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def shared_subjects(rows: Iterable[Row]) -> dict[str, list[str]]:
    """Return the subjects that stand in more than one split, with those splits, ``unlabelled`` included.

    A person in both train and test makes a test score look better than it is, and so may one whose
    unlabelled photographs a student learned from. The original LFW Part Labels lists have some, so they are
    counted and reported rather than refused; :func:`ids_without_subjects_of` leaves them out.
    """
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row.subject, set()).add(row.split)
    return {subject: sorted(found) for subject, found in sorted(splits.items()) if len(found) > 1}


def ids_without_subjects_of(rows: Iterable[Row], split: str, others: Iterable[str]) -> list[str]:
    """Return the ids of a split whose subjects do not occur in other splits, in the order of the index.

    Args:
        rows: of :func:`read_index`.
        split: whose ids, such as ``"unlabelled"``.
        others: the splits to keep apart from, such as ``["test"]``; not a string.
    """
    rows, others = list(rows), set(others)
    known = {row.subject for row in rows if row.split in others}
    return [row.id for row in rows if row.split == split and row.subject not in known]

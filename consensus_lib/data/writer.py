"""``DatasetWriter``: a prepared data set, in the format of :mod:`consensus_lib.data.folder`, written whole.

It is written to a sibling named ``.NAME.partial`` and renamed when complete, so a half-made data set
never looks whole.
"""

import csv
import dataclasses
import hashlib
import json
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from consensus_lib import IGNORE
from consensus_lib.data.folder import CHECKSUMS, INDEX_COLUMNS, DatasetInfo, Row, check_contrast, file_sha256
from consensus_lib.data.images import DatasetError, read_image, read_labels
from consensus_lib.paths import atomic, write_json

_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
"""What Windows takes for a device, whatever suffix follows."""


class DatasetWriter:
    """Write a prepared data set so that it appears whole or not at all.

    Used as a context manager. Leaving the block normally completes the folder. An error inside, an interrupt
    (Ctrl-C) or a killed process keeps the samples that are whole, in ``.NAME.partial`` beside the folder, and
    the next writer with the same plan goes on from there: ask :meth:`has` before making a sample. Remove that
    folder to start anew.

    Args:
        folder: the folder to make. Must not exist.
        info: name, classes, colours, …; ``counts`` and ``index_sha256`` are filled in here.
        plan: whatever else the content depends on (JSON). A partial folder with another plan is
            started anew.

    Raises:
        FileExistsError: ``folder`` exists already.
        DatasetError: on completion, the label maps of a split have one class and 255 = ignore alone, as masks
            of 0 and 255 do; they are removed.
    """

    def __init__(self, folder: str | Path, info: DatasetInfo, plan: dict | None = None):
        self.folder = Path(folder)
        if self.folder.exists():
            raise FileExistsError(f"folder: expected a new folder, but {self.folder} exists")
        self.info = info
        self.partial = self.folder.with_name(f".{self.folder.name}.partial")
        self._rows: dict[str, Row] = {}
        self._counts: dict[str, np.ndarray] = {}  # split → pixels of each number, [256]
        self._palette = np.zeros((256, 3), np.uint8)
        self._palette[: len(info.colours)] = info.colours
        self._palette[IGNORE] = 255
        # JSON round trip: what is compared is what can be stored.
        self._plan = json.loads(json.dumps({"info": dataclasses.asdict(info), "plan": plan}))

    def __enter__(self) -> "DatasetWriter":
        plan_file = self.partial / "plan.json"
        try:
            if json.loads(plan_file.read_text(encoding="utf-8")) != self._plan:
                shutil.rmtree(self.partial)
        except (FileNotFoundError, ValueError):
            shutil.rmtree(self.partial, ignore_errors=True)
        for name in ("images", "labels", "superpixels"):
            (self.partial / name).mkdir(parents=True, exist_ok=True)
            for unfinished in (self.partial / name).glob(".*"):  # of a process that was killed while writing
                unfinished.unlink()
        write_json(plan_file, self._plan)
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self._complete()
        elif issubclass(kind, Exception):
            stored = sum(1 for _ in (self.partial / "images").glob("[!.]*"))
            if stored:
                error.add_note(
                    f"{stored} samples are kept in {self.partial.name} for the next writer with the same plan"
                )
            else:
                shutil.rmtree(self.partial, ignore_errors=True)

    def has(self, id: str, jpeg: bool = False) -> bool:
        """Say whether an earlier, interrupted writer already stored this sample whole."""
        # The image is written last, so it stands for the whole sample.
        return (self.partial / f"images/{id}{'.jpg' if jpeg else '.png'}").is_file()

    def add(
        self,
        id: str,
        split: str,
        subject: str,
        *,
        image: np.ndarray | bytes | None = None,
        labels: np.ndarray | None = None,
        superpixels: np.ndarray | None = None,
        jpeg: bool = False,
    ) -> None:
        """Add one sample. Without ``image``, register one that :meth:`has` found.

        Args:
            id: file name without suffix, unique in the data set: letters of any language, spaces and most
                signs, but nothing that a common file system refuses.
            split: ``train``, ``validation``, ``test`` or ``unlabelled``.
            subject: who is shown; subjects must not cross splits silently, so they are in the index.
            image: uint8 ``[H,W,3]``, or the bytes of a square image file of any size, which are kept as they
                are. Labels belong to the image as it is shown, its EXIF orientation applied.
            labels: uint8 ``[H,W]`` of class numbers and 255, or None for an unlabelled image.
            superpixels: integer ``[H,W]`` below 65,536, or None.
            jpeg: store (or, for bytes, name) the image as JPEG instead of PNG.

        Raises:
            DatasetError: wrong shape or type, an unknown class number, bytes that are no such image, an id
                that is no file name or is given twice, or no image where none is stored.
        """
        _check_id(id)
        if id in self._rows:
            raise DatasetError(f"id: expected each id once, got {id!r} again")
        if image is None and not self.has(id, jpeg):
            raise DatasetError(f"image of {id}: expected an image, or one stored before, got neither")
        image_name = f"images/{id}{'.jpg' if jpeg else '.png'}"
        maps = {"labels": labels, "superpixels": superpixels}
        if image is not None:
            self._check(id, image, maps)  # all of it, before anything is written
            for name, numbers in maps.items():
                self._store(self.partial / f"{name}/{id}.png", numbers, name == "labels")
            with atomic(self.partial / image_name) as part:
                if isinstance(image, bytes):
                    part.write_bytes(image)
                else:
                    Image.fromarray(image).save(part, **({"quality": 95} if jpeg else {}))
        stored = {name: f"{name}/{id}.png" for name in maps if (self.partial / f"{name}/{id}.png").is_file()}
        self._rows[id] = Row(id, split, subject, image_name, **stored)
        if "labels" in stored:
            if image is None:
                labels = read_labels(self.partial / stored["labels"], len(self.info.classes))
            counts = self._counts.setdefault(split, np.zeros(256, np.int64))
            counts += np.bincount(labels.ravel(), minlength=256)

    def _check(self, id: str, image: np.ndarray | bytes, maps: dict[str, np.ndarray | None]) -> None:
        side, given = self.info.size, {name: array for name, array in maps.items() if array is not None}
        if isinstance(image, bytes):
            read_image(image, f"image of {id}")
        elif image.dtype != np.uint8 or image.shape != (side, side, 3):
            got = f"{image.dtype} {list(image.shape)}"
            raise DatasetError(f"image of {id}: expected uint8 [{side}, {side}, 3], got {got}")
        for name, numbers in given.items():
            if numbers.dtype.kind not in "iu" or numbers.shape != (side, side):
                got = f"{numbers.dtype} {list(numbers.shape)}"
                raise DatasetError(f"{name} of {id}: expected integers [{side}, {side}], got {got}")
            last, ignore = (len(self.info.classes) - 1, IGNORE) if name == "labels" else (65_535, 65_535)
            found = np.unique(numbers)
            if strange := found[((found < 0) | (found > last)) & (found != ignore)].tolist():
                raise DatasetError(f"{name} of {id}: expected 0..{last} or {ignore}, got {strange[:9]}")

    def _store(self, file: Path, numbers: np.ndarray | None, palette: bool) -> None:
        """Save a map, or remove what an unfinished sample of this id left."""
        if numbers is None:
            return file.unlink(missing_ok=True)
        picture = Image.fromarray(numbers.astype(np.uint8 if palette else np.uint16))
        if palette:
            picture.putpalette(self._palette.tobytes())  # turns mode L into P, pixel values kept
        with atomic(file) as part:
            picture.save(part)

    def _complete(self) -> None:
        for split, counts in self._counts.items():
            try:
                check_contrast(counts, self.info.classes, f"labels of the split {split!r}")
            except DatasetError:  # not to go on with
                shutil.rmtree(self.partial, ignore_errors=True)
                raise
        rows = sorted(self._rows.values(), key=lambda row: row.id)
        named = {name for row in rows for name in (row.image, row.labels, row.superpixels)}
        with (self.partial / "index.csv").open("w", newline="", encoding="utf-8") as lines:
            writer = csv.writer(lines, lineterminator="\n")
            writer.writerow(INDEX_COLUMNS)
            writer.writerows(dataclasses.astuple(row) for row in rows)
        info = dataclasses.replace(
            self.info,
            counts=dict(sorted(Counter(row.split for row in rows).items())),
            index_sha256=hashlib.sha256((self.partial / "index.csv").read_bytes()).hexdigest(),
        )
        write_json(self.partial / "dataset.json", dataclasses.asdict(info))
        (self.partial / "plan.json").unlink()
        files = (self.partial / name for name in sorted(named - {""}))
        lines = (f"{file_sha256(file)}  {file.relative_to(self.partial).as_posix()}\n" for file in files)
        (self.partial / CHECKSUMS).write_text("".join(lines), encoding="utf-8")
        for name in ("images", "labels", "superpixels"):
            for file in (self.partial / name).iterdir():
                if f"{name}/{file.name}" not in named:  # of a sample that only an earlier writer had
                    file.unlink()
        for name in ("labels", "superpixels"):
            if not any((self.partial / name).iterdir()):
                (self.partial / name).rmdir()
        self.partial.replace(self.folder)


def _check_id(id: str) -> None:
    """Raise DatasetError for what a common file system does not take as a file's name."""
    unfit = ("Cc", "Cs", "Zl", "Zp")  # control signs, surrogates, line and paragraph separators
    wrong = any(sign in '<>:"/\\|?*' or unicodedata.category(sign) in unfit for sign in id)
    hidden = id != id.strip() or id.startswith(".") or id.split(".")[0].lower() in _RESERVED
    if not id or wrong or hidden or len(f"{id}.png".encode()) > 255:
        raise DatasetError(
            f"id: expected a file name that each system takes: at most 251 bytes in UTF-8, no control sign, "
            f'none of <>:"/\\|?*, no dot or space at its ends, no device of Windows; got {id!r}'
        )

"""Synthetic data sets on disk: drawn once, in parallel, and found again by their parameters.

Beside ``images/`` and ``labels/`` of the common format, a synthetic data set has ``complete/ID.png``: the
labels as if nothing covered the person, plus ``FACE_BIT`` where the complete face lies. The same file
carries the sample's record and contour as text, so that the truth about a sample stays in one piece;
:func:`read_truth` reads it.
"""

import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image, PngImagePlugin
from tqdm import tqdm

from consensus_lib.data.folder import DatasetInfo, is_made
from consensus_lib.data.writer import DatasetWriter
from consensus_lib.paths import atomic, data_dir, locked
from synthetic_faces.classes import CLASSES, COLOURS
from synthetic_faces.draw import draw_face
from synthetic_faces.recipe import Recipe

VERSION = 4
"""Raise when the same parameters draw other pictures, so that no cache mistakes old ones for new."""

FACE_BIT = 32
"""Added to the class in ``complete/ID.png`` where the complete face lies."""

FIRST = {"train": 0, "validation": 1_000_000_000, "test": 2_000_000_000, "unlabelled": 3_000_000_000}
"""First index of each split: ranges so far apart that no sample is ever in two."""


def _notes(seed: int, recipe: Recipe, counts: Mapping[str, int]) -> dict:
    return json.loads(
        json.dumps(
            {"version": VERSION, "seed": seed, "recipe": dataclasses.asdict(recipe), "asked": dict(counts)}
        )
    )


def _checked(counts: Mapping[str, int]) -> dict[str, int]:
    unknown = set(counts) - set(FIRST)
    if unknown:
        raise ValueError(f"counts: expected splits among {list(FIRST)}, got {sorted(unknown)}")
    for split, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= 1_000_000_000:
            raise ValueError(f"counts[{split!r}]: expected an integer from 0 to 1e9, got {count!r}")
    if not sum(counts.values()):
        raise ValueError(f"counts: expected at least one sample, got {dict(counts)}")
    return {split: counts[split] for split in FIRST if counts.get(split)}


def _encode(task: tuple) -> tuple[str, str, bytes, np.ndarray, bytes]:
    """Draw one sample; return id, split, image file, labels and truth file."""
    id, split, seed, index, size, recipe = task
    sample = draw_face(seed, index, size, recipe=recipe)
    image, truth = io.BytesIO(), io.BytesIO()
    Image.fromarray(sample.image).save(image, "PNG")
    text = PngImagePlugin.PngInfo()
    text.add_text("record", json.dumps(sample.record))
    text.add_text("contour", json.dumps(np.round(sample.contour, 3).tolist()))
    complete = Image.fromarray(sample.complete + FACE_BIT * sample.face.astype(np.uint8))
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(COLOURS)] = COLOURS
    palette[FACE_BIT : FACE_BIT + len(COLOURS)] = COLOURS
    complete.putpalette(palette.tobytes())
    complete.save(truth, "PNG", pnginfo=text)
    return id, split, image.getvalue(), sample.labels, truth.getvalue()


def _drawn(tasks: list[tuple], workers: int) -> Iterator[tuple]:
    if workers == 0:
        yield from map(_encode, tasks)
        return
    # Fresh interpreters: forking a process that has threads (any that imported torch) can hang.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        # They need nothing of the script that runs here, and would run it anew before they do anything else:
        # one without `if __name__ == "__main__":` would come back to this place and wait, for ever, for the
        # lock that this process holds. So they see an empty one. All start while `map` hands in the tasks.
        script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            try:
                drawn = pool.map(_encode, tasks, chunksize=max(1, min(32, len(tasks) // (4 * workers))))
            finally:
                sys.modules["__main__"] = script
            yield from drawn
        except BrokenProcessPool:
            raise RuntimeError(
                "workers: expected drawing processes to run to their end, but one was ended, as it is where "
                "memory is short; take fewer workers, or workers=0"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def prepare_synthetic(
    folder: str | Path,
    *,
    seed: int = 0,
    counts: Mapping[str, int],
    size: int = 128,
    recipe: Recipe | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Draw a data set in the on-disk format; at once if it is there already.

    Args:
        folder: where to. A folder made with the same parameters is left as it is; an interrupted call is
            taken up where it stopped.
        seed: the series; see :func:`~synthetic_faces.draw_face`.
        counts: number of samples for each of ``train``, ``validation``, ``test``, ``unlabelled``. A larger
            count keeps the samples of a smaller one.
        size: height and width in pixels.
        recipe: ingredients; None for all.
        workers: drawing processes; 0 draws in this process, None takes one for each available core.
        progress: show a progress bar.

    Returns:
        the folder.

    Raises:
        ValueError: an argument is out of its range.
        DatasetError: ``folder`` holds something else.
    """
    folder, recipe, counts = Path(folder), recipe or Recipe(), _checked(counts)
    if workers is not None and (not isinstance(workers, int) or workers < 0):
        raise ValueError(f"workers: expected a non-negative integer or None, got {workers!r}")
    draw_face(seed, 0, size, recipe=recipe)  # complains about seed and size before anything is written
    notes = _notes(seed, recipe, counts)
    if is_made(folder, size, notes, "the same parameters"):
        return folder
    info = DatasetInfo(
        name="synthetic_faces",
        classes=CLASSES,
        colours=COLOURS,
        size=size,
        notes=notes,
        source="drawn by synthetic_faces; backgrounds from scikit-image's and matplotlib's "
        "sample photographs",
        licence="MIT",
    )
    with DatasetWriter(folder, info, plan={}) as writer:
        (writer.partial / "complete").mkdir(exist_ok=True)
        tasks = []
        for split, count in counts.items():
            for number in range(count):
                id = f"{split}_{number:06d}"
                if writer.has(id):
                    writer.add(id, split, id)
                else:
                    tasks.append((id, split, seed, FIRST[split] + number, size, recipe))
        workers = min(_cores() if workers is None else workers, len(tasks) // 8)  # a process costs a second
        bar = tqdm(
            _drawn(tasks, workers), total=len(tasks), desc="drawing faces", unit="face", disable=not progress
        )
        for id, split, image, labels, truth in bar:
            with atomic(writer.partial / f"complete/{id}.png") as part:
                part.write_bytes(truth)
            writer.add(id, split, id, image=image, labels=labels)
    return folder


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def synthetic_folder(
    *,
    counts: Mapping[str, int],
    seed: int = 0,
    size: int = 128,
    recipe: Recipe | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Return the data set with these parameters under the data folder; draw it on first use.

    Args:
        counts, seed, size, recipe, workers, progress: as for :func:`prepare_synthetic`.

    Returns:
        a folder ``synthetic-HASH`` whose name depends on the parameters and the generator's version.

    Raises:
        ValueError: an argument is out of its range.
    """
    recipe = recipe or Recipe()
    key = json.dumps([_notes(seed, recipe, _checked(counts)), size], sort_keys=True)
    name = f"synthetic-{hashlib.sha256(key.encode()).hexdigest()[:10]}"
    with locked(data_dir() / f".{name}.lock"):  # another run of a sweep may be drawing them
        return prepare_synthetic(
            data_dir() / name,
            seed=seed,
            counts=counts,
            size=size,
            recipe=recipe,
            workers=workers,
            progress=progress,
        )


def read_truth(folder: str | Path, id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict]:
    """Read what ``labels/`` does not say of a stored sample.

    Returns:
        ``complete`` uint8 ``[H,W]``, ``face`` bool ``[H,W]``, ``contour`` float64 ``[64,2]`` and ``record``,
        as in :class:`~synthetic_faces.FaceSample`.

    Raises:
        FileNotFoundError: the data set has no such sample, or is not a synthetic one.
    """
    with Image.open(Path(folder) / "complete" / f"{id}.png") as picture:
        picture.load()
        values, text = np.array(picture), picture.text
    return (
        values % FACE_BIT,
        values >= FACE_BIT,
        np.array(json.loads(text["contour"])),
        json.loads(text["record"]),
    )

"""Synthetic data sets on disk: rendered once, in parallel, and found again by their parameters.

Beside ``images/`` and ``labels/`` of the common format lies ``complete/ID.png``: the labels as if nothing
covered the person, plus ``FACE_BIT`` in the complete face, with the sample's record as text.
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
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image, PngImagePlugin
from tqdm.auto import tqdm

from consensus_lib.data.folder import DatasetInfo, is_made
from consensus_lib.data.writer import DatasetWriter
from consensus_lib.paths import atomic, data_dir, locked
from synthetic_faces.chance import check_integer
from synthetic_faces.face import draw_face
from synthetic_faces.recipe import CLASSES, COLOURS, Recipe

VERSION = 5
"""Raise when the same parameters render other pictures, so that no cache mistakes old ones for new."""

FACE_BIT = 32
"""Added to the class in ``complete/ID.png`` where the complete face lies."""

FIRST = {"train": 0, "validation": 1_000_000_000, "test": 2_000_000_000, "unlabelled": 3_000_000_000}
"""First index of each split: ranges so far apart that no sample is ever in two."""

SOURCE = "rendered by synthetic_faces; backgrounds from scikit-image's and matplotlib's sample photographs"


def _notes(seed: int, recipe: Recipe, counts: Mapping[str, int]) -> dict:
    """Return what a data set is made of, checked, as ``dataset.json`` is read back."""
    if unknown := set(counts) - set(FIRST):
        raise ValueError(f"counts: expected splits among {list(FIRST)}, got {sorted(unknown)}")
    for split, count in counts.items():
        check_integer(f"counts[{split!r}]", count, 0, 1_000_000_000)
    if not sum(counts.values()):
        raise ValueError(f"counts: expected at least one sample, got {dict(counts)}")
    asked = {split: counts[split] for split in FIRST if counts.get(split)}
    notes = {"version": VERSION, "seed": seed, "recipe": dataclasses.asdict(recipe), "asked": asked}
    return json.loads(json.dumps(notes))  # tuples become lists


def _encode(task: tuple) -> tuple[str, str, bytes, np.ndarray, bytes]:
    """Render one sample; return id, split, image file, labels and truth file."""
    id, split, seed, index, size, recipe = task
    sample = draw_face(seed, index, size, recipe=recipe)
    image, truth = io.BytesIO(), io.BytesIO()
    Image.fromarray(sample.image).save(image, "PNG")
    text = PngImagePlugin.PngInfo()
    text.add_text("record", json.dumps(sample.record))
    complete = Image.fromarray(sample.complete + FACE_BIT * sample.face.astype(np.uint8))
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(COLOURS)] = palette[FACE_BIT : FACE_BIT + len(COLOURS)] = COLOURS
    complete.putpalette(palette.tobytes())
    complete.save(truth, "PNG", pnginfo=text)
    return id, split, image.getvalue(), sample.labels, truth.getvalue()


def _encoded(tasks: list[tuple], workers: int) -> Iterator[tuple]:
    if workers == 0:
        yield from map(_encode, tasks)
        return
    # Fresh interpreters: forking a process that has threads (any that imported torch) can hang. They run the
    # caller's script first. One without `if __name__ == "__main__":` would come back here and wait for the
    # lock that this process holds, so they see an empty script.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        encoded = pool.map(_encode, tasks, chunksize=max(1, min(32, len(tasks) // (4 * workers))))
        sys.modules["__main__"] = script
        yield from encoded
    finally:
        sys.modules["__main__"] = script
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
    """Render a data set in the on-disk format; return at once if it is there already.

    Args:
        folder: where to. An interrupted call is resumed.
        seed: the series; see :func:`~synthetic_faces.draw_face`.
        counts: samples of each split of ``FIRST``; a larger count keeps the samples of a smaller one.
        size: height and width in pixels.
        recipe: ingredients; None for all.
        workers: rendering processes; 0 renders in this process, None takes one for each available core.
        progress: show a progress bar.

    Raises:
        ValueError: an argument is out of its range.
        DatasetError: ``folder`` holds something else.
    """
    folder, recipe = Path(folder), recipe or Recipe()
    notes = _notes(seed, recipe, counts)
    draw_face(seed, 0, size, recipe=recipe)  # complains about seed and size before anything is written
    if is_made(folder, size, notes, "the same parameters"):
        return folder
    info = DatasetInfo("synthetic_faces", CLASSES, COLOURS, SOURCE, "MIT", size, notes=notes)
    with DatasetWriter(folder, info, plan={}) as writer:
        (writer.partial / "complete").mkdir(exist_ok=True)
        tasks = []
        for split, count in notes["asked"].items():
            for number in range(count):
                id = f"{split}_{number:06d}"
                if writer.has(id):
                    writer.add(id, split, id)
                else:
                    tasks.append((id, split, seed, FIRST[split] + number, size, recipe))
        if workers is None:
            workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        workers = min(workers, len(tasks) // 8)  # a process costs a second
        encoded = _encoded(tasks, workers)
        bar = tqdm(encoded, total=len(tasks), desc="rendering faces", unit="face", disable=not progress)
        for id, split, image, labels, truth in bar:
            with atomic(writer.partial / f"complete/{id}.png") as part:
                part.write_bytes(truth)
            writer.add(id, split, id, image=image, labels=labels)
    return folder


def synthetic_folder(
    *, counts: Mapping[str, int], seed: int = 0, size: int = 128, recipe: Recipe | None = None, **options
) -> Path:
    """Return the data set with these parameters under the data folder; render it on first use.

    Arguments and errors are those of :func:`prepare_synthetic`. The folder is named ``synthetic-HASH`` by the
    parameters and the renderer's version.
    """
    recipe = recipe or Recipe()
    key = json.dumps([_notes(seed, recipe, counts), size], sort_keys=True)
    folder = data_dir() / f"synthetic-{hashlib.sha256(key.encode()).hexdigest()[:10]}"
    with locked(folder.with_name(f".{folder.name}.lock")):  # another run of a sweep may be rendering them
        return prepare_synthetic(folder, seed=seed, counts=counts, size=size, recipe=recipe, **options)


def read_truth(folder: str | Path, id: str) -> tuple[np.ndarray, np.ndarray, dict]:
    """Read the truth about a stored sample that ``labels/`` does not hold.

    Returns:
        ``complete``, ``face`` and ``record`` as in :class:`~synthetic_faces.FaceSample`.

    Raises:
        FileNotFoundError: the data set has no such sample, or is not a synthetic one.
    """
    with Image.open(Path(folder) / "complete" / f"{id}.png") as picture:
        picture.load()
        values, text = np.array(picture), picture.text
    return values % FACE_BIT, values >= FACE_BIT, json.loads(text["record"])

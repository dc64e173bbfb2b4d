"""Prepare a data set of your own: a folder of images and a folder of masks.

    python data_scripts/prepare_folder.py IMAGES MASKS --out DIR --size 128

counts what the masks hold, writes a proposal, ``DIR.yaml``, and a contact sheet, ``DIR.png``, says what it
understood, and prepares the data set by that proposal. Correct the file, remove DIR, and run the same command
again: it takes the file that is there, or that of ``--config``. Images and masks go together by their stem,
whatever the extension, letter case of the extension, and sub-folder. A mask is one file for each image
(palette or grey numbers, 0 and 255, or colours), or one file for each class and image, ``STEM_CLASS.png``, as
in CelebAMask-HQ. A few images at a time are in memory.

The YAML file::

    name: my_faces
    kind: colours                               # numbers, colours, or files: what tells the classes apart
    classes: [background, skin, l_eye, r_eye]   # the position is the class number
    values: [[0, 0, 0], [204, 0, 0], …]         # of each class in the masks: a number, a colour, or a suffix
    colours: [[0, 0, 0], [86, 180, 233], …]     # of each class in figures
    mirrored: [[l_eye, r_eye]]                  # classes that a horizontal flip exchanges
    ignore: null                                # number or colour of pixels that no loss counts
    splits: {train: 0.7, validation: 0.15, test: 0.15}   # shares of the subjects, or lists of stems
    subject: null                               # regular expression with one group, of the stem; or FILE.csv
    tasks: {parts: {background: background, skin: face, …}}   # optional: class → class of a task
    source: …
    licence: …

A CSV file has the columns ``stem`` and ``subject``, and may have ``split``.
"""

import csv
import dataclasses
import functools
import hashlib
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

import sets
from consensus_lib.data.folder import (
    DatasetError,
    DatasetInfo,
    Row,
    file_sha256,
    read_checksums,
    read_index,
    read_info,
    shared_subjects,
)
from consensus_lib.data.images import read_image, read_labels
from consensus_lib.data.writer import DatasetWriter
from consensus_lib.experiments import command_line
from consensus_lib.paths import atomic, shown
from folder_layout import Layout, Sample, find_samples, read_sample
from folder_proposal import propose


def prepare_folder(
    images: str | Path,
    masks: str | Path | None,
    out: str | Path,
    size: int = 128,
    *,
    config: str | Path | None = None,
    rescale: bool = False,
    crop: str = "pad",
    skip_bad: bool = False,
    progress: bool = True,
) -> tuple[DatasetInfo, Path]:
    """Prepare a folder of images and masks; print what was understood.

    Args:
        images, masks: folders; None for images without masks, all ``unlabelled``.
        out: the data set to make; ``OUT.png`` beside it is the contact sheet, ``OUT.yaml`` the proposal.
        size: height and width in pixels.
        config: a YAML file, see the head of this file; None takes ``OUT.yaml``, and proposes it if need be.
        rescale: see :func:`pictures.fit`.
        crop: what is done with images that are not square: ``"pad"`` (ignored border) or ``"centre"`` crop.
        skip_bad: leave out samples that cannot be read, and list them, instead of stopping at the first.
        progress: show a bar.

    Returns:
        what ``dataset.json`` says, and the path of the contact sheet.

    Raises:
        DatasetError: a file is not what was expected; the message names it.
        FileExistsError: ``out`` exists.
    """
    out, images, masks = Path(out), Path(images), None if masks is None else Path(masks)
    for folder in filter(None, (images, masks)):
        if not folder.is_dir():
            raise DatasetError(f"{folder}: expected a folder, found none")
    if out.exists():
        raise FileExistsError(f"{out}: expected a new folder, but it exists: remove it, or choose another")
    samples, proposal = find_samples(images, masks), out.with_name(f"{out.name}.yaml")
    if config is None and proposal.exists():
        print(f"Classes and splits: {shown(proposal)}; remove it for a new proposal")
        config = proposal
    elif config is None:
        if masks is None:
            raise DatasetError("config: expected a file with the classes, as no masks tell them, got none")
        layout, said = propose(samples, out.name)
        layout.write(proposal, ["What prepare_folder.py understood; correct it.", *said])
        print("\n".join([*said, f"Proposal: {shown(proposal)}"]))
        config = proposal
    layout = Layout.read(Path(config))
    placed = _split(samples, layout, Path(config).parent)
    notes = {"layout": dataclasses.asdict(layout), "rescale": rescale, "crop": crop}
    info = layout.info(size, notes)
    made = [
        sets.Sample(
            sample.stem,
            placed[sample.stem][1] if sample.mask else "unlabelled",
            placed[sample.stem][0],
            functools.partial(read_sample, sample, layout, rescale=rescale, crop=crop),
            jpeg=sample.image.lower().endswith((".jpg", ".jpeg", ".jpe")),
        )
        for sample in samples
    ]
    info = sets.make(out, info, made, skip_bad=skip_bad, progress=progress)
    path = contact_sheet(out, out.with_name(f"{out.name}.png"))
    print(f"Look at {shown(path)} before you train.")
    return info, path


def _split(samples: Sequence[Sample], layout: Layout, folder: Path) -> dict[str, tuple[str, str]]:
    """Return stem → (subject, split). A subject is in one split; shares are of subjects, in a fixed order."""
    subjects, splits = {}, {}
    if layout.subject and layout.subject.lower().endswith(".csv"):
        path = folder / layout.subject
        try:
            with path.open(newline="", encoding="utf-8-sig") as lines:
                rows = list(csv.DictReader(lines))
            subjects = {row["stem"]: row["subject"] for row in rows}
            splits = {row["stem"]: row["split"] for row in rows if row.get("split")}
        except (OSError, KeyError, UnicodeDecodeError) as error:
            raise DatasetError(
                f"{path}: expected a CSV file with the columns stem and subject, got: {error!r}"
            ) from None
    elif layout.subject:
        try:
            pattern = re.compile(layout.subject)
            subjects = {s.stem: found[1] for s in samples if (found := pattern.search(s.stem))}
        except (re.error, IndexError) as error:
            raise DatasetError(
                f"subject: expected a pattern with one group, got {layout.subject!r}: {error}"
            ) from None
    if layout.subject and (lost := [sample.stem for sample in samples if sample.stem not in subjects]):
        raise DatasetError(
            f"subject: expected one for each image by {layout.subject!r}, got none for {lost[:3]}"
        )
    for split, stems in layout.splits.items():
        splits |= dict.fromkeys(map(str, stems), split) if isinstance(stems, list) else {}
    if wrong := {split for split in splits.values() if split not in sets.SPLITS}:
        raise DatasetError(f"split: expected one of {sets.SPLITS}, got {sorted(wrong)}")
    who = {sample.stem: subjects.get(sample.stem, sample.stem) for sample in samples}
    fixed = {who[stem]: split for stem, split in splits.items() if stem in who}
    shares = {split: share for split, share in layout.splits.items() if not isinstance(share, list)}
    free = sorted({subject for subject in who.values() if subject not in fixed})
    free.sort(key=lambda subject: hashlib.sha256(subject.encode()).digest())
    if free and not shares:
        raise DatasetError(f"splits: expected a split for each image, got none for {free[:3]}")
    shares = {split: share for split, share in shares.items() if share > 0}
    ends, parts = np.round(np.cumsum(list(shares.values())) * len(free)), np.arange(len(shares))
    if len(free) >= len(shares):  # none of them is left empty
        ends = np.minimum(np.maximum(ends, parts + 1), len(free) - parts[::-1])
    for position, subject in enumerate(free):
        fixed[subject] = list(shares)[min(int(np.searchsorted(ends, position, "right")), len(shares) - 1)]
    return {stem: (subject, splits.get(stem, fixed[subject])) for stem, subject in who.items()}


def contact_sheet(folder: Path, path: Path, most: int = 16, side: int = 160) -> Path:
    """Save a sheet of samples, evenly over a data set, with their labels laid over; return ``path``."""
    info, rows, columns = read_info(folder), read_index(folder), 4
    rows = [row for row in rows if row.labels] or rows
    rows = rows[:: -(-len(rows) // most)]
    palette = np.full((256, 3), 255.0)
    palette[: len(info.colours)] = info.colours
    below = -(-len(rows) // columns) * (side + 14) + 4
    height = below + 16 * -(-len(info.classes) // columns) + 4
    sheet = Image.new("RGB", (columns * side, height), "white")
    draw = ImageDraw.Draw(sheet)

    def write(x: int, y: int, text: str) -> None:
        draw.text((x, y), text[:24].encode("ascii", "replace").decode(), fill="black")

    for place, row in enumerate(rows):
        tile = np.asarray(read_image(folder / row.image)).astype(float)
        if row.labels:
            labels = read_labels(folder / row.labels, len(info.classes))
            tile = np.where((labels > 0)[..., None], 0.45 * tile + 0.55 * palette[labels], tile)
        x, y = place % columns * side, place // columns * (side + 14)
        sheet.paste(Image.fromarray(tile.astype(np.uint8)).resize((side, side)), (x, y))
        write(x + 2, y + side, row.id)
    for number, (name, colour) in enumerate(zip(info.classes, info.colours, strict=True)):
        x, y = number % columns * side, below + number // columns * 16
        draw.rectangle((x + 2, y + 2, x + 14, y + 12), fill=tuple(colour), outline="black")
        write(x + 18, y + 1, f"{number} {name}")
    with atomic(path) as part:
        sheet.save(part)
    return path


# Verifying


def verify(
    folder: str | Path, images: str | Path | None = None, masks: str | Path | None = None
) -> list[str]:
    """Check a prepared folder, repair what is broken where its source is given; return what is wrong.

    Hashes, sizes and class numbers of the files, the hash and the counts of the index, that each class
    occurs, and that no subject stands in two splits, ``unlabelled`` among them.

    Args:
        folder: the prepared data set.
        images, masks: the folders that it was prepared from; None repairs nothing.

    Raises:
        DatasetError: a broken sample cannot be made from the source, or comes out as another file.
    """
    folder = Path(folder)
    try:
        info, rows = read_info(folder), read_index(folder)
    except DatasetError as error:
        return [str(error)]
    hashes, wrong, seen = read_checksums(folder), [], np.zeros(256, np.int64)
    broken = {}
    for row in tqdm(rows, "verify", leave=False):
        try:
            _check_sample(folder, row, info, hashes, seen)
        except DatasetError as error:
            broken[row.id] = str(error)
    if broken and images is not None:
        repaired = _repair(folder, info, [row for row in rows if row.id in broken], hashes, images, masks)
        print("\n".join(f"repaired {id}: {broken.pop(id)}" for id in repaired))
    wrong += broken.values()
    if (counts := dict(sorted(Counter(row.split for row in rows).items()))) != info.counts:
        wrong.append(f"dataset.json: expected the counts {counts} of the index, got {info.counts}")
    for subject, splits in shared_subjects(rows).items():
        wrong.append(f"subject {subject}: expected in one split, got {splits}")
    absent = [name for name, count in zip(info.classes, seen, strict=False) if not count]
    if absent and seen.any():
        wrong.append(f"classes: expected pixels of each, got none of {absent}")
    return wrong


def _check_sample(
    folder: Path, row: Row, info: DatasetInfo, hashes: dict[str, str], seen: np.ndarray
) -> None:
    """Add the pixels of each class of a sample to ``seen``; raise DatasetError if a file is not as it was."""
    for name in filter(None, (row.image, row.labels, row.superpixels)):
        if not (folder / name).is_file():
            raise DatasetError(f"{folder / name}: expected the file that index.csv names, found none")
        if hashes and (got := file_sha256(folder / name)) != hashes.get(name):
            raise DatasetError(
                f"{folder / name}: expected sha256 {hashes.get(name, 'none')[:12]}…, got {got[:12]}…"
            )
    read_image(folder / row.image)
    if row.labels:
        labels = read_labels(folder / row.labels, len(info.classes))
        if labels.shape != (info.size, info.size):
            raise DatasetError(
                f"{folder / row.labels}: expected {info.size}×{info.size}, got {labels.shape[::-1]}"
            )
        seen += np.bincount(labels.ravel(), minlength=256)


def _repair(folder: Path, info: DatasetInfo, rows: Sequence[Row], hashes: dict, images, masks) -> list[str]:
    """Make these samples anew, in a data set beside the folder, and move their files over; return the ids."""
    if "layout" not in info.notes:
        raise DatasetError(
            f"{folder}: expected a data set of prepare_folder.py, to repair it, got {info.name}"
        )
    layout = Layout.of(info.notes["layout"])
    samples = {sample.stem: sample for sample in find_samples(Path(images), masks and Path(masks))}
    options = {name: info.notes[name] for name in ("rescale", "crop")}
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        # Never completed: a few samples need not have the classes that a data set needs.
        writer = DatasetWriter(Path(beside) / "new", info).__enter__()
        for row in rows:
            if row.id not in samples:
                raise DatasetError(f"{images}: expected an image for {row.id!r}, found none")
            made = read_sample(samples[row.id], layout, info.size, **options)
            made.pop("unclear", None)
            writer.add(row.id, row.split, row.subject, jpeg=row.image.endswith(".jpg"), **made)
            for name in filter(None, (row.image, row.labels)):
                new = writer.partial / name
                if not new.is_file() or file_sha256(new) != hashes.get(name, file_sha256(new)):
                    raise DatasetError(
                        f"{samples[row.id].image}: expected the source of {name}, got another one"
                    )
                new.replace(folder / name)
    return [row.id for row in rows]


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = command_line.Parser(
        description="Prepare a folder of images and masks, or check a prepared one (--verify).",
        epilog="What the YAML file holds stands at the head of this script.",
    )
    add = parser.add_argument
    add("images", nargs="?", type=Path, help="folder of images")
    add("masks", nargs="?", type=Path, help="folder of masks, named as the images; none: all are unlabelled")
    add("--out", type=command_line.folder, help="folder to make")
    add(
        "--size",
        type=command_line.whole(8, 4096),
        default=128,
        help="height and width (default: %(default)s)",
    )
    add(
        "--config", type=Path, help="YAML file of classes, splits, …; without it one is proposed, as OUT.yaml"
    )
    add("--rescale", action="store_true", help="bring masks of another scale to the size of their image")
    add(
        "--crop",
        choices=["pad", "centre"],
        default="pad",
        help="what makes images square (default: %(default)s)",
    )
    add("--skip-bad", action="store_true", help="leave out and list what cannot be read")
    add(
        "--verify",
        type=Path,
        metavar="DIR",
        help="check DIR; with IMAGES and MASKS, repair what is broken in it",
    )
    given = parser.parse_args(argv)
    if given.verify:
        return sets.run(lambda: _say_what_is_wrong(given.verify, given.images, given.masks))
    if not given.images or not given.out:
        parser.error("expected IMAGES, MASKS and --out DIR, or --verify DIR")
    options = {name: getattr(given, name) for name in ("config", "rescale", "crop", "skip_bad")}
    return sets.run(lambda: prepare_folder(given.images, given.masks, given.out, given.size, **options))


def _say_what_is_wrong(folder: Path, images: Path | None, masks: Path | None) -> None:
    if wrong := verify(folder, images, masks):
        raise DatasetError("\n".join(wrong))
    print(f"{folder}: all is right")


if __name__ == "__main__":
    sys.exit(main())

"""What the scripts share: they say what lies where, this file makes the prepared data set.

The script of a public data set states a :class:`PublicSet`, whose ``samples`` finds the images and masks in
the original layout, and ends in ``sys.exit(sets.main(SET))``. Samples are decoded by a few threads, a bounded
number ahead of the writer, so that memory does not grow with the data set.
"""

import collections
import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from archives import PublicFile, fetch, unpacked
from consensus_lib.data.folder import (
    DatasetError,
    DatasetInfo,
    check_files,
    read_index,
    read_info,
    shared_subjects,
)
from consensus_lib.data.writer import DatasetWriter
from consensus_lib.experiments import command_line
from consensus_lib.paths import data_dir, data_mirror, shown
from pictures import fit, open_rgb, read_numbers

SPLITS = ("train", "validation", "test", "unlabelled")

RECIPE = {"photographs": "Lanczos, JPEG quality 95", "labels": "argmax of one-hot, Lanczos"}
"""How samples are made: a data set of another recipe, half-made or whole, is not taken for this one."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image of a data set, found and not yet read.

    Attributes:
        id, split, subject: as in the index.
        read: given the size, returns ``image``, ``labels`` and maybe ``superpixels`` for
            :meth:`DatasetWriter.add`, and maybe the number of ``unclear`` pixels. Called by several threads
            at once.
        jpeg: whether the source is a JPEG.
    """

    id: str
    split: str
    subject: str
    read: Callable[[int], dict]
    jpeg: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class PublicSet:
    """A public data set.

    Attributes:
        name: short name, the folder's by default.
        classes: class name → colour, in the order of the class numbers.
        source, licence: for ``dataset.json``.
        get: where the files are to be had, and in which form they are expected.
        needs: files and folders by which the tree is recognised.
        samples: lists the samples in a tree.
        counts: images in each split of the complete distribution.
        largest: side in pixels of its masks; prepared ones have at most that.
        mirror: class → the class that it becomes in a flipped image.
        tasks: how a task takes the classes, such as :func:`parts`; for ``dataset.json``.
        finish: called with the tree, the folder before it is renamed, and the size, to add files of its own.
        files: archives that can be downloaded without a form; the first has the tree.
    """

    name: str
    classes: Mapping[str, tuple[int, int, int]]
    source: str
    licence: str
    get: str
    needs: tuple[str, ...]
    samples: Callable[[Path], list[Sample]]
    counts: Mapping[str, int]
    largest: int = 512
    mirror: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    finish: Callable[[Path, Path, int], None] = lambda tree, folder, size: None
    files: tuple[PublicFile, ...] = ()


def prepare(
    dataset: PublicSet, out: Path, size: int, source: Path | None = None, mirror: str | None = None
) -> DatasetInfo:
    """Prepare a public data set in ``out`` unless it is there, and return what its ``dataset.json`` says.

    Args:
        dataset: which.
        out: folder to make.
        size: height and width in pixels.
        source: folder or archive of the original distribution; None to download it where that is possible.
        mirror: folder or address of archives; None for the public addresses.

    Raises:
        DatasetError: a file is missing, damaged or not what was expected, or ``out`` holds something else.
    """
    if found := prepared(out, dataset.name, size):
        return found
    if source is None and not dataset.files:
        raise DatasetError(f"--from: expected the folder of {dataset.name}. {dataset.get}")
    downloads = data_dir() / "downloads"
    with contextlib.ExitStack() as stack:
        if source is None:
            archives = fetch(dataset.files, downloads, mirror, dataset.licence)
            source = archives[dataset.files[0].name]
        if source.is_file():
            source = stack.enter_context(unpacked(source, downloads / "unpacked"))
        tree = find_tree(source, dataset.needs, dataset.get)
        samples = dataset.samples(tree)
        compare_counts(samples, dataset.counts)
        info = DatasetInfo(
            name=dataset.name,
            classes=tuple(dataset.classes),
            colours=tuple(dataset.classes.values()),
            source=dataset.source,
            licence=dataset.licence,
            size=size,
            notes={"recipe": RECIPE},
            mirrored=tuple(dataset.mirror.items()),
            tasks={name: dict(members) for name, members in dataset.tasks.items()},
        )
        return make(out, info, samples, lambda folder: dataset.finish(tree, folder, size))


def prepared(out: Path, name: str, size: int, **options) -> DatasetInfo | None:
    """Return the description of the data set in ``out``, made in the same way; None if there is nothing.

    Raises:
        DatasetError: ``out`` holds something else, or lacks files.
    """
    if not out.exists():
        return None
    info = read_info(out)
    wanted = {"name": name, "size": size, "recipe": RECIPE, **options}
    got = {"name": info.name, "size": info.size} | {key: info.notes.get(key) for key in ("recipe", *options)}
    if wanted != got:
        differ = {key: value for key, value in got.items() if value != wanted[key]}
        raise DatasetError(
            f"{out}: expected { ({key: wanted[key] for key in differ}) }, got {differ}; "
            "choose another --out, or remove the folder"
        )
    check_files(out, read_index(out))
    print(f"{shown(out)} is prepared already: {_counts(info.counts)}. Nothing to do.")
    return info


def make(
    out: Path,
    info: DatasetInfo,
    samples: Iterable[Sample],
    finish: Callable[[Path], None] = lambda folder: None,
    *,
    skip_bad: bool = False,
    progress: bool = True,
) -> DatasetInfo:
    """Write the samples as a prepared data set, and report. An interrupted call is resumed by the next.

    Args:
        out: folder to make.
        info: what ``dataset.json`` will say but for counts, and for the notes ``unclear_pixels`` and
            ``left_out``, where there are any.
        samples: with different ids; a list, or what finds them one after another.
        finish: called with the folder before it is renamed, to add files of its own.
        skip_bad: leave out samples that cannot be read, and list them, instead of stopping at the first.
        progress: show a bar.

    Raises:
        DatasetError: of a sample, names its file; with ``skip_bad``, only if each is bad.
    """
    kept, made, unclear, bad = 0, 0, 0, {}
    with DatasetWriter(out, info) as writer:
        for sample, content in _read_ahead(samples, info.size, writer, progress):
            try:
                found = content() if content else {}
                unclear += found.pop("unclear", 0)
                writer.add(sample.id, sample.split, sample.subject, jpeg=sample.jpeg, **found)
                made, kept = made + 1, kept + (content is None)
            except (DatasetError, MemoryError) as error:
                if not skip_bad:
                    raise
                bad[sample.id] = str(error)
        if bad and not made:
            raise DatasetError(f"expected samples that can be read, got none: {next(iter(bad.values()))}")
        found = {"unclear_pixels": unclear, "left_out": bad}
        found = {key: value for key, value in found.items() if value}
        writer.info = dataclasses.replace(info, notes=info.notes | found)
        finish(writer.partial)
    if kept:
        print(f"{kept:,} images were there from an interrupted run")
    if unclear:
        print(f"{unclear:,} pixels of the masks are of no clear class, and are ignored")
    for id, reason in bad.items():
        print(f"left out {id}: {reason}")
    info, rows = read_info(out), read_index(out)
    print(f"{shown(out)}: {_counts(info.counts)}, {len(info.classes)} classes")
    for found, said in (
        (shared_subjects(row for row in rows if row.split != "unlabelled"), "scores are a little too good"),
        (shared_subjects(rows), "the split unlabelled included"),
    ):
        if found:
            print(f"{len(found)} people are in more than one split, such as {next(iter(found))}: {said}")
    return info


def _read_ahead(
    samples: Iterable[Sample], size: int, writer: DatasetWriter, progress: bool
) -> Iterator[tuple[Sample, Callable[[], dict] | None]]:
    """Yield samples in order, each with what returns its content, or None where it is stored already.

    Threads read a few ahead. They let go of Python's lock while they decode and resize: on two cores they are
    as fast as processes.
    """
    threads = min(8, os.cpu_count() or 1)
    pool, waiting = ThreadPoolExecutor(threads), collections.deque()
    try:
        for sample in tqdm(samples, desc="images", unit="image", disable=None if progress else True):
            stored = writer.has(sample.id, sample.jpeg)
            waiting.append((sample, None if stored else pool.submit(sample.read, size).result))
            if len(waiting) > 2 * threads:
                yield waiting.popleft()
        yield from waiting
    finally:
        pool.shutdown(cancel_futures=True)


def find_tree(source: Path, needs: tuple[str, ...], get: str) -> Path:
    """Return the folder, ``source`` or one up to two levels below it, that has all that is needed.

    Raises:
        DatasetError: there is none; says what was found, and how to get it.
    """
    if source.is_dir():
        for folder in (source, *sorted(source.glob("*/")), *sorted(source.glob("*/*/"))):
            if all((folder / name).exists() for name in needs):
                return folder
    names = sorted(path.name for path in source.glob("*"))[:9] if source.is_dir() else "no folder"
    raise DatasetError(f"{source}: expected {', '.join(needs)}, got {names}. {get}")


def compare_counts(samples: list[Sample], expected: Mapping[str, int]) -> None:
    """Print what is missing of the complete distribution: a part of it is fine, where it is meant."""
    got = collections.Counter(sample.split for sample in samples)
    for split, count in expected.items():
        if got[split] != count:
            print(f"note: the complete distribution has {count:,} {split} images, this one {got[split]:,}")


def hold_out(samples: list[Sample], every: int) -> list[Sample]:
    """Return the samples with every ``every``-th training sample as validation, for a set that has none."""
    train = [sample.id for sample in samples if sample.split == "train"]
    held = set(train[every - 1 :: every])
    return [dataclasses.replace(s, split="validation") if s.id in held else s for s in samples]


def pairs(images: Path, labels: Path, image_suffix: str, label_suffix: str) -> list[tuple[str, Path, Path]]:
    """Return stem, image and mask of each image of a folder, whose mask has the same stem.

    Raises:
        DatasetError: one of the two is missing, or the folders are empty.
    """
    found = {path.stem: path for path in sorted(images.glob(f"*{image_suffix}"))}
    masks = {path.stem: path for path in sorted(labels.glob(f"*{label_suffix}"))}
    for name in sorted(found.keys() ^ masks.keys()):
        there, missing = (found[name], labels) if name in found else (masks[name], images)
        raise DatasetError(f"{there}: expected its partner {name}.* in {missing}, found none")
    if not found:
        raise DatasetError(f"{images}: expected images *{image_suffix}, found none")
    return [(name, found[name], masks[name]) for name in found]


def pair(image: Path, labels: Path, classes: int) -> Callable[[int], dict]:
    """Return a reader of an image and its mask of class numbers; see :attr:`Sample.read`."""
    return lambda size: fit(open_rgb(image), read_numbers(labels, classes), size, labels)


def palette(names: str) -> dict[str, tuple[int, int, int]]:
    """Give each class, named between spaces, a colour as Pascal VOC does: the bits of its number."""
    bits = [[sum((k >> (3 * j + c) & 1) << (7 - j) for j in range(8)) for c in range(3)] for k in range(256)]
    return {name: tuple(colour) for name, colour in zip(names.split(), bits, strict=False)}


def parts(classes: Iterable[str], background: str = "") -> dict[str, dict[str, str]]:
    """Return how task ``parts`` takes classes: hair, ``background`` (names between spaces), the rest face."""
    behind = {"background", *background.split()}
    return {"parts": {c: "hair" if c == "hair" else "background" if c in behind else "face" for c in classes}}


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not blank, stripped, with their numbers.

    Raises:
        DatasetError: it is missing, or no text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: expected a text file, got: {error}") from None
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def main(dataset: PublicSet, argv: list[str] | None = None) -> int:
    """Run the command of a public data set; return its exit status."""
    parser = command_line.Parser(description=f"Prepare {dataset.name}. {dataset.get}")
    what = "folder or archive of the original distribution" + (
        " (default: download it)" * bool(dataset.files)
    )
    parser.add_argument("--from", dest="source", type=Path, metavar="PATH", help=what)
    add_out_and_size(parser, dataset.name, dataset.largest)
    options = parser.parse_args(argv)
    out = options.out or data_dir() / f"{dataset.name}-{options.size}"
    return run(lambda: prepare(dataset, out.expanduser(), options.size, options.source, data_mirror()))


def add_out_and_size(parser: command_line.Parser, name: str, largest: int) -> None:
    """Add the options that every script has."""
    default = f"folder to make (default: CONSENSUS_DATA_DIR/{name}-SIZE)"
    parser.add_argument("--out", type=command_line.folder, help=default)
    pixels = f"height and width in pixels, at most {largest} (default: %(default)s)"
    parser.add_argument("--size", type=command_line.whole(8, largest), default=min(128, largest), help=pixels)


def run(work: Callable[[], object]) -> int:
    """Do the work of a command; say what went wrong, and return the exit status."""
    try:
        work()
    except (DatasetError, OSError) as error:
        print("\n".join([f"error: {error}", *getattr(error, "__notes__", [])]), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command resumes it", file=sys.stderr)
        return 130
    return 0


def _counts(counts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{counts[split]:,} {split}" for split in SPLITS if split in counts)
    return f"{sum(counts.values()):,} images ({listed})"

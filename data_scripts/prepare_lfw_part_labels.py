"""Prepare LFW Part Labels: photographs of faces with background, face and hair marked by hand.

    python data_scripts/prepare_lfw_part_labels.py --out DIR --size 128

reads the archives of the original distribution, from ``CONSENSUS_DATA_MIRROR`` or from their public
addresses, and writes a prepared data set (see ``consensus_lib/data/folder.py``). The photographs that
nobody labelled come along, in the split ``unlabelled``. A second call does nothing; an interrupted one is
taken up again by the same command.

Each archive is read once, front to back, and nothing is unpacked to disk. Photographs pass one at a time; the
label maps wait in memory, compressed, because the two archives need not have the same order.
"""

import dataclasses
import io
import re
import sys
import zlib
from collections.abc import Callable, Container, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from archives import LocalFile, PublicFile, fetch, members
from consensus_lib import IGNORE
from consensus_lib.data.folder import (
    DatasetError,
    DatasetInfo,
    Row,
    check_files,
    read_index,
    read_info,
    shared_subjects,
)
from consensus_lib.data.images import resize_image, resize_labels, resize_numbers
from consensus_lib.data.writer import DatasetWriter
from consensus_lib.experiments import command_line
from consensus_lib.paths import data_dir, data_mirror, shown

SOURCE_SIZE = 250
"""Height and width of every photograph, label image and superpixel map of the original distribution."""

CLASSES = {"background": (0, 0, 255), "face": (0, 255, 0), "hair": (255, 0, 0)}
"""The classes, by number, and the colours that stand for them in the label images."""

SPLITS = ("train", "validation", "test")

_UMASS = "http://vis-www.cs.umass.edu/lfw"

PHOTOGRAPHS = PublicFile(
    "lfw-funneled.tgz",
    ("https://ndownloader.figshare.com/files/5976015", f"{_UMASS}/lfw-funneled.tgz"),
    # As pinned in scikit-learn, sklearn/datasets/_lfw.py.
    hash="sha256:b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",
)
LABELS = PublicFile(
    "parts_lfw_funneled_gt_images.tgz",
    (f"{_UMASS}/part_labels/parts_lfw_funneled_gt_images.tgz",),
    hash="md5:3e7e26e801c3081d651c8c2ef3c45cfc",  # as pinned in several public loaders; no sha256 is known
)
SUPERPIXELS = PublicFile(
    "parts_lfw_funneled_superpixels_mat.tgz",
    (f"{_UMASS}/part_labels/parts_lfw_funneled_superpixels_mat.tgz",),
    optional=True,
)
LISTS = {
    split: PublicFile(f"parts_{split}.txt", (f"{_UMASS}/part_labels/parts_{split}.txt",)) for split in SPLITS
}
FILES = (*LISTS.values(), LABELS, SUPERPIXELS, PHOTOGRAPHS)

SOURCE = (
    "LFW Part Labels (A. Kae, K. Sohn, H. Lee and E. Learned-Miller, Augmenting CRFs with Boltzmann Machine "
    "Shape Priors for Image Labeling, CVPR 2013, http://vis-www.cs.umass.edu/lfw/part_labels/) on funneled "
    "images of Labeled Faces in the Wild (G. B. Huang, M. Ramesh, T. Berg and E. Learned-Miller, Labeled "
    "Faces in the Wild, University of Massachusetts, Amherst, Technical Report 07-49, 2007; G. B. Huang, "
    "V. Jain and E. Learned-Miller, Unsupervised Joint Alignment of Complex Images, ICCV 2007)"
)
LICENCE = (
    "For research use. The distribution states no licence; the press photographs belong to their owners and "
    "show real people. Cite the source, and do not redistribute."
)

_PHOTOGRAPH = re.compile(r"lfw_funneled/(?P<name>[^/]+)/(?P<id>(?P=name)_\d{4})\.jpg")
_LABEL_IMAGE = re.compile(r"parts_lfw_funneled_gt_images/(?P<id>[^/]+_\d{4})\.ppm")
_SUPERPIXELS = re.compile(r"parts_lfw_funneled_superpixels_mat/(?P<name>[^/]+)/(?P<id>(?P=name)_\d{4})\.dat")
_LIST_LINE = re.compile(r"([^\s/\\.][^\s/\\]*)[ \t]+(\d{1,4})")

_RECIPE = {"photographs": "Lanczos, JPEG quality 95", "labels": "argmax of one-hot, Lanczos"}
"""How samples are made: a data set of another recipe, half-made or whole, is not taken for this one."""


def prepare(
    out: Path,
    size: int = 128,
    *,
    unlabelled: bool = True,
    mirror: str | None = None,
    downloads: Path | None = None,
) -> DatasetInfo:
    """Prepare the data set in ``out`` unless it is there, and return what its ``dataset.json`` says.

    Args:
        out: folder to make.
        size: height and width in pixels, at most 250; at 250 the bytes of the photographs are kept.
        unlabelled: whether to keep photographs without labels.
        mirror: folder or address with the archives and ``registry.txt``; None for the public addresses.
        downloads: folder that keeps downloaded archives (default ``data_dir() / "downloads"``).

    Raises:
        DatasetError: a file is missing, damaged or not what was expected, or ``out`` holds something else.
    """
    if not 8 <= size <= SOURCE_SIZE:
        raise DatasetError(f"size: expected 8 to {SOURCE_SIZE} pixels, got {size}")
    if out.exists():
        return _already_prepared(out, size, unlabelled)
    files = fetch(FILES, downloads or data_dir() / "downloads", mirror)
    _report_files(files)
    listed = read_lists({split: files[file.name].path for split, file in LISTS.items()})
    info = _describe(files, listed, size, unlabelled, mirror is not None)
    with DatasetWriter(out, info, plan=_RECIPE) as writer:
        shared = _write_samples(writer, files, listed, unlabelled)
        # Known only now that the photographs are; not part of the plan.
        writer.info = dataclasses.replace(info, notes=info.notes | {"subjects_also_unlabelled": shared})
    _report_result(out)
    return read_info(out)


def read_lists(paths: dict[str, Path]) -> dict[str, str]:
    """Read the list of each split: lines ``NAME N`` for the image ``NAME_000N``. Return the split of each id.

    Raises:
        DatasetError: a line is malformed, an image is listed twice, or a list is empty.
    """
    listed: dict[str, str] = {}
    for split, path in paths.items():
        for number, line in _lines(path):
            match = _LIST_LINE.fullmatch(line.strip())
            if not match:
                raise DatasetError(f"{path.name}, line {number}: expected NAME N, got {line!r}")
            id = f"{match[1]}_{int(match[2]):04d}"
            if id in listed:
                raise DatasetError(
                    f"{path.name}, line {number}: expected each image once in all lists, "
                    f"got {id} again (first in {LISTS[listed[id]].name})"
                )
            listed[id] = split
        if split not in listed.values():
            raise DatasetError(f"{path.name}: expected lines NAME N, got none")
    return listed


def decode_photograph(name: str, content: bytes) -> Image.Image:
    """Decode a photograph and check that it is a whole 250×250 RGB JPEG."""
    return _decode(name, content, "JPEG")


def decode_labels(name: str, content: bytes) -> np.ndarray:
    """Turn the colours of a label image into class numbers, uint8 ``[250,250]``.

    Raises:
        DatasetError: the image is damaged or has another size, or a pixel has a colour of no class.
    """
    colours = np.asarray(_decode(name, content, "PPM"))  # [250, 250, 3]
    red, green, blue = np.moveaxis(colours.astype(np.uint32), 2, 0)  # each [250, 250]
    colours_as_numbers = red << 16 | green << 8 | blue  # one comparison a class instead of three
    labels = np.full(colours.shape[:2], IGNORE, np.uint8)
    for number, (r, g, b) in enumerate(CLASSES.values()):
        labels[colours_as_numbers == (r << 16 | g << 8 | b)] = number
    strange = np.argwhere(labels == IGNORE)  # [pixels, 2]
    if len(strange):
        row, column = strange[0].tolist()
        expected = ", ".join(f"{colour} {name}" for name, colour in CLASSES.items())
        raise DatasetError(
            f"{name}: expected only the colours {expected}, got {tuple(colours[row, column].tolist())} "
            f"at row {row}, column {column} ({len(strange)} such pixels)"
        )
    return labels


def decode_superpixels(name: str, content: bytes) -> np.ndarray:
    """Read a superpixel map, 250 lines of 250 numbers from 0 to 65,535, as uint16 ``[250,250]``.

    Raises:
        DatasetError: the map is malformed or has another size.
    """
    rows = [line.split() for line in content.splitlines() if line.strip()]
    lengths = {len(row) for row in rows}
    if len(rows) != SOURCE_SIZE or lengths != {SOURCE_SIZE}:
        raise DatasetError(
            f"{name}: expected {SOURCE_SIZE} lines of {SOURCE_SIZE} integers, "
            f"got {len(rows)} lines of {' or '.join(map(str, sorted(lengths))) or 'none'}"
        )
    try:
        numbers = np.array(rows).astype(np.int64)  # [250, 250]
    except ValueError as error:
        raise DatasetError(f"{name}: expected integers, got: {error}") from None
    if numbers.min() < 0 or numbers.max() > 65_535:
        raise DatasetError(
            f"{name}: expected numbers from 0 to 65535, got {numbers.min()} to {numbers.max()}"
        )
    return numbers.astype(np.uint16)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = command_line.Parser(
        description="Prepare LFW Part Labels from the archives of its distribution.",
        epilog="Archives are read from CONSENSUS_DATA_MIRROR, a folder or address with a registry.txt, "
        "or from their public addresses into CONSENSUS_DATA_DIR/downloads.",
    )
    parser.add_argument(
        "--out",
        type=command_line.folder,
        help="folder to make (default: CONSENSUS_DATA_DIR/lfw_part_labels-SIZE)",
    )
    pixels = "height and width in pixels, at most 250 (default: %(default)s)"
    parser.add_argument("--size", type=command_line.whole(8, SOURCE_SIZE), default=128, help=pixels)
    parser.add_argument("--no-unlabelled", action="store_true", help="leave out photographs without labels")
    options = parser.parse_args(argv)
    out = options.out or data_dir() / f"lfw_part_labels-{options.size}"
    try:
        prepare(out.expanduser(), options.size, unlabelled=not options.no_unlabelled, mirror=data_mirror())
    except (DatasetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command takes it up again", file=sys.stderr)
        return 130
    return 0


def _already_prepared(out: Path, size: int, unlabelled: bool) -> DatasetInfo:
    info = read_info(out)
    wanted = ("lfw_part_labels", size, unlabelled)
    got = (info.name, info.size, info.notes.get("unlabelled"))
    if got != wanted:
        raise DatasetError(
            f"{out}: expected name, size and unlabelled images {wanted}, got {got}; "
            "choose another --out, or remove the folder"
        )
    recipe = info.notes.get("recipe", "an earlier recipe")
    if recipe != _RECIPE:
        raise DatasetError(
            f"{out}: expected samples made by {_RECIPE}, got {recipe}; remove the folder and prepare it again"
        )
    check_files(out, read_index(out))
    print(f"{shown(out)} is prepared already: {_spoken_counts(info.counts)}. Nothing to do.")
    return info


def _describe(
    files: dict[str, LocalFile], listed: dict[str, str], size: int, unlabelled: bool, mirrored: bool
) -> DatasetInfo:
    rows = [Row(id, split, _subject(id), "") for id, split in listed.items()]
    return DatasetInfo(
        name="lfw_part_labels",
        classes=tuple(CLASSES),
        colours=tuple(CLASSES.values()),
        source=SOURCE,
        licence=LICENCE,
        size=size,
        notes={
            "archives": {name: f"sha256:{file.sha256}" for name, file in files.items()},
            "mirror": mirrored,
            "unlabelled": unlabelled,
            "superpixels": SUPERPIXELS.name in files,
            "shared_subjects": len(shared_subjects(rows)),
            "recipe": _RECIPE,
        },
    )


def _write_samples(
    writer: DatasetWriter, files: dict[str, LocalFile], listed: dict[str, str], unlabelled: bool
) -> dict[str, int]:
    """Write all samples; return how many subjects of each split have unlabelled photographs, too."""
    size = writer.info.size
    missing = {id for id in listed if not writer.has(id, jpeg=True)}
    labels = _read_maps(files[LABELS.name], _LABEL_IMAGE, decode_labels, resize_labels, missing, size)
    _check_all_found(missing, labels, LABELS.name)
    superpixels = {}
    if SUPERPIXELS.name in files:
        superpixels = _read_maps(
            files[SUPERPIXELS.name], _SUPERPIXELS, decode_superpixels, resize_numbers, missing, size
        )

    def wanted(name: str) -> bool:
        match = _PHOTOGRAPH.fullmatch(name)
        return bool(match) and (unlabelled or match["id"] in listed)

    found, kept = set(), 0
    for name, content in members(files[PHOTOGRAPHS.name].path, wanted):
        id = _PHOTOGRAPH.fullmatch(name)["id"]
        found.add(id)
        stored = writer.has(id, jpeg=True)
        kept += stored
        image = None if stored else _shrink_photograph(name, content, size)
        writer.add(
            id,
            listed.get(id, "unlabelled"),
            _subject(id),
            image=image,
            jpeg=True,
            labels=_unpack(labels.get(id), np.uint8, size),
            superpixels=_unpack(superpixels.get(id), np.uint16, size),
        )
    _check_all_found(listed, found, PHOTOGRAPHS.name)
    if kept:
        print(f"{kept:,} images were there from an interrupted run")
    unlisted = {_subject(id) for id in found - set(listed)}
    subjects = {split: {_subject(id) for id in listed if listed[id] == split} for split in SPLITS}
    return {split: len(unlisted & names) for split, names in subjects.items()}


def _read_maps(
    archive: LocalFile,
    pattern: re.Pattern,
    decode: Callable[[str, bytes], np.ndarray],
    resize: Callable[[np.ndarray, int], np.ndarray],
    ids: Container[str],
    size: int,
) -> dict[str, bytes]:
    """Return the maps of these images, reduced to ``size`` and compressed: a thousand take about 2 MB."""

    def wanted(name: str) -> bool:
        match = pattern.fullmatch(name)
        return bool(match) and match["id"] in ids

    maps = {}
    for name, content in members(archive.path, wanted):
        reduced = resize(decode(name, content), size)
        maps[pattern.fullmatch(name)["id"]] = zlib.compress(reduced.tobytes(), level=1)
    return maps


def _unpack(packed: bytes | None, kind: type, size: int) -> np.ndarray | None:
    if packed is None:
        return None
    return np.frombuffer(zlib.decompress(packed), kind).reshape(size, size)


def _shrink_photograph(name: str, content: bytes, size: int) -> np.ndarray | bytes:
    photograph = decode_photograph(name, content)
    if size == SOURCE_SIZE:
        return content  # decoding and encoding again would only lose
    return resize_image(photograph, size)


def _decode(name: str, content: bytes, kind: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=[kind])
        # Before loading: the header of a hostile image may claim any size.
        if image.size != (SOURCE_SIZE, SOURCE_SIZE) or image.mode != "RGB":
            raise DatasetError(
                f"{name}: expected {SOURCE_SIZE}×{SOURCE_SIZE} RGB, "
                f"got {image.width}×{image.height} {image.mode}"
            )
        image.load()
    except DatasetError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{name}: expected a whole {kind} image, got: {error}") from None
    return image


def _subject(id: str) -> str:
    return id.rpartition("_")[0]


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path.name}: expected text, got: {error}") from None


def _check_all_found(ids: Iterable[str], found: Container[str], archive: str) -> None:
    missing = sorted(id for id in ids if id not in found)
    if missing:
        raise DatasetError(
            f"{archive}: expected every listed image, but {len(missing)} are missing: "
            f"{', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}"
        )


def _report_files(files: dict[str, LocalFile]) -> None:
    for file in FILES:
        local = files.get(file.name)
        if local is None:
            print(f"{file.name}: not available; the data set will have no superpixels")
        elif local.pinned:
            print(f"{file.name}: sha256 {local.sha256[:12]}…, as expected")
        else:
            print(f"{file.name}: sha256 {local.sha256}, compared with nothing, as none is publicly known")


def _report_result(out: Path) -> None:
    info, rows = read_info(out), read_index(out)
    print(
        f"{shown(out)}: {_spoken_counts(info.counts)}; "
        f"{sum(bool(row.superpixels) for row in rows):,} with superpixels"
    )
    shared = shared_subjects(row for row in rows if row.split != "unlabelled")
    if shared:
        print(
            f"{len(shared)} people stand in more than one split, such as {next(iter(shared))}: "
            "scores on the test split are a little too good"
        )
    also = info.notes["subjects_also_unlabelled"]
    if any(also.values()):
        spoken = ", ".join(f"{count:,} of {split}" for split, count in also.items())
        print(f"people with unlabelled photographs as well: {spoken}")


def _spoken_counts(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (*SPLITS, "unlabelled").index(item[0]))
    return f"{sum(counts.values()):,} images (" + ", ".join(f"{n:,} {split}" for split, n in ordered) + ")"


if __name__ == "__main__":
    sys.exit(main())

"""Prepare LFW Part Labels: photographs of faces with background, face and hair marked by hand.

    python data_scripts/prepare_lfw_part_labels.py --out DIR --size 128

reads the archives of the original distribution, from ``CONSENSUS_DATA_MIRROR`` or from their public
addresses, and writes a prepared data set (see ``consensus_lib/data/folder.py``). The photographs that
nobody labelled come along, in the split ``unlabelled``. A second call does nothing; an interrupted one is
resumed by the same command.
"""

import re
import sys
import zlib
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import sets
from archives import PublicFile, fetch, members, sha256
from consensus_lib.data.folder import DatasetError, DatasetInfo
from consensus_lib.data.images import open_image, resize_image, resize_labels, resize_numbers
from consensus_lib.experiments import command_line
from consensus_lib.paths import data_dir, data_mirror
from pictures import classes_of, values_of

SOURCE_SIZE = 250
"""Height and width of every photograph, label image and superpixel map of the original distribution."""

CLASSES = {"background": (0, 0, 255), "face": (0, 255, 0), "hair": (255, 0, 0)}
"""The classes, by number, and the colours that stand for them in the label images."""

_UMASS = "vis-www.cs.umass.edu/lfw"


def _umass(name: str) -> tuple[str, str]:
    return f"https://{_UMASS}/{name}", f"http://{_UMASS}/{name}"


PHOTOGRAPHS = PublicFile(
    "lfw-funneled.tgz",
    ("https://ndownloader.figshare.com/files/5976015", *_umass("lfw-funneled.tgz")),
    # As pinned in scikit-learn, sklearn/datasets/_lfw.py.
    hash="sha256:b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",
)
LABELS = PublicFile(
    "parts_lfw_funneled_gt_images.tgz",
    _umass("part_labels/parts_lfw_funneled_gt_images.tgz"),
    hash="md5:3e7e26e801c3081d651c8c2ef3c45cfc",  # as pinned in several public loaders; no sha256 is known
)
SUPERPIXELS = PublicFile(
    "parts_lfw_funneled_superpixels_mat.tgz",
    _umass("part_labels/parts_lfw_funneled_superpixels_mat.tgz"),
    optional=True,
)
LISTS = {
    split: PublicFile(f"parts_{split}.txt", _umass(f"part_labels/parts_{split}.txt"))
    for split in ("train", "validation", "test")
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
    if found := sets.prepared(out, "lfw_part_labels", size, unlabelled=unlabelled):
        return found
    downloads = downloads or data_dir() / "downloads"
    files = fetch(FILES, downloads, mirror, LICENCE)
    listed = read_lists({split: files[file.name] for split, file in LISTS.items()})
    info = DatasetInfo(
        name="lfw_part_labels",
        classes=tuple(CLASSES),
        colours=tuple(CLASSES.values()),
        source=SOURCE,
        licence=LICENCE,
        size=size,
        notes={
            "archives": {name: f"sha256:{sha256(path)}" for name, path in files.items()},
            "mirror": mirror is not None,
            "unlabelled": unlabelled,
            "superpixels": SUPERPIXELS.name in files,
            "recipe": sets.RECIPE,
        },
    )
    return sets.make(out, info, _samples(files, listed, unlabelled))


def read_lists(paths: dict[str, Path]) -> dict[str, str]:
    """Read the list of each split: lines ``NAME N`` for the image ``NAME_000N``. Return the split of each id.

    Raises:
        DatasetError: a line is malformed, an image is listed twice, or a list is empty.
    """
    listed: dict[str, str] = {}
    for split, path in paths.items():
        for number, line in sets.read_lines(path):
            match = _LIST_LINE.fullmatch(line)
            id = f"{match[1]}_{int(match[2]):04d}" if match else ""
            if not match or id in listed:
                raise DatasetError(
                    f"{path.name}, line {number}: expected NAME N, each image once in all lists, got {line!r}"
                )
            listed[id] = split
        if split not in listed.values():
            raise DatasetError(f"{path.name}: expected lines NAME N, got none")
    return listed


def decode_picture(name: str, content: bytes) -> Image.Image:
    """Decode a photograph or label image and check that it is a whole 250×250 RGB image."""
    picture, _ = open_image(content, name)
    if picture.size != (SOURCE_SIZE, SOURCE_SIZE) or picture.mode != "RGB":
        raise DatasetError(
            f"{name}: expected {SOURCE_SIZE}×{SOURCE_SIZE} RGB, "
            f"got {picture.width}×{picture.height} {picture.mode}"
        )
    return picture


def decode_superpixels(name: str, content: bytes) -> np.ndarray:
    """Read a superpixel map, 250 lines of 250 numbers from 0 to 65,535, as uint16 ``[250,250]``.

    Raises:
        DatasetError: the map is malformed or has another size.
    """
    try:
        numbers = np.array([line.split() for line in content.splitlines() if line.strip()]).astype(int)
    except ValueError as error:
        raise DatasetError(f"{name}: expected lines of equally many integers, got: {error}") from None
    if numbers.shape != (SOURCE_SIZE, SOURCE_SIZE) or numbers.min() < 0 or numbers.max() > 65_535:
        extent = f", {numbers.min()}..{numbers.max()}" if numbers.size else ""
        raise DatasetError(
            f"{name}: expected {SOURCE_SIZE} lines of {SOURCE_SIZE} integers from 0 to 65535, "
            f"got {numbers.shape}{extent}"
        )
    return numbers.astype(np.uint16)


def _samples(files: dict[str, Path], listed: dict[str, str], unlabelled: bool) -> Iterator[sets.Sample]:
    """Find the photographs in the order of their archive. Labels wait in memory, packed: 3 kB each."""
    labels = _read_maps(files[LABELS.name], _LABEL_IMAGE, listed)
    _check_all_found(listed, labels, LABELS.name)
    superpixels = {}
    if SUPERPIXELS.name in files:
        superpixels = _read_maps(files[SUPERPIXELS.name], _SUPERPIXELS, listed)

    def reader(id: str, name: str, content: bytes):
        def read(size: int) -> dict:
            photograph = decode_picture(name, content)
            # At the source's size, decoding and encoding again would only lose.
            made = {"image": content if size == SOURCE_SIZE else resize_image(photograph, size)}
            if id in labels:
                where, packed = labels[id]
                colours = values_of(decode_picture(where, zlib.decompress(packed)), colours=True)
                classes, _ = classes_of(colours, list(CLASSES.values()), where)
                made["labels"] = resize_labels(classes, size)
            if id in superpixels:
                where, packed = superpixels[id]
                made["superpixels"] = resize_numbers(decode_superpixels(where, zlib.decompress(packed)), size)
            return made

        return read

    found = set()
    for name, content in members(files[PHOTOGRAPHS.name]):
        match = _PHOTOGRAPH.fullmatch(name)
        if match and (unlabelled or match["id"] in listed):
            id = match["id"]
            found.add(id)
            yield sets.Sample(id, listed.get(id, "unlabelled"), match["name"], reader(id, name, content))
    _check_all_found(listed, found, PHOTOGRAPHS.name)


def _read_maps(archive: Path, pattern: re.Pattern, ids: Container[str]) -> dict[str, tuple[str, bytes]]:
    """Return the name and the compressed content of the file of each of these images."""
    return {
        match["id"]: (name, zlib.compress(content, level=1))
        for name, content in members(archive)
        if (match := pattern.fullmatch(name)) and match["id"] in ids
    }


def _check_all_found(ids: Iterable[str], found: Container[str], archive: str) -> None:
    missing = sorted(id for id in ids if id not in found)
    if missing:
        raise DatasetError(
            f"{archive}: expected every listed image, but {len(missing)} are missing, such as {missing[0]}"
        )


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = command_line.Parser(
        description="Prepare LFW Part Labels from the archives of its distribution.",
        epilog="Archives are read from CONSENSUS_DATA_MIRROR, a folder or address with a registry.txt, "
        "or from their public addresses into CONSENSUS_DATA_DIR/downloads.",
    )
    sets.add_out_and_size(parser, "lfw_part_labels", SOURCE_SIZE)
    parser.add_argument("--no-unlabelled", action="store_true", help="leave out photographs without labels")
    options = parser.parse_args(argv)
    out = options.out or data_dir() / f"lfw_part_labels-{options.size}"
    unlabelled = not options.no_unlabelled
    return sets.run(
        lambda: prepare(out.expanduser(), options.size, unlabelled=unlabelled, mirror=data_mirror())
    )


if __name__ == "__main__":
    sys.exit(main())

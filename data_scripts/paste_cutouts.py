"""Lay cut-outs over the faces of a prepared data set: photographs on which it is known what covers the face.

    python data_scripts/paste_cutouts.py DATA CUTOUTS --out DIR

DATA is a prepared folder with labels, CUTOUTS one of ``prepare_faceocc.py``. DIR gets all labelled images of
DATA, of which ``--share`` are covered, with one more class, ``occluder``, and the tasks ``occlusion`` and
``parts``. Every fifth cut-out is kept for validation and test images, so that none is learned by heart. What
is drawn depends on the seed and the image's id alone.
"""

import csv
import functools
import hashlib
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import sets
from consensus_lib.data.folder import DatasetError, DatasetInfo, Row, read_index, read_info
from consensus_lib.data.images import open_image, read_image, read_labels, resize_image
from consensus_lib.data.tasks import task
from consensus_lib.experiments import command_line

OCCLUDER, COLOUR = "occluder", (240, 228, 66)

EXTENT = 0.3, 0.8
"""The longer side of a cut-out, least and most, as a share of the image's."""


def paste_cutouts(data: Path, cutouts: Path, out: Path, share: float = 0.5, seed: int = 0) -> DatasetInfo:
    """Make the covered data set; return what its ``dataset.json`` says.

    Raises:
        DatasetError: a folder is not what is expected; DATA has no labels, or a class ``occluder`` already.
        FileExistsError: ``out`` exists.
    """
    source, found = read_info(data), read_cutouts(cutouts)
    rows = [row for row in read_index(data) if row.labels]
    if not rows or OCCLUDER in source.classes:
        raise DatasetError(f"{data}: expected labels, none of them {OCCLUDER!r}, got {list(source.classes)}")
    try:
        members = {name: task("parts", source).members[name] for name in source.classes}
    except KeyError:  # no hair: all but the first class is face
        members = {name: "face" if k else "background" for k, name in enumerate(source.classes)}
    covered = {name: "face" if part == "face" else "background" for name, part in members.items()}
    tasks = {"occlusion": covered | {OCCLUDER: "occlusion"}}
    if "hair" in members.values():
        tasks["parts"] = members | {OCCLUDER: "background"}
    info = DatasetInfo(
        name=f"{source.name}_covered",
        classes=(*source.classes, OCCLUDER),
        colours=(*source.colours, COLOUR),
        source=f"{source.source}; covered with cut-outs of FaceOcc",
        licence=f"{source.licence} Cut-outs: see FaceOcc.",
        size=source.size,
        notes={"source": source.index_sha256, "share": share, "seed": seed},
        mirrored=source.mirrored,
        tasks=tasks,
    )
    face = [number for number, name in enumerate(source.classes) if covered[name] == "face"]
    samples = []
    for row in rows:
        among = [path for k, path in enumerate(found) if (k % 5 == 4) == (row.split != "train")] or found
        read = functools.partial(_cover, data, row, len(source.classes), face, among, share, seed)
        jpeg = row.image.endswith(".jpg")
        samples.append(sets.Sample(row.id, row.split, row.subject, read, jpeg))
    return sets.make(out, info, samples)


def read_cutouts(folder: Path) -> list[Path]:
    """Return the files that ``cutouts.csv`` names, in its order."""
    try:
        with (folder / "cutouts.csv").open(newline="", encoding="utf-8") as lines:
            found = [folder / row["file"] for row in csv.DictReader(lines)]
    except (OSError, KeyError):
        found = []
    if not found:
        raise DatasetError(f"{folder}: expected cut-outs of prepare_faceocc.py, found none")
    return found


def _cover(
    data: Path,
    row: Row,
    classes: int,
    face: list[int],
    among: list[Path],
    share: float,
    seed: int,
    size: int,
) -> dict:
    """Return image and labels of a sample, covered or not; the occluder's class is ``classes``."""
    image = Image.fromarray(resize_image(read_image(data / row.image), size))
    labels = read_labels(data / row.labels, classes)
    rng = np.random.default_rng(list(hashlib.sha256(f"{seed} {row.id}".encode()).digest()))
    places = np.argwhere(np.isin(labels, face))
    if rng.random() < share and len(places):
        piece = open_image(among[rng.integers(len(among))])[0].convert("RGBA")
        scale = rng.uniform(*EXTENT) * size / max(piece.size)
        sides = [max(1, round(scale * side)) for side in piece.size]
        y, x = places[rng.integers(len(places))].tolist()  # its centre lies on the face
        layer = Image.new("RGBA", image.size)
        layer.paste(piece.resize(sides, Image.Resampling.LANCZOS), (x - sides[0] // 2, y - sides[1] // 2))
        image = Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")
        labels = np.where(np.asarray(layer)[..., 3] > 127, np.uint8(classes), labels)
    return {"image": np.asarray(image), "labels": labels}


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = command_line.Parser(description="Lay cut-outs over the faces of a prepared data set.")
    parser.add_argument("data", type=Path, help="prepared folder with labels")
    parser.add_argument("cutouts", type=Path, help="folder of prepare_faceocc.py")
    parser.add_argument("--out", type=command_line.folder, required=True, help="folder to make")
    share = "share of the images that are covered (default: %(default)s)"
    parser.add_argument("--share", type=command_line.number(0, 1), default=0.5, help=share)
    parser.add_argument("--seed", type=command_line.whole(0), default=0, help="default: %(default)s")
    options = parser.parse_args(argv)
    return sets.run(lambda: paste_cutouts(**vars(options)))


if __name__ == "__main__":
    sys.exit(main())

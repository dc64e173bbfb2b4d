"""Prepare FaceOcc's occluders: cut-outs with alpha, to lay over faces in augmentation.

python data_scripts/prepare_faceocc.py --from FaceOcc --out DIR --size 128

writes ``cutouts/*.png`` (RGBA, cut to what is not transparent, at most SIZE pixels a side) and
``cutouts.csv`` (``id, kind, file, width, height``) beside a ``cutouts.json`` with source and licence. It is
no data set of faces.
"""

import csv
import shutil
import sys
from pathlib import Path

from PIL import Image
from tqdm import tqdm

import sets
from consensus_lib.data import DatasetError
from consensus_lib.data.images import open_image
from consensus_lib.experiments import command_line
from consensus_lib.paths import data_dir, shown, write_json

KINDS = {"celeba": "CelebAHQ/*.png", "ffhq": "ffhq/*.png", "internet": "internet/*/*.png"}
SOURCE = (
    "FaceOcc (X. Yin and L. Chen, FaceOcc: A Diverse, High-quality Face Occlusion Dataset for Human Face "
    "Extraction, "
    "TAIMA 2022, https://github.com/face3d0725/FaceExtraction)"
)
LICENCE = "MIT; the celeba and ffhq cut-outs come from photographs for non-commercial use."
GET = (
    "Get the folder FaceOcc by the Google Drive link of https://github.com/face3d0725/FaceExtraction and "
    "give it as "
    "--from."
)


def prepare(source: Path, out: Path, size: int) -> int:
    """Write the cut-outs into a new folder, which appears when it is whole; return how many there are.

    Raises:
        DatasetError: a file is missing, damaged, without alpha or all transparent, or ``out`` exists.
    """
    if out.exists():
        raise DatasetError(f"{out}: expected a new folder, but it exists")
    tree = sets.find_tree(source, ("CelebAHQ", "internet"), GET)
    found = {kind: sorted(tree.glob(pattern)) for kind, pattern in KINDS.items()}
    if not any(found.values()):
        raise DatasetError(f"{tree}: expected {', '.join(KINDS.values())}, found none. {GET}")
    part = out.with_name(f".{out.name}.partial")
    shutil.rmtree(part, ignore_errors=True)
    try:
        (part / "cutouts").mkdir(parents=True)
        rows = []
        for kind, path in tqdm([(k, p) for k, paths in found.items() for p in paths], disable=None):
            picture = cut_out(path, size)
            id = "_".join((kind, *path.relative_to(tree).with_suffix("").parts[1:]))
            picture.save(part / f"cutouts/{id}.png")
            rows.append((id, kind, f"cutouts/{id}.png", *picture.size))
        with (part / "cutouts.csv").open("w", newline="", encoding="utf-8") as lines:
            csv.writer(lines, lineterminator="\n").writerows(
                [("id", "kind", "file", "width", "height"), *rows]
            )
        counts = {kind: len(paths) for kind, paths in found.items()}
        write_json(
            part / "cutouts.json",
            {"name": "faceocc", "source": SOURCE, "licence": LICENCE, "size": size, "counts": counts},
        )
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    print(f"{shown(out)}: {len(rows):,} cut-outs")
    return len(rows)


def cut_out(path: Path, size: int) -> Image.Image:
    """Return the part of an RGBA file that is not transparent, at most ``size`` pixels a side.

    Raises:
        DatasetError: it is no readable image, has no alpha, or nothing to be seen.
    """
    picture, _ = open_image(path)
    if picture.mode != "RGBA" or not (box := picture.getchannel("A").getbbox()):
        raise DatasetError(f"{path}: expected RGBA with something to be seen, got {picture.mode}")
    picture = picture.crop(box)
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    return picture


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = command_line.Parser(description=f"Prepare FaceOcc's cut-outs. {GET}")
    parser.add_argument(
        "--from", dest="source", type=Path, required=True, metavar="PATH", help="folder FaceOcc"
    )
    sets.add_out_and_size(parser, "faceocc", 1024)
    options = parser.parse_args(argv)
    print(f"Licence: {LICENCE}")
    out = options.out or data_dir() / f"faceocc-{options.size}"
    return sets.run(lambda: prepare(options.source, out.expanduser(), options.size))


if __name__ == "__main__":
    sys.exit(main())

"""Prepare EasyPortrait: 40,000 photographs from phones and webcams in 9 classes, split by user.

python data_scripts/prepare_easyportrait.py --from EasyPortrait --out DIR --size 128
"""

import csv
import sys
from pathlib import Path

import sets
from consensus_lib.data import DatasetError

CLASSES = sets.palette("background person skin l_brow r_brow l_eye r_eye lips teeth")
MIRROR = {"l_brow": "r_brow", "l_eye": "r_eye"}
FOLDERS = {"train": "train", "val": "validation", "test": "test"}


def samples(tree: Path) -> list[sets.Sample]:
    """List ``images/{train,val,test}/*.jpg`` with ``annotations/…/*.png`` and the users of ``meta.csv``."""
    users = read_users(tree / "meta.csv") if (tree / "meta.csv").exists() else {}
    if not users:
        print("note: no meta.csv; without it every image counts as a person of its own")
    return [
        sets.Sample(name, split, users.get(name, name), sets.pair(image, labels, len(CLASSES)))
        for folder, split in FOLDERS.items()
        for name, image, labels in sets.pairs(
            tree / "images" / folder, tree / "annotations" / folder, ".jpg", ".png"
        )
    ]


def read_users(path: Path) -> dict[str, str]:
    """Return the user of each image; the table is separated by tabs or commas.

    Raises:
        DatasetError: it has no columns image_name and user_id.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(lines, delimiter="\t" if lines and "\t" in lines[0] else ",")
    if not {"image_name", "user_id"} <= set(rows.fieldnames or ()):
        raise DatasetError(f"{path}: expected the columns image_name and user_id, got {rows.fieldnames}")
    return {row["image_name"]: row["user_id"] for row in rows}


EASYPORTRAIT = sets.PublicSet(
    name="easyportrait",
    classes=CLASSES,
    mirror=MIRROR,
    source="EasyPortrait 2.0 (K. Kvanchiani, E. Petrova, K. Efremyan, A. Sautin and A. Kapitanov, "
    "EasyPortrait - Face Parsing and Portrait Segmentation Dataset, "
    "arXiv 2304.13509, https://github.com/hukenovs/easyportrait)",
    licence="A variant of Creative Commons Attribution-ShareAlike 4.0; see its repository.",
    get="Get annotations.zip, meta.zip and images.zip (92 GB) by the links of "
    "https://github.com/hukenovs/easyportrait, unpack them into one folder with images/, annotations/ and "
    "meta.csv, "
    "and give that folder as --from.",
    needs=("images/train", "annotations/train"),
    samples=samples,
    counts={"train": 30_000, "validation": 4_000, "test": 6_000},
)

if __name__ == "__main__":
    sys.exit(sets.main(EASYPORTRAIT))

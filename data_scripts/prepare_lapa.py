"""Prepare LaPa: 22,176 photographs in 11 classes.

python data_scripts/prepare_lapa.py --from LaPa --out DIR --size 128
"""

import sys
from pathlib import Path

import sets

CLASSES = sets.palette("background skin l_brow r_brow l_eye r_eye nose u_lip inner_mouth l_lip hair")
MIRROR = {"l_brow": "r_brow", "l_eye": "r_eye"}
FOLDERS = {"train": "train", "val": "validation", "test": "test"}


def samples(tree: Path) -> list[sets.Sample]:
    """List ``{train,val,test}/images/*.jpg`` with ``labels/*.png`` of class numbers."""
    return [
        sets.Sample(name, split, name, sets.pair(image, labels, len(CLASSES)))
        for folder, split in FOLDERS.items()
        for name, image, labels in sets.pairs(
            tree / folder / "images", tree / folder / "labels", ".jpg", ".png"
        )
    ]


LAPA = sets.PublicSet(
    name="lapa",
    classes=CLASSES,
    mirror=MIRROR,
    tasks=sets.parts(CLASSES),
    source="LaPa (Y. Liu, H. Shi, H. Shen, Y. Si, X. Wang and T. Mei, A New Dataset and Boundary-Attention "
    "Semantic Segmentation for Face Parsing, AAAI 2020, https://github.com/lucia123/lapa-dataset)",
    licence="Non-commercial use: research, teaching, publications, personal experiments.",
    get="Get LaPa.tar.gz by the Google Drive link of https://github.com/lucia123/lapa-dataset; give it, "
    "or the folder LaPa inside it, as --from.",
    needs=("train/images", "train/labels", "val/images", "test/images"),
    samples=samples,
    counts={"train": 18_176, "validation": 2_000, "test": 2_000},
)

if __name__ == "__main__":
    sys.exit(sets.main(LAPA))

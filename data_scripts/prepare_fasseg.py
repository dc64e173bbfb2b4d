"""Prepare FASSEG frontal02: 70 frontal portraits in 6 classes, masks in colours.

python data_scripts/prepare_fasseg.py --out DIR --size 128
"""

import sys
from pathlib import Path

import sets
from archives import PublicFile
from consensus_lib.data.images import open_image
from pictures import classes_of, fit, open_rgb, values_of

CLASSES = {
    "background": (255, 0, 0),
    "skin": (255, 255, 0),
    "eyes": (0, 0, 255),
    "nose": (0, 255, 255),
    "mouth": (0, 255, 0),
    "hair": (127, 0, 0),
}
WITHIN = 60
"""Masks are antialiased: a colour this near to a class in each channel is that class, others are ignored."""

MOST = 0.1
"""The share of a mask's pixels that may be ignored so."""


def samples(tree: Path) -> list[sets.Sample]:
    """List ``V2/{Train,Test}_RGB/*.bmp`` with ``V2/…_Labels/*.bmp``; every fifth training one validates."""
    found = [
        sets.Sample(f"{split}_{int(name):02d}", split, f"{split}_{name}", reader(image, labels), jpeg=False)
        for split in ("train", "test")
        for name, image, labels in sets.pairs(
            tree / f"V2/{split.title()}_RGB", tree / f"V2/{split.title()}_Labels", ".bmp", ".bmp"
        )
    ]
    return sets.hold_out(found, every=5)


def reader(image: Path, labels: Path):
    """Return a reader of an image and its mask in colours; see ``sets.Sample``."""

    def read(size: int) -> dict:
        colours = values_of(open_image(labels)[0], colours=True)
        classes, _ = classes_of(colours, list(CLASSES.values()), labels, within=WITHIN, most=MOST)
        return fit(open_rgb(image), classes, size, labels)

    return read


FASSEG = sets.PublicSet(
    name="fasseg",
    classes=CLASSES,
    tasks=sets.parts(CLASSES),
    source="FASSEG frontal02 (K. Khan, M. Mauro and R. Leonardi, Multi-class semantic segmentation of faces, "
    "ICIP 2015, https://github.com/massimomauro/FASSEG-repository), faces of MIT-CBCL and FEI",
    licence="The repository states none and asks for a citation; the photographs are of MIT-CBCL and FEI.",
    get="The repository https://github.com/massimomauro/FASSEG-repository, as a folder or zip.",
    needs=("V2/Train_RGB", "V2/Train_Labels", "V2/Test_RGB", "V2/Test_Labels"),
    samples=samples,
    counts={"train": 16, "validation": 4, "test": 50},
    largest=512,
    files=(
        PublicFile(
            "fasseg.zip",
            ("https://github.com/massimomauro/FASSEG-repository/archive/refs/heads/master.zip",),
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(sets.main(FASSEG))

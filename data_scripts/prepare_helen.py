"""Prepare Helen with the masks of Smith et al.: 2,330 photographs in 11 classes.

python data_scripts/prepare_helen.py --from SmithCVPR2013_dataset_resized --out DIR --size 128
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import sets
from consensus_lib import IGNORE
from consensus_lib.data import DatasetError
from consensus_lib.data.images import resize_image
from pictures import open_rgb, read_layer, square, square_image

CLASSES = sets.palette("background skin l_brow r_brow l_eye r_eye nose u_lip inner_mouth l_lip hair")
MIRROR = {"l_brow": "r_brow", "l_eye": "r_eye"}
LISTS = {"exemplars.txt": "train", "tuning.txt": "validation", "testing.txt": "test"}


def samples(tree: Path) -> list[sets.Sample]:
    """List the images of the three lists, lines ``NUMBER , NAME``, with ``labels/NAME/NAME_lblKK.png``."""
    found: dict[str, sets.Sample] = {}
    for file, split in LISTS.items():
        for line, text in sets.read_lines(tree / file):
            number, comma, name = (part.strip() for part in text.partition(","))
            if not comma or not number.isdecimal() or not name or Path(name).name != name or name in found:
                raise DatasetError(
                    f"{tree / file}, line {line}: expected NUMBER , NAME, each once, got {text!r}"
                )
            found[name] = sets.Sample(name, split, name, reader(tree, name))
    return list(found.values())


def reader(tree: Path, name: str):
    """Return a reader of an image and its 11 soft masks; see ``sets.Sample``."""

    def read(size: int) -> dict:
        image = open_rgb(tree / f"images/{name}.jpg")
        best, labels = np.zeros((size, size), np.uint8), np.full((size, size), IGNORE, np.uint8)
        for k in range(len(CLASSES)):
            path = tree / f"labels/{name}/{name}_lbl{k:02d}.png"
            soft = read_layer(path)
            if soft.shape[::-1] != image.size:
                raise DatasetError(f"{path}: expected {image.size} like its image, got {soft.shape[::-1]}")
            whole = Image.fromarray(square(soft, fill=0))
            share = np.asarray(whole.resize((size, size), Image.Resampling.LANCZOS))
            wins = share > best  # where no class has any share, as in the padding: ignore
            labels[wins], best[wins] = k, share[wins]
        return {"image": resize_image(square_image(image), size), "labels": labels}

    return read


HELEN = sets.PublicSet(
    name="helen",
    classes=CLASSES,
    mirror=MIRROR,
    tasks=sets.parts(CLASSES),
    source="Masks of B. M. Smith, L. Zhang, J. Brandt, Z. Lin and J. Yang, Exemplar-Based Face Parsing, CVPR "
    "2013 (http://pages.cs.wisc.edu/~lizhang/projects/face-parsing) on Helen (V. Le, J. Brandt, Z. Lin, L. "
    "Bourdev and "
    "T. S. Huang, Interactive Facial Feature Localization, ECCV 2012)",
    licence="The distribution states none; the photographs are Flickr users'. For research.",
    get="Get SmithCVPR2013_dataset_resized.zip from http://pages.cs.wisc.edu/~lizhang/projects/face-parsing; "
    "give it, or the folder inside it, as --from.",
    needs=("images", "labels", *LISTS),
    samples=samples,
    counts={"train": 2_000, "validation": 230, "test": 100},
)

if __name__ == "__main__":
    sys.exit(sets.main(HELEN))

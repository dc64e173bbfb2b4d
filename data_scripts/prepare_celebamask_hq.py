"""Prepare CelebAMask-HQ: 30,000 portraits in 19 classes, split as CelebA is.

python data_scripts/prepare_celebamask_hq.py --from CelebAMask-HQ --out DIR --size 128
"""

import sys
from pathlib import Path

import sets
from consensus_lib.data import DatasetError
from pictures import fit, join_layers, open_rgb

# In the order in which its authors draw the parts over one another.
CLASSES = sets.palette(
    "background skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip "
    "l_lip hair hat ear_r neck_l neck cloth"
)
MIRROR = {"l_eye": "r_eye", "l_brow": "r_brow", "l_ear": "r_ear"}

LAST_TRAIN, LAST_VALIDATION = 162_770, 182_637
"""CelebA's images 1 to 162,770 are for training, then up to 182,637 for validation, the rest for testing."""

PER_FOLDER = 2_000
"""Images whose part masks share a folder."""


def samples(tree: Path) -> list[sets.Sample]:
    """List ``CelebA-HQ-img/N.jpg`` with ``CelebAMask-HQ-mask-anno/{N // 2000}/NNNNN_PART.png``.

    A folder ``mask`` with one mask of 19 classes an image, ``mask/N.png``, is taken before the part masks.
    """
    people = read_people(tree / "identity_CelebA.txt")
    whole = tree / "mask"
    found = []
    for number, original in read_mapping(tree / "CelebA-HQ-to-CelebA-mapping.txt").items():
        image = tree / f"CelebA-HQ-img/{number}.jpg"
        if not image.is_file():
            raise DatasetError(f"{image}: expected the image that the mapping names, but it is missing")
        last = int(original.split(".")[0])
        split = "train" if last <= LAST_TRAIN else "validation" if last <= LAST_VALIDATION else "test"
        if whole.is_dir():
            read = sets.pair(image, whole / f"{number}.png", len(CLASSES))
        else:
            read = parts(image, tree / f"CelebAMask-HQ-mask-anno/{number // PER_FOLDER}", number)
        found.append(sets.Sample(f"{number:05d}", split, people.get(original, original), read))
    return found


def parts(image: Path, folder: Path, number: int):
    """Return a reader of an image and its part masks, absent parts being absent; see ``sets.Sample``."""

    def read(size: int) -> dict:
        paths = {k: folder / f"{number:05d}_{name}.png" for k, name in enumerate(CLASSES) if k}
        there = {k: path for k, path in paths.items() if path.is_file()}
        if not there:
            raise DatasetError(
                f"{folder}/{number:05d}_*.png: expected the part masks of {image.name}, found none"
            )
        return fit(open_rgb(image), join_layers(there), size, next(iter(there.values())))

    return read


def read_mapping(path: Path) -> dict[int, str]:
    """Return CelebA's file name of each number: lines ``idx orig_idx orig_file`` below a header.

    Raises:
        DatasetError: a line is malformed, or a number occurs twice.
    """
    found: dict[int, str] = {}
    for line, text in sets.read_lines(path)[1:]:
        words = text.split()
        right = len(words) == 3 and words[0].isdecimal() and words[2].split(".")[0].isdecimal()
        if not right or int(words[0]) in found:
            raise DatasetError(
                f"{path}, line {line}: expected IDX ORIG_IDX ORIG_FILE, each once, got {text!r}"
            )
        found[int(words[0])] = words[2]
    return found


def read_people(path: Path) -> dict[str, str]:
    """Return the person of each of CelebA's images, where CelebA's own list ``FILE PERSON`` is there."""
    if not path.exists():
        print(
            f"note: no {path.name}, which CelebA gives on request; every image counts as a person of its own"
        )
        return {}
    return dict(text.split(maxsplit=1) for _, text in sets.read_lines(path))


CELEBAMASK_HQ = sets.PublicSet(
    name="celebamask_hq",
    classes=CLASSES,
    mirror=MIRROR,
    tasks=sets.parts(CLASSES, background="hat ear_r neck_l cloth"),
    source="CelebAMask-HQ (C.-H. Lee, Z. Liu, L. Wu and P. Luo, MaskGAN: Towards Diverse and Interactive "
    "Facial Image Manipulation, CVPR 2020, https://github.com/switchablenorms/CelebAMask-HQ)",
    licence="Non-commercial research and education only; no copies or derived data to others.",
    get="Get CelebAMask-HQ.zip (3 GB) by the Google Drive or Baidu link of "
    "https://github.com/switchablenorms/CelebAMask-HQ; give it, or the folder CelebAMask-HQ inside it, as "
    "--from.",
    needs=("CelebA-HQ-img", "CelebAMask-HQ-mask-anno", "CelebA-HQ-to-CelebA-mapping.txt"),
    samples=samples,
    counts={"train": 24_183, "validation": 2_993, "test": 2_824},
)

if __name__ == "__main__":
    sys.exit(sets.main(CELEBAMASK_HQ))

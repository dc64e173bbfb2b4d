"""Prepare COFW: 500 + 507 photographs of occluded faces, with boxes, landmarks and occlusion flags.

python data_scripts/prepare_cofw.py --out DIR --size 128

Needs h5py (``pip install 'consensus-lib[data]'``). The distribution has no masks: README.md says where they
are to be had. ``annotations.csv`` in the prepared folder has a line for each image: ``id``, the face box
``left, top, width, height``, and ``x1, y1, occluded1, …`` of 29 landmarks, in pixels of the prepared image,
whose first pixel covers 0 to 1. :func:`cofw_protocol.face_box_scores` measures inside the boxes.
"""

import csv
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

import sets
from archives import PublicFile
from consensus_lib import IGNORE
from consensus_lib.data import DatasetError
from consensus_lib.data.images import resize_image, resize_labels
from pictures import read_layer

CLASSES = {"background": (0, 0, 0), "face": (86, 180, 233)}

LANDMARKS = 29

LFPW = 845
"""The training file begins with so many images of another set, LFPW, which are left out."""

MARGIN = 1.5
"""Side of the square that is cut out, in longer sides of the face box; beyond the image, it is ignored."""

FILES = {"train": ("COFW_train_color.mat", "Tr", LFPW), "test": ("COFW_test_color.mat", "T", 0)}


class Face(NamedTuple):
    """What the distribution says of an image, in pixels of it; the first pixel covers 0 to 1.

    ``box`` is left, top, width, height; ``landmarks`` is float ``[29,3]``: x, y, occluded.
    """

    id: str
    split: str
    mat: Path
    number: int
    box: np.ndarray
    landmarks: np.ndarray

    @property
    def square(self) -> tuple[int, int, int]:
        """Left, top and side of what is cut out."""
        left, top, width, height = self.box
        side = round(MARGIN * max(width, height))
        return round(left + (width - side) / 2), round(top + (height - side) / 2), side


def samples(tree: Path) -> list[sets.Sample]:
    """List the images of both files; ``masks/{train,test}/NNNN.png``, if there, has the masks: not 0 is face.

    NNNN counts the images of a .mat file from 0001. There is no validation split: every tenth training image
    becomes it.
    """
    return sets.hold_out(
        [
            sets.Sample(face.id, face.split, face.id, reader(face, tree / "masks"), jpeg=False)
            for face in read_faces(tree)
        ],
        every=10,
    )


def read_faces(tree: Path) -> list[Face]:
    """Return what both files say of each image but LFPW's.

    Raises:
        DatasetError: h5py is missing, or a file is not what was expected.
    """
    faces = []
    for split, (name, ending, skip) in FILES.items():
        with open_mat(tree / name) as mat:
            try:
                boxes, phis = (
                    np.array(mat[f"bboxes{ending}"]),
                    np.array(mat[f"phis{ending}"]),
                )  # [4, N], [87, N]
                count = mat[f"Is{ending}"].shape[1]
            except KeyError as error:
                raise DatasetError(f"{tree / name}: expected its variables, got: {error}") from None
        if boxes.shape != (4, count) or phis.shape != (3 * LANDMARKS, count):
            raise DatasetError(
                f"{tree / name}: expected [4,{count}] boxes and [{3 * LANDMARKS},{count}] landmarks, "
                f"got {boxes.shape} and {phis.shape}"
            )
        for k in range(skip, count):  # MATLAB counts pixels from 1, at their centres
            box = boxes[:, k] - (1, 1, 0, 0)
            landmarks = phis[:, k].reshape(3, LANDMARKS).T - (0.5, 0.5, 0)
            faces.append(Face(f"{split}_{k + 1:04d}", split, tree / name, k, box, landmarks))
    return faces


def reader(face: Face, masks: Path):
    """Return a reader of a face, cut out; see ``sets.Sample``."""

    def read(size: int) -> dict:
        left, top, side = face.square
        area = (left, top, left + side, top + side)
        image = read_image(face)
        cut = {"image": resize_image(image.crop(area), size)}
        if masks.is_dir():
            path = masks / face.split / f"{face.number + 1:04d}.png"
            mask = read_layer(path) > 0
            if mask.shape != (image.height, image.width):
                raise DatasetError(
                    f"{path}: expected {image.width}×{image.height} pixels, got {mask.shape[::-1]}"
                )
            shifted = Image.fromarray(mask.astype(np.uint8) + 1).crop(area)  # 0 beyond the image
            labels = np.array([IGNORE, 0, 1], np.uint8)[np.asarray(shifted)]
            cut["labels"] = resize_labels(labels, size)
        return cut

    return read


def read_image(face: Face) -> Image.Image:
    """Return the whole image of a face, RGB."""
    with open_mat(face.mat) as mat:
        pixels = np.array(mat[mat[f"Is{FILES[face.split][1]}"][0, face.number]])  # [3, W, H] or [W, H]
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and len(pixels) == 3)):
        raise DatasetError(f"{face.mat}, image {face.number + 1}: expected uint8 pixels, got {pixels.shape}")
    return Image.fromarray(np.ascontiguousarray(pixels.T)).convert("RGB")


def open_mat(path: Path):
    """Open a MATLAB v7.3 file, which is HDF5: dimensions come in reverse order."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise DatasetError("h5py: needed for MATLAB v7.3; pip install 'consensus-lib[data]'") from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DatasetError(f"{path}: expected a whole MATLAB v7.3 file, got: {error}") from None


def write_annotations(tree: Path, folder: Path, size: int) -> None:
    """Write ``annotations.csv``; see above."""
    header = [f"{name}{k}" for k in range(1, LANDMARKS + 1) for name in ("x", "y", "occluded")]
    with (folder / "annotations.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["id", "left", "top", "width", "height", *header])
        for face in read_faces(tree):
            left, top, side = face.square
            box = (face.box - (left, top, 0, 0)) * size / side
            points = (face.landmarks - (left, top, 0)) * (size / side, size / side, 1)
            writer.writerow([face.id, *np.round(box, 3).tolist(), *np.round(points, 3).ravel().tolist()])


COFW = sets.PublicSet(
    name="cofw",
    classes=CLASSES,
    source="COFW (X. P. Burgos-Artizzu, P. Perona and P. Dollár, Robust face landmark estimation under "
    "occlusion, ICCV 2013, https://data.caltech.edu/records/bc0bf-nc666)",
    licence="See https://data.caltech.edu/records/bc0bf-nc666; photographs from the internet, for research.",
    get="Get COFW_color.zip from https://data.caltech.edu/records/bc0bf-nc666; give it, or the folder with "
    "COFW_train_color.mat and COFW_test_color.mat, as --from.",
    needs=tuple(name for name, _, _ in FILES.values()),
    samples=samples,
    counts={"train": 450, "validation": 50, "test": 507},
    finish=write_annotations,
    files=(
        PublicFile(
            "COFW_color.zip",
            ("https://data.caltech.edu/records/bc0bf-nc666/files/COFW_color.zip?download=1",),
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(sets.main(COFW))

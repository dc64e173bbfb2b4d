"""Occlusion labels of photographs without a human: how good are they, and what does a student learn from them?

    python notebooks/studies/occlusion_labels.py labels
    python notebooks/studies/occlusion_labels.py students

needs LFW Part Labels (``make data-lfw``). Occluders are composed onto its photographs
(:func:`synthetic_faces.occlude`), so that the truth is known. *labels* scores what the label factory makes of
the composed development photographs, step by step, in ``occlusion_labels.csv``. *students* trains small
networks on the factory's labels of composed photographs that nobody labelled, and files
``occlusion_students.csv``: the counterpart of the paper's Table 1. What was chosen was chosen on validation
photographs. Every training lies in a folder of its own: a study that was stopped resumes.
"""

import numpy as np
from tqdm import tqdm

from consensus_lib import paths
from consensus_lib.data import DatasetInfo, DatasetWriter
from consensus_lib.data.dataset import as_images
from consensus_lib.data.decoded import decode
from consensus_lib.data.folder import ids_without_subjects_of, is_made, read_index, read_info
from consensus_lib.data.prepared import prepared_folder
from consensus_lib.models import FaceParser
from synthetic_faces import Composed, occlude

CLASSES = ("background", "hair over the face", "face", "occlusion", "occluder beside the face")
COLOURS = ((0, 0, 0), (213, 94, 0), (86, 180, 233), (240, 228, 66), (150, 150, 150))
OCCLUSION = dict(zip(CLASSES, ("background", "background", "face", "occlusion", "background"), strict=True))
"""Classes of a composed photograph, and their classes in the task ``"occlusion"`` as Eq. 2 defines it."""

EVALUATED = ("validation", "test")


def composed_folder(split: str, composition: int, limit: int | None = None, progress: bool = True):
    """Return a prepared folder of the photographs of a split with occluders composed onto them.

    Photographs without labels get those of the shipped parser. Those of people who occur in the splits for
    evaluation are left out.

    Args:
        split: of LFW Part Labels.
        composition: names the occluders, 0 to 999.
        limit: take the first photographs only.
        progress: show a bar.
    """
    source = prepared_folder("lfw_part_labels")
    info, index = read_info(source), read_index(source)
    kept = set(ids_without_subjects_of(index, split, set(EVALUATED) - {split}))
    rows = [row for row in index if row.id in kept][:limit]
    notes = {"source": info.name, "source_index": info.index_sha256, "split": split}
    notes |= {"composition": composition, "images": len(rows)}
    folder = paths.data_dir() / f"composed-{split}-{composition}-{len(rows)}"
    if is_made(folder, info.size, notes, "the same photographs"):
        return folder
    described = DatasetInfo(
        "composed", CLASSES, COLOURS, info.source, info.licence, info.size, notes=notes,
        tasks={"occlusion": OCCLUSION},
    )  # fmt: skip
    parser = FaceParser.from_pretrained("parts", device="cpu") if split == "unlabelled" else None
    to = split if split in EVALUATED else "train"
    with DatasetWriter(folder, described) as writer:
        for number, row in enumerate(tqdm(rows, f"composing {split} {composition}", disable=not progress)):
            if not writer.has(row.id):
                photo = decode(source, row, "image", info.size)
                labels = parts_of(parser, photo) if parser else decode(source, row, "labels", info.size)
                try:
                    made = occlude(photo, labels, 100_000 * composition + number)
                except ValueError:  # the parser sees no face
                    continue
                writer.add(row.id, to, row.subject, image=made.image, labels=joint_labels(made))
            else:
                writer.add(row.id, to, row.subject)
    return folder


def parts_of(parser: FaceParser, photo: np.ndarray) -> np.ndarray:
    """Return the parser's labels of a face that is cut out already, uint8 ``[S,S]``."""
    return parser(photo, whole=True)[0].labels


def joint_labels(made: Composed) -> np.ndarray:
    """Return the number in :data:`CLASSES` of each pixel, uint8 ``[S,S]``."""
    beside = made.occluder & ~made.complete
    return np.select([made.labels == 2, made.labels == 1, beside, made.hair], [3, 2, 4, 1], 0).astype(
        np.uint8
    )

"""Notebook 04: rendered faces labelled as Eq. 2 labels them, and scores of what a factorisation recovers."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from consensus_lib.data import TASKS, DatasetInfo, DatasetWriter, prepared_folder
from consensus_lib.data.folder import is_made, read_index, read_info
from consensus_lib.metrics.segmentation import SegmentationScores
from synthetic_faces import read_truth


def within_the_face(source: str | Path) -> Path:
    """Return a folder beside ``source`` with the same rendered faces, labelled as Eq. 2 labels them.

    An occlusion is one of the complete face: what an occluder hides beside it is background.

    Args:
        source: a data set of :func:`synthetic_faces.prepare_synthetic`.
    """
    source = Path(source)
    folder, info, task = source.with_name(f"{source.name}-face"), read_info(source), TASKS["occlusion"]
    classes = ("background", "face", "occluder")
    notes = {"rendered": info.index_sha256}
    if is_made(folder, info.size, notes, "the same rendered faces"):
        return folder
    about = DatasetInfo(info.name, classes, task.colours, info.source, info.licence, info.size, notes=notes)
    table = task.table(info.classes)
    with DatasetWriter(folder, about) as writer:
        for row in read_index(source):
            labels = table[np.asarray(Image.open(source / row.labels))]
            labels[(labels == 2) & ~read_truth(source, row.id)[1]] = 0
            image = (source / row.image).read_bytes()
            writer.add(row.id, row.split, row.subject, image=image, labels=labels)
    return folder


def unlabelled(dataset: str, faces: Path) -> Path:
    """Return the folder of the images to label: rendered faces, or those of a data set of photographs."""
    return faces if dataset == "synthetic" else prepared_folder(dataset)


def scores(labels: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return the IoU of background, face and occlusion, and the component error, of labels ``[B,H,W]``."""
    counted = SegmentationScores(TASKS["occlusion"].classes)
    counted.update(torch.from_numpy(labels), torch.from_numpy(truth))
    found = counted.compute()
    return {name: found[f"iou_{name}"] for name in counted.classes} | {
        "component error": found["component_error"]
    }

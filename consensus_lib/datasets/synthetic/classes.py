"""The names, numbers and colours of the label map, and the coarser maps that networks learn.

Two tasks are made of it: *parts*, as Part Labels draws them, and *occlusion*, as COFW does.
"""

import numpy as np

CLASSES = (
    "background",
    "skin",
    "hair",
    "brows",
    "eyes",
    "nose",
    "mouth",
    "ears",
    "neck",
    "cloth",
    "glasses",
    "occluder",
)

# Wong's palette for colour-blind readers (Nature Methods 8, 441, 2011), with tints of it for the classes
# that lie inside or beside the face, so that neighbours differ in lightness too.
COLOURS = (
    (0, 0, 0),
    (230, 159, 0),
    (0, 114, 178),
    (92, 58, 0),
    (255, 255, 255),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (255, 205, 130),
    (0, 158, 115),
    (86, 180, 233),
    (150, 150, 150),
)

(BACKGROUND, SKIN, HAIR, BROWS, EYES, NOSE, MOUTH, EARS, NECK, CLOTH, GLASSES, OCCLUDER) = range(len(CLASSES))

_PARTS = np.zeros(256, np.uint8)
_PARTS[[SKIN, BROWS, EYES, NOSE, MOUTH, EARS, NECK, GLASSES]] = 1
_PARTS[HAIR] = 2
_PARTS[255] = 255


def parts_labels(labels: np.ndarray) -> np.ndarray:
    """Return 0 background, 1 face with neck, ears and glasses, 2 hair with beard; 255 stays.

    Args:
        labels: uint8 array of class numbers, any shape.
    """
    return _PARTS[labels]


def occlusion_labels(labels: np.ndarray, complete: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Return 0 background, 1 visible face, 2 face that something covers, uint8 like ``labels``.

    A person's own hair, beard and clear glasses belong to the face where they lie on it.

    Args:
        labels, complete, face: as in :class:`~consensus_lib.datasets.synthetic.FaceSample`.
    """
    return np.where(face, np.where(labels == complete, 1, 2), 0).astype(np.uint8)

"""Tasks: which classes a model learns from the classes that a data set holds.

Label maps on disk keep every class of their source. A task maps the *names* of source classes to the
classes of the model, so that faces with twelve labels and photographs with three serve the same network.
"""

import dataclasses

import numpy as np

from consensus_lib import IGNORE
from consensus_lib.datasets.folder import DatasetError


@dataclasses.dataclass(frozen=True)
class Task:
    """What a model learns.

    Attributes:
        name: the task's name.
        classes: the model's classes; the position is the class number.
        colours: one ``(red, green, blue)``, 0-255, for each class; apart in greyscale and for
            colour-blind readers.
        members: source class name → class of the model.
        needs: source classes without which the task cannot be learned from a data set.
    """

    name: str
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    members: dict[str, str]
    needs: tuple[str, ...]

    def table(self, source_classes: tuple[str, ...]) -> np.ndarray:
        """Return the look-up table uint8 ``[256]`` from source class numbers to this task's.

        Args:
            source_classes: the class names of a data set, by number.

        Raises:
            DatasetError: a class that the task needs is missing, or one that it does not know is there.
        """
        missing = [name for name in self.needs if name not in source_classes]
        unknown = [name for name in source_classes if name not in self.members]
        if missing or unknown:
            raise DatasetError(
                f"task {self.name!r}: expected source classes among {sorted(self.members)} "
                f"with {list(self.needs)}, got {list(source_classes)} "
                + (f"without {missing}" if missing else f"with {unknown}")
            )
        table = np.full(256, IGNORE, np.uint8)
        for number, name in enumerate(source_classes):
            table[number] = self.classes.index(self.members[name])
        return table


_FACE = ("face", "skin", "brows", "eyes", "nose", "mouth", "glasses")

TASKS = {
    # As Part Labels draws it: neck, ears and glasses of any kind belong to the face, beards to the hair.
    "parts": Task(
        "parts",
        ("background", "face", "hair"),
        ((0, 0, 0), (86, 180, 233), (213, 94, 0)),
        {
            **dict.fromkeys((*_FACE, "sunglasses", "ears", "neck"), "face"),
            "hair": "hair",
            **dict.fromkeys(("background", "cloth", "occluder"), "background"),
        },
        needs=("hair",),
    ),
    # As COFW and the paper's transfer data draw it: the face alone, and what covers it. Clear glasses belong
    # to the face, dark ones cover it.
    "occlusion": Task(
        "occlusion",
        ("background", "face", "occlusion"),
        ((0, 0, 0), (86, 180, 233), (240, 228, 66)),
        {
            **dict.fromkeys(_FACE, "face"),
            **dict.fromkeys(("occluder", "sunglasses"), "occlusion"),
            **dict.fromkeys(("background", "hair", "ears", "neck", "cloth"), "background"),
        },
        needs=("occluder",),
    ),
}
"""The tasks by name: ``parts`` (background, face, hair) and ``occlusion`` (background, face, occlusion)."""


def task(name: str) -> Task:
    """Return the task called ``name``.

    Raises:
        ValueError: there is none.
    """
    try:
        return TASKS[name]
    except KeyError:
        raise ValueError(f"task: expected one of {sorted(TASKS)}, got {name!r}") from None

"""Tasks: which classes a model learns from the classes that a data set holds.

Label maps on disk keep every class of their source. A task maps the *names* of source classes to the
classes of the model, so that faces with twelve labels and photographs with three serve the same network.
"""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from consensus_lib import IGNORE
from consensus_lib.data.folder import DatasetError, DatasetInfo

_SIDE = re.compile(r"^(left|right)|(left|right)$|^[lr](?=[_ .-])|(?<=[_ .-])[lr]$")
_OTHER = {"l": "r", "r": "l", "left": "right", "right": "left"}


@dataclasses.dataclass(frozen=True)
class Task:
    """What a model learns: one of :data:`TASKS`, or one of your own, which is taken wherever a name is.

    Attributes:
        name: the task's name.
        classes: the model's classes, 2 to 150; the position is the class number.
        colours: one ``(red, green, blue)``, 0-255, for each class; apart in greyscale and for
            colour-blind readers.
        members: source class name → class of the model.
        needs: source classes without which the task cannot be learned from a data set.
        mirrored: pairs of classes that change places when an image is flipped, such as
            ``(("l_eye", "r_eye"),)``.

    Raises:
        ValueError: an attribute differs from the above.

    >>> Task("eyes", ("rest", "l_eye", "r_eye"), ((0, 0, 0), (0, 0, 255), (255, 0, 0)),
    ...      {"face": "rest", "l_eye": "l_eye", "r_eye": "r_eye"},
    ...      mirrored=(("l_eye", "r_eye"),)).mirror
    array([0, 2, 1])
    """

    name: str
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    members: Mapping[str, str] = dataclasses.field(hash=False)
    needs: tuple[str, ...] = ()
    mirrored: tuple[tuple[str, str], ...] = ()

    def __post_init__(self):
        for name in ("classes", "needs"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("colours", "mirrored"):
            object.__setattr__(self, name, tuple(map(tuple, getattr(self, name))))
        if not 2 <= len(self.classes) <= 150 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: expected 2 to 150 different names, got {list(self.classes)}")
        right = [len(colour) == 3 and all(0 <= part <= 255 for part in colour) for colour in self.colours]
        if len(right) != len(self.classes) or not all(right):
            raise ValueError(
                f"colours: expected (red, green, blue), 0-255, for each of {len(self.classes)} classes, "
                f"got {list(self.colours)}"
            )
        nowhere = {source: name for source, name in self.members.items() if name not in self.classes}
        if nowhere or not self.members:
            raise ValueError(f"members: expected source class → one of {list(self.classes)}, got {nowhere}")
        strange = [name for name in self.needs if name not in self.members]
        if strange:
            raise ValueError(f"needs: expected source classes among {sorted(self.members)}, got {strange}")
        named = [name for pair in self.mirrored for name in pair]
        pairs = all(len(pair) == 2 for pair in self.mirrored)
        if not pairs or len(set(named)) < len(named) or set(named) - set(self.classes):
            raise ValueError(
                f"mirrored: expected pairs of {list(self.classes)}, each in one pair at most, "
                f"got {list(self.mirrored)}"
            )

    @classmethod
    def of(cls, info: DatasetInfo, mirrored: tuple[tuple[str, str], ...] = ()) -> "Task":
        """Return the task ``"source"``: the classes of a data set, as they are.

        Args:
            info: of :func:`~consensus_lib.data.folder.read_info`.
            mirrored: pairs of its classes; see above.

        Raises:
            ValueError: the data set has fewer than 2 or more than 150 classes, or two of one name.
        """
        names = dict(zip(info.classes, info.classes, strict=True))
        return cls("source", info.classes, info.colours, names, mirrored=mirrored)

    @property
    def mirror(self) -> np.ndarray:
        """Which class each class is in a flipped image, int64 ``[K]``."""
        other = dict(self.mirrored) | {b: a for a, b in self.mirrored}
        return np.array([self.classes.index(other.get(name, name)) for name in self.classes])

    @property
    def unpaired(self) -> tuple[tuple[str, str], ...]:
        """Pairs of classes whose names differ in left and right alone, and that ``mirrored`` does not name.

        ``l_eye`` and ``r_eye``, ``brow left`` and ``brow right``, ``LeftEar`` and ``RightEar``; but not
        ``u_lip`` and ``l_lip``.
        """
        paired = {name for pair in self.mirrored for name in pair}
        free = {name.lower(): name for name in self.classes if name not in paired}
        others = {name: free.get(_SIDE.sub(lambda side: _OTHER[side[0]], low)) for low, name in free.items()}
        order = list(others)
        return tuple((a, b) for a, b in others.items() if b and order.index(a) < order.index(b))

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


def task(given: str | Task) -> Task:
    """Return the task called ``given``, or ``given`` itself if it is a task.

    Raises:
        ValueError: there is none.
    """
    if isinstance(given, Task):
        return given
    if not isinstance(given, str) or given not in TASKS:
        raise ValueError(f"task: expected one of {sorted(TASKS)} or a Task, got {given!r}")
    return TASKS[given]

"""Tasks: which classes a model learns from the classes that a data set holds.

Label maps on disk keep every class of their source. A task maps the *names* of source classes to the
classes of the model, so that faces with twelve labels and photographs with three serve the same network.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from consensus_lib import IGNORE
from consensus_lib.data.folder import DatasetError, DatasetInfo, check_mirrored

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
        check_mirrored(self.mirrored, self.classes)

    @classmethod
    def of(cls, info: DatasetInfo) -> "Task":
        """Return the task ``"source"``: the classes of a data set, as they are, with its mirrored pairs.

        Raises:
            ValueError: the data set has fewer than 2 or more than 150 classes, or two of one name.
        """
        names = dict(zip(info.classes, info.classes, strict=True))
        return cls("source", info.classes, info.colours, names, mirrored=info.mirrored)

    @property
    def mirror(self) -> np.ndarray:
        """Which class each class is in a flipped image, int64 ``[K]``."""
        other = dict(self.mirrored) | {b: a for a, b in self.mirrored}
        return np.array([self.classes.index(other.get(name, name)) for name in self.classes])

    @property
    def unpaired(self) -> tuple[tuple[str, str], ...]:
        """Pairs of classes that :func:`sides` finds and ``mirrored`` does not name."""
        paired = {name for pair in self.mirrored for name in pair}
        return sides([name for name in self.classes if name not in paired])

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
    # As Part Labels defines it: neck, ears and glasses of any kind belong to the face, beards to the hair.
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
    # As COFW and the paper's transfer data define it: the face alone, and what covers it. Clear glasses
    # belong to the face, dark ones cover it.
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


def sides(classes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the pairs of classes whose names differ in left and right alone.

    ``l_eye`` and ``r_eye``, ``brow left`` and ``brow right``, ``LeftEar`` and ``RightEar``; but not
    ``u_lip`` and ``l_lip``.
    """
    by_name = {name.lower(): name for name in classes}
    others = {
        name: by_name.get(_SIDE.sub(lambda side: _OTHER[side[0]], low)) for low, name in by_name.items()
    }
    order = list(others)
    return tuple((a, b) for a, b in others.items() if b and order.index(a) < order.index(b))


def task(given: str | Task | None, info: DatasetInfo | None = None) -> Task:
    """Return the task called ``given``, or ``given`` itself if it is a task.

    Args:
        given: a name of :data:`TASKS` or of the data set's own tasks, or a task; None and ``"source"`` are
            the classes of the data set as they are.
        info: of the data set; None where there is none.

    Raises:
        ValueError: there is none, or the data set's description of it names other classes.
    """
    if isinstance(given, Task):
        return given
    if info and given in (None, "source"):
        return Task.of(info)
    if info and isinstance(given, str) and given in info.tasks:
        members = info.tasks[given]
        if given in TASKS:
            return dataclasses.replace(TASKS[given], members=members, needs=())
        colours = dict(zip(info.classes, info.colours, strict=True))
        ordered = [name for name in info.classes if name in members]  # JSON may have sorted them
        of = {members[source]: colours[source] for source in reversed(ordered)}  # the first member's
        classes = tuple(dict.fromkeys(members[source] for source in ordered))
        return Task(given, classes, tuple(of[name] for name in classes), members, mirrored=sides(classes))
    if not isinstance(given, str) or given not in TASKS:
        known = sorted({*TASKS, *(info.tasks if info else ()), "source"})
        raise ValueError(f"task: expected one of {known} or a Task, got {given!r}")
    return TASKS[given]

"""What a picture holds: classes of its labels, and ingredients, of which an ablation drops any."""

import dataclasses

from synthetic_faces.chance import check_integer

CLASSES = (
    "background", "skin", "hair", "brows", "eyes", "nose", "mouth", "ears", "neck", "cloth", "glasses",
    "occluder", "sunglasses",
)  # fmt: skip

# Wong's palette for colour-blind readers (Nature Methods 8, 441, 2011), with tints of it for the classes
# that lie inside or beside the face, so that neighbours differ in lightness too.
COLOURS = (
    (0, 0, 0), (230, 159, 0), (0, 114, 178), (92, 58, 0), (255, 255, 255), (240, 228, 66), (213, 94, 0),
    (204, 121, 167), (255, 205, 130), (0, 158, 115), (86, 180, 233), (150, 150, 150), (85, 85, 85),
)  # fmt: skip

# Sunglasses hide the face as an occluder does, but Part Labels counts them as face: they are a class apart.
BACKGROUND, SKIN, HAIR, BROWS, EYES, NOSE, MOUTH, EARS, NECK, CLOTH, GLASSES, OCCLUDER, SUNGLASSES = range(13)

OCCLUDERS = {"sunglasses": 1.0, "mask": 1.5, "strands": 1.0, "hand": 2.5, "phone": 1.0, "microphone": 1.6}
"""The kinds of occluder and their odds."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The ingredients of a synthetic face.

    Raises:
        ValueError: an ingredient is out of its range.
    """

    light: bool = True  # lamps and shadows; without, light comes evenly from everywhere
    texture: bool = True  # the grain of skin, hair and clothes; without, each is one colour
    background: str = "all"  # or "drawn" (no photographs) or "plain" (one grey)
    people: float = 0.35  # probability that other people stand beside the person
    occluded: float = 0.4  # probability that something covers the face or hair
    occluders: tuple[tuple[str, float], ...] = tuple(OCCLUDERS.items())  # odds of each kind
    most: int = 3  # largest number of occluders on one face
    camera: bool = True  # blur, noise, colour cast, JPEG and the black corners that an alignment leaves

    def __post_init__(self):
        # Lists come back from JSON; the record stays hashable and comparable.
        odds = tuple((str(name), float(value)) for name, value in self.occluders)
        object.__setattr__(self, "occluders", odds)
        if self.background not in ("all", "drawn", "plain"):
            raise ValueError(f"background: expected 'all', 'drawn' or 'plain', got {self.background!r}")
        for name in ("people", "occluded"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a probability from 0 to 1, got {getattr(self, name)!r}")
        unknown = {name for name, _ in odds} - set(OCCLUDERS)
        if unknown:
            raise ValueError(f"occluders: expected names among {sorted(OCCLUDERS)}, got {sorted(unknown)}")
        if self.occluded and self.most and not any(value > 0 for _, value in odds):
            raise ValueError("occluders: expected at least one positive odds while occluded > 0, got none")
        check_integer("most", self.most, 0, len(OCCLUDERS))

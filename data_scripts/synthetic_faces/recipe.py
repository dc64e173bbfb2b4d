"""What goes into the pictures: one frozen record of switches and odds, so that an ablation can drop any."""

import dataclasses

OCCLUDERS = {
    "hand": 2.5,
    "mask": 1.5,
    "microphone": 1.6,
    "hat": 2.6,
    "sunglasses": 1.0,
    "scarf": 0.8,
    "strands": 1.0,
    "phone": 0.8,
    "cup": 0.8,
    "person": 1.0,
    "food": 0.6,
    "veil": 0.5,
}

TONES = (1.5, 3, 4, 4, 4, 2.5, 1.5, 1.0, 0.6, 0.4)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The ingredients of a synthetic face.

    Attributes:
        light: shade with lamps and shadows; without, light comes evenly from everywhere.
        texture: give skin, hair and clothes their grain; without, each is one colour.
        background: ``"all"``, ``"drawn"`` (no photographs) or ``"plain"`` (one grey).
        people: probability that other people stand beside the person.
        occluded: probability that something covers the face or hair.
        occluders: odds of each kind.
        most: largest number of occluders on one face.
        camera: blur, noise, colour cast, JPEG and the black corners that an alignment leaves.
        turn: scale of the pose's variation; 0 looks straight at the camera.
        tones: odds of the ten tones of the Monk scale, lightest first.
    """

    light: bool = True
    texture: bool = True
    background: str = "all"
    people: float = 0.35
    occluded: float = 0.4
    occluders: tuple[tuple[str, float], ...] = tuple(OCCLUDERS.items())
    most: int = 3
    camera: bool = True
    turn: float = 1.0
    tones: tuple[float, ...] = TONES

    def __post_init__(self):
        # Lists come back from JSON; the record stays hashable and comparable.
        object.__setattr__(
            self, "occluders", tuple((str(name), float(odds)) for name, odds in self.occluders)
        )
        object.__setattr__(self, "tones", tuple(float(odds) for odds in self.tones))
        if self.background not in ("all", "drawn", "plain"):
            raise ValueError(f"background: expected 'all', 'drawn' or 'plain', got {self.background!r}")
        for name in ("people", "occluded"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"{name}: expected a probability between 0 and 1, got {getattr(self, name)!r}"
                )
        if not 0 <= self.turn <= 2:
            raise ValueError(f"turn: expected a scale between 0 and 2, got {self.turn!r}")
        unknown = {name for name, _ in self.occluders} - set(OCCLUDERS)
        if unknown:
            raise ValueError(f"occluders: expected names among {sorted(OCCLUDERS)}, got {sorted(unknown)}")
        if self.occluded and self.most and not any(odds > 0 for _, odds in self.occluders):
            raise ValueError("occluders: expected at least one positive odds while occluded > 0, got none")
        if not isinstance(self.most, int) or self.most < 0:
            raise ValueError(f"most: expected a non-negative integer, got {self.most!r}")
        if len(self.tones) != 10 or min(self.tones) < 0 or not any(self.tones):
            raise ValueError(f"tones: expected ten odds, not all zero, got {self.tones!r}")

"""The ingredients of the pictures: a frozen record of switches and odds, so that an ablation drops any."""

import dataclasses

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
        if not isinstance(self.most, int) or self.most < 0:
            raise ValueError(f"most: expected a non-negative integer, got {self.most!r}")

"""Occluders: what covers a face, in front of it or worn on it, by name.

Each kind is a function of the :class:`~synthetic_faces.layers.Stage` and a stream; it
returns the layers that are laid over the picture in turn.
"""

from synthetic_faces import held, worn

KINDS = {
    "hand": held.hand,
    "microphone": held.microphone,
    "phone": held.phone,
    "cup": held.cup,
    "food": held.food,
    "mask": worn.mask,
    "hat": worn.hat,
    "sunglasses": worn.sunglasses,
    "scarf": worn.scarf,
    "veil": worn.veil,
    "strands": worn.strands,
}

FAR_TO_NEAR = (
    "sunglasses", "mask", "strands", "veil", "scarf", "hat", "food", "hand", "phone", "cup", "microphone",
    "person",
)  # fmt: skip
"""The order in which several occluders of one face are laid over each other."""

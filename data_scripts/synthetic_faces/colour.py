"""Colours: light adds up in linear values, screens show sRGB; and the colours of people.

Skin tones are places on the Monk Skin Tone scale (E. Monk, Google, 2022: ten swatches, 1 lightest to 10
darkest), interpolated in linear light. Living skin in a photograph is redder, which the blood term adds.
"""

import numpy as np

_TO_LINEAR = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)


def linear(colour) -> np.ndarray:
    """Return linear float32 values 0-1 of sRGB values 0-255 (``#rrggbb``, a triple or a uint8 image)."""
    if isinstance(colour, str):
        colour = list(bytes.fromhex(colour[1:]))
    return _TO_LINEAR[np.asarray(colour, np.uint8)]


def screen(image: np.ndarray) -> np.ndarray:
    """Return uint8 sRGB values of linear ones; values outside 0-1 are cut off."""
    return np.round(255 * np.clip(image, 0, 1) ** (1 / 2.2)).astype(np.uint8)


_SWATCHES = "#f6ede4 #f3e7db #f7ead0 #eadaba #d7bd96 #a07e56 #825c43 #604134 #3a312a #292420"
MONK = np.stack([linear(swatch) for swatch in _SWATCHES.split()])
BLOOD = np.array([1.22, 0.92, 0.80], np.float32)

HAIR_COLOURS = {
    "black": "#15110f", "dark brown": "#2a1d15", "brown": "#4a3222", "light brown": "#7a5a3c",
    "blond": "#b8935a", "light blond": "#d9bd85", "red": "#74391e", "grey": "#8b8985", "white": "#d6d3cd",
}  # fmt: skip
IRIS_COLOURS = {"dark": "#2b1a10", "brown": "#4f2f17", "green": "#5a6a45", "blue": "#5f86a8"}


def skin_colour(tone: float, blood: float) -> np.ndarray:
    """Return the linear colour of skin at ``tone`` (1 to 10 on the Monk scale), flushed by ``blood``."""
    base = [np.interp(tone, np.arange(1, 11), channel) for channel in MONK.T]
    return (base * BLOOD**blood).astype(np.float32)

"""Colours: light adds up in linear values, screens show sRGB; and the colours that people come in.

Skin tones are places on the Monk Skin Tone scale (E. Monk, Google, 2022: ten swatches, 1 lightest to 10
darkest), interpolated in linear light. The swatches are flat patches under white light; living skin in a
photograph is redder, which the blood term adds.
"""

import numpy as np

_TO_LINEAR = (np.arange(256) / 255.0) ** 2.2
_TO_SCREEN = np.round(255 * (np.arange(4096) / 4095.0) ** (1 / 2.2)).astype(np.uint8)


def linear(colour) -> np.ndarray:
    """Return linear float32 values 0-1 of sRGB values 0-255 (``#rrggbb``, a triple or a uint8 image)."""
    if isinstance(colour, str):
        colour = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return _TO_LINEAR.astype(np.float32)[np.asarray(colour, np.uint8)]


def screen(image: np.ndarray) -> np.ndarray:
    """Return uint8 sRGB values of linear ones; values outside 0-1 are cut off."""
    return _TO_SCREEN[(np.clip(image, 0, 1) * 4095 + 0.5).astype(np.int16)]


_SWATCHES = "#f6ede4 #f3e7db #f7ead0 #eadaba #d7bd96 #a07e56 #825c43 #604134 #3a312a #292420"
MONK = np.stack([linear(swatch) for swatch in _SWATCHES.split()])
BLOOD = np.array([1.22, 0.92, 0.80], np.float32)

HAIR_COLOURS = {
    "black": "#15110f",
    "dark brown": "#2a1d15",
    "brown": "#4a3222",
    "light brown": "#7a5a3c",
    "blond": "#b8935a",
    "light blond": "#d9bd85",
    "red": "#74391e",
    "grey": "#8b8985",
    "white": "#d6d3cd",
}

IRIS_COLOURS = {
    "dark brown": "#2b1a10",
    "brown": "#4f2f17",
    "hazel": "#6d5a2e",
    "green": "#5a6a45",
    "grey": "#7d878c",
    "blue": "#5f86a8",
}


def skin_colour(tone: float, blood: float) -> np.ndarray:
    """Return the linear colour of skin at ``tone`` (1 to 10 on the Monk scale), flushed by ``blood``."""
    place = np.clip(tone, 1, 10) - 1
    low = min(int(place), 8)
    base = MONK[low] + np.float32(place - low) * (MONK[low + 1] - MONK[low])
    return base * BLOOD ** np.float32(blood)

"""Paint: colours, the colour, class and gloss of points of a surface, and soft shapes to paint with.

Light adds up in linear values, screens show sRGB. Skin tones are places on the Monk Skin Tone scale (E. Monk,
Google, 2022: ten swatches, 1 lightest to 10 darkest), interpolated in linear light. Living skin in a
photograph is redder, which the blood term adds.

``soft`` turns a signed distance into coverage over the width of one pixel, and a class is given where
coverage is at least one half, so that an edge of the label lies on the edge in the image.
"""

import dataclasses

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


@dataclasses.dataclass
class Paint:
    """Colour, class and gloss of fragments while they are being painted, one entry each."""

    albedo: np.ndarray  # linear float32 [N,3]
    label: np.ndarray  # uint8 [N]
    gloss: np.ndarray  # float32 [N], strength of highlights

    @classmethod
    def plain(cls, count: int, colour: np.ndarray, label: int, gloss: float) -> "Paint":
        """Return ``count`` entries of one colour, class and gloss."""
        albedo = np.tile(np.asarray(colour, np.float32), (count, 1))
        return cls(albedo, np.full(count, label, np.uint8), np.full(count, gloss, np.float32))

    @classmethod
    def joined(cls, paints: list["Paint"]) -> "Paint":
        """Return the entries of several paints one after the other."""
        columns = zip(*(vars(paint).values() for paint in paints), strict=True)
        return cls(*map(np.concatenate, columns))

    def __getitem__(self, where) -> "Paint":
        """Return the entries ``where``, an index array or a slice; a copy unless it is a slice."""
        return Paint(self.albedo[where], self.label[where], self.gloss[where])

    def __setitem__(self, where, part: "Paint") -> None:
        """Replace the entries ``where``."""
        self.albedo[where], self.label[where], self.gloss[where] = part.albedo, part.label, part.gloss

    def cover(self, coverage: np.ndarray, colour: np.ndarray, label: int | None = None) -> None:
        """Lay ``colour`` over with ``coverage`` ``[N]``; give ``label`` where that is at least one half."""
        coverage = coverage.astype(np.float32)
        self.albedo += coverage[:, None] * (np.asarray(colour, np.float32) - self.albedo)
        if label is not None:
            self.label[coverage >= 0.5] = label

    def darken(self, amount: np.ndarray) -> None:
        """Multiply the colour by ``1 - amount`` ``[N]``."""
        self.albedo *= (1 - amount).astype(np.float32)[:, None]


def soft(distance: np.ndarray, width: float) -> np.ndarray:
    """Return coverage 0-1 of a signed distance (negative inside), both in millimetres."""
    return np.clip(0.5 - distance / width, 0, 1).astype(np.float32)


def bump(x, y, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    """Return a bell of height 1 around (cx, cy)."""
    return np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)


def ridge(distance: np.ndarray, width: float) -> np.ndarray:
    """Return a bell of height 1 along a line at a signed ``distance``."""
    return np.exp(-((distance / width) ** 2))

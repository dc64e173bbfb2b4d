"""Paint: the colour, class and gloss of points of a surface, and soft shapes to paint with.

``soft`` turns a signed distance into coverage over the width of one pixel, and a class is given where
coverage is at least one half, so that an edge of the label lies on the edge in the image.
"""

import dataclasses

import numpy as np


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

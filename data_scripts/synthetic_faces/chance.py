"""Chance: one generator for each purpose of each sample, and the noise fields that give surfaces their grain.

A purpose ("hair", "camera") has its own stream, so that switching one ingredient off, or drawing one more
number for it, leaves everything else of the sample as it was. Noise is drawn on grids of a fixed number of
cells and interpolated, so that a sample shows the same pattern at every image size.
"""

import zlib
from collections.abc import Callable

import numpy as np


def stream(seed: int, index: int, purpose: str) -> np.random.Generator:
    """Return the generator of one purpose of sample ``index``; equal arguments give equal numbers."""
    key = (index, zlib.crc32(purpose.encode()))
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def normal(rng: np.random.Generator, mean: float, deviation: float, bound: float = 2.0) -> float:
    """Draw from a normal distribution cut off at ``bound`` standard deviations."""
    return mean + deviation * min(max(float(rng.standard_normal()), -bound), bound)


def choose(rng: np.random.Generator, odds: dict):
    """Draw a key of ``odds`` with probability proportional to its value."""
    left = rng.random() * sum(odds.values())
    for name, weight in odds.items():
        left -= weight
        if left < 0:
            return name
    return next(name for name in reversed(odds) if odds[name] > 0)  # rounding


def field(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, cells: int = 32) -> np.ndarray:
    """Return smooth noise at the places (u, v), both in units of a noise cell.

    Args:
        rng: the stream that fixes the pattern.
        u: float array ``[N]``; the pattern repeats every ``cells``.
        v: float array ``[N]``.
        cells: number of cells before the pattern repeats, a power of two.

    Returns:
        float32 ``[N]``, mean 0, mostly within ±1.
    """
    grid = np.empty((cells + 1, cells + 1), np.float32)
    grid[:-1, :-1] = rng.standard_normal((cells, cells), dtype=np.float32)
    grid[-1], grid[:, -1] = grid[0], grid[:, 0]
    (iu, fu), (iv, fv) = _split(u, cells), _split(v, cells)
    at, flat = iu * (cells + 1) + iv, grid.ravel()
    at = at.astype(np.intp)
    first, second = flat.take(at), flat[cells + 1 :].take(at)
    first += fv * (flat[1:].take(at) - first)
    second += fv * (flat[cells + 2 :].take(at) - second)
    return first + fu * (second - first)


def line(rng: np.random.Generator, cells: int = 256) -> Callable[[np.ndarray], np.ndarray]:
    """Return smooth noise along one coordinate as a function: float ``[N]`` in cells to float32 ``[N]``."""
    row = rng.standard_normal(cells, dtype=np.float32)
    rise = np.append(row[1:], row[0]) - row

    def along(u: np.ndarray) -> np.ndarray:
        at, part = _split(u, cells)
        return row.take(at) + part * rise.take(at)

    return along


def profile(rng: np.random.Generator, u: np.ndarray) -> np.ndarray:
    """Return smooth noise at the places ``u`` ``[N]`` of one coordinate, in units of a noise cell."""
    return line(rng)(u)


def _split(u: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell, modulo ``cells`` (a power of two), and the eased place 0-1 inside it."""
    u = np.asarray(u, np.float32)
    whole = np.floor(u)
    part = u - whole
    return whole.astype(np.int32) & (cells - 1), part * part * (3 - 2 * part)

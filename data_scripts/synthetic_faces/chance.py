"""Chance: one generator for each purpose of each sample, and the noise fields that give surfaces their grain.

A purpose ("hair", "camera") has its own stream, so that switching one ingredient off, or sampling one more
number for it, leaves everything else of the sample as it was. Noise is sampled on grids of a fixed number of
cells and interpolated, so that a sample shows the same pattern at every image size.
"""

import zlib
from collections.abc import Callable

import numpy as np


def check_integer(name: str, value, low: int, high: int) -> None:
    """Raise ValueError unless ``value``, called ``name``, is an integer from ``low`` to ``high``."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name}: expected an integer from {low} to {high}, got {value!r}")


def stream(seed: int, index: int, purpose: str) -> np.random.Generator:
    """Return the generator of one purpose of sample ``index``; equal arguments give equal numbers."""
    key = (index, zlib.crc32(purpose.encode()))
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def normal(rng: np.random.Generator, mean: float, deviation: float, bound: float = 2.0) -> float:
    """Sample a normal distribution cut off at ``bound`` standard deviations."""
    return mean + deviation * min(max(float(rng.standard_normal()), -bound), bound)


def choose(rng: np.random.Generator, odds: dict):
    """Sample a key of ``odds`` with probability proportional to its value."""
    names, ends = list(odds), np.cumsum(list(odds.values()))
    return names[np.searchsorted(ends, rng.random() * ends[-1], side="right")]


def field(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, cells: int = 32) -> np.ndarray:
    """Return smooth noise, float32 ``[N]`` of mean 0 and mostly within ±1, at the places (u, v) ``[N]``.

    Places are in units of a noise cell; the pattern, fixed by ``rng``, repeats after ``cells``, a power of 2.
    """
    grid = np.empty((cells + 1, cells + 1), np.float32)
    grid[:-1, :-1] = rng.standard_normal((cells, cells), dtype=np.float32)
    grid[-1], grid[:, -1] = grid[0], grid[:, 0]
    (iu, fu), (iv, fv) = _split(u, cells), _split(v, cells)
    at, flat = (iu * (cells + 1) + iv).astype(np.intp), grid.ravel()
    first, second = flat.take(at), flat[cells + 1 :].take(at)
    first += fv * (flat[1:].take(at) - first)
    second += fv * (flat[cells + 2 :].take(at) - second)
    return first + fu * (second - first)


def line(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Return smooth noise along one coordinate as a function: float ``[N]`` in cells to float32 ``[N]``."""
    row = rng.standard_normal(256, dtype=np.float32)
    rise = np.append(row[1:], row[0]) - row

    def along(u: np.ndarray) -> np.ndarray:
        at, part = _split(u, len(row))
        return row.take(at) + part * rise.take(at)

    return along


def _split(u: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell, modulo ``cells`` (a power of two), and the eased place 0-1 inside it."""
    u = np.asarray(u, np.float32)
    whole = np.floor(u)
    part = u - whole
    return whole.astype(np.int32) & (cells - 1), part * part * (3 - 2 * part)

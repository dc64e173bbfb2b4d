"""Chance: one generator for each purpose of each sample, and the noise fields that give surfaces their grain.

A purpose ("hair", "camera") has its own stream, so that switching one ingredient off, or drawing one more
number for it, leaves everything else of the sample as it was. Noise is drawn on grids of a fixed number of
cells and interpolated, so that a sample shows the same pattern at every image size.
"""

import zlib

import numpy as np


def stream(seed: int, index: int, purpose: str) -> np.random.Generator:
    """Return the generator of one purpose of sample ``index``; equal arguments give equal numbers."""
    key = (index, zlib.crc32(purpose.encode()))
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def normal(rng: np.random.Generator, mean: float, deviation: float, bound: float = 2.0) -> float:
    """Draw from a normal distribution cut off at ``bound`` standard deviations."""
    return mean + deviation * float(np.clip(rng.standard_normal(), -bound, bound))


def choose(rng: np.random.Generator, odds: dict):
    """Draw a key of ``odds`` with probability proportional to its value."""
    names = list(odds)
    weights = np.array([odds[name] for name in names], float)
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def field(rng: np.random.Generator, u: np.ndarray, v: np.ndarray, cells: int = 32) -> np.ndarray:
    """Return smooth noise at the places (u, v), both in units of a noise cell.

    Args:
        rng: the stream that fixes the pattern.
        u: float array ``[N]``; the pattern repeats every ``cells``.
        v: float array ``[N]``.
        cells: number of cells before the pattern repeats.

    Returns:
        float32 ``[N]``, mean 0, mostly within ±1.
    """
    grid = rng.standard_normal((cells, cells), dtype=np.float32)
    iu, iv = np.floor(u), np.floor(v)
    fu, fv = (u - iu).astype(np.float32), (v - iv).astype(np.float32)
    iu, iv = iu.astype(np.intp) % cells, iv.astype(np.intp) % cells
    ju, jv = (iu + 1) % cells, (iv + 1) % cells
    fu, fv = fu * fu * (3 - 2 * fu), fv * fv * (3 - 2 * fv)
    top = grid[iu, iv] * (1 - fv) + grid[iu, jv] * fv
    low = grid[ju, iv] * (1 - fv) + grid[ju, jv] * fv
    return top * (1 - fu) + low * fu


def profile(rng: np.random.Generator, u: np.ndarray, cells: int = 256) -> np.ndarray:
    """Return smooth noise along one coordinate ``u`` ``[N]`` in units of a noise cell, like :func:`field`."""
    row = rng.standard_normal(cells, dtype=np.float32)
    iu = np.floor(u)
    fu = (u - iu).astype(np.float32)
    iu = iu.astype(np.intp) % cells
    fu = fu * fu * (3 - 2 * fu)
    return row[iu] * (1 - fu) + row[(iu + 1) % cells] * fu

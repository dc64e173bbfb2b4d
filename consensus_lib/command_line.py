"""Command lines: a wrong value ends in one line and exit code 2, before data are made or files written.

The types are for ``ArgumentParser.add_argument(type=...)``; argparse then names the argument.
"""

import argparse
import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

SEED = 2**32 - 1
"""The largest seed that Python, NumPy and torch all take."""


def whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    """Return a type: whole numbers from ``least`` to ``most``."""
    return _number(int, "a whole number", least, most)


def number(least: float = -math.inf, most: float = math.inf) -> Callable[[str], float]:
    """Return a type: finite numbers from ``least`` to ``most``."""
    return _number(float, "a finite number", least, most)


def folder(text: str) -> Path:
    """Return the path of a folder that is there and can be written to, or that can be made."""
    path = Path(text).expanduser()
    there = next(part for part in (path, *path.absolute().parents) if part.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"expected a folder that can be written to, got {text}")
    return path


@contextlib.contextmanager
def refusing(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Turn a ValueError of the block into one line and exit code 2.

    For what checks arguments, and for nothing else: there, a ValueError may be a bug, whose traceback counts.
    """
    try:
        yield
    except ValueError as error:
        parser.error(" ".join(str(error).split()))


def _number(kind: type, name: str, least: float, most: float) -> Callable[[str], float]:
    def read(text: str):
        with contextlib.suppress(ValueError):
            value = kind(text)
            if math.isfinite(value) and least <= value <= most:
                return value
        bounds = [f"at least {least}"] * (least > -math.inf) + [f"at most {most}"] * (most < math.inf)
        raise argparse.ArgumentTypeError(f"expected {' '.join([name, ' and '.join(bounds)])}, got {text}")

    return read

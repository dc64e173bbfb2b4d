"""Command lines: a wrong value ends in one line and exit code 2, before data are made or files written.

:func:`whole`, :func:`number` and :func:`folder` make types for ``add_argument``, so that argparse names it.
"""

import argparse
import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

SEED = 2**32 - 1
"""The largest seed that Python, NumPy and torch all take."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Print the message and leave with exit code 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (--help lists what there is)\n")


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
        parser.error(str(error))


def _number(kind: type, name: str, least: float, most: float) -> Callable[[str], float]:
    def read(text: str):
        with contextlib.suppress(ValueError):
            value = kind(text)
            if math.isfinite(value) and least <= value <= most:
                return value
        bounds = [f"at least {least}"] * (least > -math.inf) + [f"at most {most}"] * (most < math.inf)
        wanted = " of ".join([name, *[" and ".join(bounds)] * bool(bounds)])
        raise argparse.ArgumentTypeError(f"expected {wanted}, got {text}")

    return read

"""Command lines: a wrong value ends in one line and exit code 2, before data are made or files written.

:func:`whole`, :func:`number` and :func:`folder` are for ``add_argument(type=…)``: argparse names it.
"""

import argparse
import ast
import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
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
    return number(least, most, int)


def number(least: float = -math.inf, most: float = math.inf, kind: type = float) -> Callable[[str], float]:
    """Return a type: finite numbers from ``least`` to ``most``, of the Python type ``kind``."""

    wanted = "a whole number" if kind is int else "a finite number"
    bounds = [f"at least {least}"] * (least > -math.inf) + [f"at most {most}"] * (most < math.inf)
    wanted += " of " * bool(bounds) + " and ".join(bounds)

    def read(text: str):
        with contextlib.suppress(ValueError):
            if math.isfinite(value := kind(text)) and least <= value <= most:
                return value
        raise argparse.ArgumentTypeError(f"expected {wanted}, got {text}")

    return read


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


def parse_options(words: Iterable[str]) -> dict:
    """Return options from words ``NAME=VALUE``; a value is a Python literal, or else text.

    Raises:
        ValueError: a word is of another form.

    >>> parse_options("beta=2 kind=class".split())
    {'beta': 2, 'kind': 'class'}
    """
    options = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (equals and name.isidentifier()):
            raise ValueError(f"options: expected NAME=VALUE, got {word!r}")
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = value
    return options

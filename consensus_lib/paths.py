"""Where things lie on disk: the one module that knows folders and the variables that move them.

``CONSENSUS_DATA_DIR`` (by default ``data``) holds data sets, archives and caches, ``CONSENSUS_RUNS_DIR``
(``runs``) notebooks, figures and checkpoints. ``CONSENSUS_DATA_MIRROR`` is a folder or URL with the archives
and registry.txt, instead of the public addresses.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_CHECKOUT = Path(__file__).resolve().parents[1]


def root() -> Path:
    """Return the checkout's top folder, or the current folder if the library is not in a checkout."""
    return _CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else Path.cwd()


def data_dir() -> Path:
    """Return the folder of data sets (``CONSENSUS_DATA_DIR``)."""
    return Path(os.environ.get("CONSENSUS_DATA_DIR") or root() / "data").expanduser()


def runs_dir() -> Path:
    """Return the folder of runs (``CONSENSUS_RUNS_DIR``)."""
    return Path(os.environ.get("CONSENSUS_RUNS_DIR") or root() / "runs").expanduser()


def data_mirror() -> str | None:
    """Return the folder or URL that archives are read from (``CONSENSUS_DATA_MIRROR``), None if unset."""
    return os.environ.get("CONSENSUS_DATA_MIRROR") or None


def shown(path: str | os.PathLike) -> str:
    """Return ``path`` without this machine's folders: from the checkout, runs or data folder on."""
    path = Path(path).resolve()
    places = {"": root(), "$CONSENSUS_RUNS_DIR/": runs_dir(), "$CONSENSUS_DATA_DIR/": data_dir()}
    for prefix, folder in places.items():
        if path.is_relative_to(folder.resolve()):
            return prefix + path.relative_to(folder.resolve()).as_posix()
    return str(path)


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary file name beside ``path``; rename it to ``path`` if the block succeeds.

    A reader sees the old file or the new one. If the block raises, ``path`` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not mkstemp: its files are private, and the umask cannot be read without a race between threads.
    part = path.with_name(f".{path.name[:40]}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: str | os.PathLike, wait: bool = True) -> Iterator[bool]:
    """Hold the operating system's lock on a file, which ends with the process, and yield True.

    With ``wait=False`` and another holder, yield False at once. Windows has no such lock.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("ab") as file:
        held = True
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                held = False
        yield held


def write_json(path: str | os.PathLike, value) -> None:
    """Write ``value`` as indented JSON, atomically; a ValueError if it holds NaN or infinity."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")

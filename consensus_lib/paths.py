"""Where things lie on disk: the one module that knows folders and the variables that move them.

=======================  ======================================================  =================
variable                 holds                                                   default
=======================  ======================================================  =================
CONSENSUS_DATA_DIR       prepared data sets, downloaded archives, decoded caches  ``<root>/data``
CONSENSUS_RUNS_DIR       what a run leaves: notebooks, figures, checkpoints       ``<root>/runs``
CONSENSUS_DATA_MIRROR    folder or URL that holds the archives and registry.txt   the public addresses
=======================  ======================================================  =================

``<root>`` is the checkout of this package, or the current folder where it is installed elsewhere.
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
    """Return ``path`` without the part that is this machine's, which must not be in a stored notebook.

    It is relative to the checkout where it lies inside, else to the runs or data folder, by their variable.
    """
    path = Path(path).resolve()
    places = {"": root(), "$CONSENSUS_RUNS_DIR/": runs_dir(), "$CONSENSUS_DATA_DIR/": data_dir()}
    for prefix, folder in places.items():
        if path.is_relative_to(folder.resolve()):
            return prefix + path.relative_to(folder.resolve()).as_posix()
    return str(path)


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary file name beside ``path``; rename it to ``path`` if the block succeeds.

    A reader sees the old file or the new one, never half of one. If the block raises, the temporary
    file is removed and ``path`` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not mkstemp: its files are private, and the umask cannot be read without a race between threads.
    # Of a long name the beginning alone: file systems take 255 bytes.
    part = path.with_name(f".{path.name[:40]}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: str | os.PathLike, wait: bool = True) -> Iterator[bool]:
    """Hold a lock of the operating system, which a killed process cannot leave behind, and yield True.

    With ``wait=False`` and somebody else at it, yield False at once. The lock file stays where it is. It is
    flock's, not filelock's, which a bare GPU machine lacks; Windows has none, and nobody is waited for.
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

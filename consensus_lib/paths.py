"""Where things lie on disk: the one module that knows folders and the variables that move them.

=======================  ======================================================  =================
variable                 holds                                                   default
=======================  ======================================================  =================
CONSENSUS_DATA_DIR       prepared data sets, downloaded archives, decoded caches  ``<root>/data``
CONSENSUS_RUNS_DIR       what a run leaves: notebooks, figures, checkpoints       ``<root>/runs``
CONSENSUS_DATA_MIRROR    folder or URL that holds the archives and registry.txt   the public addresses
=======================  ======================================================  =================

``<root>`` is the checkout that this package was imported from, or the current folder where it was
installed elsewhere.
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
    """Return ``path`` as a person wants to read it: without the part that is this machine's.

    Relative to the checkout where it lies inside, else to the runs or data folder by its variable's name.
    Stored notebook outputs go through this, so that no machine's absolute path is ever committed.
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

    >>> import tempfile
    >>> with atomic(Path(tempfile.mkdtemp()) / "result.json") as part:
    ...     _ = part.write_text("{}")
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
def locked(path: str | os.PathLike, wait: bool = True) -> Iterator[int | None]:
    """Hold a lock of the operating system, which a process that is killed cannot leave behind.

    flock on Linux and macOS, also between machines where their file system passes it on, as NFS 4 does;
    Windows has none, and nobody is waited for.

    Args:
        path: of the lock file, made if need be and left where it is.
        wait: for whoever holds it.

    Yields:
        The lock file's descriptor; None if somebody holds the lock and this is not to wait.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("ab") as file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield None
                return
        yield file.fileno()


def write_json(path: str | os.PathLike, value) -> None:
    """Write ``value`` as indented JSON, atomically. NaN is refused: JSON has none.

    Raises:
        ValueError: ``value`` holds NaN or infinity.
        TypeError: ``value`` holds something that JSON cannot.
    """
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")

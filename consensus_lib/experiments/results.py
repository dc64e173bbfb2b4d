"""Results: what a result was made with."""

import hashlib
import subprocess
from pathlib import Path

import consensus_lib

_PACKAGE = Path(consensus_lib.__file__).parent


def library_hash() -> str:
    """Return a hash of the library's source: its version stays the same while a checkout changes."""
    digest = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*.py")):
        digest.update(f"{file.relative_to(_PACKAGE).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def provenance() -> dict[str, str | None]:
    """Return what a result is made with now, to be recorded beside it.

    Returns:
        ``version`` of the library; ``commit`` of its checkout, with ``-dirty`` where tracked files differ
        from it, None outside of a git checkout; ``source``, the :func:`library_hash`.
    """
    commit = None
    if (_PACKAGE.parent / ".git").exists():  # else git would name the repository around a virtual environment
        describe = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        done = subprocess.run(describe, cwd=_PACKAGE, capture_output=True, text=True)
        commit = done.stdout.strip() or None
    return {"version": consensus_lib.__version__, "commit": commit, "source": library_hash()}

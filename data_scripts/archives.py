"""Public archives: where their files come from, whether they are whole, and what lies inside.

Every data script states its files as :class:`PublicFile`; :func:`fetch` turns them into verified local
files, from a mirror (``CONSENSUS_DATA_MIRROR``) or from their public addresses, and :func:`members` reads a
``.tgz`` in one pass. Nothing is ever unpacked to disk: an archive is the work of a stranger, and a name such
as ``../../.bashrc`` in it must not matter.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from consensus_lib.data.folder import DatasetError

REGISTRY = "registry.txt"
_HEX_DIGITS = {"sha256": 64, "md5": 32}
_GONE = (404, 410)  # the answers of a server that does not have a file, as opposed to one that is in trouble


class ArchiveError(DatasetError):
    """A file that a data set is made from is missing, altered or hostile."""


@dataclasses.dataclass(frozen=True)
class PublicFile:
    """A file that its authors publish.

    Attributes:
        name: file name, the same in a mirror.
        addresses: where it is published; tried in order.
        hash: ``"sha256:HEX"`` or ``"md5:HEX"`` where one is publicly known, else None.
        optional: whether the data set can be made without it.
    """

    name: str
    addresses: tuple[str, ...]
    hash: str | None = None
    optional: bool = False


@dataclasses.dataclass(frozen=True)
class LocalFile:
    """A verified file on this machine.

    Attributes:
        path: where it lies.
        sha256: the SHA-256 of its content, always computed.
        pinned: whether a hash stated in advance was compared; without one, ``sha256`` is only a report.
    """

    path: Path
    sha256: str
    pinned: bool


def fetch(files: Iterable[PublicFile], downloads: Path, mirror: str | None = None) -> dict[str, LocalFile]:
    """Return each file by name, downloaded where necessary and verified. Absent optional files are left out.

    Args:
        files: what is wanted.
        downloads: folder that keeps downloaded files. Those of different mirrors are kept apart, so that a
            file without a publicly known hash cannot come from the wrong place.
        mirror: a folder, whose files are read where they lie, or an address that starts with ``http://`` or
            ``https://``. Its ``registry.txt`` states the hashes, which replace the public ones.

    Raises:
        ArchiveError: a file is missing, cannot be downloaded or has another hash than stated.
    """
    if mirror is None:
        found = {file.name: _download(file, downloads / "public") for file in files}
        return {name: file for name, file in found.items() if file is not None}
    is_address = mirror.startswith(("http://", "https://"))
    mirror = mirror.rstrip("/") if is_address else str(Path(mirror).expanduser())
    folder = downloads / f"mirror-{_short_hash(mirror)}" if is_address else Path(mirror)
    hashes = _downloaded_registry(mirror, folder) if is_address else _registry(folder / REGISTRY, mirror)
    found = {}
    for file in files:
        if file.name in hashes:
            # Named by the registry, an optional file must be there: its absence would be a broken mirror.
            stated = PublicFile(file.name, (f"{mirror}/{file.name}",), hashes[file.name])
            found[file.name] = _download(stated, folder) if is_address else _in_place(stated, folder)
        elif not file.optional:
            raise ArchiveError(f"{mirror}/{REGISTRY}: expected a line for {file.name}, got {sorted(hashes)}")
    return found


def parse_registry(text: str, where: str) -> dict[str, str]:
    """Return the hash of each file in a ``registry.txt``: lines ``FILE sha256:HEX``, comments after ``#``.

    >>> parse_registry("a.txt md5:" + 32 * "0", "registry.txt")["a.txt"][:8]
    'md5:0000'

    Raises:
        ArchiveError: a line is malformed, or a file stands there twice.
    """
    hashes: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        match = re.fullmatch(r"(sha256|md5):([0-9a-fA-F]+)", words[-1])
        if len(words) != 2 or not match or len(match[2]) != _HEX_DIGITS[match[1]]:
            raise ArchiveError(f"{where}, line {number}: expected FILE sha256:HEX, got {line.strip()!r}")
        if words[0] in hashes:
            raise ArchiveError(f"{where}, line {number}: expected each file once, got {words[0]} again")
        hashes[words[0]] = words[1].lower()
    return hashes


def members(
    path: Path, wanted: Callable[[str], bool], *, largest: int = 2**24, total: int = 2**33
) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the wanted files of a ``.tgz``, reading it once, with a progress bar.

    Every entry is checked, wanted or not, and the archive is read to its end, so that damage anywhere in it
    is found even where no hash is known.

    Args:
        path: the archive.
        wanted: says of a name, such as ``folder/file.jpg``, whether its content is wanted.
        largest: bytes that a wanted file may have.
        total: bytes that the archive may have when decompressed.

    Raises:
        ArchiveError: an absolute path, ``..``, a link or a device; a limit exceeded; a name given twice;
            or an archive that is damaged or cut short.
    """
    seen: set[str] = set()
    with (
        path.open("rb") as file,
        tqdm.wrapattr(file, "read", total=path.stat().st_size, desc=path.name, disable=None) as shown,
        gzip.GzipFile(fileobj=shown) as unzipped,
    ):
        stream = _Metered(unzipped, total, path.name)
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for entry in archive:
                    name = _checked_name(entry, path.name)
                    if not entry.isfile() or not wanted(name):
                        continue
                    if entry.size > largest:
                        raise ArchiveError(
                            f"{path.name}: expected at most {largest:,} bytes in {name}, got {entry.size:,}"
                        )
                    if name in seen:
                        raise ArchiveError(f"{path.name}: expected each file once, got {name} again")
                    seen.add(name)
                    yield name, archive.extractfile(entry).read()
            _check_end(stream, archive.offset, path.name)
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ArchiveError(f"{path.name}: expected a whole .tgz archive, got: {error}") from None


def _downloaded_registry(mirror: str, folder: Path) -> dict[str, str]:
    (folder / REGISTRY).unlink(missing_ok=True)  # the mirror may have changed since
    _download(PublicFile(REGISTRY, (f"{mirror}/{REGISTRY}",)), folder)
    return _registry(folder / REGISTRY, mirror)


def _registry(path: Path, mirror: str) -> dict[str, str]:
    try:
        return parse_registry(path.read_text(encoding="utf-8"), f"{mirror}/{REGISTRY}")
    except (FileNotFoundError, NotADirectoryError):
        raise ArchiveError(
            f"{mirror}/{REGISTRY}: expected the hashes of the mirror's files, but it is missing"
        ) from None
    except UnicodeDecodeError as error:
        raise ArchiveError(f"{mirror}/{REGISTRY}: expected text, got: {error}") from None


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _in_place(file: PublicFile, folder: Path) -> LocalFile:
    path = folder / file.name
    if not path.is_file():
        raise ArchiveError(f"{path}: expected the file that {REGISTRY} names, but it is missing")
    return _verify(path, file.hash, str(path))


def _download(file: PublicFile, folder: Path) -> LocalFile | None:
    """Return ``file`` from ``folder``, downloading it first unless it is there and whole."""
    path = folder / file.name
    if path.is_file():
        try:
            return _verify(path, file.hash, str(path))
        except ArchiveError:  # damaged on disk since: only a new download helps
            path.unlink()
    failures = []
    for address in file.addresses:
        try:
            return _download_from(address, file.hash, path)
        except ArchiveError as error:
            failures.append(error)
    if file.optional and all(isinstance(error, _NotThere) for error in failures):
        return None
    raise ArchiveError("; ".join(map(str, failures)))


class _NotThere(ArchiveError):
    """The server answers, and does not have the file."""


def _download_from(address: str, stated: str | None, path: Path) -> LocalFile:
    # Imported here: reading a local mirror needs no network library.
    import pooch
    import requests

    # total=1: pooch asks whether the bar is true before it sets the total. Plain bytes are asked for because
    # a server that compresses on the fly would make the bar lie.
    progress = tqdm(desc=path.name, total=1, unit="B", unit_scale=True, disable=None)
    with progress as bar, _partial(path) as part:
        fetcher = pooch.HTTPDownloader(
            progressbar=bar, chunk_size=2**16, headers={"Accept-Encoding": "identity"}
        )
        try:
            fetcher(address, str(part), None)
        except requests.HTTPError as error:
            error.response.close()  # pooch streams it and leaves it open
            kind = _NotThere if error.response.status_code in _GONE else ArchiveError
            raise kind(f"{address}: expected {path.name}, got status {error.response.status_code}") from None
        except requests.RequestException as error:
            raise ArchiveError(
                f"{address}: expected {path.name}, got: {error}. With a copy of the files, "
                "set CONSENSUS_DATA_MIRROR to its folder or address"
            ) from None
        verified = _verify(part, stated, address)
        part.replace(path)
        return dataclasses.replace(verified, path=path)


@contextlib.contextmanager
def _partial(path: Path) -> Iterator[Path]:
    # A fixed name: what a killed download leaves behind is overwritten by the next, and never adds up.
    part = path.with_name(f".{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _verify(path: Path, stated: str | None, where: str) -> LocalFile:
    sha256 = _digest(path, "sha256")
    if stated is not None:
        kind, _, expected = stated.partition(":")
        got = sha256 if kind == "sha256" else _digest(path, kind)
        if got != expected:
            raise ArchiveError(
                f"{where}: expected {stated}, got {kind}:{got}; the file is damaged or another one"
            )
    return LocalFile(path, sha256, pinned=stated is not None)


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        # md5 is what the public loaders state; here it finds damage, it is no defence against forgery.
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


class _Metered:
    """A byte stream with a limit, which remembers where its last byte other than zero was."""

    def __init__(self, stream, limit: int, where: str):
        self._stream, self._limit, self._where = stream, limit, where
        self.position = 0
        self.content_end = 0

    def read(self, size: int) -> bytes:
        """Read as a file does."""
        chunk = self._stream.read(size)
        filled = len(chunk.rstrip(b"\0"))
        if filled:
            self.content_end = self.position + filled
        self.position += len(chunk)
        if self.position > self._limit:
            raise ArchiveError(
                f"{self._where}: expected at most {self._limit:,} bytes when decompressed, got more"
            )
        return chunk


def _checked_name(entry: tarfile.TarInfo, where: str) -> str:
    """Return the entry's name without a leading ``./``, once nothing about it is suspicious."""
    path = PurePosixPath(entry.name)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.name:
        raise ArchiveError(f"{where}: expected names inside the archive's own folder, got {entry.name!r}")
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
        kind = "a link" if entry.issym() or entry.islnk() else "a special entry"
        raise ArchiveError(f"{where}: expected only files and folders, got {kind} named {entry.name!r}")
    return str(path)


def _check_end(stream: _Metered, end: int, where: str) -> None:
    """Read the rest of the archive and check that it is padding.

    ``tarfile`` takes an unreadable header for the end of the archive, and does not check gzip's own sum.
    """
    while stream.read(2**20):
        pass
    if stream.content_end > end:
        raise ArchiveError(
            f"{where}: expected a tar header at byte {end:,} of the decompressed archive, got something else"
        )

"""Public archives: where their files come from, whether they are whole, and how they are unpacked.

A data script states its files as :class:`PublicFile`; :func:`fetch` turns them into verified local files,
from a mirror (``CONSENSUS_DATA_MIRROR``) or from their public addresses. :func:`unpacked` and :func:`members`
give what is inside an archive, once it was checked: an archive is the work of a stranger. pooch reads
registries and hashes; it cannot resume a download, so that requests, which it brings along, does that here.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from consensus_lib.data.folder import DatasetError

REGISTRY = "registry.txt"
"""Hashes of a mirror's files, lines ``FILE sha256:HEX``."""

SEEN = "hashes_seen.txt"
"""Hashes of downloads whose authors publish none, as of the first download; lies beside the downloads."""

TRIES = 5
"""Connections to one address before it is given up; each goes on where the last broke off."""

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as broken."""

_BROKEN = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error, NotImplementedError)


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


def fetch(
    files: Iterable[PublicFile], downloads: Path, mirror: str | None = None, licence: str = ""
) -> dict[str, Path]:
    """Return the path of each file by name, downloaded where necessary and verified.

    Absent optional files are left out.

    A file without a publicly known hash is compared with the one of its first download, in :data:`SEEN`.

    Args:
        files: what is wanted.
        downloads: folder that keeps downloaded files, those of each mirror apart.
        mirror: a folder, whose files are read where they lie, or an address that starts with ``http://`` or
            ``https://``. Its ``registry.txt`` states the hashes, which replace the public ones.
        licence: printed before the first download.

    Raises:
        ArchiveError: a file is missing, cannot be downloaded or has another hash than stated.
    """
    if mirror is None:
        return _fetch_public(list(files), downloads / "public", licence)
    remote = mirror.startswith(("http://", "https://"))
    mirror = mirror.rstrip("/") if remote else str(Path(mirror).expanduser())
    folder = Path(mirror)
    if remote:
        folder = downloads / f"mirror-{hashlib.sha256(mirror.encode()).hexdigest()[:12]}"
        (folder / REGISTRY).unlink(missing_ok=True)  # the mirror may have changed since
        _download((f"{mirror}/{REGISTRY}",), None, folder / REGISTRY)
    hashes = _read_hashes(folder / REGISTRY)
    if not hashes:
        raise ArchiveError(f"{mirror}/{REGISTRY}: expected lines FILE sha256:HEX, but it is missing or empty")
    found = {}
    for file in files:
        path = folder / file.name
        if file.name not in hashes:
            if not file.optional:
                raise ArchiveError(
                    f"{mirror}/{REGISTRY}: expected a line for {file.name}, got {sorted(hashes)}"
                )
            continue
        if remote:
            _download((f"{mirror}/{file.name}",), hashes[file.name], path)
        elif path.is_file():
            _verify(path, hashes[file.name], REGISTRY)
        else:
            raise ArchiveError(f"{path}: expected the file that {REGISTRY} names, but it is missing")
        found[file.name] = path
    return found


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    import pooch  # late: what only reads a prepared folder needs none of it

    return pooch.file_hash(str(path))


@contextlib.contextmanager
def unpacked(archive: Path, into: Path, *, most: int = 2**36) -> Iterator[Path]:
    """Unpack a ``.zip``, ``.tar`` or ``.tgz`` into a new folder, which is removed if the block succeeds.

    If the block fails, the tree stays: the next call with the same archive takes it. What is half unpacked is
    never taken.

    Args:
        archive: the file.
        into: folder for the tree. Its name has the hash of the archive.
        most: bytes that the archive may have when unpacked.

    Raises:
        ArchiveError: an absolute path, ``..``, a link or a device; a name given twice; more than ``most``
            bytes; or an archive that is damaged or cut short. All name the archive, and nothing of it is
            left.
    """
    tree = into / f"{archive.name}-{sha256(archive)[:12]}"
    if not tree.is_dir():
        part = tree.with_name(f".{tree.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            for name, content in members(archive, most=most):
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                (part / name).write_bytes(content)
            part.replace(tree)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    yield tree
    shutil.rmtree(tree)


def members(archive: Path, *, most: int = 2**36, largest: int = 2**30) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files in a ``.zip``, ``.tar`` or ``.tgz``, with a progress bar.

    Args:
        archive: the file. A ``.tgz`` is read once, front to back and to its end, so that damage is found.
        most: bytes that all may have when unpacked.
        largest: bytes that one may have.

    Raises:
        ArchiveError: as :func:`unpacked`.
    """
    check = _Checks(archive, most, largest)
    try:
        yield from (_zip_members if zipfile.is_zipfile(archive) else _tar_members)(archive, check)
    except _BROKEN as error:
        raise ArchiveError(f"{archive.name}: expected a whole archive, got: {error}") from None


class _Checks:
    """What every entry of an archive must be, however it is packed."""

    def __init__(self, archive: Path, most: int, largest: int):
        self.most, self._archive, self._largest = most, archive.name, largest
        self._size, self._seen = 0, set()

    def __call__(self, name: str, size: int, kind: str) -> str:
        """Check an entry, ``kind`` "file", "folder" or another; return its name without ``./``."""
        path = PurePosixPath(name)
        self._size += size
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name.split("/")[0]:
            raise ArchiveError(
                f"{self._archive}: expected names inside the archive's own folder, got {name!r}"
            )
        if kind not in ("file", "folder"):
            raise ArchiveError(f"{self._archive}: expected only files and folders, got {kind} named {name!r}")
        if kind == "file" and path in self._seen:
            raise ArchiveError(f"{self._archive}: expected each file once, got {name!r} again")
        if self._size > self.most or size > self._largest:
            raise ArchiveError(
                f"{self._archive}: expected at most {self.most:,} bytes when unpacked and "
                f"{self._largest:,} in a file, got more at {name!r}"
            )
        self._seen.add(path)
        return str(path)


def _tar_members(archive: Path, check: _Checks) -> Iterator[tuple[str, bytes]]:
    with (
        archive.open("rb") as file,
        tqdm.wrapattr(file, "read", total=archive.stat().st_size, desc=archive.name, disable=None) as shown,
        gzip.GzipFile(fileobj=shown)
        if file.peek(2)[:2] == b"\x1f\x8b"
        else contextlib.nullcontext(shown) as plain,
    ):
        with tarfile.open(fileobj=plain, mode="r|") as entries:
            for entry in entries:
                odd = "a link" if entry.issym() or entry.islnk() else "a special entry"
                kind = "file" if entry.isfile() else "folder" if entry.isdir() else odd
                name = check(entry.name, entry.size, kind)
                if entry.isfile():
                    yield name, entries.extractfile(entry).read()
        left = check.most
        while chunk := plain.read(2**20):  # to the end, where gzip compares its own sum
            left -= len(chunk)
            if left < 0:
                raise ArchiveError(f"{archive.name}: expected at most {check.most:,} bytes when unpacked")


def _zip_members(archive: Path, check: _Checks) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as entries:
        names = {}
        for entry in entries.infolist():  # reading stops at the stated size, so that it can be believed
            odd = stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR)
            kind = "a link" if odd else "folder" if entry.is_dir() else "file"
            name = check(entry.orig_filename, entry.file_size, kind)
            if kind == "file":
                names[name] = entry
        for name, entry in tqdm(names.items(), desc=archive.name, disable=None):
            try:
                yield name, entries.read(entry)
            except RuntimeError as error:  # a password
                raise ArchiveError(f"{archive.name}: {name} cannot be read: {error}") from None


def _fetch_public(files: list[PublicFile], folder: Path, licence: str) -> dict[str, Path]:
    seen = _read_hashes(folder / SEEN)
    if licence and any(not (folder / file.name).is_file() for file in files):
        print(f"Licence: {licence}")
    found = {}
    for file in files:
        path, stated = folder / file.name, file.hash or seen.get(file.name)
        where = "the public hash" if file.hash else str(folder / SEEN)
        if not _download(file.addresses, stated, path, file.optional, where):
            continue
        found[file.name] = path
        if stated is None:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / SEEN).open("a", encoding="utf-8") as lines:
                lines.write(f"{file.name} sha256:{sha256(path)}\n")
            print(
                f"{file.name}: no hash is publicly known; its sha256 {sha256(path)} is now in {folder / SEEN}"
            )
    return found


def _read_hashes(path: Path) -> dict[str, str]:
    """Return the hash of each file in lines ``FILE sha256:HEX``, ``#`` before comments; {} without a file."""
    import pooch

    if not path.is_file():
        return {}
    registry = pooch.create(path=path.parent, base_url="")
    try:
        registry.load_registry(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ArchiveError(f"{path}: expected lines FILE sha256:HEX, got: {error}") from None
    return registry.registry


def _verify(path: Path, stated: str, where: str) -> None:
    import pooch

    kind, _, expected = stated.rpartition(":")
    kind = kind or "sha256"
    # md5 is what the public loaders state; here it finds damage, it is no defence against forgery.
    got = pooch.file_hash(str(path), alg=kind)
    if got != expected:
        raise ArchiveError(
            f"{path}: expected {kind}:{expected}, of {where}, got {kind}:{got}; the file is damaged or "
            f"another one"
        )


def _download(
    addresses: tuple[str, ...], stated: str | None, path: Path, optional: bool = False, where: str = REGISTRY
) -> bool:
    """Make sure that ``path`` is there and whole; False for an optional file that no address has."""
    if path.is_file():
        try:
            if stated:
                _verify(path, stated, where)
            return True
        except ArchiveError:  # damaged on disk since: only a new download helps
            path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    failures, gone = [], True
    for address in addresses:
        try:
            _get(address, path, stated, where)
            return True
        except _NotThere as error:
            failures.append(error)
        except ArchiveError as error:
            failures.append(error)
            gone = False
    if optional and gone:
        return False
    raise ArchiveError("; ".join(map(str, failures)))


class _NotThere(ArchiveError):
    """The server answers, and does not have the file."""


def _get(address: str, path: Path, stated: str | None, where: str) -> None:
    """Download one file through a ``.part`` beside it, which the next call goes on with."""
    import requests

    part = path.with_name(f".{path.name}.part")
    for attempt in range(TRIES):
        if attempt:
            time.sleep(min(2.0**attempt, TIMEOUT))
        try:
            _get_rest(address, part)
            break
        except requests.HTTPError as error:
            status = error.response.status_code
            kind = _NotThere if status in (404, 410) else ArchiveError
            if status < 500:
                raise kind(f"{address}: expected {path.name}, got status {status}") from None
            failure = error
        except requests.RequestException as error:  # refused, dropped, stalled
            failure = error
    else:
        raise ArchiveError(
            f"{address}: expected {path.name}, got after {TRIES} tries: {failure}. The same command goes on "
            f"with it. "
            "With a copy of the files, set CONSENSUS_DATA_MIRROR to its folder or address"
        )
    if stated:
        try:
            _verify(part, stated, where)
        except ArchiveError as error:
            part.unlink()
            raise ArchiveError(f"{address}: {error}") from None
    part.replace(path)


def _get_rest(address: str, part: Path) -> None:
    """Append what is missing of a file, or start anew where the server does not go on.

    Raises:
        requests.RequestException: the connection broke; what came is in ``part``.
    """
    import requests

    start = part.stat().st_size if part.exists() else 0
    # Plain bytes: a server that compresses on the fly would count others than are written.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if answer.status_code == 416:
            if total == str(start):  # all of it was there
                return
            part.unlink()
            raise requests.ConnectionError(
                f"{start:,} bytes were there, and the server has {total or 'other ones'}"
            )
        answer.raise_for_status()
        if answer.status_code != 206:
            start = 0  # the whole file comes
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            part.unlink()
            raise requests.ConnectionError(f"bytes from {start:,} on were asked for, and others came")
        length = int(answer.headers.get("Content-Length") or 0)
        with (
            part.open("ab" if start else "wb") as file,
            tqdm(desc=part.name[1:-5], initial=start, total=start + length or None, unit="B", unit_scale=True,
                 disable=None) as bar,
        ):  # fmt: skip
            for chunk in answer.iter_content(2**16):
                file.write(chunk)
                bar.update(len(chunk))
            if length and file.tell() < start + length:
                raise requests.ConnectionError(f"{file.tell():,} of {start + length:,} bytes")

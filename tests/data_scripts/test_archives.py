"""data_scripts/archives.py: downloads that break, hashes, and archives that mean harm."""

import contextlib
import gzip
import hashlib
import http.server
import tarfile
import threading
import zipfile

import pytest

import archives
from archives import SEEN, ArchiveError, PublicFile, fetch, unpacked


def sha256(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


# Unpacking


def write_zip(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)


@pytest.fixture(params=["tgz", "zip"])
def write(request, tmp_path, write_tgz):
    """Return a function that writes an archive of (name, content) pairs and returns its path."""

    def write(entries):
        path = tmp_path / f"a.{request.param}"
        (write_tgz if request.param == "tgz" else write_zip)(path, entries)
        return path

    return write


def test_unpacked_gives_the_tree_and_keeps_it_only_for_a_call_after_an_error(tmp_path, write):
    path = write([("d/one.txt", b"1"), ("./d/two.txt", b"22")])
    with pytest.raises(KeyError), unpacked(path, tmp_path / "into") as tree:
        raise KeyError
    assert {file.name: file.read_bytes() for file in (tree / "d").iterdir()} == {
        "one.txt": b"1",
        "two.txt": b"22",
    }
    (tree / "d/one.txt").write_text("the same tree")
    with unpacked(path, tmp_path / "into") as tree:
        assert (tree / "d/one.txt").read_text() == "the same tree"
    assert list((tmp_path / "into").iterdir()) == []


def refuses(path, into, named=""):
    with pytest.raises(ArchiveError, match=path.name) as caught, unpacked(path, into, most=100_000):
        pass
    assert named in str(caught.value)
    assert not into.exists() or list(into.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("../up.txt", b"x"),
        ("d/../../up.txt", b"x"),
        ("/etc/absolute.txt", b"x"),
        ("..\\up.txt", b"x"),
        ("C:/x.txt", b"x"),
        ("d/one.txt", b"given twice"),
        ("d/zeros", bytes(10**6)),  # a bomb
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unpacked_refuses_what_means_harm(tmp_path, write, name, content):
    refuses(write([("d/one.txt", b"1"), (name, content)]), tmp_path / "into", repr(name))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_unpacked_refuses_links_and_devices(tmp_path, write_tgz, kind):
    odd = tarfile.TarInfo("d/odd")
    odd.type, odd.linkname = kind, "d/one.txt"
    write_tgz(tmp_path / "a.tgz", [("d/one.txt", b"1"), odd])
    refuses(tmp_path / "a.tgz", tmp_path / "into", "d/odd")


def test_unpacked_refuses_links_in_a_zip(tmp_path):
    link = zipfile.ZipInfo("d/odd")
    link.external_attr = 0o120777 << 16
    write_zip(tmp_path / "a.zip", [(link, "/etc/passwd")])
    refuses(tmp_path / "a.zip", tmp_path / "into", "d/odd")


def test_unpacked_finds_every_cut_and_damage(tmp_path, write):
    path = write([("d/one.txt", b"1" * 600), ("d/two.txt", bytes(range(256)) * 4)])
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[44] ^= 4  # within the first file
    cuts = (content[:length] for length in range(1, len(content), 19))
    for spoilt in (damaged, *cuts):
        path.write_bytes(spoilt)
        refuses(path, tmp_path / "into")


NO_TAR = gzip.compress(b"no tar archive " * 100)


@pytest.mark.parametrize("content", [b"<html>Not found</html>", NO_TAR], ids=["html", "gzip"])
def test_unpacked_refuses_what_is_no_archive(tmp_path, content):
    (tmp_path / "a.tgz").write_bytes(content)
    refuses(tmp_path / "a.tgz", tmp_path / "into")


# A mirror in a folder

FILE = PublicFile("a.txt", ())


@pytest.fixture
def mirror(tmp_path, write_registry):
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"content")
    write_registry(folder)
    return folder


def test_fetch_reads_a_local_mirror_in_place(tmp_path, mirror):
    wanted = [FILE, PublicFile("b.txt", (), optional=True)]
    assert fetch(wanted, tmp_path / "downloads", str(mirror)) == {"a.txt": mirror / "a.txt"}
    assert not (tmp_path / "downloads").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", None),
        ("a.txt", "damaged"),
        ("registry.txt", None),
        ("registry.txt", ""),
        ("registry.txt", "a b c d e\n"),
        ("registry.txt", f"c.txt {sha256(b'content')}\n"),
    ],
)
def test_fetch_refuses_a_mirror_that_is_not_whole(tmp_path, mirror, name, content):
    (mirror / name).unlink()
    if content is not None:
        (mirror / name).write_text(content)
    with pytest.raises(ArchiveError, match=name):
        fetch([FILE], tmp_path / "downloads", str(mirror))


# Downloads


class Unreliable(http.server.BaseHTTPRequestHandler):
    """Does to each request what the next item of ``server.plan`` says, then serves as a good server does."""

    def do_GET(self):
        plan = self.server.plan.pop(0) if self.server.plan else "serve"
        content = self.server.files.get(self.path[1:])
        start = int(self.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
        self.server.asked.append((self.path[1:], start))
        if plan == "busy" or content is None:
            return self.send_error(503 if plan == "busy" else 404)
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            return self.end_headers()
        if plan == "whole" or "Range" not in self.headers:
            start = 0
            self.send_response(200)
        else:
            said = start + 5 if plan == "elsewhere" else start
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {said}-{len(content) - 1}/{len(content)}")
        rest = content[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        sent = {"lie": bytes(len(rest)), "drop": rest[:65_536], "stall": rest[:65_536]}
        with contextlib.suppress(OSError):
            self.wfile.write(sent.get(plan, rest))
        if plan == "stall":
            self.server.stalled.wait(10)

    def log_message(self, *arguments):
        pass


CONTENT = bytes(range(256)) * 1000
HASH = sha256(CONTENT)


@pytest.fixture
def server(monkeypatch):
    """A server on loopback: ``files`` by path, a ``plan``, and what was ``asked``: path and first byte."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(archives, "TIMEOUT", 0.3)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Unreliable)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.files, server.plan, server.asked = {"a.bin": CONTENT}, [], []
    server.stalled = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.stalled.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def download(tmp_path, server):
    """Return a function that fetches ``a.bin`` and returns its path."""

    def download(*names, hash=HASH, **options):
        addresses = tuple(f"{server.address}/{name}" for name in names or ["a.bin"])
        return fetch([PublicFile("a.bin", addresses, hash)], tmp_path / "downloads", **options)["a.bin"]

    return download


def test_fetch_downloads_once_and_again_when_damaged(server, download, capsys):
    md5 = f"md5:{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}"
    for _ in range(2):
        found = download("gone.bin", "a.bin", hash=md5, licence="for research")
    assert server.asked == [("gone.bin", 0), ("a.bin", 0)]
    assert capsys.readouterr().out.count("for research") == 1
    found.write_bytes(b"damaged")
    assert download(hash=md5).read_bytes() == CONTENT


def test_fetch_pins_on_first_use_what_has_no_public_hash(server, download, capsys):
    path = download(hash=None)
    assert path.with_name(SEEN).read_text() == f"a.bin {HASH}\n"
    assert SEEN in capsys.readouterr().out
    path.unlink()
    server.files["a.bin"] = b"another"
    with pytest.raises(ArchiveError, match=SEEN):
        download(hash=None)
    assert [file.name for file in path.parent.iterdir()] == [SEEN]


def test_fetch_leaves_out_absent_optional_files_only(tmp_path, server):
    missing = (f"{server.address}/b.txt",)
    assert fetch([PublicFile("b.txt", missing, optional=True)], tmp_path / "downloads") == {}
    with pytest.raises(ArchiveError, match=r"b\.txt.* 404"):
        fetch([PublicFile("b.txt", missing)], tmp_path / "downloads")


@pytest.mark.parametrize("optional", [False, True])
def test_fetch_says_what_to_do_without_network(tmp_path, monkeypatch, optional):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(archives, "TRIES", 2)
    monkeypatch.setattr(archives, "TIMEOUT", 0.1)
    file = PublicFile("b.txt", ("http://127.0.0.1:9/b.txt",), optional=optional)  # nobody listens there
    with pytest.raises(ArchiveError, match="CONSENSUS_DATA_MIRROR"):
        fetch([file], tmp_path / "downloads")


def test_mirrors_and_the_public_files_are_kept_apart(server, download):
    for content in (b"content", b"new content"):  # a mirror may change
        server.files |= {"m/a.bin": content, "m/registry.txt": f"a.bin {sha256(content)}\n".encode()}
        assert download(mirror=f"{server.address}/m/").read_bytes() == content
    assert download().read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("plan", "starts"),
    [
        (["drop", "serve"], [0, 65_536]),
        (["stall", "drop", "serve"], [0, 65_536, 131_072]),
        (["busy", "serve"], [0, 0]),
        (["drop", "whole"], [0, 65_536]),  # a server that cannot go on
        (["drop", "elsewhere", "serve"], [0, 65_536, 0]),  # one that gives other bytes than asked for
    ],
)
def test_a_broken_download_goes_on(server, download, plan, starts):
    server.plan = plan
    assert download().read_bytes() == CONTENT
    assert server.asked == [("a.bin", start) for start in starts]


def test_a_download_that_was_given_up_goes_on_in_the_next_call(server, download, monkeypatch):
    monkeypatch.setattr(archives, "TRIES", 1)
    server.plan = ["drop"]
    with pytest.raises(ArchiveError, match=r"a\.bin"):
        download()
    path = download()
    assert server.asked == [("a.bin", 0), ("a.bin", 65_536)]
    assert [file.name for file in path.parent.iterdir()] == ["a.bin"]
    path.rename(path.with_name(".a.bin.part"))  # all of it was there, but not yet renamed
    assert download().read_bytes() == CONTENT


def test_a_server_that_lies_is_found_out(server, download):
    server.plan = ["drop", "lie", "serve"]
    with pytest.raises(ArchiveError, match=r"a\.bin"):
        download()
    assert download().read_bytes() == CONTENT

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


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_unpacked_gives_the_tree_and_removes_it(tmp_path, write):
    path = write([("d/one.txt", b"1"), ("./d/two.txt", b"22")])
    with unpacked(path, tmp_path / "into") as tree:
        assert files(tree) == {"d/one.txt": b"1", "d/two.txt": b"22"}
    assert list((tmp_path / "into").iterdir()) == []


def test_unpacked_keeps_the_tree_for_the_next_call_after_an_error(tmp_path, write):
    path = write([("one.txt", b"1")])
    with pytest.raises(KeyError), unpacked(path, tmp_path / "into") as tree:
        raise KeyError
    (tree / "one.txt").write_text("the same tree")
    with unpacked(path, tmp_path / "into") as tree:
        assert files(tree) == {"one.txt": b"the same tree"}


def refuses(path, into, named, **options):
    with pytest.raises(ArchiveError, match=named) as caught, unpacked(path, into, **options):
        pass
    assert path.name in str(caught.value)
    assert not into.exists() or list(into.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../up.txt", "d/../../up.txt", "/etc/absolute.txt", "..\\up.txt", "C:/x.txt"]
)
def test_unpacked_refuses_names_outside(tmp_path, write, name):
    refuses(write([("d/one.txt", b"1"), (name, b"x")]), tmp_path / "into", "own folder")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unpacked_refuses_a_name_given_twice(tmp_path, write):
    refuses(write([("d/one.txt", b"1"), ("d/one.txt", b"2")]), tmp_path / "into", r"d/one\.txt' again")


def test_unpacked_refuses_a_bomb(tmp_path, write):
    path = write([("d/zeros", bytes(10**6))])
    assert path.stat().st_size < 2000
    refuses(path, tmp_path / "into", "at most 100,000 bytes", most=100_000)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_unpacked_refuses_links_and_devices(tmp_path, write_tgz, kind):
    odd = tarfile.TarInfo("d/odd")
    odd.type, odd.linkname = kind, "d/one.txt"
    write_tgz(tmp_path / "a.tgz", [("d/one.txt", b"1"), odd])
    refuses(tmp_path / "a.tgz", tmp_path / "into", "d/odd")
    link = zipfile.ZipInfo("d/odd")
    link.external_attr = 0o120777 << 16
    write_zip(tmp_path / "a.zip", [(link, "/etc/passwd")])
    refuses(tmp_path / "a.zip", tmp_path / "into", "d/odd")


def test_unpacked_finds_every_cut_and_damage(tmp_path, write):
    path = write([("d/one.txt", b"1" * 600), ("d/two.txt", bytes(range(256)) * 4)])
    content = path.read_bytes()
    for length in range(1, len(content), 19):
        path.write_bytes(content[:length])
        refuses(path, tmp_path / "into", "whole archive")
    damaged = bytearray(content)
    damaged[44] ^= 4  # within the first file
    path.write_bytes(damaged)
    refuses(path, tmp_path / "into", "whole archive")


@pytest.mark.parametrize("content", [b"<html>Not found</html>", gzip.compress(b"no tar archive " * 100)])
def test_unpacked_refuses_what_is_no_archive(tmp_path, content):
    (tmp_path / "a.tgz").write_bytes(content)
    refuses(tmp_path / "a.tgz", tmp_path / "into", "whole archive")


# Fetching


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"content")
    return folder


def test_fetch_reads_a_local_mirror_in_place_and_leaves_it_alone(tmp_path, folder, write_registry):
    write_registry(folder)
    wanted = [PublicFile("a.txt", ()), PublicFile("b.txt", (), optional=True)]
    assert fetch(wanted, tmp_path / "downloads", str(folder)) == {"a.txt": folder / "a.txt"}
    assert not (tmp_path / "downloads").exists()
    (folder / "a.txt").write_bytes(b"damaged")
    with pytest.raises(ArchiveError, match=r"a\.txt: expected sha256:\w+, of registry\.txt, got"):
        fetch(wanted, tmp_path / "downloads", str(folder))
    (folder / "a.txt").unlink()
    with pytest.raises(ArchiveError, match=r"a\.txt.*missing"):
        fetch(wanted, tmp_path / "downloads", str(folder))
    with pytest.raises(ArchiveError, match=r"expected a line for c\.txt"):
        fetch([PublicFile("c.txt", ())], tmp_path / "downloads", str(folder))


@pytest.mark.parametrize("text", ["", "a.txt", "a b c d e\n"])
def test_fetch_refuses_a_mirror_without_hashes(tmp_path, folder, text):
    (folder / "registry.txt").write_text(text)
    with pytest.raises(ArchiveError, match=r"registry\.txt: expected lines"):
        fetch([PublicFile("a.txt", ())], tmp_path / "downloads", str(folder))


def test_fetch_downloads_once_and_again_when_damaged(tmp_path, folder, serve, capsys):
    address, requested = serve(folder)
    md5 = hashlib.md5(b"content", usedforsecurity=False).hexdigest()
    file = PublicFile("a.txt", (f"{address}/gone.txt", f"{address}/a.txt"), f"md5:{md5}")
    for _ in range(2):
        found = fetch([file], tmp_path / "downloads", licence="for research")
        assert found["a.txt"].read_bytes() == b"content"
    assert requested == ["gone.txt", "a.txt"]
    assert capsys.readouterr().out.count("Licence: for research") == 1
    found["a.txt"].write_bytes(b"damaged")
    assert fetch([file], tmp_path / "downloads")["a.txt"].read_bytes() == b"content"


def test_fetch_pins_on_first_use_what_has_no_public_hash(tmp_path, folder, serve, capsys):
    file = PublicFile("a.txt", (f"{serve(folder)[0]}/a.txt",))
    path = fetch([file], tmp_path / "downloads")["a.txt"]
    assert path.with_name(SEEN).read_text() == f"a.txt {sha256(b'content')}\n"
    assert SEEN in capsys.readouterr().out
    path.unlink()
    (folder / "a.txt").write_bytes(b"another")
    with pytest.raises(ArchiveError, match=SEEN):
        fetch([file], tmp_path / "downloads")
    assert [p.name for p in path.parent.iterdir()] == [SEEN]


def test_fetch_leaves_out_absent_optional_files_only(tmp_path, folder, serve):
    missing = (f"{serve(folder)[0]}/b.txt",)
    assert fetch([PublicFile("b.txt", missing, optional=True)], tmp_path / "downloads") == {}
    with pytest.raises(ArchiveError, match=r"b\.txt, got status 404"):
        fetch([PublicFile("b.txt", missing)], tmp_path / "downloads")


@pytest.mark.parametrize("optional", [False, True])
def test_fetch_says_what_to_do_without_network(tmp_path, monkeypatch, optional):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(archives, "TRIES", 2)
    monkeypatch.setattr(archives, "TIMEOUT", 0.1)
    file = PublicFile("b.txt", ("http://127.0.0.1:9/b.txt",), optional=optional)  # nobody listens there
    with pytest.raises(ArchiveError, match="set CONSENSUS_DATA_MIRROR"):
        fetch([file], tmp_path / "downloads")


def test_mirrors_and_the_public_files_are_kept_apart(tmp_path, folder, serve, write_registry):
    public = tmp_path / "public"
    public.mkdir()
    (public / "a.txt").write_bytes(b"public content")
    file = PublicFile("a.txt", (f"{serve(public)[0]}/a.txt",))
    address, _ = serve(folder)
    for content in (b"content", b"new content"):  # a mirror may change
        (folder / "a.txt").write_bytes(content)
        write_registry(folder)
        assert fetch([file], tmp_path / "downloads", f"{address}/")["a.txt"].read_bytes() == content
    assert fetch([file], tmp_path / "downloads")["a.txt"].read_bytes() == b"public content"


# Connections that break

CONTENT = bytes(range(256)) * 1000


class Unreliable(http.server.BaseHTTPRequestHandler):
    """Does to each request what the next item of ``server.plan`` says, then serves as a good server does."""

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
        plan = self.server.plan.pop(0) if self.server.plan else "serve"
        self.server.starts.append(start)
        if plan == "busy":
            return self.send_error(503)
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            return self.end_headers()
        if plan == "whole":
            start = 0
        said = start + 5 if plan == "elsewhere" else start
        self.send_response(206 if "Range" in self.headers and plan != "whole" else 200)
        if "Range" in self.headers and plan != "whole":
            self.send_header("Content-Range", f"bytes {said}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        rest = CONTENT[start:]
        with contextlib.suppress(OSError):
            self.wfile.write(
                bytes(len(rest)) if plan == "lie" else rest[:65_536] if plan in ("drop", "stall") else rest
            )
        if plan == "stall":
            self.server.stalled.wait(10)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def unreliable(monkeypatch):
    """Return a function that starts a server with a plan."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(archives, "TIMEOUT", 0.3)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Unreliable)
    server.starts, server.stalled = [], threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def plan(*steps):
        server.plan = list(steps)
        return f"http://127.0.0.1:{server.server_port}/a.bin", server.starts

    yield plan
    server.stalled.set()
    server.shutdown()
    thread.join()
    server.server_close()


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
def test_a_broken_download_goes_on(tmp_path, unreliable, plan, starts):
    address, got = unreliable(*plan)
    file = PublicFile("a.bin", (address,), sha256(CONTENT))
    assert fetch([file], tmp_path / "downloads")["a.bin"].read_bytes() == CONTENT
    assert got == starts
    assert not list((tmp_path / "downloads/public").glob(".*"))


def test_a_download_that_was_given_up_goes_on_in_the_next_call(tmp_path, unreliable, monkeypatch):
    monkeypatch.setattr(archives, "TRIES", 1)
    address, got = unreliable("drop")
    file = PublicFile("a.bin", (address,), sha256(CONTENT))
    with pytest.raises(ArchiveError, match="goes on with it"):
        fetch([file], tmp_path / "downloads")
    assert fetch([file], tmp_path / "downloads")["a.bin"].read_bytes() == CONTENT
    assert got == [0, 65_536]
    part = tmp_path / "downloads/public/.a.bin.part"
    (tmp_path / "downloads/public/a.bin").rename(part)  # all of it was there, but not yet renamed
    assert fetch([file], tmp_path / "downloads")["a.bin"].read_bytes() == CONTENT


def test_a_server_that_lies_is_found_out(tmp_path, unreliable):
    address, _ = unreliable("drop", "lie", "serve")
    file = PublicFile("a.bin", (address,), sha256(CONTENT))
    with pytest.raises(ArchiveError, match=r"a\.bin: .*damaged or another one"):
        fetch([file], tmp_path / "downloads")
    assert fetch([file], tmp_path / "downloads")["a.bin"].read_bytes() == CONTENT

"""data_scripts/archives.py: fetching, hashes, and archives that mean harm."""

import gzip
import hashlib
import io
import tarfile

import pytest

import archives
from archives import ArchiveError, PublicFile, fetch, members, parse_registry


def everything(name):
    return True


def header(name, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def sha256(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


# Reading archives


def test_members_yields_wanted_files_only(tmp_path, write_tgz):
    path = tmp_path / "a.tgz"
    write_tgz(path, [header("d", tarfile.DIRTYPE), ("d/one.txt", b"1"), ("./d/two.txt", b"22"), ("x", b"")])
    assert dict(members(path, lambda name: name.endswith(".txt"))) == {"d/one.txt": b"1", "d/two.txt": b"22"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (("../up.txt", b"x"), "inside the archive's own folder, got '../up.txt'"),
        (("d/../../up.txt", b"x"), "inside the archive's own folder"),
        (("/etc/absolute.txt", b"x"), "inside the archive's own folder, got '/etc/absolute.txt'"),
        (("..\\up.txt", b"x"), "inside the archive's own folder"),
        (
            header("d/link", tarfile.SYMTYPE, "/etc/passwd"),
            "only files and folders, got a link named 'd/link'",
        ),
        (header("d/hard", tarfile.LNKTYPE, "d/one.txt"), "only files and folders, got a link named 'd/hard'"),
        (header("d/device", tarfile.CHRTYPE), "only files and folders, got a special entry named 'd/device'"),
        (header("d/pipe", tarfile.FIFOTYPE), "only files and folders, got a special entry named 'd/pipe'"),
    ],
)
def test_members_refuses_hostile_entries_even_unwanted(tmp_path, write_tgz, entry, message):
    path = tmp_path / "hostile.tgz"
    write_tgz(path, [("d/one.txt", b"1"), entry])
    with pytest.raises(ArchiveError) as caught:
        list(members(path, lambda name: False))
    assert message in str(caught.value)
    assert "hostile.tgz" in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["hostile.tgz"]


def test_members_refuses_a_name_given_twice(tmp_path, write_tgz):
    path = tmp_path / "a.tgz"
    write_tgz(path, [("d/one.txt", b"1"), ("d/./one.txt", b"2")])
    with pytest.raises(ArchiveError, match=r"a\.tgz: expected each file once, got d/one\.txt again"):
        list(members(path, everything))


def test_members_keeps_to_its_limits(tmp_path, write_tgz):
    path = tmp_path / "bomb.tgz"
    write_tgz(path, [("d/zeros", bytes(10**6))])
    assert path.stat().st_size < 2000
    with pytest.raises(ArchiveError, match=r"at most 1,000 bytes in d/zeros, got 1,000,000"):
        list(members(path, everything, largest=1000))
    with pytest.raises(ArchiveError, match=r"at most 100,000 bytes when decompressed"):
        list(members(path, lambda name: False, total=100_000))


def test_members_finds_every_cut(tmp_path, write_tgz):
    """Wherever the file ends too early, even between two entries, it is noticed."""
    whole = tmp_path / "whole.tgz"
    write_tgz(whole, [("d/one.txt", b"1" * 600), ("d/two.txt", b"2" * 600)])
    content = whole.read_bytes()
    cut = tmp_path / "cut.tgz"
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        with pytest.raises(ArchiveError, match=r"cut\.tgz: expected"):
            list(members(cut, everything))


def test_members_finds_damage(tmp_path, write_tgz):
    path = tmp_path / "a.tgz"
    path.write_bytes(b"<html>Not found</html>")
    with pytest.raises(ArchiveError, match=r"a\.tgz: expected a whole \.tgz archive, got: Not a gzip"):
        list(members(path, everything))
    path.write_bytes(gzip.compress(b"no tar archive " * 100))
    with pytest.raises(ArchiveError, match=r"a\.tgz: expected a whole \.tgz archive"):
        list(members(path, everything))


def test_members_finds_an_unreadable_header_in_the_middle(tmp_path):
    """tarfile itself would stop there without a word."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name in ("one", "two", "three"):
            archive.addfile(header(name))
    damaged = bytearray(plain.getvalue())
    damaged[512 + 150] ^= 1  # in the second header's checksum
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(bytes(damaged)))
    with pytest.raises(ArchiveError, match="expected a tar header at byte 512"):
        list(members(path, everything))


# Registries


def test_parse_registry():
    text = f"# a mirror\n\na.txt sha256:{'A' * 64}  # upper case\nb.txt md5:{'0' * 32}\n"
    assert parse_registry(text, "r") == {"a.txt": f"sha256:{'a' * 64}", "b.txt": f"md5:{'0' * 32}"}


@pytest.mark.parametrize("line", ["a.txt", "a.txt sha256:abc", "a.txt " + "0" * 64, f"a b md5:{'0' * 32}"])
def test_parse_registry_names_a_malformed_line(line):
    with pytest.raises(ArchiveError, match="r, line 2: expected FILE sha256:HEX, got"):
        parse_registry(f"\n{line}\n", "r")


def test_parse_registry_refuses_a_file_given_twice():
    line = f"a.txt md5:{'0' * 32}\n"
    with pytest.raises(ArchiveError, match=r"r, line 2: expected each file once, got a\.txt again"):
        parse_registry(2 * line, "r")


# Fetching


@pytest.fixture
def server_folder(tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"content")
    return folder


def test_fetch_reads_a_local_mirror_in_place(tmp_path, server_folder, write_registry):
    write_registry(server_folder)
    found = fetch([PublicFile("a.txt", ())], tmp_path / "downloads", str(server_folder))
    assert found["a.txt"].path == server_folder / "a.txt"
    assert found["a.txt"].pinned
    assert not (tmp_path / "downloads").exists()


def test_fetch_leaves_a_damaged_local_mirror_alone(tmp_path, server_folder, write_registry):
    write_registry(server_folder)
    (server_folder / "a.txt").write_bytes(b"damaged")
    with pytest.raises(ArchiveError, match=f"expected {sha256(b'content')}, got {sha256(b'damaged')}"):
        fetch([PublicFile("a.txt", ())], tmp_path / "downloads", str(server_folder))
    assert (server_folder / "a.txt").read_bytes() == b"damaged"


def test_fetch_downloads_once_and_again_when_damaged(tmp_path, server_folder, serve):
    address, requested = serve(server_folder)
    md5 = hashlib.md5(b"content", usedforsecurity=False).hexdigest()
    file = PublicFile("a.txt", (f"{address}/a.txt",), f"md5:{md5}")
    for _ in range(2):
        found = fetch([file], tmp_path / "downloads")
        assert found["a.txt"].path.read_bytes() == b"content"
        assert found["a.txt"].sha256 == hashlib.sha256(b"content").hexdigest()
    assert requested == ["a.txt"]
    found["a.txt"].path.write_bytes(b"damaged")
    assert fetch([file], tmp_path / "downloads")["a.txt"].path.read_bytes() == b"content"
    assert requested == ["a.txt", "a.txt"]


def test_fetch_keeps_no_download_with_another_hash(tmp_path, server_folder, serve):
    address, _ = serve(server_folder)
    file = PublicFile("a.txt", (f"{address}/a.txt",), sha256(b"something else"))
    with pytest.raises(ArchiveError, match=rf"{address}/a\.txt: expected .*, got {sha256(b'content')}"):
        fetch([file], tmp_path / "downloads")
    assert list((tmp_path / "downloads/public").iterdir()) == []


def test_fetch_tries_addresses_in_order(tmp_path, server_folder, serve):
    address, requested = serve(server_folder)
    file = PublicFile("a.txt", (f"{address}/gone.txt", f"{address}/a.txt"))
    assert not fetch([file], tmp_path / "downloads")["a.txt"].pinned
    assert requested == ["gone.txt", "a.txt"]


def test_fetch_leaves_out_absent_optional_files_only(tmp_path, server_folder, serve):
    address, _ = serve(server_folder)
    missing = (f"{address}/b.txt",)
    assert fetch([PublicFile("b.txt", missing, optional=True)], tmp_path / "downloads") == {}
    with pytest.raises(ArchiveError, match=rf"{address}/b\.txt: expected b\.txt, got status 404"):
        fetch([PublicFile("b.txt", missing)], tmp_path / "downloads")


def test_fetch_says_what_to_do_without_network(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    address = "http://127.0.0.1:9/b.txt"  # the discard port: nobody listens
    for optional in (False, True):  # an optional file may be absent; not knowing is another matter
        with pytest.raises(ArchiveError, match="set CONSENSUS_DATA_MIRROR"):
            fetch([PublicFile("b.txt", (address,), optional=optional)], tmp_path / "downloads")


def test_fetch_does_not_take_a_mirror_file_for_the_public_one(tmp_path, server_folder, serve, write_registry):
    public = tmp_path / "public"
    public.mkdir()
    (public / "a.txt").write_bytes(b"public content")
    file = PublicFile("a.txt", (f"{serve(public)[0]}/a.txt",))  # no hash is known that would tell them apart
    write_registry(server_folder)
    mirrored = fetch([file], tmp_path / "downloads", f"{serve(server_folder)[0]}/")
    assert mirrored["a.txt"].path.read_bytes() == b"content"
    assert fetch([file], tmp_path / "downloads")["a.txt"].path.read_bytes() == b"public content"


def test_fetch_sees_that_a_mirror_changed(tmp_path, server_folder, serve, write_registry):
    address, _ = serve(server_folder)
    for content in (b"content", b"new content"):
        (server_folder / "a.txt").write_bytes(content)
        write_registry(server_folder)
        found = fetch([PublicFile("a.txt", ())], tmp_path / "downloads", address)
        assert found["a.txt"].path.read_bytes() == content


def test_fetch_overwrites_what_a_killed_download_left(tmp_path, server_folder, serve):
    address, _ = serve(server_folder)
    folder = tmp_path / "downloads/public"
    folder.mkdir(parents=True)
    (folder / ".a.txt.part").write_bytes(b"half of a much longer content")
    fetch([PublicFile("a.txt", (f"{address}/a.txt",))], tmp_path / "downloads")
    assert [path.name for path in folder.iterdir()] == ["a.txt"]
    assert (folder / "a.txt").read_bytes() == b"content"


@pytest.mark.parametrize("absent", ["registry", "folder"])
def test_fetch_names_a_missing_registry(tmp_path, server_folder, absent):
    mirror = server_folder if absent == "registry" else tmp_path / "nowhere"
    with pytest.raises(ArchiveError, match=r"registry\.txt: expected the hashes of the mirror's files"):
        fetch([PublicFile("a.txt", ())], tmp_path / "downloads", str(mirror))


def test_network_libraries_are_loaded_late():
    assert not {"pooch", "requests"} & set(vars(archives))

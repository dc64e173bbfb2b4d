"""data_scripts/prepare_lfw_part_labels.py, on tiny archives in the real layout, and on real ones if at hand.

Ann has two images in two splits (the original lists have such people), Bob is in the validation list, and two
photographs of Cleo Öz have no labels.
"""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import prepare_lfw_part_labels as lfw
from consensus_lib.data.folder import DatasetError, check_files, read_index, read_info

CHECKOUT = Path(__file__).resolve().parents[2]
PALETTE = np.array([(0, 0, 255), (0, 255, 0), (255, 0, 0)], np.uint8)
LISTS = {"train": "Ann_Lee 1\n", "validation": "Bob 12\n", "test": "Ann_Lee 3\n"}
LISTED = ("Ann_Lee_0001", "Ann_Lee_0003", "Bob_0012")
UNLISTED = ("Cleo_Öz_0001", "Cleo_Öz_0002")


def draw_labels(seed):
    """Draw a face with hair as class numbers, [250, 250]; each seed has it somewhere else."""
    row, column = np.mgrid[:250, :250] + 0.5
    down, right = np.random.default_rng(seed).integers(-40, 40, 2)
    labels = np.zeros((250, 250), np.uint8)
    labels[(row - 110 - down) ** 2 + (column - 125 - right) ** 2 < 70**2] = 2
    labels[(row - 130 - down) ** 2 + (column - 125 - right) ** 2 < 60**2] = 1
    return labels


def encode(pixels, kind, **options):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


def photograph(seed):
    """Return a JPEG whose colours are those of its labels, so that any shift between the two shows."""
    return encode(PALETTE[draw_labels(seed)], "JPEG", quality=95, subsampling=0)


def label_image(seed):
    return encode(PALETTE[draw_labels(seed)], "PPM")


def superpixel_map(seed):
    numbers = draw_labels(seed).astype(int) + 1000 * seed
    return "".join(" ".join(map(str, line)) + "\n" for line in numbers.tolist()).encode()


def photograph_name(id):
    return f"lfw_funneled/{id[:-5]}/{id}.jpg"


def label_name(id):
    return f"parts_lfw_funneled_gt_images/{id}.ppm"


def superpixel_name(id):
    return f"parts_lfw_funneled_superpixels_mat/{id[:-5]}/{id}.dat"


class Mirror:
    """The files of a tiny distribution: change them, then :meth:`write`."""

    def __init__(self, folder, write_tgz, write_registry):
        self.folder, self._write_tgz, self._write_registry = folder, write_tgz, write_registry
        self.photographs = {photograph_name(id): photograph(n) for n, id in enumerate((*LISTED, *UNLISTED))}
        self.photographs["lfw_funneled/pairs_01.txt"] = b"not a photograph"
        self.labels = {label_name(id): label_image(n) for n, id in enumerate(LISTED)}
        self.superpixels = {}
        self.lists = dict(LISTS)

    def write(self):
        self.folder.mkdir(exist_ok=True)
        for split, lines in self.lists.items():
            (self.folder / f"parts_{split}.txt").write_text(lines, encoding="utf-8")
        self._write_tgz(self.folder / "lfw-funneled.tgz", self.photographs.items())
        self._write_tgz(self.folder / "parts_lfw_funneled_gt_images.tgz", self.labels.items())
        if self.superpixels:
            self._write_tgz(self.folder / "parts_lfw_funneled_superpixels_mat.tgz", self.superpixels.items())
        self._write_registry(self.folder)
        return str(self.folder)


@pytest.fixture
def mirror(tmp_path, write_tgz, write_registry):
    return Mirror(tmp_path / "mirror", write_tgz, write_registry)


@pytest.fixture
def out(tmp_path):
    """Return a folder to make in a folder of its own, where left-overs show."""
    (tmp_path / "made").mkdir()
    return tmp_path / "made" / "lfw"


def read(folder, name):
    with Image.open(folder / name) as image:
        return np.asarray(image)


# What is made


def test_index_and_description(mirror, out, capsys):
    info = lfw.prepare(out, 128, mirror=mirror.write())
    assert info == read_info(out)
    assert info.counts == {"train": 1, "validation": 1, "test": 1, "unlabelled": 2}
    assert (info.classes, info.size) == (("background", "face", "hair"), 128)
    assert info.notes["shared_subjects"] == 1
    assert info.notes["subjects_also_unlabelled"] == {"train": 0, "validation": 0, "test": 0}
    assert info.notes["mirror"] is True
    assert info.notes["superpixels"] is False
    assert set(info.notes["archives"]) == {file.name for file in lfw.FILES} - {lfw.SUPERPIXELS.name}
    assert all(value.startswith("sha256:") for value in info.notes["archives"].values())
    assert str(mirror.folder) not in (out / "dataset.json").read_text()  # no path of this machine
    rows = {row.id: row for row in read_index(out)}
    assert {id: row.split for id, row in rows.items()} == {
        "Ann_Lee_0001": "train",
        "Ann_Lee_0003": "test",
        "Bob_0012": "validation",
        "Cleo_Öz_0001": "unlabelled",
        "Cleo_Öz_0002": "unlabelled",
    }
    assert rows["Ann_Lee_0001"].subject == "Ann_Lee"
    assert rows["Cleo_Öz_0002"].labels == rows["Bob_0012"].superpixels == ""
    said = capsys.readouterr().out
    assert "5 images (1 train, 1 validation, 1 test, 2 unlabelled)" in said
    assert "1 people stand in more than one split, such as Ann_Lee" in said
    assert "superpixels_mat.tgz: not available" in said


def test_people_with_unlabelled_photographs_as_well_are_counted(mirror, out, capsys):
    for id in ("Ann_Lee_0002", "Bob_0001", "Bob_0002"):
        mirror.photographs[photograph_name(id)] = photograph(3)
    info = lfw.prepare(out, 32, mirror=mirror.write())
    assert info.notes["shared_subjects"] == 1
    assert info.notes["subjects_also_unlabelled"] == {"train": 1, "validation": 1, "test": 1}
    said = capsys.readouterr().out
    assert "people with unlabelled photographs as well: 1 of train, 1 of validation, 1 of test" in said
    assert "1 people stand in more than one split, such as Ann_Lee" in said
    without = lfw.prepare(out.with_name("few"), 32, unlabelled=False, mirror=str(mirror.folder))
    assert without.notes["subjects_also_unlabelled"] == {"train": 0, "validation": 0, "test": 0}


@pytest.mark.parametrize("size", [64, 125, 128, 250])
def test_images_and_labels_stay_aligned(mirror, out, size):
    lfw.prepare(out, size, mirror=mirror.write())
    for row in read_index(out):
        image = read(out, row.image).astype(int)
        assert image.shape == (size, size, 3)
        if row.labels:
            labels = read(out, row.labels)
            distance = np.abs(image[:, :, None] - PALETTE.astype(int)).sum(axis=3)  # [size, size, 3]
            agree = distance.argmin(axis=2) == labels
            # One pixel of shift would leave about 97% at size 64.
            assert agree.mean() > 0.99
            assert set(np.unique(labels)) == {0, 1, 2}


def test_reducing_does_not_alias(mirror, out):
    stripes = np.zeros((250, 250, 3), np.uint8)
    stripes[:, ::2] = 255
    mirror.photographs[photograph_name("Bob_0012")] = encode(stripes, "JPEG", quality=95)
    lfw.prepare(out, 100, mirror=mirror.write())
    assert np.abs(read(out, "images/Bob_0012.jpg")[:, 5:-5].astype(int) - 128).max() < 16  # even grey


def test_source_size_keeps_bytes_and_labels(mirror, out):
    lfw.prepare(out, 250, mirror=mirror.write())
    for n, id in enumerate(LISTED):
        assert (out / f"images/{id}.jpg").read_bytes() == mirror.photographs[photograph_name(id)]
        assert np.array_equal(read(out, f"labels/{id}.png"), draw_labels(n))


def test_superpixels_are_kept_where_there_are_some(mirror, out, capsys):
    mirror.superpixels = {superpixel_name(id): superpixel_map(n) for n, id in enumerate(LISTED[:2], 3)}
    info = lfw.prepare(out, 250, mirror=mirror.write())
    assert info.notes["superpixels"] is True
    assert np.array_equal(read(out, "superpixels/Ann_Lee_0001.png"), draw_labels(3).astype(int) + 3000)
    assert [bool(row.superpixels) for row in read_index(out)] == [True, True, False, False, False]
    assert "2 with superpixels" in capsys.readouterr().out


def test_superpixels_are_reduced_like_labels(mirror, out):
    mirror.superpixels = {superpixel_name(id): superpixel_map(n) for n, id in enumerate(LISTED)}
    lfw.prepare(out, 99, mirror=mirror.write())
    for n, id in enumerate(LISTED):
        same = read(out, f"superpixels/{id}.png") - 1000 * n == read(out, f"labels/{id}.png")
        assert same.mean() > 0.995  # but for edges: one is the larger mask, the other the larger area


def test_unlabelled_photographs_can_be_left_out(mirror, out):
    assert lfw.prepare(out, 32, unlabelled=False, mirror=mirror.write()).counts == {
        "train": 1,
        "validation": 1,
        "test": 1,
    }


def test_labels_without_a_list_are_not_even_decoded(mirror, out):
    mirror.labels[label_name("Dan_0001")] = b"junk"
    lfw.prepare(out, 32, mirror=mirror.write())


# Called again


def test_second_call_does_nothing(mirror, out, capsys):
    lfw.prepare(out, 32, mirror=mirror.write())
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    capsys.readouterr()
    lfw.prepare(out, 32, mirror="/nowhere")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert "is prepared already: 5 images" in capsys.readouterr().out


@pytest.mark.parametrize("options", [{"size": 64}, {"size": 32, "unlabelled": False}])
def test_another_data_set_is_not_overwritten(mirror, out, options):
    lfw.prepare(out, 32, mirror=mirror.write())
    with pytest.raises(DatasetError, match=r"expected name, size .*choose another --out"):
        lfw.prepare(out, mirror=str(mirror.folder), **options)


@pytest.mark.parametrize("recipe", [None, {"labels": "nearest"}])
def test_one_of_an_earlier_recipe_is_to_be_prepared_again(mirror, out, recipe):
    lfw.prepare(out, 32, mirror=mirror.write())
    described = json.loads((out / "dataset.json").read_text())
    described["notes"].pop("recipe")
    described["notes"] |= {"recipe": recipe} if recipe else {}
    (out / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(DatasetError, match=r"lfw: expected samples made by .*remove the folder and prepare"):
        lfw.prepare(out, 32, mirror=str(mirror.folder))


def test_damage_done_since_is_named(mirror, out):
    lfw.prepare(out, 32, mirror=mirror.write())
    (out / "images/Bob_0012.jpg").unlink()
    with pytest.raises(DatasetError, match=r"images/Bob_0012\.jpg: expected the file that index\.csv names"):
        lfw.prepare(out, 32, mirror=str(mirror.folder))


def test_a_folder_of_something_else_is_left_alone(mirror, out):
    out.mkdir()
    (out / "thesis.tex").touch()
    with pytest.raises(DatasetError, match=r"expected a prepared data set .* dataset\.json is missing"):
        lfw.prepare(out, 32, mirror=mirror.write())
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_interrupted_is_taken_up(mirror, out, monkeypatch, capsys):
    decoded = []

    def interrupt_at_third(name, content):
        decoded.append(name)
        if len(decoded) == 3:
            raise KeyboardInterrupt
        return decode(name, content)

    decode = lfw.decode_photograph
    monkeypatch.setattr(lfw, "decode_photograph", interrupt_at_third)
    monkeypatch.setenv("CONSENSUS_DATA_MIRROR", mirror.write())
    assert lfw.main(["--out", str(out), "--size", "32"]) == 130
    assert not out.exists()
    assert "the same command takes it up again" in capsys.readouterr().err
    assert lfw.main(["--out", str(out), "--size", "32"]) == 0
    assert len(decoded) == 3 + 3  # five images; the third was started twice
    assert "2 images were there from an interrupted run" in capsys.readouterr().out
    whole = out.with_name("whole")
    lfw.prepare(whole, 32, mirror=str(mirror.folder))
    names = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    assert names == {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
    assert all((out / name).read_bytes() == (whole / name).read_bytes() for name in names)


@pytest.mark.parametrize("change", ["archives", "recipe"])
def test_interrupted_under_other_conditions_is_started_anew(mirror, out, monkeypatch, change, capsys):
    def interrupt_at_end(ids, found, archive):
        if archive == lfw.PHOTOGRAPHS.name:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lfw, "_check_all_found", interrupt_at_end)
        with pytest.raises(KeyboardInterrupt):
            lfw.prepare(out, 32, mirror=mirror.write())
    assert len(list(out.with_name(".lfw.partial").glob("images/*"))) == 5
    if change == "archives":
        mirror.photographs[photograph_name("Bob_0012")] = photograph(99)
    else:
        monkeypatch.setattr(lfw, "_RECIPE", {"photographs": "bicubic"})
    lfw.prepare(out, 32, mirror=mirror.write())
    assert "interrupted run" not in capsys.readouterr().out


# The real script, slowed down so that a busy machine cannot finish it before the signal comes, and deaf to
# no signal: a shell starts background jobs with SIGINT ignored.
SLOWLY = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import prepare_lfw_part_labels as lfw
from consensus_lib.data.writer import DatasetWriter
add = DatasetWriter.add
DatasetWriter.add = lambda *arguments, **options: (add(*arguments, **options), time.sleep(0.02))
sys.exit(lfw.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_process_is_taken_up(mirror, out, by):
    mirror.photographs |= {photograph_name(f"Dan_{n:04d}"): photograph(7) for n in range(400)}
    path = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "data_scripts")])
    environment = {**os.environ, "CONSENSUS_DATA_MIRROR": mirror.write(), "PYTHONPATH": path}
    command = [sys.executable, "-c", SLOWLY, "--out", str(out)]
    partial = out.with_name(f".{out.name}.partial")
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(partial.glob("images/Dan*"))) < 20:
        time.sleep(0.002)
    process.send_signal(by)
    assert process.wait() != 0
    assert not out.exists()
    stored = {path.name: path.stat().st_mtime_ns for path in partial.glob("images/[!.]*")}
    assert len(stored) >= 20
    info = lfw.prepare(out, mirror=str(mirror.folder))
    assert info.counts["unlabelled"] == 402
    assert all((out / "images" / name).stat().st_mtime_ns == then for name, then in stored.items())
    assert not list(out.rglob(".*"))  # no file that the killed process had half written
    assert not partial.exists()


# What can be wrong


def in_photographs(id, content):
    return lambda mirror: mirror.photographs.update({photograph_name(id): content})


def in_labels(id, content):
    return lambda mirror: mirror.labels.update({label_name(id): content})


def in_superpixels(content):
    return lambda mirror: mirror.superpixels.update({superpixel_name("Bob_0012"): content})


def in_list(split, lines):
    return lambda mirror: mirror.lists.update({split: lines})


def with_one_strange_pixel():
    pixels = PALETTE[draw_labels(0)]
    pixels[7, 9] = (254, 0, 0)
    return encode(pixels, "PPM")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            in_photographs("Bob_0012", encode(np.zeros((250, 249, 3), np.uint8), "JPEG")),
            "lfw_funneled/Bob/Bob_0012.jpg: expected 250×250 RGB, got 249×250 RGB",
        ),
        (
            in_photographs("Cleo_Öz_0002", encode(np.zeros((250, 250), np.uint8), "JPEG")),
            "lfw_funneled/Cleo_Öz/Cleo_Öz_0002.jpg: expected 250×250 RGB, got 250×250 L",
        ),
        (
            in_photographs("Bob_0012", photograph(0)[:1500]),
            "lfw_funneled/Bob/Bob_0012.jpg: expected a whole JPEG image, got: image file is truncated",
        ),
        (
            in_photographs("Bob_0012", label_image(0)),
            "lfw_funneled/Bob/Bob_0012.jpg: expected a whole JPEG image, got: cannot identify",
        ),
        (
            lambda mirror: mirror.photographs.pop(photograph_name("Bob_0012")),
            "lfw-funneled.tgz: expected every listed image, but 1 are missing: Bob_0012",
        ),
        (
            in_photographs("../../Eve_0001", b""),
            "lfw-funneled.tgz: expected names inside the archive's own folder",
        ),
        (
            in_labels("Bob_0012", encode(np.zeros((249, 250, 3), np.uint8), "PPM")),
            "parts_lfw_funneled_gt_images/Bob_0012.ppm: expected 250×250 RGB, got 250×249 RGB",
        ),
        (
            in_labels("Bob_0012", with_one_strange_pixel()),
            "parts_lfw_funneled_gt_images/Bob_0012.ppm: expected only the colours (0, 0, 255) background, "
            "(0, 255, 0) face, (255, 0, 0) hair, got (254, 0, 0) at row 7, column 9 (1 such pixels)",
        ),
        (
            in_labels("Bob_0012", label_image(0)[:-1]),
            "Bob_0012.ppm: expected a whole PPM image, got: image file is truncated",
        ),
        (
            in_labels("Bob_0012", b"P6\n250"),
            "parts_lfw_funneled_gt_images/Bob_0012.ppm: expected a whole PPM image, got",
        ),
        (
            lambda mirror: mirror.labels.pop(label_name("Bob_0012")),
            "parts_lfw_funneled_gt_images.tgz: expected every listed image, but 1 are missing: Bob_0012",
        ),
        (
            in_list("test", "Ann_Lee 3\n\nAnn Lee 3\n"),
            "parts_test.txt, line 3: expected NAME N, got 'Ann Lee 3'",
        ),
        (in_list("test", "Ann_Lee\n"), "parts_test.txt, line 1: expected NAME N, got 'Ann_Lee'"),
        (in_list("test", "../Ann_Lee 3\n"), "parts_test.txt, line 1: expected NAME N, got '../Ann_Lee 3'"),
        (
            in_list("test", "Ann_Lee 3\nAnn_Lee 3\n"),
            "parts_test.txt, line 2: expected each image once in all lists, got Ann_Lee_0003 again "
            "(first in parts_test.txt)",
        ),
        (
            in_list("test", "Ann_Lee 1\n"),
            "parts_test.txt, line 1: expected each image once in all lists, got Ann_Lee_0001 again "
            "(first in parts_train.txt)",
        ),
        (in_list("test", "\n"), "parts_test.txt: expected lines NAME N, got none"),
        (
            in_superpixels(superpixel_map(0)[:-4]),
            "parts_lfw_funneled_superpixels_mat/Bob/Bob_0012.dat: expected 250 lines of 250 integers, "
            "got 250 lines of 248 or 250",
        ),
        (in_superpixels(b""), "Bob_0012.dat: expected 250 lines of 250 integers, got 0 lines"),
        (in_superpixels(superpixel_map(0).replace(b"0", b"x", 1)), "Bob_0012.dat: expected integers, got"),
        (
            in_superpixels(superpixel_map(0).replace(b"0", b"65536", 1)),
            "Bob_0012.dat: expected numbers from 0 to 65535, got 0 to 65536",
        ),
    ],
)
def test_what_is_wrong_is_named_and_leaves_no_data_set(mirror, out, spoil, message):
    spoil(mirror)
    with pytest.raises(DatasetError) as caught:
        lfw.prepare(out, 32, mirror=mirror.write())
    assert message in str(caught.value)
    assert not out.exists()


@pytest.mark.parametrize("name", [file.name for file in lfw.FILES if not file.optional])
def test_every_file_is_needed_and_verified(mirror, out, name):
    mirror.write()
    registry = mirror.folder / "registry.txt"
    stated = registry.read_text()
    registry.write_text("\n".join(line for line in stated.splitlines() if not line.startswith(name)))
    with pytest.raises(DatasetError, match=rf"registry\.txt: expected a line for {name}"):
        lfw.prepare(out, 32, mirror=str(mirror.folder))
    registry.write_text(stated)
    with (mirror.folder / name).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(DatasetError, match=rf"{name}: expected sha256:\w+, got sha256:"):
        lfw.prepare(out, 32, mirror=str(mirror.folder))
    (mirror.folder / name).unlink()
    with pytest.raises(DatasetError, match=rf"{name}: expected the file that registry\.txt names"):
        lfw.prepare(out, 32, mirror=str(mirror.folder))
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("size", [0, 7, 251])
def test_size_has_bounds(mirror, out, size):
    with pytest.raises(DatasetError, match=f"size: expected 8 to 250 pixels, got {size}"):
        lfw.prepare(out, size, mirror=mirror.write())


# Where the archives come from


def test_mirror_at_an_address(mirror, out, serve):
    mirror.write()
    address, requested = serve(mirror.folder)
    downloads = out.with_name("downloads")
    lfw.prepare(out, 32, mirror=address, downloads=downloads)
    assert "lfw-funneled.tgz" in requested
    requested.clear()
    lfw.prepare(out.with_name("again"), 48, mirror=address, downloads=downloads)
    assert requested == ["registry.txt"]
    local = out.with_name("local")
    lfw.prepare(local, 32, mirror=str(mirror.folder))
    assert (out / "index.csv").read_bytes() == (local / "index.csv").read_bytes()


def test_public_addresses(mirror, out, serve, monkeypatch, capsys):
    mirror.write()
    address, requested = serve(mirror.folder)
    monkeypatch.setattr(
        lfw,
        "FILES",
        [dataclasses.replace(file, addresses=(f"{address}/{file.name}",), hash=None) for file in lfw.FILES],
    )
    info = lfw.prepare(out, 32, downloads=out.with_name("downloads"))
    assert info.notes["mirror"] is False
    assert "parts_lfw_funneled_superpixels_mat.tgz" in requested  # asked for, answered with 404
    said = capsys.readouterr().out
    assert "superpixels_mat.tgz: not available" in said
    computed = info.notes["archives"]["parts_test.txt"].removeprefix("sha256:")
    assert f"parts_test.txt: sha256 {computed}, compared with nothing" in said


def test_public_files_are_pinned_where_a_hash_is_known():
    pins = {file.name: file.hash for file in lfw.FILES if file.hash}
    assert pins == {
        "lfw-funneled.tgz": "sha256:b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",
        "parts_lfw_funneled_gt_images.tgz": "md5:3e7e26e801c3081d651c8c2ef3c45cfc",
    }


# The command


def test_command_says_what_is_wrong(mirror, out, monkeypatch, capsys):
    monkeypatch.setenv("CONSENSUS_DATA_MIRROR", str(mirror.folder))
    assert lfw.main(["--out", str(out)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {mirror.folder}/registry.txt: expected the hashes")


def test_command_has_a_place_for_its_result(mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("CONSENSUS_DATA_MIRROR", mirror.write())
    monkeypatch.setenv("CONSENSUS_DATA_DIR", str(tmp_path / "data"))
    assert lfw.main(["--size", "32", "--no-unlabelled"]) == 0
    assert read_info(tmp_path / "data/lfw_part_labels-32").counts == {"train": 1, "validation": 1, "test": 1}


def real_mirror():
    """Return the folder of the real archives, None where they are not at hand."""
    stated = os.environ.get("CONSENSUS_DATA_MIRROR")
    folder = Path(stated) if stated else CHECKOUT.parent / "shared/data/mirror"
    return folder if (folder / "lfw-funneled.tgz").is_file() else None


def test_real_archives(out):
    if real_mirror() is None:
        pytest.skip("no real archives: CONSENSUS_DATA_MIRROR is not set to a folder that has them")
    info = lfw.prepare(out, 32, unlabelled=False, mirror=str(real_mirror()))
    rows = read_index(out)
    check_files(out, rows)
    assert set(info.counts) == {"train", "validation", "test"}
    assert len(rows) >= 2000
    share = np.mean([np.bincount(read(out, row.labels).ravel(), minlength=3) for row in rows], axis=0) / 32**2
    assert share == pytest.approx([0.68, 0.22, 0.10], abs=0.03)  # background, face, hair

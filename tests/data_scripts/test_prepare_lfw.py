"""data_scripts/prepare_lfw_part_labels.py, on tiny archives in the real layout, and on real ones if at hand.

Ann has two images in two splits (the original lists have such people), Bob is in the validation list, and two
photographs of Cleo Öz have no labels.
"""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import prepare_lfw_part_labels as lfw
import sets
from consensus_lib.data.folder import DatasetError, check_files, read_index, read_info

CHECKOUT = Path(__file__).resolve().parents[2]
PALETTE = np.array([(0, 0, 255), (0, 255, 0), (255, 0, 0)], np.uint8)
LISTS = {"train": "Ann_Lee 1\n", "validation": "Bob 12\n", "test": "Ann_Lee 3\n"}
LISTED = ("Ann_Lee_0001", "Ann_Lee_0003", "Bob_0012")
UNLISTED = ("Cleo_Öz_0001", "Cleo_Öz_0002")


def labels_of(seed):
    """Return a face with hair as class numbers, [250, 250]; each seed has it somewhere else."""
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
    return encode(PALETTE[labels_of(seed)], "JPEG", quality=95, subsampling=0)


def label_image(seed):
    return encode(PALETTE[labels_of(seed)], "PPM")


def superpixel_map(seed):
    numbers = labels_of(seed).astype(int) + 1000 * seed
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
    for id in ("Ann_Lee_0002", "Bob_0001"):  # people with unlabelled photographs as well
        mirror.photographs[photograph_name(id)] = photograph(3)
    mirror.labels[label_name("Dan_0001")] = b"junk"  # in no list, and not even decoded
    info = lfw.prepare(out, 128, mirror=mirror.write())
    assert info == read_info(out)
    assert info.counts == {"train": 1, "validation": 1, "test": 1, "unlabelled": 4}
    assert (info.classes, info.size) == (("background", "face", "hair"), 128)
    assert (info.notes["mirror"], info.notes["superpixels"]) == (True, False)
    assert set(info.notes["archives"]) == {file.name for file in lfw.FILES} - {lfw.SUPERPIXELS.name}
    assert str(mirror.folder) not in (out / "dataset.json").read_text()  # no path of this machine
    rows = {row.id: row for row in read_index(out)}
    assert {id: row.split for id, row in rows.items() if row.split != "unlabelled"} == {
        "Ann_Lee_0001": "train",
        "Ann_Lee_0003": "test",
        "Bob_0012": "validation",
    }
    assert rows["Ann_Lee_0001"].subject == "Ann_Lee"
    assert rows["Cleo_Öz_0002"].labels == rows["Bob_0012"].superpixels == ""
    said = capsys.readouterr().out
    assert "7 images (1 train, 1 validation, 1 test, 4 unlabelled)" in said
    assert "1 people are in more than one split, such as Ann_Lee: scores" in said
    assert "2 people are in more than one split, such as Ann_Lee: the split unlabelled included" in said


@pytest.mark.parametrize("size", [64, 125, 250])
def test_images_and_labels_stay_aligned(mirror, out, size):
    mirror.superpixels = {superpixel_name(id): superpixel_map(n) for n, id in enumerate(LISTED)}
    lfw.prepare(out, size, mirror=mirror.write())
    for row in read_index(out):
        image = read(out, row.image).astype(int)
        assert image.shape == (size, size, 3)
        if row.labels:
            labels = read(out, row.labels)
            distance = np.abs(image[:, :, None] - PALETTE.astype(int)).sum(axis=3)  # [size, size, 3]
            # One pixel of shift would leave about 97% at size 64.
            assert (distance.argmin(axis=2) == labels).mean() > 0.99
            # But for edges: one is the larger mask, the other the larger area.
            same = read(out, row.superpixels) - 1000 * LISTED.index(row.id) == labels
            assert same.mean() > 0.99


def test_reducing_does_not_alias(mirror, out):
    stripes = np.zeros((250, 250, 3), np.uint8)
    stripes[:, ::2] = 255
    mirror.photographs[photograph_name("Bob_0012")] = encode(stripes, "JPEG", quality=95)
    lfw.prepare(out, 100, mirror=mirror.write())
    assert np.abs(read(out, "images/Bob_0012.jpg")[:, 5:-5].astype(int) - 128).max() < 16  # even grey


def test_source_size_keeps_bytes_labels_and_superpixels(mirror, out):
    mirror.superpixels = {superpixel_name(id): superpixel_map(n) for n, id in enumerate(LISTED[:2], 3)}
    assert lfw.prepare(out, 250, mirror=mirror.write()).notes["superpixels"] is True
    for n, id in enumerate(LISTED):
        assert (out / f"images/{id}.jpg").read_bytes() == mirror.photographs[photograph_name(id)]
        assert np.array_equal(read(out, f"labels/{id}.png"), labels_of(n))
    assert np.array_equal(read(out, "superpixels/Ann_Lee_0001.png"), labels_of(3).astype(int) + 3000)
    assert [bool(row.superpixels) for row in read_index(out)] == [True, True, False, False, False]


# Called again


@pytest.mark.parametrize("options", [{"size": 64}, {"size": 32, "unlabelled": False}, {"recipe": "nearest"}])
def test_another_data_set_is_not_overwritten(mirror, out, options, monkeypatch):
    lfw.prepare(out, 32, mirror=mirror.write())
    monkeypatch.setattr(sets, "RECIPE", {"labels": options.pop("recipe", sets.RECIPE)})
    with pytest.raises(DatasetError, match="choose another --out"):
        lfw.prepare(out, **{"size": 32, **options}, mirror=str(mirror.folder))


def test_an_interrupted_call_is_resumed(mirror, out, monkeypatch, capsys):
    def interrupt(name, content):
        if "Cleo_Öz_0001" in name:
            raise KeyboardInterrupt
        return decode(name, content)

    decode = lfw.decode_picture
    monkeypatch.setenv("CONSENSUS_DATA_MIRROR", mirror.write())
    with monkeypatch.context() as patch:
        patch.setattr(lfw, "decode_picture", interrupt)
        assert lfw.main(["--out", str(out), "--size", "32"]) == 130
    assert not out.exists()
    assert "the same command resumes it" in capsys.readouterr().err
    assert lfw.main(["--out", str(out), "--size", "32"]) == 0
    assert "3 images were there from an interrupted run" in capsys.readouterr().out


def test_an_interrupted_call_with_other_archives_is_started_anew(mirror, out, capsys):
    mirror.photographs[photograph_name("Cleo_Öz_0002")] = b""
    with pytest.raises(DatasetError):
        lfw.prepare(out, 32, mirror=mirror.write())
    mirror.photographs[photograph_name("Cleo_Öz_0002")] = photograph(99)
    lfw.prepare(out, 32, mirror=mirror.write())
    assert "interrupted run" not in capsys.readouterr().out


# What can be wrong


def in_photographs(id, content):
    return lambda mirror: mirror.photographs.update({photograph_name(id): content})


def in_labels(id, content):
    return lambda mirror: mirror.labels.update({label_name(id): content})


def in_superpixels(content):
    return lambda mirror: mirror.superpixels.update({superpixel_name("Bob_0012"): content})


def in_test_list(lines):
    return lambda mirror: mirror.lists.update({"test": lines})


def with_one_strange_pixel():
    pixels = PALETTE[labels_of(0)]
    pixels[7, 9] = (254, 0, 0)
    return encode(pixels, "PPM")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (in_photographs("Bob_0012", encode(PALETTE[labels_of(0)[:, 1:]], "JPEG")), r"Bob_0012\.jpg.*249×250"),
        (in_photographs("Cleo_Öz_0002", encode(labels_of(0), "JPEG")), r"Cleo_Öz_0002\.jpg.* L"),
        (in_photographs("Bob_0012", photograph(0)[:1500]), r"Bob_0012\.jpg"),
        (lambda mirror: mirror.photographs.pop(photograph_name("Bob_0012")), "lfw-funneled.*Bob_0012"),
        (in_photographs("../../Eve_0001", b""), "lfw-funneled.*own folder"),
        (in_labels("Bob_0012", encode(PALETTE[labels_of(0)[1:]], "PPM")), r"Bob_0012\.ppm.*250×249"),
        (in_labels("Bob_0012", with_one_strange_pixel()), r"Bob_0012\.ppm.*\(254, 0, 0\) at row 7, column 9"),
        (in_labels("Bob_0012", label_image(0)[:-1]), r"Bob_0012\.ppm"),
        (lambda mirror: mirror.labels.pop(label_name("Bob_0012")), "gt_images.*Bob_0012"),
        (in_test_list("Ann_Lee 3\n\nAnn Lee 3\n"), r"parts_test\.txt, line 3"),
        (in_test_list("../Ann_Lee 3\n"), r"parts_test\.txt, line 1"),
        (in_test_list("Ann_Lee 3\nAnn_Lee 3\n"), r"parts_test\.txt, line 2"),
        (in_test_list("Ann_Lee 1\n"), r"parts_test\.txt, line 1"),  # as in the training list
        (in_test_list("\n"), r"parts_test\.txt"),
        (in_superpixels(superpixel_map(0)[:-4]), r"Bob_0012\.dat"),
        (in_superpixels(superpixel_map(0).replace(b"0", b"x", 1)), r"Bob_0012\.dat"),
        (in_superpixels(superpixel_map(0).replace(b"0", b"65536", 1)), r"Bob_0012\.dat.*65536"),
        (in_superpixels(b"1 2\n3 4\n"), r"Bob_0012\.dat"),
    ],
)
def test_what_is_wrong_is_named_and_leaves_no_data_set(mirror, out, spoil, named):
    spoil(mirror)
    with pytest.raises(DatasetError, match=named):
        lfw.prepare(out, 32, mirror=mirror.write())
    assert not out.exists()


# The command


def test_command(mirror, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CONSENSUS_DATA_MIRROR", str(mirror.folder))
    assert lfw.main(["--size", "32"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {mirror.folder}/registry.txt")
    mirror.write()
    assert lfw.main(["--size", "32", "--no-unlabelled"]) == 0
    assert read_info(tmp_path / "data/lfw_part_labels-32").counts == {"train": 1, "validation": 1, "test": 1}


def real_mirror():
    """Return the folder of the real archives, None where they are not at hand."""
    stated = os.environ.get("CONSENSUS_DATA_MIRROR")
    folder = Path(stated) if stated else CHECKOUT.parent / "shared/data/mirror"
    return folder if (folder / "lfw-funneled.tgz").is_file() else None


@pytest.mark.slow
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

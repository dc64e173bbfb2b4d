"""data_scripts/prepare_lfw_part_labels.py, on tiny archives in the real layout, and on real ones if at hand.

Ann has two images in two splits (the original lists have such people), Bob is in the validation list, and two
photographs of Cleo Öz have no labels.
"""

import io
import os
from pathlib import Path
from types import SimpleNamespace

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


@pytest.fixture
def mirror(tmp_path, write_tgz, write_registry):
    """The files of a tiny distribution: change them, then ``write``."""
    photographs = {photograph_name(id): photograph(n) for n, id in enumerate((*LISTED, *UNLISTED))}
    photographs["lfw_funneled/pairs_01.txt"] = b"not a photograph"
    labels = {label_name(id): label_image(n) for n, id in enumerate(LISTED)}
    lists, superpixels, folder = dict(LISTS), {}, tmp_path / "mirror"

    def write():
        folder.mkdir(exist_ok=True)
        for split, lines in lists.items():
            (folder / f"parts_{split}.txt").write_text(lines, encoding="utf-8")
        write_tgz(folder / "lfw-funneled.tgz", photographs.items())
        write_tgz(folder / "parts_lfw_funneled_gt_images.tgz", labels.items())
        if superpixels:
            write_tgz(folder / "parts_lfw_funneled_superpixels_mat.tgz", superpixels.items())
        write_registry(folder)
        return str(folder)

    return SimpleNamespace(
        photographs=photographs,
        labels=labels,
        superpixels=superpixels,
        lists=lists,
        folder=folder,
        write=write,
    )


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
    splits = [rows[id].split for id in (*LISTED, *UNLISTED)]
    assert splits == ["train", "test", "validation", "unlabelled", "unlabelled"]
    assert rows["Ann_Lee_0001"].subject == "Ann_Lee"
    assert rows["Cleo_Öz_0002"].labels == rows["Bob_0012"].superpixels == ""
    said = capsys.readouterr().out
    assert "7 images (1 train, 1 validation, 1 test, 4 unlabelled)" in said
    assert "1 people are in more than one split, such as Ann_Lee" in said
    assert "2 people" in said  # the unlabelled included


def test_images_labels_and_superpixels_stay_aligned(mirror, out):
    for n, id in enumerate(LISTED):
        mirror.superpixels[superpixel_name(id)] = superpixel_map(n)
    lfw.prepare(out, 64, unlabelled=False, mirror=mirror.write())
    for row in read_index(out):
        image, labels = read(out, row.image).astype(int), read(out, row.labels)
        distance = np.abs(image[:, :, None] - PALETTE.astype(int)).sum(axis=3)  # [64, 64, 3]
        assert (distance.argmin(axis=2) == labels).mean() > 0.99  # one pixel of shift would leave about 97%
        # But for edges: one is the larger mask, the other the larger area.
        assert (read(out, row.superpixels) - 1000 * LISTED.index(row.id) == labels).mean() > 0.99


def test_source_size_keeps_bytes_labels_and_superpixels(mirror, out):
    for n, id in enumerate(LISTED[:2], 3):
        mirror.superpixels[superpixel_name(id)] = superpixel_map(n)
    assert lfw.prepare(out, 250, mirror=mirror.write()).notes["superpixels"] is True
    for n, id in enumerate(LISTED):
        assert (out / f"images/{id}.jpg").read_bytes() == mirror.photographs[photograph_name(id)]
        assert np.array_equal(read(out, f"labels/{id}.png"), labels_of(n))
    assert np.array_equal(read(out, "superpixels/Ann_Lee_0001.png"), labels_of(3).astype(int) + 3000)
    assert [bool(row.superpixels) for row in read_index(out)] == [True, True, False, False, False]


# Called again


@pytest.mark.parametrize(("unlabelled", "recipe"), [(False, sets.RECIPE), (True, "nearest")])
def test_another_data_set_is_not_overwritten(mirror, out, unlabelled, recipe, monkeypatch):
    lfw.prepare(out, 32, mirror=mirror.write())
    monkeypatch.setattr(sets, "RECIPE", recipe)
    with pytest.raises(DatasetError, match=str(out)):
        lfw.prepare(out, 32, unlabelled=unlabelled, mirror=str(mirror.folder))


def test_an_interrupted_call_with_other_archives_is_started_anew(mirror, out, capsys):
    mirror.photographs[photograph_name("Cleo_Öz_0002")] = b""
    with pytest.raises(DatasetError):
        lfw.prepare(out, 32, mirror=mirror.write())
    mirror.photographs[photograph_name("Cleo_Öz_0002")] = photograph(99)
    lfw.prepare(out, 32, mirror=mirror.write())
    assert "interrupted run" not in capsys.readouterr().out


# What can be wrong


def with_one_strange_pixel():
    pixels = PALETTE[labels_of(0)]
    pixels[7, 9] = (254, 0, 0)
    return encode(pixels, "PPM")


BOB = "Bob_0012"


@pytest.mark.parametrize(
    ("where", "name", "content"),
    [
        ("photographs", photograph_name(BOB), encode(PALETTE[labels_of(0)[:, 1:]], "JPEG")),
        ("photographs", photograph_name("Cleo_Öz_0002"), encode(labels_of(0), "JPEG")),  # grey
        ("photographs", photograph_name(BOB), photograph(0)[:1500]),
        ("photographs", photograph_name(BOB), None),
        ("labels", label_name(BOB), with_one_strange_pixel()),
        ("labels", label_name(BOB), label_image(0)[:-1]),
        ("labels", label_name(BOB), None),
        ("superpixels", superpixel_name(BOB), superpixel_map(0)[:-4]),
        ("superpixels", superpixel_name(BOB), superpixel_map(0).replace(b"0", b"65536", 1)),
        ("superpixels", superpixel_name(BOB), b"1 2\n3 4\n"),
        ("lists", "test", "Ann_Lee 3\n\nAnn Lee 3\n"),
        ("lists", "test", "../Ann_Lee 3\n"),
        ("lists", "test", "Ann_Lee 1\n"),  # as in the training list
        ("lists", "test", "\n"),
    ],
)
def test_what_is_wrong_is_named_and_leaves_no_data_set(mirror, out, where, name, content):
    files = getattr(mirror, where)
    if content is None:
        del files[name]
    else:
        files[name] = content
    with pytest.raises(DatasetError, match=Path(name).stem):
        lfw.prepare(out, 32, mirror=mirror.write())
    assert not out.exists()


# The command


def test_command(mirror, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CONSENSUS_DATA_MIRROR", str(mirror.folder))
    assert lfw.main(["--size", "32"]) == 1
    assert "registry.txt" in capsys.readouterr().err
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

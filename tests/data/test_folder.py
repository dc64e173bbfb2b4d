"""consensus_lib/data/folder.py and writer.py: a prepared data set appears whole or not at all."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from consensus_lib import IGNORE
from consensus_lib.data.folder import (
    DatasetError,
    DatasetInfo,
    Row,
    check_files,
    ids_without_subjects_of,
    read_index,
    read_info,
    shared_subjects,
)
from consensus_lib.data.writer import DatasetWriter

INFO = DatasetInfo(
    "toy", ("sky", "sea"), ((1, 2, 3), (4, 5, 6)), "nobody", "public domain", 4, notes={"mood": "calm"}
)
IMAGE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
LABELS = np.array([[0, 0, 1, 1]] * 3 + [[IGNORE] * 4], np.uint8)
SUPERPIXELS = np.arange(16).reshape(4, 4) + 60_000


def encoded(size, **options):
    """Return the bytes of a PNG of (width, height)."""
    content = io.BytesIO()
    Image.new("RGB", size).save(content, "PNG", **options)
    return content.getvalue()


def write(folder, plan=None, stop_with=None):
    """Write a data set of two samples; with ``stop_with``, raise that after the first."""
    with DatasetWriter(folder, INFO, plan) as writer:
        writer.add("b", "train", "B", image=IMAGE, labels=LABELS, superpixels=SUPERPIXELS)
        if stop_with:
            raise stop_with
        writer.add("a", "unlabelled", "A", image=IMAGE)
    return folder


def write_train(folder, samples, **options):
    """Write a data set of a training split, from id → labels."""
    with DatasetWriter(folder, INFO) as writer:
        for id, labels in samples.items():
            writer.add(id, "train", "A", image=IMAGE, labels=labels, **options)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_is_written_is_read_again(tmp_path):
    folder = write(tmp_path / "toy")
    info = read_info(folder)
    assert info.counts == {"train": 1, "unlabelled": 1}
    assert (info.classes, info.colours, info.notes) == (INFO.classes, INFO.colours, INFO.notes)
    assert read_index(folder) == [
        Row("a", "unlabelled", "A", "images/a.png"),
        Row("b", "train", "B", "images/b.png", "labels/b.png", "superpixels/b.png"),
    ]
    assert np.array_equal(np.asarray(Image.open(folder / "images/b.png")), IMAGE)
    assert np.array_equal(np.asarray(Image.open(folder / "superpixels/b.png")), SUPERPIXELS)
    with Image.open(folder / "labels/b.png") as labels:
        assert labels.mode == "P"
        assert np.array_equal(np.asarray(labels), LABELS)
        assert labels.convert("RGB").getpixel((0, 0)) == (1, 2, 3)
    check_files(folder, read_index(folder))
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_bytes_of_an_image_are_kept_and_an_existing_folder_is_refused(tmp_path):
    jpeg = io.BytesIO()
    Image.fromarray(IMAGE).save(jpeg, "JPEG")
    with DatasetWriter(tmp_path / "toy", INFO) as writer:
        writer.add("a", "train", "A", image=jpeg.getvalue(), labels=LABELS, jpeg=True)
    assert (tmp_path / "toy/images/a.jpg").read_bytes() == jpeg.getvalue()
    with pytest.raises(FileExistsError, match="expected a new folder"):
        DatasetWriter(tmp_path / "toy", INFO)


def interrupted(folder, plan=None, by=KeyboardInterrupt):
    """Interrupt a writer and return the partial folder that it leaves."""
    with pytest.raises(by):
        write(folder, plan, stop_with=by)
    return folder.with_name(f".{folder.name}.partial")


@pytest.mark.parametrize("by", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_writer_is_resumed_and_writes_the_same_bytes(tmp_path, by):
    partial = interrupted(tmp_path / "toy", by=by)
    assert not (tmp_path / "toy").exists()
    (partial / "images/.c.png.123.png").write_bytes(b"half")  # of a killed process
    before = (partial / "images/b.png").stat().st_mtime_ns
    with DatasetWriter(tmp_path / "toy", INFO) as writer:
        assert writer.has("b")
        assert not writer.has("b", jpeg=True)
        assert not writer.has("a")
        writer.add("b", "train", "B")
        writer.add("a", "unlabelled", "A", image=IMAGE)
    assert (tmp_path / "toy/images/b.png").stat().st_mtime_ns == before
    whole = write(tmp_path / "whole")
    assert names(tmp_path / "toy") == names(whole)
    assert all((tmp_path / "toy" / name).read_bytes() == (whole / name).read_bytes() for name in names(whole))


def test_one_bad_sample_does_not_take_the_others_along(tmp_path):
    samples = {"a": LABELS, "b": LABELS, "c": LABELS + 2}
    with pytest.raises(DatasetError, match="labels of c: expected") as told:
        write_train(tmp_path / "toy", samples, superpixels=SUPERPIXELS)
    (note,) = told.value.__notes__
    assert note == "2 samples are kept in .toy.partial for the next writer with the same plan"
    assert not (tmp_path / "toy").exists()
    with DatasetWriter(tmp_path / "toy", INFO) as writer:
        assert [writer.has(id) for id in "abc"] == [True, True, False]
        for id in "ab":
            writer.add(id, "train", "A")
        writer.add("c", "unlabelled", "C", image=IMAGE)
    rows = read_index(tmp_path / "toy")
    assert [bool(row.labels) for row in rows] == [True, True, False]
    assert names(tmp_path / "toy/labels") == ["a.png", "b.png"]


def test_an_error_before_the_first_sample_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), DatasetWriter(tmp_path / "toy", INFO):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_an_unfinished_sample_left_is_no_part_of_the_next(tmp_path):
    partial = interrupted(tmp_path / "toy")
    (partial / "images/b.png").unlink()  # killed after the labels, before the image
    (partial / "labels/z.png").write_bytes(b"of a sample that is not asked for again")
    with DatasetWriter(tmp_path / "toy", INFO) as writer:
        assert not writer.has("b")
        writer.add("b", "unlabelled", "B", image=IMAGE)
    assert read_index(tmp_path / "toy") == [Row("b", "unlabelled", "B", "images/b.png")]
    assert names(tmp_path / "toy") == ["dataset.json", "files.sha256", "images/b.png", "index.csv"]


MASK = np.where(LABELS == 1, 255, 0)


def test_masks_of_0_and_255_are_refused_even_if_stored_before(tmp_path):
    with pytest.raises(DatasetError, match=r"labels of the split 'train': .* write 1 for 'sea'"):
        write_train(tmp_path / "toy", {"a": MASK, "b": MASK.T})
    assert list(tmp_path.iterdir()) == []  # or the next writer would go on with them
    with pytest.raises(DatasetError, match="labels of b: expected"):
        write_train(tmp_path / "toy", {"a": MASK, "b": LABELS + 2})
    with (
        pytest.raises(DatasetError, match="labels of the split 'train'"),
        DatasetWriter(tmp_path / "toy", INFO) as writer,
    ):
        writer.add("a", "train", "A")
    write_train(tmp_path / "toy", {"a": LABELS, "b": MASK})  # a photograph may lack the class
    assert read_info(tmp_path / "toy").counts == {"train": 2}


@pytest.mark.parametrize("broken", [False, True])
def test_another_plan_starts_anew(tmp_path, broken):
    partial = interrupted(tmp_path / "toy", {"size": 1})
    if broken:
        (partial / "plan.json").write_text("{")
    with DatasetWriter(tmp_path / "toy", INFO, {"size": 1 + (not broken)}) as writer:
        assert not writer.has("b")
        writer.add("a", "unlabelled", "A", image=IMAGE)
    assert names(tmp_path / "toy") == ["dataset.json", "files.sha256", "images/a.png", "index.csv"]
    assert not (tmp_path / "toy/labels").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": IMAGE[:2]}, r"image of a: .*\[2, 4, 3\]"),
        ({"image": IMAGE.astype(float)}, "image of a: .*uint8.*float64"),
        ({"image": IMAGE, "labels": LABELS[:, :3]}, r"labels of a: .*\[4, 4\].*\[4, 3\]"),
        ({"image": IMAGE, "labels": LABELS * 0.5}, "labels of a: .*float64"),
        ({"image": IMAGE, "labels": LABELS + 2}, r"labels of a: .*\[2, 3\]"),
        ({"image": IMAGE, "superpixels": SUPERPIXELS[0]}, "superpixels of a: "),
        ({"image": IMAGE, "superpixels": SUPERPIXELS + 9_999}, "superpixels of a: .*69999"),
        ({"image": IMAGE, "superpixels": SUPERPIXELS - 60_001}, "superpixels of a: .*-1"),
        ({}, "image of a: "),
        ({"image": b"no image"}, "image of a: "),
        ({"image": encoded((4, 8))}, "image of a: .*4×8"),
    ],
)
def test_a_wrong_sample_is_refused(tmp_path, arguments, message):
    with pytest.raises(DatasetError, match=message), DatasetWriter(tmp_path / "toy", INFO) as writer:
        writer.add("a", "train", "A", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "id",
    ["", "d/a", "d\\a", "a:b", 'a?"', "a\nb", "\udc80", ".a", "a ", "con", "LPT1.x", "a" * 252, "é" * 126],
)
def test_an_id_that_is_no_file_name_is_refused(tmp_path, id):
    with pytest.raises(DatasetError, match="id: expected"), DatasetWriter(tmp_path / "toy", INFO) as writer:
        writer.add(id, "train", "A", image=IMAGE)
    assert list(tmp_path.iterdir()) == []


def test_ids_of_any_letters_are_read_again(tmp_path):
    ids = ["Anna Miller 1", "安娜", "Zoë, 'Z'", "می‌خواهم", "007", "NA", "a.b", "[a]", "#%41;=", "a" * 251]
    with DatasetWriter(tmp_path / "toy", INFO) as writer:
        for id in ids:
            writer.add(id, "train", id, image=IMAGE, labels=LABELS, superpixels=SUPERPIXELS)
            assert writer.has(id)
        with pytest.raises(DatasetError, match="id: expected each id once, got 'NA' again"):
            writer.add("NA", "train", "A", image=IMAGE)
    rows = read_index(tmp_path / "toy")
    assert [row.id for row in rows] == sorted(ids) == sorted(row.subject for row in rows)
    check_files(tmp_path / "toy", rows)
    (tmp_path / "toy/labels/NA.png").unlink()
    with pytest.raises(DatasetError, match=r"labels/NA\.png: expected the file .* missing \(1 of 30 are\)"):
        check_files(tmp_path / "toy", rows)


@pytest.mark.parametrize(
    ("classes", "colours", "named"), [(0, 0, "classes"), (256, 256, "classes"), (2, 1, "colours")]
)
def test_classes_are_1_to_255_with_a_colour_each(classes, colours, named):
    with pytest.raises(ValueError, match=f"{named}: expected .* got {colours}"):
        DatasetInfo("toy", ("sea",) * classes, ((0, 0, 0),) * colours, "nobody", "none", 4)


def test_read_info_says_what_is_wrong(tmp_path):
    with pytest.raises(DatasetError, match=r"dataset\.json is missing"):
        read_info(tmp_path)
    folder = write(tmp_path / "toy")
    index = (folder / "index.csv").read_text()
    (folder / "index.csv").write_text(index.replace("train", "test"))
    with pytest.raises(DatasetError, match=r"index\.csv: expected sha256 .* prepare the data set again"):
        read_info(folder)
    (folder / "index.csv").unlink()
    with pytest.raises(DatasetError, match=r"index\.csv is missing"):
        read_info(folder)
    (folder / "index.csv").write_text(index)
    fields = json.loads((folder / "dataset.json").read_text())
    for wrong in ({**fields, "colour": 1}, {"name": "toy"}, []):
        (folder / "dataset.json").write_text(json.dumps(wrong))
        with pytest.raises(DatasetError, match=r"dataset\.json: expected the keys"):
            read_info(folder)
    (folder / "dataset.json").write_text("{")
    with pytest.raises(DatasetError, match=r"dataset\.json: expected JSON"):
        read_info(folder)
    (folder / "index.csv").write_text("id,split\na,train\n")
    with pytest.raises(DatasetError, match=r"expected the columns id,split,subject,.*, got id,split"):
        read_index(folder)


SHARED = [
    Row("a1", "train", "A", ""),
    Row("a2", "test", "A", ""),
    Row("b1", "train", "B", ""),
    Row("b2", "unlabelled", "B", ""),
    Row("c1", "unlabelled", "C", ""),
]


def test_subjects_in_several_splits():
    assert shared_subjects(SHARED) == {"A": ["test", "train"], "B": ["train", "unlabelled"]}
    assert ids_without_subjects_of(SHARED, "unlabelled", ["train"]) == ["c1"]
    assert ids_without_subjects_of(SHARED, "unlabelled", ["test"]) == ["b2", "c1"]
    assert ids_without_subjects_of(iter(SHARED), "train", ["test", "unlabelled"]) == []

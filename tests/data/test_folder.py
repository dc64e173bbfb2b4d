"""consensus_lib/data/folder.py and writer.py: a prepared data set appears whole or not at all."""

import io

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


def encoded(size):
    """Return the bytes of a picture of (width, height)."""
    content = io.BytesIO()
    Image.new("RGB", size).save(content, "PNG")
    return content.getvalue()


def write(folder, plan=None, stop_with=None):
    """Write a data set of two samples; with ``stop_with``, raise that after the first."""
    with DatasetWriter(folder, INFO, plan) as writer:
        writer.add("b", "train", "B", image=IMAGE, labels=LABELS, superpixels=SUPERPIXELS)
        if stop_with:
            raise stop_with
        writer.add("a", "unlabelled", "A", image=IMAGE)
    return folder


def write_train(folder, samples):
    """Write a data set of a training split, from id → labels."""
    with DatasetWriter(folder, INFO) as writer:
        for id, labels in samples.items():
            writer.add(id, "train", "A", image=IMAGE, labels=labels)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def toy(tmp_path):
    """Return where to write a data set; what is left beside it shows in the folder above."""
    (tmp_path / "made").mkdir()
    return tmp_path / "made" / "toy"


def test_what_is_written_is_read_again(toy):
    info = read_info(write(toy))
    assert info.counts == {"train": 1, "unlabelled": 1}
    assert (info.classes, info.colours, info.notes) == (INFO.classes, INFO.colours, INFO.notes)
    assert read_index(toy) == [
        Row("a", "unlabelled", "A", "images/a.png"),
        Row("b", "train", "B", "images/b.png", "labels/b.png", "superpixels/b.png"),
    ]
    assert np.array_equal(np.asarray(Image.open(toy / "images/b.png")), IMAGE)
    assert np.array_equal(np.asarray(Image.open(toy / "superpixels/b.png")), SUPERPIXELS)
    with Image.open(toy / "labels/b.png") as labels:
        assert np.array_equal(np.asarray(labels), LABELS)
        assert labels.convert("RGB").getpixel((0, 0)) == (1, 2, 3)  # as any viewer shows it
    assert [path.name for path in toy.parent.iterdir()] == ["toy"]
    with pytest.raises(FileExistsError, match="folder"):
        DatasetWriter(toy, INFO)


def interrupted(folder, plan=None, by=KeyboardInterrupt):
    """Interrupt a writer and return the partial folder that it leaves."""
    with pytest.raises(by) as told:
        write(folder, plan, stop_with=by)
    assert not folder.exists()
    assert (".toy.partial" in "".join(getattr(told.value, "__notes__", []))) == (by is RuntimeError)
    return folder.with_name(f".{folder.name}.partial")


@pytest.mark.parametrize("by", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_writer_is_resumed_and_writes_the_same_bytes(toy, tmp_path, by):
    partial = interrupted(toy, by=by)
    (partial / "images/.c.png.123.png").write_bytes(b"half")  # of a killed process
    before = (partial / "images/b.png").stat().st_mtime_ns
    with DatasetWriter(toy, INFO) as writer:
        assert [writer.has("a"), writer.has("b"), writer.has("b", jpeg=True)] == [False, True, False]
        writer.add("b", "train", "B")
        writer.add("a", "unlabelled", "A", image=IMAGE)
    assert (toy / "images/b.png").stat().st_mtime_ns == before
    assert contents(toy) == contents(write(tmp_path / "whole"))


def test_what_an_unfinished_sample_left_is_no_part_of_the_next(toy):
    partial = interrupted(toy)
    (partial / "images/b.png").unlink()  # killed after the labels, before the image
    (partial / "labels/z.png").write_bytes(b"of a sample that is not asked for again")
    with DatasetWriter(toy, INFO) as writer:
        assert not writer.has("b")
        writer.add("b", "unlabelled", "B", image=IMAGE)
    assert read_index(toy) == [Row("b", "unlabelled", "B", "images/b.png")]
    assert set(contents(toy)) == {"dataset.json", "files.sha256", "images/b.png", "index.csv"}


@pytest.mark.parametrize("broken", [False, True])
def test_another_plan_starts_anew(toy, broken):
    partial = interrupted(toy, {"size": 1})
    if broken:
        (partial / "plan.json").write_text("{")
    with DatasetWriter(toy, INFO, {"size": 1 if broken else 2}) as writer:
        assert not writer.has("b")
        writer.add("a", "unlabelled", "A", image=IMAGE)
    assert set(contents(toy)) == {"dataset.json", "files.sha256", "images/a.png", "index.csv"}


def test_masks_of_0_and_255_are_refused_even_if_stored_before(toy):
    mask = np.where(LABELS == 1, 255, 0)
    with pytest.raises(DatasetError, match="write 1 for 'sea'"):
        write_train(toy, {"a": mask, "b": mask.T})
    assert list(toy.parent.iterdir()) == []  # or the next writer would go on with them
    with pytest.raises(DatasetError, match="labels of b"):
        write_train(toy, {"a": mask, "b": LABELS + 2})
    with pytest.raises(DatasetError, match="split 'train'"), DatasetWriter(toy, INFO) as writer:
        writer.add("a", "train", "A")
    write_train(toy, {"a": LABELS, "b": mask})  # a photograph may lack the class
    assert read_info(toy).counts == {"train": 2}


@pytest.mark.parametrize(
    ("named", "arguments"),
    [
        ("image", {}),
        ("image", {"image": IMAGE[:2]}),
        ("image", {"image": IMAGE.astype(float)}),
        ("image", {"image": b"no image"}),
        ("image", {"image": encoded((4, 8))}),
        ("labels", {"image": IMAGE, "labels": LABELS[:, :3]}),
        ("labels", {"image": IMAGE, "labels": LABELS * 0.5}),
        ("labels", {"image": IMAGE, "labels": LABELS + 2}),
        ("superpixels", {"image": IMAGE, "superpixels": SUPERPIXELS + 9_999}),
        ("superpixels", {"image": IMAGE, "superpixels": SUPERPIXELS - 60_001}),
    ],
)
def test_a_wrong_sample_is_refused_and_leaves_nothing(toy, named, arguments):
    with pytest.raises(DatasetError, match=f"{named} of a"), DatasetWriter(toy, INFO) as writer:
        writer.add("a", "train", "A", **arguments)
    assert list(toy.parent.iterdir()) == []


@pytest.mark.parametrize(
    "id",
    ["", "d/a", "d\\a", "a:b", 'a?"', "a\nb", "\udc80", ".a", "a ", "con", "LPT1.x", "a" * 252, "é" * 126],
)
def test_an_id_that_is_no_file_name_is_refused(toy, id):
    with pytest.raises(DatasetError, match="id"), DatasetWriter(toy, INFO) as writer:
        writer.add(id, "train", "A", image=IMAGE)


def test_ids_of_any_letters_are_read_again(toy):
    ids = ["Anna Miller 1", "安娜", "Zoë, 'Z'", "می‌خواهم", "007", "NA", "a.b", "[a]", "#%41;=", "a" * 251]
    with DatasetWriter(toy, INFO) as writer:
        for id in ids:
            writer.add(id, "train", id, image=IMAGE, labels=LABELS)
            assert writer.has(id)
        with pytest.raises(DatasetError, match=r"id: .*'NA'"):
            writer.add("NA", "train", "A", image=IMAGE)
    rows = read_index(toy)
    assert [row.id for row in rows] == sorted(ids) == sorted(row.subject for row in rows)
    check_files(toy, rows)
    (toy / "labels/NA.png").unlink()
    with pytest.raises(DatasetError, match=r"labels/NA\.png"):
        check_files(toy, rows)


@pytest.mark.parametrize(
    ("classes", "colours", "named"), [(0, 0, "classes"), (256, 256, "classes"), (2, 1, "colours")]
)
def test_classes_are_1_to_255_with_a_colour_each(classes, colours, named):
    with pytest.raises(ValueError, match=named):
        DatasetInfo("toy", ("sea",) * classes, ((0, 0, 0),) * colours, "nobody", "none", 4)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("dataset.json", lambda path: path.unlink()),
        ("index.csv", lambda path: path.unlink()),
        ("dataset.json", lambda path: path.write_text("{")),
        ("dataset.json", lambda path: path.write_text("[]")),
        ("dataset.json", lambda path: path.write_text(path.read_text().replace('"name"', '"nome"'))),
        ("index.csv", lambda path: path.write_text(path.read_text().replace("train", "test"))),
    ],
)
def test_a_folder_with_a_broken_description_is_refused(toy, name, spoil):
    spoil(write(toy) / name)
    with pytest.raises(DatasetError, match=name):
        read_info(toy)


def test_an_index_of_other_columns_is_refused(tmp_path):
    (tmp_path / "index.csv").write_text("id,split\na,train\n")
    with pytest.raises(DatasetError, match=r"index\.csv"):
        read_index(tmp_path)


def test_subjects_in_several_splits():
    shared = [
        Row("a1", "train", "A", ""),
        Row("a2", "test", "A", ""),
        Row("b1", "train", "B", ""),
        Row("b2", "unlabelled", "B", ""),
        Row("c1", "unlabelled", "C", ""),
    ]
    assert shared_subjects(shared) == {"A": ["test", "train"], "B": ["train", "unlabelled"]}
    assert ids_without_subjects_of(shared, "unlabelled", ["train"]) == ["c1"]
    assert ids_without_subjects_of(shared, "unlabelled", ["test"]) == ["b2", "c1"]
    assert ids_without_subjects_of(iter(shared), "train", ["test", "unlabelled"]) == []

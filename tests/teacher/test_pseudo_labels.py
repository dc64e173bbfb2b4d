import dataclasses

import numpy as np
import pytest
import torch

from consensus_lib import IGNORE
from consensus_lib.data import Augment, DatasetError, DatasetWriter, FaceDataset
from consensus_lib.data.folder import read_index, read_info
from consensus_lib.teacher.pseudo_labels import choose, prepare_pseudo_labels, read_records


class Teacher:
    """Knows the colours of the tiny faces; is never quite sure."""

    name, version, classes = "colours", "1", ("background", "face", "hair")
    colours = torch.tensor([(40, 60, 90), (220, 170, 140), (70, 40, 20)]) / 127.5 - 1

    def __init__(self):
        self.seen = []

    def __call__(self, images):
        self.seen.append(len(images))
        apart = (images[:, None] - self.colours[None, :, :, None, None]).square().sum(2)  # [B, K, H, W]
        return (-apart).softmax(1)


class Extent:
    """A disc around the middle; finds no face in the first and the last of four images."""

    name = "disc"

    def __call__(self, images):
        y, x = np.ogrid[:32, :32]
        masks = np.tile(np.hypot(x - 15.5, y - 15.5) < 0.3 * 32, (len(images), 1, 1))
        masks[::3] = False
        return masks


def make(folder, source, teacher=None, **options):
    options = {"split": "train", "progress": False, "batch_size": 4} | options
    return prepare_pseudo_labels(folder, source, teacher or Teacher(), **options)


@pytest.fixture(scope="module")
def source(tmp_path_factory, write_tiny):
    return write_tiny(tmp_path_factory.mktemp("source") / "tiny")


@pytest.fixture(scope="module")
def plain(source, tmp_path_factory):
    """The tiny faces with the teacher's classes."""
    return make(tmp_path_factory.mktemp("plain") / "p", source)


@pytest.fixture(scope="module")
def factorised(source, tmp_path_factory):
    """The tiny faces with occlusions inside the extent."""
    return make(tmp_path_factory.mktemp("factorised") / "p", source, extent=Extent(), cleaning=None)


def test_labels_are_the_likeliest_classes_and_records_say_how_sure_they_are(source, plain):
    info, records = read_info(plain), read_records(plain)
    assert (info.classes, info.counts) == (("background", "face", "hair"), {"train": 12})
    assert info.notes["teacher"] == "colours"
    assert set(records.teacher) == {"colours"}
    theirs = FaceDataset(source, "train", "parts")
    ours = FaceDataset(plain, "train", "parts", probabilities=True)
    assert records.id.tolist() == [row.id for row in theirs.rows]
    for i, record in enumerate(records.itertuples()):
        ours_i, image = ours[i], theirs[i]["image"]
        assert torch.equal(ours_i["image"], image)  # the bytes are those of the source
        asked = Teacher()(image[None])[0]
        assert torch.equal(ours_i["labels"], asked.argmax(0))
        assert record.confidence == pytest.approx(asked.amax(0).mean().item(), abs=1e-3)
        assert record.face_area == pytest.approx((ours_i["labels"] == 1).float().mean().item(), abs=1e-3)
        torch.testing.assert_close(ours_i["probabilities"], asked, atol=0.01, rtol=0)
        torch.testing.assert_close(ours_i["probabilities"].sum(0), torch.ones(32, 32))


def test_factorised_labels_have_occlusions_inside_the_extent(source, factorised):
    info = read_info(factorised)
    assert info.classes == ("background", "face", "occluder")
    assert info.counts == {"train": 6, "unlabelled": 6}
    assert (info.notes["extent"], info.notes["images"]) == ("disc", 12)
    inside = torch.from_numpy(Extent()(torch.zeros(2, 3, 32, 32))[1])
    data = FaceDataset(factorised, "train", "occlusion", probabilities=True)
    for i in range(len(data)):
        sample = data[i]
        assert set(sample["labels"].unique().tolist()) == {0, 1, 2}
        hidden = sample["labels"] == 2
        assert (sample["probabilities"][0][hidden] == 0).all()
        assert (sample["probabilities"][2][~hidden] == 0).all()
        assert not (hidden & ~inside).any()
    records = read_records(factorised).set_index("id")
    assert (records.found["train_00"], records.found["train_01"]) == (False, True)
    assert records.occlusions["train_01"] >= 1
    # The confidence is the teacher's own, in the complete face alone.
    image = FaceDataset(source, "train", "parts", ids=["train_01"])[0]["image"][None]
    sure = Teacher()(image)[0].amax(0)[inside].mean().item()
    assert records.confidence["train_01"] == pytest.approx(sure, abs=1e-3)


def test_labels_that_do_not_meet_the_rules_are_left_out(source, plain, tmp_path):
    records = read_records(plain)
    rules = {"confidence": float(records.confidence.median())}
    folder = make(tmp_path / "p", source, rules=rules)
    kept, _ = choose(records, **rules)
    assert 0 < len(kept) < 12
    labelled = {row.id: bool(row.labels) for row in read_index(folder)}
    assert labelled == {id: id in kept for id in records.id}
    assert read_info(folder).counts == {"train": len(kept), "unlabelled": 12 - len(kept)}


def test_another_size_is_seen_and_stored(source, tmp_path):
    folder = make(tmp_path / "p", source, size=16)
    assert read_info(folder).size == 16
    assert FaceDataset(folder, "train", "parts")[0]["labels"].shape == (16, 16)
    served = FaceDataset(folder, "train", "parts", size=24, probabilities=True)[0]
    assert served["probabilities"].shape == (3, 24, 24)


def test_a_second_call_does_not_ask_the_teacher_and_another_one_is_refused(source, plain):
    teacher = Teacher()
    make(plain, source, teacher)
    teacher.version = "2"
    with pytest.raises(DatasetError, match="folder"):
        make(plain, source, teacher)
    assert teacher.seen == []


def test_a_killed_call_is_resumed(source, plain, tmp_path):
    class Killed(Teacher):
        def __call__(self, images):
            if self.seen:
                raise KeyboardInterrupt
            return super().__call__(images)

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "p", source, Killed())
    assert not (tmp_path / "p").exists()
    teacher = Teacher()
    make(tmp_path / "p", source, teacher)
    assert sum(teacher.seen) == 8  # four of twelve were kept
    for name in ("index.csv", "records.csv"):
        assert (tmp_path / "p" / name).read_bytes() == (plain / name).read_bytes()


@pytest.mark.parametrize(("held_out", "left_out"), [(("validation", "test"), 1), ((), 0)])
def test_people_who_are_scored_on_are_left_out(source, tmp_path, held_out, left_out):
    rows = [row for row in read_index(source) if row.split == "train"]
    info = dataclasses.replace(read_info(source), counts={}, index_sha256="")
    with DatasetWriter(tmp_path / "people", info) as writer:
        for row in rows:
            image = (source / row.image).read_bytes()
            writer.add(row.id, "unlabelled", row.subject, image=image)
        writer.add("again", "test", rows[1].subject, image=image)
    folder = make(tmp_path / "p", tmp_path / "people", split="unlabelled", held_out=held_out)
    assert read_info(folder).notes["left_out"] == left_out
    known = {rows[1].subject} if left_out else set()
    assert {row.subject for row in read_index(folder)} == {row.subject for row in rows} - known


class Broken(Teacher):
    def __call__(self, images):
        return super().__call__(images)[:, :2]


class Nobody(Extent):
    def __call__(self, images):
        return np.zeros((len(images), 32, 32), bool)


class Stranger(Teacher):
    classes = ("sky", "sea", "land")


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"teacher": Broken()}, ValueError, "teacher"),
        ({"teacher": Stranger()}, ValueError, "teacher"),
        ({"extent": Nobody()}, DatasetError, "images"),
        ({"split": "nowhere"}, DatasetError, "split"),
    ],
    ids=["probabilities", "classes", "no face", "split"],
)
def test_an_error_leaves_no_data_set(source, tmp_path, options, error, named):
    with pytest.raises(error, match=named):
        make(tmp_path / "p", source, **options)
    assert not (tmp_path / "p").exists()


def test_folders_and_ids_that_are_none_are_named(source, tmp_path):
    with pytest.raises(DatasetError, match="empty"):
        make(tmp_path / "p", tmp_path / "empty")
    with pytest.raises(DatasetError, match="tiny"):
        read_records(source)
    with pytest.raises(DatasetError, match="ids"):
        FaceDataset(source, "train", "parts", ids=["train_03", "nobody"])


def test_rules_count_what_they_refuse(factorised):
    records = read_records(factorised)
    kept, counts = choose(records)
    assert (counts["no face"], counts["kept"], len(kept)) == (6, 6, 6)
    middle = records.confidence[records.found].median()
    kept, counts = choose(records, confidence=middle + 1e-6)
    assert 0 < counts["unsure"] < 6
    assert sum(counts.values()) == 12
    assert choose(records, face_area=(0.9, 1.0))[1]["face too small"] == 6


def test_ids_are_text_whatever_they_look_like(tmp_path):
    ids = ["007", "NA", "1e5", "Anna Miller 1"]
    lines = [f"{id},t,00123456789012,0.9,0.3,0,True" for id in ids]
    head = "id,teacher,version,confidence,face_area,occlusions,found"
    (tmp_path / "records.csv").write_text("\n".join([head, *lines]))
    records = read_records(tmp_path)
    assert choose(records)[0] == ids
    assert set(records.version) == {"00123456789012"}


@pytest.mark.parametrize(
    "augment", [Augment(flip=1.0, colour=0.3), Augment(flip=0.5, rotation=15, shift=0.1)], ids=str
)
def test_probabilities_move_with_the_image(plain, augment):
    keys = [(1, i) for i in range(8)]
    batch = FaceDataset(plain, "train", "parts", augment=augment, probabilities=True).__getitems__(keys)
    expected = FaceDataset(plain, "train", "parts", augment=augment).__getitems__(keys)
    torch.testing.assert_close(batch["image"], expected["image"])
    agree = (batch["probabilities"].argmax(1) == batch["labels"])[batch["labels"] != IGNORE]
    assert agree.float().mean() > 0.97
    torch.testing.assert_close(batch["probabilities"].sum(1), torch.ones(8, 32, 32))

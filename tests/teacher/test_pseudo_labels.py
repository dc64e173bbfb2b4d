import dataclasses

import numpy as np
import pytest
import torch

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


def make(folder, tiny_folder, teacher=None, **options):
    options = {"split": "train", "progress": False, "batch_size": 4} | options
    return prepare_pseudo_labels(folder, tiny_folder, teacher or Teacher(), **options)


def test_labels_are_the_likeliest_classes(tiny_folder, tmp_path):
    folder = make(tmp_path / "p", tiny_folder)
    info = read_info(folder)
    assert info.classes == ("background", "face", "hair")
    assert info.counts == {"train": 12}
    assert info.notes["teacher"] == "colours"
    theirs = FaceDataset(tiny_folder, "train", "parts")
    ours = FaceDataset(folder, "train", "parts", probabilities=True)
    for i in range(12):
        ours_i, theirs_i = ours[i], theirs[i]
        assert torch.equal(ours_i["image"], theirs_i["image"])  # the bytes are those of the source
        assert (ours_i["labels"] == theirs_i["labels"]).float().mean() > 0.99
        asked = Teacher()(theirs_i["image"][None])[0]
        torch.testing.assert_close(ours_i["probabilities"], asked, atol=0.01, rtol=0)
        torch.testing.assert_close(ours_i["probabilities"].sum(0), torch.ones(32, 32))


def test_records_say_who_labelled_and_how_surely(tiny_folder, tmp_path):
    records = read_records(make(tmp_path / "p", tiny_folder))
    assert records.id.tolist() == sorted(row.id for row in read_index(tiny_folder) if row.split == "train")
    assert set(records.teacher) == {"colours"}
    assert records.confidence.between(0.5, 1).all()
    data = FaceDataset(tiny_folder, "train", "parts")
    shares = [(data[i]["labels"] == 1).float().mean().item() for i in range(12)]
    np.testing.assert_allclose(records.face_area, shares, atol=0.01)


def test_factorised_labels_have_occlusions_inside_the_extent(tiny_folder, tmp_path):
    folder = make(tmp_path / "p", tiny_folder, extent=Extent(), cleaning=None)
    info = read_info(folder)
    assert info.classes == ("background", "face", "occluder")
    assert info.counts == {"train": 6, "unlabelled": 6}
    assert (info.notes["extent"], info.notes["images"]) == ("disc", 12)
    data = FaceDataset(folder, "train", "occlusion", probabilities=True)
    for i in range(len(data)):
        sample = data[i]
        assert set(sample["labels"].unique().tolist()) == {0, 1, 2}
        hidden = sample["labels"] == 2
        assert (sample["probabilities"][0][hidden] == 0).all()
        assert (sample["probabilities"][2][~hidden] == 0).all()
        y, x = hidden.nonzero().float().T
        assert (((x - 15.5) ** 2 + (y - 15.5) ** 2).sqrt() < 0.3 * 32).all()
    records = read_records(folder).set_index("id")
    assert not records.found["train_00"]
    assert records.found["train_01"]
    assert records.occlusions["train_01"] >= 1
    # The confidence is the teacher's own, in the complete face alone.
    image = FaceDataset(tiny_folder, "train", "parts", ids=["train_01"])[0]["image"][None]
    inside = Extent()(torch.zeros(2, 3, 32, 32))[1]
    sure = Teacher()(image)[0].amax(0)[torch.from_numpy(inside)].mean().item()
    assert records.confidence["train_01"] == pytest.approx(sure, abs=1e-3)


def test_labels_that_do_not_meet_the_rules_are_left_out(tiny_folder, tmp_path):
    records = read_records(make(tmp_path / "all", tiny_folder))
    rules = {"confidence": float(records.confidence.median())}
    folder = make(tmp_path / "p", tiny_folder, rules=rules)
    kept, _ = choose(records, **rules)
    assert 0 < len(kept) < 12
    labelled = {row.id: bool(row.labels) for row in read_index(folder)}
    assert labelled == {id: id in kept for id in records.id}
    assert read_info(folder).counts == {"train": len(kept), "unlabelled": 12 - len(kept)}


def test_another_size_is_seen_and_stored(tiny_folder, tmp_path):
    folder = make(tmp_path / "p", tiny_folder, size=16)
    assert read_info(folder).size == 16
    assert FaceDataset(folder, "train", "parts")[0]["labels"].shape == (16, 16)
    served = FaceDataset(folder, "train", "parts", size=24, probabilities=True)[0]
    assert served["probabilities"].shape == (3, 24, 24)


def test_a_second_call_does_not_ask_the_teacher(tiny_folder, tmp_path):
    make(tmp_path / "p", tiny_folder)
    teacher = Teacher()
    make(tmp_path / "p", tiny_folder, teacher)
    assert teacher.seen == []


def test_a_killed_call_is_resumed(tiny_folder, tmp_path):
    class Killed(Teacher):
        def __call__(self, images):
            if self.seen:
                raise KeyboardInterrupt
            return super().__call__(images)

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "p", tiny_folder, Killed())
    assert not (tmp_path / "p").exists()
    teacher = Teacher()
    make(tmp_path / "p", tiny_folder, teacher)
    assert sum(teacher.seen) == 8  # four of twelve were kept
    make(tmp_path / "q", tiny_folder)
    for name in ("index.csv", "records.csv"):
        assert (tmp_path / "p" / name).read_bytes() == (tmp_path / "q" / name).read_bytes()


def test_people_who_are_scored_on_are_left_out(tiny_folder, tmp_path):
    rows = [row for row in read_index(tiny_folder) if row.split == "train"]
    known = rows[1].subject
    info = read_info(tiny_folder)
    with DatasetWriter(tmp_path / "people", dataclasses.replace(info, counts={}, index_sha256="")) as writer:
        for row in rows:
            image = (tiny_folder / row.image).read_bytes()
            writer.add(row.id, "unlabelled", row.subject, image=image)
        writer.add("again", "test", known, image=image)
    for held_out, left_out in ((("validation", "test"), 1), ((), 0)):
        folder = tmp_path / f"labelled {left_out}"
        make(folder, tmp_path / "people", split="unlabelled", held_out=held_out)
        assert read_info(folder).notes["left_out"] == left_out
        found = {row.subject for row in read_index(folder)}
        assert found == {row.subject for row in rows} - ({known} if left_out else set())


class Broken(Teacher):
    def __call__(self, images):
        return super().__call__(images)[:, :2]


class Nobody(Extent):
    def __call__(self, images):
        return np.zeros((len(images), 32, 32), bool)


@pytest.mark.parametrize(
    ("teacher", "extent", "error", "named"),
    [(Broken(), None, ValueError, "teacher"), (Teacher(), Nobody(), DatasetError, "images")],
)
def test_an_error_leaves_no_data_set(tiny_folder, tmp_path, teacher, extent, error, named):
    with pytest.raises(error, match=named):
        make(tmp_path / "p", tiny_folder, teacher, extent=extent)
    assert not (tmp_path / "p").exists()


def test_another_teacher_is_refused_in_the_same_folder(tiny_folder, tmp_path):
    make(tmp_path / "p", tiny_folder)
    teacher = Teacher()
    teacher.version = "2"
    with pytest.raises(DatasetError, match="one of the same teacher"):
        make(tmp_path / "p", tiny_folder, teacher)


def test_what_cannot_be_labelled_is_named(tiny_folder, tmp_path):
    with pytest.raises(DatasetError, match="split"):
        make(tmp_path / "p", tiny_folder, split="nowhere")
    with pytest.raises(DatasetError, match="expected a prepared data set"):
        make(tmp_path / "p", tmp_path / "empty")
    teacher = Teacher()
    teacher.classes = ("sky", "sea", "land")
    with pytest.raises(ValueError, match="teacher"):
        make(tmp_path / "p", tiny_folder, teacher)
    with pytest.raises(DatasetError, match="expected a pseudo-labelled data set"):
        read_records(tiny_folder)


def test_rules_count_what_they_refuse(tiny_folder, tmp_path):
    records = read_records(make(tmp_path / "p", tiny_folder, extent=Extent(), cleaning=None))
    kept, counts = choose(records)
    assert counts["no face"] == 6
    assert counts["kept"] == len(kept) == 6
    middle = records.confidence[records.found].median()
    kept, counts = choose(records, confidence=middle + 1e-6)
    assert 0 < counts["unsure"] < 6
    assert sum(counts.values()) == 12
    _, counts = choose(records, face_area=(0.9, 1.0))
    assert counts["face too small"] == 6


def test_ids_are_text_whatever_they_look_like(tmp_path):
    ids = ["007", "NA", "1e5", "Anna Miller 1"]
    lines = [f"{id},t,00123456789012,0.9,0.3,0,True" for id in ids]
    head = "id,teacher,version,confidence,face_area,occlusions,found"
    (tmp_path / "records.csv").write_text("\n".join([head, *lines]))
    records = read_records(tmp_path)
    assert choose(records)[0] == ids
    assert set(records.version) == {"00123456789012"}


def test_unknown_ids_are_refused(tiny_folder):
    with pytest.raises(DatasetError, match="ids"):
        FaceDataset(tiny_folder, "train", "parts", ids=["train_03", "nobody"])


def test_probabilities_move_with_the_image(tiny_folder, tmp_path):
    folder = make(tmp_path / "p", tiny_folder)
    for augment in (Augment(flip=1.0, colour=0.3), Augment(flip=0.5, rotation=15, shift=0.1)):
        data = FaceDataset(folder, "train", "parts", augment=augment, probabilities=True)
        plain = FaceDataset(folder, "train", "parts", augment=augment)
        keys = [(1, i) for i in range(8)]
        batch, expected = data.__getitems__(keys), plain.__getitems__(keys)
        torch.testing.assert_close(batch["image"], expected["image"])
        labelled = batch["labels"] != 255
        agree = (batch["probabilities"].argmax(1) == batch["labels"])[labelled]
        assert agree.float().mean() > 0.97
        torch.testing.assert_close(batch["probabilities"].sum(1), torch.ones(8, 32, 32))

"""The study of occlusion labels: it runs, resumes where it stopped, and its tables are whole.

Rendered faces that nothing covers stand for the photographs.
"""

import numpy as np
import pandas as pd
import pytest

import occlusion_labels
from consensus_lib.data import TASKS, DatasetInfo, DatasetWriter, FaceDataset
from synthetic_faces import CLASSES, Recipe, draw_face

SMALL = ["--rendered", "8", "--free", "8", "--human", "4", "--compositions", "0"]


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    """A data folder with photographs; what the tests draw and compose stays in it for the next."""
    folder, task, number = tmp_path_factory.mktemp("data"), TASKS["parts"], 0
    info = DatasetInfo("lfw_part_labels", task.classes, task.colours, "rendered", "MIT", 64)
    with DatasetWriter(folder / "lfw_part_labels-128", info) as writer:
        for split, count in {"train": 4, "validation": 3, "test": 3, "unlabelled": 8}.items():
            for _ in range(count):
                face = draw_face(5, number, 64, recipe=Recipe(occluded=0.0, people=0.0))
                labels = None if split == "unlabelled" else task.table(CLASSES)[face.labels]
                writer.add(f"{number:02d}", split, f"{number}", image=face.image, labels=labels)
                number += 1
    return folder


@pytest.fixture
def photographs(data_folder, monkeypatch):
    monkeypatch.setenv("CONSENSUS_DATA_DIR", str(data_folder))


@pytest.mark.slow
def test_a_composed_folder_keeps_what_is_known(photographs):
    folder = occlusion_labels.composed_folder("validation", 1, progress=False)
    assert folder == occlusion_labels.composed_folder("validation", 1, progress=False)
    joint, plain = FaceDataset(folder, "validation"), FaceDataset(folder, "validation", "occlusion")
    assert joint.info.classes == occlusion_labels.CLASSES
    for i in range(len(joint)):
        labels, found = joint[i]["labels"].numpy(), plain[i]["labels"].numpy()
        assert np.array_equal(found == 2, labels == 3)
        assert np.array_equal(found == 1, labels == 2)
    free = FaceDataset(occlusion_labels.composed_folder("unlabelled", 0, progress=False), "train")
    assert (free[0]["labels"] == 2).float().mean() > 0.05  # faces by the shipped parser


@pytest.mark.slow
def test_the_factory_is_scored_step_by_step(photographs, tmp_path):
    occlusion_labels.main(SMALL, tmp_path / "labels.csv")
    found = pd.read_csv(tmp_path / "labels.csv")
    assert found.command[0] == "python notebooks/studies/occlusion_labels.py " + " ".join(SMALL)
    composed = found[found.test_data != "synthetic_faces"]
    assert set(composed.split) == {"validation", "test"}
    assert not composed[composed.step.str.startswith("search")].split.eq("test").any()
    assert composed.iou_face.between(0.3, 1).all()
    assert found[found.test_data == "synthetic_faces"].complete_iou.between(0.5, 1).all()


@pytest.mark.slow
def test_students_learn_and_a_second_call_trains_nothing(photographs, tmp_path, monkeypatch):
    options = [*SMALL, "--students", "--seeds", "3", "--epochs", "1", "--tuning", "1"]
    options += ["--size", "32", "--width", "0.0625"]
    table = tmp_path / "students.csv"
    occlusion_labels.main(options, students=table)
    found = pd.read_csv(table)
    assert set(found["first"]) == set(pd.read_csv(occlusion_labels.STUDENTS)["first"])
    assert found.filter(like="rendered_iou").notna().all(axis=None)
    monkeypatch.setattr("consensus_lib.training.trainer.train_epoch", None)
    occlusion_labels.main(options, students=table)
    pd.testing.assert_frame_equal(pd.read_csv(table), found)


def test_the_stored_tables_are_whole():
    labels, students = pd.read_csv(occlusion_labels.TABLE), pd.read_csv(occlusion_labels.STUDENTS)
    assert labels.command.nunique() == students.command.nunique() == 1  # of one setting each
    composed = labels[labels.test_data != "synthetic_faces"]
    seeds = composed[composed.split == "test"].groupby("step").composition.apply(tuple)
    assert set(seeds) == {(0, 1, 2)}
    assert not composed[["iou_face", "iou_occlusion", "component_error"]].isna().any(axis=None)
    seeds = students.groupby("first").seed.apply(tuple)
    assert (len(seeds), seeds.nunique()) == (5, 1)
    scores = ["iou_background", "iou_face", "iou_occlusion", "rendered_iou_occlusion", "component_error"]
    assert not students[scores].isna().any(axis=None)

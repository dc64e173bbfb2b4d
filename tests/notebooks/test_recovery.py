"""What notebook 04 scores with."""

import numpy as np
import pytest

from consensus_lib.data import FaceDataset
from support import recovery
from synthetic_faces import Recipe, prepare_synthetic, read_truth


def test_rendered_faces_are_labelled_as_eq_2_labels_them(tmp_path):
    hands = Recipe(occluded=1.0, occluders=(("hand", 1.0),))
    source = prepare_synthetic(tmp_path / "faces", counts={"test": 4}, size=48, recipe=hands, workers=0)
    folder = recovery.within_the_face(source)
    assert folder == recovery.within_the_face(source)
    theirs, ours = (FaceDataset(one, "test", "occlusion") for one in (source, folder))
    beside = 0
    for i, row in enumerate(ours.rows):
        face = read_truth(source, row.id)[1]
        before, after = theirs[i]["labels"].numpy(), ours[i]["labels"].numpy()
        assert np.array_equal(after == 2, (before == 2) & face)
        assert np.array_equal(after == 1, before == 1)
        beside += ((before == 2) & ~face).sum()
    assert beside > 0
    assert recovery.unlabelled("synthetic", folder) == folder


def test_scores_by_hand():
    truth = np.array([[[0, 1, 1, 2], [0, 1, 1, 0], [0, 0, 0, 0], [2, 0, 0, 0]]])
    said = np.array([[[0, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0], [2, 0, 0, 0]]])
    assert recovery.scores(said, truth) == pytest.approx(
        {"background": 1.0, "face": 4 / 5, "occlusion": 1 / 2, "component error": 1.0}
    )

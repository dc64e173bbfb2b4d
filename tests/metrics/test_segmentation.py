import numpy as np
import pytest
import torch

from consensus_lib import IGNORE
from consensus_lib.metrics.segmentation import SegmentationScores

CLASSES = ("background", "face", "hair")


def scored(pred, target, superpixels=None, classes=CLASSES):
    scores = SegmentationScores(classes)
    scores.update(*(None if x is None else torch.as_tensor(x) for x in (pred, target, superpixels)))
    return scores


def test_a_case_worked_by_hand():
    target = [[[0, 0, 1, 1], [0, 2, 2, 1]]]
    pred = [[[0, 1, 1, 1], [0, 2, 0, 1]]]
    scores = scored(pred, target).compute()
    assert scores["pixel_accuracy"] == 6 / 8
    assert scores["iou_background"] == 2 / 4
    assert scores["iou_face"] == 3 / 4
    assert scores["iou_hair"] == 1 / 2
    assert scores["mean_iou"] == pytest.approx((2 / 4 + 3 / 4 + 1 / 2) / 3)
    assert scores["recall_background"] == 2 / 3
    assert scores["precision_face"] == 3 / 4
    assert scores["f1_hair"] == 2 / 3
    assert scores["mean_recall"] == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert scores["absent"] == []


def test_an_absent_class_is_left_out_and_named():
    scores = scored([[[0, 1], [0, 1]]], [[[0, 1], [1, 1]]]).compute()
    assert scores["absent"] == ["hair"]
    assert "iou_hair" not in scores
    assert scores["mean_iou"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_updates_add_up_and_parts_join_to_the_scores_of_the_whole():
    rng = np.random.default_rng(0)
    pred, target, cells = (torch.as_tensor(rng.integers(0, high, (5, 8, 8))) for high in (3, 3, 6))
    whole, updated = scored(pred, target, cells), SegmentationScores(CLASSES)
    parts = []
    for at in (slice(0, 3), slice(3, 5)):
        updated.update(pred[at], target[at], cells[at])
        parts.append(scored(pred[at], target[at], cells[at]))
    joined = SegmentationScores.joined([*parts, SegmentationScores(CLASSES)])
    for other in (updated, joined):
        assert other.compute() == whole.compute()
        for name, values in whole.per_image().items():
            np.testing.assert_array_equal(other.per_image()[name], values)
    assert parts[0].compute()["images"] == 3  # joining leaves the parts as they were
    with pytest.raises(ValueError, match="parts"):
        SegmentationScores.joined([*parts, SegmentationScores(("background", "face"))])


def test_ignored_pixels_and_images_without_a_labelled_pixel_count_in_no_score():
    target = np.array([[[1, 1, 1, IGNORE]], [[IGNORE] * 4]])
    pred = np.array([[[1, 0, 1, 1]], [[1, 1, 1, 1]]])
    scores, alone = scored(pred, target), scored(pred[:1, :, :3], target[:1, :, :3])
    assert scores.compute() == alone.compute()
    assert (scores.compute()["images"], scores.compute()["component_error"]) == (1, 1)  # not 2 and 0.5
    for key, values in scores.per_image().items():
        np.testing.assert_array_equal(values, [alone.per_image()[key][0], np.nan])
        sums = scores.weighted(key, np.ones(2)), alone.weighted(key, np.ones(1))
        np.testing.assert_array_equal(*sums, err_msg=key)
        assert np.isnan(scores.weighted(key, np.array([0, 1])))
    assert alone.per_image()["components"].dtype == int  # whole numbers where every image counts


def test_components_are_the_papers_and_holes_are_counted_apart():
    # Two pieces of face, one of them of two pixels that meet at a corner; the background's do not count.
    pred = [[[1, 1, 0, 0, 0], [1, 1, 0, 1, 0], [0, 0, 0, 0, 1]]]
    target = [[[1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 1, 0, 0]]]
    scores = scored(pred, target).compute()
    assert scores["component_error"] == scores["component_error_signed"] == 1
    assert (scores["holes"], scores["holes_true"], scores["hole_error"]) == (0, 1, 1)
    assert scored(target, pred).compute()["component_error_signed"] == -1


def test_superpixels_vote_by_majority_in_each_image():
    target = [[[1, 1, 1, 0, 0, 0]], [[0, 0, 0, 0, 0, 0]]]
    pred = [[[1, 1, 0, 1, 1, 0]], [[1, 1, 1, 1, 1, 1]]]
    superpixels = [[[0, 0, 0, 4, 4, 4]], [[0, 0, 0, 0, 0, 0]]]
    assert scored(pred, target, superpixels).compute()["superpixel_accuracy"] == 1 / 3
    assert "superpixel_accuracy" not in scored(pred, target).compute()


def test_rows_are_the_scores_of_each_image_alone():
    target, pred = np.random.default_rng(1).integers(0, 3, (2, 5, 6, 6))
    rows = scored(pred, target).per_image()
    for i in range(5):
        alone = scored(pred[i : i + 1], target[i : i + 1]).compute()
        for key in rows.keys() & alone.keys():
            assert rows[key][i] == pytest.approx(alone[key])


@pytest.mark.parametrize(
    ("maps", "name"),
    [
        (([[[0.0]]], [[[0]]]), "pred"),
        (([[0]], [[[0]]]), "pred"),
        (([[[0, 1]]], [[[0]]]), "pred"),
        (([[[3]]], [[[0]]]), "pred"),
        (([[[0]]], [[[7]]]), "target"),
        (([[[0]]], [[[0]]], [[[0, 1]]]), "superpixels"),
    ],
)
def test_wrong_maps_are_named(maps, name):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        scored(*maps)


def test_nothing_counted_is_an_error():
    with pytest.raises(ValueError, match="compute"):
        SegmentationScores(CLASSES).compute()
    with pytest.raises(ValueError, match="classes"):
        SegmentationScores(["face"])

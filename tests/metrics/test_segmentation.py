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


def test_parts_join_to_the_scores_of_the_whole():
    rng = np.random.default_rng(0)
    pred, target, cells = (rng.integers(0, high, (5, 8, 8)) for high in (3, 3, 6))
    whole = scored(pred, target, cells)
    parts = [scored(pred[at], target[at], cells[at]) for at in (slice(0, 3), slice(3, 5))]
    joined = SegmentationScores.joined([*parts, SegmentationScores(CLASSES)])
    assert joined.compute() == whole.compute()
    for name, values in whole.per_image().items():
        np.testing.assert_array_equal(joined.per_image()[name], values)
    assert parts[0].compute()["images"] == 3  # joining leaves the parts as they were
    with pytest.raises(ValueError, match="parts: expected the classes"):
        SegmentationScores.joined([*parts, SegmentationScores(("background", "face"))])


def test_ignored_pixels_are_not_counted():
    scores = scored([[[0, 1], [2, 1]]], [[[0, 1], [IGNORE, 1]]])
    assert scores.confusion.sum() == 3
    assert scores.compute()["pixel_accuracy"] == 1
    assert scores.compute()["component_error"] == 0


def test_an_image_without_a_labelled_pixel_counts_in_no_score():
    target = np.array([[[1, 1, 1]], [[IGNORE] * 3]])
    pred = np.array([[[1, 0, 1]], [[1, 1, 1]]])
    scores, alone = scored(pred, target), scored(pred[:1], target[:1])
    assert scores.compute() == alone.compute()
    assert (scores.compute()["images"], scores.compute()["component_error"]) == (1, 1)  # not 2 and 0.5
    for key, values in scores.per_image().items():
        np.testing.assert_array_equal(values, [alone.per_image()[key][0], np.nan])
        assert scores.weighted(key, np.array([1, 1])) == alone.weighted(key, np.array([1])) or np.isnan(
            alone.weighted(key, np.array([1]))
        )
        assert np.isnan(scores.weighted(key, np.array([0, 1])))
    assert alone.per_image()["components"].dtype == int  # whole numbers where every image counts


def test_components_are_the_papers():
    # Predicted: two islands of face; the background's two pieces are not counted.
    target = [[[1, 1, 1, 1, 1]]]
    pred = [[[1, 1, 0, 1, 1]]]
    scores = scored(pred, target).compute()
    assert scores["component_error"] == scores["component_error_signed"] == 1
    assert scored(target, pred).compute()["component_error_signed"] == -1


def test_a_hole_is_seen_by_the_hole_count_only():
    target = np.ones((1, 5, 5), int)
    pred = target.copy()
    pred[0, 2, 2] = 0
    scores = scored(pred, target).compute()
    assert scores["component_error"] == 0
    assert (scores["holes"], scores["holes_true"], scores["hole_error"]) == (1, 0, 1)


def test_diagonal_neighbours_are_one_component():
    assert scored([[[1, 0], [0, 1]]], [[[0, 0], [0, 0]]]).compute()["component_error"] == 1


def test_superpixels_vote_by_majority():
    target = [[[1, 1, 1, 0, 0, 0]]]
    pred = [[[1, 1, 0, 1, 1, 0]]]
    superpixels = [[[0, 0, 0, 4, 4, 4]]]
    assert scored(pred, target, superpixels).compute()["superpixel_accuracy"] == 0.5
    assert "superpixel_accuracy" not in scored(pred, target).compute()


def test_superpixels_of_different_images_are_different():
    target, pred = [[[1, 1]], [[0, 0]]], [[[1, 1]], [[1, 1]]]
    assert scored(pred, target, [[[0, 0]], [[0, 0]]]).compute()["superpixel_accuracy"] == 0.5


def test_updates_add_up():
    rng = np.random.default_rng(0)
    target, pred = rng.integers(0, 3, (2, 6, 8, 8))
    once, twice = scored(pred, target), SegmentationScores(CLASSES)
    twice.update(torch.as_tensor(pred[:4]), torch.as_tensor(target[:4]))
    twice.update(torch.as_tensor(pred[4:]), torch.as_tensor(target[4:]))
    assert once.compute() == twice.compute()
    for name, values in once.per_image().items():
        np.testing.assert_array_equal(values, twice.per_image()[name])


def test_rows_are_the_scores_of_each_image_alone():
    rng = np.random.default_rng(1)
    target, pred = rng.integers(0, 3, (2, 5, 6, 6))
    rows = scored(pred, target).per_image()
    for i in range(5):
        alone = scored(pred[i : i + 1], target[i : i + 1]).compute()
        assert rows["mean_iou"][i] == pytest.approx(alone["mean_iou"])
        assert rows["iou_face"][i] == pytest.approx(alone["iou_face"])
        assert rows["pixel_accuracy"][i] == pytest.approx(alone["pixel_accuracy"])
        assert abs(rows["components"][i] - rows["components_true"][i]) == alone["component_error"]
        assert rows["holes"][i] == alone["holes"]


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

import itertools
import json
import math

import numpy as np
import pytest
import skimage.measure
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from consensus_lib import IGNORE
from consensus_lib.metrics.comparison import paired_bootstrap
from consensus_lib.metrics.components import count_by_class
from consensus_lib.metrics.contours import contour_distances, raggedness
from consensus_lib.metrics.segmentation import SegmentationScores
from consensus_lib.metrics.structure import StructureScores
from support.examples import CLASSES, contrasts

MAPS = st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 8)).flatmap(
    lambda shape: st.tuples(*[arrays(np.int64, shape, elements=st.integers(0, 2))] * 2)
)
HIGHER_IS_BETTER = ("boundary_f1",)


def scored(pred, target, classes=CLASSES):
    scores = StructureScores(classes)
    scores.update(torch.as_tensor(np.array(pred)), torch.as_tensor(np.array(target)))
    return scores


def drawn(*rows):
    return np.array([[".ox".index(c) for c in row] for row in rows])


# Slow references, written from the definitions, for one image and one class.


def contour(mask):
    """The pixels of a mask with a neighbour inside the image that is not of it."""
    found = []
    for y, x in np.argwhere(mask):
        near = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        if any(0 <= a < mask.shape[0] and 0 <= b < mask.shape[1] and not mask[a, b] for a, b in near):
            found.append((y, x))
    return found


def directed(a, b):
    return [min(math.dist(p, q) for q in b) for p in a]


def slow_f1(pred, true, tolerance):
    a, b = contour(pred), contour(true)
    if not pred.any() and not true.any():
        return np.nan
    if not a or not b:
        return float(pred.all() and true.all())
    precision = np.mean([d <= tolerance for d in directed(a, b)])
    recall = np.mean([d <= tolerance for d in directed(b, a)])
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def slow_hausdorff(pred, true, percentile):
    a, b = contour(pred), contour(true)
    if not pred.any() and not true.any():
        return np.nan
    if not a or not b:
        return 0.0 if pred.all() and true.all() else math.dist((0, 0), np.array(pred.shape) - 1)
    return max(np.percentile(directed(a, b), percentile), np.percentile(directed(b, a), percentile))


def slow_raggedness(pred, true):
    ratios = []
    if not pred.any() and not true.any():
        return np.nan
    for mask in (pred, true):
        sides = int((mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum())
        ratios.append(sides / mask.sum() if sides else 0)
    if not all(ratios):
        sign = np.sign(ratios[0] - ratios[1]) or int(pred.any()) - int(true.any())
        return sign * math.log2(2 * max(pred.size - 1, 1))
    return math.log2(ratios[0] / ratios[1])


@given(MAPS, st.floats(0, 5), st.sampled_from([0, 50, 95, 100]))
def test_contours_and_perimeters_are_those_of_the_definitions(maps, tolerance, percentile):
    pred, target = maps
    distances = contour_distances(pred, target, 3)
    f1, hausdorff = distances.f1(tolerance), distances.hausdorff(percentile)
    ragged = raggedness(pred, target, 3)
    assert np.isnan(f1[:, 0]).all()
    assert np.isnan(hausdorff[:, 0]).all()
    for i in range(len(pred)):
        for c in (1, 2):
            a, b = pred[i] == c, target[i] == c
            np.testing.assert_allclose(f1[i, c], slow_f1(a, b, tolerance))
            np.testing.assert_allclose(hausdorff[i, c], slow_hausdorff(a, b, percentile), atol=1e-12)
            np.testing.assert_allclose(ragged[i, c], slow_raggedness(a, b), atol=1e-12)
            # It is there where the others are, so that each method is compared on the same images.
            assert np.isnan(ragged[i, c]) == np.isnan(f1[i, c]) == np.isnan(hausdorff[i, c])


@given(MAPS)
def test_betti_numbers_give_the_euler_number(maps):
    betti = count_by_class(maps[0], 3)
    for i, one in enumerate(maps[0]):
        for c in (1, 2):
            euler = skimage.measure.euler_number(one == c, connectivity=2)
            assert betti[i, c, 0] - betti[i, c, 1] == euler


@given(MAPS)
def test_scores_hang_together(maps):
    pred, target = maps
    scores = scored(pred, target)
    image, own = scores.per_image(), scores.by_class()
    # Errors of two classes cannot cancel each other, so the paper's error is at most this one.
    assert (image["betti0_error"] >= np.abs(image["components"] - image["components_true"])).all()
    assert (image["betti1_error"] >= np.abs(image["holes"] - image["holes_true"])).all()
    np.testing.assert_array_equal(
        np.stack([own["betti0_error"], own["betti1_error"]], -1),
        np.abs(count_by_class(pred, 3) - count_by_class(target, 3))[:, 1:],
    )
    np.testing.assert_array_equal(own["holes"], count_by_class(pred, 3)[:, 1:, 1])
    assert (own["large_islands"] <= own["islands"]).all()
    assert (own["island_area"] >= own["islands"]).all()  # each has at least a pixel
    assert (own["hole_area"] >= own["holes"]).all()
    f1 = [image[f"boundary_f1_{t}"] for t in (1, 2, 4)]
    assert all(((a <= b) | np.isnan(a)).all() for a, b in itertools.pairwise(f1))
    for key, values in own.items():
        if key.endswith("share"):
            assert ((values >= 0) & (values <= 1) | np.isnan(values)).all()
    # The other way round, distances and F1 are the same, and raggedness changes its sign.
    back = scored(target, pred).per_image()
    for key in ("boundary_f1_1", "hausdorff95", "unmatched", "island_share_error"):
        np.testing.assert_allclose(back[key], image[key])
    np.testing.assert_allclose(back["raggedness"], -image["raggedness"], atol=1e-12)
    np.testing.assert_array_equal(back["hole_area"], image["hole_area_true"])


@given(MAPS)
def test_what_was_scored_before_stays_the_same(maps):
    plain = SegmentationScores(CLASSES)
    plain.update(*map(torch.as_tensor, maps))
    scores = scored(*maps)
    assert plain.compute().items() <= scores.compute().items()
    for key, values in plain.per_image().items():
        np.testing.assert_array_equal(scores.per_image()[key], values)
    assert not any(isinstance(v, float) and math.isnan(v) for v in scores.compute().values())
    json.dumps(scores.compute(), allow_nan=False)


@given(MAPS)
def test_a_map_is_like_itself(maps):
    scores = scored(maps[0], maps[0]).compute()
    for key, value in scores.items():
        if key.startswith("boundary_f1"):
            assert value == 1
        elif key.endswith("error") or key.startswith(("hausdorff95", "raggedness", "unmatched")):
            assert value == 0, key


# Cases worked by hand.


def test_islands_and_holes_with_their_areas():
    pred = drawn(
        "oooo.xx",
        "o..o.xx",
        "oooo...",
        ".....oo",
        "x......",
    )
    scores = scored([pred], [np.zeros((5, 7), int)])
    own = {key: values[0].tolist() for key, values in scores.by_class().items()}
    assert own["area"] == [12, 5]
    assert own["components"] == [2, 2]
    assert own["islands"] == [1, 1]
    assert own["island_area"] == [2, 1]
    assert own["island_share"] == [2 / 12, 1 / 5]
    assert own["holes"] == [1, 0]
    assert own["hole_area"] == [2, 0]
    assert own["hole_share"] == [2 / 14, 0]
    assert own["area_true"] == own["components_true"] == own["island_share_true"] == [0, 0]
    image = scores.per_image()
    assert image["island_share"] == 3 / 17  # pooled, not the mean of the classes
    assert image["hole_share"] == 2 / 19
    assert image["islands"] == 2


def test_one_of_two_equal_pieces_is_the_island():
    own = scored([drawn("oo.oo")], [drawn("ooooo")]).by_class()
    assert (own["islands"][0, 0], own["island_area"][0, 0], own["large_islands"][0, 0]) == (1, 2, 1)


def test_large_is_a_share_of_the_image():
    pred, target = np.zeros((2, 1, 128, 128), int)
    pred[0, 64:], target[0, 64:] = 1, 1
    pred[0, 2:5, 2:7] = 1  # 15 pixels
    pred[0, 10:14, 2:6] = 1  # 16
    pred[0, 80:84, 2:6] = pred[0, 90, 90] = 0
    scores = scored(pred, target).compute()
    assert (scores["islands"], scores["large_islands"]) == (2, 1)
    assert (scores["holes"], scores["large_holes"]) == (2, 1)
    assert scores["large_islands_true"] == scores["large_holes_true"] == 0


def test_errors_of_two_classes_add_up():
    target, pred = drawn("o.xx.x"), drawn("o.xxxo")
    scores = scored([pred], [target]).compute()
    assert scores["component_error"] == 0  # a face more, a hair less
    assert scores["betti0_error"] == 2


def test_boundary_f1_and_hausdorff_of_a_shifted_square():
    target, pred = np.zeros((2, 1, 128, 128), int)
    target[0, 40:60, 40:60] = 1
    pred[0, 40:60, 42:62] = 1  # two to the right
    # A contour has 76 pixels. Of the prediction's, the upper and the lower side have 18 in the same place and
    # one beside the truth's last; of the left side, the first and the last lie 1 below or above the truth's.
    scores = scored(pred, target).compute()
    assert scores["boundary_f1_1"] == pytest.approx((2 * 19 + 2) / 76)
    assert scores["boundary_f1_2"] == scores["boundary_f1_4"] == 1
    assert scores["hausdorff95"] == 2
    assert scores["hausdorff95_share"] == pytest.approx(2 / math.dist((0, 0), (127, 127)))
    assert scores["raggedness"] == 0


def test_tolerances_grow_with_the_image():
    target, pred = np.zeros((2, 1, 32, 32), int)
    target[0, 8:24, 8:24], pred[0, 8:24, 9:25] = 1, 1
    small = scored(pred, target).compute()
    large = scored(pred.repeat(8, 1).repeat(8, 2), target.repeat(8, 1).repeat(8, 2)).compute()
    assert small["boundary_f1_2"] < small["boundary_f1_4"] == 1  # 4 of 128 are 1 of 32
    assert large["boundary_f1_2"] < large["boundary_f1_4"] == 1  # and 8 of 256


def test_a_line_worked_by_hand():
    # Contour pixels: predicted at 0 and 2, true at 0 and 5, in one row.
    pred, target = drawn("o.o..."), drawn("o....o")
    distances = contour_distances(pred[None], target[None], 2)
    assert distances.f1(0)[0, 1] == 1 / 2
    assert distances.f1(2)[0, 1] == pytest.approx(2 * 1 * 0.5 / 1.5)  # 2 is 2 from 0; 5 is 3 from 2
    assert distances.f1(3)[0, 1] == 1
    assert distances.hausdorff(100)[0, 1] == 3
    assert distances.hausdorff(50)[0, 1] == 1.5  # half way from 0 to 3


def test_a_class_in_one_map_only_costs_the_diagonal():
    target, pred = drawn("xx..", "xx..", "....", "...."), drawn("....", "....", "..oo", "..oo")
    own = scored([pred], [target]).by_class()
    diagonal = math.dist((0, 0), (3, 3))
    assert own["hausdorff95"][0].tolist() == [diagonal, diagonal]
    assert own["hausdorff95_share"][0].tolist() == [1, 1]
    assert own["boundary_f1_4"][0].tolist() == [0, 0]
    assert own["unmatched"][0].tolist() == [1, 1]
    most = math.log2(2 * 15)
    assert own["raggedness"][0].tolist() == [most, -most]  # one too many, and one lost
    scores = scored([pred], [target]).compute()
    assert scores["unmatched"] == 2
    assert scores["raggedness_error"] == most


def test_no_raggedness_is_worse_than_a_lost_class():
    one, all_but_one = np.zeros((1, 5, 7), int), np.ones((1, 5, 7), int)
    one[0, 2, 2], all_but_one[0, 0, 0] = 1, 0
    nothing, everything = np.zeros_like(one), np.ones_like(one)
    most = math.log2(2 * 34)
    assert raggedness(one, all_but_one, 2)[0, 1] == pytest.approx(most)  # is reached
    assert raggedness(nothing, one, 2)[0, 1] == raggedness(everything, one, 2)[0, 1] == -most
    assert raggedness(one, nothing, 2)[0, 1] == most
    assert raggedness(nothing, everything, 2)[0, 1] == -most
    assert raggedness(everything, everything, 2)[0, 1] == 0


def test_who_loses_a_class_is_compared_on_the_same_images():
    truth = drawn("oooo..", "oooo..", "......"), drawn("......", ".xxx..", "......")
    careful = drawn("oooo..", "o.oo..", "......"), drawn("......", ".x.x..", "......")
    careless = drawn("oooo..", "o.oo..", "......"), np.zeros((3, 6), int)
    first, second = scored(careful, truth), scored(careless, truth)
    assert np.isfinite(first.per_image()["raggedness_error"]).all()
    assert np.isfinite(second.per_image()["raggedness_error"]).all()
    assert first.compute()["raggedness_error"] < second.compute()["raggedness_error"]
    assert paired_bootstrap([first], [second], "raggedness_error").low >= 0


def test_an_image_without_a_labelled_pixel_has_no_score():
    rng = np.random.default_rng(0)
    pred, target = rng.integers(0, 3, (2, 4, 9, 7))
    target[1] = IGNORE
    rest = [0, 2, 3]
    whole, without = scored(pred, target), scored(pred[rest], target[rest])
    assert whole.compute() == without.compute()
    assert whole.compute()["images"] == 3
    for rows, fewer in (
        (whole.per_image(), without.per_image()),
        (whole.by_class(), without.by_class()),
    ):
        for key, values in rows.items():
            assert np.isnan(values[1]).all(), key
            np.testing.assert_array_equal(values[rest], fewer[key])
    for key in whole.per_image():
        np.testing.assert_array_equal(
            whole.weighted(key, np.ones(4)), without.weighted(key, np.ones(3)), err_msg=key
        )


def test_a_class_in_neither_map_is_left_out():
    target = drawn("oo..", "oo..", "....")
    own = scored([target], [target]).by_class()
    assert own["hausdorff95"][0, 0] == 0
    assert np.isnan(own["hausdorff95"][0, 1])
    empty = np.zeros_like(target)
    image = scored([target, empty], [target, empty]).per_image()
    assert image["boundary_f1_1"][0] == 1
    assert np.isnan(image["boundary_f1_1"][1])
    assert image["unmatched"].tolist() == [0, 0]
    assert scored([target, empty], [target, empty]).compute()["boundary_f1_1"] == 1
    assert "hausdorff95" not in scored([empty], [empty]).compute()


def test_the_frame_is_no_contour():
    full = np.ones((1, 4, 4), int)
    half = full.copy()
    half[0, :, 2:] = 0
    assert scored(full, full).compute()["boundary_f1_1"] == 1
    assert scored(half, full).compute()["boundary_f1_1"] == 0
    assert scored(half, full).compute()["hausdorff95_share"] == 1
    assert contour_distances(half, half, 2).cell[0].tolist() == [1] * 4  # one column of four


def test_an_ignored_pixel_is_background_in_both():
    target = drawn("ooooo", "ooooo", "ooooo")
    target[1, 2] = IGNORE
    pred = drawn("ooooo", "ooxoo", "ooooo")
    scores = scored([pred], [target]).compute()
    assert scores["holes"] == scores["holes_true"] == 1
    assert scores["hole_share_error"] == scores["hausdorff95"] == scores["unmatched"] == 0


def test_parts_and_batches_join_to_the_whole():
    pred, target = np.random.default_rng(0).integers(0, 3, (2, 40, 9, 7))
    whole = scored(pred, target)
    joined = StructureScores.joined([scored(pred[at], target[at]) for at in (slice(0, 7), slice(7, 40))])
    assert joined.compute() == whole.compute()
    for key, values in whole.per_image().items():
        np.testing.assert_array_equal(joined.per_image()[key], values)
    alone = scored(pred[3:4], target[3:4]).by_class()
    for key, values in whole.by_class().items():
        np.testing.assert_array_equal(values[3:4], alone[key])


@pytest.mark.parametrize("contrast", contrasts(), ids=lambda contrast: contrast.score)
def test_each_score_tells_apart_what_iou_does_not(contrast):
    assert not (contrast.better == contrast.worse).all()
    better, worse = (
        scored(mask[None], contrast.truth[None]).compute() for mask in (contrast.better, contrast.worse)
    )
    for name in CLASSES:
        assert better.get(f"iou_{name}") == worse.get(f"iou_{name}")
    assert better["mean_iou"] == worse["mean_iou"] < 1
    sign = -1 if contrast.score.startswith(HIGHER_IS_BETTER) else 1
    assert sign * better[contrast.score] < sign * worse[contrast.score]
    # What the pair says about the other scores.
    blind = {
        "island_share": ["component_error"],
        "hole_share": ["hole_error"],
        "betti0_error": ["component_error"],
        "betti1_error": ["component_error"],
        "hausdorff95": ["component_error", "island_share", "boundary_f1_1", "boundary_f1_2", "boundary_f1_4"],
    }
    for key in blind.get(contrast.score, []):
        assert better[key] == worse[key]
    misled = {"large_islands": "component_error", "large_holes": "hole_error"}.get(contrast.score)
    assert misled is None or better[misled] > worse[misled]


def test_every_score_has_its_pair():
    told = {contrast.score for contrast in contrasts()}
    assert told == {
        "islands",
        "large_islands",
        "large_holes",
        "island_share",
        "hole_share",
        "betti0_error",
        "betti1_error",
        "boundary_f1_2",
        "hausdorff95",
        "raggedness_error",
    }

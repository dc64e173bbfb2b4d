import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from consensus_lib import IGNORE
from consensus_lib.metrics.comparison import paired_bootstrap
from consensus_lib.metrics.components import count_by_class
from consensus_lib.metrics.contours import contour_scores, raggedness
from consensus_lib.metrics.segmentation import SegmentationScores
from consensus_lib.metrics.structure import StructureScores
from support.examples import CLASSES, contrasts

MAPS = st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 8)).flatmap(
    lambda shape: st.tuples(*[arrays(np.int64, shape, elements=st.integers(0, 2))] * 2)
)


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


def slow_contour_scores(pred, true, tolerance, percentile):
    a, b = contour(pred), contour(true)
    if not pred.any() and not true.any():
        return np.nan, np.nan
    if not a or not b:
        full = pred.all() and true.all()
        return float(full), 0.0 if full else math.dist((0, 0), np.array(pred.shape) - 1)
    apart = [[min(math.dist(p, q) for q in there) for p in here] for here, there in ((a, b), (b, a))]
    precision, recall = (np.mean([d <= tolerance for d in one]) for one in apart)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return f1, max(np.percentile(one, percentile) for one in apart)


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


@settings(max_examples=50)
@given(MAPS, st.floats(0, 5), st.sampled_from([0, 50, 95, 100]))
def test_contours_and_perimeters_are_those_of_the_definitions(maps, tolerance, percentile):
    for (pred, target), c in itertools.product(zip(*maps, strict=True), (1, 2)):
        masks = pred == c, target == c
        f1, hausdorff = contour_scores(*masks, [tolerance], percentile)
        expected = slow_contour_scores(*masks, tolerance, percentile)
        np.testing.assert_allclose([*f1, hausdorff], expected, atol=1e-12)
        np.testing.assert_allclose(raggedness(*masks), slow_raggedness(*masks), atol=1e-12)


@settings(max_examples=50)
@given(MAPS)
def test_scores_of_images_hang_together(maps):
    pred, target = maps
    scores = scored(pred, target)
    image, counts = scores.per_image(), count_by_class(np.concatenate(maps), 3)[:, 1:].reshape(2, -1, 2, 2)
    betti = np.stack([image["betti0_error"], image["betti1_error"]], -1)
    np.testing.assert_array_equal(betti, np.abs(counts[0] - counts[1]).sum(1))
    # Methods are compared on the same images: all three are there, or none.
    for key in ("hausdorff95", "raggedness_error"):
        np.testing.assert_array_equal(np.isnan(image[key]), np.isnan(image["boundary_f1_1"]))
    # The base class's scores stay the same, and JSON can hold all of them.
    plain = SegmentationScores(CLASSES)
    plain.update(*map(torch.as_tensor, maps))
    assert plain.compute().items() <= scores.compute().items()
    json.dumps(scores.compute(), allow_nan=False)
    # A map is like itself.
    for key, value in scored(pred, pred).compute().items():
        if key.startswith("boundary_f1"):
            assert value == 1
        elif key.endswith("error") or key == "hausdorff95":
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
    image = scored([pred], [np.zeros((5, 7), int)]).per_image()
    assert (image["components"], image["holes"], image["islands"]) == (4, 1, 2)
    assert image["island_share"] == image["island_share_error"] == 3 / 17  # pooled over the classes
    assert image["hole_share"] == 2 / 19
    halves = scored([drawn("oo.oo")], [drawn("ooooo")]).per_image()  # one of two equal pieces is the island
    assert (halves["islands"], halves["large_islands"], halves["island_share"]) == (1, 1, 1 / 2)


def test_large_is_a_share_of_the_image():
    pred, target = np.zeros((2, 1, 128, 128), int)
    pred[0, 64:], target[0, 64:] = 1, 1
    pred[0, 2:5, 2:7] = 1  # 15 pixels
    pred[0, 10:14, 2:6] = 1  # 16
    pred[0, 80:84, 2:6] = pred[0, 90, 90] = 0
    scores = scored(pred, target).compute()
    assert (scores["islands"], scores["large_islands"]) == (2, 1)
    assert (scores["holes"], scores["large_holes"]) == (2, 1)


def test_tolerances_grow_with_the_image():
    target, pred = np.zeros((2, 1, 32, 32), int)
    target[0, 8:24, 8:24], pred[0, 8:24, 9:25] = 1, 1
    small = scored(pred, target).compute()
    large = scored(pred.repeat(8, 1).repeat(8, 2), target.repeat(8, 1).repeat(8, 2)).compute()
    assert small["boundary_f1_2"] < small["boundary_f1_4"] == 1  # 4 of 128 are 1 of 32
    assert large["boundary_f1_2"] < large["boundary_f1_4"] == 1  # and 8 of 256


def test_a_class_in_one_map_only_costs_the_most():
    pred, target = drawn("....", "....", "..oo", "..oo"), drawn("xx..", "xx..", "....", "....")
    scores = scored([pred], [target]).compute()
    assert scores["hausdorff95"] == math.dist((0, 0), (3, 3))
    assert scores["boundary_f1_4"] == 0
    assert scores["raggedness_error"] == math.log2(2 * 15)  # as of one pixel where all but one are true
    assert raggedness(pred == 9, target == 2) == -math.log2(2 * 15)


def test_who_loses_a_class_is_compared_on_the_same_images():
    truth = drawn("oooo..", "oooo..", "......"), drawn("......", ".xxx..", "......")
    careful = drawn("oooo..", "o.oo..", "......"), drawn("......", ".x.x..", "......")
    careless = drawn("oooo..", "o.oo..", "......"), np.zeros((3, 6), int)
    first, second = scored(careful, truth), scored(careless, truth)
    assert paired_bootstrap([first], [second], "raggedness_error").low >= 0
    assert first.compute()["raggedness_error"] < second.compute()["raggedness_error"]


def test_a_class_in_neither_map_is_left_out():
    target = drawn("oo..", "oo..", "....")
    empty = np.zeros_like(target)
    image = scored([target, empty], [target, empty]).per_image()
    np.testing.assert_array_equal(image["boundary_f1_1"], [1, np.nan])  # and hair counts in neither
    assert scored([target, empty], [target, empty]).compute()["boundary_f1_1"] == 1
    assert "hausdorff95" not in scored([empty], [empty]).compute()


def test_an_ignored_pixel_is_background_in_both():
    target = drawn("ooooo", "ooooo", "ooooo")
    target[1, 2] = IGNORE
    scores = scored([drawn("ooooo", "ooxoo", "ooooo")], [target]).compute()
    assert scores["holes"] == scores["holes_true"] == 1
    assert scores["betti1_error"] == scores["hausdorff95"] == 0


def test_a_file_keeps_the_scores(tmp_path):
    scores = scored(*np.random.default_rng(0).integers(0, 3, (2, 40, 9, 7)))
    scores.save(tmp_path / "scores.npz")
    again = StructureScores.load(tmp_path / "scores.npz")
    assert again.compute() == scores.compute()
    for key, values in scores.per_image().items():
        np.testing.assert_array_equal(again.per_image()[key], values)


@pytest.mark.parametrize("contrast", contrasts(), ids=lambda contrast: contrast.score)
def test_each_score_tells_apart_what_iou_does_not(contrast):
    better, worse = (
        scored(mask[None], contrast.truth[None]).compute() for mask in (contrast.better, contrast.worse)
    )
    for name in CLASSES:
        assert better.get(f"iou_{name}") == worse.get(f"iou_{name}")
    sign = -1 if contrast.score.startswith("boundary_f1") else 1
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

"""Paired differences, Holm's correction and Pareto front, against values computed otherwise."""

import numpy as np
import pytest
import torch
from scipy import stats

from consensus_lib.metrics.comparison import (
    holm,
    paired_bootstrap,
    paired_difference,
    pareto_front,
    two_level_interval,
)
from consensus_lib.metrics.segmentation import SegmentationScores
from consensus_lib.metrics.structure import StructureScores

CLASSES = ("background", "face", "hair")


def scored(pred, target, kind=SegmentationScores):
    scores = kind(CLASSES)
    for part in zip(pred.split(3), target.split(3), strict=True):
        scores.update(*part)
    return scores


def noisy(target, share, seed):
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(target.shape, generator=generator) < share
    return torch.where(wrong, torch.randint(3, target.shape, generator=generator), target)


@pytest.fixture
def target():
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    one = ((rows - 8) ** 2 + (columns - 8) ** 2 < 30).long() + (rows < 4).long() * 2
    return one.clamp(max=2).expand(20, -1, -1).contiguous()


@pytest.mark.parametrize("key", ["mean_iou", "pixel_accuracy", "f1_hair", "component_error", "betti0_error"])
def test_weighted_is_compute_of_images_that_occur_so_often(target, key):
    pred = noisy(target, 0.1, 0)
    scores = scored(pred, target, StructureScores)
    weights = np.array([np.ones(20, int), np.arange(20) % 3, np.arange(20) < 4])
    for found, often in zip(scores.weighted(key, weights), torch.from_numpy(weights), strict=True):
        again = scored(pred.repeat_interleave(often, 0), target.repeat_interleave(often, 0), StructureScores)
        assert found == pytest.approx(again.compute()[key])
    assert scores.weighted(key, np.ones(20)) == pytest.approx(scores.compute()[key])
    assert np.isnan(scores.weighted(key, np.zeros(20)))


BOTH = pytest.mark.parametrize("compare", [paired_bootstrap, paired_difference])


@BOTH
@pytest.mark.parametrize("key", ["mean_iou", "component_error"])
def test_a_clear_difference_has_an_interval_without_zero_and_none_has_not(target, compare, key):
    rough, fine, again = (
        [scored(noisy(target, share, seed), target) for seed in seeds]
        for share, seeds in ((0.1, (0, 1, 2)), (0.02, (3, 4, 5)), (0.1, (6, 7, 8)))
    )
    found = compare(rough, fine, key)
    means = np.array([[one.compute()[key] for one in method] for method in (rough, fine)])
    assert found.of_trainings == pytest.approx(means[1] - means[0])
    assert [found.first, found.second] == pytest.approx(means.mean(1))
    assert found.excludes_zero
    assert found.low < found.mean < found.high
    assert not compare(rough, again, key).excludes_zero
    same = compare(rough, rough, key)
    assert (same.low, same.high) == (0, 0)


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation(target):
    """Of one training, over images; for a mean of many both must nearly agree."""
    target = target.repeat(15, 1, 1)  # 300 images
    first, second = (scored(noisy(target, share, seed), target) for share, seed in ((0.1, 0), (0.07, 1)))
    found = paired_bootstrap([first], [second], "component_error", resamples=4000)
    gains = second.per_image()["component_error"] - first.per_image()["component_error"]
    half = 1.96 * gains.std() / np.sqrt(len(gains))
    assert found.low == pytest.approx(gains.mean() - half, abs=0.06 * half)
    assert found.high == pytest.approx(gains.mean() + half, abs=0.06 * half)


def test_trainings_that_disagree_widen_the_interval(target):
    base = [scored(noisy(target, 0.1, seed), target) for seed in (0, 1)]
    mixed = [scored(noisy(target, share, seed), target) for share, seed in ((0.02, 2), (0.3, 3))]
    both = paired_bootstrap(base, mixed, "pixel_accuracy")
    alone = paired_bootstrap(base[:1], mixed[:1], "pixel_accuracy")
    assert both.high - both.low > 5 * (alone.high - alone.low)
    assert not both.excludes_zero


@pytest.mark.parametrize("level", ["trainings", "images"])
def test_where_one_level_alone_differs_the_interval_is_that_of_the_t_test_over_it(level):
    means = np.random.default_rng(0).normal(0.1, 1, 20)
    values = np.repeat(means[:, None], 50, 1)
    low, high, p = two_level_interval(values if level == "trainings" else values.T)
    test = stats.ttest_1samp(means, 0)
    assert [low, high] == pytest.approx(list(test.confidence_interval()))
    assert p == pytest.approx(test.pvalue)


@pytest.mark.parametrize("seed_sd", [0.0, 1.0, 10.0])
def test_the_interval_holds_as_often_as_it_says(seed_sd):
    draw, held = np.random.default_rng(1), 0
    for _ in range(500):
        values = draw.normal(0, 0.7, (5, 50)) + draw.normal(0, 0.7, 50)
        values += seed_sd * 50**-0.5 * draw.normal(0, 1, (5, 1))
        low, high, p = two_level_interval(values)
        assert (p < 0.05) == (low > 0 or high < 0)
        held += low <= 0 <= high
    assert 0.92 < held / 500 < 0.985


@BOTH
def test_a_part_of_the_images(target, compare):
    noise = [noisy(target, share, seed) for share in (0.2, 0.1) for seed in (0, 1)]
    whole, alone = ([scored(one[at], target[at]) for one in noise] for at in (slice(None), slice(5)))
    found = compare(whole[:2], whole[2:], "component_error", images=np.arange(20) < 5)
    expected = compare(alone[:2], alone[2:], "component_error")
    assert found[1:5] == pytest.approx(expected[1:5])
    assert found.of_trainings == pytest.approx(expected.of_trainings)


def test_paired_difference_is_the_interval_of_the_gains_of_images(target):
    noise = [noisy(target, share, seed) for share in (0.2, 0.1) for seed in (0, 1)]
    scores = [scored(one, target) for one in noise]
    found = paired_difference(scores[:2], scores[2:], "component_error")
    errors = np.array([one.per_image()["component_error"] for one in scores])
    assert (found.low, found.high, found.p) == pytest.approx(two_level_interval(errors[2:] - errors[:2]))


@BOTH
@pytest.mark.parametrize(
    "wrong",
    [
        {"second": []},
        {"level": 1.0},
        {"images": np.zeros(20, bool)},
        {"key": "beauty"},
    ],
    ids=str,
)
def test_what_cannot_be_compared_is_refused(target, compare, wrong):
    one = scored(target, target)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        compare(**{"first": [one, one], "second": [one, one], "key": "mean_iou"} | wrong)


def test_too_few_trainings_images_and_resamples_are_refused(target):
    one, few = scored(target, target), scored(target[:4], target[:4])
    with pytest.raises(ValueError, match="second"):
        paired_bootstrap([], [], "mean_iou")
    with pytest.raises(ValueError, match="second"):
        paired_difference([one], [one], "mean_iou")
    with pytest.raises(ValueError, match="images"):
        paired_difference([one, one], [one, one], "mean_iou", images=np.arange(20) == 3)
    with pytest.raises(ValueError, match="resamples"):
        paired_bootstrap([one], [one], "mean_iou", resamples=0)
    with pytest.raises(ValueError, match="weights"):
        paired_bootstrap([one], [few], "mean_iou")


def test_holm_is_at_most_1_and_takes_none():
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_pareto_front():
    points = {"best area": (0.9, -3), "both": (0.8, -1), "beaten": (0.8, -2), "as good": (0.8, -1)}
    assert pareto_front(points) == ["best area", "both", "as good"]

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
    assert scores.weighted(key, np.ones(20)).shape == ()


def test_weighted_says_what_it_knows(target):
    scores = scored(target, target)
    with pytest.raises(ValueError, match=r"key: expected one of .*'mean_iou'.*got 'beauty'"):
        scores.weighted("beauty", np.ones(20))
    with pytest.raises(ValueError, match=r"weights: expected \[...,20\], one an image, got \[3\]"):
        scores.weighted("mean_iou", np.ones(3))
    assert np.isnan(scores.weighted("mean_iou", np.zeros(20)))


def test_a_clear_difference_is_decided_and_none_is_not(target):
    rough = [scored(noisy(target, 0.1, seed), target) for seed in (0, 1, 2)]
    fine = [scored(noisy(target, 0.02, seed), target) for seed in (3, 4, 5)]
    again = [scored(noisy(target, 0.1, seed), target) for seed in (6, 7, 8)]
    gain = paired_bootstrap(rough, fine, "mean_iou")
    assert gain.decided
    assert 0 < gain.low < gain.mean < gain.high
    assert gain.first == pytest.approx(np.mean([one.compute()["mean_iou"] for one in rough]))
    assert np.mean(gain.of_trainings) == pytest.approx(gain.mean)
    assert paired_bootstrap(rough, fine, "component_error").high < 0
    assert not paired_bootstrap(rough, again, "mean_iou").decided
    assert paired_bootstrap(rough, rough, "mean_iou")[3:6] == (0, 0, (0, 0, 0))


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
    assert not both.decided


def test_a_part_of_the_images(target):
    first, second = (scored(noisy(target, share, 0), target) for share in (0.2, 0.1))
    part = np.arange(20) < 5
    found = paired_bootstrap([first], [second], "component_error", images=part)
    expected = [one.per_image()["component_error"][:5].mean() for one in (first, second)]
    assert [found.first, found.second] == pytest.approx(expected)


def test_where_trainings_alone_differ_the_interval_is_that_of_the_t_test_over_trainings():
    means = np.array([0.1, 0.3, 0.2, 0.5, 0.4])
    low, high, p = two_level_interval(np.repeat(means[:, None], 100, 1))
    test = stats.ttest_1samp(means, 0)
    assert [low, high] == pytest.approx(list(test.confidence_interval()))
    assert p == pytest.approx(test.pvalue)


def test_where_images_alone_differ_the_interval_is_that_of_the_t_test_over_images():
    values = np.random.default_rng(0).normal(0.1, 1, 50)
    low, high, p = two_level_interval(np.repeat(values[None], 5, 0))
    test = stats.ttest_1samp(values, 0)
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


@pytest.mark.parametrize("key", ["mean_iou", "component_error"])
def test_paired_difference_of_methods(target, key):
    rough = [scored(noisy(target, 0.1, seed), target) for seed in (0, 1, 2)]
    fine = [scored(noisy(target, 0.02, seed), target) for seed in (3, 4, 5)]
    found, drawn = (compare(rough, fine, key) for compare in (paired_difference, paired_bootstrap))
    assert found[:3] == pytest.approx(drawn[:3])
    assert found.of_trainings == pytest.approx(drawn.of_trainings)
    assert found.decided
    assert found.p < 0.01
    assert found.low < found.mean < found.high
    same = paired_difference(rough, rough, key)
    assert (same.low, same.high, same.p) == (0, 0, 1)


def test_paired_difference_of_a_part_of_the_images(target):
    first, second = ([scored(noisy(target, share, seed), target) for seed in (0, 1)] for share in (0.2, 0.1))
    part = np.arange(20) < 5
    gains = np.array(
        [
            b.per_image()["component_error"] - a.per_image()["component_error"]
            for a, b in zip(first, second, strict=True)
        ]
    )[:, part]
    found = paired_difference(first, second, "component_error", images=part)
    assert (found.low, found.high, found.p) == pytest.approx(two_level_interval(gains))


@pytest.mark.parametrize("compare", [paired_bootstrap, paired_difference])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"first": []}, "second: expected as many trainings"),
        ({"second": []}, "got 0 and 2"),
        ({"level": 1.0}, "level: expected a share"),
        ({"images": np.zeros(20, bool)}, "images: expected at least"),
    ],
)
def test_what_cannot_be_compared_is_refused(target, compare, wrong, message):
    one = scored(target, target)
    with pytest.raises(ValueError, match=message):
        compare(**{"first": [one, one], "second": [one, one], "key": "mean_iou"} | wrong)


def test_few_images_resamples_and_other_images_are_refused(target):
    one, few = scored(target, target), scored(target[:4], target[:4])
    with pytest.raises(ValueError, match="resamples: expected"):
        paired_bootstrap([one], [one], "mean_iou", resamples=0)
    with pytest.raises(ValueError, match="weights: expected"):
        paired_bootstrap([one], [few], "mean_iou")
    with pytest.raises(ValueError, match="images: expected at least 2, got 1"):
        paired_difference([one, one], [one, one], "mean_iou", images=np.arange(20) == 3)


def test_holm_corrects_for_the_number_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_pareto_front():
    points = {"best area": (0.9, -3), "both": (0.8, -1), "beaten": (0.8, -2), "best structure": (0.1, 0)}
    assert pareto_front(points) == ["best area", "both", "best structure"]
    assert pareto_front({"a": (1, 1), "b": (1, 1)}) == ["a", "b"]

"""Losses and metrics against independent software.

What another package defines differently is written as what it is: a factor, a weight, or a bound. Packages
that are not installed are skipped; the extra ``test`` brings them.
"""

import numpy as np
import pytest
import skimage.measure
import skimage.segmentation
import torch
import torch.nn.functional as F

from consensus_lib import IGNORE
from consensus_lib.losses.baselines import (
    component_dice_loss,
    dice_loss,
    focal_loss,
    lovasz_softmax_loss,
)
from consensus_lib.losses.neighbours import total_variation_loss
from consensus_lib.metrics.components import count_by_class
from consensus_lib.metrics.contours import contour_scores
from consensus_lib.metrics.segmentation import SegmentationScores


def brought(module):
    return pytest.importorskip(module, reason=f"{module} is not there; the extra `test` brings it")


@pytest.fixture(scope="module")
def kornia():
    return brought("kornia.losses")


@pytest.fixture(scope="module")
def monai():
    return brought("monai.losses")


@pytest.fixture(scope="module")
def measures():
    return brought("monai.metrics")


# Random inputs


shapes = pytest.mark.parametrize(
    ("k", "shape"), [(2, (1, 5, 6)), (3, (2, 7, 8)), (4, (3, 6, 9)), (11, (2, 16, 15))]
)


def case(k, shape, ignore=0.0):
    """Return logits float64 ``[B,K,H,W]`` and labels; each class is in each image, in a corner at least."""
    rng = np.random.default_rng(k)
    labels = torch.from_numpy(rng.integers(0, k, shape))
    labels[torch.from_numpy(rng.random(shape) < ignore)] = IGNORE
    labels.flatten(1)[:, :k] = torch.arange(k)
    return torch.from_numpy(rng.normal(0, 2, (shape[0], k, *shape[1:]))).requires_grad_(), labels


def assert_same(logits, ours, theirs, **tolerance):
    torch.testing.assert_close(ours, theirs.to(ours), **tolerance)
    slopes = (torch.autograd.grad(value, logits)[0] for value in (ours, theirs))
    torch.testing.assert_close(*slopes, **tolerance)


# MONAI 1.6 calls itself with an argument that it has deprecated.
calls_monai_metrics = pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")

SINGLE = {"rtol": 1e-5, "atol": 1e-6}  # MONAI computes in float32


@shapes
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_is_kornias_sum_over_the_labelled_pixels(kornia, k, shape, gamma):
    logits, labels = case(k, shape, ignore=0.2)
    total = kornia.focal_loss(logits, labels, None, gamma, "sum", None, IGNORE)
    assert_same(logits, focal_loss(logits, labels, gamma=gamma), total / (labels != IGNORE).sum())


@shapes
def test_focal_is_monais_mean_times_the_classes(monai, k, shape):
    logits, labels = case(k, shape)
    theirs = monai.FocalLoss(to_onehot_y=True, use_softmax=True)(logits, labels[:, None])
    assert_same(logits, focal_loss(logits, labels), k * theirs, **SINGLE)


@shapes
@pytest.mark.parametrize("squared", [False, True])
def test_dice_is_monais(monai, k, shape, squared):
    logits, labels = case(k, shape)
    options = {"squared_pred": squared, "smooth_nr": 0, "smooth_dr": 0}
    theirs = monai.DiceLoss(to_onehot_y=True, softmax=True, **options)(logits, labels[:, None])
    assert_same(logits, dice_loss(logits, labels, squared=squared), theirs, **SINGLE)


@shapes
def test_dice_is_kornias_over_classes(kornia, k, shape):
    logits, labels = case(k, shape, ignore=0.2)
    labels[0][labels[0] == 1] = 0  # both leave an absent class out
    theirs = kornia.dice_loss(logits, labels, "macro", eps=0.0, ignore_index=IGNORE)
    assert_same(logits, dice_loss(logits, labels, squared=False), theirs)


@shapes
def test_lovasz_is_kornias_over_the_classes_that_occur(kornia, k, shape):
    logits, labels = case(k, shape, ignore=0.2)
    labels[0][labels[0] == 1] = 0
    values = []
    for image in ([b] for b in range(len(labels))):
        known = labels[image] != IGNORE  # kornia has no pixels to ignore, and counts all classes
        row = logits[image].movedim(1, -1)[known].T[None, :, None], labels[image][known][None, None]
        present = F.one_hot(row[1].unique(), k).sum(0).to(logits)
        values.append(kornia.lovasz_softmax_loss(*row, weight=present * k / present.sum()))
    assert_same(logits, lovasz_softmax_loss(logits, labels), torch.stack(values).mean())


@shapes
def test_total_variation_is_kornias_per_pixel(kornia, k, shape):
    logits, labels = case(k, shape)
    theirs = kornia.total_variation(logits.softmax(1)).sum() / labels.numel()
    assert_same(logits, total_variation_loss(logits, labels, pixel_weight=0), theirs)


def test_component_dice_is_monais_dice_of_each_component(monai):
    # As in blob loss: of one class, each component with the class's others masked out.
    logits, labels = case(2, (3, 12, 11))
    dice, values = monai.DiceLoss(smooth_nr=0, smooth_dr=0), []
    for p, label in zip(logits.softmax(1)[:, 1], labels, strict=True):
        components, found = skimage.measure.label(label.numpy(), connectivity=1, return_num=True)
        ones = [torch.from_numpy(components == c + 1) for c in range(found)]
        parts = [dice((p * (one | (label == 0)))[None, None], one[None, None].double()) for one in ones]
        values.append(sum(parts) / found)
    ours = component_dice_loss(logits, labels, dice_weight=0)
    assert_same(logits, ours, sum(values) / 3, **SINGLE)


def discs(seed, count=6, size=48, margin=2):
    """Return maps of two classes that are discs off the frame, and the same a little displaced."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    maps = np.zeros((2, count, size, size), int)
    for image in range(count):
        for label in (1, 1, 2):
            radius = rng.uniform(3, 9)
            centre = rng.uniform(radius + 2 * margin, size - radius - 2 * margin, 2)
            for one in maps:
                v, u = centre + rng.uniform(-margin, margin, 2)
                one[image][(y - v) ** 2 + (x - u) ** 2 < (radius + rng.uniform(-1, 1)) ** 2] = label
    return maps


def one_hot(maps, k=3):
    return F.one_hot(torch.as_tensor(maps), k).movedim(-1, 1)


def by_class(pred, target, *options, k=3):
    """Return ``contour_scores`` of each image and class 1..: F1 ``[N,K-1,T]``, and distances ``[N,K-1]``."""
    pairs = list(zip(pred, target, strict=True))
    found = [[contour_scores(a == c, b == c, *options) for c in range(1, k)] for a, b in pairs]
    return (np.array([[one[part] for one in row] for row in found]) for part in (0, 1))


@calls_monai_metrics
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("percentile", [50, 95, 100])
def test_hausdorff_is_monais_off_the_frame(measures, seed, percentile):
    pred, target = discs(seed)
    theirs = measures.compute_hausdorff_distance(one_hot(pred), one_hot(target), percentile=percentile)
    _, ours = by_class(pred, target, [1], percentile)
    assert (ours > 0).any()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@calls_monai_metrics
def test_monai_counts_the_frame_as_contour(measures):
    pred, target = np.zeros((2, 1, 8, 8), int)
    pred[:, :4], target[:, 4:] = 1, 1  # the upper half, and the lower
    assert contour_scores(pred[0] > 0, target[0] > 0, [1], 100)[1] == 1
    assert measures.compute_hausdorff_distance(one_hot(pred, 2), one_hot(target, 2)).item() == 4


@calls_monai_metrics
@pytest.mark.parametrize("seed", range(5))
def test_normalised_surface_dice_is_near_boundary_f1(measures, seed):
    # It pools the hits of the two contours, and F1 is the harmonic mean of their shares.
    pred, target = discs(seed)
    ours, _ = by_class(pred, target, [0.0, 1.0, 2.0])
    for tolerance, f1 in enumerate(np.moveaxis(ours, 2, 0)):
        theirs = measures.compute_surface_dice(one_hot(pred), one_hot(target), [float(tolerance)] * 2)
        np.testing.assert_allclose(f1, theirs, atol=0.03)


@pytest.mark.parametrize("k", [2, 5])
def test_scores_of_area_are_monais(measures, k):
    logits, target = case(k, (4, 9, 8))
    pred = logits.argmax(1)
    names = [f"c{c}" for c in range(k)]
    scores = SegmentationScores(names)
    scores.update(pred, target)
    theirs = measures.compute_iou(one_hot(pred, k), one_hot(target, k))
    ours = np.stack([scores.per_image()[f"iou_{name}"] for name in names], 1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    counts = measures.get_confusion_matrix(one_hot(pred, k), one_hot(target, k)).sum(0).T  # [4, K]
    hit, extra, _, missed = counts.double().numpy()
    for key, values in {
        "iou": hit / (hit + extra + missed),
        "precision": hit / (hit + extra),
        "recall": hit / (hit + missed),
        "f1": 2 * hit / (2 * hit + extra + missed),
    }.items():
        np.testing.assert_allclose([scores.compute()[f"{key}_{name}"] for name in names], values)


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 5), (8, 8), (17, 13), (32, 32)], ids=str
)
def test_components_and_holes_are_the_betti_numbers(shape):
    """Gudhi's, of the closed pixels, which meet at corners; and those of ``skimage.measure.label``."""
    gudhi = brought("gudhi")
    rng = np.random.default_rng(0)
    masks = rng.random((60, *shape)) < rng.uniform(0.2, 0.9, (60, 1, 1))
    ours = count_by_class(masks.astype(int), 2)[:, 1]
    for mask, (pieces, holes) in zip(masks, ours, strict=True):
        complex_ = gudhi.CubicalComplex(top_dimensional_cells=np.where(mask, 0.0, 1.0))
        complex_.compute_persistence()
        betti = [*complex_.persistent_betti_numbers(0.0, 0.5), 0, 0][:2]
        assert betti == [pieces, holes]
        assert skimage.measure.label(mask, connectivity=2, return_num=True)[1] == pieces
        outside = skimage.measure.label(~mask, connectivity=1)
        assert len(np.unique(skimage.segmentation.clear_border(outside))) - 1 == holes

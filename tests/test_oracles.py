"""Losses and metrics against independent software.

What another package defines differently is written as what it is: a factor, a weight, or a bound. Packages
that are not installed are skipped; the extra ``test`` brings them.
"""

import numpy as np
import pytest
import skimage.measure
import torch
import torch.nn.functional as F

from consensus_lib import IGNORE
from consensus_lib.losses.baselines import dice_loss, focal_loss, lovasz_softmax_loss
from consensus_lib.losses.neighbours import total_variation_loss
from consensus_lib.metrics.components import count_by_class
from consensus_lib.metrics.segmentation import SegmentationScores


def brought(module):
    return pytest.importorskip(module, reason=f"{module} is not there; the extra `test` brings it")


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


@shapes
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_is_kornias_sum_over_the_labelled_pixels(k, shape, gamma):
    logits, labels = case(k, shape, ignore=0.2)
    total = brought("kornia.losses").focal_loss(logits, labels, None, gamma, "sum", None, IGNORE)
    assert_same(logits, focal_loss(logits, labels, gamma=gamma), total / (labels != IGNORE).sum())


@shapes
@pytest.mark.parametrize("squared", [False, True])
def test_dice_is_monais(k, shape, squared):
    logits, labels = case(k, shape)
    options = {"squared_pred": squared, "smooth_nr": 0, "smooth_dr": 0}
    theirs = brought("monai.losses").DiceLoss(to_onehot_y=True, softmax=True, **options)(
        logits, labels[:, None]
    )
    assert_same(logits, dice_loss(logits, labels, squared=squared), theirs, rtol=1e-5, atol=1e-6)


@shapes
def test_dice_is_kornias_over_the_classes_that_occur(k, shape):
    logits, labels = case(k, shape, ignore=0.2)
    labels[0][labels[0] == 1] = 0
    theirs = brought("kornia.losses").dice_loss(logits, labels, "macro", eps=0.0, ignore_index=IGNORE)
    assert_same(logits, dice_loss(logits, labels, squared=False), theirs)


@shapes
def test_lovasz_is_kornias_over_the_classes_that_occur(k, shape):
    kornia = brought("kornia.losses")
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
def test_total_variation_is_kornias_per_pixel(k, shape):
    logits, labels = case(k, shape)
    theirs = brought("kornia.losses").total_variation(logits.softmax(1)).sum() / labels.numel()
    assert_same(logits, total_variation_loss(logits, labels, pixel_weight=0), theirs)


def one_hot(maps, k=3):
    return F.one_hot(torch.as_tensor(maps), k).movedim(-1, 1)


@pytest.mark.parametrize("k", [2, 5])
def test_scores_of_area_are_monais(k):
    logits, target = case(k, (4, 9, 8))
    pred, names, measures = logits.argmax(1), [f"c{c}" for c in range(k)], brought("monai.metrics")
    scores = SegmentationScores(names)
    scores.update(pred, target)
    theirs = measures.compute_iou(one_hot(pred, k), one_hot(target, k))
    ours = np.stack([scores.per_image()[f"iou_{name}"] for name in names], 1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    counts = measures.get_confusion_matrix(one_hot(pred, k), one_hot(target, k)).sum(0).T  # [4, K]
    hit, extra, _, missed = counts.double().numpy()
    for key, values in {
        "precision": hit / (hit + extra),
        "recall": hit / (hit + missed),
        "f1": 2 * hit / (2 * hit + extra + missed),
    }.items():
        np.testing.assert_allclose([scores.compute()[f"{key}_{name}"] for name in names], values)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 5), (8, 8), (32, 32)], ids=str)
def test_components_and_holes_are_the_betti_numbers(shape):
    """Gudhi's, of the closed pixels, which meet at corners; and those of ``skimage.measure.label``."""
    gudhi = brought("gudhi")
    rng = np.random.default_rng(0)
    masks = rng.random((30, *shape)) < rng.uniform(0.2, 0.9, (30, 1, 1))
    ours = count_by_class(masks.astype(int), 2)[:, 1]
    for mask, (pieces, holes) in zip(masks, ours, strict=True):
        complex_ = gudhi.CubicalComplex(top_dimensional_cells=np.where(mask, 0.0, 1.0))
        complex_.compute_persistence()
        betti = [*complex_.persistent_betti_numbers(0.0, 0.5), 0, 0][:2]
        assert betti == [pieces, holes]
        assert skimage.measure.label(mask, connectivity=2, return_num=True)[1] == pieces

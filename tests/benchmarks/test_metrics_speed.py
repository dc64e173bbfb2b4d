"""The vectorised scores against loops over images and superpixels, on 64 images of 128×128."""

import numpy as np
import skimage.filters
import skimage.measure
import skimage.segmentation
import torch

from consensus_lib.metrics import SegmentationScores

CLASSES = ("background", "face", "hair")


def maps(seed, count=64, side=128):
    rng = np.random.default_rng(seed)
    smooth = np.stack([skimage.filters.gaussian(rng.random((side, side)), 6) for _ in range(count)])
    cuts = np.quantile(smooth, (0.6, 0.85))
    return np.digitize(smooth, cuts)


def looped(pred, target, superpixels):
    """All scores of `compute`, image by image, class by class and superpixel by superpixel."""
    k, images = len(CLASSES), len(pred)
    confusion, excess, holes, right, cells = np.zeros((k, k), int), [], [], 0, 0
    for p, t, s in zip(pred, target, superpixels, strict=True):
        for a in range(k):
            for b in range(k):
                confusion[a, b] += ((t == a) & (p == b)).sum()
        pieces = [skimage.measure.label(m, background=0, connectivity=2, return_num=True)[1] for m in (p, t)]
        excess.append(pieces[0] - pieces[1])
        holes.append(
            [
                sum(
                    skimage.measure.label(
                        np.pad(m != c, 1, constant_values=True), connectivity=1, return_num=True
                    )[1]
                    - 1
                    for c in range(1, k)
                )
                for m in (p, t)
            ]
        )
        for cell in np.unique(s):
            inside = s == cell
            votes = [np.bincount(m[inside], minlength=k).argmax() for m in (p, t)]
            right += votes[0] == votes[1]
            cells += 1
    iou = np.diag(confusion) / (confusion.sum(0) + confusion.sum(1) - np.diag(confusion))
    return {
        "images": images,
        "mean_iou": iou.mean(),
        "component_error": np.abs(excess).mean(),
        "holes": np.mean(holes, axis=0)[0],
        "holes_true": np.mean(holes, axis=0)[1],
        "superpixel_accuracy": right / cells,
    }


def test_scores_are_thirty_times_a_loop(ratio):
    pred, target = maps(0), maps(1)
    grid = np.mgrid[:128, :128] // 8  # 256 superpixels an image, about as many as Part Labels has
    superpixels = np.broadcast_to(grid[0] * 16 + grid[1], pred.shape).copy()
    tensors = [torch.from_numpy(m) for m in (pred, target, superpixels)]
    found = {}

    def vectorised():
        scores = SegmentationScores(CLASSES)
        scores.update(*tensors)
        found["fast"] = scores.compute()

    def loop():
        found["slow"] = looped(pred, target, superpixels)

    speedup = ratio(loop, vectorised, rounds=5, warmup=1)
    for key, value in found["slow"].items():
        np.testing.assert_allclose(found["fast"][key], value, rtol=1e-12, err_msg=key)
    assert speedup >= 30

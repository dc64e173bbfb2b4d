"""The vectorised scores against loops over images and superpixels, on the same 64 images of 128×128."""

import numpy as np
import skimage.measure
import torch

from consensus_lib.data import TASKS
from consensus_lib.metrics.segmentation import SegmentationScores
from synthetic_faces import CLASSES as SOURCE
from synthetic_faces import draw_face

CLASSES = TASKS["parts"].classes
K = len(CLASSES)


def majority_by_mode(labels):
    return labels.mode().values


def majority_by_count(labels):
    return labels.bincount(minlength=K).argmax()


def looped(pred, target, superpixels, majority):
    """The scores of `compute`, image by image, class by class and superpixel by superpixel, on tensors."""
    confusion, excess, holes, right, cells = np.zeros((K, K), int), [], [], 0, 0
    for p, t, s in zip(pred, target, superpixels, strict=True):
        for a in range(K):
            for b in range(K):
                confusion[a, b] += int(((t == a) & (p == b)).sum())
        label = skimage.measure.label
        pieces = [label(m.numpy(), background=0, connectivity=2, return_num=True)[1] for m in (p, t)]
        excess.append(pieces[0] - pieces[1])
        outside = [[np.pad(m.numpy() != c, 1, constant_values=True) for c in range(1, K)] for m in (p, t)]
        holes.append([sum(label(o, connectivity=1, return_num=True)[1] - 1 for o in one) for one in outside])
        for cell in s.unique():
            inside = s == cell
            right += int(majority(p[inside]) == majority(t[inside]))
            cells += 1
    iou = np.diag(confusion) / (confusion.sum(0) + confusion.sum(1) - np.diag(confusion))
    predicted_holes, true_holes = np.mean(holes, axis=0)
    return {
        "mean_iou": iou.mean(),
        "component_error": np.abs(excess).mean(),
        "holes": predicted_holes,
        "holes_true": true_holes,
        "superpixel_accuracy": right / cells,
    }


def test_scores_are_thirty_times_a_loop(ratio):
    table = torch.from_numpy(TASKS["parts"].table(SOURCE)).long()
    faces = torch.stack([table[torch.from_numpy(draw_face(0, i).labels).long()] for i in range(128)])
    target, pred = faces[:64], torch.where(torch.rand(64, 128, 128) < 0.002, faces[64:], faces[:64])
    y, x = np.mgrid[:128, :128] // 8  # 256 superpixels an image, about as many as Part Labels has
    superpixels = torch.from_numpy(np.broadcast_to(y * 16 + x, pred.shape).copy())
    found = {}

    def vectorised():
        scores = SegmentationScores(CLASSES)
        scores.update(pred, target, superpixels)
        found.update(scores.compute())

    speedups = {}
    for majority in (majority_by_mode, majority_by_count):
        slow = {}
        print(f"\nthe loop's majority vote: {majority.__name__}", end="")
        speedups[majority.__name__] = ratio(
            lambda slow=slow, majority=majority: slow.update(looped(pred, target, superpixels, majority)),
            vectorised,
            rounds=5,
            warmup=1,
        )
        for key, value in slow.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-12, err_msg=key)
    assert speedups["majority_by_mode"] >= 30

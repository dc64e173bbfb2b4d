"""Occluders composed onto a photograph; a rendered face, whose truth is known, stands for the photograph."""

import functools

import numpy as np
import pytest
from scipy import ndimage

from consensus_lib.data.tasks import TASKS
from synthetic_faces import CLASSES, Recipe, compose, draw_face, occlude

HAND = Recipe(occluders=(("hand", 1.0), ("mask", 1.0)), most=1)


@functools.cache
def photograph(index=1):
    """Return image, labels of parts, and the complete face of a rendered person whom nothing covers."""
    sample = draw_face(9, index, 128, recipe=Recipe(occluded=0.0, people=0.0))
    return sample.image, TASKS["parts"].table(CLASSES)[sample.labels], sample.face


def occluded(seed=0, index=1, **changes):
    image, labels, _ = photograph(index)
    return occlude(*(changes.get("given") or (image, labels)), seed, changes.get("recipe"))


def test_labels_say_what_of_the_face_is_covered():
    composed, again, other = (occluded(seed, recipe=HAND) for seed in (0, 0, 1))
    assert np.array_equal(composed.image, again.image)
    assert np.array_equal(composed.labels, again.labels)
    assert not np.array_equal(composed.image, other.image)
    assert composed.kinds[0] in ("hand", "mask")
    assert np.array_equal(composed.complete, composed.labels > 0)
    assert np.array_equal(composed.labels == 2, composed.complete & composed.occluder)
    assert composed.share == pytest.approx((composed.labels == 2).sum() / composed.complete.sum())
    assert composed.share > 0.02
    assert not (composed.hair & composed.complete).any()


@pytest.mark.parametrize("index", [1, 3])
def test_the_complete_face_leaves_out_neck_and_ears(index):
    _, labels, face = photograph(index)
    composed, truth = occluded(index=index), face & (labels == 1)
    assert (truth & composed.complete).sum() / (truth | composed.complete).sum() > 0.8


@pytest.mark.parametrize("seed", range(2))
def test_edges_of_the_occluder_lie_on_edges_of_the_image(seed):
    composed, (image, _, _) = occluded(seed, recipe=HAND), photograph()
    changed = np.abs(composed.image.astype(float) - image).sum(2)
    slope = ndimage.gaussian_gradient_magnitude(changed, 0.7)
    outside, inside = (ndimage.distance_transform_edt(m) for m in (~composed.occluder, composed.occluder))
    edge = (np.maximum(outside, inside) <= 1) & (changed > 0)
    beside = (np.maximum(outside, inside) > 3) & (np.maximum(outside, inside) < 8)
    assert slope[edge].mean() > 3 * slope[beside].mean()
    far = ndimage.binary_dilation(composed.occluder, iterations=16)
    assert np.array_equal(composed.image[~far], image[~far])


def test_an_occluder_is_as_dark_and_as_blurred_as_the_photograph():
    image, labels, _ = photograph()
    dark = (image * 0.3).astype(np.uint8)
    bright, dim = (occluded(recipe=HAND, given=(one, labels)) for one in (image, dark))
    inside = ndimage.binary_erosion(bright.occluder, iterations=3)
    assert dim.image[inside].mean() < 0.5 * bright.image[inside].mean()
    assert [compose.estimate_blur(ndimage.gaussian_filter(image, (s, s, 0))) for s in (1.5, 3)] == [
        pytest.approx(1.6, abs=0.35),
        pytest.approx(3.05, abs=0.6),
    ]
    noise = np.random.default_rng(0).normal(0, 5, image.shape)
    flat = (128 + noise).round().clip(0, 255).astype(np.uint8)
    assert compose.estimate_noise(flat) == pytest.approx(5, rel=0.1)


def test_strands_fall_only_where_there_is_hair():
    image, labels, _ = photograph()
    bald = np.where(labels == 2, 0, labels)
    recipe = Recipe(occluders=(("strands", 9.0), ("hand", 1.0)), most=2)
    assert occluded(recipe=recipe, given=(image, bald)).kinds == ("hand",)


@pytest.mark.parametrize(
    ("named", "change"),
    [
        ("photo", lambda image, labels: (image / 255, labels, 0)),
        ("photo", lambda image, labels: (image[:64], labels, 0)),
        ("labels", lambda image, labels: (image, labels[:64], 0)),
        ("labels", lambda image, labels: (image, labels + 1, 0)),
        ("labels", lambda image, labels: (image, 0 * labels, 0)),
        ("labels", lambda image, labels: (image, labels.astype(float), 0)),
        ("seed", lambda image, labels: (image, labels, 0.5)),
    ],
)
def test_bad_input_is_named(named, change):
    with pytest.raises(ValueError, match=named):
        occlude(*change(*photograph()[:2]))

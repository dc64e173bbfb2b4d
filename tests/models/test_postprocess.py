import numpy as np
import pytest
import scipy.ndimage
import skimage.measure
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from consensus_lib import IGNORE
from consensus_lib.data import FaceDataset
from consensus_lib.metrics.components import count_by_class
from consensus_lib.models.postprocess import (
    POSTPROCESSING,
    FlipAveraged,
    Relabelled,
    WithCRF,
    fill_holes,
    local_crf,
    open_classes,
    options_at,
    remove_small_components,
)
from consensus_lib.training.trainer import predict


def picture(text):
    """Labels [1,H,W] from rows of digits; a dot is a pixel to ignore."""
    rows = [[IGNORE if c == "." else int(c) for c in row] for row in text.split()]
    return torch.tensor(rows)[None]


def noisy(seed, k=3, ignore=0.05):
    """Patches of k classes with noise and pixels to ignore, [3,9,11]."""
    rng, shape = np.random.default_rng(seed), (3, 9, 11)
    labels = rng.integers(0, k, (3, 3, 4)).repeat(3, 1).repeat(3, 2)[..., :11]
    labels = np.where(rng.random(shape) < 0.1, rng.integers(0, k, shape), labels)
    return torch.from_numpy(np.where(rng.random(shape) < ignore, IGNORE, labels))


REPAIRS = [remove_small_components, fill_holes, open_classes]


SPECKS, RING = "000000 011110 012310 011110 000000", "11111 10001 10101 10001 11111"
CASES = {
    # 0 above, below and left of the 2, 1 right of it
    "the longest border": (remove_small_components, (2,), "00011 00211 00011", "00011 00011 00011"),
    "specks side by side": (remove_small_components, (2,), SPECKS, SPECKS.replace("23", "11")),
    # the 2 borders on nothing but a ring that goes, too
    "a speck amid a speck": (remove_small_components, (9,), "00000 01110 01210 01110 00000", "00000 " * 5),
    "nothing is large": (remove_small_components, (3,), "012 120", "012 120"),
    "corners join": (remove_small_components, (2,), "1000 0100 0000", "1000 0100 0000"),
    "corners do not": (remove_small_components, (2, 4), "1000 0100 0000", "0000 0000 0000"),
    # of two parts; what reaches the corner is no hole
    "a hole": (fill_holes, (2,), "11111 10211 11111 11110", "11111 11111 11111 11110"),
    "a large hole": (fill_holes, (1,), "11111 10211 11111 11110", "11111 10211 11111 11110"),
    "nested holes": (fill_holes, (9,), RING, "11111 " * 5),
    "the inner hole": (fill_holes, (8,), RING, "11111 10001 10001 10001 11111"),
}


@pytest.mark.parametrize("name", CASES)
def test_repairs_worked_by_hand(name):
    function, options, before, after = CASES[name]
    assert torch.equal(function(picture(before), *options), picture(after))


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(2, 12))
def test_no_small_component_is_left_where_there_is_a_large_one(seed, k, min_size):
    before = noisy(seed, k)
    after = remove_small_components(before, min_size)
    assert torch.equal(before == IGNORE, after == IGNORE)
    for one, was, alone in zip(after, before, before.split(1), strict=True):
        assert torch.equal(remove_small_components(alone, min_size)[0], one)
        pieces = skimage.measure.label(one.numpy(), background=IGNORE, connectivity=2)
        sizes = np.bincount(pieces.ravel())[1:]
        assert (was == IGNORE).any() or sizes.max() < min_size or sizes.min() >= min_size


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 4))
def test_filling_all_holes_leaves_none(seed, k):
    after = fill_holes(noisy(seed, k, ignore=0), 99)
    assert (count_by_class(after.numpy(), k)[:, :, 1] == 0).all()


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(0, 2))
def test_opening_equals_scipys(seed, radius):
    before = noisy(seed)
    after = open_classes(before, radius)
    square = np.ones((2 * radius + 1,) * 2, bool)
    for one, was in zip(after.numpy(), before.numpy(), strict=True):
        kept = np.zeros(was.shape, bool)
        for k in range(3):
            wide = np.pad(was == k, 2 * radius, constant_values=True)
            wide = scipy.ndimage.binary_opening(wide, square)
            kept |= wide[2 * radius :, 2 * radius :][: was.shape[0], : was.shape[1]]
        assert ((one == IGNORE) == (was == IGNORE)).all()
        assert (one[kept] == was[kept]).all()
        if kept.any():  # the rest takes the nearest of them
            apart = np.hypot(*(np.argwhere(one < IGNORE)[:, None] - np.argwhere(kept)).transpose(2, 0, 1))
            nearest = [set(was[kept][row == row.min()]) for row in apart]
            assert all(label in near for label, near in zip(one[one < IGNORE], nearest, strict=True))


def slow_crf(logits, image, radius, steps, w1, alpha, beta, w2, gamma):
    """The mean-field update of one image, pixel by pixel."""
    unary = logits.log_softmax(0)
    q, (height, width) = unary.exp(), unary.shape[1:]
    for _ in range(steps):
        new = torch.empty_like(q)
        for y, x in np.ndindex(height, width):
            near = [
                (v, u)
                for v, u in np.ndindex(height, width)
                if max(abs(v - y), abs(u - x)) <= radius and (v, u) != (y, x)
            ]
            far = torch.tensor([(v - y) ** 2 + (u - x) ** 2 for v, u in near]).double()
            other = torch.stack([((image[:, v, u] - image[:, y, x]) ** 2).sum() for v, u in near])
            colour, smooth = -far / (2 * alpha**2) - other / (2 * beta**2), -far / (2 * gamma**2)
            beliefs = torch.stack([q[:, v, u] for v, u in near])
            message = (w1 * colour.softmax(0) + w2 * smooth.softmax(0)) @ beliefs
            new[:, y, x] = (unary[:, y, x] + message).softmax(0)
        q = new
    return q.log()


def test_the_crf_equals_its_equation():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    image = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64) * 2 - 1
    colour = {"colour_weight": 1.5, "colour_reach": 1.2, "colour_scale": 0.7}
    fast = local_crf(logits, image, radius=2, steps=3, **colour, smooth_weight=0.8, smooth_scale=0.9)
    slow = [slow_crf(*pair, 2, 3, 1.5, 1.2, 0.7, 0.8, 0.9) for pair in zip(logits, image, strict=True)]
    torch.testing.assert_close(fast, torch.stack(slow))


def test_the_crf_removes_a_speck_and_moves_a_border_to_the_colours():
    truth = torch.zeros(1, 16, 16, dtype=torch.int64)
    truth[:, :, 8:] = 1
    image = truth[:, None].float().expand(1, 3, 16, 16) * 2 - 1
    predicted = truth.clone()
    predicted[:, 4:7, 7] = 1  # a border one pixel off,
    predicted[0, 12, 3] = 1  # and a speck
    logits = 2 * nn.functional.one_hot(predicted, 2).movedim(-1, 1).float()
    assert torch.equal(local_crf(logits, image).argmax(1), truth)
    assert torch.equal(local_crf(logits, image, smooth_weight=0, colour_weight=0).argmax(1), predicted)


def test_a_crf_stays_finite_where_all_colours_differ():
    image = torch.linspace(-1, 1, 48).view(1, 3, 4, 4)
    assert local_crf(torch.randn(1, 2, 4, 4) * 1e4, image, colour_scale=1e-4).exp().isfinite().all()
    assert local_crf(torch.zeros(1, 2, 4, 4, dtype=torch.bfloat16), image).dtype == torch.float32


class Crooked(nn.Module):
    """A network that sees one side better than the other."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))  # says on which device it is

    def forward(self, image):
        slope = torch.linspace(-1, 2, image.shape[-1])
        return torch.stack([0 * image[:, 0], slope * image[:, 0], image[:, 1] - 1], 1) * 3


def test_averaged_flips_are_averaged_probabilities():
    image = torch.randn(2, 3, 8, 8)
    network = Crooked()
    mean = (network(image).softmax(1) + network(image.flip(3)).softmax(1).flip(3)) / 2
    averaged = FlipAveraged(network)
    torch.testing.assert_close(averaged(image).exp(), mean)
    torch.testing.assert_close(averaged(image.flip(3)), averaged(image).flip(3))


def test_predict_takes_them_as_networks(tiny_folder):
    data = FaceDataset(tiny_folder, "test", "parts")
    plain = predict(Crooked(), data)
    for function in REPAIRS:
        assert torch.equal(predict(Relabelled(Crooked(), function), data), function(plain.long()).byte())
    for model in (FlipAveraged(Crooked()), WithCRF(Crooked(), radius=1)):
        assert predict(model, data).shape == plain.shape


@pytest.mark.parametrize("function", REPAIRS)
def test_ignored_and_empty_maps_pass_through(function):
    ignored, kept = torch.full((1, 4, 4), IGNORE), noisy(0)
    assert torch.equal(function(ignored), ignored)
    assert function(ignored[:0]).shape == (0, 4, 4)
    function(kept)
    assert torch.equal(kept, noisy(0))  # not written to


def test_wrong_arguments_are_named():
    logits, image = torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4)
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    for function, arguments, named in (
        *((function, (labels.float(),), "labels") for function in REPAIRS),
        (remove_small_components, (labels, 2, 6), "connectivity"),
        (local_crf, (logits[0], image), "logits"),
        (local_crf, (logits, image[:, :1]), "image"),
    ):
        with pytest.raises(ValueError, match=named):
            function(*arguments)


@pytest.mark.parametrize("name", POSTPROCESSING)
def test_each_method_by_name_wraps_a_network(name):
    corrected = POSTPROCESSING[name].make(nn.Conv2d(3, 4, 1), **options_at(64).get(name, {}))
    assert corrected(torch.randn(2, 3, 8, 8)).shape == (2, 4, 8, 8)


def test_sizes_of_specks_and_holes_grow_with_the_image():
    assert options_at(128) == {"components": {"min_size": 16}, "holes": {"max_size": 16}}
    assert options_at(16)["holes"]["max_size"] == 2

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
from consensus_lib.training.trainer import evaluate, predict


def picture(text):
    """Labels [1,H,W] from rows of digits; a dot is a pixel to ignore."""
    rows = [[IGNORE if c == "." else int(c) for c in row] for row in text.split()]
    return torch.tensor(rows)[None]


def noisy(seed, k=3, shape=(3, 9, 11), ignore=0.05):
    rng = np.random.default_rng(seed)
    labels = np.stack(
        [scipy.ndimage.zoom(rng.integers(0, k, (3, 3)), (3, 11 / 3), order=0) for _ in range(3)]
    )
    labels = np.where(rng.random(shape) < 0.1, rng.integers(0, k, shape), labels)
    return torch.from_numpy(np.where(rng.random(shape) < ignore, IGNORE, labels))


def test_a_speck_goes_to_the_longest_border():
    before = picture("00011 00211 00011")  # its neighbours: 0 above, below and left, 1 right
    assert torch.equal(remove_small_components(before, 2), picture("00011 00011 00011"))


def test_specks_amid_specks_wait_their_turn():
    before = picture("000000 011110 012310 011110 000000")  # a 2 and a 3 beside each other, within 1
    after = remove_small_components(before, 2)
    assert torch.equal(after, picture("000000 011110 011110 011110 000000"))
    amid = picture(
        "0000000 0011100 0012100 0011100 0000000"
    )  # the 2 borders on nothing but a ring that goes, too
    assert (remove_small_components(amid, 9) == 0).all()


def test_where_all_is_small_nothing_changes():
    before = picture("012 120")
    assert torch.equal(remove_small_components(before, 3), before)


def test_diagonal_neighbours_are_one_component_with_eight():
    before = picture("1000 0100 0000 0000")
    assert torch.equal(remove_small_components(before, 2), before)
    assert (remove_small_components(before, 2, connectivity=4) == 0).all()


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(2, 12))
def test_no_small_component_is_left_where_there_is_a_large_one(seed, k, min_size):
    before = noisy(seed, k)
    after = remove_small_components(before, min_size)
    assert torch.equal(before == IGNORE, after == IGNORE)
    for one, was in zip(after.numpy(), before.numpy(), strict=True):
        pieces = skimage.measure.label(np.where(one == IGNORE, -1, one), background=-1, connectivity=2)
        sizes = np.bincount(pieces.ravel())[1:]
        if (was != IGNORE).all() and sizes.max() >= min_size:
            assert sizes.min() >= min_size
    alone = torch.cat([remove_small_components(one[None], min_size) for one in before])
    assert torch.equal(after, alone)


def test_a_hole_of_several_parts_is_filled_by_its_area():
    before = picture("11111 10211 11111 11110")
    assert torch.equal(fill_holes(before, 2), picture("11111 11111 11111 11110"))  # the corner is no hole
    assert torch.equal(fill_holes(before, 1), before)


def test_filling_equals_scipys_where_one_class_has_holes():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :24] - 11.5
    disc = x**2 + y**2 < 100
    mask = disc & ((x**2 + y**2 > 49) | (rng.random(disc.shape) < 0.7))
    filled = fill_holes(torch.from_numpy(mask.astype(np.int64) + 5)[None], 100)[0] == 6
    assert (filled.numpy() == disc).all()
    assert (scipy.ndimage.binary_fill_holes(mask) == disc).all()


def test_nested_holes_are_filled_from_outside():
    before = picture("11111 10001 10101 10001 11111")
    assert (fill_holes(before, 9) == 1).all()
    assert torch.equal(fill_holes(before, 8), picture("11111 10001 10001 10001 11111"))


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 4))
def test_filling_all_holes_leaves_none(seed, k):
    before = noisy(seed, k, ignore=0)
    after = fill_holes(before, before[0].numel())
    assert (count_by_class(after.numpy(), k)[:, :, 1] == 0).all()
    assert torch.equal(after, torch.cat([fill_holes(one[None], 99) for one in before]))


def test_opening_cuts_spurs_and_keeps_squares():
    before = picture("0000000 0111000 0111110 0111000 0000000 0000000 0000000")
    after = open_classes(before)
    assert after[0, 2, 5] == 0  # the tip; the pixel beside the square is as near to the one as to the other
    after[0, 2, 4] = 0
    assert torch.equal(after, picture("0000000 0111000 0111000 0111000 0000000 0000000 0000000"))
    assert torch.equal(open_classes(before, 0), before)
    assert (open_classes(before, 2) == 0).all()


def test_opening_takes_what_lies_beyond_the_border_as_alike():
    before = picture("1100 1100 0000 0000")
    assert torch.equal(open_classes(before), before)


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
        assert (one[kept] == was[kept]).all()
        assert ((one == IGNORE) == (was == IGNORE)).all()
        assert not kept.any() or set(one[one != IGNORE]) == set(was[kept])


def slow_crf(logits, image, radius, steps, w1, alpha, beta, w2, gamma):
    """The mean-field update, pixel by pixel."""
    log_p = logits.log_softmax(1)
    out = torch.empty_like(log_p)
    for b, (unary, colours) in enumerate(zip(log_p, image, strict=True)):
        _, height, width = unary.shape
        q = unary.exp()
        for _ in range(steps):
            new = torch.empty_like(q)
            for y in range(height):
                for x in range(width):
                    message = 0
                    near = [
                        (v, u)
                        for v in range(max(0, y - radius), min(height, y + radius + 1))
                        for u in range(max(0, x - radius), min(width, x + radius + 1))
                        if (v, u) != (y, x)
                    ]
                    far = torch.tensor([(v - y) ** 2 + (u - x) ** 2 for v, u in near]).double()
                    other = torch.stack([((colours[:, v, u] - colours[:, y, x]) ** 2).sum() for v, u in near])
                    for w, kernel in (
                        (w1, (-far / (2 * alpha**2) - other / (2 * beta**2)).exp()),
                        (w2, (-far / (2 * gamma**2)).exp()),
                    ):
                        beliefs = torch.stack([q[:, v, u] for v, u in near])
                        message = message + w * (kernel[:, None] * beliefs).sum(0) / kernel.sum()
                    new[:, y, x] = (unary[:, y, x] + message).softmax(0)
            q = new
        out[b] = q.log()
    return out


def test_the_crf_equals_its_equation():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    image = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64) * 2 - 1
    fast = local_crf(
        logits,
        image,
        radius=2,
        steps=3,
        colour_weight=1.5,
        colour_reach=1.2,
        colour_scale=0.7,
        smooth_weight=0.8,
        smooth_scale=0.9,
    )
    torch.testing.assert_close(fast, slow_crf(logits, image, 2, 3, 1.5, 1.2, 0.7, 0.8, 0.9))


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


@pytest.mark.parametrize("options", [{"radius": 0}, {"steps": 0}])
def test_a_crf_without_neighbours_or_steps_changes_nothing(options):
    logits = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(
        local_crf(logits, torch.zeros(1, 3, 4, 4), **options), logits.log_softmax(1), rtol=0, atol=1e-6
    )


def test_a_crf_stays_finite_where_all_colours_differ():
    image = torch.linspace(-1, 1, 48).view(1, 3, 4, 4)
    assert local_crf(torch.randn(1, 2, 4, 4) * 1e4, image, colour_scale=1e-4).exp().isfinite().all()
    assert local_crf(torch.zeros(0, 2, 4, 4), image[:0]).shape == (0, 2, 4, 4)
    assert local_crf(torch.zeros(1, 2, 4, 4, dtype=torch.bfloat16), image).dtype == torch.float32


class Crooked(nn.Module):
    """A network that sees one side better than the other."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, image):
        slope = torch.linspace(-1, 2, image.shape[-1])
        return torch.stack([0 * slope + 0 * image[:, 0], slope * image[:, 0], image[:, 1] - 1], 1) * 3


def test_averaged_flips_are_averaged_probabilities():
    image = torch.randn(2, 3, 8, 8)
    network = Crooked()
    mean = (network(image).softmax(1) + network(image.flip(3)).softmax(1).flip(3)) / 2
    averaged = FlipAveraged(network)
    torch.testing.assert_close(averaged(image).exp(), mean)
    torch.testing.assert_close(averaged(image.flip(3)), averaged(image).flip(3))


def test_averaged_flips_exchange_left_and_right():
    class Sides(nn.Module):
        """A network that knows the left of a picture, class 1, from its right, class 2."""

        def forward(self, image):
            x = torch.linspace(-5, 5, image.shape[-1]).expand(len(image), image.shape[2], -1)
            return torch.stack([image[:, 0], -x, x], 1)

    image = torch.rand(2, 3, 8, 8)  # below what tells the sides apart
    averaged = FlipAveraged(Sides(), mirror=[0, 2, 1])
    assert (averaged(image)[..., :2].argmax(1) == 1).all()
    assert (averaged(image)[..., -2:].argmax(1) == 2).all()
    mirrored = averaged(image.flip(3)).flip(3)[:, [0, 2, 1]]
    torch.testing.assert_close(averaged(image), mirrored)
    assert not averaged.state_dict()


@pytest.mark.parametrize("mirror", [[1, 2, 0], [0, 1, 3], [0, 0, 1]])
def test_a_mirror_that_is_no_exchange_is_refused(mirror):
    with pytest.raises(ValueError, match=r"mirror: expected pairs that change places, got \["):
        FlipAveraged(Crooked(), mirror)
    with pytest.raises(ValueError, match="mirror: expected 3 classes, got 2"):
        FlipAveraged(Crooked(), [1, 0])(torch.randn(1, 3, 8, 8))


def test_evaluate_takes_them_as_networks(tiny_folder):
    data = FaceDataset(tiny_folder, "test", "parts")
    plain = predict(Crooked(), data)
    for function in (remove_small_components, fill_holes, open_classes):
        assert torch.equal(predict(Relabelled(Crooked(), function), data), function(plain.long()).byte())
    for model in (FlipAveraged(Crooked()), WithCRF(Crooked(), radius=1)):
        assert 0 <= evaluate(model, data).compute()["mean_iou"] <= 1
    assert "remove_small_components, min_size=3, connectivity=8" in repr(
        Relabelled(Crooked(), remove_small_components, min_size=3)
    )
    assert "radius=1, steps=5" in repr(WithCRF(Crooked(), radius=1))


@pytest.mark.parametrize("function", [remove_small_components, fill_holes, open_classes])
def test_ignored_and_empty_maps_pass_through(function):
    ignored = torch.full((1, 4, 4), IGNORE)
    assert torch.equal(function(ignored), ignored)
    assert function(ignored[:0]).shape == (0, 4, 4)
    kept = noisy(0)
    function(kept)
    assert torch.equal(kept, noisy(0))  # not written to


def test_wrong_arguments_are_named():
    labels, logits, image = (
        torch.zeros(1, 4, 4, dtype=torch.int64),
        torch.zeros(1, 2, 4, 4),
        torch.zeros(1, 3, 4, 4),
    )
    for function in (remove_small_components, fill_holes, open_classes):
        with pytest.raises(ValueError, match=r"labels: expected int64 \[B,H,W\], got torch.float32 \[4, 4\]"):
            function(torch.zeros(4, 4))
    for call, message in (
        (
            lambda: remove_small_components(labels, -1),
            "min_size: expected a whole number of at least 0, got -1",
        ),
        (lambda: remove_small_components(labels, connectivity=6), "connectivity: expected 4 or 8, got 6"),
        (lambda: fill_holes(labels, 1.5), "max_size: expected a whole number of at least 0, got 1.5"),
        (lambda: open_classes(labels, -1), "radius: expected a whole number"),
        (lambda: local_crf(logits[0], image), r"logits: expected float \[B,K,H,W\], got torch.float32"),
        (lambda: local_crf(logits, image[:, :1]), r"image: expected float \[1, 3, 4, 4\] like logits, got"),
        (lambda: local_crf(logits, image, colour_scale=0), "colour_scale: expected a number above 0, got 0"),
        (lambda: local_crf(logits, image, steps=-1), "steps: expected a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match=r"options: expected some of \['max_size'\], got 'min_size'"):
        Relabelled(Crooked(), fill_holes, min_size=3)


def test_each_method_by_name_wraps_a_network():
    assert len({method.title for method in POSTPROCESSING.values()}) == len(POSTPROCESSING) == 5
    for name, method in POSTPROCESSING.items():
        corrected = method.make(nn.Conv2d(3, 4, 1), **options_at(64).get(name, {}))
        assert corrected(torch.randn(2, 3, 8, 8)).shape == (2, 4, 8, 8)
    assert POSTPROCESSING["components"].make(nn.Identity(), min_size=5).options["min_size"] == 5


def test_sizes_in_pixels_follow_the_image():
    assert options_at(128) == {"components": {"min_size": 16}, "holes": {"max_size": 16}}
    assert options_at(64)["components"]["min_size"] == 4
    assert options_at(16)["holes"]["max_size"] == 2

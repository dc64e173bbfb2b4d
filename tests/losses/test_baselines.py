"""Each baseline by its equation; focal, Dice, Lovász-Softmax and total variation are in test_oracles.py."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus_lib import IGNORE
from consensus_lib.losses import BASELINES, ConsensusLoss, WithConsensus, pixelwise_loss
from consensus_lib.losses.baselines import component_dice_loss, dice_loss, region_mutual_information_loss
from consensus_lib.losses.blobs import label_blobs
from consensus_lib.losses.neighbours import affinity_loss, scnp_loss

MODULES = {name: baseline.make for name, baseline in BASELINES.items()}
OPTIONS = [
    ("focal", {"gamma": 0.5}),
    ("focal", {"gamma": 0.0}),
    ("dice", {"squared": False, "pixel_weight": 1.0}),
    ("lovasz", {"pixel_weight": 0.5}),
    ("affinity", {"margin": 1.0}),
    ("mutual_information", {"radius": 0, "pool": 1, "pixel_weight": 0.0}),
    ("scnp", {"radius": 2}),
    ("component_dice", {"connectivity": 8, "min_size": 2, "component_weight": 3.0}),
]
ALL = [*((name, {}) for name in MODULES), *OPTIONS]
every = pytest.mark.parametrize(("name", "options"), ALL, ids=lambda part: str(part))


def case(seed, k=3, shape=(2, 7, 8), ignore=0.04):
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.integers(0, k, shape))
    labels[torch.from_numpy(rng.random(shape) < ignore)] = IGNORE
    logits = torch.from_numpy(rng.normal(0, 2, (shape[0], k, *shape[1:])))
    return logits.requires_grad_(), labels


def gradient(loss, logits, labels):
    return torch.autograd.grad(loss(logits, labels), logits)[0]


@every
def test_gradients_are_right(name, options):
    logits, labels = case(3, shape=(2, 6, 6))
    assert torch.autograd.gradcheck(MODULES[name](**options), (logits, labels))


@every
def test_ignored_pixels_may_hold_anything_and_have_no_say(name, options):
    loss = MODULES[name](**options)
    logits, labels = case(1)
    for spoilt in ([9.0, -9.0, 0.0], [np.inf, -np.inf, np.nan], [-np.inf] * 3, [3e38] * 3):
        spoilt = torch.tensor(spoilt, dtype=torch.float64).view(1, 3, 1, 1).expand_as(logits)
        bad = torch.where((labels == IGNORE)[:, None], spoilt, logits).detach().requires_grad_()
        slope = gradient(loss, bad, labels)
        assert loss(bad, labels) == loss(logits, labels)
        assert torch.equal(slope, gradient(loss, logits, labels))
        assert (slope.movedim(1, -1)[labels == IGNORE] == 0).all()
        nothing, bad = torch.full_like(labels, IGNORE), spoilt.clone().requires_grad_()
        assert loss(bad, nothing) == 0
        assert (gradient(loss, bad, nothing) == 0).all()


@every
def test_a_class_masked_by_minus_infinity_is_not_there(name, options):
    loss = MODULES[name](**options)
    logits, labels = case(1)
    masked = torch.cat([logits, torch.full_like(logits[:, :1], -np.inf)], 1).detach().requires_grad_()
    value, slope = loss(logits, labels), gradient(loss, logits, labels)
    more = gradient(loss, masked, labels)
    assert (more[:, 3] == 0).all()
    if name == "affinity":  # the class adds pairs that are alike, with nothing to pull together
        assert loss(masked, labels) < value
        assert more.isfinite().all()
        return
    if name == "mutual_information":  # the class adds the log det of ξI
        value = value + np.log(1e-6) / 2
    torch.testing.assert_close(loss(masked, labels), value)
    torch.testing.assert_close(more[:, :3], slope)


@every
def test_absent_classes_and_a_network_that_is_sure_give_no_nan(name, options):
    loss = MODULES[name](**options)
    logits, labels = case(2, 4)
    labels[labels == 1] = 2
    labels[1] = IGNORE
    known = labels.where(labels != IGNORE, 0)
    sure = [size * F.one_hot((known + turn) % 4, 4).movedim(-1, 1) for size in (30.0, 1e4) for turn in (0, 1)]
    for x, y in ((logits, labels), (logits, torch.full_like(labels, 3)), *((one, labels) for one in sure)):
        x = x.detach().requires_grad_()
        assert loss(x, y).isfinite()
        assert gradient(loss, x, y).isfinite().all()


@every
def test_layout_and_precision_do_not_matter(name, options):
    loss = MODULES[name](**options)
    logits, labels = case(4)
    value, slope = loss(logits, labels), gradient(loss, logits, labels)
    torch.testing.assert_close(loss(logits.to(memory_format=torch.channels_last), labels), value)
    single = logits.detach().float().requires_grad_()
    torch.testing.assert_close(loss(single, labels).double(), value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient(loss, single, labels).double(), slope, rtol=1e-3, atol=1e-5)
    assert loss(logits.bfloat16(), labels).dtype == torch.float32


@every
def test_the_module_is_its_function_and_says_its_settings(name, options):
    logits, labels = case(5)
    loss, more = MODULES[name](**options), dict(options)
    if name == "component_dice":
        of_blobs = {key: more.pop(key) for key in ("connectivity", "min_size") if key in more}
        more["blobs"] = label_blobs(labels, "component", **of_blobs)
    assert loss(logits, labels) == loss.function(logits, labels, **more)
    assert all(f"{key}={value!r}" in repr(loss) for key, value in options.items())


@pytest.mark.parametrize("name", [n for n in MODULES if n not in ("focal", "scnp")])  # these are one
def test_cross_entropy_is_added_in_one_way(name):
    logits, labels = case(6)
    without, whole = (MODULES[name](pixel_weight=weight)(logits, labels) for weight in (0.0, 2.0))
    torch.testing.assert_close(whole, without + 2 * pixelwise_loss(logits, labels))


@pytest.mark.parametrize("name", MODULES)
def test_wrong_arguments_are_named(name):
    zeros = torch.zeros(1, 8, 8, dtype=torch.int64)
    for logits, labels, named in (
        (torch.zeros(1, 8, 8), zeros, "logits"),
        (torch.zeros(1, 3, 8, 8), zeros.int(), "labels"),
        (torch.zeros(1, 3, 8, 8), zeros + 3, "labels"),
    ):
        with pytest.raises(ValueError, match=named):
            MODULES[name]()(logits, labels)


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("focal", {"gamma": -1}, "gamma"),
        ("affinity", {"margin": -1}, "margin"),
        ("scnp", {"radius": -1}, "radius"),
        ("mutual_information", {"pool": 0}, "pool"),
        ("mutual_information", {"radius": 2}, "logits"),
    ],
)
def test_options_out_of_range_are_named(name, options, named):
    with pytest.raises(ValueError, match=named):
        MODULES[name](**options)(*case(0))


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 3))
def test_affinity_equals_its_equation(seed, k):
    logits, labels = case(seed, k, (2, 4, 5))
    p, where = logits.detach().softmax(1).numpy(), labels.numpy() != IGNORE
    pull, push = [], []
    for b, y, x in np.argwhere(where):
        for down, right in itertools.product((-1, 0, 1), (-1, 0, 1)):
            v, u = y + down, x + right
            if (down or right) and 0 <= v < 4 and 0 <= u < 5 and where[b, v, u]:
                for c in range(k):
                    (q, not_q), (r, not_r) = (
                        np.maximum([one, 1 - one], 1e-4) for one in (p[b, c, v, u], p[b, c, y, x])
                    )
                    apart = q * np.log(q / r) + not_q * np.log(not_q / not_r)
                    alike = (labels[b, y, x] == c) == (labels[b, v, u] == c)
                    (pull if alike else push).append(apart if alike else max(0, 2 - apart))
    expected = np.mean(pull or [0]) + np.mean(push or [0])
    value = affinity_loss(logits, labels, weight=0.5, margin=2.0, pixel_weight=0)
    assert value.item() == pytest.approx(expected / 2)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 3), st.sampled_from([(0, 1), (1, 1), (1, 2)]))
def test_mutual_information_equals_its_equation(seed, k, form):
    radius, pool = form
    logits, labels = case(seed, k, (2, 8, 9))
    p, where = logits.detach().softmax(1).numpy(), labels.numpy() != IGNORE
    side, d = 2 * radius + 1, (2 * radius + 1) ** 2
    images = []
    for b in range(2):
        h, w = 8 // pool, 9 // pool
        cells = lambda m, h=h, w=w: m[: h * pool, : w * pool].reshape(h, pool, w, pool).mean((1, 3))  # noqa: E731
        whole = cells(where[b].astype(float)) == 1
        places = [
            (slice(y, y + side), slice(x, x + side)) for y in range(h - side + 1) for x in range(w - side + 1)
        ]
        places = [at for at in places if whole[at].all()]
        if not places:
            continue
        value = 0
        for c in range(k):
            ys = np.stack([cells((labels[b].numpy() == c) * 1.0)[at].ravel() for at in places])
            ps = np.stack([cells(p[b, c])[at].ravel() for at in places])
            both = np.cov(np.hstack([ys, ps]).T, bias=True).reshape(2 * d, -1)
            slack = 1e-6 * np.eye(d)
            inverse = np.linalg.inv(both[d:, d:] + slack)
            m = both[:d, :d] - both[:d, d:] @ inverse @ both[:d, d:].T
            value += np.linalg.slogdet(m + slack)[1] / (2 * d)
        images.append(value)
    value = region_mutual_information_loss(logits, labels, radius=radius, pool=pool, pixel_weight=0)
    assert value.item() == pytest.approx(np.mean(images) if images else 0, rel=1e-5)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 4))
def test_component_dice_equals_its_equation(seed, k):
    logits, labels = case(seed, k)
    p, where = logits.detach().softmax(1).numpy(), labels.numpy() != IGNORE
    blobs = label_blobs(labels, "component")
    images = []
    for b in range(2):
        classes = {}
        for c in np.flatnonzero((blobs.image == b) & (blobs.labels > 0)):  # not the background's
            one, label = (blobs.ids[b] == c).numpy(), int(blobs.labels[c])
            domain = where[b] & (one | (labels[b].numpy() != label))  # without the class's other components
            overlap = 2 * p[b, label][one].sum() / (p[b, label][domain].sum() + one.sum())
            classes.setdefault(label, []).append(1 - overlap)
        if classes:
            images.append(np.mean([np.mean(values) for values in classes.values()]))
    value = component_dice_loss(logits, labels, dice_weight=0, component_weight=1)
    assert value.item() == pytest.approx(np.mean(images))
    whole = component_dice_loss(logits, labels)
    torch.testing.assert_close(whole, value + 2 * dice_loss(logits, labels, squared=False))
    torch.testing.assert_close(component_dice_loss(logits, labels, blobs), whole)


def test_consensus_is_added_to_any_loss():
    logits, labels = case(8)
    parts = MODULES["dice"](), ConsensusLoss("component", alpha=0.0, beta=lambda progress: 4 * progress)
    both = WithConsensus(*parts)
    both.progress = 0.5  # as fit sets it
    expected = parts[0](logits, labels) + ConsensusLoss("component", alpha=0.0, beta=2.0)(logits, labels)
    torch.testing.assert_close(both(logits, labels), expected)
    blobs = label_blobs(labels, **both.blob_options)
    torch.testing.assert_close(both(logits, labels, blobs=blobs), expected)
    assert "alpha=0.0" in repr(both)  # it stands in checkpoints


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_scnp_takes_the_poorest_neighbour_of_each_class(radius):
    logits, labels = case(9, 3, (2, 5, 6), ignore=0.2)
    poor = torch.zeros_like(logits)
    height, width = labels.shape[1:]
    for b, k, y, x in itertools.product(*map(range, logits.shape)):
        rows, columns = (range(max(c - radius, 0), c + radius + 1) for c in (y, x))
        near = [(r, c) for r in rows for c in columns if r < height and c < width]
        mine = labels[b, y, x] == k
        same = [(r, c) for r, c in near if labels[b, r, c] != IGNORE and (labels[b, r, c] == k) == mine]
        if labels[b, y, x] != IGNORE:
            poor[b, k, y, x] = (min if mine else max)(logits[b, k, r, c] for r, c in same)
    expected = F.cross_entropy(poor, labels, ignore_index=IGNORE)
    torch.testing.assert_close(scnp_loss(logits, labels, radius=radius), expected)

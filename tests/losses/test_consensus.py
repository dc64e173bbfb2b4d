import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus_lib import IGNORE
from consensus_lib.losses import (
    ConsensusLoss,
    PixelwiseLoss,
    consensus_loss,
    pixelwise_loss,
    size_marginalised_loss,
)
from consensus_lib.losses.blobs import Blobs, blobs_from_ids, label_blobs

FIXTURES = Path(os.environ.get("CONSENSUS_FIXTURES", Path(__file__).parents[3] / "shared/fixtures"))
"""Where values of the authors' released code may lie: beside the checkout."""


def slow_terms(logits, blobs, stop_gradient):
    """Match and deviation of each blob by Eq. 6 and 7, pixel by pixel."""
    for c in range(len(blobs.size)):
        p = logits.softmax(1)[blobs.image[c]][:, blobs.ids[blobs.image[c]] == c].T  # [|c|, K]
        mean = p.mean(0)
        target = mean.detach() if stop_gradient else mean
        deviation = sum((target * (target / one).log()).sum() for one in p) / len(p)
        yield -mean[blobs.labels[c]].log(), deviation, len(p)


def slow_consensus(logits, labels, blobs, alpha, beta, size_weight=0.0, stop_gradient=False):
    """Eq. 8, written as it stands in the paper, image by image."""
    terms = list(slow_terms(logits, blobs, stop_gradient))
    images = []
    for b in range(len(logits)):
        mine = [terms[c] for c in (blobs.image == b).nonzero()[:, 0].tolist()]
        weights = [(size / int((labels[b] != IGNORE).sum())) ** size_weight for *_, size in mine]
        values = [alpha * match + beta * deviation for match, deviation, _ in mine]
        if mine:
            images.append(sum(w * t for w, t in zip(weights, values, strict=True)) / sum(weights))
    return sum(images) / len(images) if images else logits.sum() * 0


def slow_released(logits, ids, labels, alpha, beta):
    """The loop over ids of the whole batch that the released code makes."""
    log_p, (images, classes) = logits.log_softmax(1).movedim(1, -1), logits.shape[:2]
    values = []
    for number in ids[(labels != IGNORE) & (ids >= 0)].unique():
        match, deviation, pixels = 0.0, 0.0, 0
        for b in range(images):
            mine = log_p[b][(ids[b] == number) & (labels[b] != IGNORE)]  # [|c|, K]
            if len(mine):
                mean = mine.exp().mean(0)
                label = labels[b][(ids[b] == number) & (labels[b] != IGNORE)][0]
                match = match - mean[label].log() / images
                deviation = deviation + (mean * (mean.log() - mine)).sum()
                pixels += len(mine)
        values.append(alpha * match + beta * deviation / (classes * pixels))
    return sum(values) / len(values) if values else logits.sum() * 0


def case(seed, k=3, shape=(2, 4, 5)):
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.integers(0, k, shape))
    labels[torch.from_numpy(rng.random(shape) < 0.15)] = IGNORE
    logits = torch.from_numpy(rng.normal(0, 2, (shape[0], k, *shape[1:])))
    return logits.requires_grad_(), labels


def same(fast, slow, logits):
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (fast, slow)))


@settings(max_examples=60)
@given(
    st.integers(0, 10_000),
    st.integers(2, 5),
    st.sampled_from(["class", "component", "pixel", "any"]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.booleans(),
)
def test_the_fast_loss_equals_the_equations(seed, k, kind, size_weight, stop_gradient):
    logits, labels = case(seed, k)
    blobs = blobs_from_ids(labels % 2, labels) if kind == "any" else label_blobs(labels, kind)
    options = {"alpha": 2.0, "beta": 3.0, "size_weight": size_weight, "stop_gradient": stop_gradient}
    fast = consensus_loss(logits, labels, blobs, **options)
    same(fast, slow_consensus(logits, labels, blobs, **options), logits)


@pytest.mark.parametrize("mkl", [torch.backends.mkl.is_available(), False])
@pytest.mark.parametrize("kind", ["component", "class"])
def test_long_runs_are_summed_as_pixels_are(mkl, kind, monkeypatch):
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    logits, labels = case(0, 3, (2, 20, 30))
    labels = torch.zeros_like(labels)
    labels[:, 5:9], labels[:, 12, 4:6], labels[1, 15:] = 1, 2, IGNORE
    blobs = label_blobs(labels, kind)
    for stop in (False, True):
        fast = consensus_loss(logits, labels, blobs, alpha=2.0, beta=3.0, stop_gradient=stop)
        same(fast, slow_consensus(logits, labels, blobs, 2.0, 3.0, stop_gradient=stop), logits)


@pytest.mark.parametrize("wrong", [0.002, 0.3], ids=["in runs", "pixel by pixel"])
@pytest.mark.parametrize("shape", [(5, 3, 120, 130), (1, 9, 300, 256)], ids=str)
def test_threads_do_not_change_the_loss(wrong, shape):
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(shape[3]) // 40 % 3).expand(shape[0], *shape[2:]).contiguous()
    labels[torch.rand(labels.shape, generator=generator) < wrong] = IGNORE
    blobs, logits = label_blobs(labels, "component"), torch.randn(shape, generator=generator).requires_grad_()
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        value = consensus_loss(logits, labels, blobs)
        found += [value, torch.autograd.grad(value, logits)[0]]
    torch.set_num_threads(1)
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.sampled_from(["class", "component", "occlusion", "map"]))
def test_the_released_reduction_equals_its_loop(seed, kind):
    logits, labels = case(seed)
    if kind == "map":
        ids = blobs = labels * 10 + torch.arange(2)[:, None, None] * (labels == 1)
    else:
        blobs = label_blobs(labels, kind)
        ids = blobs.ids if blobs.group is None else torch.cat([blobs.group, torch.tensor([-1])])[blobs.ids]
    fast = consensus_loss(logits, labels, blobs, alpha=2.0, beta=3.0, reduction="released")
    same(fast, slow_released(logits, ids, labels, 2.0, 3.0), logits)


def test_the_released_reduction_equals_the_authors_values():
    if not (FIXTURES / "released_loss_cases.npz").is_file():
        pytest.skip(f"no values of the released code: {FIXTURES.name}/released_loss_cases.npz is not there")
    cases = np.load(FIXTURES / "released_loss_cases.npz")
    for i, meta in enumerate(json.loads(str(cases["meta"]))):
        logits, ids, labels, gradient = (
            torch.from_numpy(cases[f"{i}_{name}"]) for name in ("logits", "blobs", "target", "grad")
        )
        logits.requires_grad_()
        value = consensus_loss(
            logits, labels.long(), ids, alpha=meta["alpha"], beta=meta["beta"], reduction="released"
        )
        assert value.item() == pytest.approx(meta["loss"], abs=1e-10)
        torch.testing.assert_close(torch.autograd.grad(value, logits)[0], gradient, rtol=0, atol=1e-10)


def test_a_case_worked_by_hand():
    # Two pixels of class 0 with p = (0.8, 0.2) and (0.4, 0.6): mean (0.6, 0.4).
    p = torch.tensor([[0.8, 0.4], [0.2, 0.6]]).view(1, 2, 1, 2)
    labels = torch.zeros(1, 1, 2, dtype=torch.int64)
    match = -np.log(0.6)
    deviation = 0.5 * (
        0.6 * np.log(0.6 / 0.8) + 0.4 * np.log(0.4 / 0.2) + 0.6 * np.log(0.6 / 0.4) + 0.4 * np.log(0.4 / 0.6)
    )
    assert consensus_loss(p.log(), labels, alpha=1, beta=0).item() == pytest.approx(match)
    assert consensus_loss(p.log(), labels, alpha=0, beta=1).item() == pytest.approx(deviation)
    pixelwise = -(np.log(0.8) + np.log(0.4)) / 2
    assert pixelwise_loss(p.log(), labels).item() == pytest.approx(pixelwise)
    both = consensus_loss(p.log(), labels, pixel_weight=0.5).item()
    assert both == pytest.approx(10 * match + 5 * deviation + 0.5 * pixelwise)


def test_size_marginalised_averages_the_blobs_of_a_class():
    labels = torch.tensor([[[1, 0, 1, 1]]])
    logits = torch.randn(1, 2, 1, 4)
    entropy = F.cross_entropy(logits, labels, reduction="none")[0, 0]
    expected = entropy[1] + (entropy[0] + entropy[2:].mean()) / 2
    torch.testing.assert_close(
        size_marginalised_loss(logits, labels, label_blobs(labels, "component")), expected
    )


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (pixelwise_loss, {}),
        (size_marginalised_loss, {}),
        (consensus_loss, {"size_weight": 0.5}),
        (consensus_loss, {"pixel_weight": 2.0, "reduction": "released"}),
        (consensus_loss, {"alpha": 0.0}),
        (consensus_loss, {"beta": 0.0}),
    ],
)
def test_gradients_are_those_of_finite_differences_in_any_layout(loss, options):
    logits, labels = case(8, shape=(2, 3, 3))
    assert torch.autograd.gradcheck(lambda x: loss(x, labels, **options), logits)
    other = logits.to(memory_format=torch.channels_last)
    torch.testing.assert_close(loss(other, labels, **options), loss(logits, labels, **options))


@pytest.mark.parametrize("loss", [pixelwise_loss, size_marginalised_loss, consensus_loss])
def test_nothing_labelled_costs_nothing(loss):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    value = loss(logits, torch.full((2, 4, 4), IGNORE))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


def test_modules_equal_functions():
    logits, labels = case(10)
    assert PixelwiseLoss()(logits, labels) == pixelwise_loss(logits, labels)
    blobs = label_blobs(labels, "component", 8)
    module = ConsensusLoss("component", connectivity=8, alpha=1.0, beta=2.0)
    expected = consensus_loss(logits, labels, blobs, alpha=1.0, beta=2.0)
    assert module(logits, labels) == module(logits, labels, blobs) == expected


ZEROS = torch.zeros(1, 2, 2, dtype=torch.int64)
ONE = torch.zeros(1, dtype=torch.int64)


CONSENSUS = (consensus_loss,)
WITH_BLOBS = (*CONSENSUS, size_marginalised_loss)
ALL = (*WITH_BLOBS, pixelwise_loss)


@pytest.mark.parametrize(
    ("losses", "change", "argument"),
    [
        (ALL, {"logits": torch.zeros(2, 2, 2)}, "logits"),
        (ALL, {"labels": torch.zeros(1, 2, 3, dtype=torch.int64)}, "labels"),
        (ALL, {"labels": ZEROS.float()}, "labels"),
        (ALL, {"logits": torch.zeros(1, 2, 2, 2, device="meta")}, "labels"),
        (CONSENSUS, {"labels": ZEROS + 2}, "labels"),
        (CONSENSUS, {"reduction": "sum"}, "reduction"),
        (CONSENSUS, {"reduction": "released", "size_weight": 1.0}, "size_weight"),
        (CONSENSUS, {"reduction": "released", "blobs": ZEROS, "labels": torch.eye(2).long()[None]}, "blobs"),
        (WITH_BLOBS, {"blobs": torch.zeros(1, 2, 3, dtype=torch.int64)}, "ids"),
        (WITH_BLOBS, {"blobs": ZEROS.float()}, "ids"),
        (WITH_BLOBS, {"blobs": Blobs(ZEROS.int(), ONE, ONE, ONE + 4)}, "blobs.ids"),
        (WITH_BLOBS, {"blobs": Blobs(ZEROS + 1, ONE, ONE, ONE + 4)}, "blobs.ids"),
        (WITH_BLOBS, {"blobs": Blobs(ZEROS - 2, ONE, ONE, ONE + 4)}, "blobs.ids"),
    ],
)
def test_wrong_arguments_are_named(losses, change, argument):
    for loss in losses:
        with pytest.raises(ValueError, match=argument):
            loss(**{"logits": torch.zeros(1, 2, 2, 2), "labels": ZEROS} | change)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["class", "component"])
def test_a_compiled_module_cuts_its_own_blobs(kind):
    torch._dynamo.reset()
    loss = ConsensusLoss(kind)
    compiled = torch.compile(loss, backend="eager")
    for seed, side in enumerate((8, 8, 12)):  # compiled, found again, compiled anew
        logits, labels = case(seed, shape=(2, side, side))
        torch.testing.assert_close(compiled(logits, labels), loss(logits, labels))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 16, 20)])
def test_extreme_logits_give_exact_values_and_gradients(dtype, shape):
    labels = torch.zeros(shape, dtype=torch.int64)
    spread = torch.zeros(shape[1:], dtype=torch.float64)
    spread[0, 0] = 5
    logits = torch.zeros(shape[0], 3, *shape[1:], dtype=dtype)
    logits[:, 0], logits[:, 1] = spread - 1e4, 1e4
    logits.requires_grad_()
    value = consensus_loss(logits, labels, alpha=1, beta=0)
    expected = 2e4 - spread.exp().mean().log()  # -log of the mean of exp(-2e4 + spread)
    torch.testing.assert_close(
        value.double(), expected, rtol=1e-7 if dtype == torch.float32 else 1e-12, atol=0
    )
    gradient = torch.autograd.grad(value, logits)[0]
    share = spread.exp() / spread.exp().sum() / shape[0]
    torch.testing.assert_close(gradient[:, 0].double(), -share.expand(shape), rtol=2e-3, atol=1e-9)
    torch.testing.assert_close(gradient[:, 1], -gradient[:, 0])
    both = consensus_loss(logits, labels)
    assert both.isfinite()
    assert torch.autograd.grad(both, logits)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    logits, labels = case(0, shape=(1, 64, 64))
    half = logits.detach().to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = consensus_loss(half, labels)
    torch.testing.assert_close(value, consensus_loss(half.detach().float(), labels))
    value.backward()
    assert half.grad.dtype == dtype
    assert half.grad.isfinite().all()


def test_many_classes_and_an_empty_batch():
    logits, labels = case(0, 150, (1, 6, 6))
    blobs = label_blobs(labels)
    same(consensus_loss(logits, labels, blobs), slow_consensus(logits, labels, blobs, 10.0, 5.0), logits)
    none = torch.zeros(0, 3, 4, 4, requires_grad=True)
    consensus_loss(none, torch.zeros(0, 4, 4, dtype=torch.int64)).backward()
    assert none.grad.shape == none.shape


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_compile_breaks_no_graph(backend, layout):
    if backend == "inductor" and not shutil.which("g++"):
        pytest.skip("inductor needs a C++ compiler, and g++ is not there")
    logits, labels = case(2)
    logits = logits.detach().to(memory_format=layout).requires_grad_()
    blobs = label_blobs(labels, "component")
    compiled = torch.compile(consensus_loss, fullgraph=True, backend=backend)
    values = (loss(logits, labels, blobs, pixel_weight=0.5) for loss in (compiled, consensus_loss))
    same(*values, logits)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # forward mode's own
@pytest.mark.parametrize(
    "options", [{}, {"stop_gradient": True}, {"size_weight": 0.5}, {"reduction": "released"}], ids=str
)
@pytest.mark.parametrize("scale", [1.0, 1e3])  # means that float64 holds, and that it does not
def test_torch_func_and_forward_mode_see_the_same_derivatives(options, scale):
    logits, labels = case(3, shape=(2, 3, 4))
    logits = (scale * logits).detach().requires_grad_()
    point, step = logits.detach(), torch.randn(logits.shape, dtype=torch.float64)

    def loss(x):
        return consensus_loss(x, labels, **options)

    expected = torch.autograd.grad(loss(logits), logits)[0]
    gradient, value = torch.func.grad_and_value(loss)(point)
    torch.testing.assert_close(value, loss(point))
    for found in (gradient, torch.func.jacrev(loss)(point), torch.func.jacfwd(loss)(point)):
        torch.testing.assert_close(found, expected)
    with torch.autograd.forward_ad.dual_level():
        slope = torch.autograd.forward_ad.unpack_dual(loss(torch.autograd.forward_ad.make_dual(point, step)))
    torch.testing.assert_close(slope.tangent, (expected * step).sum())


@pytest.mark.parametrize("options", [{}, {"size_weight": 0.5}, {"reduction": "released"}], ids=str)
def test_second_derivatives_are_those_of_finite_differences(options):
    logits, labels = case(3, shape=(2, 2, 3))

    def loss(x):
        return consensus_loss(x, labels, **options)

    assert torch.autograd.gradgradcheck(loss, logits)
    assert torch.autograd.gradcheck(torch.func.grad(loss), logits)


LOSSES = {
    "pixelwise": pixelwise_loss,
    "size marginalised": size_marginalised_loss,
    "consensus": partial(consensus_loss, size_weight=1.0),
}


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 24, 30)], ids=["pixel by pixel", "in runs"])
@pytest.mark.parametrize("loss", LOSSES)
def test_ignored_pixels_have_no_gradient_whatever_their_logits_are(loss, shape):
    logits, labels = case(6, shape=shape)
    labels[:, 2:4] = IGNORE
    blobs = label_blobs(labels, "component")
    of = partial(LOSSES[loss], labels=labels, **({} if loss == "pixelwise" else {"blobs": blobs}))
    value, ignored = of(logits), (labels == IGNORE)[:, None].expand_as(logits)
    expected = torch.autograd.grad(value, logits)[0]
    assert (expected[ignored] == 0).all()
    for spoilt in (torch.nan, torch.inf, -torch.inf):
        for places in (ignored, ignored & (torch.arange(3)[:, None, None] == 1)):
            unknown = logits.detach().masked_fill(places, spoilt).requires_grad_()
            found = of(unknown)
            assert found == value
            for gradient in (torch.autograd.grad(found, unknown)[0], torch.func.grad(of)(unknown.detach())):
                assert (gradient[ignored] == 0).all()
                torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("kind", ["class", "component"])
@pytest.mark.parametrize("options", [{}, {"beta": 0.0}, {"stop_gradient": True}], ids=str)
def test_a_class_that_is_masked_by_minus_infinity_is_not_there(kind, options):
    logits, labels = case(7)
    blobs = label_blobs(labels, kind)
    masked = torch.cat([logits, torch.full_like(logits[:, :1], -torch.inf)], 1).detach().requires_grad_()
    found, expected = (consensus_loss(x, labels, blobs, **options) for x in (masked, logits))
    torch.testing.assert_close(found, expected)
    gradient = torch.autograd.grad(found, masked)[0]
    torch.testing.assert_close(gradient[:, :-1], torch.autograd.grad(expected, logits)[0])
    assert (gradient[:, -1] == 0).all()
    by_equations = torch.func.grad(lambda x: consensus_loss(x, labels, blobs, **options))(masked.detach())
    torch.testing.assert_close(by_equations, gradient)


def falling(progress):
    return 4 - 4 * progress


def test_schedules_follow_progress():
    logits, labels = case(4)
    loss = ConsensusLoss(alpha=falling, beta=lambda progress: 2 * progress)
    loss.progress = 0.5
    assert loss(logits, labels) == consensus_loss(logits, labels, alpha=2.0, beta=1.0)
    assert "alpha=falling" in repr(loss)
    assert " at 0x" not in repr(loss)  # resumed in another process, the settings must read the same

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from consensus_lib import IGNORE
from consensus_lib.blobs import label_blobs
from consensus_lib.losses import (
    ConsensusLoss,
    PixelwiseLoss,
    consensus_loss,
    pixelwise_loss,
    size_marginalised_loss,
)


def slow_consensus(logits, labels, blobs, alpha, beta, size_weight):
    """Eq. 6 to 8, written as they stand in the paper, blob by blob and pixel by pixel."""
    images = []
    for b in range(len(logits)):
        terms, weights = [], []
        for c in (blobs.image == b).nonzero()[:, 0].tolist():
            p = logits.softmax(1)[b][:, blobs.ids[b] == c].T  # [|c|, K]
            mean = p.mean(0)
            match = -mean[blobs.labels[c]].log()
            deviation = sum((mean * (mean / one).log()).sum() for one in p) / len(p)
            terms.append(alpha * match + beta * deviation)
            weights.append((len(p) / int((labels[b] != IGNORE).sum())) ** size_weight)
        if terms:
            images.append(sum(w * t for w, t in zip(weights, terms, strict=True)) / sum(weights))
    return sum(images) / len(images) if images else logits.sum() * 0


def case(seed, k=3, shape=(2, 4, 5)):
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.integers(0, k, shape))
    labels[torch.from_numpy(rng.random(shape) < 0.15)] = IGNORE
    logits = torch.from_numpy(rng.normal(0, 2, (shape[0], k, *shape[1:])))
    return logits.requires_grad_(), labels


@given(
    st.integers(0, 10_000),
    st.integers(2, 5),
    st.sampled_from(["class", "component", "pixel"]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_the_fast_loss_equals_the_equations(seed, k, kind, size_weight):
    logits, labels = case(seed, k)
    blobs = label_blobs(labels, kind)
    fast = consensus_loss(logits, labels, blobs, alpha=2.0, beta=3.0, size_weight=size_weight)
    slow = slow_consensus(logits, labels, blobs, 2.0, 3.0, size_weight)
    torch.testing.assert_close(fast, slow)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (fast, slow)]
    torch.testing.assert_close(*gradients)
    assert (gradients[0].movedim(1, -1)[labels == IGNORE] == 0).all()


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
    assert consensus_loss(p.log(), labels).item() == pytest.approx(10 * match + 5 * deviation)
    assert pixelwise_loss(p.log(), labels).item() == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)


def test_pixel_blobs_give_cross_entropy():
    logits, labels = case(3)
    labels = labels.clamp(max=2)  # nothing ignored, so that the images weigh the same
    consensus = consensus_loss(logits, labels, label_blobs(labels, "pixel"), alpha=1, beta=1)
    torch.testing.assert_close(consensus, F.cross_entropy(logits, labels))


def test_the_deviation_is_zero_where_a_blob_agrees():
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    logits = torch.randn(1, 3, 1, 1, dtype=torch.float64).expand(1, 3, 4, 4)
    assert consensus_loss(logits, labels, alpha=0, beta=1).item() == pytest.approx(0, abs=1e-12)


def test_pixelwise_equals_cross_entropy():
    logits, labels = case(4)
    torch.testing.assert_close(
        pixelwise_loss(logits, labels), F.cross_entropy(logits, labels, ignore_index=IGNORE)
    )


def test_size_marginalised_is_the_sum_of_class_means():
    logits, labels = case(5, k=2, shape=(1, 4, 4))
    entropy = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    expected = sum(entropy[labels == c].mean() for c in labels.unique() if c != IGNORE)
    torch.testing.assert_close(size_marginalised_loss(logits, labels), expected)


def test_size_marginalised_averages_the_blobs_of_a_class():
    labels = torch.tensor([[[1, 0, 1, 1]]])
    logits = torch.randn(1, 2, 1, 4)
    entropy = F.cross_entropy(logits, labels, reduction="none")[0, 0]
    expected = entropy[1] + (entropy[0] + entropy[2:].mean()) / 2
    torch.testing.assert_close(
        size_marginalised_loss(logits, labels, label_blobs(labels, "component")), expected
    )


def test_the_mixed_form_adds_the_pixelwise_loss():
    logits, labels = case(6)
    torch.testing.assert_close(
        consensus_loss(logits, labels, pixel_weight=0.5),
        consensus_loss(logits, labels) + 0.5 * pixelwise_loss(logits, labels),
    )


@pytest.mark.parametrize("loss", [pixelwise_loss, size_marginalised_loss, consensus_loss])
def test_nothing_labelled_costs_nothing(loss):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    value = loss(logits, torch.full((2, 4, 4), IGNORE))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("loss", [pixelwise_loss, size_marginalised_loss, consensus_loss])
def test_gradients_are_those_of_finite_differences(loss):
    logits, labels = case(8, shape=(1, 3, 3))
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), logits)


@pytest.mark.parametrize("loss", [pixelwise_loss, size_marginalised_loss, consensus_loss])
def test_memory_layout_does_not_matter(loss):
    logits, labels = case(9)
    torch.testing.assert_close(
        loss(logits.to(memory_format=torch.channels_last), labels), loss(logits, labels)
    )


def test_modules_equal_functions():
    logits, labels = case(10)
    assert PixelwiseLoss()(logits, labels) == pixelwise_loss(logits, labels)
    blobs = label_blobs(labels, "component", 8)
    module = ConsensusLoss("component", connectivity=8, alpha=1.0, beta=2.0)
    assert (
        module(logits, labels)
        == module(logits, labels, blobs)
        == consensus_loss(logits, labels, blobs, alpha=1.0, beta=2.0)
    )
    assert "component" in repr(module)


@pytest.mark.parametrize("loss", [pixelwise_loss, size_marginalised_loss, consensus_loss])
@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        (
            torch.zeros(2, 4, 4),
            torch.zeros(2, 4, 4, dtype=torch.int64),
            r"logits: expected float \[B,K,H,W\]",
        ),
        (
            torch.zeros(2, 3, 4, 4),
            torch.zeros(2, 4, 5, dtype=torch.int64),
            r"labels: expected int64 \[B,H,W\]",
        ),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4), "got torch.float32"),
    ],
)
def test_wrong_shapes_and_types_are_named(loss, logits, labels, expected):
    with pytest.raises(ValueError, match=expected):
        loss(logits, labels)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="reduction: expected 'paper', got 'sum'"):
        consensus_loss(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64), reduction="sum")

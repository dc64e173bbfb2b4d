import math

import pytest
import torch
import torch.nn.functional as F

from consensus_lib import IGNORE
from consensus_lib.losses import ConsensusLoss
from consensus_lib.losses.distillation import DistillationLoss, soft_loss


@pytest.fixture
def batch():
    torch.manual_seed(0)
    probabilities = torch.randn(2, 3, 6, 5).mul(2).softmax(1)
    return torch.randn(2, 3, 6, 5, requires_grad=True), probabilities.argmax(1), probabilities


def test_soft_loss_by_hand():
    q = torch.tensor([0.75, 0.25]).view(1, 2, 1, 1)
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert soft_loss(torch.zeros(1, 2, 1, 1), q).item() == pytest.approx(expected)
    root = torch.tensor([0.75, 0.25]).sqrt()  # T = 2
    a, b = (root / root.sum()).tolist()
    expected = 4 * (a * math.log(a / 0.5) + b * math.log(b / 0.5))
    assert soft_loss(torch.zeros(1, 2, 1, 1), q, temperature=2.0).item() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_soft_loss_is_least_where_the_student_is_the_teacher(batch, temperature):
    logits, _, q = batch
    assert soft_loss(logits, q, temperature=temperature) > 0
    same = q.log().requires_grad_()
    loss = soft_loss(same, q, temperature=temperature)
    torch.testing.assert_close(loss, torch.tensor(0.0), atol=1e-6, rtol=0)
    gradient = torch.autograd.grad(loss, same)[0]
    torch.testing.assert_close(gradient, torch.zeros_like(same), atol=1e-7, rtol=0)


def test_a_sure_teacher_has_no_infinite_loss():
    q = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
    logits = torch.zeros(1, 3, 1, 1, requires_grad=True)
    loss = soft_loss(logits, q, temperature=2.0)
    assert loss.item() == pytest.approx(4 * math.log(3))
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_a_class_that_teacher_and_student_mask_is_not_there(batch):
    logits, _, q = batch
    expected = soft_loss(logits, q)
    masked = torch.cat([logits, torch.full_like(logits[:, :1], -torch.inf)], 1).detach().requires_grad_()
    found = soft_loss(masked, torch.cat([q, torch.zeros_like(q[:, :1])], 1))
    torch.testing.assert_close(found, expected)
    gradient = torch.autograd.grad(found, masked)[0]
    torch.testing.assert_close(gradient[:, :-1], torch.autograd.grad(expected, logits)[0])
    assert (gradient[:, -1] == 0).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_ignored_and_unsure_pixels_have_no_gradient_whatever_their_logits_are(batch, value):
    logits, labels, q = batch
    labels[0, :2] = IGNORE
    loss = DistillationLoss(1.0, 1.0, confidence=1.0, unsure=0.7, consensus=ConsensusLoss("component"))
    out = ((labels == IGNORE) | (q.amax(1) < 0.7))[:, None].expand_as(logits)
    unknown = logits.detach().masked_fill(out, value).requires_grad_()
    found, expected = loss(unknown, labels, q), loss(logits, labels, q)
    assert found == expected
    gradient = torch.autograd.grad(found, unknown)[0]
    assert torch.equal(gradient == 0, out)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])
    assert loss(logits, torch.full_like(labels, IGNORE), q) == 0


def test_the_terms_add_up_with_pixels_weighed_by_confidence(batch):
    logits, labels, q = batch
    labels[0, :2] = IGNORE
    consensus = ConsensusLoss("component", alpha=1.0, beta=lambda progress: 4 * progress)
    loss = DistillationLoss(0.5, 2.0, temperature=3.0, confidence=2.0, consensus=consensus)
    loss.progress = 0.5  # as fit sets it
    weight = q.amax(1) ** 2 * (labels != IGNORE)
    entropy = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    parts = [
        0.5 * (weight * entropy).sum() / weight.sum(),
        2.0 * soft_loss(logits, q, weight, temperature=3.0),
        ConsensusLoss("component", alpha=1.0, beta=2.0)(logits, labels),
    ]
    torch.testing.assert_close(loss(logits, labels, q), sum(parts))
    assert "confidence=2.0" in repr(loss)  # it stands in checkpoints
    assert "alpha=1.0" in repr(loss)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda x, q: soft_loss(x, q, temperature=0), "temperature"),
        (lambda x, q: soft_loss(x, q[:, :2]), "probabilities"),
        (lambda x, q: soft_loss(x, q, q), "weight"),
        (lambda x, q: DistillationLoss(0.0), "hard, soft"),
        (lambda x, q: DistillationLoss(soft=-1.0), "soft"),
        (lambda x, q: DistillationLoss(unsure=1.0), "unsure"),
        (lambda x, q: DistillationLoss()(x, q.argmax(1), q[:, :1]), "probabilities"),
    ],
)
def test_wrong_arguments_are_named(batch, make, argument):
    with pytest.raises(ValueError, match=argument):
        make(batch[0], batch[2])

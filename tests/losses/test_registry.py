"""Losses by name: each makes a loss, wrong names and options are told."""

import pytest
import torch

from consensus_lib.losses import LOSSES, make_loss, pixelwise_loss

OWN = """
import torch

class TopoLoss(torch.nn.Module):
    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = weight

    def forward(self, logits, labels):
        return self.weight * logits.square().mean()

def scaled(logits, labels, *, scale=1.0):
    return scale * logits.square().mean()

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module with losses of one's own on the path."""
    (tmp_path / "own_losses.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("name", LOSSES)
def test_each_name_makes_a_loss(name):
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = (torch.arange(8) > 3).long().expand(2, 8, 8).contiguous()
    loss = make_loss(name)
    loss(logits, labels).backward()
    assert logits.grad.abs().sum() > 0
    assert " at 0x" not in repr(loss) or loss is pixelwise_loss  # it stands in checkpoints


def test_options_reach_the_loss(own):
    assert make_loss("consensus", kind="class").blob_options["kind"] == "class"
    ones = torch.ones(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)
    assert make_loss("own_losses:TopoLoss", weight=2.0)(*ones) == 2
    assert make_loss("own_losses:scaled", scale=3.0)(*ones) == 3


@pytest.mark.parametrize(
    ("name", "options", "argument"),
    [
        ("topo", {}, "loss"),
        ("no_such_module:Loss", {}, "loss"),
        ("own_losses:Nothing", {}, "loss"),
        ("own_losses:number", {}, "loss"),
        ("focal", {"alpa": 1}, "loss_options"),
        ("consensus", {"alpa": 1}, "loss_options"),
        ("cross-entropy", {"weight": 1}, "loss_options"),
        ("own_losses:TopoLoss", {"alpa": 1}, "loss_options"),
        ("own_losses:scaled", {"alpa": 1}, "loss_options"),
    ],
)
def test_wrong_names_and_options_are_named(own, name, options, argument):
    with pytest.raises(ValueError, match=argument):
        make_loss(name, **options)

"""Presets make a loss, and their evidence is what the study's table says."""

import pytest
import torch

from consensus_lib import paths
from consensus_lib.comparison import read_differences
from consensus_lib.presets import PRESETS

STUDY = paths.root() / "notebooks/studies/rivals-differences.csv"


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_preset_is_a_loss(preset):
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = (torch.arange(8) > 3).long().expand(2, 8, 8).contiguous()
    preset.loss()(logits, labels).backward()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_the_evidence_is_the_tables(preset):
    differences = read_differences(STUDY, "cross-entropy")
    assert set(preset.evidence) == {"component_error", "mean_iou"}
    for key, figures in preset.evidence.items():
        gain = differences[key][preset.title]
        assert figures == pytest.approx((gain.first, gain.second, gain.low, gain.high), abs=1e-3)

"""Presets make a loss, and claim what the study's tables say."""

import pytest
import torch

from consensus_lib import paths
from consensus_lib.experiments.presets import PRESETS
from consensus_lib.metrics.comparison import read_differences

STUDIES = paths.root() / "notebooks/studies"


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_preset_is_a_loss(preset):
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = (torch.arange(8) > 3).long().expand(2, 8, 8).contiguous()
    preset.loss()(logits, labels).backward()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_preset_claims_what_both_tables_hold_and_no_more(preset):
    words = {}
    for table in ("rivals-differences.csv", "rivals-again-differences.csv"):
        for key, differences in read_differences(STUDIES / table, "cross-entropy").items():
            word = differences[preset.title].word(key in ("mean_iou", "boundary_f1_2"))
            words.setdefault(key, []).append(word)
    assert set(preset.held) == {key for key, found in words.items() if found == ["better", "better"]}
    assert set(preset.harmed) == {key for key, found in words.items() if "worse" in found}

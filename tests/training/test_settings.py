from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from consensus_lib.losses import ConsensusLoss, pixelwise_loss
from consensus_lib.training.settings import UNCLEAR, describe


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (pixelwise_loss, "consensus_lib.losses.consensus.pixelwise_loss"),
        (partial(pixelwise_loss, a=1.0), "partial(consensus_lib.losses.consensus.pixelwise_loss, a=1.0)"),
        (nn.CrossEntropyLoss(), "CrossEntropyLoss() {'reduction': 'mean', 'ignore_index': -100, "),
        (ConsensusLoss(), repr(ConsensusLoss())),
        ({"betas": (0.9, 0.99), "lr": torch.tensor(0.5)}, "{'betas': [0.9, 0.99], 'lr': 0.5}"),
        (np.float64(0.1), "0.1"),
    ],
)
def test_descriptions(value, expected):
    assert describe(value).startswith(expected)
    assert not UNCLEAR.search(describe(value))


@pytest.mark.parametrize(
    "value",
    [
        lambda logits, labels: None,
        partial(lambda logits, labels, weight: None, weight=1.0),
        ConsensusLoss(beta=lambda progress: progress),
    ],
    ids=["lambda", "partial", "schedule"],
)
def test_what_could_be_anything_is_unclear(value):
    assert UNCLEAR.search(describe(value))


def rising(progress):
    return progress


def falling(progress):
    return 1 - progress


@pytest.mark.parametrize(
    "make",
    [
        lambda n: nn.CrossEntropyLoss(ignore_index=n),
        lambda n: nn.CrossEntropyLoss(torch.tensor([1.0, 1.0, n])),
        lambda n: partial(pixelwise_loss, a=n),
        lambda n: ConsensusLoss(beta=(rising, falling)[n]),
        lambda n: np.array(([1.0, 2.0], [1.0, 2.5])[n]),
        lambda n: np.array(([1.0, 2.0], [[1.0, 2.0]])[n]),
        lambda n: np.array(([1.0, 2.0], [1, 2])[n]),
        lambda n: torch.ones(1, dtype=(torch.float32, torch.bfloat16)[n]),
    ],
    ids=["module", "weights", "partial", "schedule", "values", "shapes", "types", "precision"],
)
def test_descriptions_differ_by_settings_alone(make):
    assert describe(make(0)) == describe(make(0)) != describe(make(1))

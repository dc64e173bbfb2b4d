from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from consensus_lib.losses import ConsensusLoss, consensus_loss, pixelwise_loss
from consensus_lib.training import cosine
from consensus_lib.training.settings import UNCLEAR, describe, describe_optimizer, describe_schedule

SCHEDULES = {
    "cosine": cosine,
    "step": lambda o, steps: lr_scheduler.StepLR(o, 3),
    "milestones": lambda o, steps: lr_scheduler.MultiStepLR(o, [2, 4]),
    "one cycle": lambda o, steps: lr_scheduler.OneCycleLR(o, 1e-2, total_steps=steps),
    "cyclic": lambda o, steps: lr_scheduler.CyclicLR(o, 1e-3, 1e-2),
    "restarts": lambda o, steps: lr_scheduler.CosineAnnealingWarmRestarts(o, 5),
    "factors": lambda o, steps: lr_scheduler.MultiplicativeLR(o, lambda step: 0.9),
    "sequence": lambda o, steps: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.LambdaLR(o, lambda step: 0.5)], [3]
    ),
    "chain": lambda o, steps: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "plateau": lambda o, steps: lr_scheduler.ReduceLROnPlateau(o),
}


def optimiser(rate=1e-3):
    return torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=rate, momentum=0.9)


@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_every_schedule_of_torch_can_be_described_and_anew_in_the_same_words(make):
    first, again = (describe_schedule(make(optimiser(), 100), 100) for _ in range(2))
    assert first == again
    assert not UNCLEAR.search(first)


def test_schedules_differ_by_what_they_do():
    texts = [describe_schedule(make(optimiser(), 100), 100) for make in SCHEDULES.values()]
    texts += [
        describe_schedule(cosine(optimiser(), 200), 200),
        describe_schedule(lr_scheduler.StepLR(optimiser(), 4), 100),
        describe_schedule(lr_scheduler.CyclicLR(optimiser(), 1e-3, 2e-2), 100),
        describe_schedule(lr_scheduler.MultiStepLR(optimiser(), [2, 5]), 100),
        describe_schedule(lr_scheduler.LambdaLR(optimiser(), lambda step: step < 61), 100),
        describe_schedule(lr_scheduler.LambdaLR(optimiser(), lambda step: step < 62), 100),
    ]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (pixelwise_loss, "consensus_lib.losses.consensus.pixelwise_loss"),
        (
            partial(consensus_loss, alpha=1.0),
            "partial(consensus_lib.losses.consensus.consensus_loss, alpha=1.0)",
        ),
        (nn.CrossEntropyLoss(), "CrossEntropyLoss() {'reduction': 'mean', 'ignore_index': -100, "),
        (ConsensusLoss(), repr(ConsensusLoss())),
        ({"betas": (0.9, 0.99), "lr": torch.tensor(0.5)}, "{'betas': [0.9, 0.99], 'lr': 0.5}"),
        (np.float64(0.1), "0.1"),
    ],
)
def test_descriptions(value, expected):
    assert describe(value).startswith(expected)
    assert not UNCLEAR.search(describe(value))


@pytest.mark.parametrize("convert", [torch.tensor, np.array])
def test_tensors_differ_by_values_types_and_shapes(convert):
    values = [[1.0, 2.0], [1.0, 2.5], [[1.0, 2.0]], [1, 2]]
    assert len({describe(convert(value)) for value in values}) == 4
    assert describe(convert(values[0])) == describe(convert(values[0]))
    assert describe(torch.tensor([1.0]).bfloat16()) != describe(torch.tensor([1.0]))


def test_an_optimiser_is_described_by_its_groups_and_their_parameters():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    first, second = model.parameters(), [*model[1].parameters(), *model[0].parameters()]
    texts = [describe_optimizer(torch.optim.SGD(group, lr=0.1), model) for group in (first, second)]
    assert texts[0] != texts[1]
    assert "'lr': 0.1" in texts[0]
    assert not UNCLEAR.search(texts[0])

"""What a training step costs beyond the network itself."""

import itertools

import numpy as np
import pytest
import torch

from consensus_lib.data import Augment, DatasetInfo, DatasetWriter, FaceDataset, loader
from consensus_lib.losses import ConsensusLoss, pixelwise_loss
from consensus_lib.models.networks import FaceOccNet
from consensus_lib.training.trainer import fit

SIZE, BATCH, STEPS = 64, 16, 8


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("CONSENSUS_DATA_DIR", str(tmp_path))
    rng = np.random.default_rng(0)
    info = DatasetInfo("noise", ("background", "face", "hair"), ((0, 0, 0),) * 3, "made here", "none", SIZE)
    y, x = np.mgrid[:SIZE, :SIZE]
    with DatasetWriter(tmp_path / "noise", info) as writer:
        for i in range(BATCH * STEPS):
            labels = ((x - 32) ** 2 + (y - 36) ** 2 < 400).astype(np.uint8)
            labels[(y < 30) & (labels == 1)] = 2
            labels[rng.random(labels.shape) < 0.002] = rng.integers(0, 3)
            writer.add(
                f"{i:04d}",
                "train",
                str(i),
                labels=labels,
                image=rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8),
            )
    return FaceDataset(
        tmp_path / "noise",
        "train",
        "parts",
        progress=False,
        augment=Augment(flip=0.5, rotation=8, scale=0.9, shift=0.05, colour=0.2),
    )


@pytest.mark.parametrize(
    "loss",
    [pixelwise_loss, ConsensusLoss("component", pixel_weight=1.0)],
    ids=["pixelwise", "consensus on components"],
)
def test_loss_blobs_and_data_cost_at_most_a_tenth_of_the_network(data, loss, ratio):
    torch.manual_seed(0)
    model = FaceOccNet(width=0.25).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    images = [next(iter(loader(data, BATCH)))["image"].to(memory_format=torch.channels_last)] * STEPS

    def bare():
        for image in images:
            logits = model(image)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(logits, torch.ones_like(logits))
            optimizer.step()

    seeds = itertools.count()

    def whole():
        fit(
            model,
            data,
            loss,
            epochs=1,
            batch_size=BATCH,
            device="cpu",
            precision="float32",
            progress=False,
            seed=next(seeds),
        )

    model.train()
    assert ratio(whole, bare) <= 1.10

"""``run``: one training, one result."""

import dataclasses
import json
import math
import os
import shutil
from functools import partial

import numpy as np
import pytest
import torch

from consensus_lib import paths
from consensus_lib.data import MILD, FaceDataset, Splits
from consensus_lib.experiments import notebooks, train
from consensus_lib.experiments.results import RESULT, read_results
from consensus_lib.experiments.train import Config, folder_name, run
from consensus_lib.losses import ConsensusLoss
from consensus_lib.metrics import StructureScores
from consensus_lib.training import evaluate, predict

SHORT = {"loss": "cross-entropy", "epochs": 2, "width": 0.0625, "batch_size": 4}
QUIET = {"device": "cpu", "progress": False}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_tiny):
    folder = write_tiny(tmp_path_factory.mktemp("data") / "tiny")
    taught = FaceDataset(folder, "train", "parts", augment=MILD, progress=False)
    return Splits(taught, *(FaceDataset(folder, name, "parts") for name in ("validation", "test")))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def trained(data, out):
    """A finished training; it starts from random weights."""
    return run(Config(**SHORT, seed=3, title="ce"), data, out=out, notebook="02", variant="ours", **QUIET)


def test_a_training_is_filed_and_found_again(data, trained, out):
    (result,) = read_results(out)
    known = {"notebook": "02", "loss": "ce", "seed": 3, "variant": "ours", "train_images": 12, "changes": []}
    assert known.items() <= result.items()
    assert result["mean_iou"] == trained.scores.compute()["mean_iou"]
    assert result["validation_mean_iou"] == trained.history[-1]["mean_iou"]
    masks = trained.masks()
    assert list(masks) == [1, 2]
    np.testing.assert_array_equal(masks[2], predict(trained.network, data.test).numpy()[: train.PREVIEWS])

    again = run(Config(**SHORT, seed=3, title="ce"), data, out=out, on_epoch=lambda _: 1 / 0, **QUIET)
    assert again.history == trained.history
    assert again.scores.compute() == trained.scores.compute()
    torch.testing.assert_close(again.network.state_dict(), trained.network.state_dict(), rtol=0, atol=0)


def test_measurements_are_cached_for_the_weights_and_the_test_images(data, trained, out):
    with pytest.raises(ZeroDivisionError):
        trained.cached("number", lambda: 1 / 0)
    found = [trained.cached("number", lambda n=n: {"of": np.arange(n)}) for n in (1, 2)]
    assert [one["of"].tolist() for one in found] == [[0], [0]]
    assert trained.cached("other", lambda: {"of": np.arange(3)})["of"].tolist() == [0, 1, 2]
    measure = partial(evaluate, trained.network, data.test, scores=StructureScores)
    first, again = (trained.cached("all", each, StructureScores) for each in (measure, None))
    assert first.compute() == again.compute() == measure().compute()

    other = run(Config(**SHORT, seed=3), data._replace(test=data.validation), out=out, **QUIET)
    assert other.key != trained.key
    assert other.scores.compute() == evaluate(trained.network, data.validation).compute()


def test_a_start_is_where_the_training_begins(data, trained):
    start = Config(**SHORT | {"epochs": 1}, seed=1, start=trained.folder, learning_rate=0.0)
    still = run(start, data, **QUIET)
    before, after = (dict(one.network.named_parameters()) for one in (trained, still))
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert json.loads((still.folder / RESULT).read_text())["learning_rate"] == 0.0


def test_a_configuration_is_trained_from_data_by_name_or_by_folder(tiny_folder):
    shutil.copytree(tiny_folder, paths.data_dir() / "lfw_part_labels-128")
    short = SHORT | {"size": 32, "images": 8, "epochs": 1, "loss": "dice"}
    found = []
    for name in ("lfw_part_labels", str(tiny_folder)):
        config = Config(data=name, loss_options={"squared": False}, seed=2, **short)
        found += read_results(run(config, out=f"out{name[-4:]}", **QUIET).folder)
    assert found[0]["mean_iou"] == found[1]["mean_iou"]
    known = {"loss": "dice", "loss_options": "squared=False", "seed": 2, "train_images": 8, "processes": 1}
    assert known.items() <= found[0].items()


WRONG = {
    **{"network": "ResNet", "loss": "topo", "task": "nose", "images": -1, "seed": 2**32, "epochs": 0},
    **{"batch_size": 0, "learning_rate": math.nan, "width": 0.0, "dropout": 1.0},
    "loss_options": {"alpa": 1},
}


@pytest.mark.parametrize(("name", "value"), WRONG.items())
def test_a_wrong_configuration_is_refused_before_data_are_opened(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        Config(**{name: value})


def test_a_size_that_the_network_cannot_take_is_refused():
    with pytest.raises(ValueError, match="image: expected"):
        Config(size=50)


OWN = """
import torch


class TopoLoss(torch.nn.Module):
    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = weight

    def forward(self, logits, labels):
        return self.weight * torch.nn.functional.cross_entropy(logits, labels, ignore_index=255)
"""


@pytest.mark.slow
def test_a_sweep_takes_a_loss_of_ones_own_from_a_file(tiny_folder, tmp_path, monkeypatch):
    shutil.copytree(tiny_folder, paths.data_dir() / "lfw_part_labels-128")
    (tmp_path / "my_losses.py").write_text(OWN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    short = {"dataset": "lfw_part_labels", "image_size": 32, "images": 8, "width": 0.0625}
    given = {"epochs": 1, "loss": "my_losses:TopoLoss", "loss_options": "weight=2.0", "precision": "float32"}
    book = paths.root() / "notebooks/studies/train.ipynb"
    notebooks.execute(book, tmp_path / "run", short | given, progress=False)
    (result,) = read_results(tmp_path / "run")
    assert given.items() <= result.items()


def test_another_setting_is_another_folder(data):
    base = Config(**SHORT)
    changes = [{}, {"seed": 1}, {"loss": ConsensusLoss()}, {"epochs": 1}, {"start": paths.runs_dir() / "a"}]
    assert len({folder_name(dataclasses.replace(base, **change), data) for change in changes}) == 5

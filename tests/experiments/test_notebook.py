import json
import os
import shutil
from functools import partial

import numpy as np
import pytest
import torch

from consensus_lib import paths
from consensus_lib.data import MILD, FaceDataset, Splits
from consensus_lib.experiments import notebook, notebooks, train
from consensus_lib.experiments.results import RESULT, read_results
from consensus_lib.experiments.train import Config, run
from consensus_lib.losses import ConsensusLoss, pixelwise_loss
from consensus_lib.metrics import StructureScores
from consensus_lib.training import evaluate, predict


def test_a_lesson_begins_with_one_line(tmp_path, capsys):
    lesson = notebook.begin("02_x", seed=3, out=str(tmp_path))
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "seed 3" in line
    assert lesson.out == tmp_path
    with pytest.raises(ValueError, match="seed: expected at least 0, got -1"):
        notebook.begin("02_x", seed=-1)


@pytest.fixture
def lesson(tmp_path):
    return notebook.begin("02_x", out=str(tmp_path / "out"), device="cpu")


@pytest.fixture
def data(tiny_folder):
    train = FaceDataset(tiny_folder, "train", "parts", augment=MILD, progress=False)
    return Splits(train, *(FaceDataset(tiny_folder, name, "parts") for name in ("validation", "test")))


SHORT = {"epochs": 2, "width": 0.0625, "batch_size": 4, "live": False}


def test_a_training_is_filed_and_found_again(lesson, data, monkeypatch):
    first = lesson.train("pixelwise", data, pixelwise_loss, seed=3, variant="ours", **SHORT)
    (result,) = read_results(first.folder)
    known = {"notebook": "02_x", "loss": "pixelwise", "seed": 3, "variant": "ours", "train_images": 12}
    assert known.items() <= result.items()
    assert result["mean_iou"] == first.scores.compute()["mean_iou"]
    assert result["validation_mean_iou"] == first.history[-1]["mean_iou"]
    assert ["mean_iou" in row for row in first.history] == [False, True]

    monkeypatch.setattr("consensus_lib.training.trainer.train_epoch", None)
    monkeypatch.setattr("consensus_lib.experiments.train.evaluate", None)
    again = lesson.train("pixelwise", data, pixelwise_loss, seed=3, variant="ours", **SHORT)
    assert again.folder == first.folder
    assert again.history == first.history
    assert again.scores.compute() == first.scores.compute()
    torch.testing.assert_close(again.network.state_dict(), first.network.state_dict(), rtol=0, atol=0)


def test_measurements_are_kept_for_the_weights_and_the_test_images(lesson, data, tmp_path):
    trained = lesson.train("a", data, pixelwise_loss, seed=0, **SHORT)
    with pytest.raises(ZeroDivisionError):
        trained.kept("number", lambda: 1 / 0)
    found = [trained.kept("number", lambda n=n: {"of": np.arange(n)}) for n in (1, 2)]
    assert [one["of"].tolist() for one in found] == [[0], [0]]
    assert trained.kept("other", lambda: {"of": np.arange(3)})["of"].tolist() == [0, 1, 2]
    measure = partial(evaluate, trained.network, data.test, scores=StructureScores)
    first, again = (trained.kept("all", each, StructureScores) for each in (measure, None))
    assert first.compute() == again.compute() == measure().compute()

    on_others = data._replace(test=data.validation)
    other = lesson.train("a", on_others, pixelwise_loss, seed=0, **SHORT)
    assert other.folder == trained.folder
    assert other.key != trained.key
    assert other.scores.compute() == evaluate(trained.network, data.validation).compute()
    assert not list(tmp_path.rglob("*.pickle"))


def test_a_configuration_is_trained_from_data_by_name_or_by_folder(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, paths.data_dir() / "lfw_part_labels-128")
    short = {"size": 32, "images": 8, "epochs": 1, "width": 0.0625, "batch_size": 4, "loss": "dice"}
    results = []
    for name in ("lfw_part_labels", str(tiny_folder)):
        config = Config(data=name, loss_options={"squared": False}, seed=2, **short)
        trained = run(config, out=tmp_path / "out" / name[-4:], device="cpu", progress=False)
        results += read_results(trained.folder)
    assert results[0]["mean_iou"] == results[1]["mean_iou"]
    known = {"loss": "dice", "loss_options": "squared=False", "seed": 2, "train_images": 8, "processes": 1}
    assert known.items() <= results[0].items()


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"network": "ResNet"}, "network: expected one of .*'FaceOccNet'.*, got 'ResNet'"),
        ({"loss": "topo"}, "loss: expected one of"),
        ({"loss": "dice", "loss_options": {"alpa": 1}}, "loss_options: expected options of dice"),
        ({"size": 50}, "image: expected"),
    ],
)
def test_a_wrong_configuration_is_told_before_data_are_opened(wrong, expected):
    with pytest.raises(ValueError, match=expected):
        Config(**wrong)


OWN = """
import torch


class TopoLoss(torch.nn.Module):
    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = weight

    def forward(self, logits, labels):
        return self.weight * torch.nn.functional.cross_entropy(logits, labels, ignore_index=255)
"""


def test_a_sweep_takes_a_loss_of_ones_own_from_a_file(tiny_folder, tmp_path, monkeypatch):
    shutil.copytree(tiny_folder, paths.data_dir() / "lfw_part_labels-128")
    (tmp_path / "my_losses.py").write_text(OWN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    short = {"dataset": "lfw_part_labels", "image_size": 32, "images": 8, "epochs": 1, "width": 0.0625}
    loss = {"loss": "my_losses:TopoLoss", "loss_options": "weight=2.0"}
    notebooks.execute(
        paths.root() / "notebooks/studies/train.ipynb", tmp_path / "run", short | loss, progress=False
    )
    (result,) = read_results(tmp_path / "run")
    assert {"loss": "my_losses:TopoLoss", "epochs": 1}.items() <= result.items()
    assert result["loss_options"] == "weight=2.0"


def test_masks_are_kept_after_each_epoch_and_a_lost_one_goes(lesson, data):
    trained = lesson.train("a", data, pixelwise_loss, seed=0, **SHORT)
    masks = trained.masks()
    assert list(masks) == [1, 2]
    predicted = predict(trained.network, data.test).numpy()
    np.testing.assert_array_equal(masks[2], predicted[: train.PREVIEWS])
    images = data.test.__getitems__(range(4))["image"]
    train.keep_masks(trained.folder / train.MASKS, trained.network.train(), images, 2)  # once more
    assert trained.network.training
    np.testing.assert_array_equal(np.stack(list(trained.masks().values())), np.stack(list(masks.values())))


def test_another_setting_is_another_training(lesson, data):
    base = lesson.train("a", data, pixelwise_loss, seed=0, **SHORT)
    others = [
        lesson.train("a", data, pixelwise_loss, seed=1, **SHORT),
        lesson.train("a", data, ConsensusLoss(), seed=0, **SHORT),
        lesson.train("a", data, pixelwise_loss, seed=0, **SHORT | {"epochs": 1}),
        lesson.train("a", data, pixelwise_loss, seed=0, start=base.folder, **SHORT),
    ]
    assert len({one.folder for one in (base, *others)}) == 5


def test_a_start_is_where_the_training_begins(lesson, data):
    base = lesson.train("a", data, pixelwise_loss, seed=0, **SHORT)
    still = lesson.train("a", data, pixelwise_loss, seed=1, start=base.folder, learning_rate=0.0, **SHORT)
    for (name, one), other in zip(base.network.named_parameters(), still.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, msg=name)
    assert json.loads((still.folder / RESULT).read_text())["learning_rate"] == 0.0


def test_a_verdict_says_no_more_than_the_seeds():
    assert notebook.verdict([0.1], spread=0.0) == "better, with one seed"
    assert notebook.verdict([-0.1, -0.2]) == "worse"
    assert notebook.verdict([-0.1, -0.2], higher=False) == "better"
    for undecided in ([0.1, -0.2], [0.1, 0.0], [0.0]):
        assert notebook.verdict(undecided, spread=0.0) == "not decided"
    assert notebook.verdict([0.1, 0.3], spread=0.2) == "better"
    assert notebook.verdict([-0.1, -0.31], spread=0.2) == "worse, by more than the spread"

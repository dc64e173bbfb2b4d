import json

import numpy as np
import pytest
import torch

from consensus_lib.data import MILD, FaceDataset, Splits
from consensus_lib.experiments import notebook
from consensus_lib.experiments.results import RESULT, read_results
from consensus_lib.losses import ConsensusLoss, pixelwise_loss
from consensus_lib.training.trainer import predict


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
    monkeypatch.setattr("consensus_lib.experiments.notebook.evaluate", None)
    again = lesson.train("pixelwise", data, pixelwise_loss, seed=3, variant="ours", **SHORT)
    assert again.folder == first.folder
    assert again.history == first.history
    assert again.scores.compute() == first.scores.compute()
    torch.testing.assert_close(again.network.state_dict(), first.network.state_dict(), rtol=0, atol=0)


def test_what_was_measured_is_kept_for_this_library(lesson, data, monkeypatch):
    trained = lesson.train("a", data, pixelwise_loss, seed=0, **SHORT)
    with pytest.raises(ZeroDivisionError):
        trained.kept("number", lambda: 1 / 0)
    assert [trained.kept("number", lambda n=n: n) for n in (1, 2)] == [1, 1]
    assert trained.kept("other", lambda: 3) == 3
    monkeypatch.setattr("consensus_lib.experiments.notebook.library_hash", lambda: "changed")
    assert trained.kept("number", lambda: 4) == 4


def test_masks_are_kept_after_each_epoch_and_a_lost_one_goes(lesson, data):
    trained = lesson.train("a", data, pixelwise_loss, seed=0, **SHORT)
    masks = trained.masks()
    assert list(masks) == [1, 2]
    predicted = predict(trained.network, data.test).numpy()
    np.testing.assert_array_equal(masks[2], predicted[: notebook.WATCHED])
    images = data.test.__getitems__(range(4))["image"]
    notebook._keep_masks(trained.folder / notebook.MASKS, trained.network.train(), images, 2)  # once more
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

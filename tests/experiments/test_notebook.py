"""What every notebook begins with; it trains by ``experiments.train.run``."""

import _thread
import base64
import dataclasses
import multiprocessing
import threading
import time
import types

import matplotlib
import numpy as np
import pytest
import torch

from consensus_lib.data import FaceDataset, Splits
from consensus_lib.experiments import notebook
from consensus_lib.experiments.results import read_results
from consensus_lib.experiments.train import Config
from consensus_lib.losses import pixelwise_loss
from consensus_lib.training.checkpoint import read_history
from consensus_lib.viz.images import image_grid


def test_a_lesson_begins_with_one_line(tmp_path, capsys):
    lesson = notebook.begin("02_x", seed=3, out=str(tmp_path))
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "seed 3" in line
    assert lesson.out == tmp_path
    with pytest.raises(ValueError, match="seed: expected"):
        notebook.begin("02_x", seed=-1)


@pytest.mark.parametrize(
    ("kind", "beginnings"),
    [("jpeg", {"image/jpeg": b"\xff\xd8"}), ("svg", {"image/svg+xml": b"<?xml", "image/png": b"\x89PNG"})],
)
def test_a_figure_is_shown_in_a_format_with_an_alternative_text_and_kept(
    kind, beginnings, tmp_path, monkeypatch
):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **about: shown.append((data, about)))
    lesson = notebook.Lesson("any", torch.device("cpu"), tmp_path)
    lesson.show(image_grid([[np.zeros((8, 8, 3))]]), "faces", "a black square", kind=kind)
    ((data, about),) = shown
    for name, beginning in beginnings.items():
        content = data[name].encode() if "svg" in name else base64.b64decode(data[name])
        assert content.startswith(beginning)
    assert about["metadata"] == {name: {"alt": "a black square"} for name in beginnings}
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {"faces.pdf", "faces.png"}


class StopsOnce(torch.nn.Module):
    """Cross-entropy, interrupted in the second of the epochs of three steps."""

    steps = 0

    def forward(self, logits, labels):
        self.steps += 1
        if self.steps == 5:
            raise KeyboardInterrupt
        return pixelwise_loss(logits, labels)

    def extra_repr(self):  # the count is not a setting
        return ""


def test_a_training_is_found_again_and_an_interrupted_one_says_in_one_line_how_to_resume(
    tiny_folder, tmp_path, monkeypatch
):
    matplotlib.use("Agg")
    shown = []
    handle = types.SimpleNamespace(update=lambda figure, **about: None)
    monkeypatch.setattr("IPython.display.display", lambda figure, **about: shown.append(about) or handle)
    lesson = notebook.begin("02_x", out=str(tmp_path / "out"), device="cpu")
    data = Splits(*(FaceDataset(tiny_folder, name, "parts") for name in ("train", "validation", "test")))
    setting = {"epochs": 2, "width": 0.0625, "batch_size": 4}
    still = lesson.train(Config(loss="cross-entropy", **setting), data, live=False)
    assert still.folder.parent == lesson.out
    assert ["mean_iou" in row for row in still.history] == [False, True]
    assert not shown

    config = Config(loss=StopsOnce(), title="ours", seed=2, **setting)
    with pytest.raises(notebook.Stopped) as stopped:
        lesson.train(config, data)
    assert stopped.value._render_traceback_() == [str(stopped.value)]
    assert str(stopped.value).startswith("ours, seed 2: stopped.")
    resumed = lesson.train(config, data)
    assert [row["epoch"] for row in resumed.history] == [1, 2]
    assert config.loss.steps == 5 + 3
    before = len(shown)
    again = lesson.train(config, data)  # finished: its curves are shown again
    assert (again.folder, again.history) == (resumed.folder, resumed.history)
    assert len(shown) == before + 1
    assert shown[-1]["metadata"]["image/png"]["alt"].startswith("ours, seed 2, epoch 2 of 2: training loss")


def test_a_training_of_another_notebook_is_copied_if_it_was_scored_as_often(tiny_folder, tmp_path):
    first, second = (
        notebook.begin(name, out=str(tmp_path / name), device="cpu") for name in ("02_x", "03_x")
    )
    data = Splits(*(FaceDataset(tiny_folder, name, "parts") for name in ("train", "validation", "test")))
    config = Config(loss=StopsOnce(), epochs=2, width=0.0625, batch_size=8)
    made = first.run(config, data, evaluate_every=2)
    steps = config.loss.steps
    again = second.run(config, data, evaluate_every=2)
    assert config.loss.steps == steps
    assert again.history == made.history
    assert again.folder == second.out / made.folder.name
    assert read_results(again.folder)[0]["notebook"] == "03_x"
    third = notebook.begin("04_x", out=str(tmp_path / "04_x"), device="cpu")
    config.loss.steps = 5  # it has been interrupted
    assert ["mean_iou" in row for row in third.run(config, data).history] == [True, True]
    assert config.loss.steps == 5 + steps


@pytest.fixture
def threads(monkeypatch):
    """Two threads, and no training too small to be made beside another."""
    monkeypatch.setattr(notebook, "WORTHWHILE", 0)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_several_trainings_are_made_side_by_side_and_found_again(tiny_folder, tmp_path, threads):
    lesson = notebook.begin("02_x", out=str(tmp_path / "out"), device="cpu")
    data = Splits(*(FaceDataset(tiny_folder, name, "parts") for name in ("train", "validation", "test")))
    setting = {"loss": StopsOnce(), "epochs": 2, "width": 0.0625, "batch_size": 8}
    setting["loss"].steps = 5  # it has been interrupted
    configs = [Config(seed=seed, title="ours", **setting) for seed in range(3)]
    for _ in range(2):
        trained = lesson.train_all(configs, data, live=False, note="beside")
        assert [len(one.history) for one in trained] == [2, 2, 2]
        assert setting["loss"].steps == 5  # all of them in other processes
    assert [(row["seed"], row["note"]) for row in read_results(lesson.out)] == [
        (seed, "beside") for seed in range(3)
    ]
    alone = lesson.train(dataclasses.replace(configs[1], title="alone"), data, live=False)
    assert alone.history[-1]["loss"] == pytest.approx(trained[1].history[-1]["loss"], rel=1e-4)


def test_what_no_other_process_can_train_is_trained_in_this_one(tiny_folder, tmp_path, threads):
    steps = []

    def local(logits, labels):  # cannot be sent to another process
        steps.append(len(labels))
        return pixelwise_loss(logits, labels)

    lesson = notebook.begin("02_x", out=str(tmp_path / "out"), device="cpu")
    data = Splits(*(FaceDataset(tiny_folder, name, "parts") for name in ("train", "validation", "test")))
    configs = [Config(loss=local, seed=seed, epochs=1, width=0.0625, batch_size=4) for seed in (0, 1)]
    trained = lesson.train_all(configs, data, live=False)
    assert len(steps) == 2 * len(data.train) // 4
    assert trained[0].folder != trained[1].folder


def test_trainings_side_by_side_are_interrupted_together_and_resumed(tiny_folder, tmp_path, threads):
    lesson = notebook.begin("02_x", out=str(tmp_path / "out"), device="cpu")
    data = Splits(*(FaceDataset(tiny_folder, name, "parts") for name in ("train", "validation", "test")))
    setting = {"loss": "cross-entropy", "epochs": 400, "width": 0.0625, "batch_size": 4}
    configs = [Config(seed=seed, **setting) for seed in (0, 1)]

    def interrupt():  # when both have an epoch behind them
        while sum(bool(file.read_text()) for file in lesson.out.glob("*/history.jsonl")) < 2:
            time.sleep(0.1)
        _thread.interrupt_main()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(notebook.Stopped, match="2 trainings: stopped"):
        lesson.train_all(configs, data, live=False)
    assert not multiprocessing.active_children()
    done = [len(read_history(folder)) for folder in lesson.out.iterdir()]
    assert all(0 < count < 400 for count in done)

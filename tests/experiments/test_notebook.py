"""What every notebook begins with; it trains by ``experiments.train.run``."""

import pytest

from consensus_lib.data import FaceDataset, Splits
from consensus_lib.experiments import notebook
from consensus_lib.experiments.train import Config


def test_a_lesson_begins_with_one_line(tmp_path, capsys):
    lesson = notebook.begin("02_x", seed=3, out=str(tmp_path))
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "seed 3" in line
    assert lesson.out == tmp_path
    with pytest.raises(ValueError, match="seed: expected"):
        notebook.begin("02_x", seed=-1)


def test_a_training_has_a_folder_for_its_settings_and_is_found_again(tiny_folder, tmp_path):
    lesson = notebook.begin("02_x", out=str(tmp_path / "out"), device="cpu")
    data = Splits(*(FaceDataset(tiny_folder, name, "parts") for name in ("train", "validation", "test")))
    config = Config(loss="cross-entropy", epochs=2, width=0.0625, batch_size=4)
    first = lesson.train(config, data, live=False, variant="ours")
    assert first.folder.parent == lesson.out
    assert ["mean_iou" in row for row in first.history] == [False, True]
    again = lesson.train(config, data, live=False, variant="ours")
    assert (again.folder, again.history) == (first.folder, first.history)

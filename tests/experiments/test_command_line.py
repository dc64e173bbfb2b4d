"""Wrong values on command lines: one line, exit code 2, and nothing rendered or written before."""

import argparse
import os

import pytest

from consensus_lib import paths
from consensus_lib.experiments import command_line, train_command
from consensus_lib.training import load_checkpoint

TINY = ["--data", "lfw_part_labels", "--size", "32", "--width", "0.0625", "--batch-size", "4"]


def refused(main, arguments, capsys):
    """Return the one line in which ``main`` refuses its arguments."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    printed = capsys.readouterr()
    assert left.value.code == 2
    assert printed.err.count("\n") == 1, printed.err
    assert not printed.out
    return printed.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--size 50", "image: expected [B,3,H,W]"),
        ("--epochs 1.5", "argument --epochs: invalid int value: '1.5'"),
        ("--device nonsense", "device: expected"),
        ("--device meta", "device: expected"),
        ("--learning-rate nan", "learning_rate: expected"),
        ("--images 0", "images: expected"),
        ("--workers -1", "argument --workers: expected"),
        ("--precision half", "precision: expected"),
        ("--task nose", "task: expected"),
        ("--data nobody", "dataset: expected"),
        ("--data lfw_part_labels", "make data-lfw"),
        ("--out there/run", "argument --out: expected"),
        ("--loss-options beta", "options: expected NAME=VALUE, got 'beta'"),
        ("--loss-options bet=2", "loss_options: expected"),
    ],
)
def test_a_training_refuses_wrong_values_before_data_are_rendered(
    arguments, expected, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_text("a file")
    assert expected in refused(train_command.main, arguments.split(), capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_training_is_resumed_or_begun_anew_from_the_command_line(write_tiny, capsys):
    write_tiny(paths.data_dir() / "lfw_part_labels-128")
    first = [*TINY, "--device", "cpu", "--precision", "bfloat16", "--out", str(paths.runs_dir())]
    assert train_command.main([*first, "--epochs", "1"]) == 0
    _, state = load_checkpoint(paths.runs_dir())
    assert state["settings"]["precision"] == "bfloat16"
    auto = ["--precision", "auto"]
    assert train_command.main([*first, *auto, "--epochs", "1", "--workers", "0"]) == 0
    capsys.readouterr()
    for changed in (["--precision", "float32", "--epochs", "1"], [*auto, "--epochs", "2"]):
        with pytest.raises(SystemExit) as left:
            train_command.main([*first, *changed])
        assert left.value.code == 2
        printed = capsys.readouterr().err
        assert f"{'precision' if 'float32' in changed else 'epochs'}: expected" in printed
        assert "--restart" in printed
    assert train_command.main([*first, *auto, "--epochs", "2", "--restart"]) == 0
    assert load_checkpoint(paths.runs_dir())[1]["epoch"] == 2


def test_a_loss_that_is_not_finite_is_a_line_and_not_a_wrong_argument(write_tiny, capsys):
    write_tiny(paths.data_dir() / "lfw_part_labels-128")
    assert train_command.main([*TINY, "--device", "cpu", "--learning-rate", "1e30"]) == 1
    assert "loss: expected a finite mean over epoch 1" in capsys.readouterr().err


def test_a_folder_is_there_or_can_be_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in ("new/below", ".", str(tmp_path)):
        assert str(command_line.folder(text)) == text
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(argparse.ArgumentTypeError, match="folder"):
        command_line.folder("new")


def test_numbers_stay_within_their_bounds_and_other_errors_keep_their_traceback(capsys):
    parser = command_line.Parser(prog="command")
    parser.add_argument("--size", type=command_line.whole(8, 250))
    for size in ("7", "251", "large"):
        assert "argument --size: expected" in refused(parser.parse_args, ["--size", size], capsys)
    with pytest.raises(ZeroDivisionError), command_line.refusing(parser):
        1 / 0  # noqa: B018
    with pytest.raises(SystemExit), command_line.refusing(parser):
        raise ValueError("first\n  second")
    assert capsys.readouterr().err.startswith("command: error: first second")

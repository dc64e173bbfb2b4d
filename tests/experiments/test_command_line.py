"""Wrong values on command lines: one line, exit code 2, and nothing rendered or written before."""

import argparse
import os

import pytest

from consensus_lib import paths
from consensus_lib.experiments import command_line, train_command
from consensus_lib.training import load_checkpoint

TINY = [
    *("--data", "lfw_part_labels", "--size", "32", "--width", "0.0625"),
    *("--batch-size", "4", "--device", "cpu"),
]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--epochs 1.5", "argument --epochs: "),
        ("--device meta", "device: expected"),
        ("--learning-rate nan", "learning_rate: expected"),
        ("--images 0", "images: expected"),
        ("--workers -1", "argument --workers: expected"),
        ("--precision half", "precision: expected"),
        ("--data nobody", "dataset: expected"),
        ("--data lfw_part_labels", "make data-lfw"),
        ("--out there/run", "argument --out: expected"),
        ("--loss-options beta", "options: expected"),
        ("--loss-options bet=2", "loss_options: expected"),
    ],
)
def test_a_training_refuses_wrong_values_before_data_are_rendered(
    arguments, expected, refused, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_text("a file")
    assert expected in refused(train_command.main, arguments.split())
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_training_is_resumed_begun_anew_or_fails_from_the_command_line(write_tiny, capsys, refused):
    write_tiny(paths.data_dir() / "lfw_part_labels-128")
    first = [*TINY, "--out", str(paths.runs_dir()), "--precision"]
    assert train_command.main([*first, "bfloat16", "--epochs", "1"]) == 0
    _, state = load_checkpoint(paths.runs_dir())
    assert state["settings"]["precision"] == "bfloat16"
    assert train_command.main([*first, "auto", "--epochs", "1", "--workers", "0"]) == 0
    capsys.readouterr()
    for precision, epochs, named in (("float32", "1", "precision"), ("auto", "2", "epochs")):
        said = refused(train_command.main, [*first, precision, "--epochs", epochs])
        assert f"{named}: expected" in said
        assert "--restart" in said
    assert train_command.main([*first, "auto", "--epochs", "2", "--restart"]) == 0
    assert load_checkpoint(paths.runs_dir())[1]["epoch"] == 2

    assert train_command.main([*TINY, "--learning-rate", "1e30"]) == 1  # no wrong argument
    assert "loss: expected a finite mean" in capsys.readouterr().err


def test_a_folder_is_there_or_can_be_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in ("new/below", ".", str(tmp_path)):
        assert str(command_line.folder(text)) == text
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(argparse.ArgumentTypeError, match="folder"):
        command_line.folder("new")


def test_numbers_stay_within_their_bounds_and_other_errors_keep_their_traceback(refused, capsys):
    parser = command_line.Parser(prog="command")
    parser.add_argument("--size", type=command_line.whole(8, 250))
    parser.add_argument("--width", type=command_line.number(0))
    for option, wrong in (("--size", "7 251 large"), ("--width", "-1 nan inf")):
        for text in wrong.split():
            assert f"argument {option}: expected" in refused(parser.parse_args, [f"{option}={text}"])
    with pytest.raises(ZeroDivisionError), command_line.refusing(parser):
        1 / 0  # noqa: B018
    with pytest.raises(SystemExit), command_line.refusing(parser):
        raise ValueError("first\n  second")
    assert capsys.readouterr().err.startswith("command: error: first second")

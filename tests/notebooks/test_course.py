import nbformat
import numpy as np
import pandas as pd
import torch

from consensus_lib.data import FaceDataset
from consensus_lib.data.prepared import Splits
from support import course


def test_the_constant_prediction_is_scored_on_both_splits(tiny_folder):
    splits = Splits(*(FaceDataset(tiny_folder, name, "parts") for name in ("train", "validation", "test")))
    validation, test = course.constant_scores(splits)
    assert (validation["images"], test["images"]) == (4, 4)
    table = course.score_table({"constant": test}, ("background", "face", "hair"))
    assert list(table.columns[:2]) == ["mean IoU", "IoU background"]
    assert table.loc["constant", "mean IoU"] == round(test["mean_iou"], 3)


def test_gains_of_a_study_count_seeds_in_the_direction_that_is_better():
    rows = {"seed": [0, 1] * 2, "variant": ["CE", "CE", "ours", "ours"]}
    study = pd.DataFrame(
        rows
        | {"mean_iou": [0.5, 0.5, 0.6, 0.4], "component_error": [2.0, 2.0, 1.0, 1.5], "hole_error": [1.0] * 4}
    )
    gains = course.study_gains(study).loc["ours"].tolist()
    assert gains == ["+0.000", 1, "-0.750", 2, "+0.000", 0]


def test_the_gallery_shows_what_was_chosen_and_the_components(tiny_folder):
    data = FaceDataset(tiny_folder, "test", "parts")
    masks = {"mine": torch.zeros(len(data), 32, 32, dtype=torch.uint8)}
    figure = course.gallery(data, [2, 0], masks, {"mine": ["a", "b"]}, components="mine")
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == ["image", "truth", "mine", "components"]
    assert [axis.get_xlabel() for axis in figure.axes[4:6]] == ["a", "b"]
    shown = figure.axes[2].images[0].get_array()
    np.testing.assert_array_equal(shown, np.asarray(data.task.colours, np.uint8)[data[2]["labels"].numpy()])


def test_the_end_of_a_traceback_is_read_from_an_executed_notebook(tmp_path):
    cell = nbformat.v4.new_code_cell("1 / 0")
    trace = ["\x1b[31mfirst\x1b[0m", "second\nthird", "ZeroDivisionError: division by zero"]
    cell.outputs = [nbformat.v4.new_output("error", ename="Z", evalue="", traceback=trace)]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "a.ipynb")
    text = course.tail_of_traceback(tmp_path / "a.ipynb", 2)
    assert text == "third\nZeroDivisionError: division by zero"


def test_this_machine_is_described_in_rows_before_there_are_data(tmp_path, monkeypatch):
    monkeypatch.setenv("CONSENSUS_DATA_DIR", str(tmp_path / "not" / "there"))
    table = course.machine()
    assert list(table.columns) == ["here", "meaning"]
    assert {"Python", "PyTorch", "CPU cores", "LFW Part Labels"} <= set(table.index)
    assert table.notna().all(axis=None)

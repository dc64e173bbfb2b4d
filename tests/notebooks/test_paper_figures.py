import json
import re
import shutil
import subprocess

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from consensus_lib.data import TASKS, open_splits
from consensus_lib.experiments import notebook, results
from consensus_lib.experiments.train import Config
from consensus_lib.losses import pixelwise_loss
from consensus_lib.viz import plots
from support import paper, tables, verdict
from support.diagrams import luminance
from support.paper_figures import VENUES, Manuscript
from support.run_folder import MissingResult, RunFolder, describe_setup
from support.tables import Column, Value

RESULT = {
    **{"notebook": "05_artifact_analysis", "dataset": "synthetic_faces", "split": "test", "task": "parts"},
    **{"image_size": 32, "width": 0.0625, "train_images": 8, "test_images": 48, "batch_size": 8},
    **{"mean_iou": 0.5, "pixel_accuracy": 0.9, "component_error": 1.0, "holes": 0.5},
    **{"seconds": 2.0, "device": "cpu"},
}


@pytest.fixture(autouse=True)
def _style(monkeypatch):
    monkeypatch.setattr(plots, "show", lambda figure, *_: plt.close(figure))
    with plt.rc_context():
        yield


@pytest.fixture
def one_data_folder(tmp_path_factory, monkeypatch):
    """Let tests share the faces that they draw."""
    monkeypatch.setenv("CONSENSUS_DATA_DIR", str(tmp_path_factory.getbasetemp() / "drawn"))


@pytest.fixture
def write(tmp_path):
    """Return a function that files a result of notebook 05."""

    def one(loss, seed=0, epochs=4, **more):
        folder = tmp_path / "05_artifact_analysis" / f"{loss}-{seed}-{epochs}-{len(more)}"
        results.write_result(folder, **RESULT | {"loss": loss, "seed": seed, "epochs": epochs} | more)

    return one


@pytest.fixture
def manuscript(tmp_path):
    lesson = notebook.begin("07_paper_figures", out=str(tmp_path / "07_paper_figures"))
    return Manuscript(lesson, RunFolder(tmp_path), "cvpr")


def drawn(_, width):
    figure = plots.dot_plot({"α, in %": {"ours": [0.7, 0.9], "theirs": [0.5]}})
    return figure, "50% of α."


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("wide", [False, True])
def test_a_pdf_has_the_width_of_the_venue_and_embedded_fonts(manuscript, venue, wide):
    Manuscript(manuscript.lesson, manuscript.folder, venue).figure("one", drawn, wide=wide)
    pdf = (manuscript.lesson.out / "figures/one.pdf").read_bytes()
    width = float(re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", pdf)[1])
    assert width == pytest.approx(72 * (VENUES[venue].page if wide else VENUES[venue].column), abs=0.01)
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert VENUES[venue].family.encode() in pdf
    assert b"CreationDate" not in pdf


def test_captions_go_into_latex_and_the_document_has_all(manuscript):
    manuscript.figure("one", drawn, wide=True)
    manuscript.finish()
    text = (manuscript.lesson.out / "figures/one.tex").read_text()
    assert r"\begin{figure*}[t]" in text
    assert r"\caption{50\% of $\alpha$.}\label{fig:one}" in text
    assert r"\input{figures/one}" in (manuscript.lesson.out / "paper.tex").read_text()


@pytest.mark.parametrize("venue", VENUES)
def test_latex_takes_the_document_and_everything_fits_the_columns(manuscript, venue):
    if shutil.which("pdflatex") is None:
        pytest.skip("LaTeX is not installed")
    manuscript = Manuscript(manuscript.lesson, manuscript.folder, venue)
    for wide in (False, True):
        manuscript.figure(f"figure_{wide}", drawn, wide=wide)
    rows = {"ours": {"a & b, 50%": {"iou": Value((70.0, 71.0))}, "Lovász": {"iou": Value((72.5,))}}}
    for count, wide in ((2, False), (5, True)):
        columns = [Column("iou", "IoU")] * count
        make = lambda run, columns=columns: (rows, columns, "Table of α.")  # noqa: E731
        manuscript.table(f"table_{count}", make, first="Method", wide=wide)
    manuscript.finish()
    line = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    done = subprocess.run(line, cwd=manuscript.lesson.out, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout
    assert "Overfull" not in done.stdout


def test_what_a_run_folder_lacks_is_named_and_no_old_file_stays(manuscript, capsys):
    manuscript.figure("one", drawn)
    manuscript.figure("one", paper.figure6)
    manuscript.table("t", paper.table1)
    assert manuscript.skipped == {
        "one": "trainings of 05_artifact_analysis",
        "t": "trainings of 04_teacher_distillation",
    }
    assert not list((manuscript.lesson.out / "figures").glob("one.*"))


def test_trainings_are_those_of_the_newest_setting_and_the_longest(write, tmp_path):
    write("a", image_size=64)
    for seed in (1, 0):
        write("a", seed)
    write("a", 0, epochs=2)
    write("b")
    found = RunFolder(tmp_path).trainings("05_artifact_analysis")
    assert found[["name", "seed", "epochs", "image_size"]].values.tolist() == [
        ["a", 0, 4, 32],
        ["a", 1, 4, 32],
        ["b", 0, 4, 32],
    ]
    assert RunFolder(tmp_path).trainings("05_artifact_analysis", "b").name.tolist() == ["b"]
    with pytest.raises(MissingResult, match="trainings with c in 05_artifact_analysis"):
        RunFolder(tmp_path).trainings("05_artifact_analysis", "a", "c")


def test_a_setting_has_n_data_and_cost():
    rows = [
        RESULT | {"name": "a", "seed": seed, "epochs": epochs} for seed, epochs in enumerate((1, 2, 4, 8))
    ]
    assert describe_setup(pd.DataFrame(rows)) == (
        "Drawn faces, 8 training and 48 test images of 32 pixels, width 0.0625, 1 to 8 epochs; n = 4, "
        "2 s a training on cpu"
    )


@pytest.mark.slow
def test_figures_of_parts_come_from_trainings_that_notebook_05_leaves(one_data_folder, tmp_path, manuscript):
    lesson = notebook.begin("05_artifact_analysis", out=str(tmp_path / "05_artifact_analysis"))
    data = open_splits("synthetic", "parts", size=32, images=8)
    setting = {"seed": 0, "epochs": 2, "width": 0.0625, "batch_size": 8}
    for name in (*paper.PAIR, paper.ALONE, "beta 40"):
        trained = lesson.train(Config(loss=pixelwise_loss, title=name, **setting), data, live=False)
    for name in ("figure3b", "figure4a", "figure4c", "figure6"):
        manuscript.figure(name, getattr(paper, name))
    assert manuscript.made == ["figure3b", "figure4a", "figure4c", "figure6"]
    manuscript.table("three", lambda run: paper.part_labels(3, run))
    text = (manuscript.lesson.out / "figures/three.tex").read_text()
    assert "here, this run" in text
    assert "n = 3" in text

    state = json.loads((trained.folder / "checkpoint.json").read_text())
    state["settings"]["data"] = "another"
    for folder in (tmp_path / "05_artifact_analysis").glob("*-seed0-*"):
        (folder / "checkpoint.json").write_text(json.dumps(state))
    with pytest.raises(MissingResult, match="synthetic is another version"):
        paper.figure4c(manuscript.folder, 3.25)


@pytest.mark.slow
def test_figures_of_covered_faces_and_curves_come_from_notebooks_04_and_03(
    one_data_folder, tmp_path, manuscript
):
    data = open_splits("synthetic", "occlusion", size=32, images=8)
    setting = {"seed": 0, "epochs": 2, "width": 0.0625, "batch_size": 8}
    lesson = notebook.begin("04_teacher_distillation", out=str(tmp_path / "04_teacher_distillation"))
    for name in paper.STAGES:
        config = Config(loss=pixelwise_loss, title=name.replace(", ", "-"), **setting)
        lesson.train(config, data, live=False, first=name)
    lesson = notebook.begin("03_consensus_loss", out=str(tmp_path / "03_consensus_loss"))
    for name in ("cross-entropy", "consensus"):
        lesson.train(Config(loss=pixelwise_loss, title=name, **setting), data, live=False)
    for name in ("figure1", "figure2", "figure5", "figure4b"):
        manuscript.figure(name, getattr(paper, name))
    manuscript.table("one", paper.table1)
    assert manuscript.made == ["figure1", "figure2", "figure5", "figure4b", "one"]
    text = (manuscript.lesson.out / "figures/one.tex").read_text()
    assert "here, drawn faces" in text
    assert "transfer, fine-tuning" in text
    assert "Softmax + CE, scratch & 76.8" in text


def test_a_comparison_goes_seed_by_seed():
    rows = [("a", 0, 0.5), ("a", 1, 0.6), ("b", 0, 0.6), ("b", 1, 0.7), ("b", 2, 0.1)]
    found = pd.DataFrame(rows, columns=["name", "seed", "mean_iou"])
    names = {"a": "pixel-wise", "b": "consensus"}
    assert paper.compared(found, names, "mean_iou") == (
        "mean IoU: pixel-wise 0.550, consensus 0.467 (consensus against pixel-wise: better)"
    )


def test_the_papers_rows_stand_beside_ours():
    for number, row in ((2, "Structure via consensus, 128 px"), (4, "Structure via consensus, 128 px")):
        groups, _, caption = paper.part_labels(number)
        theirs, ours = groups.values()
        assert theirs[row]["pixel_accuracy"].values == (96.05,)
        assert [len(value["pixel_accuracy"].values) for value in ours.values()] == [3] * 5
        assert "1300 training and 400 test images" in caption
    lacking = tables.missing(*paper.part_labels(2)[:2])
    assert set(paper.METHODS.values()) <= set(lacking["acc (superpixels)"])


def test_the_constant_prediction_stands_beside_the_component_errors_of_table_3_and_is_never_bold():
    groups, columns, _ = paper.part_labels(3)
    (row,) = groups["constant prediction, photographs"].values()
    assert row["component_error"].values == (verdict.constant_prediction().component_error,)
    (cells,) = tables.layout(groups, columns)["constant prediction, photographs"].values()
    assert not any(cell.best for cell in cells)


def test_colours_of_classes_and_lines_differ_in_grey():
    for task in TASKS.values():
        grey = sorted(map(luminance, task.colours))
        assert np.diff(grey).min() > 0.15
    plots.use_style()
    cycle = plt.rcParams["axes.prop_cycle"].by_key()
    rgb = [[255 * part for part in matplotlib.colors.to_rgb(colour)] for colour in cycle["color"]]
    looks = list(zip(map(luminance, rgb), cycle["linestyle"], strict=True))
    assert all(abs(a[0] - b[0]) > 0.1 or a[1] != b[1] for i, a in enumerate(looks) for b in looks[:i])

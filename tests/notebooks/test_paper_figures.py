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
def train(tmp_path_factory, tmp_path, monkeypatch):
    """Return a function that trains as a notebook does; tests share the faces that they draw."""
    monkeypatch.setenv("CONSENSUS_DATA_DIR", str(tmp_path_factory.getbasetemp() / "drawn"))

    def all_of(name, task, titles, key=None):
        lesson = notebook.begin(name, out=str(tmp_path / name))
        data = open_splits("synthetic", task, size=32, images=8)
        for title in titles:
            config = Config(loss=pixelwise_loss, title=title, epochs=2, width=0.0625, batch_size=8)
            trained = lesson.train(config, data, live=False, **({key: title} if key else {}))
        return trained

    return all_of


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
def test_a_pdf_has_the_width_of_the_venue_and_embedded_fonts(manuscript, venue):
    sizes = VENUES[venue]
    for wide, inches in ((False, sizes.column), (True, sizes.page)):
        Manuscript(manuscript.lesson, manuscript.folder, venue).figure("one", drawn, wide=wide)
        pdf = (manuscript.lesson.out / "figures/one.pdf").read_bytes()
        width = float(re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", pdf)[1])
        assert width == pytest.approx(72 * inches, abs=0.01)
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert sizes.family.encode() in pdf
    assert b"CreationDate" not in pdf


@pytest.mark.parametrize("venue", VENUES)
def test_captions_go_into_latex_which_takes_the_document_and_fits_all_into_the_columns(manuscript, venue):
    out = manuscript.lesson.out
    manuscript = Manuscript(manuscript.lesson, manuscript.folder, venue)
    for wide in (False, True):
        manuscript.figure(f"figure_{wide}", drawn, wide=wide)
    rows = {"ours": {"a & b, 50%": {"iou": Value((70.0, 71.0))}, "Lovász": {"iou": Value((72.5,))}}}
    for count, wide in ((2, False), (5, True)):
        made = (rows, [Column("iou", "IoU")] * count, "Table of α.")
        manuscript.table(f"table_{count}", lambda run, made=made: made, first="Method", wide=wide)
    manuscript.finish()
    text = (out / "figures/figure_True.tex").read_text()
    assert r"\begin{figure*}[t]" in text
    assert r"\caption{50\% of $\alpha$.}\label{fig:figure_True}" in text
    assert r"\input{figures/figure_True}" in (out / "paper.tex").read_text()
    if shutil.which("pdflatex") is None:
        pytest.skip("LaTeX is not installed")
    line = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    done = subprocess.run(line, cwd=out, capture_output=True, text=True, errors="replace")
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
    assert found[["name", "seed", "epochs"]].values.tolist() == [["a", 0, 4], ["a", 1, 4], ["b", 0, 4]]
    assert found.image_size.eq(32).all()
    assert RunFolder(tmp_path).trainings("05_artifact_analysis", "b").name.tolist() == ["b"]
    with pytest.raises(MissingResult, match="trainings with c in 05_artifact_analysis"):
        RunFolder(tmp_path).trainings("05_artifact_analysis", "a", "c")


def test_a_setting_has_data_sizes_and_n():
    rows = [RESULT | {"name": "a", "seed": seed, "epochs": 2**seed} for seed in range(4)]
    assert describe_setup(pd.DataFrame(rows)) == (
        "Rendered faces, 8 training and 48 test images of 32 pixels, width 0.0625, 1 to 8 epochs; n = 4"
    )


@pytest.mark.slow
def test_figures_of_parts_come_from_trainings_that_notebook_05_leaves(train, tmp_path, manuscript):
    trained = train("05_artifact_analysis", "parts", (*paper.PAIR, paper.ALONE, "beta 40"))
    figures = ["figure3b", "figure4a", "figure4c", "figure6"]
    for name in figures:
        manuscript.figure(name, getattr(paper, name))
    manuscript.table("three", lambda run: paper.part_labels(3, run))
    assert manuscript.made == [*figures, "three"]
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
def test_figures_of_covered_faces_and_curves_come_from_notebooks_04_and_03(train, manuscript):
    train("04_teacher_distillation", "occlusion", paper.STAGES, key="first")
    train("03_consensus_loss", "occlusion", ("cross-entropy", "consensus"))
    figures = ["figure1", "figure2", "figure5", "figure4b"]
    for name in figures:
        manuscript.figure(name, getattr(paper, name))
    manuscript.table("one", paper.table1)
    assert manuscript.made == [*figures, "one"]
    text = (manuscript.lesson.out / "figures/one.tex").read_text()
    assert "here, rendered faces" in text
    assert "transfer, fine-tuning" in text
    assert "Softmax + CE, scratch & 76.8" in text


def test_a_comparison_goes_seed_by_seed():
    rows = [("a", 0, 0.5), ("a", 1, 0.6), ("b", 0, 0.6), ("b", 1, 0.7), ("b", 2, 0.1)]
    found = pd.DataFrame(rows, columns=["name", "seed", "mean_iou"])
    names = {"a": "pixel-wise", "b": "consensus"}
    assert paper.compared(found, names, "mean_iou") == (
        "mean IoU: pixel-wise 0.550, consensus 0.467 (consensus against pixel-wise: better in all 2 seeds)"
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

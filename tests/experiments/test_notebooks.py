"""Notebooks executed in order, and outputs stored in place."""

import json

import nbformat
import pytest

from consensus_lib import paths
from consensus_lib.experiments import notebooks


@pytest.fixture
def write_notebook(write_cells):
    """Return a function that writes a notebook with a seed and these cells."""
    return lambda path, *sources: write_cells(path, 'seed: int = 0\nout: str = ""', *sources)


@pytest.fixture
def checkout(tmp_path, monkeypatch, write_notebook, result):
    """A checkout with two small notebooks and a profile."""
    root = tmp_path / "check{out}"  # braces: papermill formats its output path
    (root / "notebooks/params").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    monkeypatch.setattr(paths, "_CHECKOUT", root)
    write_notebook(
        root / "notebooks/01_first.ipynb",
        "from consensus_lib.experiments.results import write_result\n"
        f"write_result(out, **({result} | {{'seed': seed}}))",
    )
    write_notebook(root / "notebooks/02_second.ipynb", "print(seed)")
    (root / "notebooks/params/tiny-quick.yaml").write_text("all: {seed: 3}\n02_second: {seed: 4}\n")
    return root


def printed(file):
    """Return the text that the last cell of a notebook printed."""
    return nbformat.read(file, as_version=4).cells[-1].outputs[0].text


@pytest.mark.slow
def test_the_notebooks_run_in_order_with_their_parameters_which_can_be_changed(checkout, capfd):
    assert notebooks.main(["--data", "tiny", "--profile", "quick", "--out", str(checkout / "run")]) == 0
    assert json.loads((checkout / "run/01_first/result.json").read_text())["seed"] == 3
    assert printed(checkout / "run/02_second/02_second.ipynb") == "4\n"
    captured = capfd.readouterr()
    assert "2 notebooks in" in captured.out
    assert "mean IoU" in captured.out
    assert "02_second" in captured.err  # the bar

    assert notebooks.main(["--data", "tiny", "--only", "02", "--set", "seed=7"]) == 0
    (run,) = paths.runs_dir().iterdir()  # a new folder each time
    assert printed(run / "02_second/02_second.ipynb") == "7\n"


def test_a_notebook_can_do_without_the_profile(checkout):
    (checkout / "notebooks/params/tiny-quick.yaml").write_text("all: {seed: 3}\n02_second: null\n")
    assert notebooks.read_profile("tiny", "quick") == {"01_first": {"seed": 3}, "02_second": {}}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--only", "2"], "--only: expected"),
        (["--set", "sed=1"], "--set: expected"),
        (["--set", "seed=x"], "seed: expected"),
        (["--set", "seed={"], "seed: expected"),
        (["--set", "seed"], "options: expected"),
        (["--out", "pyproject.toml"], "argument --out: "),
        (["--profile", "huge"], "profile: expected"),
    ],
)
def test_wrong_values_are_named_in_one_line_and_nothing_is_written(
    checkout, refused, monkeypatch, arguments, expected
):
    monkeypatch.chdir(checkout)
    assert expected in refused(notebooks.main, ["--data", "tiny", *arguments])
    assert not paths.runs_dir().exists()


@pytest.mark.slow
def test_a_notebook_that_stops_is_named_and_kept(checkout, capfd, write_notebook):
    write_notebook(checkout / "notebooks/01_first.ipynb", "print('before')", "raise ValueError('broken')")
    assert notebooks.main(["--data", "tiny", "--out", str(checkout / "run")]) == 1
    assert "01_first stopped" in capfd.readouterr().err
    kept = nbformat.read(checkout / "run/01_first/01_first.ipynb", as_version=4)
    assert any(output.get("text") == "before\n" for cell in kept.cells for output in cell.get("outputs", []))
    assert not (checkout / "run/02_second").exists()


@pytest.mark.slow
def test_storing_keeps_outputs_and_stills_of_widgets_drops_progress_and_leaves_a_failing_notebook(
    checkout, write_notebook
):
    widget = "'application/vnd.jupyter.widget-view+json': {'model_id': '1'}, 'text/plain': 'w'"
    shown = f"display({{{widget}}}, raw=True)\ndisplay({{{widget}, 'image/png': 'iVBORw0KGgo='}}, raw=True)"
    cells = {
        "01_first": "import sys\nprint('kept')\nprint('bar', file=sys.stderr)",
        "02_second": f"from IPython.display import display\n{shown}",
        "studies/train": "print('kept')",
    }
    for name, source in cells.items():
        write_notebook(checkout / f"notebooks/{name}.ipynb", source)
    assert notebooks.main(["--store"]) == 0
    books = [nbformat.read(checkout / f"notebooks/{name}.ipynb", as_version=4) for name in cells]
    first, second, study = (book.cells[-1].outputs for book in books)
    assert [output.text for output in (*first, *study)] == ["kept\n", "kept\n"]
    assert [sorted(output.data) for output in second] == [["image/png", "text/plain"]]
    assert books[0].metadata.language_info == {"name": "python"}

    file = checkout / "notebooks/02_second.ipynb"
    before = write_notebook(file, "raise ValueError('broken on purpose')").read_bytes()
    with pytest.raises(Exception, match="broken on purpose"):
        notebooks.main(["--store", "--only", "02"])
    assert file.read_bytes() == before

"""What every notebook keeps to, and that comparing its outputs can fail. `make test` runs nbval on them."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from consensus_lib.experiments.notebooks import read_profile

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PARAMETER = re.compile(r"^(\w+): (int|float|str|bool|list) = (.+?)  # \S.*$")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters(notebook):
    """Return name → type name and default, read from the cell tagged ``parameters``."""
    cells = [cell for cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", [])]
    assert len(cells) == 1
    lines = [PARAMETER.fullmatch(line) for line in cells[0].source.splitlines()]
    assert all(lines), cells[0].source
    return {line[1]: (line[2], ast.literal_eval(line[3])) for line in lines}


def test_the_shape_of_a_notebook(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_code_lines_fit_the_page():
    for path in (*NOTEBOOKS, ROOT / "notebooks/studies/train.ipynb"):
        lines = [line for cell in code_cells(nbformat.read(path, 4)) for line in cell.source.splitlines()]
        assert not [line for line in lines if len(line) > 100], path.name


def test_parameters_are_literals_of_their_type_and_comments_hide_none(notebook):
    for name, (kind, default) in parameters(notebook).items():
        assert type(default).__name__ == kind, name
    source = next(c.source for c in code_cells(notebook) if "parameters" in c.metadata.get("tags", []))
    comments = [line.split("  # ", 1)[1] for line in source.splitlines()]
    assert not any(
        character in comment for comment in comments for character in "=|"
    )  # papermill would lose it


def test_outputs_are_stored_and_clean(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert not [
        output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"
    ]
    # IPython shows nothing else of a figure without axes.
    assert not [o for o in outputs if "with 0 Axes" in o.get("data", {}).get("text/plain", "")]


def test_the_notebook_that_sweeps_run_shows_its_figure():
    book = nbformat.read(ROOT / "notebooks/studies/train.ipynb", as_version=4)
    outputs = [output for cell in code_cells(book) for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error"]


def test_no_cell_installs_downloads_or_silences(notebook):
    source = "\n".join(cell.source for cell in code_cells(notebook))
    assert not re.search(r"^\s*[!%]|wget|pip install|filterwarnings|simplefilter", source, re.MULTILINE)


def test_exercises_run_unfilled_and_can_be_checked(notebook):
    source = [cell.source for cell in code_cells(notebook)]
    assert sum("exercises.check_" in text for text in source) >= 3
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for part in ("You will learn", "Runtime", "## Summary", "## Exercises", "<details>", "## References"):
        assert part in text


@pytest.mark.parametrize(
    "path", sorted((ROOT / "notebooks/params").glob("*-*.yaml")), ids=lambda path: path.stem
)
def test_every_profile_sets_parameters_that_the_notebooks_declare(path):
    data, profile = path.stem.rsplit("-", 1)
    file = yaml.safe_load(path.read_text())
    declared = {book.stem: parameters(nbformat.read(book, as_version=4)) for book in NOTEBOOKS}
    assert set(file) - {"all"} <= set(declared)
    assert (file["all"]["dataset"], file["all"]["profile"]) == (data, profile)
    for name, values in read_profile(data, profile).items():
        for key, value in values.items():
            assert key in declared[name], f"{name} declares no {key}"
            assert type(value).__name__ == declared[name][key][0], f"{name}: {key}"


def test_solutions_of_the_exercises_are_right(notebook, capsys):
    """Put each solution where the exercise's answer stands, after the cells that it builds on."""
    cells = {"": ""}
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        text = cell.source if cell.cell_type == "markdown" else ""
        solution = re.search(
            r"<summary>Solution</summary>.*?(?:```python\n(.+?)```|`(sizes = .+?)`)", text, re.DOTALL
        )
        if solution:
            cells[before.source] = solution[1] or solution[2]
    assert len(cells) >= 4
    for exercise, solution in list(cells.items())[1:]:
        check = exercise[exercise.index("exercises.check_") :]
        scope = {}
        exec(
            "import numpy as np\nimport torch\nfrom support import exercises\n"
            "from consensus_lib.metrics.components import count_pieces",
            scope,
        )
        needed = [c.source for c in code_cells(notebook) if c.source.startswith("truth = np.zeros")]
        for source in needed:
            exec(source, scope)
        if "data.train" in check:
            continue  # needs the notebook's data; test_exercises.py checks it on tiny data
        capsys.readouterr()
        exec(f"{solution}\n{check}", scope)
        assert capsys.readouterr().out.strip() == "right", check


def compare(folder):
    options = ["--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider", "-q", "-c", "pytest.ini"]
    command = [sys.executable, "-m", "pytest", *options, "--rootdir", str(folder), str(folder)]
    (folder / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@pytest.mark.slow
def test_comparing_outputs_passes_on_the_same_and_fails_on_a_changed_one(tmp_path):
    """nbval passes vacuously where nothing is stored; hold it to a notebook that it must refuse."""
    cell = nbformat.v4.new_code_cell("print(6 * 7)\n# NBVAL_CHECK_OUTPUT", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="42\n")]
    book = nbformat.v4.new_notebook(
        cells=[cell], metadata={"kernelspec": {"name": "python3", "display_name": "p"}}
    )
    nbformat.write(book, tmp_path / "a.ipynb")
    assert compare(tmp_path).returncode == 0
    cell.outputs[0].text = "43\n"
    nbformat.write(book, tmp_path / "a.ipynb")
    done = compare(tmp_path)
    assert done.returncode == 1
    assert "1 failed" in done.stdout


def test_some_outputs_of_every_notebook_are_compared(notebook):
    compared = [cell for cell in code_cells(notebook) if "# NBVAL_CHECK_OUTPUT" in cell.source]
    assert len(compared) >= 4
    for cell in compared:
        assert cell.outputs, cell.source
        assert all(output.output_type == "stream" for output in cell.outputs)


def test_make_is_there_for_the_two_commands():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for target in ("run", "figures", "test", "setup", "lab", "data-lfw", "bench", "notebooks", "lint"):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

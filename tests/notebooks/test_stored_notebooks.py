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
from nbclient import NotebookClient

from consensus_lib.experiments.notebooks import read_profile

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
START = "00_start_here"  # the page that leads to the lessons
PARAMETER = re.compile(r"^(\w+): (int|float|str|bool|list) = (.+?)  # \S.*$")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


@pytest.fixture(params=[path for path in NOTEBOOKS if path.stem != START], ids=lambda path: path.stem)
def lesson(request):
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


@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_every_stored_picture_has_an_alternative_text(name):
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    pictures = [
        output.metadata.get(kind, {}).get("alt", "")
        for cell in code_cells(book)
        for output in cell.outputs
        for kind in output.get("data", {})
        if kind.startswith("image/")
    ]
    assert len(pictures) >= 2
    assert all(len(text) >= 30 for text in pictures), pictures
    source = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    assert "![](" not in source


@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_a_notebook_is_small_leads_on_and_uses_few_names_of_the_library(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    book = nbformat.read(path, as_version=4)
    assert path.stat().st_size <= 1.2e6
    head = book.cells[0].source
    assert all(f"**{word}**" in head for word in ("Runtime", "Reading", "Prerequisites", "Needs", "Next"))
    assert ("**Previous**" in head) == (name != START)
    trees = [ast.parse(cell.source) for cell in code_cells(book)]
    names = [
        alias.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("consensus_lib")
        for alias in node.names
    ]
    assert len(names) <= 12, names


@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_no_stored_widget_needs_a_kernel(name):
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    kinds = {kind for cell in code_cells(book) for output in cell.outputs for kind in output.get("data", {})}
    assert "application/vnd.jupyter.widget-view+json" not in kinds


def test_links_between_notebooks_and_pages_lead_somewhere(notebook):
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", source):
        assert (ROOT / "notebooks" / target).is_file(), target


def test_each_of_the_twenty_questions_leads_to_a_section_of_a_notebook():
    page = (ROOT / "docs/questions.md").read_text(encoding="utf-8")
    questions = re.split(r"^\d+\. \*\*", page, flags=re.MULTILINE)[1:]
    assert len(questions) == 20
    for question in questions:
        links = re.findall(r"\]\(\.\./(notebooks/\w+\.ipynb)#([^)]+)\)", question)
        assert links, question
        for path, anchor in links:
            book = nbformat.read(ROOT / path, as_version=4)
            text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
            headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings]
            assert anchor in anchors, (path, anchor)
    assert re.search(r"^questions$", (ROOT / "docs/index.md").read_text(), re.MULTILINE)


@pytest.mark.slow
def test_a_cell_that_is_run_before_the_imports_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PYTHONSTARTUP", str(ROOT / "notebooks/support/startup.py"))
    cells = [nbformat.v4.new_code_cell(text) for text in ("exercises.check()", "lesson = 1", "exercises")]
    book = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(book, allow_errors=True).execute()
    early, late = ([o.get("text", o.get("ename")) for o in book.cells[n].outputs] for n in (0, 2))
    assert early[0] == "NameError"
    assert "run the cells above first" in early[1]
    assert late == ["NameError"]


def test_exercises_run_unfilled_and_can_be_checked(lesson):
    source = [cell.source for cell in code_cells(lesson)]
    assert sum("exercises.check_" in text for text in source) >= 3
    text = "\n".join(cell.source for cell in lesson.cells if cell.cell_type == "markdown")
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


def test_solutions_of_the_exercises_are_right(lesson, capsys):
    """Put each solution where the exercise's answer stands, after the cells that it builds on."""
    cells = {"": ""}
    for before, cell in zip(lesson.cells, lesson.cells[1:], strict=False):
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
            "from consensus_lib.metrics.components import count_pieces\n"
            "from skimage.measure import label",
            scope,
        )
        needed = [c.source for c in code_cells(lesson) if c.source.startswith("truth = np.zeros")]
        for source in needed:
            exec(source, scope)
        if "data.train" in check:
            continue  # needs the lesson's data; test_exercises.py checks it on tiny data
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


def test_some_outputs_of_every_notebook_are_compared(lesson):
    compared = [cell for cell in code_cells(lesson) if "# NBVAL_CHECK_OUTPUT" in cell.source]
    assert len(compared) >= 4
    for cell in compared:
        assert cell.outputs, cell.source
        assert all(output.output_type == "stream" for output in cell.outputs)


def test_make_is_there_for_the_two_commands():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for target in ("run", "figures", "test", "setup", "lab", "book", "test-browser", "notebooks", "lint"):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

"""What every notebook keeps to, and that comparing its outputs can fail. `make test` runs nbval on them."""

import ast
import itertools
import re
import shutil
import statistics
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
PARAMETER = re.compile(r"^(\w+): (int|float|str|bool|list) = (.+?)  # (\S.*)$")


class Stored:
    """A notebook as it lies in the checkout."""

    def __init__(self, path):
        self.path, self.book = path, nbformat.read(path, as_version=4)
        self.code = [cell for cell in self.book.cells if cell.cell_type == "code"]
        self.outputs = [output for cell in self.code for output in cell.outputs]
        self.prose = "\n".join(cell.source for cell in self.book.cells if cell.cell_type == "markdown")

    def parameters(self):
        """Return the matched lines of the one cell tagged ``parameters``."""
        (cell,) = (cell for cell in self.code if "parameters" in cell.metadata.get("tags", []))
        lines = [PARAMETER.fullmatch(line) for line in cell.source.splitlines()]
        assert all(lines), cell.source
        return lines


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return Stored(request.param)


LESSONS = [path for path in NOTEBOOKS if path.stem != START]


@pytest.fixture(scope="module", params=LESSONS, ids=lambda path: path.stem)
def lesson(request):
    return Stored(request.param)


def test_a_notebook_is_valid_and_small_and_leads_on(notebook):
    nbformat.validate(notebook.book)
    assert notebook.book.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in notebook.book.cells}) == len(notebook.book.cells)
    assert notebook.path.stat().st_size <= 1.2e6
    shown = [output.get("data", {}) for output in notebook.outputs]
    base64 = [data[kind] for data in shown for kind in ("image/png", "image/jpeg") if kind in data]
    assert all(len(text) * 3 / 4 <= 200_000 for text in base64)
    head = notebook.book.cells[0].source
    assert all(f"**{word}**" in head for word in ("Runtime", "Reading", "Prerequisites", "Needs", "Next"))
    assert ("**Previous**" in head) == (notebook.path.stem != START)


@pytest.mark.parametrize("path", [*NOTEBOOKS, ROOT / "notebooks/studies/train.ipynb"], ids=lambda p: p.stem)
def test_code_fits_the_page_uses_few_names_and_installs_and_silences_nothing(path):
    source = "\n".join(cell.source for cell in Stored(path).code)
    assert not [line for line in source.splitlines() if len(line) > 100]
    assert not re.search(r"^\s*[!%]|wget|pip install|filterwarnings|simplefilter", source, re.MULTILINE)
    lines = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    names = [alias.name for line in lines if "consensus_lib" in line.module for alias in line.names]
    assert len(names) <= 12, names


def test_cells_are_short(notebook):
    lines = [sum(map(bool, map(str.strip, cell.source.splitlines()))) for cell in notebook.code]
    assert statistics.median(lines) <= 6


def test_parameters_are_literals_of_their_type_and_comments_hide_none(notebook):
    for name, kind, default, comment in (line.groups() for line in notebook.parameters()):
        assert type(ast.literal_eval(default)).__name__ == kind, name
        assert not set("=|") & set(comment), "papermill would lose the parameter"


def test_stored_outputs_are_clean_need_no_kernel_and_every_picture_has_an_alternative_text(notebook):
    kinds = [kind for output in notebook.outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") >= 3
    assert "application/vnd.jupyter.widget-view+json" not in kinds
    for output in notebook.outputs:
        assert output.output_type != "error"
        assert output.get("name") != "stderr"
        data = output.get("data", {})
        assert "with 0 Axes" not in data.get("text/plain", ""), "all that is shown of a figure without axes"
        for kind in data:
            assert not kind.startswith("image/") or len(output.metadata[kind]["alt"]) >= 30
    assert "![](" not in notebook.prose


def test_the_notebook_that_sweeps_run_shows_its_figure():
    outputs = Stored(ROOT / "notebooks/studies/train.ipynb").outputs
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error"]


def test_links_between_notebooks_and_pages_lead_somewhere(notebook):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", notebook.prose):
        assert (ROOT / "notebooks" / target).is_file(), target


def test_each_of_the_twenty_questions_leads_to_a_section_of_a_notebook():
    page = (ROOT / "docs/questions.md").read_text(encoding="utf-8")
    questions = re.split(r"^\d+\. \*\*", page, flags=re.MULTILINE)[1:]
    assert len(questions) == 20
    for question in questions:
        links = re.findall(r"\]\(\.\./(notebooks/\w+\.ipynb)#([^)]+)\)", question)
        assert links, question
        for path, anchor in links:
            headings = re.findall(r"^## (.+)$", Stored(ROOT / path).prose, re.MULTILINE)
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


PROFILES = sorted((ROOT / "notebooks/params").glob("*-*.yaml"))


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_profile_sets_parameters_that_the_notebooks_declare(path):
    data, profile = path.stem.rsplit("-", 1)
    file = yaml.safe_load(path.read_text())
    declared = {book.stem: {line[1]: line[2] for line in Stored(book).parameters()} for book in NOTEBOOKS}
    assert set(file) - {"all"} <= set(declared)
    assert (file["all"]["dataset"], file["all"]["profile"]) == (data, profile)
    for name, values in read_profile(data, profile).items():
        for key, value in values.items():
            assert type(value).__name__ == declared[name][key], f"{name}: {key}"


def test_a_lesson_has_its_parts_exercises_and_outputs_that_are_compared(lesson):
    assert sum("exercises.check_" in cell.source for cell in lesson.code) >= 3
    for part in ("You will learn", "Runtime", "## Summary", "## Exercises", "<details>", "## References"):
        assert part in lesson.prose
    compared = [cell for cell in lesson.code if "# NBVAL_CHECK_OUTPUT" in cell.source]
    assert len(compared) >= 4
    for cell in compared:
        assert {output.output_type for output in cell.outputs} == {"stream"}, cell.source


IMPORTS = """
import numpy as np
import torch
from skimage.measure import label
from consensus_lib.metrics.components import count_pieces
from support import exercises
"""
SOLUTION = re.compile(
    r"<summary>Solution</summary>.*?(?:```python\n(.+?)```|`(sizes = .+?)`)",
    re.DOTALL,
)


def test_solutions_of_the_exercises_are_right(lesson, capsys):
    """Put each solution where the exercise's answer stands, after the cells that it builds on."""
    needed = [cell.source for cell in lesson.code if cell.source.startswith("truth = np.zeros")]
    solved = 0
    for exercise, answer in itertools.pairwise(lesson.book.cells):
        if answer.cell_type != "markdown" or not (solution := SOLUTION.search(answer.source)):
            continue
        solved += 1
        check = exercise.source[exercise.source.index("exercises.check_") :]
        if "data.train" in check:
            continue  # needs the lesson's data; test_exercises.py checks it on tiny data
        exec("\n".join([IMPORTS, *needed]), scope := {})
        capsys.readouterr()
        exec(f"{solution[1] or solution[2]}\n{check}", scope)
        assert capsys.readouterr().out.strip() == "right", check
    assert solved >= 3


@pytest.mark.slow
def test_comparing_outputs_passes_on_the_same_and_fails_on_a_changed_one(tmp_path):
    """nbval passes vacuously where nothing is stored; hold it to a notebook that it must refuse."""
    options = ["--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider", "-q", "-c", "pytest.ini"]
    command = [sys.executable, "-m", "pytest", *options, "--rootdir", str(tmp_path), str(tmp_path)]
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    cell = nbformat.v4.new_code_cell("print(6 * 7)\n# NBVAL_CHECK_OUTPUT", execution_count=1)
    kernel = {"kernelspec": {"name": "python3", "display_name": "p"}}
    for text, end in (("42\n", "1 passed"), ("43\n", "1 failed")):
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
        nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), tmp_path / "a.ipynb")
        assert end in subprocess.run(command, capture_output=True, text=True, cwd=tmp_path).stdout


def test_make_is_there_for_the_two_commands():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for target in ("run", "figures", "test", "setup", "lab", "book", "test-browser", "notebooks", "lint"):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

"""Sweeps: what is refused, and what is made one form, before a kernel starts."""

import math

import nbformat
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus_lib.experiments import sweep_plan, sweeps


@pytest.fixture
def notebook(tmp_path, write_ways):
    return write_ways(tmp_path / "book.ipynb")


@pytest.mark.parametrize(
    ("described", "argument"),
    [
        ({"grids": {}}, "sweep"),
        ({"parameters": {"rat": 1}}, "parameter: .* rat"),
        ({"parameters": {"out": "x"}}, "parameter: .* out"),
        ({"parameters": {"rate": "1e-3"}}, "rate: .* YAML"),
        ({"parameters": {"betas": ["1e-3"]}}, r"betas\[0\]: .* YAML"),
        ({"parameters": {"rate": True}}, "rate"),
        ({"parameters": {"rate": math.nan}}, "rate"),
        ({"parameters": {"epochs": True}}, "epochs"),
        ({"parameters": {"epochs": 2.0}}, "epochs"),
        ({"parameters": {"deep": 1}}, "deep"),
        ({"parameters": {"anything": {"a": 1}}}, "anything"),
        ({"parameters": {"betas": [np.float32("nan")]}}, r"betas\[0\]"),
        ({"parameters": [1]}, "parameters"),
        ({"grid": {"rate": 1.0}}, "grid: .* rate"),
        ({"grid": {"rate": []}}, "grid: .* rate"),
        ({"grid": {"rate": [1, 1.0]}}, "sweep"),
        ({"lists": {"rate": [1, 2], "epochs": [1]}}, "lists"),
        ({"grid": {"rate": [1]}, "lists": {"rate": [2]}}, "sweep: .*'rate'"),
        ({"parameters": {"seed": 1}, "seeds": 2}, "sweep: .*'seed'"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": True}, "seeds"),
        ({"timeout": "10"}, "timeout"),
        ({"threads": 1.5}, "threads"),
        ({"threads": 0}, "threads"),
        ({"notebook": "none.ipynb"}, "notebook"),
    ],
)
def test_a_wrong_sweep_is_refused_before_a_kernel_starts(notebook, described, argument):
    with pytest.raises(ValueError, match=argument):
        sweeps.plan({"notebook": notebook.name} | described, notebook.parent)


def test_a_file_that_is_no_sweep_is_refused(notebook, refused):
    file = notebook.with_name("sweep.yaml")
    command = [str(file), "--out", str(notebook.parent / "out")]
    for text, argument in (
        ("notebook: book.ipynb\nparameters: {rate: 1e-3}", "rate"),  # YAML reads a text
        ("notebook: [", "sweep"),
        ("- 1", "sweep"),
        ("seeds: 1", "notebook"),
    ):
        file.write_text(text)
        assert f"{argument}: expected" in refused(sweeps.main, command)
    assert not (notebook.parent / "out").exists()


@pytest.mark.parametrize(
    "parameters",
    [
        'rate: float = 1.0\nseed = int("3")\nout = ""',
        "a, b = 1, 2",
        "%matplotlib inline",
        "rate: float = 1.0",
        "",
    ],
    ids=["computed", "a pair", "magic", "without out", "empty"],
)
def test_a_notebook_that_cannot_be_swept_is_refused(tmp_path, write_ways, parameters):
    with pytest.raises(ValueError, match="notebook: expected"):
        sweeps.plan({"notebook": write_ways(tmp_path / "book.ipynb", parameters)})


def test_a_notebook_without_parameters_is_refused(tmp_path):
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "book.ipynb")
    with pytest.raises(ValueError, match="notebook: expected"):
        sweeps.plan({"notebook": tmp_path / "book.ipynb"})


def test_a_sweep_is_grid_times_seeds_times_lists(notebook):
    lists = {"epochs": [1, 2, 3], "deep": [True, False, True]}
    rates = np.array([1, 2])
    sweep = sweeps.plan({"notebook": notebook, "grid": {"rate": rates}, "lists": lists, "seeds": 2})
    assert sweep.varied == ("rate", "epochs", "deep", "seed")
    found = list(sweep.runs.values())
    assert len(found) == 2 * 2 * 3
    assert {(run["epochs"], run["deep"]) for run in found} == {(1, True), (2, False), (3, True)}
    assert {(run["rate"], run["seed"]) for run in found} == {(1.0, 0), (1.0, 1), (2.0, 0), (2.0, 1)}
    assert all("out" not in run and run["betas"] == [40.0] for run in found)
    assert {repr(run["whole"]) for run in found} == {"1.0"}


VALUES = {
    "rate": st.integers(-5, 5) | st.floats(-1e3, 1e3),
    "epochs": st.integers(-5, 5),
    "way": st.text("abc", max_size=3),
    "betas": st.lists(st.integers(0, 3), max_size=3),
}


@given(st.fixed_dictionaries(VALUES), st.permutations(list(VALUES)))
def test_ids_depend_on_values_alone(values, order):
    declared = {"rate": 1.0, "epochs": 1, "way": "", "betas": [1.0]}
    other = values | {
        "rate": np.float64(values["rate"]),
        "epochs": np.int64(values["epochs"]),
        "betas": tuple(np.array(values["betas"], float)),
    }
    both = values, {name: other[name] for name in order}
    checked = [{name: sweep_plan.check(name, value, declared) for name, value in one.items()} for one in both]
    assert len({sweep_plan.run_id(parameters, "code") for parameters in checked}) == 1


def test_ids_follow_code_and_parameters_but_not_outputs_and_prose(notebook):
    def ids(rate=1.0):
        return set(sweeps.plan({"notebook": notebook, "parameters": {"rate": rate}}).runs)

    first = ids()
    assert ids(1) == first != ids(2.0)
    book = nbformat.read(notebook, as_version=4)
    book.cells[1].outputs = [nbformat.v4.new_output("stream", text="old")]
    book.cells.append(nbformat.v4.new_markdown_cell("prose"))
    nbformat.write(book, notebook)
    assert ids() == first
    book.cells[1].source += "  # changed"
    nbformat.write(book, notebook)
    assert ids() != first

"""What the tests of sweeps and of notebooks share: notebooks that end in a chosen way."""

import os
import sys
import time

import nbformat
import psutil
import pytest

from consensus_lib.experiments import results

KERNEL = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python"},
}
PARAMETERS = """
way: str = "fine"  # how the run ends
rate: float = 1.0  # a number
whole: float = 1  # a number, written as a whole one
epochs: int = 2  # a count
deep: bool = False  # a switch
betas: list = [40.0]  # numbers
anything = None  # whatever
seed: int = 0  # of everything random
out: str = ""  # folder
"""
ABOUT = {"loss": "ce", "device": "cpu", "notebook": "02", "dataset": "d", "seed": 0}
RESULT = dict.fromkeys(results.RESULT_KEYS, 1) | ABOUT
IMPORTS = """
import os, resource, signal, subprocess, time
from pathlib import Path
from consensus_lib.experiments import results

WRITE = True
print('before')
"""
WRITES = f"""
if WRITE:
    scores = {RESULT} | {{"seed": seed, "epochs": epochs, "mean_iou": rate / 10 + seed}}
    results.write_result(Path(out), **scores, gpu=os.environ.get("CUDA_VISIBLE_DEVICES"))
"""


def _write_cells(path, parameters, *sources):
    cells = [nbformat.v4.new_code_cell(parameters.strip(), metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source.strip()) for source in sources]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), path)
    return path


@pytest.fixture(scope="session")
def result():
    """The values of a result."""
    return RESULT


@pytest.fixture(scope="session")
def write_cells():
    """Return a function that writes a notebook of a cell of parameters and others."""
    return _write_cells


@pytest.fixture(scope="session")
def write_ways():
    """Return a function that writes a notebook whose parameter ``way`` chooses the code that it runs."""

    def write(path, parameters=PARAMETERS, **ways):
        ways = {"fine": "pass"} | ways
        choice = "\n".join(f"if way == {way!r}:\n    {code}" for way, code in ways.items())
        return _write_cells(path, parameters, IMPORTS, choice, WRITES)

    return write


@pytest.fixture(scope="session")
def command():
    """Return a function that makes the command line of a sweep."""
    sweep = [sys.executable, "-m", "consensus_lib", "sweep"]
    return lambda file, out, *more: [*sweep, str(file), "--out", str(out), *more]


@pytest.fixture(scope="session")
def wait_for():
    """Return a function that waits until a condition is true, and returns its value."""

    def wait(condition, seconds=60):
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, "nothing came"
            time.sleep(0.05)
        return found

    return wait


@pytest.fixture
def refused(capsys):
    """Return a function that returns the one line in which a command line refuses its arguments."""

    def line(main, arguments):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        printed = capsys.readouterr()
        assert left.value.code == 2
        assert printed.err.count("\n") == 1, printed.err
        assert not printed.out
        return printed.err

    return line


@pytest.fixture
def processes(tmp_path, monkeypatch):
    """Return a function that lists the processes started from this test, or by what it started."""
    monkeypatch.setenv("MARKER", str(tmp_path))

    def alive():
        found = []
        for process in psutil.process_iter():
            try:
                marked = process.pid != os.getpid() and process.environ().get("MARKER") == str(tmp_path)
                if marked and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    return alive

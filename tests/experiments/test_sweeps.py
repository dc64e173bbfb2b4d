"""Sweeps: what is refused before a kernel starts, how runs fail, and that stopping loses nothing."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus_lib import paths
from consensus_lib.experiments import results, sweep_plan, sweep_run, sweeps
from consensus_lib.experiments.train import keep_masks

PARAMETERS = """
way: str = "fine"  # how the run ends
rate: float = 1.0  # a number
epochs: int = 2  # a count
deep: bool = False  # a switch
betas: list = [40.0]  # numbers
anything = None  # whatever
seed: int = 0  # of everything random
out: str = ""  # folder
"""
WAYS = {
    "fine": "",
    "raises": "raise ValueError('broken on purpose')",
    "sleeps": "import time; time.sleep(600)",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "leaves": "os._exit(0)",
    "kills its run": "os.kill(os.getppid(), signal.SIGKILL); import time; time.sleep(600)",
    "ends early": "import sys; sys.exit(0)",
    "disk full": "raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))",
    "file too large": "limit(os.getpid(), 9); open(out + '/big', 'w').write('x' * 99)",
    "no room for its notebook": "limit(os.getppid(), 999)",
    "writes nothing": "WRITE = False",
    "leaves a child": "subprocess.Popen(['sleep', '600'], start_new_session=True)",
}
STATUS = dict.fromkeys(WAYS, "failed") | {
    "fine": "done",
    "sleeps": "timeout",
    "killed": "died",
    "leaves": "died",
    "kills its run": "died",
    "leaves a child": "done",
}
SCORES = dict.fromkeys(results.RESULT_KEYS, 1) | {"loss": "ce", "device": "cpu"}
IMPORTS = """
import errno, os, resource, signal, subprocess
from pathlib import Path
from consensus_lib.experiments import results

def limit(process, size):
    resource.prlimit(process, resource.RLIMIT_FSIZE, (size, size))

WRITE = True
print('before')
"""
WRITES = f"""
if WRITE:
    scores = {SCORES} | {{"seed": seed, "epochs": epochs, "mean_iou": rate / 10 + seed}}
    results.write_result(Path(out), **scores, gpu=os.environ.get("CUDA_VISIBLE_DEVICES"))
"""


KERNEL = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python"},
}


def write_notebook(path, parameters=PARAMETERS, **more):
    """Write a notebook whose parameter ``way`` chooses how it ends."""
    choice = "\n".join(f"if way == {way!r}:\n    {code or 'pass'}" for way, code in (WAYS | more).items())
    cells = [nbformat.v4.new_code_cell(parameters.strip(), metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(IMPORTS.strip())]
    cells += [nbformat.v4.new_code_cell(choice), nbformat.v4.new_code_cell(WRITES.strip())]
    book = nbformat.v4.new_notebook(cells=cells, metadata=KERNEL)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)
    return path


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(tmp_path / "book.ipynb")


@pytest.fixture
def described(tmp_path, notebook):
    """Write a sweep to a file; return the file."""

    def write(**more):
        file = tmp_path / "sweep.yaml"
        file.write_text(json.dumps({"notebook": notebook.name} | more))
        return file

    return write


def command(file, out, *more):
    return [sys.executable, "-m", "consensus_lib", "sweep", str(file), "--out", str(out), *more]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.05)
    return found


def alive(marker):
    """Return the processes on whose command line or in whose environment ``marker`` stands."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("MARKER") == str(marker):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


# What is refused, and what is made one form, before a kernel starts


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"grids": {}}, r"sweep: expected keys of .*, got \['grids'\]"),
        ({"parameters": {"rat": 1}}, r"parameter: expected one of \['way', .*'seed'\], got rat"),
        ({"parameters": {"out": "x"}}, "parameter: expected one of .*, got out"),
        ({"parameters": {"rate": "1e-3"}}, r"rate: expected float, got the text '1e-3'; .*: 1.0e-03$"),
        ({"parameters": {"rate": "1.5"}}, r"rate: expected float, got the text '1.5'; .*: 1.5$"),
        ({"parameters": {"epochs": "3"}}, "epochs: expected int, got the text '3'"),
        (
            {"parameters": {"anything": "2E5"}},
            r"anything: expected a number, got the text '2E5'.*: 2.0e\+05$",
        ),
        ({"parameters": {"betas": ["1e-3"]}}, r"betas\[0\]: expected float, got the text '1e-3'"),
        ({"parameters": {"rate": True}}, r"rate: expected float, got True \(bool\)"),
        ({"parameters": {"epochs": True}}, r"epochs: expected int, got True \(bool\)"),
        ({"parameters": {"epochs": 2.0}}, r"epochs: expected int, got 2.0 \(float\)"),
        ({"parameters": {"deep": 1}}, r"deep: expected bool, got 1 \(int\)"),
        ({"parameters": {"rate": math.nan}}, "rate: expected a finite number, got nan"),
        ({"parameters": {"anything": math.inf}}, "anything: expected a finite number, got inf"),
        ({"parameters": {"betas": [np.float32("nan")]}}, r"betas\[0\]: expected a finite number, got nan"),
        ({"parameters": {"anything": {"a": 1}}}, "anything: expected one of int, .*, got {'a': 1}"),
        ({"parameters": {"rate": None}}, "rate: expected float, got None"),
        ({"grid": {"rate": 1.0}}, "grid: expected a list of values for rate, got 1.0"),
        ({"grid": {"rate": []}}, r"grid: expected a list of values for rate, got \[\]"),
        ({"grid": {"rate": [1, 1.0]}}, r"sweep: expected each run once, got {'rate': 1.0} twice"),
        ({"lists": {"rate": [1, 2], "epochs": [1]}}, "lists: expected the same length, got {'rate': 2"),
        ({"grid": {"rate": [1]}, "lists": {"rate": [2]}}, r"each parameter in one place, got \['rate'\]"),
        ({"parameters": {"seed": 1}, "seeds": 2}, r"each parameter in one place, got \['seed'\]"),
        ({"seeds": 0}, "seeds: expected a list of values for seed, got 0"),
        ({"seeds": True}, "seeds: expected a list of values for seed, got True"),
        ({"timeout": "10"}, "timeout: expected a number of at least 1, got '10'"),
        ({"threads": 1.5}, "threads: expected a number of at least 1, got 1.5"),
        ({"threads": 0}, "threads: expected a number of at least 1, got 0"),
        ({"notebook": "none.ipynb"}, "notebook: expected a notebook of version 4 in .*none.ipynb"),
        ({"parameters": [1]}, r"parameters: expected a mapping, got \[1\]"),
        ({"lists": [1]}, r"lists: expected a mapping, got \[1\]"),
    ],
)
def test_a_wrong_sweep_is_refused_before_a_kernel_starts(notebook, described, message):
    with pytest.raises(ValueError, match=message):
        sweeps.plan({"notebook": notebook.name} | described, notebook.parent)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("notebook: book.ipynb\nparameters: {rate: 1e-3}", "the text '1e-3'.*1.0e-03"),
        ("notebook: [", "sweep: expected a YAML file, got"),
        ("- 1", r"sweep: expected a mapping of \['notebook', .*, got \[1\]"),
        ("seeds: 1", "notebook: expected a path, got None"),
    ],
)
def test_a_file_that_is_no_sweep_is_refused(notebook, text, message, capsys):
    file = notebook.with_name("sweep.yaml")
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        sweeps.read_sweep(file)
    with pytest.raises(SystemExit) as left:
        sweeps.main([str(file), "--out", str(notebook.parent / "out")])
    assert left.value.code == 2
    assert not (notebook.parent / "out").exists()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ('rate: float = 1.0\nseed = int("3")\nout = ""', r"name = literal in .*, got seed = int\('3'\)"),
        ("%matplotlib inline", r"expected Python in the parameters of .*, got invalid syntax"),
        ("rate: float = 1.0", r"expected a parameter out in book.ipynb, got \['rate'\]"),
    ],
)
def test_a_notebook_that_cannot_be_swept_is_refused(tmp_path, parameters, message):
    book = write_notebook(tmp_path / "book.ipynb", parameters)
    with pytest.raises(ValueError, match=message):
        sweeps.plan({"notebook": book})


def test_a_notebook_without_parameters_is_refused(tmp_path):
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "book.ipynb")
    with pytest.raises(ValueError, match=r"expected one cell tagged parameters in .*, got 0"):
        sweeps.plan({"notebook": tmp_path / "book.ipynb"})


def test_a_sweep_is_grid_times_seeds_times_lists(notebook):
    sweep = sweeps.plan(
        {
            "notebook": notebook,
            "parameters": {"way": "fine"},
            "grid": {"rate": np.array([1, 2])},
            "lists": {"epochs": [1, 2, 3], "deep": [True, False, True]},
            "seeds": 2,
        }
    )
    assert sweep.varied == ("rate", "epochs", "deep", "seed")
    runs_ = list(sweep.runs.values())
    assert len(runs_) == 2 * 2 * 3
    assert {(run["epochs"], run["deep"]) for run in runs_} == {(1, True), (2, False), (3, True)}
    assert {(run["rate"], run["seed"]) for run in runs_} == {(1.0, 0), (1.0, 1), (2.0, 0), (2.0, 1)}
    assert all("out" not in run and run["betas"] == [40.0] for run in runs_)


VALUES = st.fixed_dictionaries(
    {
        "rate": st.integers(-5, 5) | st.floats(-1e3, 1e3),
        "epochs": st.integers(-5, 5),
        "way": st.text("abc", max_size=3),
        "betas": st.lists(st.integers(0, 3), max_size=3),
    }
)


@given(VALUES, st.randoms())
def test_ids_depend_on_values_alone(values, random):
    declared = {"rate": ("float", 1.0), "epochs": ("int", 1), "way": ("str", ""), "betas": ("list", [1.0])}
    other = {
        "rate": np.float64(values["rate"]),
        "epochs": np.int64(values["epochs"]),
        "way": Path(values["way"]) if values["way"] else "",
        "betas": tuple(np.array(values["betas"], float)),
    }
    order = list(other)
    random.shuffle(order)
    other = {name: other[name] for name in order}
    ids = {
        sweep_plan.run_id(
            {name: sweep_plan.check(name, value, declared) for name, value in given.items()}, "code"
        )
        for given in (values, other)
    }
    assert len(ids) == 1


def test_ids_follow_code_and_parameters_but_not_outputs_and_prose(notebook):
    def ids(rate=1.0):
        return set(sweeps.plan({"notebook": notebook, "parameters": {"rate": rate}}).runs)

    first = ids()
    book = nbformat.read(notebook, as_version=4)
    book.cells[1].outputs = [nbformat.v4.new_output("stream", text="old")]
    book.cells.append(nbformat.v4.new_markdown_cell("prose"))
    nbformat.write(book, notebook)
    assert ids() == ids(1) == first
    assert ids(2.0) != first
    book.cells[1].source += "  # changed"
    nbformat.write(book, notebook)
    assert ids() != first


def test_a_dry_run_starts_nothing_and_estimates(described, tmp_path, capsys):
    file = described(grid={"rate": [1, 2]}, seeds=3, seconds=20)
    assert sweeps.main([str(file), "--out", str(tmp_path / "out"), "--workers", "2", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.count("missing") == 6
    assert "rate=2.0  seed=1" in said
    assert "6 runs" in said
    assert "1.0 min" in said  # three rounds of 20 s
    assert not (tmp_path / "out").exists()


# How runs end


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A sweep with a run for each way of failing, in one folder, run once."""
    folder = tmp_path_factory.mktemp("zo{o}")
    book = write_notebook(folder / "book.ipynb")
    file = folder / "sweep.yaml"
    file.write_text(json.dumps({"notebook": book.name, "grid": {"way": list(WAYS)}, "timeout": 20}))
    done = subprocess.run(
        command(file, folder / "out", "--workers", "3"),
        capture_output=True,
        text=True,
        env=os.environ | {"MARKER": str(folder)},
    )
    return file, folder / "out", done


def test_every_way_of_failing_gets_its_status_and_the_others_go_on(zoo):
    file, out, done = zoo
    table = sweeps.gather(sweeps.read_sweep(file), out)
    assert dict(zip(table.way, table.status, strict=True)) == STATUS, done.stdout + done.stderr
    errors = table.set_index("way").error
    assert errors["raises"] == "ValueError: broken on purpose"
    assert errors["sleeps"] == "not done after 20 s"
    assert errors["killed"] == errors["leaves"] == "its kernel died"
    assert errors["kills its run"] == "killed by SIGKILL"
    assert "SystemExit" in errors["ends early"]
    assert "No space left" in errors["disk full"]
    assert "File too large" in errors["file too large"]
    assert "File too large" in errors["no room for its notebook"]
    assert "expected one for each training, got none" in errors["writes nothing"]
    assert errors[["fine", "leaves a child"]].isna().all()


def test_a_failure_is_told_and_keeps_its_notebook(zoo):
    file, out, done = zoo
    assert done.returncode == 1
    assert "failed: way=raises: ValueError: broken on purpose" in done.stdout
    assert "time left" in done.stdout
    for number, run in sweeps.read_sweep(file).runs.items():
        assert (out / number / "result.json").is_file() == (STATUS[run["way"]] == "done")
        if run["way"] != "no room for its notebook":
            kept = nbformat.read(out / number / "work/book.ipynb", as_version=4)
            assert "before" in str(kept.cells), run["way"]


def test_no_run_leaves_a_process(zoo):
    assert not alive(zoo[1].parent)


def test_missing_runs_are_rows_and_counted_beside_every_mean(zoo):
    _, out, _ = zoo
    table = pd.read_csv(out / "table.csv")
    assert len(table) == len(WAYS)
    assert table.mean_iou.notna().sum() == 2
    assert {"rate", "seed", "seconds", "run_seconds", "device", "folder"} <= set(table)
    found = results.summarise(table, by=["rate", "deep"], of=["mean_iou", "holes"])
    assert found.score.tolist() == ["mean_iou", "holes"]
    assert found["mean"].tolist() == [pytest.approx(0.1), 1]
    assert found.n.tolist() == [2, 2]
    assert found.missing.tolist() == [len(WAYS) - 2] * 2
    each = results.summarise(table, by=["way"], of=["mean_iou"]).set_index("way")
    assert math.isnan(each["mean"]["raises"])
    assert math.isnan(each["std"]["fine"])


def test_results_of_a_sweep_are_not_counted_twice(zoo):
    assert len(results.read_results(zoo[1])) == 2


# Stopping, going on, sharing


def test_a_killed_sweep_leaves_no_process_and_runs_what_is_missing(described, tmp_path):
    slow = write_notebook(tmp_path / "book.ipynb", slow="import time; time.sleep(1.5 * (seed > 0))")
    file = described(parameters={"way": "slow"}, seeds=3)
    out, marker = tmp_path / "out", {"MARKER": str(tmp_path)}
    driver = subprocess.Popen(
        command(file, out, "--workers", "2"), stdout=subprocess.DEVNULL, env=os.environ | marker
    )
    first = wait_for(lambda: list(out.glob("*/result.json")))
    wait_for(lambda: len(alive(tmp_path)) > 3)
    os.kill(driver.pid, signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    wait_for(lambda: not alive(tmp_path), 10)
    stamps = {file: file.stat().st_mtime_ns for file in first}
    done = subprocess.run(command(file, out, "--workers", "2"), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {file: file.stat().st_mtime_ns for file in first} == stamps
    table = pd.read_csv(out / "table.csv")
    assert table.status.eq("done").all()
    assert sorted(table.seed) == [0, 1, 2]
    assert slow.is_file()


TRAINS = """
from consensus_lib.experiments import notebook
from consensus_lib.data import open_splits
from consensus_lib.losses import pixelwise_loss

lesson = notebook.begin("book", out=out, device="cpu")
data = open_splits("lfw_part_labels", "parts", size=32, images=0)
setting = {"precision": precision, "epochs": 2, "width": 0.0625, "batch_size": 4, "live": False}
lesson.train("ce", data, pixelwise_loss, seed=0, **setting)
"""


def test_a_run_begun_in_the_other_precision_goes_on(tmp_path, write_tiny, monkeypatch):
    """As on a machine of another kind, whose automatic choice is the other one."""
    write_tiny(paths.data_dir() / "lfw_part_labels-128")
    cells = [
        nbformat.v4.new_code_cell(
            'precision: str = "auto"\nout: str = ""', metadata={"tags": ["parameters"]}
        ),
        nbformat.v4.new_code_cell(TRAINS),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), tmp_path / "book.ipynb")
    sweep = sweeps.plan({"notebook": tmp_path / "book.ipynb"})
    (number,) = sweep.runs
    work, kept = tmp_path / "out" / number / "work", keep_masks

    def stop(*arguments):
        kept(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("consensus_lib.experiments.train.keep_masks", stop)
        with pytest.raises(KeyboardInterrupt):
            exec(TRAINS, {"precision": "auto", "out": str(work)})
    (record,) = work.glob("*/checkpoint.json")
    state = json.loads(record.read_text())
    assert state["epoch"] == 1
    other = {"float32": "bfloat16", "bfloat16": "float32"}[state["settings"]["precision"]]
    state["settings"]["precision"] = other
    record.write_text(json.dumps(state))

    found = sweeps.run_sweep(sweep, tmp_path / "out")
    assert found[number]["status"] == "done", found
    table = sweeps.gather(sweep, tmp_path / "out")
    assert table[["precision", "result_precision"]].values.tolist() == [["auto", other]]
    history = record.with_name("history.jsonl").read_text().splitlines()
    assert [json.loads(line)["precision"] for line in history][1:] == [other]


def test_the_notebook_that_sweeps_run_takes_a_precision():
    notebook = Path(__file__).parents[2] / "notebooks/studies/train.ipynb"
    sweep = sweeps.plan({"notebook": notebook, "grid": {"precision": ["auto", "float32"]}})
    assert [run["precision"] for run in sweep.runs.values()] == ["auto", "float32"]


@pytest.mark.parametrize("arguments", [["--workers", "0"], ["--retries", "-1"], ["--out", "book.ipynb/x"]])
def test_wrong_values_on_the_command_line_are_named_in_one_line(described, monkeypatch, capsys, arguments):
    file = described(seeds=1)
    monkeypatch.chdir(file.parent)
    with pytest.raises(SystemExit) as left:
        sweeps.main([str(file), "--out", "out", *arguments])
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert f"argument {arguments[0]}: expected" in said
    assert said.count("\n") == 1
    assert not (file.parent / "out").exists()


def test_interrupting_ends_kernels_and_a_second_driver_runs_nothing_twice(described, tmp_path):
    write_notebook(
        tmp_path / "book.ipynb",
        counts="open(Path(out).parent / 'began', 'a').write('x'); import time; time.sleep(1)",
    )
    file = described(parameters={"way": "counts"}, seeds=4)
    out, environment = tmp_path / "out", os.environ | {"MARKER": str(tmp_path)}
    driver = subprocess.Popen(
        command(file, tmp_path / "stopped"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    wait_for(lambda: list((tmp_path / "stopped").glob("*/began")))
    driver.send_signal(signal.SIGINT)
    assert "the same command goes on" in driver.communicate()[1].decode()
    assert driver.returncode == 130
    assert not alive(tmp_path)
    assert len(list((tmp_path / "stopped").glob("*/began"))) == 1
    drivers = [subprocess.Popen(command(file, out), stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [driver.wait() for driver in drivers] == [0, 0]
    began = [file.read_text() for file in out.glob("*/began")]
    assert began == ["x"] * 4


def test_a_changed_notebook_makes_results_stale_and_never_mixes_them(described, tmp_path, capsys):
    file, out = described(seeds=1), tmp_path / "out"
    assert sweeps.main([str(file), "--out", str(out)]) == 0
    (before,) = sweeps.read_sweep(file).runs
    write_notebook(tmp_path / "book.ipynb", other="pass")
    sweep = sweeps.read_sweep(file)
    assert sweeps.stale(sweep, out) == [before]
    table = sweeps.gather(sweep, out)
    assert table.status.tolist() == ["missing", "stale"]
    assert "mean_iou" not in table
    assert sweeps.main([str(file), "--out", str(out)]) == 0
    assert "1 stale" in capsys.readouterr().out
    table = sweeps.gather(sweep, out)
    assert table.status.tolist() == ["done", "stale"]
    assert table.mean_iou.isna().tolist() == [False, True]
    assert results.summarise(table, ["rate"], ["mean_iou"]).n.tolist() == [1]
    other = write_notebook(tmp_path / "book.ipynb", third="pass")
    found = sweeps.run_sweep(sweep, tmp_path / "late")  # planned before the change
    assert [state["status"] for state in found.values()] == ["failed"]
    assert "notebook: expected code" in next(iter(found.values()))["error"]
    assert other.is_file()


def test_a_changed_library_keeps_results_names_them_and_runs_them_again_if_told(described, tmp_path, capsys):
    file, out = described(seeds=2), tmp_path / "out"
    assert sweeps.main([str(file), "--out", str(out)]) == 0
    table = sweeps.gather(sweeps.read_sweep(file), out)
    assert table[["version", "commit", "source"]].drop_duplicates().to_dict("records") == [
        results.provenance()
    ]
    assert "sources of the library" not in capsys.readouterr().out
    old, kept = table.id
    for name in ("run.json", "result.json"):  # as if another library had made it
        known = json.loads((out / old / name).read_text())
        paths.write_json(out / old / name, known | {"provenance": known["provenance"] | {"source": "old"}})
    (out / old / "work/checkpoint.json").touch()
    stamp = (out / kept / "result.json").stat().st_mtime_ns
    assert sweeps.main([str(file), "--out", str(out)]) == 0
    assert "2 sources of the library" in capsys.readouterr().out
    assert pd.read_csv(out / "table.csv").status.tolist() == ["done"] * 2
    assert sweeps.main([str(file), "--out", str(out), "--rerun-outdated", "--dry-run"]) == 0
    assert f"{old}  outdated" in capsys.readouterr().out
    assert sweeps.main([str(file), "--out", str(out), "--rerun-outdated"]) == 0
    assert pd.read_csv(out / "table.csv").source.tolist() == [results.library_hash()] * 2
    assert (out / kept / "result.json").stat().st_mtime_ns == stamp
    assert not (out / old / "work/checkpoint.json").exists()


def test_a_run_that_another_library_began_names_both(described, tmp_path):
    sweep, out = sweeps.read_sweep(described()), tmp_path / "out"
    (number,) = sweep.runs
    paths.write_json(out / number / "run.json", {"provenance": {"source": "old"}})
    paths.write_json(out / number / "work/checkpoint.json", {})
    sweeps.run_sweep(sweep, out)
    assert sweeps.gather(sweep, out).source.tolist() == [f"old+{results.library_hash()}"]


def test_a_run_that_died_is_tried_again(described, tmp_path):
    write_notebook(
        tmp_path / "book.ipynb",
        once="f = Path(out).parent / 'began'; n = f.exists(); f.touch(); n or os.kill(os.getpid(), 9)",
    )
    sweep = sweeps.read_sweep(described(parameters={"way": "once"}))
    seen = []
    found = sweeps.run_sweep(sweep, tmp_path / "out", retries=1, on_change=seen.append)
    assert [state["status"] for state in found.values()] == ["done"]
    assert (seen[0].done, seen[0].running, seen[-1].done, seen[-1].seconds_left) == (0, 1, 1, 0)


def test_each_worker_has_a_gpu_of_its_own(described, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    sweep = sweeps.read_sweep(described(seeds=2))
    sweeps.run_sweep(sweep, tmp_path / "out", workers=2)
    assert sorted(sweeps.gather(sweep, tmp_path / "out").gpu.astype(str)) == ["4", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sweep_run.visible_gpus() == []
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: A\nGPU 1: B'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert sweep_run.visible_gpus() == ["0", "1"]


def test_a_sweep_needs_a_worker(notebook):
    with pytest.raises(ValueError, match="workers: expected at least 1, got 0"):
        sweeps.run_sweep(sweeps.plan({"notebook": notebook}), notebook.parent, workers=0)


def test_a_run_that_no_worker_could_begin_is_a_row_too(notebook, tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("no room")

    monkeypatch.setattr(sweep_run, "attempt", broken)
    sweep = sweeps.plan({"notebook": notebook, "seeds": 2})
    sweeps.run_sweep(sweep, tmp_path / "out")
    table = sweeps.gather(sweep, tmp_path / "out")
    assert table.status.tolist() == ["died", "died"]
    assert table.error.tolist() == ["OSError: no room"] * 2

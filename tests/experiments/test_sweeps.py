"""Sweeps: how runs fail, that stopping loses nothing, and that each engine gives the same results."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import types

import nbformat
import pandas as pd
import psutil
import pytest

from consensus_lib import paths
from consensus_lib.experiments import results, sweeps

FAILS = {  # way → what a run does, its status, and what its error names
    "raises": ("raise ValueError('broken on purpose')", "failed", "ValueError: broken on purpose"),
    "leaves": ("os._exit(0)", "died", "kernel"),
    "kills its run": ("os.kill(os.getppid(), signal.SIGKILL); time.sleep(600)", "died", "SIGKILL"),
    "ends early": ("import sys; sys.exit(0)", "failed", "SystemExit"),
    "no room": ("resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (999, 999))", "failed", "too large"),
    "writes nothing": ("WRITE = False", "failed", "result.json"),
}
WAYS = {way: code for way, (code, _, _) in FAILS.items()}
WAYS |= {
    "slow": "time.sleep(1); assert 'MALLOC_TRIM_THRESHOLD_' not in os.environ",
    "once": "f = Path(out).parent / 'began'; n = f.exists(); f.touch(); n or os.kill(os.getpid(), 9)",
    "sleeps": "time.sleep(600)",
    "waits": """
    open(Path(out).parent / 'began', 'a').write('x')
    while seed and not (Path(out).parents[1] / 'go').exists():
        time.sleep(0.05)""",
}
MIXED = {"way": ["slow", "slow", "slow", "raises", "once"], "seed": [0, 1, 2, 0, 0]}


def describe(folder, **more):
    """Write the description of a sweep of ``book.ipynb``, and return its file."""
    file = folder / "sweep.yaml"
    file.write_text(json.dumps({"notebook": "book.ipynb"} | more))
    return file


@pytest.fixture
def described(tmp_path, write_ways):
    """Return a function that describes a sweep of a notebook with all ways."""
    write_ways(tmp_path / "book.ipynb", **WAYS)
    return lambda **more: describe(tmp_path, **more)


@pytest.fixture(scope="module")
def swept(tmp_path_factory, write_ways):
    """A sweep on this machine by two workers, of runs that succeed, fail, and die once."""
    folder = tmp_path_factory.mktemp("swept")
    write_ways(folder / "book.ipynb", **WAYS)
    sweep = sweeps.read_sweep(describe(folder, lists=MIXED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
        states = sweeps.run_sweep(sweep, folder / "out", workers=2, retries=1, progress=False)
    table = sweeps.gather(sweep, folder / "out")
    return types.SimpleNamespace(folder=folder, sweep=sweep, states=states, table=table)


@pytest.fixture
def done(swept, tmp_path):
    """A copy of what of it is done: its file of two runs, and its folder."""
    shutil.copytree(swept.folder, tmp_path, dirs_exist_ok=True)
    lists = {name: values[:2] for name, values in MIXED.items()}
    return describe(tmp_path, lists=lists), tmp_path / "out"


def test_a_dry_run_starts_nothing(described, tmp_path, capsys):
    file = described(grid={"rate": [1, 2]}, seeds=3)
    assert sweeps.main([str(file), "--out", str(tmp_path / "out"), "--workers", "2", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("missing") == 6
    assert "rate=2.0  seed=1" in printed
    assert not (tmp_path / "out").exists()


def test_wrong_values_on_the_command_line_are_named_in_one_line(described, monkeypatch, refused, tmp_path):
    file = described(seeds=1)
    monkeypatch.chdir(tmp_path)
    for option, value in (("--workers", "0"), ("--retries", "-1"), ("--out", "book.ipynb/x")):
        line = refused(sweeps.main, [str(file), "--out", "out", option, value])
        assert f"argument {option}: expected" in line
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="workers: expected"):
        sweeps.run_sweep(sweeps.read_sweep(file), tmp_path, workers=0)


@pytest.mark.slow
def test_every_way_of_failing_gets_its_status_and_the_others_go_on(
    tmp_path, write_ways, command, processes, wait_for
):
    folder = tmp_path / "bra{ce"
    write_ways(folder / "book.ipynb", **WAYS)
    file, out = describe(folder, grid={"way": ["fine", *FAILS]}), folder / "out"
    ended = subprocess.run(command(file, out, "--workers", "2"), capture_output=True, text=True)
    assert ended.returncode == 1
    assert "failed: way=raises: ValueError: broken on purpose" in ended.stdout
    wait_for(lambda: not processes(), 10)

    sweep = sweeps.read_sweep(file)
    table = sweeps.gather(sweep, out).set_index("way")
    expected = {"fine": "done"} | {way: status for way, (_, status, _) in FAILS.items()}
    assert table.status.to_dict() == expected, ended.stderr
    for number, run in sweep.runs.items():
        way = run["way"]
        assert (out / number / "result.json").is_file() == (way == "fine")
        assert way == "fine" or FAILS[way][2] in table.error[way]
        if way != "no room":  # for its notebook
            assert "before" in str(nbformat.read(out / number / "work/book.ipynb", as_version=4).cells), way

    # Runs without a result are rows, and counted beside every mean.
    stored = pd.read_csv(out / "table.csv")
    assert len(stored) == 1 + len(FAILS)
    assert {"rate", "seed", "seconds", "run_seconds", "device", "folder"} <= set(stored)
    found = results.summarise(stored, by=["rate", "deep"], of=["mean_iou", "holes"])
    assert found.score.tolist() == ["mean_iou", "holes"]
    assert found["mean"].tolist() == [pytest.approx(0.1), 1]
    assert (found.n.tolist(), found.missing.tolist()) == ([1, 1], [len(FAILS)] * 2)
    each = results.summarise(stored, by=["way"], of=["mean_iou"]).set_index("way")
    assert math.isnan(each["mean"]["raises"])
    assert math.isnan(each["std"]["fine"])
    assert len(results.read_results(out)) == 1  # that of the run is not counted beside its training's


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_ended(described, tmp_path, processes, wait_for):
    sweep = sweeps.read_sweep(described(parameters={"way": "sleeps"}, timeout=3))
    (state,) = sweeps.run_sweep(sweep, tmp_path / "out", progress=False).values()
    assert (state["status"], "3 s" in state["error"]) == ("timeout", True)
    wait_for(lambda: not processes(), 10)


@pytest.mark.slow
def test_a_sweep_interrupted_and_killed_loses_nothing_repeats_nothing_and_leaves_no_kernel(
    described, tmp_path, command, processes, wait_for
):
    file, out = described(parameters={"way": "waits"}, seeds=3), tmp_path / "out"
    numbers = list(sweeps.read_sweep(file).runs)  # of the seeds 0, which ends, and 1 and 2, which wait

    def began():
        files = [out / number / "began" for number in numbers]
        return [len(file.read_text()) if file.exists() else 0 for file in files]

    def start():
        return subprocess.Popen(command(file, out, "--workers", "2"), stderr=subprocess.PIPE)

    driver = start()
    wait_for(lambda: (out / numbers[0] / "result.json").exists() and began()[1])
    driver.send_signal(signal.SIGINT)
    assert "the same command resumes" in driver.communicate()[1].decode()
    assert driver.returncode == 130
    wait_for(lambda: not processes(), 10)
    before = began()
    driver = start()
    wait_for(lambda: began()[1] > before[1] and began()[2] > before[2])
    driver.kill()
    driver.communicate()
    assert driver.returncode == -signal.SIGKILL
    wait_for(lambda: not processes(), 10)

    before = began()
    (out / "go").touch()
    both = [start(), start()]  # two drivers share the folder
    assert [driver.communicate() and driver.returncode for driver in both] == [0, 0]
    assert [now - then for now, then in zip(began(), before, strict=True)] == [0, 1, 1]
    table = pd.read_csv(out / "table.csv")
    assert table.status.eq("done").all()
    assert sorted(table.seed) == [0, 1, 2]


TRAINS = """
from consensus_lib.experiments.train import Config, run

small = {"data": "lfw_part_labels", "size": 32, "images": 0, "width": 0.0625, "batch_size": 4, "epochs": 2}
config = Config(loss="cross-entropy", precision=precision, **small)
run(config, out=out, device="cpu", progress=False, on_epoch=stop)
"""


@pytest.mark.slow
def test_a_run_whose_training_began_is_resumed(tmp_path, write_tiny, write_cells):
    """Also where the machine that began it computed in the other precision."""
    write_tiny(paths.data_dir() / "lfw_part_labels-128")
    write_cells(tmp_path / "book.ipynb", 'precision: str = "auto"\nout: str = ""', "stop = None", TRAINS)
    sweep = sweeps.plan({"notebook": tmp_path / "book.ipynb"})
    (number,) = sweep.runs
    record = tmp_path / "out" / number / "work/checkpoint.json"
    # Compiled before: Python ends with SIGINT's exit code if text that it executed raised KeyboardInterrupt.
    code = compile(TRAINS, "trains", "exec")

    def stop(history):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exec(code, {"precision": "auto", "out": str(record.parent), "stop": stop})
    state = json.loads(record.read_text())
    assert state["epoch"] == 1
    other = {"float32": "bfloat16", "bfloat16": "float32"}[state["settings"]["precision"]]
    state["settings"]["precision"] = other
    record.write_text(json.dumps(state))

    assert sweeps.run_sweep(sweep, tmp_path / "out", progress=False)[number]["status"] == "done"
    table = sweeps.gather(sweep, tmp_path / "out")
    assert table[["precision", "result_precision"]].values.tolist() == [["auto", other]]
    history = record.with_name("history.jsonl").read_text().splitlines()
    assert [json.loads(line)["precision"] for line in history][1:] == [other]


@pytest.mark.slow
def test_a_changed_notebook_makes_results_stale_and_never_mixes_them(done, tmp_path, capsys, write_ways):
    _, out = done
    before = sweeps.read_sweep(describe(tmp_path, parameters={"way": "slow"}, seeds=1))
    write_ways(tmp_path / "book.ipynb", slow="pass")
    sweep = sweeps.read_sweep(file := describe(tmp_path, seeds=1))
    table = sweeps.gather(sweep, out)
    assert table.status.value_counts().to_dict() == {"stale": 4, "missing": 1}
    assert set(before.runs) < set(table.id)
    assert "mean_iou" not in table
    assert sweeps.main([str(file), "--out", str(out)]) == 0
    assert "4 stale" in capsys.readouterr().out
    table = sweeps.gather(sweep, out)
    assert table.mean_iou.notna().tolist() == table.status.eq("done").tolist() == [True] + [False] * 4
    assert results.summarise(table, ["rate"], ["mean_iou"]).n.tolist() == [1]
    (state,) = sweeps.run_sweep(before, tmp_path / "late", progress=False).values()  # planned before
    assert state["status"] == "failed"
    assert "notebook: expected code" in state["error"]


@pytest.mark.slow
def test_a_changed_library_keeps_results_names_them_and_runs_them_again_if_told(done, capsys):
    file, out = done
    line = [str(file), "--out", str(out)]
    assert sweeps.main(line) == 0  # both are done
    table = sweeps.gather(sweeps.read_sweep(file), out)
    made = table[["version", "commit", "source"]].drop_duplicates().to_dict("records")
    assert made == [results.provenance()]
    assert "sources of the library" not in capsys.readouterr().out
    old, kept = table.id
    for name in ("run.json", "result.json"):  # as if another library had made it
        known = json.loads((out / old / name).read_text())
        paths.write_json(out / old / name, known | {"provenance": known["provenance"] | {"source": "old"}})
    (out / old / "work/checkpoint.json").touch()
    stamp = (out / kept / "result.json").stat().st_mtime_ns
    assert sweeps.main(line) == 0
    assert "2 sources of the library" in capsys.readouterr().out
    assert sweeps.main([*line, "--rerun-outdated", "--dry-run"]) == 0
    assert f"{old}  outdated" in capsys.readouterr().out
    assert sweeps.main([*line, "--rerun-outdated"]) == 0
    table = pd.read_csv(out / "table.csv", dtype={"source": str})  # a hash may consist of digits alone
    assert table.source.tolist() == [results.library_hash()] * 2
    assert (out / kept / "result.json").stat().st_mtime_ns == stamp
    assert not (out / old / "work/checkpoint.json").exists()

    (out / old / "result.json").unlink()  # begun by another library, and finished by this one
    paths.write_json(out / old / "run.json", {"provenance": {"source": "old"}})
    assert sweeps.main(line) == 0
    ours = results.library_hash()
    assert set(pd.read_csv(out / "table.csv").source) == {f"old+{ours}", ours}


@pytest.mark.slow
def test_each_worker_has_a_gpu_of_its_own_and_a_run_that_died_is_tried_again(swept):
    assert set(swept.table.gpu.dropna().astype(float)) == {4, 5}
    assert swept.table.set_index("way").status["once"] == "done"


def test_a_run_that_no_worker_could_begin_is_a_row_too(described, tmp_path):
    sweep = sweeps.read_sweep(described(seeds=2))
    (tmp_path / "out").mkdir()
    for number in sweep.runs:
        (tmp_path / "out" / number).touch()  # no folder can be made there
    found = sweeps.run_sweep(sweep, tmp_path / "out", progress=False)
    assert [state["status"] for state in found.values()] == ["died", "died"]
    assert all("FileExistsError" in state["error"] for state in found.values())


@pytest.mark.slow
def test_a_scheduler_gives_what_one_machine_gives_though_a_worker_is_killed(
    swept, tmp_path, command, processes, wait_for
):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address, out = f"tcp://127.0.0.1:{free.getsockname()[1]}", tmp_path / "out"
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}  # as Dask's nannies set it

    def start(program, *options):
        line = [sys.executable, "-m", f"distributed.cli.{program}", *options, "--host", "127.0.0.1"]
        with (tmp_path / "dask.log").open("ab") as log:
            return subprocess.Popen(
                [*line, "--no-dashboard"], stdout=log, stderr=log, cwd=tmp_path, env=environment
            )

    started = [start("dask_scheduler", "--port", address.rpartition(":")[2])]
    try:
        started += [start("dask_worker", address, "--nthreads", "1", "--no-nanny") for _ in range(2)]
        options = ("--scheduler", address, "--retries", "1")
        started.append(subprocess.Popen(command(swept.folder / "sweep.yaml", out, *options)))
        wait_for(lambda: list(out.glob("*/result.json")))
        busy = lambda: [one for one in started[1:3] if psutil.Process(one.pid).children()]  # noqa: E731
        wait_for(busy)[0].kill()
        assert started[-1].wait(timeout=120) == 1  # one of them raises
    finally:
        for process in started:
            process.terminate()
            process.wait()
    wait_for(lambda: not processes(), 10)
    table = sweeps.gather(swept.sweep, out)
    differ = ["run_seconds", "gpu"]
    pd.testing.assert_frame_equal(table.drop(columns=differ), swept.table.drop(columns=differ))
    assert table.status.tolist() == ["done", "done", "done", "failed", "done"]
    assert list(swept.states) == list(swept.sweep.runs)


def test_an_address_without_a_scheduler_is_refused(described, tmp_path):
    import dask

    sweep = sweeps.read_sweep(described())
    with dask.config.set({"distributed.comm.timeouts.connect": 0.5}), pytest.raises(OSError, match=":9"):
        sweeps.run_sweep(sweep, tmp_path, scheduler="tcp://127.0.0.1:9")

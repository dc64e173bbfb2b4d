"""Sweeps: how runs fail, that stopping loses nothing, and that each engine gives the same results."""

import json
import math
import os
import signal
import socket
import subprocess
import sys

import nbformat
import pandas as pd
import psutil
import pytest

from consensus_lib import paths
from consensus_lib.experiments import results, sweep_run, sweeps

WAYS = {
    "fine": "pass",
    "raises": "raise ValueError('broken on purpose')",
    "sleeps": "time.sleep(600)",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "leaves": "os._exit(0)",
    "kills its run": "os.kill(os.getppid(), signal.SIGKILL); time.sleep(600)",
    "ends early": "import sys; sys.exit(0)",
    "disk full": "raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))",
    "no room for its notebook": "resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (999, 999))",
    "writes nothing": "WRITE = False",
}
ENDS = {  # status, and what its error names
    "fine": ("done", None),
    "raises": ("failed", "ValueError: broken on purpose"),
    "sleeps": ("timeout", "20 s"),
    "killed": ("died", "kernel"),
    "leaves": ("died", "kernel"),
    "kills its run": ("died", "SIGKILL"),
    "ends early": ("failed", "SystemExit"),
    "disk full": ("failed", "No space left"),
    "no room for its notebook": ("failed", "File too large"),
    "writes nothing": ("failed", "result.json"),
}


@pytest.fixture
def described(tmp_path, write_ways):
    """Write a notebook with the given ways, and a sweep of it; return the sweep's file."""

    def write(ways=None, **more):
        write_ways(tmp_path / "book.ipynb", **ways or {})
        file = tmp_path / "sweep.yaml"
        file.write_text(json.dumps({"notebook": "book.ipynb"} | more))
        return file

    return write


def test_a_dry_run_starts_nothing(described, tmp_path, capsys):
    file = described(grid={"rate": [1, 2]}, seeds=3)
    assert sweeps.main([str(file), "--out", str(tmp_path / "out"), "--workers", "2", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("missing") == 6
    assert "rate=2.0  seed=1" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["--workers", "0"], ["--retries", "-1"], ["--out", "book.ipynb/x"]])
def test_wrong_values_on_the_command_line_are_named_in_one_line(described, monkeypatch, capsys, arguments):
    file = described(seeds=1)
    monkeypatch.chdir(file.parent)
    with pytest.raises(SystemExit) as left:
        sweeps.main([str(file), "--out", "out", *arguments])
    printed = capsys.readouterr().err
    assert left.value.code == 2
    assert f"argument {arguments[0]}: expected" in printed
    assert printed.count("\n") == 1
    assert not (file.parent / "out").exists()


@pytest.mark.slow
def test_every_way_of_failing_gets_its_status_and_the_others_go_on(
    tmp_path, write_ways, command, processes, wait_for
):
    folder = tmp_path / "bra{ce"
    book = write_ways(folder / "book.ipynb", **WAYS)
    file, out = folder / "sweep.yaml", folder / "out"
    file.write_text(json.dumps({"notebook": book.name, "grid": {"way": list(WAYS)}, "timeout": 20}))
    done = subprocess.run(command(file, out, "--workers", "2"), capture_output=True, text=True)
    assert done.returncode == 1
    assert "failed: way=raises: ValueError: broken on purpose" in done.stdout
    wait_for(lambda: not processes(), 10)

    sweep = sweeps.read_sweep(file)
    table = sweeps.gather(sweep, out).set_index("way")
    assert table.status.to_dict() == {way: status for way, (status, _) in ENDS.items()}, done.stderr
    for number, run in sweep.runs.items():
        way = run["way"]
        assert (out / number / "result.json").is_file() == (ENDS[way][0] == "done")
        if ENDS[way][1]:
            assert ENDS[way][1] in table.error[way]
        if way != "no room for its notebook":
            assert "before" in str(nbformat.read(out / number / "work/book.ipynb", as_version=4).cells), way

    # Runs without a result are rows, and counted beside every mean.
    stored = pd.read_csv(out / "table.csv")
    assert len(stored) == len(WAYS)
    assert {"rate", "seed", "seconds", "run_seconds", "device", "folder"} <= set(stored)
    found = results.summarise(stored, by=["rate", "deep"], of=["mean_iou", "holes"])
    assert found.score.tolist() == ["mean_iou", "holes"]
    assert found["mean"].tolist() == [pytest.approx(0.1), 1]
    assert (found.n.tolist(), found.missing.tolist()) == ([1, 1], [len(WAYS) - 1] * 2)
    each = results.summarise(stored, by=["way"], of=["mean_iou"]).set_index("way")
    assert math.isnan(each["mean"]["raises"])
    assert math.isnan(each["std"]["fine"])
    assert len(results.read_results(out)) == 1  # that of the run is not counted beside its training's


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_process_and_runs_what_is_missing(
    described, tmp_path, command, processes, wait_for
):
    slow = {"slow": "time.sleep(1.5 * (seed > 0))"}
    file, out = described(slow, parameters={"way": "slow"}, seeds=3), tmp_path / "out"
    driver = subprocess.Popen(command(file, out, "--workers", "2"), stderr=subprocess.DEVNULL)
    first = wait_for(lambda: list(out.glob("*/result.json")))
    wait_for(lambda: len(processes()) > 3)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    wait_for(lambda: not processes(), 10)
    stamps = {file: file.stat().st_mtime_ns for file in first}
    done = subprocess.run(command(file, out, "--workers", "2"), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {file: file.stat().st_mtime_ns for file in first} == stamps
    table = pd.read_csv(out / "table.csv")
    assert table.status.eq("done").all()
    assert sorted(table.seed) == [0, 1, 2]


@pytest.mark.slow
def test_an_interrupt_ends_kernels_and_a_second_driver_runs_nothing_twice(
    described, tmp_path, command, processes, wait_for
):
    counts = {"counts": "open(Path(out).parent / 'began', 'a').write('x'); time.sleep(1)"}
    file, out = described(counts, parameters={"way": "counts"}, seeds=4), tmp_path / "out"
    driver = subprocess.Popen(command(file, tmp_path / "stopped"), stderr=subprocess.PIPE)
    wait_for(lambda: list((tmp_path / "stopped").glob("*/began")))
    driver.send_signal(signal.SIGINT)
    assert "the same command resumes" in driver.communicate()[1].decode()
    assert driver.returncode == 130
    wait_for(lambda: not processes(), 10)
    assert len(list((tmp_path / "stopped").glob("*/began"))) == 1
    drivers = [subprocess.Popen(command(file, out), stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [driver.wait() for driver in drivers] == [0, 0]
    assert [file.read_text() for file in out.glob("*/began")] == ["x"] * 4


@pytest.mark.slow
def test_a_run_whose_training_began_is_resumed(tmp_path, write_tiny, write_cells):
    """Also where the machine that began it computed in the other precision."""
    trains = """
from consensus_lib.experiments.train import Config, run

small = {"data": "lfw_part_labels", "size": 32, "images": 0, "width": 0.0625, "batch_size": 4, "epochs": 2}
config = Config(loss="cross-entropy", precision=precision, **small)
run(config, out=out, device="cpu", progress=False, on_epoch=stop)
"""
    write_tiny(paths.data_dir() / "lfw_part_labels-128")
    write_cells(tmp_path / "book.ipynb", 'precision: str = "auto"\nout: str = ""', "stop = None", trains)
    sweep = sweeps.plan({"notebook": tmp_path / "book.ipynb"})
    (number,) = sweep.runs

    def stop(history):
        raise KeyboardInterrupt

    work = tmp_path / "out" / number / "work"
    with pytest.raises(KeyboardInterrupt):
        exec(trains, {"precision": "auto", "out": str(work), "stop": stop})
    record = work / "checkpoint.json"
    state = json.loads(record.read_text())
    assert state["epoch"] == 1
    other = {"float32": "bfloat16", "bfloat16": "float32"}[state["settings"]["precision"]]
    state["settings"]["precision"] = other
    record.write_text(json.dumps(state))

    found = sweeps.run_sweep(sweep, tmp_path / "out", progress=False)
    assert found[number]["status"] == "done", found
    table = sweeps.gather(sweep, tmp_path / "out")
    assert table[["precision", "result_precision"]].values.tolist() == [["auto", other]]
    history = record.with_name("history.jsonl").read_text().splitlines()
    assert [json.loads(line)["precision"] for line in history][1:] == [other]


@pytest.mark.slow
def test_a_changed_notebook_makes_results_stale_and_never_mixes_them(described, tmp_path, capsys):
    file, out = described(seeds=1), tmp_path / "out"
    assert sweeps.main([str(file), "--out", str(out)]) == 0
    (before,) = sweeps.read_sweep(file).runs
    described({"other": "pass"}, seeds=1)
    sweep = sweeps.read_sweep(file)
    table = sweeps.gather(sweep, out)
    assert table.status.tolist() == ["missing", "stale"]
    assert table.id[1] == before
    assert "mean_iou" not in table
    assert sweeps.main([str(file), "--out", str(out)]) == 0
    assert "1 stale" in capsys.readouterr().out
    table = sweeps.gather(sweep, out)
    assert table.status.tolist() == ["done", "stale"]
    assert table.mean_iou.isna().tolist() == [False, True]
    assert results.summarise(table, ["rate"], ["mean_iou"]).n.tolist() == [1]
    described({"third": "pass"}, seeds=1)
    (late,) = sweeps.run_sweep(sweep, tmp_path / "late", progress=False).values()  # planned before the change
    assert late["status"] == "failed"
    assert "notebook: expected code" in late["error"]


@pytest.mark.slow
def test_a_changed_library_keeps_results_names_them_and_runs_them_again_if_told(described, tmp_path, capsys):
    file, out = described(seeds=2), tmp_path / "out"
    assert sweeps.main([str(file), "--out", str(out)]) == 0
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
    assert sweeps.main([str(file), "--out", str(out)]) == 0
    assert "2 sources of the library" in capsys.readouterr().out
    assert sweeps.main([str(file), "--out", str(out), "--rerun-outdated", "--dry-run"]) == 0
    assert f"{old}  outdated" in capsys.readouterr().out
    assert sweeps.main([str(file), "--out", str(out), "--rerun-outdated"]) == 0
    assert pd.read_csv(out / "table.csv").source.tolist() == [results.library_hash()] * 2
    assert (out / kept / "result.json").stat().st_mtime_ns == stamp
    assert not (out / old / "work/checkpoint.json").exists()

    (out / old / "result.json").unlink()  # begun by another library, and finished by this one
    paths.write_json(out / old / "run.json", {"provenance": {"source": "old"}})
    sweeps.run_sweep(sweeps.read_sweep(file), out, progress=False)
    assert sweep_run.made_with(out / old) == f"old+{results.library_hash()}"


@pytest.mark.slow
def test_a_run_that_died_is_tried_again(described, tmp_path):
    once = "f = Path(out).parent / 'began'; n = f.exists(); f.touch(); n or os.kill(os.getpid(), 9)"
    sweep = sweeps.read_sweep(described({"once": once}, parameters={"way": "once"}))
    found = sweeps.run_sweep(sweep, tmp_path / "out", retries=1, progress=False)
    assert [state["status"] for state in found.values()] == ["done"]


@pytest.mark.slow
def test_each_worker_has_a_gpu_of_its_own(described, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    sweep = sweeps.read_sweep(described(seeds=2))
    sweeps.run_sweep(sweep, tmp_path / "out", workers=2, progress=False)
    assert sorted(sweeps.gather(sweep, tmp_path / "out").gpu.astype(str)) == ["4", "5"]


def test_a_sweep_needs_a_worker(described, tmp_path):
    with pytest.raises(ValueError, match="workers: expected"):
        sweeps.run_sweep(sweeps.read_sweep(described()), tmp_path, workers=0)


def test_a_run_that_no_worker_could_begin_is_a_row_too(described, tmp_path):
    sweep = sweeps.read_sweep(described(seeds=2))
    (tmp_path / "out").mkdir()
    for number in sweep.runs:
        (tmp_path / "out" / number).touch()  # no folder can be made there
    found = sweeps.run_sweep(sweep, tmp_path / "out", progress=False)
    assert [state["status"] for state in found.values()] == ["died", "died"]
    assert all("FileExistsError" in state["error"] for state in found.values())


# Workers of a Dask scheduler


@pytest.fixture
def scheduled(described):
    """A sweep of which half of the runs raise."""
    slow = "time.sleep(1); assert 'MALLOC_TRIM_THRESHOLD_' not in os.environ"
    ways = {"slow": slow, "raises": WAYS["raises"]}
    return described(ways, grid={"way": ["slow", "raises"], "rate": [1, 2]}, seeds=2)


@pytest.mark.slow
def test_a_scheduler_gives_what_one_machine_gives(scheduled, tmp_path, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr(os, "environ", os.environ.copy())  # nannies set variables in this process
    sweep, tables = sweeps.read_sweep(scheduled), []
    sweeps.run_sweep(sweep, tmp_path / "local", workers=2, progress=False)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        found = sweeps.run_sweep(
            sweep, tmp_path / "dask", scheduler=cluster.scheduler_address, progress=False
        )
    assert list(found) == list(sweep.runs)
    for engine in ("local", "dask"):
        tables.append(sweeps.gather(sweep, tmp_path / engine).drop(columns="run_seconds"))
    pd.testing.assert_frame_equal(*tables)
    assert tables[0].status.value_counts().to_dict() == {"done": 4, "failed": 4}


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_loses_nothing(scheduled, tmp_path, command, processes, wait_for):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address, out = f"tcp://127.0.0.1:{free.getsockname()[1]}", tmp_path / "out"

    def start(program, *options):
        line = [sys.executable, "-m", f"distributed.cli.{program}", *options, "--host", "127.0.0.1"]
        with (tmp_path / "dask.log").open("ab") as log:
            return subprocess.Popen([*line, "--no-dashboard"], stdout=log, stderr=log, cwd=tmp_path)

    started = [start("dask_scheduler", "--port", address.rpartition(":")[2])]
    try:
        started += [start("dask_worker", address, "--nthreads", "1", "--no-nanny") for _ in range(2)]
        started.append(subprocess.Popen(command(scheduled, out, "--scheduler", address)))
        wait_for(lambda: list(out.glob("*/result.json")))
        busy = lambda: [one for one in started[1:3] if psutil.Process(one.pid).children()]  # noqa: E731
        wait_for(busy)[0].kill()
        assert started[-1].wait(timeout=120) == 1  # half of them raise
        table = sweeps.gather(sweeps.read_sweep(scheduled), out)
        assert table.status.value_counts().to_dict() == {"done": 4, "failed": 4}
    finally:
        for process in started:
            process.terminate()
            process.wait()
    wait_for(lambda: not processes(), 10)


def test_an_address_without_a_scheduler_is_refused(described, tmp_path):
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": 0.5}),
        pytest.raises(OSError, match=r"127\.0\.0\.1:9"),
    ):
        sweeps.run_sweep(sweeps.read_sweep(described()), tmp_path, scheduler="tcp://127.0.0.1:9")

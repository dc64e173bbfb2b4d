"""Sweeps on a Dask scheduler: the same results as on one machine, also when a worker dies in the middle."""

import os
import signal
import socket
import subprocess
import sys
import time
from unittest import mock

import pandas as pd
import psutil
import pytest
from test_sweeps import alive, command, wait_for, write_notebook

from consensus_lib.experiments import sweeps

COSTS = ["run_seconds"]


@pytest.fixture(autouse=True)
def _own_environment():
    """Take back what Dask's nannies set in this process, and in all that it starts."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture
def sweep(tmp_path):
    slow = "import os, time; time.sleep(1); assert 'MALLOC_TRIM_THRESHOLD_' not in os.environ"
    write_notebook(tmp_path / "book.ipynb", slow=slow)
    return sweeps.plan(
        {"notebook": tmp_path / "book.ipynb", "grid": {"way": ["slow", "raises"], "rate": [1, 2]}, "seeds": 2}
    )


def table(sweep, out):
    return sweeps.gather(sweep, out).drop(columns=COSTS)


def test_a_scheduler_gives_what_one_machine_gives(sweep, tmp_path):
    from distributed import LocalCluster

    sweeps.run_sweep(sweep, tmp_path / "local", workers=2)
    seen = []
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, resources={"GPU": 1}
    ) as cluster:
        found = sweeps.run_sweep(
            sweep, tmp_path / "dask", scheduler=cluster.scheduler_address, on_change=seen.append
        )
    assert list(found) == list(sweep.runs)
    pd.testing.assert_frame_equal(table(sweep, tmp_path / "dask"), table(sweep, tmp_path / "local"))
    assert table(sweep, tmp_path / "dask").status.value_counts().to_dict() == {"done": 4, "failed": 4}
    assert (seen[0].running, seen[0].waiting, seen[-1].done, seen[-1].failed) == (2, 6, 4, 4)


def test_a_worker_killed_in_the_middle_loses_nothing(sweep, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, out = f"tcp://127.0.0.1:{port}", tmp_path / "out"

    def start(program, *options):
        line = [sys.executable, "-m", f"distributed.cli.{program}", *options]
        with (tmp_path / "dask.log").open("ab") as log:
            return subprocess.Popen(
                line, stdout=log, stderr=log, cwd=tmp_path, env=os.environ | {"MARKER": str(tmp_path)}
            )

    here = ["--host", "127.0.0.1", "--no-dashboard"]
    processes = [start("dask_scheduler", "--port", str(port), *here)]
    try:
        for _ in range(2):
            processes.append(start("dask_worker", address, "--nthreads", "1", "--no-nanny", *here))
        file = tmp_path / "sweep.yaml"
        file.write_text(
            "notebook: book.ipynb\ngrid: {way: [slow, raises], rate: [1, 2]}\nseeds: 2\n", encoding="utf-8"
        )
        with (tmp_path / "said.txt").open("w") as stream:
            processes.append(subprocess.Popen(command(file, out, "--scheduler", address), stdout=stream))
        wait_for(lambda: list(out.glob("*/result.json")))
        victim = wait_for(lambda: _busy(processes[1:3]))
        victim.send_signal(signal.SIGKILL)
        code, said = processes[-1].wait(timeout=120), (tmp_path / "said.txt").read_text()
        assert code == 1, said  # half of them raise
        found = sweeps.gather(sweep, out)
        assert found.status.value_counts().to_dict() == {"done": 4, "failed": 4}, said
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    wait_for(lambda: not alive(tmp_path), 10)


def _busy(workers):
    """Return a worker in the middle of a run, if there is one."""
    time.sleep(0.3)
    return next((worker for worker in workers if psutil.Process(worker.pid).children()), None)


def test_an_address_without_a_scheduler_is_refused(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "TIMEOUT", 0.5)
    with pytest.raises(OSError, match=r"tcp://127.0.0.1:9"):
        sweeps.run_sweep(sweep, tmp_path, scheduler="tcp://127.0.0.1:9")

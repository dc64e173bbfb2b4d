"""One run of a sweep: a process of its own, in which papermill runs the notebook.

A worker of Dask calls :func:`run_once`, which starts this module as a process and waits. The process ends
when the worker does, because its standard input closes; a kernel ends when the process that started it does.

A run's folder, named by its id, holds

===============  ==============================================================================
``lock``         held by the process that runs it, and free as soon as that has ended
``run.json``     the notebook, a hash of its code, the parameters, and the library that runs it
``work/``        the notebook's ``out``: the executed notebook, figures, trainings
``log.txt``      what the process printed
``status.json``  ``failed``, ``timeout`` or ``died``, why, and after how many seconds
``result.json``  the results of its trainings; written last, and only this file makes the run done
===============  ==============================================================================
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import psutil

from consensus_lib.experiments.results import RESULT, library_hash, provenance, read_results
from consensus_lib.experiments.sweep_plan import notebook_hash
from consensus_lib.paths import locked, write_json

RUN, STATUS, WORK, LOCK, LOG = "run.json", "status.json", "work", "lock", "log.txt"


class RunDied(RuntimeError):
    """A run's process or kernel died, which Dask tries again. The first argument is the run's state."""


def run_once(run: dict, gpus: Sequence[str] = ()) -> dict:
    """Run a notebook in a process of its own, unless its result is there. This is the task of a Dask worker.

    Args:
        run: ``id``, ``folder``, ``notebook``, ``parameters``, ``code`` (hash of the notebook's code),
            ``timeout`` in seconds or None, ``threads``, and ``rerun_outdated``: whether the result of another
            source of the library is removed.
        gpus: of which the run may see one, by the worker's number; without any, it sees what the worker sees.

    Returns:
        ``status`` (``done``, ``failed`` or ``timeout``), ``seconds``, and ``error`` if not done.

    Raises:
        RunDied: so that Dask tries it again.
    """
    from distributed import get_worker  # takes more than a second

    folder, begin = Path(run["folder"]), time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": str(run["threads"])}
    environment.pop("MALLOC_TRIM_THRESHOLD_", None)  # set by Dask; more than doubles the time of a training
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = gpus[get_worker().name % len(gpus)]
    command = [sys.executable, "-m", __name__, json.dumps(run)]
    options = {"stdin": subprocess.PIPE, "env": environment, "start_new_session": True}
    with (
        (folder / LOG).open("ab") as log,
        subprocess.Popen(command, stdout=log, stderr=log, **options) as process,
    ):
        try:
            code = process.wait(run["timeout"])
        except subprocess.TimeoutExpired:
            code = None
            kill_tree(process.pid)
    if code is None:
        state = {"status": "timeout", "error": f"expected to be done within {run['timeout']} s"}
    elif code == 0:
        state = {"status": "done"}
    elif code < 0:
        state = {"status": "died", "error": f"killed by {signal.Signals(-code).name}"}
    else:
        state = {"status": "failed", "error": f"its process ended with code {code}; see {LOG}"}
        with contextlib.suppress(OSError, ValueError):
            state |= json.loads((folder / STATUS).read_text(encoding="utf-8"))
    state["seconds"] = time.perf_counter() - begin
    if state["status"] != "done":
        with contextlib.suppress(OSError):  # the disk is full
            write_json(folder / STATUS, state)
    if state["status"] == "died":
        raise RunDied(state)
    return state


def kill_tree(pid: int) -> None:
    """Kill a process and all that it started."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.Error):
                one.kill()


def kill_runs() -> None:
    """Kill the runs that workers in this process have started."""
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if __name__ in process.cmdline():
                kill_tree(process.pid)


def visible_gpus() -> list[str]:
    """Return the GPUs of this machine as ``CUDA_VISIBLE_DEVICES`` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def read_state(folder: Path) -> dict:
    """Return what the files of a run say, with its ``status``; ``missing`` if nothing."""
    for name, status in ((RESULT, {"status": "done"}), (STATUS, {})):
        with contextlib.suppress(OSError, ValueError):
            return json.loads((folder / name).read_text(encoding="utf-8")) | status
    return {"status": "missing", "seconds": None}


def main() -> int:
    """Be the process of one run, given as JSON in the first argument; return the exit code."""
    run = json.loads(sys.argv[1])
    threading.Thread(target=_end_with_the_worker, daemon=True).start()
    folder = Path(run["folder"])
    with locked(folder / LOCK):  # a second driver waits here, and finds the result
        try:
            if run["rerun_outdated"] and _sources(folder) not in ([], [library_hash()]):
                for name in (RESULT, RUN):
                    (folder / name).unlink(missing_ok=True)
                shutil.rmtree(folder / WORK, ignore_errors=True)  # a checkpoint in it would be resumed
            if not (folder / RESULT).is_file():
                (folder / STATUS).unlink(missing_ok=True)
                _execute(run, folder)
        except Exception as error:
            from nbclient.exceptions import DeadKernelError

            cause = error.__cause__ or error
            state = {"status": "died", "error": "its kernel died"}
            if not isinstance(cause, DeadKernelError):
                name = getattr(cause, "ename", type(cause).__name__)
                state = {"status": "failed", "error": f"{name}: {getattr(cause, 'evalue', cause)}"}
            with contextlib.suppress(OSError):  # the disk is full
                write_json(folder / STATUS, state)
                traceback.print_exc()
            return 1
    return 0


def _end_with_the_worker() -> None:
    sys.stdin.read()
    kill_tree(os.getpid())


def _sources(folder: Path) -> list[str]:
    """Return the hashes of the libraries that began a run, and went on with it."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads((folder / RUN).read_text(encoding="utf-8"))["provenance"]["source"].split("+")
    return []


def _execute(run: dict, folder: Path) -> None:
    """Execute the notebook and collect what its trainings left."""
    sys.modules["rfc3987_syntax"] = None  # jsonschema would build its grammar for more than a second
    from consensus_lib.experiments import notebooks

    begin, notebook, made = time.perf_counter(), Path(run["notebook"]), provenance()
    made["source"] = "+".join(dict.fromkeys([*_sources(folder), made["source"]]))
    known = {"parameters": run["parameters"], "code": run["code"], "provenance": made}
    known["notebook"] = notebook.stem
    write_json(folder / RUN, known)
    notebooks.execute(notebook, folder / WORK, run["parameters"], progress=False)
    _check_all_ran(folder / WORK / notebook.name, run["code"])
    results = read_results(folder / WORK)
    if not results:
        raise RuntimeError(f"{RESULT}: expected one for each training, got none")
    for result in results:
        result["folder"] = Path(result["folder"]).relative_to(folder).as_posix()
    known |= {"id": run["id"], "seconds": time.perf_counter() - begin, "trainings": results}
    write_json(folder / RESULT, known)  # the last thing that a run does


def _check_all_ran(executed: Path, code: str) -> None:
    """Refuse a notebook that changed since the sweep was planned, or whose cells did not all run.

    ``exit`` leaves a notebook in its middle, and papermill takes it for success.
    """
    if (found := notebook_hash(executed)) != code:
        raise RuntimeError(f"notebook: expected code {code}, as the sweep began, got {found}")
    for number, cell in enumerate(json.loads(executed.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code" and "".join(cell["source"]).strip():
            left = [output["ename"] for output in cell["outputs"] if output["output_type"] == "error"]
            if left or not cell["execution_count"]:
                raise RuntimeError(f"cell {number}: expected it to run to its end, got {left or 'no run'}")


if __name__ == "__main__":
    sys.exit(main())

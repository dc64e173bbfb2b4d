"""One run of a sweep: a process of its own, which ends with everything that it started.

A worker of Dask calls :func:`attempt`. It starts this module as a process, the *guard*, and waits. The guard
holds the run's lock, forks a child, in which papermill runs the notebook, and watches the child, the clock,
and a pipe that closes when the worker's process ends, in whatever way. Then it kills what is left below it:
child, kernel, and what the kernel started. Dask cannot do this: it ends its own processes, not theirs.

A run's folder, named by its id, holds

===============  ================================================================================
``lock``         held by whoever runs it, through the operating system: a killed process holds none
``run.json``     the notebook, a hash of its code, the parameters, and the library that runs them
``work/``        the notebook's ``out``: itself as executed so far, figures, trainings
``log.txt``      what the processes said
``status.json``  ``failed``, ``timeout`` or ``died``, why, and after how many seconds
``result.json``  the results of its trainings; written last, and only this file makes the run done
===============  ================================================================================
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from consensus_lib.experiments.results import RESULT, provenance, read_results
from consensus_lib.experiments.sweep_plan import notebook_hash
from consensus_lib.paths import locked, write_json

RUN, STATUS, WORK, LOCK, LOG = "run.json", "status.json", "work", "lock", "log.txt"
CODES = {"done": 0, "failed": 10, "timeout": 11, "stopped": 12, "died": 13, "busy": 14}
"""What the guard's exit code says; any other one is that of a guard that died."""
GUARD = "consensus_lib.experiments.sweep_run"
TICK = 0.05  # seconds between two looks of the guard at the clock


class RunDied(RuntimeError):
    """A run's process or kernel died: tried again by Dask. Its first argument is the outcome."""


def on_worker(run: dict, gpus: Sequence[str] = ()) -> dict:
    """Be the task of a Dask worker: :func:`attempt`, with one of ``gpus`` by the worker's number.

    Raises:
        RunDied: so that Dask tries it again.
    """
    from distributed import get_worker  # takes more than a second

    # Set by Dask's nannies, with which a run would train at less than half of its speed.
    os.environ.pop("MALLOC_TRIM_THRESHOLD_", None)
    outcome = attempt(run, gpus[get_worker().name % len(gpus)] if gpus else None)
    if outcome["status"] == "died":
        raise RunDied(outcome)
    return outcome


def attempt(run: dict, gpu: str | None = None) -> dict:
    """Run a notebook once, unless it is done or somebody else is at it.

    Args:
        run: ``folder``, ``notebook``, ``parameters``, ``code`` (hash of the notebook's code), ``timeout``
            in seconds or None, ``threads`` for numerical libraries, and ``source``: hash of the library with
            which a run of another one is begun anew, even if it is done; None keeps what any library made.
        gpu: the one that the run may see; None leaves it what the process sees.

    Returns:
        ``status`` (``done``, ``failed``, ``timeout``, ``died``, ``stopped`` or ``busy``), ``seconds`` and,
        where there is one, ``error``.
    """
    folder, begin = Path(run["folder"]), time.perf_counter()
    with locked(folder / LOCK, wait=False) as free:  # only to save a process: the guard takes the lock
        if not free:
            return {"status": "busy", "seconds": 0.0}
    environment = os.environ | {"OMP_NUM_THREADS": str(run["threads"])}
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    # One process a run: papermill changes the folder, and a kernel that dies should take nobody along.
    with (
        (folder / LOG).open("ab") as log,
        subprocess.Popen(
            [sys.executable, "-m", GUARD, str(folder)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C is the driver's
        ) as guard,
    ):
        with contextlib.suppress(BrokenPipeError):
            guard.stdin.write(json.dumps(run).encode() + b"\n")
            guard.stdin.flush()
        code = guard.wait()
        with contextlib.suppress(BrokenPipeError):
            guard.stdin.close()
    status = next((name for name, known in CODES.items() if known == code), "died")
    outcome = {"status": status, "seconds": time.perf_counter() - begin}
    if status in ("failed", "timeout", "died"):
        with contextlib.suppress(OSError, ValueError):  # none was written, or the disk is full
            outcome["error"] = json.loads((folder / STATUS).read_text(encoding="utf-8"))["error"]
        reasons = {"timeout": f"not done after {run['timeout']} s", "failed": "no reason could be written"}
        outcome.setdefault("error", reasons.get(status, _end(code)))
        with contextlib.suppress(OSError):
            write_json(folder / STATUS, outcome)
    return outcome


def visible_gpus() -> list[str]:
    """Return what CUDA_VISIBLE_DEVICES may name, without asking torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip()]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    return [str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU")]


def stop_runs(out: Path) -> None:
    """End the runs in ``out`` that this process started, and return when nothing of them is left."""
    told, quiet = set(), 0
    while quiet < 3:  # one may just be about to start
        guards = {process for process in psutil.Process().children() if _guards(process, out)}
        for process in guards - told:
            process.terminate()
        told |= guards
        quiet = 0 if guards else quiet + 1
        time.sleep(TICK)


def _guards(process: psutil.Process, out: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        line = process.cmdline()
        return GUARD in line and Path(line[-1]).parent == out
    return False


def read_state(folder: Path) -> dict:
    """Return what the files of a run say, with its ``status``; ``missing`` if nothing."""
    for name, status in ((RESULT, {"status": "done"}), (STATUS, {})):
        with contextlib.suppress(OSError, ValueError):
            return json.loads((folder / name).read_text(encoding="utf-8")) | status
    return {"status": "missing", "seconds": None}


def made_with(folder: Path) -> str | None:
    """Return the hash of the library that last ran, or runs, in a run's folder; None if nothing says.

    Of a training that one library began and another one resumed, both, with a ``+`` between them.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads((folder / RUN).read_text(encoding="utf-8"))["provenance"]["source"]
    return None


def _end(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"its process ended with code {code}"


def main() -> int:
    """Be the guard of one run, which comes as a line of JSON on stdin; return the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(CODES["stopped"]))
    run = json.loads(sys.stdin.readline())
    folder = Path(run["folder"])
    with locked(folder / LOCK, wait=False) as mine:
        if not mine:
            return CODES["busy"]
        if run["source"] and made_with(folder) not in (None, run["source"]):
            (folder / RESULT).unlink(missing_ok=True)
            shutil.rmtree(folder / WORK, ignore_errors=True)  # a checkpoint in it would be resumed
        if (folder / RESULT).is_file():
            return CODES["done"]
        (folder / STATUS).unlink(missing_ok=True)
        return _watch(run)


def _watch(run: dict) -> int:
    """Fork the child that runs the notebook, wait for its end, and see to it; return the exit code."""
    # Kernels are no longer below us when the child dies, unless orphans come to us.
    _prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    kernels = tempfile.mkdtemp(prefix="kernels-")
    os.environ["JUPYTER_RUNTIME_DIR"] = kernels
    deadline = time.monotonic() + (run["timeout"] or float("inf"))
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: do not outlive the guard
        os._exit(_work(run, Path(kernels)))
    try:
        while True:
            ended, code = os.waitpid(child, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(code)
                if code not in CODES.values():
                    _say(run, "died", _end(code))
                    return CODES["died"]
                return code
            if time.monotonic() > deadline:
                return CODES["timeout"]
            if select.select([0], [], [], TICK)[0] and not os.read(0, 1):
                return CODES["stopped"]
    finally:
        _kill_below()
        shutil.rmtree(kernels, ignore_errors=True)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _kill_below() -> None:
    """Kill all that descends from this process, until nothing is left, for at most ten seconds."""
    deadline = time.monotonic() + 10
    while (below := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
        for process in below:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(below, timeout=1)


def _work(run: dict, sockets: Path) -> int:
    """Execute the notebook and gather what its trainings left, in the child; return the exit code."""
    try:
        # At its import jsonschema lets this one build a grammar of addresses, for more than a second.
        sys.modules["rfc3987_syntax"] = None
        from nbclient.exceptions import DeadKernelError

        from consensus_lib.experiments import notebooks

        begin = time.perf_counter()
        folder, notebook = Path(run["folder"]), Path(run["notebook"])
        os.chdir(notebook.parent)
        work, made = folder / WORK, provenance()
        if any(work.rglob("checkpoint.json")):
            sources = [*(made_with(folder) or "").split("+"), made["source"]]
            made["source"] = "+".join(filter(None, dict.fromkeys(sources)))
        known = {key: run[key] for key in ("parameters", "code")} | {"provenance": made}
        write_json(folder / RUN, {"notebook": str(notebook)} | known)
        try:
            notebooks.execute(notebook, work, run["parameters"], progress=False, sockets=sockets)
        except RuntimeError as error:
            if isinstance(error.__cause__, DeadKernelError):
                return _say(run, "died", "its kernel died")
            raise
        _check_all_ran(work / notebook.name, run["code"])
        results = read_results(work)
        if not results:
            raise RuntimeError(f"{RESULT}: expected one for each training, got none")
        for result in results:
            result["folder"] = Path(result["folder"]).relative_to(folder).as_posix()
        known = {"id": run["id"]} | known | {"notebook": notebook.stem}
        known |= {"seconds": time.perf_counter() - begin, "trainings": results}
        write_json(folder / RESULT, known)  # the last thing that a run does
        return CODES["done"]
    except BaseException as error:
        import traceback

        with contextlib.suppress(OSError):  # the disk is full
            traceback.print_exc()
        cause = error.__cause__ or error
        name, text = getattr(cause, "ename", type(cause).__name__), getattr(cause, "evalue", str(cause))
        return _say(run, "failed", f"{name}: {text}")


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


def _say(run: dict, status: str, error: str) -> int:
    with contextlib.suppress(OSError):
        write_json(Path(run["folder"]) / STATUS, {"status": status, "error": error})
    return CODES[status]


if __name__ == "__main__":
    sys.exit(main())

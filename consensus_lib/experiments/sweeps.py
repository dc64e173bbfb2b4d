"""Sweeps: one notebook, many parameters, each run a process of its own, one table of results.

    python -m consensus_lib sweep SWEEP.yaml --out DIR [--workers N | --scheduler tcp://…] [--dry-run]

A sweep is a YAML file:

.. code-block:: yaml

    notebook: ../studies/train.ipynb   # from this file's folder
    parameters: {epochs: 6}            # the same in each run
    grid: {alpha: [1, 10], beta: [5]}  # all combinations
    lists: {width: [0.25, 0.5], image_size: [32, 64]}  # side by side: the first of each, the second, …
    seeds: 3                           # 0, 1, 2; or a list of them
    seconds: 20                        # what a run may take, for an estimate before any is done
    timeout: 600                       # seconds after which a run is ended
    threads: 1                         # of numerical libraries in each run

A run's id is a hash of its parameters and of the notebook's code. It is done when ``DIR/<id>/result.json``
is there; see :mod:`~consensus_lib.experiments.sweep_run`. Called again, a sweep runs what is missing and what
did not succeed. Results of an earlier notebook stay where they are and are named *stale*. The library's
commit, version and source hash are recorded with each result and are columns of the table;
``--rerun-outdated`` runs again what another source made. Several drivers can share a folder.
"""

import contextlib
import importlib.util
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from consensus_lib.experiments import command_line
from consensus_lib.experiments.results import RESULT, library_hash
from consensus_lib.experiments.sweep_plan import Sweep, plan, read_sweep
from consensus_lib.experiments.sweep_run import RUN, STATUS, WORK, attempt, made_with
from consensus_lib.paths import atomic, shown, write_json

__all__ = ["Sweep", "plan", "read_sweep"]  # those of another module, which belong to this one's use

TABLE = "table"
TIMEOUT = 30  # seconds in which a scheduler should answer


class Progress(NamedTuple):
    """How far a sweep is: numbers of runs, and the seconds that are left, None while nobody can tell."""

    done: int
    running: int
    failed: int
    waiting: int
    seconds_left: float | None


def run_sweep(
    sweep: Sweep,
    out: str | Path,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    retries: int = 0,
    rerun_outdated: bool = False,
    on_change: Callable[[Progress], object] | None = None,
) -> dict[str, dict]:
    """Run what is missing of a sweep.

    Interrupted, the local runs are ended before this returns. Those on a cluster are left to finish: their
    results count when the sweep is started again.

    Args:
        sweep: from :func:`read_sweep` or :func:`plan`.
        out: folder of the runs; on a cluster one that all machines see under this name.
        workers: runs at a time on this machine, each with a GPU of its own as far as there are any.
        scheduler: address of a Dask scheduler whose workers run instead, one run a thread. Where they have a
            resource named GPU, each run takes one.
        retries: how often a run that died is tried again. One that raised, or took too long, is not.
        rerun_outdated: whether what another source of the library made, or began, is removed and run again.
        on_change: called with the progress when it changes.

    Returns:
        id → what became of the run: see :func:`consensus_lib.experiments.sweep_run.attempt`.
    """
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    out = Path(out).resolve()
    source = library_hash() if rerun_outdated else None
    states = ((number, _state(out, number, source)) for number in sweep.runs)
    found = {
        n: {"status": "done", "seconds": state["seconds"]} for n, state in states if state["status"] == "done"
    }
    left = dict.fromkeys((number for number in sweep.runs if number not in found), retries)
    engine = _dask(scheduler, retries) if scheduler else _local(workers)
    ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
    pending: dict[Future, str] = {}
    with engine as (submit, slots):

        def start(number: str) -> None:
            future = submit(_task(sweep, out, number, source))
            pending[future] = number
            future.add_done_callback(ended.put)

        def tell() -> None:
            if on_change:
                on_change(_progress(sweep, found, len(pending), slots()))

        for number in left:
            start(number)
        tell()
        while pending:
            try:
                future = ended.get(timeout=1)
            except queue.Empty:
                continue
            number = pending.pop(future)
            outcome = _outcome(future, out / number)
            if outcome["status"] == "busy":  # another driver is at it: look again later
                time.sleep(0.5 if len(pending) <= slots() else 0.05)
                start(number)
                continue
            if outcome["status"] == "died" and left[number] > 0:
                left[number] -= 1
                start(number)
                continue
            found[number] = outcome
            tell()
    return {number: found[number] for number in sweep.runs}


def _task(sweep: Sweep, out: Path, number: str, source: str | None) -> dict:
    return {
        "id": number,
        "folder": str(out / number),
        "notebook": str(sweep.notebook),
        "parameters": sweep.runs[number],
        "code": sweep.code,
        "source": source,
        "timeout": sweep.timeout,
        "threads": sweep.threads,
    }


def _outcome(future: Future, folder: Path) -> dict:
    try:
        return future.result()
    except Exception as error:  # a cluster gave the run up, or the disk is too full to begin
        outcome = {"status": "died", "error": f"{type(error).__name__}: {error}", "seconds": 0.0}
        with contextlib.suppress(OSError):
            write_json(folder / STATUS, outcome)
        return outcome


def _progress(sweep: Sweep, found: dict[str, dict], pending: int, slots: int) -> Progress:
    done = [state["seconds"] for state in found.values() if state["status"] == "done"]
    running = min(pending, slots)
    known = [seconds for seconds in done if seconds > 0]
    each = sum(known) / len(known) if known else sweep.seconds
    rounds = -(-pending // max(1, slots))
    return Progress(
        len(done), running, len(found) - len(done), pending - running, None if each is None else each * rounds
    )


Engine = Iterator[tuple[Callable[[dict], Future], Callable[[], int]]]


@contextlib.contextmanager
def _local(workers: int) -> Engine:
    """Yield a function that starts a run, and one that tells how many run at a time."""
    gpus = _gpus()
    places: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for place in range(workers):
        places.put(gpus[place % len(gpus)] if gpus else None)
    stop = threading.Event()

    def work(run: dict) -> dict:
        gpu = places.get()
        try:
            return attempt(run, gpu, stop)
        finally:
            places.put(gpu)

    executor = ThreadPoolExecutor(workers)
    try:
        yield (lambda run: executor.submit(work, run)), (lambda: workers)
    finally:
        stop.set()
        executor.shutdown(cancel_futures=True)


def _gpus() -> list[str]:
    """Return what CUDA_VISIBLE_DEVICES may name, without asking torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip()]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    return [str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU")]


@contextlib.contextmanager
def _dask(address: str, retries: int) -> Engine:
    """As :func:`_local`, on the workers of a Dask scheduler."""
    if importlib.util.find_spec("distributed") is None:
        raise ValueError("scheduler: expected Dask, got none; pip install 'consensus-lib[dask]'")
    from distributed import Client

    with Client(address, timeout=TIMEOUT, set_as_default=False) as client:
        client.wait_for_workers(1)  # in a queue, they take their time
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        resources = {"GPU": 1} if any("GPU" in worker["resources"] for worker in workers) else None
        executor: Executor = client.get_executor(pure=False, retries=retries, resources=resources)
        try:
            yield (lambda run: executor.submit(_on_worker, run)), (lambda: sum(client.nthreads().values()))
        finally:
            executor.shutdown(wait=False)


def _on_worker(run: dict) -> dict:
    """Be the task of a Dask worker.

    Dask sets a variable with which its workers give memory back at once. A run would inherit it, and train at
    less than half of its speed.
    """
    os.environ.pop("MALLOC_TRIM_THRESHOLD_", None)
    return attempt(run)


def _state(out: Path, number: str, source: str | None = None) -> dict:
    """Return what the files of a run say; ``missing`` if nothing, ``outdated`` if not of the source given."""
    outdated = source and made_with(out / number) not in (None, source)
    for name, status in ((RESULT, "outdated" if outdated else "done"), (STATUS, None)):
        with contextlib.suppress(OSError, ValueError):
            read = json.loads((out / number / name).read_text(encoding="utf-8"))
            return read if status is None else read | {"status": status}
    return {"status": "missing", "seconds": None}


def gather(sweep: Sweep, out: str | Path):
    """Return a table of all runs of a sweep, and of the stale ones in its folder.

    Columns are ``id``, ``status``, the parameters, ``run_seconds``, ``error``, ``version``, ``commit`` and
    ``source`` of the library (see :func:`consensus_lib.experiments.results.provenance`), and what the
    trainings filed. What a training filed under a parameter's name is called ``result_…`` unless it is the
    same in each row.

    Returns:
        A data frame with a row for each training of a run that is done, and a row without scores for each
        other run: ``failed``, ``timeout``, ``died``, ``missing``, or ``stale`` (of an earlier notebook).
    """
    import pandas as pd  # here, so that the driver does not wait for it

    out, rows = Path(out), []
    for number, parameters in sweep.runs.items():
        state = _state(out, number)
        about = {"id": number, "status": state["status"]}
        about |= {"run_seconds": state["seconds"], "error": state.get("error")}
        about |= state.get("provenance", {})
        rows += [(about, parameters, training) for training in state.get("trainings", [{}])]
    for number in stale(sweep, out):
        parameters = json.loads((out / number / RUN).read_text(encoding="utf-8"))["parameters"]
        rows.append(({"id": number, "status": "stale", "run_seconds": None, "error": None}, parameters, {}))
    differs = {
        key for _, known, training in rows for key in training if key in known and known[key] != training[key]
    }
    table = []
    for about, parameters, training in rows:
        filed = {f"result_{key}" if key in differs else key: value for key, value in training.items()}
        row = {"id": about.pop("id"), "status": about.pop("status")} | parameters | about | filed
        table.append({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()})
    return pd.DataFrame(table)


def stale(sweep: Sweep, out: str | Path) -> list[str]:
    """Return the ids of runs in ``out`` of the same notebook's file, but of other code."""
    found = []
    for file in sorted(Path(out).glob(f"*/{RESULT}")):
        known = json.loads(file.with_name(RUN).read_text(encoding="utf-8"))
        if Path(known["notebook"]).name == sweep.notebook.name and known["code"] != sweep.code:
            found.append(file.parent.name)
    return found


def write_tables(table, out: str | Path) -> list[Path]:
    """Write a table as CSV, and as Parquet where pyarrow is installed; return the files."""
    files = [Path(out) / f"{TABLE}.csv"]
    with atomic(files[0]) as part:
        table.to_csv(part, index=False)
    if importlib.util.find_spec("pyarrow"):
        files.append(files[0].with_suffix(".parquet"))
        mixed = [name for name, values in table.items() if values.dropna().map(type).nunique() > 1]
        # A column of Parquet has one type: numbers among words become words.
        table = table.assign(**{name: table[name].map(str, na_action="ignore") for name in mixed})
        with atomic(files[1]) as part:
            table.to_parquet(part, index=False)
    return files


def summarise(table, by: Sequence[str], of: Sequence[str]):
    """Average scores over runs, and say over how many.

    Args:
        table: from :func:`gather`; stale rows are left out.
        by: columns whose values make a group, such as ``["alpha", "beta"]``.
        of: columns to average.

    Returns:
        A data frame with a row for each group and score: ``by``, ``score``, ``mean``, ``std`` (of a sample;
        none of one value), ``n`` values, and how many are ``missing``, because their run is not done.
    """
    import pandas as pd

    rows = []
    for group, found in table[table.status != "stale"].groupby(list(by), sort=True, dropna=False):
        for score in of:
            values = found[score].dropna() if score in found else found.index[:0].to_series(dtype=float)
            rows.append(
                dict(zip(by, group, strict=True))
                | {"score": score, "mean": values.mean(), "std": values.std(), "n": len(values)}
                | {"missing": len(found) - len(values)}
            )
    return pd.DataFrame(rows)


def estimate(sweep: Sweep, out: str | Path, workers: int, rerun_outdated: bool = False) -> Progress:
    """Return the progress as the folder has it, with ``workers`` at what is left."""
    source = library_hash() if rerun_outdated else None
    states = {number: _state(Path(out), number, source) for number in sweep.runs}
    done = {number: state for number, state in states.items() if state["status"] == "done"}
    return _progress(sweep, done, len(states) - len(done), workers)


def as_cells(progress: Progress) -> dict[str, str]:
    """Return the progress as a row of a table: head → text."""
    cells = {name: str(value) for name, value in progress._asdict().items() if name != "seconds_left"}
    left = progress.seconds_left
    return cells | {"time left": "?" if left is None else f"{left / 60:.1f} min"}


def _as_text(progress: Progress) -> str:
    cells = as_cells(progress)
    return "\n".join("  ".join(f"{part:>9}" for part in line) for line in (cells, cells.values()))


def _terminal() -> Callable[[Progress], None]:
    """Return a function that draws the progress: over the last one in a terminal, else line below line."""
    drawn = []

    def draw(progress: Progress) -> None:
        head, counts = _as_text(progress).splitlines()
        if drawn and sys.stdout.isatty():
            print("\x1b[1A\x1b[2K", end="")
        print(counts if drawn else f"{head}\n{counts}", flush=True)
        drawn.append(True)

    return draw


def main(argv: list[str] | None = None) -> int:
    """Run a sweep; return 0 if all its runs are done."""
    parser = command_line.Parser(prog="python -m consensus_lib sweep", description="Run a sweep.")
    parser.add_argument(
        "sweep", type=Path, help="YAML file; its keys stand at the top of consensus_lib/experiments/sweeps.py"
    )
    parser.add_argument("--out", type=command_line.folder, required=True, help="folder of the runs")
    where = parser.add_mutually_exclusive_group()
    at_a_time = "runs at a time on this machine (default: 1)"
    where.add_argument("--workers", type=command_line.whole(1), default=1, help=at_a_time)
    where.add_argument("--scheduler", metavar="tcp://…", help="of Dask, whose workers run instead")
    tries = "tries more of a run that died (default: 0)"
    parser.add_argument("--retries", type=command_line.whole(0), default=0, help=tries)
    again = "run again what another source of the library made; its results are removed"
    parser.add_argument("--rerun-outdated", action="store_true", help=again)
    parser.add_argument("--dry-run", action="store_true", help="print the runs and how long they may take")
    given = parser.parse_args(argv)
    try:
        sweep = read_sweep(given.sweep)
        if given.dry_run:
            source = library_hash() if given.rerun_outdated else None
            for number, parameters in sweep.runs.items():
                chosen = "  ".join(f"{name}={parameters[name]}" for name in sweep.varied)
                print(f"{number}  {_state(given.out, number, source)['status']:8}  {chosen}")
            left = estimate(sweep, given.out, given.workers, given.rerun_outdated)
            print(f"\n{len(sweep.runs)} runs\n{_as_text(left)}")
            return 0
        options = {"workers": given.workers, "scheduler": given.scheduler, "retries": given.retries}
        options |= {"rerun_outdated": given.rerun_outdated}
        found = run_sweep(sweep, given.out, **options, on_change=_terminal())
    except (ValueError, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on", file=sys.stderr)
        return 130
    table = gather(sweep, given.out)
    print(f"\n{len(table)} rows: {', '.join(shown(file) for file in write_tables(table, given.out))}")
    if old := int((table.status == "stale").sum()):
        print(f"{old} stale: of an earlier notebook; they have no scores in the table")
    if "source" in table and (sources := table.source.nunique()) > 1:
        print(f"{sources} sources of the library in column source; --rerun-outdated leaves one")
    failed = {number: state for number, state in found.items() if state["status"] != "done"}
    for number, state in failed.items():
        chosen = ", ".join(f"{name}={sweep.runs[number][name]}" for name in sweep.varied)
        print(f"{state['status']}: {chosen or number}: {state.get('error')}")
        print(f"  {shown(given.out / number / WORK)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

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
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from consensus_lib.experiments import command_line, sweep_run
from consensus_lib.experiments.results import RESULT, library_hash, write_tables
from consensus_lib.experiments.sweep_plan import Sweep, plan, read_sweep
from consensus_lib.paths import shown, write_json

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Sweep", "plan", "read_sweep"]  # those of another module, which belong to this one's use

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
        id → what became of the run: ``status`` and ``seconds``, see
        :func:`consensus_lib.experiments.sweep_run.attempt`.
    """
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    out = Path(out).resolve()
    source = library_hash() if rerun_outdated else None
    states = _states(sweep, out, source)
    found = {number: state for number, state in states.items() if state["status"] == "done"}
    if len(found) == len(states):
        return found
    with _dask(workers, scheduler, out) as client:
        from distributed import as_completed

        given = client.scheduler_info(n_workers=-1)["workers"].values()
        resources = {"GPU": 1} if any("GPU" in worker["resources"] for worker in given) else None
        gpus = [] if scheduler else sweep_run.visible_gpus()

        def start(number: str):
            run = _task(sweep, out, number, source)
            future = client.submit(
                sweep_run.on_worker, run, gpus, pure=False, retries=retries, resources=resources
            )
            numbers[future.key] = number
            return future

        def tell() -> None:
            if on_change:
                slots = sum(client.nthreads().values())
                on_change(_progress(sweep, found, len(states) - len(found), slots))

        numbers: dict[str, str] = {}
        pending = as_completed([start(number) for number in states if number not in found], client.loop)
        tell()
        for future in pending:
            number = numbers.pop(future.key)
            outcome = _outcome(future, out / number)
            if outcome["status"] == "busy":  # another driver is at it: look again later
                time.sleep(0.5 / (1 + len(numbers)))
                pending.add(start(number))
            else:
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


def _outcome(future, folder: Path) -> dict:
    try:
        return future.result()
    except sweep_run.RunDied as died:
        return died.args[0]
    except Exception as error:  # a cluster gave the run up, or the disk is too full to begin
        outcome = {"status": "died", "error": f"{type(error).__name__}: {error}", "seconds": 0.0}
        with contextlib.suppress(OSError):
            write_json(folder / sweep_run.STATUS, outcome)
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


@contextlib.contextmanager
def _dask(workers: int, scheduler: str | None, out: Path) -> Iterator["Client"]:
    """Yield a client of the scheduler at an address, or of a cluster in this process.

    Its workers are threads: each run is a process of its own anyway, and nobody else can connect to them.
    """
    from distributed import Client, LocalCluster  # takes more than a second

    if scheduler:
        with Client(scheduler, timeout=TIMEOUT, set_as_default=False) as client:
            client.wait_for_workers(1)  # in a queue, they take their time
            yield client
        return
    page = "127.0.0.1:0"  # Dask's dashboard, where bokeh is installed: seen from this machine alone
    options = {"n_workers": workers, "threads_per_worker": 1, "processes": False, "memory_limit": 0}
    options |= {"dashboard_address": page, "worker_dashboard_address": page, "silence_logs": logging.ERROR}
    with LocalCluster(**options) as cluster, Client(cluster, set_as_default=False) as client:
        if importlib.util.find_spec("bokeh"):
            print(f"dashboard: {cluster.dashboard_link}", file=sys.stderr)
        try:
            yield client
        except BaseException:
            client.close()  # so that no other run is handed out
            sweep_run.stop_runs(out)
            raise


def _states(sweep: Sweep, out: Path, source: str | None) -> dict[str, dict]:
    """Return id → what the files of a run say; ``outdated`` if done, but with another source than given."""
    states = {number: sweep_run.read_state(out / number) for number in sweep.runs}
    for number, state in states.items():
        if source and state["status"] == "done" and sweep_run.made_with(out / number) != source:
            state["status"] = "outdated"
    return states


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
        state = sweep_run.read_state(out / number)
        about = {"id": number, "status": state["status"]}
        about |= {"run_seconds": state["seconds"], "error": state.get("error")}
        about |= state.get("provenance", {})
        rows += [(about, parameters, training) for training in state.get("trainings", [{}])]
    for number in stale(sweep, out):
        parameters = json.loads((out / number / sweep_run.RUN).read_text(encoding="utf-8"))["parameters"]
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
        known = json.loads(file.with_name(sweep_run.RUN).read_text(encoding="utf-8"))
        if Path(known["notebook"]).name == sweep.notebook.name and known["code"] != sweep.code:
            found.append(file.parent.name)
    return found


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


def _varied(sweep: Sweep, number: str) -> str:
    return "  ".join(f"{name}={sweep.runs[number][name]}" for name in sweep.varied)


def main(argv: list[str] | None = None) -> int:
    """Run a sweep; return 0 if all its runs are done."""
    parser = command_line.Parser(prog="python -m consensus_lib sweep", description="Run a sweep.")
    parser.add_argument(
        "sweep", type=Path, help="YAML file; consensus_lib/experiments/sweeps.py has its keys at the top"
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
            states = _states(sweep, given.out, library_hash() if given.rerun_outdated else None)
            for number, state in states.items():
                print(f"{number}  {state['status']:8}  {_varied(sweep, number)}")
            done = {number: state for number, state in states.items() if state["status"] == "done"}
            left = _progress(sweep, done, len(states) - len(done), given.workers)
            print(f"\n{len(states)} runs\n{_as_text(left)}")
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
        print(f"{state['status']}: {_varied(sweep, number) or number}: {state.get('error')}")
        print(f"  {shown(given.out / number / sweep_run.WORK)}")
    return 1 if failed else 0

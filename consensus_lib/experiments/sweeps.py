"""Sweeps: one notebook, many parameters, each run a process of its own, one table of results.

    python -m consensus_lib sweep SWEEP.yaml --out DIR [--workers N | --scheduler tcp://…] [--dry-run]

A sweep is a YAML file:

.. code-block:: yaml

    notebook: ../studies/train.ipynb   # from this file's folder
    parameters: {epochs: 6}            # the same in each run
    grid: {alpha: [1, 10], beta: [5]}  # all combinations
    lists: {width: [0.25, 0.5], image_size: [32, 64]}  # side by side: the first of each, the second, …
    seeds: 3                           # 0, 1, 2; or a list of them
    timeout: 600                       # seconds after which a run is ended
    threads: 1                         # of numerical libraries in each run

A run's id is a hash of its parameters and of the notebook's code. It is done when ``DIR/<id>/result.json``
is there; see :mod:`~consensus_lib.experiments.sweep_run`. Called again, a sweep runs what is missing and what
did not succeed. Results of an earlier notebook stay where they are and are named *stale*. The library's
commit, version and source hash are columns of the table; ``--rerun-outdated`` runs again what another source
made. Several drivers can share a folder.
"""

import contextlib
import importlib.util
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from consensus_lib.experiments import command_line, sweep_run
from consensus_lib.experiments.results import RESULT, library_hash
from consensus_lib.experiments.sweep_plan import Sweep, plan, read_sweep
from consensus_lib.paths import atomic, shown, write_json

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Sweep", "plan", "read_sweep"]  # those of another module, which belong to this one's use


def run_sweep(
    sweep: Sweep,
    out: str | Path,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    retries: int = 0,
    rerun_outdated: bool = False,
    progress: bool = True,
) -> dict[str, dict]:
    """Run what is missing of a sweep.

    Interrupted, the local runs are ended before this returns. Those on a cluster are left to finish: their
    results count when the sweep is started again.

    Args:
        sweep: from :func:`read_sweep` or :func:`plan`.
        out: folder of the runs; on a cluster one that all machines see under this name.
        workers: runs at a time on this machine, each with a GPU of its own as far as there are any.
        scheduler: address of a Dask scheduler whose workers run instead, one run a thread. A run sees the
            GPUs that its worker sees: start one worker of one thread for each GPU.
        retries: how often a run that died is tried again. One that raised, or took too long, is not.
        rerun_outdated: whether what another source of the library made, or began, is removed and run again.
        progress: show a bar.

    Returns:
        id → what became of the run: ``status`` and ``seconds``, see
        :func:`consensus_lib.experiments.sweep_run.run_once`.
    """
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    out = Path(out).resolve()
    found = read_states(sweep, out, rerun_outdated)
    missing = [number for number, state in found.items() if state["status"] != "done"]
    if not missing:
        return found
    with _connect(workers, scheduler) as client:
        from distributed import as_completed

        gpus = [] if scheduler else sweep_run.visible_gpus()
        same = {"notebook": str(sweep.notebook), "code": sweep.code, "rerun_outdated": rerun_outdated}
        same |= {"timeout": sweep.timeout, "threads": sweep.threads}
        tasks = [
            same | {"id": number, "folder": str(out / number), "parameters": sweep.runs[number]}
            for number in missing
        ]
        futures = client.map(sweep_run.run_once, tasks, gpus=gpus, pure=False, retries=retries)
        numbers = {future.key: number for future, number in zip(futures, missing, strict=True)}
        bar = {"total": len(found), "initial": len(found) - len(missing), "unit": "run"}
        for future in tqdm(as_completed(futures, client.loop), **bar, disable=not progress):
            number = numbers[future.key]
            found[number] = _outcome(future, out / number)
    return found


def _outcome(future, folder: Path) -> dict:
    try:
        return future.result()
    except sweep_run.RunDied as died:
        return died.args[0]
    except Exception as error:  # a cluster gave the run up, or the disk is too full to begin
        state = {"status": "died", "error": f"{type(error).__name__}: {error}", "seconds": 0.0}
        with contextlib.suppress(OSError):
            write_json(folder / sweep_run.STATUS, state)
        return state


@contextlib.contextmanager
def _connect(workers: int, scheduler: str | None) -> Iterator["Client"]:
    """Yield a client of the scheduler at an address, or of a cluster in this process.

    Its workers are threads: each run is a process of its own anyway, and nobody else can connect to them.
    """
    from distributed import Client, LocalCluster  # takes more than a second

    if scheduler:
        with Client(scheduler, set_as_default=False) as client:
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
            sweep_run.kill_runs()
            raise


def read_states(sweep: Sweep, out: str | Path, rerun_outdated: bool = False) -> dict[str, dict]:
    """Return id → what the files of a run say.

    With ``rerun_outdated``, a run that is done by another source of the library is ``outdated``.
    """
    states = {number: sweep_run.read_state(Path(out) / number) for number in sweep.runs}
    if rerun_outdated:
        source = library_hash()
        for state in states.values():
            if state["status"] == "done" and state["provenance"]["source"] != source:
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

    rows = []
    for number, state in read_states(sweep, out).items():
        about = {"run_seconds": state["seconds"], "error": state.get("error")} | state.get("provenance", {})
        key = {"id": number, "status": state["status"]}
        rows += [(key, sweep.runs[number], about, training) for training in state.get("trainings", [{}])]
    for file in sorted(Path(out).glob(f"*/{RESULT}")):
        known = json.loads(file.read_text(encoding="utf-8"))
        if known["notebook"] == sweep.notebook.stem and known["code"] != sweep.code:
            rows.append(({"id": known["id"], "status": "stale"}, known["parameters"], {}, {}))
    differs = {k for _, known, _, made in rows for k in known.keys() & made.keys() if known[k] != made[k]}
    table = []
    for key, parameters, about, training in rows:
        filed = {f"result_{name}" if name in differs else name: value for name, value in training.items()}
        row = key | parameters | about | filed
        table.append({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()})
    return pd.DataFrame(table)


def _varied(sweep: Sweep, number: str) -> str:
    return "  ".join(f"{name}={sweep.runs[number][name]}" for name in sweep.varied)


def main(argv: list[str] | None = None) -> int:
    """Run a sweep; return 0 if all its runs are done."""
    parser = command_line.Parser(prog="python -m consensus_lib sweep", description="Run a sweep.")
    keys = "YAML file; consensus_lib/experiments/sweeps.py has its keys at the top"
    parser.add_argument("sweep", type=Path, help=keys)
    parser.add_argument("--out", type=command_line.folder, required=True, help="folder of the runs")
    where = parser.add_mutually_exclusive_group()
    at_a_time = "runs at a time on this machine (default: 1)"
    where.add_argument("--workers", type=command_line.whole(1), default=1, help=at_a_time)
    where.add_argument("--scheduler", metavar="tcp://…", help="of Dask, whose workers run instead")
    tries = "how often a run that died is tried again (default: 0)"
    parser.add_argument("--retries", type=command_line.whole(0), default=0, help=tries)
    again = "run again what another source of the library made; its results are removed"
    parser.add_argument("--rerun-outdated", action="store_true", help=again)
    parser.add_argument("--dry-run", action="store_true", help="print the runs, and run none")
    given = vars(parser.parse_args(argv))
    file, out, dry_run = given.pop("sweep"), given.pop("out"), given.pop("dry_run")
    try:
        sweep = read_sweep(file)
        if dry_run:
            states = read_states(sweep, out, given["rerun_outdated"])
            for number, state in states.items():
                print(f"{number}  {state['status']:8}  {_varied(sweep, number)}")
            print(f"\n{len(states)} runs")
            return 0
        found = run_sweep(sweep, out, **given)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print("\nstopped; the same command resumes the sweep", file=sys.stderr)
        return 130
    table = gather(sweep, out)
    with atomic(out / "table.csv") as part:
        table.to_csv(part, index=False)
    print(f"\n{len(table)} rows: {shown(out / 'table.csv')}")
    if stale := int((table.status == "stale").sum()):
        print(f"{stale} stale: of an earlier notebook; they have no scores in the table")
    if "source" in table and (sources := table.source.nunique()) > 1:
        print(f"{sources} sources of the library in column source; --rerun-outdated leaves one")
    failed = {number: state for number, state in found.items() if state["status"] != "done"}
    for number, state in failed.items():
        print(f"{state['status']}: {_varied(sweep, number) or number}: {state.get('error')}")
        print(f"  {shown(out / number / sweep_run.WORK)}")
    return 1 if failed else 0

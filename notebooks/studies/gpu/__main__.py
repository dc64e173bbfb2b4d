"""The whole programme at full size, for any machine with CUDA: ``python -m notebooks.studies.gpu``.

Run it from the checkout's root, with ``PYTHONPATH=data_scripts`` where nothing is installed; README.md beside this file says what it files. It stops by itself, and goes on
where it stopped: what is filed for this device is not done again.
"""

import datetime
import os
import re
import shlex
import sys
from pathlib import Path

from consensus_lib.experiments.command_line import Parser, number, whole

HERE = Path(__file__).parent


def main(argv: list[str] | None = None) -> int:
    """Run the programme; return the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    parser = Parser(prog="python -m notebooks.studies.gpu", description=__doc__.split(":")[0])
    parser.add_argument("--profile", default="full", choices=["full", "smoke"], help="sizes; see recipes.py")
    parser.add_argument("--data", type=Path, help="prepared folder of labelled photographs, for part 3")
    parser.add_argument("--budget", type=number(0), default=780, help="seconds from this process's start on")
    parser.add_argument("--out", type=Path, help="folder of the result files (default: results/DEVICE here; smoke: a new one below the runs folder)")  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cuda or cpu")
    parser.add_argument(
        "--workers", type=whole(0), help="processes that draw and score (default: all cores but one)"
    )
    parser.add_argument("--parts", default="1234", help="which parts to run, such as 12")
    parser.add_argument(
        "--estimates", action="store_true", help="write estimates.csv (or --out), and run nothing"
    )
    given = parser.parse_args(argv)
    if not given.parts or set(given.parts) - set("1234"):
        parser.error(f"--parts: expected some of 1234, got {given.parts!r}")

    # Below, so that the processes of the pool, which import this file, do not load what they do not need.
    import psutil

    from consensus_lib import paths
    from consensus_lib.training.devices import one_thread_pool, pick_device

    from . import estimates, fast, right, scoring
    from .filing import Filing, commit, machine
    from .recipes import BASE, PROFILES
    from .trainings import Trainings

    profile, device = PROFILES[given.profile], pick_device("cpu" if given.estimates else given.device)
    where = machine(device)
    if profile.name == "full" and device.type == "cpu" and not given.estimates:
        parser.error(
            "--device: expected a machine with CUDA for the full profile, found none; try --profile smoke"
        )
    slug = re.sub("[^a-z0-9]+", "-", where["device"].lower())
    hidden = paths.runs_dir() / ".gpu"  # no run folder, of which others take the newest
    fresh = hidden / f"{datetime.datetime.now():%Y%m%d-%H%M%S}-smoke"
    out = given.out or (fresh if profile.name == "smoke" else HERE / "results" / slug)
    work = hidden / re.sub("[^A-Za-z0-9]+", "-", str(out.resolve())).strip("-")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = max(1, cores - 1) if given.workers is None else given.workers
    said = [Path(word).name if "/" in word else word for word in argv]  # no path of this machine
    command = shlex.join(["python", "-m", "notebooks.studies.gpu", *said])
    about = {"profile": profile.name, **where, "commit": commit(), "command": command}
    pool = None if given.estimates or not workers else one_thread_pool(workers)
    begun = psutil.Process().create_time()

    photographs = given.data
    if photographs and not photographs.is_dir():  # the name of a data set, as everywhere
        photographs = paths.data_dir() / f"{given.data}-{max(profile.size, 128)}"
    if photographs and not (photographs / "dataset.json").is_file():
        parser.error(f"--data: expected a prepared folder, or the name of one, got {given.data}")
    photographs = photographs or (Path(profile.name) if given.estimates else None)

    def every(filing):
        trainings = Trainings(profile, device, filing, photographs, pool, workers or 1)
        parts = {
            "1": right.pieces(profile, device),
            "2": fast.pieces(profile, device, trainings),
            "3": trainings.table3(),
            "4": trainings.occlusion(),
        }
        for part in given.parts:
            yield from parts[part]

    if given.estimates:
        nothing = Filing(HERE / "none", HERE / "none", 0, about, scoring.score)
        table = [
            {"piece": p.id, "kind": p.kind, "seconds": p.estimate[0], "gib": p.estimate[1]}
            for p in every(nothing)
        ]
        scoring.write_csv(given.out or estimates.TABLE, table)
        print(
            f"{paths.shown(given.out or estimates.TABLE)}: what each piece should take on the card {profile.card!r}"
        )
        return 0
    with paths.locked(work / ".lock", wait=False) as lock:
        if not lock:
            parser.error(f"--out: expected a folder that no other call writes, got {out}")
        try:
            filing = Filing(out, work, given.budget, about, scoring.score, pool, begun)
        except ValueError as error:
            parser.error(f"--{error}")
        filing.go(every(filing))
        scoring.write_tables(out, list(filing.rows.values()), BASE)
        scoring.write_csv(out / "pieces.csv", measured(filing))
        print(shown(filing))
        print(f"\nResult files: {paths.shown(out)}")
        if pool:  # what is not scored by now stays for the next call
            pool.shutdown(wait=False, cancel_futures=True)
    return int(any(state(filing, id).startswith(("failed", "wrong")) for id in filing.rows))


def state(filing, id: str) -> str:
    """Return how a piece stands, in words."""
    row = filing.rows.get(id, {})
    if id in filing.left:
        return f"left: {filing.left[id]}"
    return f"failed: {row['failed']}" if "failed" in row else "done" if row.get("right", True) else "wrong"


def measured(filing) -> list[dict]:
    """Return a row for each piece: what it took, what was estimated, and what is left."""
    rows = []
    for id in dict.fromkeys([*filing.rows, *filing.left]):
        row = filing.rows.get(id, {})
        seconds, memory = row.get("estimate") or filing.estimates.get(id, ("", ""))
        taken = {"seconds": row.get("seconds", ""), "estimated_seconds": seconds}
        used = {"gib": row.get("peak_gib", ""), "estimated_gib": memory}
        rows.append({"piece": id, "state": state(filing, id), **taken, **used})
    return rows


def shown(filing) -> str:
    """Return the table of pieces as text, and a line of sums."""
    number = lambda value: f"{value:8.1f}" if isinstance(value, float) else f"{value!s:>8}"  # noqa: E731
    lines = [f"{'seconds':>8} {'estimate':>8} {'GiB':>8} {'estimate':>8}  piece"]
    for row in measured(filing):
        values = [number(v) for k, v in row.items() if k not in ("piece", "state")]
        note = "" if row["state"] == "done" else f"   {row['state']}"
        lines.append(f"{' '.join(values)}  {row['piece']}{note}")
    done = sum(filing.done(id) for id in filing.rows)
    spent = filing.budget - filing.remaining()
    return "\n".join([*lines, f"{done} done, {len(filing.left)} left, {spent:.0f} of {filing.budget:.0f} s"])


if __name__ == "__main__":
    sys.exit(main())

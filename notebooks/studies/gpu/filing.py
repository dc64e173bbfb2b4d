"""Pieces of work: which of them still fit, and filing each as soon as it is finished.

One JSON file a part holds a row for each finished piece. It is written whole and renamed, so a killed process
leaves every row that it filed. A training's masks are scored by other processes while the next piece runs:
they lie in the work folder until their row is filed, and a later call scores what it finds there.
"""

import concurrent.futures
import contextlib
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from consensus_lib import paths
from consensus_lib.training.devices import device_name

VERSION = 1
"""Raise when a piece measures or trains something else than before: rows of another version are not kept."""


class Piece(NamedTuple):
    """A piece of work that is done whole or not at all.

    Attributes:
        id: ``part/…``, unique.
        kind: pieces of one kind cost alike, in proportion to ``units``.
        estimate: (seconds, GiB), before anything was measured.
        run: returns the row to file, or a file of masks that the scorers make a row of.
        units: of work, such as images times epochs.
        needs: ids that must be filed before.
        keeps: a file that the piece leaves; where it is missing, the piece is done again.
    """

    id: str
    kind: str
    estimate: tuple[float, float]
    run: Callable[[], dict | Path]
    units: float = 1.0
    needs: tuple[str, ...] = ()
    keeps: Path | None = None


def commit() -> str:
    """Return the checkout's commit: ``COMMIT`` of the environment or the file, or what git says."""
    file = paths.root() / "COMMIT"
    if os.environ.get("COMMIT") or file.is_file():
        return os.environ.get("COMMIT") or file.read_text(encoding="utf-8").strip()
    return _said(
        "git", "-C", str(paths.root()), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"
    )


def machine(device: torch.device) -> dict[str, str]:
    """Return what a row says of where it was measured."""
    cuda = device.type == "cuda"
    name = device_name(device) if cuda else device.type
    gpu = {
        "driver": _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"device": name, **versions, **(gpu if cuda else {})}


class Filing:
    """Runs pieces within a budget and files them.

    Args:
        out: folder of the result files.
        work: folder of what lies between a training and its scores.
        budget: seconds from ``begun`` on.
        about: what each row says beside its results: profile, device, versions, commit, command.
        score: what the scorers do with a file of masks; returns (row, lines of its images or None).
        pool: of processes, for the scorers; None scores at once.
        begun: when this process began, by ``clock``.
        clock: tells the time.
    """

    def __init__(
        self, out: Path, work: Path, budget: float, about: dict, score: Callable[[str], tuple[dict, Any]],
        pool: concurrent.futures.Executor | None = None, begun: float | None = None,
        clock: Callable[[], float] = time.time,
    ):  # fmt: skip
        self.out, self.work, self.budget, self.about = out, work, budget, {"version": VERSION, **about}
        self.score, self.pool, self.clock = score, pool, clock
        self.begun = clock() if begun is None else begun
        self.left: dict[str, str] = {}
        self.broken = False
        self.estimates: dict[str, tuple[float, float]] = {}
        self._scoring: dict[str, concurrent.futures.Future] = {}
        files = sorted(out.glob("[0-9]-*.json"))
        found = {k: v for file in files for k, v in json.loads(file.read_text(encoding="utf-8")).items()}
        for key in ("profile", "device"):
            for other in {row[key] for row in found.values()} - {about[key]}:
                raise ValueError(f"out: expected rows of {key} {about[key]!r} in {out}, got {other!r}")
        self.rows = {id: row for id, row in found.items() if row["version"] == VERSION}
        for masks in sorted((work / "masks").glob("*.npz")):  # of a training whose scores were never filed
            self._hand_over(masks)

    def remaining(self) -> float:
        """Return the seconds that are left of the budget."""
        return self.budget - (self.clock() - self.begun)

    def cost(self, piece: Piece) -> float:
        """Return the seconds that a piece should take: as measured of its kind, else as estimated."""
        alike = [row for row in self.rows.values() if row["kind"] == piece.kind and "failed" not in row]
        if not alike:
            return piece.estimate[0]
        seconds = alike[-1]["seconds"] + alike[-1].get("scoring_seconds", 0)
        return seconds / alike[-1]["units"] * piece.units

    def done(self, id: str) -> bool:
        """Return whether a piece is filed and did not fail."""
        return "failed" not in self.rows.get(id, {"failed": ""})

    def go(self, pieces: Iterable[Piece]) -> None:
        """Run what is not done and fits, in order; then wait for the scorers, as long as there is time."""
        for piece in pieces:
            self._collect()
            self.estimates[piece.id] = piece.estimate
            if piece.id in self._scoring or (
                self.done(piece.id) and (piece.keeps is None or piece.keeps.exists())
            ):
                continue
            self._wait([need for need in piece.needs if need in self._scoring])
            cost, remaining = self.cost(piece), self.remaining()
            missing = [need for need in piece.needs if not self.done(need)]
            if self.broken:
                self.left[piece.id] = "the device no longer answers"
            elif missing:
                self.left[piece.id] = f"waits for {missing[0]}"
            elif cost > remaining:
                self.left[piece.id] = f"would take {cost:.0f} s of {max(0, remaining):.0f} s"
            else:
                self._note(piece.id, cost=cost, remaining=remaining)
                self._run(piece)
        self._wait(list(self._scoring))
        for id in self._scoring:
            self.left[id] = "trained; its masks wait for their scores"

    def _run(self, piece: Piece) -> None:
        """Run a piece, and file it or hand its masks to the scorers."""
        cuda = self.about["device"] != "cpu" and torch.cuda.is_available()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        head = {
            "id": piece.id,
            "kind": piece.kind,
            "units": piece.units,
            "estimate": [round(x, 3) for x in piece.estimate],
        }
        begin = time.perf_counter()
        try:
            made = piece.run()
            if cuda:
                torch.cuda.synchronize()
        except Exception as error:
            traceback.print_exc()
            made = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # of the process, GiB on Linux
        peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else peak
        head |= {"seconds": time.perf_counter() - begin, "peak_gib": peak, **self.about}
        head["filed"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        if isinstance(made, Path):
            # The row first, the masks' final name second: masks without a row are of a killed process.
            paths.write_json(made.with_suffix(".json"), head)
            self._hand_over(made.replace(made.with_suffix(".npz")))
        else:
            self.file(head | made)
            if cuda and "failed" in made:
                try:  # after an assertion on the device nothing runs there any more
                    torch.cuda.synchronize()
                except RuntimeError:
                    self.broken = True

    def file(self, row: dict) -> None:
        """Write a row into the file of its part."""
        self.rows.pop(row["id"], None)
        self.rows[row["id"]] = row = _short(row)
        self.left.pop(row["id"], None)
        part = row["id"].split("/")[0]
        paths.write_json(
            self.out / f"{part}.json", {id: row for id, row in self.rows.items() if id.split("/")[0] == part}
        )
        self._note(row["id"], seconds=row["seconds"], failed=row.get("failed"))

    def _hand_over(self, masks: Path) -> None:
        head = json.loads(masks.with_suffix(".json").read_text(encoding="utf-8"))
        if self.done(head["id"]) or head["version"] != VERSION:
            _remove(masks)
            return
        if self.pool is None:
            future = concurrent.futures.Future()
            future.set_result(self.score(str(masks)))
        else:
            future = self.pool.submit(self.score, str(masks))
        future.masks, future.head = masks, head
        self._scoring[head["id"]] = future

    def _collect(self) -> None:
        for id, future in list(self._scoring.items()):
            if future.done():
                del self._scoring[id]
                try:
                    scores, images = future.result()
                except Exception as error:
                    scores, images = {"failed": f"scoring: {error!r}"[:300]}, None
                if images is not None:
                    self._file_images(id, images)
                self.file(future.head | scores)
                _remove(future.masks)

    def _wait(self, ids: list[str]) -> None:
        futures = [self._scoring[id] for id in ids]
        concurrent.futures.wait(futures, timeout=max(0, self.remaining()))
        self._collect()

    def _file_images(self, id: str, images: dict) -> None:
        """Add what is known of each image, a line for each training, before the training's row is filed."""
        file = self.out / "images.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        lines = [line for line in lines if json.loads(line)["id"] != id]
        with paths.atomic(file) as part:
            part.write_text("\n".join([*lines, json.dumps({"id": id, **images})]) + "\n", encoding="utf-8")

    def _note(self, id: str, **values) -> None:
        """Add a line to the log: starts with their cost and what remained, and what was filed."""
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps({"id": id, **values}) + "\n")
        what = "starts" if "cost" in values else "failed" if values.get("failed") else "filed"
        print(f"[{self.budget - self.remaining():6.1f} s] {id}: {what}", file=sys.stderr, flush=True)


def _short(value):
    """Return a row with its numbers to six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return {k: _short(v) for k, v in value.items()} if isinstance(value, dict) else value


def _remove(masks: Path) -> None:
    masks.unlink(missing_ok=True)
    masks.with_suffix(".json").unlink(missing_ok=True)


def _said(*command: str) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip() or "unknown"
    return "unknown"

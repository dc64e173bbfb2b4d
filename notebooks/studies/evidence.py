"""Does consensus hold? Factorial, occlusion, few labels and bad labels, under the protocol of ``README.md``.

    python notebooks/studies/evidence.py --data data/lfw_labelled-128 --workers 12 --device cuda --budget 280

``--data`` is LFW Part Labels as ``make data-lfw`` prepares it, with or without the unlabelled photographs. Phase
``choose`` scores three tries of each method on the validation images and writes ``evidence-choices.csv``;
phase ``test`` takes the list from there, and refuses to run without it. ``all`` does both. ``compare`` trains nothing:
it writes ``evidence-differences.csv`` from what the others left, which takes a minute.

``evidence.csv`` has a row for each training, ``evidence-images.npz`` what was counted on each image. What
is in them is not trained again, so a study that its budget stopped goes on where it was; with several processes,
a training that cannot end within the budget is not begun. Where processes share one GPU, CUDA's
multi-process service lets their kernels run at once.
"""

import itertools
import math
import multiprocessing
import os
import shlex
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterable
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from consensus_lib import IGNORE, paths
from consensus_lib.data import FaceDataset, Splits
from consensus_lib.experiments import results
from consensus_lib.experiments.command_line import SEED, Parser, folder, number, refusing, whole
from consensus_lib.experiments.train import Config, Trained, folder_name, run
from consensus_lib.losses import fused
from consensus_lib.metrics.components import count_by_class
from consensus_lib.metrics.structure import StructureScores
from consensus_lib.models.networks import FaceOccNet, MostFrequentLabel, check_network
from consensus_lib.models.postprocess import POSTPROCESSING, options_at
from consensus_lib.training.devices import pick_device
from consensus_lib.training.trainer import evaluate, predict
from evidence_choices import choose, chosen
from evidence_data import segments_file, splits
from evidence_plan import (
    BY_SIZE,
    CE,
    CONSTANT,
    FACES,
    FEW,
    METHODS,
    PARTS,
    PHOTOGRAPHS,
    SEEDS,
    SUPERVISED,
    TEACHER,
    THEN,
    UNLABELLED_TOO,
    WITHOUT_LABELS,
    Job,
    choosing,
    testing,
    trained,
)
from evidence_tables import FOLLOWED, KEPT, write_tables

COUNTED = {
    "confusion": np.uint16,
    "row_component_error": np.uint16,
    "row_hole_error": np.uint16,
    "row_boundary_f1_2": np.float16,
}
"""What is kept of each image, and as what: see ``SegmentationScores.save``."""
FOLDER = Path(__file__).parent


class Setting(NamedTuple):
    """What all trainings of a call share; see ``--help``."""

    data: str
    size: int
    width: float
    batch: int
    images: int
    faces: tuple[int, int, int]
    epochs: int
    choose_epochs: int
    face_epochs: int
    device: str


def open_data(job: Job, setting: Setting, data: str = "") -> Splits:
    """Open the job's data, or other ``data`` as it would; a teacher is trained first where it labels them."""
    data, teacher = data or job.data, None
    if data == TEACHER:
        first = Job("few", FEW[0], CE, "", job.seed, "validation")
        teacher = fitted(first, open_data(first, setting), setting).folder
    shared = setting.data, setting.size, setting.images, setting.faces
    return splits(data, *shared, job.seed, job.scored, teacher)


def fitted(job: Job, data: Splits, setting: Setting) -> Trained:
    """Train the job's network on its data, or find it trained."""
    epochs = {"choose": setting.choose_epochs, "occlusion": setting.face_epochs}.get(job.part, setting.epochs)
    batch = setting.batch
    if job.data.endswith(UNLABELLED_TOO):  # two images for one, and as many steps as without
        labelled = len(open_data(job, setting, PHOTOGRAPHS).train)
        batch, epochs = 2 * batch, max(1, round(2 * epochs * labelled / len(data.train)))
    config = Config(
        loss=job.loss(),
        title=trained(job.method),
        epochs=epochs,
        batch_size=batch,
        learning_rate=job.rate,
        width=setting.width,
        precision="float32",
        seed=job.seed,
    )
    out = paths.runs_dir() / "evidence" / folder_name(config, data)
    how = {"device": setting.device, "workers": 0, "progress": False}
    if job.data != PHOTOGRAPHS:  # part `epochs` wants the scores of all, and only of those
        how["evaluate_every"] = epochs
    with paths.locked(out.with_name(f".{out.name}.lock")):  # several repairs ask for one network
        return run(config, data, out=out, scores=StructureScores, notebook="evidence", **how)


def train(job: Job, setting: Setting) -> tuple[Job, dict, dict[str, np.ndarray]]:
    """Train one network, or find it trained; return the job, its row, and what was counted of each image."""
    about = {"failed": "", "size": setting.size, "width": setting.width, "batch": setting.batch}
    data, more = open_data(job, setting), {}
    if job.method == CONSTANT:
        scores = evaluate(MostFrequentLabel(data.train), data.test, scores=StructureScores)
        known = {"seconds": 0.0, "epochs": 0, "rate": 0.0, "device": ""}
        out = paths.runs_dir() / "evidence" / f"constant-{data.test.fingerprint}"
    else:
        try:
            made = fitted(job, data, setting)
        except FloatingPointError as error:
            return job, job._asdict() | about | {"failed": str(error)}, {}
        scores, last, out = made.scores, made.history[-1], made.folder
        if THEN in job.method:
            scores = evaluate(repaired(job, made.network, setting), data.test, scores=StructureScores)
        known = {"seconds": last["seconds"], "validation_mean_iou": last["mean_iou"]}
        known |= {"epochs": last["epoch"], "rate": job.rate, "device": results.read_results(out)[0]["device"]}
        if job.part == "epochs":
            more = followed(made, data.test)
    file = out / f"counted-{job.scored}{job.method.partition(THEN)[2]}.npz"
    scores.save(file)
    with np.load(file) as counted:
        arrays = {key: counted[key].astype(kind) for key, kind in COUNTED.items()} | more
    found = scores.compute()
    shown = {key: value for key, value in found.items() if key in KEPT or key.startswith("iou_")}
    about |= {"images": found["images"], "train_images": len(data.train)}
    return job, job._asdict() | about | shown | known, arrays


def followed(made: Trained, test: FaceDataset) -> dict[str, np.ndarray]:
    """Return the scores after each epoch ``[E,scores]``, and each image's component error by class ``[N,K-1]``."""
    truth = np.stack([sample["labels"].numpy() for sample in map(test.__getitem__, range(len(test)))])
    maps = np.stack([truth, predict(made.network, test).numpy()])  # [2, N, H, W]
    maps[:, truth == IGNORE] = 0
    pieces = np.stack([count_by_class(one, len(test.task.classes))[:, 1:, 0] for one in maps])
    scores = [[row[score] for score in FOLLOWED] for row in made.history]
    return {"epochs": np.array(scores, np.float32), "by_class": abs(pieces[1] - pieces[0]).astype(np.uint16)}


def prepare(job: Job, setting: Setting) -> None:
    """Make what the job is trained on, where it is not made yet."""
    open_data(job, setting)


def timed(job: Job, setting: Setting) -> tuple[tuple, float]:
    """Return what :func:`train` does, and its seconds: a new process's start is not among them."""
    since = time.monotonic()
    return train(job, setting), time.monotonic() - since


def repaired(job: Job, network: torch.nn.Module, setting: Setting) -> torch.nn.Module:
    """Return the network with the job's repair of its predictions."""
    key = next(key for key, one in POSTPROCESSING.items() if one.title == job.method.partition(THEN)[2])
    return POSTPROCESSING[key].make(network, **options_at(setting.size).get(key, {}))


class Record:
    """All trainings so far: their rows, and what was counted, in two files."""

    def __init__(self, out: Path, command: str):
        import pandas as pd

        self.table, self.images, self.command = out / "evidence.csv", out / "evidence-images.npz", command
        self.rows, self.arrays = {}, {}
        made = results.provenance()
        self.commit = made["commit"] or f"source {made['source']}"
        if self.table.is_file() and self.images.is_file():
            for row in pd.read_csv(self.table, dtype={"setting": str}, keep_default_na=False).to_dict(
                "records"
            ):
                self.rows[Job(*(row[name] for name in Job._fields)).id] = row
            with np.load(self.images) as kept:
                self.arrays = {key: kept[key] for key in kept.files}

    def add(self, job: Job, row: dict, arrays: dict[str, np.ndarray]) -> None:
        """Keep a training."""
        self.rows[job.id] = row | {"commit": self.commit}
        self.arrays |= {f"{job.id}|{key}": value for key, value in arrays.items()}

    def check(self, parser: Parser, setting: Setting) -> None:
        """Refuse to add to trainings of another size."""
        for row in self.rows.values():
            known, asked = (row["size"], row["width"], row["batch"]), setting[1:4]
            if known != asked:
                parser.error(f"--out: expected trainings of size, width, batch {asked}, got {known}")

    def save(self) -> None:
        """Write both files."""
        if self.rows:
            order = sorted(self.rows.values(), key=lambda row: row["scored"] != "validation")
            rows = [{k: v for k, v in row.items() if k != "command"} for row in order]
            with paths.atomic(self.images) as part, part.open("wb") as stream:
                np.savez_compressed(stream, **self.arrays)
            results.write_table(self.table, rows, self.command)


def begin(equations: bool = False) -> None:
    """Prepare a process: one thread; the equations in place of the operator where its kernels do not build."""
    torch.set_num_threads(1)
    if equations:
        fused.serves = lambda logits: False


def kernels_build(device: torch.device, size: int) -> bool:
    """Say whether the loss's kernels can be built there; those built are kept on disk for other processes."""
    logits = torch.zeros(16, 3, size, size, device=device).to(memory_format=torch.channels_last)
    try:
        METHODS[BY_SIZE].make(beta=1.0)(logits.requires_grad_(), logits.argmax(1)).backward()
        torch.cuda.synchronize(device)
    except Exception as error:  # a compiler that is missing, in whatever way it is said
        print(f"the equations are used: the kernels do not build: {type(error).__name__}: {error}")
        return False
    return True


def work(jobs: Iterable[Job], setting: Setting, record: Record, pool, workers: int, deadline: float) -> bool:
    """Train what is not recorded yet, in order, until the deadline; say whether all is recorded."""
    left = [job for job in jobs if job.id not in record.rows]
    first = {(job.data, job.seed): job for job in reversed(left) if job.method != CONSTANT}
    making = pool.starmap_async(prepare, [(job, setting) for job in first.values()], chunksize=1)
    while not making.ready() and time.monotonic() < deadline:  # else several trainings wait for the same data
        time.sleep(0.05)
    running: dict[str, tuple] = {}
    last: dict[str, deque] = {}  # seconds of the last trainings of each part
    saved = time.monotonic()
    while (left or running) and time.monotonic() < deadline:
        now = time.monotonic()
        seconds = last.get(left[0].part) or list(itertools.chain(*last.values())) if left else []
        if left and now + 1.1 * max(seconds, default=0.0) > deadline:
            left = []
        elif left and len(running) < workers:
            job = left.pop(0)
            running[job.id] = job, pool.apply_async(timed, (job, setting))
        else:
            time.sleep(0.05)
        for key, (job, result) in list(running.items()):
            if result.ready():
                del running[key]
                try:
                    found, took = result.get()
                except Exception:  # one training's error is no reason to lose the others
                    traceback.print_exc()
                    continue
                record.add(*found)
                last.setdefault(job.part, deque(maxlen=workers)).append(took)
                print(f"{took:6.1f} s  {len(left):4} left  {job.id}", flush=True)
        if time.monotonic() - saved > 60:
            record.save()
            saved = time.monotonic()
    record.save()
    return all(job.id in record.rows for job in jobs)


def main(argv: list[str] | None = None, table: Path = FOLDER / "evidence.csv") -> None:
    """Run the study and write its tables."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="lfw_part_labels", help="name or folder of LFW Part Labels")
    parser.add_argument(
        "--phase", default="all", choices=["choose", "test", "all", "compare"], help="what to do"
    )
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="of the test, in order")
    methods = METHODS | WITHOUT_LABELS
    parser.add_argument("--methods", nargs="+", default=list(methods), choices=methods, help="to train")
    parser.add_argument(
        "--seeds", nargs="+", type=whole(1, SEED), default=SEEDS, help="of the test; 0 chooses"
    )
    parser.add_argument("--epochs", type=whole(1), default=15, help="passes over the photographs")
    parser.add_argument("--choose-epochs", type=whole(1), default=8, help="the same, in phase choose")
    parser.add_argument("--face-epochs", type=whole(1), default=6, help="passes over the covered faces")
    parser.add_argument("--images", type=whole(0), default=0, help="photographs to train on; 0 takes all")
    parser.add_argument(
        "--faces", nargs=3, type=whole(1), default=(3000, 300, 500), help="to train, to validate, to test"
    )
    parser.add_argument("--size", type=whole(1), default=64, help="side of the images in pixels")
    parser.add_argument("--width", type=number(0), default=0.25, help="factor on the network's channels")
    parser.add_argument("--batch", type=whole(1), default=16, help="images a step")
    parser.add_argument(
        "--device", default="auto", choices=["auto", "cpu", "cuda", "mps"], help="to train on"
    )
    parser.add_argument("--workers", type=whole(1), default=1, help="trainings side by side")
    parser.add_argument(
        "--budget", type=number(0), default=math.inf, help="seconds; all that ends in it is done"
    )
    parser.add_argument("--out", type=folder, default=table.parent, help="folder of the tables")
    argv = sys.argv[1:] if argv is None else argv
    a = parser.parse_args(argv)
    begun = time.monotonic()
    with refusing(parser):
        check_network(FaceOccNet, a.size, a.width)
    for base in (CE, SUPERVISED) if WITHOUT_LABELS.keys() & set(a.methods) else (CE,):
        if base not in a.methods:
            parser.error(f"--methods: expected {base!r} among them, got {a.methods}")
    choices = a.out / "evidence-choices.csv"
    if a.phase == "test" and not choices.is_file():
        parser.error(f"--phase test: expected {paths.shown(choices)}, which --phase choose writes")
    a.out.mkdir(parents=True, exist_ok=True)
    record = Record(a.out, shlex.join(["python", "notebooks/studies/evidence.py", *argv]))
    if a.phase == "compare":
        write_tables(a.out, record.rows, record.arrays, record.command)
        return
    faces = tuple(a.faces)
    setting = Setting(
        a.data, a.size, a.width, a.batch, a.images, faces, a.epochs, a.choose_epochs, a.face_epochs, a.device
    )
    record.check(parser, setting)
    with refusing(parser):  # decoded and rendered once, before many processes ask for it
        splits(PHOTOGRAPHS, a.data, a.size, a.images, faces, 0, "test")
    if "occlusion" in a.parts and a.phase != "choose":
        splits(FACES, a.data, a.size, a.images, faces, 0, "test")
    with pool_of(a.workers, a.device, a.size) as pool:
        if "unlabelled" in a.parts and WITHOUT_LABELS.keys() & set(a.methods):
            segments_file(splits(PHOTOGRAPHS, a.data, a.size, a.images, faces, 0, "test").train, pool.imap)
        shared = setting, record, pool, a.workers, begun + a.budget
        known = chosen(choices)[0] if choices.is_file() else {}
        wanted = [name for name in a.methods if name in METHODS or "unlabelled" in a.parts]
        if a.phase != "test" and set(wanted) - known.keys() and work(choosing(wanted), *shared):
            choose(record.rows, list(dict.fromkeys([*known, *wanted])), choices, record.command)
        if a.phase != "choose" and choices.is_file():
            found, best = chosen(choices)
            found = {name: tried for name, tried in found.items() if name in a.methods}
            work(testing(found, best, a.parts, a.seeds), *shared)
    print(f"{len(record.rows)} trainings in {paths.shown(record.table)}, {time.monotonic() - begun:.0f} s")


def pool_of(workers: int, device: str, size: int):
    """Return a pool of so many new processes with one thread each, or of this process alone."""
    found = pick_device(device)
    equations = found.type == "cuda" and not kernels_build(found, size)
    if workers == 1:
        begin(equations)
        return ThreadPool(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    return multiprocessing.get_context("spawn").Pool(workers, begin, (equations,))


if __name__ == "__main__":
    main()

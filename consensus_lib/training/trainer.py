"""Training: ``fit``, ``evaluate``, ``predict`` and checkpoints, for any network and any loss.

The trainer calls ``loss(logits, labels)`` and knows nothing of what is inside. Whatever is random depends
on (seed, epoch), never on what ran before, so a run that is interrupted and resumed ends on the CPU with
the same bits as one that was not. On another kind of machine it goes on in the precision in which it began,
and the history keeps what differed.

Started by ``torchrun``, or wherever a process group
is initialised, the processes share the work; a checkpoint does not tell how many they were. Each takes an
equal part of every batch, and the gradient is the mean of theirs: that of one process, to rounding, where
the loss is a mean over images, as Eq. 8 is if each holds a blob. What differs: a mean over the batch's
labelled pixels becomes the mean of the parts' means, which weighs a part with many ignored pixels too much;
``reduction="released"`` joins blobs over a part only; dropout draws other masks; and batch normalisation,
synchronised on CUDA, takes its statistics from a part elsewhere.
"""

import contextlib
import functools
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm import tqdm

from consensus_lib.data import FaceDataset, loader
from consensus_lib.losses.blobs import Blobs
from consensus_lib.metrics.segmentation import SegmentationScores
from consensus_lib.metrics.stability import flicker
from consensus_lib.models.networks import NETWORKS
from consensus_lib.paths import atomic, write_json
from consensus_lib.training import distributed
from consensus_lib.training.settings import (
    UNCLEAR,
    describe,
    describe_network,
    describe_optimizer,
    describe_schedule,
    follows_progress,
)

STATE, HISTORY, BEST = "checkpoint.json", "history.jsonl", "best.safetensors"
"""Names in a training folder: the state to resume from, one line for each epoch, the best weights."""

FORMAT = 2
"""Of the state. What an earlier format says of a training is too little to compare settings."""


class CheckpointError(ValueError):
    """A checkpoint is missing, broken, or belongs to another training."""


def pick_device(name: str = "auto") -> torch.device:
    """Return the device called ``name``; ``"auto"`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        ValueError: the name is unknown or the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # the device "meta" has no values
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device: expected 'auto' or a device of this machine, got {name!r} ({reason})"
        ) from None
    return device


def device_name(device: torch.device) -> str:
    """Return the device as a result file names it: the GPU's name, or the CPU and its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def pick_precision(name: str, device: torch.device) -> str:
    """Return ``"float32"`` or ``"bfloat16"``; ``"auto"`` takes bfloat16 where the device has it natively.

    On a CPU that means the AVX-512 BF16 instructions, on CUDA compute capability 8.0 and later. Weights,
    optimiser and loss stay in float32 either way.

    Raises:
        ValueError: the name is unknown, or the device cannot compute in this precision.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision: expected 'auto', 'float32' or 'bfloat16', got {name!r}")
    if name != "auto":
        if not can_run(name, device):
            raise ValueError(f"precision: expected 'auto' or 'float32' on {device}, got {name!r}")
        return name
    if device.type == "cuda":
        gains = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        gains = device.type == "cpu" and native()
    return "bfloat16" if gains else "float32"


def can_run(precision: str, device: torch.device) -> bool:
    """Say whether a convolution and its gradient can be computed in this precision, natively or emulated.

    torch emulates bfloat16 on CPUs without instructions for it: right, but several times slower than float32.
    """
    if precision == "float32":
        return True
    image = torch.ones(1, 1, 3, 3, device=device, requires_grad=True)
    try:
        with torch.autocast(device.type, getattr(torch, precision)):
            nn.functional.conv2d(image, image).sum().backward()
    except RuntimeError:
        return False
    return True


def cosine(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """Return a schedule that warms up over the first 5% of ``steps`` and falls to 0 along a cosine."""
    warm = max(1, steps // 20)
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, 0.5 + 0.5 * np.cos(np.pi * min(step / steps, 1.0)))
    )


def fit(
    model: nn.Module,
    data: FaceDataset,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    epochs: int,
    batch_size: int = 32,
    validation: FaceDataset | None = None,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
    schedule: Callable[[torch.optim.Optimizer, int], LRScheduler] | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,
    clip: float | None = None,
    patience: int | None = None,
    monitor: str = "mean_iou",
    evaluate_every: int = 1,
    workers: int = 0,
    out: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    on_epoch: Callable[[list[dict]], Any] | None = None,
) -> list[dict]:
    """Train ``model`` in place and return its history.

    Where a ``torch.distributed`` process group is initialised, every process calls this with the same
    arguments, but for its ``device``: see the top of this module and :mod:`.distributed`. All
    end with the same weights and history; the first one writes, and ``out`` is a folder that all can read.

    Args:
        model: any network from images ``[B,3,H,W]`` to logits ``[B,K,H,W]``. Left on ``device`` with the
            last weights, or with the best ones where ``patience`` is given.
        data: the training samples.
        loss: a function or module of (logits, labels) that returns a scalar. If it has an attribute
            ``progress``, that is set before each step to the share of all steps done, for schedules; if
            it has ``inputs``, the batch's entries of these names are handed to it by keyword.
        epochs: passes over ``data``. A training that is resumed may be given another number if nothing
            depends on it: ``schedule`` is None and no setting of the loss is a function of ``progress``. The
            weights are then those of a training with that number from the start; an evaluation of what was
            the last epoch stays.
        batch_size: images a step, of all processes together.
        validation: samples to score; None scores nothing.
        optimizer: makes the optimiser from the parameters; None is Adam at 1e-3.
        schedule: makes the learning-rate schedule from (optimiser, total steps); stepped after every
            step, or, for ``ReduceLROnPlateau``, with the monitored score after every evaluation; that takes
            higher for better here, whatever its ``mode`` is.
        seed: of the dropout, which also differs by process; order and augmentation follow the data set's
            own seed.
        device: see :func:`pick_device`.
        precision: of the forward pass; see :func:`pick_precision`. Resumed, ``"auto"`` keeps that of the
            checkpoint, unless :func:`can_run` says that the device cannot; a training does not change to
            another one that is asked for.
        compile: run the network through ``torch.compile``.
        clip: largest norm of the gradient; None does not clip.
        patience: stop after so many evaluations without a better ``monitor``.
        monitor: the validation score (higher is better) for ``patience`` and the best weights.
        evaluate_every: epochs from one evaluation to the next; the last epoch is always evaluated.
        workers: processes that load data, for each that trains.
        out: folder for the checkpoint, the best weights and the history; None keeps nothing.
        resume: go on from the checkpoint in ``out``, if there is one of the same settings, on any kind of
            machine and with any number of processes. False starts anew over it.
        progress: show a bar of epochs.
        on_epoch: called with the history after each epoch, for live curves; in every process.

    Returns:
        One dictionary for each epoch: ``epoch`` (from 1), ``step``, ``precision``, ``loss`` (mean), ``lr``,
        ``seconds`` (training so far, evaluation apart), ``images_per_second``; after an evaluation also
        ``evaluation_seconds`` and all scores of :meth:`SegmentationScores.compute`. Where the training went
        on under other conditions, ``changes`` says which: a list such as ``["device: A100 → V100"]``.

    Raises:
        ValueError: an argument is outside what is said above.
        CheckpointError: ``out`` holds a training with other settings, or of a network with other tensors, or
            nobody can tell because a setting cannot be described (see :mod:`.settings`). The
            folder and the weights of ``model`` stay what they were.
        FloatingPointError: the loss is no longer finite; the last good epoch stays in ``out``.
    """
    _check_fit(epochs, batch_size, evaluate_every, patience, validation)
    share = distributed.share()
    loader(data, batch_size, shuffle=True, share=share)  # refuses a batch that cannot be shared
    device = pick_device(device)
    automatic, precision = precision == "auto", distributed.from_first(pick_precision(precision, device))
    model.to(device, memory_format=torch.channels_last)
    steps_an_epoch = max(1, len(data) // batch_size)
    optimizer = (optimizer or _adam)(model.parameters())
    described = describe_optimizer(optimizer, model)  # before the schedule sets its first rates
    schedule = schedule(optimizer, epochs * steps_an_epoch) if schedule else None
    if isinstance(schedule, ReduceLROnPlateau) and schedule.mode == "min":
        schedule.load_state_dict({"mode": "max", "best": -math.inf})
    settings = {
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
        "precision": precision,
        "clip": clip,
        "loss": describe(loss),
        "data": data.fingerprint,
        "task": data.task.name,
        "samples": len(data),
        "size": data.size,
        "data_seed": data.seed,
        "augment": repr(data.augment),
        "model": describe_network(model),
        "optimizer": described,
        "schedule": describe_schedule(schedule, epochs * steps_an_epoch),
    }
    run = _Run(
        model,
        optimizer,
        schedule,
        settings,
        data.task.classes,
        Path(out) if out is not None else None,
        device,
    )
    run.start(resume, automatic, planned=schedule is not None or follows_progress(loss))
    precision = settings["precision"]

    batches = loader(
        data, batch_size, shuffle=True, workers=workers, first_epoch=len(run.history), share=share
    )
    network = distributed.parallel(model, device)
    network = torch.compile(network) if compile else network
    shown = progress and distributed.rank() == 0
    bar = tqdm(total=epochs, initial=len(run.history), desc="epochs", disable=not shown, leave=False)
    with bar, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        while len(run.history) < epochs and not run.exhausted(patience):
            epoch = len(run.history) + 1
            entropy = seed, epoch, distributed.rank()
            torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
            passed = len(run.history) / epochs, 1 / epochs
            row = _epoch(network, batches, loss, optimizer, schedule, device, precision, clip, passed)
            distributed.average_buffers(model)
            row = {"epoch": epoch, "step": epoch * steps_an_epoch, "precision": precision, **row}
            row["seconds"] += run.history[-1]["seconds"] if run.history else 0.0
            if not np.isfinite(row["loss"]):
                raise FloatingPointError(
                    f"loss: expected a finite mean over epoch {epoch}, got {row['loss']}; "
                    f"the state after epoch {epoch - 1} is kept in {out}"
                )
            if validation is not None and (epoch % evaluate_every == 0 or epoch == epochs):
                begin = time.perf_counter()
                scores = evaluate(model, validation, batch_size=2 * batch_size).compute()
                if monitor not in scores:
                    raise ValueError(f"monitor: expected one of {sorted(scores)}, got {monitor!r}")
                row |= {"evaluation_seconds": time.perf_counter() - begin, **scores}
                if isinstance(schedule, ReduceLROnPlateau):
                    schedule.step(scores[monitor])
            if run.changes:
                row["changes"], run.changes = run.changes, []
            row = distributed.from_first(row)  # times differ
            run.finish_epoch(row, row.get(monitor))
            bar.set_postfix({k: f"{row[k]:.3f}" for k in ("loss", monitor) if k in row})
            bar.update()
            if on_epoch:
                on_epoch(run.history)
    distributed.from_first(None)  # what the first process writes is there when any returns
    if patience is not None:
        run.restore_best()
    return run.history


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    data: FaceDataset,
    *,
    batch_size: int = 64,
    workers: int = 0,
    progress: bool = False,
    scores: type[SegmentationScores] = SegmentationScores,
) -> SegmentationScores:
    """Score ``model`` on every sample of ``data``, in float32, on the device where the model is.

    Several processes share the samples, and all return the scores of all of them: every process must call
    it, or those that did will wait. ``batch_size`` and ``workers`` are as for :func:`fit`.

    Args:
        scores: which ones; :class:`consensus_lib.metrics.structure.StructureScores` are more, and slower.

    Returns:
        The scores; call ``compute()`` for the table and ``per_image()`` for statistics. Their order is
        that of ``data``.
    """
    counted = scores(data.task.classes)
    share = rank, _ = distributed.share()
    for batch, predicted in _predictions(model, data, batch_size, workers, progress and rank == 0, share):
        counted.update(predicted, batch["labels"], batch.get("superpixels"))
    return scores.joined(distributed.gathered(counted))


@torch.inference_mode()
def predict(model: nn.Module, data: FaceDataset, *, batch_size: int = 64) -> torch.Tensor:
    """Return the predicted classes of every sample of ``data``, uint8 ``[N,H,W]`` on the CPU.

    Nothing is shared: each of several processes that calls it predicts every sample.
    """
    return torch.cat(
        [predicted.to("cpu", torch.uint8) for _, predicted in _predictions(model, data, batch_size, 0, False)]
    )


@torch.inference_mode()
def measure_flicker(
    model: nn.Module, data: FaceDataset, *, batch_size: int = 64, progress: bool = False, **moves
) -> dict[str, np.ndarray]:
    """Return how much of what ``model`` predicts changes when the images of ``data`` move a little.

    It takes a pass for each move and one more. Several processes share the samples as in :func:`evaluate`.

    Args:
        moves: ``shifts``, ``angles`` and ``border`` of :func:`consensus_lib.metrics.stability.flicker`.

    Returns:
        One value for each image, in the order of ``data``; see there.
    """
    share = rank, _ = distributed.share()
    parts = []
    with evaluating(model) as see:
        batches = loader(data, batch_size, share=share)
        for batch in tqdm(batches, "flicker", disable=not (progress and rank == 0), leave=False):
            parts.append(flicker(see, batch["image"], **moves))
    parts = list(itertools.chain.from_iterable(distributed.gathered(parts)))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def load_checkpoint(
    path: str | Path, model: nn.Module | None = None, *, best: bool = False, device: str = "cpu"
) -> tuple[nn.Module, dict]:
    """Load a trained network from a training folder.

    Args:
        path: the folder that was ``out`` of :func:`fit`.
        model: the network to load into; None makes the one of ``networks.NETWORKS`` that the checkpoint
            describes.
        best: take the best weights on the validation data instead of the last ones.
        device: where to put the network.

    Returns:
        The network in evaluation mode, and the record that lies beside the weights: ``settings``,
        ``classes``, ``epoch``, ``best_score``, ``best_epoch``.

    Raises:
        CheckpointError: there is none, it is broken, or it does not fit ``model``.
    """
    folder = Path(path)
    state = _read_state(folder)
    file = folder / (BEST if best else state["weights"])
    tensors = _read_tensors(file)
    if model is None:
        config = dict(state["settings"]["model"])
        network = NETWORKS.get(config.pop("name"))
        if network is None:
            raise CheckpointError(
                f"model: expected to be given for a checkpoint of {state['settings']['model']}"
            )
        model = network(**config)
    try:
        model.load_state_dict(_part(tensors, "model"))
    except RuntimeError as error:
        raise CheckpointError(
            f"{file}: expected the weights of {type(model).__name__}, got others: {error}"
        ) from None
    return model.to(pick_device(device), memory_format=torch.channels_last).eval(), state


class _Run:
    """What a training keeps between epochs, in memory and, where ``out`` is given, on disk."""

    def __init__(self, model, optimizer, schedule, settings, classes, out: Path | None, device: torch.device):
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.settings, self.classes, self.out, self.device = settings, list(classes), out, device
        self.machine = {"device": device_name(device), "processes": distributed.world()}
        self.history: list[dict] = []
        self.changes: list[str] = []
        self.best_score, self.best_epoch, self.evaluations_since_best = None, 0, 0
        self._best: dict[str, torch.Tensor] = {}
        self.writes = out is not None and distributed.rank() == 0

    def start(self, resume: bool, automatic: bool, planned: bool) -> None:
        """Load or write the state. ``settings`` then say the precision and the epochs of what comes."""
        if self.out is None:
            return
        # As the first process sees it: the others might already see what it writes.
        if distributed.from_first(resume and (self.out / STATE).is_file()):
            self._load(_read_state(self.out), automatic, planned)
        elif self.writes:
            # The state before the first epoch: an interrupt in the middle of it can be resumed, too.
            self._save()

    def exhausted(self, patience: int | None) -> bool:
        return patience is not None and self.evaluations_since_best >= patience

    def finish_epoch(self, row: dict, score: float | None) -> None:
        self.history.append(row)
        if score is not None:
            self.evaluations_since_best += 1
            if self.best_score is None or score > self.best_score:
                self.best_score, self.best_epoch, self.evaluations_since_best = score, row["epoch"], 0
                self._best = _named("model", {k: v.clone() for k, v in self.model.state_dict().items()})
                if self.writes:
                    _save_tensors(self._best, self.out / BEST)
        if self.writes:
            self._save()

    def restore_best(self) -> None:
        tensors = self._best or (_read_tensors(self.out / BEST) if self.best_epoch else {})
        if tensors:
            self.model.load_state_dict(_part(tensors, "model"))

    def _save(self) -> None:
        """Write the weights under a new name, then the record that points to them, then drop the old."""
        self.out.mkdir(parents=True, exist_ok=True)
        weights = self.out / f"checkpoint-{len(self.history):04d}.safetensors"
        optimizer = self.optimizer.state_dict()
        tensors = _named("model", self.model.state_dict())
        for index, state in optimizer["state"].items():
            tensors |= _named(f"optimizer.{index}", {k: torch.as_tensor(v) for k, v in state.items()})
        _save_tensors(tensors, weights)
        with atomic(self.out / HISTORY) as part:
            part.write_text("".join(json.dumps(row) + "\n" for row in self.history), encoding="utf-8")
        write_json(
            self.out / STATE,
            {
                "format": FORMAT,
                "settings": self.settings,
                "machine": self.machine,
                "classes": self.classes,
                "epoch": len(self.history),
                "weights": weights.name,
                "best_score": self.best_score,
                "best_epoch": self.best_epoch,
                "evaluations_since_best": self.evaluations_since_best,
                "optimizer": optimizer["param_groups"],
                "schedule": _plain(self.schedule.state_dict()) if self.schedule else None,
            },
        )
        for old in self.out.glob("checkpoint-*.safetensors"):
            if old != weights:
                old.unlink()

    def _load(self, state: dict, automatic: bool, planned: bool) -> None:
        anew = "take another folder, or start anew with resume=False (--restart)"
        if state.get("format") != FORMAT:
            raise CheckpointError(
                f"{self.out}: expected a checkpoint of format {FORMAT}, got one of another version of this "
                f"library, which can be loaded but not resumed; {anew}"
            )
        for key, text in self.settings.items():
            if UNCLEAR.search(str(text)):
                raise CheckpointError(
                    f"{key}: expected a function of a module, functools.partial of one, or an object whose "
                    f"repr shows its settings, got {text}: nobody can tell whether the training in "
                    f"{self.out} had the same; {anew}"
                )
        saved, other = state["settings"], []
        tensors = _read_tensors(self.out / state["weights"])
        ours = json.loads(json.dumps(self.settings))
        for key, value in ours.items():
            if (known := saved.get(key)) == value:
                continue
            if key == "schedule" and planned and saved["epochs"] != ours["epochs"]:
                continue  # that is why, and it is said already
            text = f"{key}: expected {known!r}, got {value!r}"
            if key == "precision" and automatic:
                if can_run(known, self.device):
                    self.settings[key] = known
                else:
                    self.changes.append(f"{key}: {known} → {value}")
            elif key == "precision":
                other.append(f"{text} ('auto' goes on in {known})")
            elif key == "epochs" and planned:
                other.append(f"{text} (the schedule of the rate or of the loss was planned for {known})")
            elif key == "epochs" and value >= state["epoch"]:
                self.changes.append(f"{key}: {known} → {value}")
            else:
                other.append(text)
        other += _different(_part(tensors, "model"), self.model.state_dict())[:1]
        if other:
            raise CheckpointError(
                f"{self.out} holds a training with other settings ({'; '.join(other)}); {anew}"
            )
        machine = state["machine"]
        self.changes += [f"{k}: {machine[k]} → {v}" for k, v in self.machine.items() if machine[k] != v]
        self.model.load_state_dict(_part(tensors, "model"))
        count = len(list(self.model.parameters()))
        states = {i: _part(tensors, f"optimizer.{i}") for i in range(count)}
        self.optimizer.load_state_dict(
            {"state": {i: s for i, s in states.items() if s}, "param_groups": state["optimizer"]}
        )
        if self.schedule:
            self.schedule.load_state_dict(_from_plain(state["schedule"]))
        self.best_score, self.best_epoch = state["best_score"], state["best_epoch"]
        self.evaluations_since_best = state["evaluations_since_best"]
        lines = (self.out / HISTORY).read_text(encoding="utf-8").splitlines()
        self.history = [json.loads(line) for line in lines[: state["epoch"]]]


def _epoch(network, batches, loss, optimizer, schedule, device, precision, clip, passed) -> dict:
    """Make one pass over the batches and return its mean loss, rate and time."""
    network.train()
    begin, images = time.perf_counter(), 0
    total = torch.zeros((), dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
    rate = optimizer.param_groups[0]["lr"]
    moved = functools.partial(_to_device, device=device)
    for step, batch in enumerate(batches):
        if hasattr(loss, "progress"):  # of epoch and step alone, so that a resumed training goes on exactly
            loss.progress = passed[0] + passed[1] * step / len(batches)
        image, labels = (moved(batch[name]) for name in ("image", "labels"))
        more = {name: moved(batch[name]) for name in getattr(loss, "inputs", ()) if name in batch}
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(image)
        value = loss(logits.float(), labels, **more)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()
        if schedule is not None and not isinstance(schedule, ReduceLROnPlateau):
            schedule.step()
        total += value.detach() * len(image)  # stays on the device: no wait in each step
        images += len(image)
    images *= distributed.world()  # their shares are equal
    mean = float(distributed.summed(total)) / images
    seconds = time.perf_counter() - begin
    return {"loss": mean, "lr": rate, "seconds": seconds, "images_per_second": images / seconds}


def _predictions(model, data, batch_size, workers, progress, share=(0, 1)):
    with evaluating(model) as see:
        batches = loader(data, batch_size, workers=workers, share=share)
        for batch in tqdm(batches, "evaluate", disable=not progress, leave=False):
            yield batch, see(batch["image"])


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """Put ``model`` in evaluation mode for a while.

    Yields:
        A function from images float ``[B,3,H,W]`` to classes int64 ``[B,H,W]`` on the device of the model.
    """
    device = next(itertools.chain(model.parameters(), model.buffers())).device
    was_training = model.training
    model.eval()
    try:
        yield lambda images: model(_to_device(images, device)).argmax(1)
    finally:
        model.train(was_training)


def _to_device(part: torch.Tensor | Blobs, device: torch.device) -> torch.Tensor | Blobs:
    part = part.to(device, non_blocking=True)
    image = isinstance(part, torch.Tensor) and part.dim() == 4
    return part.contiguous(memory_format=torch.channels_last) if image else part


def _check_fit(epochs, batch_size, evaluate_every, patience, validation) -> None:
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("evaluate_every", evaluate_every)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if patience is not None and (patience < 1 or validation is None):
        raise ValueError(
            f"patience: expected at least 1, and validation data, got {patience} and {validation}"
        )


def _adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-3)


def _different(known: dict[str, torch.Tensor], ours: dict[str, torch.Tensor]) -> list[str]:
    """Return in what names, types and shapes of a network's tensors differ, one text each."""
    texts = [
        {
            name: f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
            for name, tensor in part.items()
        }
        for part in (known, ours)
    ]
    names = dict.fromkeys([*ours, *known])
    pairs = {name: [text.get(name, "none") for text in texts] for name in names}
    return [f"model.{name}: expected {a}, got {b}" for name, (a, b) in pairs.items() if a != b]


def _read_state(folder: Path) -> dict:
    try:
        return json.loads((folder / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: expected a training folder with {STATE}, found none") from None
    except ValueError as error:
        raise CheckpointError(f"{folder / STATE}: expected JSON, got: {error}") from None


def _read_tensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{file}: expected a safetensors file, got: {error}") from None


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    with atomic(path) as part:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part)


def _named(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    prefix += "."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _plain(state: dict) -> dict:
    """Return a schedule's state as JSON can hold it: without functions, with infinities as strings."""

    def plain(value):
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        if isinstance(value, np.generic | torch.Tensor):
            value = value.item()
        return str(value) if isinstance(value, float) and not np.isfinite(value) else value

    values = {key: plain(value) for key, value in state.items()}
    simple = bool | int | float | str | list | None
    return {key: value for key, value in values.items() if isinstance(value, simple)}


def _from_plain(state: dict) -> dict:
    return {key: float(value) if value in ("inf", "-inf", "nan") else value for key, value in state.items()}

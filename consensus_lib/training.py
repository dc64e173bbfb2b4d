"""Training: ``fit``, ``evaluate``, ``predict`` and checkpoints, for any network and any loss.

The trainer calls ``loss(logits, labels)`` and knows nothing of what is inside. Whatever is random depends
on (seed, epoch), never on what ran before, so a run that is interrupted and resumed ends on the CPU with
the same bits as one that was not.

``python -m consensus_lib.training`` trains one network. Started by ``torchrun``, or wherever a process group
is initialised, the processes share the work; a checkpoint does not tell how many they were. Each takes an
equal part of every batch, and the gradient is the mean of theirs: that of one process, to rounding, where
the loss is a mean over images, as Eq. 8 is if each holds a blob. What differs: a mean over the batch's
labelled pixels becomes the mean of the parts' means, which weighs a part with many ignored pixels too much;
``reduction="released"`` joins blobs over a part only; dropout draws other masks; and batch normalisation,
synchronised on CUDA, takes its statistics from a part elsewhere.
"""

import argparse
import contextlib
import functools
import itertools
import json
import sys
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

from consensus_lib import distributed, paths
from consensus_lib.datasets import FaceDataset, Splits, loader
from consensus_lib.flicker import flicker
from consensus_lib.losses.blobs import Blobs
from consensus_lib.metrics import SegmentationScores
from consensus_lib.networks import NETWORKS, count_parameters
from consensus_lib.paths import atomic, write_json

STATE, HISTORY, BEST = "checkpoint.json", "history.jsonl", "best.safetensors"
"""Names in a training folder: the state to resume from, one line for each epoch, the best weights."""


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
        torch.empty(0, device=device)
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
        ValueError: the name is unknown.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision: expected 'auto', 'float32' or 'bfloat16', got {name!r}")
    if name != "auto":
        return name
    if device.type == "cuda":
        gains = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        gains = device.type == "cpu" and native()
    return "bfloat16" if gains else "float32"


def describe_loss(loss: Callable) -> str:
    """Return a module with its settings or a function's name: the same text in every process."""
    return repr(loss) if isinstance(loss, nn.Module) else getattr(loss, "__name__", type(loss).__name__)


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
    arguments, but for its ``device``: see the top of this module and :mod:`consensus_lib.distributed`. All
    end with the same weights and history; the first one writes, and ``out`` is a folder that all can read.

    Args:
        model: any network from images ``[B,3,H,W]`` to logits ``[B,K,H,W]``. Left on ``device`` with the
            last weights, or with the best ones where ``patience`` is given.
        data: the training samples.
        loss: a function or module of (logits, labels) that returns a scalar. If it has an attribute
            ``progress``, that is set before each step to the share of all steps done, for schedules; if
            it has ``inputs``, the batch's entries of these names are handed to it by keyword.
        epochs: passes over ``data``.
        batch_size: images a step, of all processes together.
        validation: samples to score; None scores nothing.
        optimizer: makes the optimiser from the parameters; None is Adam at 1e-3.
        schedule: makes the learning-rate schedule from (optimiser, total steps); stepped after every
            step, or, for ``ReduceLROnPlateau``, with the monitored score after every evaluation.
        seed: of the dropout, which also differs by process; order and augmentation follow the data set's
            own seed.
        device: see :func:`pick_device`.
        precision: of the forward pass; see :func:`pick_precision`.
        compile: run the network through ``torch.compile``.
        clip: largest norm of the gradient; None does not clip.
        patience: stop after so many evaluations without a better ``monitor``.
        monitor: the validation score (higher is better) for ``patience`` and the best weights.
        evaluate_every: epochs from one evaluation to the next; the last epoch is always evaluated.
        workers: processes that load data, for each that trains.
        out: folder for the checkpoint, the best weights and the history; None keeps nothing.
        resume: go on from the checkpoint in ``out``, if there is one. False starts anew over it.
        progress: show a bar of epochs.
        on_epoch: called with the history after each epoch, for live curves; in every process.

    Returns:
        One dictionary for each epoch: ``epoch`` (from 1), ``step``, ``loss`` (mean), ``lr``, ``seconds``
        (training so far, evaluation apart), ``images_per_second``; after an evaluation also
        ``evaluation_seconds`` and all scores of :meth:`SegmentationScores.compute`.

    Raises:
        ValueError: an argument is outside what is said above.
        CheckpointError: ``out`` holds a training with other settings.
        FloatingPointError: the loss is no longer finite; the last good epoch stays in ``out``.
    """
    _check_fit(epochs, batch_size, evaluate_every, patience, validation)
    share = distributed.share()
    loader(data, batch_size, shuffle=True, share=share)  # refuses a batch that cannot be shared
    device = pick_device(device)
    precision = pick_precision(precision, device)
    model.to(device, memory_format=torch.channels_last)
    steps_an_epoch = max(1, len(data) // batch_size)
    optimizer = (optimizer or _adam)(model.parameters())
    schedule = schedule(optimizer, epochs * steps_an_epoch) if schedule else None
    settings = {
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
        "precision": precision,
        "clip": clip,
        "loss": describe_loss(loss),
        "data": data.fingerprint,
        "task": data.task.name,
        "samples": len(data),
        "size": data.size,
        "data_seed": data.seed,
        "augment": repr(data.augment),
        "model": _config(model),
        "optimizer": f"{type(optimizer).__name__} {optimizer.defaults}",
        "schedule": type(schedule).__name__,
    }
    run = _Run(
        model, optimizer, schedule, settings, data.task.classes, Path(out) if out is not None else None
    )
    run.start(resume)

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
            row = {"epoch": epoch, "step": epoch * steps_an_epoch, **row}
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
        scores: which ones; :class:`consensus_lib.structure.StructureScores` are more, and slower.

    Returns:
        The scores; call ``compute()`` for the table and ``per_image()`` for statistics. Their order is
        that of ``data``.
    """
    counted = scores(data.task.classes)
    share = rank, _ = distributed.share()
    for batch, predicted in _predictions(model, data, batch_size, workers, progress and rank == 0, share):
        counted.update(predicted, batch["labels"], batch.get("superpixels"))
    return scores.joined(distributed.gathered(counted))


def outcome(model: nn.Module, data: Splits, history: list[dict]) -> dict:
    """Return what a result says of a finished training beside its settings and scores."""
    return {
        "dataset": data.test.info.name,
        "split": data.test.split,
        "test_images": len(data.test),
        "parameters": count_parameters(model),
        "validation_mean_iou": history[-1]["mean_iou"],
        "seconds": history[-1]["seconds"],
    }


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
        moves: ``shifts``, ``angles`` and ``border`` of :func:`consensus_lib.flicker.flicker`.

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
    try:
        tensors = load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{file}: expected a safetensors file, got: {error}") from None
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

    def __init__(self, model, optimizer, schedule, settings, classes, out: Path | None):
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.settings, self.classes, self.out = settings, list(classes), out
        self.history: list[dict] = []
        self.best_score, self.best_epoch, self.evaluations_since_best = None, 0, 0
        self._best: dict[str, torch.Tensor] = {}
        self.writes = out is not None and distributed.rank() == 0

    def start(self, resume: bool) -> None:
        if self.out is None:
            return
        # As the first process sees it: the others might already see what it writes.
        if distributed.from_first(resume and (self.out / STATE).is_file()):
            self._load(_read_state(self.out))
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
        tensors = self._best or (load_file(self.out / BEST) if self.best_epoch else {})
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
                "settings": self.settings,
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

    def _load(self, state: dict) -> None:
        ours = json.loads(json.dumps(self.settings))
        other = [
            f"{key}: expected {state['settings'].get(key)!r}, got {ours[key]!r}"
            for key in ours
            if ours[key] != state["settings"].get(key)
        ]
        if other:
            raise CheckpointError(
                f"{self.out} holds a training with other settings ({'; '.join(other)}); "
                "take another folder, or resume=False to start anew"
            )
        tensors = load_file(self.out / state["weights"])
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


def _config(model: nn.Module) -> dict:
    config = {"name": type(model).__name__}
    if type(model) in NETWORKS.values():
        config |= {"num_classes": model.num_classes, "width": model.width, "dropout": model.dropout}
    return config


def _read_state(folder: Path) -> dict:
    try:
        return json.loads((folder / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: expected a training folder with {STATE}, found none") from None
    except ValueError as error:
        raise CheckpointError(f"{folder / STATE}: expected JSON, got: {error}") from None


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


def main(argv: list[str] | None = None) -> int:
    """Train one network as the notebooks do, score it on the test split, file the result; return 0."""
    from consensus_lib import losses, runs  # here: neither fit nor evaluate knows of losses and results
    from consensus_lib.datasets import MILD, open_splits
    from consensus_lib.networks import FaceOccNet

    parser = _parser()
    given = parser.parse_args(argv)
    device = distributed.start(given.device)
    name, loss = given.loss, losses.pixelwise_loss
    weights = {key: getattr(given, key) for key in ("alpha", "beta", "size_weight", "pixel_weight")}
    if name == "consensus":
        loss = losses.ConsensusLoss(given.kind, **weights)
    opened = {"size": given.size, "images": given.images, "augment": MILD, "seed": given.seed}
    try:
        data = distributed.first_alone(lambda: open_splits(given.dataset, given.task, **opened))
    except ValueError as error:
        parser.error(str(error))
    out = given.out or paths.runs_dir() / "training" / f"{given.dataset}-{given.task}-{name}-seed{given.seed}"
    torch.manual_seed(given.seed)
    network = FaceOccNet(len(data.train.task.classes), given.width, given.dropout)
    history = fit(
        network,
        data.train,
        loss,
        epochs=given.epochs,
        batch_size=given.batch_size,
        validation=data.validation,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=given.learning_rate),
        schedule=cosine,
        seed=given.seed,
        device=device,
        workers=given.workers,
        out=out,
    )
    scores = evaluate(network, data.test, workers=given.workers).compute()
    if distributed.rank() == 0:
        runs.write_result(
            out,
            notebook="training",
            loss=name,
            **({"kind": given.kind, **weights} if name == "consensus" else {}),
            **{k: getattr(given, k) for k in ("task", "seed", "epochs", "width", "dropout", "batch_size")},
            learning_rate=given.learning_rate,
            image_size=given.size,
            train_images=len(data.train),
            **outcome(network, data, history),
            device=device_name(pick_device(device)),
            processes=distributed.world(),
            **scores,
        )
        print(f"{runs.table(runs.read_results(out))}\n\nCheckpoint and result: {paths.shown(out)}")
    distributed.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m consensus_lib.training",
        description="Train one network. With several GPUs: torchrun --nproc-per-node N -m "
        "consensus_lib.training. Called again, it goes on from the checkpoint in its folder.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--dataset", default="synthetic", help="synthetic or lfw_part_labels")
    add("--task", default="parts", help="parts or occlusion")
    add("--size", type=int, default=64, help="side of the images in pixels")
    add("--images", type=int, default=600, help="training images; 0 is all, of real data")
    add("--width", type=float, default=0.25, help="of the network; 1 is the paper's")
    add("--dropout", type=float, default=0.0, help="of the network")
    add("--epochs", type=int, default=8, help="passes over the training images")
    add("--batch-size", type=int, default=16, help="images a step, of all processes together")
    add("--learning-rate", type=float, default=0.01, help="of Adam, before the cosine schedule")
    add("--seed", type=int, default=0, help="of weights, order, augmentation and dropout")
    add("--loss", choices=["cross-entropy", "consensus"], default="consensus", help="what is minimised")
    kinds = ["class", "component", "occlusion", "pixel"]  # superpixels need the image
    add("--kind", choices=kinds, default="component", help="consensus: how labels are cut into blobs")
    add("--alpha", type=float, default=10.0, help="consensus: weight of the match with the label")
    add("--beta", type=float, default=5.0, help="consensus: weight of the deviation from the mean")
    add("--size-weight", type=float, default=0.0, help="consensus: 0 weighs blobs alike, 1 pixels")
    add("--pixel-weight", type=float, default=0.0, help="consensus: weight of an added cross-entropy")
    add("--device", default="auto", help="auto, cpu, cuda, …")
    add("--workers", type=int, default=0, help="processes that load data, for each that trains")
    add("--out", type=Path, help="folder; by default one below the runs folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())

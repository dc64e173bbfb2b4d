"""Training: ``fit``, ``evaluate`` and ``predict``, for any network and any loss.

The trainer calls ``loss(logits, labels)`` and knows nothing of what is inside. All randomness depends on
(seed, epoch), so that an interrupted training, resumed, ends on the CPU with the same bits as a whole one.

Under ``torchrun`` each process takes an equal part of every batch, and the gradient is the mean of theirs: to
rounding that of one process, where the loss is a mean over images. A mean over labelled pixels becomes the
mean of the parts' means, and ``reduction="released"`` joins blobs over a part only. Dropout masks differ by
process; batch normalisation is synchronised on CUDA only.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from consensus_lib.data import FaceDataset, loader
from consensus_lib.losses.blobs import Blobs
from consensus_lib.metrics.segmentation import SegmentationScores
from consensus_lib.training import distributed
from consensus_lib.training.checkpoint import Checkpoint, find_state
from consensus_lib.training.devices import pick_device, pick_precision
from consensus_lib.training.settings import describe_training, follows_progress


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
    evaluate_every: int = 1,
    workers: int = 0,
    out: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    on_epoch: Callable[[list[dict]], Any] | None = None,
) -> list[dict]:
    """Train ``model`` in place and return its history.

    Where a ``torch.distributed`` process group is initialised, every process calls this with the same
    arguments, but for its ``device``; see :mod:`.distributed`. All end with the same weights and history;
    process 0 writes, and ``out`` is a folder that all can read.

    Args:
        model: any network from images ``[B,3,H,W]`` to logits ``[B,K,H,W]``. Left on ``device`` with the
            last weights.
        data: the training samples.
        loss: a function or module of (logits, labels) that returns a scalar. An attribute ``progress`` is
            set before each step to the share of all steps done; entries of the batch named in an attribute
            ``batch_keys`` are passed by keyword.
        epochs: passes over ``data``. A resumed training may be given more if nothing depends on their number:
            ``schedule`` is None and no setting of the loss is a function of ``progress``.
        batch_size: images per step, of all processes together.
        validation: samples to score; None scores nothing.
        optimizer: makes the optimiser from the parameters; None is Adam at 1e-3.
        schedule: makes the learning-rate schedule from (optimiser, total steps); stepped after every step.
        seed: of the dropout; order and augmentation follow the data set's own seed.
        device: see :func:`.devices.pick_device`.
        precision: of the forward pass; see :func:`.devices.pick_precision`. Resumed, ``"auto"`` keeps that of
            the checkpoint, and another one is refused.
        evaluate_every: epochs from one evaluation to the next; the last epoch is always evaluated.
        workers: processes that load data, for each that trains.
        out: folder for the checkpoint and the history; None keeps nothing.
        resume: continue from the checkpoint in ``out``, if there is one of the same settings, on any kind of
            machine and with any number of processes. False starts again and replaces it.
        progress: show a bar of epochs.
        on_epoch: called with the history after each epoch, in every process.

    Returns:
        One dictionary for each epoch: ``epoch`` (from 1), ``step``, ``precision``, ``loss`` (mean), ``lr``,
        ``seconds`` (training so far, evaluation apart), ``images_per_second``; after an evaluation also
        ``evaluation_seconds`` and all scores of :meth:`SegmentationScores.compute`. Where the training
        was resumed under other conditions, ``changes`` lists them, such as ``["device: A100 → V100"]``.

    Raises:
        ValueError: an argument is out of its range.
        CheckpointError: ``out`` holds a training with other settings, or one that cannot be compared (see
            :mod:`.settings`). The folder stays as it was.
        FloatingPointError: the loss is no longer finite; the last good epoch stays in ``out``.
    """
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("evaluate_every", evaluate_every)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    share = distributed.rank(), distributed.world_size()
    loader(data, batch_size, shuffle=True, share=share)  # refuses a batch that cannot be shared
    device = pick_device(device)
    earlier = find_state(out) if resume else None
    if earlier and precision == "auto":
        precision = earlier["settings"]["precision"]
    precision = distributed.broadcast_object(pick_precision(precision, device))

    # 1. The network, its optimiser and its schedule, described for the checkpoint.
    model.to(device, memory_format=torch.channels_last)
    steps_per_epoch = max(1, len(data) // batch_size)
    optimizer = optimizer(model.parameters()) if optimizer else torch.optim.Adam(model.parameters(), lr=1e-3)
    settings = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "precision": precision}
    settings |= describe_training(model, data, loss, optimizer, schedule)  # before `schedule` sets rates
    schedule = schedule(optimizer, epochs * steps_per_epoch) if schedule else None

    # 2. The state after the last finished epoch: what an earlier call left in `out`, or the beginning.
    checkpoint = Checkpoint(model, optimizer, schedule, settings, data.task.classes, out, device)
    if earlier:
        checkpoint.load(earlier, planned=schedule is not None or follows_progress(loss))
    else:
        checkpoint.save()  # an interrupt in the first epoch can be resumed, too
    history = checkpoint.history
    first = len(history)

    # 3. The epochs that are left.
    batches = loader(data, batch_size, shuffle=True, workers=workers, first_epoch=first, share=share)
    network = distributed.wrap_ddp(model, device)
    quiet = not progress or distributed.rank() > 0
    bar = tqdm(total=epochs, initial=first, desc="epochs", disable=quiet, leave=False)
    with bar, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for epoch in range(first + 1, epochs + 1):
            _seed_epoch(seed, epoch)
            row = {"epoch": epoch, "step": epoch * steps_per_epoch, "precision": precision}
            part = (epoch - 1) / epochs, 1 / epochs
            row |= train_epoch(network, batches, loss, optimizer, schedule, device, precision, part)
            distributed.average_buffers(model)
            row["seconds"] += history[-1]["seconds"] if history else 0.0
            if not np.isfinite(row["loss"]):
                raise FloatingPointError(
                    f"loss: expected a finite mean over epoch {epoch}, got {row['loss']}; "
                    f"the state after epoch {epoch - 1} is kept in {out}"
                )
            if validation is not None and (epoch % evaluate_every == 0 or epoch == epochs):
                start = time.perf_counter()
                scores = evaluate(model, validation, batch_size=2 * batch_size).compute()
                row |= {"evaluation_seconds": time.perf_counter() - start, **scores}
            if checkpoint.changes:
                row["changes"], checkpoint.changes = checkpoint.changes, []
            history.append(distributed.broadcast_object(row))  # times differ by process
            checkpoint.save()
            bar.set_postfix({k: f"{row[k]:.3f}" for k in ("loss", "mean_iou") if k in row})
            bar.update()
            if on_epoch:
                on_epoch(history)
    distributed.broadcast_object(None)  # what process 0 writes is there when any returns
    return history


def train_epoch(network, batches, loss, optimizer, schedule, device, precision, part) -> dict:
    """Make one pass over ``batches``; return mean ``loss``, ``lr``, ``seconds`` and ``images_per_second``.

    ``part``: the share of the training before this epoch, and the share that this epoch is.
    """
    network.train()
    start, images = time.perf_counter(), 0
    total = torch.zeros((), dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
    rate = optimizer.param_groups[0]["lr"]
    for step, batch in enumerate(batches):
        if hasattr(loss, "progress"):  # of epoch and step alone, so that a resumed training ends alike
            loss.progress = part[0] + part[1] * step / len(batches)
        wanted = [name for name in getattr(loss, "batch_keys", ()) if name in batch]
        batch = {name: _to_device(batch[name], device) for name in ("image", "labels", *wanted)}
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(batch["image"])  # [B, 3, H, W] → [B, K, H, W]
        value = loss(logits.float(), batch["labels"], **{name: batch[name] for name in wanted})
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        total += value.detach() * len(logits)  # stays on the device: no wait in each step
        images += len(logits)
    images *= distributed.world_size()  # their shares are equal
    mean = float(distributed.all_reduce_sum(total)) / images
    seconds = time.perf_counter() - start
    return {"loss": mean, "lr": rate, "seconds": seconds, "images_per_second": images / seconds}


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    data: FaceDataset,
    *,
    batch_size: int = 64,
    workers: int = 0,
    scores: type[SegmentationScores] = SegmentationScores,
) -> SegmentationScores:
    """Return the scores of ``model`` on every sample of ``data``, in float32, on the model's device.

    Several processes share the samples; all must call this, and all return the scores of all samples.
    ``scores`` may be :class:`consensus_lib.metrics.structure.StructureScores`, which are more, and slower.
    """
    counted = scores(data.task.classes)
    share = distributed.rank(), distributed.world_size()
    for batch, predicted in _predictions(model, data, batch_size, workers, share):
        counted.update(predicted, batch["labels"], batch.get("superpixels"))
    return scores.joined(distributed.all_gather_object(counted))


@torch.inference_mode()
def predict(model: nn.Module, data: FaceDataset, *, batch_size: int = 64) -> torch.Tensor:
    """Return the predicted classes of every sample of ``data``, uint8 ``[N,H,W]`` on the CPU."""
    parts = [predicted.to("cpu", torch.uint8) for _, predicted in _predictions(model, data, batch_size)]
    return torch.cat(parts)


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """Put ``model`` in evaluation mode for a while.

    Yields a function from images float ``[B,3,H,W]`` to classes int64 ``[B,H,W]`` on the model's device.
    """
    device = next(itertools.chain(model.parameters(), model.buffers())).device
    was_training = model.training
    model.eval()
    try:
        yield lambda images: model(_to_device(images, device)).argmax(1)
    finally:
        model.train(was_training)


def _predictions(model, data, batch_size, workers=0, share=(0, 1)):
    """Yield each batch with the classes that are predicted for it, int64 ``[B,H,W]``."""
    with eval_mode(model) as predict_classes:
        for batch in loader(data, batch_size, workers=workers, share=share):
            yield batch, predict_classes(batch["image"])


def _seed_epoch(seed: int, epoch: int) -> None:
    """Seed torch by (seed, epoch, rank) alone, so that a resumed training equals the whole one."""
    sequence = np.random.SeedSequence((seed, epoch, distributed.rank()))
    torch.manual_seed(int(sequence.generate_state(1)[0]))


def _to_device(part: torch.Tensor | Blobs, device: torch.device) -> torch.Tensor | Blobs:
    part = part.to(device, non_blocking=True)
    image = isinstance(part, torch.Tensor) and part.dim() == 4
    return part.contiguous(memory_format=torch.channels_last) if image else part

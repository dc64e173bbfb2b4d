"""One training, one result: :func:`run` is how notebooks, studies, sweeps and the command line train."""

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from consensus_lib import paths
from consensus_lib.data import MILD, TASKS, Augment, FaceDataset, Splits, is_folder, open_splits
from consensus_lib.experiments import command_line, results
from consensus_lib.losses.registry import Loss, make_loss
from consensus_lib.metrics.segmentation import SegmentationScores
from consensus_lib.models.networks import NETWORKS, check_network, count_parameters
from consensus_lib.training import distributed
from consensus_lib.training.checkpoint import STATE, load_checkpoint
from consensus_lib.training.devices import device_name, pick_device
from consensus_lib.training.settings import describe
from consensus_lib.training.trainer import cosine, eval_mode, evaluate, fit

PREVIEWS = 16
"""Of so many test images, the first, the predicted masks are kept after each epoch."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What is trained.

    Attributes:
        data: name of a data set, see :func:`consensus_lib.data.open_splits`, or a prepared folder.
        task: classes to learn; None takes those of the data set.
        size: side of the images in pixels.
        images: training images; 0 takes all real ones.
        augment: variation of the training images, or None.
        loss: name or MODULE:ATTRIBUTE, see :func:`consensus_lib.losses.make_loss`; or a function or module.
        loss_options: keyword arguments of a loss by name, such as beta=2 kind=class.
        title: the loss's name in results; empty takes the loss.
        network: one of :data:`consensus_lib.models.networks.NETWORKS`.
        width: factor on the network's channels; 1 is the paper's.
        dropout: of the network, a probability.
        epochs: passes over the training images.
        batch_size: images per step, of all processes together.
        learning_rate: of Adam, before the cosine schedule.
        precision: of the forward pass: auto, float32 or bfloat16.
        seed: of weights and dropout, and of the data where they are opened by their name.
        start: a training's folder whose last weights to start from; None starts from random ones.

    Raises:
        ValueError: a value is out of its range, there is no such network, loss or option, or the network
            cannot take images of this size.
    """

    data: str = "synthetic"
    task: str | None = "parts"
    size: int = 64
    images: int = 600
    augment: Augment | None = MILD
    loss: str | Loss = "consensus"
    loss_options: dict = dataclasses.field(default_factory=dict)
    title: str = ""
    network: str = "FaceOccNet"
    width: float = 0.25
    dropout: float = 0.0
    epochs: int = 8
    batch_size: int = 16
    learning_rate: float = 0.01
    precision: str = "auto"
    seed: int = 0
    start: Path | None = None

    def __post_init__(self):
        for name, least in (("size", 1), ("images", 0), ("epochs", 1), ("batch_size", 1), ("seed", 0)):
            if not (value := getattr(self, name)) >= least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        if self.seed > command_line.SEED:
            raise ValueError(f"seed: expected at most {command_line.SEED}, got {self.seed}")
        if not 0 <= (rate := self.learning_rate) < math.inf:
            raise ValueError(f"learning_rate: expected a finite number of at least 0, got {rate}")
        if self.network not in NETWORKS:
            raise ValueError(f"network: expected one of {list(NETWORKS)}, got {self.network!r}")
        if self.task not in (None, "source", *TASKS) and not is_folder(self.data):
            raise ValueError(f"task: expected one of {[*TASKS, 'source']}, got {self.task!r}")
        check_network(NETWORKS[self.network], self.size, self.width, self.dropout)
        self.make_loss()

    def make_loss(self) -> Loss:
        """Return the loss, a new one where it is given by a name."""
        return make_loss(self.loss, **self.loss_options) if isinstance(self.loss, str) else self.loss

    def open_data(self) -> Splits:
        """Open the data, in process 0 first, which renders or decodes them."""
        options = {name: getattr(self, name) for name in ("size", "images", "augment", "seed")}
        return distributed.main_process_first(lambda: open_splits(self.data, self.task, **options))


class Trained(NamedTuple):
    """A finished training.

    Attributes:
        network: with its last weights.
        history: one dictionary for each epoch; see :func:`consensus_lib.training.fit`.
        scores: on the test split.
        folder: of the checkpoint, the history, the masks and ``result.json``.
        key: a digest of the weights and the test images, for :meth:`cached`.
    """

    network: torch.nn.Module
    history: list[dict]
    scores: SegmentationScores
    folder: Path
    key: str

    def masks(self) -> dict[int, np.ndarray]:
        """Return epoch → the masks it predicted for the first ``PREVIEWS`` test images, uint8 ``[n,H,W]``."""
        return results.read_masks(self.folder)

    def cached(self, name: str, measure: Callable, kind: type[SegmentationScores] | None = None):
        """Return what ``measure`` returns of this training; a file in its folder keeps it for later calls.

        Args:
            name: of the measurement and of all that it depends on beside the weights and the test images.
            measure: returns scores, or a dictionary of arrays.
            kind: the scores' class; None for a dictionary.
        """
        name = f"{name}-{kind.VERSION}" if kind else name
        file = self.folder / f"{name}-{self.key}.npz"
        if not distributed.broadcast_object(file.is_file()):
            found = measure()  # in every process, for they may share it; process 0 writes
            if distributed.rank() == 0 and kind:
                found.save(file)
            elif distributed.rank() == 0:
                with paths.atomic(file) as part, part.open("wb") as stream:
                    np.savez_compressed(stream, **found)
            distributed.broadcast_object(None)
        if kind:
            return kind.load(file)
        with np.load(file) as stored:
            return dict(stored)


def run(
    config: Config,
    data: Splits | None = None,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    evaluate_every: int = 1,
    scores: type[SegmentationScores] = SegmentationScores,
    resume: bool = True,
    progress: bool = True,
    on_epoch: Callable[[list[dict]], None] | None = None,
    notebook: str = "training",
    **about,
) -> Trained:
    """Train one network, score it on the test split, and write ``result.json`` last.

    The optimiser is Adam with a cosine schedule. Called again, a training is resumed, or found finished.

    Args:
        config: what to train.
        data: where to train, to validate and to test; None opens what ``config`` names. The fields ``data``,
            ``task``, ``size``, ``images`` and ``augment`` of ``config`` are not used where data are given.
        out: folder of the checkpoint, the masks and the result, one for each configuration; None takes
            ``RUNS/training/`` and :func:`folder_name`.
        workers: processes that load data; None takes none on a CPU, else up to 4.
        evaluate_every: epochs from one validation to the next.
        scores: which scores to take of the test split; see :func:`consensus_lib.training.evaluate`.
        device, resume, progress, on_epoch: as for :func:`consensus_lib.training.fit`.
        notebook: its name, for the result.
        about: what else the result should record.

    Raises:
        CheckpointError, FloatingPointError: as :func:`consensus_lib.training.fit`.
    """
    device, loss = pick_device(device), config.make_loss()
    data = config.open_data() if data is None else data
    out = Path(out) if out else paths.runs_dir() / "training" / folder_name(config, data)
    if workers is None:
        workers = 0 if device.type == "cpu" else min(4, os.cpu_count() or 1)
    torch.manual_seed(config.seed)
    model = NETWORKS[config.network](len(data.train.task.classes), config.width, config.dropout)
    if config.start:
        model, _ = load_checkpoint(config.start, model)
    previews = data.test.__getitems__(range(min(PREVIEWS, len(data.test))))["image"]

    def after_epoch(history: list[dict]) -> None:
        if distributed.rank() == 0:
            with eval_mode(model) as predict_classes, torch.inference_mode():
                masks = predict_classes(previews).to("cpu", torch.uint8).numpy()
            results.add_masks(out, len(history), masks)
        if on_epoch:
            on_epoch(history)

    history = fit(
        model,
        data.train.with_blobs(**loss.blob_options) if hasattr(loss, "blob_options") else data.train,
        loss,
        epochs=config.epochs,
        batch_size=config.batch_size,
        validation=data.validation,
        evaluate_every=evaluate_every,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=config.learning_rate),
        schedule=cosine,
        seed=config.seed,
        device=str(device),
        precision=config.precision,
        workers=workers,
        out=out,
        resume=resume,
        progress=progress,
        on_epoch=after_epoch,
    )
    trained = Trained(model, history, None, out, _key(out, data.test))
    test = partial(evaluate, model, data.test, workers=workers, scores=scores)
    trained = trained._replace(scores=trained.cached(scores.__name__, test, scores))
    if config.loss_options:
        about["loss_options"] = " ".join(f"{name}={value}" for name, value in config.loss_options.items())
    if distributed.rank() == 0:
        results.write_result(
            out,
            notebook=notebook,
            loss=config.title or (config.loss if isinstance(config.loss, str) else describe(config.loss)),
            seed=config.seed,
            **_settings(config, data),
            trained_on=data.train.info.name,
            dataset=data.test.info.name,
            data_folder=str(data.test.folder.absolute()),
            split=data.test.split,
            test_images=len(data.test),
            parameters=count_parameters(model),
            validation_mean_iou=history[-1]["mean_iou"],
            seconds=history[-1]["seconds"],
            precision=history[-1]["precision"],
            changes=[f"epoch {row['epoch']}: {text}" for row in history for text in row.get("changes", [])],
            device=device_name(device),
            processes=distributed.world_size(),
            **about,
            **trained.scores.compute(),
        )
    return trained


def folder_name(config: Config, data: Splits) -> str:
    """Return a folder's name: the loss's title, the seed, and a hash of all that makes another training."""
    train, loss = data.train, config.make_loss()
    key = [_settings(config, data), train.fingerprint, train.seed, repr(train.augment), describe(loss)]
    key = json.dumps([*key, config.precision, config.start and Path(config.start).name])
    name = config.loss if isinstance(config.loss, str) else getattr(loss, "__name__", type(loss).__name__)
    slug = re.sub(r"[^\w.-]+", "-", config.title or name)
    return f"{slug}-seed{config.seed}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def _settings(config: Config, data: Splits) -> dict:
    names = ("epochs", "network", "width", "dropout", "batch_size", "learning_rate")
    known = {"task": data.train.task.name, "image_size": data.train.size, "train_images": len(data.train)}
    return {name: getattr(config, name) for name in names} | known


def _key(folder: Path, test: FaceDataset) -> str:
    """Return a digest of the weights in a training's folder and of the images that they are tested on."""
    weights = folder / json.loads((folder / STATE).read_text(encoding="utf-8"))["weights"]
    tested = [test.fingerprint, test.task.name, *test.task.classes, test.size, *(row.id for row in test.rows)]
    return hashlib.sha256(weights.read_bytes() + json.dumps(tested).encode()).hexdigest()[:12]

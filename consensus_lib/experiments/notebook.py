"""What every notebook begins with: one line that sets the seed, the device, the figures and the folder."""

import dataclasses
import hashlib
import json
import os
import pickle
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import consensus_lib
from consensus_lib import paths
from consensus_lib.data import Splits
from consensus_lib.experiments import results
from consensus_lib.experiments.results import library_hash
from consensus_lib.experiments.train import outcome
from consensus_lib.metrics.segmentation import SegmentationScores
from consensus_lib.models.networks import NETWORKS
from consensus_lib.paths import atomic
from consensus_lib.training import cosine, evaluate, fit, load_checkpoint, pick_device
from consensus_lib.training.devices import device_name
from consensus_lib.training.settings import describe
from consensus_lib.training.trainer import eval_mode
from consensus_lib.viz import plots

MASKS = "masks.npz"
WATCHED = 16
"""Of so many test images, the first, the predicted masks are kept after each epoch."""


class Trained(NamedTuple):
    """What a training leaves.

    Attributes:
        network: with its last weights.
        history: one dictionary for each epoch; see :func:`consensus_lib.training.fit`.
        scores: on the test split.
        folder: with the checkpoint, the history, the masks and ``result.json``.
    """

    network: torch.nn.Module
    history: list[dict]
    scores: SegmentationScores
    folder: Path

    def masks(self) -> dict[int, np.ndarray]:
        """Return epoch → the masks it predicted for the first ``WATCHED`` test images, uint8 ``[n,H,W]``."""
        with np.load(self.folder / MASKS) as kept:
            return dict(zip(kept["epoch"].tolist(), kept["masks"], strict=True))

    def kept(self, name: str, measure: Callable[[], object]):
        """Return what ``measure`` found about this training, now or when it was asked before.

        What was found lies in the training's folder and is of this version of the library: with another one,
        or under another ``name``, it is measured anew.
        """
        return _kept(self.folder, name, measure)


@dataclasses.dataclass(frozen=True)
class Lesson:
    """One notebook at work.

    Attributes:
        name: the notebook's file name without suffix.
        seed: of everything random in it.
        device: where networks run.
        out: folder for its figures, checkpoints and results.
    """

    name: str
    seed: int
    device: torch.device
    out: Path

    def show(self, figure, name: str) -> None:
        """Show a figure and keep it as PDF and PNG in ``out/figures``."""
        plots.savefig(figure, self.out / "figures" / name)
        plots.show(figure)

    def say(self, text: str) -> None:
        """Show a paragraph of Markdown; for sentences whose numbers a cell has just computed."""
        from IPython.display import Markdown, display

        display(Markdown(text))

    def train(
        self,
        name: str,
        data: Splits,
        loss,
        *,
        seed: int,
        epochs: int,
        width: float,
        dropout: float = 0.0,
        network: str = "FaceOccNet",
        batch_size: int = 16,
        learning_rate: float = 0.01,
        precision: str = "auto",
        start: Path | None = None,
        live: bool = True,
        scored: type[SegmentationScores] = SegmentationScores,
        **about,
    ) -> Trained:
        """Train one network, score it on the test split, and file the result.

        Adam with a cosine schedule. Call it again and the training is taken up, or found finished; change
        a setting and another one begins, because the folder's name ends in a hash of them all.

        Args:
            name: the loss's name in results, and in letters that suit a path the beginning of the folder's.
            data: where to train, to follow and to test.
            loss: a function or module of (logits, labels).
            seed: of the weights, the dropout, and the result.
            epochs, batch_size, precision: as for :func:`consensus_lib.training.fit`.
            width, dropout: of the network.
            network: one of :data:`consensus_lib.models.networks.NETWORKS`.
            learning_rate: before the schedule.
            start: a training's folder whose last weights to start from; None starts from random ones.
            live: redraw the curves after each epoch, scored on the validation split; otherwise show a bar
                and score the last epoch only.
            scored: which scores to take of the test split; see :func:`consensus_lib.training.evaluate`.
            about: whatever else the result should say.
        """
        settings = dict(
            epochs=epochs,
            network=network,
            width=width,
            dropout=dropout,
            batch_size=batch_size,
            learning_rate=learning_rate,
            task=data.train.task.name,
            image_size=data.train.size,
            train_images=len(data.train),
        )
        key = [
            settings,
            data.train.fingerprint,
            data.train.seed,
            repr(data.train.augment),
            describe(loss),
            precision,
        ]
        key = json.dumps([*key, start and start.name])
        slug = re.sub(r"[^\w.-]+", "-", name)
        folder = self.out / f"{slug}-seed{seed}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        torch.manual_seed(seed)
        model = NETWORKS[network](len(data.train.task.classes), width, dropout)
        if start:
            model, _ = load_checkpoint(start, model)
        cut = getattr(loss, "cut", None)
        watched = data.test.__getitems__(range(min(WATCHED, len(data.test))))["image"]
        curves = plots.LiveCurves(epochs) if live else None

        def after_epoch(history: list[dict]) -> None:
            _keep_masks(folder / MASKS, model, watched, len(history))
            if curves:
                curves(history)

        history = fit(
            model,
            data.train.with_blobs(**cut) if cut else data.train,
            loss,
            epochs=epochs,
            batch_size=batch_size,
            validation=data.validation,
            evaluate_every=1 if live else epochs,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=learning_rate),
            schedule=cosine,
            seed=seed,
            device=str(self.device),
            precision=precision,
            workers=0 if self.device.type == "cpu" else min(4, os.cpu_count() or 1),
            out=folder,
            progress=not live,
            on_epoch=after_epoch,
        )
        known = f"{scored.__name__}-{data.test.fingerprint[:8]}"
        scores = _kept(folder, known, lambda: evaluate(model, data.test, scores=scored))
        self.write_result(
            folder,
            loss=name,
            seed=seed,
            **settings,
            trained_on=data.train.info.name,
            **outcome(model, data, history),
            **about,
            **scores.compute(),
        )
        return Trained(model, history, scores, folder)

    def write_result(self, folder: Path, **values) -> None:
        """Write ``result.json`` of a training; notebook, device and, unless given, seed are filled in."""
        known = {"notebook": self.name, "seed": self.seed, "device": device_name(self.device)}
        results.write_result(folder, **known | values)


def _kept(folder: Path, name: str, measure: Callable[[], object]):
    file = folder / f"{name}-{library_hash()}.pickle"
    if not file.is_file():
        with atomic(file) as part:
            part.write_bytes(pickle.dumps(measure()))
    return pickle.loads(file.read_bytes())  # written here, and as safe as the checkpoint beside it


def _keep_masks(file: Path, model: torch.nn.Module, images: torch.Tensor, epoch: int) -> None:
    """Add what ``model`` predicts after an epoch; what lies there of later ones, of a lost training, goes."""
    with eval_mode(model) as see, torch.inference_mode():
        masks = {epoch: see(images).to("cpu", torch.uint8).numpy()}
    if file.is_file():
        with np.load(file) as kept:
            pairs = zip(kept["epoch"].tolist(), kept["masks"], strict=True)
            masks = {number: found for number, found in pairs if number < epoch} | masks
    with atomic(file) as part, part.open("wb") as stream:
        np.savez_compressed(stream, epoch=list(masks), masks=np.stack(list(masks.values())))


def verdict(gains: Sequence[float], higher: bool = True, spread: float | None = None) -> str:
    """Return in a word what differences of repeated trainings say, so that no sentence says more.

    Args:
        gains: a score with something minus the score without it, one difference for each seed.
        higher: whether a higher score is better.
        spread: of either score over seeds; a decided mean difference that exceeds it is said to.

    Returns:
        ``"better"`` or ``"worse"`` if all seeds agree, else ``"not decided"``; and that it is one seed only.

    >>> verdict([0.01, 0.03]), verdict([0.01, 0.03], higher=False), verdict([0.01, -0.01])
    ('better', 'worse', 'not decided')
    >>> verdict([0.02, 0.03], spread=0.01)
    'better, by more than the spread'
    """
    gains = np.asarray(gains, float)
    if not ((gains > 0).all() or (gains < 0).all()):
        return "not decided"
    word = "better" if (gains[0] > 0) == higher else "worse"
    if len(gains) == 1:
        return f"{word}, with one seed"
    beyond = spread is not None and abs(gains.mean()) > spread
    return f"{word}, by more than the spread" if beyond else word


def begin(name: str, *, seed: int = 0, out: str = "", device: str = "auto") -> Lesson:
    """Seed everything, set the figure style, print versions, and say where results go.

    Args:
        name: the notebook's name, such as ``"02_pixelwise_baseline"``.
        seed: at least 0.
        out: folder for what the notebook leaves; empty takes ``RUNS/interactive/NAME``.
        device: see :func:`consensus_lib.training.pick_device`.

    Raises:
        ValueError: the seed is negative, or the device is not there.
    """
    if seed < 0:
        raise ValueError(f"seed: expected at least 0, got {seed}")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - for whatever third-party code still reads the global state
    torch.manual_seed(seed)
    plots.use_style()
    lesson = Lesson(
        name, seed, pick_device(device), Path(out) if out else paths.runs_dir() / "interactive" / name
    )
    print(
        f"consensus_lib {consensus_lib.__version__} · torch {torch.__version__} · "
        f"{device_name(lesson.device)} · seed {seed} · results in {paths.shown(lesson.out)}"
    )
    return lesson

"""What every notebook begins with: one line that sets the seed, the device, the figures and the folder.

A :class:`Lesson` shows, says, and trains by :func:`consensus_lib.experiments.train.run`.
"""

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import consensus_lib
from consensus_lib import paths
from consensus_lib.data import Splits
from consensus_lib.experiments.train import Config, Trained, folder_name, run
from consensus_lib.metrics.segmentation import SegmentationScores
from consensus_lib.training.devices import device_name, pick_device
from consensus_lib.viz import plots


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
        """Train one network, score it on the test split, and file the result: :func:`.train.run`.

        Call it again and the training is resumed, or found finished; change a setting and another one begins,
        because the folder's name ends in a hash of them all.

        Args:
            name: the loss's name in results, and the beginning of the folder's.
            data: where to train, to validate and to test.
            loss: a function or module of (logits, labels).
            seed: of the weights, the dropout, and the result.
            epochs … start: see :class:`.train.Config`.
            live: redraw the curves after each epoch, scored on the validation split; otherwise show a bar
                and score the last epoch only.
            scored: which scores to take of the test split; see :func:`consensus_lib.training.evaluate`.
            about: whatever else the result should say.
        """
        train = data.train
        config = Config(
            data=train.info.name,
            task=train.task.name,
            size=train.size,
            images=len(train),
            augment=train.augment,
            loss=loss,
            title=name,
            network=network,
            width=width,
            dropout=dropout,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            precision=precision,
            seed=seed,
            start=start,
        )
        return self.run(config, data, live=live, scored=scored, **about)

    def run(
        self,
        config: Config,
        data: Splits,
        *,
        live: bool = True,
        scored: type[SegmentationScores] = SegmentationScores,
        **about,
    ) -> Trained:
        """Train what ``config`` says on ``data``, in a folder of its own; see :meth:`train`."""
        return run(
            config,
            data,
            out=self.out / folder_name(config, data),
            device=str(self.device),
            evaluate_every=1 if live else config.epochs,
            scores=scored,
            progress=not live,
            on_epoch=plots.LiveCurves(config.epochs) if live else None,
            notebook=self.name,
            **about,
        )


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

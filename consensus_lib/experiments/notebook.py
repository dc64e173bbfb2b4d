"""What every notebook begins with: one line that sets the seed, the device, the figures and the folder."""

import dataclasses
import random
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import consensus_lib
from consensus_lib import paths
from consensus_lib.data import Splits
from consensus_lib.experiments.results import RESULT
from consensus_lib.experiments.train import Config, Trained, folder_name, run
from consensus_lib.metrics.segmentation import SegmentationScores
from consensus_lib.training.checkpoint import read_history
from consensus_lib.training.devices import device_name, pick_device
from consensus_lib.viz import plots


class Stopped(KeyboardInterrupt):
    """An interrupted training: a notebook shows its message in place of a traceback."""

    def __init__(self, title: str):
        super().__init__(f"{title}: stopped. Run the cell again to resume after its last epoch.")

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@dataclasses.dataclass(frozen=True)
class Lesson:
    """One notebook: where it runs, and where it leaves figures and trainings.

    Attributes:
        name: the notebook's file name without suffix.
        device: where networks run.
        out: folder for its figures, checkpoints and results.
    """

    name: str
    device: torch.device
    out: Path

    def show(self, figure, name: str, alt: str = "", kind: str = "png") -> None:
        """Show a figure by :func:`.plots.show`, and keep it as PDF and PNG in ``out/figures``."""
        plots.savefig(figure, self.out / "figures" / name)
        plots.show(figure, alt, kind)

    def say(self, text: str) -> None:
        """Show a paragraph of Markdown, for sentences with numbers that a cell has computed."""
        from IPython.display import Markdown, display

        display(Markdown(text))

    def train(
        self,
        config: Config,
        data: Splits,
        *,
        live: bool = True,
        scores: type[SegmentationScores] = SegmentationScores,
        **about,
    ) -> Trained:
        """Train by :meth:`run`, in a folder whose name ends in a hash of the settings, and show how it goes.

        Args:
            config: what to train.
            data: where to train, to validate and to test.
            live: redraw curves, scored on the validation split, after each epoch; otherwise show a bar and
                score the last epoch only.
            scores: which scores to take of the test split; see :func:`consensus_lib.training.evaluate`.
            about: what else the result should record.

        Raises:
            Stopped: it was interrupted. Called again, it is resumed after its last epoch.
        """
        title = f"{config.title or config.loss}, seed {config.seed}"
        curves = plots.LiveCurves(config.epochs, title=title) if live else None
        try:
            trained = self.run(
                config,
                data,
                evaluate_every=1 if live else config.epochs,
                scores=scores,
                progress=not live,
                on_epoch=curves,
                **about,
            )
        except KeyboardInterrupt:
            plt.close("all")  # a half-drawn one would be shown below the message
            raise Stopped(title) from None
        if curves and not curves.drawn:  # it was finished before
            curves(trained.history)
        return trained

    def run(self, config: Config, data: Splits, *, evaluate_every: int = 1, **options) -> Trained:
        """Train by :func:`.train.run`, in the folder and on the device that are this notebook's.

        What another notebook of the same run folder has trained already is copied.
        """
        out = self.out / folder_name(config, data)
        if not out.exists():
            self._copy(out, evaluate_every)
        how = {"device": str(self.device), "notebook": self.name, "evaluate_every": evaluate_every}
        return run(config, data, out=out, **how, **options)

    def _copy(self, out: Path, evaluate_every: int) -> None:
        """Copy a finished training of the same name, if one was evaluated as often, but for its result."""
        for result in self.out.parent.glob(f"*/{out.name}/{RESULT}"):
            rows = read_history(result.parent)
            if all("mean_iou" in row for row in rows[evaluate_every - 1 :: evaluate_every]):
                part = out.with_name(f".{out.name}")
                leave = shutil.ignore_patterns(RESULT)  # written last, by this notebook
                shutil.copytree(result.parent, part, dirs_exist_ok=True, ignore=leave)
                part.rename(out)
                return


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
    folder = Path(out) if out else paths.runs_dir() / "interactive" / name
    lesson = Lesson(name, pick_device(device), folder)
    print(
        f"consensus_lib {consensus_lib.__version__} · torch {torch.__version__} · "
        f"{device_name(lesson.device)} · seed {seed} · results in {paths.shown(folder)}"
    )
    return lesson

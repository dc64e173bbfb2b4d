"""What every notebook begins with: one line that sets the seed, the device, the figures and the folder."""

import dataclasses
import multiprocessing
import random
import shutil
from collections.abc import Iterable
from concurrent.futures import wait
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

import consensus_lib
from consensus_lib import paths
from consensus_lib.data import Splits
from consensus_lib.experiments.results import RESULT
from consensus_lib.experiments.train import Config, Trained, folder_name, run
from consensus_lib.metrics.segmentation import SegmentationScores
from consensus_lib.training.checkpoint import HISTORY, read_history
from consensus_lib.training.devices import device_name, one_thread_pool, pick_device
from consensus_lib.viz import plots

WORTHWHILE = 2000
"""Images, of all epochs together, from which on several trainings are made side by side: about as many as a
small network sees while processes start."""


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
                evaluate_every=_evaluate_every(config, live),
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

    def train_all(
        self, configs: Iterable[Config], data: Splits, *, live: bool = True, **options
    ) -> list[Trained]:
        """Train by :meth:`train`; on a CPU side by side, each with one thread, if the processes are worth it.

        Small networks train hardly faster with a second thread, which mostly waits for the first.

        Args:
            configs: what to train.
            data, live, options: as for :meth:`train`; while several are trained, one bar counts their epochs.

        Raises:
            Stopped: they were interrupted. Called again, each is resumed after its last epoch.
        """
        configs = list(configs)
        left = {}
        for config in configs:
            every = _evaluate_every(config, live)
            out = self._find(config, data, every)
            if _epochs_done(out) < config.epochs:
                left[out] = config, every
        images = sum(config.epochs for config, _ in left.values()) * len(data.train)
        several = self.device.type == "cpu" and min(len(left), torch.get_num_threads()) > 1
        if several and images >= WORTHWHILE:
            self._train_side_by_side(left, data, options)
        return [self.train(config, data, live=live, **options) for config in configs]

    def _train_side_by_side(self, left: dict[Path, tuple[Config, int]], data: Splits, options: dict) -> None:
        """Train in other processes; what fails there is left to be trained, and to fail, in this one."""
        workers = min(len(left), torch.get_num_threads())
        bar = tqdm(total=sum(config.epochs for config, _ in left.values()), desc="epochs", leave=False)
        with one_thread_pool(workers) as pool, bar:
            running = [pool.submit(_run, self, *one, data, options) for one in left.values()]
            try:
                while wait(running, timeout=1).not_done:
                    bar.n = sum(map(_epochs_done, left))
                    bar.refresh()
            except KeyboardInterrupt:
                for process in multiprocessing.active_children():
                    process.terminate()
                raise Stopped(f"{len(left)} trainings") from None

    def run(self, config: Config, data: Splits, *, evaluate_every: int = 1, **options) -> Trained:
        """Train by :func:`.train.run`, in the folder and on the device that are this notebook's.

        What another notebook of the same run folder has trained already is copied.
        """
        out = self._find(config, data, evaluate_every)
        how = {"device": str(self.device), "notebook": self.name, "evaluate_every": evaluate_every}
        return run(config, data, out=out, **how, **options)

    def _find(self, config: Config, data: Splits, evaluate_every: int) -> Path:
        """Return a training's folder; a finished one of the same name that was evaluated as often is copied
        there, but for its result."""
        out = self.out / folder_name(config, data)
        if out.exists():
            return out
        for result in self.out.parent.glob(f"*/{out.name}/{RESULT}"):
            rows = read_history(result.parent)
            if all("mean_iou" in row for row in rows[evaluate_every - 1 :: evaluate_every]):
                part = out.with_name(f".{out.name}")
                leave = shutil.ignore_patterns(RESULT)  # written last, by this notebook
                shutil.copytree(result.parent, part, dirs_exist_ok=True, ignore=leave)
                part.rename(out)
                break
        return out


def _epochs_done(folder: Path) -> int:
    return len(read_history(folder)) if (folder / HISTORY).is_file() else 0


def _evaluate_every(config: Config, live: bool) -> int:
    return 1 if live else config.epochs


def _run(lesson: Lesson, config: Config, evaluate_every: int, data: Splits, options: dict) -> None:
    lesson.run(config, data, evaluate_every=evaluate_every, progress=False, **options)  # stays on disk


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

"""What every notebook begins with: one line that sets the seed, the device, the figures and the folder."""

import dataclasses
import hashlib
import json
import random
from pathlib import Path

import numpy as np
import torch

import consensus_lib
from consensus_lib import figures, paths, runs
from consensus_lib.training import pick_device


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
        figures.savefig(figure, self.out / "figures" / name)
        figures.show(figure)

    def say(self, text: str) -> None:
        """Show a paragraph of Markdown; for sentences whose numbers a cell has just computed."""
        from IPython.display import Markdown, display

        display(Markdown(text))

    def training_folder(self, name: str, **settings) -> Path:
        """Return the folder of a training with these settings, below ``out``.

        The name ends in a hash of the settings: run a cell again and the training is taken up or found
        finished; change a setting and another one begins.
        """
        key = json.dumps(settings, sort_keys=True)
        return self.out / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"

    def write_result(self, folder: Path, **values) -> None:
        """Write ``result.json`` of a training; notebook, device and, unless given, seed are filled in."""
        known = {"notebook": self.name, "seed": self.seed, "device": device_name(self.device)}
        runs.write_result(folder, **known | values)


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
    figures.use_style()
    lesson = Lesson(
        name, seed, pick_device(device), Path(out) if out else paths.runs_dir() / "interactive" / name
    )
    print(
        f"consensus_lib {consensus_lib.__version__} · torch {torch.__version__} · "
        f"{device_name(lesson.device)} · seed {seed} · results in {paths.shown(lesson.out)}"
    )
    return lesson


def device_name(device: torch.device) -> str:
    """Return the device as a result file names it: the GPU's name, or the CPU and its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type

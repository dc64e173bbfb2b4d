"""Checkpoints: what a training keeps between epochs, and how it is resumed to the same bits."""

import json
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from consensus_lib.models.networks import NETWORKS
from consensus_lib.paths import atomic, write_json
from consensus_lib.training import distributed
from consensus_lib.training.devices import device_name, pick_device
from consensus_lib.training.settings import UNCLEAR

STATE, HISTORY = "checkpoint.json", "history.jsonl"
"""Names in a training folder: the state to resume from, and one line for each epoch."""

FORMAT = 3
"""Of the state. An earlier format describes the settings in other words."""


class CheckpointError(ValueError):
    """A checkpoint is missing, broken, or belongs to another training."""


def load_checkpoint(
    path: str | Path, model: nn.Module | None = None, *, device: str = "cpu"
) -> tuple[nn.Module, dict]:
    """Load a trained network from a training folder.

    Args:
        path: the folder that was ``out`` of :func:`fit`.
        model: to load into; None makes the one of ``networks.NETWORKS`` that the checkpoint describes.
        device: where to put it.

    Returns:
        The network in evaluation mode, and the record beside the weights: ``settings``, ``classes``,
        ``epoch``.

    Raises:
        CheckpointError: there is none, it is broken, or it does not fit ``model``.
    """
    folder = Path(path)
    state = _read_state(folder)
    tensors = _read_tensors(folder / state["weights"])
    if model is None:
        config = dict(state["settings"]["model"])
        network = NETWORKS.get(config.pop("name"))
        if network is None:
            raise CheckpointError(
                f"model: expected to be given for a checkpoint of {state['settings']['model']}"
            )
        model = network(**config)
    _load_weights(model, tensors, folder)
    return model.to(pick_device(device), memory_format=torch.channels_last).eval(), state


class Checkpoint:
    """What a training keeps between epochs, in memory and, where ``out`` is given, on disk.

    Args:
        model, optimizer, schedule: whose state is kept; ``schedule`` may be None.
        settings: see :func:`.settings.describe_training`.
        classes: names, in the order of the network's outputs.
        out: folder, or None.
        device: where the training runs.

    Attributes:
        history: one dictionary for each finished epoch.
        changes: differences from the conditions under which the last epoch was trained.
    """

    def __init__(self, model, optimizer, schedule, settings, classes, out, device: torch.device):
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.settings, self.classes = settings, list(classes)
        self.out = None if out is None else Path(out)
        self.machine = {"device": device_name(device), "processes": distributed.world_size()}
        self.history: list[dict] = []
        self.changes: list[str] = []

    def open(self, resume: bool, automatic: bool, planned: bool) -> None:
        """Load what ``out`` holds, or write the state before the first epoch.

        Args:
            resume: load if there is something. ``settings`` then have its precision and its epochs.
            automatic: the precision was not asked for: take the checkpoint's.
            planned: a schedule of the rate or of the loss depends on the number of epochs.

        Raises:
            CheckpointError: it is of another training, or broken; nothing on disk has changed.
        """
        if self.out is None:
            return
        # As process 0 sees it: the others might already see what it writes.
        if distributed.broadcast_object(resume and (self.out / STATE).is_file()):
            self._load(_read_state(self.out), automatic, planned)
        else:
            self._save()  # an interrupt in the first epoch can be resumed, too

    def finish_epoch(self, row: dict) -> None:
        """Add an epoch's row to the history, and write it with the weights."""
        self.history.append(row)
        self._save()

    def _save(self) -> None:
        """Write the weights under a new name, then the record that points to them, then drop the old."""
        if self.out is None or distributed.rank() > 0:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        weights = self.out / f"checkpoint-{len(self.history):04d}.safetensors"
        optimizer = self.optimizer.state_dict()
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for index, state in optimizer["state"].items():
            tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
        with atomic(weights) as part:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part)
        with atomic(self.out / HISTORY) as part:
            part.write_text("".join(json.dumps(row) + "\n" for row in self.history), encoding="utf-8")
        schedule = self.schedule.state_dict() if self.schedule else {}
        plain = bool | int | float | str | list | None  # functions have no state
        state = {
            "format": FORMAT,
            "settings": self.settings,
            "machine": self.machine,
            "classes": self.classes,
            "epoch": len(self.history),
            "weights": weights.name,
            "optimizer": optimizer["param_groups"],
            "schedule": {key: value for key, value in schedule.items() if isinstance(value, plain)},
        }
        write_json(self.out / STATE, state)
        for old in self.out.glob("checkpoint-*.safetensors"):
            if old != weights:
                old.unlink()

    def _load(self, state: dict, automatic: bool, planned: bool) -> None:
        """Load the state of ``out``, unless its settings differ from ours in what must not change."""
        again = "take another folder, or start again with resume=False (--restart)"
        if state.get("format") != FORMAT:
            raise CheckpointError(
                f"{self.out}: expected a checkpoint of format {FORMAT}, got one of another version of this "
                f"library, which can be loaded but not resumed; {again}"
            )
        for key, text in self.settings.items():
            if UNCLEAR.search(str(text)):
                raise CheckpointError(
                    f"{key}: expected a function of a module, functools.partial of one, or an object whose "
                    f"repr shows its settings, got {text}, which cannot be compared with the training in "
                    f"{self.out}; {again}"
                )
        if other := self._other_settings(state, automatic, planned):
            raise CheckpointError(
                f"{self.out}: expected the same settings, got others ({'; '.join(other)}); {again}"
            )
        machine = state["machine"]
        self.changes += [f"{k}: {machine[k]} → {v}" for k, v in self.machine.items() if machine[k] != v]
        tensors = _read_tensors(self.out / state["weights"])
        _load_weights(self.model, tensors, self.out)
        states: dict[int, dict] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                states.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({"state": states, "param_groups": state["optimizer"]})
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        lines = (self.out / HISTORY).read_text(encoding="utf-8").splitlines()
        self.history = [json.loads(line) for line in lines[: state["epoch"]]]

    def _other_settings(self, state: dict, automatic: bool, planned: bool) -> list[str]:
        """Return the settings of ``state`` that differ from ours and must not, one text each.

        An automatic precision is taken from the checkpoint; more epochs than before, where no schedule was
        planned for them, are noted in ``changes``.
        """
        other = []
        for key, value in json.loads(json.dumps(self.settings)).items():
            known = state["settings"].get(key)
            if known == value:
                continue
            if key == "precision" and automatic:
                self.settings[key] = known
            elif key == "epochs" and not planned and value >= state["epoch"]:
                self.changes.append(f"{key}: {known} → {value}")
            else:
                other.append(f"{key}: expected {known!r}, got {value!r}")
        return other


def _read_state(folder: Path) -> dict:
    try:
        return json.loads((folder / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: expected a training folder with {STATE}, got none") from None
    except ValueError as error:
        raise CheckpointError(f"{folder / STATE}: expected JSON, got: {error}") from None


def _read_tensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{file}: expected a safetensors file, got: {error}") from None


def _load_weights(model: nn.Module, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Load the entries ``model.…`` of ``tensors`` into the model."""
    own = {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}
    try:
        model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in own.items()})
    except RuntimeError as error:
        raise CheckpointError(
            f"{folder}: expected the weights of {type(model).__name__}, got others: {error}"
        ) from None

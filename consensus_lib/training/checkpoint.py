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

_AGAIN = "take another folder, or start again with resume=False (--restart)"


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
    if model is None:
        options = dict(state["settings"]["model"])
        network = NETWORKS.get(options.pop("name"))
        if network is None:
            raise CheckpointError(
                f"model: expected to be given for a checkpoint of {state['settings']['model']}"
            )
        model = network(**options)
    _load_weights(model, folder / state["weights"])
    return model.to(pick_device(device), memory_format=torch.channels_last).eval(), state


def find_state(folder: str | Path | None) -> dict | None:
    """Return the record of the training in a folder, to resume it; None where there is none.

    Raises:
        CheckpointError: it is broken, or of an earlier version of this library.
    """
    # As process 0 sees it: the others might already see what it writes.
    if not distributed.broadcast_object(folder is not None and (Path(folder) / STATE).is_file()):
        return None
    state = _read_state(Path(folder))
    if state.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder}: expected a checkpoint of format {FORMAT}, got one of another version of this "
            f"library, which can be loaded but not resumed; {_AGAIN}"
        )
    return state


def read_history(folder: str | Path) -> list[dict]:
    """Return a dictionary for each epoch of the training in a folder; OSError where there is none."""
    lines = (Path(folder) / HISTORY).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


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

    def save(self) -> None:
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

    def load(self, state: dict, planned: bool) -> None:
        """Load the training in ``out``, whose record is ``state``.

        Args:
            state: from :func:`find_state`.
            planned: a schedule of the rate or of the loss depends on the number of epochs.

        Raises:
            CheckpointError: it is of another training, or broken; nothing on disk has changed.
        """
        self._check_settings(state, planned)
        for key, now in self.machine.items():
            if (then := state["machine"][key]) != now:
                self.changes.append(f"{key}: {then} → {now}")
        states: dict[int, dict] = {}
        for name, tensor in _load_weights(self.model, self.out / state["weights"]).items():
            _, index, key = name.split(".")  # optimizer.INDEX.KEY
            states.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({"state": states, "param_groups": state["optimizer"]})
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        self.history = read_history(self.out)[: state["epoch"]]

    def _check_settings(self, state: dict, planned: bool) -> None:
        """Refuse other settings than ours, but for more epochs where no schedule was planned for them."""
        other = []
        for key, ours in json.loads(json.dumps(self.settings)).items():
            if UNCLEAR.search(str(ours)):
                raise CheckpointError(
                    f"{key}: expected a function of a module, functools.partial of one, or an object whose "
                    f"repr shows its settings, got {ours}, which cannot be compared with the training in "
                    f"{self.out}; {_AGAIN}"
                )
            known = state["settings"].get(key)
            if key == "epochs" and known != ours >= state["epoch"] and not planned:
                self.changes.append(f"epochs: {known} → {ours}")
            elif known != ours:
                other.append(f"{key}: expected {known!r}, got {ours!r}")
        if other:
            raise CheckpointError(
                f"{self.out}: expected the same settings, got others ({'; '.join(other)}); {_AGAIN}"
            )


def _read_state(folder: Path) -> dict:
    try:
        return json.loads((folder / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: expected a training folder with {STATE}, got none") from None
    except ValueError as error:
        raise CheckpointError(f"{folder / STATE}: expected JSON, got: {error}") from None


def _load_weights(model: nn.Module, file: Path) -> dict[str, torch.Tensor]:
    """Load a file's entries ``model.…`` into the model, and return the others."""
    try:
        tensors = load_file(file)
        own = [name for name in tensors if name.startswith("model.")]
        model.load_state_dict({name.removeprefix("model."): tensors.pop(name) for name in own})
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{file}: expected a safetensors file, got: {error}") from None
    except RuntimeError as error:
        expected = f"expected the weights of {type(model).__name__}"
        raise CheckpointError(f"{file.parent}: {expected}, got others: {error}") from None
    return tensors

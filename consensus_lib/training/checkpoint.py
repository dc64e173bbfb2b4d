"""Checkpoints: what a training keeps between epochs, and how it is resumed to the same bits."""

import json
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from consensus_lib.models.networks import NETWORKS
from consensus_lib.paths import atomic, write_json
from consensus_lib.training import distributed
from consensus_lib.training.devices import can_run, device_name, pick_device
from consensus_lib.training.settings import UNCLEAR

STATE, HISTORY, BEST = "checkpoint.json", "history.jsonl", "best.safetensors"
"""Names in a training folder: the state to resume from, one line for each epoch, the best weights."""

FORMAT = 2
"""Of the state. What an earlier format says of a training is too little to compare settings."""


class CheckpointError(ValueError):
    """A checkpoint is missing, broken, or belongs to another training."""


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
    tensors = _read_tensors(file)
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


class Checkpoint:
    """What a training keeps between epochs, in memory and, where ``out`` is given, on disk.

    Args:
        model, optimizer, schedule: the training's, whose state is kept; ``schedule`` may be None.
        settings: of the training, as :mod:`.settings` describes them.
        classes: names, in the order of the network's outputs.
        out: folder, or None.
        device: where the training runs.

    Attributes:
        history: one dictionary for each finished epoch.
        changes: what differs from the conditions under which the last epoch was trained.
    """

    def __init__(self, model, optimizer, schedule, settings, classes, out, device: torch.device):
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.settings, self.classes, self.device = settings, list(classes), device
        self.out = None if out is None else Path(out)
        self.machine = {"device": device_name(device), "processes": distributed.world_size()}
        self.history: list[dict] = []
        self.changes: list[str] = []
        self.best_score, self.best_epoch, self.evaluations_since_best = None, 0, 0
        self._best: dict[str, torch.Tensor] = {}
        self._writes = out is not None and distributed.rank() == 0

    def open(self, resume: bool, automatic: bool, planned: bool) -> None:
        """Load what ``out`` holds, or write the state before the first epoch.

        Args:
            resume: load if there is something. ``settings`` then have its precision and its epochs.
            automatic: the precision was not asked for: take the checkpoint's.
            planned: a schedule of the rate or of the loss depends on the number of epochs.

        Raises:
            CheckpointError: it is of another training, or broken; nothing has changed.
        """
        if self.out is None:
            return
        # As process 0 sees it: the others might already see what it writes.
        if distributed.broadcast_object(resume and (self.out / STATE).is_file()):
            self._load(_read_state(self.out), automatic, planned)
        elif self._writes:
            self._save()  # an interrupt in the first epoch can be resumed, too

    def exhausted(self, patience: int | None) -> bool:
        """Say whether so many evaluations have passed without a better score."""
        return patience is not None and self.evaluations_since_best >= patience

    def finish_epoch(self, row: dict, score: float | None) -> None:
        """Keep an epoch's row and, if its score is the best so far, its weights."""
        self.history.append(row)
        if score is not None:
            self.evaluations_since_best += 1
            if self.best_score is None or score > self.best_score:
                self.best_score, self.best_epoch, self.evaluations_since_best = score, row["epoch"], 0
                self._best = _named("model", {k: v.clone() for k, v in self.model.state_dict().items()})
                if self._writes:
                    _save_tensors(self._best, self.out / BEST)
        if self._writes:
            self._save()

    def restore_best(self) -> None:
        """Load the best weights into the model, if any epoch was scored."""
        tensors = self._best or (_read_tensors(self.out / BEST) if self.best_epoch else {})
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
                "format": FORMAT,
                "settings": self.settings,
                "machine": self.machine,
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
                    f"repr shows its settings, got {text}: nobody can tell whether the training in "
                    f"{self.out} had the same; {again}"
                )
        tensors = _read_tensors(self.out / state["weights"])
        other = self._other_settings(state, automatic, planned)
        other += _different(_part(tensors, "model"), self.model.state_dict())[:1]
        if other:
            raise CheckpointError(
                f"{self.out} holds a training with other settings ({'; '.join(other)}); {again}"
            )
        machine = state["machine"]
        self.changes += [f"{k}: {machine[k]} → {v}" for k, v in self.machine.items() if machine[k] != v]
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

    def _other_settings(self, state: dict, automatic: bool, planned: bool) -> list[str]:
        """Return the settings of ``state`` that differ from ours and must not, one text each.

        Those that may differ are taken over from the checkpoint, or noted in ``changes``.
        """
        saved, ours, other = state["settings"], json.loads(json.dumps(self.settings)), []
        for key, value in ours.items():
            if (known := saved.get(key)) == value:
                continue
            if key == "schedule" and planned and saved["epochs"] != ours["epochs"]:
                continue  # the number of epochs is the reason, and is in the list already
            text = f"{key}: expected {known!r}, got {value!r}"
            if key == "precision" and automatic:
                if can_run(known, self.device):
                    self.settings[key] = known
                else:
                    self.changes.append(f"{key}: {known} → {value}")
            elif key == "precision":
                other.append(f"{text} ('auto' continues in {known})")
            elif key == "epochs" and planned:
                other.append(f"{text} (the schedule of the rate or of the loss was planned for {known})")
            elif key == "epochs" and value >= state["epoch"]:
                self.changes.append(f"{key}: {known} → {value}")
            else:
                other.append(text)
        return other


def _different(known: dict[str, torch.Tensor], ours: dict[str, torch.Tensor]) -> list[str]:
    """Return in what names, types and shapes of a network's tensors differ, one text each."""
    texts = [
        {
            name: f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
            for name, tensor in part.items()
        }
        for part in (known, ours)
    ]
    names = dict.fromkeys([*ours, *known])
    pairs = {name: [text.get(name, "none") for text in texts] for name in names}
    return [f"model.{name}: expected {a}, got {b}" for name, (a, b) in pairs.items() if a != b]


def _read_state(folder: Path) -> dict:
    try:
        return json.loads((folder / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: expected a training folder with {STATE}, found none") from None
    except ValueError as error:
        raise CheckpointError(f"{folder / STATE}: expected JSON, got: {error}") from None


def _read_tensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{file}: expected a safetensors file, got: {error}") from None


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

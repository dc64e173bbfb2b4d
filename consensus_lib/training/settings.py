"""A training's settings as text, by which a checkpoint recognises the training that it is of.

A setting whose text does not tell it from another one matches :data:`UNCLEAR`: such a training can be
started, not resumed.
"""

import functools
import hashlib
import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from consensus_lib.data import FaceDataset
from consensus_lib.models.networks import NETWORKS

UNCLEAR = re.compile(r"<lambda>|<locals>| at 0x")
"""Matches the text of a setting that could as well be another one's."""

COUNTERS = {"optimizer", "last_epoch", "verbose", "_last_lr", "_step_count", "_is_initial"}
"""Attributes of schedules that are not settings, or that only some versions of torch have."""


def describe(value: Any) -> str:
    """Return a setting as text: the same on every machine, another one for another value.

    A function goes by its module and name, not by its code; a ``functools.partial`` also by its arguments; a
    tensor by a digest. A module is its ``repr`` with its parameters and buffers, and, where its class has no
    ``extra_repr``, its attributes (but for ``progress``). Anything else is its ``repr``. What this cannot
    tell from another, such as a lambda, a local function or an object that shows its address only, matches
    :data:`UNCLEAR`.

    >>> describe(functools.partial(min, 2, default=None))
    'partial(builtins.min, 2, default=None)'
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {describe(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(describe, value)) + "]"
    if isinstance(value, torch.Tensor | np.ndarray | np.generic) and value.ndim == 0:
        return repr(value.item())
    if isinstance(value, torch.Tensor):
        content = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        return f"{value.dtype}{list(value.shape)} {_digest(content)}"
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"{value.dtype}{list(value.shape)} {_digest(value.tobytes())}"
    if isinstance(value, functools.partial):
        given = [*map(describe, value.args), *(f"{k}={describe(v)}" for k, v in value.keywords.items())]
        return f"partial({', '.join([describe(value.func), *given])})"
    if isinstance(value, nn.Module):
        hidden = {
            f"{place}.{key}" if place else key: own
            for place, part in value.named_modules()
            if (type(part).extra_repr, type(part).__repr__) == (nn.Module.extra_repr, nn.Module.__repr__)
            for key, own in vars(part).items()
            if key not in vars(nn.Module()) and key != "progress"
        }
        hidden |= dict(itertools.chain(value.named_parameters(), value.named_buffers()))
        return f"{value!r} {describe(hidden)}" if hidden else repr(value)
    if hasattr(value, "__self__") and hasattr(value, "__func__"):  # a bound method
        return f"{describe(value.__self__)}.{value.__func__.__qualname__}"
    if isinstance(value, type) or (hasattr(value, "__qualname__") and hasattr(value, "__module__")):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


def describe_training(model: nn.Module, data: FaceDataset, loss: Callable, optimizer) -> dict[str, Any]:
    """Return the loss, data, network and optimiser of a training, as JSON can hold them."""
    return {
        "loss": describe(loss),
        "data": data.fingerprint,
        "task": data.task.name,
        "samples": len(data),
        "size": data.size,
        "data_seed": data.seed,
        "augment": repr(data.augment),
        "model": describe_network(model),
        "optimizer": describe_optimizer(optimizer, model),
    }


def describe_network(model: nn.Module) -> dict:
    """Return what a network of :data:`NETWORKS` is made of, or a digest of another network's ``repr``."""
    config = {"name": type(model).__name__}
    if type(model) in NETWORKS.values():
        return config | {"num_classes": model.num_classes, "width": model.width, "dropout": model.dropout}
    unclear = UNCLEAR.search(repr(model))
    return config | {"layers": unclear[0] if unclear else _digest(repr(model))}


def describe_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> str:
    """Return the settings of each parameter group, and which parameters it has."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = []
    for group in optimizer.param_groups:
        members = [f"{names.get(p)}{list(p.shape)}" for p in group["params"]]
        own = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        groups.append(own | {"parameters": f"{len(members)}, {_digest(' '.join(members))}"})
    return f"{type(optimizer).__name__} {describe(groups)}"


def describe_schedule(schedule: LRScheduler | None, steps: int) -> str:
    """Return a schedule's settings; a function of the step by its values, at up to a thousand steps."""

    def values(function: Callable) -> str:
        found = [f"{float(function(step)):.6g}" for step in range(0, steps + 1, -(-steps // 1000))]
        return f"{found[0]} … {found[-1]}, {_digest(' '.join(found))}"

    if schedule is None:
        return "None"
    own = {
        key: value
        for key, value in vars(schedule).items()
        if key not in COUNTERS and not key.startswith("_get_lr_called")
    }
    own |= {k: v.__func__.__qualname__ for k, v in own.items() if getattr(v, "__self__", None) is schedule}
    for key in own.keys() & {"lr_lambdas"}:
        own[key] = [values(function) for function in own[key]]
    for key in own.keys() & {"_schedulers"}:
        own[key] = [describe_schedule(part, steps) for part in own[key]]
    return f"{type(schedule).__name__} {describe(own)}"


def follows_progress(loss: Callable) -> bool:
    """Say whether ``loss`` has the attribute ``progress`` and a function among its settings."""
    parts = loss.modules() if isinstance(loss, nn.Module) else [loss]
    found = [value for part in parts for value in getattr(part, "__dict__", {}).values()]
    found += [inner for value in found if isinstance(value, dict) for inner in value.values()]
    return hasattr(loss, "progress") and any(
        callable(value) and not isinstance(value, nn.Module) for value in found
    )


def _digest(content: str | bytes) -> str:
    content = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(content).hexdigest()[:12]

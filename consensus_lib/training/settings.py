"""A training's settings as text, by which a checkpoint recognises its training.

The text of a lambda or of a local function does not tell it from another one. Such text matches
:data:`UNCLEAR`: the training can be started, not resumed.
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

from consensus_lib.data import FaceDataset
from consensus_lib.models.networks import NETWORKS

UNCLEAR = re.compile(r"<lambda>|<locals>| at 0x")
"""Matches the text of a setting that could as well be another one's."""


def describe(value: Any) -> str:
    """Return a setting as text: the same on every machine, another one for another value.

    A function is given by its module and name, a ``functools.partial`` also by its arguments, an array by a
    digest. A module is its ``repr`` with its parameters and buffers, and, where its class has no
    ``extra_repr``, its attributes (but for ``progress``). Anything else is its ``repr``.

    >>> describe(functools.partial(min, 2, default=None))
    'partial(builtins.min, 2, default=None)'
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {describe(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(describe, value)) + "]"
    if isinstance(value, torch.Tensor | np.ndarray | np.generic) and value.ndim == 0:
        return repr(value.item())
    if isinstance(value, torch.Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf"):
        value = torch.as_tensor(value).detach().cpu().contiguous()
        content = value.view(-1).view(torch.uint8).numpy().tobytes()
        return f"{value.dtype}{list(value.shape)} {_digest(content)}"
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
    if isinstance(value, type) or (hasattr(value, "__qualname__") and hasattr(value, "__module__")):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


def describe_training(
    model: nn.Module, data: FaceDataset, loss: Callable, optimizer, schedule: Callable | None
) -> dict[str, Any]:
    """Return the network, data, loss, optimiser and schedule of a training, as JSON can hold them.

    A network of :data:`NETWORKS` is given by its options, another one by a digest of its ``repr``.
    """
    network = {"name": type(model).__name__}
    if type(model) in NETWORKS.values():
        network |= {"num_classes": model.num_classes, "width": model.width, "dropout": model.dropout}
    else:
        network["layers"] = " at 0x" if UNCLEAR.search(repr(model)) else _digest(repr(model))
    groups = [
        {key: len(value) if key == "params" else value for key, value in group.items()}
        for group in optimizer.param_groups
    ]
    return {
        "loss": describe(loss),
        "data": data.fingerprint,
        "task": data.task.name,
        "samples": len(data),
        "size": data.size,
        "data_seed": data.seed,
        "augment": repr(data.augment),
        "model": network,
        "optimizer": f"{type(optimizer).__name__} {describe(groups)}",
        "schedule": describe(schedule),
    }


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

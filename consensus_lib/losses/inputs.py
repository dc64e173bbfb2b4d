"""What losses do with their inputs: check them, choose a precision, blank what is ignored, print options."""

import inspect
from collections.abc import Callable

import torch

from consensus_lib import IGNORE


def check(logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Raise a ValueError unless logits are float ``[B,K,H,W]`` and labels int64 ``[B,H,W]`` like them."""
    if logits.dim() != 4 or not logits.is_floating_point():
        raise ValueError(f"logits: expected float [B,K,H,W], got {logits.dtype} {list(logits.shape)}")
    check_map("labels", labels, logits)


def check_map(name: str, found: torch.Tensor, logits: torch.Tensor) -> None:
    """Raise a ValueError that names the argument unless ``found`` is int64 ``[B,H,W]`` like logits."""
    like = (logits.shape[0], *logits.shape[2:])
    if found.dtype != torch.int64 or found.shape != like or found.device != logits.device:
        raise ValueError(
            f"{name}: expected int64 [B,H,W] like logits {list(logits.shape)} on {logits.device}, "
            f"got {found.dtype} {list(found.shape)} on {found.device}"
        )


def check_range(name: str, found: torch.Tensor, low: int, high: int) -> None:
    """Raise a ValueError that names the argument unless all of ``found`` is in low..high."""
    lowest, highest = found.aminmax() if found.numel() else (low, high)
    if lowest < low or highest > high:
        raise ValueError(f"{name}: expected {low}..{high}, got {int(lowest)}..{int(highest)}")


def check_not_negative(name: str, value: float) -> None:
    """Raise a ValueError that names the argument unless it is at least 0."""
    if not value >= 0:
        raise ValueError(f"{name}: expected a number of at least 0, got {value}")


def check_classes(logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Raise as :func:`check`, and where a label is no class, which a comparison with each does not notice."""
    check(logits, labels)
    check_range("labels", labels.where(labels != IGNORE, 0), 0, logits.shape[1] - 1)


def upcast(logits: torch.Tensor) -> torch.Tensor:
    """Return logits in float32 or float64: half precision is too coarse for sums over thousands of pixels."""
    return logits if logits.dtype == torch.float64 else logits.float()


def known_logits(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return upcast logits, 0 at ignored pixels: these then have gradient 0 even if they are NaN."""
    return upcast(logits).masked_fill((labels == IGNORE)[:, None], 0)


def checked_logits(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return :func:`known_logits` of inputs that :func:`check_classes` has passed."""
    check_classes(logits, labels)
    return known_logits(logits, labels)


def accumulator(device: torch.device) -> torch.dtype:
    """Return the type in which sums over blobs are computed; Apple's GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def one_hot(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return 1 at each pixel's label and 0 elsewhere, float32 ``[B,K,H,W]``; 0 at all where it is ignored."""
    return (labels[:, None] == torch.arange(classes, device=labels.device)[:, None, None]).float()


def merge_defaults(function: Callable, given: dict) -> dict:
    """Return the arguments of ``function`` that have a default, with those of ``given`` in their place.

    Raises:
        TypeError: ``function`` has no such argument.

    >>> merge_defaults(lambda x, *, beta=5.0, gamma=0.0: x, {"beta": 1.0})
    {'beta': 1.0, 'gamma': 0.0}
    """
    parameters = inspect.signature(function).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty and p.name != "blobs"}
    for name in given:
        if name not in defaults:
            raise TypeError(f"options: expected some of {sorted(defaults)}, got {name!r}")
    return defaults | given


def format_kwargs(settings: dict) -> str:
    """Format settings as in a call, functions by name: the same text in every process."""
    return ", ".join(f"{k}={getattr(v, '__qualname__', repr(v))}" for k, v in settings.items())

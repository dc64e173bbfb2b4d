"""Losses by name: cross-entropy, consensus, two presets and the baselines that consensus is compared with.

Any other loss is named by its import path: ``make_loss("my_losses:TopoLoss", weight=0.5)``.
"""

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from consensus_lib.losses import baselines, neighbours
from consensus_lib.losses.blobs import Blobs, label_blobs
from consensus_lib.losses.consensus import ConsensusLoss, pixelwise_loss
from consensus_lib.losses.inputs import check_classes, format_kwargs, merge_defaults

Loss = Callable[..., torch.Tensor]
"""A function or module of (logits ``[B,K,H,W]``, labels ``[B,H,W]``) that returns a scalar."""


class FunctionLoss(nn.Module):
    """A function of :mod:`~consensus_lib.losses.baselines` as a module, with its keyword arguments.

    Raises:
        TypeError: the function has no such argument.

    >>> FunctionLoss(baselines.dice_loss, squared=False)
    DiceLoss(squared=False, pixel_weight=0.0)
    """

    def __init__(self, function: Callable[..., torch.Tensor], **options):
        super().__init__()
        self.function, self.options = function, merge_defaults(function, options)

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self.function(logits, labels, **self.options)

    def extra_repr(self) -> str:
        """Return all settings, for printing and for checkpoints."""
        return format_kwargs(self.options)

    def _get_name(self) -> str:
        return self.function.__name__.title().replace("_", "")


class ComponentDiceLoss(FunctionLoss):
    """:func:`~consensus_lib.losses.baselines.component_dice_loss` as a module.

    Attributes:
        batch_keys, blob_options: as those of :class:`ConsensusLoss`.
    """

    batch_keys = ("blobs",)

    def __init__(self, connectivity: int = 4, *, min_size: int = 0, **options):
        super().__init__(baselines.component_dice_loss, **options)
        self.blob_options = {"kind": "component", "connectivity": connectivity, "min_size": min_size}

    def forward(
        self, logits: torch.Tensor, labels: torch.Tensor, blobs: Blobs | torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss."""
        check_classes(logits, labels)
        blobs = label_blobs(labels, **self.blob_options) if blobs is None else blobs
        return self.function(logits, labels, blobs, **self.options)

    def extra_repr(self) -> str:
        """Return all settings, for printing and for checkpoints."""
        return format_kwargs({**self.blob_options, **self.options})


class WithConsensus(nn.Module):
    """Any loss, and consensus added to it.

    Args:
        loss: a module of (logits, labels).
        consensus: what is added: with ``alpha=0`` the deviation from the blobs' means alone (Eq. 7).
    """

    batch_keys = ("blobs",)

    def __init__(self, loss: nn.Module, consensus: ConsensusLoss):
        super().__init__()
        self.loss, self.consensus, self.blob_options = loss, consensus, consensus.blob_options

    @property
    def progress(self) -> float:
        """How much of the training is done, for schedules; see :class:`ConsensusLoss`."""
        return self.consensus.progress

    @progress.setter
    def progress(self, share: float) -> None:
        self.consensus.progress = share

    def forward(
        self, logits: torch.Tensor, labels: torch.Tensor, blobs: Blobs | torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss."""
        return self.loss(logits, labels) + self.consensus(logits, labels, blobs)


class NamedLoss(NamedTuple):
    """A loss that is compared with others.

    Attributes:
        title: its name in tables.
        source: the paper that it is from.
        make: returns the loss module; keyword arguments are its options.
    """

    title: str
    source: str
    make: Callable[..., nn.Module]


def alone(beta: float = 10.0) -> ConsensusLoss:
    """Return Eq. 8 on components, each weighed by its size.

    With β = 5, chosen on validation, neither mean IoU nor component error is decidedly another than
    cross-entropy's.
    """
    return ConsensusLoss("component", beta=beta, size_weight=1.0)


def recommended(beta: float = 0.3) -> WithConsensus:
    """Return Lovász-Softmax and the deviation from the means of components, each weighed by its size.

    Better than cross-entropy in mean IoU and in component error. Better than SCNP, and than Lovász-Softmax
    alone, in mean IoU; their component errors are not decidedly others. Better than Lovász-Softmax with
    cross-entropy in component error; the mean IoU is not decided. On rendered covered faces neither score is
    decided against cross-entropy.

    Args:
        beta: weight of the deviation; 0.3 was chosen on validation photographs.
    """
    return WithConsensus(
        FunctionLoss(baselines.lovasz_softmax_loss),
        ConsensusLoss("component", alpha=0.0, beta=beta, size_weight=1.0),
    )


_MASI = "Masi et al., CVPR 2020"
PRESETS = {
    "alone": NamedLoss("consensus alone", _MASI, alone),
    "recommended": NamedLoss(
        "Lovász-Softmax and consensus",
        f"here, of Berman et al., CVPR 2018, and Eq. 7 of {_MASI}",
        recommended,
    ),
}
"""Losses with consensus by name. What their docstrings say of other losses is for photographs of LFW Part
Labels, if nothing else is said, at 64 pixels with a quarter of the network's width:
``notebooks/studies/claims.csv`` has each sentence beside its numbers, and ``notebooks/studies/README.md`` the
protocol."""


def _module(function: Callable[..., torch.Tensor]) -> Callable[..., FunctionLoss]:
    return functools.partial(FunctionLoss, function)


BASELINES = {
    "focal": NamedLoss("focal loss", "Lin et al., ICCV 2017", _module(baselines.focal_loss)),
    "dice": NamedLoss(
        "Dice", "Milletari et al., 3DV 2016; Sudre et al., DLMIA 2017", _module(baselines.dice_loss)
    ),
    "lovasz": NamedLoss("Lovász-Softmax", "Berman et al., CVPR 2018", _module(baselines.lovasz_softmax_loss)),
    "total_variation": NamedLoss(
        "total variation", "Rudin et al., Physica D 1992", _module(neighbours.total_variation_loss)
    ),
    "affinity": NamedLoss("affinity of pairs", "Ke et al., ECCV 2018", _module(neighbours.affinity_loss)),
    "mutual_information": NamedLoss(
        "region mutual information",
        "Zhao et al., NeurIPS 2019",
        _module(baselines.region_mutual_information_loss),
    ),
    "scnp": NamedLoss("SCNP", "Valverde et al., CVPR 2026", _module(neighbours.scnp_loss)),
    "component_dice": NamedLoss("Dice of components", "Kofler et al., IPMI 2023", ComponentDiceLoss),
}
"""Baselines by name. The docstring of each function says where it differs from its source."""


def _cross_entropy() -> Loss:
    return pixelwise_loss


LOSSES: dict[str, Callable[..., Loss]] = {
    "cross-entropy": _cross_entropy,
    "consensus": functools.partial(ConsensusLoss, kind="component"),
    **{name: preset.make for name, preset in PRESETS.items()},
    **{name: baseline.make for name, baseline in BASELINES.items()},
}
"""Every loss with a short name → what makes it from its options. Consensus is Eq. 8 on components."""


def make_loss(name: str, **options) -> Loss:
    """Return a loss by its name.

    Args:
        name: one of :data:`LOSSES`, or an import path ``MODULE:ATTRIBUTE`` to a class, which is called with
            the options, or to a function of (logits, labels), which is given them at each call. The module is
            found as Python finds modules: beside the notebook or script that runs, or on ``PYTHONPATH``.
        options: keyword arguments.

    Raises:
        ValueError: there is no loss of this name, or it has no such option.

    >>> make_loss("focal", gamma=1.0)
    FocalLoss(gamma=1.0)
    """
    make = LOSSES.get(name) or _imported(name)
    try:
        if name in LOSSES or isinstance(make, type):
            return make(**options)
        inspect.signature(make).bind(None, None, **options)  # logits, labels
    except TypeError as error:
        raise ValueError(f"loss_options: expected options of {name}, got {options}: {error}") from error
    return functools.partial(make, **options) if options else make


def _imported(path: str) -> Callable:
    module, colon, attribute = path.partition(":")
    expected = f"loss: expected one of {list(LOSSES)} or MODULE:ATTRIBUTE"
    if not (module and colon and attribute):
        raise ValueError(f"{expected}, got {path!r}")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{expected}, got {path!r}: {error}") from error
    if not callable(found):
        raise ValueError(f"{expected} of a class or function, got {path!r}, which is {found!r}")
    return found

"""Baselines of the consensus loss as modules; each function is written from its own paper's equations.

They are baselines of the consensus loss; :data:`consensus_lib.losses.registry.BASELINES` names them all. The
functions are in :mod:`~consensus_lib.losses.regions` and :mod:`~consensus_lib.losses.neighbours`. Most take
``pixel_weight``, the weight of an added :func:`~consensus_lib.losses.pixelwise_loss`: 1 for those that their
papers add to cross-entropy, 0 for those that stand for themselves.
"""

from collections.abc import Callable

import torch
from torch import nn

from consensus_lib.losses.blobs import Blobs, label_blobs
from consensus_lib.losses.consensus import ConsensusLoss
from consensus_lib.losses.inputs import check_classes, format_kwargs, merge_defaults
from consensus_lib.losses.neighbours import (
    affinity_loss,
    region_mutual_information_loss,
    total_variation_loss,
)
from consensus_lib.losses.regions import component_dice_loss, dice_loss, focal_loss, lovasz_softmax_loss


class FunctionLoss(nn.Module):
    """A loss function as a module: ``function`` with its keyword arguments, or their defaults.

    Raises:
        TypeError: the function has no such argument.

    >>> DiceLoss(per_image=False)
    DiceLoss(squared=True, per_image=False, pixel_weight=0.0)
    """

    function: Callable[..., torch.Tensor]

    def __init__(self, **options):
        super().__init__()
        self.options = merge_defaults(self.function, options)

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self.function(logits, labels, **self.options)

    def extra_repr(self) -> str:
        """Return all settings, for printing and for checkpoints."""
        return format_kwargs(self.options)


def _module(name: str, function: Callable[..., torch.Tensor]) -> type[FunctionLoss]:
    doc = f":func:`{function.__name__}` as a module, with its keyword arguments."
    return type(
        name, (FunctionLoss,), {"function": staticmethod(function), "__doc__": doc, "__module__": __name__}
    )


FocalLoss = _module("FocalLoss", focal_loss)
DiceLoss = _module("DiceLoss", dice_loss)
LovaszSoftmaxLoss = _module("LovaszSoftmaxLoss", lovasz_softmax_loss)
TotalVariationLoss = _module("TotalVariationLoss", total_variation_loss)
AffinityLoss = _module("AffinityLoss", affinity_loss)
RegionMutualInformationLoss = _module("RegionMutualInformationLoss", region_mutual_information_loss)


class ComponentDiceLoss(FunctionLoss):
    """:func:`component_dice_loss` as a module.

    Attributes:
        inputs, cut: as those of :class:`~consensus_lib.losses.ConsensusLoss`: a data set can cut the blobs
            once and for all.
    """

    function = staticmethod(component_dice_loss)
    inputs = ("blobs",)

    def __init__(self, connectivity: int = 4, *, min_size: int = 0, specks: str = "drop", **options):
        super().__init__(**options)
        self.cut = {
            "kind": "component",
            "connectivity": connectivity,
            "min_size": min_size,
            "specks": specks,
        }

    def forward(
        self, logits: torch.Tensor, labels: torch.Tensor, blobs: Blobs | torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss."""
        check_classes(logits, labels)
        blobs = label_blobs(labels, **self.cut) if blobs is None else blobs
        return self.function(logits, labels, blobs, **self.options)

    def extra_repr(self) -> str:
        """Return all settings, for printing and for checkpoints."""
        return format_kwargs({**self.cut, **self.options})


class WithConsensus(nn.Module):
    """Any loss, and consensus added to it.

    Args:
        loss: a module of (logits, labels).
        consensus: what is added: with ``alpha=0`` the deviation from the blobs' means alone (Eq. 7).
    """

    inputs = ("blobs",)

    def __init__(self, loss: nn.Module, consensus: ConsensusLoss):
        super().__init__()
        self.loss, self.consensus, self.cut = loss, consensus, consensus.cut

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

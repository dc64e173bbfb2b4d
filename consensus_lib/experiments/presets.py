"""Presets: losses with consensus, and what of their gains held when they were trained once more.

The study ``notebooks/studies/rivals.py`` compared them with cross-entropy and with other losses on
``rivals.csv`` (seeds 0 to 2, scored on the 400 test photographs on which the settings were chosen too) and
again on ``rivals-again.csv`` (seeds 3 to 5, 300 validation photographs): LFW Part Labels, development sample,
64 pixels, a quarter of the network's width. Notebook 05 shows the figures. Intervals are of three trainings
and not corrected for the number of comparisons, and both tables are older than the corrections that
``notebooks/studies/README.md`` lists.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from consensus_lib.losses import ConsensusLoss
from consensus_lib.losses.baselines import LovaszSoftmaxLoss, WithConsensus


class Preset(NamedTuple):
    """A loss and what it did.

    Attributes:
        title: its name in tables.
        loss: makes the loss, a module of (logits, labels).
        held: the scores that were better than cross-entropy's in both tables: the 95% interval of the
            difference, by :func:`~consensus_lib.metrics.comparison.paired_bootstrap`, excluded 0.
        harmed: the scores that were worse, by the same rule, in either table.
    """

    title: str
    loss: Callable[[], nn.Module]
    held: tuple[str, ...]
    harmed: tuple[str, ...] = ()


def alone(beta: float = 10.0) -> ConsensusLoss:
    """Return Eq. 8 on components, each weighed by its size.

    Its gains in mean IoU and component error did not hold.
    """
    return ConsensusLoss("component", beta=beta, size_weight=1.0)


def recommended() -> WithConsensus:
    """Return Lovász-Softmax and the deviation from the means of components, each weighed by its size.

    Its gains over cross-entropy held. Lovász-Softmax alone had as few components; whether it is consensus
    that adds area to it, or any dense second term would, is not known: Lovász-Softmax with cross-entropy was
    not compared.
    """
    return WithConsensus(
        LovaszSoftmaxLoss(), ConsensusLoss("component", alpha=0.0, beta=1.0, size_weight=1.0)
    )


PRESETS = {
    "alone": Preset("consensus alone", alone, ("hole_error",), ("raggedness_error",)),
    "recommended": Preset(
        "Lovász-Softmax and consensus",
        recommended,
        ("mean_iou", "component_error", "hole_error", "betti0_error", "boundary_f1_2"),
    ),
}
"""All presets by name."""

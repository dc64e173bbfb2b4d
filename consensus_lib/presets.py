"""Presets: losses with consensus for which there is evidence, and the evidence.

The study ``notebooks/studies/rivals.py`` compared them with cross-entropy and with other losses; notebook 05
reads its tables, and says how they were chosen and what was found once more, with other seeds and other
photographs (``rivals-again.csv``). A test holds the figures here to the study's tables.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from consensus_lib.losses import ConsensusLoss
from consensus_lib.structure_losses import LovaszSoftmaxLoss, WithConsensus

SETTING = (
    "LFW Part Labels, development sample: FaceOccNet at a quarter of its width, 1,300 photographs of 64×64, "
    "20 epochs, seeds 0 to 2, scored on 400 test photographs, on which the settings were chosen, too"
)
"""On what the evidence was found."""


class Preset(NamedTuple):
    """A loss and what it did.

    Attributes:
        title: its name in tables.
        loss: makes the loss, a module of (logits, labels).
        evidence: score → (with cross-entropy, with the preset, low, high): means over the trainings of
            ``SETTING``, and the ends of the 95% interval of their difference, by
            :func:`~consensus_lib.comparison.paired_bootstrap` over images and seeds.
    """

    title: str
    loss: Callable[[], nn.Module]
    evidence: dict[str, tuple[float, float, float, float]]


def alone(beta: float = 10.0) -> ConsensusLoss:
    """Return Eq. 8 on components, each weighed by its size."""
    return ConsensusLoss("component", beta=beta, size_weight=1.0)


def recommended() -> WithConsensus:
    """Return Lovász-Softmax and the deviation from the means of components, each weighed by its size."""
    return WithConsensus(
        LovaszSoftmaxLoss(), ConsensusLoss("component", alpha=0.0, beta=1.0, size_weight=1.0)
    )


PRESETS = {
    "alone": Preset(
        "consensus alone",
        alone,
        {"component_error": (0.922, 0.792, -0.243, -0.014), "mean_iou": (0.826, 0.832, 0.002, 0.009)},
    ),
    "recommended": Preset(
        "Lovász-Softmax and consensus",
        recommended,
        {"component_error": (0.922, 0.781, -0.239, -0.037), "mean_iou": (0.826, 0.843, 0.012, 0.021)},
    ),
}
"""All presets by name."""

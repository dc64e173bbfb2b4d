"""The evidence study's losses of images without labels: consensus needs none."""

import torch
from torch import nn

from consensus_lib import IGNORE
from consensus_lib.losses import label_blobs, pixelwise_loss
from consensus_lib.losses.consensus import match_and_deviation, paper_weights

SEGMENTS, SURE = 128, 0.9
"""SLIC segments asked for in an image; least mean probability of a blob that is matched to its own label."""


class WithUnlabelled(nn.Module):
    """Cross-entropy where an image has labels, and the terms of Eq. 7 where it has none.

    Args:
        weight: of these terms.
        alpha: by kind of blob, ``"segment"`` or ``"pixel"``: the weight of the match to the blob's own most
            probable class, where its mean probability is at least ``SURE``.
        beta: the same of the deviation.
        held: hold the mean constant in the deviation.
        ramp: the shares of the training from which on and up to which the weight rises.
    """

    batch_keys = ("segments",)

    def __init__(
        self,
        weight: float,
        *,
        alpha: dict[str, float] | None = None,
        beta: dict[str, float] | None = None,
        held: bool = True,
        ramp: tuple[float, float] = (0.5, 0.5),
    ):
        super().__init__()
        self.weight, self.alpha, self.beta = weight, alpha or {}, beta or {}
        self.held, self.ramp, self.progress = held, ramp, 0.0

    def forward(self, logits: torch.Tensor, labels: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
        """Return the loss.

        Args:
            logits: float ``[B,K,H,W]``.
            labels: int64 ``[B,H,W]``; an image without labels has ``IGNORE`` everywhere.
            segments: int64 ``[B,H,W]``, a number for each segment of an image; ``IGNORE`` beyond its border.
        """
        loss = pixelwise_loss(logits, labels)
        free = (labels == IGNORE).flatten(1).all(1)
        begin, end = self.ramp
        risen = float(self.progress >= end) if begin == end else (self.progress - begin) / (end - begin)
        weight = self.weight * min(1.0, max(0.0, risen))
        if not weight or not free.any():
            return loss
        logits, segments = logits[free], segments[free]
        for kind in {**self.alpha, **self.beta}:
            blobs = label_blobs(segments, "pixel" if kind == "pixel" else "class")  # a class: one segment
            mean = blobs.mean(logits.detach().softmax(1).movedim(1, -1))  # [M, K]
            sure, own = mean.max(1)
            match, deviation = match_and_deviation(logits, blobs._replace(labels=own), self.held)
            terms = self.alpha.get(kind, 0.0) * (sure >= SURE) * match + self.beta.get(kind, 0.0) * deviation
            loss = loss + weight * (paper_weights(blobs, len(logits), 1.0) @ terms).to(loss)
        return loss

    def extra_repr(self) -> str:
        """Return the settings, which name the training."""
        return f"{self.weight}, alpha={self.alpha}, beta={self.beta}, held={self.held}, ramp={self.ramp}"


SUPERVISED, PSEUDO = "supervision alone", "pseudo-labels"
SEGMENT, PIXEL = {"segment": 1.0}, {"pixel": 1.0}
UNLABELLED: dict[str, dict] = {
    "deviation": {"beta": SEGMENT, "held": False, "ramp": (0.0, 0.0)},
    "deviation, mean held": {"beta": SEGMENT, "ramp": (0.0, 0.0)},
    "deviation, mean held, rising": {"beta": SEGMENT, "ramp": (0.0, 0.5)},
    "deviation, mean held, late": {"beta": SEGMENT},
    "match and deviation, late": {"alpha": SEGMENT, "beta": SEGMENT},
    PSEUDO: {"alpha": PIXEL},
    "pseudo-labels and deviation": {"alpha": PIXEL, "beta": SEGMENT},
}
"""Method → options of :class:`WithUnlabelled` but for its weight, which is tried."""

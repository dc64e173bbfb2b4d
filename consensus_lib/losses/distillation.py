"""Learning from a teacher: losses of its labels, of its probabilities, and of both with consensus.

Shapes: logits ``[B,K,H,W]``, labels int64 ``[B,H,W]`` with 255 = ignore, probabilities ``[B,K,H,W]``.
"""

import torch
import torch.nn.functional as F
from torch import nn

from consensus_lib import IGNORE
from consensus_lib.losses.consensus import ConsensusLoss
from consensus_lib.losses.inputs import format_kwargs, known_logits


def soft_loss(
    logits: torch.Tensor,
    probabilities: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    temperature: float = 1.0,
) -> torch.Tensor:
    r"""Kullback-Leibler divergence of the network's probabilities from a teacher's, at a temperature.

    .. math:: \frac{T^2}{\sum_s w_s} \sum_s w_s \, D_{KL}(q_T(s) \,\|\, p_T(s)),
        \qquad q_T \propto q^{1/T}, \quad p_T = \mathrm{softmax}(x / T)

    A temperature above 1 shows what a sure teacher holds for second best. :math:`T^2` keeps the size of the
    gradient.

    Args:
        logits: float ``[B,K,H,W]``, x.
        probabilities: float ``[B,K,H,W]``, q; they sum to 1 over classes.
        weight: float ``[B,H,W]``, w, at least 0; None weighs all pixels alike.
        temperature: T, above 0.

    Returns:
        A scalar; 0 where all weights are 0. A pixel of weight 0 has gradient 0 whatever its logits are.

    Raises:
        ValueError: shapes differ from the above, or the temperature is not positive.

    Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015.

    >>> soft_loss(torch.zeros(1, 2, 4, 4), torch.full((1, 2, 4, 4), 0.5))
    tensor(0.)
    """
    if not temperature > 0:
        raise ValueError(f"temperature: expected a number above 0, got {temperature}")
    _check_probabilities(probabilities, logits)
    shape = len(logits), *logits.shape[2:]
    weight = logits.new_ones(shape) if weight is None else weight
    if weight.shape != shape:
        raise ValueError(f"weight: expected {list(shape)} like logits, got {list(weight.shape)}")
    q = probabilities.float().pow(1 / temperature)
    q = q / q.sum(1, keepdim=True)
    log_p = (logits.float().masked_fill((weight == 0)[:, None], 0) / temperature).log_softmax(1)
    log_p = log_p.masked_fill(q == 0, 0)  # 0 log 0 = 0, of classes whose logits are minus infinity
    apart = (torch.special.xlogy(q, q) - q * log_p).sum(1)  # [B, H, W]
    return temperature**2 * (weight * apart).sum() / weight.sum().clamp(min=torch.finfo(torch.float32).tiny)


class DistillationLoss(nn.Module):
    r"""What a student minimises: hard · cross-entropy + soft · :func:`soft_loss` + consensus.

    Every pixel counts by (the teacher's largest probability there)^``confidence``.

    Args:
        hard: weight of the cross-entropy with the teacher's labels.
        soft: weight of the divergence from the teacher's probabilities.
        temperature: of that.
        confidence: 0 counts all pixels alike, 1 by how sure the teacher is.
        unsure: pixels with a smaller largest probability are ignored, by all terms.
        consensus: the consensus loss to add, over blobs of the labels; None adds none. On factorised labels
            ``ConsensusLoss("occlusion")`` takes the blobs of Eq. 2.

    Attributes:
        batch_keys: names of what it takes from a batch beside labels.
        progress: as that of :class:`~consensus_lib.losses.ConsensusLoss`.

    Raises:
        ValueError: a weight is negative, all are 0, or ``unsure`` is outside [0, 1).
    """

    batch_keys = ("probabilities",)

    def __init__(
        self,
        hard: float = 1.0,
        soft: float = 0.0,
        *,
        temperature: float = 1.0,
        confidence: float = 0.0,
        unsure: float = 0.0,
        consensus: ConsensusLoss | None = None,
    ):
        super().__init__()
        if min(hard, soft, confidence) < 0 or not (hard or soft or consensus):
            raise ValueError(
                "hard, soft, confidence: expected at least 0 and one term, "
                f"got {hard}, {soft}, {confidence} and consensus={consensus}"
            )
        if not 0 <= unsure < 1:
            raise ValueError(f"unsure: expected a probability in [0, 1), got {unsure}")
        self.hard, self.soft, self.temperature = hard, soft, temperature
        self.confidence, self.unsure, self.consensus, self.progress = confidence, unsure, consensus, 0.0

    def forward(
        self, logits: torch.Tensor, labels: torch.Tensor, probabilities: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss."""
        _check_probabilities(probabilities, logits)
        sure = probabilities.amax(1)  # [B, H, W]
        labels = labels.masked_fill(sure < self.unsure, IGNORE)
        weight = sure**self.confidence * (labels != IGNORE)
        loss = logits.new_zeros((), dtype=torch.float32)
        if self.hard:
            known = known_logits(logits.float(), labels)
            entropy = F.cross_entropy(known, labels, ignore_index=IGNORE, reduction="none")
            loss = loss + self.hard * (weight * entropy).sum() / weight.sum().clamp(min=1e-6)
        if self.soft:
            loss = loss + self.soft * soft_loss(logits, probabilities, weight, temperature=self.temperature)
        if self.consensus:
            self.consensus.progress = self.progress
            loss = loss + self.consensus(logits, labels)
        return loss

    def extra_repr(self) -> str:
        """Return the settings, for printing and for checkpoints."""
        names = ("hard", "soft", "temperature", "confidence", "unsure")
        return format_kwargs({name: getattr(self, name) for name in names})


def _check_probabilities(probabilities: torch.Tensor, logits: torch.Tensor) -> None:
    if probabilities.shape != logits.shape or not probabilities.is_floating_point():
        raise ValueError(
            f"probabilities: expected floats like logits {list(logits.shape)}, "
            f"got {probabilities.dtype} {list(probabilities.shape)}"
        )

"""Baselines that look at a pixel's neighbours, each written from its own paper's equations.

Arguments, ignored pixels and errors are as in :mod:`~consensus_lib.losses.baselines`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from consensus_lib import IGNORE
from consensus_lib.losses.consensus import pixelwise_loss, plus_pixelwise
from consensus_lib.losses.inputs import check_not_negative, checked_logits, one_hot

EPSILON = 1e-4  # the least p and 1 - p of `affinity_loss`, as in the paper's released code
STRAIGHT = ((0, 1), (1, 0))
AROUND = (*STRAIGHT, (1, 1), (1, -1))
"""Steps (down, right) to half of a pixel's neighbours; the other half see it as theirs."""


def total_variation_loss(
    logits: torch.Tensor, labels: torch.Tensor, *, weight: float = 1.0, pixel_weight: float = 1.0
) -> torch.Tensor:
    r"""How much the probabilities change from pixel to pixel, added to cross-entropy.

    .. math:: \frac{1}{N} \sum_{s \sim t} \sum_k |p(s)_k - p(t)_k|

    over all pairs of labelled neighbours in a row or a column, for N labelled pixels.

    Args:
        weight: of the variation. No paper gives one for segmentation, and 1 was not tuned.

    Source: Rudin, Osher and Fatemi, Physica D 1992, for images; the anisotropic form.

    >>> sure = torch.tensor([[[[9.0, -9.0]], [[-9.0, 9.0]]]])
    >>> total_variation_loss(sure, torch.tensor([[[0, 1]]]), pixel_weight=0)  # one border, two pixels
    tensor(1.)
    """
    logits = checked_logits(logits, labels)
    p, valid = logits.softmax(1), labels != IGNORE
    total = p.new_zeros(())
    for (here, there), (known, near) in zip(_pairs(p, STRAIGHT), _pairs(valid, STRAIGHT), strict=True):
        total = total + ((here - there).abs().sum(1) * (known & near)).sum()
    return plus_pixelwise(weight * total / valid.sum().clamp(min=1), logits, labels, pixel_weight)


def affinity_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    weight: float = 0.1,
    margin: float = 3.0,
    pixel_weight: float = 1.0,
) -> torch.Tensor:
    r"""Pairs of neighbours: alike within a segment, apart by a margin across its border.

    For class k, pixel i and each of its eight neighbours j, with the divergence of Bernoulli distributions,

    .. math::
        D_{KL}(p(j)_k \,\|\, p(i)_k) \text{ where } y(i)_k = y(j)_k, \quad
        \max(0, m - D_{KL}(p(j)_k \,\|\, p(i)_k)) \text{ elsewhere}

    Each of the two is averaged over its pairs of labelled pixels and over classes: the few pairs across
    borders count as much as all others. An absent class adds pairs that are alike.

    Args:
        weight: of the pairs. Of 1, 0.1 and 0.01, 0.1 had the best mean IoU on validation photographs (one
            training each, with p at least 1e-6); 1 gives masks stripes along their borders.
        margin: m, in nats.

    Source: Ke et al., Adaptive Affinity Fields, ECCV 2018; p and 1 - p are at least ``EPSILON``, as in its
    released code. It differs in three points: neighbours are at 1 pixel, the paper's at distances learned for
    each class by an adversary; pixels are the image's, the paper's those of maps an eighth as large; and the
    weight is constant, the released code's begins at 1 and ends at 0.1.

    >>> affinity_loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]), weight=1, pixel_weight=0)
    tensor(3.)
    """
    logits = checked_logits(logits, labels)
    check_not_negative("margin", margin)
    p, y, valid = logits.softmax(1), one_hot(labels, logits.shape[1]), labels != IGNORE
    p, not_p = p.clamp(min=EPSILON), (1 - p).clamp(min=EPSILON)
    maps = p, not_p, p.log(), not_p.log(), y, valid
    pull = push = pulled = pushed = p.new_zeros(())
    parts = (_pairs(one, AROUND) for one in maps)
    for two_p, two_not_p, two_log, two_log_not, (y_i, y_j), (known, near) in zip(*parts, strict=True):
        both = (known & near)[:, None]  # [B, 1, h, w]
        alike, across = both & (y_i == y_j), both & (y_i != y_j)  # [B, K, h, w]
        log_ratio, log_not_ratio = two_log[1] - two_log[0], two_log_not[1] - two_log_not[0]
        for j, sign in ((1, 1), (0, -1)):  # from i to j, and from j to i
            apart = sign * (two_p[j] * log_ratio + two_not_p[j] * log_not_ratio)
            pull, push = pull + (apart * alike).sum(), push + ((margin - apart).relu() * across).sum()
            pulled, pushed = pulled + alike.sum(), pushed + across.sum()
    value = pull / pulled.clamp(min=1) + push / pushed.clamp(min=1)
    return plus_pixelwise(weight * value, logits, labels, pixel_weight)


def scnp_loss(logits: torch.Tensor, labels: torch.Tensor, *, radius: int = 1) -> torch.Tensor:
    r"""Cross-entropy in which each pixel answers for the poorest of its neighbours (SCNP).

    .. math::
        \tilde z(s)_k = \begin{cases} \min_{t \in N(s),\, y(t) = k} z(t)_k & y(s) = k \\
        \max_{t \in N(s),\, y(t) \ne k} z(t)_k & y(s) \ne k \end{cases}

    where N(s) is the square of 2r+1 pixels about s, without ignored pixels. A network that is trained so
    predicts from its own logits.

    Args:
        radius: r, in pixels; 0 is cross-entropy.

    Source: Valverde et al., CVPR 2026 (same-class neighbour penalisation, arXiv 2603.18671).

    >>> logits = torch.tensor([[[[0.0, 0.0]], [[3.0, 1.0]]]])
    >>> scnp_loss(logits, torch.tensor([[[1, 1]]]))  # both as the second pixel: log(1 + exp(-1))
    tensor(0.3133)
    """
    logits = checked_logits(logits, labels)
    check_not_negative("radius", radius)
    y, valid = one_hot(labels, logits.shape[1]).bool(), (labels != IGNORE)[:, None]
    poorest = (
        F.max_pool2d(z.masked_fill(~where, -torch.inf), 2 * radius + 1, 1, radius)
        for z, where in ((-logits, y), (logits, valid & ~y))
    )
    of_class, of_others = poorest  # [B, K, H, W]
    return pixelwise_loss(torch.where(y, -of_class, of_others).where(valid, 0.0), labels)


def _pairs(maps: torch.Tensor, steps: Sequence[tuple[int, int]]):
    """Yield, for each step, the part of ``maps`` ``[...,H,W]`` that has a neighbour there, and these."""
    height, width = maps.shape[-2:]
    for down, right in steps:
        rows, left = max(height - down, 0), max(-right, 0)
        columns = max(width - abs(right), 0)
        here = maps[..., :rows, left : left + columns]
        yield here, maps[..., down : down + rows, left + right : left + right + columns]

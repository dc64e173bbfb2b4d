"""Baselines that compare neighbours: total variation, affinity, mutual information of small squares.

Shapes: logits ``[B,K,H,W]``, labels int64 ``[B,H,W]`` with 255 = ignore. A pixel to ignore has gradient 0
whatever its logits are, infinite ones and NaN too, and all losses return 0 where every pixel is ignored. A
class that is no pixel's label may have logits of -inf: its probability is 0, its gradient too. They raise a
ValueError where shapes, types or values differ from what they say.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from consensus_lib import IGNORE
from consensus_lib.losses.consensus import plus_pixelwise
from consensus_lib.losses.inputs import accumulator, check_classes, check_not_negative, known_logits, one_hot

EPSILON = 1e-4
"""The least probability, and the least 1 - p, of :func:`affinity_loss`: as in the paper's released code."""

XI = 1e-6
"""ξ of :func:`region_mutual_information_loss`."""

STRAIGHT = ((0, 1), (1, 0))
AROUND = (*STRAIGHT, (1, 1), (1, -1))
"""Steps (down, right) to half of a pixel's neighbours; the other half see it as theirs."""


def total_variation_loss(
    logits: torch.Tensor, labels: torch.Tensor, *, weight: float = 1.0, pixel_weight: float = 1.0
) -> torch.Tensor:
    r"""How much the probabilities change from pixel to pixel, added to cross-entropy.

    .. math:: \frac{1}{N} \sum_{s \sim t} \sum_k |p(s)_k - p(t)_k|

    over all pairs of labelled pixels that are neighbours in a row or a column, for N labelled pixels: as
    much as twice the length of all borders where the prediction is sure.

    Args:
        logits: float ``[B,K,H,W]``.
        labels: int64 ``[B,H,W]``, 255 = ignore; read for the cross-entropy, and for what to ignore.
        weight: of the variation. No paper gives one for segmentation, and 1 was not tuned.
        pixel_weight: weight of the cross-entropy.

    Source: Rudin, Osher and Fatemi, Physica D 1992, for images; the anisotropic form.

    >>> sure = torch.tensor([[[[9.0, -9.0]], [[-9.0, 9.0]]]])
    >>> total_variation_loss(sure, torch.tensor([[[0, 1]]]), pixel_weight=0)  # one border, two pixels
    tensor(1.)
    """
    check_classes(logits, labels)
    logits = known_logits(logits, labels)
    p, valid = logits.softmax(1), labels != IGNORE
    total = p.new_zeros(())
    for (here, there), (known, near) in zip(_pairs(p, 1, STRAIGHT), _pairs(valid, 1, STRAIGHT), strict=True):
        total = total + ((here - there).abs().sum(1) * (known & near)).sum()
    return plus_pixelwise(weight * total / valid.sum().clamp(min=1), logits, labels, pixel_weight)


def affinity_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    weight: float = 0.1,
    margin: float = 3.0,
    distances: Sequence[int] = (1,),
    pixel_weight: float = 1.0,
) -> torch.Tensor:
    r"""Pairs of neighbours: alike within a segment, apart by a margin across its border.

    For class k, pixel i and each of its eight neighbours j at a distance, with
    :math:`D_{KL}` between Bernoulli distributions,

    .. math::
        D_{KL}(p(j)_k \,\|\, p(i)_k) \text{ where } y(i)_k = y(j)_k, \quad
        \max(0, m - D_{KL}(p(j)_k \,\|\, p(i)_k)) \text{ elsewhere}

    Each of the two is averaged over its pairs of labelled pixels, over classes and distances, so that the few
    pairs across borders count as much as all others. A class that is absent adds pairs that are alike, and
    makes their mean smaller.

    Args:
        logits: float ``[B,K,H,W]``.
        labels: int64 ``[B,H,W]``, 255 = ignore.
        weight: of the pairs. Of 1, 0.1 and 0.01 this one had the best mean IoU on validation photographs (one
            training each, with p at least 1e-6); 1 gives masks stripes along their borders, where it pushes
            uncertain pixels apart.
        margin: m, in nats.
        distances: from a pixel to its neighbours; a pixel looks in eight directions.
        pixel_weight: weight of an added cross-entropy.

    Source: Ke et al., Adaptive Affinity Fields, ECCV 2018; p and 1 - p are at least ``EPSILON``, as in its
    released code. It differs from the paper in three points: distances are given, the paper's are learned for
    each class by an adversary; they are pixels of the image, the paper's of maps an eighth as large; and the
    weight is constant, the released code's begins at 1 and ends at 0.1.

    >>> affinity_loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]), weight=1, pixel_weight=0)
    tensor(3.)
    """
    check_classes(logits, labels)
    logits = known_logits(logits, labels)
    check_not_negative("margin", margin)
    if not distances or min(distances) < 1:
        raise ValueError(f"distances: expected whole numbers of at least 1, got {distances}")
    p, y, valid = logits.softmax(1), one_hot(labels, logits.shape[1]), labels != IGNORE
    p, not_p = p.clamp(min=EPSILON), (1 - p).clamp(min=EPSILON)
    maps = p, not_p, p.log(), not_p.log(), y, valid
    pull = push = pulled = pushed = p.new_zeros(())
    for distance in distances:
        parts = (_pairs(one, distance, AROUND) for one in maps)
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


def region_mutual_information_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    weight: float = 1.0,
    radius: int = 1,
    pool: int = 2,
    pixel_weight: float = 1.0,
) -> torch.Tensor:
    r"""Minus a lower bound of the information that a region's probabilities have of its labels.

    The d = (2r+1)² pixels of a square are a sample of a random vector, Y of the labels' indicators of a class
    and P of its probabilities. With their covariances over all squares of an image,

    .. math::
        M = \Sigma_Y - \mathrm{cov}(Y, P) \, \Sigma_P^{-1} \, \mathrm{cov}(Y, P)^T, \qquad
        \mathcal{L} = \sum_k \frac{1}{2d} \log\det(M_k + \xi I)

    averaged over images that hold a square. It has no lower limit at 0: the better, the more negative.
    A class that is absent adds a constant, log(ξ) / 2. Computed in float64, for the determinant.

    Args:
        logits: float ``[B,K,H,W]``.
        labels: int64 ``[B,H,W]``, 255 = ignore; a square with such a pixel is left out.
        weight: of the bound.
        radius: r, of a square.
        pool: side of the cells, in pixels, that are averaged first; what does not fill a cell at the right
            and at the bottom is left out. The paper takes 4 on images of 513 pixels.
        pixel_weight: weight of an added cross-entropy.

    Source: Zhao et al., Region Mutual Information Loss, NeurIPS 2019 (for sigmoid outputs; here softmax).

    >>> labels = torch.tensor([[[0, 1, 0, 1]] * 4])
    >>> options = {"radius": 0, "pool": 1, "pixel_weight": 0}
    >>> region_mutual_information_loss(torch.zeros(1, 2, 4, 4), labels, **options)  # log 0.25, the variance
    tensor(-1.3863)
    """
    check_classes(logits, labels)
    logits = known_logits(logits, labels)
    if radius < 0 or pool < 1:
        raise ValueError(f"radius, pool: expected at least 0 and 1, got {radius} and {pool}")
    side = 2 * radius + 1
    if min(logits.shape[2:]) < side * pool:
        raise ValueError(
            f"logits: expected at least {side * pool} pixels a side for radius={radius} and pool={pool}, "
            f"got {list(logits.shape)}"
        )
    wide = accumulator(logits.device)
    p, y = logits.to(wide).softmax(1), one_hot(labels, logits.shape[1]).to(wide)
    ignored = (labels == IGNORE)[:, None].to(wide)
    p, y = F.avg_pool2d(p, pool), F.avg_pool2d(y, pool)
    ignored = F.max_pool2d(F.max_pool2d(ignored, pool), side, 1)  # [B, 1, h, w], of each square
    counts = (1 - ignored).flatten(2)[:, :, None]  # [B, 1, 1, n]
    number = counts.sum(3, keepdim=True)
    present = number.flatten() > 0

    def squares(maps):  # [B, K, h, w] -> [B, K, d, n], centred
        vectors = F.unfold(maps.flatten(0, 1)[:, None], side).unflatten(0, maps.shape[:2]) * counts
        return (vectors - vectors.sum(3, keepdim=True) / number.clamp(min=1)) * counts

    p, y = squares(p), squares(y)
    cov_y, cov_yp, cov_p = (a @ b.mT / number.clamp(min=1) for a, b in ((y, y), (y, p), (p, p)))
    slack = XI * torch.eye(side**2, dtype=wide, device=logits.device)  # ξI
    known = torch.cholesky_solve(cov_yp.mT, torch.linalg.cholesky(cov_p + slack))  # [B, K, d, d]
    rest = torch.linalg.cholesky(cov_y - cov_yp @ known + slack)
    bound = rest.diagonal(dim1=2, dim2=3).log().sum((1, 2)) / side**2  # [B]; half of log det is this sum
    value = (bound * present).sum() / present.sum().clamp(min=1)
    return plus_pixelwise(weight * value.to(logits), logits, labels, pixel_weight)


def _pairs(maps: torch.Tensor, distance: int, steps: Sequence[tuple[int, int]]):
    """Yield, for each step, the part of ``maps`` ``[...,H,W]`` that has a neighbour there, and these."""
    height, width = maps.shape[-2:]
    for down, right in steps:
        down, right = distance * down, distance * right
        rows, left = max(height - down, 0), max(-right, 0)
        columns = max(width - abs(right), 0)
        here = maps[..., :rows, left : left + columns]
        yield here, maps[..., down : down + rows, left + right : left + right + columns]

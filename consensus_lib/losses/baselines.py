"""Baselines of the consensus loss, each written from its own paper's equations.

:data:`~consensus_lib.losses.registry.BASELINES` names them and makes modules of them.

Logits are float ``[B,K,H,W]``, labels int64 ``[B,H,W]`` with 255 = ignore; ``pixel_weight`` is the weight
of an added :func:`~consensus_lib.losses.pixelwise_loss`: by default 1 where the paper adds it.
All return a scalar: 0 where every pixel is ignored. An ignored pixel has gradient 0 whatever its logits are,
infinite or NaN. A class that is no pixel's label may have logits of -inf: its probability and its gradient
are 0. A ValueError names an argument of another shape, type or range.
"""

import torch
import torch.nn.functional as F

from consensus_lib import IGNORE
from consensus_lib.losses.blobs import Blobs, as_blobs, label_blobs
from consensus_lib.losses.consensus import plus_pixelwise
from consensus_lib.losses.inputs import accumulator, check_not_negative, check_range, checked_logits, one_hot

XI = 1e-6  # ξ of `region_mutual_information_loss`


def focal_loss(logits: torch.Tensor, labels: torch.Tensor, *, gamma: float = 2.0) -> torch.Tensor:
    r"""Cross-entropy in which a pixel counts less the surer the network is of its label.

    .. math:: -\frac{1}{N} \sum_s (1 - p(s)_{k^*})^\gamma \log p(s)_{k^*}

    over the N labelled pixels, where the paper divides by the number of anchors on an object.

    Args:
        gamma: γ, at least 0; 0 is cross-entropy.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017; there sigmoid outputs, and α.

    >>> focal_loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64))  # 0.25 log 2
    tensor(0.1733)
    """
    logits = checked_logits(logits, labels)
    check_not_negative("gamma", gamma)
    log_p = -F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")  # [B, H, W]
    # 1 - p without cancellation; kept off 0, where its power has no derivative for gamma < 1
    doubt = -torch.expm1(log_p).clamp(max=-torch.finfo(log_p.dtype).tiny)
    return (-(doubt**gamma) * log_p).sum() / (labels != IGNORE).sum().clamp(min=1)


def dice_loss(
    logits: torch.Tensor, labels: torch.Tensor, *, squared: bool = True, pixel_weight: float = 0.0
) -> torch.Tensor:
    r"""One minus the soft Dice overlap of each class of an image, averaged over the classes that occur.

    .. math:: 1 - \frac{2 \sum_s p(s)_k \, y(s)_k}{\sum_s p(s)_k^2 + \sum_s y(s)_k^2}

    Args:
        squared: as above, after Milletari; False takes p and y themselves in the denominator, after Sudre.

    Source: Milletari et al., V-Net, 3DV 2016, for one class; Sudre et al., Generalised Dice Overlap, DLMIA
    2017, for several, there weighted by their size and here alike.

    >>> dice_loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))  # 1 - 2 · 0.5 / (0.5 + 1)
    tensor(0.3333)
    """
    logits = checked_logits(logits, labels)
    p, y, valid = _by_class(logits, labels)
    p = p * valid
    size = y.sum(2)  # [B, K]
    below = (p.square() if squared else p).sum(2) + size
    dice = 2 * (p * y).sum(2) / below.clamp(min=torch.finfo(p.dtype).tiny)
    return plus_pixelwise(_mean_of_present(1 - dice, size > 0), logits, labels, pixel_weight)


def lovasz_softmax_loss(
    logits: torch.Tensor, labels: torch.Tensor, *, pixel_weight: float = 0.0
) -> torch.Tensor:
    r"""The Lovász extension of each class's Jaccard loss, averaged over the classes that occur.

    For pixels M that are wrong, the Jaccard loss of class k with pixels Y is
    :math:`\Delta(M) = |M| / |Y \cup M|`. Its Lovász extension at the errors
    :math:`m_s = |y_s - p_s|`, sorted so that :math:`m_{\pi_1} \ge m_{\pi_2} \ge \dots`, is

    .. math:: \sum_i m_{\pi_i} \, \big(\Delta(\{\pi_1 .. \pi_i\}) - \Delta(\{\pi_1 .. \pi_{i-1}\})\big)

    Source: Berman et al., The Lovász-Softmax loss, CVPR 2018; there of the batch by default, here per
    image, and without the cross-entropy that its authors train with before or beside it.

    >>> lovasz_softmax_loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))  # all errors are 0.5
    tensor(0.5000)
    """
    logits = checked_logits(logits, labels)
    p, y, valid = _by_class(logits, labels)
    errors = (y - p).abs() * valid  # [B, K, N]; pixels to ignore have none, sort last and add 0
    errors, order = errors.sort(2, descending=True)
    outside = 1 - y.gather(2, order)
    size = y.sum(2, keepdim=True)
    wrong = torch.arange(1, 1 + errors.shape[2], device=p.device, dtype=p.dtype)  # |M|
    jaccard = wrong / (size + outside.cumsum(2))  # [B, K, N]
    steps = torch.diff(jaccard, dim=2, prepend=torch.zeros_like(size))
    value = _mean_of_present((errors * steps).sum(2), size[:, :, 0] > 0)
    return plus_pixelwise(value, logits, labels, pixel_weight)


def component_dice_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    blobs: Blobs | torch.Tensor | None = None,
    *,
    dice_weight: float = 2.0,
    component_weight: float = 1.0,
    pixel_weight: float = 0.0,
) -> torch.Tensor:
    r"""Dice of each component by itself, and of each class: a small component counts as a large one.

    For component c of class k, the class's other components are masked out, so that what is left is c and
    all pixels of other classes:

    .. math::
        D_c = \frac{2 \sum_{s \in c} p(s)_k}{\sum_{s \in c} p(s)_k + \sum_{y(s) \ne k} p(s)_k + |c|}, \qquad
        \mathcal{L} = \alpha \, \mathcal{L}_{dice} + \beta \, \overline{(1 - D_c)}

    averaged over the components of a class, the classes 1.. of an image, and the images that have one.

    Args:
        blobs: blobs or an id map ``[B,H,W]``; None takes the 4-connected components of the labels.
        dice_weight: α, of :func:`dice_loss` without squares.
        component_weight: β.

    Source: Kofler et al., blob loss, IPMI 2023, for one class; α and β are the paper's. There the Dice of the
    class has no part for the background, here :func:`dice_loss` has.

    >>> labels = torch.tensor([[[0, 1, 0]]])
    >>> component_dice_loss(torch.zeros(1, 2, 1, 3), labels, dice_weight=0)  # 1 - 1 / 2.5
    tensor(0.6000)
    """
    logits = checked_logits(logits, labels)
    blobs = label_blobs(labels, "component") if blobs is None else as_blobs(blobs, labels)
    check_range("blobs.ids", blobs.ids, -1, len(blobs.size) - 1)
    classes = logits.shape[1]
    p, y = logits.softmax(1), one_hot(labels, classes)
    outside = (p * (1 - y) * (labels != IGNORE)[:, None]).sum((2, 3)).flatten()  # [B*K]
    mine = p.gather(1, labels.where(labels != IGNORE, 0)[:, None])[:, 0]  # [B, H, W], p of each label
    inside = p.new_zeros(len(blobs.size) + 1).index_add(0, blobs.ids.flatten() + 1, mine.flatten())[1:]
    group = blobs.image * classes + blobs.labels  # [M]
    dice = 2 * inside / (inside + outside[group] + blobs.size)
    siblings = torch.bincount(group, minlength=len(outside))  # [B*K]
    value = torch.zeros_like(outside).index_add(0, group, 1 - dice) / siblings.clamp(min=1)
    value = _mean_of_present(*(part.view(-1, classes)[:, 1:] for part in (value, siblings > 0)))
    value = component_weight * value + dice_weight * dice_loss(logits, labels, squared=False)
    return plus_pixelwise(value, logits, labels, pixel_weight)


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

    averaged over images that hold a square. It may be negative.
    A class that is absent adds a constant, log(ξ) / 2. Computed in float64, for the determinant.

    Args:
        weight: of the bound.
        radius: r, of a square.
        pool: side of the cells, in pixels, that are averaged first; what does not fill a cell at the right
            and at the bottom is left out. The paper takes 4 on images of 513 pixels.

    Source: Zhao et al., Region Mutual Information Loss, NeurIPS 2019 (for sigmoid outputs; here softmax).

    >>> labels = torch.tensor([[[0, 1, 0, 1]] * 4])
    >>> options = {"radius": 0, "pool": 1, "pixel_weight": 0}
    >>> region_mutual_information_loss(torch.zeros(1, 2, 4, 4), labels, **options)  # log 0.25, the variance
    tensor(-1.3863)
    """
    logits = checked_logits(logits, labels)
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


def _by_class(logits: torch.Tensor, labels: torch.Tensor):
    """Return p and y as ``[B,K,N]`` and which pixels are labelled as ``[B,1,N]``."""
    p = logits.softmax(1)
    y, valid = one_hot(labels, logits.shape[1]), (labels != IGNORE)[:, None]
    return tuple(part.to(p).flatten(2) for part in (p, y, valid))


def _mean_of_present(value: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``value`` ``[B,K]`` over an image's present classes, then over images with any."""
    of_image = (value * present).sum(1) / present.sum(1).clamp(min=1)
    return of_image.sum() / present.any(1).sum().clamp(min=1)

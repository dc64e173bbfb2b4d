"""Baselines that weigh pixels or compare regions: focal loss, Dice, Lovász-Softmax, Dice of each component.

Shapes: logits ``[B,K,H,W]``, labels int64 ``[B,H,W]`` with 255 = ignore. A pixel to ignore has gradient 0
whatever its logits are, infinite ones and NaN too, and all losses return 0 where every pixel is ignored. A
class that is no pixel's label may have logits of -inf: its probability is 0, its gradient too. They raise a
ValueError where shapes, types or values differ from what they say.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from consensus_lib import IGNORE
from consensus_lib.losses.blobs import Blobs, as_blobs, label_blobs
from consensus_lib.losses.consensus import plus_pixelwise
from consensus_lib.losses.inputs import check_classes, check_not_negative, check_range, known_logits, one_hot


def focal_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    gamma: float = 2.0,
    class_weight: Sequence[float] | None = None,
) -> torch.Tensor:
    r"""Cross-entropy in which a pixel counts less the surer the network is of its label.

    .. math:: -\frac{1}{N} \sum_s \alpha_{k^*} \, (1 - p(s)_{k^*})^\gamma \log p(s)_{k^*}

    over the N labelled pixels. (The paper divides by the number of anchors on an object; a segmentation has
    a label at every pixel. The mean of kornia's and MONAI's focal loss runs over classes too: 1/K of this.)

    Args:
        logits: float ``[B,K,H,W]``.
        labels: int64 ``[B,H,W]``, 255 = ignore.
        gamma: γ, at least 0; 0 is cross-entropy.
        class_weight: α of each class, K numbers; None weighs all by 1, where the paper's detector has 0.25
            for objects and 0.75 for the rest.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.

    >>> focal_loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64))  # 0.25 log 2
    tensor(0.1733)
    """
    check_classes(logits, labels)
    logits = known_logits(logits, labels)
    check_not_negative("gamma", gamma)
    if class_weight is not None and len(class_weight) != logits.shape[1]:
        raise ValueError(f"class_weight: expected {logits.shape[1]} numbers, got {len(class_weight)}")
    log_p = -F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")  # [B, H, W]
    # 1 - p without cancellation; kept off 0, where its power has no derivative for gamma < 1
    doubt = -torch.expm1(log_p).clamp(max=-torch.finfo(log_p.dtype).tiny)
    value = -(doubt**gamma) * log_p
    if class_weight is not None:
        weight = torch.tensor([*class_weight, *[0.0] * (IGNORE + 1 - len(class_weight))])
        value = value * weight.to(value)[labels]
    return value.sum() / (labels != IGNORE).sum().clamp(min=1)


def dice_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    squared: bool = True,
    per_image: bool = True,
    pixel_weight: float = 0.0,
) -> torch.Tensor:
    r"""One minus the soft Dice overlap of each class, averaged over the classes that are there.

    .. math:: 1 - \frac{2 \sum_s p(s)_k \, y(s)_k}{\sum_s p(s)_k^2 + \sum_s y(s)_k^2}

    Args:
        logits: float ``[B,K,H,W]``.
        labels: int64 ``[B,H,W]``, 255 = ignore.
        squared: as above, after Milletari; False takes p and y themselves in the denominator, after Sudre.
        per_image: sums run over an image, and images are averaged; False: they run over the batch.
        pixel_weight: weight of an added cross-entropy.

    Source: Milletari et al., V-Net, 3DV 2016, for one class; Sudre et al., Generalised Dice Overlap, DLMIA
    2017, for several, there weighted by their size and here alike. A class that is absent has no overlap.

    >>> dice_loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))  # 1 - 2 · 0.5 / (0.5 + 1)
    tensor(0.3333)
    """
    check_classes(logits, labels)
    logits = known_logits(logits, labels)
    p, y, valid = _by_class(logits, labels, per_image)
    p = p * valid
    size = y.sum(2)  # [B, K]
    below = (p.square() if squared else p).sum(2) + size
    dice = 2 * (p * y).sum(2) / below.clamp(min=torch.finfo(p.dtype).tiny)
    return plus_pixelwise(_mean_of_present(1 - dice, size > 0), logits, labels, pixel_weight)


def lovasz_softmax_loss(
    logits: torch.Tensor, labels: torch.Tensor, *, per_image: bool = True, pixel_weight: float = 0.0
) -> torch.Tensor:
    r"""The Lovász extension of each class's Jaccard loss, averaged over the classes that are there.

    For pixels M that are wrong, the Jaccard loss of class k with pixels Y is
    :math:`\Delta(M) = |M| / |Y \cup M|`. Its Lovász extension at the errors
    :math:`m_s = |y_s - p_s|`, sorted so that :math:`m_{\pi_1} \ge m_{\pi_2} \ge \dots`, is

    .. math:: \sum_i m_{\pi_i} \, \big(\Delta(\{\pi_1 .. \pi_i\}) - \Delta(\{\pi_1 .. \pi_{i-1}\})\big)

    Args:
        logits: float ``[B,K,H,W]``.
        labels: int64 ``[B,H,W]``, 255 = ignore.
        per_image: each image's Jaccard loss, averaged; False, the default of the paper's released code, takes
            the batch as one image.
        pixel_weight: weight of an added cross-entropy.

    Source: Berman et al., The Lovász-Softmax loss, CVPR 2018.

    >>> lovasz_softmax_loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))  # all errors are 0.5
    tensor(0.5000)
    """
    check_classes(logits, labels)
    logits = known_logits(logits, labels)
    p, y, valid = _by_class(logits, labels, per_image)
    errors = (y - p).abs() * valid  # [B, K, N]; pixels to ignore have none, sort last and add 0
    errors, order = errors.sort(2, descending=True)
    outside = 1 - y.gather(2, order)
    size = y.sum(2, keepdim=True)
    wrong = torch.arange(1, 1 + errors.shape[2], device=p.device, dtype=p.dtype)  # |M|
    jaccard = wrong / (size + outside.cumsum(2))  # [B, K, N]
    steps = torch.diff(jaccard, dim=2, prepend=torch.zeros_like(size))
    return plus_pixelwise(
        _mean_of_present((errors * steps).sum(2), size[:, :, 0] > 0), logits, labels, pixel_weight
    )


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

    averaged over the components of a class, the classes 1.. of an image, and images: components of the
    background, class 0, are left out, as images without another class are.

    Args:
        logits: float ``[B,K,H,W]``.
        labels: int64 ``[B,H,W]``, 255 = ignore.
        blobs: blobs or an id map ``[B,H,W]``; None takes the 4-connected components of the labels.
        dice_weight: α, of :func:`dice_loss` without squares.
        component_weight: β.
        pixel_weight: weight of an added cross-entropy.

    Source: Kofler et al., blob loss, IPMI 2023, for one class; α and β are the paper's. There the Dice of the
    class has no part for the background, here :func:`dice_loss` has.

    >>> labels = torch.tensor([[[0, 1, 0]]])
    >>> component_dice_loss(torch.zeros(1, 2, 1, 3), labels, dice_weight=0)  # 1 - 1 / 2.5
    tensor(0.6000)
    """
    check_classes(logits, labels)
    logits = known_logits(logits, labels)
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
    foreground = (part.view(-1, classes)[:, 1:] for part in (value, siblings > 0))
    value = _mean_of_present(*foreground)
    value = component_weight * value + dice_weight * dice_loss(logits, labels, squared=False)
    return plus_pixelwise(value, logits, labels, pixel_weight)


def _by_class(logits: torch.Tensor, labels: torch.Tensor, per_image: bool):
    """Return p and y as ``[B,K,N]`` and which pixels are labelled as ``[B,1,N]``; as one image, B is 1."""
    p = logits.softmax(1)
    y, valid = one_hot(labels, logits.shape[1]), (labels != IGNORE)[:, None]
    parts = p, y.to(p), valid.to(p)
    if per_image:
        return tuple(part.flatten(2) for part in parts)
    return tuple(part.transpose(0, 1).flatten(1)[None] for part in parts)


def _mean_of_present(value: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``value`` ``[B,K]`` over an image's present classes, then over images with any."""
    of_image = (value * present).sum(1) / present.sum(1).clamp(min=1)
    return of_image.sum() / present.any(1).sum().clamp(min=1)

"""Losses: the paper's Eq. 3 to 8 as functions of logits, labels and blobs, and thin modules over them.

Shapes: logits ``[B,K,H,W]``, labels int64 ``[B,H,W]`` with 255 = ignore. All sums run in float32 at least.
"""

import torch
import torch.nn.functional as F
from torch import nn

from consensus_lib import IGNORE
from consensus_lib.blobs import Blobs, blobs_from_ids, label_blobs


def pixelwise_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    r"""Cross-entropy averaged over all labelled pixels: each pixel on its own.

    .. math:: -\frac{1}{HW} \sum_s \log p(s)_{k^*}                        \quad\text{(Eq. 3 and 4)}

    Args:
        logits: float ``[B,K,H,W]``.
        labels: int64 ``[B,H,W]``, 255 = ignore.

    Returns:
        A scalar; 0 where every pixel is ignored.

    Raises:
        ValueError: shapes or types differ from the above.

    Source: Masi et al., CVPR 2020, Sec. 3.2. Derived in notebook 02.

    >>> pixelwise_loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64))
    tensor(0.6931)
    """
    _check(logits, labels)
    total = F.cross_entropy(_exact(logits), labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def size_marginalised_loss(
    logits: torch.Tensor, labels: torch.Tensor, blobs: Blobs | torch.Tensor | None = None
) -> torch.Tensor:
    r"""Cross-entropy in which every blob weighs the same, whatever its size.

    Eq. 5 adds the mean over the face, the mean over the background, and the mean over the occlusion blobs
    of theirs. Here the mean cross-entropy of each class's blobs is averaged over its blobs, the classes
    are added, and the images averaged.

    Args:
        logits: float ``[B,K,H,W]``.
        labels: int64 ``[B,H,W]``, 255 = ignore.
        blobs: blobs or an id map ``[B,H,W]``; None takes one blob a class.

    Returns:
        A scalar; 0 where every pixel is ignored.

    Source: Masi et al., CVPR 2020, Eq. 5.
    """
    _check(logits, labels)
    blobs = _blobs(blobs, labels)
    entropy = F.cross_entropy(_exact(logits), labels, ignore_index=IGNORE, reduction="none")  # [B, H, W]
    of_blob = _blob_means(entropy[:, None], blobs)[:, 0]  # [M]
    group = blobs.image * logits.shape[1] + blobs.labels  # one group for each image and class
    siblings = torch.bincount(group, minlength=logits.shape[0] * logits.shape[1])
    return (of_blob / siblings[group]).sum() / max(1, len(logits))


def consensus_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    blobs: Blobs | torch.Tensor | None = None,
    *,
    alpha: float = 10.0,
    beta: float = 5.0,
    reduction: str = "paper",
    size_weight: float = 0.0,
    pixel_weight: float = 0.0,
) -> torch.Tensor:
    r"""Structure via consensus: the pixels of a blob should match its label, and each other.

    .. math::
        \hat p_c = \frac{1}{|c|} \sum_{s \in c} p(s)                                     \quad\text{(Eq. 6)}

        \mathcal{L} = \frac{1}{N} \sum_{c} \Big[ \alpha \, D_{KL}(y \,\|\, \hat p_c)
            + \frac{\beta}{|c|} \sum_{s \in c} D_{KL}(\hat p_c \,\|\, p(s)) \Big]        \quad\text{(Eq. 8)}

    averaged over the images that hold a blob. Because the mean of :math:`D_{KL}(\hat p_c \| p(s))` over a
    blob is :math:`\sum_k \hat p_c (\log \hat p_c - \overline{\log p})`, two means per blob are all that is
    computed.

    Args:
        logits: float ``[B,K,H,W]``.
        labels: int64 ``[B,H,W]``, 255 = ignore.
        blobs: blobs or an id map ``[B,H,W]``; None takes one blob for each class of each image.
        alpha: weight of matching the label.
        beta: weight of the deviation from the blob mean.
        reduction: ``"paper"``, Eq. 8 for each image, averaged over images.
        size_weight: γ; a blob weighs (its share of the image's labelled pixels)^γ. 0 is Eq. 8, at 1 every
            pixel counts alike.
        pixel_weight: weight of an added :func:`pixelwise_loss`.

    Returns:
        A scalar; 0 where every pixel is ignored.

    Raises:
        ValueError: shapes, types or ``reduction`` differ from the above.

    Not deterministic on CUDA to the last bit: blob sums use atomic additions.

    Source: Masi et al., CVPR 2020, Eq. 6 to 8.

    >>> labels = torch.tensor([[[0, 0], [1, 1]]])
    >>> consensus_loss(torch.zeros(1, 2, 2, 2), labels, alpha=1, beta=1)
    tensor(0.6931)
    """
    if reduction != "paper":
        raise ValueError(f"reduction: expected 'paper', got {reduction!r}")
    _check(logits, labels)
    blobs = _blobs(blobs, labels)
    log_p = _exact(logits).log_softmax(1)
    mean_p = _blob_means(log_p.exp(), blobs)  # [M, K]
    mean_log_p = _blob_means(log_p, blobs)  # [M, K]
    log_mean_p = mean_p.clamp(min=torch.finfo(mean_p.dtype).tiny).log()
    match = -log_mean_p.gather(1, blobs.labels[:, None])[:, 0]  # [M]
    deviation = (mean_p * (log_mean_p - mean_log_p)).sum(1)  # [M]

    zeros = log_p.new_zeros(len(logits))
    weight = (blobs.size / zeros.index_add(0, blobs.image, blobs.size.to(zeros))[blobs.image]) ** size_weight
    weight = weight / zeros.index_add(0, blobs.image, weight)[blobs.image]  # sums to 1 in each image
    images = (torch.bincount(blobs.image, minlength=len(logits)) > 0).sum().clamp(min=1)
    loss = (weight * (alpha * match + beta * deviation)).sum() / images
    return loss + pixel_weight * pixelwise_loss(logits, labels) if pixel_weight else loss


class PixelwiseLoss(nn.Module):
    """:func:`pixelwise_loss` as a module."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return pixelwise_loss(logits, labels)


class ConsensusLoss(nn.Module):
    """:func:`consensus_loss` as a module.

    Args:
        kind: how labels are cut into blobs when none are handed in; see :func:`label_blobs`.
        connectivity: for ``kind="component"``.
        options: the keyword arguments of :func:`consensus_loss`.
    """

    def __init__(self, kind: str = "class", connectivity: int = 4, **options):
        super().__init__()
        self.kind, self.connectivity, self.options = kind, connectivity, options

    def forward(
        self, logits: torch.Tensor, labels: torch.Tensor, blobs: Blobs | torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss."""
        if blobs is None:
            blobs = label_blobs(labels, self.kind, self.connectivity)
        return consensus_loss(logits, labels, blobs, **self.options)

    def extra_repr(self) -> str:
        """Return the settings, for printing."""
        return ", ".join(f"{k}={v!r}" for k, v in {"kind": self.kind, **self.options}.items())


def _check(logits: torch.Tensor, labels: torch.Tensor) -> None:
    if logits.dim() != 4 or not logits.is_floating_point():
        raise ValueError(f"logits: expected float [B,K,H,W], got {logits.dtype} {list(logits.shape)}")
    if labels.dtype != torch.int64 or labels.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            f"labels: expected int64 [B,H,W] like logits {list(logits.shape)}, "
            f"got {labels.dtype} {list(labels.shape)}"
        )


def _exact(logits: torch.Tensor) -> torch.Tensor:
    """Return logits in float32 or float64: half precision is too coarse for sums over thousands of pixels."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _blobs(blobs: Blobs | torch.Tensor | None, labels: torch.Tensor) -> Blobs:
    if blobs is None:
        return label_blobs(labels, "class")
    return blobs if isinstance(blobs, Blobs) else blobs_from_ids(blobs, labels)


def _blob_means(values: torch.Tensor, blobs: Blobs) -> torch.Tensor:
    """Average ``values`` ``[B,C,H,W]`` over each blob: ``[M,C]``."""
    rows = values.permute(0, 2, 3, 1).flatten(0, 2)  # [B*H*W, C]
    ids = blobs.ids.flatten()  # [B*H*W]
    inside = ids >= 0
    sums = rows.new_zeros(len(blobs.size), rows.shape[1]).index_add(0, ids[inside], rows[inside])
    return sums / blobs.size[:, None]

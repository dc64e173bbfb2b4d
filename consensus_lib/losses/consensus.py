r"""The paper's losses, Eq. 3 to 8: functions of logits, labels and blobs, and thin modules over them.

A network gives each pixel s the probabilities p(s). A blob c is a group of pixels that should agree:

.. math::
    \hat p_c = \frac{1}{|c|} \sum_{s \in c} p(s)                                          \quad\text{(Eq. 6)}

    \ell_c = \alpha \, D_{KL}(y_c \,\|\, \hat p_c)
        + \beta \, \frac{1}{|c|} \sum_{s \in c} D_{KL}(\hat p_c \,\|\, p(s))             \quad\text{(Eq. 7)}

    \mathcal{L} = \frac{1}{N} \sum_c \ell_c                                              \quad\text{(Eq. 8)}

The first term matches the blob's mean with its label, the second is its pixels' deviation from the mean.
:func:`match_and_deviation` has these equations as they are written. :mod:`~consensus_lib.losses.fused` has a
faster operator for the same sum, and :func:`consensus_loss` uses it where possible.

Shapes: logits ``[B,K,H,W]``, labels int64 ``[B,H,W]`` with 255 = ignore, M blobs.
"""

import torch
import torch.nn.functional as F
from torch import nn

from consensus_lib import IGNORE
from consensus_lib.losses import fused
from consensus_lib.losses.blobs import Blobs, as_blobs, label_blobs
from consensus_lib.losses.inputs import (
    accumulator,
    check,
    check_range,
    format_kwargs,
    known_logits,
    merge_defaults,
    upcast,
)


def match_and_deviation(
    logits: torch.Tensor, blobs: Blobs, stop_gradient: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Return both terms of Eq. 7 for each blob, without their weights.

    As the mean of :math:`D_{KL}(\hat p_c \| p(s))` over the blob is
    :math:`\sum_k \hat p_c (\log \hat p_c - \overline{\log p})`, two means per blob are all that is needed.

    Args:
        logits: float ``[B,K,H,W]``.
        blobs: M of them.
        stop_gradient: see :func:`consensus_loss`.

    Returns:
        Match and deviation, ``[M]`` each, in nats; float64 where the device has it.
    """
    inside = logits.masked_fill((blobs.ids < 0)[:, None], 0).to(accumulator(logits.device))
    log_p = inside.log_softmax(1).movedim(1, -1)  # [B, H, W, K]
    mean_p = blobs.mean(log_p.exp())  # [M, K]                                                          Eq. 6
    label_log_p = log_p.gather(-1, F.pad(blobs.labels, (1, 0))[blobs.ids + 1][..., None])[..., 0]  # [B, H, W]
    match = -blobs.log_mean_exp(label_log_p)  # [M], -log of mean_p at the label                        Eq. 7
    target = mean_p.detach() if stop_gradient else mean_p
    gap = target.clamp(min=torch.finfo(target.dtype).tiny).log() - blobs.mean(log_p)  # [M, K]
    deviation = (target * gap.masked_fill(mean_p == 0, 0)).sum(1)  # [M], with 0 log 0 = 0              Eq. 7
    return match, deviation


def weighted_terms(
    logits: torch.Tensor,
    blobs: Blobs,
    match_weight: torch.Tensor,
    deviation_weight: torch.Tensor,
    stop_gradient: bool = False,
) -> torch.Tensor:
    """Return the sum over blobs of match and deviation by their weights ``[M]``: Eq. 8, a scalar."""
    match, deviation = match_and_deviation(logits, blobs, stop_gradient)
    return (match_weight @ match + deviation_weight @ deviation).to(logits)


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
    check(logits, labels)
    total = F.cross_entropy(known_logits(logits, labels), labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def plus_pixelwise(
    value: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, pixel_weight: float
) -> torch.Tensor:
    """Return ``value`` and ``pixel_weight`` times cross-entropy."""
    return value + pixel_weight * pixelwise_loss(logits, labels) if pixel_weight else value


def size_marginalised_loss(
    logits: torch.Tensor, labels: torch.Tensor, blobs: Blobs | torch.Tensor | None = None
) -> torch.Tensor:
    r"""Cross-entropy in which every blob weighs the same, whatever its size.

    .. math::
        \frac{1}{|F|} \sum_{s \in F} \ell(s) + \frac{1}{|B|} \sum_{s \in B} \ell(s)
        + \frac{1}{n} \sum_{i=1}^{n} \frac{1}{|O_i|} \sum_{s \in O_i} \ell(s)      \quad\text{(Eq. 5)}

    for the face F, the background B and the occlusion blobs O. Any classes may take their place: the mean of
    each blob is averaged over the blobs of its class, the classes are added, and the images averaged.

    Args:
        logits: float ``[B,K,H,W]``.
        labels: int64 ``[B,H,W]``, 255 = ignore.
        blobs: blobs or an id map ``[B,H,W]``; None takes one blob a class.

    Returns:
        A scalar; 0 where every pixel is ignored.

    Source: Masi et al., CVPR 2020, Eq. 5. Shown in notebook 03.
    """
    check(logits, labels)
    blobs = as_blobs(blobs, labels)
    check_range("blobs.ids", blobs.ids, -1, len(blobs.size) - 1)
    entropy = F.cross_entropy(
        known_logits(logits, labels), labels, ignore_index=IGNORE, reduction="none"
    )  # [B, H, W]
    group = blobs.image * logits.shape[1] + blobs.labels  # one group for each image and class
    siblings = torch.bincount(group, minlength=logits.shape[0] * logits.shape[1])
    weight = 1 / (blobs.size * siblings[group]).to(entropy)  # [M], of each of a blob's pixels
    return (entropy * F.pad(weight, (1, 0))[blobs.ids + 1]).sum() / max(1, len(logits))


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
    stop_gradient: bool = False,
) -> torch.Tensor:
    r"""Structure via consensus (Eq. 8): the pixels of a blob should match its label, and each other.

    Args:
        logits: float ``[B,K,H,W]``. Half precision is computed in float32.
        labels: int64 ``[B,H,W]``, 255 = ignore.
        blobs: blobs or an id map ``[B,H,W]``; None takes one blob for each class of each image.
        alpha: weight of matching the label.
        beta: weight of the deviation from the blob mean.
        reduction: ``"paper"``, Eq. 8 for each image, averaged over the images that hold a blob.
            ``"released"``, what the authors' code computes: blobs of one id (one ``group`` of :class:`Blobs`,
            one class where blobs is None) are one blob over the batch. Its match is summed over images and
            divided by B, its deviation is the mean over its pixels and the K classes, the loss is the mean of
            ids. (Theirs divides by the number of probabilities that are not 0, and is infinite where one
            underflows; here all count, and the value stays finite.)
        size_weight: γ; a blob weighs (its share of the image's pixels in blobs)^γ. 0 is Eq. 8, at 1 every
            pixel counts alike. With ``reduction="paper"`` only.
        pixel_weight: weight of an added :func:`pixelwise_loss`.
        stop_gradient: hold the mean constant in the deviation: pixels move to the mean, and the mean does not
            move to them.

    Returns:
        A scalar; 0 where every pixel is ignored. Autograd, ``torch.func`` and forward mode differentiate it
        any number of times. A pixel in no blob has gradient 0 whatever its logits are, NaN too. Because
        0 log 0 = 0, a class whose logits are minus infinity at all pixels, and which is no pixel's label,
        changes neither value nor gradient.

    Raises:
        ValueError: shapes, types, devices, ids or options differ from the above. On CUDA with Triton, ids and
            labels of blobs out of range fail an assertion on the device, as labels do in cross-entropy.

    Not deterministic on CUDA to the last bit: blob sums use atomic additions. Values and gradients there and
    on the CPU agree, relative to the largest, to 2e-6 in float32 and 1e-13 in float64, times a scale above 1.

    Source: Masi et al., CVPR 2020, Eq. 6 to 8. Derived in notebook 03.

    >>> labels = torch.tensor([[[0, 0], [1, 1]]])
    >>> consensus_loss(torch.zeros(1, 2, 2, 2), labels, alpha=1, beta=1)
    tensor(0.6931)
    """
    if reduction not in ("paper", "released"):
        raise ValueError(f"reduction: expected 'paper' or 'released', got {reduction!r}")
    if size_weight and reduction != "paper":
        raise ValueError(f"size_weight: expected 0 for reduction={reduction!r}, got {size_weight}")
    check(logits, labels)
    blobs, exact = as_blobs(blobs, labels), upcast(logits)
    if reduction == "paper":
        of_match = of_deviation = paper_weights(blobs, len(logits), size_weight)  # [M]
    else:
        of_match, of_deviation = released_weights(blobs, *logits.shape[:2])  # [M] each
    terms = exact, blobs, alpha * of_match, beta * of_deviation, stop_gradient
    loss = fused.consensus(*terms) if fused.serves(exact) else weighted_terms(*terms)
    return plus_pixelwise(loss, logits, labels, pixel_weight)


def paper_weights(blobs: Blobs, images: int, size_weight: float) -> torch.Tensor:
    """Return the weight of each blob in Eq. 8, ``[M]``: they sum to 1 over all images that hold a blob."""
    size = blobs.size.to(accumulator(blobs.size.device))
    zeros = size.new_zeros(images)
    weight = (size / zeros.index_add(0, blobs.image, size)[blobs.image]) ** size_weight
    total = zeros.index_add(0, blobs.image, weight)
    return weight / total[blobs.image] / (total > 0).sum().clamp(min=1)


def released_weights(blobs: Blobs, images: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights of each blob's match and of its deviation in the released code, ``[M]`` each."""
    group = torch.arange(len(blobs.size), device=blobs.size.device) if blobs.group is None else blobs.group
    found, number = torch.unique(group, return_inverse=True)
    label = torch.zeros_like(found).scatter(0, number, blobs.labels)[number]  # of some blob of the group
    if (label != blobs.labels).any():
        raise ValueError(
            "blobs: expected one label for each id over the batch for reduction='released', "
            f"got several for id {int(group[label != blobs.labels][0])}"
        )
    size = blobs.size.to(accumulator(blobs.size.device))
    pixels = size.new_zeros(len(found)).index_add(0, number, size)[number]  # of the whole group
    groups = max(1, len(found))
    return torch.full_like(size, 1 / (groups * max(1, images))), size / (pixels * classes * groups)


class PixelwiseLoss(nn.Module):
    """:func:`pixelwise_loss` as a module."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return pixelwise_loss(logits, labels)


class ConsensusLoss(nn.Module):
    """:func:`consensus_loss` as a module.

    Args:
        kind, connectivity, min_size, specks: of :func:`label_blobs`, where no blobs are given. Superpixels
            need the image, so they must be given.
        options: the keyword arguments of :func:`consensus_loss`. A number may also be a schedule: a function
            of ``progress``.

    Attributes:
        batch_keys: names of what it takes from a batch beside labels, where the batch has it.
        blob_options: keyword arguments of :func:`label_blobs`, by which it makes blobs.
        progress: the share of the training that is done, in [0, 1), for schedules.
            :func:`consensus_lib.training.fit` sets it before each step; another loop assigns
            ``loss.progress = step / steps``.
    """

    batch_keys = ("blobs",)

    def __init__(
        self,
        kind: str = "class",
        connectivity: int = 4,
        *,
        min_size: int = 0,
        specks: str = "drop",
        **options,
    ):
        super().__init__()
        blobs = {"kind": kind, "connectivity": connectivity, "min_size": min_size, "specks": specks}
        self.blob_options, self.options, self.progress = blobs, options, 0.0
        merge_defaults(consensus_loss, options)  # refuses an option that there is not

    def forward(
        self, logits: torch.Tensor, labels: torch.Tensor, blobs: Blobs | torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss."""
        if blobs is None:
            blobs = label_blobs(labels, **self.blob_options)
        now = {k: v(self.progress) if callable(v) else v for k, v in self.options.items()}
        return consensus_loss(logits, labels, blobs, **now)

    def extra_repr(self) -> str:
        """Return the settings, for printing and for checkpoints; functions by name."""
        return format_kwargs({**self.blob_options, **self.options})


fused.differentiate_twice_by(weighted_terms)

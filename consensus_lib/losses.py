"""Losses: the paper's Eq. 3 to 8 as functions of logits, labels and blobs, and thin modules over them.

Shapes: logits ``[B,K,H,W]``, labels int64 ``[B,H,W]`` with 255 = ignore. All sums run in float32 at least.
"""

import dataclasses
import functools
import importlib.util
import inspect
import math
import warnings
from collections.abc import Callable

import numpy as np
import scipy.sparse
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
    total = F.cross_entropy(_known(logits, labels), labels, ignore_index=IGNORE, reduction="sum")
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
    _check_range("blobs.ids", blobs.ids, -1, len(blobs.size) - 1)
    entropy = F.cross_entropy(
        _known(logits, labels), labels, ignore_index=IGNORE, reduction="none"
    )  # [B,H,W]
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
    trim: float = 0.0,
    stop_gradient: bool = False,
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
        logits: float ``[B,K,H,W]``. Half precision is computed in float32.
        labels: int64 ``[B,H,W]``, 255 = ignore.
        blobs: blobs or an id map ``[B,H,W]``; None takes one blob for each class of each image.
        alpha: weight of matching the label.
        beta: weight of the deviation from the blob mean.
        reduction: ``"paper"``, Eq. 8 for each image, averaged over images. ``"released"``, what the authors'
            code computes: blobs of one id (one ``group`` of :class:`Blobs`, one class where blobs is None)
            are one blob over the batch. Its match is summed over images and divided by B, its deviation is
            the mean over its pixels and the K classes, and the loss is the mean over ids. (Theirs divides by
            the number of probabilities that are not 0, and is infinite where one underflows; here all count,
            and the value stays finite.)
        size_weight: γ; a blob weighs (its share of the image's pixels in blobs)^γ. 0 is Eq. 8, at 1 every
            pixel counts alike. With ``reduction="paper"`` only.
        pixel_weight: weight of an added :func:`pixelwise_loss`.
        trim: in [0, 1). This share of a blob's pixels, rounded down, those with the lowest probability of
            its label, does not enter :math:`\hat p_c`, which a few outliers then cannot move. The deviation
            still draws them to it.
        stop_gradient: hold :math:`\hat p_c` constant in the deviation: pixels move to the mean, the mean
            does not move to them.

    Returns:
        A scalar; 0 where every pixel is ignored. Autograd differentiates it once and refuses a second
        derivative; ``torch.func`` and forward mode differentiate it any number of times. A pixel in no blob
        has gradient 0 whatever its logits are, NaN too. Because 0 log 0 = 0, a class whose logits are minus
        infinity at all pixels, and which no pixel is labelled with, changes neither value nor gradient.

    Raises:
        ValueError: shapes, types, devices, ids or options differ from the above. On CUDA with Triton, ids and
            labels of blobs out of range fail an assertion on the device, as labels do in cross-entropy.

    Not deterministic on CUDA to the last bit: blob sums use atomic additions. On the CPU it is. Relative to
    the largest, values and gradients of the two agree to 2e-6 in float32 and 1e-13 in float64, times the
    scale of the logits where that is above 1.

    Source: Masi et al., CVPR 2020, Eq. 6 to 8.

    >>> labels = torch.tensor([[[0, 0], [1, 1]]])
    >>> consensus_loss(torch.zeros(1, 2, 2, 2), labels, alpha=1, beta=1)
    tensor(0.6931)
    """
    if reduction not in ("paper", "released"):
        raise ValueError(f"reduction: expected 'paper' or 'released', got {reduction!r}")
    if size_weight and reduction != "paper":
        raise ValueError(f"size_weight: expected 0 for reduction={reduction!r}, got {size_weight}")
    if not 0 <= trim < 1:
        raise ValueError(f"trim: expected a share in [0, 1), got {trim}")
    _check(logits, labels)
    blobs = _blobs(blobs, labels)
    if reduction == "paper":
        match = deviation = _paper_weights(blobs, len(logits), size_weight)  # [M]
    else:
        match, deviation = _released_weights(blobs, *logits.shape[:2])  # [M] each
    exact = _exact(logits)
    kept = _trimmed(exact.detach(), blobs, trim) if trim else (blobs.ids, blobs.size)
    weights = alpha * match, beta * deviation
    if _is_transformed(exact):
        loss = _by_equations(exact, blobs, *kept, *weights, stop_gradient)
    else:
        runs = _runs(blobs.ids)
        loss, *_ = _consensus(
            exact, blobs.ids, runs, blobs.size, *kept, blobs.labels, *weights, stop_gradient
        )
    return loss + pixel_weight * pixelwise_loss(logits, labels) if pixel_weight else loss


class PixelwiseLoss(nn.Module):
    """:func:`pixelwise_loss` as a module."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return pixelwise_loss(logits, labels)


@dataclasses.dataclass(frozen=True)
class Ramp:
    """A schedule for alpha or beta: from ``start`` to ``end`` along half a cosine, over a training.

    It follows the ``progress`` of its :class:`ConsensusLoss`, which is set before each step.

    >>> [Ramp(0, 5)(progress) for progress in (0, 0.5, 1)]
    [0.0, 2.5, 5.0]
    """

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        """Return the value at ``progress`` in [0, 1]."""
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2


class ConsensusLoss(nn.Module):
    """:func:`consensus_loss` as a module.

    Args:
        kind: how labels are cut into blobs when none are handed in; see :func:`label_blobs`. Superpixels
            need the image, so they must be handed in.
        connectivity: for components.
        min_size, specks: what to do with small blobs; see :func:`label_blobs`.
        options: the keyword arguments of :func:`consensus_loss`. A number may also be a schedule: a function
            of ``progress``, such as :class:`Ramp`.

    Attributes:
        inputs: what it takes from a batch beside labels, where the batch has it.
        cut: how it makes blobs, as keyword arguments of :func:`label_blobs`.
        progress: how much of the training is done, in [0, 1). Schedules read it. It must be set before each
            step: :func:`consensus_lib.training.fit` does; any other loop assigns
            ``loss.progress = step / steps`` (in Lightning, ``self.global_step`` over
            ``self.trainer.estimated_stepping_batches``). Where an option is a schedule and progress stays the
            same for ``PATIENCE`` calls, one warning says so.
    """

    PATIENCE = 100
    inputs = ("blobs",)

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
        self.cut = {"kind": kind, "connectivity": connectivity, "min_size": min_size, "specks": specks}
        self.options, self.progress = options, 0.0
        self._still = 0.0, 0  # a progress, and how many losses were asked for at it

    def forward(
        self, logits: torch.Tensor, labels: torch.Tensor, blobs: Blobs | torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss."""
        if blobs is None:
            blobs = label_blobs(labels, **self.cut)
        now = {k: v(self.progress) if callable(v) else v for k, v in self.options.items()}
        if now != self.options and logits.requires_grad:
            self._watch_progress()
        return consensus_loss(logits, labels, blobs, **now)

    def _watch_progress(self) -> None:
        """Warn once where the progress that a schedule follows stands still."""
        progress, count = self._still
        self._still = self.progress, count + 1 if self.progress == progress else 1
        if self._still[1] == self.PATIENCE:
            warnings.warn(
                f"progress: expected to grow in training, because of the schedules in {self.extra_repr()}, "
                f"got {self.progress} for {self.PATIENCE} calls; set loss.progress = step / steps",
                stacklevel=3,
            )

    def extra_repr(self) -> str:
        """Return the settings, for printing and for checkpoints: a function goes by its name."""
        return shown({**self.cut, **self.options})


def settings_of(function: Callable, given: dict) -> dict:
    """Return the arguments of ``function`` that have a default, with those of ``given`` in their place.

    Raises:
        TypeError: ``function`` has no such argument.

    >>> settings_of(consensus_loss, {"beta": 1.0})["beta"]
    1.0
    """
    parameters = inspect.signature(function).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty and p.name != "blobs"}
    for name in given:
        if name not in defaults:
            raise TypeError(f"options: expected some of {sorted(defaults)}, got {name!r}")
    return defaults | given


def shown(settings: dict) -> str:
    """Return settings as they stand in a call, a function by its name: the same text in every process."""
    return ", ".join(f"{k}={getattr(v, '__qualname__', repr(v))}" for k, v in settings.items())


def _check(logits: torch.Tensor, labels: torch.Tensor) -> None:
    if logits.dim() != 4 or not logits.is_floating_point():
        raise ValueError(f"logits: expected float [B,K,H,W], got {logits.dtype} {list(logits.shape)}")
    _check_map("labels", labels, logits)


def _check_map(name: str, found: torch.Tensor, logits: torch.Tensor) -> None:
    like = (logits.shape[0], *logits.shape[2:])
    if found.dtype != torch.int64 or found.shape != like or found.device != logits.device:
        raise ValueError(
            f"{name}: expected int64 [B,H,W] like logits {list(logits.shape)} on {logits.device}, "
            f"got {found.dtype} {list(found.shape)} on {found.device}"
        )


def _check_range(name: str, found: torch.Tensor, low: int, high: int) -> None:
    lowest, highest = found.aminmax() if found.numel() else (low, high)
    if lowest < low or highest > high:
        raise ValueError(f"{name}: expected {low}..{high}, got {int(lowest)}..{int(highest)}")


def _exact(logits: torch.Tensor) -> torch.Tensor:
    """Return logits in float32 or float64: half precision is too coarse for sums over thousands of pixels."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _known(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return :func:`_exact` logits, 0 at ignored pixels: these then have gradient 0 even if they are NaN."""
    return _exact(logits).masked_fill((labels == IGNORE)[:, None], 0)


def _blobs(blobs: Blobs | torch.Tensor | None, labels: torch.Tensor) -> Blobs:
    if blobs is None:
        return label_blobs(labels, "class")
    if not isinstance(blobs, Blobs):
        return blobs_from_ids(blobs, labels)
    _check_map("blobs.ids", blobs.ids, labels[:, None])
    return blobs


def _wide(device: torch.device) -> torch.dtype:
    """Return the type in which the tables of blobs are computed; Apple's GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def _paper_weights(blobs: Blobs, images: int, size_weight: float) -> torch.Tensor:
    """Return the weight of each blob in Eq. 8, ``[M]``: they sum to 1 over all images that hold a blob."""
    size = blobs.size.to(_wide(blobs.size.device))
    zeros = size.new_zeros(images)
    weight = (size / zeros.index_add(0, blobs.image, size)[blobs.image]) ** size_weight
    total = zeros.index_add(0, blobs.image, weight)
    return weight / total[blobs.image] / (total > 0).sum().clamp(min=1)


def _released_weights(blobs: Blobs, images: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights of each blob's match and of its deviation in the released code, ``[M]`` each."""
    group = torch.arange(len(blobs.size), device=blobs.size.device) if blobs.group is None else blobs.group
    found, number = torch.unique(group, return_inverse=True)
    label = torch.zeros_like(found).scatter(0, number, blobs.labels)[number]  # of some blob of the group
    if (label != blobs.labels).any():
        raise ValueError(
            "blobs: expected one label for each id over the batch for reduction='released', "
            f"got several for id {int(group[label != blobs.labels][0])}"
        )
    size = blobs.size.to(_wide(blobs.size.device))
    pixels = size.new_zeros(len(found)).index_add(0, number, size)[number]  # of the whole group
    groups = max(1, len(found))
    return torch.full_like(size, 1 / (groups * max(1, images))), size / (pixels * classes * groups)


def _trimmed(logits: torch.Tensor, blobs: Blobs, trim: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the id map without each blob's least sure pixels, and how many pixels of each blob stay."""
    where = blobs.ids >= 0
    ids = blobs.ids[where]  # [n]
    sure = logits.movedim(1, -1)[where].log_softmax(1).gather(1, blobs.labels[ids, None])[:, 0]
    order = sure.argsort(stable=True)
    order = order[ids[order].argsort(stable=True)]  # by blob, then by probability
    rank = torch.arange(len(ids), device=ids.device) - (blobs.size.cumsum(0) - blobs.size)[ids[order]]
    out = (trim * blobs.size).long()  # [M]
    ids = ids.index_fill(0, order[rank < out[ids[order]]], -1)
    return blobs.ids.masked_scatter(where, ids), blobs.size - out


def _is_transformed(logits: torch.Tensor) -> bool:
    """Say whether ``torch.func`` or forward mode differentiates, whom the operator below has nothing for."""
    if torch.compiler.is_compiling():
        return False
    try:
        logits.data_ptr()
    except RuntimeError:  # the tensors of torch.func have no memory of their own
        return True
    return torch.autograd.forward_ad.unpack_dual(logits).tangent is not None


def _by_equations(
    logits: torch.Tensor,
    blobs: Blobs,
    kept: torch.Tensor,
    kept_size: torch.Tensor,
    match_weight: torch.Tensor,
    deviation_weight: torch.Tensor,
    stop_gradient: bool,
) -> torch.Tensor:
    """Return the sum of match and deviation by their weights, as Eq. 6 and 7 are written."""

    def sums(values, ids):  # over each blob, [B, H, W, ...] -> [M, ...]
        zeros = values.new_zeros(len(blobs.size) + 1, *values.shape[3:])
        return zeros.index_add(0, ids.flatten() + 1, values.flatten(0, 2))[1:]

    ids, rows = blobs.ids, logits.masked_fill((blobs.ids < 0)[:, None], 0).movedim(1, -1)
    log_p = rows.to(_wide(logits.device)).log_softmax(-1)  # [B, H, W, K]
    mean_p = sums(log_p.exp(), kept) / kept_size[:, None]  # [M, K]                              Eq. 6
    mean_log_p = sums(log_p, ids) / blobs.size[:, None]  # [M, K]

    # -log of mean_p at the label, whose logarithm is finite where the mean itself underflows
    label = F.pad(blobs.labels, (1, 0))[kept + 1]  # [B, H, W]
    label_log_p = log_p.gather(-1, label[..., None])[..., 0]
    top = label_log_p.new_full((len(blobs.size) + 1,), -torch.inf)
    top = top.scatter_reduce(0, kept.flatten() + 1, label_log_p.detach().flatten(), "amax")
    share = (label_log_p - top[kept + 1]).exp()
    match = kept_size.log() - top[1:] - sums(share, kept).log()  # [M]                             Eq. 7
    target = mean_p.detach() if stop_gradient else mean_p
    gap = target.clamp(min=torch.finfo(target.dtype).tiny).log() - mean_log_p  # [M, K]
    deviation = (target * gap.masked_fill(mean_p == 0, 0)).sum(1)  # [M], with 0 log 0 = 0          Eq. 7
    return (match_weight @ match + deviation_weight @ deviation).to(logits)  # Eq. 8


# The heart of the loss is an operator with a gradient of its own. It keeps one tensor of the size of the
# logits where autograd would keep four, and torch.compile takes it as a whole. M blobs, R runs of equal ids.


@functools.cache
def _kernels(device_type: str):
    """Return the module of fused kernels; None where there are none. CUDA builds of torch bring Triton."""
    if device_type != "cuda" or not importlib.util.find_spec("triton"):
        return None
    from consensus_lib import kernels

    return kernels


@torch.library.custom_op("consensus_lib::consensus", mutates_args=())
def _consensus(
    logits: torch.Tensor,
    ids: torch.Tensor,
    first: torch.Tensor,
    size: torch.Tensor,
    kept: torch.Tensor,
    kept_size: torch.Tensor,
    labels: torch.Tensor,
    match_weight: torch.Tensor,
    deviation_weight: torch.Tensor,
    stop_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Return :math:`\sum_c` of match and deviation by their weights, and what its gradient needs.

    Args:
        logits: float32 or float64 ``[B,K,H,W]``.
        ids, first, size: the blobs' map ``[B,H,W]``, its runs as of :func:`_runs`, the sizes ``[M]``.
        kept, kept_size: the same with only the pixels that enter the mean.
        labels, match_weight, deviation_weight: of each blob, ``[M]``.
        stop_gradient: hold the mean constant in the deviation.

    Returns:
        The loss; p ``[B,K,H,W]``; its derivatives by p and by log p of a pixel, ``[K,M+1]`` each, 0 in the
        first column, which is for pixels in no blob; and, for blobs whose mean at the label is too small
        for p to tell, the log of its sum, ``[M]``, infinite for all others.
    """
    if kernels := _kernels(logits.device.type):
        return kernels.consensus(
            logits, ids, size, kept, kept_size, labels, match_weight, deviation_weight, stop_gradient
        )
    _check_range("labels", labels, 0, logits.shape[1] - 1)
    pixels = _Pixels(ids, first, len(size))
    kept_pixels = pixels if kept.data_ptr() == ids.data_ptr() else _Pixels(kept, first[:0], len(size))
    log_p = logits.log_softmax(1)  # [B, K, H, W]
    sum_log_p = pixels.sums(log_p)  # [K, M+1]
    mean_log_p = sum_log_p[:, 1:] / size  # [K, M]
    p = log_p.exp_()  # in place: for large batches, fresh memory costs more than exp
    if sum_log_p[:, 0].isnan().any():  # logits of pixels in no blob: whatever they are, their gradient is 0
        p.masked_fill_((ids < 0)[:, None], 0)
    sum_p = kept_pixels.sums(p)[:, 1:]  # [K, M]
    mean_p = sum_p / kept_size
    label_sum = sum_p.gather(0, labels[None])[0]  # [M]

    # A mean that underflows has a logarithm still: those blobs are done again with their largest log p
    # taken out.
    low = label_sum < torch.finfo(p.dtype).tiny / torch.finfo(p.dtype).eps
    log_label_sum, low_log_sum = label_sum.log(), torch.full_like(label_sum, torch.inf)
    if low.any():
        _, blob, label_log_p = _low_pixels(logits, kept, labels, low)
        top = label_sum.new_full(label_sum.shape, -torch.inf).scatter_reduce(0, blob, label_log_p, "amax")
        rest = torch.zeros_like(top).scatter_add(0, blob, (label_log_p - top[blob]).exp())
        low_log_sum[low] = log_label_sum[low] = (top + rest.log())[low]

    gap = mean_p.clamp(min=torch.finfo(p.dtype).tiny).log() - mean_log_p  # [K, M]
    gap = gap.where(mean_p > 0, 0)  # 0 log 0 = 0, of classes whose logits are minus infinity
    match = kept_size.to(label_sum).log() - log_label_sum  # [M]
    deviation = (mean_p * gap).sum(0).clamp(min=0)  # [M]; rounding alone can take it below 0
    loss = match_weight @ match + deviation_weight @ deviation

    by_p = torch.zeros_like(gap) if stop_gradient else deviation_weight * gap
    by_label = torch.where(low, 0, -match_weight / label_sum * kept_size)
    by_p = by_p.scatter_add(0, labels[None], by_label[None]) / kept_size
    by_log_p = -deviation_weight / size * mean_p
    tables = (F.pad(table, (1, 0)).to(p) for table in (by_p, by_log_p))  # [K, M+1]
    return loss.to(p), p, *tables, low_log_sum


@torch.library.custom_op("consensus_lib::consensus_gradient", mutates_args=())
def _consensus_gradient(
    grad: torch.Tensor,
    logits: torch.Tensor,
    ids: torch.Tensor,
    first: torch.Tensor,
    kept: torch.Tensor,
    labels: torch.Tensor,
    match_weight: torch.Tensor,
    p: torch.Tensor,
    by_p: torch.Tensor,
    by_log_p: torch.Tensor,
    low_log_sum: torch.Tensor,
) -> torch.Tensor:
    """Return the gradient ``[B,K,H,W]`` by the logits: g - p Σ g, for g = p ∂/∂p + ∂/∂log p."""
    if kernels := _kernels(logits.device.type):
        return kernels.gradient(grad, logits, ids, kept, labels, match_weight, p, by_p, by_log_p, low_log_sum)
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
    by_p, by_log_p = by_p * grad, by_log_p * grad
    pixels = _Pixels(ids, first, len(labels))
    kept_pixels = pixels if kept.data_ptr() == ids.data_ptr() else _Pixels(kept, first[:0], len(labels))
    total = pixels.look_up(by_log_p.sum(0))  # [B, H, W], Σ g
    for k, p_k in enumerate(p.unbind(1)):
        total += torch.mul(p_k, kept_pixels.look_up(by_p[k]), out=gradient[:, k])
    low = low_log_sum < torch.inf
    if low.any():
        where, blob, label_log_p = _low_pixels(logits, kept, labels, low)
        share = (match_weight[blob] * (label_log_p - low_log_sum[blob]).exp()).to(p) * grad
        gradient[where[0], labels[blob], where[1], where[2]] -= share
        total[where] -= share
    for k, p_k in enumerate(p.unbind(1)):
        gradient[:, k].addcmul_(p_k, total, value=-1).add_(pixels.look_up(by_log_p[k]))
    return gradient


@_consensus.register_fake
def _(logits, ids, first, size, kept, kept_size, labels, match_weight, deviation_weight, stop_gradient):
    table = logits.new_empty(logits.shape[1], len(labels) + 1)
    return (
        logits.new_empty(()),
        torch.empty_like(logits, memory_format=torch.contiguous_format),
        table,
        torch.empty_like(table),
        torch.empty_like(match_weight),
    )


@_consensus_gradient.register_fake
def _(grad, logits, *_):
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _keep(ctx, inputs, output):
    logits, ids, first, _, kept, _, labels, match_weight, *_ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(logits, ids, first, kept, labels, match_weight, *output[1:])


def _backward(ctx, grad, *_):
    return None if grad is None else _consensus_gradient(grad, *ctx.saved_tensors), *[None] * 9


_consensus.register_autograd(_backward, setup_context=_keep)


LONGEST_RUN = 256
"""Pixels; so few can be added in float32, one after the other, without a loss that shows."""


def _runs(ids: torch.Tensor) -> torch.Tensor:
    """Return where the runs of equal ids begin, int64 ``[R]``, by position in the flat map.

    Empty where taking each pixel by itself is faster: on a GPU, or where the runs are short.
    """
    if ids.device.type != "cpu" or not ids.numel() or torch.compiler.is_compiling():
        return ids.new_empty(0)
    flat = ids.flatten().numpy()
    begins = np.append(True, flat[1:] != flat[:-1])
    begins[::LONGEST_RUN] = True
    first = np.flatnonzero(begins)
    return torch.from_numpy(first if 8 * len(first) < len(flat) else first[:0])


class _Pixels:
    """The pixels of an id map ``[B,H,W]`` of M blobs, to sum over blobs and to look up in tables of them.

    Where runs are given, blobs are summed and filled run by run: they are many times fewer than pixels, and
    adding pixel after pixel to one number would wait for each addition.
    """

    def __init__(self, ids: torch.Tensor, first: torch.Tensor, count: int):
        self.shape, self.count, self.first = ids.shape, count, first.numpy() if len(first) else None
        column = ids.flatten()
        if self.first is not None:
            self.length = np.diff(self.first, append=len(column))
            column = column.index_select(0, first)
        _check_range("blobs.ids", column, -1, count - 1)
        self.column = column + 1  # [R] or [N]; column 0 is for pixels in no blob

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sums of ``values`` ``[B,K,H,W]`` by column, float64 ``[K,M+1]``."""
        sums = values.new_zeros(values.shape[1], self.count + 1, dtype=_wide(values.device))
        add = None if self.first is None else self._adder(values)
        for total, row in zip(sums, values.unbind(1), strict=True):
            row = row.flatten()
            row = row if add is None else torch.from_numpy(add(row.numpy()))
            total.scatter_add_(0, self.column, row.to(total))
        return sums

    def _adder(self, values: torch.Tensor) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function from a channel ``[N]`` of ``values`` to its sums over the runs ``[R]``."""
        pixels, runs = math.prod(self.shape), len(self.first)
        if pixels > 16 * runs or values.shape[1] < 8:
            return lambda channel: np.add.reduceat(channel, self.first)
        # Where runs are short, the call that reduceat makes for each costs more than its additions. A sparse
        # matrix of ones has no such calls, but must be made: that takes as long as some channels.
        ones = values.new_ones(pixels).numpy(), np.arange(pixels), np.append(self.first, pixels)
        return scipy.sparse.csr_array(ones, shape=(runs, pixels)).__matmul__

    def look_up(self, table: torch.Tensor) -> torch.Tensor:
        """Return each pixel's entry of a table ``[M+1]``, ``[B,H,W]``."""
        at = table.index_select(0, self.column)
        if self.first is not None:
            at = torch.from_numpy(np.repeat(at.numpy(), self.length))
        return at.view(self.shape)


def _low_pixels(
    logits: torch.Tensor, ids: torch.Tensor, labels: torch.Tensor, low: torch.Tensor
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor]:
    """Return where the pixels of the blobs ``low`` bool ``[M]`` are, their blobs, and log p of the label."""
    where = (F.pad(low, (1, 0))[ids + 1]).nonzero(as_tuple=True)  # (image, y, x), [n] each
    blob = ids[where]
    log_p = logits.movedim(1, -1)[where].to(_wide(logits.device)).log_softmax(1)  # [n, K]
    return where, blob, log_p.gather(1, labels[blob, None])[:, 0]

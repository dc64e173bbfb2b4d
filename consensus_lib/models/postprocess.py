"""Post-processing: corrects a network's prediction at test time.

Functions of label maps or logits, and modules that join a network and one of them: ``evaluate`` and
``predict`` take these as any network. Label maps are int64 ``[B,H,W]``; pixels of 255 = ignore stay.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.ndimage
import torch
import torch.nn.functional as F
from torch import nn

from consensus_lib import IGNORE
from consensus_lib.losses.blobs import label_blobs
from consensus_lib.metrics.components import find_holes


def remove_small_components(labels: torch.Tensor, min_size: int = 16, connectivity: int = 8) -> torch.Tensor:
    """Give each connected component of fewer than ``min_size`` pixels to its neighbour of longest border.

    Repeated until nothing changes, so that a component amid small ones is merged too. An image whose
    components are all small stays as it is.

    Args:
        labels: int64 ``[B,H,W]``, predicted classes.
        min_size: pixels; scale it with the area of the image.
        connectivity: 4 or 8 neighbours, 8 as the component error.

    Raises:
        ValueError: ``labels`` or ``connectivity`` differs from the above.

    >>> remove_small_components(torch.tensor([[[1, 1, 1], [1, 0, 1], [1, 1, 1]]]), min_size=2).unique()
    tensor([1])
    """
    _check_labels(labels)
    while True:
        blobs = label_blobs(labels, "component", connectivity, min_size=min_size, specks="merge")
        host = F.pad(blobs.labels, (1, 0))[blobs.ids + 1]  # [B, H, W]
        merged = torch.where(blobs.ids < 0, labels, host)
        if torch.equal(merged, labels):
            return merged
        labels = merged


def fill_holes(labels: torch.Tensor, max_size: int = 16) -> torch.Tensor:
    """Give each hole of at most ``max_size`` pixels to the class that surrounds it.

    A hole of a class is a 4-connected part of all other classes together that does not reach the image's
    border. Classes are filled in their order, each on the result of the one before.

    Args:
        labels: int64 ``[B,H,W]``, predicted classes.
        max_size: pixels.

    Raises:
        ValueError: ``labels`` is not int64 ``[B,H,W]``.

    >>> fill_holes(torch.tensor([[[1, 1, 1, 1], [1, 0, 2, 1], [1, 1, 1, 1]]]), max_size=2).unique()
    tensor([1])
    """
    _check_labels(labels)
    maps = labels.cpu().numpy().copy()
    ignored = maps == IGNORE
    for k in np.unique(maps[~ignored]):
        graph, hole = find_holes(maps == k)
        small = hole & (graph.areas() <= max_size)  # [C]
        maps[np.repeat(small[graph.component], graph.length).reshape(maps.shape) & ~ignored] = k
    return torch.from_numpy(maps).to(labels.device)


def open_classes(labels: torch.Tensor, radius: int = 1) -> torch.Tensor:
    """Open each class's mask by a square of 2·``radius`` + 1 pixels; the rest takes the nearest kept label.

    Beyond the image's border every class is taken to go on. Where no pixel of an image is kept, nothing
    changes.

    Args:
        labels: int64 ``[B,H,W]``, predicted classes.
        radius: pixels.

    Raises:
        ValueError: ``labels`` is not int64 ``[B,H,W]``.

    Source: Serra, Image Analysis and Mathematical Morphology, 1982.

    >>> open_classes(torch.tensor([[[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]])).unique()
    tensor([0])
    """
    _check_labels(labels)
    side = 2 * radius + 1
    opened = torch.zeros_like(labels, dtype=torch.bool)
    for k in labels[labels != IGNORE].unique():
        mask = F.pad((labels == k)[:, None].float(), [2 * radius] * 4, value=1)
        eroded = -F.max_pool2d(-mask, side, 1)  # of all squares that reach into the image
        opened |= F.max_pool2d(eroded, side, 1)[:, 0] > 0  # within the class's own mask
    out = labels.clone()
    for image, kept in zip(out, opened.cpu().numpy(), strict=True):
        if kept.any() and not kept.all():
            nearest = scipy.ndimage.distance_transform_edt(~kept, return_distances=False, return_indices=True)
            rows, columns = torch.from_numpy(nearest).long().to(labels.device)
            image.copy_(torch.where(image == IGNORE, IGNORE, image[rows, columns]))
    return out


def local_crf(
    logits: torch.Tensor,
    image: torch.Tensor,
    *,
    radius: int = 5,
    steps: int = 5,
    smooth_weight: float = 2.0,
    smooth_scale: float = 2.0,
    colour_weight: float = 4.0,
    colour_reach: float = 4.0,
    colour_scale: float = 0.2,
) -> torch.Tensor:
    r"""Mean-field inference in a conditional random field whose pixels see a window around them.

    .. math::
        Q_i(k) \propto \exp\Big(\log p_i(k) + \sum_m w_m \sum_{j \ne i} \bar\kappa_m(i, j) Q_j(k)\Big), \quad
        \kappa_1 = e^{-\frac{|s_i - s_j|^2}{2\theta_\alpha^2} - \frac{|I_i - I_j|^2}{2\theta_\beta^2}}, \quad
        \kappa_2 = e^{-\frac{|s_i - s_j|^2}{2\theta_\gamma^2}}

    with Potts compatibility. :math:`\bar\kappa` is divided by its sum over the window: a weight is the most
    that neighbours who agree add to a class's log-odds.

    Args:
        logits: float ``[B,K,H,W]``.
        image: float ``[B,3,H,W]`` in [-1, 1], I.
        radius: of the square window, in pixels, at least 1.
        steps: mean-field iterations, all pixels at once.
        smooth_weight, smooth_scale: :math:`w_2`, and :math:`\theta_\gamma` in pixels.
        colour_weight, colour_reach, colour_scale: :math:`w_1`, :math:`\theta_\alpha` in pixels, and
            :math:`\theta_\beta` in units of the image.

    Returns:
        log Q, float ``[B,K,H,W]``.

    Raises:
        ValueError: ``logits`` or ``image`` differs from the above.

    Source: Krähenbühl and Koltun, NeurIPS 2011, for all pairs of pixels; the window: Teichmann and Cipolla,
    BMVC 2019.

    >>> local_crf(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4)).exp().unique()
    tensor([0.5000])
    """
    expected = (len(logits), 3, *logits.shape[2:])
    if logits.dim() != 4 or not logits.is_floating_point():
        raise ValueError(f"logits: expected float [B,K,H,W], got {logits.dtype} {list(logits.shape)}")
    if image.shape != expected or not image.is_floating_point():
        raise ValueError(
            f"image: expected float {list(expected)} like logits, got {image.dtype} {list(image.shape)}"
        )
    log_p = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(1)
    side = 2 * radius + 1
    at = torch.arange(-radius, radius + 1, device=logits.device)
    apart = (at[:, None] ** 2 + at**2).flatten()[:, None].to(log_p)  # [W, 1], squared, of W = side²

    def windows(maps):  # [C, H, W] -> [C, W, H*W], 0 beyond the border
        return F.unfold(maps[:, None], side, padding=radius)

    smooth = torch.exp(-apart / (2 * smooth_scale**2)) * windows(log_p.new_ones(1, *log_p.shape[2:]))[0]
    smooth = smooth * (apart > 0)  # [W, H*W]; a pixel is no neighbour of itself
    neighbour = smooth > 0
    tiny = torch.finfo(log_p.dtype).tiny

    def refined(unary, picture):
        colour = (windows(picture) - picture.flatten(1)[:, None]).square().sum(0)  # [W, H*W]
        colour = -apart / (2 * colour_reach**2) - colour / (2 * colour_scale**2)
        colour = colour.masked_fill(~neighbour, -torch.inf)
        colour = colour.softmax(0)  # normalised even where all kernels of a window underflow
        kernel = colour_weight * colour + smooth_weight * smooth / smooth.sum(0).clamp(min=tiny)
        log_q = unary
        for _ in range(steps):
            message = (windows(log_q.exp()) * kernel).sum(1).view_as(unary)  # [K, H, W]
            log_q = (unary + message).log_softmax(0)
        return log_q

    pairs = zip(log_p, image.to(log_p), strict=True)  # one by one: a window is W times an image's memory
    return torch.stack([refined(*pair) for pair in pairs])


class FlipAveraged(nn.Module):
    """A network whose probabilities for an image and its mirror image are averaged.

    Args:
        network: from images ``[B,3,H,W]`` to logits ``[B,K,H,W]``.
        mirror: which class each class is in a mirrored image, length K; see
            :attr:`consensus_lib.data.tasks.Task.mirror`. None: classes have no side.
    """

    def __init__(self, network: nn.Module, mirror: Sequence[int] | None = None):
        super().__init__()
        self.network, self.mirror = network, None if mirror is None else list(mirror)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logarithm of the mean probabilities, ``[B,K,H,W]``."""
        straight = self.network(image).log_softmax(1)
        mirrored = self.network(image.flip(-1)).flip(-1).log_softmax(1)
        mirrored = mirrored if self.mirror is None else mirrored[:, self.mirror]
        return torch.logaddexp(straight, mirrored) - math.log(2)


class WithCRF(nn.Module):
    """A network whose prediction :func:`local_crf` refines, with its keyword arguments as ``options``."""

    def __init__(self, network: nn.Module, **options):
        super().__init__()
        self.network, self.options = network, options

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return log Q, ``[B,K,H,W]``."""
        return local_crf(self.network(image), image, **self.options)


class Relabelled(nn.Module):
    """A network whose predicted classes a function of label maps corrects.

    Args:
        network: from images ``[B,3,H,W]`` to logits ``[B,K,H,W]``.
        function: such as :func:`remove_small_components`, :func:`fill_holes` and :func:`open_classes`.
        options: its further arguments.
    """

    def __init__(self, network: nn.Module, function: Callable[..., torch.Tensor], **options):
        super().__init__()
        self.network, self.function = network, functools.partial(function, **options)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return one-hot logits, ``[B,K,H,W]``."""
        logits = self.network(image)
        labels = self.function(logits.argmax(1))
        return F.one_hot(labels, logits.shape[1]).movedim(-1, 1).to(logits.dtype)


class PostProcessing(NamedTuple):
    """A method: its name in tables, its source, and a function from network and options to a module."""

    title: str
    source: str
    make: Callable[..., nn.Module]


def _relabelled(title: str, source: str, function: Callable[..., torch.Tensor]) -> PostProcessing:
    return PostProcessing(title, source, functools.partial(Relabelled, function=function))


POSTPROCESSING = {
    "components": _relabelled("small components removed", "common practice", remove_small_components),
    "holes": _relabelled("holes filled", "common practice", fill_holes),
    "opening": _relabelled("opening of each class", "Serra, 1982", open_classes),
    "crf": PostProcessing("local CRF", "Krähenbühl and Koltun, NeurIPS 2011", WithCRF),
    "flip": PostProcessing("average over flips", "Krizhevsky et al., NeurIPS 2012", FlipAveraged),
}
"""Post-processing by name."""


def options_at(size: int) -> dict[str, dict[str, int]]:
    """Return options by name for images of ``size`` × ``size``: areas of 16 pixels at 128×128, scaled."""
    area = max(2, round((size / 32) ** 2))
    return {"components": {"min_size": area}, "holes": {"max_size": area}}


def _check_labels(labels: torch.Tensor) -> None:
    if labels.dim() != 3 or labels.dtype != torch.int64:
        raise ValueError(f"labels: expected int64 [B,H,W], got {labels.dtype} {list(labels.shape)}")

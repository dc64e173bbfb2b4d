"""The consensus loss as one operator with a gradient of its own: equal to the equations, and faster.

It keeps one tensor of the size of the logits where autograd would keep four, ``torch.compile`` takes it as a
whole, and on CUDA, where torch brings Triton, it runs in the kernels of :mod:`consensus_lib.losses.triton`.
M blobs, R runs of equal ids.
"""

import functools
import importlib.util
import itertools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F

from consensus_lib.losses.blobs import Blobs
from consensus_lib.losses.inputs import accumulator, check_range

LONGEST_RUN = 256
"""Pixels; so few can be added in float32, one after the other, without a loss that shows."""

SHARED_FROM = 1 << 16
"""Pixels of a batch; fewer are not worth a second thread."""


def serves(logits: torch.Tensor) -> bool:
    """Say whether the operator can stand in for the equations: not for ``torch.func`` and forward mode."""
    if torch.compiler.is_compiling():
        return True
    try:
        logits.data_ptr()
    except RuntimeError:  # the tensors of torch.func have no memory of their own
        return False
    return torch.autograd.forward_ad.unpack_dual(logits).tangent is None


def consensus(
    logits: torch.Tensor,
    blobs: Blobs,
    match_weight: torch.Tensor,
    deviation_weight: torch.Tensor,
    stop_gradient: bool,
) -> torch.Tensor:
    """Return what :func:`consensus_lib.losses.consensus.weighted_terms` returns, for float32 or float64."""
    ids, labels = blobs.ids, blobs.labels
    return _consensus(
        logits, ids, _runs(ids), blobs.size, labels, match_weight, deviation_weight, stop_gradient
    )[0]


def differentiate_twice_by(equations: Callable[..., torch.Tensor]) -> None:
    """Register the gradient, whose own gradient is that of the equations."""

    def keep(ctx, inputs, output):
        logits, ids, first, size, labels, match_weight, deviation_weight, ctx.stop_gradient = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(logits, ids, first, size, labels, match_weight, deviation_weight, *output[1:])

    def backward(ctx, grad, *_):
        if grad is None:
            return (None,) * 8
        logits, ids, first, size, labels, match_weight, deviation_weight, *made = ctx.saved_tensors
        if torch.is_grad_enabled():  # a graph of the gradient is asked for
            blobs = Blobs(ids, labels, torch.empty_like(labels), size)  # the equations ask for no image
            loss = equations(logits, blobs, match_weight, deviation_weight, ctx.stop_gradient)
            return *torch.autograd.grad(loss, logits, grad, create_graph=True), *[None] * 7
        return _consensus_gradient(grad, logits, ids, first, labels, match_weight, *made), *[None] * 7

    _consensus.register_autograd(backward, setup_context=keep)


@functools.cache
def _kernels(device_type: str):
    """Return the module of fused kernels; None where there are none. CUDA builds of torch bring Triton."""
    if device_type != "cuda" or not importlib.util.find_spec("triton"):
        return None
    from consensus_lib.losses import triton

    return triton


@torch.library.custom_op("consensus_lib::consensus", mutates_args=())
def _consensus(
    logits: torch.Tensor,
    ids: torch.Tensor,
    first: torch.Tensor,
    size: torch.Tensor,
    labels: torch.Tensor,
    match_weight: torch.Tensor,
    deviation_weight: torch.Tensor,
    stop_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Return :math:`\sum_c` of match and deviation by their weights, and what its gradient needs.

    Args:
        logits: float32 or float64 ``[B,K,H,W]``.
        ids, first, size: the blobs' map ``[B,H,W]``, its runs as of :func:`_runs`, the sizes ``[M]``.
        labels, match_weight, deviation_weight: of each blob, ``[M]``.
        stop_gradient: hold the mean constant in the deviation.

    Returns:
        The loss; p ``[B,K,H,W]``; its derivatives by p and by log p of a pixel, ``[K,M+1]`` each, 0 in the
        first column, which is for pixels in no blob; and, for blobs whose mean at the label is too small
        for p to tell, the log of its sum, ``[M]``, infinite for all others.
    """
    if kernels := _kernels(logits.device.type):
        return kernels.consensus(logits, ids, size, labels, match_weight, deviation_weight, stop_gradient)
    check_range("labels", labels, 0, logits.shape[1] - 1)
    pixels = _Pixels(ids, first, len(size))
    log_p = logits.log_softmax(1)  # [B, K, H, W]
    sum_log_p = pixels.sums(log_p)  # [K, M+1]
    mean_log_p = sum_log_p[:, 1:] / size  # [K, M]
    p = log_p.exp_()  # in place: for large batches, fresh memory costs more than exp
    if sum_log_p[:, 0].isnan().any():  # logits of pixels in no blob: whatever they are, their gradient is 0
        p.masked_fill_((ids < 0)[:, None], 0)
    sum_p = pixels.sums(p)[:, 1:]  # [K, M]
    mean_p = sum_p / size
    label_sum = sum_p.gather(0, labels[None])[0]  # [M]

    # A mean that underflows has a logarithm still: those blobs are done again with their largest log p
    # taken out.
    low = label_sum < torch.finfo(p.dtype).tiny / torch.finfo(p.dtype).eps
    log_label_sum, low_log_sum = label_sum.log(), torch.full_like(label_sum, torch.inf)
    if low.any():
        _, blob, label_log_p = _low_pixels(logits, ids, labels, low)
        top = label_sum.new_full(label_sum.shape, -torch.inf).scatter_reduce(0, blob, label_log_p, "amax")
        rest = torch.zeros_like(top).scatter_add(0, blob, (label_log_p - top[blob]).exp())
        low_log_sum[low] = log_label_sum[low] = (top + rest.log())[low]

    gap = mean_p.clamp(min=torch.finfo(p.dtype).tiny).log() - mean_log_p  # [K, M]
    gap = gap.where(mean_p > 0, 0)  # 0 log 0 = 0, of classes whose logits are minus infinity
    match = size.to(label_sum).log() - log_label_sum  # [M]
    deviation = (mean_p * gap).sum(0).clamp(min=0)  # [M]; rounding alone can take it below 0
    loss = match_weight @ match + deviation_weight @ deviation

    by_p = torch.zeros_like(gap) if stop_gradient else deviation_weight * gap
    by_label = torch.where(low, 0, -match_weight / label_sum * size)
    by_p = by_p.scatter_add(0, labels[None], by_label[None]) / size
    by_log_p = -deviation_weight / size * mean_p
    tables = (F.pad(table, (1, 0)).to(p) for table in (by_p, by_log_p))  # [K, M+1]
    return loss.to(p), p, *tables, low_log_sum


@torch.library.custom_op("consensus_lib::consensus_gradient", mutates_args=())
def _consensus_gradient(
    grad: torch.Tensor,
    logits: torch.Tensor,
    ids: torch.Tensor,
    first: torch.Tensor,
    labels: torch.Tensor,
    match_weight: torch.Tensor,
    p: torch.Tensor,
    by_p: torch.Tensor,
    by_log_p: torch.Tensor,
    low_log_sum: torch.Tensor,
) -> torch.Tensor:
    """Return the gradient ``[B,K,H,W]`` by the logits: g - p Σ g, for g = p ∂/∂p + ∂/∂log p."""
    if kernels := _kernels(logits.device.type):
        return kernels.gradient(grad, logits, ids, labels, match_weight, p, by_p, by_log_p, low_log_sum)
    by_p, by_log_p = by_p * grad, by_log_p * grad  # [K, M+1]
    pixels = _Pixels(ids, first, len(labels))
    gradient = pixels.look_up(by_p).mul_(p)  # [B, K, H, W]
    total = pixels.look_up(by_log_p.sum(0, keepdim=True))[:, 0]  # [B, H, W], Σ g
    for g_k in gradient.unbind(1):
        total += g_k
    low = low_log_sum < torch.inf
    if low.any():
        where, blob, label_log_p = _low_pixels(logits, ids, labels, low)
        share = (match_weight[blob] * (label_log_p - low_log_sum[blob]).exp()).to(p) * grad
        gradient[where[0], labels[blob], where[1], where[2]] -= share
        total[where] -= share
    return gradient.addcmul_(p, total[:, None], value=-1).add_(pixels.look_up(by_log_p))


@_consensus.register_fake
def _(logits, ids, first, size, labels, match_weight, deviation_weight, stop_gradient):
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


def _runs(ids: torch.Tensor) -> torch.Tensor:
    """Return where the runs of equal ids begin, int64 ``[R]``, by position in the flat map.

    Empty where taking each pixel by itself is faster: on a GPU, or where the runs are short.
    """
    if ids.device.type != "cpu" or not ids.numel() or torch.compiler.is_compiling():
        return ids.new_empty(0)
    flat = ids.flatten().numpy()
    begins = np.append(True, flat[1:] != flat[:-1])
    begins[::LONGEST_RUN] = begins[:: math.prod(ids.shape[1:])] = True
    first = np.flatnonzero(begins)
    return torch.from_numpy(first if 8 * len(first) < len(flat) else first[:0])


class _Pixels:
    """The pixels of an id map ``[B,H,W]`` of M blobs, to sum over blobs and to look up in tables of them.

    Where runs are given, blobs are summed and filled run by run: they are many times fewer than pixels, and
    adding pixel after pixel to one number would wait for each addition. Torch uses all its threads for the
    logits and one for this, so that the images are shared among as many threads here.
    """

    def __init__(self, ids: torch.Tensor, first: torch.Tensor, count: int):
        self.shape, self.count, column = ids.shape, count, ids.flatten()
        self.runs = first.numpy() if len(first) else None
        if self.runs is not None:
            self.length = np.diff(self.runs, append=len(column))
            column = column.index_select(0, first)
        check_range("blobs.ids", column, -1, count - 1)
        self.column = column + 1  # [R] or [N]; column 0 is for pixels in no blob
        shared = ids.device.type == "cpu" and ids.numel() > SHARED_FROM
        parts = min(len(ids), torch.get_num_threads()) if shared else 1
        pixels = [at * len(ids) // parts * math.prod(ids.shape[1:]) for at in range(parts + 1)]
        runs = pixels if self.runs is None else np.searchsorted(self.runs, pixels).tolist()
        slices = ([slice(*ends) for ends in itertools.pairwise(of)] for of in (pixels, runs))
        self.parts = list(zip(*slices, strict=True))  # of the images: their pixels and their runs

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sums of ``values`` ``[B,K,H,W]`` by column, float64 ``[K,M+1]``."""
        type_ = accumulator(values.device)
        if values.device.type != "cpu":
            sums = values.new_zeros(values.shape[1], self.count + 1, dtype=type_)
            for total, row in zip(sums, values.unbind(1), strict=True):
                total.scatter_add_(0, self.column, row.flatten().to(total))
            return sums
        per_image = math.prod(self.shape[1:])

        def of_part(part: tuple[slice, slice]) -> torch.Tensor:
            pixels, runs = part
            images = slice(pixels.start // max(1, per_image), pixels.stop // max(1, per_image))
            sums = torch.zeros(values.shape[1], self.count + 1, dtype=type_)
            add = self._adder(pixels, runs, values.shape[1], values.numpy().dtype)
            for total, row in zip(sums, values[images].unbind(1), strict=True):
                row = add(np.ascontiguousarray(row.numpy()).ravel()).astype(np.float64)
                total.scatter_add_(0, self.column[runs], torch.from_numpy(row))
            return sums

        first, *others = _share(of_part, self.parts)
        for other in others:
            first += other  # an id belongs to one image: one of the two is 0
        return first

    def _adder(self, pixels: slice, runs: slice, classes: int, dtype) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function from a channel of some ``pixels`` to its sums over their runs ``[R]``."""
        if self.runs is None:
            return lambda channel: channel
        first, count = self.runs[runs] - pixels.start, pixels.stop - pixels.start
        if count > 16 * len(first) or classes < 8:
            return lambda channel: np.add.reduceat(channel, first)
        # Where runs are short, the call that reduceat makes for each costs more than its additions. A sparse
        # matrix of ones has no such calls, but must be made: that takes as long as some channels.
        ones = np.ones(count, dtype), np.arange(count), np.append(first, count)
        return scipy.sparse.csr_array(ones, shape=(len(first), count)).__matmul__

    def look_up(self, tables: torch.Tensor) -> torch.Tensor:
        """Return each pixel's entries of tables ``[K,M+1]``, ``[B,K,H,W]``."""
        if tables.device.type != "cpu":
            at = tables.index_select(1, self.column).view(len(tables), *self.shape)
            return at.transpose(0, 1).contiguous()
        found = tables.new_empty(self.shape[0], len(tables), *self.shape[1:])
        column, out = self.column.numpy(), found.flatten(2).numpy()

        def fill(part: tuple[slice, slice]) -> None:
            pixels, runs = part
            images = slice(*(edge // max(1, out.shape[2]) for edge in (pixels.start, pixels.stop)))
            for k, table in enumerate(tables.numpy()):
                at = table.take(column[runs])
                at = at if self.runs is None else np.repeat(at, self.length[runs])
                out[images, k] = at.reshape(-1, out.shape[2])

        _share(fill, self.parts)
        return found


def _share(task: Callable, parts: list) -> list:
    """Return the results of ``task`` for all parts, each but the first in a thread of its own."""
    others = [_pool(os.getpid(), len(parts) - 1).submit(task, part) for part in parts[1:]]
    return [task(parts[0]), *(other.result() for other in others)]


@functools.cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Return threads of this process: after a fork, those of its parent are not there."""
    return ThreadPoolExecutor(threads)


def _low_pixels(
    logits: torch.Tensor, ids: torch.Tensor, labels: torch.Tensor, low: torch.Tensor
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor]:
    """Return where the pixels of the blobs ``low`` bool ``[M]`` are, their blobs, and log p of the label."""
    where = (F.pad(low, (1, 0))[ids + 1]).nonzero(as_tuple=True)  # (image, y, x), [n] each
    blob = ids[where]
    log_p = logits.movedim(1, -1)[where].to(accumulator(logits.device)).log_softmax(1)  # [n, K]
    return where, blob, log_p.gather(1, labels[blob, None])[:, 0]

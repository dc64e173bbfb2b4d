"""The consensus loss as one operator with a gradient of its own: equal to the equations, and faster.

It keeps one tensor of the size of the logits where autograd would keep four, ``torch.compile`` takes it as a
whole, and on CUDA, where torch brings Triton, it runs in the kernels of :mod:`consensus_lib.losses.triton`.
M blobs, R runs of equal ids.

On the CPU blobs are summed run by run, and the sums over runs are a product with a sparse matrix of ones,
which MKL computes on all threads. All else of the logits' size is a torch operator: threads of Python would
wait for the cores on which torch's own threads still spin.
"""

import functools
import importlib.util
import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from consensus_lib.losses.blobs import Blobs
from consensus_lib.losses.inputs import accumulator, check_range

LONGEST_RUN = 256
"""Pixels; so few can be added in float32, one after the other, without a loss that shows."""

NONZEROS = 1 << 20
"""Entries of one sparse matrix, about; more logits take several."""


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
    tables = blobs.ids, blobs.size, blobs.labels, match_weight, deviation_weight
    return _consensus(logits, *tables, stop_gradient)[0]


def differentiate_twice_by(equations: Callable[..., torch.Tensor]) -> None:
    """Register the gradient, whose own gradient is that of the equations."""

    def keep(ctx, inputs, output):
        logits, ids, size, labels, match_weight, deviation_weight, ctx.stop_gradient = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(logits, ids, size, labels, match_weight, deviation_weight, *output[1:])

    def backward(ctx, grad, *_):
        if grad is None:
            return (None,) * 7
        logits, ids, size, labels, match_weight, deviation_weight, *made = ctx.saved_tensors
        if torch.is_grad_enabled():  # a graph of the gradient is asked for
            blobs = Blobs(ids, labels, torch.empty_like(labels), size)  # the equations ask for no image
            loss = equations(logits, blobs, match_weight, deviation_weight, ctx.stop_gradient)
            return *torch.autograd.grad(loss, logits, grad, create_graph=True), *[None] * 6
        return _consensus_gradient(grad, logits, ids, labels, match_weight, *made), *[None] * 6

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
    size: torch.Tensor,
    labels: torch.Tensor,
    match_weight: torch.Tensor,
    deviation_weight: torch.Tensor,
    stop_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Return :math:`\sum_c` of match and deviation by their weights, and what its gradient needs.

    Args:
        logits: float32 or float64 ``[B,K,H,W]``.
        ids: the blobs' map ``[B,H,W]``.
        size, labels, match_weight, deviation_weight: of each blob, ``[M]``.
        stop_gradient: hold the mean constant in the deviation.

    Returns:
        The loss; p ``[B,K,H,W]``; its derivatives by p and by log p of a pixel, ``[K,M+1]`` each, 0 in the
        first column, which is for pixels in no blob; and, for blobs whose mean at the label is too small
        for p to tell, the log of its sum, ``[M]``, infinite for all others.
    """
    if kernels := _kernels(logits.device.type):
        return kernels.consensus(logits, ids, size, labels, match_weight, deviation_weight, stop_gradient)
    check_range("labels", labels, 0, logits.shape[1] - 1)
    sums = _sums_by_blob(ids, len(size), logits)
    log_p = logits.log_softmax(1)  # [B, K, H, W]
    sum_log_p = sums(log_p)  # [K, M+1]
    mean_log_p = sum_log_p[:, 1:] / size  # [K, M]
    p = log_p.exp_()  # in place: for large batches, fresh memory costs more than exp
    if sum_log_p[:, 0].isnan().any():  # logits of pixels in no blob: whatever they are, their gradient is 0
        p.masked_fill_((ids < 0)[:, None], 0)
    sum_p = sums(p)[:, 1:]  # [K, M]
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
    column = (ids.flatten(1) + 1)[:, None]  # [B, 1, N]; column 0 is for pixels in no blob

    def look_up(table):  # [K, M+1] -> [B, K, H, W]
        found = table.expand(len(ids), -1, -1).gather(2, column.expand(-1, len(table), -1))
        return found.view(p.shape)

    gradient = look_up(by_p * grad).mul_(p).add_(look_up(by_log_p * grad))
    low = low_log_sum < torch.inf
    if low.any():
        where, blob, label_log_p = _low_pixels(logits, ids, labels, low)
        share = (match_weight[blob] * (label_log_p - low_log_sum[blob]).exp()).to(p) * grad
        gradient[where[0], labels[blob], where[1], where[2]] -= share
    return gradient.addcmul_(p, gradient.sum(1, keepdim=True), value=-1)


@_consensus.register_fake
def _(logits, ids, size, labels, match_weight, deviation_weight, stop_gradient):
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


def _sums_by_blob(ids: torch.Tensor, count: int, like: torch.Tensor) -> Callable:
    """Return the function from values ``[B,K,H,W]`` to their sums over blobs, float64 ``[K,M+1]``.

    Column 0 is for pixels in no blob. Elsewhere than on the CPU each pixel is a run.
    """
    if like.device.type == "cpu":
        column, over_runs = _sums_by_run(ids, like)
    else:
        column, over_runs = (ids + 1).flatten(), lambda values: values
    check_range("blobs.ids", column - 1, -1, count - 1)

    def sums(values):
        rows = over_runs(values).transpose(0, 1).flatten(1).to(accumulator(values.device))  # [K, B*R]
        return rows.new_zeros(len(rows), count + 1).scatter_add_(1, column.expand_as(rows), rows)

    return sums


def _sums_by_run(ids: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, Callable]:
    """Return the columns ``[B*R]`` of the runs of equal ids, and the function that sums values over them.

    An image with fewer runs than another is filled up with empty ones, of column 0.
    """
    images, classes, pixels = len(ids), like.shape[1], max(1, math.prod(ids.shape[1:]))
    flat = ids.flatten().numpy()
    begins = np.ones(len(flat), bool)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[::LONGEST_RUN] = begins[::pixels] = True
    first = np.flatnonzero(begins)
    image = first // pixels
    count = np.bincount(image, minlength=images)
    real = np.arange(count.max(initial=0)) < count[:, None]  # [B, R]
    start, column = np.full(real.shape, pixels, np.int32), np.zeros(real.shape, np.int64)
    start[real], column[real] = first - image * pixels, flat[first] + 1
    # [B*K, R], of a plane of pixels for each image and class, several planes to a matrix
    start = torch.from_numpy(start)[:, None].expand(-1, classes, -1)
    step = max(1, NONZEROS // pixels)
    products = []
    for part in start.flatten(0, 1).split(step):
        offset = pixels * torch.arange(len(part) + 1, dtype=torch.int32)
        rows = torch.cat([(part + offset[:-1, None]).flatten(), offset[-1:]])
        if torch.backends.mkl.is_available():
            at, ones = (entries[: len(part) * pixels] for entries in _entries(step * pixels, like.dtype))
            shape = len(rows) - 1, len(at)
            products.append(torch.sparse_csr_tensor(rows, at, ones, shape, check_invariants=False).mv)
        else:  # ARM, say: on one thread
            products.append(functools.partial(torch.segment_reduce, reduce="sum", offsets=rows.long()))

    def over_runs(values):
        planes = values.flatten(0, 1).flatten(1).split(step)
        sums = [of_runs(part.flatten()) for of_runs, part in zip(products, planes, strict=True)]
        return torch.cat(sums).view(start.shape) if sums else values.new_empty(start.shape)

    return torch.from_numpy(column).flatten(), over_runs


@functools.lru_cache(maxsize=2)
def _entries(count: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the columns and the ones of a sparse matrix with one entry in each column."""
    with warnings.catch_warnings(action="ignore"):  # once in a process, that sparse tensors are in beta
        torch.sparse_csr_tensor([0], [], [], (0, 0))
    return torch.arange(count, dtype=torch.int32), torch.ones(count, dtype=dtype)


def _low_pixels(
    logits: torch.Tensor, ids: torch.Tensor, labels: torch.Tensor, low: torch.Tensor
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor]:
    """Return where the pixels of the blobs ``low`` bool ``[M]`` are, their blobs, and log p of the label."""
    where = (F.pad(low, (1, 0))[ids + 1]).nonzero(as_tuple=True)  # (image, y, x), [n] each
    blob = ids[where]
    log_p = logits.movedim(1, -1)[where].to(accumulator(logits.device)).log_softmax(1)  # [n, K]
    return where, blob, log_p.gather(1, labels[blob, None])[:, 0]

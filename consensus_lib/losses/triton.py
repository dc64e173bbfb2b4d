"""The consensus loss in four Triton kernels, for CUDA: each tensor of the logits' size crosses memory once.

``_sums`` holds the logits of a tile of pixels in registers, writes p, and adds p and log p to sums of blobs.
A blob may be the whole image, and pixels that add to one number wait for each other: so a tile takes its
blobs one after another, sums each in registers, and adds once for each. What is left after ``ROUNDS`` blobs
is added pixel by pixel, to numbers that few pixels share. ``_low_sums`` returns at once, unless a blob may be
too unlikely for p to tell. ``_tables`` makes the loss and its derivatives of the sums; ``_gradient`` looks
them up. Tiles are summed in the logits' type, blobs in float64.

Nothing waits for the GPU, so the loss can be captured in a CUDA graph, and ids and labels out of range fail
an assertion on the device, as labels do in cross-entropy.
"""

import math

import torch
import triton
import triton.language as tl

ROUNDS = tl.constexpr(8)
jit = triton.jit(do_not_specialize=["M"])  # the number of blobs differs from batch to batch


@jit
def _tile(at, ids, HW, K: tl.constexpr, KP: tl.constexpr, BLOCK: tl.constexpr):
    """Return a tile's image, classes [KP,1], pixels [BLOCK] in image and batch, what is inside, and ids."""
    tiles = tl.cdiv(HW, BLOCK)
    b, k = (at // tiles).to(tl.int64), tl.arange(0, KP)[:, None].to(tl.int64)
    s = (at % tiles * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    return b, k, s, b * HW + s, (k < K) & (s < HW), tl.load(ids + b * HW + s, s < HW, other=-1)


@jit
def _log_label(x, k, label):
    """Return log p of the label, float64 [BLOCK]: exact where it is far below 0, too."""
    top, there = tl.max(x, 0), tl.sum(tl.where(k == label, x, 0), 0)
    return there.to(tl.float64) - top.to(tl.float64) - tl.log(tl.sum(tl.exp(x - top), 0).to(tl.float64))


@triton.jit(do_not_specialize=["M"], debug=True)  # debug: asserts
def _sums(
    logits, sb, sk, ss, ids, labels, p, sums, top, M, HW,
    LOW: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b, k, s, _, inside, c = _tile(tl.program_id(0), ids, HW, K, KP, BLOCK)
    tl.device_assert((c >= -1) & (c < M), "blobs.ids: expected -1..M-1")
    label = tl.load(labels + c, c >= 0, other=0)
    tl.device_assert((label >= 0) & (label < K), "labels: expected 0..K-1")
    x = tl.load(logits + b * sb + k * sk + s * ss, inside, other=float("-inf"))
    x = tl.where(c >= 0, x, 0)  # whatever the logits of pixels in no blob are, NaN too
    x -= tl.max(x, 0)
    one = tl.exp(x)
    total = tl.sum(one, 0)
    one, x = one / total, tl.where(inside, x - tl.log(total), 0)  # p and log p
    tl.store(p + b * K * HW + k * HW + s, one, inside)
    low = (c >= 0) & (tl.sum(tl.where(k == label, x, 0), 0) < LOW)
    if tl.max(low.to(tl.int32), 0) > 0:
        tl.atomic_max(top + c, _log_label(x, k, label), low, sem="relaxed")
        tl.store(top + M, 0.0)  # for _low_sums
    one = tl.where(inside & (c >= 0), one, 0)
    of_p, of_log_p = sums + k * M, sums + (k + K) * M
    for _ in range(ROUNDS):
        now = tl.max(c, 0)
        if now >= 0:
            mine = c == now
            sum_p, sum_log_p = tl.sum(tl.where(mine, one, 0), 1), tl.sum(tl.where(mine, x, 0), 1)
            tl.atomic_add(of_p + now, sum_p[:, None].to(tl.float64), k < K, "relaxed")
            tl.atomic_add(of_log_p + now, sum_log_p[:, None].to(tl.float64), k < K, "relaxed")
            c = tl.where(mine, -1, c)
    if tl.max(c, 0) >= 0:
        tl.atomic_add(of_p + c, one.to(tl.float64), inside & (c >= 0), "relaxed")
        tl.atomic_add(of_log_p + c, x.to(tl.float64), inside & (c >= 0), "relaxed")


@jit
def _low_sums(
    logits, sb, sk, ss, ids, labels, top, rest, M, HW, tiles,
    LOW: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    if tl.load(top + M) == 0:
        for at in range(tl.program_id(0), tiles, tl.num_programs(0)):
            b, k, s, _, inside, c = _tile(at, ids, HW, K, KP, BLOCK)
            x = tl.load(logits + b * sb + k * sk + s * ss, inside, other=float("-inf"))
            log = _log_label(tl.where(s < HW, x, 0), k, tl.load(labels + c, c >= 0, other=0))
            low = (c >= 0) & (log < LOW)
            share = tl.exp(tl.where(low, log - tl.load(top + c, low, 0), 0))
            tl.atomic_add(rest + c, share, low, "relaxed")


@jit
def _tables(
    sums, top, rest, size, labels, match_weight, deviation_weight, loss, by_p, by_log_p,
    low_log_sum, M, TINY: tl.constexpr, EPS: tl.constexpr, STOP: tl.constexpr,
    K: tl.constexpr, KP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    k, c = tl.arange(0, KP)[:, None].to(tl.int64), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK) - 1
    blob, column = (c >= 0) & (c < M), (k < K) & (c < M)  # a first column, for pixels in no blob
    n = tl.load(size + c, blob, 1).to(tl.float64)
    match, deviation = tl.load(match_weight + c, blob, 0), tl.load(deviation_weight + c, blob, 0)
    here = k == tl.load(labels + c, blob, 0)
    sum_p = tl.load(sums + k * M + c, column & blob, 0)
    mean_p, mean_log_p = sum_p / n, tl.load(sums + (k + K) * M + c, column & blob, 0) / n
    label_sum = tl.sum(tl.where(here, sum_p, 0), 0)
    low = blob & (label_sum < TINY / EPS)
    label_sum = tl.where(blob & ~low, label_sum, 1)
    low_log = tl.load(top + c, low, 0) + tl.log(tl.load(rest + c, low, 1))
    gap = tl.log(tl.where(mean_p > TINY, mean_p, TINY)) - mean_log_p
    gap = tl.where(mean_p > 0, gap, 0)  # 0 log 0 = 0, of classes whose logits are minus infinity
    apart = tl.sum(mean_p * gap, 0)
    apart = tl.where(apart > 0, apart, 0)  # rounding alone can take it below 0
    value = match * (tl.log(n) - tl.where(low, low_log, tl.log(label_sum))) + deviation * apart
    tl.atomic_add(loss, tl.sum(tl.where(blob, value, 0), 0), sem="relaxed")
    first = -tl.where(here & ~low, match / label_sum, 0)
    if not STOP:
        first += deviation * gap / n
    tl.store(by_p + k * (M + 1) + c + 1, tl.where(blob, first, 0), column)
    tl.store(by_log_p + k * (M + 1) + c + 1, tl.where(blob, -deviation / n * mean_p, 0), column)
    tl.store(low_log_sum + c, tl.where(low, low_log, float("inf")), blob)


@jit
def _gradient(
    grad, logits, sb, sk, ss, ids, labels, match_weight, p, by_p, by_log_p, low_log_sum, out, M, HW,
    K: tl.constexpr, KP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b, k, s, _, inside, c = _tile(tl.program_id(0), ids, HW, K, KP, BLOCK)
    at = b * K * HW + k * HW + s
    one = tl.load(p + at, inside, 0)
    g = tl.load(by_log_p + k * (M + 1) + c + 1, inside, 0)
    g += one * tl.load(by_p + k * (M + 1) + c + 1, inside, 0)
    log_sum = tl.load(low_log_sum + c, c >= 0, float("inf"))
    low = log_sum < float("inf")
    if tl.max(low.to(tl.int32), 0) > 0:
        label, weight = tl.load(labels + c, low, 0), tl.load(match_weight + c, low, 0)
        x = tl.load(logits + b * sb + k * sk + s * ss, inside & low, float("-inf"))
        share = weight * tl.exp(_log_label(tl.where(low, x, 0), k, label) - log_sum)
        g -= tl.where((k == label) & low, share.to(g.dtype), 0)
    tl.store(out + at, (g - one * tl.sum(g, 0)) * tl.load(grad), inside)


def _tiles(x: torch.Tensor) -> tuple[tuple, int, int, dict]:
    """Return logits and their steps (image, class, pixel), H·W, the number of tiles, and their shape."""
    if x.stride(2) != x.shape[3] * x.stride(3):
        x = x.clone(memory_format=torch.contiguous_format)
    pixels, rows = x.shape[2] * x.shape[3], triton.next_power_of_2(max(2, x.shape[1]))
    block = max(16, min(256, 2048 // rows))  # 16 numbers for each thread, or registers run out
    tile = {"K": x.shape[1], "KP": rows, "BLOCK": block, "num_warps": max(4, rows * block // 512)}
    return (x, x.stride(0), x.stride(1), x.stride(3)), pixels, len(x) * triton.cdiv(pixels, block), tile


def consensus(logits, ids, size, labels, match_weight, deviation_weight, stop_gradient):
    """Return what the operator ``consensus_lib::consensus`` returns."""
    x, pixels, tiles, tile = _tiles(logits)
    M, K, limits = len(labels), logits.shape[1], torch.finfo(logits.dtype)
    ids, size, labels = ids.contiguous(), size.contiguous(), labels.contiguous()
    zeros = torch.zeros((2 * K + 1) * M + 1, dtype=torch.float64, device=ids.device)
    sums, rest, loss = zeros[: 2 * K * M], zeros[2 * K * M : -1], zeros[-1]
    top = torch.full((M + 1,), -math.inf, dtype=torch.float64, device=ids.device)
    p = torch.empty_like(logits, memory_format=torch.contiguous_format)
    by_p, by_log_p = logits.new_empty(K, M + 1), logits.new_empty(K, M + 1)
    low_log_sum, low = torch.empty_like(match_weight), math.log(limits.tiny / limits.eps) + 1
    with torch.cuda.device_of(logits):
        if tiles:
            maps = ids, labels, p, sums, top, M, pixels, low
            _sums[tiles,](*x, *maps, **tile, sanitize_overflow=False)
            _low_sums[min(tiles, 1024),](*x, ids, labels, top, rest, M, pixels, tiles, low, **tile)
        tile = {**tile, "BLOCK": max(1, min(64, 512 // tile["KP"])), "num_warps": 4}
        _tables[triton.cdiv(M + 1, tile["BLOCK"]),](
            sums, top, rest, size, labels, match_weight, deviation_weight, loss, by_p, by_log_p,
            low_log_sum, M, limits.tiny, limits.eps, stop_gradient, **tile,
        )  # fmt: skip
    return loss.to(logits), p, by_p, by_log_p, low_log_sum


def gradient(grad, logits, ids, labels, match_weight, p, by_p, by_log_p, low_log_sum):
    """Return what the operator ``consensus_lib::consensus_gradient`` returns."""
    x, pixels, tiles, tile = _tiles(logits)
    maps = ids.contiguous(), labels.contiguous()
    out = torch.empty_like(p)
    with torch.cuda.device_of(logits):
        if tiles:
            tables = match_weight, p, by_p, by_log_p, low_log_sum, out, len(labels), pixels
            _gradient[tiles,](grad, *x, *maps, *tables, **tile)
    return out

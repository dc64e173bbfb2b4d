"""The consensus loss in four Triton kernels, for CUDA: each tensor of the logits' size crosses memory once.

``_sums`` holds the logits of a tile of pixels in registers, writes p, and adds p and log p to the sums of blobs.
A blob may be the whole image, and pixels that add to one number wait for each other: so a tile takes its blobs
one after another, sums each in registers, and adds once for each; what is left after ``ROUNDS`` blobs is added
pixel by pixel, to numbers that few pixels share. ``_low_sums`` returns at once, unless a blob may be too unlikely
for p to tell. ``_tables`` makes the loss and its derivatives of the sums, and ``_gradient`` looks them up.

Nothing waits for the GPU, so the loss can be captured in a CUDA graph, and ids and labels out of range fail an
assertion on the device, as labels do in cross-entropy. Tiles are summed in the logits' type, blobs in float64.
"""

import math

import torch
import triton
import triton.language as tl

ROUNDS = tl.constexpr(8)


@triton.jit
def _tile(at, ids, HW, K: tl.constexpr, KP: tl.constexpr, BLOCK: tl.constexpr):
    """Return a tile's image and classes, pixels in it and in the batch, what is inside [KP,BLOCK], and ids."""
    tiles = tl.cdiv(HW, BLOCK)
    b, k = (at // tiles).to(tl.int64), tl.arange(0, KP)[:, None].to(tl.int64)
    s = (at % tiles * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    return b, k, s, b * HW + s, (k < K) & (s < HW), tl.load(ids + b * HW + s, s < HW, other=-1)


@triton.jit
def _log_label(x, k, label):
    """Return log p of the label, float64 [BLOCK]: exact where it is far below 0, too."""
    top, there = tl.max(x, 0), tl.sum(tl.where(k == label, x, 0), 0)
    return there.to(tl.float64) - top.to(tl.float64) - tl.log(tl.sum(tl.exp(x - top), 0).to(tl.float64))


@triton.jit(debug=True)  # asserts
def _sums(logits, sb, sk, ss, ids, kept, labels, p, sums, top, M, HW, LOW: tl.constexpr, TRIM: tl.constexpr,
          K: tl.constexpr, KP: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    b, k, s, pixel, inside, c = _tile(tl.program_id(0), ids, HW, K, KP, BLOCK)
    tl.device_assert((c >= -1) & (c < M), "blobs.ids: expected -1..M-1")
    label = tl.load(labels + c, c >= 0, other=0)
    tl.device_assert((label >= 0) & (label < K), "labels: expected 0..K-1")
    x = tl.load(logits + b * sb + k * sk + s * ss, inside, other=float("-inf"))
    x = tl.where(s < HW, x, 0)
    x -= tl.max(x, 0)
    one = tl.exp(x)
    total = tl.sum(one, 0)
    one, x = one / total, tl.where(inside, x - tl.log(total), 0)  # p and log p
    tl.store(p + b * K * HW + k * HW + s, one, inside)
    keep = c >= 0
    if TRIM:
        keep &= tl.load(kept + pixel, s < HW, other=-1) >= 0
    low = keep & (tl.sum(tl.where(k == label, x, 0), 0) < LOW)
    if tl.max(low.to(tl.int32), 0) > 0:
        tl.atomic_max(top + c, _log_label(x, k, label), low, sem="relaxed")
        tl.store(top + M, 0.0)  # for _low_sums
    one = tl.where(inside & keep, one, 0)
    sums += k * M
    other = sums + M * K
    for _ in range(ROUNDS):
        now = tl.max(c, 0)
        if now >= 0:
            mine = c == now
            tl.atomic_add(sums + now, tl.sum(tl.where(mine, one, 0), 1)[:, None].to(tl.float64), k < K, "relaxed")
            tl.atomic_add(other + now, tl.sum(tl.where(mine, x, 0), 1)[:, None].to(tl.float64), k < K, "relaxed")
            c = tl.where(mine, -1, c)
    if tl.max(c, 0) >= 0:
        tl.atomic_add(sums + c, one.to(tl.float64), inside & (c >= 0) & keep, "relaxed")
        tl.atomic_add(other + c, x.to(tl.float64), inside & (c >= 0), "relaxed")


@triton.jit
def _low_sums(x, sb, sk, ss, kept, labels, top, rest, M, HW, tiles, LOW: tl.constexpr,
              K: tl.constexpr, KP: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    if tl.load(top + M) == 0:
        for at in range(tl.program_id(0), tiles, tl.num_programs(0)):
            b, k, s, _, inside, c = _tile(at, kept, HW, K, KP, BLOCK)
            one = tl.load(x + b * sb + k * sk + s * ss, inside, other=float("-inf"))
            one = tl.where(s < HW, one, 0)
            log = _log_label(one, k, tl.load(labels + c, c >= 0, other=0))
            low = (c >= 0) & (log < LOW)
            share = tl.exp(tl.where(low, log - tl.load(top + c, low, 0), 0))
            tl.atomic_add(rest + c, share, low, "relaxed")


@triton.jit
def _tables(sums, top, rest, size, kept_size, labels, match_weight, deviation_weight, loss, by_p, by_log_p, low_log_sum,
            M, TINY: tl.constexpr, EPS: tl.constexpr, STOP: tl.constexpr, K: tl.constexpr, KP: tl.constexpr,
            BLOCK: tl.constexpr):  # fmt: skip
    k, c = tl.arange(0, KP)[:, None].to(tl.int64), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK) - 1
    blob = (c >= 0) & (c < M)
    inside = (k < K) & blob
    n, kept_n = tl.load(size + c, blob, 1).to(tl.float64), tl.load(kept_size + c, blob, 1).to(tl.float64)
    match, deviation = tl.load(match_weight + c, blob, 0), tl.load(deviation_weight + c, blob, 0)
    here = k == tl.load(labels + c, blob, 0)
    sum_p, mean_log_p = tl.load(sums + k * M + c, inside, 0), tl.load(sums + (K + k) * M + c, inside, 0) / n
    label_sum = tl.sum(tl.where(here, sum_p, 0), 0)
    low = blob & (label_sum < TINY / EPS)
    log_sum = tl.log(tl.where(blob & ~low, label_sum, 1))
    log_sum = tl.where(low, tl.load(top + c, low, 0) + tl.log(tl.load(rest + c, low, 1)), log_sum)
    mean_p = sum_p / kept_n
    gap = tl.log(tl.where(mean_p > TINY, mean_p, TINY)) - mean_log_p
    total = tl.sum(mean_p * gap, 0)  # rounding alone can take it below 0
    total = match * (tl.log(kept_n) - log_sum) + deviation * tl.where(total > 0, total, 0)
    tl.atomic_add(loss, tl.sum(tl.where(blob, total, 0), 0), sem="relaxed")
    by_label = tl.where(blob & ~low, match / tl.where(low | (label_sum == 0), 1, label_sum), 0)
    first = -tl.where(here, by_label, 0)
    if not STOP:
        first += deviation * gap / kept_n
    column = k * (M + 1) + c + 1
    tl.store(by_p + column, tl.where(blob, first, 0), (k < K) & (c < M))
    tl.store(by_log_p + column, tl.where(blob, -deviation / n * mean_p, 0), (k < K) & (c < M))
    tl.store(low_log_sum + c, tl.where(low, log_sum, float("inf")), blob)


@triton.jit
def _gradient(grad, x, sb, sk, ss, ids, kept, labels, match_weight, p, by_p, by_log_p, low_log_sum, out, M, HW,
              TRIM: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    b, k, s, pixel, inside, c = _tile(tl.program_id(0), ids, HW, K, KP, BLOCK)
    at = b * K * HW + k * HW + s
    one = tl.load(p + at, inside, 0)
    by_log = tl.load(by_log_p + k * (M + 1) + c + 1, inside, 0)
    if TRIM:
        c = tl.load(kept + pixel, s < HW, -1)
    g = one * tl.load(by_p + k * (M + 1) + c + 1, inside, 0) + by_log
    log_sum = tl.load(low_log_sum + c, c >= 0, float("inf"))
    low = log_sum < float("inf")
    if tl.max(low.to(tl.int32), 0) > 0:
        label, weight = tl.load(labels + c, low, 0), tl.load(match_weight + c, low, 0)
        logits = tl.load(x + b * sb + k * sk + s * ss, inside & low, float("-inf"))
        log = _log_label(tl.where(low, logits, 0), k, label)
        g -= tl.where((k == label) & low, (weight * tl.exp(log - log_sum)).to(g.dtype), 0)
    g -= one * tl.sum(g, 0)
    tl.store(out + at, g * tl.load(grad), inside)


def _shape(x: torch.Tensor) -> tuple[torch.Tensor, int, int, dict]:
    """Return logits whose pixels lie at even steps, H·W, the number of tiles, and how a kernel cuts them."""
    x = x if x.stride(2) == x.shape[3] * x.stride(3) else x.contiguous()
    per_image, rows = x[0, 0].numel() if len(x) else 0, triton.next_power_of_2(max(2, x.shape[1]))
    block = max(16, min(256, 2048 // rows))  # 16 numbers for each thread, or registers run out
    cut = {"K": x.shape[1], "KP": rows, "BLOCK": block, "num_warps": max(4, rows * block // 512)}
    return x, per_image, len(x) * triton.cdiv(per_image, cut["BLOCK"]), cut


def consensus(logits, ids, size, kept, kept_size, labels, match_weight, deviation_weight, stop_gradient):
    """Return what the operator ``consensus_lib::consensus`` returns."""
    x, per_image, tiles, cut = _shape(logits)
    (_, classes, *_), blobs, limits = x.shape, len(labels), torch.finfo(x.dtype)
    wide = {"dtype": torch.float64, "device": x.device}
    zeros = torch.zeros((2 * classes + 1) * blobs + 1, **wide)
    sums, rest, loss = zeros[: 2 * classes * blobs], zeros[2 * classes * blobs : -1], zeros[-1]
    top = torch.full((blobs + 1,), -math.inf, **wide)
    p = torch.empty_like(x, memory_format=torch.contiguous_format)
    by_p, by_log_p = x.new_empty(classes, blobs + 1), x.new_empty(classes, blobs + 1)
    low_log_sum = torch.empty_like(match_weight)
    ids, kept, low = ids.contiguous(), kept.contiguous(), math.log(limits.tiny / limits.eps) + 1
    with torch.cuda.device_of(x):
        if tiles:
            strides, trim = (x.stride(0), x.stride(1), x.stride(3)), kept.data_ptr() != ids.data_ptr()
            _sums[tiles,](x, *strides, ids, kept, labels, p, sums, top, blobs, per_image, low, trim, **cut,
                          sanitize_overflow=False)  # fmt: skip
            _low_sums[min(tiles, 1024),](x, *strides, kept, labels, top, rest, blobs, per_image, tiles, low, **cut)
        cut = {**cut, "BLOCK": max(1, min(64, 1024 // cut["KP"])), "num_warps": 4}
        _tables[triton.cdiv(blobs + 1, cut["BLOCK"]),](
            sums, top, rest, size, kept_size, labels, match_weight, deviation_weight, loss, by_p, by_log_p,
            low_log_sum, blobs, limits.tiny, limits.eps, stop_gradient, **cut)  # fmt: skip
    return loss.to(x), p, by_p, by_log_p, low_log_sum


def gradient(grad, logits, ids, kept, labels, match_weight, p, by_p, by_log_p, low_log_sum):
    """Return what the operator ``consensus_lib::consensus_gradient`` returns."""
    x, per_image, tiles, cut = _shape(logits)
    out = torch.empty_like(p)
    ids, kept = ids.contiguous(), kept.contiguous()
    with torch.cuda.device_of(x):
        if tiles:
            _gradient[tiles,](
                grad, x, x.stride(0), x.stride(1), x.stride(3), ids, kept, labels, match_weight, p, by_p, by_log_p,
                low_log_sum, out, len(labels), per_image, kept.data_ptr() != ids.data_ptr(), **cut)  # fmt: skip
    return out

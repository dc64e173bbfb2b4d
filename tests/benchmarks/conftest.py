"""Timing for the benchmarks: two things in turn in one process, and the ratio with its spread."""

import statistics
import time

import pytest
import torch


def timed(action):
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


@pytest.fixture
def ratio(request):
    """Return a function that times ``a`` over ``b`` in pairs, prints and returns the median.

    ``timed`` says how long either took; ``a`` and ``b`` are what it takes.
    """

    def measure(a, b, rounds=9, warmup=2, timed=timed):
        for _ in range(warmup):
            a(), b()
        pairs = [(timed(a), timed(b)) for _ in range(rounds)]
        ratios = [x / y for x, y in pairs]
        median = statistics.median(ratios)
        print(
            f"\n{request.node.name}: {median:.3f} ({min(ratios):.3f} to {max(ratios):.3f}, {rounds} pairs; "
            f"medians {1e3 * statistics.median(p[0] for p in pairs):.1f} and "
            f"{1e3 * statistics.median(p[1] for p in pairs):.1f} ms, {torch.get_num_threads()} threads)"
        )
        return median

    return measure

"""Part 1: is it right? The CUDA tests on the device, and losses there against the CPU."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import torch

from consensus_lib import paths
from consensus_lib.losses import consensus_loss, pixelwise_loss
from consensus_lib.losses.blobs import label_blobs

from .estimates import CARDS
from .filing import Piece

PART = "1-right"
LOSSES = {
    "cross-entropy": (pixelwise_loss, None),
    "consensus, classes": (consensus_loss, "class"),
    "consensus, components": (consensus_loss, "component"),
}
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2**-8}
"""Relative to the largest, as the loss states it; bfloat16 rounds the gradient that is handed back."""


def tests(choice: str) -> dict:
    """Run the tests that need a device, in a process of their own, and return their counts."""
    files = ["tests/losses/test_triton.py", "tests/notebooks/test_gpu_programme.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-k", choice, "-p", "no:cacheprovider", *files]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # whatever a machine has, it may warn
    done = subprocess.run(command, env=alone, cwd=paths.root(), capture_output=True, text=True, timeout=300)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout)}
    said = [] if done.returncode == 0 else done.stdout.splitlines()[-30:]
    return {"right": done.returncode == 0, **counts, "said": said, "tests": choice}


def compare(device: torch.device, shape: tuple[int, int, int]) -> dict:
    """Return how far losses and their gradients on the device are from the CPU's, by type and loss."""
    images, classes, side = shape
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (images, side // 4, side // 4), generator=generator)
    labels = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    start = torch.randn(images, classes, side, side, generator=generator)
    found, right = {}, True
    for dtype, tolerance in TOLERANCE.items():
        for name, (loss, kind) in LOSSES.items():
            pair = []
            for where in (torch.device("cpu"), device):
                blobs = () if kind is None else (label_blobs(labels, kind).to(where),)
                logits = start.to(where, dtype).detach().requires_grad_()
                value = loss(logits, labels.to(where), *blobs)
                value.backward()
                pair.append((value.detach().double().cpu(), logits.grad.double().cpu()))
            off = [float((a - b).abs().max() / a.abs().max()) for a, b in zip(*pair, strict=True)]
            off = dict(zip(("value", "gradient"), off, strict=True))
            found[f"{name}, {str(dtype).removeprefix('torch.')}"] = off
            right &= off["value"] <= TOLERANCE[torch.float32] and off["gradient"] <= tolerance
    return {"right": right, "off": found, "shape": list(shape), "seed": 0}


def pieces(profile, device: torch.device) -> Iterator[Piece]:
    """Yield the pieces of part 1. Their time is a guess: most of it is compiling kernels."""
    guess = 12 * CARDS[profile.card].start
    yield Piece(
        f"{PART}/losses", "losses", (0.25 * guess, 1.0), lambda: compare(device, (4, 3, profile.size))
    )
    yield Piece(f"{PART}/tests", "tests", (guess, 1.0), lambda: tests(profile.tests))

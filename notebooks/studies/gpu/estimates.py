"""What each piece should take, from its operations and bytes: written down before anything is measured.

A step of the network is counted once, by running it: floating-point operations (an addition and a
multiplication are two) and the bytes that each operator reads and writes. Seconds are operations over a share
of the card's peak, plus bytes over a share of its bandwidth, as if nothing of the two overlapped. Memory is
what autograd keeps, weights with their gradients and moments, and the images on the device.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from consensus_lib.models.networks import FaceOccNet, count_parameters

TABLE = Path(__file__).with_suffix(".csv")
GIB = 2**30


class Card(NamedTuple):
    """A class of devices: peaks of dense products and of memory, and the shares of them that are assumed."""

    bfloat16: float  # FLOP/s
    float32: float  # FLOP/s; on CUDA that of TF32, which convolutions use
    bandwidth: float  # byte/s
    of_peak: float = 0.25
    of_bandwidth: float = 0.6
    start: float = 5.0  # seconds of a piece before its first step: kernels are chosen and compiled
    image: float = 0.01  # seconds of one CPU core for scoring the masks of an image


CARDS = {
    "h100": Card(989e12, 495e12, 3.35e12),  # data sheet of the H100 SXM
    "cpu": Card(1e11, 1e11, 1e10, start=1.0),  # for the smoke profile, roughly
}


class Work(NamedTuple):
    """What a training step of the network does for one image, in float32."""

    flops: float
    bytes: float
    saved_bytes: float
    parameters: int


class _Traffic(TorchDispatchMode):
    """Counts the bytes that operators read and write; a view moves none."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
            self.bytes += sum(x.nbytes for x in tensors)
        return out


@functools.cache
def work(classes: int, width: float, size: int) -> Work:
    """Count the operations and bytes of one image, on the CPU."""
    network = FaceOccNet(classes, width)
    image, labels = torch.zeros(1, 3, size, size), torch.zeros(1, size, size, dtype=torch.int64)
    saved = {}

    def keep(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    kept = saved_tensors_hooks(keep, lambda x: x)
    with FlopCounterMode(display=False) as flops, _Traffic() as traffic, kept:
        F.cross_entropy(network(image), labels).backward()
    count = count_parameters(network)
    return Work(flops.get_total_flops(), traffic.bytes, sum(saved.values()) - 4 * count, count)


def network(profile, card: Card, half: bool) -> tuple[float, float]:
    """Return (seconds, GiB) of a training step of a batch."""
    one, peak, part = work(3, profile.width, profile.size), card.float32, 1.0
    if half:
        peak, part = card.bfloat16, 0.5
    seconds = one.flops / (card.of_peak * peak) + one.bytes * part / (card.of_bandwidth * card.bandwidth)
    return profile.batch * seconds, (profile.batch * one.saved_bytes * part + 16 * one.parameters) / GIB


def training(profile, card: Card, images: int, epochs: int, scored: int) -> tuple[float, float]:
    """Return (seconds, GiB) of a training of so many images and epochs, and of its masks' scores."""
    step, memory = network(profile, card, half=profile.precision != "float32")
    # Three epochs at most lie there at a time: image, labels and blobs of each pixel.
    made = 3 * 28 * images * profile.size**2
    return card.start + step * images * epochs / profile.batch + card.image * scored, memory + made / GIB


def loss(profile, card: Card, shape: tuple[int, int, int]) -> tuple[float, float]:
    """Return (seconds, GiB) of the timings of one shape: two losses, forward and backward, two ways."""
    images, classes, side = shape
    tensor = 4 * images * classes * side**2
    steps = 2 * 4 * (profile.rounds + 5)
    return card.start + steps * 8 * tensor / (card.of_bandwidth * card.bandwidth), 8 * tensor / GIB

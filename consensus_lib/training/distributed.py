"""Several processes: which one this is, and what it needs from the others.

Without a process group there is one process, and nothing here costs it anything. With one (``torchrun``
starts the processes, :func:`start` joins them; whoever joins them otherwise and by NCCL must call
``torch.cuda.set_device`` first) all call the same functions in the same order. A process that fails ends,
and ``torchrun`` then stops the others.
"""

import datetime
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

TIMEOUT = datetime.timedelta(minutes=30)
"""How long a process waits for the others: longer than the first may take to draw or to decode a data set."""


def start(device: str = "auto") -> str:
    """Join the processes that ``torchrun`` has started, and return the device of this one.

    Those on GPUs talk by NCCL and take one GPU each; all others talk by gloo. Where ``torchrun`` started
    nothing, nothing is done.

    Args:
        device: ``"auto"``, ``"cuda"`` or ``"cpu"``; without ``torchrun`` whatever ``pick_device`` takes.

    Raises:
        ValueError: ``torchrun`` started this process, and the device is another one or
            has no GPU for it.
    """
    if "LOCAL_RANK" not in os.environ:
        return device
    if device not in ("auto", "cuda", "cpu"):
        raise ValueError(f"device: expected 'auto', 'cuda' or 'cpu' for several processes, got {device!r}")
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if cuda:
        place, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= there:
            raise ValueError(f"device: expected a GPU for each process, got {there} for process {place + 1}")
        device = f"cuda:{place}"
        torch.cuda.set_device(device)  # before NCCL asks which one it is
    dist.init_process_group("nccl" if cuda else "gloo", timeout=TIMEOUT)
    return device if cuda else "cpu"


def stop() -> None:
    """Leave the process group, if there is one. For a process that succeeded; one that failed just ends."""
    if _together():
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process, from 0; the first one writes files and shows bars."""
    return dist.get_rank() if _together() else 0


def world() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if _together() else 1


def share() -> tuple[int, int]:
    """Return (rank, world), what :func:`consensus_lib.data.loader` shares data by."""
    return rank(), world()


def from_first(value: Any) -> Any:
    """Return the first process's ``value``, in every process, and not before the first has come here."""
    if world() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def first_alone(make: Callable[[], Any]) -> Any:
    """Return what ``make`` returns, called in the first process and then, once it is done, in the others.

    For whatever leaves files that are made once and read by all.
    """
    value = make() if rank() == 0 else None
    from_first(None)
    return value if rank() == 0 else make()


def gathered(value: Any) -> list:
    """Return the values of all processes, by rank."""
    values = [value] * world()
    if world() > 1:
        dist.all_gather_object(values, value)
    return values


def summed(tensor: torch.Tensor) -> torch.Tensor:
    """Return the sum of ``tensor`` over all processes. It is changed in place."""
    if world() > 1:
        dist.all_reduce(tensor)
    return tensor


def parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """Return ``model`` so wrapped that its gradients are the mean over all processes.

    Every process then holds the first one's weights. On CUDA, batch normalisation is exchanged in place
    for ``SyncBatchNorm``, whose parameters are the same objects under the same names, so that an optimiser
    and a checkpoint of ``model`` stay what they were. Elsewhere torch has none, and every process
    normalises its own share of a batch.
    """
    if world() == 1:
        return model
    if device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    network = nn.parallel.DistributedDataParallel(
        model, device_ids=[device] if device.type == "cuda" else None
    )
    network.broadcast_buffers = False  # in each step; they are averaged after each epoch
    return network


def average_buffers(model: nn.Module) -> None:
    """Set each floating-point buffer to its mean over all processes.

    Running means are linear in the batches, so after an epoch this is what each process would have, had it
    seen all shares; running variances lack what the shares' means differ by. Where batch normalisation is
    synchronised, nothing changes.
    """
    if world() > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                summed(buffer).div_(world())


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()

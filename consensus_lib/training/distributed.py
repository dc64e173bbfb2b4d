"""Several processes: the rank of this one, and what they exchange.

``torchrun`` starts the processes, and :func:`init` joins them to a group. Then all call the same functions in
the same order. Without a group there is one process, and every function here is free.
"""

import datetime
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

TIMEOUT = datetime.timedelta(minutes=30)
"""How long a process waits for the others; the first may have to render or decode a data set."""


def init(device: str = "auto") -> str:
    """Join the processes that ``torchrun`` has started, and return the device of this one.

    Processes on GPUs take one each and communicate by NCCL, all others by gloo. Without ``torchrun`` this
    returns ``device``.

    Raises:
        ValueError: under ``torchrun``, ``device`` is not auto, cuda or cpu, or there are too few GPUs.
    """
    if "LOCAL_RANK" not in os.environ:
        return device
    if device not in ("auto", "cuda", "cpu"):
        raise ValueError(f"device: expected 'auto', 'cuda' or 'cpu' for several processes, got {device!r}")
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        dist.init_process_group("gloo", timeout=TIMEOUT)
        return "cpu"
    number, found = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= found:
        raise ValueError(f"device: expected a GPU for each process, got {found} for process {number + 1}")
    torch.cuda.set_device(number)  # before NCCL asks which one it is
    dist.init_process_group("nccl", timeout=TIMEOUT)
    return f"cuda:{number}"


def shutdown() -> None:
    """Leave the process group, if there is one."""
    if _initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process, from 0; process 0 writes files and shows bars."""
    return dist.get_rank() if _initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if _initialized() else 1


def broadcast_object(value: Any) -> Any:
    """Return process 0's ``value`` in every process, not before process 0 has called this."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def main_process_first(make: Callable[[], Any]) -> Any:
    """Call ``make`` in process 0, which may write files, and then in the others; return its value."""
    value = make() if rank() == 0 else None
    broadcast_object(None)
    return value if rank() == 0 else make()


def all_gather_object(value: Any) -> list:
    """Return the values of all processes, by rank."""
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Return the sum of ``tensor`` over all processes. It is changed in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def wrap_ddp(model: nn.Module, device: torch.device) -> nn.Module:
    """Return ``model``, with process 0's weights, wrapped so that gradients are means over all processes.

    On CUDA, batch normalisation is replaced in place by ``SyncBatchNorm``, which keeps the parameters and
    their names. Elsewhere torch has none, and every process normalises its own share of a batch.
    """
    if world_size() == 1:
        return model
    devices = None
    if device.type == "cuda":
        model, devices = nn.SyncBatchNorm.convert_sync_batchnorm(model), [device]
    network = nn.parallel.DistributedDataParallel(model, device_ids=devices)
    network.broadcast_buffers = False  # in each step; they are averaged after each epoch
    return network


def average_buffers(model: nn.Module) -> None:
    """Set each floating-point buffer to its mean over all processes.

    Running variances then lack the variance between the shares' means. Where batch normalisation is
    synchronised, nothing changes.
    """
    if world_size() > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                all_reduce_sum(buffer).div_(world_size())


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()

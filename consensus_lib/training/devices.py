"""Devices, precision and processes: where a network runs, and in which numbers its forward pass computes."""

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor

import torch


def pick_device(name: str = "auto") -> torch.device:
    """Return the device called ``name``; ``"auto"`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        ValueError: the name is unknown or the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # the device "meta" has no values
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device: expected 'auto' or a device of this machine, got {name!r} ({reason})"
        ) from None
    return device


def device_name(device: torch.device) -> str:
    """Return the device as a result file names it: the GPU's name, or the CPU and its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type


def pick_precision(name: str, device: torch.device) -> str:
    """Return ``"float32"`` or ``"bfloat16"``; ``"auto"`` takes bfloat16 where the device has it natively.

    On a CPU that means the AVX-512 BF16 instructions, without which torch emulates it several times slower;
    on CUDA compute capability 8.0 and later. Weights, optimiser and loss stay in float32 either way.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision: expected 'auto', 'float32' or 'bfloat16', got {name!r}")
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = device.type == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bfloat16" if native else "float32"


def one_thread_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of new processes with one thread each; they end with this one, even if it is killed."""
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin)


def _begin() -> None:
    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    torch.set_num_threads(1)
    threading.Thread(target=end_with_parent, daemon=True).start()

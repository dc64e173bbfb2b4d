"""Devices and precision: where a network runs, and in which numbers its forward pass computes."""

import torch
from torch import nn


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

    On a CPU that means the AVX-512 BF16 instructions, on CUDA compute capability 8.0 and later. Weights,
    optimiser and loss stay in float32 either way.

    Raises:
        ValueError: the name is unknown, or the device cannot compute in this precision.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision: expected 'auto', 'float32' or 'bfloat16', got {name!r}")
    if name != "auto":
        if not can_run(name, device):
            raise ValueError(f"precision: expected 'auto' or 'float32' on {device}, got {name!r}")
        return name
    if device.type == "cuda":
        gains = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        gains = device.type == "cpu" and native()
    return "bfloat16" if gains else "float32"


def can_run(precision: str, device: torch.device) -> bool:
    """Say whether a convolution and its gradient can be computed in this precision, natively or emulated.

    torch emulates bfloat16 on CPUs without instructions for it: right, but several times slower than float32.
    """
    if precision == "float32":
        return True
    image = torch.ones(1, 1, 3, 3, device=device, requires_grad=True)
    try:
        with torch.autocast(device.type, getattr(torch, precision)):
            nn.functional.conv2d(image, image).sum().backward()
    except RuntimeError:
        return False
    return True

"""The CUDA kernels against the CPU: through Triton's interpreter here, and on the GPU where there is one."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from consensus_lib import IGNORE, losses
from consensus_lib.losses import fused
from consensus_lib.losses.blobs import label_blobs

ROOT = Path(__file__).parents[2]
needs_triton = pytest.mark.skipif(
    not find_spec("triton"), reason="Triton is not installed: CUDA builds of torch bring it"
)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
quiet = pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")

CASES = {  # classes, shape, kind of blobs, scale of logits, layout, options
    "two classes": (2, (2, 9, 11), "class", 2, "contiguous", {}),
    "components": (3, (2, 32, 40), "component", 2, "contiguous", {}),
    "many classes": (150, (1, 7, 9), "class", 2, "contiguous", {"stop_gradient": True}),
    "nineteen classes": (19, (1, 24, 20), "component", 2, "contiguous", {}),
    "one blob": (3, (1, 40, 40), "image", 2, "contiguous", {}),
    "pixels": (3, (2, 16, 20), "pixel", 2, "contiguous", {}),
    "channels last": (19, (2, 12, 16), "component", 2, "channels_last", {"size_weight": 0.5}),
    "transposed": (3, (2, 12, 16), "class", 2, "transposed", {"reduction": "released"}),
    "cropped": (3, (2, 12, 16), "class", 2, "cropped", {}),
    "small means": (3, (2, 8, 9), "component", 60, "contiguous", {}),
    "tiny means": (3, (1, 20, 20), "image", 1e4, "contiguous", {}),
    "masked class": (4, (2, 12, 16), "component", 2, "masked", {}),  # NaN where labels are ignored
    "none labelled": (3, (1, 4, 4), "none", 2, "contiguous", {}),
    "no images": (3, (0, 4, 4), "class", 2, "contiguous", {}),
}
# Both round p in the logits' type; what the derivative by p makes of that grows with the logits.
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13}


def layouts(x, layout):
    if layout == "channels_last":
        return x.to(memory_format=torch.channels_last)
    if layout == "transposed":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    return torch.nn.functional.pad(x, (2, 3, 1, 0))[:, :, 1:, 2:-3] if layout == "cropped" else x


def values(name, dtype, device="cpu"):
    """The loss of a case and its gradient."""
    classes, shape, kind, scale, layout, options = CASES[name]
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, shape, generator=generator)
    logits = torch.randn(shape[0], classes, *shape[1:], generator=generator) * scale
    labels = torch.zeros_like(labels) if kind == "image" else labels
    labels[torch.rand(shape, generator=generator) < {"image": 0, "none": 1}.get(kind, 0.1)] = IGNORE
    if layout == "masked":
        labels = torch.where(labels == classes - 1, 0, labels)
        logits[:, -1] = -torch.inf
        logits.masked_fill_((labels == IGNORE)[:, None], torch.nan)
    blobs = label_blobs(labels, kind if kind not in ("image", "none") else "class")
    logits = layouts(logits.to(device, dtype), layout).detach().requires_grad_()
    loss = losses.consensus_loss(logits, labels.to(device), blobs.to(device), **options)
    loss.backward()
    return loss.detach().cpu(), logits.grad.cpu()


def deviation(name, dtype, expected, found):
    """How far value and gradient are off, relative to the largest, in units of the tolerance."""
    off = [
        (a.double() - b.double()).abs().max() / max(1e-30, a.double().abs().max())
        for a, b in zip(expected, found, strict=True)
        if a.numel()
    ]
    return max(float(one) for one in off) / (TOLERANCE[dtype] * max(1, CASES[name][3]))


def interpret():
    """Print the deviation of every case and type, with the kernels interpreted on the CPU."""
    from consensus_lib.losses import triton as kernels

    deviations = {}
    for name in CASES:
        for dtype in TOLERANCE:
            pair = []
            for module in (None, kernels):
                fused._kernels = lambda device_type, module=module: module
                pair.append(values(name, dtype))
            deviations[f"{name} {dtype}"] = deviation(name, dtype, *pair)
    print(json.dumps(deviations))


@pytest.fixture(scope="module")
def interpreted():
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_triton
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_interpreted_kernels_equal_the_cpu(name, dtype, interpreted):
    assert interpreted[f"{name} {dtype}"] <= 1


@needs_triton
@quiet
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("classes", [3, 19, 150])
def test_kernels_compile_without_spilling(classes, capability, tmp_path, monkeypatch):
    import triton
    from triton.backends.compiler import GPUTarget

    from consensus_lib.losses import triton as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tile = kernels._tiles(torch.empty(1, classes, 16, 16))[-1]
    constants = {"ss": 1, "LOW": -70.0, "TINY": 1e-38, "EPS": 1e-7, "STOP": False, **tile}
    wide = dict.fromkeys(
        ["top", "rest", "match_weight", "deviation_weight", "loss", "low_log_sum", "sums"], "*fp64"
    )
    types = {**dict.fromkeys(["ids", "labels", "size"], "*i64"), **wide}
    types |= dict.fromkeys(["sb", "sk", "M", "HW", "tiles"], "i32") | dict.fromkeys(constants, "constexpr")
    dump = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    for kernel in (kernels._sums, kernels._low_sums, kernels._tables, kernels._gradient):
        signature = {name: types.get(name, "*fp32") for name in kernel.arg_names}
        block = {"BLOCK": max(1, min(64, 512 // tile["KP"]))} if kernel is kernels._tables else {}
        known = {
            name: {**constants, **block}[name] for name, kind in signature.items() if kind == "constexpr"
        }
        divisible = [i for i, kind in enumerate(signature.values()) if kind.startswith("*")]
        source = triton.compiler.ASTSource(
            kernel, signature, known, {(i,): [["tt.divisibility", 16]] for i in divisible}
        )
        options = {"num_warps": 4 if block else tile["num_warps"], "debug": True, "sanitize_overflow": False}
        built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        assert built.asm["cubin"]
        if dump.is_file():
            (tmp_path / "cubin").write_bytes(built.asm["cubin"])
            usage = subprocess.run([dump, "-res-usage", tmp_path / "cubin"], capture_output=True, text=True)
            assert " STACK:0 " in usage.stdout, f"{kernel.__name__}: {usage.stdout}"


@needs_cuda
@quiet
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kernels", [True, False])
def test_cuda_equals_the_cpu(name, dtype, kernels, monkeypatch):
    if not kernels:
        monkeypatch.setattr(fused, "_kernels", lambda device_type: None)
    assert deviation(name, dtype, values(name, dtype), values(name, dtype, "cuda")) <= 1


@needs_cuda
@needs_triton
@quiet
def test_cuda_gradients_are_those_of_finite_differences():
    labels = torch.randint(0, 3, (2, 3, 3), device="cuda")
    logits = torch.randn(2, 3, 3, 3, device="cuda", dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: losses.consensus_loss(x, labels), logits, nondet_tol=1e-12)


@needs_cuda
@needs_triton
@quiet
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # torch calls it a prototype
def test_the_loss_waits_for_no_gpu():
    labels = torch.randint(0, 3, (2, 16, 16), device="cuda")
    blobs = label_blobs(labels, "component")
    logits = torch.randn(2, 3, 16, 16, device="cuda", requires_grad=True)
    losses.consensus_loss(logits, labels, blobs).backward()  # compiled before
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses.consensus_loss(logits, labels, blobs).backward()
    finally:
        torch.cuda.set_sync_debug_mode(before)


if __name__ == "__main__":
    interpret()

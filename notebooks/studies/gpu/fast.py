"""Part 2: is it fast? Losses, network and step, beside the ceilings that are measured on the same device.

Times are medians over rounds, of device events where there are such, after a warm-up; what is compared is
timed in turn. A captured graph leaves the GPU's own time, without that of launching.
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F

from consensus_lib.losses import consensus_loss
from consensus_lib.losses.blobs import label_blobs
from consensus_lib.models.networks import FaceOccNet

from . import data, estimates
from .filing import Piece
from .recipes import STEP
from .trainings import TABLE3, Learner, Trainings

PART = "2-fast"
NOISE = {"real": 0.0, "noisy": 0.1}
"""Maps → the share of pixels with a random class: the noisy ones have thousands of blobs."""


def medians(
    runs: list[Callable[[], object]], device: torch.device, rounds: int, warmup: int = 3
) -> list[float]:
    """Return the median milliseconds of each of ``runs``, timed in turn."""
    for _ in range(warmup):
        for run in runs:
            run()
    if device.type != "cuda":
        taken = [[_wall(run) for run in runs] for _ in range(rounds)]
        return [statistics.median(times) for times in zip(*taken, strict=True)]
    marks = []
    for _ in range(rounds):
        for run in runs:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            marks.append((begin, end))
    torch.cuda.synchronize()
    times = [begin.elapsed_time(end) for begin, end in marks]
    return [statistics.median(times[i :: len(runs)]) for i in range(len(runs))]


def _wall(run) -> float:
    begin = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - begin)


def captured(run: Callable[[], object]) -> Callable[[], None]:
    """Return a replay of ``run`` as a CUDA graph; it is warmed up on a side stream, as capturing asks for."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def ceiling(profile, device: torch.device) -> dict:
    """Measure what the device can do at most: a large matrix product in each type, and a large copy."""
    side, found = profile.matrix, {}
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")  # TF32, as convolutions take it by default
        (ms,) = medians([lambda a=a, b=b: a @ b], device, profile.rounds)
        torch.set_float32_matmul_precision(before)
        found[f"{name}_flops"] = 2 * side**3 / (ms / 1e3)
    x = torch.randn(profile.copied // 4, device=device)
    y = torch.empty_like(x)
    (ms,) = medians([lambda: y.copy_(x)], device, profile.rounds)
    return found | {"bytes_per_second": 2 * x.nbytes / (ms / 1e3), "matrix": side, "copied": x.nbytes}


def maps(arrays: data.Arrays, shape: tuple[int, int, int], noise: float) -> torch.Tensor:
    """Return label maps of faces int64 ``[B,S,S]``: enlarged, in stripes where there are more classes."""
    count, classes, side = shape
    labels = torch.from_numpy(np.resize(arrays.labels, (count, *arrays.labels.shape[1:]))).long()
    factor = side // labels.shape[1]
    labels = labels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    if classes > 3:
        labels = (labels + 3 * (torch.arange(side) // 32)[:, None]) % classes
    generator = torch.Generator().manual_seed(0)
    wrong = torch.randint(0, classes, labels.shape, generator=generator)
    return torch.where(torch.rand(labels.shape, generator=generator) < noise, wrong, labels)


def loss(
    profile, device: torch.device, arrays: data.Arrays, shape: tuple[int, int, int], noise: float
) -> dict:
    """Time the consensus loss on components over cross-entropy, alone and with its gradient."""
    labels = maps(arrays, shape, noise)
    blobs, labels = label_blobs(labels, "component").to(device), labels.to(device)
    found = {"shape": list(shape), "noise": noise, "blobs": len(blobs.size), "seed": 0}
    losses = {
        "consensus": lambda x: consensus_loss(x, labels, blobs),
        "cross_entropy": lambda x: F.cross_entropy(x, labels),
    }

    x = torch.randn(*shape[:2], *labels.shape[1:], device=device, requires_grad=True)
    forward = [functools.partial(one, x) for one in losses.values()]
    step = [lambda run=run: torch.autograd.grad(run(), x) for run in forward]
    for what, timed in (("forward", forward), ("step", step)):
        for way in ("launched", "captured") if device.type == "cuda" else ("launched",):
            runs = [captured(run) for run in timed] if way == "captured" else timed
            ms = medians(runs, device, profile.rounds)
            found |= {f"{what}_{way}_{name}_ms": t for name, t in zip(losses, ms, strict=True)}
            found[f"{what}_{way}_ratio"] = ms[0] / ms[1]
    return found


def network(profile, device: torch.device, roof: dict, half: bool, last: bool, compiled: bool) -> dict:
    """Time training and inference of the network; give its share of the measured ceilings.

    Float32 means TF32 in CUDA's convolutions, which is torch's default and said in the row.
    """
    torch.manual_seed(0)
    layout = torch.channels_last if last else torch.contiguous_format
    model = FaceOccNet(3, profile.width).to(device, memory_format=layout)
    run = torch.compile(model) if compiled else model
    images = torch.randn(profile.batch, 3, profile.size, profile.size, device=device).to(memory_format=layout)
    labels = torch.randint(0, 3, (profile.batch, profile.size, profile.size), device=device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=device.type == "cuda")

    def forward():
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            return run(images)

    def step():
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(forward().float(), labels).backward()
        optimizer.step()

    rounds = max(3, profile.rounds // 2)
    (train_ms,) = medians([step], device, rounds)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    model.eval()
    optimizer.zero_grad(set_to_none=True)
    with torch.inference_mode():
        (infer_ms,) = medians([forward], device, rounds)
    one = estimates.work(3, profile.width, profile.size)
    part, name = (0.5, "bfloat16") if half else (1.0, "float32")
    speed = {way: 1e3 * profile.batch / ms for way, ms in (("training", train_ms), ("inference", infer_ms))}
    return {
        **{f"{way}_images_per_second": v for way, v in speed.items()},
        "share_of_product": speed["training"] * one.flops / roof[f"{name}_flops"],
        "share_of_copy": speed["training"] * one.bytes * part / roof["bytes_per_second"],
        "training_peak_gib": peak,
        "precision": name, "channels_last": last, "compiled": compiled, "batch": profile.batch,
        "tf32": device.type == "cuda" and torch.backends.cudnn.allow_tf32, "seed": 0,
    }  # fmt: skip


def step(profile, device: torch.device, resident: data.Resident) -> dict:
    """Measure the shares of the loss and of the input in a step, as parts 3 and 4 train.

    An epoch is made while the one before trains: the input's share is what an epoch takes longer than with
    batches that are there already. The row also has what making one takes alone.
    """
    learner = Learner(STEP, profile, device, 3, 1e-4)
    given = 0, profile.batch, STEP.augment, learner.blob_options
    fixed = resident.epoch(0, 0, *given[1:])

    def epoch(batches):
        total = sum(learner.step(batch) for batch in batches)
        return float(total)  # waits for the device

    epoch(fixed)
    alone = statistics.median(_wall(lambda: epoch(fixed)) for _ in range(4))
    making = statistics.median(
        _wall(lambda: float(resident.epoch(0, 1, *given[1:])[-1].labels[0, 0, 0])) for _ in range(4)
    )
    ends = []
    for batches in resident.epochs(5, *given):
        epoch(batches)
        ends.append(1e3 * time.perf_counter())
    whole = statistics.median(np.diff(ends))
    first, x = fixed[0], torch.randn(*fixed[0].images.shape, device=device, requires_grad=True)
    loss = lambda: torch.autograd.grad(learner.loss(x, first.labels, first.blobs), x)  # noqa: E731
    (loss_ms,) = medians([loss], device, profile.rounds)
    return {
        "recipe": STEP.name, "steps": len(fixed), "step_ms": whole / len(fixed), "loss_ms": loss_ms,
        "loss_share": loss_ms * len(fixed) / whole, "input_share": 1 - alone / whole,
        "making_alone_share": making / whole, "seed": 0,
    }  # fmt: skip


def pieces(profile, device: torch.device, trainings: Trainings) -> Iterator[Piece]:
    """Yield the pieces of part 2."""
    card, filing = trainings.card, trainings.filing

    def with_faces(measure, faces, *options):
        return measure(profile, device, faces(), *options) | {"data": trainings.source(TABLE3)}

    product = 2 * profile.matrix**3 * profile.rounds * (1 / card.bfloat16 + 1 / card.float32) / card.of_peak
    roof = f"{PART}/ceiling"
    memory = (20 * profile.matrix**2 + 2 * profile.copied) / 2**30
    yield Piece(roof, "ceiling", (card.start + product, memory), lambda: ceiling(profile, device))

    for shape in profile.shapes:
        for name, noise in NOISE.items():
            id = f"{PART}/loss/{'×'.join(map(str, shape))}/{name}"
            run = functools.partial(with_faces, loss, lambda: trainings.arrays(TABLE3)["train"], shape, noise)
            yield Piece(id, f"loss {shape}", estimates.loss(profile, card, shape), run)
    ways = [(False, False, False), (False, True, False), (True, False, False), (True, True, False)]
    for half, last, compiled in ways + ([(True, True, True)] if profile.compiled else []):
        name = " ".join(
            ["bfloat16" if half else "float32", *["channels-last"] * last, *["compiled"] * compiled]
        )
        seconds, memory = estimates.network(profile, card, half)
        seconds = card.start + seconds * (profile.rounds + 6) + 60 * compiled
        run = lambda way=(half, last, compiled): network(profile, device, filing.rows[roof], *way)  # noqa: E731
        yield Piece(f"{PART}/network/{name}", f"network {name}", (seconds, memory), run, needs=(roof,))
    seconds, memory = estimates.training(profile, card, 1300, 12, 0)
    run = functools.partial(with_faces, step, lambda: trainings.resident(TABLE3, "train"))
    yield Piece(f"{PART}/step", "step", (seconds, memory), run)

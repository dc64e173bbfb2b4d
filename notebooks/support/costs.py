"""Costs of losses and post-processing, in training and at test time."""

import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import synthetic_faces as synthetic
from consensus_lib.data import TASKS
from consensus_lib.data.dataset import as_images
from consensus_lib.losses import BASELINES, PRESETS, PixelwiseLoss, label_blobs
from consensus_lib.models import POSTPROCESSING, FaceOccNet


def measure_costs(
    names: Sequence[str] | None = None,
    *,
    size: int = 64,
    batch_size: int = 16,
    width: float = 0.25,
    rounds: int = 5,
    device: str = "cpu",
) -> list[dict]:
    """Measure what losses cost in training, and post-processing at test time.

    All are timed in turn, round after round, and the least time of each counts, because other processes only
    add. Faces are synthetic, and one predicted pixel in a hundred is wrong, because the time of some methods
    depends on the masks.

    Args:
        names: which of ``PRESETS``, ``BASELINES`` and ``POSTPROCESSING``; None takes all.
        size: side of the images in pixels.
        batch_size: images.
        width: of the network, :class:`~consensus_lib.models.networks.FaceOccNet`.
        rounds: so many times of each.
        device: where.

    Returns:
        A dictionary each: ``name``, ``title``, ``source``, ``acts`` (``"training"`` or ``"inference"``);
        ``loss``, forward and backward over cross-entropy's, None for post-processing; ``training``, a step
        with it over one with cross-entropy, without the optimiser; ``inference``, images to masks over the
        bare network's. 1 costs nothing. Blobs are cut beforehand, as a data set does.

    Raises:
        ValueError: there is no method of that name.
    """
    methods = PRESETS | BASELINES | POSTPROCESSING
    for name in names or ():
        if name not in methods:
            raise ValueError(f"names: expected some of {list(methods)}, got {name!r}")
    image, labels, logits = (part.to(device) for part in _faces(size, batch_size))
    network = FaceOccNet(logits.shape[1], width).to(device)
    predicting = _Predicting(network, logits)
    chosen = methods if names is None else {name: methods[name] for name in names}

    def backward(loss):
        more = {"blobs": label_blobs(labels, **loss.blob_options)} if hasattr(loss, "blob_options") else {}

        def run():
            leaf = logits.detach().requires_grad_()
            loss(leaf, labels, **more).backward()

        return run

    def step():
        network(image).square().mean().backward()

    def masks(model):
        @torch.inference_mode()
        def run():
            model(image).argmax(1)

        return run

    losses = {"": backward(PixelwiseLoss())}
    models = {"": masks(predicting)}
    for name, method in chosen.items():
        if name in POSTPROCESSING:
            models[name] = masks(method.make(predicting))
        else:
            losses[name] = backward(method.make())
    *of_loss, of_step = _least_seconds([*losses.values(), step], rounds, device)
    of_loss = dict(zip(losses, of_loss, strict=True))
    predicting.eval()
    of_masks = dict(zip(models, _least_seconds(models.values(), rounds, device), strict=True))

    rows = []
    for name, method in chosen.items():
        cost = {"acts": "training", "loss": None, "training": 1.0, "inference": 1.0}
        if name in POSTPROCESSING:
            cost |= {"acts": "inference", "inference": of_masks[name] / of_masks[""]}
        else:
            cost["loss"] = of_loss[name] / of_loss[""]
            cost["training"] = (of_step + of_loss[name]) / (of_step + of_loss[""])
        rows.append({"name": name, "title": method.title, "source": method.source} | cost)
    return rows


class _Predicting(nn.Module):
    """A stub that runs the network for its time, and returns fixed logits."""

    def __init__(self, network: nn.Module, logits: torch.Tensor):
        super().__init__()
        self.network, self.logits = network, logits

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.network(image)
        return self.logits


def _faces(size: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return synthetic faces, their labels and logits of a prediction with one pixel in a hundred wrong."""
    samples = [synthetic.draw_face(0, i, size) for i in range(count)]
    table = torch.from_numpy(TASKS["parts"].table(synthetic.CLASSES)).long()
    image = as_images(np.stack([one.image for one in samples]))
    labels = table[torch.from_numpy(np.stack([one.labels for one in samples])).long()]  # [B, H, W]
    generator = torch.Generator().manual_seed(0)
    classes = len(TASKS["parts"].classes)
    wrong = torch.rand(labels.shape, generator=generator) < 0.01
    predicted = torch.where(wrong, (labels + 1) % classes, labels)
    logits = 4 * F.one_hot(predicted, classes).movedim(-1, 1).float()
    return image, labels, (logits + torch.randn(logits.shape, generator=generator)).contiguous()


def _least_seconds(actions: Iterable[Callable[[], None]], rounds: int, device: str) -> list[float]:
    """Return the least time of each action: it runs twice a round, or for a tenth of a second, if longer."""

    def seconds(action):
        begin = time.perf_counter()
        action()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    actions = list(actions)
    times = [[] for _ in actions]
    for _ in range(rounds):
        for action, taken in zip(actions, times, strict=True):
            some = [seconds(action), seconds(action)]
            while sum(some) < 0.1:
                some.append(seconds(action))
            taken += some
    return [min(taken) for taken in times]

"""What the loss is compared with: one table of rivals, what each costs, and the floor.

The losses among them are in :mod:`consensus_lib.losses.baselines`, what comes after the network in
:mod:`consensus_lib.models.postprocess`.
"""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import synthetic_faces as synthetic
from consensus_lib.data import TASKS, FaceDataset
from consensus_lib.data.dataset import as_images
from consensus_lib.experiments.presets import PRESETS
from consensus_lib.losses import PixelwiseLoss
from consensus_lib.losses.baselines import (
    AffinityLoss,
    ComponentDiceLoss,
    DiceLoss,
    FocalLoss,
    LovaszSoftmaxLoss,
    RegionMutualInformationLoss,
    TotalVariationLoss,
)
from consensus_lib.losses.blobs import label_blobs
from consensus_lib.models.networks import FaceOccNet
from consensus_lib.models.postprocess import (
    FlipAveraged,
    Relabelled,
    WithCRF,
    fill_holes,
    open_classes,
    remove_small_components,
)


class MostFrequentLabel(nn.Module):
    """Predict each pixel's most frequent label in ``data``, whatever the image.

    On aligned faces it is the floor that any network must beat, and belongs beside every score.

    Args:
        data: the training samples; images to predict must have their size.

    >>> floor = evaluate(MostFrequentLabel(train), test)      # doctest: +SKIP
    """

    def __init__(self, data: FaceDataset):
        super().__init__()
        labels = torch.from_numpy(data.most_frequent_labels()).long()
        self.register_buffer("labels", labels)
        self.num_classes = len(data.task.classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return one-hot logits float ``[B,K,H,W]`` for images ``[B,3,H,W]``."""
        if image.shape[-2:] != self.labels.shape:
            raise ValueError(
                f"image: expected [B,3,{','.join(map(str, self.labels.shape))}], got {list(image.shape)}"
            )
        one_hot = F.one_hot(self.labels, self.num_classes).permute(2, 0, 1)  # [K, H, W]
        return one_hot.to(image.dtype).expand(len(image), -1, -1, -1)


class Rival(NamedTuple):
    """A way to better masks.

    Attributes:
        title: its name in a table.
        source: where it comes from.
        acts: ``"training"``, as a loss, or ``"inference"``, after the network.
        make: returns the loss module; or, for inference, the module around a network, its first argument.
            Further keyword arguments are its options.
        differs: in what it is not the method of its source, as far as that could change a result.
    """

    title: str
    source: str
    acts: str
    make: Callable[..., nn.Module]
    differs: str = ""


RIVALS = {
    "focal": Rival(
        "focal loss",
        "Lin et al., ICCV 2017",
        "training",
        FocalLoss,
        "softmax over classes instead of a sigmoid each; classes weigh alike, α = 1",
    ),
    "dice": Rival(
        "Dice",
        "Milletari et al., 3DV 2016; Sudre et al., DLMIA 2017",
        "training",
        DiceLoss,
        "classes weigh alike, whatever their size",
    ),
    "lovasz": Rival(
        "Lovász-Softmax",
        "Berman et al., CVPR 2018",
        "training",
        LovaszSoftmaxLoss,
        "per image, where the released code's default is the batch as one image; from the first step on and "
        "alone, where its authors train with cross-entropy before or beside it",
    ),
    "total_variation": Rival(
        "total variation",
        "Rudin et al., Physica D 1992",
        "training",
        TotalVariationLoss,
        "of probabilities instead of an image, and anisotropic; its weight of 1 has no source",
    ),
    "affinity": Rival(
        "affinity of pairs",
        "Ke et al., ECCV 2018",
        "training",
        AffinityLoss,
        "neighbours at 1 pixel of the image instead of sizes learned on maps an eighth as large; a constant "
        "weight of 0.1 instead of one from 1 to 0.1",
    ),
    "mutual_information": Rival(
        "region mutual information",
        "Zhao et al., NeurIPS 2019",
        "training",
        RegionMutualInformationLoss,
        "softmax and cross-entropy instead of a sigmoid and binary cross-entropy for each class",
    ),
    "component_dice": Rival(
        "Dice of components",
        "Kofler et al., IPMI 2023",
        "training",
        ComponentDiceLoss,
        "several classes, averaged; the Dice of classes has the background among them",
    ),
    "components": Rival(
        "small components removed",
        "common practice",
        "inference",
        functools.partial(Relabelled, function=remove_small_components),
    ),
    "holes": Rival(
        "holes filled", "common practice", "inference", functools.partial(Relabelled, function=fill_holes)
    ),
    "opening": Rival(
        "opening of each class",
        "Serra, 1982",
        "inference",
        functools.partial(Relabelled, function=open_classes),
    ),
    "crf": Rival("local CRF", "Krähenbühl and Koltun, NeurIPS 2011", "inference", WithCRF),
    "flip": Rival("average over flips", "Krizhevsky et al., NeurIPS 2012", "inference", FlipAveraged),
}
"""All rivals by name. :func:`measure_costs` says what each costs."""


def options_at(size: int) -> dict[str, dict[str, int]]:
    """Return the options of those rivals whose sizes are in pixels, for images of ``size`` × ``size``.

    Areas of 16 pixels in an image of 128×128, and as large a share of any other.
    """
    area = max(2, round((size / 32) ** 2))
    return {"components": {"min_size": area}, "holes": {"max_size": area}}


def measure_costs(
    names: Sequence[str] | None = None,
    *,
    size: int = 64,
    batch_size: int = 16,
    width: float = 0.25,
    rounds: int = 5,
    device: str = "cpu",
) -> list[dict]:
    """Measure what consensus and the rivals cost in training and at test time.

    All are timed in turn, round after round, and the least time of each counts: what else a machine does
    only adds. Faces are drawn, and one predicted pixel in a hundred is wrong, because the time of some rivals
    depends on the masks.

    Args:
        names: which of :data:`RIVALS`; None takes all, after the presets of consensus.
        size: side of the images in pixels.
        batch_size: images.
        width: of the network, :class:`~consensus_lib.models.networks.FaceOccNet`.
        rounds: so many times of each.
        device: where.

    Returns:
        A dictionary each: ``name``, ``title``, ``source``, ``acts``; ``loss``, forward and backward over
        cross-entropy's, None for what is no loss; ``training``, a step with it over one with cross-entropy,
        without the optimiser; ``inference``, images to masks over the bare network's. 1 costs nothing.
        Blobs are cut beforehand, as a data set does.

    Raises:
        ValueError: there is no rival of that name.
    """
    for name in names or ():
        if name not in RIVALS:
            raise ValueError(f"names: expected some of {list(RIVALS)}, got {name!r}")
    image, labels, logits = (part.to(device) for part in _faces(size, batch_size))
    network = FaceOccNet(logits.shape[1], width).to(device)
    predicting = _Predicting(network, logits)
    consensus = {
        name: Rival(preset.title, "Masi et al., CVPR 2020", "training", preset.loss)
        for name, preset in PRESETS.items()
    }
    chosen = consensus | RIVALS if names is None else {name: RIVALS[name] for name in names}

    def backward(loss):
        more = {"blobs": label_blobs(labels, **loss.cut)} if hasattr(loss, "cut") else {}

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
    for name, rival in chosen.items():
        if rival.acts == "training":
            losses[name] = backward(rival.make())
        else:
            models[name] = masks(rival.make(predicting))
    *of_loss, of_step = _least_seconds([*losses.values(), step], rounds, device)
    of_loss = dict(zip(losses, of_loss, strict=True))
    predicting.eval()
    of_masks = dict(zip(models, _least_seconds(models.values(), rounds, device), strict=True))

    rows = []
    for name, rival in chosen.items():
        cost = {"loss": None, "training": 1.0, "inference": 1.0}
        if rival.acts == "training":
            cost["loss"] = of_loss[name] / of_loss[""]
            cost["training"] = (of_step + of_loss[name]) / (of_step + of_loss[""])
        else:
            cost["inference"] = of_masks[name] / of_masks[""]
        rows.append({"name": name, "title": rival.title, "source": rival.source, "acts": rival.acts} | cost)
    return rows


class _Predicting(nn.Module):
    """A network that takes its time, and then predicts what it is told."""

    def __init__(self, network: nn.Module, logits: torch.Tensor):
        super().__init__()
        self.network, self.logits = network, logits

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.network(image)
        return self.logits


def _faces(size: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return drawn faces, their labels and logits of a prediction with one pixel in a hundred wrong."""
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

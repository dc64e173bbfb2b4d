"""Trained weights in one file: half-precision tensors and all that a parser must know of them."""

import json
import os
from collections.abc import Sequence

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from consensus_lib.models.networks import NETWORKS
from consensus_lib.paths import atomic

PRETRAINED = ("parts", "parts-pixelwise", "occlusion")
"""The networks that come with the package. ``parts-pixelwise`` is the baseline of ``parts``:
cross-entropy, and all else alike."""


class WeightsError(ValueError):
    """A file of weights is missing, broken, or of another kind of network."""


class JointClasses(nn.Module):
    """A network whose classes are finer than those it is asked for.

    A network that learns occlusion tells *background*, *background over the face* (hair, say), *face*,
    *occlusion of the face* and *occlusion elsewhere* apart. Sums of these are the visible classes, other sums
    the complete face, hidden parts included; so the two never contradict each other.

    Args:
        network: images ``[B,3,H,W]`` → logits ``[B,J,H,W]``.
        groups: for each of the K classes, its joint classes.
        complete: the joint classes that lie within the complete face; empty if the network does not tell.
    """

    def __init__(self, network: nn.Module, groups: Sequence[Sequence[int]], complete: Sequence[int] = ()):
        super().__init__()
        self.network, self.groups, self.inside = network, [*map(list, groups)], list(complete)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities of the K classes, float ``[B,K,H,W]``: logits like any network's."""
        return self._sums(self.network(image).log_softmax(1), self.groups)

    def with_complete(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return those and the probability of the complete face, float ``[B,H,W]``, of one forward pass."""
        seen = self.network(image).log_softmax(1)
        return self._sums(seen, self.groups), self._sums(seen, [self.inside])[:, 0].exp()

    @staticmethod
    def _sums(log_p: torch.Tensor, groups: list[list[int]]) -> torch.Tensor:
        return torch.stack([log_p[:, group].logsumexp(1) for group in groups], 1)


def save_weights(file: str | os.PathLike, network: nn.Module, size: int, classes, colours) -> None:
    """Write a network's weights in half precision, with all that :class:`FaceParser` must know.

    Args:
        file: ``NAME.safetensors``, replaced when whole.
        network: one of :data:`~consensus_lib.models.networks.NETWORKS`, or that in :class:`JointClasses`.
        size, classes, colours: as for :class:`FaceParser`.
    """
    joint = network if isinstance(network, JointClasses) else None
    inner = joint.network if joint else network
    about = {
        "network": type(inner).__name__,
        "joint_classes": inner.num_classes,
        "width": inner.width,
        "size": size,
        "classes": list(classes),
        "colours": [list(colour) for colour in colours],
        "groups": joint and joint.groups,
        "complete": joint and joint.inside,
    }
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in inner.cpu().state_dict().items()
    }
    with atomic(file) as part:
        part.write_bytes(save(tensors, {"face_parser": json.dumps(about)}))


def load_weights(file: str | os.PathLike) -> tuple[nn.Module, dict]:
    """Return the network of a file that :func:`save_weights` wrote, and what it says of it.

    Raises:
        WeightsError: there is no such file, it is broken, or it holds something else.
    """
    try:
        with safe_open(file, "pt") as stream:
            about = json.loads(stream.metadata()["face_parser"])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        network = NETWORKS[about["network"]](about["joint_classes"], about["width"])
        network.load_state_dict(
            {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
        )
        if about["groups"]:
            network = JointClasses(network, about["groups"], about["complete"])
        return network, about
    except (OSError, SafetensorError, RuntimeError, TypeError, KeyError, ValueError) as error:
        wanted = f"expected one of {', '.join(PRETRAINED)}, a file of weights or the folder of a training"
        raise WeightsError(f"{file}: {wanted}, got: {' '.join(str(error).split())[:200]}") from None

"""How steady a network is when its images move a little: notebook 05."""

import numpy as np
import torch

from consensus_lib.data import FaceDataset, loader
from consensus_lib.metrics.stability import flicker
from consensus_lib.training.trainer import eval_mode


@torch.inference_mode()
def measure_flicker(
    model: torch.nn.Module, data: FaceDataset, *, batch_size: int = 64, **moves
) -> dict[str, np.ndarray]:
    """Return how much of what ``model`` predicts changes when the images of ``data`` move a little.

    Args:
        moves: ``shifts``, ``angles`` and ``border`` of :func:`consensus_lib.metrics.stability.flicker`.

    Returns:
        One value for each image, in the order of ``data``; see there.
    """
    with eval_mode(model) as see:
        parts = [flicker(see, batch["image"], **moves) for batch in loader(data, batch_size)]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

"""Augmentation: random views of an image and of its label map, moved together.

What happens to a sample depends on (seed, epoch, index) alone: not on the batch that it lies in, nor on
the worker that makes it, so a run is repeated exactly with any number of workers. Geometry is one affine
map per sample, applied once to the whole batch; labels are never interpolated.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from consensus_lib import IGNORE


@dataclasses.dataclass(frozen=True)
class Augment:
    """How far samples are varied. Each value of 0 (or 1 for ``scale`` and ``crop``) switches a part off.

    Attributes:
        flip: probability of a left-right flip.
        rotation: largest rotation, degrees.
        scale: smallest zoom factor; the zoom is log-uniform in [scale, 1 / scale].
        shift: largest shift, as a share of the image side.
        crop: smallest side of a random square crop that is resized to the full image, as a share.
        colour: strength of random brightness, contrast, saturation and white balance; 0.2 is ±20%.

    Raises:
        ValueError: a value is outside its range.
    """

    flip: float = 0.5
    rotation: float = 0.0
    scale: float = 1.0
    shift: float = 0.0
    crop: float = 1.0
    colour: float = 0.0

    def __post_init__(self):
        ranges = {"flip": (0, 1), "rotation": (0, 180), "scale": (0.1, 1)}
        ranges |= {"shift": (0, 1), "crop": (0.1, 1), "colour": (0, 0.9)}
        for name, (low, high) in ranges.items():
            if not low <= (value := getattr(self, name)) <= high:
                raise ValueError(f"{name}: expected a value in [{low}, {high}], got {value}")

    @property
    def flips_only(self) -> bool:
        """Whether pixels stay where they are, or are flipped; colours may vary."""
        return (self.rotation, self.scale, self.shift, self.crop) == (0, 1, 0, 1)

    def flipped(self, seed: int, epoch: int, indices: Sequence[int]) -> torch.Tensor:
        """Return which samples are flipped, bool ``[B]``."""
        return _flips(np.stack([self._sample(seed, epoch, index) for index in indices]))

    def __call__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        seed: int,
        epoch: int,
        indices: Sequence[int],
        mirror: Sequence[int] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Vary a batch.

        Args:
            images: float ``[B,3,H,W]`` in [-1, 1]. Channels beyond the third move along with these, but
                keep their values: probabilities of the K classes, say.
            labels: int64 ``[B,H,W]``.
            seed, epoch: which variation.
            indices: the samples' positions in their data set, length B.
            mirror: which class each class is in a flipped image, length K; see
                :attr:`consensus_lib.data.tasks.Task.mirror`. Labels of flipped samples, and their
                channels beyond the third, are exchanged accordingly. None exchanges nothing.

        Returns:
            Images and labels of the same shapes. Pixels that come from outside the original image
            repeat its border and are labelled 255, so that no loss counts them.

        Raises:
            ValueError: there are other channels than three, and than three and one for each class.
        """
        numbers = np.stack([self._sample(seed, epoch, index) for index in indices])  # [B, 12]
        flipped = _flips(numbers).to(images.device)
        numbers = torch.from_numpy(numbers).to(images)
        if self.flips_only:  # exact, and much cheaper than resampling
            images = torch.where(flipped[:, None, None, None], images.flip(3), images)
            labels = torch.where(flipped[:, None, None], labels.flip(2), labels)
        else:
            images, labels = _moved(images, labels, numbers[:, :6])
        if mirror is not None:
            images, labels = _exchanged(images, labels, flipped, torch.as_tensor(mirror))
        if self.colour:
            images = torch.cat([self._recolour(images[:, :3], numbers[:, 6:]), images[:, 3:]], 1)
        return images, labels

    def _sample(self, seed: int, epoch: int, index: int) -> np.ndarray:
        """Return the affine map (2×3, output to input, row by row) and 6 colour numbers of one sample."""
        rng = np.random.default_rng((seed, epoch, index))
        # One uniform number for each decision, always sampled, so that switching one part off leaves
        # the others as they were.
        u = rng.uniform(-1, 1, size=14)
        mirror = -1.0 if (u[0] + 1) / 2 < self.flip else 1.0
        angle = math.radians(self.rotation) * u[1]
        side = 1 - (1 - self.crop) * (u[2] + 1) / 2  # of the crop, share of the image
        zoom = side * self.scale ** u[3]
        centre = self.shift * 2 * u[4:6] + (1 - side) * u[6:8]  # the frame spans -1..1
        cos, sin = math.cos(angle) * zoom, math.sin(angle) * zoom
        return np.array([mirror * cos, -sin, centre[0], mirror * sin, cos, centre[1], *u[8:14]])

    def _recolour(self, images, numbers):
        gain = 1 + self.colour * numbers[:, :3, None, None] / 2  # white balance, [B, 3, 1, 1]
        bright, contrast, saturation = (self.colour * numbers[:, 3:6, None, None]).split(1, dim=1)
        images = (images + 1) * gain * (1 + bright) - 1
        mean = images.mean((1, 2, 3), keepdim=True)
        images = mean + (images - mean) * (1 + contrast)
        grey = images.mean(1, keepdim=True)
        return (grey + (images - grey) * (1 + saturation)).clamp(-1, 1)


def _flips(numbers: np.ndarray) -> torch.Tensor:
    """Return which affine maps ``[B,>=6]`` flip, bool ``[B]``: those of negative determinant."""
    return torch.from_numpy(numbers[:, 0] * numbers[:, 4] < numbers[:, 1] * numbers[:, 3])


def _moved(images, labels, rows):
    """Return images and labels moved by affine maps ``[B,6]`` from places of the output to the input."""
    grid = F.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)  # [B, H, W, 2]
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    # Class numbers shifted by one: zero padding then means "outside", told from background 0.
    numbers = labels[:, None].to(images.dtype) + 1
    shifted = F.grid_sample(numbers, grid, mode="nearest", padding_mode="zeros", align_corners=False)[:, 0]
    moved = shifted.round().to(labels.dtype) - 1  # [B, H, W]
    return images, torch.where(moved < 0, IGNORE, moved)


def _exchanged(images, labels, flipped, mirror):
    """Give the classes of flipped samples, and the channels beyond the third, to their mirror classes."""
    if images.shape[1] not in (3, 3 + len(mirror)):
        raise ValueError(f"images: expected 3 or 3 + {len(mirror)} channels, got {images.shape[1]}")
    table = torch.arange(IGNORE + 1)
    table[: len(mirror)] = mirror
    labels = torch.where(flipped[:, None, None], table.to(labels)[labels], labels)
    if images.shape[1] > 3:
        order = torch.cat([torch.arange(3), 3 + mirror]).to(images.device)
        images = torch.where(flipped[:, None, None, None], images[:, order], images)
    return images, labels


MILD = Augment(flip=0.5, rotation=8, scale=0.9, shift=0.05, colour=0.2)
"""What the notebooks and studies train with: aligned faces stay about where they are."""

"""Flicker: how much of a prediction changes when the image moves by a pixel or turns by a degree or two."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F


def flicker(
    predict: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    *,
    shifts: Sequence[tuple[int, int]] = ((0, 1), (1, 0), (0, -1), (-1, 0)),
    angles: Sequence[float] = (-2.0, 2.0),
    border: int | None = None,
) -> dict[str, np.ndarray]:
    """Return the share of pixels whose predicted class changes when the image moves a little.

    Each image is moved and predicted. A pixel of the first prediction flickers if the second one, read at the
    pixel nearest to where the first went, has another class. What moves in from outside repeats the outermost
    pixels, so pixels near the border are left out.

    Shifts are exact. A rotation about the centre samples the image bilinearly, and reading the nearest pixel
    moves contours by up to 0.7 pixels whatever the network: ``flicker_rotation_floor`` is what turning the
    first prediction itself there and back changes, each time to the nearest pixel.

    Args:
        predict: function of images float ``[B,C,H,W]`` that returns classes, integer ``[B,H,W]``. It must
            not be random: call ``eval()`` on a network.
        images: float ``[B,C,H,W]``.
        shifts: (down, right) in pixels.
        angles: in degrees, anticlockwise.
        border: width of the frame left out, in pixels; None takes a sixteenth of the shorter side.

    Returns:
        Means over the moves for each image, float64 ``[B]``: ``flicker_shift`` if there are shifts;
        ``flicker_rotation`` and ``flicker_rotation_floor`` if there are angles.

    Raises:
        ValueError: ``images`` has another shape, nothing is left inside the border, or a move goes farther
            than it.

    Source: Zhang, Making convolutional networks shift-invariant again, ICML 2019, for classifiers.

    >>> image = torch.rand(1, 3, 32, 32)
    >>> flicker(lambda images: images.argmax(1), image, angles=())["flicker_shift"]  # each pixel on its own
    array([0.])
    """
    if images.dim() != 4:
        raise ValueError(f"images: expected [B,C,H,W], got {list(images.shape)}")
    size = tuple(images.shape[2:])
    border = min(size) // 16 if border is None else border
    if not 0 <= 2 * border < min(size):
        raise ValueError(f"border: expected at least 0 and less than half of {min(size)}, got {border}")
    first = predict(images)  # [B, H, W]
    inside = (..., slice(border, size[0] - border), slice(border, size[1] - border))
    found: dict[str, list] = {}
    moves = [(shift, 0.0) for shift in shifts] + [((0, 0), angle) for angle in angles]
    for index, (shift, angle) in enumerate(moves):
        to, back = _moved(size, shift, angle), _moved(size, (-shift[0], -shift[1]), -angle)
        farthest = float((to - _moved(size, (0, 0), 0)).abs()[inside].max())
        if farthest > border:
            raise ValueError(
                f"border: expected at least {farthest:.1f} for shift {shift}, angle {angle}, got {border}"
            )
        if index < len(shifts):
            after = {"flicker_shift": predict(_nearest(images, back))}
        else:
            after = {"flicker_rotation": predict(_bilinear(images, back))}
            after["flicker_rotation_floor"] = _nearest(first, back)
        for name, labels in after.items():
            changed = (_nearest(labels, to) != first)[inside]
            share = changed.sum((1, 2)).cpu().double() / changed[0].numel()
            found.setdefault(name, []).append(share.numpy())
    return {key: np.mean(values, axis=0) for key, values in found.items()}


def _moved(size: tuple[int, int], shift: tuple[int, int], angle: float) -> torch.Tensor:
    """Return where each pixel goes, float64 ``[2,H,W]`` of rows and columns, turned and then shifted."""
    y, x = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in size), indexing="ij")
    if not angle:
        return torch.stack([y + shift[0], x + shift[1]])
    middle = [(side - 1) / 2 for side in size]
    turn = torch.tensor(angle, dtype=torch.float64).deg2rad()
    y, x = y - middle[0], x - middle[1]
    rows = turn.cos() * y - turn.sin() * x + middle[0] + shift[0]
    return torch.stack([rows, turn.sin() * y + turn.cos() * x + middle[1] + shift[1]])


def _nearest(maps: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Return ``maps [...,H,W]`` read at ``at [2,H,W]``; what lies outside is the nearest inside."""
    y, x = (
        part.round().long().clamp(0, side - 1).to(maps.device)
        for part, side in zip(at, maps.shape[-2:], strict=True)
    )
    return maps[..., y, x]


def _bilinear(images: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    size = torch.tensor(images.shape[-2:], dtype=torch.float64)
    places = (2 * at.permute(1, 2, 0) + 1) / size - 1  # [H, W, 2], from -1 to 1
    places = places.flip(-1).to(images.dtype).to(images.device).expand(len(images), -1, -1, -1)
    return F.grid_sample(images, places, mode="bilinear", padding_mode="border", align_corners=False)

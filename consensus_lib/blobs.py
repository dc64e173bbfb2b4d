"""Blobs: the groups of pixels that should agree, from a label map.

A blob is a set of pixels of one image that carry one label: a whole class, a connected component of it,
or a single pixel. The losses see blobs as a map of ids; this module is where those ids come from.
"""

from typing import NamedTuple

import numpy as np
import torch

from consensus_lib import IGNORE
from consensus_lib.components import run_graph

KINDS = ("class", "component", "pixel")


class Blobs(NamedTuple):
    """A batch of label maps cut into M blobs. An id belongs to one image.

    Attributes:
        ids: int64 ``[B,H,W]``, the blob of each pixel, 0..M-1; -1 where the pixel is in none.
        labels: int64 ``[M]``, the class of each blob.
        image: int64 ``[M]``, the image (0..B-1) that each blob lies in; ascending.
        size: int64 ``[M]``, the number of pixels of each blob.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    image: torch.Tensor
    size: torch.Tensor

    def to(self, device: torch.device | str, **options) -> "Blobs":
        """Return the blobs on ``device``."""
        return Blobs(*(part.to(device, **options) for part in self))


def label_blobs(labels: torch.Tensor, kind: str = "class", connectivity: int = 4) -> Blobs:
    """Cut label maps into blobs.

    Args:
        labels: int64 ``[B,H,W]``, class numbers, 255 = ignore.
        kind: ``"class"``, all pixels of one class in an image (the paper on Part Labels);
            ``"component"``, each connected component of a class (the paper on COFW);
            ``"pixel"``, each pixel by itself.
        connectivity: 4 or 8 neighbours, for components.

    Returns:
        The blobs, on the device of ``labels``. Components are found on the CPU.

    Raises:
        ValueError: ``kind`` or ``connectivity`` is unknown, or ``labels`` is not integer ``[B,H,W]``.

    >>> label_blobs(torch.tensor([[[0, 1], [1, 0]]]), "component").size.tolist()
    [1, 1, 1, 1]
    >>> label_blobs(torch.tensor([[[0, 1], [1, 0]]]), "component", connectivity=8).size.tolist()
    [2, 2]
    """
    if labels.dim() != 3 or labels.is_floating_point():
        raise ValueError(f"labels: expected integers [B,H,W], got {labels.dtype} {list(labels.shape)}")
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {KINDS}, got {kind!r}")
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity: expected 4 or 8, got {connectivity}")
    if kind == "component":
        return Blobs(
            *(torch.from_numpy(part).to(labels.device) for part in _components(labels, connectivity))
        )
    if kind == "pixel":
        keys = torch.arange(labels.numel(), device=labels.device).view_as(labels)
    else:
        keys = labels.long()
    return blobs_from_ids(keys, labels)


def blobs_from_ids(ids: torch.Tensor, labels: torch.Tensor) -> Blobs:
    """Number any map of ids anew, so that a blob lies in one image and has one label.

    Args:
        ids: integer ``[B,H,W]``. Equal ids in different images are different blobs; pixels of one id
            with different labels become one blob for each label; negative ids belong to no blob.
        labels: int64 ``[B,H,W]``, 255 = ignore.

    Raises:
        ValueError: shapes or types differ from the above.
    """
    if ids.shape != labels.shape or ids.is_floating_point():
        raise ValueError(
            f"ids: expected integers of the shape of labels {list(labels.shape)}, "
            f"got {ids.dtype} {list(ids.shape)}"
        )
    counted = (labels != IGNORE) & (ids >= 0)
    image = torch.arange(len(ids), device=ids.device)[:, None, None].expand_as(ids)
    # One number for each (image, label, id), so that a single sort finds all blobs.
    span = int(ids.max()) + 1 if ids.numel() else 1
    keys = ((image * (IGNORE + 1) + labels) * span + ids.long())[counted]
    found, inverse, size = torch.unique(keys, return_inverse=True, return_counts=True)
    numbered = torch.full_like(ids, -1, dtype=torch.int64)
    numbered[counted] = inverse
    label_of, image_of = found // span % (IGNORE + 1), found // (span * (IGNORE + 1))
    return Blobs(numbered, label_of, image_of, size)


def _components(labels: torch.Tensor, connectivity: int) -> tuple[np.ndarray, ...]:
    """Return ids, labels, images and sizes of the components, read off the graph of runs without a sort."""
    graph = run_graph(labels.cpu().numpy(), connectivity)
    member = graph.members()
    kept = graph.label[member] != IGNORE
    number = np.where(kept, np.cumsum(kept) - 1, -1)  # of each component, ignored ones left out
    ids = number[graph.component][graph.of]  # [B, H, W]
    size = np.bincount(ids.ravel() + 1, minlength=kept.sum() + 1)[1:]
    return ids, graph.label[member][kept].astype(np.int64), graph.image[member][kept], size

"""Blobs: the groups of pixels that should agree, from a label map.

A blob is a set of pixels of one image that carry one label: a whole class, a connected component of it,
or a single pixel. The losses see blobs as a map of ids; this module is where those ids come from.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from consensus_lib import IGNORE
from consensus_lib.losses.inputs import check_map
from consensus_lib.metrics.components import run_graph

KINDS = ("class", "component", "occlusion", "superpixel", "pixel")


class Blobs(NamedTuple):
    """A batch of label maps cut into M blobs. An id belongs to one image.

    Attributes:
        ids: int64 ``[B,H,W]``, the blob of each pixel, 0..M-1; -1 where the pixel is in none.
        labels: int64 ``[M]``, the class of each blob.
        image: int64 ``[M]``, the image (0..B-1) that each blob lies in; ascending.
        size: int64 ``[M]``, the number of pixels of each blob.
        group: int64 ``[M]``, or None: the id that each blob had in the map it was cut from. Blobs of
            different images with one group are one blob to ``reduction="released"``; None: none are.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    image: torch.Tensor
    size: torch.Tensor
    group: torch.Tensor | None = None

    def to(self, device: torch.device | str, **options) -> "Blobs":
        """Return the blobs on ``device``."""
        return Blobs(*(part if part is None else part.to(device, **options) for part in self))

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean of pixels' values ``[B,H,W,...]`` over each blob, ``[M,...]``."""
        size = self.size.view(-1, *[1] * (values.dim() - 3))
        return self._sum(values) / size

    def log_mean_exp(self, values: torch.Tensor) -> torch.Tensor:
        """Return log mean exp of pixels' values ``[B,H,W]`` over each blob, ``[M]``; exp may underflow."""
        flat = values.detach().flatten()
        top = flat.new_full((len(self.size) + 1,), -torch.inf)
        top = top.scatter_reduce(0, self.ids.flatten() + 1, flat, "amax")  # first of pixels in no blob
        return self.mean((values - top[self.ids + 1]).exp()).log() + top[1:]

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        zeros = values.new_zeros(len(self.size) + 1, *values.shape[3:])  # first the sum of pixels in no blob
        return zeros.index_add(0, self.ids.flatten() + 1, values.flatten(0, 2))[1:]

    def split(self) -> list["Blobs"]:
        """Return the blobs of each image as a batch of one, numbered from 0."""
        ends = torch.bincount(self.image, minlength=len(self.ids)).cumsum(0).tolist()
        parts = []
        for ids, begin, end in zip(self.ids, [0, *ends], ends, strict=False):
            ids = torch.where(ids < 0, -1, ids - begin)[None]
            group = None if self.group is None else self.group[begin:end]
            image = torch.zeros_like(self.image[begin:end])
            parts.append(Blobs(ids, self.labels[begin:end], image, self.size[begin:end], group))
        return parts


def as_blobs(blobs: Blobs | torch.Tensor | None, labels: torch.Tensor) -> Blobs:
    """Return blobs as they are, an id map ``[B,H,W]`` cut by the labels, or for None one blob a class."""
    if blobs is None:
        return label_blobs(labels, "class")
    if not isinstance(blobs, Blobs):
        return blobs_from_ids(blobs, labels)
    check_map("blobs.ids", blobs.ids, labels[:, None])
    return blobs


def join_blobs(parts: Sequence[Blobs]) -> Blobs:
    """Return the blobs of single images, at least one, as a batch; the inverse of :meth:`Blobs.split`."""
    ids = torch.cat([part.ids for part in parts]).long()
    count = torch.tensor([len(part.size) for part in parts], device=ids.device)  # [B]
    none = ids < 0
    ids.add_((count.cumsum(0) - count)[:, None, None]).masked_fill_(none, -1)  # in place: 8 times faster
    image = torch.arange(len(parts), device=ids.device).repeat_interleave(count)
    labels, size = (torch.cat([getattr(part, name) for part in parts]) for name in ("labels", "size"))
    group = None if any(part.group is None for part in parts) else torch.cat([part.group for part in parts])
    return Blobs(ids, labels, image, size, group)


@torch._disable_dynamo  # numpy finds components. `torch.compiler.disable` would load dynamo at import
def label_blobs(
    labels: torch.Tensor,
    kind: str = "class",
    connectivity: int = 4,
    image: torch.Tensor | None = None,
    *,
    segments: int = 200,
    min_size: int = 0,
    specks: str = "drop",
) -> Blobs:
    """Cut label maps into blobs. Ignored pixels are in none.

    Args:
        labels: int64 ``[B,H,W]``, class numbers, 255 = ignore.
        kind: ``"class"``, all pixels of one class in an image (the paper on Part Labels);
            ``"component"``, each connected component of a class (the paper on COFW);
            ``"occlusion"``, background (class 0) and face (1) one blob each, and each component of the
            occlusion (2) one (Eq. 2);
            ``"superpixel"``, segments of even colour of ``image``, each cut by the labels;
            ``"pixel"``, each pixel by itself.
        connectivity: 4 or 8 neighbours, for components.
        image: float ``[B,3,H,W]`` in [-1, 1], for superpixels only.
        segments: approximate number of superpixels per image.
        min_size: blobs of fewer pixels are specks.
        specks: ``"drop"``, a speck's pixels are in no blob; ``"merge"``, they join the blob with which the
            speck shares its longest border, and count as pixels of its label. A speck without such a
            neighbour is dropped.

    Returns:
        The blobs, on the device of ``labels``. Components and superpixels are found on the CPU.

    Raises:
        ValueError: an argument differs from the above.

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
    if specks not in ("drop", "merge"):
        raise ValueError(f"specks: expected 'drop' or 'merge', got {specks!r}")
    if kind == "component":
        blobs = _components(labels, connectivity)
    elif kind == "occlusion":
        blobs = blobs_from_ids(_occlusion_ids(labels, connectivity), labels)
    elif kind == "superpixel":
        blobs = blobs_from_ids(_superpixels(labels, image, segments), labels)._replace(group=None)
    elif kind == "pixel":
        keys = torch.arange(labels.numel(), device=labels.device).view_as(labels)
        blobs = blobs_from_ids(keys, labels)._replace(group=None)
    else:
        blobs = blobs_from_ids(labels.long(), labels)
    return _without_specks(blobs, min_size, specks == "merge") if min_size > 1 else blobs


def blobs_from_ids(ids: torch.Tensor, labels: torch.Tensor) -> Blobs:
    """Renumber a map of ids so that a blob lies in one image and has one label.

    Args:
        ids: integer ``[B,H,W]``. Equal ids in different images are different blobs, of one ``group``;
            pixels of one id with different labels become one blob for each label; negative ids belong to
            no blob.
        labels: int64 ``[B,H,W]``, 0..254, 255 = ignore.

    Raises:
        ValueError: shapes, types, devices or values differ from the above.
    """
    if ids.shape != labels.shape or ids.is_floating_point() or ids.device != labels.device:
        raise ValueError(
            f"ids: expected integers of the shape of labels {list(labels.shape)} on {labels.device}, "
            f"got {ids.dtype} {list(ids.shape)} on {ids.device}"
        )
    if not ids.numel():
        none = ids.new_empty(0, dtype=torch.int64)
        return Blobs(ids.long(), none, none, none, none)
    low, high = (int(value) for value in labels.aminmax())
    if low < 0 or high > IGNORE:
        raise ValueError(f"labels: expected classes 0..254 or {IGNORE}, got {low}..{high}")
    span = max(0, int(ids.max())) + 1
    if span > 2**62 // (len(ids) * (IGNORE + 1)):
        raise ValueError(f"ids: expected numbers small enough to sort beside image and label, got {span - 1}")
    # One number for each (image, label, id), so that a single sort finds all blobs; runs, not pixels, are
    # sorted. -1 is for pixels in none.
    image = torch.arange(len(ids), device=ids.device)[:, None, None]
    keys = (image * (IGNORE + 1) + labels) * span + ids
    keys = torch.where((labels == IGNORE) | (ids < 0), -1, keys).flatten()
    begins = F.pad(keys[1:] != keys[:-1], (1, 0), value=True).nonzero()[:, 0]  # [R]
    length = torch.diff(begins, append=begins.new_full((1,), len(keys)))
    found, number = torch.unique(keys[begins], return_inverse=True)
    outside = int(found[0] < 0)
    found, number = found[outside:], number - outside
    size = found.new_zeros(len(found)).index_add(0, number[number >= 0], length[number >= 0])
    numbered = torch.repeat_interleave(number, length, output_size=len(keys)).view_as(labels)
    return Blobs(numbered, found // span % (IGNORE + 1), found // (span * (IGNORE + 1)), size, found % span)


def _components(labels: torch.Tensor, connectivity: int) -> Blobs:
    """Return the components, read off the graph of runs without a sort."""
    graph = run_graph(labels.cpu().numpy(), connectivity)
    member = graph.members()
    kept = graph.label[member] != IGNORE
    number = np.where(kept, np.cumsum(kept) - 1, -1)[graph.component]  # of each run, -1 where ignored
    ids = np.repeat(number, graph.length).reshape(labels.shape)
    parts = ids, graph.label[member][kept].astype(np.int64), graph.image[member][kept], graph.areas()[kept]
    return Blobs(*(torch.from_numpy(part).to(labels.device) for part in parts))


def _occlusion_ids(labels: torch.Tensor, connectivity: int) -> torch.Tensor:
    """Return C of Eq. 2, ``[B,H,W]``: 0 background, 1 face, from 2 the occlusions of each image."""
    other = (labels > 2) & (labels != IGNORE)
    if other.any():
        raise ValueError(
            f"labels: expected classes 0, 1, 2 for kind='occlusion', got {int(labels[other][0])}"
        )
    pieces = _components(torch.where(labels == 2, 0, IGNORE), connectivity)
    earlier = torch.bincount(pieces.image, minlength=len(labels)).cumsum(0).roll(1)  # in the images before
    earlier[:1] = 0
    return torch.where(labels == 2, 2 + pieces.ids - earlier[:, None, None], labels)


def _superpixels(labels: torch.Tensor, image: torch.Tensor | None, segments: int) -> torch.Tensor:
    """Return SLIC segments of each image, ``[B,H,W]``."""
    from skimage.segmentation import slic  # half a second to load, and for this kind alone

    expected = (len(labels), 3, *labels.shape[1:])
    if image is None or image.shape != expected:
        raise ValueError(
            f"image: expected float {list(expected)} for kind='superpixel', "
            f"got {None if image is None else list(image.shape)}"
        )
    pictures = (image.detach().float().cpu().permute(0, 2, 3, 1).numpy() + 1) / 2  # [B, H, W, 3] in 0..1
    ids = [slic(picture, segments, start_label=0, channel_axis=-1) for picture in pictures]
    return torch.from_numpy(np.stack(ids)).to(labels.device)


def _without_specks(blobs: Blobs, min_size: int, merge: bool) -> Blobs:
    """Drop blobs of fewer than ``min_size`` pixels, or give them to the neighbour most bordered on."""
    ids, speck = blobs.ids, blobs.size < min_size
    host = torch.where(speck, -1, torch.arange(len(speck), device=ids.device))  # [M]
    if merge and speck.any():
        right = torch.stack([ids[:, :, :-1].flatten(), ids[:, :, 1:].flatten()])
        down = torch.stack([ids[:, :-1].flatten(), ids[:, 1:].flatten()])
        a, b = torch.cat([right, right.flip(0), down, down.flip(0)], 1)  # all pairs of neighbours
        inside = (a >= 0) & (b >= 0)
        a, b = a[inside], b[inside]
        borders = speck[a] & ~speck[b]
        pair, count = torch.unique(a[borders] * len(speck) + b[borders], return_counts=True)
        order = count.argsort(stable=True)
        order = order[(pair[order] // len(speck)).argsort(stable=True)]  # by speck, the longest border last
        a, b = pair[order] // len(speck), pair[order] % len(speck)
        last = F.pad(a[1:] != a[:-1], (0, 1), value=True)[: len(a)]
        host[a[last]] = b[last]
    number = torch.where(host < 0, -1, ((~speck).cumsum(0) - 1)[host])
    ids = F.pad(number, (1, 0), value=-1)[ids + 1]
    size = torch.bincount(ids.flatten() + 1, minlength=int((~speck).sum()) + 1)[1:]
    kept = [None if part is None else part[~speck] for part in (blobs.labels, blobs.image, blobs.group)]
    return Blobs(ids, kept[0], kept[1], size, kept[2])

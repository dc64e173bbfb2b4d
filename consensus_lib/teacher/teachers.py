"""Teachers and extents: class probabilities of unlabelled photographs, and outlines of complete faces.

``factorise`` makes labels of the two. Any callable with the signature of :class:`Teacher` or
:class:`FaceExtent` will do; ``synthetic_faces.DrawnExtent`` knows the outlines of drawn faces.
"""

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage, spatial
from torch import nn

from consensus_lib.data.tasks import Task
from consensus_lib.data.tasks import task as task_by_name
from consensus_lib.training import load_checkpoint, pick_device

CELEBA_PARTS = {
    **{name: name for name in ("background", "skin", "nose", "mouth", "hair", "neck", "cloth")},
    **dict.fromkeys(("l_eye", "r_eye"), "eyes"),
    **dict.fromkeys(("l_brow", "r_brow"), "brows"),
    **dict.fromkeys(("l_ear", "r_ear", "ear_r"), "ears"),
    **{"u_lip": "mouth", "l_lip": "mouth", "neck_l": "neck", "hat": "occluder", "eye_g": "glasses"},
}
"""The 19 classes of CelebAMask-HQ → source classes of a task. Its glasses, clear or dark, are face."""


class TeacherError(RuntimeError):
    """A package or weights are missing, or the model has other classes."""


class Teacher(Protocol):
    """Gives class probabilities.

    Attributes:
        name: for records.
        version: of its weights.
        classes: class names; the position is the channel.
    """

    name: str
    version: str
    classes: tuple[str, ...]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return probabilities float ``[B,K,H,W]`` of images float ``[B,3,H,W]`` in [-1, 1]."""
        ...


class FaceExtent(Protocol):
    """Gives the outline of the complete face.

    Attributes:
        name: for records.
    """

    name: str

    def __call__(self, images: torch.Tensor, ids: Sequence[str]) -> list[np.ndarray | None]:
        """Return for each image contour points float ``[P,2]``, or None where no face is found.

        Args:
            images: float ``[B,3,H,W]`` in [-1, 1].
            ids: their ids in the data set.

        Returns:
            (x, y) in pixels of these images, the centre of the first pixel at (0.5, 0.5).
        """
        ...


class NetworkTeacher:
    """A network as a teacher.

    Args:
        source: the folder of a training (``out`` of :func:`~consensus_lib.training.fit`), or a network from
            images ``[B,3,H,W]`` to logits ``[B,K,H,W]``, which is put in evaluation mode.
        classes: names of the K classes; a folder has them.
        size: side in pixels of the network's input; probabilities have the size of the images. None: the
            training size of a folder, the images' own size for a network.
        device: see :func:`~consensus_lib.training.pick_device`.

    Raises:
        CheckpointError: the folder holds no training, or a broken one.
        ValueError: ``classes`` are missing.
    """

    def __init__(
        self,
        source: str | Path | nn.Module,
        classes: Sequence[str] | None = None,
        *,
        size: int | None = None,
        device: str = "auto",
    ):
        self.device = pick_device(device)
        if isinstance(source, nn.Module):
            self.network = source.to(self.device).eval()
        else:
            self.network, state = load_checkpoint(source, device=str(self.device))
            classes, size = classes or state["classes"], size or state["settings"]["size"]
        if classes is None or isinstance(classes, str):
            raise ValueError(f"classes: expected names of the network's classes, got {classes!r}")
        self.size, self.classes = size, tuple(classes)
        width = getattr(self.network, "width", None)
        self.name = type(self.network).__name__ + ("" if width is None else f"-{width:g}")
        self.version = weights_version(self.network)

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of ``images``; see :class:`Teacher`."""
        images = _images(images).to(self.device, memory_format=torch.channels_last)
        side = images.shape[2:] if self.size is None else (self.size, self.size)
        logits = self.network(_resized(images, side))
        if logits.dim() != 4 or logits.shape[1] != len(self.classes):
            raise ValueError(
                f"network: expected logits of {len(self.classes)} classes {self.classes}, "
                f"got {list(logits.shape)}"
            )
        return _resized(logits.float(), images.shape[2:]).softmax(1)


class SegformerTeacher:
    """A ``SegformerForSemanticSegmentation`` of Hugging Face as a teacher, mapped to a task.

    Probabilities of its classes that are one class of the task are added up. Images are resized and
    normalised as the model's own preprocessor says, or else as ImageNet's, at 512 pixels.

    Args:
        source: name on the hub, or a local folder with ``config.json`` and weights.
        task: ``"parts"``, ``"occlusion"`` or a task of one's own; see :mod:`consensus_lib.data.tasks`.
        class_map: the model's class names → source classes of the task.
        size: side in pixels of the model's input; None as its preprocessor says.
        device: see :func:`~consensus_lib.training.pick_device`.

    Raises:
        TeacherError: transformers or weights are missing, or the model is another one or has classes that
            ``class_map`` does not have.
        ValueError: no such task or device.
    """

    def __init__(
        self,
        source: str | Path = "jonathandinu/face-parsing",
        task: str | Task = "parts",
        *,
        class_map: Mapping[str, str] = CELEBA_PARTS,
        size: int | None = None,
        device: str = "auto",
    ):
        target, self.device = task_by_name(task), pick_device(device)
        network, prepare = _load_segformer(source)
        names = [network.config.id2label[number] for number in range(network.config.num_labels)]
        unknown = {name: class_map.get(name) for name in names if class_map.get(name) not in target.members}
        if unknown:
            expected = f"one of {sorted(target.members)} for each class of {source}"
            raise TeacherError(f"class_map: expected {expected}, got {unknown}")
        numbers = [target.classes.index(target.members[class_map[name]]) for name in names]
        self._sums = F.one_hot(torch.tensor(numbers), len(target.classes)).float().to(self.device)  # [S, K]
        self._mean, self._deviation = (
            torch.tensor(prepare.get(key) or plain, device=self.device).view(1, -1, 1, 1)
            for key, plain in (("image_mean", (0.485, 0.456, 0.406)), ("image_std", (0.229, 0.224, 0.225)))
        )
        side = size or prepare.get("size", 512)
        if isinstance(side, Mapping):
            side = side.get("height", side.get("shortest_edge", 512))
        self.size = side
        self.network = network.to(self.device).eval()
        self.name, self.classes = Path(source).name, target.classes
        self.version = weights_version(self.network)

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of ``images``; see :class:`Teacher`."""
        images = _images(images).to(self.device)
        pictures = (_resized(images, (self.size, self.size)) + 1) / 2
        logits = self.network(pixel_values=(pictures - self._mean) / self._deviation).logits.float()
        # The logits have a quarter of the input's size.
        return torch.einsum("bshw,sk->bkhw", _resized(logits, images.shape[2:]).softmax(1), self._sums)


class TeacherExtent:
    """The convex hull of the largest piece of a teacher's face: for any photograph, without landmarks.

    An occlusion at the rim, such as a hand on the chin, is outside the hull and lost. The hull includes neck
    and ears if the teacher's face does (task ``"parts"``).

    Args:
        teacher: predicts the face, once more than for its probabilities.
        min_area: share of the image; a smaller piece is no face.

    Raises:
        ValueError: the teacher has no class ``"face"``.
    """

    def __init__(self, teacher: Teacher, min_area: float = 0.01):
        if "face" not in teacher.classes:
            raise ValueError(f"teacher: expected one with a class 'face', got {teacher.classes}")
        self.teacher, self.min_area = teacher, min_area
        self.name = f"hull of {teacher.name}"

    def __call__(self, images: torch.Tensor, ids: Sequence[str]) -> list[np.ndarray | None]:
        """Return the contours of ``images``; see :class:`FaceExtent`."""
        seen = self.teacher(images).argmax(1) == self.teacher.classes.index("face")  # [B, H, W]
        return [mask_contour(mask, self.min_area) for mask in seen.cpu().numpy()]


def mask_contour(mask: np.ndarray, min_area: float = 0.0) -> np.ndarray | None:
    """Return the corners of the convex hull of a mask's largest 4-connected piece.

    Args:
        mask: bool ``[H,W]``.
        min_area: share of the image; a smaller piece counts as none.

    Returns:
        float ``[P,2]``, (x, y) in pixels, around whole pixels; None if there is no such piece.

    >>> mask_contour(np.array([[1, 0, 0], [0, 1, 1]], bool)).tolist()
    [[1.0, 1.0], [3.0, 1.0], [3.0, 2.0], [1.0, 2.0]]
    """
    pieces, _ = ndimage.label(mask)
    size = np.bincount(pieces.ravel())[1:]
    if not size.size or size.max() < min_area * mask.size:
        return None
    y, x = np.nonzero(pieces == 1 + size.argmax())
    corners = np.concatenate([np.stack([x + right, y + down], 1) for right in (0, 1) for down in (0, 1)])
    return corners[spatial.ConvexHull(corners).vertices].astype(np.float64)


def weights_version(network: nn.Module) -> str:
    """Return twelve hexadecimal digits that change with any weight or buffer of ``network``."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:12]


def _load_segformer(source: str | Path) -> tuple[nn.Module, dict]:
    """Return the network and the settings of its preprocessor, empty where there is none."""
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise TeacherError(
            f"SegformerTeacher: expected transformers, which is not here ({error}). Install it with: "
            "pip install 'consensus-lib[teacher]'   (in a checkout: pip install -e '.[teacher]')"
        ) from None
    try:
        config, _ = transformers.SegformerConfig.get_config_dict(source)
        if config.get("model_type") != "segformer":
            raise ValueError(f"config.json of model_type {config.get('model_type')!r}, not 'segformer'.")
        # Safetensors alone: the other format can run code when it is read.
        network, found = transformers.SegformerForSemanticSegmentation.from_pretrained(
            source,
            config=transformers.SegformerConfig.from_dict(config),
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise TeacherError(
            f"{source}: expected a SegFormer of the Hugging Face hub, or a folder with config.json and "
            f"model.safetensors, got: {str(error).splitlines()[0]} Where there is a network, "
            f"`hf download {source} --local-dir FOLDER` fetches one; then give FOLDER"
        ) from None
    absent = sorted(map(str, {*found["missing_keys"], *found["mismatched_keys"]}))
    if absent:
        raise TeacherError(f"{source}: expected all weights of the model, got none for {absent[:3]} …")
    processors = importlib.import_module("transformers.image_processing_utils")
    try:
        return network, processors.BaseImageProcessor.get_image_processor_dict(source)[0]
    except OSError:
        return network, {}


def _images(images: torch.Tensor) -> torch.Tensor:
    if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"images: expected floats [B,3,H,W], got {images.dtype} {list(images.shape)}")
    if images.numel() and not images.abs().max() <= 1.001:  # NaN fails, too
        low, high = (float(value) for value in images.aminmax())
        raise ValueError(f"images: expected values in [-1, 1], got {low:g}..{high:g}")
    return images


def _resized(maps: torch.Tensor, side: Sequence[int]) -> torch.Tensor:
    if tuple(maps.shape[2:]) == tuple(side):
        return maps
    shrinks = side[0] < maps.shape[2] or side[1] < maps.shape[3]
    return F.interpolate(maps, tuple(side), mode="bilinear", align_corners=False, antialias=shrinks)

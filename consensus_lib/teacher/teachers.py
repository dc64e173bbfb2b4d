"""Teachers: who says what a photograph without labels shows.

A :class:`Teacher` gives class probabilities, a :class:`~consensus_lib.teacher.extents.FaceExtent` the outline
of the complete face; ``factorise`` makes labels of the two. Anything that is called alike will do: here are
:class:`NetworkTeacher`, for a network of this library or any other, and :class:`SegformerTeacher`, for a face
parser of the Hugging Face hub. Notebook 04 uses them.
"""

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
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
    """A teacher cannot be had: a package or its weights are missing, or it knows other classes."""


class Teacher(Protocol):
    """Gives class probabilities.

    Attributes:
        name: what it is, for records.
        version: tells two teachers of one name apart.
        classes: class names; the position is the channel.
    """

    name: str
    version: str
    classes: tuple[str, ...]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return probabilities float ``[B,K,H,W]`` of images float ``[B,3,H,W]`` in [-1, 1].

        They are on the device where the teacher computes.
        """
        ...


class NetworkTeacher:
    """A network as a teacher.

    Args:
        source: the folder of a training (``out`` of :func:`~consensus_lib.training.fit`), or a network from
            images ``[B,3,H,W]`` to logits ``[B,K,H,W]``, which is used as it is from then on, in evaluation
            mode.
        classes: names of the K classes; of a folder they are known.
        size: side in pixels at which the network looks at images; its probabilities come back at theirs.
            None takes a folder's own training size; a network in memory then sees images as they are.
        device: where to compute; see :func:`~consensus_lib.training.pick_device`.

    Raises:
        CheckpointError: the folder holds no training, or a broken one.
        ValueError: ``classes`` are missing, or ``size`` is no number of pixels.
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
        if size is not None and size < 1:
            raise ValueError(f"size: expected at least 1 pixel, got {size}")
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
        members: the model's class names → source classes of the task.
        size: side in pixels at which the model looks; None as its preprocessor says.
        device: where to compute; see :func:`~consensus_lib.training.pick_device`.

    Raises:
        TeacherError: transformers is not installed, there are no weights, not all weights, or the model is
            another one or has classes that ``members`` does not know.
        ValueError: no such task or device.
    """

    def __init__(
        self,
        source: str | Path = "jonathandinu/face-parsing",
        task: str | Task = "parts",
        *,
        members: Mapping[str, str] = CELEBA_PARTS,
        size: int | None = None,
        device: str = "auto",
    ):
        target, self.device = task_by_name(task), pick_device(device)
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
            config = transformers.SegformerConfig.from_dict(config)
            # Safetensors alone: the other format can run code when it is read.
            network, found = transformers.SegformerForSemanticSegmentation.from_pretrained(
                source, config=config, use_safetensors=True, output_loading_info=True
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
        names = [config.id2label[number] for number in range(config.num_labels)]
        strange = {name: members.get(name) for name in names if members.get(name) not in target.members}
        if strange:
            raise TeacherError(
                f"members: expected for each class of {source} one of {sorted(target.members)}, got {strange}"
            )
        into = [target.classes.index(target.members[members[name]]) for name in names]
        self._into = F.one_hot(torch.tensor(into), len(target.classes)).float().to(self.device)  # [S, K]
        processors = importlib.import_module("transformers.image_processing_utils")
        try:
            prepare, _ = processors.BaseImageProcessor.get_image_processor_dict(source)
        except OSError:  # it has none
            prepare = {}
        scale = [
            torch.tensor(prepare.get(key) or plain, device=self.device).view(1, -1, 1, 1)
            for key, plain in (("image_mean", (0.485, 0.456, 0.406)), ("image_std", (0.229, 0.224, 0.225)))
        ]
        self._mean, self._deviation = scale if prepare.get("do_normalize", True) else (0.0, 1.0)
        side = prepare.get("size", 512)
        if isinstance(side, Mapping):
            side = [side.get(key, side.get("shortest_edge", 512)) for key in ("height", "width")]
        side = side if prepare.get("do_resize", True) else None
        self._side = [size or side] * 2 if isinstance(size or side, int) else side  # None: images as they are
        self.network = network.to(self.device).eval()
        self.name, self.classes = Path(source).name, target.classes
        self.version = weights_version(self.network)

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of ``images``; see :class:`Teacher`."""
        images = _images(images).to(self.device)
        seen = (_resized(images, self._side or images.shape[2:]) + 1) / 2
        logits = self.network(pixel_values=(seen - self._mean) / self._deviation).logits.float()  # a quarter
        return torch.einsum("bshw,sk->bkhw", _resized(logits, images.shape[2:]).softmax(1), self._into)


def weights_version(network: nn.Module) -> str:
    """Return twelve hexadecimal digits that change with any weight or buffer of ``network``."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:12]


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

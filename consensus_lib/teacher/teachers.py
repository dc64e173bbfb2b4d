"""Teachers and extents: class probabilities of unlabelled photographs, and masks of complete faces.

:func:`~consensus_lib.teacher.factorise.factorise` makes labels of the two. Any callable with the signature of
:class:`Teacher` or :class:`FaceExtent` will do. The parsers that come with the package are both, offline.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage, spatial
from skimage import draw
from torch import nn

from consensus_lib.models.parser import FaceParser
from consensus_lib.models.photo import convex_hull
from consensus_lib.training import load_checkpoint, pick_device


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
    """Gives the complete face, hidden parts included.

    Attributes:
        name: for records.
    """

    name: str

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        """Return masks bool ``[B,H,W]`` of images float ``[B,3,H,W]`` in [-1, 1]; empty without a face."""
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


class ParserTeacher:
    """A :class:`~consensus_lib.models.FaceParser` as a teacher, of faces that are cut out already.

    What it saw in the last batch is kept, so that labels and complete faces of one batch cost one prediction.

    Args:
        parser: the parser, or a name of ``FaceParser.from_pretrained``.
    """

    def __init__(self, parser: FaceParser | str = "occlusion"):
        self.parser = FaceParser.from_pretrained(parser) if isinstance(parser, str) else parser
        self.classes = self.parser.classes
        self.name, self.version = "FaceParser", weights_version(self.parser.network)
        self._last: tuple = (None, None)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of ``images``; see :class:`Teacher`."""
        return _resized(self.predict(images)[0], images.shape[2:])

    def predict(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return ``FaceParser.predict`` of images ``[B,3,H,W]``, at the parser's own size."""
        if self._last[0] is not images:
            seen = self.parser.predict(_resized(_images(images), (self.parser.size,) * 2))
            self._last = images, seen
        return self._last[1]


class ParserExtent:
    """The complete face that a parser tells: where it is likelier than not.

    Args:
        teacher: the parser as a teacher, or a name of ``FaceParser.from_pretrained``.
        hull: take its convex hull, as the paper's extent is convex.

    Raises:
        ValueError: the parser does not tell the complete face.
    """

    def __init__(self, teacher: ParserTeacher | str = "occlusion", hull: bool = False):
        self.teacher = ParserTeacher(teacher) if isinstance(teacher, str) else teacher
        if not getattr(self.teacher.parser.network, "inside", None):
            raise ValueError("teacher: expected one that tells the complete face, such as 'occlusion'")
        self.hull, self.name = hull, "hull of FaceParser" if hull else "FaceParser"

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        """Return the complete faces of ``images``; see :class:`FaceExtent`."""
        inside = self.teacher.predict(images)[1][:, None]  # [B, 1, S, S]
        masks = (_resized(inside, images.shape[2:])[:, 0] > 0.5).cpu().numpy()
        return np.stack([convex_hull(mask) for mask in masks]) if self.hull else masks


class TeacherExtent:
    """The convex hull of the largest piece of a teacher's face: without a model of what is hidden.

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
        self.name = f"hull of {teacher.name}'s face"

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        """Return the complete faces of ``images``; see :class:`FaceExtent`."""
        seen = self.teacher(images).argmax(1) == self.teacher.classes.index("face")  # [B, H, W]
        return np.stack([convex_hull(self._largest(mask)) for mask in seen.cpu().numpy()])

    def _largest(self, mask: np.ndarray) -> np.ndarray:
        """Return the largest 4-connected piece of a mask; nothing where that is no face."""
        pieces, _ = ndimage.label(mask)
        size = np.bincount(pieces.ravel(), minlength=2)[1:]
        return (pieces == 1 + size.argmax()) & (size.max() >= self.min_area * mask.size)


class MediaPipeExtent:
    """The convex hull of MediaPipe's landmarks of a face, whose upper end is on the forehead.

    Args:
        model: the file ``face_landmarker.task`` of MediaPipe's page on models, not in its wheels for numpy 2.

    Raises:
        ModuleNotFoundError: the extra ``mediapipe`` is not installed.
        FileNotFoundError: there is no such model.
    """

    name = "hull of MediaPipe's landmarks"

    def __init__(self, model: str | Path):
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"{error}: pip install 'consensus-lib[mediapipe]'") from None
        if not Path(model).is_file():
            raise FileNotFoundError(f"model: expected MediaPipe's face_landmarker.task, got no file {model}")
        self._mediapipe, self._vision = mediapipe, vision
        self._options = vision.FaceLandmarkerOptions(BaseOptions(model_asset_path=str(model)))

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        """Return the complete faces of ``images``; see :class:`FaceExtent`."""
        pictures = (_images(images).cpu().movedim(1, -1) * 127.5 + 127.5).round().byte().numpy()
        masks = np.zeros(pictures.shape[:3], bool)
        with self._vision.FaceLandmarker.create_from_options(self._options) as landmarker:
            for picture, mask in zip(np.ascontiguousarray(pictures), masks, strict=True):
                view = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=picture)
                for face in landmarker.detect(view).face_landmarks[:1]:
                    points = np.array([(one.y, one.x) for one in face]) * mask.shape  # [478, 2]
                    rim = points[spatial.ConvexHull(points).vertices]
                    mask[:] = draw.polygon2mask(mask.shape, rim - 0.5)  # pixels' centres are whole numbers
        return masks


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

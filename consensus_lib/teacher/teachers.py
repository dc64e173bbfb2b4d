"""Teachers: who says what a photograph without labels shows, and how far its face reaches.

A :class:`Teacher` gives class probabilities, a :class:`FaceExtent` the outline of the complete face, hidden
parts included; ``factorise`` makes labels of the two. Anything that is called alike will do.

=========================  ====================================================  ==========================
:class:`NetworkTeacher`    a network of this library, or any other               nothing more
:class:`SegformerTeacher`  a face parser from the Hugging Face hub               ``consensus-lib[teacher]``
:class:`MediaPipeTeacher`  MediaPipe's person segmentation                       ``consensus-lib[mediapipe]``
:class:`DrawnExtent`       the outline that the drawn faces know                 nothing more
:class:`TeacherExtent`     the hull of what the teacher sees                     nothing more
:class:`MediaPipeExtent`   MediaPipe's face landmarks                            ``consensus-lib[mediapipe]``
=========================  ====================================================  ==========================

Names and versions go into the records of what a teacher labelled. Notebook 04 uses them.
"""

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage, spatial
from torch import nn

from consensus_lib.data.folder import DatasetError, read_info
from consensus_lib.data.tasks import Task
from consensus_lib.data.tasks import task as task_by_name
from consensus_lib.training import load_checkpoint, pick_device
from synthetic_faces.classes import CLASSES

CELEBA_PARTS = {
    **{name: name for name in ("background", "skin", "nose", "mouth", "hair", "neck", "cloth")},
    "eye_g": "glasses",
    "l_eye": "eyes",
    "r_eye": "eyes",
    "l_brow": "brows",
    "r_brow": "brows",
    "l_ear": "ears",
    "r_ear": "ears",
    "u_lip": "mouth",
    "l_lip": "mouth",
    "hat": "occluder",
    "ear_r": "ears",
    "neck_l": "neck",
}
"""The 19 classes of CelebAMask-HQ → source classes of a task. Its glasses, clear or dark, are face."""

SELFIE_PARTS = {
    "background": "background",
    "hair": "hair",
    "body-skin": "neck",
    "face-skin": "face",
    "clothes": "cloth",
    "others": "occluder",
}
"""The classes of MediaPipe's ``selfie_multiclass_256x256``, in their order → source classes of a task. Body
skin is neck, but hands and arms as well."""

MEDIAPIPE_MODELS = "https://storage.googleapis.com/mediapipe-models/"
SELFIE_MODEL = "image_segmenter/selfie_multiclass_256x256/float32/latest/selfie_multiclass_256x256.tflite"
LANDMARK_MODEL = "face_landmarker/face_landmarker/float16/latest/face_landmarker.task"


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


class FaceExtent(Protocol):
    """Gives the outline of the complete face.

    Attributes:
        name: what it is, for records.
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
            images ``[B,3,H,W]`` to logits ``[B,K,H,W]``, which is used as it is from then on, in evaluation
            mode.
        classes: names of the K classes; of a folder they are known.
        size: side in pixels at which the network looks at images; its probabilities come back at theirs.
            None takes a folder's own training size; a network in memory then sees images as they are.
        best: take a folder's best weights on its validation data instead of the last.
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
        best: bool = False,
        device: str = "auto",
    ):
        self.device = pick_device(device)
        if isinstance(source, nn.Module):
            self.network = source.to(self.device).eval()
        else:
            self.network, state = load_checkpoint(source, best=best, device=str(self.device))
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
        transformers = _extra("transformers", "teacher", "SegformerTeacher")
        processors = importlib.import_module("transformers.image_processing_utils")
        kind = transformers.SegformerForSemanticSegmentation
        try:
            config, _ = transformers.SegformerConfig.get_config_dict(source)
            if config.get("model_type") != "segformer":
                raise TeacherError(
                    f"{source}: expected a config.json of model_type 'segformer', got "
                    f"{config.get('model_type')!r}"
                )
            config = transformers.SegformerConfig.from_dict(config)
            names = [config.id2label[number] for number in range(config.num_labels)]
            self._into = _into(names, members, target.members, target.classes, str(source))
            # Safetensors alone: the other format can run code when it is read.
            self.network, found = kind.from_pretrained(
                source, config=config, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError) as error:
            raise TeacherError(
                f"{source}: expected a model of the Hugging Face hub, or a folder with config.json and "
                f"model.safetensors, got: {str(error).splitlines()[0]} Where there is a network, "
                f"`hf download {source} --local-dir FOLDER` fetches one; then give FOLDER"
            ) from None
        if found["missing_keys"] or found["mismatched_keys"]:
            raise TeacherError(
                f"{source}: expected all weights of the model, got none or others for "
                f"{sorted(map(str, {*found['missing_keys'], *found['mismatched_keys']}))[:3]} …"
            )
        try:
            prepare, _ = processors.BaseImageProcessor.get_image_processor_dict(source)
        except OSError:  # it has none
            prepare = {}
        self.network = self.network.to(self.device).eval()
        self._into = self._into.to(self.device)
        scale = [
            torch.tensor(prepare.get(key) or plain, device=self.device).view(1, -1, 1, 1)
            for key, plain in (("image_mean", (0.485, 0.456, 0.406)), ("image_std", (0.229, 0.224, 0.225)))
        ]
        self._mean, self._deviation = scale if prepare.get("do_normalize", True) else (0.0, 1.0)
        self._side = _side(prepare) if size is None else (size, size)
        self.name, self.classes = Path(source).name, target.classes
        self.version = weights_version(self.network)

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of ``images``; see :class:`Teacher`."""
        images = _images(images).to(self.device)
        seen = (_resized(images, self._side or images.shape[2:]) + 1) / 2
        logits = self.network(pixel_values=(seen - self._mean) / self._deviation).logits.float()  # a quarter
        return torch.einsum("bshw,sk->bkhw", _resized(logits, images.shape[2:]).softmax(1), self._into)


class MediaPipeTeacher:
    """MediaPipe's person segmentation (``selfie_multiclass_256x256``) as a teacher, mapped to a task.

    Args:
        model: the file ``selfie_multiclass_256x256.tflite``; the package brings none.
        task: ``"parts"``, ``"occlusion"`` or a task of one's own.

    Raises:
        TeacherError: mediapipe is not installed, or there is no such file, or a broken one.
    """

    def __init__(self, model: str | Path, task: str | Task = "parts"):
        target = task_by_name(task)
        vision, options = _mediapipe(model, SELFIE_MODEL, "MediaPipeTeacher")
        settings = vision.ImageSegmenterOptions(base_options=options, output_confidence_masks=True)
        self._segmenter = _opened(vision.ImageSegmenter, settings, model)
        self._into = _into(list(SELFIE_PARTS), SELFIE_PARTS, target.members, target.classes, str(model))
        self.name, self.classes = Path(model).stem, target.classes
        self.version = hashlib.sha256(Path(model).read_bytes()).hexdigest()[:12]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of ``images``; see :class:`Teacher`."""
        found = []
        for picture in _pictures(images):
            masks = self._segmenter.segment(picture).confidence_masks
            if len(masks) != len(self._into):
                raise TeacherError(
                    f"model: expected masks of the classes {list(SELFIE_PARTS)}, got {len(masks)} masks"
                )
            # A copy: the view ends with MediaPipe's own image.
            found.append(np.stack([np.array(mask.numpy_view()).squeeze() for mask in masks]))
        probabilities = torch.einsum("bshw,sk->bkhw", torch.from_numpy(np.stack(found)), self._into)
        return probabilities / probabilities.sum(1, keepdim=True)


class MediaPipeExtent:
    """The face oval of MediaPipe's 468 landmarks, of the face it is surest of.

    It reaches from the chin to the middle of the forehead, also where something covers the face.

    Args:
        model: the file ``face_landmarker.task``; the package brings none.

    Raises:
        TeacherError: mediapipe is not installed, or there is no such file, or a broken one.
    """

    def __init__(self, model: str | Path):
        vision, options = _mediapipe(model, LANDMARK_MODEL, "MediaPipeExtent")
        settings = vision.FaceLandmarkerOptions(base_options=options, num_faces=1)
        self._detector = _opened(vision.FaceLandmarker, settings, model)
        oval = vision.FaceLandmarksConnections.FACE_LANDMARKS_FACE_OVAL
        self._oval = sorted({line.start for line in oval})
        self.name = Path(model).stem

    def __call__(self, images: torch.Tensor, ids: Sequence[str]) -> list[np.ndarray | None]:
        """Return the contours of ``images``; see :class:`FaceExtent`."""
        _ids(images, ids)
        faces = [self._detector.detect(picture).face_landmarks for picture in _pictures(images)]
        scale = images.shape[3], images.shape[2]  # landmarks are parts of width and height
        return [
            np.array([(face[0][i].x, face[0][i].y) for i in self._oval]) * scale if face else None
            for face in faces
        ]


class DrawnExtent:
    """The outline of drawn faces, which is exact.

    Args:
        folder: a data set of :func:`~synthetic_faces.prepare_synthetic`.

    Raises:
        DatasetError: the folder is not such a data set.
    """

    name = "drawn"

    def __init__(self, folder: str | Path):
        self.folder, self._size = Path(folder), read_info(folder).size
        if not (self.folder / "complete").is_dir():
            raise DatasetError(f"folder: expected drawn faces with complete/, got {self.folder} without it")

    def __call__(self, images: torch.Tensor, ids: Sequence[str]) -> list[np.ndarray | None]:
        """Return the contours of ``images``; see :class:`FaceExtent`.

        Raises:
            ValueError: an id is not in the folder.
        """
        from synthetic_faces import read_truth  # brings the whole workshop that draws

        _ids(images, ids)
        contours = []
        for id in ids:
            try:
                _, face, contour, _ = read_truth(self.folder, id)
            except FileNotFoundError:
                raise ValueError(f"ids: expected samples of {self.folder}, got {id!r}") from None
            scale = images.shape[3] / self._size, images.shape[2] / self._size
            contours.append(contour * scale if face.any() else None)
        return contours


class TeacherExtent:
    """The hull of the face that a teacher sees: for any photograph, without landmarks or more weights.

    Of the largest connected piece of face. An occlusion inside the face, or one that leaves face on both
    sides of it, lies in the hull; one at the rim, such as a hand on the chin, is lost, and the face then
    looks smaller. If the teacher counts neck and ears as face (the task ``"parts"``), so does the hull.

    Args:
        teacher: who sees the face; it is asked anew, so it works twice where its probabilities are used
            too. :func:`mask_contour` makes contours of masks that are there already.
        least: part of the image that a face covers at least; less is no face.

    Raises:
        ValueError: the teacher has no class ``"face"``.
    """

    def __init__(self, teacher: Teacher, least: float = 0.01):
        if "face" not in teacher.classes:
            raise ValueError(f"teacher: expected one with a class 'face', got {teacher.classes}")
        self.teacher, self.least = teacher, least
        self.name = f"hull of {teacher.name}"

    def __call__(self, images: torch.Tensor, ids: Sequence[str]) -> list[np.ndarray | None]:
        """Return the contours of ``images``; see :class:`FaceExtent`."""
        _ids(images, ids)
        seen = self.teacher(images).argmax(1) == self.teacher.classes.index("face")  # [B, H, W]
        return [mask_contour(mask, self.least) for mask in seen.cpu().numpy()]


def mask_contour(mask: np.ndarray, least: float = 0.0) -> np.ndarray | None:
    """Return the corners of the convex hull of a mask's largest 4-connected piece.

    Args:
        mask: bool ``[H,W]``.
        least: part of the image that the piece covers at least.

    Returns:
        float ``[P,2]``, (x, y) in pixels, around whole pixels; None if there is no such piece.

    >>> mask_contour(np.array([[1, 0, 0], [0, 1, 1]], bool)).tolist()
    [[1.0, 1.0], [3.0, 1.0], [3.0, 2.0], [1.0, 2.0]]
    """
    pieces, _ = ndimage.label(mask)
    size = np.bincount(pieces.ravel())[1:]
    if not size.size or size.max() < least * mask.size:
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


def _extra(package: str, extra: str, who: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise TeacherError(
            f"{who}: expected {package}, which is not here ({error}). Install it with: "
            f"pip install 'consensus-lib[{extra}]'   (in a checkout: pip install -e '.[{extra}]')"
        ) from None


def _mediapipe(model: str | Path, address: str, who: str) -> tuple[ModuleType, object]:
    """Return MediaPipe's vision tasks and the options that name the model file."""
    tasks = _extra("mediapipe", "mediapipe", who).tasks
    if not Path(model).is_file():
        raise TeacherError(
            f"model: expected the file {Path(address).name}, found none at {model}. The package brings no "
            f"models; this one is at {MEDIAPIPE_MODELS}{address}"
        )
    return tasks.vision, tasks.BaseOptions(model_asset_path=str(model))


def _opened(kind: type, settings: object, model: str | Path):
    try:
        return kind.create_from_options(settings)
    except (RuntimeError, ValueError) as error:
        raise TeacherError(
            f"model: expected {model} to be a model for {kind.__name__}, got: {error}"
        ) from None


def _into(names, members, sources, classes, who: str) -> torch.Tensor:
    """Return float ``[S,K]``: 1 where a class of the model is part of a class of the task."""
    unknown = [name for name in names if name not in members]
    if unknown:
        raise TeacherError(
            f"{who}: expected classes among {sorted(members)}, got {names} with {unknown}; "
            "say with members= which class of the task each is part of"
        )
    into = torch.zeros(len(names), len(classes))
    for number, name in enumerate(names):
        if members[name] not in sources:
            raise TeacherError(
                f"members[{name!r}]: expected one of {sorted({*sources, *CLASSES})}, got {members[name]!r}"
            )
        into[number, classes.index(sources[members[name]])] = 1
    return into


def _side(prepare: Mapping) -> tuple[int, int] | None:
    """Return the height and width that a preprocessor resizes to, None if it does not."""
    size = prepare.get("size", 512)
    if not prepare.get("do_resize", True):
        return None
    if isinstance(size, int):
        return size, size
    edge = size.get("shortest_edge", 512)
    return size.get("height", edge), size.get("width", edge)


def _images(images: torch.Tensor) -> torch.Tensor:
    if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"images: expected floats [B,3,H,W], got {images.dtype} {list(images.shape)}")
    if images.numel() and not images.abs().max() <= 1.001:  # NaN fails, too
        low, high = (float(value) for value in images.aminmax())
        raise ValueError(f"images: expected values in [-1, 1], got {low:g}..{high:g}")
    return images


def _ids(images: torch.Tensor, ids: Sequence[str]) -> None:
    if len(ids) != len(_images(images)):
        raise ValueError(f"ids: expected one for each of {len(images)} images, got {len(ids)}")


def _pictures(images: torch.Tensor) -> list:
    """Return images as MediaPipe takes them."""
    mediapipe = importlib.import_module("mediapipe")
    pixels = (
        _images(images).add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    )  # [B, H, W, 3]
    return [
        mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture)
        for picture in pixels.cpu().contiguous().numpy()
    ]


def _resized(maps: torch.Tensor, side: Sequence[int]) -> torch.Tensor:
    if tuple(maps.shape[2:]) == tuple(side):
        return maps
    shrinks = side[0] < maps.shape[2] or side[1] < maps.shape[3]
    return F.interpolate(maps, tuple(side), mode="bilinear", align_corners=False, antialias=shrinks)

"""``FaceParser``: from a photograph to the masks of the faces in it.

Find the faces, cut each out as the training images were, predict, and lay the result back at the photograph's
own size. The networks ``"parts"`` and ``"occlusion"`` come with the package (``models/weights``, with a model
card); they were trained on rendered faces alone. ``python -m consensus_lib parse`` is the same as a command.
"""

import dataclasses
import importlib.resources
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from consensus_lib.data.dataset import as_images
from consensus_lib.data.tasks import sides
from consensus_lib.models.photo import (
    FACE_SHARE,
    Box,
    PhotoError,
    check_box,
    convex_hull,
    cut_window,
    find_faces,
    open_photo,
    paste_window,
    window_of,
)
from consensus_lib.models.pretrained import PRETRAINED, WeightsError, load_weights
from consensus_lib.paths import atomic
from consensus_lib.training.checkpoint import CheckpointError, load_checkpoint
from consensus_lib.training.devices import pick_device

LEAST_FACE = 0.5
"""A found box whose pixels are background more often than this holds no face."""


@dataclasses.dataclass(frozen=True)
class ParsedFace:
    """One face of a photograph of H×W pixels.

    Attributes:
        labels: uint8 ``[H,W]``, the class of each pixel; background outside ``window``.
        box: of the face: left, top, right, bottom, in pixels of the photograph.
        window: what the network saw, in the same terms; it may reach beyond the photograph.
        classes: names of the K classes.
        colours: one ``(red, green, blue)`` for each class.
        seen: the network's probabilities, float32 ``[K,S,S]``, of the window.
        seen_complete: the probability that the complete face, hidden parts included, is there, float32
            ``[S,S]``; None where the network does not tell.
    """

    labels: np.ndarray
    box: Box
    window: Box
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    seen: np.ndarray
    seen_complete: np.ndarray | None = None

    @property
    def probabilities(self) -> np.ndarray:
        """Probabilities float32 ``[K,H,W]`` at the photograph's size; they sum to 1."""
        whole = np.zeros((len(self.classes), *self.labels.shape), np.float32)
        whole[0] = 1
        inside, part = paste_window(torch.from_numpy(self.seen), self.window, self.labels.shape)
        whole[:, *inside] = part.numpy()
        return whole

    @property
    def complete(self) -> np.ndarray | None:
        """The complete face, bool ``[H,W]``: the convex hull of where it is likelier than not."""
        if self.seen_complete is None:
            return None
        whole = np.zeros(self.labels.shape, bool)
        inside, part = paste_window(
            torch.from_numpy(self.seen_complete)[None], self.window, self.labels.shape
        )
        whole[inside] = part[0].numpy() > 0.5
        return convex_hull(whole)


class FaceParser:
    """Masks of the faces in photographs.

    Args:
        network: images float ``[B,3,S,S]`` in [-1, 1] → logits ``[B,K,S,S]``.
        classes: names of the K classes; the first is the background.
        size: S, the side in pixels at which the network looks at a face.
        colours: one for each class; None makes some.
        flip: average with the prediction of the mirrored face; twice the time. Classes whose
            names differ in left and right alone change places in it.
        device: see :func:`consensus_lib.training.pick_device`.

    >>> parser = FaceParser.from_pretrained("parts")              # doctest: +SKIP
    >>> faces = parser(skimage.data.astronaut())                  # doctest: +SKIP
    >>> faces[0].labels.shape                                     # doctest: +SKIP
    (512, 512)
    """

    def __init__(
        self,
        network: nn.Module,
        classes: Sequence[str],
        size: int,
        *,
        colours: Sequence[tuple[int, int, int]] | None = None,
        flip: bool = True,
        device: str = "auto",
    ):
        self.device = pick_device(device)
        self.network = network.to(self.device).eval()
        self.classes, self.size, self.flip = tuple(classes), size, flip
        other = dict(pair[::step] for pair in sides(self.classes) for step in (1, -1))
        self._mirror = [self.classes.index(other.get(name, name)) for name in self.classes]
        self.colours = tuple(map(tuple, colours or _colours(len(self.classes))))

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike, **options) -> "FaceParser":
        """Return a parser with trained weights.

        Args:
            source: one of :data:`PRETRAINED`; a file of :func:`save_weights`; or the folder that a training
                left.
            options: ``flip`` and ``device`` of the class.

        Raises:
            WeightsError: there are none, or they are broken.
        """
        if source in PRETRAINED:
            source = importlib.resources.files("consensus_lib.models") / f"weights/{source}.safetensors"
        source = Path(source)
        if source.is_dir():
            try:
                network, state = load_checkpoint(source)
            except CheckpointError as error:
                raise WeightsError(str(error)) from None
            return cls(network, state["classes"], state["settings"]["size"], **options)
        network, about = load_weights(source)
        return cls(network, about["classes"], about["size"], colours=about["colours"], **options)

    @torch.inference_mode()
    def predict(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the probabilities of faces that are cut out already.

        Args:
            images: float ``[B,3,S,S]`` in [-1, 1].

        Returns:
            float ``[B,K,S,S]``, and the probability of the complete face ``[B,S,S]`` or None.
        """
        images = images.to(self.device)
        views = [images, images.flip(3)] if self.flip else [images]
        if getattr(self.network, "inside", None):
            seen, complete = zip(*map(self.network.with_complete, views), strict=True)
            complete = sum([complete[0], *(view.flip(2) for view in complete[1:])]) / len(views)
        else:
            seen, complete = map(self.network, views), None
        seen = [view.softmax(1) for view in seen]
        seen[1:] = [view.flip(3)[:, self._mirror] for view in seen[1:]]
        return sum(seen) / len(views), complete

    def export_onnx(self, file: str | os.PathLike) -> None:
        """Write the network as an ONNX model, any number of faces float32 ``[B,3,S,S]`` in [-1, 1] → logits.

        Its metadata have ``classes`` (JSON) and ``size``. The caller finds, cuts out and lays back the faces,
        and nothing is flipped.

        Raises:
            ModuleNotFoundError: the extra ``onnx`` is not installed.
        """
        try:
            import onnxscript  # noqa: F401 - torch's exporter needs it, and says so less clearly
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"{error}: pip install 'consensus-lib[onnx]'") from None
        example = torch.zeros(2, 3, self.size, self.size, device=self.device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about torch
            program = torch.onnx.export(
                self.network,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes={"image": {0: "faces"}},
            )
        program.model.metadata_props.update(classes=json.dumps(self.classes), size=str(self.size))
        with atomic(file) as part:
            program.save(part)

    def __call__(
        self,
        photo: str | os.PathLike | Image.Image | np.ndarray,
        boxes: Sequence[Box] | None = None,
        whole: bool = False,
    ) -> list[ParsedFace]:
        """Return the faces of a photograph, largest first.

        Args:
            photo: a file, a PIL image, or uint8 ``[H,W,3]``, ``[H,W,4]`` or ``[H,W]``; the orientation of
                EXIF data is applied, transparency laid over white.
            boxes: of the faces, from brow to chin, as left, top, right, bottom in pixels; None finds them.
            whole: take the whole picture as one face, cut out as the training images are.

        Raises:
            PhotoError: it is no photograph, or no face is found.
            ValueError: a box is empty or outside the photograph.
        """
        picture = open_photo(photo)
        width, height = picture.size
        if whole:
            side = max(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            places = [((0.0, 0.0, float(width), float(height)), (left, top, left + side, top + side))]
        else:
            found = find_faces(picture) if boxes is None else [check_box(box, picture.size) for box in boxes]
            if not found:
                raise _no_face(photo)
            places = [(box, window_of(box)) for box in found]
        cuts = np.stack([cut_window(picture, window, self.size) for _, window in places])
        seen, complete = self.predict(as_images(cuts))
        faces = []
        for number, (box, window) in enumerate(places):
            if boxes is None and not whole and not _holds_a_face(seen[number]):
                continue
            labels = np.zeros((height, width), np.uint8)
            inside, part = paste_window(seen[number], window, labels.shape)
            labels[inside] = part.argmax(0).cpu().numpy()
            hidden = None if complete is None else complete[number].cpu().numpy()
            seen_here = seen[number].float().cpu().numpy()
            faces.append(ParsedFace(labels, box, window, self.classes, self.colours, seen_here, hidden))
        if not faces:
            raise _no_face(photo)
        return faces


def _holds_a_face(seen: torch.Tensor) -> bool:
    """Say whether the network, too, sees something in the middle of a window that the detector found."""
    inner = round(seen.shape[1] * (1 - FACE_SHARE) / 2)
    return float(1 - seen[0, inner:-inner, inner:-inner].mean()) > LEAST_FACE


def _no_face(photo) -> PhotoError:
    name = photo if isinstance(photo, str | os.PathLike) else "photo"
    return PhotoError(f"{name}: no face found; `whole` (--whole) takes the whole picture as one face")


def _colours(count: int) -> list[tuple[int, int, int]]:
    """Return black and ``count - 1`` colours that differ in hue: steps of the golden section."""
    hues = [(0.55 + 0.618034 * number) % 1 for number in range(count - 1)]
    wheel = Image.fromarray(np.array([[[round(255 * hue), 180, 230] for hue in hues]], np.uint8), "HSV")
    return [(0, 0, 0), *map(tuple, np.asarray(wheel.convert("RGB"))[0].tolist())]

import sys

import numpy as np
import pytest
import skimage.data
import torch
from torch import nn

from consensus_lib import paths
from consensus_lib.data import FaceDataset
from consensus_lib.data.dataset import as_images
from consensus_lib.losses import pixelwise_loss
from consensus_lib.models.networks import FaceOccNet, UNet
from consensus_lib.teacher.teachers import (
    MediaPipeExtent,
    NetworkTeacher,
    ParserExtent,
    ParserTeacher,
    TeacherExtent,
    weights_version,
)
from consensus_lib.training import CheckpointError, fit
from synthetic_faces import Recipe, draw_face

CLASSES = ("background", "face", "hair")


def images(count=2, height=32, width=32):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def network(kind=FaceOccNet):
    torch.manual_seed(0)
    return kind(3, width=0.125)


def check_probabilities(found, count, classes, height, width):
    assert found.shape == (count, classes, height, width)
    assert found.min() >= 0
    torch.testing.assert_close(found.sum(1), torch.ones(count, height, width))


def test_a_network_gives_its_probabilities():
    teacher = NetworkTeacher(network(), CLASSES, device="cpu")
    expected = network().eval()(images()).softmax(1)
    torch.testing.assert_close(teacher(images()), expected, rtol=1e-3, atol=1e-4)
    assert (teacher.name, teacher.classes) == ("FaceOccNet-0.125", CLASSES)


def test_a_network_sees_images_at_its_own_size():
    teacher = NetworkTeacher(network(UNet), CLASSES, size=32, device="cpu")
    check_probabilities(teacher(images(2, 50, 75)), 2, 3, 50, 75)
    check_probabilities(teacher(images(2, 20, 20)), 2, 3, 20, 20)


@pytest.mark.parametrize("upright", [False, True])
def test_a_network_sees_no_aliasing_in_either_direction(upright):
    class Seen(nn.Module):
        def forward(self, image):
            self.image = image
            return image

    stripes = torch.ones(1, 3, 16, 64)  # one side grows, the other shrinks
    stripes[..., 1::2] = -1
    seen = Seen()
    NetworkTeacher(seen, CLASSES, size=32, device="cpu")(stripes.mT if upright else stripes)
    assert seen.image[:, :, 2:-2, 2:-2].abs().max() < 0.02  # even grey


def test_a_training_folder_is_a_teacher(tiny_folder, tmp_path):
    data, model, run = (
        FaceDataset(tiny_folder, "train", "parts", progress=False),
        network(UNet),
        tmp_path / "run",
    )
    fit(model, data, pixelwise_loss, epochs=1, batch_size=4, device="cpu", progress=False, out=run)
    teacher = NetworkTeacher(run, device="cpu")
    assert (teacher.size, teacher.name, teacher.classes) == (32, "UNet-0.125", CLASSES)
    assert teacher.version == weights_version(model)
    check_probabilities(teacher(images(1, 40, 40)), 1, 3, 40, 40)
    with pytest.raises(CheckpointError, match=tmp_path.name):
        NetworkTeacher(tmp_path)


def test_a_version_changes_with_any_weight():
    model, before = network(), weights_version(network())
    assert weights_version(model) == before
    with torch.no_grad():
        model.head.bias[1] += 1e-6
    assert weights_version(model) != before


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(2, 32, 32, 3),
        torch.zeros(3, 32, 32),
        torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        torch.full((2, 3, 32, 32), 255.0),
        torch.full((2, 3, 32, 32), torch.nan),
    ],
    ids=["channels last", "one image", "bytes", "0..255", "NaN"],
)
def test_wrong_images_are_refused(wrong):
    with pytest.raises(ValueError, match="images"):
        NetworkTeacher(network(), CLASSES, device="cpu")(wrong)


def test_other_classes_are_refused():
    with pytest.raises(ValueError, match="classes"):
        NetworkTeacher(network(), device="cpu")
    with pytest.raises(ValueError, match="network"):
        NetworkTeacher(network(), ("background", "face"), device="cpu")(images())
    with pytest.raises(ValueError, match="teacher"):
        TeacherExtent(NetworkTeacher(network(), ("background", "person", "hair"), device="cpu"))
    with pytest.raises(ValueError, match="teacher"):
        ParserExtent("parts")


class Bright:
    """A teacher to whom bright pixels are face."""

    name, version, classes = "bright", "1", ("background", "face")

    def __call__(self, images):
        face = (images.mean(1) > 0).float()
        return torch.stack([1 - face, face], 1)


def test_the_teachers_own_hull_bridges_what_lies_inside():
    picture = -torch.ones(3, 3, 20, 30)
    picture[0, :, 4:16, 5:25] = 1
    picture[0, :, 8:12, 10:30] = -1  # an occlusion that leaves face around most of it
    picture[1, :, 3, 3] = 1  # a speck is no face
    masks = TeacherExtent(Bright())(picture)
    assert masks[0].sum() == 12 * 20
    assert not masks[1:].any()


@pytest.mark.slow
def test_the_shipped_parser_is_a_teacher_and_tells_the_complete_face():
    samples = [draw_face(7, index, 128, recipe=Recipe(occluded=1.0)) for index in range(12)]
    images, truth = as_images(np.stack([s.image for s in samples])), np.stack([s.face for s in samples])
    teacher = ParserTeacher()
    check_probabilities(teacher(images[:2]), 2, 3, 128, 128)
    assert teacher.classes == ("background", "face", "occlusion")
    assert ParserTeacher("parts").version != teacher.version
    masks, hulls = ParserExtent()(images), ParserExtent(hull=True)(images)
    assert (masks <= hulls).all()

    def iou(found):
        return ((found & truth).sum((1, 2)) / (found | truth).sum((1, 2))).mean()

    assert iou(masks) > 0.85
    assert iou(masks) > iou(TeacherExtent(teacher)(images)) + 0.02


@pytest.mark.slow
def test_landmarks_tell_the_face_of_a_photograph():
    pytest.importorskip("mediapipe", reason="the extra mediapipe is not installed")
    model = paths.data_dir() / "face_landmarker.task"
    if not model.is_file():
        pytest.skip(f"MediaPipe's model is not in the data folder, {model}")
    portrait = skimage.data.astronaut()[20:230, 110:320]
    face, nothing = MediaPipeExtent(model)(as_images(np.stack([portrait, np.zeros_like(portrait)])))
    assert not nothing.any()
    assert face[75:150, 80:155].all()  # from the eyes to the mouth
    assert 0.15 < face.mean() < 0.35
    assert not face[:, :60].any()


def test_what_landmarks_need_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(ModuleNotFoundError, match="mediapipe"):
        MediaPipeExtent(tmp_path / "face_landmarker.task")

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from consensus_lib.data import DatasetError, FaceDataset, Task
from consensus_lib.losses import pixelwise_loss
from consensus_lib.models.networks import FaceOccNet, UNet
from consensus_lib.teacher import teachers as teachers
from consensus_lib.teacher.factorise import hull_mask
from consensus_lib.teacher.teachers import (
    DrawnExtent,
    MediaPipeExtent,
    MediaPipeTeacher,
    NetworkTeacher,
    SegformerTeacher,
    TeacherError,
    TeacherExtent,
    mask_contour,
    weights_version,
)
from consensus_lib.training import CheckpointError, fit
from synthetic_faces import prepare_synthetic, read_truth

CLASSES = ("background", "face", "hair")


def images(count=2, height=32, width=32):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def network(kind=FaceOccNet, classes=3):
    torch.manual_seed(0)
    return kind(classes, width=0.125)


def check_probabilities(found, count, classes, height, width):
    assert found.shape == (count, classes, height, width)
    assert found.min() >= 0
    torch.testing.assert_close(found.sum(1), torch.ones(count, height, width))


# --- networks


@pytest.mark.parametrize("kind", [FaceOccNet, UNet])
def test_a_network_gives_its_probabilities(kind):
    teacher = NetworkTeacher(network(kind), CLASSES, device="cpu")
    found = teacher(images())
    check_probabilities(found, 2, 3, 32, 32)
    torch.testing.assert_close(found, network(kind).eval()(images()).softmax(1), rtol=1e-3, atol=1e-4)
    assert teacher.name == f"{kind.__name__}-0.125"
    assert teacher.classes == CLASSES


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
    data = FaceDataset(tiny_folder, "train", "parts", progress=False)
    model = network(UNet)
    fit(
        model,
        data,
        pixelwise_loss,
        epochs=1,
        batch_size=4,
        device="cpu",
        progress=False,
        out=tmp_path / "run",
    )
    teacher = NetworkTeacher(tmp_path / "run", device="cpu")
    assert teacher.classes == CLASSES
    assert (teacher.size, teacher.name) == (32, "UNet-0.125")
    assert teacher.version == weights_version(model)
    check_probabilities(teacher(images(1, 40, 40)), 1, 3, 40, 40)
    with pytest.raises(CheckpointError, match="expected a training folder"):
        NetworkTeacher(tmp_path)


def test_a_version_changes_with_any_weight():
    model = network()
    before = weights_version(model)
    assert before == weights_version(network())
    assert len(before) == 12
    with torch.no_grad():
        model.head.bias[1] += 1e-6
    assert weights_version(model) != before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(2, 32, 32, 3), "images: expected floats"),
        (torch.zeros(3, 32, 32), "images: expected floats"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "images: expected floats"),
        (torch.full((2, 3, 32, 32), 255.0), r"images: expected values in \[-1, 1\], got 255..255"),
        (torch.full((2, 3, 32, 32), torch.nan), "images: expected values"),
    ],
)
def test_wrong_images_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        NetworkTeacher(network(), CLASSES, device="cpu")(wrong)


def test_other_classes_are_refused():
    with pytest.raises(ValueError, match="classes: expected names"):
        NetworkTeacher(network(), device="cpu")
    with pytest.raises(ValueError, match="network: expected logits of 2 classes"):
        NetworkTeacher(network(), ("background", "face"), device="cpu")(images())
    with pytest.raises(ValueError, match="size: expected at least 1 pixel"):
        NetworkTeacher(network(), CLASSES, size=0, device="cpu")


# --- extents


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces") / "drawn"
    return prepare_synthetic(folder, counts={"train": 2}, size=64, workers=0, progress=False)


@pytest.mark.parametrize("side", [64, 32, 96])
def test_drawn_faces_know_their_outline(drawn, side):
    contours = DrawnExtent(drawn)(images(2, side, side), ["train_000001", "train_000000"])
    for contour, id in zip(contours, ("train_000001", "train_000000"), strict=True):
        _, face, truth, _ = read_truth(drawn, id)
        np.testing.assert_allclose(contour, truth * side / 64)
        assert hull_mask(contour, side, side).mean() == pytest.approx(face.mean(), rel=0.08)


def test_ids_and_folders_that_are_not_drawn_are_refused(drawn, tiny_folder):
    with pytest.raises(ValueError, match=r"ids: expected samples of .*got 'nobody'"):
        DrawnExtent(drawn)(images(1), ["nobody"])
    with pytest.raises(ValueError, match="ids: expected one for each of 2 images, got 1"):
        DrawnExtent(drawn)(images(2), ["train_000000"])
    with pytest.raises(DatasetError, match="folder: expected drawn faces"):
        DrawnExtent(tiny_folder)


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
    contours = TeacherExtent(Bright())(picture, ["a", "b", "c"])
    assert contours[1] is None
    assert contours[2] is None
    assert hull_mask(contours[0], 20, 30).nonzero()[0].size == 12 * 20
    with pytest.raises(ValueError, match="teacher: expected one with a class 'face'"):
        TeacherExtent(NetworkTeacher(network(), ("background", "person", "hair"), device="cpu"))


def test_the_hull_of_a_mask_holds_its_largest_piece():
    rng = np.random.default_rng(0)
    mask = rng.random((15, 20)) < 0.5
    mask[3:8, 4:9] = True
    hull = hull_mask(mask_contour(mask), 15, 20)
    assert hull[3:8, 4:9].all()
    assert mask_contour(np.zeros((4, 4), bool)) is None


# --- Hugging Face

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
PARSER = ("background", "skin", "l_eye", "r_eye", "hair", "hat")


def save_segformer(folder, names=PARSER, prepare=None):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        depths=[1] * 4,
        hidden_sizes=[8] * 4,
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=8,
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )
    model = transformers.SegformerForSemanticSegmentation(config)
    model.save_pretrained(folder)
    if prepare is not None:
        (folder / "preprocessor_config.json").write_text(
            json.dumps({"image_processor_type": "SegformerImageProcessor", **prepare})
        )
    return model.eval()


@needs_transformers
@pytest.mark.parametrize("task", ["parts", "occlusion"])
def test_a_segformer_is_mapped_to_the_task(tmp_path, task):
    prepare = {
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.5, 0.25],
        "size": {"height": 64, "width": 64},
    }
    model = save_segformer(tmp_path / "tiny", prepare=prepare)
    teacher = SegformerTeacher(tmp_path / "tiny", task, device="cpu")
    found = teacher(images(2, 32, 48))
    check_probabilities(found, 2, 3, 32, 48)

    seen = nn.functional.interpolate(images(2, 32, 48), (64, 64), mode="bilinear") / 2 + 0.5
    seen = (seen - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.5, 0.25]).view(3, 1, 1)
    with torch.no_grad():
        source = nn.functional.interpolate(model(seen).logits, (32, 48), mode="bilinear").softmax(1)
    face = source[:, 1:4].sum(1)
    third = source[:, 4 if task == "parts" else 5]
    torch.testing.assert_close(found[:, 1], face)
    torch.testing.assert_close(found[:, 2], third)
    assert teacher.classes == ("background", "face", "hair" if task == "parts" else "occlusion")
    assert (teacher.name, teacher.version) == ("tiny", weights_version(model))


@needs_transformers
def test_a_segformer_without_a_preprocessor_looks_at_512_pixels(tmp_path):
    save_segformer(tmp_path / "tiny")
    teacher = SegformerTeacher(tmp_path / "tiny", device="cpu")
    assert teacher._side == (512, 512)
    torch.testing.assert_close(teacher._mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    check_probabilities(SegformerTeacher(tmp_path / "tiny", size=32, device="cpu")(images()), 2, 3, 32, 32)


@needs_transformers
def test_a_segformer_of_other_classes_names_them(tmp_path):
    save_segformer(tmp_path / "streets", ("road", "skin"))
    with pytest.raises(
        TeacherError, match=r"expected classes among .*got \['road', 'skin'\] with \['road'\]"
    ):
        SegformerTeacher(tmp_path / "streets", device="cpu")
    members = {"road": "background", "skin": "skin"}
    assert (
        SegformerTeacher(tmp_path / "streets", members=members, size=32, device="cpu")(images()).shape[1] == 3
    )
    with pytest.raises(TeacherError, match=r"members\['road'\]: expected one of .*got 'tarmac'"):
        SegformerTeacher(tmp_path / "streets", members={**members, "road": "tarmac"}, device="cpu")


@needs_transformers
def test_missing_or_foreign_weights_are_named(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for source in (tmp_path / "none", "nobody/nothing"):
        with pytest.raises(TeacherError, match=r"hf download .* fetches one"):
            SegformerTeacher(source, device="cpu")
    assert not (tmp_path / "cache").exists()
    save_segformer(tmp_path / "tiny")
    (tmp_path / "tiny/model.safetensors").unlink()
    with pytest.raises(TeacherError, match=r"config\.json and model\.safetensors, got: Error no file"):
        SegformerTeacher(tmp_path / "tiny", device="cpu")
    (tmp_path / "tiny/config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(TeacherError, match=r"expected a config\.json of model_type 'segformer', got 'bert'"):
        SegformerTeacher(tmp_path / "tiny", device="cpu")


@needs_transformers
def test_weights_that_lack_a_layer_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    save_segformer(tmp_path / "tiny")
    file = tmp_path / "tiny/model.safetensors"
    tensors = load_file(file)
    tensors.pop("decode_head.classifier.weight")
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(TeacherError, match=r"expected all weights .*decode_head\.classifier\.weight"):
        SegformerTeacher(tmp_path / "tiny", device="cpu")


@pytest.mark.parametrize(
    ("make", "package"),
    [
        (SegformerTeacher, "transformers"),
        (lambda: MediaPipeTeacher("x.tflite"), "mediapipe"),
        (lambda: MediaPipeExtent("x.task"), "mediapipe"),
    ],
)
def test_a_missing_extra_says_what_to_install(monkeypatch, make, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TeacherError, match=rf"expected {package}.*pip install 'consensus-lib\[\w+\]'"):
        make()


# --- MediaPipe, of which a stand-in with its names is enough


class FakeTask:
    """Stands for both tasks: the left third of a picture is face, and a black picture has no face."""

    def __init__(self, **options):
        self.options = options

    @classmethod
    def create_from_options(cls, options):
        if Path(options.options["base_options"].options["model_asset_path"]).read_bytes() != b"model":
            raise RuntimeError("no archive")
        return cls(options=options)

    def segment(self, picture):
        masks = np.full((6, *picture.data.shape[:2], 1), 0.04, np.float32)
        masks[3, :, : picture.data.shape[1] // 3] = 0.8
        return types.SimpleNamespace(
            confidence_masks=[types.SimpleNamespace(numpy_view=lambda mask=mask: mask) for mask in masks]
        )

    def detect(self, picture):
        points = [types.SimpleNamespace(x=i / 10, y=(i % 2) / 2) for i in range(10)]
        return types.SimpleNamespace(face_landmarks=[points] if picture.data.max() > 0 else [])


@pytest.fixture
def mediapipe(monkeypatch):
    line = types.SimpleNamespace
    vision = types.SimpleNamespace(
        ImageSegmenter=FakeTask,
        ImageSegmenterOptions=FakeTask,
        FaceLandmarker=FakeTask,
        FaceLandmarkerOptions=FakeTask,
        FaceLandmarksConnections=types.SimpleNamespace(
            FACE_LANDMARKS_FACE_OVAL=[line(start=8, end=1), line(start=1, end=4), line(start=4, end=8)]
        ),
    )
    fake = types.SimpleNamespace(
        Image=lambda image_format, data: types.SimpleNamespace(format=image_format, data=data),
        ImageFormat=types.SimpleNamespace(SRGB=1),
        tasks=types.SimpleNamespace(vision=vision, BaseOptions=FakeTask),
    )
    monkeypatch.setitem(sys.modules, "mediapipe", fake)


def test_landmarks_become_contours(mediapipe, tmp_path):
    (tmp_path / "face.task").write_bytes(b"model")
    pictures = torch.stack([torch.zeros(3, 20, 40), -torch.ones(3, 20, 40)])
    contours = MediaPipeExtent(tmp_path / "face.task")(pictures, ["a", "b"])
    np.testing.assert_allclose(contours[0], [[4, 10], [16, 0], [32, 0]])  # points 1, 4, 8 of the oval
    assert contours[1] is None


@pytest.mark.parametrize(("task", "third"), [("parts", 0.04), ("occlusion", 0.04)])
def test_person_segmentation_is_mapped_to_the_task(mediapipe, tmp_path, task, third):
    (tmp_path / "selfie.tflite").write_bytes(b"model")
    teacher = MediaPipeTeacher(tmp_path / "selfie.tflite", task)
    found = teacher(images(2, 10, 9))
    check_probabilities(found, 2, 3, 10, 9)
    face = 0.84 if task == "parts" else 0.8  # Part Labels counts the neck as face
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([1 - face - third, face, third]))
    assert (teacher.name, len(teacher.version)) == ("selfie", 12)


def test_a_teacher_takes_a_task_of_ones_own(mediapipe, tmp_path):
    (tmp_path / "selfie.tflite").write_bytes(b"model")
    members = dict.fromkeys(teachers.SELFIE_PARTS.values(), "rest") | {"hair": "hair"}
    task = Task("hair", ("rest", "hair"), ((0, 0, 0), (255, 0, 0)), members)
    teacher = MediaPipeTeacher(tmp_path / "selfie.tflite", task)
    assert teacher.classes == ("rest", "hair")
    torch.testing.assert_close(teacher(images(1, 4, 4))[0, :, 0, 0], torch.tensor([0.96, 0.04]))


def test_a_missing_model_file_says_where_it_is(mediapipe, tmp_path):
    with pytest.raises(TeacherError, match=r"selfie_multiclass_256x256\.tflite, found none at .*https://"):
        MediaPipeTeacher(tmp_path / "none.tflite")
    with pytest.raises(TeacherError, match=r"face_landmarker\.task, found none"):
        MediaPipeExtent(tmp_path / "none.task")
    (tmp_path / "broken.task").write_bytes(b"broken")
    with pytest.raises(TeacherError, match=r"broken\.task to be a model for FakeTask, got: no archive"):
        MediaPipeExtent(tmp_path / "broken.task")


def test_the_19_classes_of_celebamask_hq_serve_each_task():
    assert len(teachers.CELEBA_PARTS) == 19
    for name in ("parts", "occlusion"):
        members = teachers.task_by_name(name).members
        assert set(teachers.CELEBA_PARTS.values()) <= set(members)
        assert set(teachers.SELFIE_PARTS.values()) <= set(members)

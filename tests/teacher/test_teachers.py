import importlib.util
import json
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from consensus_lib.data import TASKS, FaceDataset
from consensus_lib.losses import pixelwise_loss
from consensus_lib.models.networks import FaceOccNet, UNet
from consensus_lib.teacher.factorise import hull_mask
from consensus_lib.teacher.teachers import (
    CELEBA_PARTS,
    NetworkTeacher,
    SegformerTeacher,
    TeacherError,
    TeacherExtent,
    mask_contour,
    weights_version,
)
from consensus_lib.training import CheckpointError, fit

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


# --- extents


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
    assert teacher.size == 512
    check_probabilities(SegformerTeacher(tmp_path / "tiny", size=32, device="cpu")(images()), 2, 3, 32, 32)


@needs_transformers
def test_a_segformer_of_other_classes_names_them(tmp_path):
    save_segformer(tmp_path / "streets", ("road", "skin"))
    with pytest.raises(TeacherError, match=r"class_map: expected .*got {'road': None}"):
        SegformerTeacher(tmp_path / "streets", device="cpu")
    members = {"road": "background", "skin": "skin"}
    assert (
        SegformerTeacher(tmp_path / "streets", class_map=members, size=32, device="cpu")(images()).shape[1]
        == 3
    )
    with pytest.raises(TeacherError, match=r"class_map: expected .*got {'road': 'tarmac'}"):
        SegformerTeacher(tmp_path / "streets", class_map={**members, "road": "tarmac"}, device="cpu")


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
    weights = tmp_path / "tiny/model.safetensors"
    tensors = safetensors.torch.load_file(weights)
    tensors.pop("decode_head.classifier.weight")
    safetensors.torch.save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(TeacherError, match=r"expected all weights .*decode_head\.classifier\.weight"):
        SegformerTeacher(tmp_path / "tiny", device="cpu")
    weights.unlink()
    with pytest.raises(TeacherError, match=r"config\.json and model\.safetensors, got: Error no file"):
        SegformerTeacher(tmp_path / "tiny", device="cpu")
    (tmp_path / "tiny/config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(TeacherError, match=r"config\.json of model_type 'bert'"):
        SegformerTeacher(tmp_path / "tiny", device="cpu")


def test_a_missing_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(TeacherError, match=r"expected transformers.*pip install 'consensus-lib\[teacher\]'"):
        SegformerTeacher(device="cpu")


def test_the_19_classes_of_celebamask_hq_serve_each_task():
    assert len(CELEBA_PARTS) == 19
    for name in ("parts", "occlusion"):
        members = TASKS[name].members
        assert set(CELEBA_PARTS.values()) <= set(members)

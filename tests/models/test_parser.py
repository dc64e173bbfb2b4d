"""From a photograph to masks: opened right, faces found, masks at its size, files written whole."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import nn

from consensus_lib.data import TASKS
from consensus_lib.models import FaceOccNet, FaceParser, pretrained
from consensus_lib.models.parse_command import main
from consensus_lib.models.photo import PhotoError, convex_hull, find_faces, open_photo
from consensus_lib.models.pretrained import JointClasses, WeightsError, load_weights, save_weights

CLASSES = ("background", "face", "hair")
COLOURS = ((0, 0, 0), (86, 180, 233), (213, 94, 0))


class Disc(nn.Module):
    """A network that sees a face in the middle of whatever it is shown, and hair above it."""

    def forward(self, image):
        side = image.shape[-1]
        y, x = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
        face = x.square() + y.square() < 0.25
        hair = ~face & (y < -0.3) & (x.abs() < 0.5)
        return 9 * torch.stack([~(face | hair), face, hair]).float().expand(len(image), -1, -1, -1)


@pytest.fixture
def parser():
    return FaceParser(Disc(), CLASSES, 64, colours=COLOURS)


@pytest.fixture
def weights(tmp_path):
    """A file of weights of a small network that sees a face everywhere."""
    network = FaceOccNet(3, 0.0625)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor([0.0, 5.0, 0.0]))
    file = tmp_path / "small.safetensors"
    save_weights(file, network, 32, CLASSES, COLOURS)
    return file


@pytest.fixture
def portrait(tmp_path):
    """The file of a photograph with a face, in the public domain: NASA's portrait of Eileen Collins."""
    file = tmp_path / "a portrait.png"
    Image.fromarray(skimage.data.astronaut()).save(file)
    return file


def test_a_face_is_found_where_it_is_and_none_where_nobody_is():
    (left, top, right, bottom), *_ = find_faces(Image.fromarray(skimage.data.astronaut()))
    assert left < 224 < right  # the nose
    assert top < 115 < bottom
    assert 70 < right - left == bottom - top < 140
    assert find_faces(Image.new("RGB", (200, 120), "grey")) == []


def test_masks_have_the_size_of_the_photograph(parser):
    (face,) = parser(skimage.data.astronaut(), boxes=[(175, 66, 276, 167)])
    assert (face.labels.shape, face.labels.dtype) == ((512, 512), np.uint8)
    assert (face.labels[116, 225], face.labels[50, 225], face.labels[500, 20]) == (1, 2, 0)
    np.testing.assert_allclose(face.probabilities.sum(0), 1, atol=1e-5)
    assert (face.probabilities.argmax(0) == face.labels).all()
    assert face.complete is None
    (face,) = parser(
        np.zeros((40, 60, 3), np.uint8), boxes=[(-10, -10, 30, 30)]
    )  # it reaches over the border
    assert face.labels.shape == (40, 60)
    assert face.labels[10, 10] == 1


def test_the_whole_picture_is_one_face(parser):
    (face,) = parser(np.zeros((50, 80), np.uint8), whole=True)
    assert face.labels[25, 40] == 1
    assert face.labels[:, :10].max() == 0
    assert face.window == (0, -15, 80, 65)


def test_flips_are_averaged_and_exchange_left_and_right():
    class Halves(nn.Module):
        def forward(self, image):
            left = torch.zeros_like(image[:, 0])
            left[:, :, :4] = 9
            return torch.stack([image[:, 0], left, 9 - left], 1)

    image, classes = torch.randn(1, 3, 8, 8), ("background", "l_eye", "r_eye")
    one, _ = FaceParser(Halves(), classes, 8, flip=False).predict(image)
    torch.testing.assert_close(one, Halves()(image).softmax(1))
    mirrored = Halves()(image.flip(3)).softmax(1).flip(3)[:, [0, 2, 1]]
    torch.testing.assert_close(FaceParser(Halves(), classes, 8).predict(image)[0], (one + mirrored) / 2)


def test_joint_classes_sum_to_the_visible_ones_and_to_the_complete_face():
    joint = JointClasses(nn.Identity(), [[0, 1], [2], [3, 4]], [1, 2, 3])
    logits = torch.randn(2, 5, 4, 4)
    p = logits.softmax(1)
    seen = joint(logits).exp()
    torch.testing.assert_close(seen, torch.stack([p[:, 0] + p[:, 1], p[:, 2], p[:, 3] + p[:, 4]], 1))
    torch.testing.assert_close(joint.with_complete(logits)[1], p[:, 1:4].sum(1))


def test_a_complete_face_is_convex():
    class Ring(nn.Module):
        def forward(self, image):
            face = Disc()(image)[:, 1] > 0
            hole = torch.zeros_like(face)
            hole[:, 28:36, 28:36] = True
            return 20 * torch.stack([~face, ~face & face, face & ~hole, face & hole, ~face & face], 1).float()

    network = JointClasses(Ring(), [[0, 1], [2], [3, 4]], [1, 2, 3])
    parser = FaceParser(network, ("background", "face", "occlusion"), 64)
    (face,) = parser(np.zeros((64, 64, 3), np.uint8), whole=True)
    assert face.labels[32, 32] == 2
    assert face.complete[32, 32]
    steps = np.diff(np.pad(face.complete, 1).astype(int))
    assert (steps > 0).sum(1).max() == 1  # no row leaves it and comes back


def test_a_hull_holds_its_mask():
    mask = np.zeros((9, 9), bool)
    assert not convex_hull(mask).any()
    mask[1, 1] = mask[7, 1] = mask[7, 7] = True
    hull = convex_hull(mask)
    assert hull[mask].all()
    assert hull[4, 1]
    assert hull[5, 3]
    assert not hull[1, 7]


def test_boxes_outside_of_the_photograph_and_a_photograph_without_a_face_are_refused(parser):
    wall = np.full((40, 50, 3), 128, np.uint8)
    for box in ((5, 5, 5, 9), (9, 5, 5, 9), (50, 0, 60, 9), (0, 40, 9, 50)):
        with pytest.raises(ValueError, match="boxes"):
            parser(wall, boxes=[box])
    with pytest.raises(PhotoError, match="photo"):
        parser(wall)


@pytest.mark.parametrize(
    ("mode", "expected"),
    {"L": 128, "P": 128, "CMYK": 128, "I;16": 128, "RGBA": 191, "LA": 191, "1": 255}.items(),
)
def test_pictures_open_as_a_viewer_shows_them(tmp_path, mode, expected):
    grey = Image.new("RGB", (20, 10), (128, 128, 128))
    if mode == "I;16":
        picture = Image.fromarray(np.full((10, 20), 128 * 257, np.uint16))
    elif "A" in mode:
        grey.putalpha(128)
        picture = grey.convert(mode)
    else:
        picture = grey.quantize(2) if mode == "P" else grey.convert(mode, dither=Image.Dither.NONE)
    file = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    picture.save(file)
    opened = np.asarray(open_photo(file))
    assert opened.shape == (10, 20, 3)
    np.testing.assert_allclose(opened, expected, atol=2)


def test_a_rotated_photograph_is_upright(tmp_path):
    picture = Image.new("RGB", (40, 20), "black")
    picture.paste("white", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    picture.save(tmp_path / "x.jpg", exif=exif)
    opened = open_photo(tmp_path / "x.jpg")
    assert opened.size == (20, 40)
    assert opened.getpixel((10, 5))[0] > 200


def bad_photos(folder):
    """Write files that are no photographs, and return them; one of them is missing."""
    (folder / "text.png").write_text("not an image")
    (folder / "empty.jpg").touch()
    (folder / "folder.png").mkdir()
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    moved = Image.new("L", (20, 20), 255)
    Image.new("L", (20, 20)).save(folder / "moving.gif", save_all=True, append_images=[moved])
    Image.fromarray(skimage.data.astronaut()).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:5000])
    return [*sorted(folder.iterdir()), folder / "missing.png"]


def test_weights_survive_a_file(weights, tmp_path):
    network, about = load_weights(weights)
    assert about["classes"] == list(CLASSES)
    image = torch.randn(1, 3, 32, 32)
    assert (network.eval()(image).argmax(1) == 1).all()
    joint = JointClasses(FaceOccNet(5, 0.0625), [[0, 1], [2], [3, 4]], [1, 2, 3])
    save_weights(tmp_path / "joint.safetensors", joint, 32, CLASSES, COLOURS)
    again, _ = load_weights(tmp_path / "joint.safetensors")
    torch.testing.assert_close(again.eval()(image), joint.eval()(image), atol=0.05, rtol=0.05)
    assert (again.groups, again.inside) == (joint.groups, joint.inside)


SHIPPED = {
    "occlusion": "4f3e995654bdc21ce07e338381d19b98617e9e9b7c1c40bfe579fda960365796",
    "parts": "75434d5fa6de9fbdc3ca7a1495d7e4850a5a471ff731766f5dc72e380a4dec53",
    "parts-pixelwise": "a8fc1c84d7e727e3a257da8fa257a5048eaab555042d73047cc788f1c172a985",
}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_weights_that_come_with_the_package_see_a_face(name):
    file = Path(pretrained.__file__).parent / f"weights/{name}.safetensors"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == SHIPPED[name]
    assert file.stat().st_size <= 2_000_000
    face, *_ = FaceParser.from_pretrained(name)(skimage.data.astronaut())
    assert face.classes == TASKS[name.removesuffix("-pixelwise")].classes
    assert face.labels[116, 225] == 1  # the nose
    assert face.labels[20, 20] == 0
    assert (face.complete is not None) == (name == "occlusion")


@pytest.mark.slow
def test_an_exported_network_gives_the_same_labels(weights, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="the extra `onnx` brings onnxruntime")
    parser = FaceParser.from_pretrained(weights)
    parser.export_onnx(tmp_path / "x.onnx")
    session = runtime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    image = torch.randn(3, 3, 32, 32)
    (logits,) = session.run(None, {"image": image.numpy()})
    with torch.inference_mode():
        expected = parser.network(image)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert (logits.argmax(1) == expected.argmax(1).numpy()).all()
    about = session.get_modelmeta().custom_metadata_map
    assert about == {"classes": '["background", "face", "hair"]', "size": "32"}


def test_weights_that_are_none_are_refused(tmp_path, weights):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(weights.read_bytes()[:-100])
    for source in (broken, tmp_path / "missing.safetensors", "no-such-name", tmp_path):
        with pytest.raises(WeightsError, match=getattr(source, "name", source)):
            FaceParser.from_pretrained(source)


def test_the_command_writes_masks_overlays_and_a_summary(tmp_path, portrait, weights):
    out, box = tmp_path / "masks", ["--box", "175", "66", "276", "167"]
    assert main([str(portrait), f"--out={out}", f"--weights={weights}", *box]) == 0
    names = ["a portrait-overlay.png", "a portrait.png", "summary.csv"]
    assert sorted(file.name for file in out.iterdir()) == names
    mask = Image.open(out / "a portrait.png")
    assert (mask.mode, mask.size) == ("P", (512, 512))
    assert np.asarray(mask.convert("RGB"))[116, 225].tolist() == list(COLOURS[1])
    (row,) = csv.DictReader((out / "summary.csv").read_text(encoding="utf-8").splitlines())
    assert (row["mask"], row["face_components"], row["face_holes"]) == ("a portrait.png", "1", "0")


def test_photographs_of_one_stem_keep_their_masks_apart(tmp_path, weights):
    files = [tmp_path / name for name in ("a/x.png", "b/x.png", "b/x.jpg")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (30, 30), "grey").save(file)
    out = tmp_path / "masks"
    assert main([*map(str, files), f"--out={out}", f"--weights={weights}", "--whole"]) == 0
    assert len(list(out.glob("*-overlay.png"))) == 3


@pytest.mark.slow
def test_the_command_does_the_rest_when_some_files_are_bad(tmp_path, portrait, weights, capsys):
    (tmp_path / "bad").mkdir()
    bad, out = bad_photos(tmp_path / "bad"), tmp_path / "masks"
    files = map(str, [bad[0], portrait, *bad[1:]])
    assert main([*files, f"--out={out}", f"--weights={weights}", "--whole"]) == 1
    told = capsys.readouterr().err
    for file in bad:
        assert file.name in told
        with pytest.raises(PhotoError, match=file.name):
            open_photo(file)
    with pytest.raises(PhotoError, match="uint8"):
        open_photo(np.zeros((9, 9, 3)))
    masks = ["a portrait-overlay.png", "a portrait.png", "summary.csv"]
    assert sorted(file.name for file in out.iterdir()) == masks


def test_the_command_writes_nothing_where_nothing_can_be_done(tmp_path, weights):
    out = tmp_path / "masks"
    assert main([str(tmp_path / "missing.png"), f"--out={out}", f"--weights={weights}"]) == 1
    assert not out.exists()
    for wrong in (["--weights=none"], ["--whole", "--box", "0", "0", "9", "9"]):
        with pytest.raises(SystemExit) as leaving:
            main([str(tmp_path / "missing.png"), f"--out={out}", *wrong])
        assert leaving.value.code == 2
    assert not out.exists()


def test_the_readme_says_of_the_shipped_networks_what_their_table_does():
    top = Path(__file__).parents[2]
    with (top / "notebooks/studies/weights.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["test_data"] == "lfw_part_labels"]
    error = {row["weights"]: f"{float(row['component_error']):.2f}" for row in rows}
    said = " ".join((top / "README.md").read_text(encoding="utf-8").split())
    expected = "component error of {parts} where cross-entropy has {parts-pixelwise}"
    assert expected.format_map(error) in said

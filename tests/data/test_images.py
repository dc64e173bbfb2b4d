"""consensus_lib/data/images.py: files are opened rightly or refused; maps lie where images do."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from consensus_lib import IGNORE
from consensus_lib.data.decoded import decode
from consensus_lib.data.folder import DatasetError, Row
from consensus_lib.data.images import (
    read_image,
    read_labels,
    read_layers,
    resize_labels,
    resize_numbers,
    resize_shares,
)
from consensus_lib.data.tasks import TASKS
from synthetic_faces import CLASSES, draw_face


def rectangle(top, bottom, left, right, side=128):
    labels = np.zeros((side, side), np.uint8)
    labels[top:bottom, left:right] = 1
    return labels


def area_and_centre(labels):
    """Return the area of class 1 in pixels, and its centre (y, x) with the first pixel's at 0.5."""
    return int((labels == 1).sum()), np.argwhere(labels == 1).mean(0) + 0.5


# Where labels lie


@pytest.mark.parametrize("size", [128, 64, 32, 96])
def test_a_rectangle_on_the_grid_keeps_area_and_centre_exactly(size):
    scale = size / 128  # 1, 1/2, 1/4, 3/4: all edges fall between pixels
    area, centre = area_and_centre(resize_labels(rectangle(16, 80, 24, 104), size))
    assert area == 64 * 80 * scale**2
    assert centre == pytest.approx([48 * scale, 64 * scale])


@pytest.mark.parametrize("size", [16, 24, 9, 48])
def test_labels_are_the_argmax_of_lanczos_votes(size):
    classes = np.array([0, 1, 2, IGNORE], np.uint8)
    labels = np.random.default_rng(size).choice(classes, (32, 32))
    factor = 32 / size
    offset = (np.arange(32) + 0.5) - (np.arange(size)[:, None] + 0.5) * factor  # [size, 32], old pixels
    x = offset / max(factor, 1)
    weights = np.sinc(x) * np.sinc(x / 3) * (np.abs(x) < 3)
    weights /= weights.sum(1, keepdims=True)
    votes = np.stack([weights @ (labels == number) @ weights.T for number in classes])  # [4, size, size]
    clear = np.diff(np.sort(votes, axis=0)[-2:], axis=0)[0] > 1e-3
    assert clear.mean() > 0.95
    assert np.array_equal(resize_labels(labels, size)[clear], classes[votes.argmax(0)][clear])


def test_ties_go_to_the_lower_class_and_ignore_loses_them():
    right = np.zeros((32, 32), bool)
    right[:, 15:] = True  # half of column 7 of 16
    for a, b in ((0, 1), (1, 0), (3, IGNORE), (IGNORE, 3)):
        resized = resize_labels(np.where(right, b, a).astype(np.uint8), 16)
        assert (resized[:, :7] == a).all()
        assert (resized[:, 7] == min(a, b)).all()
        assert (resized[:, 8:] == b).all()


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("size", [64, 96])
def test_image_edge_and_label_edge_agree_on_rendered_faces(tmp_path, size):
    # The picture of a class is white where the class is: at any size its edge is the label's.
    labels, found, by_nearest = TASKS["parts"].table(CLASSES)[draw_face(3, 0, 128).labels], [], []
    row = Row("a", "train", "A", "image.png", "labels.png")
    for number in np.unique(labels):
        white = (labels == number).astype(np.uint8)
        Image.fromarray(np.repeat(255 * white[..., None], 3, axis=2)).save(tmp_path / "image.png")
        Image.fromarray(white).save(tmp_path / "labels.png")
        grey = decode(tmp_path, row, "image", size)[..., 0].astype(float)
        clear = np.abs(grey - 127.5) > 2  # else a tie, but for the rounding to 8 bits
        edge, nearest = grey > 127, Image.fromarray(white).resize((size, size), Image.Resampling.NEAREST)
        found.append(iou(clear & edge, clear & (decode(tmp_path, row, "labels", size, 2) == 1)))
        by_nearest.append(iou(clear & edge, clear & (np.asarray(nearest) == 1)))
    assert min(found) > 0.99  # not 1: of the image, what lies beyond black and white is cut on the way
    assert np.mean(by_nearest) < 0.985  # what this is for


def test_source_classes_of_one_class_are_joined_before_they_are_resized(tmp_path):
    # 40% background against two parts of the face of 30% each: the face is larger.
    labels = np.random.default_rng(0).choice(3, (128, 128), p=(0.4, 0.3, 0.3)).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "labels.png")
    row = Row("a", "train", "A", "", "labels.png")
    table = np.full(256, IGNORE, np.uint8)
    table[:3] = 0, 1, 1
    assert (decode(tmp_path, row, "labels", 16, 3, table) == 1).mean() > 0.9
    assert (decode(tmp_path, row, "labels", 16, 3) == 0).mean() > 0.7


@pytest.mark.parametrize("size", [4, 5, 9, 20])
def test_numbers_are_a_vote_by_area(size):
    numbers = np.random.default_rng(0).integers(0, 5, (12, 12)).astype(np.uint16)
    resized, fine = resize_numbers(numbers, size), numbers.repeat(size, 0).repeat(size, 1)
    assert resized.dtype == numbers.dtype
    for (i, j), number in np.ndenumerate(resized):  # 12 × 12 fine pixels in each new one
        counts = np.bincount(fine[12 * i : 12 * i + 12, 12 * j : 12 * j + 12].ravel())
        assert number == counts.argmax()


@pytest.mark.parametrize("size", [64, 96, 100])
def test_probabilities_lie_where_they_did(size):
    ramp = np.tile(2 * np.arange(128, dtype=np.uint8), (128, 1))
    resized = resize_shares(Image.fromarray(ramp), size)
    expected = 2 * ((np.arange(size) + 0.5) * 128 / size - 0.5)  # twice the place in the ramp
    assert np.abs(resized[0] - expected)[4:-4].max() <= 0.65  # rounded to whole numbers
    assert resized[:, 4:-4].mean() == pytest.approx(expected[4:-4].mean(), abs=0.05)


# What is opened


def stored(picture, folder, suffix="png", **options):
    path = folder / f"file.{suffix}"
    picture.save(path, **options)
    return path


def scene(mode="RGB"):
    """A square picture with a white upper right quarter."""
    picture = Image.new("RGB", (32, 32))
    ImageDraw.Draw(picture).rectangle((16, 0, 31, 15), fill=(255, 255, 255))
    return picture.convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "LA", "RGBA", "CMYK", "YCbCr"])
def test_images_of_each_mode_are_read(tmp_path, mode):
    read = read_image(stored(scene(mode), tmp_path, "tif" if mode in ("CMYK", "YCbCr") else "png"))
    assert read.mode == "RGB"
    assert np.abs(np.asarray(read).astype(int) - np.asarray(scene())).max() <= 2 * (mode == "YCbCr")


def test_16_bits_of_grey_are_scaled_and_transparency_is_left_out(tmp_path):
    grey = np.tile(np.arange(256, dtype=np.uint16) * 257, (256, 1))
    read = np.asarray(read_image(stored(Image.fromarray(grey), tmp_path)))
    assert np.array_equal(read[0, :, 0], range(256))
    path = stored(scene("P"), tmp_path, transparency=bytes(range(256)))
    assert np.array_equal(np.asarray(read_image(path)), np.asarray(scene()))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    # How each orientation is stored, from the standard: 1 as it is, 2 mirrored, 3 turned by 180°, …
    undo = [
        lambda a: a,
        lambda a: a[:, ::-1],
        lambda a: a[::-1, ::-1],
        lambda a: a[::-1],
        lambda a: a.transpose(1, 0, 2),
        lambda a: np.rot90(a),
        lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        lambda a: np.rot90(a, -1),
    ][orientation - 1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = Image.fromarray(np.ascontiguousarray(undo(np.asarray(scene()))))
    path = stored(seen, tmp_path, "jpg", exif=exif, quality=100)
    assert np.abs(np.asarray(read_image(path)).astype(int) - np.asarray(scene())).max() < 40


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: Image.new("RGB", (32, 64)).save(path),
        lambda path: path.write_bytes(b"no image"),
        lambda path: path.write_bytes(path.read_bytes()[:60]),
        lambda path: Image.fromarray(np.zeros((9, 9), np.float32)).save(path, "TIFF"),
        lambda path: path.unlink(),
    ],
)
def test_what_is_no_square_image_is_refused_by_name(tmp_path, spoil):
    path = stored(scene(), tmp_path)
    spoil(path)
    with pytest.raises(DatasetError, match=r"file\.png"):
        read_image(path)
    with pytest.raises(DatasetError, match="image of a"):
        read_image(path.read_bytes() if path.exists() else b"", "image of a")


@pytest.mark.parametrize("kind", [np.uint8, bool, np.uint16, "palette"])
def test_label_maps_of_each_mode_are_read(tmp_path, kind):
    labels = rectangle(4, 9, 2, 7, side=16)
    picture = Image.fromarray(labels if kind == "palette" else labels.astype(kind))
    if kind == "palette":
        picture.putpalette([0, 0, 0, 255, 0, 0] + [7] * 762)
    read = read_labels(stored(picture, tmp_path), 2)
    assert read.dtype == np.uint8
    assert np.array_equal(read, labels)


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("RGB", (8, 8)),
        Image.new("LA", (8, 8)),
        Image.new("L", (8, 16)),
        Image.new("L", (8, 8), 3),
        Image.fromarray(np.full((8, 8), 514, np.uint16)),
        Image.fromarray(np.full((8, 8), 70_000, np.int32)),
    ],
)
def test_what_is_no_label_map_is_refused_by_name(tmp_path, picture):
    picture.save(tmp_path / "file.png", "TIFF" if picture.mode == "I" else "PNG")
    with pytest.raises(DatasetError, match=r"file\.png"):
        read_labels(tmp_path / "file.png", 3)


def test_layers_lie_one_below_the_other(tmp_path):
    tall = np.repeat(np.arange(3, dtype=np.uint8), 8)[:, None].repeat(8, axis=1)  # [24, 8]
    path = stored(Image.fromarray(tall), tmp_path)
    assert [np.unique(np.asarray(layer)).tolist() for layer in read_layers(path, 3)] == [[0], [1], [2]]
    with pytest.raises(DatasetError, match=r"file\.png: .*4 .*layers"):
        read_layers(path, 4)

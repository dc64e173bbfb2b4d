"""data_scripts/pictures.py: values of masks become classes, and images and masks become square."""

import numpy as np
import pytest
from PIL import Image

from consensus_lib import IGNORE
from consensus_lib.data import DatasetError
from pictures import classes_of, fit, join_layers, values_of

COLOURS = [(0, 0, 0), (0, 0, 200), (200, 0, 0)]
FAR, NEAR = (90, 90, 90), (10, 5, 190)


def mask(*rows):
    """Return a picture of rows of colours or of numbers."""
    return Image.fromarray(np.array(rows, np.uint8))


def test_colours_within_a_distance_are_the_nearest_class():
    values = values_of(mask([COLOURS[2], NEAR, FAR], [COLOURS[0], COLOURS[1], (1, 2, 3)]), colours=True)
    labels, unclear = classes_of(values, COLOURS[:2], "x", ignore=COLOURS[2], within=20, most=0.2)
    assert labels.tolist() == [[IGNORE, 1, IGNORE], [0, 1, 0]]
    assert unclear == 1
    doubtful = values_of(mask([COLOURS[2], NEAR, FAR], [COLOURS[0], FAR, FAR]), colours=True)
    for options in ({}, {"within": 20, "most": 0.1}):
        with pytest.raises(DatasetError, match=r"a\.png: .*\(90, 90, 90\) at row 0, column 2"):
            classes_of(doubtful, COLOURS, "a.png", **options)


def test_numbers_are_classes_in_any_order():
    values = values_of(Image.fromarray(np.array([[600, 0, 300, 65_535]], np.uint16)), colours=False)
    assert classes_of(values, [0, 600, 300], "x", ignore=65_535)[0].tolist() == [[1, 0, 2, IGNORE]]
    with pytest.raises(DatasetError, match="65535 at row 0, column 3"):
        classes_of(values, [0, 600], "x", within=400, most=0)


def test_a_later_layer_covers_an_earlier_one(tmp_path):
    mask([255, 255, 0]).save(tmp_path / "skin.png")
    mask([0, 1, 0]).save(tmp_path / "nose.png")
    assert join_layers({2: tmp_path / "skin.png", 1: tmp_path / "nose.png"}).tolist() == [[2, 1, 0]]


@pytest.mark.parametrize(
    ("crop", "expected"),
    [("pad", [[IGNORE] * 4, [1, 2, 3, 4], [5, 6, 7, 8], [IGNORE] * 4]), ("centre", [[2, 3], [6, 7]])],
)
def test_images_and_masks_become_square_alike(crop, expected):
    labels = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.uint8)
    image = Image.fromarray(labels).convert("RGB")
    made = fit(image, labels, len(expected), crop=crop)
    assert made["labels"].tolist() == expected
    seen = made["image"][..., 0]
    assert (np.where(made["labels"] == IGNORE, 0, made["labels"]) == seen).all()

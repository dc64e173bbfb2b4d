import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from consensus_lib.data import TASKS
from consensus_lib.models.networks import FaceOccNet
from consensus_lib.teacher.factorise import factorise
from support import diagrams

COLOURS = ((0, 0, 0), (86, 180, 233), (213, 94, 0))


@pytest.fixture(autouse=True)
def _close():
    matplotlib.use("Agg")
    yield
    plt.close("all")


def test_arrows_point_up_towards_class_one_and_tell_the_longest():
    blobs = np.array([[0, 0], [0, 1]])
    pull = np.array([[-0.1, 0.0], [-0.2, 0.4]])
    (axis,) = diagrams.gradient_arrows(np.full((2, 2), 0.5), {"ours": pull}, blobs).axes
    ends = [(text.xy[1], text.xyann[1]) for text in axis.texts[1::2]]  # rows grow downwards
    np.testing.assert_allclose([a - b for a, b in ends], [0.21, 0.0, 0.42, -0.84])
    assert axis.get_xlabel() == "longest: 0.4"
    borders = sorted((*line.get_xdata(), *line.get_ydata()) for line in axis.lines)
    assert borders == [(0.5, 0.5, 0.5, 1.5), (0.5, 1.5, 0.5, 0.5)]


def test_a_toy_shows_the_mean_of_each_blob():
    probability = np.array([[0.2, 0.4], [0.9, 0.7]])
    figure = diagrams.toy_panel(probability, np.zeros((2, 2)), np.array([[0, 0], [1, 1]]))
    numbers, bars, _ = figure.axes
    assert [text.get_text() for text in numbers.texts] == ["0.20", "0.40", "0.90", "0.70"]
    np.testing.assert_allclose([bar.get_height() for bar in bars.patches], [0.3, 0.8])


def test_a_network_is_drawn_block_by_block():
    shapes, branch = diagrams.block_shapes(FaceOccNet(), 128)
    assert shapes[0] == ("image", (3, 128, 128))
    assert shapes[-1] == ("conv", (3, 128, 128))
    assert [shapes[i][0] for i in range(*branch.indices(len(shapes)))] == ["conv d4", "conv d3"]
    assert len(diagrams.network_diagram(shapes, branch).axes[0].patches) >= len(shapes)


def test_the_receptive_field_is_that_of_the_layers():
    assert diagrams.receptive_field(FaceOccNet(width=0.0625), side=160) == diagrams.receptive_field(
        FaceOccNet(width=0.125), side=192
    )


def test_histograms_mark_their_limits():
    figure = diagrams.histograms({"sure": [0.1, 0.9, 0.95], "area": [0.2]}, {"sure": (0.5,)})
    assert [len(axis.lines) for axis in figure.axes] == [1, 0]
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 3


def test_a_factorisation_names_its_steps_and_numbers_its_components():
    extent = np.zeros((16, 16), bool)
    extent[2:14, 3:13] = True
    face = np.roll(extent, 1, axis=1)
    face[5:9, 6:11] = face[10:13, 5:8] = False
    found = factorise(extent, face, None)
    figure = diagrams.factorisation_steps(torch.zeros(3, 16, 16), found, COLOURS)
    assert len([axis for axis in figure.axes if axis.get_title()]) == 9
    numbers = [text.get_text() for text in figure.axes[5].texts]
    assert numbers == [str(number) for number in range(2, found.ids.max() + 1)]


def test_labels_stand_under_their_images():
    labels = np.arange(2 * 16).reshape(2, 4, 4) % 3
    rows = {"truth": labels, "said": labels[::-1]}
    figure = diagrams.labelled_images(torch.zeros(2, 3, 4, 4), rows, TASKS["occlusion"], ["x", "y"])
    shown = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    assert len(shown) == 6
    assert np.array_equal(shown[2], shown[5])
    texts = [axis.get_xlabel() or axis.get_title() for axis in figure.axes]
    assert "x" in " ".join(texts)

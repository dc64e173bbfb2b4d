import numpy as np
import pytest
import torch

from consensus_lib.data import TASKS
from consensus_lib.models.networks import FaceOccNet
from consensus_lib.teacher.factorise import factorise
from support import diagrams

COLOURS = ((0, 0, 0), (86, 180, 233), (213, 94, 0))


def test_signs_point_towards_the_class_and_numbers_are_in_hundredths():
    blobs = np.array([[0, 0], [0, 1]])
    pull = np.array([[-0.1, 0.0], [-0.2, 0.4]])
    (axis,) = diagrams.gradient_signs({"ours": pull}, blobs, mark=(1, 1)).axes
    texts = [text.get_text() for text in axis.texts]
    assert texts == ["▼", "-10.0", "", "+0.0", "▼", "-20.0", "▲", "+40.0"]
    borders = sorted((*line.get_xdata(), *line.get_ydata()) for line in axis.lines)
    assert borders == [(0.5, 0.5, 0.5, 1.5), (0.5, 1.5, 0.5, 0.5)]
    (frame,) = axis.patches
    assert frame.get_center() == pytest.approx((1, 1))


def test_small_arrays_print_their_numbers():
    panels = {"label": np.array([[0, 1]]), "p": np.array([[0.25, 1.0]])}
    figure = diagrams.number_grids(panels, np.array([[0, 1]]))
    texts = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    assert texts == [["0", "1"], [".25", "1.0"]]


def test_the_diagram_of_the_loss_averages_inside_components():
    labels = np.array([[0, 0, 1, 1], [0, 0, 1, 1]])
    p = np.array([[0.0, 0.2, 0.8, 1.0], [0.0, 0.2, 0.8, 1.0]])
    figure = diagrams.loss_diagram(np.zeros((2, 4, 3)), labels, p, COLOURS)
    pictures = {axis.get_title(): axis.images[0].get_array() for axis in figure.axes if axis.images}
    np.testing.assert_allclose(pictures["means p̂(c), Eq. 6"], [[0.1, 0.1, 0.9, 0.9]] * 2)
    np.testing.assert_allclose(pictures["probability p(s)"], p)


def test_a_toy_shows_the_mean_of_each_blob():
    probability = np.array([[0.2, 0.4], [0.9, 0.7]])
    figure = diagrams.toy_panel(probability, np.zeros((2, 2)), np.array([[0, 0], [1, 1]]))
    numbers, bars, _ = figure.axes
    assert [text.get_text() for text in numbers.texts] == [".20", ".40", ".90", ".70"]
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

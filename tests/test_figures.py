import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

from consensus_lib.metrics.comparison import Difference
from consensus_lib.models.networks import FaceOccNet, block_shapes, receptive_field
from consensus_lib.teacher.factorise import factorise
from consensus_lib.viz import figures

COLOURS = ((0, 0, 0), (86, 180, 233), (213, 94, 0))


@pytest.fixture(autouse=True)
def _style():
    matplotlib.use("Agg")
    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")


def test_saved_figures_have_stable_bytes(tmp_path):
    for name in ("a", "b"):
        figure = figures.bars({"share": {"x": [1, 2], "y": [2, 1]}}, ["face", "hair"])
        figures.savefig(figure, tmp_path / name)
    for suffix in (".pdf", ".png"):
        first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
        assert first == second
        assert len(first) > 1000
    assert b"Type 3" not in (tmp_path / "a.pdf").read_bytes()


def test_colours_of_labels_and_ignored_pixels():
    rgb = figures.colour_labels(np.array([[0, 1], [2, 255]]), COLOURS)
    assert rgb.tolist() == [[[0, 0, 0], [86, 180, 233]], [[213, 94, 0], [255, 255, 255]]]


def test_an_overlay_leaves_background_and_ignored_pixels():
    image = np.full((1, 3, 3), 0.5)
    mixed = figures.overlay(image, np.array([[0, 1, 255]]), COLOURS)
    np.testing.assert_allclose(mixed[0, [0, 2]], 0.5)
    np.testing.assert_allclose(mixed[0, 1], 0.25 + np.array(COLOURS[1]) / 510)


def test_components_get_colours_of_their_own():
    components = np.array([[0, 0, 1], [0, 2, 2]])
    rgb = figures.colour_components(components, np.array([[True, True, False], [True, False, False]]))
    assert (rgb[0, 0] == 0).all()
    assert (rgb[0, 2] != rgb[1, 1]).any()
    assert (rgb[1, 1] == rgb[1, 2]).all()


def test_a_grid_has_its_titles_and_a_legend_has_its_own_space():
    figure = figures.grid(
        [[np.zeros((4, 4))] * 3] * 2, titles=["a", "b", "c"], labels=["x", "y"], captions=[["1"] * 3] * 2
    )
    height = figure.get_figheight()
    assert [axis.get_title() for axis in figure.axes[:3]] == ["a", "b", "c"]
    figures.class_legend(figure, ["background", "face", "hair"], COLOURS)
    assert figure.get_figheight() > height
    assert len(figure.legends[0].get_texts()) == 3


def test_curves_show_the_range_over_seeds_and_the_floor():
    runs = [
        [{"seconds": t, "mean_iou": 0.5 + 0.1 * t + s, "component_error": 10.0 / t} for t in (1, 2, 3)]
        for s in (0.0, 0.05)
    ]
    figure = figures.curves(
        {"ce": runs}, {"mean_iou": "IoU", "component_error": "off"}, floors={"mean_iou": 0.4}
    )
    iou, off = figure.axes
    np.testing.assert_allclose(iou.lines[0].get_ydata(), [0.625, 0.725, 0.825])
    assert len(iou.collections) == 1
    assert iou.lines[1].get_ydata()[0] == 0.4
    assert (iou.get_yscale(), off.get_yscale()) == ("linear", "log")


def test_strips_show_every_training_the_mean_and_the_floor():
    figure = figures.strips(
        {"IoU": {"ours": [0.7, 0.9], "theirs": [0.5]}, "holes": {"ours": [1, 2], "theirs": [3]}}, {"IoU": 0.4}
    )
    iou, holes = figure.axes
    assert [text.get_text() for text in iou.get_yticklabels()] == ["ours", "theirs"]
    drawn = [line.get_xdata().tolist() for line in iou.lines if line.get_linestyle() == "None"]
    np.testing.assert_allclose(np.concatenate(drawn), [0.7, 0.9, 0.8, 0.5, 0.5])
    assert iou.lines[-1].get_xdata()[0] == 0.4
    assert [text.get_text() for text in (*iou.texts, *holes.texts)] == ["floor"]
    assert iou.yaxis_inverted()


def test_arrows_point_up_towards_class_one_and_tell_the_longest():
    blobs = np.array([[0, 0], [0, 1]])
    pull = np.array([[-0.1, 0.0], [-0.2, 0.4]])
    (axis,) = figures.arrows(np.full((2, 2), 0.5), {"ours": pull}, blobs).axes
    ends = [(text.xy[1], text.xyann[1]) for text in axis.texts[1::2]]  # rows grow downwards
    np.testing.assert_allclose([a - b for a, b in ends], [0.21, 0.0, 0.42, -0.84])
    assert axis.get_xlabel() == "longest: 0.4"
    borders = sorted((*line.get_xdata(), *line.get_ydata()) for line in axis.lines)
    assert borders == [(0.5, 0.5, 0.5, 1.5), (0.5, 1.5, 0.5, 0.5)]


def test_a_toy_shows_the_mean_of_each_blob():
    probability = np.array([[0.2, 0.4], [0.9, 0.7]])
    figure = figures.toy(probability, np.zeros((2, 2)), np.array([[0, 0], [1, 1]]))
    numbers, bars, _ = figure.axes
    assert [text.get_text() for text in numbers.texts] == ["0.20", "0.40", "0.90", "0.70"]
    np.testing.assert_allclose([bar.get_height() for bar in bars.patches], [0.3, 0.8])


def test_a_network_is_drawn_block_by_block():
    shapes, branch = block_shapes(FaceOccNet(), 128)
    assert shapes[0] == ("image", (3, 128, 128))
    assert shapes[-1] == ("conv", (3, 128, 128))
    assert [shapes[i][0] for i in range(*branch.indices(len(shapes)))] == ["conv d4", "conv d3"]
    assert len(figures.network(shapes, branch).axes[0].patches) >= len(shapes)


def test_the_receptive_field_is_that_of_the_layers():
    assert receptive_field(FaceOccNet(width=0.0625), side=160) == receptive_field(
        FaceOccNet(width=0.125), side=192
    )


def test_style_colours_differ_in_greyscale_or_line():
    cycle = plt.rcParams["axes.prop_cycle"].by_key()
    grey = [matplotlib.colors.to_rgb(c) @ np.array([0.3, 0.59, 0.11]) for c in cycle["color"]]
    looks = list(zip(grey, cycle["linestyle"], strict=True))
    assert all(abs(a[0] - b[0]) > 0.05 or a[1] != b[1] for i, a in enumerate(looks) for b in looks[:i])


def test_against_shows_each_series_its_spread_and_the_floor():
    lines = {"a": {0: [0.1, 0.3], 50: [0.4, 0.6]}, "b": {50: [0.5]}}
    figure = figures.against(
        {"score": lines, "pieces": lines}, "labels", names={0: "none", 50: "all"}, floors={"score": 0.05}
    )
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["none", "all"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    means = axis.containers[0][0].get_ydata()
    assert means.tolist() == pytest.approx([0.2, 0.5])
    (bars,) = axis.containers[0][2]
    assert [sorted(end[1] for end in bar) for bar in bars.get_segments()] == [[0.1, 0.3], [0.4, 0.6]]
    plain = figures.against({"score": {"a": {0.0: [1], 2.0: [2]}}}, "noise")
    assert not plain.legends
    assert plain.axes[0].containers[0][0].get_xdata().tolist() == [0, 2]


def test_histograms_mark_their_limits():
    figure = figures.histograms({"sure": [0.1, 0.9, 0.95], "area": [0.2]}, {"sure": (0.5,)})
    assert [len(axis.lines) for axis in figure.axes] == [1, 0]
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 3


def test_a_factorisation_names_its_steps_and_numbers_its_components():
    extent = np.zeros((16, 16), bool)
    extent[2:14, 3:13] = True
    face = np.roll(extent, 1, axis=1)
    face[5:9, 6:11] = face[10:13, 5:8] = False
    found = factorise(extent, face, None)
    contour = np.array([[3, 2], [13, 2], [13, 14], [3, 14]], float)
    figure = figures.factorisation(np.zeros((16, 16, 3), np.uint8), contour, found, COLOURS)
    assert len([axis for axis in figure.axes if axis.get_title()]) == 9
    numbers = [text.get_text() for text in figure.axes[5].texts]
    assert numbers == [str(number) for number in range(2, found.ids.max() + 1)]


def test_intervals_tell_decided_from_undecided_and_shade_the_better_side():
    found = {
        "ours": Difference("mean_iou", 0.7, 0.72, 0.01, 0.03, (0.01, 0.03)),
        "theirs": Difference("mean_iou", 0.7, 0.69, -0.03, 0.01, (-0.01,)),
    }
    figure = figures.intervals({"mean IoU": found, "pieces": found}, [True, False])
    more, less = figure.axes
    assert [text.get_text() for text in more.get_yticklabels()] == ["ours", "theirs"]
    marks = [container[0] for container in more.containers]
    assert [mark.get_markerfacecolor() for mark in marks] == ["C0", "white"]
    assert [mark.get_xdata()[0] for mark in marks] == pytest.approx([0.02, -0.01])
    (bar,) = more.containers[0][2]
    assert bar.get_segments()[0][:, 0] == pytest.approx([0.01, 0.03])
    for axis, sign in ((more, 1), (less, -1)):
        (shade,) = axis.patches
        assert np.sign(shade.get_x() + shade.get_width() / 2) == sign


def test_the_front_joins_the_methods_that_none_beats():
    points = {"a": ([0.7, 0.72], [1.0, 1.2]), "b": ([0.8], [2.0]), "beaten": ([0.75], [2.5])}
    figure = figures.front(points, "mean IoU", "components off")
    (axis,) = figure.axes
    hollow = [container[0].get_markerfacecolor() == "white" for container in axis.containers]
    assert hollow == [False, False, True]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(points)
    assert axis.lines[-1].get_xydata().tolist() == [[pytest.approx(0.71), pytest.approx(1.1)], [0.8, 2.0]]


def test_maps_say_mean_spread_and_number_in_each_cell_and_shade_the_better():
    cells = {
        (1, 0): (0.5, 0.1, 3),
        (10, 0): (0.7, np.nan, 1),
        (1, 5): (np.nan, np.nan, 0),
        (10, 5): (0.6, 0.0, 2),
    }
    more, less = figures.maps({"IoU": cells, "pieces": cells}, "α", "β", [True, False]).axes
    assert [text.get_text() for text in more.texts] == [
        "0.500 ± 0.100\n$n$ = 3", "0.700\n$n$ = 1", "none", "0.600 ± 0.000\n$n$ = 2",
    ]  # fmt: skip
    assert [text.get_text() for text in more.get_xticklabels()] == ["1", "10"]
    dark, light = (axis.images[0].get_array() for axis in (more, less))
    assert dark[0, 1] == pytest.approx(0.7) == light[0, 0]
    assert np.ma.getmaskarray(dark)[1, 0]

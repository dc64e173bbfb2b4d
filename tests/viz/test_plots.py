import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

from consensus_lib.viz import images, plots

COLOURS = ((0, 0, 0), (86, 180, 233), (213, 94, 0))


@pytest.fixture(autouse=True)
def _style():
    matplotlib.use("Agg")
    with plt.rc_context():
        plots.use_style()
        yield
    plt.close("all")


@pytest.mark.slow
def test_saved_figures_have_stable_bytes(tmp_path):
    for name in ("a", "b"):
        figure = plots.dot_plot({"share": {"x": [1, 2], "y": [2, 1]}})
        plots.savefig(figure, tmp_path / name)
    for suffix in (".pdf", ".png"):
        first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
        assert first == second
        assert len(first) > 1000
    assert b"Type 3" not in (tmp_path / "a.pdf").read_bytes()


def test_colours_of_labels_and_an_overlay_that_leaves_background_and_ignored_pixels():
    labels = np.array([[0, 1, 255]])
    assert images.colorize(labels, COLOURS).tolist() == [[[0, 0, 0], [86, 180, 233], [255, 255, 255]]]
    mixed = images.overlay(np.full((1, 3, 3), 0.5), labels, COLOURS)
    np.testing.assert_allclose(mixed[0, [0, 2]], 0.5)
    np.testing.assert_allclose(mixed[0, 1], 0.25 + np.array(COLOURS[1]) / 510)


def test_a_grid_shows_its_images_and_a_legend_its_classes():
    rows = [[np.full((4, 4, 3), shade) for shade in row] for row in ((0.0, 0.2, 0.4), (0.6, 0.8, 1.0))]
    figure = images.image_grid(rows, titles=["a", "b", "c"], labels=["x", "y"], captions=[["1"] * 3] * 2)
    height = figure.get_figheight()
    assert [axis.get_title() for axis in figure.axes[:3]] == ["a", "b", "c"]
    shown = [axis.images[0].get_array()[0, 0, 0] for axis in figure.axes]
    np.testing.assert_allclose(shown, [0, 0.2, 0.4, 0.6, 0.8, 1])
    images.class_legend(figure, ["background", "face", "hair"], COLOURS)
    assert figure.get_figheight() > height  # it has its own space
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["background", "face", "hair"]


def test_curves_show_the_range_over_seeds_and_the_constant_prediction():
    runs = [
        [{"seconds": t, "mean_iou": 0.5 + 0.1 * t + s, "component_error": 10.0 / t} for t in (1, 2, 3)]
        for s in (0.0, 0.05)
    ]
    keys = {"mean_iou": "IoU", "component_error": "off"}
    iou, off = plots.curves({"ce": runs}, keys, constant={"mean_iou": 0.4}).axes
    np.testing.assert_allclose(iou.lines[0].get_ydata(), [0.625, 0.725, 0.825])
    assert len(iou.collections) == 1
    assert iou.lines[1].get_ydata()[0] == 0.4
    assert (iou.get_yscale(), off.get_yscale()) == ("linear", "log")
    (off,) = plots.curves({"ce": runs}, {"component_error": "off"}, constant={"component_error": 0.0}).axes
    assert off.get_yscale() == "linear"  # 0 has no place on the other


def test_dot_plots_show_every_training_the_mean_and_the_constant_prediction():
    values = {"IoU": {"ours": [0.7, 0.9], "theirs": [0.5]}, "holes": {"ours": [1, 2], "theirs": [3]}}
    iou, holes = plots.dot_plot(values, {"IoU": 0.4}).axes
    assert [text.get_text() for text in iou.get_yticklabels()] == ["ours", "theirs"]
    drawn = [line.get_xdata().tolist() for line in iou.lines if line.get_linestyle() == "None"]
    np.testing.assert_allclose(np.concatenate(drawn), [0.7, 0.9, 0.8, 0.5, 0.5])
    assert iou.lines[-1].get_xdata()[0] == 0.4
    assert [text.get_text() for text in (*iou.texts, *holes.texts)] == ["constant"]


def test_errorbar_plots_show_means_spread_and_the_constant_prediction():
    lines = {"a": {0: [0.1, 0.3], 50: [0.4, 0.6]}, "b": {50: [0.5]}}
    names, constant = {0: "none", 50: "all"}, {"score": 0.05}
    figure = plots.errorbar_plot({"score": lines, "pieces": lines}, "labels", names=names, constant=constant)
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["none", "all"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [0.2, 0.5])
    assert list(axis.lines[-1].get_ydata()) == [0.05, 0.05]
    ends = axis.collections[0].get_segments()
    np.testing.assert_allclose([bar[:, 1] for bar in ends], [[0.1, 0.3], [0.4, 0.6]])
    plain = plots.errorbar_plot({"score": {"a": {0.0: [1], 2.0: [2]}}}, "noise")
    assert not plain.legends
    assert list(plain.axes[0].lines[0].get_xdata()) == [0, 2]

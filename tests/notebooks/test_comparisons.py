import numpy as np
import pytest

from consensus_lib.metrics.comparison import Difference
from support import comparisons, verdict


def test_forest_plots_show_intervals_the_better_side_and_the_constant_prediction():
    found = {
        "ours": Difference("mean_iou", 0.7, 0.72, 0.01, 0.03, (0.01, 0.03)),
        "theirs": Difference("mean_iou", 0.7, 0.69, -0.03, 0.01, (-0.01,)),
    }
    panels, constant = {"mean IoU": found, "pieces": found}, {"pieces": {"ours": -0.4, "theirs": -0.5}}
    more, less = comparisons.forest_plot(panels, [True, False], constant).axes
    assert [text.get_text() for text in more.get_yticklabels()] == ["ours", "theirs"]
    marks = [line for line in more.lines if line.get_marker() == "o"]
    assert [mark.get_markerfacecolor() for mark in marks] == ["C0", "white"]  # excludes 0, includes it
    np.testing.assert_allclose([mark.get_xdata()[0] for mark in marks], [0.02, -0.01])
    np.testing.assert_allclose(more.collections[0].get_segments()[0][:, 0], [0.01, 0.03])
    for axis, sign, crosses in ((more, 1, []), (less, -1, [-0.4, -0.5])):
        (shade,) = axis.patches
        assert np.sign(shade.get_x() + shade.get_width() / 2) == sign
        assert [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "x"] == crosses
    (plain,) = comparisons.forest_plot({"pieces": found}, [False]).axes
    assert "x" not in [line.get_marker() for line in plain.lines]


def test_a_table_of_differences_says_the_interval_and_whether_it_excludes_zero():
    gains = {"iou": {"a": Difference("iou", 0.7, 0.72, 0.01, 0.03, ())}}
    gains["turned"] = {"a": verdict.turn(gains["iou"]["a"])}
    gains["wide"] = {"a": gains["iou"]["a"]._replace(low=-0.01)}
    assert comparisons.difference_table(gains).loc["a"].tolist() == [
        "+0.020 (+0.010 to +0.030) *",
        "-0.020 (-0.030 to -0.010) *",
        "+0.020 (-0.010 to +0.030)",
    ]


def test_the_pareto_front_joins_the_methods_that_none_beats():
    points = {"a": ([0.7, 0.72], [1.0, 1.2]), "b": ([0.8], [2.0]), "beaten": ([0.75], [2.5])}
    figure = comparisons.pareto_plot(points, "mean IoU", "component error")
    front = figure.axes[0].lines[-1].get_xydata()
    np.testing.assert_allclose(front, [[0.71, 1.1], [0.8, 2.0]])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(points)


def test_heatmaps_print_each_cell_and_shade_the_better():
    cells = {
        (1, 0): (0.5, 0.1, 3),
        (10, 0): (0.7, np.nan, 1),
        (1, 5): (np.nan, np.nan, 0),
        (10, 5): (0.6, 0.0, 2),
    }
    more, less = comparisons.heatmap({"IoU": cells, "pieces": cells}, "α", "β", [True, False]).axes
    texts = ["0.500 ± 0.100\n$n$ = 3", "0.700\n$n$ = 1", "none", "0.600 ± 0.000\n$n$ = 2"]
    assert [text.get_text() for text in more.texts] == texts
    assert [text.get_text() for text in more.get_xticklabels()] == ["1", "10"]
    dark, light = (axis.images[0].get_array() for axis in (more, less))
    assert dark[0, 1] == pytest.approx(0.7) == light[0, 0]

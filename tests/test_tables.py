import csv
import re
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from consensus_lib.viz import plots, tables
from consensus_lib.viz.tables import Column, Value

PRINTED = Path(__file__).parents[1] / "notebooks/studies/paper_tables.csv"
IOU, OFF = Column("iou", "IoU", scale=100, digits=1), Column("off", "pieces_off", higher=False)
GROUPS = {
    "ours": {
        "A & B": {"iou": Value((80, 90)), "off": Value((1.0, 2.0))},
        "C": {"iou": Value((86, 84.004)), "off": Value((2.0, 2.0))},
    },
    "theirs, as printed": {"D": {"iou": Value((99,), "?")}},
}


def test_best_cells_go_by_direction_and_ties_are_all_bold():
    ours, theirs = tables.layout(GROUPS, [IOU, OFF]).values()
    assert [[cell.text for cell in row] for row in ours.values()] == [
        ["85.0 ± 5.0", "1.50 ± 0.50"],
        ["85.0 ± 1.0", "2.00 ± 0.00"],
    ]
    assert [[cell.best for cell in row] for row in ours.values()] == [[True, True], [True, False]]
    assert [cell.text for cell in theirs["D"]] == ["99.0?", "–"]
    assert not any(cell.best for cell in theirs["D"])  # nothing to compare with in its group
    doubtful = {"": {"a": {"iou": Value((1,), "?", "1.0")}, "b": {"iou": Value((0.5,), "", "0.50")}}}
    cells = [row[0] for row in tables.layout(doubtful, [IOU])[""].values()]
    assert [(cell.text, cell.best) for cell in cells] == [("1.0?", False), ("0.50", False)]
    assert not tables.layout(GROUPS, [IOU._replace(higher=None)])["ours (n = 2)"]["C"][0].best


def test_the_number_of_trainings_is_stated():
    assert list(tables.layout(GROUPS, [IOU])) == ["ours (n = 2)", "theirs, as printed"]
    uneven = {"": {"a": {"iou": Value((1.0, 1.0))}, "b": {"iou": Value((1.0,))}, "c": {}}}
    assert list(tables.layout(uneven, [IOU])[""]) == ["a, n = 2", "b, n = 1", "c"]


def test_missing_values_are_listed():
    groups = GROUPS | {"none": {"E": {"iou": Value(())}}}
    assert tables.missing(groups, [IOU, OFF]) == {"IoU": ["E"], "pieces_off": ["D", "E"]}


def test_a_caption_explains_the_signs_that_there_are():
    assert tables.notes(GROUPS, [OFF]) == (
        " ±: half the range over trainings; bold: best mean of a group; –: not printed or not measured."
    )
    assert "° and ?: printed digits that are hard to read" in tables.notes(GROUPS, [IOU])
    assert tables.notes({"": {"a": {"iou": Value((1,))}}}, [IOU]) == ""


def test_latex_is_escaped_and_balanced():
    text = tables.latex(GROUPS, [IOU, OFF], caption="50% of {x}_1 ± α ~ ^ \\", label="tab:a", wide=True)
    assert (
        r"\caption{50\% of \{x\}\_1 $\pm$ $\alpha$ \textasciitilde{} \textasciicircum{} \textbackslash{}}"
        in text
    )
    assert r"A \& B & \textbf{85.0}{\scriptsize$\pm$5.0} & \textbf{1.50}{\scriptsize$\pm$0.50} \\" in text
    assert r"D & 99.0$^{?}$ & -- \\" in text
    assert r"IoU\,$\uparrow$ & pieces\_off\,$\downarrow$" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    for rule in (r"\toprule", r"\bottomrule", r"\begin{table*}", r"\begin{tabular}{@{}lcc@{}}"):
        assert rule in text
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert text.isascii()


def test_rows_come_from_results_and_gaps_stay():
    results = pd.DataFrame({"variant": ["a", "a", "b"], "iou": [0.1, 0.2, None]})
    rows = tables.measured(results, {"a": "A", "b": "B", "c": "C"}, [IOU, OFF])
    assert rows == {"A": {"iou": Value((10, 20))}, "B": {"iou": Value(())}, "C": {"iou": Value(())}}


@pytest.mark.parametrize("width", [3.25, 6.875])
def test_a_drawn_table_fits_its_width(width):
    matplotlib.use("Agg")
    with plt.rc_context():
        plots.use_style()
        long = {
            "a very long name of a group of rows": {"a method with a long name, too": {}} | GROUPS["ours"]
        }
        figure = tables.picture(long, [IOU, OFF, *(Column(str(i), "a title") for i in range(5))], width)
        assert figure.get_figwidth() == width
        renderer = figure.canvas.get_renderer()
        boxes = [text.get_window_extent(renderer) for text in figure.texts]
        assert all(box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1 for box in boxes)
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        plt.close(figure)


def test_the_papers_numbers_are_whole_and_agree_with_themselves():
    """Where columns of a row are bound by arithmetic, they hold it to what rounding and doubt allow."""
    lines = list(csv.DictReader(PRINTED.read_text(encoding="utf-8").splitlines()))
    assert len({(line["table"], line["row"], line["column"]) for line in lines}) == len(lines)
    assert all(line["source"] and 0 < float(line["value"]) <= 300 for line in lines)
    for row in tables.read_printed(PRINTED, "table3").values():
        value = {key: found.values[0] for key, found in row.items()}
        mean = sum(value[f"iou_{name}"] for name in ("background", "face", "hair")) / 3
        assert mean == pytest.approx(value["mean_iou"], abs=0.011)
    face = 0.633  # share of the face inside the boxes of COFW
    for name, row in tables.read_printed(PRINTED, "table1").items():
        value = {key: found.values[0] for key, found in row.items()}
        if name.startswith(("Softmax", "Structure")):
            rest = 2 * value["mean_recall"] - value["recall_face"]
            accuracy = face * value["recall_face"] + (1 - face) * rest
            assert accuracy == pytest.approx(value["pixel_accuracy"], abs=0.2)


def test_an_unknown_table_or_certainty_is_named(tmp_path):
    with pytest.raises(ValueError, match="table: expected one of"):
        tables.read_printed(PRINTED, "table9")
    file = tmp_path / "a.csv"
    file.write_text("table,row,column,value,certainty,source\nt,r,c,1,sure,s\n")
    with pytest.raises(ValueError, match=r"certainty: expected one of .* got 'sure'"):
        tables.read_printed(file, "t")

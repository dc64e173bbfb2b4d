import csv
import re
from xml.etree import ElementTree

import pandas as pd
import pytest

from support import tables
from support.paper import PRINTED, read_printed
from support.tables import Column, Value

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


def test_numbers_of_trainings_missing_values_and_signs_are_stated():
    assert list(tables.layout(GROUPS, [IOU])) == ["ours (n = 2)", "theirs, as printed"]
    uneven = {"": {"a": {"iou": Value((1.0, 1.0))}, "b": {"iou": Value((1.0,))}, "c": {}}}
    assert list(tables.layout(uneven, [IOU])[""]) == ["a, n = 2", "b, n = 1", "c"]
    groups = GROUPS | {"none": {"E": {"iou": Value(())}}}
    assert tables.missing(groups, [IOU, OFF]) == {"IoU": ["E"], "pieces_off": ["D", "E"]}
    signs = {sign for sign in "±–?" if sign in tables.notes(GROUPS, [OFF])}
    assert signs == {"±", "–"}
    assert "?" in tables.notes(GROUPS, [IOU])
    assert tables.notes({"": {"a": {"iou": Value((1,))}}}, [IOU]) == ""


def test_latex_is_escaped_and_balanced():
    text = tables.to_latex(GROUPS, [IOU, OFF], caption="50% of {x}_1 ± α ~ ^ \\", label="tab:a", wide=True)
    for part in (
        r"\caption{50\% of \{x\}\_1 $\pm$ $\alpha$ \textasciitilde{} \textasciicircum{} \textbackslash{}}",
        r"A \& B & \textbf{85.0}{\scriptsize$\pm$5.0} & \textbf{1.50}{\scriptsize$\pm$0.50} \\",
        r"D & 99.0$^{?}$ & -- \\",
        r"IoU\,$\uparrow$ & pieces\_off\,$\downarrow$",
        r"\begin{table*}",
        r"\begin{tabular}{@{}lcc@{}}",
    ):
        assert part in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert text.isascii()


def test_html_has_each_cell_and_marks_the_best_without_styles():
    text = tables.to_html(GROUPS, [IOU, OFF], first="Method")
    rows = ElementTree.fromstring(text).iter("tr")
    assert [["".join(cell.itertext()) for cell in row] for row in rows] == [
        ["Method", "IoU ↑", "pieces_off ↓"],
        ["ours (n = 2)", "", ""],
        ["A & B", "85.0 ± 5.0", "1.50 ± 0.50"],
        ["C", "85.0 ± 1.0", "2.00 ± 0.00"],
        ["theirs, as printed", "", ""],
        ["D", "99.0?", "–"],
    ]
    assert re.findall("<b>(.*?)</b>", text) == ["85.0 ± 5.0", "1.50 ± 0.50", "85.0 ± 1.0"]
    assert "style" not in text
    assert text == tables.to_html(GROUPS, [IOU, OFF], first="Method")


def test_rows_come_from_results_and_gaps_stay():
    results = pd.DataFrame({"variant": ["a", "a", "b"], "iou": [0.1, 0.2, None]})
    rows = tables.measured(results, {"a": "A", "b": "B", "c": "C"}, [IOU, OFF])
    assert rows == {"A": {"iou": Value((10, 20))}, "B": {"iou": Value(())}, "C": {"iou": Value(())}}


def test_the_papers_numbers_are_whole_and_agree_with_themselves():
    """Where columns of a row are bound by arithmetic, they hold it to what rounding and doubt allow."""
    lines = list(csv.DictReader(PRINTED.read_text(encoding="utf-8").splitlines()))
    assert len({(line["table"], line["row"], line["column"]) for line in lines}) == len(lines)
    assert all(line["source"] and 0 < float(line["value"]) <= 300 for line in lines)
    for row in read_printed(PRINTED, "table3").values():
        value = {key: found.values[0] for key, found in row.items()}
        mean = sum(value[f"iou_{name}"] for name in ("background", "face", "hair")) / 3
        assert mean == pytest.approx(value["mean_iou"], abs=0.011)
    face = 0.633  # share of the face inside the boxes of COFW
    for name, row in read_printed(PRINTED, "table1").items():
        value = {key: found.values[0] for key, found in row.items()}
        if name.startswith(("Softmax", "Structure")):
            rest = 2 * value["mean_recall"] - value["recall_face"]
            accuracy = face * value["recall_face"] + (1 - face) * rest
            assert accuracy == pytest.approx(value["pixel_accuracy"], abs=0.2)


def test_an_unknown_table_or_certainty_is_named(tmp_path):
    with pytest.raises(ValueError, match="table: expected one of"):
        read_printed(PRINTED, "table9")
    file = tmp_path / "a.csv"
    file.write_text("table,row,column,value,certainty,source\nt,r,c,1,sure,s\n")
    with pytest.raises(ValueError, match="certainty: expected one of"):
        read_printed(file, "t")

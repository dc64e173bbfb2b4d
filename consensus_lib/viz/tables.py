"""Tables of a paper: mean ± spread, the best in bold, what is missing as a dash; in LaTeX, and as a picture.

A table is groups of rows, and only rows of one group are compared: two groups may differ in data or setting.
Notebook 07 makes the tables of the study and lays the paper's printed numbers beside them.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

MARKS = {"exact": "", "high": "", "medium": "°", "low": "?"}
"""Certainty of a number that was read off a page → what is set behind it."""


class Column(NamedTuple):
    """One score of a table.

    Attributes:
        key: of the score.
        title: what stands above it.
        higher: whether more is better; None: neither, and nothing is bold.
        digits: after the point.
        scale: factor on results, such as 100 for percent; printed numbers have it already.
    """

    key: str
    title: str
    higher: bool | None = True
    digits: int = 2
    scale: float = 1.0


class Value(NamedTuple):
    """A score of one method.

    Attributes:
        values: one for each training.
        mark: what is set behind a number that is not sure.
        printed: the text of a quoted number, which keeps the digits it was given.
    """

    values: tuple[float, ...]
    mark: str = ""
    printed: str = ""


class Cell(NamedTuple):
    """What a table shows of a value: text of mean and spread (empty: there is none), mark, best or not."""

    mean: str
    spread: str
    mark: str
    best: bool

    @property
    def text(self) -> str:
        """Plain text, a dash for a missing value."""
        return f"{self.mean or '–'}{self.mark}{' ± ' + self.spread if self.spread else ''}"


Groups = Mapping[str, Mapping[str, Mapping[str, Value]]]
"""Title of a group → name of a row → key of a column → value."""


def measured(results, names: Mapping[str, str], columns: Sequence[Column], by: str = "variant") -> dict:
    """Return the rows of a group, at the columns' scale, from a table of results, one line a training.

    Args:
        results: a :class:`pandas.DataFrame` with a column for each key.
        names: value of the column ``by`` → name of the row; those without a result become empty rows.
        columns: of the table. A key that the results do not have is missing in each row.
        by: the column that names a method.
    """
    rows = {}
    for name, title in names.items():
        found = results[results[by] == name]
        there = [column for column in columns if column.key in found]
        rows[title] = {c.key: Value(tuple((found[c.key].dropna() * c.scale).tolist())) for c in there}
    return rows


def read_printed(path: str | Path, table: str) -> dict[str, dict[str, Value]]:
    """Return the rows of one of the paper's tables, as printed, from ``notebooks/studies/paper_tables.csv``.

    Raises:
        ValueError: there is no such table, or a certainty is unknown.
    """
    with open(path, newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    if table not in (known := sorted({line["table"] for line in lines})):
        raise ValueError(f"table: expected one of {known}, got {table!r}")
    rows: dict[str, dict[str, Value]] = {}
    for line in lines:
        if line["certainty"] not in MARKS:
            raise ValueError(f"certainty: expected one of {list(MARKS)}, got {line['certainty']!r}")
        if line["table"] == table:
            value = Value((float(line["value"]),), MARKS[line["certainty"]], line["value"])
            rows.setdefault(line["row"], {})[line["column"]] = value
    return rows


def layout(groups: Groups, columns: Sequence[Column]) -> dict[str, dict[str, list[Cell]]]:
    """Return groups, rows and cells; the number of trainings stands behind each group, or row if they differ.

    Spread is half the range. Bold are the best means of a group, as they are shown: ties are all bold, and
    nothing is where there is nothing to compare, or where one of the numbers is doubtful.

    >>> groups = {"mine": {"a": {"iou": Value((80, 90))}, "b": {}, "c": {"iou": Value((70,))}}}
    >>> for row, cells in layout(groups, [Column("iou", "IoU", digits=1)])["mine"].items():
    ...     print(row, *(cell.text for cell in cells), [cell.best for cell in cells])
    a, n = 2 85.0 ± 5.0 [True]
    b – [False]
    c, n = 1 70.0 [False]
    """
    shown = {}
    for group, rows in groups.items():
        counts = {name: max([len(v.values) for v in row.values()], default=0) for name, row in rows.items()}
        same = len({count for count in counts.values() if count}) <= 1
        best = {column.key: _best(rows, column) for column in columns}
        cells = {
            name + ("" if same or not counts[name] else f", n = {counts[name]}"): [
                _cell(row.get(column.key), column, best[column.key]) for column in columns
            ]
            for name, row in rows.items()
        }
        most = max(counts.values(), default=0)
        shown[f"{group} (n = {most})".strip() if same and most > 1 else group] = cells
    return shown


def missing(groups: Groups, columns: Sequence[Column]) -> dict[str, list[str]]:
    """Return the title of a column → the rows that have no value there, for columns with such rows."""
    lacking = {
        column.title: [
            name
            for rows in groups.values()
            for name, row in rows.items()
            if column.key not in row or not row[column.key].values
        ]
        for column in columns
    }
    return {title: names for title, names in lacking.items() if names}


def notes(groups: Groups, columns: Sequence[Column]) -> str:
    """Return what a caption has to say of the signs in a table, and of no others."""
    cells = [cell for rows in layout(groups, columns).values() for row in rows.values() for cell in row]
    said = {
        "±: half the range over trainings": any(cell.spread for cell in cells),
        "bold: best mean of a group": any(cell.best for cell in cells),
        "° and ?: printed digits that are hard to read": any(cell.mark for cell in cells),
        "–: not printed or not measured": not all(cell.mean for cell in cells),
    }
    found = "; ".join(note for note, there in said.items() if there)
    return f" {found[0].upper()}{found[1:]}." if found else ""


def escape(text: str) -> str:
    r"""Return text with what LaTeX would read as commands or cannot set made safe.

    >>> print(escape("5% of α_1 & more"))
    5\% of $\alpha$\_1 \& more
    """
    return "".join(_LATEX.get(character, character) for character in text)


def latex(
    groups: Groups,
    columns: Sequence[Column],
    *,
    caption: str,
    label: str,
    first: str = "",
    wide: bool = False,
) -> str:
    """Return a table for the packages ``booktabs`` and ``graphicx``; type shrinks if it would not fit.

    Args:
        groups, columns: the table; see :func:`layout`.
        caption: plain text.
        label: to refer to it.
        first: what stands above the names of the rows.
        wide: whether it may span both columns.
    """
    arrows = {True: r"\,$\uparrow$", False: r"\,$\downarrow$", None: ""}
    heads = [escape(first), *(escape(column.title) + arrows[column.higher] for column in columns)]
    lines = []
    for group, rows in layout(groups, columns).items():
        lines.append(r"\midrule")
        if group:
            lines.append(rf"\multicolumn{{{len(heads)}}}{{@{{}}l}}{{\emph{{{escape(group)}}}}} \\")
        lines += [" & ".join([escape(name), *map(_latex_cell, row)]) + r" \\" for name, row in rows.items()]
    environment = "table*" if wide else "table"
    return "\n".join(
        [
            rf"\begin{{{environment}}}[t]",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{escape(caption)}}}",
            rf"\label{{{label}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{@{{}}l{'c' * len(columns)}@{{}}}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            rf"\end{{{environment}}}",
            "",
        ]
    )


def picture(groups: Groups, columns: Sequence[Column], width: float, *, first: str = "") -> Figure:
    """Draw a table as a figure of this width in inches; type shrinks if it would not fit."""
    arrows = {True: " ↑", False: " ↓", None: ""}
    plain = {"weight": "normal", "style": "normal"}
    lines: list = [[(first, plain), *((column.title + arrows[column.higher], plain) for column in columns)]]
    rules, heads = [0, 1], []
    for group, rows in layout(groups, columns).items():
        if group:
            heads.append(len(lines))
            lines.append([(group, plain | {"style": "italic"})])
        for name, row in rows.items():
            cells = [(cell.text, plain | {"weight": "bold" if cell.best else "normal"}) for cell in row]
            lines.append([(name, plain), *cells])
        rules.append(len(lines))
    full = plt.rcParams["font.size"]
    figure = plt.figure(figsize=(width, 1), layout="none")
    renderer = figure.canvas.get_renderer()

    def inches(text: str, style: dict) -> float:
        drawn = figure.text(0, 0, text, fontsize=full, **style)
        found = drawn.get_window_extent(renderer).width / figure.dpi
        drawn.remove()
        return found

    sizes = [[inches(*cell) for cell in line] for line in lines]
    needed = [max(line[c] for line in sizes if c < len(line) > 1) for c in range(len(columns) + 1)]
    gap = 0.6 * full / 72
    size = full * min(1, width / (sum(needed) + gap * len(columns)))
    needed = np.array(needed) * size / full
    free = (width - needed.sum()) / max(1, len(columns))
    left = np.concatenate([[0], np.cumsum(needed[:-1] + free)])
    step = 1.5 * size / 72
    height = (len(lines) + 0.3) * step
    figure.set_size_inches(width, height)
    for number, line in enumerate(lines):
        y = 1 - (number + 0.65) * step / height
        for c, (text, style) in enumerate(line):
            x, side = (left[c], "left") if c == 0 else (left[c] + needed[c] / 2, "center")
            figure.text(x / width, y, text, fontsize=size, ha=side, va="center", **style)
    for number in rules:
        y = 1 - (number + 0.1) * step / height
        weight = 0.9 if number in (0, len(lines)) else 0.5
        figure.add_artist(plt.Line2D([0, 1], [y, y], color="black", linewidth=weight, linestyle="-"))
    return figure


_LATEX = {character: "\\" + character for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "≥": r"$\geq$",
    "·": r"$\cdot$",
    "°": r"$^{\circ}$",
    "₀": "$_0$",
    "₁": "$_1$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "ρ": r"$\rho$",
}


def _shown(value: Value | None, column: Column) -> str:
    """Return a mean as the table shows it, empty where there is none."""
    if value is None or not value.values:
        return ""
    return value.printed or f"{np.mean(value.values):.{column.digits}f}"


def _best(rows: Mapping[str, Mapping[str, Value]], column: Column) -> float | None:
    found = [row[column.key] for row in rows.values() if _shown(row.get(column.key), column)]
    if column.higher is None or len(found) < 2 or any(value.mark == MARKS["low"] for value in found):
        return None
    return (max if column.higher else min)(float(_shown(value, column)) for value in found)


def _cell(value: Value | None, column: Column, best: float | None) -> Cell:
    mean = _shown(value, column)
    if not mean:
        return Cell("", "", "", False)
    spread = f"{np.ptp(value.values) / 2:.{column.digits}f}" if len(value.values) > 1 else ""
    return Cell(mean, spread, value.mark, float(mean) == best)


def _latex_cell(cell: Cell) -> str:
    if not cell.mean:
        return "--"
    mean = rf"\textbf{{{cell.mean}}}" if cell.best else cell.mean
    mark = f"$^{{{cell.mark.replace('°', chr(92) + 'circ')}}}$" if cell.mark else ""
    return mean + mark + (rf"{{\scriptsize$\pm${cell.spread}}}" if cell.spread else "")

"""Tables of a paper: mean ± spread, the best in bold, what is missing as a dash; in HTML and in LaTeX.

A table is groups of rows, and only rows of one group are compared: two groups may differ in data or setting.
Notebook 07 makes the tables of the study and lays the paper's printed numbers beside them.
"""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

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


def to_html(groups: Groups, columns: Sequence[Column], *, first: str = "") -> str:
    """Return a table for a notebook, in plain tags: a code host drops styles, and with them what is bold.

    Args:
        groups, columns: the table; see :func:`layout`.
        first: what stands above the names of the rows.
    """
    arrows = {True: " ↑", False: " ↓", None: ""}
    heads = [html.escape(text) for text in (first, *(c.title + arrows[c.higher] for c in columns))]
    rows = _rows(
        groups,
        columns,
        group=lambda text: f'<div align="left"><i>{html.escape(text)}</i></div>',
        name=lambda text: f'<div align="left">{html.escape(text)}</div>',
        cell=lambda cell: f"<b>{html.escape(cell.text)}</b>" if cell.best else html.escape(cell.text),
    )
    return _styler(rows, heads).to_html(exclude_styles=True)


def to_latex(
    groups: Groups,
    columns: Sequence[Column],
    *,
    caption: str,
    label: str,
    first: str = "",
    wide: bool = False,
) -> str:
    """Return a table for the package ``booktabs``, in the size of footnotes.

    Args:
        groups, columns: the table; see :func:`layout`.
        caption: plain text.
        label: to refer to it.
        first: what stands above the names of the rows.
        wide: whether it may span both columns.
    """
    arrows = {True: r"\,$\uparrow$", False: r"\,$\downarrow$", None: ""}
    heads = [escape(first), *(escape(column.title) + arrows[column.higher] for column in columns)]
    rows = _rows(
        groups,
        columns,
        group=lambda text: rf"\multicolumn{{{len(heads)}}}{{@{{}}l}}{{\emph{{{escape(text)}}}}}",
        name=escape,
        cell=_latex_cell,
    )
    text = _styler(rows, heads).to_latex(
        hrules=True,
        environment="table*" if wide else "table",
        position="t",
        position_float="centering",
        column_format=f"@{{}}l{'c' * len(columns)}@{{}}",
        caption=escape(caption),
        label=label,
    )
    text = text.replace("\\centering\n", "\\centering\\footnotesize\\setlength{\\tabcolsep}{4pt}\n", 1)
    # A title of a group spans its row, of which Styler wrote the empty cells too.
    text = re.sub(r"^(\\multicolumn.*\}) (?:& *)+\\\\$", r"\\midrule\n\1 \\\\", text, flags=re.MULTILINE)
    return text.replace("\\midrule\n\\midrule\n", "\\midrule\n")


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


def _rows(
    groups: Groups,
    columns: Sequence[Column],
    group: Callable[[str], str],
    name: Callable[[str], str],
    cell: Callable[[Cell], str],
) -> list[list[str]]:
    """Return the text of each cell, row by row; a group has a row with its title."""
    rows = []
    for title, lines in layout(groups, columns).items():
        if title:
            rows.append([group(title), *[""] * len(columns)])
        rows += [[name(text), *map(cell, cells)] for text, cells in lines.items()]
    return rows


def _styler(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> Styler:
    frame = pd.DataFrame(rows, columns=range(len(heads)))
    return frame.style.hide(axis="index").relabel_index(heads, axis="columns")


def _latex_cell(cell: Cell) -> str:
    if not cell.mean:
        return "--"
    mean = rf"\textbf{{{cell.mean}}}" if cell.best else cell.mean
    mark = f"$^{{{cell.mark.replace('°', chr(92) + 'circ')}}}$" if cell.mark else ""
    return mean + mark + (rf"{{\scriptsize$\pm${cell.spread}}}" if cell.spread else "")

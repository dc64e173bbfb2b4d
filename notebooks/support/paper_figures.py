"""A manuscript: widths and type of venues, figures and tables with captions as LaTeX includes them.

``run_folder.py`` reads the results, ``paper.py`` has the figures, notebook 07 shows them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
from IPython.display import HTML, display
from matplotlib.figure import Figure

from consensus_lib import paths
from consensus_lib.experiments.notebook import Lesson
from support import tables
from support.run_folder import MissingResult, RunFolder


class JournalFormat(NamedTuple):
    """Width of a venue's column and page in inches; size in points and family of its type."""

    column: float
    page: float
    size: float
    family: str


VENUES = {
    "cvpr": JournalFormat(3.25, 6.875, 8, "STIXGeneral"),  # ICCV too
    "eccv": JournalFormat(4.803, 4.803, 7, "STIXGeneral"),  # LNCS: 122 mm, one column
    "ieee": JournalFormat(3.5, 7.16, 8, "STIXGeneral"),  # journals, A4 and letter
    "neurips": JournalFormat(5.5, 5.5, 8, "STIXGeneral"),  # one column
}
"""STIXGeneral goes with Times, and comes with matplotlib."""


def use_venue(name: str) -> JournalFormat:
    """Set type for a venue, and save figures at exactly their size, from here on; return its format.

    Raises:
        ValueError: the venue is unknown.
    """
    if name not in VENUES:
        raise ValueError(f"venue: expected one of {sorted(VENUES)}, got {name!r}")
    venue = VENUES[name]
    less = {"axes.titlesize": 0, "axes.labelsize": 0, "xtick.labelsize": 1, "ytick.labelsize": 1}
    plt.rcParams.update({key: venue.size - by for key, by in (less | {"legend.fontsize": 1}).items()})
    plt.rcParams.update({"font.size": venue.size, "mathtext.fontset": "stix"})
    plt.rcParams["font.family"] = [venue.family, "DejaVu Sans"]  # the second for glyphs that the first lacks
    plt.rcParams["savefig.bbox"] = "standard"  # a figure that is cut to its ink has no known width
    return venue


class Manuscript:
    """Figures and tables of one paper: each is made if its results are there, else left out by name.

    Args:
        lesson: whose ``out`` gets ``figures/NAME.pdf``, ``.png`` and ``.tex``.
        folder: where results are read.
        venue: one of :data:`VENUES`.

    Attributes:
        made: names of the figures and tables that were made.
        skipped: name → the missing result.
        gaps: name of a table → column → rows without a value.
    """

    def __init__(self, lesson: Lesson, folder: RunFolder, venue: str):
        self.lesson, self.folder, self.venue = lesson, folder, use_venue(venue)
        self.made: list[str] = []
        self.skipped: dict[str, str] = {}
        self.gaps: dict[str, dict[str, list[str]]] = {}

    def figure(
        self, name: str, make: Callable[[RunFolder, float], tuple[Figure, str]], *, wide: bool = False
    ) -> None:
        """Make one figure, show it and keep it, with a LaTeX file that includes it.

        Args:
            name: of the files.
            make: a function of the run folder and the width in inches that returns the figure and its
                caption; it may raise :class:`MissingResult`. The height follows the width.
            wide: whether it spans both columns.
        """
        width = self.venue.page if wide else self.venue.column
        try:
            figure, caption = make(self.folder, width)
        except MissingResult as error:
            return self._skip(name, error)
        figure.set_size_inches(width, figure.get_figheight() * width / figure.get_figwidth())
        self.lesson.show(figure, name, caption)
        body = rf"\centering\includegraphics{{figures/{name}}}"
        star = "*" if wide else ""
        text = rf"\caption{{{tables.escape(caption)}}}\label{{fig:{name}}}"
        self._write(name, f"\\begin{{figure{star}}}[t]\n{body}\n{text}\n\\end{{figure{star}}}\n", caption)

    def table(
        self,
        name: str,
        make: Callable[[RunFolder], tuple[tables.Groups, Sequence[tables.Column], str]],
        *,
        first: str = "",
        wide: bool = False,
    ) -> None:
        """Make one table, show it, and keep it in LaTeX.

        Args:
            name: of the file.
            make: a function of the run folder that returns groups, columns and the caption; it may raise
                :class:`MissingResult`.
            first: what stands above the names of the rows.
            wide: whether it spans both columns.
        """
        try:
            groups, columns, caption = make(self.folder)
        except MissingResult as error:
            return self._skip(name, error)
        caption += tables.notes(groups, columns)
        if gaps := tables.missing(groups, columns):
            self.gaps[name] = gaps
        display(HTML(tables.to_html(groups, columns, first=first)))
        label = f"tab:{name}"
        text = tables.to_latex(groups, columns, caption=caption, label=label, first=first, wide=wide)
        self._write(name, text, caption)

    def finish(self) -> None:
        """Write ``paper.tex``, which includes all that was made, and list what was made and what was not."""
        gap = self.venue.page - 2 * self.venue.column
        document = _DOCUMENT % {
            "columns": "twocolumn" if gap > 0 else "onecolumn",
            "page": self.venue.page,
            "gap": max(gap, 0),
            "parts": "".join(f"\\input{{figures/{name}}}\n" for name in self.made),
        }
        with paths.atomic(self.lesson.out / "paper.tex") as part:
            part.write_text(document, encoding="utf-8")
        lines = [f"**{len(self.made)} made**: {', '.join(self.made) or 'none'}.", ""]
        lines += [f"- **{name} is left out**; missing: {lack}" for name, lack in self.skipped.items()]
        for name, gaps in self.gaps.items():
            lines += [f"- {name} has no {column} for: {'; '.join(rows)}" for column, rows in gaps.items()]
        self.lesson.say("\n".join(lines))

    def _skip(self, name: str, error: MissingResult) -> None:
        self.skipped[name] = str(error)
        for suffix in (".pdf", ".png", ".tex"):  # of an earlier run, which would pass for one of this
            (self.lesson.out / "figures" / f"{name}{suffix}").unlink(missing_ok=True)
        self.lesson.say(f"*{name} is left out; missing: {error}*")

    def _write(self, name: str, text: str, caption: str) -> None:
        with paths.atomic(self.lesson.out / "figures" / f"{name}.tex") as part:
            part.write_text(text, encoding="utf-8")
        self.made.append(name)
        self.lesson.say(f"**{name}.** {caption}")


_DOCUMENT = r"""\documentclass[%(columns)s]{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage{booktabs,graphicx,mathptmx}
\usepackage[textwidth=%(page)gin,columnsep=%(gap).3fin]{geometry}
\setlength{\belowcaptionskip}{6pt}
\begin{document}
%(parts)s\end{document}
"""

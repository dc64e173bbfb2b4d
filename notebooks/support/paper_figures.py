"""From a run folder to a paper: what was trained there, widths and type of venues, files with their captions.

Nothing here trains. What a run folder lacks is named (:class:`Missing`), and its figure is left out, never
made up. What the figures show is in ``counterparts.py`` and in notebook 07.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from consensus_lib import paths
from consensus_lib.data import DatasetError, Splits, open_splits
from consensus_lib.experiments import runs
from consensus_lib.experiments.notebook import Lesson
from consensus_lib.experiments.train import MASKS, read_masks
from consensus_lib.training.checkpoint import HISTORY, STATE, CheckpointError, load_checkpoint
from consensus_lib.viz import tables


class Venue(NamedTuple):
    """How wide a venue's columns are, in inches, and how figures are set for it."""

    column: float
    page: float
    size: float
    family: str


VENUES = {
    "cvpr": Venue(3.25, 6.875, 8, "STIXGeneral"),  # ICCV too
    "eccv": Venue(4.803, 4.803, 7, "STIXGeneral"),  # LNCS: 122 mm, one column
    "ieee": Venue(3.5, 7.16, 8, "STIXGeneral"),  # journals, A4 and letter
    "neurips": Venue(5.5, 5.5, 8, "STIXGeneral"),  # one column
}
"""Venue → widths and type. The family goes with Times, and comes with matplotlib."""


class Missing(LookupError):
    """A run folder lacks what a figure or table needs; the message says what."""


def use_venue(name: str) -> Venue:
    """Set type for a venue, and save figures at exactly their size, from here on; return the venue.

    Raises:
        ValueError: the venue is unknown.
    """
    if name not in VENUES:
        raise ValueError(f"venue: expected one of {sorted(VENUES)}, got {name!r}")
    venue = VENUES[name]
    sizes = {"axes.titlesize": 0, "axes.labelsize": 0, "xtick.labelsize": 1, "ytick.labelsize": 1}
    plt.rcParams.update({key: venue.size - less for key, less in (sizes | {"legend.fontsize": 1}).items()})
    plt.rcParams.update(
        {
            "font.size": venue.size,
            "font.family": [venue.family, "DejaVu Sans"],  # the second for what the first has no glyph for
            "mathtext.fontset": "stix",
            "savefig.bbox": "standard",  # a figure that is cut to its ink has no known width
        }
    )
    return venue


def fit(figure: Figure, width: float) -> Figure:
    """Bring a figure to this width in inches, its height in proportion; type keeps its size."""
    old, height = figure.get_size_inches()
    figure.set_size_inches(width, height * width / old)
    return figure


def named(dataset: str) -> str:
    """Return a data set's name as a reader knows it."""
    return {"synthetic_faces": "drawn faces", "lfw_part_labels": "LFW Part Labels"}.get(dataset, dataset)


def setting(results: pd.DataFrame) -> str:
    """Return for a caption on what, how and how often results were made, and what a training cost."""

    def amount(key: str) -> str:
        values = [f"{value:g}" for value in sorted(results[key].dropna().unique().tolist())]
        return " or ".join(values) if len(values) < 4 else f"{values[0]} to {values[-1]}"

    by = next(key for key in ("variant", "name", "first") if key in results)
    counts = sorted(set(results.groupby(by).seed.nunique()))
    data = " and ".join(map(named, results.dataset.unique()))
    return (
        f"{data[0].upper()}{data[1:]}, {amount('train_images')} training and "
        f"{amount('test_images')} test images of {amount('image_size')} pixels, width {amount('width')}, "
        f"{amount('epochs')} epochs; n = {' or '.join(map(str, counts))}, {results.seconds.mean():.3g} s a "
        f"training on {' and '.join(results.device.unique())}"
    )


class RunFolder:
    """What the notebooks left in a run folder.

    Args:
        folder: such as ``runs/20260101-120000-synthetic-quick``, or ``runs/interactive``.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def trainings(self, notebook: str, *names: str) -> pd.DataFrame:
        """Return a line for each training of a notebook, with its result's keys and its ``name``.

        A folder that was used for several settings gives those of the newest result; and of one name those
        with the most epochs, since a notebook may also train for half as long to compare.

        Args:
            notebook: such as ``"05_artifact_analysis"``.
            names: which to take, in this order; none takes all. It is what a student of notebook 04 learned
                first, elsewhere the loss.

        Raises:
            Missing: there is no training, or none of a name.
        """
        results = runs.read_results(self.folder / notebook)
        if not results:
            raise Missing(f"trainings of {notebook}")
        table = pd.DataFrame(results)
        table["name"] = table["first"].fillna(table.loss) if "first" in table else table.loss
        table["made"] = [(Path(folder) / runs.RESULT).stat().st_mtime for folder in table.folder]
        table = table.sort_values("made", kind="stable")
        same = ["dataset", "task", "image_size", "width"]
        table = table[(table[same] == table[same].iloc[-1]).all(axis=1)]
        table = table[table.epochs == table.groupby("name").epochs.transform("max")]
        table = table.drop_duplicates(["name", "seed"], keep="last")
        if lacking := [name for name in names if name not in set(table.name)]:
            raise Missing(f"trainings with {', '.join(lacking)} in {notebook}")
        order = {name: place for place, name in enumerate(names or table.name.unique())}
        table = table[table.name.isin(order)]
        return table.sort_values(["name", "seed"], key=lambda c: c.map(order) if c.name == "name" else c)

    def network(self, training: pd.Series) -> torch.nn.Module:
        """Return the network of a training, with its last weights.

        Raises:
            Missing: the checkpoint is not there, or broken.
        """
        try:
            return load_checkpoint(training.folder)[0]
        except CheckpointError as error:
            raise Missing(f"checkpoint of {training['name']}: {error}") from None

    def history(self, training: pd.Series) -> list[dict]:
        """Return a dictionary for each epoch of a training.

        Raises:
            Missing: it was not kept.
        """
        try:
            lines = (Path(training.folder) / HISTORY).read_text(encoding="utf-8").splitlines()
        except OSError:
            raise Missing(f"{HISTORY} of {training['name']}") from None
        return [json.loads(line) for line in lines]

    def masks(self, training: pd.Series) -> dict[int, np.ndarray]:
        """Return epoch → masks of the first test images; see :meth:`consensus_lib.experiments.train.Trained.masks`.

        Raises:
            Missing: they were not kept.
        """
        if not (Path(training.folder) / MASKS).is_file():
            raise Missing(f"{MASKS} of {training['name']}")
        return read_masks(Path(training.folder))

    def data(self, training: pd.Series) -> Splits:
        """Return the images that a training learned from and was tested on; draw them anew if need be.

        Raises:
            Missing: they are not prepared here, or others than those.
        """
        name = "synthetic" if training.dataset == "synthetic_faces" else training.dataset
        try:
            found = open_splits(
                name, training.task, size=int(training.image_size), images=int(training.train_images)
            )
            state = json.loads((Path(training.folder) / STATE).read_text(encoding="utf-8"))
        except (DatasetError, OSError) as error:
            raise Missing(f"images of {training.dataset}: {error}") from None
        if state["settings"]["data"] != found.train.fingerprint:
            raise Missing(f"images that {training['name']} was trained on: {name} is another version here")
        return found


class Paper:
    """Figures and tables of one paper: made if there is what they need, else left out by name.

    Args:
        lesson: whose ``out`` gets ``figures/NAME.pdf``, ``.png`` and ``.tex``.
        folder: where results are read.
        venue: one of :data:`VENUES`.

    Attributes:
        made: names of what was made.
        skipped: name → what was missing for it.
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
                caption; it may raise :class:`Missing`.
            wide: whether it spans both columns.
        """
        width = self.venue.page if wide else self.venue.column
        try:
            figure, caption = make(self.folder, width)
        except Missing as lack:
            return self._skip(name, lack)
        self.lesson.show(fit(figure, width), name)
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
        """Make one table, show it and keep it: in LaTeX, and as a picture.

        Args:
            name: of the files.
            make: a function of the run folder that returns groups, columns and the caption; it may raise
                :class:`Missing`.
            first: what stands above the names of the rows.
            wide: whether it spans both columns.
        """
        try:
            groups, columns, caption = make(self.folder)
        except Missing as lack:
            return self._skip(name, lack)
        caption += tables.notes(groups, columns)
        if gaps := tables.missing(groups, columns):
            self.gaps[name] = gaps
        width = self.venue.page if wide else self.venue.column
        self.lesson.show(tables.picture(groups, columns, width, first=first), name)
        label = f"tab:{name}"
        text = tables.latex(groups, columns, caption=caption, label=label, first=first, wide=wide)
        self._write(name, text, caption)

    def finish(self) -> None:
        """Write ``paper.tex``, which has everything that was made, and say what was and what was not."""
        gap = self.venue.page - 2 * self.venue.column
        document = _DOCUMENT % {
            "columns": "twocolumn" if gap > 0 else "onecolumn",
            "page": self.venue.page,
            "gap": max(gap, 0),
            "parts": "".join(f"\\input{{figures/{name}}}\n" for name in self.made),
        }
        with paths.atomic(self.lesson.out / "paper.tex") as part:
            part.write_text(document, encoding="utf-8")
        lines = [f"**{len(self.made)} made**: {', '.join(self.made) or 'none'}."]
        lines += [f"- **{name} is left out**; missing: {lack}" for name, lack in self.skipped.items()]
        lines += [
            f"- {name} has no {column} for: {'; '.join(rows)}"
            for name, gaps in self.gaps.items()
            for column, rows in gaps.items()
        ]
        self.lesson.say("\n".join([*lines[:1], "", *lines[1:]]))

    def _skip(self, name: str, lack: Missing) -> None:
        self.skipped[name] = str(lack)
        for suffix in (".pdf", ".png", ".tex"):  # of an earlier run, which would pass for one of this
            (self.lesson.out / "figures" / f"{name}{suffix}").unlink(missing_ok=True)
        self.lesson.say(f"*{name} is left out; missing: {lack}*")

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

"""Every claim about consensus, beside what the evidence study measured for it.

    python notebooks/studies/claims.py

reads ``evidence-differences.csv`` and writes ``claims.csv``: a row for each entry of ``CLAIMS``. A test fails when
a sentence is no longer where ``CLAIMS`` has it, or says another thing than its row.
"""

import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from consensus_lib.experiments import results
from consensus_lib.experiments.command_line import Parser
from evidence_plan import (
    BAD,
    BY_SIZE,
    CE,
    CONTROL,
    DEVIATION,
    FACES,
    FAST,
    FEW,
    LOVASZ_CE,
    PHOTOGRAPHS,
    PRINTED,
    RECOMMENDED,
    REPAIRS,
    SCNP,
    TEACHER,
    THEN,
)

TABLE = Path(__file__).with_suffix(".csv")
DIFFERENCES = Path(__file__).with_name("evidence-differences.csv")


class Claim(NamedTuple):
    """What a sentence says of a method against another one.

    Attributes:
        sentence: as it stands in ``file``.
        file: from the checkout's top folder.
        method, base: names of the evidence study.
        score: ``"mean_iou"`` or ``"component_error"``.
        says: ``"better"``, ``"worse"``, ``"not decided"`` or ``"collapsed"``.
        part, data: where.
    """

    sentence: str
    file: str
    method: str
    score: str
    says: str
    base: str = CE
    part: str = "factorial"
    data: str = PHOTOGRAPHS


README, STUDIES = "README.md", "notebooks/studies/README.md"
REGISTRY, LESSON = "consensus_lib/losses/registry.py", "notebooks/05_artifact_analysis.ipynb"
MEAN, PIECES = "mean_iou", "component_error"
OF_FACES = {"part": "occlusion", "data": FACES}


def _either(
    sentence: str, file: str, base: str, mean: str, pieces: str, method: str = RECOMMENDED, **where: str
) -> tuple[Claim, Claim]:
    """Return the claims of a sentence that says one thing of mean IoU and another of component error."""
    said = {MEAN: mean, PIECES: pieces}
    return tuple(Claim(sentence, file, method, score, says, base, **where) for score, says in said.items())


def _both(
    sentence: str, file: str, method: str, says: str, base: str = CE, **where: str
) -> tuple[Claim, Claim]:
    """Return the claims of a sentence on mean IoU and component error."""
    return _either(sentence, file, base, says, says, method, **where)


SPOILT = "better than cross-entropy in both, also with 200 labels and with spoilt ones."
ON_FACES = "On rendered covered faces neither score is decided against cross-entropy."
ABOVE = (
    "Better than SCNP, and than Lovász-Softmax alone, in mean IoU; their component errors are not decidedly "
    "others."
)
REPAIRED = CE + THEN + REPAIRS[0]

CLAIMS: tuple[Claim, ...] = (
    *_both(
        "the loss above is not decidedly better than cross-entropy in mean IoU or component error.",
        README,
        BY_SIZE,
        "not decided",
    ),
    Claim("Eq. 8 on classes, as printed, has a lower mean IoU.", README, PRINTED, MEAN, "worse"),
    *_both(
        f"Its second term added to Lovász-Softmax (the preset `recommended`) is {SPOILT}",
        README,
        RECOMMENDED,
        "better",
    ),
    *_both(SPOILT, README, RECOMMENDED, "better", part="few", data=FEW[1]),
    *(
        claim
        for data in (*BAD, TEACHER)
        for claim in _both(SPOILT, README, RECOMMENDED, "better", part="bad", data=data)
    ),
    *(
        claim
        for control in (CONTROL, FAST)
        for claim in _either(
            "It is better in mean IoU than Lovász-Softmax alone and than cross-entropy at a learning rate of "
            "0.02, without a decided difference in component error;",
            README,
            control,
            "better",
            "not decided",
            part="control",
        )
    ),
    Claim(
        "and in component error than Lovász-Softmax with cross-entropy.",
        README,
        RECOMMENDED,
        PIECES,
        "better",
        LOVASZ_CE,
    ),
    *_both(ON_FACES, README, RECOMMENDED, "not decided", **OF_FACES),
    *_both(
        "With β = 5, chosen on validation, neither mean IoU nor component error is decidedly another than "
        "cross-entropy's.",
        REGISTRY,
        BY_SIZE,
        "not decided",
    ),
    *_both("Better than cross-entropy in mean IoU and in component error.", REGISTRY, RECOMMENDED, "better"),
    *_either(ABOVE, REGISTRY, SCNP, "better", "not decided"),
    *_either(ABOVE, REGISTRY, CONTROL, "better", "not decided", part="control"),
    *_either(
        "Better than Lovász-Softmax with cross-entropy in component error; the mean IoU is not decided.",
        REGISTRY,
        LOVASZ_CE,
        "not decided",
        "better",
    ),
    *_both(ON_FACES, REGISTRY, RECOMMENDED, "not decided", **OF_FACES),
    *_both(
        "it is not decidedly better than cross-entropy in mean IoU or component error.",
        LESSON,
        BY_SIZE,
        "not decided",
    ),
    *_both("Added to Lovász-Softmax it is better in both,", LESSON, RECOMMENDED, "better"),
    *_either(
        "and better than Lovász-Softmax with cross-entropy in component error, not decidedly in mean IoU (section 10).",
        LESSON,
        LOVASZ_CE,
        "not decided",
        "better",
    ),
    *_either(
        "To Lovász-Softmax alone the second term adds mean IoU; what it does to the component error is not decided.",
        LESSON,
        CONTROL,
        "better",
        "not decided",
        part="control",
    ),
    *_both(
        "On covered faces neither score is decided against cross-entropy.",
        LESSON,
        RECOMMENDED,
        "not decided",
        **OF_FACES,
    ),
    Claim(
        "With 50 labels its component error is not decided.",
        STUDIES,
        RECOMMENDED,
        PIECES,
        "not decided",
        CE,
        "few",
        FEW[0],
    ),
    Claim(
        "the deviation's mean IoU on SCNP (+0.011) is decided.",
        STUDIES,
        SCNP + DEVIATION,
        MEAN,
        "better",
        SCNP,
        **OF_FACES,
    ),
    *_either(
        "With the same repair the recommendation's component error is no longer decided (0.57), its mean IoU is (+0.019).",
        STUDIES,
        REPAIRED,
        "better",
        "not decided",
        RECOMMENDED + THEN + REPAIRS[0],
        part="repairs",
    ),
    Claim(
        "Removing small components takes cross-entropy from 0.94 to 0.62,",
        STUDIES,
        REPAIRED,
        PIECES,
        "better",
        CE,
        "repairs",
    ),
)


def find(table: pd.DataFrame, method: str, score: str, base: str, part: str, data: str) -> pd.Series | None:
    """Return the row of a comparison; None where there is none."""
    rows = table[
        (table.method == method)
        & (table.base == base)
        & (table.score == score)
        & (table.part == part)
        & (table.data == data)
    ]
    return rows.iloc[0] if len(rows) else None


def replicated(table: pd.DataFrame, claim: Claim) -> str:
    """Say whether the other task has the same word: ``"yes"``, ``"no"``, or what was measured of it."""
    others = {"factorial": ("occlusion", FACES), "occlusion": ("factorial", PHOTOGRAPHS)}
    if claim.part not in others:
        return "not measured"
    row = find(table, claim.method, claim.score, claim.base, *others[claim.part])
    if row is None:
        return "not measured"
    if row.word == "too few seeds":
        return f"{row.difference:+.3f} with {row.seeds} seeds"
    return "yes" if row.word == claim.says else "no"


def main(argv: list[str] | None = None, table: Path = TABLE) -> None:
    """Write the table."""
    argv = sys.argv[1:] if argv is None else argv
    Parser(description=__doc__.split("\n")[0]).parse_args(argv)
    known, rows = pd.read_csv(DIFFERENCES), []
    for claim in CLAIMS:
        row = find(known, claim.method, claim.score, claim.base, claim.part, claim.data)
        rows.append(
            {"claim": claim.sentence, "file": claim.file, "data": claim.data, "method": claim.method}
            | {"base": claim.base, "score": claim.score, "first": row["first"], "second": row.second}
            | {"effect": row.difference, "low": row.low, "high": row.high, "seeds": row.seeds}
            | {"p_holm": row.p_holm, "says": claim.says, "found": row.word}
            | {"replicated": replicated(known, claim)}
        )
    results.write_table(table, rows, shlex.join(["python", "notebooks/studies/claims.py", *argv]))


if __name__ == "__main__":
    main()

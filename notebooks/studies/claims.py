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
from evidence_plan import BY_SIZE, CE, FACES, LOVASZ_CE, PHOTOGRAPHS, PRINTED, RECOMMENDED, SCNP

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


README, REGISTRY = "README.md", "consensus_lib/losses/registry.py"
LESSON = "notebooks/05_artifact_analysis.ipynb"


def _both(sentence: str, file: str, method: str, says: str, base: str = CE) -> tuple[Claim, Claim]:
    """Return the claims of a sentence on mean IoU and component error."""
    return tuple(
        Claim(sentence, file, method, score, says, base) for score in ("mean_iou", "component_error")
    )


CLAIMS: tuple[Claim, ...] = (
    *_both(
        "the loss above is not decidedly better than cross-entropy in mean IoU or component error.",
        README,
        BY_SIZE,
        "not decided",
    ),
    Claim("Eq. 8 on classes, as printed, has a lower mean IoU.", README, PRINTED, "mean_iou", "worse"),
    *_both(
        "Its second term added to Lovász-Softmax (the preset `recommended`) is better than cross-entropy in both,",
        README,
        RECOMMENDED,
        "better",
    ),
    *_both(
        "and not decidedly better than Lovász-Softmax with cross-entropy in either.",
        README,
        RECOMMENDED,
        "not decided",
        LOVASZ_CE,
    ),
    *_both(
        "With β = 5, chosen on validation, neither mean IoU nor component error is decidedly another than "
        "cross-entropy's.",
        REGISTRY,
        BY_SIZE,
        "not decided",
    ),
    *_both("Better than cross-entropy in mean IoU and in component error.", REGISTRY, RECOMMENDED, "better"),
    Claim("Better than SCNP in mean IoU;", REGISTRY, RECOMMENDED, "mean_iou", "better", SCNP),
    Claim("in component error neither is.", REGISTRY, RECOMMENDED, "component_error", "not decided", SCNP),
    *_both(
        "Against Lovász-Softmax with cross-entropy neither score is decided.",
        REGISTRY,
        RECOMMENDED,
        "not decided",
        LOVASZ_CE,
    ),
    *_both(
        "it is not decidedly better than cross-entropy in mean IoU or component error.",
        LESSON,
        BY_SIZE,
        "not decided",
    ),
    *_both("Added to Lovász-Softmax it is better in both,", LESSON, RECOMMENDED, "better"),
    *_both(
        "not decidedly better than Lovász-Softmax with cross-entropy in either (section 10).",
        LESSON,
        RECOMMENDED,
        "not decided",
        LOVASZ_CE,
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
    part, data = ("occlusion", FACES) if claim.part == "factorial" else ("factorial", PHOTOGRAPHS)
    row = find(table, claim.method, claim.score, claim.base, part, data)
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

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
from evidence_plan import CE, FACES, PHOTOGRAPHS

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


CLAIMS: tuple[Claim, ...] = ()


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
    """Say whether the other task has the same word: ``"yes"``, ``"no"`` or ``"not measured"``."""
    part, data = ("occlusion", FACES) if claim.part == "factorial" else ("factorial", PHOTOGRAPHS)
    row = find(table, claim.method, claim.score, claim.base, part, data)
    if row is None:
        return "not measured"
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

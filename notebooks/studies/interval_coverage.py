"""How often does the interval of a difference hold it? A simulation of few seeds and many images.

    python notebooks/studies/interval_coverage.py

writes ``interval_coverage.csv`` beside this file. A value of training s on image i is the sum of a seed's, an image's
and their own deviation, all normal and about 0, which the interval should hold in 95% of the draws.
``seed_sd`` is in units of the standard error that the images leave: at 0 images dominate, at 10 seeds do. One
row for each number of seeds, ``seed_sd`` and share of an image's variance that is new in each training.
"""

import itertools
import shlex
import sys
from pathlib import Path

import numpy as np

from consensus_lib.experiments import results
from consensus_lib.experiments.command_line import Parser, whole
from consensus_lib.metrics.comparison import two_level_interval

SEEDS, SEED_SD, OWN = (3, 5, 10), (0.0, 0.5, 1.0, 2.0, 4.0, 10.0), (0.2, 0.5, 0.9)
TABLE = Path(__file__).with_suffix(".csv")


def covered(
    seeds: int, images: int, seed_sd: float, own: float, draws: int, draw: np.random.Generator
) -> float:
    """Return the share of intervals that hold the true mean, 0."""
    held = 0
    for _ in range(draws):
        values = draw.normal(0, own**0.5, (seeds, images)) + draw.normal(0, (1 - own) ** 0.5, images)
        values += seed_sd * images**-0.5 * draw.normal(0, 1, (seeds, 1))
        low, high, _ = two_level_interval(values)
        held += low <= 0 <= high
    return held / draws


def main(argv: list[str] | None = None, table: Path = TABLE) -> None:
    """Run the simulation and write its table."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=whole(1), default=4000, help="of each row")
    parser.add_argument("--images", type=whole(2), default=400, help="of the test")
    argv = sys.argv[1:] if argv is None else argv
    a = parser.parse_args(argv)
    draw = np.random.default_rng(0)
    rows = [
        {"seeds": seeds, "seed_sd": sd, "own": own, "images": a.images, "draws": a.draws}
        | {"covered": covered(seeds, a.images, sd, own, a.draws, draw)}
        for seeds, sd, own in itertools.product(SEEDS, SEED_SD, OWN)
    ]
    results.write_table(table, rows, shlex.join(["python", "notebooks/studies/interval_coverage.py", *argv]))


if __name__ == "__main__":
    main()

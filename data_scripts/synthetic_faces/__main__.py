"""Render a prepared folder and print its path: ``python -m synthetic_faces --out DIR --train 600``."""

import argparse
import sys
from pathlib import Path

from synthetic_faces.store import FIRST, prepare_synthetic, synthetic_folder


def main(argv: list[str] | None = None) -> None:
    """Render the data set, unless it is there already."""
    parser = argparse.ArgumentParser(prog="python -m synthetic_faces", description=__doc__.split(":")[0])
    parser.add_argument("--out", type=Path, help="where to (default: named by the rest, in the data folder)")
    parser.add_argument("--size", type=int, default=128, help="height and width, pixels")
    parser.add_argument("--seed", type=int, default=0, help="which series of faces")
    parser.add_argument("--workers", type=int, help="processes; 0 renders in this one (default: all cores)")
    for split in FIRST:
        parser.add_argument(f"--{split}", type=int, default=0, help=f"images of the split {split}")
    given = vars(parser.parse_args(argv))
    given["counts"] = {split: given.pop(split) for split in FIRST}
    out = given.pop("out")
    try:
        print(prepare_synthetic(out, **given) if out else synthetic_folder(**given))
    except (ValueError, RuntimeError) as error:  # DatasetError is one of them
        sys.exit(f"synthetic_faces: {error}")


if __name__ == "__main__":
    main()

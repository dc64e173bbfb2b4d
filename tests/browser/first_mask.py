"""Measure the time from a clone to the first trained mask on screen, on an idle machine with packages cached.

    python tests/browser/first_mask.py [REPOSITORY]

It clones the repository (default: this one), calls `make setup`, and runs notebook 02 from nothing. The first
trained mask is its cell 02-35, the gallery of section 6. It should be there in less than four minutes on two
cores.
"""

import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CELL = "02-35"


def main() -> None:
    source = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parents[2])
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        kept = {"CONSENSUS_DATA_DIR": f"{folder}/data", "CONSENSUS_RUNS_DIR": f"{folder}/runs"}
        begin = time.time()
        run = [clone / ".venv/bin/python", "-m", "consensus_lib", "run", "--only", "02"]
        for name, command in {
            "clone": ["git", "clone", "--quiet", source, clone],
            "make setup": ["make", "-C", clone, "--silent", "setup"],
            "notebook 02": [*run, "--out", f"{folder}/run"],
        }.items():
            subprocess.run(command, check=True, env=os.environ | kept, cwd=clone if clone.is_dir() else None)
            print(f"{time.time() - begin:6.0f} s after {name}")
        book = json.loads(next(Path(folder, "run").glob("*/02_*.ipynb")).read_text(encoding="utf-8"))
        (cell,) = (one for one in book["cells"] if one["id"] == CELL)
        ended = datetime.datetime.fromisoformat(cell["metadata"]["papermill"]["end_time"])
        seconds = ended.replace(tzinfo=ended.tzinfo or datetime.UTC).timestamp() - begin
        print(f"{seconds:6.0f} s to the first trained mask, cell {CELL}")


if __name__ == "__main__":
    main()

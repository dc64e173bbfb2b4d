"""Measure the time from a clone to the first trained mask on screen, on an idle machine with packages cached.

    python tests/browser/first_mask.py [REPOSITORY]

It clones the repository (default: this one), calls `make setup`, and runs notebook 02 from nothing. The first
masks of a network trained there are in cell 02-25c, after one pass over the images; they should be on screen
in less than four minutes on two cores. The masks of a whole training follow in cell 02-35.
"""

import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CELLS = {"02-25c": "first trained masks", "02-35": "masks of a whole training"}


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
        for cell in book["cells"]:
            if title := CELLS.get(cell["id"]):
                ended = datetime.datetime.fromisoformat(cell["metadata"]["papermill"]["end_time"])
                seconds = ended.replace(tzinfo=ended.tzinfo or datetime.UTC).timestamp() - begin
                print(f"{seconds:6.0f} s to the {title}, cell {cell['id']}")


if __name__ == "__main__":
    main()

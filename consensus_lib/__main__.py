"""The command ``python -m consensus_lib parse|label|train|sweep|run …``; each has its own ``--help``."""

import importlib
import sys

COMMANDS = {
    "parse": "consensus_lib.models.parse_command",
    "label": "consensus_lib.teacher.label_command",
    "train": "consensus_lib.experiments.train_command",
    "sweep": "consensus_lib.experiments.sweeps",
    "run": "consensus_lib.experiments.notebooks",
}


def main(argv: list[str]) -> int:
    """Hand the rest of the arguments to a command; return its exit code."""
    if argv in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if not argv or argv[0] not in COMMANDS:
        found = f"got {argv[0]}" if argv else "got none"
        print(f"python -m consensus_lib: expected one of {', '.join(COMMANDS)}, {found}", file=sys.stderr)
        return 2
    return importlib.import_module(COMMANDS[argv[0]]).main(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

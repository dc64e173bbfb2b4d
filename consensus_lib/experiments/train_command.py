"""One training from the shell; its options are the fields of :class:`~.train.Config`.

python -m consensus_lib train --loss consensus --epochs 8
torchrun --nproc-per-node 2 -m consensus_lib train --batch-size 32
"""

import argparse
import dataclasses
import inspect
import re
import sys
from pathlib import Path

from consensus_lib import paths
from consensus_lib.data import is_folder, loader
from consensus_lib.experiments import command_line, results
from consensus_lib.experiments.train import Config, run
from consensus_lib.training import CheckpointError, distributed, pick_device, pick_precision


def main(argv: list[str] | None = None) -> int:
    """Train what the command line says; return 0, or 1 if the loss is no longer finite."""
    parser = _parser()
    given = vars(parser.parse_args(argv))
    device, out, workers = (given.pop(name) for name in ("device", "out", "workers"))
    restart = given.pop("restart")
    given["task"] = given["task"] or ("source" if is_folder(given["data"]) else "parts")
    with command_line.refusing(parser):
        config = Config(**given | {"loss_options": command_line.parse_options(given["loss_options"])})
        device = distributed.init(device)
        pick_precision(config.precision, pick_device(device))
        data = config.open_data()
        share = distributed.rank(), distributed.world_size()
        loader(data.train, config.batch_size, shuffle=True, share=share)
    try:
        trained = run(config, data, out=out, device=device, workers=workers, resume=not restart)
    except CheckpointError as error:
        parser.error(str(error))
    except FloatingPointError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    if distributed.rank() == 0:
        table = results.as_text(results.read_results(trained.folder))
        print(f"{table}\n\nCheckpoint and result: {paths.shown(trained.folder)}")
    distributed.shutdown()
    return 0


def _parser() -> command_line.Parser:
    """Return a parser with an option for each field of :class:`Config`, and its line there as help."""
    parser = command_line.Parser(
        prog="python -m consensus_lib train",
        description="Train one network. Several GPUs: torchrun --nproc-per-node N -m consensus_lib train. "
        "Called again, it resumes from the checkpoint in its folder, also on another kind of machine.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    helps = dict(re.findall(r"^    (\w+): (.+)$", inspect.getdoc(Config), re.MULTILINE))
    for field in dataclasses.fields(Config):
        option = "--" + field.name.replace("_", "-")
        text = re.sub(r":\w+:`([^`]+)`", r"\1", helps[field.name])
        if field.name == "loss_options":
            add(option, nargs="*", default=[], metavar="NAME=VALUE", help=text)
        elif field.name == "task":
            add(option, help=f"{text}; without it, parts, or source for a prepared folder")
        elif field.name != "augment":
            kind = Path if field.default is None else type(field.default)
            add(option, type=kind, default=field.default, help=text)
    add("--device", default="auto", help="auto, cpu, cuda, …")
    loading = "processes that load data, for each that trains"
    add("--workers", type=command_line.whole(0), default=0, help=loading)
    add("--out", type=command_line.folder, help="folder; by default one below the runs folder")
    add("--restart", action="store_true", help="replace the checkpoint instead of resuming from it")
    return parser

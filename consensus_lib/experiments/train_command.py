"""One training from the shell: ``python -m consensus_lib train``, or ``torchrun -m consensus_lib train``."""

import argparse
import dataclasses
import re
import sys
from pathlib import Path

from consensus_lib import paths
from consensus_lib.data import TASKS, is_folder, loader
from consensus_lib.experiments import command_line, results
from consensus_lib.experiments.train import Config, parse_options, run
from consensus_lib.losses.registry import LOSSES
from consensus_lib.models.networks import NETWORKS
from consensus_lib.training import CheckpointError, distributed, pick_device, pick_precision


def main(argv: list[str] | None = None) -> int:
    """Train one network as the notebooks do, score it on the test split, file the result; return 0.

    A training whose loss is no longer finite returns 1, in a line that says so.
    """
    parser = _parser()
    given = parser.parse_args(argv)
    given.task = given.task or ("source" if is_folder(given.dataset) else "parts")
    names = {field.name for field in dataclasses.fields(Config)} - {"loss_options"}
    with command_line.refusing(parser):
        own = {name: value for name, value in vars(given).items() if name in names}
        config = Config(**own, data=given.dataset, loss_options=parse_options(given.loss_options))
        device = distributed.init(given.device)
        pick_precision(given.precision, pick_device(device))
        data = config.open_data()
        loader(data.train, given.batch_size, shuffle=True, share=distributed.rank_and_world_size())
    slug = "-".join([Path(given.dataset).name, given.task, re.sub(r"[^\w.-]+", "-", given.loss)])
    out = given.out or paths.runs_dir() / "training" / f"{slug}-seed{given.seed}"
    try:
        run(config, data, out=out, device=device, workers=given.workers, resume=given.resume)
    except CheckpointError as error:
        parser.error(str(error))
    except FloatingPointError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    if distributed.rank() == 0:
        print(f"{results.as_text(results.read_results(out))}\n\nCheckpoint and result: {paths.shown(out)}")
    distributed.shutdown()
    return 0


def _parser() -> command_line.Parser:
    parser = command_line.Parser(
        prog="python -m consensus_lib train",
        description="Train one network. With several GPUs: torchrun --nproc-per-node N -m "
        "consensus_lib train. Called again, it resumes from the checkpoint in its folder, also on another "
        "kind of machine.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    whole, number = command_line.whole, command_line.number
    add(
        "--data",
        "--dataset",
        dest="dataset",
        default="synthetic",
        help="synthetic, lfw_part_labels, or a prepared folder",
    )
    tasks = f"{', '.join(TASKS)}, one of the data set's own, or source, its own classes; by default parts,"
    add("--task", help=f"classes to learn: {tasks} and source for a prepared folder")
    add("--size", type=whole(1), default=64, help="side of the images in pixels")
    add("--images", type=whole(0), default=600, help="training images; 0 is all, of real data")
    add("--network", choices=list(NETWORKS), default="FaceOccNet", help="what is trained")
    add("--width", type=number(0), default=0.25, help="of the network; 1 is the paper's")
    add("--dropout", type=number(0), default=0.0, help="of the network")
    add("--epochs", type=whole(1), default=8, help="passes over the training images")
    add("--batch-size", type=whole(1), default=16, help="images a step, of all processes together")
    add("--learning-rate", type=number(0), default=0.01, help="of Adam, before the cosine schedule")
    seed = "of weights, order, augmentation and dropout"
    add("--seed", type=whole(0, command_line.SEED), default=0, help=seed)
    add("--loss", default="consensus", help=f"{', '.join(LOSSES)}, or MODULE:ATTRIBUTE")
    options = "of the loss, such as beta=2 kind=class"
    add("--loss-options", nargs="*", default=[], metavar="NAME=VALUE", help=options)
    add("--device", default="auto", help="auto, cpu, cuda, …")
    precisions = ["auto", "float32", "bfloat16"]
    forward = "of the forward pass; auto is the checkpoint's, or at first what the device is fast in"
    add("--precision", choices=precisions, default="auto", help=forward)
    add("--workers", type=whole(0), default=0, help="processes that load data, for each that trains")
    add("--out", type=command_line.folder, help="folder; by default one below the runs folder")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", default=True, help="continue from the checkpoint")
    again.add_argument("--restart", dest="resume", action="store_false", help="replace the checkpoint")
    return parser

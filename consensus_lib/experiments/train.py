"""One training from the shell: ``python -m consensus_lib train``, or ``torchrun -m consensus_lib train``."""

import argparse
import sys

import torch
from torch import nn

from consensus_lib import losses, paths
from consensus_lib.data import MILD, TASKS, Splits, loader, open_splits
from consensus_lib.experiments import command_line, results
from consensus_lib.models.networks import FaceOccNet, check_network, count_parameters
from consensus_lib.training import (
    CheckpointError,
    cosine,
    distributed,
    evaluate,
    fit,
    pick_device,
    pick_precision,
)
from consensus_lib.training.devices import device_name


def main(argv: list[str] | None = None) -> int:
    """Train one network as the notebooks do, score it on the test split, file the result; return 0.

    A training whose loss is no longer finite returns 1, in a line that says so.
    """
    parser = _parser()
    given = parser.parse_args(argv)
    name, loss = given.loss, losses.pixelwise_loss
    weights = {key: getattr(given, key) for key in ("alpha", "beta", "size_weight", "pixel_weight")}
    if name == "consensus":
        loss = losses.ConsensusLoss(given.kind, **weights)
    opened = {"size": given.size, "images": given.images, "augment": MILD, "seed": given.seed}
    with command_line.refusing(parser):
        device = distributed.init(given.device)
        pick_precision(given.precision, pick_device(device))
        check_network(FaceOccNet, given.size, given.width, given.dropout)
        data = distributed.main_process_first(lambda: open_splits(given.dataset, given.task, **opened))
        loader(data.train, given.batch_size, shuffle=True, share=distributed.rank_and_world_size())
    out = given.out or paths.runs_dir() / "training" / f"{given.dataset}-{given.task}-{name}-seed{given.seed}"
    torch.manual_seed(given.seed)
    network = FaceOccNet(len(data.train.task.classes), given.width, given.dropout)
    try:
        history = fit(
            network,
            data.train,
            loss,
            epochs=given.epochs,
            batch_size=given.batch_size,
            validation=data.validation,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=given.learning_rate),
            schedule=cosine,
            seed=given.seed,
            device=device,
            precision=given.precision,
            workers=given.workers,
            out=out,
            resume=given.resume,
        )
    except CheckpointError as error:
        parser.error(str(error))
    except FloatingPointError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    scores = evaluate(network, data.test, workers=given.workers).compute()
    if distributed.rank() == 0:
        results.write_result(
            out,
            notebook="training",
            loss=name,
            **({"kind": given.kind, **weights} if name == "consensus" else {}),
            **{k: getattr(given, k) for k in ("task", "seed", "epochs", "width", "dropout", "batch_size")},
            learning_rate=given.learning_rate,
            image_size=given.size,
            train_images=len(data.train),
            **outcome(network, data, history),
            device=device_name(pick_device(device)),
            processes=distributed.world_size(),
            **scores,
        )
        print(f"{results.as_text(results.read_results(out))}\n\nCheckpoint and result: {paths.shown(out)}")
    distributed.shutdown()
    return 0


def outcome(model: nn.Module, data: Splits, history: list[dict]) -> dict:
    """Return what a result says of a finished training beside its settings and scores."""
    return {
        "dataset": data.test.info.name,
        "split": data.test.split,
        "test_images": len(data.test),
        "parameters": count_parameters(model),
        "validation_mean_iou": history[-1]["mean_iou"],
        "seconds": history[-1]["seconds"],
        "precision": history[-1]["precision"],
        "changes": [f"epoch {row['epoch']}: {text}" for row in history for text in row.get("changes", [])],
    }


def _parser() -> command_line.Parser:
    parser = command_line.Parser(
        prog="python -m consensus_lib train",
        description="Train one network. With several GPUs: torchrun --nproc-per-node N -m "
        "consensus_lib train. Called again, it goes on from the checkpoint in its folder, also on another "
        "kind of machine.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    whole, number = command_line.whole, command_line.number
    add("--dataset", default="synthetic", help="synthetic or lfw_part_labels")
    add("--task", choices=list(TASKS), default="parts", help="classes to learn")
    add("--size", type=whole(1), default=64, help="side of the images in pixels")
    add("--images", type=whole(0), default=600, help="training images; 0 is all, of real data")
    add("--width", type=number(0), default=0.25, help="of the network; 1 is the paper's")
    add("--dropout", type=number(0), default=0.0, help="of the network")
    add("--epochs", type=whole(1), default=8, help="passes over the training images")
    add("--batch-size", type=whole(1), default=16, help="images a step, of all processes together")
    add("--learning-rate", type=number(0), default=0.01, help="of Adam, before the cosine schedule")
    seed = "of weights, order, augmentation and dropout"
    add("--seed", type=whole(0, command_line.SEED), default=0, help=seed)
    add("--loss", choices=["cross-entropy", "consensus"], default="consensus", help="what is minimised")
    kinds = ["class", "component", "occlusion", "pixel"]  # superpixels need the image
    add("--kind", choices=kinds, default="component", help="consensus: how labels are cut into blobs")
    add("--alpha", type=number(), default=10.0, help="consensus: weight of the match with the label")
    add("--beta", type=number(), default=5.0, help="consensus: weight of the deviation from the mean")
    add("--size-weight", type=number(), default=0.0, help="consensus: 0 weighs blobs alike, 1 pixels")
    add("--pixel-weight", type=number(), default=0.0, help="consensus: weight of an added cross-entropy")
    add("--device", default="auto", help="auto, cpu, cuda, …")
    precisions = ["auto", "float32", "bfloat16"]
    forward = "of the forward pass; auto is the checkpoint's, or at first what the device is fast in"
    add("--precision", choices=precisions, default="auto", help=forward)
    add("--workers", type=whole(0), default=0, help="processes that load data, for each that trains")
    add("--out", type=command_line.folder, help="folder; by default one below the runs folder")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", default=True, help="go on from the checkpoint")
    again.add_argument(
        "--restart", dest="resume", action="store_false", help="train anew over the checkpoint"
    )
    return parser

"""Which form of the consensus loss helps? The study behind the last section of notebook 03.

    python notebooks/studies/consensus.py

needs LFW Part Labels (``make data-lfw``) and writes ``consensus.csv`` beside this file, one row a training.
Every loss trains the same network on the same photographs, in the same order and for the same number of
steps, with each seed. CE is cross-entropy, D the deviation from the blob's mean (second term of Eq. 7).
``CE, then …`` spends half of the steps on cross-entropy first, as the paper does. Every training lies in a
folder of its own: a study that was stopped resumes.
"""

import math
import shlex
import sys
from pathlib import Path

from consensus_lib import paths
from consensus_lib.data import MILD, open_splits
from consensus_lib.data.prepared import prepared_folder
from consensus_lib.experiments import notebook, results
from consensus_lib.experiments.command_line import SEED, Parser, number, refusing, whole
from consensus_lib.experiments.train import Config
from consensus_lib.losses import ConsensusLoss, pixelwise_loss
from consensus_lib.models.networks import FaceOccNet, MostFrequentLabel, check_network
from consensus_lib.training.trainer import evaluate


def rising(progress: float) -> float:
    """Return a weight that rises from 0 to 2 along half a cosine; ``progress`` is the share of the training."""
    return 1 - math.cos(math.pi * progress)


DEVIATION = {"alpha": 0.0, "pixel_weight": 1.0}
LOSSES = {
    "CE": pixelwise_loss,
    "CE + 1 D, components": ConsensusLoss("component", beta=1.0, **DEVIATION),
    "CE + 3 D, components": ConsensusLoss("component", beta=3.0, **DEVIATION),
    "CE + D rising to 2, components": ConsensusLoss("component", beta=rising, **DEVIATION),
    "Eq. 8, classes": ConsensusLoss("class"),
    "Eq. 8, components": ConsensusLoss("component"),
    "Eq. 8, components, no specks": ConsensusLoss("component", min_size=16),
    "Eq. 8, components, by size": ConsensusLoss("component", size_weight=1.0),
}
TUNED = ("CE", "Eq. 8, classes")
TABLE = Path(__file__).with_suffix(".csv")


def main(argv: list[str] | None = None, table: Path = TABLE) -> None:
    """Run the study and write its table."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--losses", nargs="+", default=list(LOSSES), choices=LOSSES, help="losses to train with"
    )
    parser.add_argument("--tuned", nargs="*", default=TUNED, choices=LOSSES, help="losses to fine-tune with")
    parser.add_argument(
        "--seeds", nargs="+", type=whole(0, SEED), default=[0, 1, 2], help="trainings of each kind"
    )
    parser.add_argument("--epochs", type=whole(2), default=10, help="passes over the photographs; even")
    parser.add_argument("--images", type=whole(0), default=0, help="photographs to train on; 0 takes all")
    parser.add_argument("--size", type=whole(1), default=64, help="side of the images in pixels")
    parser.add_argument("--width", type=number(0), default=0.25, help="factor on the network's channels")
    argv = sys.argv[1:] if argv is None else argv
    a = parser.parse_args(argv)
    if a.epochs % 2:
        parser.error(f"--epochs: expected an even number, got {a.epochs}")
    with refusing(parser):
        prepared_folder("lfw_part_labels", size=max(128, a.size))
        check_network(FaceOccNet, a.size, a.width)
    lesson = notebook.begin("consensus")
    folders = []
    for seed in a.seeds:
        data = open_splits("lfw_part_labels", "parts", size=a.size, images=a.images, augment=MILD, seed=seed)
        constant = evaluate(MostFrequentLabel(data.train), data.test).compute()["mean_iou"]
        setting = {"seed": seed, "width": a.width}

        def train(variant, config, data=data, constant=constant):
            trained = lesson.train(config, data, live=False, variant=variant, floor_mean_iou=constant)
            return trained.folder

        for name in a.losses:
            config = Config(loss=LOSSES[name], title="from-scratch", epochs=a.epochs, **setting)
            folders.append(train(name, config))
        setting["epochs"] = a.epochs // 2
        half = train("half", Config(loss=pixelwise_loss, title="half", **setting)) if a.tuned else None
        for name in a.tuned:
            tuned = {"title": "fine-tuned", "start": half, "learning_rate": 1e-3}
            folders.append(train(f"CE, then {name}", Config(loss=LOSSES[name], **tuned, **setting)))
    command = shlex.join(["python", "notebooks/studies/consensus.py", *argv])
    results.write_table(table, results.read_results(*folders), command)
    print(f"{len(folders)} trainings in {paths.shown(table)}")


if __name__ == "__main__":
    main()

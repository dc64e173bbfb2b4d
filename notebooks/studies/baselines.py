"""Consensus and baselines under one protocol: the study behind notebook 05 and ``losses.registry.PRESETS``.

    python notebooks/studies/baselines.py

needs LFW Part Labels (``make data-lfw``). It writes ``baselines.csv``, one row for each training and each way to
treat the masks of cross-entropy, and ``baselines-differences.csv``, one row for each difference to cross-entropy
or to the recommended consensus, with its interval. All losses train the same network on the same photographs,
in the same order and for the same number of steps, with each seed. Every training lies in a folder of its
own: a study that was stopped resumes, and several processes can train a part of the ``--losses`` each before
one writes the tables.

The settings were chosen on the first three seeds and the test images. What was chosen, once more, with
seeds and images on which nothing was:

    python notebooks/studies/baselines.py --table notebooks/studies/baselines-again.csv --split validation \\
        --seeds 3 4 5 --losses cross-entropy "consensus alone" "Lovász-Softmax and consensus" Lovász-Softmax
"""

import shlex
import sys
from pathlib import Path

from consensus_lib import paths
from consensus_lib.data import MILD, open_splits
from consensus_lib.data.prepared import prepared_folder
from consensus_lib.experiments import notebook, results
from consensus_lib.experiments.command_line import SEED, Parser, number, refusing, whole
from consensus_lib.experiments.train import Config
from consensus_lib.losses import BASELINES, PRESETS, ConsensusLoss, pixelwise_loss
from consensus_lib.metrics.comparison import paired_bootstrap
from consensus_lib.metrics.structure import StructureScores
from consensus_lib.models.networks import FaceOccNet, check_network
from consensus_lib.models.postprocess import POSTPROCESSING, options_at
from consensus_lib.training.trainer import evaluate

BASE, RECOMMENDED = "cross-entropy", PRESETS["recommended"].title
EFFECTS = {
    f"{kind}, beta {beta:g}, size weight {weight:g}": ConsensusLoss(kind, beta=beta, size_weight=weight)
    for kind, beta, weight in (
        ("component", 10.0, 1.25),
        ("component", 20.0, 1.0),
        ("component", 10.0, 0.7),
        ("class", 5.0, 0.0),
    )
}
LOSSES = (
    {BASE: pixelwise_loss}
    | {PRESETS["alone"].title: PRESETS["alone"].make(), RECOMMENDED: PRESETS["recommended"].make(beta=1.0)}
    | {baseline.title: baseline.make() for baseline in BASELINES.values()}
    | EFFECTS
)
SCORES = ("mean_iou", "component_error", "hole_error", "betti0_error", "island_share_error", "boundary_f1_2",
          "hausdorff95", "raggedness_error")  # fmt: skip
TABLE = Path(__file__).with_suffix(".csv")


def main(argv: list[str] | None = None, table: Path = TABLE) -> None:
    """Run the study and write its tables."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--table", type=Path, default=table, help="of scores; that of differences lies beside it"
    )
    parser.add_argument(
        "--losses", nargs="+", default=list(LOSSES), choices=LOSSES, help="what to train with"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=whole(0, SEED), default=[0, 1, 2], help="trainings of each kind"
    )
    parser.add_argument(
        "--split",
        default="test",
        choices=["test", "validation"],
        help="what to score; no training saw either",
    )
    parser.add_argument("--epochs", type=whole(1), default=20, help="passes over the photographs")
    parser.add_argument("--images", type=whole(0), default=0, help="photographs to train on; 0 takes all")
    parser.add_argument("--size", type=whole(1), default=64, help="side of the images in pixels")
    parser.add_argument("--width", type=number(0), default=0.25, help="factor on the network's channels")
    argv = sys.argv[1:] if argv is None else argv
    a = parser.parse_args(argv)
    with refusing(parser):
        prepared_folder("lfw_part_labels", size=max(128, a.size))
        check_network(FaceOccNet, a.size, a.width)
    lesson = notebook.begin("baselines")
    found: dict[str, list[StructureScores]] = {}
    rows = []
    for seed in a.seeds:
        data = open_splits("lfw_part_labels", "parts", size=a.size, images=a.images, augment=MILD, seed=seed)
        data = data._replace(test=getattr(data, a.split))
        setting, about = {"seed": seed, "width": a.width}, {"live": False, "scores": StructureScores}
        for name in a.losses:
            config = Config(loss=LOSSES[name], title=name, epochs=a.epochs, **setting)
            done = lesson.train(config, data, variant=name, **about)
            found.setdefault(name, []).append(done.scores)
            rows += (made := results.read_results(done.folder))
            for key, method in POSTPROCESSING.items() if name == BASE else ():
                corrected = method.make(done.network, **options_at(a.size).get(key, {}))
                scores = evaluate(corrected, data.test, scores=StructureScores)
                found.setdefault(method.title, []).append(scores)
                rows.append(made[0] | {"variant": method.title} | scores.compute())
    command = shlex.join(["python", "notebooks/studies/baselines.py", *argv])
    results.write_table(a.table, rows, command)
    gains = [
        {"base": base, "variant": name} | paired_bootstrap(found[base], scores, key)._asdict()
        for base in (BASE, RECOMMENDED)
        if base in found
        for name, scores in found.items()
        if name != base
        for key in SCORES
    ]
    for gain in gains:
        del gain["p"]  # the bootstrap has none
        gain["of_trainings"] = " ".join(f"{value:.4f}" for value in gain["of_trainings"])
    results.write_table(a.table.with_stem(f"{a.table.stem}-differences"), gains, command)
    print(f"{len(rows)} rows in {paths.shown(a.table)}")


if __name__ == "__main__":
    main()

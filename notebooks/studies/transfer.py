"""From rendered faces to photographs: the study behind the last section of notebook 01.

    python notebooks/studies/transfer.py

needs LFW Part Labels (``make data-lfw``) and writes ``transfer.csv`` beside this file, one row a training.

*Ablation*: for each recipe, one series of rendered faces; a network is trained on them alone, with each seed, and
tested on the photographs. *Start*: networks are trained on a few real photographs, from scratch and from the
weights of the full recipe with the same seed, each at several learning rates on one budget; validation says
which rate a table should take. Every training lies in a folder of its own: a study that was stopped resumes.

``transfer.csv`` was made with version 4 of the renderer, which had twelve kinds of occluder and more detail;
on its evidence version 5 dropped what hardly matters. Its first row was measured again with version 5::

    python notebooks/studies/transfer.py --recipes all --few 0 --table notebooks/studies/transfer-again.csv
"""

import itertools
import shlex
import sys
from pathlib import Path

from consensus_lib import paths
from consensus_lib.data import MILD, FaceDataset, Splits, open_splits
from consensus_lib.data.prepared import prepared_folder
from consensus_lib.experiments import notebook, results
from consensus_lib.experiments.command_line import Parser, number, refusing, whole
from consensus_lib.experiments.train import Config, Trained
from consensus_lib.losses import pixelwise_loss
from consensus_lib.models.networks import FaceOccNet, MostFrequentLabel, check_network
from consensus_lib.training.trainer import evaluate
from synthetic_faces import Recipe, synthetic_folder
from synthetic_faces.store import VERSION

ALL = {"occluded": 0.1}  # press photographs show few occluders; found on the validation photographs
RECIPES = {
    "all": ALL,
    "no light": ALL | {"light": False},
    "no texture": ALL | {"texture": False},
    "plain background": ALL | {"background": "plain", "people": 0.0},
    "no camera": ALL | {"camera": False},
    "no occluders": {"occluded": 0.0},
    "occluders on 40 %": {"occluded": 0.4},
}
TABLE = Path(__file__).with_suffix(".csv")


def ablation(
    lesson, real: Splits, recipes: list[str], seeds: int, images: int, setting: dict, about: dict
) -> dict[str, list[Trained]]:
    """Train on rendered faces alone, with each recipe; return its trainings, one a seed."""
    trained = {name: [] for name in recipes}
    for name in recipes:
        folder = synthetic_folder(counts={"train": images}, recipe=Recipe(**RECIPES[name]))
        for seed in range(seeds):
            rendered = FaceDataset(folder, "train", "parts", size=real.test.size, augment=MILD, seed=seed)
            config = Config(loss=pixelwise_loss, title="pixelwise", seed=seed, **setting)
            data = real._replace(train=rendered)
            trained[name].append(
                lesson.train(config, data, live=False, study="ablation", variant=name, **about)
            )
    return trained


def head_start(
    lesson, starts: list[Path], size: int, images: int, rates: list[float], setting: dict, about: dict
) -> list[Trained]:
    """Train on a few photographs, from scratch and from each of the weights in ``starts``."""
    trained = []
    for seed, pretrained in enumerate(starts):
        few = open_splits("lfw_part_labels", "parts", size=size, images=images, augment=MILD, seed=seed)
        for (name, start), rate in itertools.product(
            {"scratch": None, "rendered faces": pretrained}.items(), rates
        ):
            more = {"seed": seed, "learning_rate": rate, "start": start}
            config = Config(loss=pixelwise_loss, title="pixelwise", **more, **setting)
            trained.append(lesson.train(config, few, live=False, study="start", variant=name, **about))
    return trained


def main(argv: list[str] | None = None, table: Path = TABLE) -> None:
    """Run the study and write its table."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--table", type=Path, default=table, help="where to write the rows")
    parser.add_argument(
        "--recipes", nargs="+", default=list(RECIPES), choices=RECIPES, help="rows of the ablation"
    )
    parser.add_argument("--seeds", type=whole(1), default=3, help="trainings of each kind")
    parser.add_argument("--images", type=whole(1), default=3000, help="rendered faces to train on")
    parser.add_argument("--epochs", type=whole(1), default=7, help="passes over them")
    parser.add_argument(
        "--few", type=whole(0), default=100, help="photographs to start on; 0 leaves this out"
    )
    parser.add_argument("--few-epochs", type=whole(1), default=60, help="passes over them")
    parser.add_argument(
        "--rates", nargs="+", type=number(0), default=[1e-2, 1e-3], help="learning rates to try there"
    )
    parser.add_argument("--size", type=whole(1), default=64, help="side of the images in pixels")
    parser.add_argument("--width", type=number(0), default=0.25, help="factor on the network's channels")
    argv = sys.argv[1:] if argv is None else argv
    a = parser.parse_args(argv)
    with refusing(parser):
        prepared_folder("lfw_part_labels", size=max(128, a.size))
        check_network(FaceOccNet, a.size, a.width)
    lesson = notebook.begin("transfer")
    real = open_splits("lfw_part_labels", "parts", size=a.size, images=0)
    constant = evaluate(MostFrequentLabel(real.train), real.test).compute()
    about = {f"floor_{key}": constant[key] for key in ("iou_face", "iou_hair", "mean_iou")}
    about["renderer"] = VERSION
    setting = {"width": a.width, "epochs": a.epochs}
    by_recipe = ablation(lesson, real, a.recipes, a.seeds, a.images, setting, about)
    starts = [one.folder for one in by_recipe.get("all", [])] if a.few else []
    trained = list(itertools.chain(*by_recipe.values()))
    setting["epochs"] = a.few_epochs
    trained += head_start(lesson, starts, a.size, a.few, a.rates, setting, about)

    command = shlex.join(["python", "notebooks/studies/transfer.py", *argv])
    results.write_table(a.table, results.read_results(*(one.folder for one in trained)), command)
    print(f"{len(trained)} trainings in {paths.shown(a.table)}")


if __name__ == "__main__":
    main()

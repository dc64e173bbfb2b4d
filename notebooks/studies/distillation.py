"""What is a teacher worth, and how many human labels does it save? The study behind notebook 04.

    python notebooks/studies/distillation.py

needs LFW Part Labels (``make data-lfw``) and writes ``distillation.csv`` beside this file, one row a training.

With each seed, a teacher (``UNet``) learns from rendered faces alone and labels the photographs that nobody
labelled, but for those of people on whom it is scored. Students (``FaceOccNet``) learn from these
pseudo-labels with cross-entropy, with consensus, or from the teacher's probabilities; others learn from the
rendered faces that the teacher saw, without a teacher. Then they are fine-tuned on a few human labels, and
compared with students that saw nothing else, in a short training and in one that sees as many images as both
trainings of the others. Test photographs have human labels. Every training lies in a folder of its own: a
study that was stopped resumes.
"""

import shlex
import sys
from pathlib import Path

from consensus_lib import paths
from consensus_lib.data import MILD, FaceDataset, open_splits
from consensus_lib.data.folder import ids_without_subjects_of, read_index
from consensus_lib.data.prepared import prepared_folder
from consensus_lib.experiments import notebook, results
from consensus_lib.experiments.command_line import SEED, Parser, number, refusing, whole
from consensus_lib.experiments.train import Config
from consensus_lib.losses import ConsensusLoss, pixelwise_loss
from consensus_lib.losses.distillation import DistillationLoss
from consensus_lib.models.networks import FaceOccNet, UNet, check_network
from consensus_lib.teacher.pseudo_labels import choose, prepare_pseudo_labels, read_records
from consensus_lib.teacher.teachers import NetworkTeacher
from synthetic_faces import Recipe, synthetic_folder

CONSENSUS = ConsensusLoss("component", size_weight=1.0)  # the form that helped in consensus.py
LONG = "nothing, as long"
FIRST = {
    "nothing": None,
    LONG: None,
    "rendered faces": pixelwise_loss,
    "pseudo-labels": pixelwise_loss,
    "pseudo-labels, soft": DistillationLoss(hard=0.0, soft=1.0),
    "pseudo-labels, consensus": CONSENSUS,
}
"""What a student learns first → by which loss."""

HUMAN = {50: 60, 200: 20, 0: 4}
"""Human labels to learn from afterwards (0: all) → passes over them; from ``"nothing"``, twice as many."""

TABLE = Path(__file__).with_suffix(".csv")


def main(argv: list[str] | None = None, table: Path = TABLE) -> None:
    """Run the study and write its table."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--first", nargs="+", default=list(FIRST), choices=FIRST, help="what comes first")
    parser.add_argument("--human", nargs="*", type=int, default=list(HUMAN), choices=HUMAN, help="labels")
    parser.add_argument(
        "--seeds", nargs="+", type=whole(0, SEED), default=[0, 1, 2], help="trainings of each kind"
    )
    parser.add_argument("--rendered", type=whole(1), default=3000, help="rendered faces for the teacher")
    parser.add_argument("--photographs", type=whole(1), default=3000, help="unlabelled photographs")
    parser.add_argument("--epochs", type=whole(1), default=5, help="passes over either")
    parser.add_argument("--size", type=whole(1), default=64, help="side of the images in pixels")
    parser.add_argument(
        "--width", type=number(0), default=0.25, help="of students; a teacher has twice as much"
    )
    argv = sys.argv[1:] if argv is None else argv
    a = parser.parse_args(argv)
    with refusing(parser):
        prepared_folder("lfw_part_labels", size=max(128, a.size))
        check_network(FaceOccNet, a.size, a.width)
        if any(FIRST[first] for first in a.first):
            check_network(UNet, a.size, 2 * a.width)
    lesson = notebook.begin("distillation")
    source, folders = prepared_folder("lfw_part_labels"), []
    free = ids_without_subjects_of(read_index(source), "unlabelled", ("validation", "test"))
    photographs = min(a.photographs, len(free))
    for seed in a.seeds:
        real = open_splits("lfw_part_labels", "parts", size=a.size, images=0, augment=MILD, seed=seed)
        shown = {"size": a.size, "augment": MILD, "seed": seed}
        if any(FIRST[first] for first in a.first):
            folder = synthetic_folder(counts={"train": a.rendered}, recipe=Recipe(occluded=0.1))
            rendered = real._replace(train=FaceDataset(folder, "train", "parts", **shown))
            network = {"network": "UNet", "width": 2 * a.width, "learning_rate": 3e-3}
            config = Config(loss=pixelwise_loss, title="teacher", seed=seed, epochs=a.epochs, **network)
            teacher = lesson.train(config, rendered, live=False, first="teacher", human_labels=0)
            folders.append(teacher.folder)
            labelled = prepare_pseudo_labels(
                lesson.out / f"pseudo-labels-{photographs}-{teacher.folder.name}",
                source,
                NetworkTeacher(teacher.folder),
                size=a.size,
                limit=photographs,
            )
            ids, _ = choose(read_records(labelled))
            pseudo = FaceDataset(labelled, "train", "parts", ids=ids, probabilities=True, **shown)
        for first in a.first:
            loss, start = FIRST[first], None
            setting, about = {"seed": seed, "width": a.width}, {"live": False, "first": first}
            if loss:
                data = rendered if first == "rendered faces" else real._replace(train=pseudo)
                config = Config(loss=loss, title="student", epochs=a.epochs, **setting)
                start = lesson.train(config, data, human_labels=0, **about).folder
                folders.append(start)
            if first.endswith("soft"):
                continue
            for count in a.human:
                few = open_splits(
                    "lfw_part_labels", "parts", size=a.size, images=count, augment=MILD, seed=seed
                )
                passes = HUMAN[count]
                if first == LONG:
                    passes += round(a.epochs * photographs / len(few.train))
                elif not start:
                    passes *= 2
                loss = CONSENSUS if first.endswith("consensus") else pixelwise_loss
                tuned = {"title": "tuned", "start": start, "learning_rate": 1e-3 if start else 1e-2}
                config = Config(loss=loss, epochs=passes, **tuned, **setting)
                trained = lesson.train(config, few, human_labels=len(few.train), **about)
                folders.append(trained.folder)
    command = shlex.join(["python", "notebooks/studies/distillation.py", *argv])
    results.write_table(table, results.read_results(*folders), command)
    print(f"{len(folders)} trainings in {paths.shown(table)}")


if __name__ == "__main__":
    main()

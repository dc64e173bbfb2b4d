"""Occlusion labels without a human: how good are they, and what does a student learn from them?

    python notebooks/studies/occlusion_labels.py
    python notebooks/studies/occlusion_labels.py --students

needs LFW Part Labels (``make data-lfw``). Occluders are composed onto its photographs
(:func:`synthetic_faces.occlude`), so that the truth is known. The first call scores what the label factory
makes of them, step by step, in ``occlusion_labels.csv`` beside this file: on validation photographs, where
everything was chosen, and on test photographs once. The second trains small networks on the factory's labels
of photographs that nobody labelled, and files ``occlusion_students.csv``: the counterpart of the paper's
Table 1. Every training lies in a folder of its own: a study that was stopped resumes.

Students learn from *scratch*, from human labels alone, for as many images as the longest of the others; by
*transfer*, from the factory's labels alone; by both (*fine-tuning*); with cross-entropy or with *consensus* on
the occlusion components (Eq. 8, each blob weighed by its size). The human labels are Part Labels under composed
occluders.
"""

import shlex
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from consensus_lib import paths
from consensus_lib.data import MILD, TASKS, DatasetInfo, DatasetWriter, FaceDataset, Splits, Task
from consensus_lib.data.decoded import decode
from consensus_lib.data.folder import ids_without_subjects_of, is_made, read_index, read_info
from consensus_lib.data.prepared import prepared_folder
from consensus_lib.experiments import notebook, results
from consensus_lib.experiments.command_line import SEED, Parser, number, refusing, whole
from consensus_lib.experiments.train import Config
from consensus_lib.losses import ConsensusLoss, pixelwise_loss
from consensus_lib.metrics.segmentation import SegmentationScores
from consensus_lib.models import FaceParser
from consensus_lib.models.networks import FaceOccNet, check_network
from consensus_lib.models.photo import convex_hull
from consensus_lib.teacher.factorise import OPENING, PAPER, Cleaning, factorise
from consensus_lib.teacher.pseudo_labels import CONFIDENCE, prepare_pseudo_labels
from consensus_lib.teacher.teachers import ParserExtent, ParserTeacher, TeacherExtent
from consensus_lib.training import evaluate
from synthetic_faces import Composed, Recipe, occlude, synthetic_folder
from weights import JOINT, complete_scores, joint_folder

CLASSES = ("background", "hair over the face", "face", "occlusion", "occluder beside the face")
COLOURS = ((0, 0, 0), (213, 94, 0), (86, 180, 233), (240, 228, 66), (150, 150, 150))
OCCLUSION = dict(zip(CLASSES, ("background", "background", "face", "occlusion", "background"), strict=True))
"""Classes of a composed photograph, and their classes in the task ``"occlusion"`` as Eq. 2 defines it."""

EVALUATED = ("validation", "test")
TABLE = Path(__file__).with_suffix(".csv")
STUDENTS = TABLE.with_stem("occlusion_students")
CONSENSUS = ConsensusLoss("occlusion", size_weight=1.0)
HUMAN, FREE = 400, 1000  # photographs with human labels, and without
EPOCHS, TUNING = 10, 4  # passes over the factory's labels, and over human ones after them


def composed_folder(split: str, composition: int, limit: int | None = None, progress: bool = True):
    """Return a prepared folder of the photographs of a split with occluders composed onto them.

    Photographs without labels get those of the shipped parser. Those of people who occur in the splits for
    evaluation are left out.

    Args:
        split: of LFW Part Labels.
        composition: names the occluders, 0 to 999.
        limit: take the first photographs only.
        progress: show a bar.
    """
    source = prepared_folder("lfw_part_labels")
    info, index = read_info(source), read_index(source)
    kept = set(ids_without_subjects_of(index, split, set(EVALUATED) - {split}))
    rows = [row for row in index if row.id in kept][:limit]
    notes = {"source": info.name, "source_index": info.index_sha256, "split": split}
    notes |= {"composition": composition, "images": len(rows)}
    folder = paths.data_dir() / f"composed-{split}-{composition}-{len(rows)}"
    if is_made(folder, info.size, notes, "the same photographs"):
        return folder
    described = DatasetInfo(
        "composed", CLASSES, COLOURS, info.source, info.licence, info.size, notes=notes,
        tasks={"occlusion": OCCLUSION},
    )  # fmt: skip
    parser = FaceParser.from_pretrained("parts", device="cpu") if split == "unlabelled" else None
    to = split if split in EVALUATED else "train"
    with DatasetWriter(folder, described) as writer:
        for number, row in enumerate(tqdm(rows, f"composing {split} {composition}", disable=not progress)):
            if not writer.has(row.id):
                photo = decode(source, row, "image", info.size)
                labels = parts_of(parser, photo) if parser else decode(source, row, "labels", info.size)
                try:
                    made = occlude(photo, labels, 100_000 * composition + number)
                except ValueError:  # the parser sees no face
                    continue
                writer.add(row.id, to, row.subject, image=made.image, labels=joint_labels(made))
            else:
                writer.add(row.id, to, row.subject)
    return folder


def parts_of(parser: FaceParser, photo: np.ndarray) -> np.ndarray:
    """Return the parser's labels of a face that is cut out already, uint8 ``[S,S]``."""
    return parser(photo, whole=True)[0].labels


def joint_labels(made: Composed) -> np.ndarray:
    """Return the number in :data:`CLASSES` of each pixel, uint8 ``[S,S]``."""
    beside = made.occluder & ~made.complete
    return np.select([made.labels == 2, made.labels == 1, beside, made.hair], [3, 2, 4, 1], 0).astype(
        np.uint8
    )


def predicted(data: FaceDataset) -> dict[str, np.ndarray]:
    """Return what the shipped parsers see in images, ``[N,H,W]`` each; kept in a file of the runs folder.

    Returns:
        ``own``: the classes of the occlusion parser; ``sure``: its largest probability; ``complete``: the
        complete face that it tells; ``visible_hull``: the hull of the face that it sees; ``hair``: of the
        parts parser.
    """
    teacher, parts = ParserTeacher(), ParserTeacher("parts")
    file = paths.runs_dir() / f"occlusion_labels/{data.fingerprint}-{teacher.version}-{parts.version}.npz"
    if not file.is_file():
        extent, visible, found = ParserExtent(teacher), TeacherExtent(teacher), []
        for start in tqdm(range(0, len(data), 32), f"parsing {data.folder.name}"):
            images = data.__getitems__(range(start, min(start + 32, len(data))))["image"]
            sure, own = teacher(images).max(1)
            hair = parts(images).argmax(1) == parts.classes.index("hair")
            found.append((own.numpy(), sure.numpy(), extent(images), visible(images), hair.numpy()))
        names = ("own", "sure", "complete", "visible_hull", "hair")
        kept = {n: np.concatenate(one) for n, one in zip(names, zip(*found, strict=True), strict=True)}
        with paths.atomic(file) as part, part.open("wb") as stream:
            np.savez_compressed(stream, **kept)
    with np.load(file) as stored:
        return dict(stored)


def steps(seen: dict[str, np.ndarray], search: bool) -> dict[str, np.ndarray]:
    """Return step of the factory → its labels ``[N,H,W]``; with ``search``, all that was tried besides."""
    face, complete, hair = seen["own"] == 1, seen["complete"], seen["hair"]

    def factorised(extent, cleaning):
        return np.stack([factorise(e, f, cleaning).labels for e, f in zip(extent, face, strict=True)])

    own = seen["own"]
    hull = np.stack([convex_hull(mask) for mask in complete])
    found = {
        "the parser's own occlusion": own,
        "its own occlusion in the complete face": np.where((own == 2) & ~complete, 0, own),
        "Eq. 1, hull of the visible face": factorised(seen["visible_hull"], None),
        "Eq. 1, complete face": factorised(complete, None),
        "Eq. 1, complete face, the paper's cleaning": factorised(complete, PAPER),
        "Eq. 1, complete face, cleaning": factorised(complete, OPENING),
        "Eq. 1, complete face without hair, cleaning": factorised(complete & ~hair, OPENING),
        "Eq. 1, hull of the complete face, cleaning": factorised(hull, OPENING),
    }
    if search:
        for erosion in ((0.024, 0), (0.036, 0.036), (0.05, 0.05)):
            name = f"erosion {erosion[0]:g} by {erosion[1]:g}"
            found[f"search: complete face, {name}"] = factorised(complete, Cleaning(erosion))
    return found


CHOSEN = "Eq. 1, complete face, cleaning"
IOUS = ("iou_background", "iou_face", "iou_occlusion")
SHARES = {"0_10": (0, 0.1), "10_30": (0.1, 0.3), "30_100": (0.3, 1.01), "10_100": (0.1, 1.01)}
"""Per cent of the complete face that is covered."""


def label_scores(labels: np.ndarray, joint: np.ndarray, kept: np.ndarray) -> dict[str, float]:
    """Return the scores of labels ``[N,H,W]`` where the truth is ``joint`` (:data:`CLASSES`), of kept images."""
    task = TASKS["occlusion"]
    truth = np.array([task.classes.index(OCCLUSION[name]) for name in CLASSES])[joint]
    share = (truth == 2).sum((1, 2)) / np.maximum(1, (truth > 0).sum((1, 2)))
    row = {"images": int(kept.sum()), "mean_share_covered": float(share[kept].mean())}
    scores = SegmentationScores(task.classes)
    scores.update(torch.from_numpy(labels[kept]), torch.from_numpy(truth[kept]))
    found = scores.compute()
    row |= {key: found[key] for key in (*IOUS, "mean_iou", "component_error")}
    for name, (low, high) in SHARES.items():
        within = kept & (share >= low) & (share < high)
        for k in (1, 2):
            said, there = labels[within] == k, truth[within] == k
            iou = (said & there).sum() / max(1, (said | there).sum())
            row[f"iou_{task.classes[k]}_covered_{name}"] = float(iou)
    hair, called = (joint == CLASSES.index("hair over the face"))[kept], (labels == 2)[kept]
    rows, face = np.arange(joint.shape[1])[:, None], (truth > 0)[kept]
    middle = (rows * face).sum((1, 2)) / np.maximum(1, face.sum((1, 2)))  # [N], the face's row
    upper = rows[None, :, :] < middle[:, None, None]  # fringe and temples; below are beard and moustache
    for name, one in (("fringe", hair & upper), ("beard", hair & ~upper)):
        row[f"{name}_called_occlusion"] = float((called & one).sum() / max(1, one.sum()))
    row["occlusion_that_is_hair"] = float((called & hair).sum() / max(1, called.sum()))
    return row


def rendered_rows(count: int) -> list[dict]:
    """Return rows: the IoU of the complete face on rendered test faces, by the share of it that is covered."""
    data = FaceDataset(rendered(count), "test")
    seen = predicted(data)
    joint = np.stack([data[i]["labels"].numpy() for i in range(len(data))])
    extents = {
        "complete face by the network": seen["complete"],
        "its hull": np.stack([convex_hull(mask) for mask in seen["complete"]]),
        "hull of the visible face": seen["visible_hull"],
    }
    rows = []
    for name, found in extents.items():
        scores = complete_scores(found, joint, ("0_10", "10_40", "40_70"))
        row = {"test_data": "synthetic_faces", "split": "test", "step": name, "images": len(joint)}
        rows.append(row | {key: iou for key, iou in scores.items() if key.startswith("complete")})
    return rows


def score_labels(a, argv: list[str], table: Path) -> None:
    """Score the factory's steps on composed photographs, and the complete face on rendered faces."""
    rows = []
    for split in EVALUATED:
        for composition in a.compositions:
            folder = composed_folder(split, composition)
            data = FaceDataset(folder, split)
            joint = np.stack([data[i]["labels"].numpy() for i in range(len(data))])
            seen = predicted(data)
            about = {"test_data": "composed LFW Part Labels", "split": split, "composition": composition}
            everything = np.ones(len(joint), bool)
            found = steps(seen, search=(split, composition) == ("validation", 0))
            for name, labels in found.items():
                rows.append(about | {"step": name} | label_scores(labels, joint, everything))
            sure = np.array(
                [s[c].mean() if c.any() else 0 for s, c in zip(seen["sure"], seen["complete"], strict=True)]
            )
            for least in sorted({CONFIDENCE, *((0.85, 0.91, 0.94) if split == "validation" else ())}):
                if not (sure >= least).any():
                    continue
                name = f"{'' if least == CONFIDENCE else 'search: '}{CHOSEN}, confidence {least:g}"
                rows.append(about | {"step": name} | label_scores(found[CHOSEN], joint, sure >= least))
    rows += rendered_rows(a.rendered)
    rows = [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    results.write_table(table, rows, shlex.join(["python", "notebooks/studies/occlusion_labels.py", *argv]))
    print(f"{len(rows)} rows in {paths.shown(table)}")


def rendered(count: int) -> Path:
    """Return the folder of rendered test faces, in the joint classes of ``weights.py``."""
    return joint_folder(synthetic_folder(counts={"test": count}, recipe=Recipe(occluded=0.6)))


def rendered_covered(size: int, count: int) -> FaceDataset:
    """Return the test images among ``count`` rendered faces in which something covers the face (Eq. 2)."""
    folder, task = rendered(count), TASKS["occlusion"]
    names = ("background", "background", "face", "occlusion", "background")
    task = Task("occlusion", task.classes, task.colours, dict(zip(JOINT, names, strict=True)))
    whole = FaceDataset(folder, "test", task)
    labels = [whole[i]["labels"] for i in range(len(whole))]
    ids = [
        row.id
        for row, one in zip(whole.rows, labels, strict=True)
        if (one == 2).sum() > 0.01 * (one > 0).sum()
    ]
    return FaceDataset(folder, "test", task, size=size, ids=ids)


def train_students(a, argv: list[str], table: Path) -> None:
    """Train all students and write their table, one row for each training."""
    lesson = notebook.begin("occlusion_labels")
    free, human = composed_folder("unlabelled", 0, a.free), composed_folder("train", 0, a.human)
    teacher = ParserTeacher()
    labelled = prepare_pseudo_labels(
        paths.data_dir() / f"labelled-{free.name}",
        free,
        teacher,
        extent=ParserExtent(teacher),
        rules={"confidence": CONFIDENCE},
        split="train",
        held_out=(),
    )
    validation, test = (
        FaceDataset(composed_folder(split, 0), split, "occlusion", size=a.size) for split in EVALUATED
    )
    covered, rows = rendered_covered(a.size, a.rendered), []
    for seed in a.seeds:
        shown = {"size": a.size, "augment": MILD, "seed": seed}
        ours, theirs = (
            Splits(FaceDataset(folder, "train", "occlusion", **shown), validation, test)
            for folder in (labelled, human)
        )
        longest = round(a.epochs * len(ours.train) / len(theirs.train)) + a.tuning
        first = {}

        def learn(name, data, loss, epochs, seed=seed, first=first, **more):
            config = Config(loss=loss, title=name, seed=seed, width=a.width, epochs=epochs, **more)
            done = lesson.train(config, data, live=False, first=name)
            seen = done.cached(
                "rendered", lambda: evaluate(done.network, covered), SegmentationScores
            ).compute()
            (row,) = results.read_results(done.folder)
            keys = (*IOUS, "mean_iou", "component_error")
            rows.append(row | {f"rendered_{key}": seen[key] for key in keys})
            first[name] = done.folder

        learn("transfer", ours, pixelwise_loss, a.epochs)
        learn("transfer, consensus", ours, CONSENSUS, a.epochs)
        tuned = {"learning_rate": 1e-3, "start": first["transfer"]}
        learn("transfer, fine-tuning", theirs, pixelwise_loss, a.tuning, **tuned)
        learn("transfer, fine-tuning with consensus", theirs, CONSENSUS, a.tuning, **tuned)
        learn("scratch", theirs, pixelwise_loss, longest)
        results.write_table(
            table, rows, shlex.join(["python", "notebooks/studies/occlusion_labels.py", *argv])
        )
    print(f"{len(rows)} trainings in {paths.shown(table)}")


def main(argv: list[str] | None = None, table: Path = TABLE, students: Path = STUDENTS) -> None:
    """Score the labels, or train the students."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--students", action="store_true", help="train students instead of scoring labels")
    parser.add_argument(
        "--seeds", nargs="+", type=whole(0, SEED), default=[0, 1, 2, 3, 4], help="trainings of each kind"
    )
    parser.add_argument(
        "--compositions", nargs="+", type=whole(0, 999), default=[0, 1, 2], help="of occluders, to score"
    )
    parser.add_argument("--free", type=whole(1), default=FREE, help="photographs that nobody labelled")
    parser.add_argument("--human", type=whole(1), default=HUMAN, help="photographs that humans labelled")
    parser.add_argument("--rendered", type=whole(1), default=600, help="rendered faces to test on")
    parser.add_argument("--epochs", type=whole(1), default=EPOCHS, help="passes over the former")
    parser.add_argument("--tuning", type=whole(1), default=TUNING, help="passes over the latter after them")
    parser.add_argument("--size", type=whole(1), default=48, help="side of the students' images in pixels")
    parser.add_argument("--width", type=number(0), default=0.25, help="of the students")
    argv = sys.argv[1:] if argv is None else argv
    a = parser.parse_args(argv)
    with refusing(parser):
        prepared_folder("lfw_part_labels")
        check_network(FaceOccNet, a.size, a.width)
    if a.students:
        train_students(a, argv, students)
    else:
        score_labels(a, argv, table)


if __name__ == "__main__":
    main()

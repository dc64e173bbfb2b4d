"""The weights that come with the package, made again: ``make weights``.

    python notebooks/studies/weights.py

renders faces, trains the networks of ``FaceParser`` on them and nothing else, chooses nothing on test images,
and writes ``consensus_lib/models/weights/NAME.safetensors`` and, beside this file, ``weights.csv``: scores with
intervals on rendered test faces and, where LFW Part Labels is prepared, on its photographs at 128 pixels.
Every training lies in a folder of its own: one that was stopped goes on.

*parts* (background, face, hair) is trained with the recommended loss, *parts-pixelwise* with cross-entropy and
all else alike, for the picture of the README. *occlusion* learns five joint classes, whose sums are the
visible classes and the complete face; see :class:`consensus_lib.models.pretrained.JointClasses`.
"""

import shlex
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from matplotlib import cbook
from PIL import Image
from torch import nn

from consensus_lib import paths
from consensus_lib.data import Augment, DatasetInfo, DatasetWriter, FaceDataset, Task
from consensus_lib.data.folder import is_made, read_index, read_info
from consensus_lib.data.prepared import is_prepared, prepared_folder
from consensus_lib.data.tasks import TASKS
from consensus_lib.experiments import results
from consensus_lib.experiments.command_line import Parser, whole
from consensus_lib.experiments.train import Config, run
from consensus_lib.models.networks import count_parameters
from consensus_lib.models.parse_command import draw_overlay
from consensus_lib.models.parser import FaceParser
from consensus_lib.models.photo import open_photo
from consensus_lib.models.pretrained import JointClasses, save_weights
from consensus_lib.training import evaluate
from consensus_lib.training.devices import device_name
from synthetic_faces import Recipe, read_truth, synthetic_folder

TABLE = Path(__file__).with_suffix(".csv")
WEIGHTS = Path(__file__).parents[2] / "consensus_lib/models/weights"
JOINT = ("background", "background over the face", "face", "occlusion of the face", "occlusion elsewhere")
GROUPS, COMPLETE = ((0, 1), (2,), (3, 4)), (1, 2, 3)
VARIED = Augment(flip=0.5, rotation=10, scale=0.85, shift=0.06, colour=0.3)
NAMES = ("parts", "parts-pixelwise", "occlusion")
LOSSES = {"parts": "recommended", "parts-pixelwise": "cross-entropy", "occlusion": "cross-entropy"}
NETWORK = {"network": "UNet", "width": 0.25, "size": 96, "batch_size": 16, "learning_rate": 0.003}


class Parsing(nn.Module):
    """A parser as a network of any image size, so that ``evaluate`` scores what ships: reduced, enlarged."""

    def __init__(self, parser: FaceParser):
        super().__init__()
        self.parser, self.network = parser, parser.network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return probabilities float ``[B,K,H,W]`` of images ``[B,3,H,W]``."""
        small = F.interpolate(
            image, (self.parser.size,) * 2, mode="bilinear", antialias=True, align_corners=False
        )
        seen, _ = self.parser.predict(small)
        return F.interpolate(seen, image.shape[2:], mode="bilinear", align_corners=False)


def joint_labels(visible: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Return the joint class of each pixel.

    Args:
        visible: classes of the task ``"occlusion"``, uint8 ``[H,W]``: 0 background, 1 face, 2 occlusion.
        face: the complete face, bool ``[H,W]``.

    >>> joint_labels(np.array([[0, 0, 1, 2, 2]]), np.array([[False, True, True, True, False]])).tolist()
    [[0, 1, 2, 3, 4]]
    """
    table = np.array([[0, 1], [2, 2], [4, 3]], np.uint8)  # [visible, in the complete face]
    return table[visible, face.astype(int)]


def joint_folder(source: Path, progress: bool = True) -> Path:
    """Return a prepared folder beside ``source`` with the same rendered images in joint classes."""
    folder, info = source.with_name(f"{source.name}-joint"), read_info(source)
    notes = {"rendered": info.index_sha256, **info.notes}
    if is_made(folder, info.size, notes, "the same rendered faces"):
        return folder
    task = TASKS["occlusion"]
    table = task.table(info.classes)
    colours = [task.colours[0], (90, 90, 90), task.colours[1], task.colours[2], (150, 140, 40)]
    about = DatasetInfo(
        "rendered_joint", JOINT, tuple(colours), info.source, info.licence, info.size, notes=notes
    )
    with DatasetWriter(folder, about) as writer:
        for row in read_index(source):
            labels = table[np.asarray(Image.open(source / row.labels))]
            _, face, _ = read_truth(source, row.id)
            image = (source / row.image).read_bytes()
            writer.add(row.id, row.split, row.subject, image=image, labels=joint_labels(labels, face))
    return folder


def visible_task() -> Task:
    """Return the task ``"occlusion"`` of a folder in joint classes."""
    task = TASKS["occlusion"]
    members = {JOINT[joint]: task.classes[k] for k, group in enumerate(GROUPS) for joint in group}
    return Task("occlusion", task.classes, task.colours, members)


def complete_scores(found: np.ndarray, joint: np.ndarray, shares=("0_0.1", "0.1_0.4", "0.4_0.7")) -> dict:
    """Return the mean IoU of complete faces, over all images and by the share of the face that is covered.

    Args:
        found: bool ``[N,H,W]``.
        joint: the truth in joint classes, ``[N,H,W]``.
        shares: names of the shares 0 to 0.1, 0.1 to 0.4 and 0.4 to 0.7 in the keys.
    """
    truth = np.isin(joint, COMPLETE)
    union, area = (found | truth).sum((1, 2)), truth.sum((1, 2))
    iou = np.where(union, (found & truth).sum((1, 2)) / np.maximum(union, 1), np.nan)
    covered = np.isin(joint, (1, 3)).sum((1, 2)) / np.maximum(area, 1)
    row = {"complete_iou": float(np.nanmean(iou))}
    for name, (low, high) in zip(shares, ((0.0, 0.1), (0.1, 0.4), (0.4, 0.7)), strict=True):
        within = (covered >= low) & (covered < high)
        row[f"complete_iou_covered_{name}"] = float(np.nanmean(iou[within])) if within.any() else np.nan
        row[f"images_covered_{name}"] = int(within.sum())
    return row


def scored(parser: FaceParser, data: FaceDataset, about: dict) -> dict:
    """Return a row: the scores of a parser, with 95% intervals over images (2,000 bootstrap samples)."""
    scores = evaluate(Parsing(parser), data)
    row = about | {"test_data": data.info.name, "test_images": len(data)} | scores.compute()
    draw, total = np.random.default_rng(0), len(data)
    counts = draw.multinomial(total, np.full(total, 1 / total), size=2000)
    for key in ["mean_iou", *(f"iou_{name}" for name in parser.classes), "component_error"]:
        low, high = np.nanquantile(scores.weighted(key, counts), [0.025, 0.975])
        row[f"{key}_interval"] = f"{low:.4f}..{high:.4f}"
    return row


def by_tone(folder: Path, split: str) -> dict[str, list[str]]:
    """Return the ids of rendered faces by skin tone: thirds of the ten tones of the Monk scale."""
    groups: dict[str, list[str]] = {"light": [], "medium": [], "dark": []}
    for row in read_index(folder):
        if row.split == split:
            tone = read_truth(folder, row.id)[2]["skin_tone"]["value"]
            groups["light" if tone <= 3 else "medium" if tone <= 6 else "dark"].append(row.id)
    return {name: ids for name, ids in groups.items() if ids}


def draw_picture(file: Path) -> None:
    """Draw portraits in the public domain, and their masks by the shipped networks of ``parts``."""
    portraits = skimage.data.astronaut(), Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    titles = {"parts-pixelwise": "pixel-wise: cross-entropy", "parts": "with consensus"}
    parsers = [FaceParser.from_pretrained(name) for name in titles]
    figure, axes = plt.subplots(len(portraits), 1 + len(titles), figsize=(9, 6.4), layout="compressed")
    for row, portrait in zip(axes, map(open_photo, portraits), strict=True):
        faces = [parser(portrait)[0] for parser in parsers]  # the largest of each
        left, top, right, bottom = faces[0].window
        for axis, view in zip(row, [portrait, *(draw_overlay(portrait, [f]) for f in faces)], strict=True):
            axis.imshow(view)
            axis.set(xlim=(left, right), ylim=(bottom, top))
            axis.set_axis_off()
    for axis, title in zip(axes[0], ["photograph", *titles.values()], strict=True):
        axis.set_title(title)
    figure.savefig(file, dpi=120, pil_kwargs={"quality": 88})
    plt.close(figure)


def main(argv: list[str] | None = None, table: Path = TABLE, weights: Path = WEIGHTS) -> None:
    """Train, write the weights, score them."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", default=list(NAMES), choices=NAMES, help="networks to make")
    parser.add_argument("--images", type=whole(1), default=8_000, help="rendered faces to train on")
    parser.add_argument("--test", type=whole(1), default=600, help="rendered faces to test on")
    parser.add_argument("--epochs", type=whole(1), default=10, help="passes over them")
    parser.add_argument(
        "--picture", type=Path, help="draw the README's picture to this file, and train nothing"
    )
    argv = sys.argv[1:] if argv is None else argv
    a = parser.parse_args(argv)
    if a.picture:
        return draw_picture(a.picture)
    weights.mkdir(exist_ok=True)
    rows = []
    for name in a.only:
        counts = {"train": a.images, "validation": 300, "test": a.test}
        occluded = 0.6 if name == "occlusion" else 0.1
        source = folder = synthetic_folder(counts=counts, recipe=Recipe(occluded=occluded))
        task = "parts"
        if name == "occlusion":
            folder, task = joint_folder(folder), None
        config = Config(
            data=str(folder),
            task=task,
            images=0,
            augment=VARIED,
            epochs=a.epochs,
            title=name,
            loss=LOSSES[name],
            loss_options={"beta": 1.0} if LOSSES[name] == "recommended" else {},
            **NETWORK,
        )
        out = paths.runs_dir() / "weights" / f"{name}-{a.images}-{a.epochs}"
        data = config.open_data()
        trained = run(config, data, out=out, evaluate_every=4, notebook="weights")
        network, shown = trained.network, data.test.task
        if name == "occlusion":
            network, shown = JointClasses(network, GROUPS, COMPLETE), visible_task()
        save_weights(weights / f"{name}.safetensors", network, config.size, shown.classes, shown.colours)
        parser = FaceParser.from_pretrained(weights / f"{name}.safetensors")
        about = {"weights": name, "loss": config.loss, "seed": config.seed, "size": config.size}
        about |= {"train_images": a.images, "epochs": a.epochs, "parameters": count_parameters(network)}
        about |= {"seconds": trained.history[-1]["seconds"], "device": device_name(parser.device)}
        rendered = FaceDataset(folder, "test", shown)
        rows.append(scored(parser, rendered, about | {"subset": "all"}))
        if name == "occlusion":
            test, starts = FaceDataset(folder, "test"), range(0, a.test, 64)
            batches = [test.__getitems__(range(start, min(start + 64, len(test)))) for start in starts]
            found = [parser.predict(batch["image"])[1].cpu().numpy() > 0.5 for batch in batches]
            joint = [batch["labels"].numpy() for batch in batches]
            rows[-1] |= complete_scores(np.concatenate(found), np.concatenate(joint))
        for tone, ids in by_tone(source, "test").items():
            rows.append(
                scored(
                    parser, FaceDataset(folder, "test", shown, ids=ids), about | {"subset": f"{tone} skin"}
                )
            )
        if task and is_prepared("lfw_part_labels"):
            photographs = prepared_folder("lfw_part_labels")
            rows.append(scored(parser, FaceDataset(photographs, "test", task), about | {"subset": "all"}))
    results.write_table(table, rows, shlex.join(["python", "notebooks/studies/weights.py", *argv]))
    print(f"{len(rows)} rows in {paths.shown(table)}")


if __name__ == "__main__":
    main()

"""Parts 3 and 4: the recipes on photographs (the paper's Table 3, with intervals) and on rendered occlusions."""

import functools
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from consensus_lib import paths
from consensus_lib.data import TASKS
from consensus_lib.models.networks import FaceOccNet
from consensus_lib.training import cosine, pick_precision

from . import data, estimates
from .filing import Piece
from .recipes import RECIPES, TUNED, Recipe

TABLE3, OCCLUSION = "3-table3", "4-occlusion"
NEAR = 0.002
"""The fewest epochs are taken whose validation mean IoU is so near to the best."""


class Learner:
    """A network, its loss and its optimiser on a device. Weights depend on the seed that was set before."""

    def __init__(self, recipe: Recipe, profile, device: torch.device, classes: int, rate: float):
        self.network = FaceOccNet(classes, profile.width, recipe.dropout)
        self.network.to(device)
        cuda = device.type == "cuda"
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=rate, fused=cuda)
        self.loss = recipe.loss()
        self.blob_options, self.takes = (
            getattr(self.loss, "blob_options", None),
            getattr(self.loss, "batch_keys", ()),
        )
        self.half = pick_precision(profile.precision, device) == "bfloat16"

    def step(self, batch: data.Batch) -> torch.Tensor:
        """Learn from a batch and return its loss, on the device: nothing waits for it."""
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self.half):
            logits = self.network(batch.images)
        more = {"blobs": batch.blobs} if "blobs" in self.takes else {}
        value = self.loss(logits.float(), batch.labels, **more)
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        self.optimizer.step()
        return value.detach()


def train(
    recipe: Recipe, resident: data.Resident, profile, *, classes: int, seed: int, rate: float, epochs: int
) -> tuple[torch.nn.Module, dict]:
    """Train a network and return it with its mean loss of each epoch and its speed.

    Weights depend on ``seed``, dropout on (seed, epoch), order and augmentation on (seed, epoch, index). The
    device is waited for once an epoch.
    """
    torch.manual_seed(seed)
    learner = Learner(recipe, profile, resident.labels.device, classes, rate)
    steps = max(1, len(resident) // profile.batch)
    schedule = cosine(learner.optimizer, epochs * steps)
    losses, begin = [], time.perf_counter()
    for epoch, batches in enumerate(
        resident.epochs(epochs, seed, profile.batch, recipe.augment, learner.blob_options)
    ):
        torch.manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]))
        total = torch.zeros((), device=resident.labels.device)
        for step, batch in enumerate(batches):
            if hasattr(learner.loss, "progress"):
                learner.loss.progress = (epoch + step / steps) / epochs
            total += learner.step(batch)
            schedule.step()
        losses.append(float(total) / steps)  # waits for the device
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"loss: expected a finite mean over epoch {epoch + 1}, got {losses[-1]}")
    seconds = time.perf_counter() - begin
    speed = {"training_seconds": seconds, "images_per_second": epochs * steps * profile.batch / seconds}
    said = " ".join(f"{value:.4f}" for value in losses)  # one line of the file
    return learner.network, {"losses": said, "bfloat16": learner.half, **speed}


@torch.inference_mode()
def predict(network: torch.nn.Module, resident: data.Resident, batch: int) -> np.ndarray:
    """Return the predicted classes uint8 ``[N,H,W]``, computed in float32 as everywhere in this project."""
    network.eval()
    parts = [
        network(resident.floats(slice(i, i + batch))).argmax(1).byte() for i in range(0, len(resident), batch)
    ]
    return torch.cat(parts).cpu().numpy()


class Trainings:
    """The pieces of parts 3 and 4; what they share is loaded once, when first needed."""

    def __init__(self, profile, device: torch.device, filing, photographs: Path | None, pool, cores: int):
        self.profile, self.device, self.filing = profile, device, filing
        self.photographs, self.pool, self.cores = photographs, pool, cores
        self.card = estimates.CARDS[profile.card]
        self.faces = filing.work / f"faces-{profile.name}-{profile.size}.npz"
        self._open: dict[str, dict[str, data.Arrays]] = {}
        self._resident: dict[tuple[str, str], data.Resident] = {}

    def arrays(self, part: str) -> dict[str, data.Arrays]:
        """Return the splits that a part trains and tests on."""
        if part not in self._open:
            p = self.profile
            if part == OCCLUSION:
                self._open[part] = data.load(self.faces)
            elif self.photographs:
                self._open[part] = data.photographs(self.photographs, p.size, p.limit)
            else:
                counts = zip(data.SPLITS, (min(p.faces[0], 4 * p.batch), *p.faces[1:]), strict=True)
                self._open[part] = {s: data.rendered(s, n, p.size, "parts", self.pool) for s, n in counts}
        return self._open[part]

    def source(self, part: str) -> str:
        """Return what a part's images are."""
        return "LFW Part Labels" if self.photographs and part != OCCLUSION else "rendered faces"

    def resident(self, part: str, split: str) -> data.Resident:
        """Return a split on the device."""
        if (part, split) not in self._resident:
            self._resident[part, split] = data.Resident(self.arrays(part)[split], self.device)
        return self._resident[part, split]

    def run(self, id: str, recipe: Recipe, seed: int, rate: float, epochs: int, split: str) -> Path:
        """Train, predict ``split``, and return the file of masks for the scorers."""
        part, task = id.split("/")[0], "occlusion" if id.startswith(OCCLUSION) else "parts"
        names, train_split = TASKS[task].classes, self.resident(part, "train")
        network, about = train(
            recipe, train_split, self.profile, classes=len(names), seed=seed, rate=rate, epochs=epochs
        )
        pred = predict(network, self.resident(part, split), 2 * self.profile.batch)
        row = {"recipe": recipe.name, "seed": seed, "rate": rate, "epochs": epochs, "split": split,
               "data": self.source(part), "train_images": len(train_split), "size": self.profile.size,
               "width": self.profile.width, "batch": self.profile.batch, **about}  # fmt: skip
        masks = self.filing.work / "masks" / f"{re.sub('[^a-z0-9]+', '-', id.lower())}.masks"
        truth = self.arrays(part)[split].labels
        with paths.atomic(masks) as unfinished, unfinished.open("wb") as out:
            np.savez_compressed(out, pred=pred, truth=truth, classes=np.array(names), row=json.dumps(row))
        return masks

    def piece(
        self, id: str, recipe: Recipe, seed: int, images: int, epochs: int, rate: Callable[[], float],
        split: str, needs: Iterable[str] = (),
    ) -> Piece:  # fmt: skip
        """Return the piece of a training; its learning rate is asked for when it starts."""
        scored = self.profile.faces[2] if id.startswith(OCCLUSION) else 400
        estimate = estimates.training(self.profile, self.card, images, epochs, scored)
        run = lambda: self.run(id, recipe, seed, rate(), epochs, split)  # noqa: E731
        return Piece(id, "training", estimate, run, units=images * epochs, needs=tuple(needs))

    def chosen(self) -> dict:
        """Return the choice on validation, or what is assumed of it before it is filed."""
        rates = dict.fromkeys(TUNED, self.profile.rates[0])
        assumed = {"rates": rates, "epochs": self.profile.epochs[-1], "choice": "none yet"}
        return self.filing.rows.get(f"{TABLE3}/choice", assumed)

    def best_rate(self, name: str) -> float:
        """Return the rate with which a loss did best on validation."""
        rows = [self.filing.rows[f"{TABLE3}/tune/{name}/rate {rate:g}"] for rate in self.profile.rates]
        return max(rows, key=lambda row: row["mean_iou"])["rate"]

    def choose(self) -> dict:
        """Return the chosen rate of each loss and the number of epochs, and what they were chosen by."""
        rows = [row for id, row in self.filing.rows.items() if id.startswith(f"{TABLE3}/tune/")]
        rates = {name: self.best_rate(name) for name in TUNED}
        by_epochs: dict[int, list[float]] = {}
        for row in rows:
            if row["rate"] == rates[row["recipe"]]:
                by_epochs.setdefault(row["epochs"], []).append(row["mean_iou"])
        means = {epochs: float(np.mean(values)) for epochs, values in sorted(by_epochs.items())}
        epochs = next(e for e, mean in means.items() if mean >= max(means.values()) - NEAR)
        tried = [{k: row[k] for k in ("recipe", "rate", "epochs", "mean_iou")} for row in rows]
        return {"rates": rates, "epochs": epochs, "choice": "on validation", "tried": tried, "seed": 0}

    @property
    def images(self) -> int:
        """How many images part 3 trains on: the development lists have 1,300."""
        return min(self.profile.limit or 1300, 1300)

    def table3(self) -> Iterator[Piece]:
        """Yield the pieces of part 3: the choice on validation, then seed by seed all recipes."""
        p = self.profile
        if not self.photographs and not p.stand_in:
            self.filing.left[TABLE3] = "needs photographs: DATA=FOLDER"
            return
        first, more = [], []
        for rate in p.rates:
            for name, recipe in TUNED.items():
                first.append(f"{TABLE3}/tune/{name}/rate {rate:g}")
                yield self.piece(
                    first[-1], recipe, 0, self.images, p.epochs[0], lambda r=rate: r, "validation"
                )
        for epochs in p.epochs[1:]:
            for name, recipe in TUNED.items():
                more.append(f"{TABLE3}/tune/{name}/epochs {epochs}")
                best = functools.partial(self.best_rate, name)
                yield self.piece(more[-1], recipe, 0, self.images, epochs, best, "validation", first)
        choice = f"{TABLE3}/choice"
        yield Piece(choice, "choice", (0.0, 0.0), self.choose, needs=(*first, *more))
        yield from self.recipes(TABLE3, p.seeds, self.images, self.chosen()["epochs"], (choice,))

    def occlusion(self) -> Iterator[Piece]:
        """Yield the pieces of part 4: drawing the faces, then seed by seed all recipes, for as many steps."""
        p, id = self.profile, f"{OCCLUSION}/faces"

        def render():
            before = self.filing.rows.get(id, {}).get("train_images")  # on another machine: as many again
            return data.render(self.faces, p, "occlusion", self.pool, self.cores, before)

        seconds = min(p.allowance, 0.05 * sum(p.faces)) + self.card.start
        trained = all(self.filing.done(piece.id) for piece in self.on_faces(id))
        yield Piece(id, "faces", (seconds, 0.0), render, keeps=None if trained else self.faces)
        yield from self.on_faces(id)

    def on_faces(self, id: str) -> Iterator[Piece]:
        """Yield the trainings of part 4, which need the faces of the piece ``id``."""
        images = self.filing.rows.get(id, {}).get("train_images", self.profile.faces[0])
        epochs = max(1, round(self.chosen()["epochs"] * self.images / images))
        yield from self.recipes(OCCLUSION, self.profile.occlusion_seeds, images, epochs, (id,))

    def recipes(self, part: str, seeds: int, images: int, epochs: int, needs: tuple) -> Iterator[Piece]:
        """Yield a training for each recipe, seeds outermost: whatever is finished is balanced."""
        for seed in range(seeds):
            for recipe in RECIPES:
                rate = lambda name=recipe.tuned_as: self.chosen()["rates"][name]  # noqa: E731
                id = f"{part}/{recipe.name}/seed {seed}"
                yield self.piece(id, recipe, seed, images, epochs, rate, "test", needs)

"""What the notebooks left in a run folder: results, networks, masks by epoch. Nothing here trains."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from consensus_lib.data import Splits, is_folder, open_splits
from consensus_lib.experiments.results import MASKS, RESULT, read_masks, read_results
from consensus_lib.training.checkpoint import HISTORY, STATE, CheckpointError, load_checkpoint, read_history


class MissingResult(LookupError):
    """A run folder lacks what a figure or table needs; the message names it."""


def dataset_title(name: str) -> str:
    """Return a data set's name for captions."""
    return {"synthetic_faces": "rendered faces", "lfw_part_labels": "LFW Part Labels"}.get(name, name)


def describe_setup(results: pd.DataFrame) -> str:
    """Return for a caption the data, the sizes and the number of trainings."""

    def amount(key: str) -> str:
        values = [f"{value:g}" for value in sorted(results[key].dropna().unique().tolist())]
        return " or ".join(values) if len(values) < 4 else f"{values[0]} to {values[-1]}"

    by = next(key for key in ("variant", "name", "first") if key in results)
    counts = sorted(set(results.groupby(by).seed.nunique()))
    data = " and ".join(map(dataset_title, results.dataset.unique()))
    return (
        f"{data[0].upper()}{data[1:]}, {amount('train_images')} training and "
        f"{amount('test_images')} test images of {amount('image_size')} pixels, width {amount('width')}, "
        f"{amount('epochs')} epochs; n = {' or '.join(map(str, counts))}"
    )


class RunFolder:
    """Trainings that the notebooks left in a run folder, such as ``runs/interactive``."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def trainings(self, notebook: str, *names: str) -> pd.DataFrame:
        """Return a line for each training of a notebook, with its result's keys and its ``name``.

        A folder that was used for several settings gives those of the newest result; and of one name those
        with the most epochs.

        Args:
            notebook: such as ``"05_artifact_analysis"``.
            names: those to take, in this order; none takes all. A name is what a student of notebook 04
                learned first, elsewhere the loss.

        Raises:
            MissingResult: there is no training, or none of a name.
        """
        results = read_results(self.folder / notebook)
        if not results:
            raise MissingResult(f"trainings of {notebook}")
        table = pd.DataFrame(results)
        table["name"] = table["first"].fillna(table.loss) if "first" in table else table.loss
        table["made"] = [(Path(folder) / RESULT).stat().st_mtime for folder in table.folder]
        table = table.sort_values("made", kind="stable")
        same = ["dataset", "task", "image_size", "width"]
        table = table[(table[same] == table[same].iloc[-1]).all(axis=1)]
        table = table[table.epochs == table.groupby("name").epochs.transform("max")]
        table = table.drop_duplicates(["name", "seed"], keep="last")
        if lacking := [name for name in names if name not in set(table.name)]:
            raise MissingResult(f"trainings with {', '.join(lacking)} in {notebook}")
        order = {name: place for place, name in enumerate(names or table.name.unique())}
        table = table[table.name.isin(order)]
        return table.sort_values(["name", "seed"], key=lambda c: c.map(order) if c.name == "name" else c)

    def network(self, training: pd.Series) -> torch.nn.Module:
        """Return the network of a training with its last weights, or raise MissingResult."""
        try:
            return load_checkpoint(training.folder)[0]
        except CheckpointError as error:
            raise MissingResult(f"checkpoint of {training['name']}: {error}") from None

    def history(self, training: pd.Series) -> list[dict]:
        """Return a dictionary for each epoch of a training, or raise MissingResult."""
        try:
            return read_history(training.folder)
        except OSError:
            raise MissingResult(f"{HISTORY} of {training['name']}") from None

    def masks(self, training: pd.Series) -> dict[int, np.ndarray]:
        """Return epoch → predicted masks of the first images, uint8 ``[n,H,W]``, or raise MissingResult."""
        try:
            return read_masks(Path(training.folder))
        except OSError:
            raise MissingResult(f"{MASKS} of {training['name']}") from None

    def data(self, training: pd.Series) -> Splits:
        """Return the images that a training learned from and was tested on; draw them anew if need be.

        Raises:
            MissingResult: they are not prepared here, or others than those.
        """
        name = "synthetic" if training.dataset == "synthetic_faces" else training.dataset
        folder = training.get("data_folder")
        try:
            found = open_splits(
                folder if isinstance(folder, str) and is_folder(folder) else name,
                training.task,
                size=int(training.image_size),
                images=int(training.train_images),
            )
            state = json.loads((Path(training.folder) / STATE).read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise MissingResult(f"images of {training.dataset}: {error}") from None
        if state["settings"]["data"] != found.train.fingerprint:
            raise MissingResult(
                f"images that {training['name']} was trained on: {name} is another version here"
            )
        return found

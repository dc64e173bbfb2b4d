"""What is trained, and how large: the one place to add a recipe or to change a size.

Add a line to ``RECIPES``, and parts 3 and 4 train it with every seed and file it beside the
others. Nothing that is filed is repeated for it.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from consensus_lib.data import Augment
from consensus_lib.losses import ConsensusLoss, PixelwiseLoss, make_loss


class Recipe(NamedTuple):
    """A training.

    Attributes:
        name: in tables and ids; new for whatever trains otherwise.
        loss: makes the loss, a module of (logits, labels); blobs are handed to one that has ``blob_options``.
        tuned_as: the entry of ``TUNED`` whose learning rate it takes.
        dropout: of the network.
        augment: variation of the training images, or None.
    """

    name: str
    loss: Callable[[], nn.Module]
    tuned_as: str
    dropout: float = 0.0
    augment: Augment | None = None


def classes() -> ConsensusLoss:
    """The paper's loss on Part Labels: one blob for each class of an image, 10:5."""
    return ConsensusLoss("class", alpha=10.0, beta=5.0)


def by_size() -> ConsensusLoss:
    """Eq. 8 on connected components, each weighed by its size."""
    return ConsensusLoss("component", alpha=10.0, beta=5.0, size_weight=1.0)


REG = {"dropout": 0.2, "augment": Augment(flip=0.5)}  # the paper's "+reg"
VARIED = {"dropout": 0.2, "augment": Augment(flip=0.5, rotation=10, scale=0.85, shift=0.06, colour=0.3)}

RECIPES = (
    Recipe("cross-entropy +reg", PixelwiseLoss, "cross-entropy", **REG),
    Recipe("consensus +reg", classes, "consensus", **REG),
    Recipe("components by size +reg", by_size, "consensus", **REG),
    Recipe("recommended +reg", lambda: make_loss("recommended"), "cross-entropy", **REG),
    Recipe(
        "Lovász + cross-entropy +reg", lambda: make_loss("lovasz", pixel_weight=1.0), "cross-entropy", **REG
    ),
    Recipe("SCNP +reg", lambda: make_loss("scnp"), "cross-entropy", **REG),
    Recipe("cross-entropy +varied", PixelwiseLoss, "cross-entropy", **VARIED),
    Recipe("recommended +varied", lambda: make_loss("recommended"), "cross-entropy", **VARIED),
    Recipe("cross-entropy", PixelwiseLoss, "cross-entropy"),
    Recipe("consensus", classes, "consensus"),
)
BASE = "cross-entropy +reg"
"""The recipe that the tables of differences compare all others with."""

STEP = next(recipe for recipe in RECIPES if recipe.name == "components by size +reg")
"""The recipe whose step part 2 takes apart: components ask most of the loss and of the input."""

TUNED = {
    "cross-entropy": Recipe("cross-entropy", PixelwiseLoss, "cross-entropy", **REG),
    "consensus": Recipe("consensus", classes, "consensus", **REG),
}
"""For these the learning rate is chosen on validation; the number of epochs is one for all."""


class Profile(NamedTuple):
    """How large everything is. Times are in seconds, sides in pixels."""

    name: str
    card: str  # whose peaks the estimates assume, in estimates.CARDS
    size: int
    width: float
    batch: int
    precision: str  # of the forward pass in training: see consensus_lib.training.trainer.pick_precision
    rates: tuple[
        float, ...
    ]  # learning rates to choose from, at epochs[0]; the paper's pre-training begins at 1e-3
    epochs: tuple[int, ...]  # numbers of epochs to choose from, at the best rate
    seeds: int
    occlusion_seeds: int
    faces: tuple[int, int, int]  # rendered for part 4: at most to train, to validate, to test
    allowance: float  # for drawing them
    shapes: tuple[tuple[int, int, int], ...]  # images, classes, side of the timed losses
    rounds: int  # of which the median is reported
    matrix: int  # side of the measured product
    copied: int  # bytes of the measured copy
    compiled: bool  # time the network through torch.compile, too
    tests: str  # pytest's choice of tests for part 1
    stand_in: bool = False  # rendered faces stand in for absent photographs
    limit: int | None = None  # photographs of a split; None takes all


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "full", "h100", size=128, width=1.0, batch=32, precision="auto",
            rates=(1e-3, 3e-3), epochs=(60,), seeds=5, occlusion_seeds=3,
            faces=(8000, 200, 400), allowance=20, shapes=((128, 3, 128), (16, 19, 512)), rounds=50,
            matrix=8192, copied=2**30, compiled=True, tests="cuda or waits_for_no_gpu",
        ),
        Profile(
            "smoke", "cpu", size=32, width=0.0625, batch=4, precision="float32",
            rates=(3e-3, 1e-2), epochs=(1, 2), seeds=1, occlusion_seeds=1,
            faces=(16, 4, 8), allowance=60, shapes=((4, 3, 32), (2, 19, 64)), rounds=3,
            matrix=256, copied=2**20, compiled=False, tests="waits_for_no_gpu",
            stand_in=True, limit=16,
        ),
    )
}  # fmt: skip

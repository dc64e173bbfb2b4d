"""What the evidence study trains: methods, their three tries each, and the order of the trainings.

The protocol in ``README.md`` states the rules; this module is the list they speak of.
"""

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import nn

from consensus_lib.losses import BASELINES, ConsensusLoss, PixelwiseLoss, WithConsensus
from consensus_lib.models.postprocess import POSTPROCESSING
from evidence_unlabelled import SUPERVISED, UNLABELLED, WithUnlabelled

CE, SCNP, LOVASZ_CE = "cross-entropy", "SCNP", "Lovász + cross-entropy"
PRINTED, BY_SIZE, RECOMMENDED = "Eq. 8 on classes", "Eq. 8 on components by size", "Lovász + deviation"
PHOTOGRAPHS, FACES, TEACHER = "photographs", "covered faces", "a teacher's labels"
FEW = ("50 labels", "200 labels")
BAD = ("specks 5%", "specks 20%", "boundaries", "pieces")
UNLABELLED_TOO = " and unlabelled photographs"
"""Ends the name of few labels beside photographs without any."""
RATE = 0.01
"""Adam's learning rate wherever the tries are of something else."""

Loss = Callable[..., nn.Module]


def _named(name: str, **fixed) -> Loss:
    return lambda **options: BASELINES[name].make(**fixed | options)


BASES: dict[str, Loss] = {
    CE: PixelwiseLoss,
    "cross-entropy + Dice": _named("dice", pixel_weight=1.0),
    LOVASZ_CE: _named("lovasz", pixel_weight=1.0),
    "region mutual information": _named("mutual_information"),
    SCNP: _named("scnp"),
}
"""The rows of the factorial: each at what its authors advise, where the tries are of the added consensus."""

DEVIATION, BOTH = " + deviation", " + match and deviation"
RATES = tuple({"learning_rate": rate} for rate in (0.005, 0.01, 0.02))
WEIGHTS = tuple({"pixel_weight": weight} for weight in (0.5, 1.0, 2.0))
BETAS = tuple({"beta": beta} for beta in (0.3, 1.0, 3.0))


def _added(alpha: float, beta: float, min_size: int = 0) -> ConsensusLoss:
    """Return consensus on components weighed by size; blobs below ``min_size`` join their neighbours."""
    cut = {"min_size": min_size, "specks": "merge" if min_size else "drop"}
    return ConsensusLoss("component", alpha=alpha, beta=beta, size_weight=1.0, **cut)


def _with_deviation(base: Loss) -> Loss:
    return lambda beta, **cut: WithConsensus(base(), _added(0.0, beta, **cut))


def _with_both(base: Loss) -> Loss:
    return lambda alpha, **cut: WithConsensus(base(), _added(alpha, alpha / 2, **cut))


class Method(NamedTuple):
    """A way to train.

    Attributes:
        make: returns the loss from a try's options but for ``learning_rate``.
        tries: what is tried on validation, the same number for each method.
        base: the method that consensus is added to; None where there is none.
        data: what its tries are trained on.
    """

    make: Loss
    tries: tuple[dict, ...]
    base: str | None = None
    data: str = PHOTOGRAPHS


METHODS: dict[str, Method] = {
    CE: Method(BASES[CE], RATES),
    "cross-entropy + Dice": Method(BASES["cross-entropy + Dice"], WEIGHTS),
    LOVASZ_CE: Method(BASES[LOVASZ_CE], WEIGHTS),
    "region mutual information": Method(
        BASES["region mutual information"], tuple({"weight": weight} for weight in (0.5, 1.0, 2.0))
    ),
    SCNP: Method(BASES[SCNP], RATES),
}
for _name, _base in BASES.items():
    METHODS[_name + DEVIATION] = Method(_with_deviation(_base), BETAS, _name)
    METHODS[_name + BOTH] = Method(
        _with_both(_base), tuple({"alpha": alpha} for alpha in (0.3, 1.0, 3.0)), _name
    )
METHODS |= {
    PRINTED: Method(lambda: ConsensusLoss("class", alpha=10.0, beta=5.0), RATES),
    BY_SIZE: Method(
        lambda beta, **cut: _added(10.0, beta, **cut), tuple({"beta": beta} for beta in (5.0, 10.0, 20.0))
    ),
    RECOMMENDED: Method(_with_deviation(_named("lovasz")), BETAS, LOVASZ_CE),
}

CONTROL, FAST = "Lovász-Softmax", "cross-entropy at 0.02"
CONTROLS = {
    CONTROL: Method(_named("lovasz"), ({"learning_rate": RATE},)),
    FAST: Method(BASES[CE], ({"learning_rate": 0.02},)),
}
"""Added after the test, and nothing was tried: the base of ``RECOMMENDED``, and the learning rate at which
cross-entropy had its least component error on validation."""
FEW_AND_FREE = FEW[0] + UNLABELLED_TOO
WITHOUT_LABELS = {SUPERVISED: Method(PixelwiseLoss, ({"learning_rate": RATE},), None, FEW_AND_FREE)} | {
    name: Method(
        functools.partial(WithUnlabelled, **options),
        tuple({"weight": weight} for weight in (0.1, 0.3, 1.0)),
        SUPERVISED,
        FEW_AND_FREE,
    )
    for name, options in UNLABELLED.items()
}
"""Those of part ``unlabelled``."""
ALL = METHODS | CONTROLS | WITHOUT_LABELS

CONSENSUS = [name for name, method in METHODS.items() if method.base or name in (PRINTED, BY_SIZE)]
MERGED = ", specks merged"
"""Ends the name of a method whose blobs of fewer than ``MIN_SIZE`` pixels join their neighbours."""
MIN_SIZE = 10

PARTS = ("factorial", "occlusion", "repairs", "control", "few", "bad", "unlabelled", "epochs", "headline")
SEEDS = (1, 2, 3, 4, 5)
"""Of the test; the choices are made with seed 0."""


class Job(NamedTuple):
    """One training: ``epochs`` passes over ``data``, scored on the split ``scored``."""

    part: str
    data: str
    method: str
    setting: str
    seed: int
    scored: str = "test"

    @property
    def id(self) -> str:
        """What tells it from all others."""
        return "|".join(map(str, self))

    def loss(self) -> nn.Module:
        """Return the loss, a new one."""
        name = trained(self.method).removesuffix(MERGED)
        options = parse(self.setting)
        options.pop("learning_rate", None)
        if self.method.endswith(MERGED):
            options["min_size"] = MIN_SIZE
        return ALL[name].make(**options)

    @property
    def rate(self) -> float:
        """The learning rate."""
        return parse(self.setting).get("learning_rate", RATE)


def trained(method: str) -> str:
    """Return the method whose network is repaired, or the method itself."""
    return method.partition(THEN)[0]


def text(options: dict[str, float]) -> str:
    """Return a try as text."""
    return " ".join(f"{key}={value:g}" for key, value in options.items())


def parse(setting: str) -> dict[str, float]:
    """Return the try of a text."""
    return {key: float(value) for key, value in (word.split("=") for word in setting.split())}


CONSTANT = "constant prediction"
THEN = ", then "
"""Stands between a method and what is done to its predictions: a title of ``POSTPROCESSING``."""
REPAIRS = tuple(POSTPROCESSING[name].title for name in ("components", "holes", "crf", "flip"))


def choosing(methods: Iterable[str]) -> list[Job]:
    """Return the trainings that choose each method's setting: its data, seed 0, validation."""
    tries = [(name, options) for name in methods for options in ALL[name].tries]
    return [Job("choose", ALL[name].data, name, text(options), 0, "validation") for name, options in tries]


def testing(chosen: dict[str, str], best: str, parts: Iterable[str], seeds: Iterable[int]) -> list[Job]:
    """Return the trainings of the test, part after part, and in each part seed after seed.

    Args:
        chosen: method → setting, the frozen list.
        best: the form of consensus that parts 2 and 3 take.
        parts: some of ``PARTS``.
        seeds: of the trainings; ``headline`` takes as many after those of ``SEEDS``.
    """
    known = [name for name in chosen if name in METHODS]
    short = list(dict.fromkeys(name for name in (CE, LOVASZ_CE, SCNP, best) if name in chosen))
    merged = [best + MERGED] if best in chosen and best != PRINTED else []
    plan = {
        "factorial": ([PHOTOGRAPHS], known),
        "occlusion": ([FACES], known),
        "repairs": (
            [PHOTOGRAPHS],
            [name + how for name in short for how in ("", *(THEN + r for r in REPAIRS))],
        ),
        "control": ([PHOTOGRAPHS], list(CONTROLS)),
        "few": (FEW, short),
        "bad": ((*BAD, TEACHER), short + merged),
        "unlabelled": (
            [few + UNLABELLED_TOO for few in FEW],
            [name for name in chosen if name in WITHOUT_LABELS],
        ),
        "epochs": ([PHOTOGRAPHS], [name for name in known if name in (*short, BY_SIZE)]),
    }
    jobs, settings = [], chosen | {name: text(*one.tries) for name, one in CONTROLS.items()}
    for part in parts:
        if part == "headline":
            some = {name: chosen[name] for name in short}
            later = testing(some, best, ("factorial", "control"), [seed + len(SEEDS) for seed in seeds])
            jobs += [job for job in later if job.method not in (CONSTANT, FAST)]
            continue
        data, names = plan[part]
        jobs += [Job(part, one, CONSTANT, "", 0) for one in data if part in ("factorial", "occlusion")]
        scored = "validation" if part == "epochs" else "test"
        jobs += [
            Job(part, one, name, settings[trained(name).removesuffix(MERGED)], seed, scored)
            for seed, one, name in itertools.product(seeds, data, names)
        ]
    return jobs

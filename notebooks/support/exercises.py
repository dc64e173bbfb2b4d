"""The ``check_…`` helpers of the notebooks' exercises: they tell right from wrong and why, never the answer.

Each takes the reader's answer, a value or a function. An answer of ``None``, or a function that returns
``None``, is one not given yet, so that a notebook runs to its end unfilled. An answer of another form than
was asked for is explained too; see :func:`support.checks.expects`.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from consensus_lib.data import FaceDataset
from consensus_lib.losses import consensus_loss
from consensus_lib.metrics.comparison import pareto_front
from consensus_lib.metrics.components import count_pieces
from consensus_lib.metrics.segmentation import SegmentationScores
from consensus_lib.teacher.factorise import OPENING, clean, difference, residual
from support.checks import as_array, as_number, expects, verdict, wrong
from support.diagrams import luminance
from support.examples import toy_face


@expects("one share for each class")
def check_class_shares(answer: Sequence[float] | None, data: FaceDataset) -> None:
    """Check the share of each class among the labelled pixels of ``data``."""
    right = data.class_shares()
    if len(answer) != len(right):
        return wrong(f"expected {len(right)} shares, one for each class, got {len(answer)}")
    if abs(sum(answer) - 1) > 1e-6:
        return wrong(f"shares of a whole sum to 1, these to {sum(answer):.4f}")
    return verdict(
        np.allclose(answer, right, atol=1e-6), "they sum to 1, but are not the counts of these labels"
    )


@expects("two results, the image [3,H,W] and its labels [H,W]")
def check_flip(function: Callable) -> None:
    """Check a function that flips an image ``[3,H,W]`` and its labels ``[H,W]`` left to right."""
    image, labels = torch.arange(24.0).view(3, 2, 4), torch.arange(8).view(2, 4)
    flipped, followed = function(image, labels)
    if not np.array_equal(as_array(flipped), image.flip(2)):
        return wrong("the image is not flipped left to right: its width is the last dimension")
    return verdict(
        np.array_equal(as_array(followed), labels.flip(1)),
        "the image is flipped, but the labels did not follow",
    )


@expects("one whole number")
def check_component_count(function: Callable) -> None:
    """Check a function that counts the components of a label map ``[H,W]`` as the paper does."""
    cases = (
        ("two islands", [[1, 0, 1]], 2),
        ("corners touch, 8 neighbours", [[1, 0], [0, 1]], 1),
        ("two classes side by side", [[1, 2]], 2),
        ("background alone", [[0, 0]], 0),
        ("a ring and its middle", [[1, 1, 1], [1, 2, 1], [1, 1, 1]], 2),
    )
    for name, labels, right in cases:
        answer = function(np.array(labels))
        if answer != right:
            return wrong(f"{name}: expected {right}, got {answer}")
    return verdict(True, "")


@expects("one share")
def check_share_covered(function: Callable) -> None:
    """Check a function of (complete face, occluder), bool ``[H,W]``, that returns the share that is covered."""
    face = np.array([[0, 1, 1, 0]] * 4, bool)
    occluder = np.zeros((4, 4), bool)
    occluder[1, 1:] = True
    for name, cover, right, hint in (
        ("nothing before the face", np.zeros_like(face), 0.0, ""),
        ("the toy of section 3", occluder, 0.25, "; what lies beside the face does not count"),
        ("the lower left", np.tril(np.ones((4, 4), bool), -1) | occluder, 0.625, ""),
        ("all of the image", np.ones_like(face), 1.0, "; divide by the area of the face"),
    ):
        answer = as_number(function(face.copy(), cover.copy()))
        if not abs(answer - right) <= 1e-9:
            return wrong(f"{name}: expected {right:g}, got {answer:.4g}{hint}")
    return verdict(True, "")


@expects("one number")
def check_cross_entropy(function: Callable) -> None:
    """Check a function of (logits ``[K]``, label) that returns the cross-entropy of one pixel."""
    for logits, label in (([0.0, 0.0], 0), ([2.0, -1.0, 0.5], 2), ([1000.0, 0.0], 0)):
        answer = as_number(function(torch.tensor(logits), label))
        right = F.cross_entropy(torch.tensor([logits]), torch.tensor([label])).item()
        if not abs(answer - right) < 1e-5:
            hint = "; a large logit overflows exp: subtract the maximum first" if max(logits) > 100 else ""
            return wrong(f"logits {logits}, label {label}: expected {right:.4f}, got {answer:.4f}{hint}")
    return verdict(True, "")


@expects("one IoU for each class, [K]")
def check_iou(function: Callable) -> None:
    """Check a function from a confusion matrix ``[K,K]`` (truth in rows) to the IoU of each class."""
    generator = np.random.default_rng(0)
    for confusion in (np.array([[3, 1], [0, 4]]), generator.integers(1, 50, (3, 3))):
        answer = function(confusion)
        hit = np.diagonal(confusion)
        right = hit / (confusion.sum(0) + confusion.sum(1) - hit)
        if np.shape(answer) != right.shape or not np.allclose(answer, right):
            return wrong(f"for {confusion.tolist()} expected {right.round(3).tolist()}, got {answer}")
    return verdict(True, "")


@expects("a mask of zeros and ones", place=2)
def check_torn_twin(truth: np.ndarray, whole: np.ndarray, torn: np.ndarray | None) -> None:
    """Check that ``torn`` has the mean IoU of ``whole`` but more components; masks ``[H,W]`` of 0 and 1."""
    torn = np.asarray(torn)
    if torn.shape != truth.shape or not set(np.unique(torn)) <= {0, 1}:
        return wrong(f"expected zeros and ones of shape {truth.shape}, got {torn.shape}")
    scores = []
    for mask in (whole, torn):
        score = SegmentationScores(("background", "face"))
        score.update(torch.as_tensor(mask)[None], torch.as_tensor(truth)[None])
        scores.append(score.compute()["mean_iou"])
    if abs(scores[0] - scores[1]) > 1e-9:
        return wrong(f"the mean IoU must stay {scores[0]:.3f}, it is {scores[1]:.3f}")
    pieces = [count_pieces(np.asarray(mask) == 1)[0] for mask in (whole, torn)]
    return verdict(
        pieces[1] > pieces[0], f"same IoU, but {pieces[1]} component(s), not more than {pieces[0]}"
    )


@expects("three probabilities")
def check_jensen(blob: Sequence[float] | None) -> None:
    """Check three probabilities whose mean's -log lies at least 0.5 below the mean of their -log."""
    p = np.asarray(blob, float)
    if p.shape != (3,) or not ((p > 0) & (p <= 1)).all():
        return wrong(f"expected three probabilities above 0 and at most 1, got {blob}")
    first, entropy = -np.log(p.mean()), -np.log(p).mean()
    return verdict(entropy - first >= 0.5, f"first term {first:.3f}, mean cross-entropy {entropy:.3f}")


@expects("one class for each pixel, [H,W]")
def check_sample(function: Callable) -> None:
    """Check a function from probabilities ``[K,H,W]`` to labels ``[H,W]``, each drawn for itself."""
    chance = torch.tensor([0.2, 0.3, 0.5])
    drawn = as_array(function(chance[:, None, None].expand(3, 60, 80)))
    if drawn.shape != (60, 80):
        return wrong(f"expected one class for each pixel, [60, 80], got the shape {list(drawn.shape)}")
    shares = [float((drawn == label).mean()) for label in range(3)]
    if np.abs(np.array(shares) - chance.numpy()).max() > 0.05:
        hint = "; that is the likeliest class everywhere" if max(shares) == 1 else ""
        return wrong(f"expected shares near {chance.tolist()}, got {np.round(shares, 2).tolist()}{hint}")
    return verdict(
        float((drawn[:, 1:] == drawn[:, :-1]).mean()) < 0.5, "neighbours are equal too often: draw each pixel"
    )


@expects("one weight for each blob, [M]")
def check_size_weights(function: Callable) -> None:
    """Check a function of (sizes ``[M]`` of an image's blobs, γ) that returns their weights in the loss."""
    for sizes, gamma in (([10, 6], 0.0), ([10, 6], 1.0), ([2000, 900, 3], 0.5)):
        answer = as_array(function(torch.tensor(sizes, dtype=torch.float64), gamma))
        if answer.shape != (len(sizes),):
            return wrong(f"expected {len(sizes)} weights, got the shape {list(answer.shape)}")
        right = np.array(sizes, float) ** gamma / (np.array(sizes, float) ** gamma).sum()
        if not np.allclose(answer, right):
            hint = "; weights sum to 1" if abs(answer.sum() - 1) > 1e-6 else ""
            return wrong(
                f"sizes {sizes}, γ = {gamma:g}: expected {right.round(4).tolist()}, "
                f"got {answer.round(4).tolist()}{hint}"
            )
    return verdict(True, "")


@expects("one number")
def check_turning_beta(answer: float | None) -> None:
    """Check the β at which the toy's pixels of .9 start to be pulled down: hole at -6, α = 1; within 0.05."""
    beta = as_number(answer)
    if not 0 <= beta <= 10:
        return wrong(f"expected a β from 0 to 10, got {beta:g}")
    labels, face = toy_face()
    logits = torch.stack([torch.zeros_like(face), face.logit()])
    logits[1, 2, 2] = -6.0

    def pull(beta):
        z = logits[None].clone().requires_grad_()
        loss = consensus_loss(z, labels[None], alpha=1.0, beta=beta)
        (gradient,) = torch.autograd.grad(loss, z)
        return (gradient[0, 0] - gradient[0, 1])[1, 1].item()

    way = "up" if pull(beta + 0.05) > 0 else "down"
    return verdict(
        pull(max(0.0, beta - 0.05)) > 0 > pull(beta + 0.05), f"near β = {beta:g} they are pulled {way}"
    )


@expects("a mask like the two that are given")
def check_residual(function: Callable) -> None:
    """Check a function from the masks of the complete and of the seen face, bool ``[H,W]``, to Eq. 1."""
    extent, face = np.array([[1, 1, 0, 0]], bool), np.array([[1, 0, 1, 0]], bool)
    answer = function(extent, face)
    right = residual(difference(extent, face))
    if np.shape(answer) != right.shape:
        return wrong(f"expected the shape {list(right.shape)}, got {list(np.shape(answer))}")
    if np.array_equal(np.asarray(answer, bool), extent ^ face):
        return wrong("face outside the extent counts too: the part below 0 is to be dropped")
    return verdict(
        np.array_equal(np.asarray(answer, bool), right), "1 only where the extent has face and none is seen"
    )


@expects("a list of widths")
def check_survivors(answer: Sequence[int] | None) -> None:
    """Check which widths from 1 to 8 pixels ``OPENING`` leaves of bars in an image of 128 pixels."""
    column = np.arange(128)[None]
    right = [w for w in range(1, 9) if clean((column > 9) & (column < 10 + w), OPENING).any()]
    return verdict(sorted(answer) == right, "each erosion takes a pixel from the left and one from the right")


@expects("probabilities [K]")
def check_tempered(function: Callable) -> None:
    """Check a function of (probabilities ``[K]``, temperature) that returns them at that temperature."""
    for probabilities, temperature in (([0.9, 0.1], 1.0), ([0.8, 0.2], 2.0), ([0.7, 0.2, 0.1], 4.0)):
        q = torch.tensor(probabilities, dtype=torch.float64)
        answer = function(q, temperature)
        right = (q.log() / temperature).softmax(0)
        answer = torch.as_tensor(as_array(answer))
        if answer.shape != right.shape or not torch.allclose(answer, right):
            hint = "; the sum must be 1" if abs(float(answer.sum()) - 1) > 1e-6 else ""
            return wrong(
                f"{probabilities} at {temperature:g}: expected {[round(v, 4) for v in right.tolist()]}, "
                f"got {[round(v, 4) for v in answer.flatten().tolist()]}{hint}"
            )
    return verdict(True, "")


@expects("one number")
def check_island_share(function: Callable) -> None:
    """Check a function that returns the share of pixels outside of the largest piece, from pieces' sizes."""
    for name, sizes, right in (
        ("one piece", [7], 0.0),
        ("two as large", [4, 4], 0.5),
        ("the largest in the middle", [1, 8, 1], 0.2),
        ("no piece", [], 0.0),
    ):
        answer = function(sizes)
        if not np.isclose(answer, right):
            return wrong(f"{name}, {sizes}: got {answer}")
    return verdict(True, "")


@expects("one mean for each resample")
def check_resampled_means(function: Callable) -> None:
    """Check a function that returns the mean gain of each resample, from gains and the images drawn."""
    gains, drawn = np.array([0.0, 1.0, 5.0]), np.array([[0, 1, 2], [2, 2, 2], [0, 0, 1]])
    answer = function(gains, drawn)
    if np.shape(answer) != (3,):
        return wrong(f"expected one mean for each of 3 resamples, got the shape {np.shape(answer)}")
    return verdict(np.allclose(answer, [2, 5, 1 / 3]), "an image drawn twice counts twice")


@expects("a list of letters")
def check_front(answer: Sequence[str] | None) -> None:
    """Check which of five methods no other one beats."""
    methods = {"A": (0.78, -0.9), "B": (0.8, -1.1), "C": (0.77, -1.0), "D": (0.8, -1.3), "E": (0.7, -0.8)}
    unknown = set(answer) - set(methods)
    if unknown:
        return wrong(f"expected letters of {list(methods)}, got {sorted(unknown)}")
    right = set(pareto_front(methods))
    if right - set(answer):
        return wrong("a method is missing that no other one beats in both")
    return verdict(
        set(answer) == right, "one of them is beaten: another is as good in one and better in the other"
    )


@expects("a text")
def check_spread(function: Callable) -> None:
    """Check a function of (values of trainings, digits) that returns mean ± half the range as text."""
    for values, digits, right in (
        ([0.8, 0.9], 2, "0.85 ± 0.05"),
        ([1.0, 2.0, 1.2], 1, "1.4 ± 0.5"),
        ([0.7], 3, "0.700"),
        ([], 2, "–"),
    ):
        answer = function(values, digits)
        if answer != right:
            hint = "; one training has no spread, and none no value" if len(values) < 2 else ""
            return wrong(f"{values} with {digits} digits: got {answer!r}{hint}")
    return verdict(True, "")


@expects("one letter from A to D")
def check_publish(answer: str | None) -> None:
    """Check which of the four results of notebook 05's exercise a paper may call better."""
    faults = {
        "A": "one seed has no interval, and the setting was chosen on the images on which it is scored",
        "B": "",
        "C": "a class has collapsed: who leaves out a class has few components",
        "D": "the best of twelve tries is expected to have p = .04 by chance; ask for it after correction",
    }
    if (letter := answer.strip().upper()) not in faults:
        return wrong(f"expected one letter of {', '.join(faults)}, got {answer!r}")
    return verdict(not faults[letter], faults[letter])


@expects("some of the names")
def check_bold(function: Callable) -> None:
    """Check a function of (name → mean, digits, is more better) that returns the names to set bold."""
    for means, digits, higher, right in (
        ({"a": 0.71, "b": 0.84, "c": 0.79}, 2, True, {"b"}),
        ({"a": 1.2, "b": 0.9}, 1, False, {"b"}),
        ({"a": 0.8412, "b": 0.8388, "c": 0.79}, 2, True, {"a", "b"}),
    ):
        answer = function(means, digits, higher)
        if set(answer) != right:
            hint = "; a reader sees the same number twice" if len(right) > 1 else ""
            return wrong(f"{means} with {digits} digits, {higher=}: got {sorted(answer)}{hint}")
    return verdict(True, "")


@expects("two names of colours")
def check_greyscale(answer: Sequence[str] | None, colours: dict[str, tuple[int, int, int]]) -> None:
    """Check which two of some colours lie closest in luminance."""
    unknown = set(answer) - set(colours)
    if unknown or len(set(answer)) != 2:
        return wrong(f"expected two of {sorted(colours)}, got {list(answer)}")
    light = {name: luminance(rgb) for name, rgb in colours.items()}
    right = min(itertools.combinations(colours, 2), key=lambda pair: abs(light[pair[0]] - light[pair[1]]))
    return verdict(set(answer) == set(right), "another pair lies closer: take the luminance of each")


@expects("one whole number")
def check_run_count(function: Callable) -> None:
    """Check a function of (grid, lists, seeds) that returns how many runs a sweep has."""
    for grid, lists, seeds, right in (
        ({}, {}, 1, 1),
        ({"alpha": [1, 10, 100], "beta": [0, 5]}, {}, 3, 18),
        ({"beta": [0, 5]}, {"width": [0.25, 0.5, 1.0], "image_size": [32, 64, 128]}, 2, 12),
    ):
        answer = function(grid, lists, seeds)
        if answer != right:
            hint = "; lists go side by side" if lists else ""
            return wrong(f"grid {grid}, lists {lists}, {seeds} seeds: got {answer}{hint}")
    return verdict(True, "")


@expects("a text")
def check_run_key(function: Callable) -> None:
    """Check a function from a run's parameters to a text that is the same for the same run only."""
    first = {"alpha": 1.0, "loss": "consensus"}
    for name, other, same in (
        ("the same in another order", dict(reversed(first.items())), True),
        ("another value", first | {"alpha": 2.0}, False),
        ("another name", {"beta": 1.0, "loss": "consensus"}, False),
        ("text instead of a number", first | {"alpha": "1.0"}, False),
    ):
        one, two = function(dict(first)), function(other)
        if (one == two) != same:
            return wrong(f"{name}: got {'the same key' if one == two else 'two keys'}")
    return verdict(True, "")


@expects("three values, the mean, the number and how many are missing")
def check_honest_mean(function: Callable) -> None:
    """Check a function from scores, None where a run failed, to their mean, number and how many miss."""
    for scores, right in (([0.5, 0.7], (0.6, 2, 0)), ([0.5, None, 0.7], (0.6, 2, 1)), ([None], (None, 0, 1))):
        answer = function(scores)
        mean, *counts = answer
        if tuple(counts) != right[1:]:
            return wrong(f"{scores}: expected n = {right[1]} and {right[2]} missing, got {counts}")
        if (mean is None) != (right[0] is None) or (mean is not None and abs(mean - right[0]) > 1e-9):
            return wrong(f"{scores}: a failed run has no score, not a score of zero; got {mean}")
    return verdict(True, "")

"""The ``check_…`` helpers of the notebooks' exercises: they tell right from wrong and why, never the answer.

Each takes the reader's answer, a value or a function. An answer of ``None``, or a function that returns
``None``, is one not given yet, so that a notebook runs to its end unfilled.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from consensus_lib import IGNORE
from consensus_lib.data import FaceDataset
from consensus_lib.losses.blobs import label_blobs
from consensus_lib.metrics.comparison import pareto_front
from consensus_lib.metrics.components import count_pieces
from consensus_lib.metrics.segmentation import SegmentationScores
from consensus_lib.teacher.factorise import OPENING, clean, difference, residual
from support.diagrams import luminance

TODO = "not answered yet"


def check_class_shares(answer: Sequence[float] | None, data: FaceDataset) -> None:
    """Check the share of each class among the labelled pixels of ``data``."""
    if answer is None:
        return print(TODO)
    right = data.class_shares()
    if len(answer) != len(right):
        return _wrong(f"expected {len(right)} shares, one for each class, got {len(answer)}")
    if abs(sum(answer) - 1) > 1e-6:
        return _wrong(f"shares of a whole sum to 1, these to {sum(answer):.4f}")
    return _verdict(
        np.allclose(answer, right, atol=1e-6), "they sum to 1, but are not the counts of these labels"
    )


def check_flip(function: Callable) -> None:
    """Check a function that flips an image ``[3,H,W]`` and its labels ``[H,W]`` left to right."""
    image, labels = torch.arange(24.0).view(3, 2, 4), torch.arange(8).view(2, 4)
    answer = function(image, labels)
    if answer is None:
        return print(TODO)
    if not torch.equal(answer[0], image.flip(2)):
        return _wrong("the image is not flipped left to right: its width is the last dimension")
    return _verdict(
        torch.equal(answer[1], labels.flip(1)), "the image is flipped, but the labels did not follow"
    )


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
        if answer is None:
            return print(TODO)
        if answer != right:
            return _wrong(f"{name}: expected {right}, got {answer}")
    return _verdict(True, "")


def check_cross_entropy(function: Callable) -> None:
    """Check a function of (logits ``[K]``, label) that returns the cross-entropy of one pixel."""
    for logits, label in (([0.0, 0.0], 0), ([2.0, -1.0, 0.5], 2), ([1000.0, 0.0], 0)):
        answer = function(torch.tensor(logits), label)
        if answer is None:
            return print(TODO)
        right = F.cross_entropy(torch.tensor([logits]), torch.tensor([label])).item()
        if not abs(float(answer) - right) < 1e-5:
            hint = "; a large logit overflows exp: subtract the maximum first" if max(logits) > 100 else ""
            return _wrong(
                f"logits {logits}, label {label}: expected {right:.4f}, got {float(answer):.4f}{hint}"
            )
    return _verdict(True, "")


def check_iou(function: Callable) -> None:
    """Check a function from a confusion matrix ``[K,K]`` (truth in rows) to the IoU of each class."""
    generator = np.random.default_rng(0)
    for confusion in (np.array([[3, 1], [0, 4]]), generator.integers(1, 50, (3, 3))):
        answer = function(confusion)
        if answer is None:
            return print(TODO)
        hit = np.diagonal(confusion)
        right = hit / (confusion.sum(0) + confusion.sum(1) - hit)
        if np.shape(answer) != right.shape or not np.allclose(answer, right):
            return _wrong(f"for {confusion.tolist()} expected {right.round(3).tolist()}, got {answer}")
    return _verdict(True, "")


def check_torn_twin(truth: np.ndarray, whole: np.ndarray, torn: np.ndarray | None) -> None:
    """Check that ``torn`` has the mean IoU of ``whole`` but more components; masks ``[H,W]`` of 0 and 1."""
    if torn is None:
        return print(TODO)
    torn = np.asarray(torn)
    if torn.shape != truth.shape or not set(np.unique(torn)) <= {0, 1}:
        return _wrong(f"expected zeros and ones of shape {truth.shape}, got {torn.shape}")
    scores = []
    for mask in (whole, torn):
        score = SegmentationScores(("background", "face"))
        score.update(torch.as_tensor(mask)[None], torch.as_tensor(truth)[None])
        scores.append(score.compute()["mean_iou"])
    if abs(scores[0] - scores[1]) > 1e-9:
        return _wrong(f"the mean IoU must stay {scores[0]:.3f}, it is {scores[1]:.3f}")
    pieces = [count_pieces(np.asarray(mask) == 1)[0] for mask in (whole, torn)]
    return _verdict(
        pieces[1] > pieces[0], f"same IoU, but {pieces[1]} component(s), not more than {pieces[0]}"
    )


def check_blob_sizes(answer: Sequence[int] | None, labels: np.ndarray) -> None:
    """Check the sizes of the 4-connected components of a label map ``[H,W]``, in any order."""
    if answer is None:
        return print(TODO)
    sizes = label_blobs(torch.as_tensor(labels)[None], "component").size.tolist()
    if sum(answer) != int((np.asarray(labels) != IGNORE).sum()):
        return _wrong(f"the sizes sum to {sum(answer)}, the map has {np.size(labels)} pixels")
    return _verdict(
        sorted(answer) == sorted(sizes), "they fill the map, but pixels that touch at corners only are apart"
    )


def check_deviation(function: Callable) -> None:
    """Check a function from probabilities ``[N,K]`` of a blob's pixels to their mean deviation (Eq. 7)."""
    for pixels in (
        [[0.5, 0.5]],
        [[0.9, 0.1], [0.2, 0.8]],
        [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]],
    ):
        p = torch.tensor(pixels, dtype=torch.float64)
        answer = function(p)
        if answer is None:
            return print(TODO)
        # The Jensen-Shannon divergence turned around: KL of the mean from each pixel, averaged.
        right = F.kl_div(p.log(), p.mean(0).expand_as(p), reduction="batchmean").item()
        if not abs(float(answer) - right) < 1e-6:
            turned = F.kl_div(p.mean(0).log().expand_as(p), p, reduction="batchmean").item()
            hint = "; that is KL(pixel || mean)" if abs(float(answer) - turned) < 1e-6 else ""
            return _wrong(f"pixels {pixels}: expected {right:.4f}, got {float(answer):.4f}{hint}")
    return _verdict(True, "")


def check_match_gradient(function: Callable) -> None:
    """Check a function from true-class probabilities ``[N]`` to the gradient of the first term ``[N]``."""
    for true in ([0.5], [0.9, 0.2, 0.001]):
        p = torch.tensor(true, dtype=torch.float64)
        answer = function(p)
        if answer is None:
            return print(TODO)
        logits = p.logit().requires_grad_()
        (right,) = torch.autograd.grad(-logits.sigmoid().mean().log(), logits)
        answer = torch.as_tensor(answer, dtype=torch.float64)
        if answer.shape != right.shape or not torch.allclose(answer, right):
            return _wrong(f"for {true} expected {right.tolist()}, got {answer.tolist()}")
    return _verdict(True, "")


def check_jensen(blob: Sequence[float] | None) -> None:
    """Check three probabilities whose mean's -log lies at least 0.5 below the mean of their -log."""
    if blob is None:
        return print(TODO)
    p = np.asarray(blob, float)
    if p.shape != (3,) or not ((p > 0) & (p <= 1)).all():
        return _wrong(f"expected three probabilities above 0, got {blob}")
    first, entropy = -np.log(p.mean()), -np.log(p).mean()
    return _verdict(entropy - first >= 0.5, f"first term {first:.3f}, mean cross-entropy {entropy:.3f}")


def check_residual(function: Callable) -> None:
    """Check a function from the masks of the complete and of the seen face, bool ``[H,W]``, to Eq. 1."""
    extent, face = np.array([[1, 1, 0, 0]], bool), np.array([[1, 0, 1, 0]], bool)
    answer = function(extent, face)
    if answer is None:
        return print(TODO)
    right = residual(difference(extent, face))
    if np.shape(answer) != right.shape:
        return _wrong(f"expected the shape {list(right.shape)}, got {list(np.shape(answer))}")
    if np.array_equal(np.asarray(answer, bool), extent ^ face):
        return _wrong("face outside the extent counts too: the part below 0 is to be dropped")
    return _verdict(
        np.array_equal(np.asarray(answer, bool), right), "1 only where the extent has face and none is seen"
    )


def check_survivors(answer: Sequence[int] | None) -> None:
    """Check which widths from 1 to 8 pixels ``OPENING`` leaves of bars in an image of 128 pixels."""
    if answer is None:
        return print(TODO)
    column = np.arange(128)[None]
    right = [w for w in range(1, 9) if clean((column > 9) & (column < 10 + w), OPENING).any()]
    return _verdict(
        sorted(answer) == right, "each erosion takes a pixel from the left and one from the right"
    )


def check_tempered(function: Callable) -> None:
    """Check a function of (probabilities ``[K]``, temperature) that returns them at that temperature."""
    for probabilities, temperature in (([0.9, 0.1], 1.0), ([0.8, 0.2], 2.0), ([0.7, 0.2, 0.1], 4.0)):
        q = torch.tensor(probabilities, dtype=torch.float64)
        answer = function(q, temperature)
        if answer is None:
            return print(TODO)
        right = (q.log() / temperature).softmax(0)
        answer = torch.as_tensor(answer, dtype=torch.float64)
        if answer.shape != right.shape or not torch.allclose(answer, right):
            hint = "; the sum must be 1" if abs(float(answer.sum()) - 1) > 1e-6 else ""
            return _wrong(
                f"{probabilities} at {temperature:g}: expected {[round(v, 4) for v in right.tolist()]}, "
                f"got {[round(v, 4) for v in answer.flatten().tolist()]}{hint}"
            )
    return _verdict(True, "")


def check_island_share(function: Callable) -> None:
    """Check a function that returns the share of pixels outside of the largest piece, from pieces' sizes."""
    for name, sizes, right in (
        ("one piece", [7], 0.0),
        ("two as large", [4, 4], 0.5),
        ("the largest in the middle", [1, 8, 1], 0.2),
        ("no piece", [], 0.0),
    ):
        answer = function(sizes)
        if answer is None:
            return print(TODO)
        if not np.isclose(answer, right):
            return _wrong(f"{name}, {sizes}: got {answer}")
    return _verdict(True, "")


def check_resampled_means(function: Callable) -> None:
    """Check a function that returns the mean gain of each resample, from gains and the images drawn."""
    gains, drawn = np.array([0.0, 1.0, 5.0]), np.array([[0, 1, 2], [2, 2, 2], [0, 0, 1]])
    answer = function(gains, drawn)
    if answer is None:
        return print(TODO)
    if np.shape(answer) != (3,):
        return _wrong(f"expected one mean for each of 3 resamples, got the shape {np.shape(answer)}")
    return _verdict(np.allclose(answer, [2, 5, 1 / 3]), "an image drawn twice counts twice")


def check_front(answer: Sequence[str] | None) -> None:
    """Check which of five methods no other one beats."""
    if answer is None:
        return print(TODO)
    methods = {"A": (0.78, -0.9), "B": (0.8, -1.1), "C": (0.77, -1.0), "D": (0.8, -1.3), "E": (0.7, -0.8)}
    unknown = set(answer) - set(methods)
    if unknown:
        return _wrong(f"expected letters of {list(methods)}, got {sorted(unknown)}")
    right = set(pareto_front(methods))
    if right - set(answer):
        return _wrong("a method is missing that no other one beats in both")
    return _verdict(
        set(answer) == right, "one of them is beaten: another is as good in one and better in the other"
    )


def check_spread(function: Callable) -> None:
    """Check a function of (values of trainings, digits) that returns mean ± half the range as text."""
    for values, digits, right in (
        ([0.8, 0.9], 2, "0.85 ± 0.05"),
        ([1.0, 2.0, 1.2], 1, "1.4 ± 0.5"),
        ([0.7], 3, "0.700"),
        ([], 2, "–"),
    ):
        answer = function(values, digits)
        if answer is None:
            return print(TODO)
        if answer != right:
            hint = "; one training has no spread, and none no value" if len(values) < 2 else ""
            return _wrong(f"{values} with {digits} digits: got {answer!r}{hint}")
    return _verdict(True, "")


def check_bold(function: Callable) -> None:
    """Check a function of (name → mean, digits, is more better) that returns the names to set bold."""
    for means, digits, higher, right in (
        ({"a": 0.71, "b": 0.84, "c": 0.79}, 2, True, {"b"}),
        ({"a": 1.2, "b": 0.9}, 1, False, {"b"}),
        ({"a": 0.8412, "b": 0.8388, "c": 0.79}, 2, True, {"a", "b"}),
    ):
        answer = function(means, digits, higher)
        if answer is None:
            return print(TODO)
        if set(answer) != right:
            hint = "; a reader sees the same number twice" if len(right) > 1 else ""
            return _wrong(f"{means} with {digits} digits, {higher=}: got {sorted(answer)}{hint}")
    return _verdict(True, "")


def check_greyscale(answer: Sequence[str] | None, colours: dict[str, tuple[int, int, int]]) -> None:
    """Check which two of some colours lie closest in luminance."""
    if answer is None:
        return print(TODO)
    unknown = set(answer) - set(colours)
    if unknown or len(set(answer)) != 2:
        return _wrong(f"expected two of {sorted(colours)}, got {list(answer)}")
    light = {name: luminance(rgb) for name, rgb in colours.items()}
    right = min(itertools.combinations(colours, 2), key=lambda pair: abs(light[pair[0]] - light[pair[1]]))
    return _verdict(set(answer) == set(right), "another pair lies closer: take the luminance of each")


def check_run_count(function: Callable) -> None:
    """Check a function of (grid, lists, seeds) that returns how many runs a sweep has."""
    for grid, lists, seeds, right in (
        ({}, {}, 1, 1),
        ({"alpha": [1, 10, 100], "beta": [0, 5]}, {}, 3, 18),
        ({"beta": [0, 5]}, {"width": [0.25, 0.5, 1.0], "image_size": [32, 64, 128]}, 2, 12),
    ):
        answer = function(grid, lists, seeds)
        if answer is None:
            return print(TODO)
        if answer != right:
            hint = "; lists go side by side" if lists else ""
            return _wrong(f"grid {grid}, lists {lists}, {seeds} seeds: got {answer}{hint}")
    return _verdict(True, "")


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
        if one is None or two is None:
            return print(TODO)
        if (one == two) != same:
            return _wrong(f"{name}: got {'the same key' if one == two else 'two keys'}")
    return _verdict(True, "")


def check_honest_mean(function: Callable) -> None:
    """Check a function from scores, None where a run failed, to their mean, number and how many miss."""
    for scores, right in (([0.5, 0.7], (0.6, 2, 0)), ([0.5, None, 0.7], (0.6, 2, 1)), ([None], (None, 0, 1))):
        answer = function(scores)
        if answer is None:
            return print(TODO)
        mean, *counts = answer
        if tuple(counts) != right[1:]:
            return _wrong(f"{scores}: expected n = {right[1]} and {right[2]} missing, got {counts}")
        if (mean is None) != (right[0] is None) or (mean is not None and abs(mean - right[0]) > 1e-9):
            return _wrong(f"{scores}: a failed run has no score, not a score of zero; got {mean}")
    return _verdict(True, "")


def _verdict(right: bool, why: str) -> None:
    return print("right") if right else _wrong(why)


def _wrong(why: str) -> None:
    print(f"not yet: {why}")

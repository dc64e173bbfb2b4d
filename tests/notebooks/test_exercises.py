import numpy as np
import pytest
import torch

from consensus_lib.data import FaceDataset
from consensus_lib.metrics.components import count_pieces
from support import checks, exercises


@pytest.fixture
def said(capsys):
    def after(check, *arguments):
        check(*arguments)
        return capsys.readouterr().out.strip()

    return after


def test_class_shares(said, tiny_folder):
    data = FaceDataset(tiny_folder, "train", "parts")
    labels = torch.stack([data[i]["labels"] for i in range(len(data))])
    right = (torch.bincount(labels.flatten(), minlength=3) / labels.numel()).tolist()
    assert said(exercises.check_class_shares, right, data) == "right"
    assert said(exercises.check_class_shares, None, data) == checks.TODO
    assert "one for each class" in said(exercises.check_class_shares, [1.0], data)
    assert "sum to 1" in said(exercises.check_class_shares, [1.0, 1.0, 1.0], data)
    assert "not the counts" in said(exercises.check_class_shares, [0.2, 0.3, 0.5], data)


def test_flip(said):
    assert said(exercises.check_flip, lambda i, m: (i.flip(2), m.flip(1))) == "right"
    assert said(exercises.check_flip, lambda i, m: None) == checks.TODO
    assert "labels did not follow" in said(exercises.check_flip, lambda i, m: (i.flip(2), m))
    assert "width is the last" in said(exercises.check_flip, lambda i, m: (i.flip(1), m.flip(0)))


def test_component_count(said):
    def right(labels):
        return sum(count_pieces(labels == c)[0] for c in np.unique(labels) if c > 0)

    assert said(exercises.check_component_count, right) == "right"
    assert said(exercises.check_component_count, lambda labels: None) == checks.TODO
    merged = said(exercises.check_component_count, lambda labels: count_pieces(labels > 0)[0])
    assert "two classes side by side: expected 2, got 1" in merged


def test_cross_entropy(said):
    assert said(exercises.check_cross_entropy, lambda x, k: torch.logsumexp(x, 0) - x[k]) == "right"
    assert said(exercises.check_cross_entropy, lambda x, k: None) == checks.TODO
    naive = said(exercises.check_cross_entropy, lambda x, k: -(x.exp() / x.exp().sum())[k].log())
    assert "overflows" in naive


def test_iou(said):
    def right(confusion):
        return np.diagonal(confusion) / (confusion.sum(0) + confusion.sum(1) - np.diagonal(confusion))

    assert said(exercises.check_iou, right) == "right"
    assert said(exercises.check_iou, lambda confusion: None) == checks.TODO
    assert "expected [0.75, 0.8]" in said(exercises.check_iou, lambda c: np.diagonal(c) / c.sum(1))


def test_torn_twin(said):
    truth = np.ones((3, 3), int)
    whole, torn = truth.copy(), truth.copy()
    whole[0], torn[1] = 0, 0
    assert said(exercises.check_torn_twin, truth, whole, torn) == "right"
    assert said(exercises.check_torn_twin, truth, whole, None) == checks.TODO
    assert "must stay" in said(exercises.check_torn_twin, truth, whole, truth)
    assert "not more than" in said(exercises.check_torn_twin, truth, whole, whole)
    assert "of shape (3, 3)" in said(exercises.check_torn_twin, truth, whole, np.ones((2, 2)))


def test_jensen(said):
    assert said(exercises.check_jensen, [0.9, 0.9, 0.001]) == "right"
    assert said(exercises.check_jensen, None) == checks.TODO
    assert "first term 0.105" in said(exercises.check_jensen, [0.9, 0.9, 0.9])
    assert "three probabilities" in said(exercises.check_jensen, [0.9, 0.9])


def test_sample(said):
    def right(p):
        return torch.multinomial(p.flatten(1).T, 1).view(p.shape[1:])

    assert said(exercises.check_sample, right) == "right"
    assert said(exercises.check_sample, lambda p: None) == checks.TODO
    assert "likeliest class" in said(exercises.check_sample, lambda p: p.argmax(0))
    assert "shape [3, 60, 80]" in said(exercises.check_sample, lambda p: p)
    rows = said(exercises.check_sample, lambda p: torch.multinomial(p[:, :, 0].T, 1).expand(60, 80))
    assert "neighbours" in rows or "shares" in rows


def test_size_weights(said):
    def right(sizes, gamma):
        return sizes**gamma / (sizes**gamma).sum()

    assert said(exercises.check_size_weights, right) == "right"
    assert said(exercises.check_size_weights, lambda s, g: None) == checks.TODO
    assert "weights sum to 1" in said(exercises.check_size_weights, lambda s, g: s**g)
    assert "got the shape []" in said(exercises.check_size_weights, lambda s, g: s.sum())


def test_turning_beta(said):
    assert said(exercises.check_turning_beta, None) == checks.TODO
    assert said(exercises.check_turning_beta, 0.1) == "not yet: near β = 0.1 they are pulled up"
    assert "pulled down" in said(exercises.check_turning_beta, torch.tensor([5.0]))
    assert "from 0 to 10" in said(exercises.check_turning_beta, -1.0)
    assert "right" in {said(exercises.check_turning_beta, beta / 20) for beta in range(5, 20)}


CHECKS = [getattr(exercises, name) for name in dir(exercises) if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "answer", ["text", 7.5, [], [None], {"a": 1}, np.zeros((2, 3)), torch.zeros(2, 2, 2)], ids=str
)
def test_no_answer_of_another_form_raises_inside_a_check(check, answer, said, tiny_folder):
    """Neither as a value nor as what a function returns."""
    more = {
        "check_class_shares": (FaceDataset(tiny_folder, "train", "parts"),),
        "check_greyscale": ({"a": (0, 0, 0), "b": (1, 1, 1)},),
    }.get(check.__name__, ())
    before = (np.zeros((2, 2)),) * 2 if check is exercises.check_torn_twin else ()
    assert said(check, *before, answer, *more).startswith("not yet: ")
    assert said(check, *before, lambda *_: answer, *more).startswith("not yet: ")


def test_an_error_in_the_readers_function_names_its_line(said):
    def raises(confusion):
        hit = confusion.diagonal()
        return hit / missing  # noqa: F821

    expected = "not yet: line 3 of your function raised NameError: name 'missing' is not defined"
    assert said(exercises.check_iou, raises) == expected


def test_residual(said):
    assert said(exercises.check_residual, lambda extent, face: extent & ~face) == "right"
    assert said(exercises.check_residual, lambda extent, face: None) == checks.TODO
    assert "below 0" in said(exercises.check_residual, lambda extent, face: extent ^ face)
    assert "expected the shape [1, 4]" in said(exercises.check_residual, lambda extent, face: [True])
    assert "none is seen" in said(exercises.check_residual, lambda extent, face: extent)


def test_survivors(said):
    assert said(exercises.check_survivors, [5, 6, 7, 8]) == "right"
    assert said(exercises.check_survivors, None) == checks.TODO
    assert "from the left" in said(exercises.check_survivors, [3, 4, 5, 6, 7, 8])


def test_tempered(said):
    def right(q, temperature):
        return q ** (1 / temperature) / (q ** (1 / temperature)).sum()

    assert said(exercises.check_tempered, right) == "right"
    assert said(exercises.check_tempered, lambda q, t: None) == checks.TODO
    assert "sum must be 1" in said(exercises.check_tempered, lambda q, t: q ** (1 / t))
    assert "[0.8, 0.2] at 2: expected [0.6667, 0.3333]" in said(exercises.check_tempered, lambda q, t: q)


def test_island_share(said):
    def right(sizes):
        return 1 - max(sizes) / sum(sizes) if sizes else 0.0

    assert said(exercises.check_island_share, right) == "right"
    assert said(exercises.check_island_share, lambda sizes: None) == checks.TODO
    assert "one piece, [7]: got 1" in said(exercises.check_island_share, lambda sizes: 1.0)
    first = said(exercises.check_island_share, lambda sizes: 1 - sizes[0] / sum(sizes) if sizes else 0.0)
    assert "the largest in the middle" in first


def test_resampled_means(said):
    assert said(exercises.check_resampled_means, lambda gains, drawn: gains[drawn].mean(1)) == "right"
    assert said(exercises.check_resampled_means, lambda gains, drawn: None) == checks.TODO
    assert "shape ()" in said(exercises.check_resampled_means, lambda gains, drawn: gains[drawn].mean())
    unique = said(
        exercises.check_resampled_means, lambda gains, drawn: [gains[list({*d})].mean() for d in drawn]
    )
    assert "counts twice" in unique


def test_front(said):
    assert said(exercises.check_front, ["E", "A", "B"]) == "right"
    assert said(exercises.check_front, None) == checks.TODO
    assert "missing" in said(exercises.check_front, ["A", "B"])
    assert "beaten" in said(exercises.check_front, ["A", "B", "D", "E"])
    assert "got ['F']" in said(exercises.check_front, ["F"])


def test_spread(said):
    def right(values, digits):
        if not values:
            return "–"
        mean = f"{np.mean(values):.{digits}f}"
        return f"{mean} ± {np.ptp(values) / 2:.{digits}f}" if len(values) > 1 else mean

    assert said(exercises.check_spread, right) == "right"
    assert said(exercises.check_spread, lambda values, digits: None) == checks.TODO
    both = said(exercises.check_spread, lambda v, d: f"{np.mean(v):.{d}f} ± {np.ptp(v) / 2:.{d}f}")
    assert "one training has no spread" in both


def test_bold(said):
    def right(means, digits, higher):
        shown = {name: round(mean, digits) for name, mean in means.items()}
        best = (max if higher else min)(shown.values())
        return [name for name, mean in shown.items() if mean == best]

    assert said(exercises.check_bold, right) == "right"
    assert said(exercises.check_bold, lambda m, d, h: None) == checks.TODO
    assert "higher=False" in said(exercises.check_bold, lambda m, d, h: [max(m, key=m.get)])
    single = said(exercises.check_bold, lambda m, d, h: [(max if h else min)(m, key=m.get)])
    assert "sees the same number twice" in single


def test_greyscale(said):
    colours = {"a": (200, 0, 0), "b": (0, 110, 0), "c": (255, 255, 255)}
    assert said(exercises.check_greyscale, ["b", "a"], colours) == "right"
    assert said(exercises.check_greyscale, None, colours) == checks.TODO
    assert "expected two" in said(exercises.check_greyscale, ["a", "d"], colours)
    assert "another pair" in said(exercises.check_greyscale, ["a", "c"], colours)


def test_run_count(said):
    def right(grid, lists, seeds):
        longest = [len(values) for values in lists.values()][:1]
        return seeds * int(np.prod([len(values) for values in grid.values()] + longest))

    assert said(exercises.check_run_count, right) == "right"
    assert said(exercises.check_run_count, lambda g, z, s: None) == checks.TODO
    product = said(
        exercises.check_run_count, lambda g, z, s: s * int(np.prod([len(v) for v in (g | z).values()]))
    )
    assert "lists go side by side" in product


def test_run_key(said):
    assert said(exercises.check_run_key, lambda p: repr(sorted(p.items()))) == "right"
    assert said(exercises.check_run_key, lambda p: None) == checks.TODO
    assert "another order: got two keys" in said(exercises.check_run_key, repr)
    assert "another value: got the same key" in said(exercises.check_run_key, lambda p: str(sorted(p)))
    assert "instead of a number" in said(
        exercises.check_run_key, lambda p: " ".join(sorted(f"{k}={v}" for k, v in p.items()))
    )


def test_honest_mean(said):
    def right(scores):
        known = [score for score in scores if score is not None]
        return sum(known) / len(known) if known else None, len(known), len(scores) - len(known)

    assert said(exercises.check_honest_mean, right) == "right"
    assert said(exercises.check_honest_mean, lambda s: None) == checks.TODO
    zeros = said(exercises.check_honest_mean, lambda s: (sum(x or 0 for x in s) / len(s), *right(s)[1:]))
    assert "not a score of zero" in zeros
    assert "expected n = 2 and 1 missing" in said(exercises.check_honest_mean, lambda s: (0.6, len(s), 0))

"""What the checks say of wrong answers. That they call the solutions right is tested with the notebooks."""

import numpy as np
import pytest
import torch

from consensus_lib.data import FaceDataset
from consensus_lib.metrics.components import count_pieces
from support import checks, exercises

TRUTH = np.ones((3, 3), int)
WHOLE = np.array([[0, 0, 0], [1, 1, 1], [1, 1, 1]])
TINTS = {"a": (200, 0, 0), "b": (0, 110, 0), "c": (255, 255, 255)}
BEFORE = {"check_torn_twin": (TRUTH, WHOLE)}
AFTER = {"check_greyscale": (TINTS,)}
CHECKS = [name for name in dir(exercises) if name.startswith("check_")]


@pytest.fixture
def said(capsys, tiny_folder):
    def after(name, answer):
        more = AFTER.get(name, ())
        if name == "check_class_shares":
            more = (FaceDataset(tiny_folder, "train", "parts"),)
        getattr(exercises, name)(*BEFORE.get(name, ()), answer, *more)
        return capsys.readouterr().out.strip()

    return after


def mean_known(scores):
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None


WRONG = {
    "check_class_shares": [
        ([1.0], "one for each class"),
        ([1.0, 1.0, 1.0], "sum to 1"),
        ([0.2, 0.3, 0.5], "not the counts"),
    ],
    "check_flip": [
        (lambda i, m: (i.flip(2), m), "labels did not follow"),
        (lambda i, m: (i.flip(1), m.flip(0)), "width is the last"),
    ],
    "check_component_count": [
        (lambda labels: count_pieces(labels > 0)[0], "two classes side by side: expected 2, got 1")
    ],
    "check_share_covered": [
        (lambda face, occluder: occluder.sum() / face.sum(), "beside the face does not count"),
        (lambda face, occluder: (face & occluder).mean(), "the toy of section 3: expected 0.25, got 0.125"),
    ],
    "check_cross_entropy": [(lambda x, k: -(x.exp() / x.exp().sum())[k].log(), "overflows")],
    "check_iou": [(lambda c: np.diagonal(c) / c.sum(1), "expected [0.75, 0.8]")],
    "check_torn_twin": [
        (TRUTH, "must stay"),
        (WHOLE, "not more than"),
        (np.ones((2, 2)), "of shape (3, 3)"),
    ],
    "check_jensen": [([0.9, 0.9, 0.9], "first term 0.105"), ([0.9, 0.9], "three probabilities")],
    "check_sample": [
        (lambda p: p.argmax(0), "likeliest class"),
        (lambda p: p, "shape [3, 60, 80]"),
        (lambda p: torch.multinomial(p[:, :, 0].T, 60, replacement=True)[:, :1].expand(60, 80), "not yet"),
    ],
    "check_size_weights": [
        (lambda s, g: s**g, "weights sum to 1"),
        (lambda s, g: s.sum(), "got the shape []"),
    ],
    "check_turning_beta": [
        (0.1, "near β = 0.1 they are pulled up"),
        (torch.tensor([5.0]), "pulled down"),
        (-1.0, "from 0 to 10"),
    ],
    "check_residual": [
        (lambda extent, face: extent ^ face, "below 0"),
        (lambda extent, face: [True], "expected the shape [1, 4]"),
        (lambda extent, face: extent, "none is seen"),
    ],
    "check_survivors": [([3, 4, 5, 6, 7, 8], "from the left")],
    "check_tempered": [
        (lambda q, t: q ** (1 / t), "sum must be 1"),
        (lambda q, t: q, "[0.8, 0.2] at 2: expected [0.6667, 0.3333]"),
    ],
    "check_island_share": [
        (lambda sizes: 1.0, "one piece, [7]: got 1"),
        (lambda sizes: 1 - sizes[0] / sum(sizes) if sizes else 0.0, "the largest in the middle"),
    ],
    "check_resampled_means": [
        (lambda gains, drawn: gains[drawn].mean(), "shape ()"),
        (lambda gains, drawn: [gains[list({*d})].mean() for d in drawn], "counts twice"),
    ],
    "check_front": [
        (["A", "B"], "missing"),
        (["A", "B", "D", "E"], "beaten"),
        (["F"], "got ['F']"),
    ],
    "check_publish": [
        ("A", "one seed has no interval"),
        ("c", "a class has collapsed"),
        ("D", "twelve tries"),
        ("E", "expected one letter"),
    ],
    "check_spread": [
        (lambda v, d: f"{np.mean(v):.{d}f} ± {np.ptp(v) / 2:.{d}f}", "one training has no spread")
    ],
    "check_bold": [
        (lambda m, d, h: [max(m, key=m.get)], "higher=False"),
        (lambda m, d, h: [(max if h else min)(m, key=m.get)], "sees the same number twice"),
    ],
    "check_greyscale": [(["a", "d"], "expected two"), (["a", "c"], "another pair")],
    "check_run_count": [
        (lambda g, z, s: s * int(np.prod([len(v) for v in (g | z).values()])), "lists go side by side")
    ],
    "check_run_key": [
        (repr, "another order: got two keys"),
        (lambda p: str(sorted(p)), "another value: got the same key"),
        (lambda p: " ".join(sorted(f"{k}={v}" for k, v in p.items())), "instead of a number"),
    ],
    "check_honest_mean": [
        (lambda s: (sum(x or 0 for x in s) / len(s), len(s) - s.count(None), s.count(None)), "score of zero"),
        (lambda s: (mean_known(s), len(s), 0), "expected n = 2 and 1 missing"),
    ],
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_wrong_answer_is_explained(name, said):
    for answer, words in WRONG[name]:
        assert said(name, answer).startswith("not yet: ")
        assert words in said(name, answer)


@pytest.mark.parametrize("name", CHECKS)
def test_an_answer_not_given_or_of_another_form_does_not_raise_inside_a_check(name, said):
    """Neither as a value nor as what a function returns."""
    assert said(name, None) == checks.TODO
    for answer in ("text", 7.5, [], [None], {"a": 1}, np.zeros((2, 3)), torch.zeros(2, 2, 2)):
        assert said(name, answer).startswith("not yet: ")
        assert said(name, lambda *_, answer=answer: answer).startswith("not yet: ")


def test_right_answers_that_no_solution_gives_as_code(said, tiny_folder):
    data = FaceDataset(tiny_folder, "train", "parts")
    labels = torch.stack([data[i]["labels"] for i in range(len(data))])
    shares = (torch.bincount(labels.flatten(), minlength=3) / labels.numel()).tolist()
    assert said("check_class_shares", shares) == "right"
    assert said("check_greyscale", ["b", "a"]) == "right"


def test_an_error_in_the_readers_function_names_its_line(said):
    def raises(confusion):
        hit = confusion.diagonal()
        return hit / missing  # noqa: F821

    expected = "not yet: line 3 of your function raised NameError: name 'missing' is not defined"
    assert said("check_iou", raises) == expected

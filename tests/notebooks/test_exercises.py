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
    "check_class_shares": [[1.0], [1.0, 1.0, 1.0], [0.2, 0.3, 0.5]],
    "check_flip": [lambda image, labels: (image.flip(2), labels), lambda i, m: (i.flip(1), m.flip(0))],
    "check_component_count": [lambda labels: count_pieces(labels > 0)[0]],
    "check_share_covered": [
        lambda face, occluder: occluder.sum() / face.sum(),  # beside the face, too
        lambda face, occluder: (face & occluder).mean(),  # of the image
    ],
    "check_cross_entropy": [lambda x, k: -(x.exp() / x.exp().sum())[k].log()],  # overflows
    "check_iou": [lambda confusion: np.diagonal(confusion) / confusion.sum(1)],
    "check_torn_twin": [TRUTH, WHOLE, np.ones((2, 2))],
    "check_jensen": [[0.9, 0.9, 0.9], [0.9, 0.9]],
    "check_sample": [
        lambda p: p.argmax(0),
        lambda p: p,
        lambda p: torch.multinomial(p[:, :, 0].T, 60, replacement=True)[:, :1].expand(60, 80),  # rows alike
    ],
    "check_size_weights": [lambda sizes, gamma: sizes**gamma, lambda sizes, gamma: sizes.sum()],
    "check_turning_beta": [0.1, torch.tensor([5.0]), -1.0],
    "check_residual": [
        lambda extent, face: extent ^ face,
        lambda extent, face: [True],
        lambda extent, face: extent,
    ],
    "check_survivors": [[3, 4, 5, 6, 7, 8]],
    "check_tempered": [lambda q, t: q ** (1 / t), lambda q, t: q],
    "check_island_share": [lambda sizes: 1.0, lambda sizes: 1 - sizes[0] / sum(sizes) if sizes else 0.0],
    "check_resampled_means": [
        lambda gains, drawn: gains[drawn].mean(),
        lambda gains, drawn: [gains[list({*d})].mean() for d in drawn],  # each image once
    ],
    "check_front": [["A", "B"], ["A", "B", "D", "E"], ["F"]],
    "check_publish": ["A", "c", "D", "E"],
    "check_spread": [
        lambda values, digits: f"{np.mean(values):.{digits}f} ± {np.ptp(values) / 2:.{digits}f}"
    ],
    "check_bold": [
        lambda means, digits, higher: [max(means, key=means.get)],
        lambda means, digits, higher: [(max if higher else min)(means, key=means.get)],  # one of equals
    ],
    "check_greyscale": [["a", "d"], ["a", "c"]],
    "check_run_count": [
        lambda grid, lists, seeds: seeds * int(np.prod([len(v) for v in (grid | lists).values()]))
    ],
    "check_run_key": [
        repr,
        lambda run: str(sorted(run)),
        lambda run: " ".join(sorted(f"{k}={v}" for k, v in run.items())),
    ],
    "check_honest_mean": [
        lambda s: (sum(x or 0 for x in s) / len(s), len(s) - s.count(None), s.count(None)),
        lambda s: (mean_known(s), len(s), 0),
    ],
}
"""Check → mistakes that it tells apart."""


@pytest.mark.parametrize("name", CHECKS)
def test_each_mistake_has_its_own_explanation(name, said):
    found = {said(name, answer) for answer in WRONG[name]}
    assert all(text.startswith("not yet: ") for text in found)
    assert len(found) == len(WRONG[name])


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
